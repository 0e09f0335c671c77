//! Running graphs: builds plans from recorded graphs, keeps them, and runs them on the CPU. Beside the executor stand two
//! slower ones that run a graph node by node: `unfused`, which must agree in every bit, and `reference`, in float64,
//! which bounds errors. Knows no handles.

pub mod build;
pub mod cache;
mod cpu;
mod device;
#[cfg(feature = "gpu")]
pub mod gpu;
mod hosts;
mod interpret;
mod prepared;
pub mod reduce;
pub mod reference;
#[cfg(test)]
mod tests;
pub mod unfused;
pub mod verify;

pub use crate::planner::{Account, Donation, OutputHome, Plan};
pub use build::build;
pub use cache::{Cache, Counters};
pub use cpu::{Inputs, Leaf, run, run_timed};
pub use device::DevicePlan;
pub use prepared::Prepared;
