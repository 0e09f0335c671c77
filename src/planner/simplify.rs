//! One forward pass that merges equal nodes and removes steps that change no bit, then a prune. Every rewrite here is
//! bit-exact for every input, NaN and signed zeros included; a rewrite that is not (x + 0 turns -0 into 0, a sum over a
//! broadcast rounds otherwise) does not belong here.

use crate::dtype::DType;
use crate::error::Result;
use crate::graph::infer::is_typed;
use crate::graph::{Copies, Graph, Layout, Node, Op, Source, TensorType, Val, Vals};
use crate::ops::arithmetic;
use crate::scalar::Scalar;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use smallvec::SmallVec;
use std::hash::{BuildHasher, Hasher};

pub fn simplify(graph: Graph) -> Result<Graph> {
    let mut merged = Merger::new(graph.nodes.len());
    let turned = turned(&graph);
    let mut copies = Copies::with_capacity(graph.nodes.len());
    for (node, is_turned) in graph.nodes.into_iter().zip(&turned) {
        let inputs = copies.all(&node.inputs);
        let reads_turned = node.inputs.first().is_some_and(|input| turned[input.node as usize]);
        let vals = if *is_turned {
            merged.turned_product(inputs[0], inputs[1], node.outputs)
        } else if reads_turned {
            inputs
        } else {
            match rewrite(&merged.graph, &node, &inputs) {
                Rewrite::Same(val) => Vals::from_slice(&[val]),
                Rewrite::Other(op, inputs) => merged.add(op, &inputs, node.outputs),
                Rewrite::None => merged.add(node.op, &inputs, node.outputs),
            }
        };
        copies.push(vals);
    }
    let mut out = merged.graph;
    out.outputs = graph.outputs.iter().map(|&val| copies.of(val)).collect();
    out.prune();
    Ok(out)
}

/// Of each node, whether it is a product that only an exchange of its last two axes reads: (a·b)ᵀ = bᵀ·aᵀ adds the same
/// products in the same order, and gives elements in the order that users of the transpose read them. It takes the place
/// of the product: the gradient of a weight frees what it reads before that of the input needs memory.
fn turned(graph: &Graph) -> Vec<bool> {
    let mut uses = vec![0u32; graph.nodes.len()];
    let inputs = graph.nodes.iter().flat_map(|node| &node.inputs);
    inputs.chain(&graph.outputs).for_each(|val| uses[val.node as usize] += 1);
    let mut turned = vec![false; graph.nodes.len()];
    for node in &graph.nodes {
        if let Op::Layout(Layout::Permute(perm)) = &node.op
            && swaps_last(perm)
            && let product = node.inputs[0].node as usize
            && matches!(graph.nodes[product].op, Op::Contract)
        {
            turned[product] = uses[product] == 1;
        }
    }
    turned
}

/// The graph being built, with a table of its nodes by content.
struct Merger {
    graph: Graph,
    /// Each node as words, one after the other, and where those of each end.
    words: Vec<u64>,
    ends: Vec<usize>,
    table: HashTable<(u64, u32)>,
    hasher: FixedState,
}

impl Merger {
    fn new(nodes: usize) -> Merger {
        Merger {
            graph: Graph::with_capacity(nodes),
            words: Vec::with_capacity(8 * nodes),
            ends: Vec::with_capacity(nodes),
            table: HashTable::with_capacity(nodes),
            hasher: FixedState::default(),
        }
    }

    /// The transpose of the product of these two, which would have these types.
    fn turned_product(&mut self, a: Val, b: Val, mut outputs: SmallVec<[TensorType; 1]>) -> Vals {
        let inputs = [self.swap_last(b), self.swap_last(a)];
        outputs.iter_mut().for_each(swap_last_of);
        self.add(Op::Contract, &inputs, outputs)
    }

