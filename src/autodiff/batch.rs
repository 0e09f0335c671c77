//! Batching: a graph for one example becomes the graph for all of them, with a leading axis. One rule for each kind.

use crate::error::{Error, Result};
use crate::graph::{
    ConvRole, ConvSpec, GatherMode, Graph, Layout, Node, Op, SliceDim, SliceDims, TensorType, Val, Vals,
};
use crate::ops;
use crate::shape::Shape;
use hashbrown::HashMap;
use smallvec::SmallVec;

/// The `targets` of all examples, when the per-example placeholders `examples` are the rows of `args`.
pub(super) fn batch(graph: &mut Graph, size: usize, targets: &[Val], examples: &[Val], args: &[Val]) -> Result<Vals> {
    let mut batched: HashMap<Val, Val> = examples.iter().copied().zip(args.iter().copied()).collect();
    let mut from = Vals::from_slice(examples);
    // What the targets need by any input: pullbacks are reached by more than differentiable ones, and tangents that
    // reverse mode left behind are needed by nothing.
    let needed = needed(graph, targets);
    let mut touched = vec![false; graph.nodes.len()];
    examples.iter().for_each(|val| touched[val.node as usize] = true);
    let low = examples.iter().map(|val| val.node as usize).min().unwrap_or(0);
    let range = low..graph.nodes.len();
    for index in range.clone().filter(|&index| needed[index]) {
        touched[index] |= graph.nodes[index].inputs.iter().any(|val| touched[val.node as usize]);
        if touched[index] && matches!(graph.nodes[index].op, Op::CustomGradient(_)) {
            // The pullback is batched too, from a cotangent for all examples.
            let placeholder = graph.nodes[index].inputs[1];
            let ty = leading(graph.ty(placeholder), size);
            batched.insert(placeholder, graph.placeholder(ty));
            from.push(placeholder);
        }
    }
    // What no example touches, but waits for what is now a cotangent of all: it stays as it is, and waits for that.
    let mut waiting: HashMap<Val, Val> = HashMap::new();
    let renamed = |waiting: &HashMap<Val, Val>, val: &Val| waiting.get(val).copied().unwrap_or(*val);
    for index in range.filter(|&index| needed[index]) {
        let node = &graph.nodes[index];
        if from.iter().any(|val| val.node as usize == index) {
            continue;
        }
        let seen = if let Op::After = node.op { &node.inputs[..1] } else { &node.inputs[..] };
        let is_batched = seen.iter().any(|val| batched.contains_key(val));
        let waits = node.inputs.iter().any(|val| waiting.contains_key(val) || batched.contains_key(val));
        if !is_batched && !waits {
            continue;
        }
        let mut node = node.clone();
        node.inputs.iter_mut().for_each(|val| *val = renamed(&waiting, val));
        let vals = if is_batched {
            batch_node(graph, &node, size, &batched)?
        } else {
            node.inputs.iter_mut().for_each(|val| *val = batched.get(val).copied().unwrap_or(*val));
            let again = graph.push_typed(node.op.clone(), &node.inputs, node.outputs.clone());
            graph.nodes[again as usize].vals(again)
        };
        let map = if is_batched { &mut batched } else { &mut waiting };
        map.extend(
            vals.into_iter().enumerate().map(|(output, val)| (Val { node: index as u32, output: output as u32 }, val)),
        );
    }
    targets.iter().map(|target| stack(graph, &batched, size, renamed(&waiting, target))).collect()
}

/// The nodes that `targets` need.
fn needed(graph: &Graph, targets: &[Val]) -> Vec<bool> {
    let mut needed = vec![false; graph.nodes.len()];
    targets.iter().for_each(|val| needed[val.node as usize] = true);
    for index in (0..graph.nodes.len()).rev() {
        if needed[index] {
            graph.nodes[index].inputs.iter().for_each(|val| needed[val.node as usize] = true);
        }
    }
    needed
}

fn leading(ty: &TensorType, size: usize) -> TensorType {
    let mut shape = ty.shape.clone();
    shape.insert(0, size);
    TensorType { dtype: ty.dtype, shape }
}

/// The batched form of a value; one that no example touches is repeated.
fn stack(graph: &mut Graph, batched: &HashMap<Val, Val>, size: usize, val: Val) -> Result<Val> {
    match batched.get(&val) {
        Some(&all) => Ok(all),
        None => {
            let shape = leading(graph.ty(val), size).shape;
            ops::broadcast_to(graph, val, &shape)
        }
    }
}

