//! The CPU as a machine: instruction-set choice, threads, buffers, views, matrix kernels. Knows no op, graph or plan.

pub mod isa;
pub mod par;
