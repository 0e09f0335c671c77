//! Losses of equal shapes, and the three reductions that all losses share. A loss never broadcasts: (n,) against
//! (n, 1) is the silent mistake that this refuses.

use super::activation::{SIGMOID, softplus, softplus_tail};
use super::arithmetic::{ABS, CLIP, MAXIMUM, MINIMUM, SIGN, SQUARE};
use super::build::*;
use super::exponential::{LOG, LOG1P};
use super::statistics::{MEAN, float_only};
use crate::error::{Error, Result};
use crate::graph::{Attrs, CompositeDef, Graph, Op, Reads, Rule, Tangents, TensorType, Val};
use crate::shape::{Shape, all_axes};
use smallvec::{SmallVec, smallvec};

/// What becomes of the losses of the elements or rows: the first attribute of each loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    None = 0,
    Mean = 1,
    Sum = 2,
}

impl Reduction {
    pub fn of(attr: i64) -> Reduction {
        match attr {
            0 => Reduction::None,
            1 => Reduction::Mean,
            _ => Reduction::Sum,
        }
    }

    /// The shape of a loss that has `rows` before it is reduced.
    pub fn shape(self, rows: Shape) -> Shape {
        if self == Reduction::None { rows } else { Shape::scalar() }
    }

    /// Reduces over everything.
    pub fn apply(self, g: &mut Graph, loss: Val) -> Result<Val> {
        let axes = all_axes(g.shape(loss).rank());
        match self {
            Reduction::None => Ok(loss),
            Reduction::Sum => sum(g, loss, axes),
            Reduction::Mean => g.add(Op::Composite(&MEAN, smallvec![i64::from(axes)]), &[loss]),
        }
    }
}

const REDUCTION: &str = "0 none, 1 mean, 2 sum";

pub static MSE_LOSS: CompositeDef = CompositeDef {
    name: "mse_loss",
    doc: "(input - target)², reduced.",
    attrs: &[REDUCTION],
    infer: |attrs, inputs| equal_shapes("mse_loss", attrs, inputs),
    expand: |g, attrs, inputs| {
        let difference = subtract(g, inputs[0], inputs[1])?;
        let square = unary(g, &SQUARE, difference)?;
        Ok(smallvec![Reduction::of(attrs[0]).apply(g, square)?])
    },
    derivative: None,
    transpose: None,
    reads: Reads::BOTH,
    kernel: None,
};

pub static L1_LOSS: CompositeDef = CompositeDef {
    name: "l1_loss",
    doc: "|input - target|, reduced.",
    attrs: &[REDUCTION],
    infer: |attrs, inputs| equal_shapes("l1_loss", attrs, inputs),
    expand: |g, attrs, inputs| {
        let difference = subtract(g, inputs[0], inputs[1])?;
        let size = unary(g, &ABS, difference)?;
        Ok(smallvec![Reduction::of(attrs[0]).apply(g, size)?])
    },
    derivative: None,
    transpose: None,
    reads: Reads::BOTH,
    kernel: None,
};

pub static HUBER_LOSS: CompositeDef = CompositeDef {
    name: "huber_loss",
    doc: "With d = input - target: d²/2 where |d| ≤ delta, else delta·(|d| - delta/2). Inputs: input, target, delta.",
    attrs: &[REDUCTION],
    infer: |attrs, inputs| equal_shapes("huber_loss", attrs, &inputs[..2]),
    expand: |g, attrs, inputs| {
        let difference = subtract(g, inputs[0], inputs[1])?;
        let delta = number(g, inputs[2], difference)?;
        let loss = g.add(Op::Composite(&HUBER, Attrs::new()), &[difference, delta])?;
        Ok(smallvec![Reduction::of(attrs[0]).apply(g, loss)?])
    },
    derivative: None,
    transpose: None,
    reads: Reads { inputs: 0b111, outputs: 0 },
    kernel: None,
};

