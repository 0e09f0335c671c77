//! Optimizers: update rules as composites of one node for each parameter, and the updater that holds a group of
//! parameters with their state. Every setting that is a number is a plan input, so a schedule never misses the cache.

mod journal;
mod rules;
mod updater;

#[cfg(test)]
mod tests;

pub use rules::Rule;
pub use updater::{Part, State, Updater, step};
