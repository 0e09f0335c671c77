//! Softmax and its logarithm, and log-sum-exp: stable, because the largest element is subtracted first. That element
//! cancels out of the value, so it is detached. A row that is -inf throughout has no softmax: its result is NaN, as in
//! other libraries, and a cotangent of zero keeps the NaN out of the gradient.

use super::arithmetic::{Add, Subtract, ZeroProduct, given_tangent};
use super::build::*;
use super::exponential::Exp;
use super::pattern::pattern;
use super::statistics::{float_only, reduced};
use crate::error::{Error, Result};
use crate::graph::{Attrs, CompositeDef, Graph, Op, Reads, Rule, Tangents, TensorType, Val};
use smallvec::{SmallVec, smallvec};

pub static SOFTMAX: CompositeDef = CompositeDef {
    name: "softmax",
    doc: "exp(x) / Σ exp(x) along the axis.",
    attrs: &["axis"],
    infer: |_, inputs| along("softmax", inputs),
    expand: |g, attrs, inputs| {
        let (x, axes) = (inputs[0], mask(attrs));
        let shifted = shifted(g, x, axes)?;
        let exps = exp(g, shifted)?;
        let total = sum(g, exps, axes)?;
        let total = spread(g, total, axes, x)?;
        Ok(smallvec![divide(g, exps, total)?])
    },
    derivative: Some(softmax_tangent),
    transpose: None,
    reads: Reads::OUTPUT,
    kernel: None,
};

pub static LOG_SOFTMAX: CompositeDef = CompositeDef {
    name: "log_softmax",
    doc: "x - log Σ exp(x) along the axis.",
    attrs: &["axis"],
    infer: |_, inputs| along("log_softmax", inputs),
    expand: |g, attrs, inputs| {
        let (x, axes) = (inputs[0], mask(attrs));
        let shifted = shifted(g, x, axes)?;
        let exps = exp(g, shifted)?;
        let total = sum(g, exps, axes)?;
        let log = log(g, total)?;
        let log = spread(g, log, axes, x)?;
        Ok(smallvec![subtract(g, shifted, log)?])
    },
    derivative: Some(log_softmax_tangent),
    transpose: None,
    reads: Reads::OUTPUT,
    kernel: None,
};

pub static LOGSUMEXP: CompositeDef = CompositeDef {
    name: "logsumexp",
    doc: "log Σ exp(x) over the axes; -inf where every element is, and the gradient is 0 there.",
    attrs: &["mask of the axes, which are dropped"],
    infer: |attrs, inputs| {
        let types = reduced("logsumexp", attrs, inputs)?;
        match inputs[0].shape.iter().enumerate().any(|(axis, &dim)| attrs[0] >> axis & 1 == 1 && dim == 0) {
            true => Err(Error::value(format!("logsumexp: the reduced axes of shape {} are empty", inputs[0].shape))),
            false => Ok(types),
        }
    },
    expand: |g, attrs, inputs| {
        let (largest, _, total) = exponentials(g, inputs[0], attrs[0] as u32)?;
        let log = log(g, total)?;
        Ok(smallvec![add(g, log, largest)?])
    },
    derivative: Some(logsumexp_tangent),
    transpose: None,
    reads: Reads::INPUT,
    kernel: None,
};

pattern!(
    SHIFTED_EXP, ShiftedExp, "shifted_exp", (x: T, largest: Column<T>) -> (y: T) {
        shifted = binary::Subtract(x, largest);
        y = unary::Exp(shifted);
    }
);
pattern!(
    SHIFTED_AND_EXP, ShiftedAndExp, "shifted_and_exp", (x: T, largest: Column<T>) -> (shifted: T, y: T) {
        shifted = binary::Subtract(x, largest);
        y = unary::Exp(shifted);
    }
);
pattern!(
    SOFTMAX_GRADIENT, SoftmaxGradient, "softmax_gradient", (back: Column<T>, g: T, y: T) -> (to_x: T) {
        moved = binary::Add(back, g);
        to_x = binary::ZeroProduct(moved, y);
    }
);
pattern!(
    LOG_SOFTMAX_GRADIENT, LogSoftmaxGradient, "log_softmax_gradient", (back: Column<T>, y: T, g: T) -> (to_x: T) {
        moved = binary::ZeroProduct(back, y);
        to_x = binary::Add(moved, g);
    }
);