    /// The value with its last two axes exchanged.
    fn swap_last(&mut self, val: Val) -> Val {
        let mut ty = self.graph.ty(val).clone();
        swap_last_of(&mut ty);
        let rank = ty.shape.rank();
        let mut perm: SmallVec<[u8; 8]> = (0..rank as u8).collect();
        perm.swap(rank - 2, rank - 1);
        let op = Op::Layout(Layout::Permute(perm));
        let node = Node { op, inputs: SmallVec::from_slice(&[val]), outputs: SmallVec::from_elem(ty, 1) };
        match rewrite(&self.graph, &node, &[val]) {
            Rewrite::Same(val) => val,
            Rewrite::Other(op, inputs) => self.add(op, &inputs, node.outputs)[0],
            Rewrite::None => self.add(node.op, &[val], node.outputs)[0],
        }
    }

    /// A node of this op and these types: an old one if there is an equal one.
    fn add(&mut self, op: Op, inputs: &[Val], outputs: SmallVec<[TensorType; 1]>) -> Vals {
        let start = self.words.len();
        put_words(&mut self.words, &op, inputs, &outputs);
        let (before, words) = self.words.split_at(start);
        let mut hasher = self.hasher.build_hasher();
        words.iter().for_each(|&word| hasher.write_u64(word));
        let hash = hasher.finish();
        let of = |index: u32| {
            let first = index.checked_sub(1).map_or(0, |last| self.ends[last as usize]);
            &before[first..self.ends[index as usize]]
        };
        let index = match self.table.find(hash, |&(h, index)| h == hash && of(index) == words) {
            Some(&(_, index)) => {
                self.words.truncate(start);
                index
            }
            None => {
                let index = self.graph.push_typed(op, inputs, outputs);
                self.ends.push(self.words.len());
                self.table.insert_unique(hash, (hash, index), |entry| entry.0);
                index
            }
        };
        self.graph.nodes[index as usize].vals(index)
    }
}

/// A node: its op, its inputs and, where the op does not tell it, its type.
fn put_words(words: &mut Vec<u64>, op: &Op, inputs: &[Val], outputs: &[TensorType]) {
    op.words(words);
    words.extend(inputs.iter().map(|val| u64::from(val.node) << 32 | u64::from(val.output)));
    if is_typed(op) {
        for ty in outputs {
            words.push(ty.dtype as u64 | (ty.shape.rank() as u64) << 8);
            words.extend(ty.shape.iter().map(|&dim| dim as u64));
        }
    }
}

enum Rewrite {
    None,
    /// The node equals this value.
    Same(Val),
    /// The node is another op on other inputs, with the same type.
    Other(Op, Vals),
}

fn rewrite(graph: &Graph, node: &Node, inputs: &[Val]) -> Rewrite {
    match &node.op {
        Op::Cast(to) => cast(graph, *to, inputs[0]),
        // Nothing is gained by making a constant again, or by waiting for one.
        Op::After if inputs.iter().any(|val| graph.constant(*val).is_some()) => Rewrite::Same(inputs[0]),
        Op::Layout(layout) => relayout(graph, layout, node, inputs),
        Op::Reduce(_, axes) => {
            let shape = graph.shape(inputs[0]);
            // Axes of one element are dropped by the definition of a reduction.
            if *axes == 0 {
                Rewrite::Same(inputs[0])
            } else if shape.iter().enumerate().all(|(axis, &dim)| axes >> axis & 1 == 0 || dim == 1) {
                Rewrite::Other(Op::Layout(Layout::Reshape), Vals::from_slice(inputs))
            } else {
                Rewrite::None
            }
        }
        Op::Select => match graph.constant(inputs[0]) {
            Some(condition) => Rewrite::Same(inputs[if condition.as_bool() { 1 } else { 2 }]),
            None if inputs[1] == inputs[2] => Rewrite::Same(inputs[1]),
            None => Rewrite::None,
        },
        Op::Binary(def) => {
            let one = |val: Val| graph.constant(val).is_some_and(|x| x.as_f64() == 1.0);
            let zero = |val: Val| graph.constant(val).is_some_and(|x| x.as_f64() == 0.0);
            // x·1 and x/1 are x, also for NaN and -0.
            if std::ptr::eq(*def, &arithmetic::MULTIPLY) && one(inputs[0]) {
                Rewrite::Same(inputs[1])
            } else if (std::ptr::eq(*def, &arithmetic::MULTIPLY) || std::ptr::eq(*def, &arithmetic::DIVIDE))
                && one(inputs[1])
            {
                Rewrite::Same(inputs[0])
            } else if std::ptr::eq(*def, &arithmetic::ZMUL) && (zero(inputs[0]) || zero(inputs[1])) {
                // By definition +0, whatever the other operand is.
                Rewrite::Other(Op::Source(Source::Full(Scalar::F64(0.0))), Vals::new())
            } else {
                Rewrite::None
            }
        }
        _ => Rewrite::None,
    }
}

