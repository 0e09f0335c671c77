//! The random generator of this process: a seed, and a count of the streams handed out. Each random node takes one
//! stream when it is recorded, so results depend on neither threads nor plans.

use crate::machine::lock::Lock;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

pub(super) struct Generator {
    seed: u64,
    next: u64,
}

pub(super) static GENERATOR: Lock<Option<Generator>> = Lock::new(None);

/// Works on the generator. One that nobody seeded takes its seed from the operating system.
fn with<R>(f: impl FnOnce(&mut Generator) -> R) -> R {
    f(GENERATOR.lock().get_or_insert_with(|| Generator { seed: entropy(), next: 0 }))
}

/// A number that differs from process to process: the standard library keys its hashers so.
fn entropy() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Starts the streams of this seed again.
pub fn manual_seed(seed: u64) {
    *GENERATOR.lock() = Some(Generator { seed, next: 0 });
}

/// The seed, and a stream of it that nobody has.
pub fn next_stream() -> (u64, u64) {
    draw_many(1)
}

/// The seed, and the first of this many streams that nobody has.
pub(super) fn draw_many(count: u64) -> (u64, u64) {
    with(|generator| {
        let stream = generator.next;
        generator.next += count;
        (generator.seed, stream)
    })
}

/// Takes streams back that were the last ones given, unless others follow them by now.
pub(super) fn give_back((seed, first): (u64, u64), count: u64) {
    with(|generator| {
        if (generator.seed, generator.next) == (seed, first.wrapping_add(count)) {
            generator.next = first;
        }
    });
}

/// Seed and next stream: the whole state.
pub fn seed() -> (u64, u64) {
    with(|generator| (generator.seed, generator.next))
}

/// Puts a state back.
pub fn set_state(seed: u64, next: u64) {
    *GENERATOR.lock() = Some(Generator { seed, next });
}
