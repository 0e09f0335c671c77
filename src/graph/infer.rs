//! Type inference: the shapes and dtypes of an op's outputs, the same when a user records it and when a rule builds
//! it. Elementwise ops take equal shapes and dtypes here; recording inserts the broadcasts and casts.

use super::TensorType;
use super::def::{Promote, same_shape};
use super::op::{GatherMode, Layout, Op, SliceDim, Source};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::Shape;
use smallvec::{SmallVec, smallvec};

type Types = SmallVec<[TensorType; 1]>;

pub fn infer(op: &Op, inputs: &[&TensorType]) -> Result<Types> {
    let name = op.name();
    let one = |dtype: DType, shape: Shape| -> Result<Types> { Ok(smallvec![TensorType { dtype, shape }]) };
    match op {
        Op::Marker | Op::Detach | Op::After => one(inputs[0].dtype, inputs[0].shape.clone()),
        Op::Unary(def) => {
            let dtype = elementwise(name, def.promote, inputs[0].dtype, (def.kernels)(inputs[0].dtype).is_some())?;
            one(dtype, inputs[0].shape.clone())
        }
        Op::Binary(def) => {
            let shape = same_shape(name, inputs)?;
            same_dtype(name, inputs)?;
            let dtype = elementwise(name, def.promote, inputs[0].dtype, (def.kernels)(inputs[0].dtype).is_some())?;
            one(dtype, shape.clone())
        }
        Op::Select => {
            let shape = same_shape(name, inputs)?;
            same_dtype(name, &inputs[1..])?;
            if inputs[0].dtype != DType::Bool {
                return Err(Error::dtype(format!("where: the condition is {}, it must be bool", inputs[0].dtype)));
            }
            one(inputs[1].dtype, shape.clone())
        }
        Op::Cast(dtype) => one(*dtype, inputs[0].shape.clone()),
        Op::Reduce(def, axes) => {
            let shape = &inputs[0].shape;
            if (def.kernels)(inputs[0].dtype).is_none() {
                return Err(Error::dtype(format!("{name}: {} is not supported", inputs[0].dtype)));
            }
            let empty = shape.iter().enumerate().any(|(axis, &dim)| axes >> axis & 1 == 1 && dim == 0);
            if empty && def.empty.is_none() {
                return Err(Error::value(format!("{name}: the reduced axes of shape {shape} are empty")));
            }
            one(inputs[0].dtype, shape.without(*axes))
        }
        Op::Layout(Layout::Permute(perm)) => {
            one(inputs[0].dtype, perm.iter().map(|&axis| inputs[0].shape[axis as usize]).collect())
        }
        Op::Layout(Layout::Slice(dims)) => one(inputs[0].dtype, sliced(&inputs[0].shape, dims)),
        Op::Concat(axis) => concat(inputs, *axis as usize),
        Op::Gather(mode, axis) => gather(name, *mode, *axis as usize, inputs),
        Op::Contract => contract(inputs[0], inputs[1]),
        Op::Composite(def, attrs) => (def.infer)(attrs, inputs),
        Op::Gradient(spec) => {
            let wrt = inputs.len() - spec.wrt as usize;
            Ok(inputs[wrt..].iter().map(|&ty| ty.clone()).collect())
        }
        Op::Jvp(spec) => Ok(inputs[..spec.targets as usize].iter().map(|&ty| ty.clone()).collect()),
        Op::Batch(spec) => Ok(inputs[..spec.targets as usize]
            .iter()
            .map(|ty| {
                let mut shape = ty.shape.clone();
                shape.insert(0, spec.size);
                TensorType { dtype: ty.dtype, shape }
            })
            .collect()),
        Op::CustomGradient(_) => one(inputs[0].dtype, inputs[0].shape.clone()),
        Op::Pullback(n) => one(inputs[*n as usize].dtype, inputs[*n as usize].shape.clone()),
        Op::Source(_)
        | Op::Layout(Layout::Broadcast | Layout::Reshape)
        | Op::Embed(_)
        | Op::Scatter(..)
        | Op::Conv(..)
        | Op::Pool(..)
        | Op::Random(_) => Err(Error::internal(format!("{name}: the type must be given"))),
    }
}