fn batch_node(graph: &mut Graph, node: &Node, size: usize, batched: &HashMap<Val, Val>) -> Result<Vals> {
    let all = |graph: &mut Graph| -> Result<Vals> {
        node.inputs.iter().map(|&val| stack(graph, batched, size, val)).collect()
    };
    let as_is = |val: Val| batched.get(&val).copied().unwrap_or(val);
    let first = as_is(node.inputs[0]);
    let shape = leading(&node.outputs[0], size);
    let one = |val: Val| -> Result<Vals> { Ok(Vals::from_slice(&[val])) };
    match &node.op {
        Op::Marker => one(first),
        Op::Unary(_) | Op::Cast(_) | Op::Detach => one(graph.add(node.op.clone(), &[first])?),
        Op::After => one(graph.add(Op::After, &[first, as_is(node.inputs[1])])?),
        Op::Binary(_) | Op::Select | Op::Contract => {
            let inputs = all(graph)?;
            one(graph.add(node.op.clone(), &inputs)?)
        }
        Op::Reduce(def, axes) => one(graph.add(Op::Reduce(def, axes << 1), &[first])?),
        Op::Layout(Layout::Broadcast) => {
            let from = &graph.shape(first)[1..];
            let pad = node.outputs[0].shape.rank() - from.len();
            let aligned: Shape =
                [size].into_iter().chain(std::iter::repeat_n(1, pad)).chain(from.iter().copied()).collect();
            let aligned = ops::reshape(graph, first, &aligned)?;
            one(ops::broadcast_to(graph, aligned, &shape.shape)?)
        }
        Op::Layout(Layout::Reshape) => one(ops::reshape(graph, first, &shape.shape)?),
        Op::Layout(Layout::Permute(perm)) => {
            let perm: SmallVec<[u8; 8]> = std::iter::once(0).chain(perm.iter().map(|axis| axis + 1)).collect();
            one(graph.add(Op::Layout(Layout::Permute(perm)), &[first])?)
        }
        Op::Layout(Layout::Slice(dims)) => {
            let inputs: Vals = node.inputs.iter().map(|&val| as_is(val)).collect();
            one(graph.add(Op::Layout(Layout::Slice(behind(dims))), &inputs)?)
        }
        Op::Embed(dims) => {
            let inputs: Vals = node.inputs.iter().map(|&val| as_is(val)).collect();
            one(graph.add_typed(Op::Embed(behind(dims)), &inputs, shape))
        }
        Op::Concat(axis) => {
            let inputs = all(graph)?;
            one(graph.add(Op::Concat(axis + 1), &inputs)?)
        }
        Op::Gather(mode, axis) => one(gather(graph, node, size, batched, *mode, *axis)?),
        Op::Scatter(mode, axis) => one(scatter(graph, node, size, batched, *mode, *axis)?),
        Op::Conv(spec, role) => one(conv(graph, node, size, batched, spec, *role)?),
        Op::Pool(..) => {
            // Windows lie along the last axes.
            let inputs = all(graph)?;
            one(graph.add_typed(node.op.clone(), &inputs, shape))
        }
        Op::Random(_) => {
            // The inner placeholder's place is taken by what stands for it outside, so that outer batches see it.
            let inputs: Vals = node.inputs.iter().map(|&val| as_is(val)).collect();
            one(graph.add_typed(node.op.clone(), &inputs, shape))
        }
        Op::Composite(def, attrs) => {
            let start = graph.nodes.len() as u32;
            let results = (def.expand)(graph, attrs, &node.inputs)?;
            let end = graph.nodes.len() as u32;
            let mut inner = batched.clone();
            for index in start..end {
                let part = graph.nodes[index as usize].clone();
                if part.inputs.iter().any(|val| inner.contains_key(val)) {
                    for (output, val) in batch_node(graph, &part, size, &inner)?.into_iter().enumerate() {
                        inner.insert(Val { node: index, output: output as u32 }, val);
                    }
                }
            }
            results.iter().map(|&val| stack(graph, &inner, size, val)).collect()
        }
        Op::CustomGradient(_) => {
            let inputs = all(graph)?;
            one(graph.add(node.op.clone(), &inputs)?)
        }
        Op::Source(_) | Op::Gradient(_) | Op::Jvp(_) | Op::Batch(_) | Op::Pullback(_) => {
            Err(Error::internal(format!("{} inside a region that is batched", node.op.name())))
        }
    }
}

/// The same slices, one axis further in.
fn behind(dims: &[SliceDim]) -> SliceDims {
    dims.iter().map(|d| SliceDim { axis: d.axis + 1, ..*d }).collect()
}

fn gather(
    graph: &mut Graph,
    node: &Node,
    size: usize,
    batched: &HashMap<Val, Val>,
    mode: GatherMode,
    axis: u8,
) -> Result<Val> {
    let (x, indices) = (node.inputs[0], node.inputs[1]);
    if mode == GatherMode::Take && !batched.contains_key(&indices) {
        return graph.add(Op::Gather(mode, axis + 1), &[batched[&x], indices]);
    }
    let shape = leading(&node.outputs[0], size).shape;
    let (all_x, all_indices) = (stack(graph, batched, size, x)?, stack(graph, batched, size, indices)?);
    if mode == GatherMode::Along {
        return graph.add(Op::Gather(mode, axis + 1), &[all_x, all_indices]);
    }
    let folded = Folded::new(size, graph.shape(x), axis as usize, graph.shape(indices).size());
    let flat_x = ops::reshape(graph, all_x, &folded.field())?;
    let flat_indices = folded.indices(graph, all_indices)?;
    let taken = graph.add(Op::Gather(GatherMode::Along, 2), &[flat_x, flat_indices])?;
    ops::reshape(graph, taken, &shape)
}

