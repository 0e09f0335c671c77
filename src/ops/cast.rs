//! Changes of dtype. Between floats they are linear; integers and bools cut differentiation.

use super::build::{cast, linear_apply};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Derivative, Graph, Rule, Val};
use crate::machine::cpu::dispatch::{Kernels, UnaryFn};
use crate::unary_kernels;

pub static DERIVATIVE: Derivative = Derivative::Linear { apply: linear_apply, transpose: cast_back };

fn cast_back(g: &mut Graph, rule: &Rule, cotangents: &[Option<Val>], _: usize) -> Result<Val> {
    let dtype = g.dtype(rule.inputs[0]);
    cast(g, cotangents[0].ok_or_else(|| Error::internal("astype: no cotangent"))?, dtype)
}

/// To a number type: floats are truncated toward zero and saturate at int64, wider integers wrap.
struct Convert;

/// To bool: whether the element is not zero.
struct NotZero;

macro_rules! convert {
    ($from:ty, $through:ty => $($to:ty),+) => {$(
        impl UnaryFn<$from, $to> for Convert {
            #[inline(always)]
            fn eval<const FMA: bool>(x: $from) -> $to {
                x as $through as $to
            }
        }
    )+};
}

convert!(u8, u8 => u8, i32, i64, f32, f64);
convert!(i32, i32 => u8, i32, i64, f32, f64);
convert!(i64, i64 => u8, i32, i64, f32, f64);
convert!(f32, f32 => f32, f64);
convert!(f64, f64 => f32, f64);

// Through int64, so that a float too large for a small integer wraps as the same int64 would. Rust's `as` says the same,
// but compiles to no vectors.
macro_rules! truncate {
    ($from:ty => $($to:ty),+) => {$(
        impl UnaryFn<$from, $to> for Convert {
            #[inline(always)]
            fn eval<const FMA: bool>(x: $from) -> $to {
                const END: $from = 9_223_372_036_854_775_808.0;
                let fits = (-END..END).contains(&x);
                // SAFETY: zero, or inside int64.
                let whole = unsafe { (if fits { x } else { 0.0 }).to_int_unchecked::<i64>() };
                let end = if x > 0.0 { i64::MAX } else { i64::MIN };
                let outside = if x.is_nan() { 0 } else { end };
                (if fits { whole } else { outside }) as $to
            }
        }
    )+};
}

truncate!(f32 => u8, i32, i64);
truncate!(f64 => u8, i32, i64);

macro_rules! not_zero {
    ($($from:ty),+) => {$(
        impl UnaryFn<$from, u8> for NotZero {
            #[inline(always)]
            fn eval<const FMA: bool>(x: $from) -> u8 {
                u8::from(x != <$from>::default())
            }
        }
    )+};
}

not_zero!(u8, i32, i64, f32, f64);

macro_rules! casts_from {
    ($name:ident, $from:ty) => {
        fn $name(to: DType) -> &'static Kernels {
    static BOOL: Kernels = unary_kernels!(NotZero, $from => u8);
    static BYTE: Kernels = unary_kernels!(Convert, $from => u8);
    static INT: Kernels = unary_kernels!(Convert, $from => i32);
    static LONG: Kernels = unary_kernels!(Convert, $from => i64);
    static SINGLE: Kernels = unary_kernels!(Convert, $from => f32);
    static DOUBLE: Kernels = unary_kernels!(Convert, $from => f64);
            match to {
                DType::Bool => &BOOL,
                DType::U8 => &BYTE,
                DType::I32 => &INT,
                DType::I64 => &LONG,
                DType::F32 => &SINGLE,
                DType::F64 => &DOUBLE,
            }
        }
    };
}

casts_from!(from_byte, u8);
casts_from!(from_int, i32);
casts_from!(from_long, i64);
casts_from!(from_single, f32);
casts_from!(from_double, f64);

/// The slice kernels of a cast.
pub fn kernels(from: DType, to: DType) -> &'static Kernels {
    match from {
        DType::Bool | DType::U8 => from_byte(to),
        DType::I32 => from_int(to),
        DType::I64 => from_long(to),
        DType::F32 => from_single(to),
        DType::F64 => from_double(to),
    }
}

/// The cast as an expression in x, in WGSL.
pub fn wgsl(from: DType, to: DType) -> Option<&'static str> {
    use DType::{Bool, F32, F64, I32, I64, U8};
    Some(match (from, to) {
        (F64, _) | (_, F64) => return None,
        (Bool, Bool | U8) | (U8, U8) | (I32, I32) | (I64, I64) | (F32, F32) => "x",
        (Bool | U8, I32) => "i32(x)",
        (Bool | U8, I64) => "vec2<u32>(x, 0u)",
        (Bool | U8 | I32, F32) => "f32(x)",
        (U8, Bool) => "u32(x != 0u)",
        (I32, Bool) => "u32(x != 0)",
        (I32, U8) => "bitcast<u32>(x) & 255u",
        (I32, I64) => "i64_from_i32(x)",
        (I64, Bool) => "u32(!is_zero_i64(x))",
        (I64, U8) => "x.x & 255u",
        (I64, I32) => "bitcast<i32>(x.x)",
        (I64, F32) => "f32_from_i64(x)",
        // By its bits, so that NaN and what a device takes for 0 are true.
        (F32, Bool) => "u32((bitcast<u32>(x) & 0x7fffffffu) != 0u)",
        (F32, U8) => "i64_from_f32(x).x & 255u",
        (F32, I32) => "bitcast<i32>(i64_from_f32(x).x)",
        (F32, I64) => "i64_from_f32(x)",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::cpu::dispatch::Arg;
    use crate::machine::cpu::isa::Isa;

    #[test]
    fn floats_become_what_rust_casts_through_int64() {
        let whole = [0.0, -0.0, 0.5, -0.5, 1.9, -1.9, 255.0, 256.5, -1.0, 2147483648.0, -2147483649.0, 3e9];
        let ends = [9.2e18, -9.3e18, 1e19, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 9_223_372_036_854_775_808.0];
        let doubles: Vec<f64> = whole.iter().chain(&ends).chain(&[-9_223_372_036_854_775_808.0]).copied().collect();
        let singles: Vec<f32> = doubles.iter().map(|&x| x as f32).collect();
        let n = doubles.len();
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
            let run = |from: DType, to: DType, x: *const u8, out: *mut u8| {
                // SAFETY: n elements of these dtypes.
                unsafe { kernels(from, to)[isa as usize](n, out, &[Arg { ptr: x, scalar: false }]) }
            };
            let (mut bytes, mut ints, mut longs) = (vec![0u8; n], vec![0i32; n], vec![0i64; n]);
            for (from, x) in [(DType::F32, singles.as_ptr().cast()), (DType::F64, doubles.as_ptr().cast())] {
                run(from, DType::U8, x, bytes.as_mut_ptr().cast());
                run(from, DType::I32, x, ints.as_mut_ptr().cast());
                run(from, DType::I64, x, longs.as_mut_ptr().cast());
                for i in 0..n {
                    let want = if from == DType::F32 { singles[i] as i64 } else { doubles[i] as i64 };
                    assert_eq!((bytes[i], ints[i], longs[i]), (want as u8, want as i32, want), "{}", doubles[i]);
                }
            }
        }
    }
}
