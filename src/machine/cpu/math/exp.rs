//! The exponential family: x = n ln 2 + r with |r| ≤ ln 2 / 2, a polynomial in r, and a scale by powers of two built
//! from bits.

use super::super::float::{Bits, Float};
use super::double::{ordered_sum, product};
use super::polynomial;

/// n as a float, and r.
#[inline(always)]
fn reduce<T: Float, const FMA: bool>(x: T) -> (T, T) {
    let n = x.fma::<FMA>(T::LOG2_E, T::ROUNDER) - T::ROUNDER;
    // n · LN2_HIGH is exact, so both forms lose nothing here.
    let r = n.fma::<FMA>(-T::LN2_HIGH, x);
    (n, n.fma::<FMA>(-T::LN2_LOW, r))
}

/// e^r - 1 for |r| ≤ ln 2 / 2.
#[inline(always)]
fn expm1_reduced<T: Float, const FMA: bool>(r: T) -> T {
    (r * r).fma::<FMA>(polynomial::<T, FMA>(T::EXP, r), r)
}

/// 2^n for an integer n whose power is a normal number.
#[inline(always)]
pub(super) fn power_of_two<T: Float>(n: T) -> T {
    // The integer stands in the low bits, and the shift drops the rest.
    T::from_bits(T::ONE_BITS.plus((n + T::ROUNDER).to_bits() << T::MANTISSA_BITS))
}

/// 2^n as a product of two factors, so that results below and above the normal range round once.
#[inline(always)]
fn two_powers<T: Float>(n: T) -> (T, T) {
    let first = (n * T::HALF + T::ROUNDER) - T::ROUNDER;
    (power_of_two(first), power_of_two(n - first))
}

/// 1 / x for a power of two.
#[inline(always)]
fn inverse_power<T: Float>(x: T) -> T {
    T::from_bits(T::ONE_BITS.plus(T::ONE_BITS).minus(x.to_bits()))
}

/// e^x.
#[inline(always)]
pub fn exp<T: Float, const FMA: bool>(x: T) -> T {
    let x = if x > T::EXP_MAX { T::EXP_MAX } else { x };
    let x = if x < T::EXP_MIN { T::EXP_MIN } else { x };
    let (n, r) = reduce::<T, FMA>(x);
    let (a, b) = two_powers(n);
    (expm1_reduced::<T, FMA>(r) + T::ONE) * a * b
}

/// e^x where it is a normal number: what `exp` gives, for less.
#[inline(always)]
pub fn exp_between<T: Float, const FMA: bool>(x: T) -> T {
    let (n, r) = reduce::<T, FMA>(x);
    (expm1_reduced::<T, FMA>(r) + T::ONE) * power_of_two(n)
}

/// e^(p + q) as a sum, for |p| ≤ ln 2 / 2 and a q about as small as what rounding loses of p.
#[inline(always)]
fn exp_sum<T: Float, const FMA: bool>(p: T, q: T) -> (T, T) {
    let (sum, rest) = ordered_sum(T::ONE, p);
    (sum, (p * p).fma::<FMA>(polynomial::<T, FMA>(T::EXP, p), q.fma::<FMA>(sum, rest)))
}

/// 2^(x + c), for a small c.
#[inline(always)]
pub(super) fn exp2_sum<T: Float, const FMA: bool>(x: T, c: T) -> T {
    let x = if x > T::EXP2_MAX { T::EXP2_MAX } else { x };
    let x = if x < T::EXP2_MIN { T::EXP2_MIN } else { x };
    let n = (x + T::ROUNDER) - T::ROUNDER;
    let r = x - n;
    let (p, q) = product::<T, FMA>(r, T::LN2);
    let (p, q) = ordered_sum(p, c.fma::<FMA>(T::LN2, r.fma::<FMA>(T::LN2_REST, q)));
    let (sum, rest) = exp_sum::<T, FMA>(p, q);
    let (a, b) = two_powers(n);
    (sum + rest) * a * b
}

/// 2^x.
#[inline(always)]
pub fn exp2<T: Float, const FMA: bool>(x: T) -> T {
    exp2_sum::<T, FMA>(x, T::ZERO)
}

/// e^x - 1, exact near 0.
#[inline(always)]
pub fn expm1<T: Float, const FMA: bool>(x: T) -> T {
    let clamped = if x > T::EXP_MAX { T::EXP_MAX } else { x };
    let clamped = if clamped < T::EXPM1_MIN { T::EXPM1_MIN } else { clamped };
    let (n, r) = reduce::<T, FMA>(clamped);
    let (a, b) = two_powers(n);
    let inverse = inverse_power(a) * inverse_power(b);
    let y = (expm1_reduced::<T, FMA>(r) + (T::ONE - inverse)) * a * b;
    // Keeps the sign of zero.
    if x == T::ZERO { x } else { y }
}

/// The hyperbolic tangent, from e = e^(-2|x|) - 1 as -e / (e + 2).
#[inline(always)]
pub fn tanh<T: Float, const FMA: bool>(x: T) -> T {
    let a = x.abs();
    let a = if a > T::TANH_ONE { T::TANH_ONE } else { a };
    let (n, r) = reduce::<T, FMA>(a * -T::TWO);
    let scale = power_of_two(n);
    let e = expm1_reduced::<T, FMA>(r).fma::<FMA>(scale, scale - T::ONE);
    (e / (e + T::TWO)).copysign(x)
}

/// (e^a + sign e^-a) / 2 for a ≥ 0: both from one exponential s + t with the power of two aside.
#[inline(always)]
fn half_sum<T: Float, const FMA: bool>(a: T, sign: T) -> T {
    let a = if a > T::EXP_MAX + T::ONE { T::EXP_MAX + T::ONE } else { a };
    let (n, _) = reduce::<T, FMA>(a);
    let high = n.fma::<FMA>(-T::LN2_HIGH, a);
    let (low, lost) = product::<T, FMA>(n, -T::LN2_LOW);
    let (r, rest) = ordered_sum(high, low);
    let (s, t) = exp_sum::<T, FMA>(r, rest + lost);
    let (s, t) = ordered_sum(s, t);
    // Beyond this power the second term adds nothing.
    let last = T::from_f64(40.0);
    let falling = power_of_two(-T::TWO * if n > last { last } else { n }) * sign / s;
    let (sum, lost) = ordered_sum(s, falling);
    let (a, b) = two_powers(n - T::ONE);
    (sum + (t + lost)) * a * b
}

/// The hyperbolic sine.
#[inline(always)]
pub fn sinh<T: Float, const FMA: bool>(x: T) -> T {
    let a = x.abs();
    let z = a * a;
    let near = (a * z).fma::<FMA>(polynomial::<T, FMA>(T::SINH, z), a);
    let y = if a < T::ONE { near } else { half_sum::<T, FMA>(a, -T::ONE) };
    y.copysign(x)
}

/// The hyperbolic cosine.
#[inline(always)]
pub fn cosh<T: Float, const FMA: bool>(x: T) -> T {
    half_sum::<T, FMA>(x.abs(), T::ONE)
}

/// 1 / (1 + e^-x), right for the smallest results too.
#[inline(always)]
pub fn sigmoid<T: Float, const FMA: bool>(x: T) -> T {
    let e = exp::<T, FMA>(-x.abs());
    let top = if x < T::ZERO { e } else { T::ONE };
    top / (T::ONE + e)
}
