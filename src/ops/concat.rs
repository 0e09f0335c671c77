//! Joining along an axis.

use super::build::linear_apply;
use super::layout::narrow;
use crate::error::{Error, Result};
use crate::graph::{Derivative, Graph, Op, Rule, Val};

pub static DERIVATIVE: Derivative = Derivative::Linear { apply: linear_apply, transpose: part };

fn part(g: &mut Graph, rule: &Rule, cotangents: &[Option<Val>], which: usize) -> Result<Val> {
    let (Op::Concat(axis), Some(ct)) = (rule.op, cotangents[0]) else {
        return Err(Error::internal("concat: no cotangent"));
    };
    let axis = *axis as usize;
    let start = rule.inputs[..which].iter().map(|&val| g.shape(val)[axis]).sum();
    let length = g.shape(rule.inputs[which])[axis];
    narrow(g, ct, axis, start, length)
}
