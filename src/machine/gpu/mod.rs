//! The GPU as a machine: adapters, contexts, memory, pipelines, runs and reads. The only place that names wgpu; knows no
//! op, graph or plan.
//!
//! A kernel is WGSL text with the entry `main` and everything in group 0. Binding 0 is `var<uniform> p: array<vec4<u32>, N>`
//! if the kernel has parameters; the storage buffers are bindings 1, 2, … in the order of `Dispatch::buffers`, with the
//! access that `Access` says: it must match the text. An index kernel also binds `Context::fault`. Workgroup memory is not
//! zeroed.
//!
//! The work of a context is done in the order of its calls, from all threads: a run sees what was written before it, and
//! memory that is given back may be written at once by the next owner's calls.

mod adapters;
mod buffer;
mod cache;
mod context;
mod failure;
mod faults;
mod pipeline;
mod read;
mod registry;
mod run;
mod testing;
#[cfg(test)]
pub(crate) mod tests;

pub use adapters::{AdapterInfo, Kind};
pub use buffer::{Binding, Buffer};
pub use context::{Context, Counters, Limits};
pub use faults::{Doubt, Ticket, Turn, fault_code};
pub use pipeline::{Access, Pipeline};
pub use registry::{after_fork, before_fork, context, counters, devices, reset, trim};
pub use run::Dispatch;
pub use testing::{fail_allocation, lose};
