//! Reductions over axes. All dtypes share two trees of additions (see `machine::cpu::reduce`).

use super::build::*;
use crate::error::Result;
use crate::graph::{Derivative, Graph, Op, Reads, ReduceDef, Rule, Tangents, Val};
use crate::machine::cpu::reduce;
use smallvec::smallvec;

pub static SUM: ReduceDef = ReduceDef {
    name: "sum",
    doc: "The sum of the elements over the given axes.",
    domain: (-2.0, 2.0),
    empty: Some(0.0),
    kernels: reduce::sum,
    reference: |x, y| x + y,
    derivative: Derivative::Linear { apply: linear_apply, transpose: |g, rule, ct, _| spread_back(g, rule, ct) },
    reads: Reads::NONE,
};

pub static MAX: ReduceDef = ReduceDef {
    name: "max",
    doc: "The largest element over the given axes; NaN if any is. Equal ones share the gradient.",
    domain: (-2.0, 2.0),
    empty: None,
    kernels: reduce::max,
    reference: |x, y| if x > y || x.is_nan() { x } else { y },
    derivative: Derivative::Jvp(extreme_tangent),
    reads: Reads::INPUT,
};

pub static MIN: ReduceDef = ReduceDef {
    name: "min",
    doc: "The smallest element over the given axes; NaN if any is. Equal ones share the gradient.",
    domain: (-2.0, 2.0),
    empty: None,
    kernels: reduce::min,
    reference: |x, y| if x < y || x.is_nan() { x } else { y },
    derivative: Derivative::Jvp(extreme_tangent),
    reads: Reads::INPUT,
};

fn axes_of(op: &Op) -> u32 {
    match op {
        Op::Reduce(_, axes) => *axes,
        _ => 0,
    }
}

fn spread_back(g: &mut Graph, rule: &Rule, ct: &[Option<Val>]) -> Result<Val> {
    let ct = super::arithmetic::given(ct)?;
    spread(g, ct, axes_of(rule.op), rule.inputs[0])
}

/// The mean of the tangents of the elements that equal the extreme. The extreme is computed again from the same input,
/// so that it and the comparison come from one execution.
fn extreme_tangent(g: &mut Graph, rule: &Rule, t: &[Option<Val>]) -> Result<Tangents> {
    let Some(tangent) = t[0] else { return Ok(smallvec![None]) };
    let (x, axes) = (rule.inputs[0], axes_of(rule.op));
    let extreme = g.add(rule.op.clone(), &[x])?;
    let against = spread(g, extreme, axes, x)?;
    let chosen = equal(g, x, against)?;
    let (one, zero) = (full_like(g, 1.0, x), full_like(g, 0.0, x));
    let ones = select(g, chosen, one, zero)?;
    let count = sum(g, ones, axes)?;
    let unit = full_like(g, 1.0, count);
    let share = divide(g, unit, count)?;
    let kept = select(g, chosen, tangent, zero)?;
    let total = sum(g, kept, axes)?;
    Ok(smallvec![Some(zmul(g, total, share)?)])
}
