//! Functions that work element by element. Each docstring is the formula of its definition.

use super::dtype::PyDType;
use super::operand::{Operand, choice};
use super::tensor::{PyTensor, made};
use crate::ops::{activation, arithmetic, compare, exponential, rounding, trigonometric};
use crate::tensor;
use pyo3::prelude::*;

/// Functions of one tensor.
macro_rules! unary {
    ($($(#[$doc:meta])* $name:ident($x:ident) = $record:expr;)*) => {$(
        $(#[$doc])*
        #[pyfunction]
        #[pyo3(signature = (x, /))]
        pub fn $name(x: PyRef<'_, PyTensor>) -> PyResult<PyTensor> {
            let $x = &x.0;
            made(|| $record)
        }
    )*};
}

/// Functions of two operands, each a tensor or a number; shapes broadcast, dtypes promote.
macro_rules! binary {
    ($($(#[$doc:meta])* $name:ident = $def:expr;)*) => {$(
        $(#[$doc])*
        #[pyfunction]
        #[pyo3(signature = (x1, x2, /))]
        pub fn $name(x1: Operand<'_, '_>, x2: Operand<'_, '_>) -> PyResult<PyTensor> {
            made(|| tensor::binary($def, x1.arg(), x2.arg()))
        }
    )*};
}

unary! {
    /// |x|; the gradient at 0 is 0.
    abs(x) = tensor::unary(&arithmetic::ABS, x.into());
    /// -x.
    negative(x) = tensor::unary(&arithmetic::NEGATIVE, x.into());
    /// x.
    positive(x) = Ok(tensor::alias(x));
    /// x · x.
    square(x) = tensor::unary(&arithmetic::SQUARE, x.into());
    /// -1, 0 or 1 by the sign of x; the gradient is 0.
    sign(x) = tensor::unary(&arithmetic::SIGN, x.into());
    /// 1 / x.
    reciprocal(x) = tensor::unary(&arithmetic::RECIPROCAL, x.into());
    /// e to the power x.
    exp(x) = tensor::unary(&exponential::EXP, x.into());
    /// exp(x) - 1, exact near 0.
    expm1(x) = tensor::unary(&exponential::EXPM1, x.into());
    /// The natural logarithm of x.
    log(x) = tensor::unary(&exponential::LOG, x.into());
    /// log(1 + x), exact near 0.
    log1p(x) = tensor::unary(&exponential::LOG1P, x.into());
    /// The square root of x.
    sqrt(x) = tensor::unary(&exponential::SQRT, x.into());
    /// The error function, 2/√π · ∫ exp(-t²) dt from 0 to x.
    erf(x) = tensor::unary(&exponential::ERF, x.into());
    /// The sine of x, in radians.
    sin(x) = tensor::unary(&trigonometric::SIN, x.into());
    /// The cosine of x, in radians.
    cos(x) = tensor::unary(&trigonometric::COS, x.into());
    /// The hyperbolic tangent of x.
    tanh(x) = tensor::unary(&activation::TANH, x.into());
    /// 1 / (1 + exp(-x)).
    sigmoid(x) = tensor::unary(&activation::SIGMOID, x.into());
    /// x where x > 0, else 0; the gradient at 0 is 0.
    relu(x) = tensor::unary(&activation::RELU, x.into());
    /// The angle in [0, π] with cosine x.
    acos(x) = tensor::unary(&trigonometric::ACOS, x.into());
    /// The number of at least 0 with hyperbolic cosine x.
    acosh(x) = tensor::unary(&trigonometric::ACOSH, x.into());
    /// The angle in [-π/2, π/2] with sine x.
    asin(x) = tensor::unary(&trigonometric::ASIN, x.into());
    /// The number with hyperbolic sine x.
    asinh(x) = tensor::unary(&trigonometric::ASINH, x.into());
    /// The angle in (-π/2, π/2) with tangent x.
    atan(x) = tensor::unary(&trigonometric::ATAN, x.into());
    /// The number with hyperbolic tangent x.
    atanh(x) = tensor::unary(&trigonometric::ATANH, x.into());
    /// (exp(x) + exp(-x)) / 2.
    cosh(x) = tensor::unary(&trigonometric::COSH, x.into());
    /// (exp(x) - exp(-x)) / 2.
    sinh(x) = tensor::unary(&trigonometric::SINH, x.into());
    /// The tangent of x, in radians.
    tan(x) = tensor::unary(&trigonometric::TAN, x.into());
    /// The smallest integer not below x.
    ceil(x) = tensor::unary(&rounding::CEIL, x.into());
    /// The largest integer not above x.
    floor(x) = tensor::unary(&rounding::FLOOR, x.into());
    /// The nearest integer; halves go to the even one.
    round(x) = tensor::unary(&rounding::ROUND, x.into());
    /// x without its fraction: rounded toward 0.
    trunc(x) = tensor::unary(&rounding::TRUNC, x.into());
    /// 1 - erf(x), exact where erf is near 1.
    erfc(x) = tensor::unary(&exponential::ERFC, x.into());
    /// 2 to the power x.
    exp2(x) = tensor::unary(&exponential::EXP2, x.into());
    /// The logarithm of x to base 2.
    log2(x) = tensor::unary(&exponential::LOG2, x.into());
    /// The logarithm of x to base 10.
    log10(x) = tensor::unary(&exponential::LOG10, x.into());
    /// 1 / √x.
    rsqrt(x) = tensor::unary(&exponential::RSQRT, x.into());
    /// log(1 + exp(x)), finite for any finite x.
    softplus(x) = tensor::softplus(x);
    /// x·sigmoid(x) (Elfwing, Uchibe and Doya 2017).
    silu(x) = tensor::silu(x);
    /// Whether x is not a number.
    isnan(x) = tensor::unary(&compare::ISNAN, x.into());
    /// Whether x is plus or minus infinity.
    isinf(x) = tensor::unary(&compare::ISINF, x.into());
    /// Whether x is neither infinite nor NaN.
    isfinite(x) = tensor::unary(&compare::ISFINITE, x.into());
    /// Whether x is zero.
    logical_not(x) = tensor::logical_not(x);
    /// Every bit of x turned over; of bools: logical not.
    bitwise_invert(x) = tensor::unary(&compare::INVERT, x.into());
}

binary! {
    /// x1 + x2.
    add = &arithmetic::ADD;
    /// x1 - x2.
    subtract = &arithmetic::SUBTRACT;
    /// x1 · x2.
    multiply = &arithmetic::MULTIPLY;
    /// x1 / x2; integers become float32 first.
    divide = &arithmetic::DIVIDE;
    /// x1 / x2 rounded toward minus infinity; integer division by 0 gives 0.
    floor_divide = &arithmetic::FLOOR_DIVIDE;
    /// x1 - x2·⌊x1 / x2⌋, with the sign of x2.
    remainder = &arithmetic::REMAINDER;
    /// The larger of x1 and x2; NaN if either is. Where they are equal each gets half the gradient.
    maximum = &arithmetic::MAXIMUM;
    /// The smaller of x1 and x2; NaN if either is. Where they are equal each gets half the gradient.
    minimum = &arithmetic::MINIMUM;
    /// The angle of the point (x2, x1), in (-π, π].
    atan2 = &trigonometric::ATAN2;
    /// √(x1² + x2²) without overflow between.
    hypot = &arithmetic::HYPOT;
    /// x1 == x2.
    equal = &compare::EQUAL;
    /// x1 != x2.
    not_equal = &compare::NOT_EQUAL;
    /// x1 < x2.
    less = &compare::LESS;
    /// x1 <= x2.
    less_equal = &compare::LESS_EQUAL;
    /// x1 > x2.
    greater = &compare::GREATER;
    /// x1 >= x2.
    greater_equal = &compare::GREATER_EQUAL;
    /// Bits set in both x1 and x2.
    bitwise_and = &compare::AND;
    /// Bits set in x1 or x2.
    bitwise_or = &compare::OR;
    /// Bits set in one of x1 and x2.
    bitwise_xor = &compare::XOR;
    /// x1 · x2, and exactly 0 where either is 0, even against infinity or NaN.
    zmul = &arithmetic::ZMUL;
}

/// Functions of two truth values.
macro_rules! logical {
    ($($(#[$doc:meta])* $name:ident = $def:expr;)*) => {$(
        $(#[$doc])*
        #[pyfunction]
        #[pyo3(signature = (x1, x2, /))]
        pub fn $name(x1: Operand<'_, '_>, x2: Operand<'_, '_>) -> PyResult<PyTensor> {
            made(|| tensor::logical($def, x1.arg(), x2.arg()))
        }
    )*};
}

logical! {
    /// Whether x1 and x2 are both not zero.
    logical_and = &compare::AND;
    /// Whether x1 or x2 is not zero.
    logical_or = &compare::OR;
    /// Whether exactly one of x1 and x2 is not zero.
    logical_xor = &compare::XOR;
}

/// log(exp(x1) + exp(x2)), finite for any finite x1 and x2.
#[pyfunction]
#[pyo3(signature = (x1, x2, /))]
pub fn logaddexp(x1: Operand<'_, '_>, x2: Operand<'_, '_>) -> PyResult<PyTensor> {
    made(|| tensor::logaddexp(x1.arg(), x2.arg()))
}

/// x1 to the power x2.
#[pyfunction]
#[pyo3(signature = (x1, x2, /))]
pub fn pow(x1: Operand<'_, '_>, x2: Operand<'_, '_>) -> PyResult<PyTensor> {
    made(|| tensor::pow(x1.arg(), x2.arg()))
}

/// x where x > 0, else negative_slope · x; the gradient at 0 is negative_slope.
#[pyfunction]
#[pyo3(signature = (x, /, negative_slope = 0.01))]
pub fn leaky_relu(x: PyRef<'_, PyTensor>, negative_slope: f64) -> PyResult<PyTensor> {
    made(|| tensor::leaky_relu(&x.0, negative_slope))
}

/// x where x > 0, else alpha·(exp(x) - 1); the gradient at 0 is alpha.
#[pyfunction]
#[pyo3(signature = (x, /, alpha = 1.0))]
pub fn elu(x: PyRef<'_, PyTensor>, alpha: f64) -> PyResult<PyTensor> {
    made(|| tensor::elu(&x.0, alpha))
}

/// x·Φ(x) with Φ the normal distribution, exact or by tanh.
///
/// Source: Hendrycks and Gimpel, Gaussian Error Linear Units, 2016.
#[pyfunction]
#[pyo3(signature = (x, /, approximate = "none"))]
pub fn gelu(x: PyRef<'_, PyTensor>, approximate: &str) -> PyResult<PyTensor> {
    let tanh = choice("approximate", approximate, &[("none", false), ("tanh", true)])?;
    made(|| tensor::gelu(&x.0, tanh))
}

/// x within [min, max]; the gradient passes inside the closed interval.
#[pyfunction]
#[pyo3(signature = (x, /, min = None, max = None))]
pub fn clip(x: PyRef<'_, PyTensor>, min: Option<Operand<'_, '_>>, max: Option<Operand<'_, '_>>) -> PyResult<PyTensor> {
    made(|| tensor::clip(&x.0, min.as_ref().map(Operand::arg), max.as_ref().map(Operand::arg)))
}

/// x1 where the condition (bool) holds, else x2.
///
/// Example:
///     >>> import wengert as wg
///     >>> x = wg.tensor([-1.0, 2.0])
///     >>> wg.where(x > 0, x, 0)
///     tensor([0., 2.])
#[pyfunction(name = "where")]
#[pyo3(signature = (condition, x1, x2, /))]
pub fn select(condition: PyRef<'_, PyTensor>, x1: Operand<'_, '_>, x2: Operand<'_, '_>) -> PyResult<PyTensor> {
    made(|| tensor::select(&condition.0, x1.arg(), x2.arg()))
}

/// x with elements of this dtype: floats are truncated toward zero, bools become 0 and 1.
#[pyfunction]
#[pyo3(signature = (x, dtype, /, *, copy = true))]
pub fn astype(x: PyRef<'_, PyTensor>, dtype: PyDType, copy: bool) -> PyResult<PyTensor> {
    // Values never change, so a copy and the value itself cannot be told apart.
    let _ = copy;
    made(|| tensor::cast(&x.0, dtype.0))
}

/// The value of x, cut off its history.
#[pyfunction]
#[pyo3(signature = (x, /))]
pub fn detach(x: PyRef<'_, PyTensor>) -> PyResult<PyTensor> {
    made(|| tensor::detach(&x.0))
}
