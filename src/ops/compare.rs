//! Comparisons and logic: bool out, no gradient.

use super::define::{bits_binary, compare_binary, compare_unary};
use super::wgsl::wgsl;
use crate::dtype::DType;
use crate::graph::{BinaryDef, Derivative, Promote, Reads, UnaryDef};
use crate::machine::cpu::dispatch::{BinaryFn, Kernels, UnaryFn};
use crate::{binary_kernels, unary_kernels};

macro_rules! comparison {
    ($def:ident, $name:ident, $word:literal, $doc:literal, $op:tt, $single:literal, $long:literal) => {
        pub struct $name;
        comparison!(@ $name, $op, u8, i32, i64, f32, f64);
        pub static $def: BinaryDef = BinaryDef {
            name: $word,
            doc: $doc,
            domain: [(-2.0, 2.0), (-2.0, 2.0)],
            ulp: 0.0,
            promote: Promote::Compare,
            kernels: compare_binary!($name),
            wgsl: wgsl!(
                F32 => $single,
                Bool | U8 | I32 => concat!("u32(x ", stringify!($op), " y)"),
                I64 => concat!("u32(", $long, ")")
            ),
            gpu_ulp: 0.0,
            reference: |x, y| f64::from(u8::from(x $op y)),
            derivative: Derivative::Zero,
            reads: Reads::NONE,
        };
    };
    (@ $name:ident, $op:tt, $($t:ty),*) => {$(
        impl BinaryFn<$t, u8> for $name {
            #[inline(always)]
            fn eval<const FMA: bool>(x: $t, y: $t) -> u8 {
                u8::from(x $op y)
            }
        }
    )*};
}

comparison!(EQUAL, Equal, "equal", "x == y.", ==, "u32(equal_f32(x, y))", "all(x == y)");
comparison!(NOT_EQUAL, NotEqual, "not_equal", "x != y.", !=, "u32(!equal_f32(x, y))", "any(x != y)");
comparison!(LESS, Less, "less", "x < y.", <, "u32(x < y)", "less_i64(x, y)");
comparison!(LESS_EQUAL, LessEqual, "less_equal", "x <= y.", <=, "u32(x <= y)", "!less_i64(y, x)");
comparison!(GREATER, Greater, "greater", "x > y.", >, "u32(x > y)", "less_i64(y, x)");
comparison!(GREATER_EQUAL, GreaterEqual, "greater_equal", "x >= y.", >=, "u32(x >= y)", "!less_i64(x, y)");

macro_rules! bitwise {
    ($def:ident, $name:ident, $word:literal, $doc:literal, $op:tt) => {
        pub struct $name;
        bitwise!(@ $name, $op, u8, i32, i64);
        pub static $def: BinaryDef = BinaryDef {
            name: $word,
            doc: $doc,
            domain: [(0.0, 2.0), (0.0, 2.0)],
            ulp: 0.0,
            promote: Promote::Same,
            kernels: bits_binary!($name),
            wgsl: wgsl!(Bool | U8 | I32 | I64 => concat!("x ", stringify!($op), " y")),
            gpu_ulp: 0.0,
            reference: |x, y| ((x as i64) $op (y as i64)) as f64,
            derivative: Derivative::Zero,
            reads: Reads::NONE,
        };
    };
    (@ $name:ident, $op:tt, $($t:ty),*) => {$(
        impl BinaryFn<$t, $t> for $name {
            #[inline(always)]
            fn eval<const FMA: bool>(x: $t, y: $t) -> $t {
                x $op y
            }
        }
    )*};
}

bitwise!(AND, And, "bitwise_and", "Bits set in both; logical and on bools.", &);
bitwise!(OR, Or, "bitwise_or", "Bits set in either; logical or on bools.", |);
bitwise!(XOR, Xor, "bitwise_xor", "Bits set in one of them; logical xor on bools.", ^);

