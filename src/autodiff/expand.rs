//! The walk that takes a graph apart: transforms first, then markers, composites and whatever already has a value.

use super::{batch, forward, reverse};
use crate::error::{Error, Result};
use crate::graph::verify::verify;
use crate::graph::{Attrs, CompositeDef, Copies, Graph, Node, Op, Source, TensorType, Val, Vals};
use hashbrown::{HashMap, HashSet};
use smallvec::SmallVec;
use std::ops::Range;

/// Values that exist already: the value of the graph, and the leaf that holds it. Their nodes stand in the graph only
/// because a gradient needs their structure.
pub type Known = [(Val, Val)];

/// What becomes of composites with a hand kernel that takes them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum HandKernels {
    Keep,
    /// Where devices have such a kernel, too.
    KeepForDevices,
    Expand,
}

/// Rewrites Gradient, Jvp and Batch nodes into ops, then removes markers, expands composites and reads known values
/// from their leaves. The result holds only sources, primitive ops and composites that have a hand kernel.
pub fn expand(graph: &Graph, known: &Known) -> Result<Graph> {
    expand_to(graph, known, HandKernels::Keep)
}

/// As `expand`, for other executors: without hand kernels, what is left is sources and primitive ops.
pub fn expand_to(graph: &Graph, known: &Known, hand: HandKernels) -> Result<Graph> {
    verify(graph, "lowering")?;
    let (mut expanded, copies) = transforms(graph)?;
    let leaves: HashMap<Val, Val> = known.iter().map(|&(val, leaf)| (copies.of(val), copies.of(leaf))).collect();
    if !leaves.is_empty() {
        let swap = |val: &mut Val| *val = leaves.get(val).copied().unwrap_or(*val);
        expanded.nodes.iter_mut().for_each(|node| node.inputs.iter_mut().for_each(swap));
        expanded.outputs.iter_mut().for_each(swap);
        // A leaf may stand after the node whose value it is: sources come first.
        expanded = sources_first(expanded);
    }
    let mut primitive = lower(expanded, hand)?;
    primitive.prune();
    verify(&primitive, "expansion")?;
    Ok(primitive)
}

/// Copies the graph, expanding each transform where it stands. Also tells what became of each old value.
fn transforms(graph: &Graph) -> Result<(Graph, Copies)> {
    // A gradient adds several nodes for each on its way. Room that is not used costs nothing, a graph that moves does.
    let mut out = Graph::with_capacity(6 * graph.nodes.len());
    let mut copies = Copies::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let inputs = copies.all(&node.inputs);
        let vals = match &node.op {
            Op::Gradient(spec) => {
                let (targets, rest) = inputs.split_at(spec.targets as usize);
                let (cotangents, wrt) = rest.split_at(rest.len() - spec.wrt as usize);
                let cotangents: Vals = if spec.ones {
                    targets.iter().map(|&target| ones(&mut out, target)).collect()
                } else {
                    cotangents.iter().copied().collect()
                };
                reverse::gradient(&mut out, targets, &cotangents, wrt)?
            }
            Op::Jvp(spec) => {
                let (targets, rest) = inputs.split_at(spec.targets as usize);
                let (primals, tangents) = rest.split_at(spec.primals as usize);
                forward::jvp(&mut out, targets, primals, tangents)?
            }
            Op::Batch(spec) => {
                let (targets, rest) = inputs.split_at(spec.targets as usize);
                let (examples, args) = rest.split_at(spec.examples as usize);
                batch::batch(&mut out, spec.size, targets, examples, args)?
            }
            op => {
                let index = out.push_typed(op.clone(), &inputs, node.outputs.clone());
                out.nodes[index as usize].vals(index)
            }
        };
        copies.push(vals);
    }
    out.outputs = graph.outputs.iter().map(|&val| copies.of(val)).collect();
    Ok((out, copies))
}

fn ones(graph: &mut Graph, like: Val) -> Val {
    let ty = graph.ty(like).clone();
    graph.full(1.0, ty)
}

