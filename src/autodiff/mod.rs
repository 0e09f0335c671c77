//! Differentiation and batching as graph rewrites: takes a graph that holds Gradient, Jvp and Batch nodes, and gives
//! one of ordinary ops. Innermost first, because a graph is walked in record order. Knows rules, never plans.

mod batch;
mod expand;
mod forward;
mod reverse;
#[cfg(test)]
pub(crate) mod tests;

pub use expand::{HandKernels, Known, expand, expand_to};
