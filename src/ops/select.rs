//! Choice between two values by a condition: linear in both.

use super::build::{linear_apply, select, zeros_like};
use crate::error::{Error, Result};
use crate::graph::{Derivative, Graph, Rule, Val};

pub static DERIVATIVE: Derivative = Derivative::Linear { apply: linear_apply, transpose: route };

/// The cotangent goes to the side that was chosen.
fn route(g: &mut Graph, rule: &Rule, cotangents: &[Option<Val>], which: usize) -> Result<Val> {
    let ct = cotangents[0].ok_or_else(|| Error::internal("where: no cotangent"))?;
    let zero = zeros_like(g, ct);
    if which == 1 { select(g, rule.inputs[0], ct, zero) } else { select(g, rule.inputs[0], zero, ct) }
}
