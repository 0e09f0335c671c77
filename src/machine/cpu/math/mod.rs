//! Scalar functions for kernel bodies: our own polynomials, without branches, so that LLVM vectorises a loop over them.
//!
//! Largest errors over all inputs, with and without FMA: 3 ULP in f32, 4 ULP in f64; NaN stays NaN, infinities, signed
//! zeros and denormals are right. `FMA` decides the bits, never the width of a vector. Some compute in f64 for f32 too.
//! A few functions of f64, and arguments that a kernel does one by one, are left to libm.

mod arc;
mod circle;
pub mod coefficients;
mod double;
mod erf;
mod exp;
mod hypot;
mod library;
mod log;
mod power;
mod quotient;
mod turns;

pub use arc::{acos, acosh, asin, asinh, atan, atan2, atanh, erfc};
pub use circle::{cos, is_small_angle, sin, small_cos, small_sin, small_tan, tan};
pub use erf::erf;
pub use exp::{cosh, exp, exp_between, exp2, expm1, sigmoid, sinh, tanh};
pub use hypot::hypot;
pub use library::lgamma;
pub use log::{log, log1p, log2, log10};
pub use power::pow;
pub use quotient::{floor_divide, is_small_quotient, remainder, small_floor_divide, small_remainder};
pub use turns::sin_cos_turns;

use super::float::Float;

/// The square root, rounded right.
#[inline(always)]
pub fn sqrt<T: Float, const FMA: bool>(x: T) -> T {
    x.sqrt()
}

/// c[0] + c[1] x + c[2] x² + …
#[inline(always)]
fn polynomial<T: Float, const FMA: bool>(c: &[T], x: T) -> T {
    let mut sum = c[c.len() - 1];
    for &c in c[..c.len() - 1].iter().rev() {
        sum = sum.fma::<FMA>(x, c);
    }
    sum
}

#[cfg(test)]
mod tests;
