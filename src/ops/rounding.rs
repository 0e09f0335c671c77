//! Rounding to integers: the identity on integers, and a gradient of 0 on floats.

use super::define::{number_unary, signed_fn};
use super::wgsl::wgsl;
use crate::dtype::DType;
use crate::graph::{Derivative, Promote, Reads, UnaryDef};
use crate::machine::cpu::dispatch::{Kernels, UnaryFn};
use crate::unary_kernels;

macro_rules! rounding {
    ($def:ident, $name:ident, $word:literal, $doc:literal, $method:ident, $wgsl:literal) => {
        signed_fn!($name, |x| x.$method(), x, x);
        pub static $def: UnaryDef = UnaryDef {
            name: $word,
            doc: $doc,
            domain: (-5.0, 5.0),
            ulp: 0.0,
            promote: Promote::Same,
            kernels: number_unary!($name),
            wgsl: wgsl!(
                F32 => $wgsl,
                I32 | U8 | I64 => "x"
            ),
            gpu_ulp: 0.0,
            reference: f64::$method,
            derivative: Derivative::Zero,
            reads: Reads::NONE,
        };
    };
}

rounding!(FLOOR, Floor, "floor", "The largest integer not above x.", floor, "floor(x)");
rounding!(CEIL, Ceil, "ceil", "The smallest integer not below x.", ceil, "ceil(x)");
rounding!(TRUNC, Trunc, "trunc", "x without its fraction: rounded toward 0.", trunc, "trunc(x)");
rounding!(ROUND, Round, "round", "The nearest integer; halves go to the even one.", round_ties_even, "round(x)");
