//! Arithmetic on elements. Integers wrap. `zmul` is the product that rules use where a factor may be infinite.

use super::build::*;
use super::define::{float_binary, float_fn, float_unary, number_binary, number_unary, signed_fn};
use super::pattern::pattern;
use super::wgsl::wgsl;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{
    BinaryDef, CompositeDef, Derivative, Graph, Op, Promote, Reads, Rule, Tangents, TensorType, UnaryDef, Val,
};
use crate::machine::cpu::dispatch::{BinaryFn, Kernels, UnaryFn};
use crate::machine::cpu::float::Float;
use crate::machine::cpu::math;
use crate::{binary_kernels, unary_kernels};
use smallvec::smallvec;

/// A function of two numbers of one type, with the wrapping form for integers. For floats, a second body after `if` is
/// what is vectorised, and right where its condition holds.
macro_rules! number_fn {
    ($name:ident, |$x:ident, $y:ident| $float:expr $(, if $is_common:expr => $common:expr)?; $int:expr) => {
        pub struct $name;
        number_fn!(@ $name, $x, $y, $float $(, $is_common, $common)?; f32, f64);
        number_fn!(@ $name, $x, $y, $int; u8, i32, i64);
    };
    (@ $name:ident, $x:ident, $y:ident, $body:expr; $($t:ty),*) => {$(
        impl BinaryFn<$t, $t> for $name {
            #[inline(always)]
            fn eval<const FMA: bool>($x: $t, $y: $t) -> $t {
                $body
            }
        }
    )*};
    (@ $name:ident, $x:ident, $y:ident, $body:expr, $is_common:expr, $common:expr; $($t:ty),*) => {$(
        impl BinaryFn<$t, $t> for $name {
            #[inline(always)]
            fn eval<const FMA: bool>($x: $t, $y: $t) -> $t {
                $body
            }
            #[inline(always)]
            fn common<const FMA: bool>($x: $t, $y: $t) -> $t {
                $common
            }
            #[inline(always)]
            fn is_common($x: $t, $y: $t) -> bool {
                $is_common
            }
        }
    )*};
}

number_fn!(Add, |x, y| x + y; x.wrapping_add(y));
number_fn!(Subtract, |x, y| x - y; x.wrapping_sub(y));
number_fn!(Multiply, |x, y| x * y; x.wrapping_mul(y));
// NaN in either operand survives: a comparison with it is false, and x + y is then NaN.
number_fn!(
    Maximum,
    |x, y| if x > y {
        x
    } else if y >= x {
        y
    } else {
        x + y
    };
    if x > y { x } else { y }
);
number_fn!(
    Minimum,
    |x, y| if x < y {
        x
    } else if y <= x {
        y
    } else {
        x + y
    };
    if x < y { x } else { y }
);
number_fn!(
    FloorDivide,
    |x, y| math::floor_divide::<_, FMA>(x, y),
    if math::is_small_quotient(x, y) => math::small_floor_divide::<_, FMA>(x, y);
    if y == 0 { 0 } else { floor_quotient(x, y) }
);
number_fn!(
    Remainder,
    |x, y| math::remainder::<_, FMA>(x, y),
    if math::is_small_quotient(x, y) => math::small_remainder::<_, FMA>(x, y);
    if y == 0 { 0 } else { x.wrapping_sub(floor_quotient(x, y).wrapping_mul(y)) }
);

/// Integer division that rounds toward minus infinity.
trait FloorQuotient {
    fn floor_quotient(self, divisor: Self) -> Self;
}

impl FloorQuotient for u8 {
    #[inline(always)]
    fn floor_quotient(self, divisor: u8) -> u8 {
        i32::from(self).floor_quotient(i32::from(divisor)) as u8
    }
}

impl FloorQuotient for i32 {
    /// By a division of f64, which vectors have: it errs by less than two quotients can differ.
    #[inline(always)]
    fn floor_quotient(self, divisor: i32) -> i32 {
        // The nearest integer, in the low bits.
        let nearest = (f64::from(self) / f64::from(divisor) + f64::ROUNDER).to_bits() as i32;
        let rest = self.wrapping_sub(nearest.wrapping_mul(divisor));
        if rest != 0 && (rest < 0) != (divisor < 0) { nearest.wrapping_sub(1) } else { nearest }
    }
}

