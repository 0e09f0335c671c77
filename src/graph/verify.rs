//! What every graph holds between passes: inputs come before their users, and types are what inference says.
//! Runs in debug builds.

use super::infer::{infer, is_typed, sliced};
use super::op::{ConvRole, ConvSpec, Layout, Op, PoolRole, Sweep};
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
        Op::Conv(spec, role) => match role {
            ConvRole::Output => check_conv(spec, inputs[0], inputs[1], out),
            ConvRole::Input => check_conv(spec, out, inputs[0], inputs[1]),
            ConvRole::Weight => check_conv(spec, inputs[0], out, inputs[1]),
        },
        Op::Pool(sweeps, role) => match role {
            PoolRole::Index => check_pool(sweeps, inputs[0], out) && !out.dtype.is_float(),
            PoolRole::Pick => check_pool(sweeps, inputs[0], out) && inputs[1].shape == out.shape,
            PoolRole::Place => check_pool(sweeps, out, inputs[0]) && inputs[1].shape == inputs[0].shape,
            PoolRole::Mean(_) => check_pool(sweeps, inputs[0], out) && inputs[0].dtype == out.dtype,
            PoolRole::Spread(_) => check_pool(sweeps, out, inputs[0]) && inputs[0].dtype == out.dtype,
        },
        _ => true,
    };
    if fits { Ok(()) } else { Err(Error::internal(format!("type {out} does not fit inputs {inputs:?}"))) }
}

/// Whether x, w and g fit each other: dtypes, channels and taps. Extents of x and g only say which terms there are.
fn check_conv(spec: &ConvSpec, x: &TensorType, w: &TensorType, g: &TensorType) -> bool {
    let rank = spec.sweeps.len() + 2;
    [x, w, g].iter().all(|ty| ty.shape.rank() == rank && ty.dtype == x.dtype && ty.dtype.is_float())
        && x.shape[0] == g.shape[0]
        && x.shape[1] == spec.groups * w.shape[1]
        && w.shape[0] == g.shape[1]
        && g.shape[1].is_multiple_of(spec.groups)
        && spec.sweeps.iter().map(|sweep| sweep.taps).eq(w.shape[2..].iter().copied())
}

/// Whether a field and its windows agree on the planes.
fn check_pool(sweeps: &[Sweep], field: &TensorType, windows: &TensorType) -> bool {
    let planes = field.shape.rank().checked_sub(sweeps.len());
    field.shape.rank() == windows.shape.rank()
        && planes.is_some_and(|planes| field.shape[..planes] == windows.shape[..planes])
}
