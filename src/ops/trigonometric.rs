//! Trigonometric and hyperbolic functions and their inverses; angles in radians.

use super::arithmetic::{SQUARE, times, ztimes};
use super::build::*;
use super::define::{float_binary, float_fn, float_unary};
use super::exponential::{RSQRT, SQRT};
use super::wgsl::wgsl;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{BinaryDef, Derivative, Graph, Promote, Reads, Rule, Tangents, UnaryDef, Val};
use crate::machine::cpu::dispatch::{BinaryFn, Kernels, UnaryFn};
use crate::machine::cpu::float::Float;
use crate::machine::cpu::math;
use crate::{binary_kernels, unary_kernels};

/// A function held to that of libm: its definition from its name, its domain, and its slope by input and output.
macro_rules! vectorised {
    ($def:ident, $name:ident, $function:ident, $($rest:tt)*) => {
        float_fn!($name, |x| math::$function::<T, FMA>(x));
        define!($def, $name, $function, libm::$function, $($rest)*);
    };
}

/// The like that calls libm in f64.
macro_rules! single {
    ($def:ident, $name:ident, $function:ident, $($rest:tt)*) => {
        float_fn!($name, single | x | math::$function::<T, FMA>(x));
        define!($def, $name, $function, libm::$function, $($rest)*);
    };
}

/// The like whose vectorised form is right for angles of up to a million.
macro_rules! periodic {
    ($def:ident, $name:ident, $function:ident, $small:ident, $($rest:tt)*) => {
        float_fn!($name, |x| math::$function::<T, FMA>(x), if math::is_small_angle(x) => math::$small::<T, FMA>(x));
        define!($def, $name, $function, libm::$function, $($rest)*);
    };
}

macro_rules! define {
    ($def:ident, $name:ident, $function:ident, $reference:expr, $doc:literal, $domain:expr, $reads:expr,
     $times:ident, $slope:expr) => {
        pub static $def: UnaryDef = UnaryDef {
            name: stringify!($function),
            doc: $doc,
            domain: $domain,
            ulp: 1.0,
            promote: Promote::Float,
            kernels: float_unary!($name),
            wgsl: wgsl!(
                F32 => concat!(stringify!($function), "_f32(x)")
            ),
            gpu_ulp: 6.0,
            reference: $reference,
            derivative: Derivative::Jvp(|g, rule, t| {
                let slope: fn(&mut Graph, Val, Val) -> Result<Val> = $slope;
                let slope = slope(g, rule.inputs[0], rule.outputs[0])?;
                $times(g, t[0], slope)
            }),
            reads: $reads,
        };
    };
}

