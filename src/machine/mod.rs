//! The machines that plans run on. The only place for instruction sets, threads and raw memory.

pub mod cpu;
pub mod lock;
