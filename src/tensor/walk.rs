//! What a plan covers: every record that the wanted ones need, by value or, below a gradient, by structure. First come
//! bare values, in the order in which the wanted ones lead to them: a parameter is older than the batch at its first step
//! and newer at the next, and one plan serves both. The others follow in record order. This is topological and canonical.

use super::engine::{Engine, Operand, Record, Slot, State};
use crate::device_id::DeviceId;
use crate::error::{Error, Result};
use crate::graph::Op;

/// How a record takes part in a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Pending: the plan computes it.
    Open,
    /// Depends on the argument of an open transform: only its structure is used, and it stays pending.
    Example,
    /// Has a value, and only that is used.
    Leaf,
    /// Evaluated, but by structure: history that a gradient needs, which may have kept values, or a random draw.
    Known,
    /// Evaluated, and nothing of it is left: fine unless something needs its value.
    Gone,
}

pub(super) struct Walk {
    /// A node's place here is its rank.
    pub nodes: Vec<Node>,
    /// Of each node, one for each operand.
    edges: Vec<Edge>,
}

/// A record that the plan covers.
pub(super) struct Node {
    pub slot: Slot,
    pub role: Role,
    /// Edges on it from nodes of this walk, but for those that stay pending and hold theirs for later.
    pub users: u32,
    /// Where its edges end.
    end: u32,
}

/// An operand as seen in a walk: the rank of its record there, and which output it is.
#[derive(Clone, Copy)]
pub(super) struct Edge {
    rank: u32,
    pub output: u32,
}

impl Edge {
    const OUTSIDE: u32 = u32::MAX;

    /// An operand that is this output of the record at `rank`.
    pub fn to(rank: usize, output: u32) -> Edge {
        Edge { rank: rank as u32, output }
    }

    /// None: a number, or a record that the walk does not cover.
    pub fn rank(self) -> Option<usize> {
        (self.rank != Edge::OUTSIDE).then_some(self.rank as usize)
    }

    /// Equal exactly for edges that lead to the same output of the same record of a walk.
    pub fn word(self) -> u64 {
        u64::from(self.rank) << 16 | u64::from(self.output)
    }
}

pub(super) enum Outcome {
    Ready(Walk),
    /// Another thread computes part of this: wait and walk again.
    Busy,
}

impl Walk {
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The device of all its records: edges do not cross from one to another.
    pub fn device(&self, engine: &Engine) -> DeviceId {
        self.nodes.first().map_or(DeviceId::Cpu, |node| engine.get(node.slot).device)
    }

    /// The operands of the node at `rank`, in order.
    pub fn edges(&self, rank: usize) -> &[Edge] {
        let start = rank.checked_sub(1).map_or(0, |before| self.nodes[before].end);
        &self.edges[start as usize..self.nodes[rank].end as usize]
    }

    /// The place of a record in this walk.
    pub fn rank(&self, engine: &Engine, slot: Slot) -> Option<usize> {
        let rank = engine.get(slot).visit.rank as usize;
        self.nodes.get(rank).is_some_and(|node| node.slot == slot).then_some(rank)
    }
}

/// Collects what `roots` need. `generation` tells this process from one that forked it.
pub(super) fn walk(engine: &mut Engine, roots: &[Slot], generation: u32) -> Result<Outcome> {
    let id = engine.next_walk();
    let mut found = std::mem::take(&mut engine.found);
    let mut leaves = std::mem::take(&mut engine.leaves);
    let mut stack = std::mem::take(&mut engine.walking);
    found.clear();
    leaves.clear();
    stack.clear();
    stack.extend(roots.iter().map(|&slot| (slot, false)));
    while let Some((slot, structure)) = stack.pop() {
        let record = engine.get_mut(slot);
        let seen = record.visit.walk == id;
        if seen && (record.visit.structure || !structure) {
            continue;
        }
        if !seen {
            let is_leaf = record.is_done() && record.operands.is_empty();
            if is_leaf { leaves.push(slot) } else { found.push((record.id, slot)) }
        }
        record.visit.walk = id;
        record.visit.structure = structure;
        let inner = match &record.state {
            State::Failed(error) => return Err(error.clone()),
            State::Claimed(claim) if *claim == generation => return Ok(Outcome::Busy),
            State::Claimed(_) => {
                return Err(Error::internal(format!(
                    "{} was being computed when the process forked",
                    record.op.name()
                )));
            }
            State::Done if !(structure && record.history) => continue,
            State::Done => true,
            State::Pending => match record.op {
                Op::Gradient(_) | Op::Jvp(_) | Op::Batch(_) => true,
                Op::Marker if record.variable.is_some() => false,
                _ => structure,
            },
        };
        for operand in &record.operands {
            if let Operand::Node(input, _) = *operand {
                stack.push((input, inner));
            }
        }
    }
    // A walk finds users first, so its reverse is nearly sorted.
    found.reverse();
    found.sort_unstable_by_key(|&(record, _)| record);
    let nodes = Vec::with_capacity(leaves.len() + found.len());
    let mut walk = Walk { nodes, edges: Vec::with_capacity(3 * found.len()) };
    for slot in leaves.iter().copied().chain(found.iter().map(|&(_, slot)| slot)) {
        engine.get_mut(slot).visit.rank = walk.nodes.len() as u32;
        walk.push(engine, slot, id);
    }
    (engine.found, engine.leaves, engine.walking) = (found, leaves, stack);
    Ok(Outcome::Ready(walk))
}

impl Walk {
    /// Adds the next record; those that it uses have their places.
    fn push(&mut self, engine: &Engine, slot: Slot, walk: u64) {
        let record = engine.get(slot);
        let role = role(record);
        for operand in &record.operands {
            let edge = match *operand {
                Operand::Node(slot, output) => {
                    let visit = engine.get(slot).visit;
                    Edge { rank: if visit.walk == walk { visit.rank } else { Edge::OUTSIDE }, output }
                }
                Operand::Number(..) => Edge { rank: Edge::OUTSIDE, output: 0 },
            };
            if let Some(user) = edge.rank().filter(|_| role != Role::Example) {
                self.nodes[user].users += 1;
            }
            self.edges.push(edge);
        }
        self.nodes.push(Node { slot, role, users: 0, end: self.edges.len() as u32 });
    }
}

fn role(record: &Record) -> Role {
    match record.state {
        State::Pending if record.is_example() => Role::Example,
        State::Pending => Role::Open,
        _ if record.visit.structure && record.history && !record.operands.is_empty() => Role::Known,
        _ if record.values.iter().any(Option::is_some) => Role::Leaf,
        // Not kept, but it can be drawn again.
        _ if matches!(record.op, Op::Random(_)) => Role::Known,
        _ => Role::Gone,
    }
}
