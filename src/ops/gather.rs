//! Reading by index, and its transpose, adding by index.

use super::build::linear_apply;
use crate::error::{Error, Result};
use crate::graph::{Derivative, Graph, Op, Rule, Val};

pub static GATHER: Derivative = Derivative::Linear { apply: linear_apply, transpose: scatter };
pub static SCATTER: Derivative = Derivative::Linear { apply: linear_apply, transpose: gather };

fn scatter(g: &mut Graph, rule: &Rule, cotangents: &[Option<Val>], _: usize) -> Result<Val> {
    let (Op::Gather(mode, axis), Some(ct)) = (rule.op, cotangents[0]) else {
        return Err(Error::internal("gather: no cotangent"));
    };
    let ty = g.ty(rule.inputs[0]).clone();
    Ok(g.add_typed(Op::Scatter(*mode, *axis), &[ct, rule.inputs[1]], ty))
}

fn gather(g: &mut Graph, rule: &Rule, cotangents: &[Option<Val>], _: usize) -> Result<Val> {
    let (Op::Scatter(mode, axis), Some(ct)) = (rule.op, cotangents[0]) else {
        return Err(Error::internal("scatter: no cotangent"));
    };
    g.add(Op::Gather(*mode, *axis), &[ct, rule.inputs[1]])
}
