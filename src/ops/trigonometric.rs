//! Sine and cosine; x in radians.

use super::arithmetic::times;
use super::build::{negative, unary};
use super::define::{float_fn, float_unary};
use crate::dtype::DType;
use crate::graph::{Derivative, Promote, Reads, UnaryDef};
use crate::machine::cpu::dispatch::{Kernels, UnaryFn};
use crate::machine::cpu::float::Float;
use crate::machine::cpu::math;
use crate::unary_kernels;

float_fn!(Sin, |x| math::sin::<T, FMA>(x));
float_fn!(Cos, |x| math::cos::<T, FMA>(x));

pub static SIN: UnaryDef = UnaryDef {
    name: "sin",
    doc: "The sine of x radians.",
    domain: (-1.0, 1.0),
    ulp: 3.0,
    promote: Promote::Float,
    kernels: float_unary!(Sin),
    reference: libm::sin,
    derivative: Derivative::Jvp(|g, rule, t| {
        let cos = unary(g, &COS, rule.inputs[0])?;
        times(g, t[0], cos)
    }),
    reads: Reads::INPUT,
};

pub static COS: UnaryDef = UnaryDef {
    name: "cos",
    doc: "The cosine of x radians.",
    domain: (0.5, 2.5),
    ulp: 3.0,
    promote: Promote::Float,
    kernels: float_unary!(Cos),
    reference: libm::cos,
    derivative: Derivative::Jvp(|g, rule, t| {
        let sin = unary(g, &SIN, rule.inputs[0])?;
        let slope = negative(g, sin)?;
        times(g, t[0], slope)
    }),
    reads: Reads::INPUT,
};
