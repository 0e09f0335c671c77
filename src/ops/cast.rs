//! Changes of dtype. Between floats they are linear; integers and bools cut differentiation.

use super::build::{cast, linear_apply};
use crate::error::{Error, Result};
use crate::graph::{Derivative, Graph, Rule, Val};

pub static DERIVATIVE: Derivative = Derivative::Linear { apply: linear_apply, transpose: cast_back };

fn cast_back(g: &mut Graph, rule: &Rule, cotangents: &[Option<Val>], _: usize) -> Result<Val> {
    let dtype = g.dtype(rule.inputs[0]);
    cast(g, cotangents[0].ok_or_else(|| Error::internal("astype: no cotangent"))?, dtype)
}