pub static SMOOTH_L1_LOSS: CompositeDef = CompositeDef {
    name: "smooth_l1_loss",
    doc: "With d = input - target: d²/(2·beta) where |d| < beta, else |d| - beta/2. Inputs: input, target, beta.",
    attrs: &[REDUCTION],
    infer: |attrs, inputs| equal_shapes("smooth_l1_loss", attrs, &inputs[..2]),
    expand: |g, attrs, inputs| {
        let difference = subtract(g, inputs[0], inputs[1])?;
        let beta = number(g, inputs[2], difference)?;
        let loss = g.add(Op::Composite(&SMOOTH_L1, Attrs::new()), &[difference, beta])?;
        Ok(smallvec![Reduction::of(attrs[0]).apply(g, loss)?])
    },
    derivative: None,
    transpose: None,
    reads: Reads { inputs: 0b111, outputs: 0 },
    kernel: None,
};

pub static BINARY_CROSS_ENTROPY: CompositeDef = CompositeDef {
    name: "binary_cross_entropy",
    doc: "-(target·log input + (1 - target)·log(1 - input)), logarithms at least -100, times weight, reduced. \
          Inputs: input in [0, 1], target, and weight or none.",
    attrs: &[REDUCTION],
    infer: |attrs, inputs| {
        let types = equal_shapes("binary_cross_entropy", attrs, &inputs[..2])?;
        weight_fits("binary_cross_entropy", "weight", inputs[0], inputs.get(2).copied())?;
        Ok(types)
    },
    expand: |g, attrs, inputs| {
        let loss = g.add(Op::Composite(&PROBABILITY_LOSS, Attrs::new()), &inputs[..2])?;
        Ok(smallvec![weighted(g, loss, inputs.get(2), attrs)?])
    },
    derivative: None,
    transpose: None,
    reads: Reads { inputs: 0b111, outputs: 0 },
    kernel: None,
};

pub static BINARY_CROSS_ENTROPY_WITH_LOGITS: CompositeDef = CompositeDef {
    name: "binary_cross_entropy_with_logits",
    doc: "Binary cross-entropy of sigmoid(input), stable for any input: max(x, 0) - x·target + log(1 + exp(-|x|)). \
          pos_weight multiplies the loss of target 1. Inputs: input, target, then weight and pos_weight if present.",
    attrs: &[REDUCTION, "1 if weight is given", "1 if pos_weight is given"],
    infer: |attrs, inputs| {
        let op = "binary_cross_entropy_with_logits";
        let types = equal_shapes(op, attrs, &inputs[..2])?;
        let (weight, pos_weight) = optional(attrs, inputs);
        weight_fits(op, "weight", inputs[0], weight)?;
        weight_fits(op, "pos_weight", inputs[0], pos_weight)?;
        Ok(types)
    },
    expand: |g, attrs, inputs| {
        let (weight, pos_weight) = optional(attrs, inputs);
        let mut operands: SmallVec<[Val; 3]> = SmallVec::from_slice(&inputs[..2]);
        if let Some(pos_weight) = pos_weight {
            let shape = g.shape(inputs[0]).clone();
            operands.push(super::broadcast_to(g, pos_weight, &shape)?);
        }
        let loss = g.add(Op::Composite(&LOGIT_LOSS, Attrs::new()), &operands)?;
        Ok(smallvec![weighted(g, loss, weight.as_ref(), attrs)?])
    },
    derivative: None,
    transpose: None,
    reads: Reads::ALL_INPUTS,
    kernel: None,
};

