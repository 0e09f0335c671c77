//! Sine and cosine of an angle in turns: reduction is exact, so that no constant of π is split.

use super::super::float::{Bits, Float};
use super::polynomial;

/// sin(2πu) and cos(2πu) for |u| up to 2^20: within 2 ULP of the larger of the two.
#[inline(always)]
pub fn sin_cos_turns<T: Float, const FMA: bool>(u: T) -> (T, T) {
    let four = T::TWO + T::TWO;
    let rounded = u * four + T::ROUNDER;
    let t = u - (rounded - T::ROUNDER) / four;
    let z = t * t;
    let sin = t * polynomial::<T, FMA>(T::SIN_TURN, z);
    let cos = z.fma::<FMA>(polynomial::<T, FMA>(T::COS_TURN, z), T::ONE);
    // The quarter turn stands in the low bits.
    let one = T::Bits::from_u64(1);
    let quarter = rounded.to_bits();
    let is_odd = quarter & one == one;
    let (a, b) = if is_odd { (cos, sin) } else { (sin, cos) };
    let sign = |quarter: T::Bits| (quarter >> 1 & one) << T::SIGN_BIT;
    (T::from_bits(a.to_bits() ^ sign(quarter)), T::from_bits(b.to_bits() ^ sign(quarter.plus(one))))
}