impl FloorQuotient for i64 {
    #[inline(always)]
    fn floor_quotient(self, divisor: i64) -> i64 {
        let quotient = self.wrapping_div(divisor);
        let rest = self.wrapping_rem(divisor);
        if rest != 0 && (rest < 0) != (divisor < 0) { quotient - 1 } else { quotient }
    }
}

#[inline(always)]
fn floor_quotient<T: FloorQuotient>(x: T, y: T) -> T {
    x.floor_quotient(y)
}

pub struct Divide;
impl<T: Float> BinaryFn<T, T> for Divide {
    #[inline(always)]
    fn eval<const FMA: bool>(x: T, y: T) -> T {
        x / y
    }
}

float_fn!(Reciprocal, |x| T::from_f64(1.0) / x);

pub struct ZeroProduct;
impl<T: Float> BinaryFn<T, T> for ZeroProduct {
    #[inline(always)]
    fn eval<const FMA: bool>(x: T, y: T) -> T {
        let zero = T::from_f64(0.0);
        if x == zero || y == zero { zero } else { x * y }
    }
}

pub struct Hypot;
impl<T: Float> BinaryFn<T, T> for Hypot {
    #[inline(always)]
    fn eval<const FMA: bool>(x: T, y: T) -> T {
        math::hypot::<T, FMA>(x, y)
    }
}

pub struct Power;
impl<T: Float> BinaryFn<T, T> for Power {
    #[inline(always)]
    fn eval<const FMA: bool>(x: T, y: T) -> T {
        math::pow::<T, FMA>(x, y)
    }
}

signed_fn!(Negative, |x| -x, x.wrapping_neg(), x.wrapping_neg());
signed_fn!(Square, |x| x * x, x.wrapping_mul(x), x.wrapping_mul(x));
signed_fn!(Absolute, |x| x.abs(), x.wrapping_abs(), x);
// NaN stays NaN, and each zero keeps its sign.
signed_fn!(
    Sign,
    |x| if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        x
    },
    x.signum(),
    u8::from(x != 0)
);

pattern!(
    /// What a layer adds to what it was given.
    BIAS_RESIDUAL, BiasResidual, "bias_residual", (x: T, y: T, bias: T) -> (z: T) {
        biased = binary::Add(y, bias);
        z = binary::Add(x, biased);
    }
);
pattern!(
    LESS_COLUMN, LessColumn, "less_column", (x: T, column: Column<T>) -> (y: T) {
        y = binary::Subtract(x, column);
    }
);
pattern!(
    TIMES_COLUMN, TimesColumn, "times_column", (x: T, column: Column<T>) -> (y: T) {
        y = binary::Multiply(x, column);
    }
);
pattern!(
    OVER_COLUMN, OverColumn, "over_column", (x: T, column: Column<T>) -> (y: T) {
        y = binary::Divide(x, column);
    }
);

pub static ADD: BinaryDef = BinaryDef {
    name: "add",
    doc: "x + y.",
    domain: [(-2.0, 2.0), (-2.0, 2.0)],
    ulp: 0.5,
    promote: Promote::Same,
    kernels: number_binary!(Add),
    wgsl: wgsl!(F32 | I32 => "x + y", U8 => "(x + y) & 255u", I64 => "add_i64(x, y)"),
    gpu_ulp: 0.5,
    reference: |x, y| x + y,
    derivative: Derivative::Linear {
        apply: |g, _, t| sum_of_tangents(g, t[0], t[1]),
        transpose: |_, _, ct, _| given(ct),
    },
    reads: Reads::NONE,
};

pub static SUBTRACT: BinaryDef = BinaryDef {
    name: "subtract",
    doc: "x - y.",
    domain: [(-2.0, 2.0), (-2.0, 2.0)],
    ulp: 0.5,
    promote: Promote::Same,
    kernels: number_binary!(Subtract),
    wgsl: wgsl!(F32 | I32 => "x - y", U8 => "(x - y) & 255u", I64 => "subtract_i64(x, y)"),
    gpu_ulp: 0.5,
    reference: |x, y| x - y,
    derivative: Derivative::Linear { apply: subtract_tangents, transpose: subtract_back },
    reads: Reads::NONE,
};

