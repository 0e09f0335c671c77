//! The graph itself: nodes in topological order, each with the types of its outputs, added one by one.

use super::TensorType;
use super::def::Vals;
use super::infer::infer;
use super::op::{Op, Source};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::scalar::Scalar;
use crate::shape::Shape;
use smallvec::SmallVec;

/// One output of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Val {
    pub node: u32,
    pub output: u32,
}

#[derive(Debug)]
pub struct Node {
    pub op: Op,
    pub inputs: SmallVec<[Val; 3]>,
    pub outputs: SmallVec<[TensorType; 1]>,
}

impl Clone for Node {
    // The derived one goes through an iterator for each list, which takes several times as long.
    fn clone(&self) -> Node {
        let mut outputs = SmallVec::new();
        self.outputs.iter().for_each(|ty| outputs.push(ty.clone()));
        Node { op: self.op.clone(), inputs: SmallVec::from_slice(&self.inputs), outputs }
    }
}

impl Node {
    /// The values of this node, which stands at `index`.
    // `collect` takes several times as long, here and below, and plans do this for each node in each pass.
    pub fn vals(&self, index: u32) -> Vals {
        let mut vals = Vals::new();
        (0..self.outputs.len() as u32).for_each(|output| vals.push(Val { node: index, output }));
        vals
    }
}

#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub nodes: Vec<Node>,
    /// What the graph is for, in the order that its user counts them.
    pub outputs: Vec<Val>,
}

impl Graph {
    pub fn new() -> Graph {
        Graph::default()
    }

    /// An empty graph with room for so many nodes.
    pub fn with_capacity(nodes: usize) -> Graph {
        Graph { nodes: Vec::with_capacity(nodes), outputs: Vec::new() }
    }

    pub fn node(&self, val: Val) -> &Node {
        &self.nodes[val.node as usize]
    }

    pub fn ty(&self, val: Val) -> &TensorType {
        &self.nodes[val.node as usize].outputs[val.output as usize]
    }

    pub fn shape(&self, val: Val) -> &Shape {
        &self.ty(val).shape
    }

    pub fn dtype(&self, val: Val) -> DType {
        self.ty(val).dtype
    }

    /// Adds a node whose output types follow from its op and inputs, and gives its index.
    pub fn push(&mut self, op: Op, inputs: &[Val]) -> Result<u32> {
        let outputs = {
            let mut types: SmallVec<[&TensorType; 4]> = SmallVec::new();
            inputs.iter().for_each(|&input| types.push(self.ty(input)));
            infer(&op, &types)?
        };
        Ok(self.push_typed(op, inputs, outputs))
    }

    /// Adds a node of one output and gives its value.
    pub fn add(&mut self, op: Op, inputs: &[Val]) -> Result<Val> {
        Ok(Val { node: self.push(op, inputs)?, output: 0 })
    }

    /// Adds a node of one output whose type the op alone does not tell (sources, broadcast, reshape, embed, …).
    pub fn add_typed(&mut self, op: Op, inputs: &[Val], ty: TensorType) -> Val {
        let mut outputs = SmallVec::new();
        outputs.push(ty);
        Val { node: self.push_typed(op, inputs, outputs), output: 0 }
    }

    pub fn push_typed(&mut self, op: Op, inputs: &[Val], outputs: SmallVec<[TensorType; 1]>) -> u32 {
        self.nodes.push(Node { op, inputs: SmallVec::from_slice(inputs), outputs });
        self.nodes.len() as u32 - 1
    }

    /// A constant of the program.
    pub fn full(&mut self, value: impl Into<Scalar>, ty: TensorType) -> Val {
        self.add_typed(Op::Source(Source::Full(value.into())), &[], ty)
    }

    /// The constant, if `val` is one.
    pub fn constant(&self, val: Val) -> Option<Scalar> {
        match self.node(val).op {
            Op::Source(Source::Full(value)) => Some(value),
            _ => None,
        }
    }

    /// A value that stands for the argument of a transform or of a traced function.
    pub fn placeholder(&mut self, ty: TensorType) -> Val {
        self.add_typed(Op::Source(Source::Placeholder), &[], ty)
    }

    /// Which nodes some output needs.
    pub fn live(&self) -> Vec<bool> {
        let mut live = vec![false; self.nodes.len()];
        self.outputs.iter().for_each(|val| live[val.node as usize] = true);
        for index in (0..self.nodes.len()).rev() {
            if live[index] {
                self.nodes[index].inputs.iter().for_each(|val| live[val.node as usize] = true);
            }
        }
        live
    }

    /// Drops every node that no output needs and renumbers the rest, keeping their order.
    pub fn prune(&mut self) {
        let live = self.live();
        let mut renumbered = vec![0u32; live.len()];
        let (mut index, mut kept) = (0, 0);
        self.nodes.retain_mut(|node| {
            let keeps = live[index];
            if keeps {
                node.inputs.iter_mut().for_each(|val| val.node = renumbered[val.node as usize]);
                renumbered[index] = kept;
                kept += 1;
            }
            index += 1;
            keeps
        });
        self.outputs.iter_mut().for_each(|val| val.node = renumbered[val.node as usize]);
    }

    /// The one output value of a node that must have exactly one.
    pub fn single(vals: &[Val]) -> Result<Val> {
        match vals {
            [val] => Ok(*val),
            _ => Err(Error::internal(format!("expected one value, got {}", vals.len()))),
        }
    }
}

/// What became of the values of a graph that is copied node by node.
pub struct Copies {
    first: usize,
    vals: Vec<Vals>,
}

impl Copies {
    pub fn with_capacity(nodes: usize) -> Copies {
        Copies::behind(0, nodes)
    }

    /// For nodes that stood behind `first` others, which stay as they are.
    pub fn behind(first: usize, nodes: usize) -> Copies {
        Copies { first, vals: Vec::with_capacity(nodes) }
    }

    /// The next node has become these values.
    pub fn push(&mut self, vals: Vals) {
        self.vals.push(vals);
    }

    pub fn of(&self, val: Val) -> Val {
        match (val.node as usize).checked_sub(self.first) {
            Some(index) => self.vals[index][val.output as usize],
            None => val,
        }
    }

    pub fn all(&self, vals: &[Val]) -> Vals {
        let mut copies = Vals::new();
        vals.iter().for_each(|&val| copies.push(self.of(val)));
        copies
    }
}
