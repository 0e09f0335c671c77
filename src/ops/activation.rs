//! Activations: scalar primitives first, then those written with other ops.

use super::arithmetic::{ABS, Add, Multiply, Subtract, times};
use super::build::*;
use super::compare::Greater;
use super::define::{float_fn, float_unary};
use super::exponential::{ERF, EXPM1, LOG1P};
use super::pattern::pattern;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Attrs, CompositeDef, Derivative, Graph, Op, Promote, Reads, TensorType, UnaryDef, Val};
use crate::machine::cpu::dispatch::{Kernels, UnaryFn};
use crate::machine::cpu::float::Float;
use crate::machine::cpu::math;
use crate::unary_kernels;
use smallvec::{SmallVec, smallvec};

float_fn!(Tanh, |x| math::tanh::<T, FMA>(x));
float_fn!(Sigmoid, |x| math::sigmoid::<T, FMA>(x));
// Not a maximum: NaN stays NaN.
float_fn!(Relu, |x| if x <= T::from_f64(0.0) { T::from_f64(0.0) } else { x });

pub static TANH: UnaryDef = UnaryDef {
    name: "tanh",
    doc: "The hyperbolic tangent of x.",
    domain: (-1.5, 1.5),
    ulp: 4.0,
    promote: Promote::Float,
    kernels: float_unary!(Tanh),
    reference: libm::tanh,
    derivative: Derivative::Jvp(|g, rule, t| {
        let y = rule.outputs[0];
        let square = multiply(g, y, y)?;
        let one = full_like(g, 1.0, y);
        let slope = subtract(g, one, square)?;
        times(g, t[0], slope)
    }),
    reads: Reads::OUTPUT,
};

pub static SIGMOID: UnaryDef = UnaryDef {
    name: "sigmoid",
    doc: "1 / (1 + exp(-x)).",
    domain: (-2.0, 2.0),
    ulp: 4.0,
    promote: Promote::Float,
    kernels: float_unary!(Sigmoid),
    reference: |x| if x >= 0.0 { 1.0 / (1.0 + libm::exp(-x)) } else { libm::exp(x) / (1.0 + libm::exp(x)) },
    derivative: Derivative::Jvp(|g, rule, t| {
        let y = rule.outputs[0];
        let one = full_like(g, 1.0, y);
        let rest = subtract(g, one, y)?;
        let slope = multiply(g, y, rest)?;
        times(g, t[0], slope)
    }),
    reads: Reads::OUTPUT,
};

pub static RELU: UnaryDef = UnaryDef {
    name: "relu",
    doc: "x where x > 0, else 0. The gradient at 0 is 0.",
    domain: (-2.0, 2.0),
    ulp: 0.0,
    promote: Promote::Float,
    kernels: float_unary!(Relu),
    reference: |x| if x <= 0.0 { 0.0 } else { x },
    derivative: Derivative::Jvp(|g, rule, t| {
        let Some(tangent) = t[0] else { return Ok(smallvec![None]) };
        let zero = zeros_like(g, tangent);
        let passes = greater(g, rule.outputs[0], zero)?;
        Ok(smallvec![Some(select(g, passes, tangent, zero)?)])
    }),
    reads: Reads::OUTPUT,
};

pattern!(
    /// tanh(x + b) and its slope.
    BIAS_TANH_SLOPE, BiasTanhSlope, "bias_tanh_slope", (x: T, b: T, one: T) -> (y: T, slope: T) {
        z = binary::Add(x, b);
        y = unary::Tanh(z);
        square = binary::Multiply(y, y);
        slope = binary::Subtract(one, square);
    }
);
pattern!(
    TANH_SLOPE, TanhSlope, "tanh_slope", (x: T, one: T) -> (y: T, slope: T) {
        y = unary::Tanh(x);
        square = binary::Multiply(y, y);
        slope = binary::Subtract(one, square);
    }
);
pattern!(
    BIAS_TANH, BiasTanh, "bias_tanh", (x: T, b: T) -> (y: T) {
        z = binary::Add(x, b);
        y = unary::Tanh(z);
    }
);
pattern!(
    /// relu(x + b), and where it passes.
    BIAS_RELU_MASK, BiasReluMask, "bias_relu_mask", (x: T, b: T, zero: T) -> (y: T, passes: u8) {
        z = binary::Add(x, b);
        y = unary::Relu(z);
        passes = binary::Greater(y, zero);
    }
);
pattern!(
    RELU_MASK, ReluMask, "relu_mask", (x: T, zero: T) -> (y: T, passes: u8) {
        y = unary::Relu(x);
        passes = binary::Greater(y, zero);
    }
);
pattern!(
    BIAS_RELU, BiasRelu, "bias_relu", (x: T, b: T) -> (y: T) {
        z = binary::Add(x, b);
        y = unary::Relu(z);
    }
);

/// The type of a composite that keeps the type of its first input.
pub fn like_first(_: &Attrs, inputs: &[&TensorType]) -> Result<SmallVec<[TensorType; 1]>> {
    Ok(smallvec![inputs[0].clone()])
}