pub static MULTIPLY: BinaryDef = BinaryDef {
    name: "multiply",
    doc: "x · y.",
    domain: [(-2.0, 2.0), (-2.0, 2.0)],
    ulp: 0.5,
    promote: Promote::Same,
    kernels: number_binary!(Multiply),
    wgsl: wgsl!(F32 | I32 => "x * y", U8 => "(x * y) & 255u", I64 => "multiply_i64(x, y)"),
    gpu_ulp: 0.5,
    reference: |x, y| x * y,
    derivative: Derivative::Bilinear([times_other, times_other]),
    reads: Reads::BOTH,
};

pub static ZMUL: BinaryDef = BinaryDef {
    name: "zmul",
    doc: "x · y, and exactly 0 where either is 0, even against infinity or NaN.",
    domain: [(-2.0, 2.0), (-2.0, 2.0)],
    ulp: 0.5,
    promote: Promote::Same,
    kernels: float_binary!(ZeroProduct),
    wgsl: wgsl!(F32 => "zero_product(x, y)"),
    gpu_ulp: 0.5,
    reference: |x, y| if x == 0.0 || y == 0.0 { 0.0 } else { x * y },
    derivative: Derivative::Bilinear([zmul_other, zmul_other]),
    reads: Reads::BOTH,
};

pub static DIVIDE: BinaryDef = BinaryDef {
    name: "divide",
    doc: "x / y. Integers become float32 first.",
    domain: [(-2.0, 2.0), (0.5, 2.0)],
    ulp: 0.5,
    promote: Promote::Float,
    kernels: float_binary!(Divide),
    wgsl: wgsl!(F32 => "x / y"),
    gpu_ulp: 2.5,
    reference: |x, y| x / y,
    derivative: Derivative::Jvp(divide_tangent),
    reads: Reads { inputs: 0b10, outputs: 1 },
};

pub static POWER: BinaryDef = BinaryDef {
    name: "pow",
    doc: "x to the power y.",
    domain: [(0.5, 2.0), (-2.0, 2.0)],
    ulp: 1.0,
    promote: Promote::Float,
    kernels: float_binary!(Power),
    wgsl: wgsl!(F32 => "pow_f32(x, y)"),
    gpu_ulp: 4.0,
    reference: libm::pow,
    derivative: Derivative::Jvp(power_tangent),
    reads: Reads { inputs: 0b11, outputs: 1 },
};

pub static MAXIMUM: BinaryDef = BinaryDef {
    name: "maximum",
    doc: "The larger of x and y; NaN if either is. Where they are equal each gets half the gradient.",
    domain: [(-2.0, 2.0), (-2.0, 2.0)],
    ulp: 0.0,
    promote: Promote::Same,
    kernels: number_binary!(Maximum),
    wgsl: wgsl!(F32 => "maximum_f32(x, y)", I32 | U8 => "max(x, y)", I64 => "select(y, x, less_i64(y, x))"),
    gpu_ulp: 0.0,
    reference: |x, y| <Maximum as BinaryFn<f64, f64>>::eval::<true>(x, y),
    derivative: Derivative::Jvp(|g, rule, t| choose_tangent(g, rule, t, true)),
    reads: Reads::BOTH,
};

pub static MINIMUM: BinaryDef = BinaryDef {
    name: "minimum",
    doc: "The smaller of x and y; NaN if either is. Where they are equal each gets half the gradient.",
    domain: [(-2.0, 2.0), (-2.0, 2.0)],
    ulp: 0.0,
    promote: Promote::Same,
    kernels: number_binary!(Minimum),
    wgsl: wgsl!(F32 => "minimum_f32(x, y)", I32 | U8 => "min(x, y)", I64 => "select(y, x, less_i64(x, y))"),
    gpu_ulp: 0.0,
    reference: |x, y| <Minimum as BinaryFn<f64, f64>>::eval::<true>(x, y),
    derivative: Derivative::Jvp(|g, rule, t| choose_tangent(g, rule, t, false)),
    reads: Reads::BOTH,
};

pub static FLOOR_DIVIDE: BinaryDef = BinaryDef {
    name: "floor_divide",
    doc: "x / y rounded toward minus infinity; integer division by 0 gives 0.",
    domain: [(-5.0, 5.0), (0.5, 2.0)],
    ulp: 0.5,
    promote: Promote::Same,
    kernels: number_binary!(FloorDivide),
    wgsl: wgsl!(F32 => "floor_divide_f32(x, y)", I32 => "floor_divide_i32(x, y)", U8 => "divide_u8(x, y)", I64 => "floor_divide_i64(x, y)"),
    gpu_ulp: 2.5,
    reference: math::floor_divide::<f64, false>,
    derivative: Derivative::Zero,
    reads: Reads::NONE,
};

