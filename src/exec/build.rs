//! From a recorded graph to a plan: expansion of gradients, then the planner. The only place that knows both.

use crate::autodiff::{Known, expand};
use crate::error::Result;
use crate::graph::Graph;
use crate::graph::verify::verify;
use crate::planner::{self, Donation, Plan};
use crate::shape::Strides;

/// The plan of a graph. `leaf_strides` holds the strides of each leaf slot, which become part of the plan.
pub fn build(graph: &Graph, known: &Known, leaf_strides: &[Strides], donations: &[Donation]) -> Result<Plan> {
    let expanded = expand(graph, known)?;
    let simple = planner::simplify(expanded)?;
    verify(&simple, "simplification")?;
    planner::plan(&simple, leaf_strides, donations)
}
