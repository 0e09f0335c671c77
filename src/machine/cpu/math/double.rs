//! Sums and products with what rounding lost of them: the pairs by which results keep their last place.

use super::super::float::{Bits, Float};

/// a + b rounded, and the rest, for |a| ≥ |b| or a = 0.
#[inline(always)]
pub fn ordered_sum<T: Float>(a: T, b: T) -> (T, T) {
    let sum = a + b;
    (sum, b - (sum - a))
}

/// a + b rounded, and the rest.
#[inline(always)]
pub fn sum<T: Float>(a: T, b: T) -> (T, T) {
    let sum = a + b;
    let second = sum - a;
    (sum, (a - (sum - second)) + (b - second))
}

/// a · b rounded, and the rest.
#[inline(always)]
pub fn product<T: Float, const FMA: bool>(a: T, b: T) -> (T, T) {
    let product = a * b;
    if FMA {
        return (product, a.fma::<FMA>(b, -product));
    }
    let ((a, c), (b, d)) = (halves(a), halves(b));
    (product, c * d - (((product - a * b) - a * d) - c * b))
}

/// x in two parts, each with about half of the digits.
#[inline(always)]
fn halves<T: Float>(x: T) -> (T, T) {
    let low = T::Bits::from_u64((1 << (T::MANTISSA_BITS / 2 + 1)) - 1);
    let high = T::from_bits(x.to_bits() & !low);
    (high, x - high)
}