periodic!(SIN, Sin, sin, small_sin, "The sine of x radians.", (-1.0, 1.0), Reads::INPUT, times, |g, x, _| unary(
    g, &COS, x
));
periodic!(COS, Cos, cos, small_cos, "The cosine of x radians.", (0.5, 2.5), Reads::INPUT, times, |g, x, _| {
    let sin = unary(g, &SIN, x)?;
    negative(g, sin)
});
periodic!(TAN, Tan, tan, small_tan, "The tangent of x radians.", (-1.0, 1.0), Reads::OUTPUT, ztimes, |g, _, y| {
    square_plus(g, y, 1.0)
});
single!(ASIN, Asin, asin, "The angle in [-π/2, π/2] with sine x.", (-0.8, 0.8), Reads::INPUT, ztimes, |g, x, _| {
    let rest = one_less_square(g, x)?;
    unary(g, &RSQRT, rest)
});
single!(ACOS, Acos, acos, "The angle in [0, π] with cosine x.", (-0.8, 0.8), Reads::INPUT, ztimes, |g, x, _| {
    let rest = one_less_square(g, x)?;
    let slope = unary(g, &RSQRT, rest)?;
    negative(g, slope)
});
single!(ATAN, Atan, atan, "The angle in (-π/2, π/2) with tangent x.", (-1.5, 1.5), Reads::INPUT, times, |g, x, _| {
    let sum = square_plus(g, x, 1.0)?;
    inverse(g, sum)
});
vectorised!(SINH, Sinh, sinh, "(exp(x) - exp(-x)) / 2.", (-1.5, 1.5), Reads::INPUT, ztimes, |g, x, _| {
    unary(g, &COSH, x)
});
vectorised!(COSH, Cosh, cosh, "(exp(x) + exp(-x)) / 2.", (0.3, 1.5), Reads::INPUT, ztimes, |g, x, _| {
    unary(g, &SINH, x)
});
single!(ASINH, Asinh, asinh, "The number with hyperbolic sine x.", (-1.5, 1.5), Reads::INPUT, times, |g, x, _| {
    let sum = square_plus(g, x, 1.0)?;
    unary(g, &RSQRT, sum)
});
float_fn!(Acosh, single | x | math::acosh::<T, FMA>(x));
define!(
    ACOSH,
    Acosh,
    acosh,
    |x| if x < 1.0 { f64::NAN } else { libm::acosh(x) },
    "The number of at least 0 with hyperbolic cosine x.",
    (1.3, 3.0),
    Reads::INPUT,
    ztimes,
    |g, x, _| {
        // Two roots: x² - 1 would lose the digits of x near 1.
        let (above, below) = (shifted(g, x, -1.0)?, shifted(g, x, 1.0)?);
        let (above, below) = (unary(g, &SQRT, above)?, unary(g, &SQRT, below)?);
        let product = zmul(g, above, below)?;
        inverse(g, product)
    }
);
single!(ATANH, Atanh, atanh, "The number with hyperbolic tangent x.", (-0.8, 0.8), Reads::INPUT, ztimes, |g, x, _| {
    let rest = one_less_square(g, x)?;
    inverse(g, rest)
});

pub struct Atan2;
impl<T: Float> BinaryFn<T, T> for Atan2 {
    const VECTOR: bool = !T::DOUBLE;
    #[inline(always)]
    fn eval<const FMA: bool>(y: T, x: T) -> T {
        math::atan2::<T, FMA>(y, x)
    }
}

pub static ATAN2: BinaryDef = BinaryDef {
    name: "atan2",
    doc: "The angle of the point (x, y), y first, in [-π, π].",
    domain: [(0.3, 2.0), (-2.0, 2.0)],
    ulp: 1.0,
    promote: Promote::Float,
    kernels: float_binary!(Atan2),
    wgsl: wgsl!(F32 => "atan2_f32(x, y)"),
    gpu_ulp: 6.0,
    reference: libm::atan2,
    derivative: Derivative::Jvp(atan2_tangent),
    reads: Reads::BOTH,
};

/// (x·dy - y·dx) / (x² + y²).
fn atan2_tangent(g: &mut Graph, rule: &Rule, t: &[Option<Val>]) -> Result<Tangents> {
    let (y, x) = (rule.inputs[0], rule.inputs[1]);
    let (height, width) = (unary(g, &SQUARE, y)?, unary(g, &SQUARE, x)?);
    let sum = add(g, width, height)?;
    let turned = negative(g, y)?;
    let (by_y, by_x) = (divide(g, x, sum)?, divide(g, turned, sum)?);
    let (first, second) = (ztimes(g, t[0], by_y)?[0], ztimes(g, t[1], by_x)?[0]);
    sum_of_tangents(g, first, second)
}

fn shifted(g: &mut Graph, x: Val, by: f64) -> Result<Val> {
    let by = full_like(g, by, x);
    add(g, x, by)
}

fn inverse(g: &mut Graph, x: Val) -> Result<Val> {
    let one = full_like(g, 1.0, x);
    divide(g, one, x)
}

fn square_plus(g: &mut Graph, x: Val, more: f64) -> Result<Val> {
    let square = unary(g, &SQUARE, x)?;
    shifted(g, square, more)
}

/// 1 - x², as (1 - x)·(1 + x): exact near ±1.
fn one_less_square(g: &mut Graph, x: Val) -> Result<Val> {
    let one = full_like(g, 1.0, x);
    let (below, above) = (subtract(g, one, x)?, add(g, one, x)?);
    multiply(g, below, above)
}
