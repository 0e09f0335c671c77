//! Choice between two values by a condition: linear in both.

use super::build::{linear_apply, select, zeros_like};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Derivative, Graph, Rule, Val};
use crate::machine::cpu::dispatch::{Kernels, TernaryFn};
use crate::ternary_kernels;

pub static DERIVATIVE: Derivative = Derivative::Linear { apply: linear_apply, transpose: route };

/// The cotangent goes to the side that was chosen.
fn route(g: &mut Graph, rule: &Rule, cotangents: &[Option<Val>], which: usize) -> Result<Val> {
    let ct = cotangents[0].ok_or_else(|| Error::internal("where: no cotangent"))?;
    let zero = zeros_like(g, ct);
    if which == 1 { select(g, rule.inputs[0], ct, zero) } else { select(g, rule.inputs[0], zero, ct) }
}

pub struct Where;

impl<T: Copy> TernaryFn<u8, T, T> for Where {
    #[inline(always)]
    fn eval<const FMA: bool>(condition: u8, x: T, y: T) -> T {
        if condition != 0 { x } else { y }
    }
}

/// The slice kernels for values of this dtype: only the size of an element matters.
pub fn kernels(dtype: DType) -> &'static Kernels {
    static BYTES: Kernels = ternary_kernels!(Where, u8, u8 => u8);
    static WORDS: Kernels = ternary_kernels!(Where, u8, u32 => u32);
    static LONGS: Kernels = ternary_kernels!(Where, u8, u64 => u64);
    match dtype.size() {
        1 => &BYTES,
        4 => &WORDS,
        _ => &LONGS,
    }
}

/// The choice as an expression in c (a u32), x and y, in WGSL.
pub fn wgsl() -> &'static str {
    "select(y, x, c != 0u)"
}