/// Elementwise, of a probability and a target.
/// Elementwise, of a difference d and delta. With c = min(|d|, delta) both cases are c·(|d| - c/2).
static HUBER: CompositeDef = CompositeDef {
    name: "huber",
    doc: "d²/2 where |d| ≤ delta, else delta·(|d| - delta/2).",
    attrs: &[],
    infer: super::activation::like_first,
    expand: |g, _, inputs| {
        let (half, size) = (full_like(g, 0.5, inputs[0]), unary(g, &ABS, inputs[0])?);
        let capped = binary(g, &MINIMUM, size, inputs[1])?;
        let middle = multiply(g, half, capped)?;
        let reach = subtract(g, size, middle)?;
        Ok(smallvec![multiply(g, capped, reach)?])
    },
    derivative: Some(huber_tangent),
    transpose: None,
    reads: Reads::BOTH,
    kernel: None,
};

/// Elementwise, of a difference d and beta, which may be 0.
static SMOOTH_L1: CompositeDef = CompositeDef {
    name: "smooth_l1",
    doc: "d²/(2·beta) where |d| < beta, else |d| - beta/2.",
    attrs: &[],
    infer: super::activation::like_first,
    expand: |g, _, inputs| {
        let (d, beta) = (inputs[0], inputs[1]);
        let (half, size, square) = (full_like(g, 0.5, d), unary(g, &ABS, d)?, unary(g, &SQUARE, d)?);
        let halved = multiply(g, half, square)?;
        let near = divide(g, halved, beta)?;
        let margin = multiply(g, half, beta)?;
        let far = subtract(g, size, margin)?;
        let is_near = less(g, size, beta)?;
        Ok(smallvec![select(g, is_near, near, far)?])
    },
    derivative: Some(smooth_l1_tangent),
    transpose: None,
    reads: Reads::BOTH,
    kernel: None,
};

static PROBABILITY_LOSS: CompositeDef = CompositeDef {
    name: "probability_loss",
    doc: "-(target·log input + (1 - target)·log(1 - input)), logarithms at least -100.",
    attrs: &[],
    infer: super::activation::like_first,
    expand: |g, _, inputs| {
        let (x, target) = (inputs[0], inputs[1]);
        let (hit, miss) = clamped_logs(g, x)?;
        let one = full_like(g, 1.0, x);
        let rest = subtract(g, one, target)?;
        let hit = multiply(g, target, hit)?;
        let miss = multiply(g, rest, miss)?;
        let sum = add(g, hit, miss)?;
        Ok(smallvec![negative(g, sum)?])
    },
    derivative: Some(probability_tangent),
    transpose: None,
    reads: Reads::BOTH,
    kernel: None,
};

/// Elementwise, of a logit, a target and (or none) the weight of positive targets.
static LOGIT_LOSS: CompositeDef = CompositeDef {
    name: "logit_loss",
    doc: "(1 - target)·softplus(input) + pos_weight·target·softplus(-input).",
    attrs: &[],
    infer: super::activation::like_first,
    expand: |g, _, inputs| {
        let (x, target) = (inputs[0], inputs[1]);
        if let Some(&pos_weight) = inputs.get(2) {
            let (one, turned) = (full_like(g, 1.0, x), negative(g, x)?);
            let rest = subtract(g, one, target)?;
            let (up, down) = (softplus(g, x)?, softplus(g, turned)?);
            let miss = multiply(g, rest, up)?;
            let heavy = multiply(g, pos_weight, target)?;
            let hit = multiply(g, heavy, down)?;
            return Ok(smallvec![add(g, miss, hit)?]);
        }
        // Each of the three terms is exact where it matters: no difference of large numbers is taken.
        let positive = unary(g, &super::activation::RELU, x)?;
        let product = multiply(g, x, target)?;
        let linear = subtract(g, positive, product)?;
        let tail = softplus_tail(g, x)?;
        Ok(smallvec![add(g, linear, tail)?])
    },
    derivative: Some(logit_tangent),
    transpose: None,
    reads: Reads::ALL_INPUTS,
    kernel: None,
};

