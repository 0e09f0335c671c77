//! Matrix products over the last two axes, with equal leading axes.

use super::layout::swap_last;
use crate::error::{Error, Result};
use crate::graph::{Derivative, Graph, Op, Rule, Val};

pub static DERIVATIVE: Derivative = Derivative::Bilinear([to_left, to_right]);

/// `a @ b`.
pub fn matmul(g: &mut Graph, a: Val, b: Val) -> Result<Val> {
    g.add(Op::Contract, &[a, b])
}

fn cotangent(cotangents: &[Option<Val>]) -> Result<Val> {
    cotangents[0].ok_or_else(|| Error::internal("matmul: no cotangent"))
}

fn to_left(g: &mut Graph, rule: &Rule, cotangents: &[Option<Val>], _: usize) -> Result<Val> {
    let transposed = swap_last(g, rule.inputs[1])?;
    matmul(g, cotangent(cotangents)?, transposed)
}

fn to_right(g: &mut Graph, rule: &Rule, cotangents: &[Option<Val>], _: usize) -> Result<Val> {
    let transposed = swap_last(g, rule.inputs[0])?;
    matmul(g, transposed, cotangent(cotangents)?)
}
