//! √(x² + y²): in f64 for f32; for f64 from squares in two parts, scaled so that none overflows or vanishes.

use super::super::float::Float;
use super::double::{ordered_sum, product};

/// A power of two whose square and fourth power are numbers.
const SCALE: f64 = f64::from_bits((1023 + 600) << 52);
const INVERSE: f64 = 1.0 / SCALE;

/// sqrt(x² + y²) without overflow between.
#[inline(always)]
pub fn hypot<T: Float, const FMA: bool>(x: T, y: T) -> T {
    let (x, y) = (x.to_f64().abs(), y.to_f64().abs());
    let root = if T::DOUBLE { scaled::<FMA>(x, y) } else { (x * x + y * y).sqrt() };
    // Even beside NaN.
    T::from_f64(if x == f64::INFINITY || y == f64::INFINITY { f64::INFINITY } else { root })
}

#[inline(always)]
fn scaled<const FMA: bool>(x: f64, y: f64) -> f64 {
    let (a, b) = if y > x { (y, x) } else { (x, y) };
    let (up, down) = if a > 1e150 { (INVERSE, SCALE) } else { (1.0, 1.0) };
    let (up, down) = if a < 1e-130 { (SCALE, INVERSE) } else { (up, down) };
    let (first, first_lost) = product::<f64, FMA>(a * up, a * up);
    let (second, second_lost) = product::<f64, FMA>(b * up, b * up);
    let (sum, lost) = ordered_sum(first, second);
    (sum + (lost + (first_lost + second_lost))).sqrt() * down
}