fn sources_first(graph: Graph) -> Graph {
    let mut out = Graph { outputs: graph.outputs, ..Graph::with_capacity(graph.nodes.len()) };
    let mut renumbered = vec![0u32; graph.nodes.len()];
    let (sources, ops): (Vec<_>, Vec<_>) =
        graph.nodes.into_iter().enumerate().partition(|(_, node)| matches!(node.op, Op::Source(_)));
    for (index, node) in sources.into_iter().chain(ops) {
        renumbered[index] = out.nodes.len() as u32;
        out.nodes.push(node);
    }
    let renumber = |val: &mut Val| val.node = renumbered[val.node as usize];
    out.nodes.iter_mut().for_each(|node| node.inputs.iter_mut().for_each(renumber));
    out.outputs.iter_mut().for_each(renumber);
    out
}

/// Copies what outputs need, removes markers, takes composites apart, and forgets which batches a random node was recorded
/// under.
fn lower(graph: Graph, hand: HandKernels) -> Result<Graph> {
    let live = graph.live();
    // A composite is several nodes.
    let mut out = Graph::with_capacity(3 * live.iter().filter(|live| **live).count());
    let mut copies = Copies::with_capacity(graph.nodes.len());
    for (node, live) in graph.nodes.into_iter().zip(live) {
        let vals = if live { lower_node(&mut out, node, &copies, hand)? } else { Vals::new() };
        copies.push(vals);
    }
    out.outputs = graph.outputs.iter().map(|&val| copies.of(val)).collect();
    Ok(out)
}

/// Composites nest to the depth of their definitions, so this recursion is shallow whatever the user records.
fn lower_node(out: &mut Graph, node: Node, copies: &Copies, hand: HandKernels) -> Result<Vals> {
    let inputs = copies.all(&node.inputs);
    let inputs = match node.op {
        Op::Marker | Op::Detach | Op::CustomGradient(_) => return Ok(Vals::from_slice(&inputs[..1])),
        Op::Composite(def, ref attrs) if !has_kernel(out, def, attrs, &inputs, hand) => {
            let start = out.nodes.len();
            let results = (def.expand)(out, attrs, &inputs)?;
            return lower_from(out, start, results, hand);
        }
        Op::Gradient(_) | Op::Jvp(_) | Op::Batch(_) | Op::Pullback(_) => {
            return Err(Error::internal(format!("{} is left after expansion", node.op.name())));
        }
        Op::Random(_) => &inputs[..2],
        _ => &inputs,
    };
    let index = out.push_typed(node.op, inputs, node.outputs);
    Ok(out.nodes[index as usize].vals(index))
}

fn has_kernel(graph: &Graph, def: &CompositeDef, attrs: &Attrs, inputs: &[Val], hand: HandKernels) -> bool {
    let types: SmallVec<[&TensorType; 8]> = inputs.iter().map(|&val| graph.ty(val)).collect();
    def.kernel_for(attrs, &types).is_some_and(|kernel| match hand {
        HandKernels::Keep => true,
        HandKernels::KeepForDevices => (kernel.device)(attrs, &types).is_some(),
        HandKernels::Expand => false,
    })
}

/// Lowers the nodes from `start` on, an expansion with these results.
fn lower_from(out: &mut Graph, start: usize, results: Vals, hand: HandKernels) -> Result<Vals> {
    if out.nodes[start..].iter().all(|node| is_lowered(out, node, hand)) {
        return Ok(results);
    }
    let nodes = out.nodes.split_off(start);
    let mut copies = Copies::behind(start, nodes.len());
    for node in nodes {
        let vals = lower_node(out, node, &copies, hand)?;
        copies.push(vals);
    }
    Ok(copies.all(&results))
}

/// Whether `lower_node` leaves a node as it is.
fn is_lowered(graph: &Graph, node: &Node, hand: HandKernels) -> bool {
    match &node.op {
        Op::Composite(def, attrs) => has_kernel(graph, def, attrs, &node.inputs, hand),
        Op::Random(_) => node.inputs.len() == 2,
        Op::Marker | Op::Detach | Op::CustomGradient(_) => false,
        Op::Gradient(_) | Op::Jvp(_) | Op::Batch(_) | Op::Pullback(_) => false,
        Op::Source(_) | Op::After | Op::Unary(_) | Op::Binary(_) | Op::Select | Op::Cast(_) | Op::Reduce(..) => true,
        Op::Layout(_) | Op::Embed(_) | Op::Concat(_) | Op::Gather(..) | Op::Scatter(..) => true,
        Op::Contract | Op::Conv(..) | Op::Pool(..) => true,
    }
}