pub static LEAKY_RELU: CompositeDef = CompositeDef {
    name: "leaky_relu",
    doc: "x where x > 0, else slope·x. Inputs: x, slope (a number). The gradient at 0 is slope.",
    attrs: &[],
    infer: like_first,
    expand: |g, _, inputs| {
        let x = inputs[0];
        let slope = number(g, inputs[1], x)?;
        let zero = zeros_like(g, x);
        let passes = greater(g, x, zero)?;
        let scaled = multiply(g, x, slope)?;
        Ok(smallvec![select(g, passes, x, scaled)?])
    },
    derivative: None,
    reads: Reads::ALL_INPUTS,
};

pub static GELU: CompositeDef = CompositeDef {
    name: "gelu",
    doc: "x·Φ(x) with Φ the normal distribution: exact by erf, or by tanh (Hendrycks and Gimpel 2016).",
    attrs: &["1 for the tanh form"],
    infer: like_first,
    expand: |g, attrs, inputs| {
        Ok(smallvec![if attrs[0] == 1 { gelu_tanh(g, inputs[0])? } else { gelu_erf(g, inputs[0])? }])
    },
    derivative: None,
    reads: Reads::ALL_INPUTS,
};

/// x/2 · (1 + erf(x/√2)).
fn gelu_erf(g: &mut Graph, x: Val) -> Result<Val> {
    let scale = full_like(g, std::f64::consts::FRAC_1_SQRT_2, x);
    let scaled = multiply(g, x, scale)?;
    let erf = unary(g, &ERF, scaled)?;
    half_one_plus(g, x, erf)
}

/// x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³))).
fn gelu_tanh(g: &mut Graph, x: Val) -> Result<Val> {
    let square = multiply(g, x, x)?;
    let cube = multiply(g, square, x)?;
    let weight = full_like(g, 0.044715, x);
    let cubic = multiply(g, weight, cube)?;
    let inner = add(g, x, cubic)?;
    let scale = full_like(g, (2.0 / std::f64::consts::PI).sqrt(), x);
    let scaled = multiply(g, scale, inner)?;
    let tanh = unary(g, &TANH, scaled)?;
    half_one_plus(g, x, tanh)
}

fn half_one_plus(g: &mut Graph, x: Val, y: Val) -> Result<Val> {
    let one = full_like(g, 1.0, x);
    let half = full_like(g, 0.5, x);
    let sum = add(g, one, y)?;
    let halved = multiply(g, half, x)?;
    multiply(g, halved, sum)
}

pub static SOFTPLUS: CompositeDef = CompositeDef {
    name: "softplus",
    doc: "log(1 + exp(x)), as max(x, 0) + log(1 + exp(-|x|)): finite and exact for any finite x.",
    attrs: &[],
    infer: like_first,
    expand: |g, _, inputs| {
        let positive = unary(g, &RELU, inputs[0])?;
        let tail = softplus_tail(g, inputs[0])?;
        Ok(smallvec![add(g, positive, tail)?])
    },
    derivative: Some(|g, rule, t| {
        let slope = unary(g, &SIGMOID, rule.inputs[0])?;
        times(g, t[0], slope)
    }),
    reads: Reads::INPUT,
};

pub static SILU: CompositeDef = CompositeDef {
    name: "silu",
    doc: "x·sigmoid(x) (Elfwing, Uchibe and Doya 2017).",
    attrs: &[],
    infer: like_first,
    expand: |g, _, inputs| {
        let gate = unary(g, &SIGMOID, inputs[0])?;
        Ok(smallvec![multiply(g, inputs[0], gate)?])
    },
    derivative: None,
    reads: Reads::ALL_INPUTS,
};

pub static ELU: CompositeDef = CompositeDef {
    name: "elu",
    doc: "x where x > 0, else alpha·(exp(x) - 1). Inputs: x, alpha (a number). The gradient at 0 is alpha.",
    attrs: &[],
    infer: like_first,
    expand: |g, _, inputs| {
        let x = inputs[0];
        let alpha = number(g, inputs[1], x)?;
        let zero = zeros_like(g, x);
        let passes = greater(g, x, zero)?;
        // The exponential never sees a large x: its infinity would meet the zero cotangent of alpha.
        let below = select(g, passes, zero, x)?;
        let bend = unary(g, &EXPM1, below)?;
        let scaled = multiply(g, alpha, bend)?;
        Ok(smallvec![select(g, passes, x, scaled)?])
    },
    derivative: None,
    reads: Reads::ALL_INPUTS,
};

/// log(1 + exp(x)) as a node.
pub fn softplus(g: &mut Graph, x: Val) -> Result<Val> {
    g.add(Op::Composite(&SOFTPLUS, Attrs::new()), &[x])
}

/// log(1 + exp(-|x|)): what softplus adds to max(x, 0).
pub fn softplus_tail(g: &mut Graph, x: Val) -> Result<Val> {
    let size = unary(g, &ABS, x)?;
    let size = negative(g, size)?;
    let exp = exp(g, size)?;
    unary(g, &LOG1P, exp)
}
