//! The machines that plans run on. The only place for instruction sets, threads and raw memory.

pub mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod lock;
pub mod storage;
