//! Exponentials, logarithms, roots, and the functions built from them, one element at a time.

use super::arithmetic::{ABS, MAXIMUM, times, ztimes};
use super::build::*;
use super::define::{float_fn, float_unary};
use super::wgsl::wgsl;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::def::same_shape;
use crate::graph::{Attrs, CompositeDef, Derivative, Graph, Promote, Reads, Rule, Tangents, UnaryDef, Val};
use crate::machine::cpu::dispatch::{Kernels, UnaryFn};
use crate::machine::cpu::float::Float;
use crate::machine::cpu::math;
use crate::unary_kernels;
use smallvec::smallvec;

float_fn!(Exp, |x| math::exp::<T, FMA>(x));
float_fn!(Expm1, |x| math::expm1::<T, FMA>(x));
float_fn!(Log, |x| math::log::<T, FMA>(x));
float_fn!(Log1p, |x| math::log1p::<T, FMA>(x));
float_fn!(Sqrt, |x| math::sqrt::<T, FMA>(x));
float_fn!(Erf, |x| math::erf::<T, FMA>(x));
float_fn!(Erfc, single | x | math::erfc::<T, FMA>(x));
float_fn!(Exp2, |x| math::exp2::<T, FMA>(x));
float_fn!(Log2, |x| math::log2::<T, FMA>(x));
float_fn!(Log10, |x| math::log10::<T, FMA>(x));
float_fn!(Rsqrt, |x| T::ONE / math::sqrt::<T, FMA>(x));

pub static EXP: UnaryDef = UnaryDef {
    name: "exp",
    doc: "e to the power x.",
    domain: (-2.0, 2.0),
    ulp: 3.0,
    promote: Promote::Float,
    kernels: float_unary!(Exp),
    wgsl: wgsl!(F32 => "exp_f32(x)"),
    gpu_ulp: 3.0,
    reference: libm::exp,
    derivative: Derivative::Jvp(|g, rule, t| ztimes(g, t[0], rule.outputs[0])),
    reads: Reads::OUTPUT,
};

pub static EXPM1: UnaryDef = UnaryDef {
    name: "expm1",
    doc: "e to the power x, less 1, exact near 0.",
    domain: (-1.0, 1.0),
    ulp: 4.0,
    promote: Promote::Float,
    kernels: float_unary!(Expm1),
    wgsl: wgsl!(F32 => "expm1_f32(x)"),
    gpu_ulp: 4.0,
    reference: libm::expm1,
    derivative: Derivative::Jvp(|g, rule, t| {
        let exp = exp(g, rule.inputs[0])?;
        ztimes(g, t[0], exp)
    }),
    reads: Reads::INPUT,
};

pub static LOG: UnaryDef = UnaryDef {
    name: "log",
    doc: "The natural logarithm of x.",
    domain: (0.2, 3.0),
    ulp: 3.0,
    promote: Promote::Float,
    kernels: float_unary!(Log),
    wgsl: wgsl!(F32 => "log_f32(x)"),
    gpu_ulp: 3.0,
    reference: libm::log,
    derivative: Derivative::Jvp(|g, rule, t| log_tangent(g, rule, t, 1.0)),
    reads: Reads::INPUT,
};

pub static LOG1P: UnaryDef = UnaryDef {
    name: "log1p",
    doc: "The natural logarithm of 1 + x, exact near 0.",
    domain: (-0.5, 2.0),
    ulp: 4.0,
    promote: Promote::Float,
    kernels: float_unary!(Log1p),
    wgsl: wgsl!(F32 => "log1p_f32(x)"),
    gpu_ulp: 4.0,
    reference: libm::log1p,
    derivative: Derivative::Jvp(|g, rule, t| {
        let one = full_like(g, 1.0, rule.inputs[0]);
        let shifted = add(g, one, rule.inputs[0])?;
        let slope = divide(g, one, shifted)?;
        ztimes(g, t[0], slope)
    }),
    reads: Reads::INPUT,
};

pub static SQRT: UnaryDef = UnaryDef {
    name: "sqrt",
    doc: "The square root of x.",
    domain: (0.2, 3.0),
    ulp: 0.5,
    promote: Promote::Float,
    kernels: float_unary!(Sqrt),
    wgsl: wgsl!(F32 => "sqrt(x)"),
    gpu_ulp: 5.0,
    reference: libm::sqrt,
    derivative: Derivative::Jvp(|g, rule, t| {
        let half = full_like(g, 0.5, rule.outputs[0]);
        let slope = divide(g, half, rule.outputs[0])?;
        ztimes(g, t[0], slope)
    }),
    reads: Reads::OUTPUT,
};

pub static ERF: UnaryDef = UnaryDef {
    name: "erf",
    doc: "The error function: 2/√π times the integral of exp(-t²) from 0 to x.",
    domain: (-1.5, 1.5),
    ulp: 4.0,
    promote: Promote::Float,
    kernels: float_unary!(Erf),
    wgsl: wgsl!(F32 => "erf_f32(x)"),
    gpu_ulp: 4.0,
    reference: libm::erf,
    derivative: Derivative::Jvp(|g, rule, t| bell_tangent(g, rule, t, std::f64::consts::FRAC_2_SQRT_PI)),
    reads: Reads::INPUT,
};

pub static ERFC: UnaryDef = UnaryDef {
    name: "erfc",
    doc: "1 - erf(x), exact where erf is near 1.",
    domain: (-1.5, 1.5),
    ulp: 1.0,
    promote: Promote::Float,
    kernels: float_unary!(Erfc),
    wgsl: wgsl!(F32 => "erfc_f32(x)"),
    gpu_ulp: 7.0,
    reference: libm::erfc,
    derivative: Derivative::Jvp(|g, rule, t| bell_tangent(g, rule, t, -std::f64::consts::FRAC_2_SQRT_PI)),
    reads: Reads::INPUT,
};

