//! `wg.gpu`: what devices there are, and what their contexts do. A build without the feature `gpu` has none.

use super::errors;
use super::operand::choice;
use crate::error::Result;
#[cfg(feature = "gpu")]
use crate::machine::gpu;
#[cfg(not(feature = "gpu"))]
use none as gpu;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// A machine without any device.
#[cfg(not(feature = "gpu"))]
mod none {
    use crate::error::{Error, Result};

    #[derive(Default)]
    pub struct Counters {
        pub submits: u64,
        pub dispatches: u64,
        pub reads: u64,
        pub pipelines: u64,
        pub bind_groups: u64,
        pub memory: u64,
    }

    pub fn devices() -> Vec<String> {
        Vec::new()
    }

    pub fn counters() -> Counters {
        Counters::default()
    }

    pub fn reset() -> Result<()> {
        Ok(())
    }

    pub fn trim() -> Result<()> {
        Ok(())
    }

    pub fn fail_allocation(_: u8) -> Result<()> {
        lose(0)
    }

    pub fn lose(_: u8) -> Result<()> {
        Err(Error::device("gpu: this build was made without GPUs"))
    }
}

/// The GPUs that can be used, by name, "gpu:0" first.
#[pyfunction]
pub fn gpu_devices(py: Python<'_>) -> PyResult<Vec<String>> {
    errors::read(|| Ok(py.detach(gpu::devices).iter().map(ToString::to_string).collect()))
}

/// Closes all GPUs and forgets what there are: tensors on them are lost.
#[pyfunction]
pub fn gpu_reset(py: Python<'_>) -> PyResult<()> {
    errors::read(|| py.detach(gpu::reset))
}

/// Gives the free memory of all open GPUs back to the system.
pub fn trim(py: Python<'_>) -> PyResult<()> {
    errors::read(|| py.detach(gpu::trim))
}

/// submits, dispatches, reads, pipelines, bind_groups (made so far), memory (bytes held), of all open GPUs.
#[pyfunction]
pub fn gpu_counters(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let gpu::Counters { submits, dispatches, reads, pipelines, bind_groups, memory } = gpu::counters();
    let counters = PyDict::new(py);
    counters.set_item("submits", submits)?;
    counters.set_item("dispatches", dispatches)?;
    counters.set_item("reads", reads)?;
    counters.set_item("pipelines", pipelines)?;
    counters.set_item("bind_groups", bind_groups)?;
    counters.set_item("memory", memory)?;
    Ok(counters)
}

type Misbehave = fn(u8) -> Result<()>;

/// For tests: the nth allocation of GPU memory by this thread from now on fails, or GPU n is lost.
#[pyfunction]
pub fn testing_gpu(behaviour: &str, n: u8) -> PyResult<()> {
    let choices: [(&str, Misbehave); 2] = [("fail_allocation", gpu::fail_allocation), ("lose", gpu::lose)];
    let misbehave = choice("behaviour", behaviour, &choices)?;
    errors::read(|| misbehave(n))
}