/// The nodes that depend on `from` and that `to` depends on: flags for the indices of the range. The nodes of `from`
/// themselves are not on the way.
pub(super) fn between(graph: &Graph, from: &[Val], to: &[Val]) -> (Range<usize>, Vec<bool>) {
    let low = from.iter().map(|val| val.node as usize).min().unwrap_or(0);
    let high = to.iter().map(|val| val.node as usize + 1).max().unwrap_or(0).max(low);
    let mut depends = vec![false; high - low];
    let mut starts = vec![false; high - low];
    let mut wanted = vec![false; high - low];
    from.iter().filter(|val| (val.node as usize) < high).for_each(|val| starts[val.node as usize - low] = true);
    to.iter().filter(|val| val.node as usize >= low).for_each(|val| wanted[val.node as usize - low] = true);
    for index in low..high {
        depends[index - low] = starts[index - low]
            || differentiable_inputs(&graph.nodes[index])
                .iter()
                .any(|val| val.node as usize >= low && depends[val.node as usize - low]);
    }
    for index in (low..high).rev() {
        let way = wanted[index - low] && depends[index - low] && !starts[index - low];
        if way {
            let inputs = differentiable_inputs(&graph.nodes[index]);
            inputs.iter().filter(|val| val.node as usize >= low).for_each(|val| wanted[val.node as usize - low] = true);
        }
        wanted[index - low] = way;
    }
    (low..high, wanted)
}

/// The inputs through which a tangent may flow.
pub(super) fn differentiable_inputs(node: &Node) -> &[Val] {
    match node.op {
        Op::CustomGradient(n) => &node.inputs[2..2 + n as usize],
        Op::After => &node.inputs[..1],
        Op::Source(Source::Placeholder) | Op::Detach => &[],
        _ => &node.inputs,
    }
}

/// Records again the nodes from `placeholder` to `targets`, so that nothing waits for it any more.
pub(super) fn at_once(graph: &mut Graph, placeholder: Val, targets: &[Val]) -> Vals {
    let mut map: HashMap<Val, Val> = HashMap::new();
    let mut behind: HashSet<Val> = HashSet::from([placeholder]);
    let high = targets.iter().map(|val| val.node + 1).max().unwrap_or(0);
    for index in placeholder.node + 1..high {
        let Node { op, mut inputs, outputs } = graph.nodes[index as usize].clone();
        let is_new = inputs.iter().any(|val| map.contains_key(val));
        inputs.iter_mut().for_each(|val| *val = map.get(val).copied().unwrap_or(*val));
        let old = graph.nodes[index as usize].vals(index);
        if matches!(op, Op::After) && behind.contains(&inputs[1]) {
            map.insert(old[0], inputs[0]);
            continue;
        }
        let depends = inputs.iter().any(|val| behind.contains(val));
        let node = if is_new { graph.push_typed(op, &inputs, outputs) } else { index };
        let vals = graph.nodes[node as usize].vals(node);
        map.extend(old.into_iter().zip(vals.iter().copied()).filter(|_| is_new));
        behind.extend(vals.into_iter().filter(|_| depends));
    }
    targets.iter().map(|val| map.get(val).copied().unwrap_or(*val)).collect()
}

/// Records again the nodes from `placeholder` to `targets`, with `value` in the placeholder's place.
pub(super) fn substitute(graph: &mut Graph, placeholder: Val, value: Val, targets: &[Val]) -> Vals {
    let mut map: HashMap<Val, Val> = HashMap::from([(placeholder, value)]);
    let high = targets.iter().map(|val| val.node + 1).max().unwrap_or(0);
    for index in placeholder.node + 1..high {
        let node = &graph.nodes[index as usize];
        if node.inputs.iter().any(|val| map.contains_key(val)) {
            let Node { op, inputs, outputs } = node.clone();
            let inputs: Vals = inputs.iter().map(|val| map.get(val).copied().unwrap_or(*val)).collect();
            let again = graph.push_typed(op, &inputs, outputs);
            for val in graph.nodes[again as usize].vals(again) {
                map.insert(Val { node: index, output: val.output }, val);
            }
        }
    }
    targets.iter().map(|val| map.get(val).copied().unwrap_or(*val)).collect()
}
