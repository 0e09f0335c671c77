//! Rearrangements: broadcast, reshape, permute, slice, and embed, the transpose of slice. All are linear.

use super::build::{linear_apply, sum};
use crate::error::{Error, Result};
use crate::graph::{Derivative, Graph, Layout, Op, Rule, TensorType, Val, Vals};
use crate::machine::cpu::view::{View, copy};
use crate::shape::{Shape, broadcasts_to};
use smallvec::SmallVec;

pub static BROADCAST: Derivative = Derivative::Linear { apply: linear_apply, transpose: sum_back };
pub static RESHAPE: Derivative = Derivative::Linear { apply: linear_apply, transpose: reshape_back };
pub static PERMUTE: Derivative = Derivative::Linear { apply: linear_apply, transpose: permute_back };
pub static SLICE: Derivative = Derivative::Linear { apply: linear_apply, transpose: embed };
pub static EMBED: Derivative = Derivative::Linear { apply: linear_apply, transpose: slice };

/// `x` repeated to `shape` by NumPy's rule.
pub fn broadcast_to(g: &mut Graph, x: Val, shape: &Shape) -> Result<Val> {
    let ty = g.ty(x).clone();
    if ty.shape == *shape {
        return Ok(x);
    }
    if !broadcasts_to(&ty.shape, shape) {
        return Err(Error::shape(format!("broadcast_to: shape {} does not broadcast to {shape}", ty.shape)));
    }
    if let Some(value) = g.constant(x) {
        return Ok(g.full(value, TensorType { dtype: ty.dtype, shape: shape.clone() }));
    }
    Ok(g.add_typed(Op::Layout(Layout::Broadcast), &[x], TensorType { dtype: ty.dtype, shape: shape.clone() }))
}

/// `x` with another shape of as many elements, in row-major order.
pub fn reshape(g: &mut Graph, x: Val, shape: &Shape) -> Result<Val> {
    let ty = g.ty(x).clone();
    if ty.shape == *shape {
        return Ok(x);
    }
    if ty.shape.size() != shape.size() {
        return Err(Error::shape(format!(
            "reshape: shape {} has {} elements, {shape} has {}",
            ty.shape,
            ty.shape.size(),
            shape.size()
        )));
    }
    Ok(g.add_typed(Op::Layout(Layout::Reshape), &[x], TensorType { dtype: ty.dtype, shape: shape.clone() }))
}

/// `x` with output axis i taken from input axis `perm[i]`.
pub fn permute(g: &mut Graph, x: Val, perm: &[usize]) -> Result<Val> {
    if perm.iter().enumerate().all(|(i, &axis)| i == axis) {
        return Ok(x);
    }
    let perm = perm.iter().map(|&axis| axis as u8).collect();
    g.add(Op::Layout(Layout::Permute(perm)), &[x])
}

/// `x` with its last two axes exchanged.
pub fn swap_last(g: &mut Graph, x: Val) -> Result<Val> {
    let rank = g.shape(x).rank();
    let mut perm: SmallVec<[usize; 8]> = (0..rank).collect();
    perm.swap(rank - 1, rank - 2);
    permute(g, x, &perm)
}

/// `x` at the position (`starts`, steps of `dims`) of zeros of type `ty`.
fn embed_in(g: &mut Graph, op: Op, x: Val, starts: &[Val], ty: TensorType) -> Val {
    let inputs: Vals = std::iter::once(x).chain(starts.iter().copied()).collect();
    g.add_typed(op, &inputs, ty)
}

/// The part of `x` from `start` along `axis`, `length` long.
pub fn narrow(g: &mut Graph, x: Val, axis: usize, start: usize, length: usize) -> Result<Val> {
    let start = g.full(start as i64, TensorType::scalar(crate::dtype::DType::I64));
    let dims = smallvec::smallvec![crate::graph::SliceDim { axis: axis as u8, length, step: 1 }];
    g.add(Op::Layout(Layout::Slice(dims)), &[x, start])
}

fn cotangent(cotangents: &[Option<Val>]) -> Result<Val> {
    cotangents[0].ok_or_else(|| Error::internal("a transpose was asked without a cotangent"))
}

fn sum_back(g: &mut Graph, rule: &Rule, cotangents: &[Option<Val>], _: usize) -> Result<Val> {
    let ct = cotangent(cotangents)?;
    let (small, large) = (g.shape(rule.inputs[0]).clone(), g.shape(ct).clone());
    let added = large.rank() - small.rank();
    let repeated = |axis: usize| axis < added || (small[axis - added] == 1 && large[axis] != 1);
    let mask = (0..large.rank()).filter(|&axis| repeated(axis)).fold(0u32, |mask, axis| mask | 1 << axis);
    let summed = sum(g, ct, mask)?;
    reshape(g, summed, &small)
}

fn reshape_back(g: &mut Graph, rule: &Rule, cotangents: &[Option<Val>], _: usize) -> Result<Val> {
    let shape = g.shape(rule.inputs[0]).clone();
    reshape(g, cotangent(cotangents)?, &shape)
}

fn permute_back(g: &mut Graph, rule: &Rule, cotangents: &[Option<Val>], _: usize) -> Result<Val> {
    let Op::Layout(Layout::Permute(perm)) = rule.op else {
        return Err(Error::internal("permute_back on another op"));
    };
    let mut inverse: SmallVec<[usize; 8]> = SmallVec::from_elem(0, perm.len());
    perm.iter().enumerate().for_each(|(i, &axis)| inverse[axis as usize] = i);
    permute(g, cotangent(cotangents)?, &inverse)
}

fn embed(g: &mut Graph, rule: &Rule, cotangents: &[Option<Val>], _: usize) -> Result<Val> {
    let Op::Layout(Layout::Slice(dims)) = rule.op else {
        return Err(Error::internal("embed on another op"));
    };
    let ty = g.ty(rule.inputs[0]).clone();
    Ok(embed_in(g, Op::Embed(dims.clone()), cotangent(cotangents)?, &rule.inputs[1..], ty))
}

fn slice(g: &mut Graph, rule: &Rule, cotangents: &[Option<Val>], _: usize) -> Result<Val> {
    let Op::Embed(dims) = rule.op else {
        return Err(Error::internal("slice on another op"));
    };
    let inputs: Vals = std::iter::once(cotangent(cotangents)?).chain(rule.inputs[1..].iter().copied()).collect();
    g.add(Op::Layout(Layout::Slice(dims.clone())), &inputs)
}

/// Zeros in `out`, then `from` at its window, a view into `out`.
///
/// # Safety
/// The views lie in valid memory; `out` is contiguous and overlaps `from` nowhere.
pub unsafe fn embed_elements(from: &View, window: &View, out: &View) {
    // SAFETY: the caller's promise; zero bytes are zeros in every dtype.
    unsafe {
        out.ptr.write_bytes(0, out.shape.size() * out.dtype.size());
        copy(from, window);
    }
}
