//! Tensors in safetensors files.

use super::dtype::{PyDevice, place};
use super::errors::read;
use super::tensor::PyTensor;
use crate::graph::TensorType;
use crate::io::safetensors::{self, Entry};
use crate::tensor::{self, Tensor};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::path::PathBuf;

/// Write tensors by name, and metadata, in place of what is there. Until the new file is complete the old one stays.
#[pyfunction]
#[pyo3(signature = (path, tensors, metadata = None))]
pub fn save_safetensors(
    py: Python<'_>,
    path: PathBuf,
    tensors: &Bound<'_, PyDict>,
    metadata: Option<&Bound<'_, PyDict>>,
) -> PyResult<()> {
    let mut named: Vec<(String, Tensor)> = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        named.push((name.extract()?, tensor.cast::<PyTensor>()?.get().0.clone()));
    }
    let mut notes: Vec<(String, String)> = Vec::new();
    for (key, value) in metadata.into_iter().flatten() {
        notes.push((key.extract()?, value.extract()?));
    }
    py.detach(|| {
        read(|| {
            tensor::evaluate(&named.iter().map(|(_, tensor)| tensor).collect::<Vec<_>>())?;
            let mut entries = Vec::with_capacity(named.len());
            for (name, tensor) in named {
                let TensorType { dtype, shape } = tensor.ty();
                entries.push(Entry { name, dtype, shape, bytes: tensor::to_bytes(&tensor)? });
            }
            safetensors::write(&path, &entries, &notes)
        })
    })
}

/// The tensors in the order of the file, and the metadata.
///
/// Args:
///     path: of the file.
///     device: where the tensors are put.
///
/// Raises:
///     FormatError: a file that is damaged or no safetensors file.
#[pyfunction]
#[pyo3(signature = (path, device = None))]
pub fn load_safetensors<'py>(
    py: Python<'py>,
    path: PathBuf,
    device: Option<PyDevice>,
) -> PyResult<(Bound<'py, PyDict>, Bound<'py, PyDict>)> {
    let device = place(device)?;
    let contents = py.detach(|| read(|| safetensors::read(&path)))?;
    let (tensors, metadata) = (PyDict::new(py), PyDict::new(py));
    for Entry { name, dtype, shape, bytes } in contents.tensors {
        let tensor = read(|| Tensor::from_bytes_on(device, &bytes, TensorType { dtype, shape }))?;
        tensors.set_item(name, PyTensor(tensor))?;
    }
    for (key, value) in contents.metadata {
        metadata.set_item(key, value)?;
    }
    Ok((tensors, metadata))
}
