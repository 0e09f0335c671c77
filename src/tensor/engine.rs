//! The store of recorded nodes: one slab behind one lock. A record counts the handles and edges that hold it and goes
//! when none is left, iteratively, so that chains of any length drop on a small stack. The lock is never held while a
//! kernel runs or while anything waits for the interpreter, and no tensor may be dropped while it is held.

use super::handle::Cell;
use crate::device_id::DeviceId;
use crate::dtype::DType;
use crate::error::Error;
use crate::graph::{Op, Source, TensorType};
use crate::machine::cpu::view::View;
use crate::machine::lock::{self, Guard, Lock};
use crate::machine::storage::Storage;
use crate::scalar::Scalar;
use crate::shape::Strides;
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Weak};

pub(super) type Slot = u32;

/// A value that exists: a strided window on an immutable buffer. The offset counts elements.
#[derive(Debug)]
pub struct Value {
    pub buffer: Arc<Storage>,
    pub offset: usize,
    pub strides: Strides,
}

impl Clone for Value {
    // The derived one copies stride by stride.
    fn clone(&self) -> Value {
        Value { buffer: Arc::clone(&self.buffer), offset: self.offset, strides: SmallVec::from_slice(&self.strides) }
    }
}

impl Value {
    /// The memory of a value of this type on the host, for whoever holds the value while it looks.
    pub fn view(&self, ty: &TensorType) -> View {
        // SAFETY: a value's offset lies in its buffer.
        let ptr = unsafe { self.buffer.host().as_mut_ptr().add(self.offset * ty.dtype.size()) };
        View { ptr, dtype: ty.dtype, shape: ty.shape.clone(), strides: self.strides.clone() }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Operand {
    /// Output `.1` of the record in slot `.0`.
    Node(Slot, u32),
    /// A number from the user's program: a plan input of its own, never merged by value.
    Number(Scalar, DType),
}

#[derive(Clone, Debug)]
pub(super) enum State {
    Pending,
    /// A plan of this process id computes it.
    Claimed(u32),
    Done,
    Failed(Error),
}

pub(super) struct Record {
    /// Place in record order, from one counter for all threads.
    pub id: u64,
    /// Edges and other holders that are not handles.
    pub refs: u32,
    pub handles: u32,
    pub op: Op,
    /// Where its values are. Its operands are there too: edges never cross from one device to another.
    pub device: DeviceId,
    pub operands: SmallVec<[Operand; 3]>,
    pub types: SmallVec<[TensorType; 1]>,
    pub values: SmallVec<[Option<Value>; 1]>,
    pub state: State,
    /// Recorded in grad mode below a marker: differentiation may pass here.
    pub history: bool,
    /// The gradient (slot, id) of the backward pass that used up this node.
    pub consumed: Option<(Slot, u64)>,
    /// Open transforms whose arguments this depends on, one bit for each depth: gradients low, batches high.
    pub transforms: u64,
    /// For the marker of a variable: whose.
    pub variable: Option<Weak<Cell>>,
    /// Scratch of the walk that visited last.
    pub visit: Visit,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Visit {
    pub walk: u64,
    pub structure: bool,
    pub rank: u32,
}

/// The bits of `Record::transforms` that stand for per-example values: they never exist by themselves.
pub(super) const EXAMPLES: u64 = 0xFFFF_FFFF << 32;

impl Record {
    /// Whether this depends on a placeholder of an open batch or custom gradient.
    pub fn is_example(&self) -> bool {
        self.transforms & EXAMPLES != 0
    }

    /// Whether this only holds a value that came without history.
    pub fn is_leaf(&self) -> bool {
        matches!(self.op, Op::Source(Source::Leaf(_)))
    }

    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }
}

/// There is one, `ENGINE`: whoever has it has what all handles name.
pub(super) struct Engine {
    records: Vec<Option<Record>>,
    free: Vec<Slot>,
    next_id: u64,
    next_walk: u64,
    /// The lines that recorded nodes, by slot, with the id of the node; only while lines are kept.
    lines: BTreeMap<Slot, (u64, String)>,
    /// Work list of `release`, kept for its capacity.
    dropping: Vec<Slot>,
    /// Words of the last key, kept for its capacity.
    pub words: Vec<u64>,
    /// Records that the last walk found, by id, those that are bare values, and its work list: likewise.
    pub found: Vec<(u64, Slot)>,
    pub leaves: Vec<Slot>,
    pub walking: Vec<(Slot, bool)>,
}

pub(super) static ENGINE: Lock<Engine> = Lock::new(Engine {
    records: Vec::new(),
    free: Vec::new(),
    next_id: 0,
    next_walk: 0,
    lines: BTreeMap::new(),
    dropping: Vec::new(),
    words: Vec::new(),
    found: Vec::new(),
    leaves: Vec::new(),
    walking: Vec::new(),
});

/// Told whenever claimed records are published or given back, if somebody waits: telling costs a system call.
static SETTLED: Condvar = Condvar::new();
/// Threads that wait for `SETTLED`; changed under the engine lock.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Waits until some claimed records are settled.
pub(super) fn wait_for_settled(engine: Guard<'static, Engine>) -> Guard<'static, Engine> {
    WAITING.fetch_add(1, Ordering::Relaxed);
    let engine = lock::wait(&SETTLED, engine);
    WAITING.fetch_sub(1, Ordering::Relaxed);
    engine
}

/// Tells the threads that wait. Whoever waits has said so under the engine lock, which the caller held since.
pub(super) fn tell_settled() {
    if WAITING.load(Ordering::Relaxed) > 0 {
        SETTLED.notify_all();
    }
}

pub(super) fn lock() -> Guard<'static, Engine> {
    ENGINE.lock()
}

#[cold]
fn is_gone(slot: Slot) -> ! {
    unreachable!("slot {slot} is used after its last reference went")
}

impl Engine {
    /// A record that exists: whoever holds a slot holds a reference on it.
    #[inline]
    pub fn get(&self, slot: Slot) -> &Record {
        match &self.records[slot as usize] {
            Some(record) => record,
            None => is_gone(slot),
        }
    }

    #[inline]
    pub fn get_mut(&mut self, slot: Slot) -> &mut Record {
        match &mut self.records[slot as usize] {
            Some(record) => record,
            None => is_gone(slot),
        }
    }

    /// The record that had this id when it was in `slot`, if it is still there.
    pub fn find(&self, slot: Slot, id: u64) -> Option<&Record> {
        self.records.get(slot as usize)?.as_ref().filter(|record| record.id == id)
    }

    /// The output that has the value: what a marker marks, through markers of markers.
    pub fn unmarked(&self, mut slot: Slot, mut output: u32) -> (Slot, u32) {
        while let Record { op: Op::Marker, operands, .. } = self.get(slot) {
            let [Operand::Node(marked, of)] = operands[..] else { break };
            (slot, output) = (marked, of);
        }
        (slot, output)
    }

    /// Stores a record without holders; its operands must be retained already.
    pub fn insert(&mut self, mut record: Record) -> Slot {
        record.id = self.next_id;
        self.next_id += 1;
        match self.free.pop() {
            Some(slot) => {
                self.records[slot as usize] = Some(record);
                slot
            }
            None => {
                self.records.push(Some(record));
                self.records.len() as Slot - 1
            }
        }
    }

    /// Gives a record that nothing names by its id a new one, as if it had just been made: the order of the next step is
    /// then that of every later one.
    pub fn renew(&mut self, slot: Slot) {
        self.get_mut(slot).id = self.next_id;
        self.next_id += 1;
    }

    /// Remembers which line of the user's program recorded a node.
    pub fn keep_line(&mut self, slot: Slot, line: &str) {
        let id = self.get(slot).id;
        self.lines.insert(slot, (id, line.to_owned()));
    }

    /// Whether the line that recorded a node is known.
    pub fn has_line(&self, slot: Slot) -> bool {
        self.lines.get(&slot).is_some_and(|(id, _)| *id == self.get(slot).id)
    }

    /// The error with the line that recorded the node, if that is known.
    pub fn with_line(&self, slot: Slot, error: Error) -> Error {
        match self.lines.get(&slot) {
            Some((id, line)) if *id == self.get(slot).id => {
                Error::new(error.kind(), format!("{} ({line})", error.message()))
            }
            _ => error,
        }
    }

    /// The id that the next record gets.
    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Leaves an id out.
    pub fn skip_id(&mut self) {
        self.next_id += 1;
    }

    pub fn next_walk(&mut self) -> u64 {
        self.next_walk += 1;
        self.next_walk
    }

    pub fn retain(&mut self, slot: Slot) {
        self.get_mut(slot).refs += 1;
    }

    pub fn retain_handle(&mut self, slot: Slot) {
        self.get_mut(slot).handles += 1;
    }

    #[inline]
    pub fn release(&mut self, slot: Slot) {
        let record = self.get_mut(slot);
        record.refs -= 1;
        if record.refs == 0 && record.handles == 0 {
            self.drop_record(slot);
        }
    }

    #[inline]
    pub fn release_handle(&mut self, slot: Slot) {
        let record = self.get_mut(slot);
        record.handles -= 1;
        if record.refs == 0 && record.handles == 0 {
            self.drop_record(slot);
        }
    }

    /// Makes a plain reference of a handle's.
    pub fn demote_handle(&mut self, slot: Slot) {
        let record = self.get_mut(slot);
        record.handles -= 1;
        record.refs += 1;
    }

    /// Takes away the operands of a record: nothing will need them again.
    pub fn cut(&mut self, slot: Slot) {
        let operands = std::mem::take(&mut self.get_mut(slot).operands);
        for operand in operands {
            if let Operand::Node(input, _) = operand {
                self.release(input);
            }
        }
    }

    /// Drops a record that nothing holds.
    #[inline]
    pub fn drop_if_unheld(&mut self, slot: Slot) {
        if self.records[slot as usize].as_ref().is_some_and(|record| record.refs == 0 && record.handles == 0) {
            self.drop_record(slot);
        }
    }

    /// Drops a record, and what only it held.
    #[inline(never)]
    fn drop_record(&mut self, slot: Slot) {
        let mut dropping = std::mem::take(&mut self.dropping);
        dropping.push(slot);
        while let Some(slot) = dropping.pop() {
            let Some(record) = &mut self.records[slot as usize] else { continue };
            let operands = std::mem::take(&mut record.operands);
            self.records[slot as usize] = None;
            self.free.push(slot);
            for operand in &operands {
                if let Operand::Node(input, _) = *operand {
                    let input_record = self.get_mut(input);
                    input_record.refs -= 1;
                    if input_record.refs == 0 && input_record.handles == 0 {
                        dropping.push(input);
                    }
                }
            }
        }
        self.dropping = dropping;
    }

    /// Records that exist, for growth tests.
    pub fn len(&self) -> usize {
        self.records.len() - self.free.len()
    }
}

/// Recorded nodes that exist now.
pub fn live_nodes() -> usize {
    lock().len()
}