fn equal_shapes(op: &str, attrs: &Attrs, inputs: &[&TensorType]) -> Result<SmallVec<[TensorType; 1]>> {
    let (input, target) = (inputs[0], inputs[1]);
    if input.shape != target.shape {
        return Err(Error::shape(format!(
            "{op}: input {} and target {} differ; reshape one of them",
            input.shape, target.shape
        )));
    }
    float_only(op, input)?;
    if input.dtype != target.dtype {
        return Err(Error::dtype(format!(
            "{op}: input is {} and target is {}; astype one of them",
            input.dtype, target.dtype
        )));
    }
    Ok(smallvec![TensorType { dtype: input.dtype, shape: Reduction::of(attrs[0]).shape(input.shape.clone()) }])
}

fn weight_fits(op: &str, name: &str, input: &TensorType, weight: Option<&TensorType>) -> Result<()> {
    match weight {
        Some(weight) if !crate::shape::broadcasts_to(&weight.shape, &input.shape) => {
            Err(Error::shape(format!("{op}: {name} {} does not broadcast to input {}", weight.shape, input.shape)))
        }
        Some(weight) if weight.dtype != input.dtype => {
            Err(Error::dtype(format!("{op}: input is {} and {name} is {}", input.dtype, weight.dtype)))
        }
        _ => Ok(()),
    }
}

/// The inputs after the first two that the second and third attributes announce.
fn optional<T: Copy>(attrs: &Attrs, inputs: &[T]) -> (Option<T>, Option<T>) {
    let mut rest = inputs[2..].iter().copied();
    let weight = if attrs[1] == 1 { rest.next() } else { None };
    let pos_weight = if attrs[2] == 1 { rest.next() } else { None };
    (weight, pos_weight)
}

fn weighted(g: &mut Graph, loss: Val, weight: Option<&Val>, attrs: &Attrs) -> Result<Val> {
    let mut loss = loss;
    if let Some(&weight) = weight {
        let shape = g.shape(loss).clone();
        let weight = super::broadcast_to(g, weight, &shape)?;
        loss = multiply(g, loss, weight)?;
    }
    Reduction::of(attrs[0]).apply(g, loss)
}

/// By d: d, at most delta from 0. By delta: how far |d| is beyond it.
fn huber_tangent(g: &mut Graph, rule: &Rule, t: &[Option<Val>]) -> Result<Tangents> {
    let (d, delta) = (rule.inputs[0], rule.inputs[1]);
    let by_difference = match t[0] {
        Some(tangent) => {
            let low = negative(g, delta)?;
            let slope = g.add(Op::Composite(&CLIP, smallvec![3]), &[d, low, delta])?;
            Some(zmul(g, tangent, slope)?)
        }
        None => None,
    };
    let by_delta = match t[1] {
        Some(tangent) => {
            let size = unary(g, &ABS, d)?;
            let capped = binary(g, &MINIMUM, size, delta)?;
            let beyond = subtract(g, size, capped)?;
            Some(zmul(g, tangent, beyond)?)
        }
        None => None,
    };
    sum_of_tangents(g, by_difference, by_delta)
}

/// By d: d/beta, or its sign. By beta: -(d/beta)²/2, or -1/2.
fn smooth_l1_tangent(g: &mut Graph, rule: &Rule, t: &[Option<Val>]) -> Result<Tangents> {
    let (d, beta) = (rule.inputs[0], rule.inputs[1]);
    let size = unary(g, &ABS, d)?;
    let is_near = less(g, size, beta)?;
    let ratio = divide(g, d, beta)?;
    let by_difference = match t[0] {
        Some(tangent) => {
            let sign = unary(g, &SIGN, d)?;
            let slope = select(g, is_near, ratio, sign)?;
            Some(zmul(g, tangent, slope)?)
        }
        None => None,
    };
    let by_beta = match t[1] {
        Some(tangent) => {
            let (one, half) = (full_like(g, 1.0, d), full_like(g, -0.5, d));
            let square = unary(g, &SQUARE, ratio)?;
            let part = select(g, is_near, square, one)?;
            let slope = multiply(g, half, part)?;
            Some(zmul(g, tangent, slope)?)
        }
        None => None,
    };
    sum_of_tangents(g, by_difference, by_beta)
}

