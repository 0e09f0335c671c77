//! Which values a plan publishes, which records may be forgotten afterwards, and which buffers the plan may write over.
//! This is where the promise is kept that nothing is computed twice and nothing is kept for nothing.

use super::engine::{Engine, Slot};
use super::handle::Place;
use super::walk::{Edge, Role, Walk};
use crate::graph::Op;
use crate::machine::cpu::view::is_contiguous;
use crate::ops;

/// An output of the record at a rank of the walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Output {
    pub rank: u32,
    pub output: u32,
}

/// A buffer that the plan may write the new value over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Donation {
    /// The record that holds the old value, alone.
    pub leaf: Output,
    /// The value that replaces it.
    pub new: Output,
}

/// Which records keep their operands (and so their part of the history) after this plan.
pub(super) fn kept(engine: &Engine, walk: &Walk) -> Vec<bool> {
    (0..walk.len()).map(|rank| walk.roles[rank] == Role::Leaf || keeps(engine, walk, rank)).collect()
}

fn keeps(engine: &Engine, walk: &Walk, rank: usize) -> bool {
    let record = engine.get(walk.slots[rank]);
    if walk.roles[rank] == Role::Example {
        return true;
    }
    // A marker is a name for what it marks; a random value is drawn again from its seed and stream.
    if matches!(record.op, Op::Marker | Op::Random(_)) {
        return true;
    }
    record.history
        && match record.consumed {
            None => true,
            // Linear: another pass may go through it, and it holds no values.
            Some(_) if ops::reads(&record.op).is_none() => true,
            // Used up: kept only for a gradient that is still pending after this plan.
            Some((slot, id)) => engine.find(slot, id).is_some_and(|gradient| {
                !gradient.is_done() && walk.rank(engine, slot).is_none_or(|rank| walk.roles[rank] == Role::Example)
            }),
        }
}

/// Edges that records of this walk hold on each record of it; those that stay pending hold theirs for later.
fn inner_edges(walk: &Walk) -> Vec<u32> {
    let mut edges = vec![0u32; walk.len()];
    for rank in (0..walk.len()).filter(|&rank| walk.roles[rank] != Role::Example) {
        walk.edges(rank).iter().filter_map(|edge| edge.rank()).for_each(|input| edges[input] += 1);
    }
    edges
}

/// The outputs to publish: what a live handle names, what the rule of history that lives on reads, and what a record
/// outside this plan still takes as input.
pub(super) fn outputs(engine: &Engine, walk: &Walk, kept: &[bool]) -> Vec<Output> {
    let edges = inner_edges(walk);
    let mut wanted = vec![0u32; walk.len()];
    for rank in (0..walk.len()).rev().filter(|&rank| walk.roles[rank] == Role::Open) {
        let record = engine.get(walk.slots[rank]);
        if matches!(record.op, Op::Marker) {
            // A marker has no value of its own: whoever wants it wants what it marks.
            if wanted[rank] | record.handles != 0 {
                want(&mut wanted, walk.edges(rank)[0]);
            }
            continue;
        }
        if record.handles > 0 || record.refs > edges[rank] {
            wanted[rank] = u32::MAX;
        }
        if record.history && kept[rank] {
            let reads = ops::reads(&record.op);
            wanted[rank] |= reads.outputs;
            for (position, &edge) in walk.edges(rank).iter().enumerate() {
                if reads.inputs >> position.min(31) & 1 == 1 {
                    want(&mut wanted, edge);
                }
            }
        }
    }
    let mut outputs = Vec::with_capacity(walk.len());
    for (rank, &slot) in walk.slots.iter().enumerate() {
        if wanted[rank] == 0 || walk.roles[rank] != Role::Open {
            continue;
        }
        let record = engine.get(slot);
        if !matches!(record.op, Op::Marker) && is_kept(record.handles, &record.op) {
            let named = (0..record.types.len() as u32).filter(|output| wanted[rank] >> output.min(&31) & 1 == 1);
            outputs.extend(named.map(|output| Output { rank: rank as u32, output }));
        }
    }
    outputs
}

/// Random values are never kept for a gradient: they are computed again from seed and stream.
fn is_kept(handles: u32, op: &Op) -> bool {
    handles > 0 || !matches!(op, Op::Random(_))
}

fn want(wanted: &mut [u32], edge: Edge) {
    if let Some(rank) = edge.rank() {
        wanted[rank] |= 1 << edge.output.min(31);
    }
}

/// The rebound leaves whose last holders go with this plan, each with the value that takes its place.
pub(super) fn donations(engine: &Engine, walk: &Walk, kept: &[bool], rebound: &[(Place, Place)]) -> Vec<Donation> {
    if rebound.is_empty() {
        return Vec::new();
    }
    let left = holders_left(engine, walk, kept);
    // Each old buffer takes one new value, and each new value goes to one buffer.
    let mut taken_leaves = vec![false; walk.len()];
    let mut taken_outputs = vec![0u32; walk.len()];
    let mut donations: Vec<Donation> = Vec::with_capacity(rebound.len());
    for (old, new) in rebound {
        let (Some(leaf), Some(update)) = (walk.rank(engine, old.slot), walk.rank(engine, new.slot)) else { continue };
        let record = engine.get(old.slot);
        let alone = walk.roles[leaf] == Role::Leaf
            && walk.roles[update] == Role::Open
            && record.handles == 0
            && left[leaf] == 1
            && record.types.len() == 1
            && record.types[0] == engine.get(new.slot).types[new.output as usize];
        let ours = record.values[old.output as usize].as_ref().is_some_and(|value| {
            value.offset == 0
                && value.buffer.is_owned()
                && value.buffer.len() == record.types[0].bytes()
                && is_contiguous(&record.types[0].shape, &value.strides)
                && std::sync::Arc::strong_count(&value.buffer) == 1
        });
        let bit = 1 << new.output.min(31);
        if alone && ours && !taken_leaves[leaf] && taken_outputs[update] & bit == 0 {
            taken_leaves[leaf] = true;
            taken_outputs[update] |= bit;
            donations.push(Donation {
                leaf: Output { rank: leaf as u32, output: old.output },
                new: Output { rank: update as u32, output: new.output },
            });
        }
    }
    donations
}

/// Plain references on each record that will be left when this plan is done.
fn holders_left(engine: &Engine, walk: &Walk, kept: &[bool]) -> Vec<u32> {
    let mut left: Vec<u32> = walk.slots.iter().map(|&slot| engine.get(slot).refs).collect();
    for rank in (0..walk.len()).rev() {
        let record = engine.get(walk.slots[rank]);
        let gone = left[rank] == 0 && record.handles == 0;
        if gone || !kept[rank] {
            walk.edges(rank).iter().filter_map(|edge| edge.rank()).for_each(|input| left[input] -= 1);
        }
    }
    left
}

/// Forgets what nothing can need after a plan that succeeded, users first.
pub(super) fn forget(engine: &mut Engine, walk: &Walk, kept: &[bool]) {
    for rank in (0..walk.len()).rev() {
        if !kept[rank] {
            let slot: Slot = walk.slots[rank];
            engine.cut(slot);
        }
    }
}