/// A property of a float; integers and bools have the constant given last.
macro_rules! property {
    ($def:ident, $name:ident, $word:literal, $doc:literal, $method:ident, $wgsl:literal, $otherwise:literal) => {
        pub struct $name;
        property!(@ $name, |x| x.$method(), f32, f64);
        property!(@ $name, |_x| $otherwise, u8, i32, i64);
        pub static $def: UnaryDef = UnaryDef {
            name: $word,
            doc: $doc,
            domain: (-2.0, 2.0),
            ulp: 0.0,
            promote: Promote::Compare,
            kernels: compare_unary!($name),
            wgsl: wgsl!(F32 => $wgsl, Bool | U8 | I32 | I64 => if $otherwise { "1u" } else { "0u" }),
            gpu_ulp: 0.0,
            reference: |x| f64::from(u8::from(x.$method())),
            derivative: Derivative::Zero,
            reads: Reads::NONE,
        };
    };
    (@ $name:ident, |$x:ident| $body:expr, $($t:ty),*) => {$(
        impl UnaryFn<$t, u8> for $name {
            #[inline(always)]
            fn eval<const FMA: bool>($x: $t) -> u8 {
                u8::from($body)
            }
        }
    )*};
}

property!(ISNAN, IsNan, "isnan", "Whether x is NaN.", is_nan, "u32(is_nan(x))", false);
property!(ISINF, IsInf, "isinf", "Whether x is infinite.", is_infinite, "u32(is_inf(x))", false);
property!(
    ISFINITE,
    IsFinite,
    "isfinite",
    "Whether x is neither infinite nor NaN.",
    is_finite,
    "u32(is_finite(x))",
    true
);

pub struct LogicalNot;
impl UnaryFn<u8, u8> for LogicalNot {
    #[inline(always)]
    fn eval<const FMA: bool>(x: u8) -> u8 {
        x ^ 1
    }
}

static NOT: Kernels = unary_kernels!(LogicalNot, u8 => u8);

pub static LOGICAL_NOT: UnaryDef = UnaryDef {
    name: "logical_not",
    doc: "Whether x is false.",
    domain: (0.0, 1.0),
    ulp: 0.0,
    promote: Promote::Same,
    kernels: |dtype| if dtype == DType::Bool { Some(&NOT) } else { None },
    wgsl: wgsl!(Bool => "x ^ 1u"),
    gpu_ulp: 0.0,
    reference: |x| f64::from(u8::from(x == 0.0)),
    derivative: Derivative::Zero,
    reads: Reads::NONE,
};

pub struct Invert;
macro_rules! invert {
    ($($t:ty),*) => {$(
        impl UnaryFn<$t, $t> for Invert {
            #[inline(always)]
            fn eval<const FMA: bool>(x: $t) -> $t {
                !x
            }
        }
    )*};
}
invert!(u8, i32, i64);

pub static INVERT: UnaryDef = UnaryDef {
    name: "bitwise_invert",
    doc: "Every bit of x flipped; logical not on bools.",
    domain: (0.0, 5.0),
    ulp: 0.0,
    promote: Promote::Same,
    kernels: |dtype| {
        static BYTE: Kernels = unary_kernels!(Invert, u8 => u8);
        static INT: Kernels = unary_kernels!(Invert, i32 => i32);
        static LONG: Kernels = unary_kernels!(Invert, i64 => i64);
        match dtype {
            DType::Bool => Some(&NOT),
            DType::U8 => Some(&BYTE),
            DType::I32 => Some(&INT),
            DType::I64 => Some(&LONG),
            DType::F32 | DType::F64 => None,
        }
    },
    wgsl: wgsl!(Bool => "x ^ 1u", U8 => "x ^ 255u", I32 | I64 => "~x"),
    gpu_ulp: 0.0,
    reference: |x| !(x as i64) as f64,
    derivative: Derivative::Zero,
    reads: Reads::NONE,
};
