//! What each thread has of its own: grad mode, the eager switch, open transforms, and the list of what it recorded and
//! not yet evaluated.

use super::engine::{self, Engine, Slot};
use super::handle::{Place, Tensor};
use crate::machine::storage::Storage;
use hashbrown::HashSet;
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, Ordering};

/// Recording past this many pending nodes evaluates what is live first.
const PENDING_LIMIT: usize = 8_192;
/// Likewise for distinct leaf buffers first used since the last evaluation.
const LEAF_LIMIT: usize = 256 << 20;
/// Smaller leaves do not count: looking them up would cost more than they hold.
const LEAF_COUNTED_FROM: usize = 64 << 10;

thread_local! {
    static GRAD: Cell<bool> = const { Cell::new(true) };
    static EAGER: Cell<Option<bool>> = const { Cell::new(None) };
    static PENDING: RefCell<Pending> = RefCell::new(Pending::default());
    static TRANSFORMS: RefCell<Vec<Frame>> = const { RefCell::new(Vec::new()) };
}

static EAGER_EVERYWHERE: AtomicBool = AtomicBool::new(false);
static LINES: AtomicBool = AtomicBool::new(false);

#[derive(Default)]
struct Pending {
    nodes: Vec<(Slot, u64)>,
    /// How many of them the last evaluation left: they do not count as new work.
    kept: usize,
    leaves: HashSet<usize>,
    leaf_bytes: usize,
}

/// One open transform of this thread.
pub(super) struct Frame {
    /// The bit that its arguments carry.
    pub bit: u64,
    /// The id that the next record got when it was opened.
    pub opened: u64,
    /// The placeholders of a batch: random nodes depend on them.
    pub placeholders: Vec<Slot>,
    /// Handles rebound while it was open, and what they named before.
    pub rebound: Vec<(Tensor, Place)>,
}

pub fn grad_enabled() -> bool {
    GRAD.get()
}

pub fn set_grad_enabled(on: bool) -> bool {
    GRAD.replace(on)
}

pub fn eager() -> bool {
    EAGER.get().unwrap_or_else(|| EAGER_EVERYWHERE.load(Ordering::Relaxed))
}

/// Sets the switch for all threads that have not set their own.
pub fn set_eager(on: bool) {
    EAGER_EVERYWHERE.store(on, Ordering::Relaxed);
}

/// Whether each node remembers the user's line; gives the setting before.
pub fn set_lines(on: bool) -> bool {
    LINES.swap(on, Ordering::Relaxed)
}

pub(super) fn lines() -> bool {
    LINES.load(Ordering::Relaxed)
}

/// Sets grad mode until dropped.
pub struct GradGuard(bool);

impl GradGuard {
    pub fn new(on: bool) -> GradGuard {
        GradGuard(set_grad_enabled(on))
    }
}

impl Drop for GradGuard {
    fn drop(&mut self) {
        GRAD.set(self.0);
    }
}

/// Sets this thread's eager switch until dropped.
pub struct EagerGuard(Option<bool>);

impl EagerGuard {
    pub fn new(on: bool) -> EagerGuard {
        EagerGuard(EAGER.replace(Some(on)))
    }
}

impl Drop for EagerGuard {
    fn drop(&mut self) {
        EAGER.set(self.0);
    }
}

/// Notes a recorded node. True: so much is pending that it should be evaluated.
pub(super) fn note_pending(slot: Slot, id: u64) -> bool {
    PENDING.with_borrow_mut(|pending| {
        pending.nodes.push((slot, id));
        pending.nodes.len() - pending.kept > PENDING_LIMIT
    })
}

/// Notes the use of a leaf that is no variable. True: as above.
#[inline]
pub(super) fn note_leaf(leaf: &Storage) -> bool {
    leaf.bytes() >= LEAF_COUNTED_FROM && note_large_leaf(leaf.id(), leaf.bytes())
}

fn note_large_leaf(id: usize, bytes: usize) -> bool {
    PENDING.with_borrow_mut(|pending| {
        if pending.leaves.insert(id) {
            pending.leaf_bytes += bytes;
        }
        pending.leaf_bytes > LEAF_LIMIT
    })
}

/// How many nodes of the list satisfy `is_pending`.
pub(super) fn count_pending(is_pending: impl Fn(Slot, u64, &Engine) -> bool) -> usize {
    PENDING.with_borrow(|pending| {
        let engine = engine::lock();
        pending.nodes.iter().filter(|&&(slot, id)| is_pending(slot, id, &engine)).count()
    })
}

/// Hands over the list of what this thread recorded, and starts a new one.
pub(super) fn take_pending() -> Vec<(Slot, u64)> {
    PENDING.with_borrow_mut(|pending| {
        pending.leaves.clear();
        pending.leaf_bytes = 0;
        pending.kept = 0;
        std::mem::take(&mut pending.nodes)
    })
}

/// Gives an emptied list back for its capacity, with what is pending still.
pub(super) fn put_pending(mut left: Vec<(Slot, u64)>) {
    PENDING.with_borrow_mut(|pending| {
        pending.kept = left.len();
        left.append(&mut pending.nodes);
        pending.nodes = left;
    });
}

pub(super) fn push_transform(frame: Frame) {
    TRANSFORMS.with_borrow_mut(|frames| frames.push(frame));
}

pub(super) fn pop_transform() -> Option<Frame> {
    TRANSFORMS.with_borrow_mut(Vec::pop)
}

pub(super) fn transform_depth() -> usize {
    TRANSFORMS.with_borrow(Vec::len)
}

/// Placeholders of all batches that are open in this thread.
pub(super) fn open_placeholders() -> Vec<Slot> {
    TRANSFORMS.with_borrow(|frames| frames.iter().flat_map(|frame| frame.placeholders.iter().copied()).collect())
}

/// The bits of all transforms that are open in this thread.
pub(super) fn open_bits() -> u64 {
    TRANSFORMS.with_borrow(|frames| frames.iter().fold(0, |bits, frame| bits | frame.bit))
}

/// Whether a transform is open in this thread.
pub fn in_transform() -> bool {
    TRANSFORMS.with_borrow(|frames| !frames.is_empty())
}

/// Keeps what a handle named before, while a transform is open that may have to restore it.
pub(super) fn log_rebind(tensor: &Tensor, previous: Place) {
    let kept = TRANSFORMS.with_borrow_mut(|frames| match frames.last_mut() {
        Some(frame) => {
            frame.rebound.push((tensor.clone(), previous));
            true
        }
        None => false,
    });
    if !kept {
        previous.release();
    }
}

/// Works on the innermost open transform of this thread.
pub(super) fn with_top_frame(f: impl FnOnce(&mut Frame)) {
    TRANSFORMS.with_borrow_mut(|frames| {
        if let Some(frame) = frames.last_mut() {
            f(frame);
        }
    });
}