fn scatter(
    graph: &mut Graph,
    node: &Node,
    size: usize,
    batched: &HashMap<Val, Val>,
    mode: GatherMode,
    axis: u8,
) -> Result<Val> {
    let (updates, indices) = (node.inputs[0], node.inputs[1]);
    let ty = leading(&node.outputs[0], size);
    if mode == GatherMode::Take && !batched.contains_key(&indices) {
        return Ok(graph.add_typed(Op::Scatter(mode, axis + 1), &[batched[&updates], indices], ty));
    }
    let all_updates = stack(graph, batched, size, updates)?;
    let all_indices = stack(graph, batched, size, indices)?;
    if mode == GatherMode::Along {
        return Ok(graph.add_typed(Op::Scatter(mode, axis + 1), &[all_updates, all_indices], ty));
    }
    let folded = Folded::new(size, &node.outputs[0].shape, axis as usize, graph.shape(indices).size());
    let flat_updates = ops::reshape(graph, all_updates, &folded.picked())?;
    let flat_indices = folded.indices(graph, all_indices)?;
    let field = TensorType { dtype: ty.dtype, shape: folded.field() };
    let summed = graph.add_typed(Op::Scatter(GatherMode::Along, 2), &[flat_updates, flat_indices], field);
    ops::reshape(graph, summed, &ty.shape)
}

/// Examples are more images; where each has a weight of its own, they are more groups.
fn conv(
    graph: &mut Graph,
    node: &Node,
    size: usize,
    batched: &HashMap<Val, Val>,
    spec: &ConvSpec,
    role: ConvRole,
) -> Result<Val> {
    let out = &node.outputs[0];
    let weight = match role {
        ConvRole::Output => Some(1),
        ConvRole::Input => Some(0),
        ConvRole::Weight => None,
    };
    if let Some(weight) = weight.filter(|&at| !batched.contains_key(&node.inputs[at])) {
        let all = stack(graph, batched, size, node.inputs[1 - weight])?;
        let mut inputs = Vals::from_slice(&node.inputs);
        let mut shape = graph.shape(all).clone();
        let images = size * shape[1];
        shape.remove(0);
        shape.dims_mut()[0] = images;
        inputs[1 - weight] = ops::reshape(graph, all, &shape)?;
        let mut folded = out.clone();
        folded.shape.dims_mut()[0] = images;
        let result = graph.add_typed(node.op.clone(), &inputs, folded);
        return ops::reshape(graph, result, &leading(out, size).shape);
    }
    let fold = |graph: &mut Graph, at: usize, is_weight: bool| -> Result<Val> {
        let all = stack(graph, batched, size, node.inputs[at])?;
        let turned = if is_weight { all } else { swap_first(graph, all)? };
        let shape = folded(graph.shape(turned), usize::from(!is_weight));
        ops::reshape(graph, turned, &shape)
    };
    let inputs = [fold(graph, 0, weight == Some(0))?, fold(graph, 1, weight == Some(1))?];
    let spec = ConvSpec { groups: spec.groups * size, ..spec.clone() };
    let mut many = leading(out, size).shape;
    if weight.is_some() {
        many.dims_mut().swap(0, 1);
    }
    let ty = TensorType { dtype: out.dtype, shape: folded(&many, usize::from(weight.is_some())) };
    let result = graph.add_typed(Op::Conv(spec, role), &inputs, ty);
    let result = ops::reshape(graph, result, &many)?;
    if weight.is_some() { swap_first(graph, result) } else { Ok(result) }
}

/// The shape with this axis and the next in one.
fn folded(shape: &Shape, axis: usize) -> Shape {
    let mut shape = shape.clone();
    let extent = shape.remove(axis);
    shape.dims_mut()[axis] *= extent;
    shape
}

fn swap_first(graph: &mut Graph, x: Val) -> Result<Val> {
    let mut perm: SmallVec<[usize; 8]> = (0..graph.shape(x).rank()).collect();
    perm.swap(0, 1);
    ops::permute(graph, x, &perm)
}

/// A take with indices of its own for each example, folded to (examples, before, axis, after).
struct Folded {
    size: usize,
    before: usize,
    along: usize,
    after: usize,
    picked: usize,
}

impl Folded {
    fn new(size: usize, field: &Shape, axis: usize, picked: usize) -> Folded {
        let before = field[..axis].iter().product();
        let after = field[axis + 1..].iter().product();
        Folded { size, before, along: field[axis], after, picked }
    }

    fn field(&self) -> Shape {
        Shape::from([self.size, self.before, self.along, self.after])
    }

    fn picked(&self) -> Shape {
        Shape::from([self.size, self.before, self.picked, self.after])
    }

    fn indices(&self, graph: &mut Graph, indices: Val) -> Result<Val> {
        let column = ops::reshape(graph, indices, &Shape::from([self.size, 1, self.picked, 1]))?;
        ops::broadcast_to(graph, column, &self.picked())
    }
}
