//! A plan for the device on which its values lie.

use super::cpu::{self, Inputs};
#[cfg(feature = "gpu")]
use super::gpu;
use super::{OutputHome, Plan, build};
use crate::autodiff::Known;
use crate::device_id::DeviceId;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::Graph;
use crate::machine::storage::Storage;
use crate::planner::{Account, Donation};
use crate::shape::Strides;
use std::fmt;
use std::sync::Arc;

pub enum DevicePlan {
    Cpu(Plan),
    #[cfg(feature = "gpu")]
    Gpu(gpu::Plan),
}

impl DevicePlan {
    /// The plan of a graph on a device. `leaf_strides` holds the strides of each leaf slot, which become part of it.
    pub fn build(
        device: DeviceId,
        graph: &Graph,
        known: &Known,
        leaf_strides: &[Strides],
        donations: &[Donation],
    ) -> Result<DevicePlan> {
        match device {
            DeviceId::Cpu => build(graph, known, leaf_strides, donations).map(DevicePlan::Cpu),
            #[cfg(feature = "gpu")]
            DeviceId::Gpu(index) => gpu::build(graph, known, leaf_strides, donations, index).map(DevicePlan::Gpu),
            #[cfg(not(feature = "gpu"))]
            DeviceId::Gpu(_) => Err(crate::error::Error::device(format!("{device}: this build has no part for GPUs"))),
        }
    }

    /// Runs it: see `run` of its device.
    pub fn run(&self, inputs: &Inputs) -> Result<Vec<Arc<Storage>>> {
        match self {
            DevicePlan::Cpu(plan) => cpu::run(plan, inputs),
            #[cfg(feature = "gpu")]
            DevicePlan::Gpu(plan) => gpu::run(plan, inputs),
        }
    }

    pub fn device(&self) -> DeviceId {
        match self {
            DevicePlan::Cpu(_) => DeviceId::Cpu,
            #[cfg(feature = "gpu")]
            DevicePlan::Gpu(plan) => DeviceId::Gpu(plan.device()),
        }
    }

    /// The plan, if it is for the CPU.
    pub fn on_cpu(&self) -> Option<&Plan> {
        match self {
            DevicePlan::Cpu(plan) => Some(plan),
            #[cfg(feature = "gpu")]
            DevicePlan::Gpu(_) => None,
        }
    }

    /// Where each output is found after a run.
    pub fn outputs(&self) -> &[OutputHome] {
        match self {
            DevicePlan::Cpu(plan) => plan.outputs(),
            #[cfg(feature = "gpu")]
            DevicePlan::Gpu(plan) => plan.shaders().outputs(),
        }
    }

    /// Bytes of each result that has a buffer of its own.
    pub fn buffers(&self) -> &[usize] {
        match self {
            DevicePlan::Cpu(plan) => &plan.buffers,
            #[cfg(feature = "gpu")]
            DevicePlan::Gpu(plan) => &plan.shaders().buffers,
        }
    }

    /// The numbers that it uses, each by its slot and the dtype that it has in a kernel.
    pub fn cells(&self) -> &[(u32, DType)] {
        match self {
            DevicePlan::Cpu(plan) => &plan.cells,
            #[cfg(feature = "gpu")]
            DevicePlan::Gpu(plan) => &plan.shaders().cells,
        }
    }

    /// Bytes of the memory for values between kernels.
    pub fn working_bytes(&self) -> usize {
        match self {
            DevicePlan::Cpu(plan) => plan.arena(),
            #[cfg(feature = "gpu")]
            DevicePlan::Gpu(plan) => plan.shaders().working_bytes(),
        }
    }

    /// What each kernel does, and how many of them come before the commit block.
    pub fn accounts(&self) -> (&[Account], usize) {
        match self {
            DevicePlan::Cpu(plan) => plan.accounts(),
            #[cfg(feature = "gpu")]
            DevicePlan::Gpu(plan) => plan.shaders().accounts(),
        }
    }

    /// About what the plan itself takes in memory.
    pub fn bytes(&self) -> usize {
        match self {
            DevicePlan::Cpu(plan) => plan.bytes(),
            #[cfg(feature = "gpu")]
            DevicePlan::Gpu(plan) => plan.shaders().bytes(),
        }
    }
}

impl fmt::Display for DevicePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DevicePlan::Cpu(plan) => plan.fmt(f),
            #[cfg(feature = "gpu")]
            DevicePlan::Gpu(plan) => plan.fmt(f),
        }
    }
}