pub static EXP2: UnaryDef = UnaryDef {
    name: "exp2",
    doc: "2 to the power x.",
    domain: (-2.0, 2.0),
    ulp: 1.0,
    promote: Promote::Float,
    kernels: float_unary!(Exp2),
    wgsl: wgsl!(F32 => "exp2_f32(x)"),
    gpu_ulp: 3.0,
    reference: libm::exp2,
    derivative: Derivative::Jvp(|g, rule, t| {
        let scale = full_like(g, std::f64::consts::LN_2, rule.outputs[0]);
        let slope = multiply(g, rule.outputs[0], scale)?;
        ztimes(g, t[0], slope)
    }),
    reads: Reads::OUTPUT,
};

pub static LOG2: UnaryDef = UnaryDef {
    name: "log2",
    doc: "The logarithm of x to base 2.",
    domain: (0.2, 3.0),
    ulp: 1.0,
    promote: Promote::Float,
    kernels: float_unary!(Log2),
    wgsl: wgsl!(F32 => "log2_f32(x)"),
    gpu_ulp: 3.0,
    reference: libm::log2,
    derivative: Derivative::Jvp(|g, rule, t| log_tangent(g, rule, t, std::f64::consts::LOG2_E)),
    reads: Reads::INPUT,
};

pub static LOG10: UnaryDef = UnaryDef {
    name: "log10",
    doc: "The logarithm of x to base 10.",
    domain: (0.2, 3.0),
    ulp: 1.0,
    promote: Promote::Float,
    kernels: float_unary!(Log10),
    wgsl: wgsl!(F32 => "log10_f32(x)"),
    gpu_ulp: 4.0,
    reference: libm::log10,
    derivative: Derivative::Jvp(|g, rule, t| log_tangent(g, rule, t, std::f64::consts::LOG10_E)),
    reads: Reads::INPUT,
};

pub static RSQRT: UnaryDef = UnaryDef {
    name: "rsqrt",
    doc: "1 / √x.",
    domain: (0.2, 3.0),
    ulp: 1.5,
    promote: Promote::Float,
    kernels: float_unary!(Rsqrt),
    wgsl: wgsl!(F32 => "inverseSqrt(x)"),
    gpu_ulp: 2.0,
    reference: |x| 1.0 / libm::sqrt(x),
    derivative: Derivative::Jvp(|g, rule, t| {
        let y = rule.outputs[0];
        let square = zmul(g, y, y)?;
        let cube = zmul(g, square, y)?;
        let scale = full_like(g, -0.5, y);
        let slope = multiply(g, cube, scale)?;
        ztimes(g, t[0], slope)
    }),
    reads: Reads::OUTPUT,
};

pub static LOGADDEXP: CompositeDef = CompositeDef {
    name: "logaddexp",
    doc: "log(exp(x) + exp(y)), as max(x, y) + log(1 + exp(-|x - y|)).",
    attrs: &[],
    infer: |_, inputs| {
        same_shape("logaddexp", inputs)?;
        super::activation::like_first(&Attrs::new(), inputs)
    },
    expand: |g, _, inputs| {
        let (x, y) = (inputs[0], inputs[1]);
        let difference = subtract(g, x, y)?;
        let size = unary(g, &ABS, difference)?;
        let size = negative(g, size)?;
        let exp = exp(g, size)?;
        let tail = unary(g, &LOG1P, exp)?;
        // Equal infinities have no difference.
        let (equal, double) = (equal(g, x, y)?, full_like(g, std::f64::consts::LN_2, x));
        let tail = select(g, equal, double, tail)?;
        let larger = binary(g, &MAXIMUM, x, y)?;
        Ok(smallvec![add(g, larger, tail)?])
    },
    derivative: Some(logaddexp_tangent),
    transpose: None,
    reads: Reads::BOTH,
    kernel: None,
};

/// dx · scale · exp(-x²): the tangent of erf and erfc.
fn bell_tangent(g: &mut Graph, rule: &Rule, t: &[Option<Val>], scale: f64) -> Result<Tangents> {
    let x = rule.inputs[0];
    let square = multiply(g, x, x)?;
    let negated = negative(g, square)?;
    let bell = exp(g, negated)?;
    let scale = full_like(g, scale, x);
    let slope = multiply(g, bell, scale)?;
    times(g, t[0], slope)
}

/// dx · scale / x: the tangent of a logarithm to any base.
fn log_tangent(g: &mut Graph, rule: &Rule, t: &[Option<Val>], scale: f64) -> Result<Tangents> {
    let scale = full_like(g, scale, rule.inputs[0]);
    let slope = divide(g, scale, rule.inputs[0])?;
    ztimes(g, t[0], slope)
}

/// dx·sigmoid(x - y) + dy·sigmoid(y - x).
fn logaddexp_tangent(g: &mut Graph, rule: &Rule, t: &[Option<Val>]) -> Result<Tangents> {
    let mut parts = [None, None];
    for which in 0..2 {
        if let Some(tangent) = t[which] {
            let difference = subtract(g, rule.inputs[which], rule.inputs[1 - which])?;
            let share = unary(g, &super::activation::SIGMOID, difference)?;
            parts[which] = Some(zmul(g, tangent, share)?);
        }
    }
    sum_of_tangents(g, parts[0], parts[1])
}