pub static REMAINDER: BinaryDef = BinaryDef {
    name: "remainder",
    doc: "x - y·⌊x / y⌋, with the sign of y; integer remainder by 0 gives 0.",
    domain: [(-5.0, 5.0), (0.5, 2.0)],
    ulp: 0.5,
    promote: Promote::Same,
    kernels: number_binary!(Remainder),
    wgsl: wgsl!(F32 => "remainder_f32(x, y)", I32 => "remainder_i32(x, y)", U8 => "remainder_u8(x, y)", I64 => "remainder_i64(x, y)"),
    gpu_ulp: 0.5,
    reference: math::remainder::<f64, false>,
    derivative: Derivative::Jvp(remainder_tangent),
    reads: Reads::BOTH,
};

pub static NEGATIVE: UnaryDef = UnaryDef {
    name: "negative",
    doc: "-x.",
    domain: (-2.0, 2.0),
    ulp: 0.0,
    promote: Promote::Same,
    kernels: number_unary!(Negative),
    wgsl: wgsl!(F32 | I32 => "-x", U8 => "(0u - x) & 255u", I64 => "negative_i64(x)"),
    gpu_ulp: 0.0,
    reference: |x| -x,
    derivative: Derivative::Linear {
        apply: linear_apply,
        transpose: |g, _, ct, _| given(ct).and_then(|ct| negative(g, ct)),
    },
    reads: Reads::NONE,
};

pub static SQUARE: UnaryDef = UnaryDef {
    name: "square",
    doc: "x · x.",
    domain: (-2.0, 2.0),
    ulp: 0.5,
    promote: Promote::Same,
    kernels: number_unary!(Square),
    wgsl: wgsl!(F32 | I32 => "x * x", U8 => "(x * x) & 255u", I64 => "multiply_i64(x, x)"),
    gpu_ulp: 0.5,
    reference: |x| x * x,
    derivative: Derivative::Jvp(|g, rule, t| {
        let double = add(g, rule.inputs[0], rule.inputs[0])?;
        times(g, t[0], double)
    }),
    reads: Reads::INPUT,
};

pub static RECIPROCAL: UnaryDef = UnaryDef {
    name: "reciprocal",
    doc: "1 / x.",
    domain: (0.5, 2.0),
    ulp: 0.5,
    promote: Promote::Float,
    kernels: float_unary!(Reciprocal),
    wgsl: wgsl!(F32 => "1.0 / x"),
    gpu_ulp: 2.5,
    reference: |x| 1.0 / x,
    derivative: Derivative::Jvp(|g, rule, t| {
        // zmul inside the slope too: it has slopes of its own at second order.
        let square = zmul(g, rule.outputs[0], rule.outputs[0])?;
        let slope = negative(g, square)?;
        ztimes(g, t[0], slope)
    }),
    reads: Reads::OUTPUT,
};

pub static ABS: UnaryDef = UnaryDef {
    name: "abs",
    doc: "|x|. The gradient at 0 is 0.",
    domain: (-2.0, 2.0),
    ulp: 0.0,
    promote: Promote::Same,
    kernels: number_unary!(Absolute),
    wgsl: wgsl!(F32 | I32 => "abs(x)", U8 => "x", I64 => "abs_i64(x)"),
    gpu_ulp: 0.0,
    reference: f64::abs,
    derivative: Derivative::Jvp(|g, rule, t| {
        let sign = unary(g, &SIGN, rule.inputs[0])?;
        times(g, t[0], sign)
    }),
    reads: Reads::INPUT,
};

pub static SIGN: UnaryDef = UnaryDef {
    name: "sign",
    doc: "-1, 0 or 1 by the sign of x. Its gradient is 0.",
    domain: (-2.0, 2.0),
    ulp: 0.0,
    promote: Promote::Same,
    kernels: number_unary!(Sign),
    wgsl: wgsl!(F32 => "sign_f32(x)", I32 => "sign(x)", U8 => "min(x, 1u)", I64 => "sign_i64(x)"),
    gpu_ulp: 0.0,
    reference: |x| <Sign as UnaryFn<f64, f64>>::eval::<true>(x),
    derivative: Derivative::Zero,
    reads: Reads::NONE,
};

