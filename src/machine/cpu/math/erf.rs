//! The error function: in f32 a polynomial near 0 and 1 - e^-g(x) beyond, in f64 that of libm.

use super::super::float::Float;
use super::{exp, polynomial};

/// erf(x) = x + x P(x²) for |x| < 0.875.
const NEAR: &[f32] = &[0.12837917, -0.37612635, 0.11283733, -0.026861584, 0.0052067474, -0.00082111044, 8.675394e-05];
/// erf(x) = 1 - e^-P(x) from there to 4.
const FAR: &[f32] =
    &[-0.00016202361, 1.1294532, 0.63347346, 0.10813902, -0.025027137, 0.0041356436, -0.00042708288, 2.0451364e-05];

/// 2 / sqrt(π) times the integral of e^(-t²) from 0 to x.
#[inline(always)]
pub fn erf<T: Float, const FMA: bool>(x: T) -> T {
    if T::DOUBLE {
        return T::from_f64(libm::erf(x.to_f64()));
    }
    T::from_f64(f64::from(erf_f32::<FMA>(x.to_f64() as f32)))
}

#[inline(always)]
fn erf_f32<const FMA: bool>(x: f32) -> f32 {
    let a = x.abs();
    let z = x * x;
    let near = x.fma::<FMA>(polynomial::<f32, FMA>(NEAR, z), x);
    // Beyond 4 the result is 1.
    let a4 = if a > 4.0 { 4.0 } else { a };
    let far = 1.0 - exp::<f32, FMA>(-polynomial::<f32, FMA>(FAR, a4));
    if a < 0.875 { near } else { far.copysign(x) }
}
