//! Division of floats that rounds toward minus infinity, and its remainder with the sign of the divisor: in f64, exact
//! but for one rounding. Where the quotient is huge, libm finds the remainder bit by bit.

use super::super::float::Float;
use super::double::product;

/// Whether the quotient is so small that one division finds it; false where an operand is 0 / 0, infinite or NaN.
#[inline(always)]
pub fn is_small_quotient<T: Float>(x: T, y: T) -> bool {
    let (x, y) = (x.to_f64().abs(), y.to_f64().abs());
    // The product of divisor and quotient has no rest in f32, and one that f64 can hold.
    let most = if T::DOUBLE { 2f64.powi(50) } else { 2f64.powi(28) };
    x < y * most && y < 1e270 && (!T::DOUBLE || y > 1e-270)
}

/// The remainder with the sign of y, from one that differs by y at most.
#[inline(always)]
fn with_sign<T: Float>(rest: f64, y: f64) -> T {
    let shifted = if (rest < 0.0) != (y < 0.0) { rest + y } else { rest };
    T::from_f64(if rest == 0.0 { 0f64.copysign(y) } else { shifted })
}

/// The remainder where `is_small_quotient`.
#[inline(always)]
pub fn small_remainder<T: Float, const FMA: bool>(x: T, y: T) -> T {
    let (x, y) = (x.to_f64(), y.to_f64());
    let n = (x / y + f64::ROUNDER) - f64::ROUNDER;
    let rest = if T::DOUBLE {
        let (near, lost) = product::<f64, FMA>(n, y);
        (x - near) - lost
    } else {
        x - n * y
    };
    with_sign(rest, y)
}

/// The quotient where `is_small_quotient`.
#[inline(always)]
pub fn small_floor_divide<T: Float, const FMA: bool>(x: T, y: T) -> T {
    let rest = small_remainder::<T, FMA>(x, y);
    let quotient = (x.to_f64() - rest.to_f64()) / y.to_f64();
    T::from_f64(((quotient + f64::ROUNDER) - f64::ROUNDER).copysign(quotient))
}

/// Python's float remainder: the sign of the divisor.
#[inline(always)]
pub fn remainder<T: Float, const FMA: bool>(x: T, y: T) -> T {
    if is_small_quotient(x, y) {
        return small_remainder::<T, FMA>(x, y);
    }
    let (x, y) = (x.to_f64(), y.to_f64());
    with_sign(libm::fmod(x, y), y)
}

/// x / y rounded toward minus infinity.
#[inline(always)]
pub fn floor_divide<T: Float, const FMA: bool>(x: T, y: T) -> T {
    if is_small_quotient(x, y) {
        return small_floor_divide::<T, FMA>(x, y);
    }
    if y == T::ZERO {
        return x / y;
    }
    // The remainder by infinity is no number to count with.
    if x.is_finite() && y.abs() == T::INFINITY {
        let is_below = x != T::ZERO && x.is_sign_negative() != y.is_sign_negative();
        return if is_below { -T::ONE } else { x / y };
    }
    let quotient = (x.to_f64() - remainder::<T, FMA>(x, y).to_f64()) / y.to_f64();
    T::from_f64(libm::rint(quotient))
}
