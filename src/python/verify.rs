//! `wg.debug.verify`: a step whose ops are checked on several devices.

use super::dtype::PyDevice;
use super::errors::refuse;
use crate::error::Error;
use crate::tensor;
use pyo3::prelude::*;
use pyo3::types::PyDict;

type Verified<'py> = (Bound<'py, PyAny>, Vec<Bound<'py, PyDict>>, Option<String>);

/// Calls `step`, computes what it leaves pending, and checks each op of the plans that run on each device. Returns what it gave, one entry (op,
/// device, times, worst) for each op and device, and the first divergence in words, or None.
#[pyfunction]
pub fn verify<'py>(step: &Bound<'py, PyAny>, devices: Vec<PyDevice>) -> PyResult<Verified<'py>> {
    if devices.is_empty() {
        return Err(refuse(Error::value("verify: at least one device is needed")));
    }
    let devices: Vec<_> = devices.iter().map(|device| device.0).collect();
    let (result, report) = tensor::verifying(&devices, || -> PyResult<_> {
        let result = step.call0()?;
        // A step that neither reads nor updates leaves its work pending.
        tensor::evaluate_all(&[]).map_err(refuse)?;
        Ok(result)
    });
    let result = result?;
    if report.ops.is_empty() {
        return Err(refuse(Error::value(
            "verify: the step computed nothing by a plan of its own; of a compiled step, verify the function itself",
        )));
    }
    let entry = |((op, device), checked): (&(&'static str, _), &crate::exec::verify::Checked)| {
        let entry = PyDict::new(step.py());
        entry.set_item("op", op)?;
        entry.set_item("device", PyDevice(*device))?;
        entry.set_item("times", checked.times)?;
        entry.set_item("worst", checked.worst)?;
        Ok(entry)
    };
    let entries = report.ops.iter().map(entry).collect::<PyResult<_>>()?;
    Ok((result, entries, report.first.map(|divergence| divergence.to_string())))
}
