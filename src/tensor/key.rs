//! The key of a plan, and its run-time inputs: one pass over a walk that names everything planning depends on (ops,
//! attributes, types, topology, device, what is known, exact strides, shared buffers, outputs, donations) and collects what it
//! does not (buffers, offsets, numbers). `lower` visits in the same order and numbers its sources the same way.

use super::engine::{Engine, Operand, Record, Value};
use super::publish::{Donation, Output};
use super::walk::{Edge, Node, Role, Walk};
use crate::exec::Leaf;
use crate::graph::infer::is_typed;
use crate::scalar::Scalar;
use crate::shape::Strides;
use hashbrown::HashMap;
use smallvec::SmallVec;

pub(super) struct Description {
    /// Equal exactly for walks that one plan serves.
    pub words: Vec<u64>,
    pub leaves: Vec<Leaf>,
    pub numbers: Vec<Scalar>,
}

/// `words` is emptied and used for its capacity.
pub(super) fn describe(
    engine: &Engine,
    walk: &Walk,
    outputs: &[Output],
    donations: &[Donation],
    mut words: Vec<u64>,
) -> Description {
    words.clear();
    words.push(walk.device(engine).number());
    let mut key = Key {
        words,
        leaves: Vec::with_capacity(walk.len()),
        numbers: Vec::with_capacity(walk.len()),
        buffers: Buffers::default(),
    };
    for (rank, &Node { slot, role, .. }) in walk.nodes.iter().enumerate() {
        let record = engine.get(slot);
        key.words.push(role as u64 | u64::from(record.history) << 8 | (record.types.len() as u64) << 16);
        match role {
            Role::Leaf | Role::Gone => key.values(record),
            Role::Known => {
                key.op(record, walk.edges(rank));
                key.values(record);
            }
            Role::Open | Role::Example => key.op(record, walk.edges(rank)),
        }
    }
    for output in outputs {
        key.words.push(u64::from(output.rank) << 32 | u64::from(output.output));
    }
    // Tells outputs from donations.
    key.words.push(u64::MAX);
    for donation in donations {
        key.words.push(u64::from(donation.leaf.rank) << 32 | u64::from(donation.leaf.output));
        key.words.push(u64::from(donation.new.rank) << 32 | u64::from(donation.new.output));
    }
    Description { words: key.words, leaves: key.leaves, numbers: key.numbers }
}

struct Key {
    words: Vec<u64>,
    leaves: Vec<Leaf>,
    numbers: Vec<Scalar>,
    buffers: Buffers,
}

/// The first leaf on each buffer. Small plans look through a list; long ones hash.
#[derive(Default)]
struct Buffers {
    few: SmallVec<[(usize, u64); 24]>,
    many: HashMap<usize, u64>,
}

impl Buffers {
    /// The first leaf on the buffer at this address; `next` if there is none yet.
    fn first(&mut self, address: usize, next: u64) -> u64 {
        if let Some(&(_, first)) = self.few.iter().find(|(known, _)| *known == address) {
            return first;
        }
        if self.few.len() < self.few.inline_size() {
            self.few.push((address, next));
            return next;
        }
        *self.many.entry(address).or_insert(next)
    }
}

impl Key {
    fn op(&mut self, record: &Record, edges: &[Edge]) {
        record.op.words(&mut self.words);
        if is_typed(&record.op) {
            self.types(record);
        }
        self.words.push(record.operands.len() as u64);
        for (operand, edge) in record.operands.iter().zip(edges) {
            match *operand {
                Operand::Number(number, dtype) => {
                    self.words.push(1 << 63 | dtype as u64);
                    self.numbers.push(number);
                }
                Operand::Node(..) => {
                    debug_assert!(edge.rank().is_some(), "an operand outside the walk");
                    self.words.push(edge.word());
                }
            }
        }
    }

    fn types(&mut self, record: &Record) {
        for ty in &record.types {
            self.words.push(ty.dtype as u64 | (ty.shape.rank() as u64) << 8);
            self.words.extend(ty.shape.iter().map(|&dim| dim as u64));
        }
    }

    fn values(&mut self, record: &Record) {
        self.types(record);
        for value in &record.values {
            match value {
                None => self.words.push(0),
                Some(value) => {
                    let next = self.leaves.len() as u64;
                    let first = self.buffers.first(value.buffer.id(), next);
                    self.words.push(1 | first << 8);
                    self.words.extend(value.strides.iter().map(|&stride| stride as u64));
                    self.leaves.push(Leaf { buffer: value.buffer.clone(), offset: value.offset });
                }
            }
        }
    }
}

/// Sources in the order of the key.
#[derive(Default)]
pub(super) struct Slots {
    /// Of each leaf.
    pub strides: Vec<Strides>,
    numbers: u32,
}

impl Slots {
    pub fn leaf(&mut self, value: &Value) -> u32 {
        self.strides.push(value.strides.clone());
        self.strides.len() as u32 - 1
    }

    pub fn number(&mut self) -> u32 {
        self.numbers += 1;
        self.numbers - 1
    }
}
