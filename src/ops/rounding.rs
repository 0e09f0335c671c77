//! Rounding to integers: the identity on integers, and a gradient of 0 on floats.

use super::define::{number_unary, signed_fn};
use crate::dtype::DType;
use crate::graph::{Derivative, Promote, Reads, UnaryDef};
use crate::machine::cpu::dispatch::{Kernels, UnaryFn};
use crate::unary_kernels;

macro_rules! rounding {
    ($def:ident, $name:ident, $word:literal, $doc:literal, $method:ident) => {
        signed_fn!($name, |x| x.$method(), x, x);
        pub static $def: UnaryDef = UnaryDef {
            name: $word,
            doc: $doc,
            domain: (-5.0, 5.0),
            ulp: 0.0,
            promote: Promote::Same,
            kernels: number_unary!($name),
            reference: f64::$method,
            derivative: Derivative::Zero,
            reads: Reads::NONE,
        };
    };
}

rounding!(FLOOR, Floor, "floor", "The largest integer not above x.", floor);
rounding!(CEIL, Ceil, "ceil", "The smallest integer not below x.", ceil);
rounding!(TRUNC, Trunc, "trunc", "x without its fraction: rounded toward 0.", trunc);
rounding!(ROUND, Round, "round", "The nearest integer; halves go to the even one.", round_ties_even);