/// log x and log(1 - x), neither below -100.
fn clamped_logs(g: &mut Graph, x: Val) -> Result<(Val, Val)> {
    let floor = full_like(g, -100.0, x);
    let hit = unary(g, &LOG, x)?;
    let turned = negative(g, x)?;
    let miss = unary(g, &LOG1P, turned)?;
    Ok((binary(g, &MAXIMUM, hit, floor)?, binary(g, &MAXIMUM, miss, floor)?))
}

/// By the input: (x - target) / max(x·(1 - x), 1e-12), finite where the loss is clamped. By the target: the logits.
fn probability_tangent(g: &mut Graph, rule: &Rule, t: &[Option<Val>]) -> Result<Tangents> {
    let (x, target) = (rule.inputs[0], rule.inputs[1]);
    let by_input = match t[0] {
        Some(tangent) => {
            let (one, tiny) = (full_like(g, 1.0, x), full_like(g, 1e-12, x));
            let rest = subtract(g, one, x)?;
            let spread = multiply(g, x, rest)?;
            let spread = binary(g, &MAXIMUM, spread, tiny)?;
            let difference = subtract(g, x, target)?;
            let slope = divide(g, difference, spread)?;
            Some(zmul(g, tangent, slope)?)
        }
        None => None,
    };
    let by_target = match t[1] {
        Some(tangent) => {
            let (hit, miss) = clamped_logs(g, x)?;
            let slope = subtract(g, miss, hit)?;
            Some(zmul(g, tangent, slope)?)
        }
        None => None,
    };
    sum_of_tangents(g, by_input, by_target)
}

/// By the input: sigmoid(x) - target, or (1 - target)·sigmoid(x) - pos_weight·target·sigmoid(-x).
fn logit_tangent(g: &mut Graph, rule: &Rule, t: &[Option<Val>]) -> Result<Tangents> {
    let (x, target, pos_weight) = (rule.inputs[0], rule.inputs[1], rule.inputs.get(2).copied());
    let by_input = match t[0] {
        Some(tangent) => {
            let slope = logit_slope(g, x, target, pos_weight)?;
            Some(multiply(g, tangent, slope)?)
        }
        None => None,
    };
    let by_target = match t[1] {
        Some(tangent) => {
            let turned = negative(g, x)?;
            let slope = match pos_weight {
                Some(pos_weight) => {
                    let (up, down) = (softplus(g, x)?, softplus(g, turned)?);
                    let heavy = multiply(g, pos_weight, down)?;
                    subtract(g, heavy, up)?
                }
                None => turned,
            };
            Some(multiply(g, tangent, slope)?)
        }
        None => None,
    };
    let mut total = sum_of_tangents(g, by_input, by_target)?[0];
    if let Some(tangent) = t.get(2).copied().flatten() {
        let turned = negative(g, x)?;
        let down = softplus(g, turned)?;
        let slope = multiply(g, target, down)?;
        let part = multiply(g, tangent, slope)?;
        total = sum_of_tangents(g, total, Some(part))?[0];
    }
    Ok(smallvec![total])
}

fn logit_slope(g: &mut Graph, x: Val, target: Val, pos_weight: Option<Val>) -> Result<Val> {
    let up = unary(g, &SIGMOID, x)?;
    let Some(pos_weight) = pos_weight else { return subtract(g, up, target) };
    let turned = negative(g, x)?;
    let down = unary(g, &SIGMOID, turned)?;
    let one = full_like(g, 1.0, x);
    let rest = subtract(g, one, target)?;
    let miss = multiply(g, rest, up)?;
    let heavy = multiply(g, pos_weight, target)?;
    let hit = multiply(g, heavy, down)?;
    subtract(g, miss, hit)
}