fn cast(graph: &Graph, to: DType, input: Val) -> Rewrite {
    if graph.dtype(input) == to {
        return Rewrite::Same(input);
    }
    let before = graph.node(input);
    match before.op {
        // The first cast keeps every value, so the second one may read the original.
        Op::Cast(between) if is_exact(graph.dtype(before.inputs[0]), between) => {
            let original = before.inputs[0];
            if graph.dtype(original) == to {
                Rewrite::Same(original)
            } else {
                Rewrite::Other(Op::Cast(to), Vals::from_slice(&[original]))
            }
        }
        _ => Rewrite::None,
    }
}

/// Whether every value of `from` is a value of `to`.
fn is_exact(from: DType, to: DType) -> bool {
    use DType::*;
    match from {
        Bool => true,
        U8 => !matches!(to, Bool),
        I32 => matches!(to, I32 | I64 | F64),
        F32 => matches!(to, F32 | F64),
        I64 | F64 => from == to,
    }
}

fn relayout(graph: &Graph, layout: &Layout, node: &Node, inputs: &[Val]) -> Rewrite {
    let (input, shape) = (inputs[0], &node.outputs[0].shape);
    if let Some(value) = graph.constant(input) {
        return Rewrite::Other(Op::Source(Source::Full(value)), Vals::new());
    }
    let before = graph.node(input);
    let again = |op: Op| Rewrite::Other(op, Vals::from_slice(&before.inputs[..1]));
    match (layout, &before.op) {
        (Layout::Broadcast | Layout::Reshape, _) if graph.shape(input) == shape => Rewrite::Same(input),
        (Layout::Permute(perm), _) if perm.iter().enumerate().all(|(i, &axis)| i == axis as usize) => {
            Rewrite::Same(input)
        }
        (Layout::Broadcast, Op::Layout(Layout::Broadcast)) => again(Op::Layout(Layout::Broadcast)),
        (Layout::Reshape, Op::Layout(Layout::Reshape)) => {
            let original = before.inputs[0];
            if graph.shape(original) == shape { Rewrite::Same(original) } else { again(Op::Layout(Layout::Reshape)) }
        }
        (Layout::Permute(second), Op::Layout(Layout::Permute(first))) => {
            let both: SmallVec<[u8; 8]> = second.iter().map(|&axis| first[axis as usize]).collect();
            if both.iter().enumerate().all(|(i, &axis)| i == axis as usize) {
                Rewrite::Same(before.inputs[0])
            } else {
                again(Op::Layout(Layout::Permute(both)))
            }
        }
        _ => Rewrite::None,
    }
}

fn swap_last_of(ty: &mut TensorType) {
    let rank = ty.shape.rank();
    ty.shape.dims_mut().swap(rank - 2, rank - 1);
}

/// Whether a permutation exchanges the last two axes and leaves the others.
fn swaps_last(perm: &[u8]) -> bool {
    let rank = perm.len();
    let expected = |i: usize| if i + 2 < rank { i } else { 2 * rank - 3 - i };
    rank >= 2 && perm.iter().enumerate().all(|(i, &axis)| axis as usize == expected(i))
}