pub static POW_CONSTANT: CompositeDef = CompositeDef {
    name: "pow_constant",
    doc: "x to a constant power that is a multiple of 1/2, by repeated multiplication and one square root; 1 for the \
          power 0, the reciprocal of the positive power for a negative one.",
    attrs: &["twice the exponent"],
    infer: |attrs, inputs| {
        let ty = inputs[0];
        if !ty.dtype.is_float() && (attrs[0] < 0 || attrs[0] % 2 != 0) {
            let exponent = attrs[0] as f64 / 2.0;
            return Err(Error::dtype(format!("pow: {} to the power {exponent} is not an integer", ty.dtype)));
        }
        Ok(smallvec![ty.clone()])
    },
    expand: |g, attrs, inputs| Ok(smallvec![constant_power(g, inputs[0], attrs[0])?]),
    derivative: Some(constant_power_tangent),
    transpose: None,
    reads: Reads::INPUT,
    kernel: None,
};

pub static CLIP: CompositeDef = CompositeDef {
    name: "clip",
    doc: "x, but at least low and at most high. The gradient of x passes in the closed interval; outside it the bound \
          gets it. Inputs: x, then low and high as far as given, broadcast to x.",
    attrs: &["1 low, 2 high, 3 both"],
    infer: |attrs, inputs| infer_clip(attrs[0], inputs),
    expand: |g, attrs, inputs| {
        let (low, high) = bounds(g, attrs[0], inputs)?;
        let mut x = inputs[0];
        if let Some(low) = low {
            x = binary(g, &MAXIMUM, x, low)?;
        }
        if let Some(high) = high {
            x = binary(g, &MINIMUM, x, high)?;
        }
        Ok(smallvec![x])
    },
    derivative: Some(clip_tangent),
    transpose: None,
    reads: Reads::ALL_INPUTS,
    kernel: None,
};

pub static HYPOT: BinaryDef = BinaryDef {
    name: "hypot",
    doc: "√(x² + y²) without overflow between. The gradient at (0, 0) is 0.",
    domain: [(0.3, 2.0), (0.3, 2.0)],
    ulp: 1.0,
    promote: Promote::Float,
    kernels: float_binary!(Hypot),
    wgsl: wgsl!(F32 => "hypot_f32(x, y)"),
    gpu_ulp: 4.0,
    reference: libm::hypot,
    derivative: Derivative::Jvp(hypot_tangent),
    reads: Reads { inputs: 0b11, outputs: 1 },
};

/// The one cotangent of an op with one output.
pub fn given(cotangents: &[Option<Val>]) -> Result<Val> {
    cotangents[0].ok_or_else(|| Error::internal("a rule was asked without a cotangent"))
}

/// The one tangent of a rule with one moving input.
pub fn given_tangent(tangents: &[Option<Val>]) -> Result<Val> {
    tangents[0].ok_or_else(|| Error::internal("a rule was asked without a tangent"))
}

/// tangent · factor, for a factor that is finite wherever the op is.
pub fn times(g: &mut Graph, tangent: Option<Val>, factor: Val) -> Result<Tangents> {
    Ok(smallvec![match tangent {
        Some(tangent) => Some(multiply(g, tangent, factor)?),
        None => None,
    }])
}

/// tangent · factor, for a factor that may be infinite or NaN: a tangent of zero stays zero.
pub fn ztimes(g: &mut Graph, tangent: Option<Val>, factor: Val) -> Result<Tangents> {
    Ok(smallvec![match tangent {
        Some(tangent) => Some(zmul(g, tangent, factor)?),
        None => None,
    }])
}

fn subtract_tangents(g: &mut Graph, _: &Rule, t: &[Option<Val>]) -> Result<Tangents> {
    Ok(smallvec![match (t[0], t[1]) {
        (Some(x), Some(y)) => Some(subtract(g, x, y)?),
        (None, Some(y)) => Some(negative(g, y)?),
        (x, None) => x,
    }])
}

fn subtract_back(g: &mut Graph, _: &Rule, ct: &[Option<Val>], which: usize) -> Result<Val> {
    if which == 0 { given(ct) } else { negative(g, given(ct)?) }
}

