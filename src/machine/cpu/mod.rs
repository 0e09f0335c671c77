//! The CPU as a machine: instruction-set choice, threads, buffers, views, matrix kernels. Knows no op, graph or plan.

pub mod arena;
pub mod buffer;
pub mod chain;
pub mod dispatch;
pub mod float;
pub mod gemm;
pub mod isa;
pub mod math;
pub mod par;
pub mod philox;
pub mod reduce;
pub mod view;
