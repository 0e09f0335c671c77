//! The CPU as a machine: instruction-set choice, threads, buffers, views, kernels of products, convolutions and pools. Knows no op, graph or plan.

pub mod arena;
pub mod attention;
pub mod buffer;
pub mod chain;
pub mod conv;
pub mod dispatch;
pub mod float;
pub mod gemm;
pub mod isa;
pub mod math;
pub mod pace;
pub mod par;
pub mod philox;
pub mod pool;
pub mod position;
pub mod reduce;
mod scratch;
pub mod sweep;
pub mod view;
