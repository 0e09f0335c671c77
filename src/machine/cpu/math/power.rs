//! x^y = 2^(y log2 |x|): for f32 in the lanes of f64, for f64 with a logarithm of two parts.

use super::super::float::Float;
use super::double::{ordered_sum, product};
use super::exp::{exp2_sum, power_of_two};
use super::log::{split, split_any};
use super::polynomial;

/// P in log2((1 + s) / (1 - s)) = s P(s²), for |s| < 0.172: to 2^-45.
const LOG2: &[f64] = &[
    2.88539008177785,
    0.9617966941133897,
    0.5770779423467775,
    0.4122092544321768,
    0.3199056062092595,
    0.282901532061658,
];
/// P in 2^r = P(r), for |r| ≤ 1/2: to 2^-34.
const EXP2: &[f64] = &[
    0.9999999999616102,
    0.6931471807287178,
    0.24022651198779285,
    0.055504103528558904,
    0.009618027171298638,
    0.0013333922821731415,
    0.00015469317608382983,
    1.520191098871058e-05,
];
/// The first two of the series of `LOG2` in two parts, and P in what follows, s⁵ P(s²): to 2^-73.
const FIRST: (f64, f64) = (2.8853900817779268, 4.071_054_748_186_206_6e-17);
const SECOND: (f64, f64) = (0.9617966939259756, 5.057_761_664_812_590_7e-17);
const TAIL: &[f64] = &[
    0.5770780163555851,
    0.4121985831113704,
    0.3205988979078608,
    0.2623081991698792,
    0.22195224003234781,
    0.19240235420685017,
    0.16843271400375942,
    0.17295948363937533,
];

/// y log2(x) for a finite x above 0, as a sum.
#[inline(always)]
fn exponent<const FMA: bool>(x: f64, y: f64) -> (f64, f64) {
    let (k, m) = split_any(x);
    let f = m - 1.0;
    // s = f / (2 + f) in two parts.
    let (sum, lost) = ordered_sum(2.0, f);
    let inverse = 1.0 / sum;
    let s = f * inverse;
    let (back, rest) = product::<f64, FMA>(s, sum);
    let s = (s, ((f - back) - rest - s * lost) * inverse);
    let z = times::<FMA>(s, s);
    let cube = times::<FMA>(z, s);
    let (tail, rest) = ordered_sum(SECOND.0, z.0 * polynomial::<f64, FMA>(TAIL, z.0));
    let (first, second) = (times::<FMA>(FIRST, s), times::<FMA>((tail, rest + SECOND.1), cube));
    let (sum, first_lost) = ordered_sum(k, first.0);
    let (sum, second_lost) = ordered_sum(sum, second.0);
    let log2 = ordered_sum(sum, first_lost + (second_lost + (first.1 + second.1)));
    times::<FMA>(log2, (y, 0.0))
}

/// A product of sums of two parts.
#[inline(always)]
fn times<const FMA: bool>(a: (f64, f64), b: (f64, f64)) -> (f64, f64) {
    let (high, low) = product::<f64, FMA>(a.0, b.0);
    (high, a.0.fma::<FMA>(b.1, a.1.fma::<FMA>(b.0, low)))
}

/// x^y for x ≥ 0 and a finite y, both of f64.
#[inline(always)]
fn double<const FMA: bool>(x: f64, y: f64) -> f64 {
    let (p, q) = exponent::<FMA>(x, y);
    // Infinity and NaN are their own logarithms.
    let p = if x < f64::INFINITY { p } else { x * y };
    let p = if x == 0.0 { f64::NEG_INFINITY * y } else { p };
    // Beyond it the result is 0 or infinite, and q is not a number.
    let q = if p.abs() < 2000.0 { q } else { 0.0 };
    exp2_sum::<f64, FMA>(p, q)
}

/// The like for x and y of f32.
#[inline(always)]
fn single<const FMA: bool>(x: f64, y: f64) -> f64 {
    let (k, m) = split(x);
    let s = (m - 1.0) / (m + 1.0);
    let log2 = s.fma::<FMA>(polynomial::<f64, FMA>(LOG2, s * s), k);
    let log2 = if x == 0.0 { f64::NEG_INFINITY } else { log2 };
    let log2 = if x < f64::INFINITY { log2 } else { x };
    let p = y * log2;
    let p = if p > 200.0 { 200.0 } else { p };
    let p = if p < -200.0 { -200.0 } else { p };
    short_exp2::<FMA>(p)
}

/// 2^x for |x| ≤ 200, right for f32.
#[inline(always)]
pub(super) fn short_exp2<const FMA: bool>(x: f64) -> f64 {
    let n = (x + f64::ROUNDER) - f64::ROUNDER;
    polynomial::<f64, FMA>(EXP2, x - n) * power_of_two(n)
}

/// x^y with the special cases of IEEE 754: pow(x, 0) = pow(1, y) = 1 even for NaN.
#[inline(always)]
pub fn pow<T: Float, const FMA: bool>(x: T, y: T) -> T {
    let (x, y) = (x.to_f64(), y.to_f64());
    // An infinite y would make NaN of the logarithm of 1. This one too gives 0 or infinity for all others.
    let huge = 1e300;
    let exponent = if y > huge { huge } else { y };
    let exponent = if exponent < -huge { -huge } else { exponent };
    let a = x.abs();
    let power = if T::DOUBLE { double::<FMA>(a, exponent) } else { single::<FMA>(a, exponent) };
    // How far y / 2 is from an integer: 0 for even numbers, 1/2 for odd ones. Beyond 2^53 all are even.
    let all = 1.0 / f64::EPSILON;
    let half = 0.5 * exponent.abs();
    let half = if half > all { all } else { half };
    let distance = (half - ((half + all) - all)).abs();
    let is_odd = distance == 0.5;
    let is_real = x >= 0.0 || a == f64::INFINITY || is_odd || distance == 0.0;
    let power = if is_odd { power.copysign(x) } else { power };
    let power = if is_real { power } else { f64::NAN };
    T::from_f64(if x == 1.0 || y == 0.0 { 1.0 } else { power })
}
