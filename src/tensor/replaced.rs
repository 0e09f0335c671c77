//! Tensors in whose place a module has another one by now: code that found one of them there would find the other. Owns
//! the list of them. What follows for a traced step is the caller's to say.

use super::handle::{Cell, Tensor};
use crate::machine::lock::Lock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// How many there were so far; changed with the list.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// Those that may still be used, each with the count that it made. A handle that is gone is used by nothing.
pub(super) static REPLACED: Lock<Vec<(u64, Weak<Cell>)>> = Lock::new(Vec::new());

/// Says that a module has another tensor, or none, in the place of this one.
pub fn note_replaced(tensor: &Tensor) {
    let mut replaced = REPLACED.lock();
    if replaced.len().is_power_of_two() {
        replaced.retain(|(_, handle)| handle.strong_count() > 0);
    }
    let count = COUNT.load(Ordering::Relaxed) + 1;
    replaced.push((count, Arc::downgrade(&tensor.0)));
    COUNT.store(count, Ordering::Release);
}

/// How many tensors were replaced so far.
#[inline]
pub fn count_replaced() -> u64 {
    COUNT.load(Ordering::Acquire)
}

/// The tensors that were replaced after the first `count`, each with the count that it made.
pub fn replaced_since(count: u64) -> Vec<(u64, Tensor)> {
    let replaced = REPLACED.lock();
    let later = replaced.iter().rev().take_while(|(at, _)| *at > count);
    later.filter_map(|(at, handle)| Some((*at, Tensor(handle.upgrade()?)))).collect()
}
