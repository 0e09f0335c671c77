//! Which values a plan publishes, which records may be forgotten afterwards, and which buffers the plan may write over.
//! This is where the promise is kept that nothing is computed twice and nothing is kept for nothing.

use super::engine::{Engine, Record};
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
    /// Somebody else holds the buffer too: the plan gets a copy of it.
    pub copied: bool,
}

/// What becomes of a walk.
pub(super) struct Decisions {
    fates: Vec<Fate>,
    /// The outputs to publish: what a live handle names, what the rule of history that lives on reads, and what a record
    /// outside this plan still takes as input. The old place of a rebound handle is held only until the plan has
    /// succeeded, and a failure leaves it pending: its value need not exist.
    pub outputs: Vec<Output>,
    /// The rebound leaves whose last holders go with this plan, each with the value that takes its place.
    pub donations: Vec<Donation>,
}

/// What becomes of a node.
#[derive(Clone, Copy, Default)]
struct Fate {
    /// Whether its record keeps its operands (and so its part of the history) after this plan.
    kept: bool,
    /// Its outputs that somebody wants, a bit each.
    wanted: u32,
    /// References on it that go with this plan.
    released: u32,
    /// Rebound handles that named it before.
    left: u32,
    /// Its outputs that take part in a donation: each old buffer takes one new value, and each new value goes to one.
    donated: u32,
}

pub(super) fn decide(engine: &Engine, walk: &Walk, rebound: &[(Place, Place)]) -> Decisions {
    let mut fates = vec![Fate::default(); walk.len()];
    for rank in rebound.iter().filter_map(|(old, _)| walk.rank(engine, old.slot)) {
        fates[rank].left += 1;
    }
    for rank in (0..walk.len()).rev() {
        let record = engine.get(walk.nodes[rank].slot);
        fates[rank].kept = walk.nodes[rank].role == Role::Leaf || keeps(engine, walk, rank);
        if walk.nodes[rank].role == Role::Open {
            want(&mut fates, walk, record, rank);
        }
        let fate = fates[rank];
        if !fate.kept || (record.handles == 0 && record.refs == fate.released) {
            walk.edges(rank).iter().filter_map(|edge| edge.rank()).for_each(|input| fates[input].released += 1);
        }
    }
    let outputs = outputs(engine, walk, &fates);
    let donations = donations(engine, walk, &mut fates, rebound);
    Decisions { fates, outputs, donations }
}

fn keeps(engine: &Engine, walk: &Walk, rank: usize) -> bool {
    let record = engine.get(walk.nodes[rank].slot);
    if walk.nodes[rank].role == Role::Example {
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
                !gradient.is_done() && walk.rank(engine, slot).is_none_or(|rank| walk.nodes[rank].role == Role::Example)
            }),
        }
}

/// Notes what an open node makes somebody want: of its own outputs, and of its inputs.
fn want(fates: &mut [Fate], walk: &Walk, record: &Record, rank: usize) {
    let edges = walk.edges(rank);
    let outside = record.refs > walk.nodes[rank].users + fates[rank].left;
    if matches!(record.op, Op::Marker) {
        // A marker has no value of its own: whoever wants it wants what it marks.
        if fates[rank].wanted | record.handles != 0 || outside {
            want_input(fates, edges[0]);
        }
        return;
    }
    if record.handles > 0 || outside {
        fates[rank].wanted = u32::MAX;
    }
    if record.history && fates[rank].kept {
        let reads = ops::reads(&record.op);
        fates[rank].wanted |= reads.outputs;
        let read = |position: usize| reads.inputs >> position.min(31) & 1 == 1;
        edges.iter().enumerate().filter(|(at, _)| read(*at)).for_each(|(_, &edge)| want_input(fates, edge));
    }
}

fn want_input(fates: &mut [Fate], edge: Edge) {
    if let Some(rank) = edge.rank() {
        fates[rank].wanted |= 1 << edge.output.min(31);
    }
}

fn outputs(engine: &Engine, walk: &Walk, fates: &[Fate]) -> Vec<Output> {
    let mut outputs = Vec::with_capacity(walk.len());
    for (rank, (node, fate)) in walk.nodes.iter().zip(fates).enumerate() {
        if fate.wanted == 0 || node.role != Role::Open {
            continue;
        }
        let record = engine.get(node.slot);
        if !matches!(record.op, Op::Marker) && is_kept(record.handles, &record.op) {
            let named = (0..record.types.len() as u32).filter(|output| fate.wanted >> output.min(&31) & 1 == 1);
            outputs.extend(named.map(|output| Output { rank: rank as u32, output }));
        }
    }
    outputs
}

/// Random values are never kept for a gradient: they are computed again from seed and stream.
fn is_kept(handles: u32, op: &Op) -> bool {
    handles > 0 || !matches!(op, Op::Random(_))
}

fn donations(engine: &Engine, walk: &Walk, fates: &mut [Fate], rebound: &[(Place, Place)]) -> Vec<Donation> {
    let mut donations: Vec<Donation> = Vec::with_capacity(rebound.len());
    for (old, new) in rebound {
        let (Some(leaf), Some(update)) = (walk.rank(engine, old.slot), walk.rank(engine, new.slot)) else { continue };
        let record = engine.get(old.slot);
        let alone = walk.nodes[leaf].role == Role::Leaf
            && walk.nodes[update].role == Role::Open
            && record.handles == 0
            && record.refs == fates[leaf].released + 1
            && record.types.len() == 1
            && record.types[0] == engine.get(new.slot).types[new.output as usize];
        let ours = record.values[old.output as usize].as_ref().is_some_and(|value| {
            value.offset == 0
                && value.buffer.is_owned()
                && value.buffer.bytes() == record.types[0].bytes_on(record.device)
                && is_contiguous(&record.types[0].shape, &value.strides)
                && std::sync::Arc::strong_count(&value.buffer) == 1
        });
        // On a device a bad index is found too late to fail the plan: what replaces an old value must know it.
        let copied = !(alone && ours) && can_be_copied(engine, walk, [leaf, update], [old, new]);
        let bit = 1 << new.output.min(31);
        if (alone && ours && fates[leaf].donated == 0 || copied) && fates[update].donated & bit == 0 {
            fates[leaf].donated = 1;
            fates[update].donated |= bit;
            donations.push(Donation {
                leaf: Output { rank: leaf as u32, output: old.output },
                new: Output { rank: update as u32, output: new.output },
                copied,
            });
        }
    }
    donations
}

/// Whether a plan of a device may write the new value over a copy of the old one.
fn can_be_copied(engine: &Engine, walk: &Walk, [leaf, update]: [usize; 2], [old, new]: [&Place; 2]) -> bool {
    let record = engine.get(old.slot);
    let ty = &record.types[old.output as usize];
    !record.device.is_cpu()
        && walk.nodes[leaf].role == Role::Leaf
        && walk.nodes[update].role == Role::Open
        && *ty == engine.get(new.slot).types[new.output as usize]
        && record.values[old.output as usize].as_ref().is_some_and(|value| is_contiguous(&ty.shape, &value.strides))
}

impl Decisions {
    /// Forgets what nothing can need after a plan that succeeded, users first.
    pub fn forget(&self, engine: &mut Engine, walk: &Walk) {
        for (node, _) in walk.nodes.iter().zip(&self.fates).rev().filter(|(_, fate)| !fate.kept) {
            engine.cut(node.slot);
        }
    }
}