/// Whether the type of this op's output is part of the op: it must then be in a plan's key.
pub fn is_typed(op: &Op) -> bool {
    matches!(
        op,
        Op::Source(Source::Leaf(_) | Source::Number(_) | Source::Full(_) | Source::Iota | Source::Placeholder)
            | Op::Layout(Layout::Broadcast | Layout::Reshape)
            | Op::Embed(_)
            | Op::Scatter(..)
            | Op::Conv(..)
            | Op::Pool(..)
            | Op::Random(_)
    )
}

fn elementwise(op: &str, promote: Promote, dtype: DType, supported: bool) -> Result<DType> {
    match (supported, promote) {
        (false, _) => Err(Error::dtype(format!("{op}: {dtype} is not supported"))),
        (true, Promote::Compare) => Ok(DType::Bool),
        (true, Promote::Same | Promote::Float) => Ok(dtype),
    }
}

fn same_dtype(op: &str, inputs: &[&TensorType]) -> Result<()> {
    match inputs.iter().find(|other| other.dtype != inputs[0].dtype) {
        Some(other) => Err(Error::internal(format!("{op}: mixed dtypes {} and {}", inputs[0].dtype, other.dtype))),
        None => Ok(()),
    }
}

pub fn sliced(shape: &Shape, dims: &[SliceDim]) -> Shape {
    let mut shape = shape.clone();
    dims.iter().for_each(|d| shape.dims_mut()[d.axis as usize] = d.length);
    shape
}

fn concat(inputs: &[&TensorType], axis: usize) -> Result<Types> {
    let first = inputs[0];
    let mut shape = first.shape.clone();
    let mut total = 0usize;
    for ty in inputs {
        let fits = ty.shape.rank() == shape.rank()
            && ty.shape.iter().zip(first.shape.iter()).enumerate().all(|(i, (a, b))| i == axis || a == b);
        if !fits {
            return Err(Error::shape(format!(
                "concat: shapes {} and {} must agree on every axis but {axis}",
                first.shape, ty.shape
            )));
        }
        total += ty.shape[axis];
    }
    same_dtype("concat", inputs)?;
    shape.dims_mut()[axis] = total;
    Ok(smallvec![TensorType { dtype: first.dtype, shape: shape.checked("concat")? }])
}

fn gather(op: &str, mode: GatherMode, axis: usize, inputs: &[&TensorType]) -> Result<Types> {
    let (x, indices) = (inputs[0], inputs[1]);
    if indices.dtype != DType::I64 {
        return Err(Error::dtype(format!("{op}: indices are {}, they must be int64", indices.dtype)));
    }
    let shape: Shape = match mode {
        GatherMode::Take => {
            x.shape[..axis].iter().chain(indices.shape.iter()).chain(&x.shape[axis + 1..]).copied().collect()
        }
        GatherMode::Along => {
            let agree = x.shape.rank() == indices.shape.rank()
                && x.shape.iter().zip(indices.shape.iter()).enumerate().all(|(i, (a, b))| i == axis || a == b);
            if !agree {
                return Err(Error::shape(format!(
                    "{op}: tensor {} and indices {} must agree on every axis but {axis}",
                    x.shape, indices.shape
                )));
            }
            indices.shape.clone()
        }
    };
    Ok(smallvec![TensorType { dtype: x.dtype, shape: shape.checked(op)? }])
}

fn contract(a: &TensorType, b: &TensorType) -> Result<Types> {
    same_dtype("matmul", &[a, b])?;
    let rank = a.shape.rank();
    let fits = rank >= 2
        && rank == b.shape.rank()
        && a.shape[..rank - 2] == b.shape[..rank - 2]
        && a.shape[rank - 1] == b.shape[rank - 2];
    if !fits {
        return Err(Error::shape(format!("matmul: shapes {} and {} do not fit", a.shape, b.shape)));
    }
    let mut shape = a.shape.clone();
    shape.dims_mut()[rank - 1] = b.shape[rank - 1];
    Ok(smallvec![TensorType { dtype: a.dtype, shape: shape.checked("matmul")? }])
}
