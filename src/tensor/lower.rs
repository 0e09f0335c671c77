//! From a walk to the graph that a plan is built from: broadcasts become nodes, numbers and values become sources, and
//! differentiation is cut where recording cut it. Runs only when the plan cache misses.

use super::engine::{Engine, Operand, Record};
use super::key::Slots;
use super::publish::{Donation, Output};
use super::walk::{Role, Walk};
use crate::error::Result;
use crate::exec;
use crate::graph::{Graph, Op, Source, TensorType, Val, Vals};
use crate::ops;
use crate::shape::Strides;

/// What `exec::build` takes.
pub(super) struct Lowered {
    pub graph: Graph,
    /// Values that exist already, and the leaf of each.
    pub known: Vec<(Val, Val)>,
    pub strides: Vec<Strides>,
    /// Where the nodes of each record end.
    pub ends: Vec<u32>,
    pub donations: Vec<exec::Donation>,
}

struct Place {
    vals: Vals,
    /// The leaf slot of each output that has a value.
    leaves: Vec<Option<u32>>,
}

pub(super) fn lower(engine: &Engine, walk: &Walk, outputs: &[Output], donations: &[Donation]) -> Result<Lowered> {
    let mut graph = Graph::new();
    let mut slots = Slots::default();
    let mut known = Vec::new();
    let mut ends = Vec::with_capacity(walk.len());
    let mut places: Vec<Place> = Vec::with_capacity(walk.len());
    for node in &walk.nodes {
        let record = engine.get(node.slot);
        let place = match node.role {
            Role::Leaf | Role::Gone => values(&mut graph, &mut slots, record),
            Role::Known => {
                let vals = op(engine, &mut graph, &mut slots, &places, record)?;
                let place = values(&mut graph, &mut slots, record);
                let pairs = vals.iter().zip(&place.vals).zip(&place.leaves);
                known.extend(pairs.filter(|(_, leaf)| leaf.is_some()).map(|((&val, &leaf), _)| (val, leaf)));
                Place { vals, leaves: place.leaves }
            }
            Role::Open | Role::Example => {
                Place { vals: op(engine, &mut graph, &mut slots, &places, record)?, leaves: Vec::new() }
            }
        };
        places.push(place);
        ends.push(graph.nodes.len() as u32);
    }
    graph.outputs = outputs.iter().map(|output| places[output.rank as usize].vals[output.output as usize]).collect();
    let mut given = Vec::with_capacity(donations.len());
    for donation in donations {
        let leaf = places[donation.leaf.rank as usize].leaves.get(donation.leaf.output as usize).copied().flatten();
        let output = outputs.iter().position(|output| *output == donation.new);
        if let (Some(leaf), Some(output)) = (leaf, output) {
            given.push(exec::Donation { output: output as u32, leaf });
        }
    }
    Ok(Lowered { graph, known, strides: slots.strides, ends, donations: given })
}

/// The values of an evaluated record as leaves; outputs that are gone become placeholders, which no plan may read.
fn values(graph: &mut Graph, slots: &mut Slots, record: &Record) -> Place {
    let mut place = Place { vals: Vals::new(), leaves: Vec::new() };
    for (value, ty) in record.values.iter().zip(&record.types) {
        let leaf = value.as_ref().map(|value| slots.leaf(value));
        let source = leaf.map_or(Source::Placeholder, Source::Leaf);
        place.vals.push(graph.add_typed(Op::Source(source), &[], ty.clone()));
        place.leaves.push(leaf);
    }
    place
}

fn op(engine: &Engine, graph: &mut Graph, slots: &mut Slots, places: &[Place], record: &Record) -> Result<Vals> {
    let mut inputs = Vals::new();
    for (position, operand) in record.operands.iter().enumerate() {
        let val = match *operand {
            Operand::Number(_, dtype) => {
                let slot = slots.number();
                graph.add_typed(Op::Source(Source::Number(slot)), &[], TensorType::scalar(dtype))
            }
            Operand::Node(slot, output) => {
                let input = engine.get(slot);
                let val = places[input.visit.rank as usize].vals[output as usize];
                if cuts(record, position, input) { graph.add(Op::Detach, &[val])? } else { val }
            }
        };
        inputs.push(val);
    }
    if let Op::Unary(_) | Op::Binary(_) | Op::Select = record.op {
        let shape = &record.types[0].shape;
        for val in &mut inputs {
            *val = ops::broadcast_to(graph, *val, shape)?;
        }
    }
    let node = graph.push_typed(record.op.clone(), &inputs, record.types.clone());
    Ok(graph.nodes[node as usize].vals(node))
}

/// Whether no derivative passes from `input` to `record`: one of them was recorded without gradients. A transform that
/// was itself recorded so still differentiates what it was given; its markers and placeholders are names, not values,
/// and stay as they are. A custom gradient is entered by its arguments.
pub(super) fn cuts(record: &Record, position: usize, input: &Record) -> bool {
    let is_name = |first: u32, count: u32| (first as usize..(first + count) as usize).contains(&position);
    let constant = record.history && !input.history;
    match record.op {
        Op::Gradient(spec) => constant && !is_name(spec.targets * (2 - u32::from(spec.ones)), spec.wrt),
        Op::Jvp(spec) => constant && !is_name(spec.targets, spec.primals),
        Op::Batch(spec) => constant && !is_name(spec.targets, spec.examples),
        Op::CustomGradient(n) => is_name(2, n) && !input.history,
        Op::After if position == 1 => false,
        _ => record.history != input.history,
    }
}
