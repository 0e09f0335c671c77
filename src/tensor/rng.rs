//! The random generator of this process: a seed, and a count of the streams handed out. Each random node takes one
//! stream when it is recorded, so results depend on neither threads nor plans.

use parking_lot::Mutex;

struct Generator {
    seed: u64,
    next: u64,
}

static GENERATOR: Mutex<Generator> = Mutex::new(Generator { seed: 0, next: 0 });

/// Starts the streams of this seed again.
pub fn manual_seed(seed: u64) {
    *GENERATOR.lock() = Generator { seed, next: 0 };
}

/// The seed, and a stream of it that nobody has.
pub fn next_stream() -> (u64, u64) {
    let mut generator = GENERATOR.lock();
    let stream = generator.next;
    generator.next += 1;
    (generator.seed, stream)
}

/// Seed and next stream: the whole state.
pub fn seed() -> (u64, u64) {
    let generator = GENERATOR.lock();
    (generator.seed, generator.next)
}

/// Puts a state back.
pub fn set_state(seed: u64, next: u64) {
    *GENERATOR.lock() = Generator { seed, next };
}