fn times_other(g: &mut Graph, rule: &Rule, ct: &[Option<Val>], which: usize) -> Result<Val> {
    multiply(g, given(ct)?, rule.inputs[1 - which])
}

fn zmul_other(g: &mut Graph, rule: &Rule, ct: &[Option<Val>], which: usize) -> Result<Val> {
    zmul(g, given(ct)?, rule.inputs[1 - which])
}

/// d(x/y) = dx·(1/y) - dy·((x/y)/y).
fn divide_tangent(g: &mut Graph, rule: &Rule, t: &[Option<Val>]) -> Result<Tangents> {
    let y = rule.inputs[1];
    let one = full_like(g, 1.0, y);
    let inverse = divide(g, one, y)?;
    let by_x = ztimes(g, t[0], inverse)?[0];
    let by_y = match t[1] {
        Some(tangent) => {
            let slope = divide(g, rule.outputs[0], y)?;
            let slope = negative(g, slope)?;
            Some(zmul(g, tangent, slope)?)
        }
        None => None,
    };
    sum_of_tangents(g, by_x, by_y)
}

/// d(x^y) = dx·y·x^(y-1) + dy·x^y·log x.
fn power_tangent(g: &mut Graph, rule: &Rule, t: &[Option<Val>]) -> Result<Tangents> {
    let (x, y) = (rule.inputs[0], rule.inputs[1]);
    let by_x = match t[0] {
        Some(tangent) => {
            let one = full_like(g, 1.0, y);
            let less_one = subtract(g, y, one)?;
            let power = binary(g, &POWER, x, less_one)?;
            let slope = zmul(g, y, power)?;
            Some(zmul(g, tangent, slope)?)
        }
        None => None,
    };
    let by_y = match t[1] {
        Some(tangent) => {
            let log = log(g, x)?;
            let slope = zmul(g, rule.outputs[0], log)?;
            Some(zmul(g, tangent, slope)?)
        }
        None => None,
    };
    sum_of_tangents(g, by_x, by_y)
}

/// The tangent of the operand that was chosen, or the mean of both where they are equal.
fn choose_tangent(g: &mut Graph, rule: &Rule, t: &[Option<Val>], larger: bool) -> Result<Tangents> {
    let (x, y) = (rule.inputs[0], rule.inputs[1]);
    let (first, second) = if larger { (x, y) } else { (y, x) };
    let takes_x = greater(g, first, second)?;
    let takes_y = less(g, first, second)?;
    let (one, zero, half) = (full_like(g, 1.0, x), full_like(g, 0.0, x), full_like(g, 0.5, x));
    let otherwise_x = select(g, takes_y, zero, half)?;
    let weight_x = select(g, takes_x, one, otherwise_x)?;
    let otherwise_y = select(g, takes_x, zero, half)?;
    let weight_y = select(g, takes_y, one, otherwise_y)?;
    let by_x = times(g, t[0], weight_x)?[0];
    let by_y = times(g, t[1], weight_y)?[0];
    sum_of_tangents(g, by_x, by_y)
}

/// d(x mod y) = dx - dy·⌊x / y⌋.
fn remainder_tangent(g: &mut Graph, rule: &Rule, t: &[Option<Val>]) -> Result<Tangents> {
    let by_y = match t[1] {
        Some(tangent) => {
            let quotient = binary(g, &FLOOR_DIVIDE, rule.inputs[0], rule.inputs[1])?;
            let quotient = negative(g, quotient)?;
            Some(zmul(g, tangent, quotient)?)
        }
        None => None,
    };
    sum_of_tangents(g, t[0], by_y)
}

/// x^(twice / 2).
fn constant_power(g: &mut Graph, x: Val, twice: i64) -> Result<Val> {
    if twice == 0 {
        return Ok(full_like(g, 1.0, x));
    }
    let mut result = if twice % 2 == 0 { None } else { Some(unary(g, &super::exponential::SQRT, x)?) };
    let (mut rest, mut power) = (twice.unsigned_abs() / 2, x);
    while rest > 0 {
        if rest & 1 == 1 {
            result = Some(match result {
                // The root may be NaN, and a masked gradient must not meet it.
                Some(result) if twice % 2 != 0 => zmul(g, result, power)?,
                Some(result) => multiply(g, result, power)?,
                None => power,
            });
        }
        rest >>= 1;
        if rest > 0 {
            power = unary(g, &SQUARE, power)?;
        }
    }
    let result = result.ok_or_else(|| Error::internal("pow_constant: no factors"))?;
    if twice < 0 { unary(g, &RECIPROCAL, result) } else { Ok(result) }
}