fn mask(attrs: &Attrs) -> u32 {
    1 << attrs[0]
}

fn axes_of(rule: &Rule) -> u32 {
    match rule.op {
        Op::Composite(_, attrs) => mask(attrs),
        _ => 0,
    }
}

fn along(op: &str, inputs: &[&TensorType]) -> Result<SmallVec<[TensorType; 1]>> {
    float_only(op, inputs[0])?;
    Ok(smallvec![inputs[0].clone()])
}

/// x less its largest element along the axes.
pub(super) fn shifted(g: &mut Graph, x: Val, axes: u32) -> Result<Val> {
    if g.shape(x).size() == 0 {
        return Ok(x);
    }
    let largest = max(g, x, axes)?;
    let largest = g.add(Op::Detach, &[largest])?;
    let against = spread(g, largest, axes, x)?;
    subtract(g, x, against)
}

/// x, or 0 where x is infinite.
fn finite_or_zero(g: &mut Graph, x: Val) -> Result<Val> {
    let (zero, infinity) = (full_like(g, 0.0, x), full_like(g, f64::INFINITY, x));
    let size = unary(g, &super::arithmetic::ABS, x)?;
    let infinite = equal(g, size, infinity)?;
    select(g, infinite, zero, x)
}

/// dy = y·dx - y·Σ y·dx, so that its transpose is y·(g - Σ y·g).
fn softmax_tangent(g: &mut Graph, rule: &Rule, t: &[Option<Val>]) -> Result<Tangents> {
    let (y, axes) = (rule.outputs[0], axes_of(rule));
    let moved = zmul(g, given_tangent(t)?, y)?;
    let total = sum(g, moved, axes)?;
    let back = negative(g, total)?;
    let back = spread(g, back, axes, y)?;
    let back = zmul(g, back, y)?;
    Ok(smallvec![Some(add(g, moved, back)?)])
}

/// dy = dx - Σ exp(y)·dx, so that its transpose is g - exp(y)·Σ g.
fn log_softmax_tangent(g: &mut Graph, rule: &Rule, t: &[Option<Val>]) -> Result<Tangents> {
    let (y, axes) = (rule.outputs[0], axes_of(rule));
    let tangent = given_tangent(t)?;
    let softmax = exp(g, y)?;
    let moved = zmul(g, tangent, softmax)?;
    let total = sum(g, moved, axes)?;
    let back = negative(g, total)?;
    let back = spread(g, back, axes, y)?;
    Ok(smallvec![Some(add(g, tangent, back)?)])
}

/// The largest element over the axes (0 if it is infinite), exp(x - largest), and their sum.
fn exponentials(g: &mut Graph, x: Val, axes: u32) -> Result<(Val, Val, Val)> {
    let largest = max(g, x, axes)?;
    let largest = finite_or_zero(g, largest)?;
    let largest = g.add(Op::Detach, &[largest])?;
    let against = spread(g, largest, axes, x)?;
    let shifted = subtract(g, x, against)?;
    let exps = exp(g, shifted)?;
    let total = sum(g, exps, axes)?;
    Ok((largest, exps, total))
}

/// dy = Σ exp(x)·dx / Σ exp(x), and 0 where the sum is 0. Not exp(x - y): y has lost the digits of a large x.
fn logsumexp_tangent(g: &mut Graph, rule: &Rule, t: &[Option<Val>]) -> Result<Tangents> {
    let Op::Composite(_, attrs) = rule.op else { return Err(Error::internal("logsumexp: not a composite")) };
    let axes = attrs[0] as u32;
    let (_, exps, total) = exponentials(g, rule.inputs[0], axes)?;
    let (one, zero) = (full_like(g, 1.0, total), full_like(g, 0.0, total));
    let empty = equal(g, total, zero)?;
    let divisor = select(g, empty, one, total)?;
    let moved = zmul(g, given_tangent(t)?, exps)?;
    let moved = sum(g, moved, axes)?;
    let share = divide(g, one, divisor)?;
    Ok(smallvec![Some(multiply(g, moved, share)?)])
}
