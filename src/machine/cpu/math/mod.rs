//! Scalar functions.

use super::float::Float;

macro_rules! through {
    ($($name:ident => $f:path),*) => {$(
        pub fn $name<T: Float, const FMA: bool>(x: T) -> T { T::from_f64($f(x.to_f64())) }
    )*};
}
through!(exp => libm::exp, expm1 => libm::expm1, log => libm::log, log1p => libm::log1p, tanh => libm::tanh, erf => libm::erf, sin => libm::sin, cos => libm::cos, sqrt => libm::sqrt);

pub fn sigmoid<T: Float, const FMA: bool>(x: T) -> T {
    T::from_f64(1.0 / (1.0 + libm::exp(-x.to_f64())))
}

pub fn pow<T: Float, const FMA: bool>(x: T, y: T) -> T {
    T::from_f64(libm::pow(x.to_f64(), y.to_f64()))
}
