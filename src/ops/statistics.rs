//! Mean, variance and norm over axes. Their rules are written out: differentiating the expansions would move the mean
//! where it cannot matter, and divide by a norm of zero.

use super::arithmetic::{DIVIDE, SQUARE, given_tangent};
use super::build::*;
use super::exponential::SQRT;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Attrs, CompositeDef, Graph, Op, Reads, Rule, Tangents, TensorType, Val};
use smallvec::{SmallVec, smallvec};

pub static MEAN: CompositeDef = CompositeDef {
    name: "mean",
    doc: "The sum of x over the axes divided by the number of elements; NaN if there are none.",
    attrs: &["mask of the axes, which are dropped"],
    infer: |attrs, inputs| reduced("mean", attrs, inputs),
    expand: |g, attrs, inputs| Ok(smallvec![mean(g, inputs[0], attrs[0] as u32)?]),
    derivative: Some(mean_tangent),
    transpose: None,
    reads: Reads::NONE,
    kernel: None,
};

pub static VAR: CompositeDef = CompositeDef {
    name: "var",
    doc: "Σ(x - mean)² / (n - correction) over the axes, n elements each; the divisor is at least 0.",
    attrs: &["mask of the axes, which are dropped", "the bits of correction as a float64"],
    infer: |attrs, inputs| reduced("var", attrs, inputs),
    expand: |g, attrs, inputs| {
        let axes = attrs[0] as u32;
        let centred = centred(g, inputs[0], axes)?;
        let squares = unary(g, &SQUARE, centred)?;
        let total = sum(g, squares, axes)?;
        let divisor = full_like(g, degrees(g, inputs[0], attrs), total);
        Ok(smallvec![binary(g, &DIVIDE, total, divisor)?])
    },
    derivative: Some(var_tangent),
    transpose: None,
    reads: Reads::INPUT,
    kernel: None,
};

pub static NORM: CompositeDef = CompositeDef {
    name: "vector_norm",
    doc: "√Σx² over the axes. The gradient where the norm is 0 is 0.",
    attrs: &["mask of the axes, which are dropped"],
    infer: |attrs, inputs| reduced("vector_norm", attrs, inputs),
    expand: |g, attrs, inputs| {
        let squares = unary(g, &SQUARE, inputs[0])?;
        let total = sum(g, squares, attrs[0] as u32)?;
        Ok(smallvec![unary(g, &SQRT, total)?])
    },
    derivative: Some(norm_tangent),
    transpose: None,
    reads: Reads { inputs: 1, outputs: 1 },
    kernel: None,
};

/// The type of a composite that drops the axes of its first attribute and needs floats.
pub(super) fn reduced(op: &str, attrs: &Attrs, inputs: &[&TensorType]) -> Result<SmallVec<[TensorType; 1]>> {
    float_only(op, inputs[0])?;
    Ok(smallvec![TensorType { dtype: inputs[0].dtype, shape: inputs[0].shape.without(attrs[0] as u32) }])
}

/// Refuses what is not a float.
pub(super) fn float_only(op: &str, ty: &TensorType) -> Result<()> {
    match ty.dtype {
        DType::F32 | DType::F64 => Ok(()),
        other => Err(Error::dtype(format!("{op}: {other} is not supported; astype a float dtype first"))),
    }
}

/// Refuses operands that are not of one float dtype. A call promotes its floats first, so only what is no float differs.
pub(super) fn one_float(op: &str, names: &[&str], inputs: &[&TensorType]) -> Result<()> {
    let float = inputs.iter().map(|ty| ty.dtype).find(|dtype| dtype.is_float()).unwrap_or(DType::F32);
    let Some(wrong) = names.iter().zip(inputs).find(|(_, ty)| ty.dtype != float) else { return Ok(()) };
    let all: Vec<String> = names.iter().zip(inputs).map(|(name, ty)| format!("{name} is {}", ty.dtype)).collect();
    Err(Error::dtype(format!("{op}: {}: all must be floats, as {}.astype(wg.{float}) is", all.join(", "), wrong.0)))
}

/// The number of elements that go into each reduced one.
fn count(g: &Graph, x: Val, axes: u32) -> usize {
    let shape = g.shape(x);
    (0..shape.rank()).filter(|axis| axes >> axis & 1 == 1).map(|axis| shape[axis]).product()
}

fn degrees(g: &Graph, x: Val, attrs: &Attrs) -> f64 {
    (count(g, x, attrs[0] as u32) as f64 - f64::from_bits(attrs[1] as u64)).max(0.0)
}

/// The mean over the axes of the mask, which are dropped.
pub fn mean(g: &mut Graph, x: Val, axes: u32) -> Result<Val> {
    let n = count(g, x, axes);
    if n == 1 {
        let shape = g.shape(x).without(axes);
        return super::reshape(g, x, &shape);
    }
    let total = sum(g, x, axes)?;
    let n = full_like(g, n as f64, total);
    divide(g, total, n)
}

/// x less its mean over the axes.
pub(super) fn centred(g: &mut Graph, x: Val, axes: u32) -> Result<Val> {
    let middle = g.add(Op::Composite(&MEAN, smallvec![i64::from(axes)]), &[x])?;
    let middle = spread(g, middle, axes, x)?;
    subtract(g, x, middle)
}

fn axes_of(rule: &Rule) -> u32 {
    match rule.op {
        Op::Composite(_, attrs) => attrs[0] as u32,
        _ => 0,
    }
}

fn mean_tangent(g: &mut Graph, rule: &Rule, t: &[Option<Val>]) -> Result<Tangents> {
    let tangent = given_tangent(t)?;
    let axes = axes_of(rule);
    let n = count(g, tangent, axes);
    let total = sum(g, tangent, axes)?;
    let share = full_like(g, 1.0 / n as f64, total);
    Ok(smallvec![Some(multiply(g, total, share)?)])
}

/// d var = Σ 2·(x - mean)·dx / (n - correction): the mean's own tangent cancels.
fn var_tangent(g: &mut Graph, rule: &Rule, t: &[Option<Val>]) -> Result<Tangents> {
    let (x, axes) = (rule.inputs[0], axes_of(rule));
    let Op::Composite(_, attrs) = rule.op else { return Err(Error::internal("var: not a composite")) };
    let centred = centred(g, x, axes)?;
    let moved = multiply(g, given_tangent(t)?, centred)?;
    let total = sum(g, moved, axes)?;
    let scale = full_like(g, 2.0 / degrees(g, x, attrs), total);
    Ok(smallvec![Some(multiply(g, total, scale)?)])
}

/// d‖x‖ = Σ x·dx / ‖x‖, and 0 where the norm is 0.
fn norm_tangent(g: &mut Graph, rule: &Rule, t: &[Option<Val>]) -> Result<Tangents> {
    let norm = rule.outputs[0];
    let moved = zmul(g, given_tangent(t)?, rule.inputs[0])?;
    let total = sum(g, moved, axes_of(rule))?;
    let (one, zero) = (full_like(g, 1.0, norm), full_like(g, 0.0, norm));
    let inverse = divide(g, one, norm)?;
    let positive = greater(g, norm, zero)?;
    let scaled = zmul(g, total, inverse)?;
    Ok(smallvec![Some(select(g, positive, scaled, zero)?)])
}
