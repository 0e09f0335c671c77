//! `Float`: the arithmetic that scalar functions are written against, so that one generic body serves f32 and f64.
//!
//! Everything is inlined into the kernel around it and takes that kernel's instruction set. Products and sums are
//! rounded one by one; a fused multiply-add happens only where a body asks for one and its `FMA` is true.

use super::math::coefficients::Coefficients;
use std::fmt::Debug;
use std::ops::{Add, AddAssign, BitAnd, BitOr, BitXor, Div, Mul, MulAssign, Neg, Not, Shl, Shr, Sub, SubAssign};

/// The bits of a float as an unsigned integer, with wrapping arithmetic.
pub trait Bits:
    Copy
    + Debug
    + Eq
    + Ord
    + BitAnd<Output = Self>
    + BitOr<Output = Self>
    + BitXor<Output = Self>
    + Not<Output = Self>
    + Shl<u32, Output = Self>
    + Shr<u32, Output = Self>
{
    fn plus(self, other: Self) -> Self;
    fn minus(self, other: Self) -> Self;
    /// The low bits of a wider word.
    fn from_u64(x: u64) -> Self;
}

macro_rules! bits {
    ($($T:ident)*) => {$(
        impl Bits for $T {
            #[inline(always)]
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn minus(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            #[inline(always)]
            fn from_u64(x: u64) -> Self {
                x as $T
            }
        }
    )*};
}
bits!(u32 u64);

/// f32 or f64.
///
/// Comparisons with NaN are false, so write `if x > C { C } else { x }` where NaN must survive; `max` and `min` lose it.
pub trait Float:
    Copy
    + Debug
    + Send
    + Sync
    + 'static
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + Coefficients
{
    type Bits: Bits;

    const ZERO: Self;
    const ONE: Self;
    const TWO: Self;
    const HALF: Self;
    const NAN: Self;
    const INFINITY: Self;
    const NEG_INFINITY: Self;
    /// The distance from 1 to the next number.
    const EPSILON: Self;
    /// The largest finite number.
    const MAX: Self;
    /// The smallest normal number above 0.
    const MIN_POSITIVE: Self;
    /// Whether this is f64.
    const DOUBLE: bool;
    /// Explicit bits of the significand.
    const MANTISSA_BITS: u32;
    /// Where the sign stands among the bits.
    const SIGN_BIT: u32;
    /// The bits of 1.0: the exponent's bias, in place.
    const ONE_BITS: Self::Bits;
    /// 1.5 · 2^MANTISSA_BITS: adding it rounds to an integer and leaves that integer in the low bits.
    const ROUNDER: Self;

    fn from_f64(x: f64) -> Self;
    fn to_f64(self) -> f64;
    fn to_bits(self) -> Self::Bits;
    fn from_bits(bits: Self::Bits) -> Self;
    fn abs(self) -> Self;
    fn copysign(self, sign: Self) -> Self;
    fn sqrt(self) -> Self;
    fn floor(self) -> Self;
    fn ceil(self) -> Self;
    fn trunc(self) -> Self;
    /// To the nearest integer, ties to even.
    fn round(self) -> Self;
    fn is_nan(self) -> bool;
    fn is_finite(self) -> bool;
    fn is_sign_negative(self) -> bool;

    /// self · b + c: in one rounding if `FMA`, else in two.
    fn fma<const FMA: bool>(self, b: Self, c: Self) -> Self;
}

macro_rules! float {
    ($T:ident, $Bits:ident, $mantissa:literal, $rounder:literal) => {
        impl Float for $T {
            type Bits = $Bits;

            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const TWO: Self = 2.0;
            const HALF: Self = 0.5;
            const NAN: Self = $T::NAN;
            const INFINITY: Self = $T::INFINITY;
            const NEG_INFINITY: Self = $T::NEG_INFINITY;
            const EPSILON: Self = $T::EPSILON;
            const MAX: Self = $T::MAX;
            const MIN_POSITIVE: Self = $T::MIN_POSITIVE;
            const DOUBLE: bool = $mantissa > 23;
            const MANTISSA_BITS: u32 = $mantissa;
            const SIGN_BIT: u32 = $Bits::BITS - 1;
            const ONE_BITS: $Bits = $T::to_bits(1.0);
            const ROUNDER: Self = $rounder;

            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as $T
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn to_bits(self) -> $Bits {
                $T::to_bits(self)
            }
            #[inline(always)]
            fn from_bits(bits: $Bits) -> Self {
                $T::from_bits(bits)
            }
            #[inline(always)]
            fn abs(self) -> Self {
                $T::abs(self)
            }
            #[inline(always)]
            fn copysign(self, sign: Self) -> Self {
                $T::copysign(self, sign)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                $T::sqrt(self)
            }
            #[inline(always)]
            fn floor(self) -> Self {
                $T::floor(self)
            }
            #[inline(always)]
            fn ceil(self) -> Self {
                $T::ceil(self)
            }
            #[inline(always)]
            fn trunc(self) -> Self {
                $T::trunc(self)
            }
            #[inline(always)]
            fn round(self) -> Self {
                $T::round_ties_even(self)
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                $T::is_nan(self)
            }
            #[inline(always)]
            fn is_finite(self) -> bool {
                $T::is_finite(self)
            }
            #[inline(always)]
            fn is_sign_negative(self) -> bool {
                $T::is_sign_negative(self)
            }
            #[inline(always)]
            fn fma<const FMA: bool>(self, b: Self, c: Self) -> Self {
                if FMA { self.mul_add(b, c) } else { self * b + c }
            }
        }
    };
}
float!(f32, u32, 23, 12_582_912.0);
float!(f64, u64, 52, 6_755_399_441_055_744.0);
