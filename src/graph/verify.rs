//! What every graph holds between passes: inputs come before their users, and types are what inference says.
//! Runs in debug builds.

use super::infer::{infer, is_typed, sliced};
use super::op::{Layout, Op};
use super::{Graph, Node, TensorType};
use crate::error::{Error, Result};
use crate::shape::broadcasts_to;
use smallvec::SmallVec;

/// Checks the whole graph if debug assertions are on; `after` names the pass that made it.
pub fn verify(graph: &Graph, after: &str) -> Result<()> {
    if cfg!(debug_assertions) {
        for (index, node) in graph.nodes.iter().enumerate() {
            check(graph, index, node).map_err(|e| {
                Error::internal(format!("after {after}, node {index} ({}): {}\n{graph}", node.op.name(), e.message()))
            })?;
        }
        if let Some(val) = graph.outputs.iter().find(|val| val.node as usize >= graph.nodes.len()) {
            return Err(Error::internal(format!("after {after}: output {val:?} does not exist")));
        }
    }
    Ok(())
}

fn check(graph: &Graph, index: usize, node: &Node) -> Result<()> {
    for val in &node.inputs {
        if val.node as usize >= index || graph.node(*val).outputs.len() <= val.output as usize {
            return Err(Error::internal(format!("input {val:?} is not made before it")));
        }
    }
    let types: SmallVec<[&TensorType; 4]> = node.inputs.iter().map(|&val| graph.ty(val)).collect();
    if is_typed(&node.op) {
        return check_typed(node, &types);
    }
    let inferred = infer(&node.op, &types)?;
    if inferred != node.outputs {
        return Err(Error::internal(format!("outputs are {:?}, inference says {inferred:?}", node.outputs)));
    }
    Ok(())
}

fn check_typed(node: &Node, inputs: &[&TensorType]) -> Result<()> {
    let out = &node.outputs[0];
    let fits = match &node.op {
        Op::Layout(Layout::Broadcast) => broadcasts_to(&inputs[0].shape, &out.shape) && inputs[0].dtype == out.dtype,
        Op::Layout(Layout::Reshape) => inputs[0].shape.size() == out.shape.size() && inputs[0].dtype == out.dtype,
        Op::Embed(dims) => sliced(&out.shape, dims) == inputs[0].shape && inputs[0].dtype == out.dtype,
        Op::Scatter(..) => inputs[0].dtype == out.dtype,
        _ => true,
    };
    if fits { Ok(()) } else { Err(Error::internal(format!("type {out} does not fit inputs {inputs:?}"))) }
}
