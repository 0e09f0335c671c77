//! Sine, cosine and tangent: x = n π/2 + r with |r| ≤ π/4, and polynomials in r; in f64, with shorter ones for f32.
//! Beyond `ANGLE_MAX` they are those of libm.

use super::super::float::Float;
use super::double::{ordered_sum, product, sum};
use super::polynomial;

/// Up to here n has at most 20 bits, and its products with the parts of π/2 are exact.
const ANGLE_MAX: f64 = 1e6;
/// π/2 in parts of 33 bits, and the rest.
const QUARTER: [f64; 4] =
    [1.570_796_326_734_125_6, 6.077_100_506_303_966e-11, 2.022_266_248_711_166_5e-21, 8.478_427_660_368_9e-32];
/// The second part as long as a double.
const QUARTER_REST: f64 = 6.077_100_506_506_192e-11;
/// P in sin(r) = r + r³ P(r²): to 2^-58, and for f32 to 2^-37.
const SIN: &[f64] = &[
    -0.16666666666666632,
    0.008333333333322413,
    -0.00019841269829807607,
    2.7557313691785998e-06,
    -2.5050758089444965e-08,
    1.5896793982890154e-10,
];
const SIN_SHORT: &[f64] = &[-0.1666666664160969, 0.008333329383874936, -0.00019839334171436264, 2.718304998877123e-06];
/// P in cos(r) = 1 - r² / 2 + r⁴ P(r²): to 2^-63, and for f32 to 2^-42.
const COS: &[f64] = &[
    0.0416666666666666,
    -0.0013888888888874125,
    2.4801587289482272e-05,
    -2.755731435235087e-07,
    2.0875723274654536e-09,
    -1.1359647827745044e-11,
];
const COS_SHORT: &[f64] =
    &[0.04166666662279282, -0.001388888375071441, 2.4799519337671047e-05, -2.7210183319907306e-07];

/// Whether x is small enough for the vectors' functions.
#[inline(always)]
pub fn is_small_angle<T: Float>(x: T) -> bool {
    x.abs() < T::from_f64(ANGLE_MAX)
}

/// n in the low bits, and sin(r) and cos(r) as sums, for 0 ≤ x < `ANGLE_MAX`; right for T.
#[inline(always)]
fn reduced<T: Float, const FMA: bool>(x: f64) -> (u64, (f64, f64), (f64, f64)) {
    let rounded = x.fma::<FMA>(std::f64::consts::FRAC_2_PI, f64::ROUNDER);
    let n = rounded - f64::ROUNDER;
    let r = x - n * QUARTER[0];
    let (r, rest) = if T::DOUBLE {
        let (r, first) = sum(r, -n * QUARTER[1]);
        let (r, second) = sum(r, -n * QUARTER[2]);
        (r, (first + second) - n * QUARTER[3])
    } else {
        (r - n * QUARTER_REST, 0.0)
    };
    let z = r * r;
    let (sin, cos) = if T::DOUBLE { (SIN, COS) } else { (SIN_SHORT, COS_SHORT) };
    let (sin, cos) = (polynomial::<f64, FMA>(sin, z), polynomial::<f64, FMA>(cos, z));
    let half = 0.5 * z;
    let top = 1.0 - half;
    let (cube, fourth) = (r * z, z * z);
    let (sin_low, cos_low) = if T::DOUBLE {
        let rounding = (1.0 - top) - half;
        (cube.fma::<FMA>(sin, rest * top), rounding + fourth.fma::<FMA>(cos, -(r * rest)))
    } else {
        (cube * sin, fourth * cos)
    };
    (rounded.to_bits(), (r, sin_low), (top, cos_low))
}

/// sin(x + quarters π/2) for x ≥ 0.
#[inline(always)]
fn turned<T: Float, const FMA: bool>(x: T, quarters: u64) -> T {
    let (n, sin, cos) = reduced::<T, FMA>(x.to_f64());
    let n = n + quarters;
    let (high, low) = if n & 1 == 0 { sin } else { cos };
    T::from_f64(f64::from_bits((high + low).to_bits() ^ (n & 2) << 62))
}

/// The sine where `is_small_angle`.
#[inline(always)]
pub fn small_sin<T: Float, const FMA: bool>(x: T) -> T {
    let y = turned::<T, FMA>(x.abs(), 0);
    // The sign of zero too.
    if x.is_sign_negative() { -y } else { y }
}

/// The cosine where `is_small_angle`.
#[inline(always)]
pub fn small_cos<T: Float, const FMA: bool>(x: T) -> T {
    turned::<T, FMA>(x.abs(), 1)
}

/// The tangent where `is_small_angle`.
#[inline(always)]
pub fn small_tan<T: Float, const FMA: bool>(x: T) -> T {
    let (n, sin, cos) = reduced::<T, FMA>(x.to_f64().abs());
    let (sin, cos) = (ordered_sum(sin.0, sin.1), ordered_sum(cos.0, cos.1));
    let (above, below) = if n & 1 == 0 { (sin, cos) } else { (cos, sin) };
    let y = above.0 / below.0;
    // What the division leaves, by a division of its own in f64.
    let y = if T::DOUBLE {
        let (back, lost) = product::<f64, FMA>(y, below.0);
        y + (((above.0 - back) - lost) + (above.1 - y * below.1)) / below.0
    } else {
        y
    };
    let is_negative = (n & 1 == 1) != x.is_sign_negative();
    T::from_f64(if is_negative { -y } else { y })
}

/// The sine, exact for huge arguments too.
#[inline(always)]
pub fn sin<T: Float, const FMA: bool>(x: T) -> T {
    if is_small_angle(x) { small_sin::<T, FMA>(x) } else { T::from_f64(libm::sin(x.to_f64())) }
}

/// The cosine, exact for huge arguments too.
#[inline(always)]
pub fn cos<T: Float, const FMA: bool>(x: T) -> T {
    if is_small_angle(x) { small_cos::<T, FMA>(x) } else { T::from_f64(libm::cos(x.to_f64())) }
}

/// The tangent, exact for huge arguments too.
#[inline(always)]
pub fn tan<T: Float, const FMA: bool>(x: T) -> T {
    if is_small_angle(x) { small_tan::<T, FMA>(x) } else { T::from_f64(libm::tan(x.to_f64())) }
}
