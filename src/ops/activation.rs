//! Activations: scalar primitives first, then those written with other ops.

use super::arithmetic::{ABS, Add, Multiply, Subtract, times};
use super::build::*;
use super::compare::Greater;
use super::define::{float_fn, float_unary};
use super::exponential::{ERF, EXPM1, Erf, Exp, LOG1P};
use super::pattern::pattern;
use super::wgsl::wgsl;
use crate::dtype::DType;
use crate::error::{Error, Result};
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
    wgsl: wgsl!(F32 => "tanh_f32(x)"),
    gpu_ulp: 6.0,
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
    wgsl: wgsl!(F32 => "sigmoid_f32(x)"),
    gpu_ulp: 6.0,
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
    wgsl: wgsl!(F32 => "relu_f32(x)"),
    gpu_ulp: 0.0,
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

pattern!(
    GELU_TANH, GeluTanh, "gelu_tanh", (x: T, scale: T, cubic: T, one: T, half: T) -> (y: T) {
        square = binary::Multiply(x, x);
        cube = binary::Multiply(square, x);
        weighted = binary::Multiply(cubic, cube);
        inner = binary::Add(x, weighted);
        scaled = binary::Multiply(scale, inner);
        bent = unary::Tanh(scaled);
        twice = binary::Add(one, bent);
        half_x = binary::Multiply(half, x);
        y = binary::Multiply(half_x, twice);
    }
);
pattern!(
    GELU_TANH_SLOPE, GeluTanhSlope, "gelu_tanh_slope",
    (x: T, scale: T, cubic: T, one: T, half: T, growth: T) -> (y: T, slope: T) {
        square = binary::Multiply(x, x);
        cube = binary::Multiply(square, x);
        weighted = binary::Multiply(cubic, cube);
        inner = binary::Add(x, weighted);
        scaled = binary::Multiply(scale, inner);
        bent = unary::Tanh(scaled);
        twice = binary::Add(one, bent);
        half_x = binary::Multiply(half, x);
        y = binary::Multiply(half_x, twice);
        level = binary::Multiply(half, twice);
        of_tanh = binary::Multiply(bent, bent);
        bend = binary::Subtract(one, of_tanh);
        growing = binary::Multiply(growth, square);
        steepness = binary::Add(scale, growing);
        rise = binary::Multiply(bend, steepness);
        risen = binary::Multiply(half_x, rise);
        slope = binary::Add(level, risen);
    }
);
pattern!(
    GELU_ERF, GeluErf, "gelu_erf", (x: T, scale: T, one: T, half: T) -> (y: T) {
        scaled = binary::Multiply(x, scale);
        bent = unary::Erf(scaled);
        twice = binary::Add(one, bent);
        half_x = binary::Multiply(half, x);
        y = binary::Multiply(half_x, twice);
    }
);
pattern!(
    GELU_ERF_SLOPE, GeluErfSlope, "gelu_erf_slope",
    (x: T, scale: T, one: T, half: T, minus_half: T, height: T) -> (y: T, slope: T) {
        scaled = binary::Multiply(x, scale);
        bent = unary::Erf(scaled);
        twice = binary::Add(one, bent);
        half_x = binary::Multiply(half, x);
        y = binary::Multiply(half_x, twice);
        level = binary::Multiply(half, twice);
        square = binary::Multiply(x, x);
        exponent = binary::Multiply(minus_half, square);
        bell = unary::Exp(exponent);
        rise = binary::Multiply(height, bell);
        risen = binary::Multiply(half_x, rise);
        slope = binary::Add(level, risen);
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
    transpose: None,
    reads: Reads::ALL_INPUTS,
    kernel: None,
};

pub static GELU: CompositeDef = CompositeDef {
    name: "gelu",
    doc: "x·Φ(x) with Φ the normal distribution: exact by erf, or by tanh (Hendrycks and Gimpel 2016).",
    attrs: &["1 for the tanh form"],
    infer: like_first,
    expand: |g, attrs, inputs| {
        let (half, twice) = halves_of_gelu(g, attrs, inputs[0])?;
        Ok(smallvec![multiply(g, half, twice)?])
    },
    derivative: Some(|g, rule, t| {
        let Op::Composite(_, attrs) = rule.op else { return Err(Error::internal("gelu: not a composite")) };
        let slope = slope_of_gelu(g, attrs, rule.inputs[0])?;
        times(g, t[0], slope)
    }),
    transpose: None,
    reads: Reads::INPUT,
    kernel: None,
};

/// √(2/π), and the weight of the cube in the tanh form.
const TANH_SCALE: f64 = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
const CUBIC: f64 = 0.044715;

/// x/2 and 2·Φ(x), which is 1 + erf(x/√2) or 1 + tanh(√(2/π)·(x + 0.044715·x³)).
fn halves_of_gelu(g: &mut Graph, attrs: &Attrs, x: Val) -> Result<(Val, Val)> {
    let bent = if attrs[0] == 1 { gelu_tanh(g, x)? } else { gelu_erf(g, x)? };
    let one = full_like(g, 1.0, x);
    let half = full_like(g, 0.5, x);
    let twice = add(g, one, bent)?;
    Ok((multiply(g, half, x)?, twice))
}

fn gelu_erf(g: &mut Graph, x: Val) -> Result<Val> {
    let scale = full_like(g, std::f64::consts::FRAC_1_SQRT_2, x);
    let scaled = multiply(g, x, scale)?;
    unary(g, &ERF, scaled)
}

fn gelu_tanh(g: &mut Graph, x: Val) -> Result<Val> {
    let square = multiply(g, x, x)?;
    let cube = multiply(g, square, x)?;
    let weight = full_like(g, CUBIC, x);
    let cubic = multiply(g, weight, cube)?;
    let inner = add(g, x, cubic)?;
    let scale = full_like(g, TANH_SCALE, x);
    let scaled = multiply(g, scale, inner)?;
    unary(g, &TANH, scaled)
}

/// Φ(x) + x·φ(x), or for the tanh form, with t = tanh(u): (1 + t)/2 + x/2·(1 - t²)·u'.
fn slope_of_gelu(g: &mut Graph, attrs: &Attrs, x: Val) -> Result<Val> {
    let (half_x, twice) = halves_of_gelu(g, attrs, x)?;
    let half = full_like(g, 0.5, x);
    let level = multiply(g, half, twice)?;
    let square = multiply(g, x, x)?;
    let rise = if attrs[0] == 1 {
        let tanh = gelu_tanh(g, x)?;
        let of_tanh = multiply(g, tanh, tanh)?;
        let one = full_like(g, 1.0, x);
        let bend = subtract(g, one, of_tanh)?;
        let growth = full_like(g, 3.0 * CUBIC * TANH_SCALE, x);
        let growing = multiply(g, growth, square)?;
        let scale = full_like(g, TANH_SCALE, x);
        let steepness = add(g, scale, growing)?;
        multiply(g, bend, steepness)?
    } else {
        let minus_half = full_like(g, -0.5, x);
        let exponent = multiply(g, minus_half, square)?;
        let bell = exp(g, exponent)?;
        // Twice the density at 0, for it meets x/2.
        let height = full_like(g, TANH_SCALE, x);
        multiply(g, height, bell)?
    };
    let risen = multiply(g, half_x, rise)?;
    add(g, level, risen)
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
    transpose: None,
    reads: Reads::INPUT,
    kernel: None,
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
    transpose: None,
    reads: Reads::ALL_INPUTS,
    kernel: None,
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
    transpose: None,
    reads: Reads::ALL_INPUTS,
    kernel: None,
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