/// d x^n = n·x^(n - 1)·dx.
fn constant_power_tangent(g: &mut Graph, rule: &Rule, t: &[Option<Val>]) -> Result<Tangents> {
    let Op::Composite(_, attrs) = rule.op else { return Err(Error::internal("pow_constant: not a composite")) };
    let twice = attrs[0];
    if twice == 0 || twice == 2 {
        return Ok(smallvec![t[0].filter(|_| twice == 2)]);
    }
    let power = constant_power(g, rule.inputs[0], twice - 2)?;
    let exponent = full_like(g, twice as f64 / 2.0, power);
    let slope = multiply(g, power, exponent)?;
    if twice > 2 && twice % 2 == 0 { times(g, t[0], slope) } else { ztimes(g, t[0], slope) }
}

fn infer_clip(flags: i64, inputs: &[&TensorType]) -> Result<smallvec::SmallVec<[TensorType; 1]>> {
    let x = inputs[0];
    if !(1..=3).contains(&flags) {
        return Err(Error::value("clip: give min, max or both"));
    }
    match inputs[1..].iter().find(|bound| !crate::shape::broadcasts_to(&bound.shape, &x.shape)) {
        Some(bound) => {
            Err(Error::shape(format!("clip: a bound of shape {} does not broadcast to {}", bound.shape, x.shape)))
        }
        None => Ok(smallvec![x.clone()]),
    }
}

/// low and high, as far as given, in the type of x.
fn bounds(g: &mut Graph, flags: i64, inputs: &[Val]) -> Result<(Option<Val>, Option<Val>)> {
    let (low, high) = match flags {
        1 => (Some(inputs[1]), None),
        2 => (None, Some(inputs[1])),
        _ => (Some(inputs[1]), Some(inputs[2])),
    };
    let mut bound = |val: Option<Val>| val.map(|val| number(g, val, inputs[0])).transpose();
    Ok((bound(low)?, bound(high)?))
}

/// The tangent of x where no bound binds, else that of the bound.
fn clip_tangent(g: &mut Graph, rule: &Rule, t: &[Option<Val>]) -> Result<Tangents> {
    let Op::Composite(_, attrs) = rule.op else { return Err(Error::internal("clip: not a composite")) };
    let (low, high) = bounds(g, attrs[0], rule.inputs)?;
    let x = rule.inputs[0];
    let zero = zeros_like(g, x);
    let moving = |g: &mut Graph, tangent: Option<Val>| match tangent {
        Some(tangent) => number(g, tangent, x),
        None => Ok(zero),
    };
    let mut tangent = moving(g, t[0])?;
    // What is held against the upper bound: where the bounds cross it wins, gradient included.
    let mut raised = x;
    if let Some(low) = low {
        let below = less(g, x, low)?;
        let bound = moving(g, t[1])?;
        tangent = select(g, below, bound, tangent)?;
        raised = binary(g, &MAXIMUM, x, low)?;
    }
    if let Some(high) = high {
        let above = greater(g, raised, high)?;
        let bound = moving(g, t[t.len() - 1])?;
        tangent = select(g, above, bound, tangent)?;
    }
    Ok(smallvec![Some(tangent)])
}

/// d√(x² + y²) = (x·dx + y·dy) / √(x² + y²), and 0 where the root is 0.
fn hypot_tangent(g: &mut Graph, rule: &Rule, t: &[Option<Val>]) -> Result<Tangents> {
    let root = rule.outputs[0];
    let (one, zero) = (full_like(g, 1.0, root), full_like(g, 0.0, root));
    let positive = greater(g, root, zero)?;
    let divisor = select(g, positive, root, one)?;
    let mut parts = [None, None];
    for which in 0..2 {
        if let Some(tangent) = t[which] {
            let slope = divide(g, rule.inputs[which], divisor)?;
            parts[which] = Some(zmul(g, tangent, slope)?);
        }
    }
    sum_of_tangents(g, parts[0], parts[1])
}
