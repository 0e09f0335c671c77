//! Logarithms: x = 2^k m with m between sqrt(1/2) and sqrt(2), and log m from f = m - 1.

use super::super::float::{Bits, Float};
use super::double::{ordered_sum, product};
use super::polynomial;

/// k as a float, and m, of a normal number above 0.
#[inline(always)]
pub(super) fn split<T: Float>(x: T) -> (T, T) {
    let low = T::SQRT_HALF.to_bits();
    let bits = x.to_bits().plus(T::ONE_BITS.minus(low));
    let exponent = T::ROUNDER.to_bits().plus(bits >> T::MANTISSA_BITS);
    let k = T::from_bits(exponent) - (T::ROUNDER + T::BIAS);
    let fraction = (T::ONE_BITS & !T::INFINITY.to_bits()) | (bits & !T::INFINITY.to_bits() & !(-T::ZERO).to_bits());
    (k, T::from_bits(fraction.plus(low)))
}

/// log(1 + f) + k ln 2 + c, for a small c.
#[inline(always)]
fn join<T: Float, const FMA: bool>(f: T, k: T, c: T) -> T {
    let low = k.fma::<FMA>(T::LN2_LOW, c);
    if T::DOUBLE {
        // With s = f / (2 + f): log(1 + f) = f - (h - s (h + R(s²))), h = f² / 2.
        let s = f / (T::TWO + f);
        let z = s * s;
        let h = T::HALF * f * f;
        let r = z * polynomial::<T, FMA>(T::LOG, z);
        k.fma::<FMA>(T::LN2_HIGH, f - (h - s.fma::<FMA>(h + r, low)))
    } else {
        let z = f * f;
        let y = (z * f).fma::<FMA>(polynomial::<T, FMA>(T::LOG, f), low);
        k.fma::<FMA>(T::LN2_HIGH, f + z.fma::<FMA>(-T::HALF, y))
    }
}

/// `split` of any number above 0.
#[inline(always)]
pub(super) fn split_any<T: Float>(x: T) -> (T, T) {
    let is_denormal = x < T::MIN_POSITIVE;
    let (k, m) = split(if is_denormal { x * T::LIFT } else { x });
    (if is_denormal { k - T::LIFT_EXPONENT } else { k }, m)
}

/// y, a logarithm of x, but what x asks for at the edges.
#[inline(always)]
fn edges<T: Float>(x: T, y: T) -> T {
    // Infinity and NaN are their own logarithms.
    let y = if x < T::INFINITY { y } else { x };
    let y = if x < T::ZERO { T::NAN } else { y };
    if x == T::ZERO { T::NEG_INFINITY } else { y }
}

/// The natural logarithm.
#[inline(always)]
pub fn log<T: Float, const FMA: bool>(x: T) -> T {
    let (k, m) = split_any(x);
    edges(x, join::<T, FMA>(m - T::ONE, k, T::ZERO))
}

/// k · two + log(m) · e for x = 2^k m: the logarithm to the base of which `two` and `e` are those of 2 and e, each in
/// two parts.
#[inline(always)]
fn log_to_base<T: Float, const FMA: bool>(x: T, two: (T, T), e: (T, T)) -> T {
    let (k, m) = split_any(x);
    let f = m - T::ONE;
    // log(1 + f) = f - h + tail, h = f² / 2.
    let (square, lost) = product::<T, FMA>(f, f);
    let h = T::HALF * square;
    let tail = if T::DOUBLE {
        let s = f / (T::TWO + f);
        let z = s * s;
        s * z.fma::<FMA>(polynomial::<T, FMA>(T::LOG, z), h)
    } else {
        square * f * polynomial::<T, FMA>(T::LOG, f)
    };
    let (high, rest) = ordered_sum(f, -h);
    let low = rest + lost.fma::<FMA>(-T::HALF, tail);
    let (whole, whole_low) = product::<T, FMA>(k, two.0);
    let (part, part_low) = product::<T, FMA>(high, e.0);
    let part_low = low.fma::<FMA>(e.0, high.fma::<FMA>(e.1, part_low));
    let (sum, lost) = ordered_sum(whole, part);
    edges(x, sum + (lost + (part_low + k.fma::<FMA>(two.1, whole_low))))
}

/// The logarithm to base 2.
#[inline(always)]
pub fn log2<T: Float, const FMA: bool>(x: T) -> T {
    log_to_base::<T, FMA>(x, (T::ONE, T::ZERO), (T::LOG2_E, T::LOG2_E_REST))
}

/// The logarithm to base 10.
#[inline(always)]
pub fn log10<T: Float, const FMA: bool>(x: T) -> T {
    log_to_base::<T, FMA>(x, (T::LOG10_2, T::LOG10_2_REST), (T::LOG10_E, T::LOG10_E_REST))
}

/// log(1 + x), exact near 0.
#[inline(always)]
pub fn log1p<T: Float, const FMA: bool>(x: T) -> T {
    let u = T::ONE + x;
    let (k, m) = split(u);
    // What rounding lost of 1 + x, relative to u.
    let lost = if k < T::TWO { x - (u - T::ONE) } else { T::ONE - (u - x) };
    let is_near = k == T::ZERO;
    let f = if is_near { x } else { m - T::ONE };
    let c = if is_near { T::ZERO } else { lost / u };
    let y = join::<T, FMA>(f, k, c);
    let y = if x < T::INFINITY { y } else { x };
    let y = if x < -T::ONE { T::NAN } else { y };
    let y = if x == -T::ONE { T::NEG_INFINITY } else { y };
    // Keeps the sign of zero.
    if x == T::ZERO { x } else { y }
}
