//! The inverse functions of circle and hyperbola, and erfc: for f32 in the lanes of f64. In f64 they are those of libm.

use super::super::float::Float;
use super::power::short_exp2;
use super::{log1p, polynomial};
use std::f64::consts::{FRAC_PI_2, LOG2_E, PI};

/// P in atan(t) = t + t³ P(t²), for |t| ≤ 1: to 2^-33.
const ATAN: &[f64] = &[
    -0.333333322343382,
    0.19999932146122615,
    -0.14284249934693247,
    0.11095194113073845,
    -0.089887493031305,
    0.072692490545218,
    -0.05470176427472953,
    0.03470115762152512,
    -0.016468676789231126,
    0.004998074186882921,
    -0.0007110658174210877,
];
/// P in asin(t) = t + t³ P(t²), for |t| ≤ 1/2: to 2^-35.
const ASIN: &[f64] = &[
    0.16666667191440482,
    0.07499948012441378,
    0.044660204857715796,
    0.030109714274482027,
    0.024621878948648084,
    0.007457907779883911,
    0.03470688656864523,
];
/// P in erfc(x) = e^(-x²) P(t) / (1 + 2x) with t = (x - 3) / (x + 3), for x from 0 to `ERFC_ZERO`: to 2^-30.
const ERFC: &[f64] = &[
    1.253008058917082,
    -0.13562111293086634,
    -0.04756238101464735,
    0.12964542746591168,
    -0.11927167062438984,
    0.06830575570265301,
    -0.023787586564320812,
    0.0025308002177436622,
    0.0019508299167547765,
    -0.000743119471803207,
    -0.00018493114852413762,
    3.456911131039146e-05,
];
/// Beyond it erfc is 0 in f32.
const ERFC_ZERO: f64 = 10.1;

macro_rules! singles {
    ($($(#[$doc:meta])* $name:ident($($x:ident),+) = $single:ident;)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub fn $name<T: Float, const FMA: bool>($($x: T),+) -> T {
            $(let $x = $x.to_f64();)+
            T::from_f64(if T::DOUBLE { libm::$name($($x),+) } else { $single::<FMA>($($x),+) })
        }
    )*};
}

singles! {
    asin(x) = single_asin;
    acos(x) = single_acos;
    atan(x) = single_atan;
    /// The angle of the point (x, y).
    atan2(y, x) = single_atan2;
    asinh(x) = single_asinh;
    atanh(x) = single_atanh;
    /// 1 - erf(x), exact where erf is near 1.
    erfc(x) = single_erfc;
}

/// The number of at least 0 with hyperbolic cosine x: NaN below 1, where libm has some numbers.
#[inline(always)]
pub fn acosh<T: Float, const FMA: bool>(x: T) -> T {
    let above = x.to_f64() - 1.0;
    let y = if T::DOUBLE { libm::acosh(x.to_f64()) } else { log1p::<f64, FMA>(above + (above * (above + 2.0)).sqrt()) };
    if x < T::ONE { T::NAN } else { T::from_f64(y) }
}

/// Whether |x| > 1/2, and the arc of |x|: to 0 if not, else half of that to 1.
#[inline(always)]
fn arc<const FMA: bool>(x: f64) -> (bool, f64) {
    let a = x.abs();
    let is_far = a > 0.5;
    let z = if is_far { 0.5 - 0.5 * a } else { a * a };
    let t = if is_far { z.sqrt() } else { a };
    (is_far, (t * z).fma::<FMA>(polynomial::<f64, FMA>(ASIN, z), t))
}

#[inline(always)]
fn single_asin<const FMA: bool>(x: f64) -> f64 {
    let (is_far, arc) = arc::<FMA>(x);
    (if is_far { FRAC_PI_2 - 2.0 * arc } else { arc }).copysign(x)
}

#[inline(always)]
fn single_acos<const FMA: bool>(x: f64) -> f64 {
    let (is_far, arc) = arc::<FMA>(x);
    let far = if x < 0.0 { PI - 2.0 * arc } else { 2.0 * arc };
    if is_far { far } else { FRAC_PI_2 - arc.copysign(x) }
}

/// The angle with tangent t, for 0 ≤ t ≤ 1; from the other axis if `is_steep`.
#[inline(always)]
fn angle<const FMA: bool>(t: f64, is_steep: bool) -> f64 {
    let z = t * t;
    let angle = (t * z).fma::<FMA>(polynomial::<f64, FMA>(ATAN, z), t);
    if is_steep { FRAC_PI_2 - angle } else { angle }
}

#[inline(always)]
fn single_atan<const FMA: bool>(x: f64) -> f64 {
    let a = x.abs();
    let is_steep = a > 1.0;
    let (low, high) = if is_steep { (1.0, a) } else { (a, 1.0) };
    angle::<FMA>(low / high, is_steep).copysign(x)
}

#[inline(always)]
fn single_atan2<const FMA: bool>(y: f64, x: f64) -> f64 {
    let (a, b) = (x.abs(), y.abs());
    let is_steep = b > a;
    let (low, high) = if is_steep { (a, b) } else { (b, a) };
    // Two infinities are a diagonal, two zeros the axis.
    let equal = if high == 0.0 { 0.0 } else { 1.0 };
    let t = if low == high { equal } else { low / high };
    let angle = angle::<FMA>(t, is_steep);
    (if x.is_sign_negative() { PI - angle } else { angle }).copysign(y)
}

#[inline(always)]
fn single_asinh<const FMA: bool>(x: f64) -> f64 {
    let a = x.abs();
    let square = a * a;
    let y = log1p::<f64, FMA>(a + square / (1.0 + (square + 1.0).sqrt()));
    if a < f64::INFINITY { y.copysign(x) } else { x }
}

#[inline(always)]
fn single_atanh<const FMA: bool>(x: f64) -> f64 {
    let a = x.abs();
    (0.5 * log1p::<f64, FMA>((a + a) / (1.0 - a))).copysign(x)
}

#[inline(always)]
fn single_erfc<const FMA: bool>(x: f64) -> f64 {
    let a = x.abs();
    let a = if a > ERFC_ZERO { ERFC_ZERO } else { a };
    let bell = short_exp2::<FMA>(a * a * -LOG2_E);
    let y = bell * polynomial::<f64, FMA>(ERFC, (a - 3.0) / (a + 3.0)) / (1.0 + 2.0 * a);
    if x < 0.0 { 2.0 - y } else { y }
}
