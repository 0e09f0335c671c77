//! Functions that call libm for each element: in f64, rounded to f32 for f32. Equal bits on every instruction set.

use super::super::float::Float;

macro_rules! from_libm {
    ($($(#[$doc:meta])* $name:ident($($x:ident),+) = $libm:path;)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub fn $name<T: Float, const FMA: bool>($($x: T),+) -> T {
            T::from_f64($libm($($x.to_f64()),+))
        }
    )*};
}

from_libm! {
    asin(x) = libm::asin;
    acos(x) = libm::acos;
    atan(x) = libm::atan;
    /// The angle of the point (x, y).
    atan2(y, x) = libm::atan2;
    asinh(x) = libm::asinh;
    acosh(x) = libm::acosh;
    atanh(x) = libm::atanh;
    /// 1 - erf(x), exact where erf is near 1.
    erfc(x) = libm::erfc;
    /// log of |Γ(x)|.
    lgamma(x) = libm::lgamma;
}
