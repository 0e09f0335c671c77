//! Exponentials, logarithms, roots, and the functions built from them, one element at a time.

use super::arithmetic::{times, ztimes};
use super::build::*;
use super::define::{float_fn, float_unary};
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Derivative, Graph, Promote, Reads, Rule, Tangents, UnaryDef};
use crate::machine::cpu::dispatch::{Kernels, UnaryFn};
use crate::machine::cpu::float::Float;
use crate::machine::cpu::math;
use crate::unary_kernels;

float_fn!(Exp, |x| math::exp::<T, FMA>(x));
float_fn!(Expm1, |x| math::expm1::<T, FMA>(x));
float_fn!(Log, |x| math::log::<T, FMA>(x));
float_fn!(Log1p, |x| math::log1p::<T, FMA>(x));
float_fn!(Sqrt, |x| math::sqrt::<T, FMA>(x));
float_fn!(Erf, |x| math::erf::<T, FMA>(x));

pub static EXP: UnaryDef = UnaryDef {
    name: "exp",
    doc: "e to the power x.",
    domain: (-2.0, 2.0),
    ulp: 3.0,
    promote: Promote::Float,
    kernels: float_unary!(Exp),
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
    reference: libm::log,
    derivative: Derivative::Jvp(|g, rule, t| {
        let one = full_like(g, 1.0, rule.inputs[0]);
        let slope = divide(g, one, rule.inputs[0])?;
        ztimes(g, t[0], slope)
    }),
    reads: Reads::INPUT,
};

pub static LOG1P: UnaryDef = UnaryDef {
    name: "log1p",
    doc: "The natural logarithm of 1 + x, exact near 0.",
    domain: (-0.5, 2.0),
    ulp: 4.0,
    promote: Promote::Float,
    kernels: float_unary!(Log1p),
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
    reference: libm::erf,
    derivative: Derivative::Jvp(erf_tangent),
    reads: Reads::INPUT,
};

/// d erf(x) = dx · 2/√π · exp(-x²).
fn erf_tangent(g: &mut Graph, rule: &Rule, t: &[Option<crate::graph::Val>]) -> Result<Tangents> {
    let x = rule.inputs[0];
    let square = multiply(g, x, x)?;
    let negated = negative(g, square)?;
    let bell = exp(g, negated)?;
    let scale = full_like(g, std::f64::consts::FRAC_2_SQRT_PI, x);
    let slope = multiply(g, bell, scale)?;
    times(g, t[0], slope)
}
