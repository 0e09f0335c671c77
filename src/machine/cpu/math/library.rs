//! The function that libm computes element by element: in f64, rounded to f32 for f32. Equal bits on every instruction
//! set.

use super::super::float::Float;

/// log of |Γ(x)|.
#[inline(always)]
pub fn lgamma<T: Float, const FMA: bool>(x: T) -> T {
    T::from_f64(libm::lgamma(x.to_f64()))
}
