//! Comparisons and logic: bool out, no gradient.

use super::define::{bits_binary, compare_binary};
use crate::binary_kernels;
use crate::dtype::DType;
use crate::graph::{BinaryDef, Derivative, Promote, Reads};
use crate::machine::cpu::dispatch::{BinaryFn, Kernels};

macro_rules! comparison {
    ($def:ident, $name:ident, $word:literal, $doc:literal, $op:tt) => {
        pub struct $name;
        comparison!(@ $name, $op, u8, i32, i64, f32, f64);
        pub static $def: BinaryDef = BinaryDef {
            name: $word,
            doc: $doc,
            domain: [(-2.0, 2.0), (-2.0, 2.0)],
            ulp: 0.0,
            promote: Promote::Compare,
            kernels: compare_binary!($name),
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

comparison!(EQUAL, Equal, "equal", "x == y.", ==);
comparison!(NOT_EQUAL, NotEqual, "not_equal", "x != y.", !=);
comparison!(LESS, Less, "less", "x < y.", <);
comparison!(LESS_EQUAL, LessEqual, "less_equal", "x <= y.", <=);
comparison!(GREATER, Greater, "greater", "x > y.", >);
comparison!(GREATER_EQUAL, GreaterEqual, "greater_equal", "x >= y.", >=);

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
