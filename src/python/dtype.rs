//! Element types and devices as Python objects.

use super::errors::refuse;
use crate::device_id::DeviceId;
use crate::dtype::DType;
use crate::error::{Error, ErrorKind};
use crate::machine::storage;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// An element type. There is one object for each.
#[pyclass(frozen, eq, hash, name = "DType", module = "wengert")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PyDType(pub DType);

static DTYPES: PyOnceLock<Vec<Py<PyDType>>> = PyOnceLock::new();

/// The object of this element type.
pub fn dtype_object(py: Python<'_>, dtype: DType) -> PyResult<Py<PyDType>> {
    let all = DTYPES.get_or_try_init(py, || DType::ALL.iter().map(|&dtype| Py::new(py, PyDType(dtype))).collect())?;
    match DType::ALL.iter().zip(all).find(|(other, _)| **other == dtype) {
        Some((_, object)) => Ok(object.clone_ref(py)),
        None => Err(refuse(Error::internal("a dtype is not listed"))),
    }
}

#[pymethods]
impl PyDType {
    #[getter]
    fn name(&self) -> &'static str {
        self.0.name()
    }

    /// Bytes of one element.
    #[getter]
    fn itemsize(&self) -> usize {
        self.0.size()
    }

    #[getter]
    fn is_floating_point(&self) -> bool {
        self.0.is_float()
    }

    fn __repr__(&self) -> String {
        format!("wengert.{}", self.0)
    }

    fn __str__(&self) -> &'static str {
        self.0.name()
    }

    /// Pickled by its name in the package.
    fn __reduce__(&self) -> &'static str {
        self.0.name()
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for PyDType {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<PyDType> {
        if let Ok(dtype) = object.cast::<PyDType>() {
            return Ok(*dtype.get());
        }
        let kind = object.get_type().name()?;
        let hint = "use one of wengert.float32, float64, int64, int32, uint8, bool";
        Err(refuse(Error::new(ErrorKind::DType, format!("dtype: a {kind} was given, {hint}"))))
    }
}

/// Where a tensor's values are.
#[pyclass(frozen, eq, hash, name = "Device", module = "wengert")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PyDevice(pub DeviceId);

#[pymethods]
impl PyDevice {
    /// Name a device: "cpu", "gpu" (the first one), "gpu:1".
    #[new]
    #[pyo3(signature = (name, /))]
    fn new(name: PyDevice) -> PyDevice {
        name
    }

    #[getter]
    fn r#type(&self) -> &'static str {
        match self.0 {
            DeviceId::Cpu => "cpu",
            DeviceId::Gpu(_) => "gpu",
        }
    }

    #[getter]
    fn index(&self) -> Option<u8> {
        match self.0 {
            DeviceId::Cpu => None,
            DeviceId::Gpu(number) => Some(number),
        }
    }

    fn __repr__(&self) -> String {
        format!("device('{}')", self.0)
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }
}

/// What `to` is asked for.
pub struct Target {
    pub device: Option<DeviceId>,
    pub dtype: Option<DType>,
}

impl Target {
    /// From a dtype, or a device and perhaps a dtype.
    pub fn of(target: &Bound<'_, PyAny>, dtype: Option<PyDType>) -> PyResult<Target> {
        match (target.cast::<PyDType>(), dtype) {
            (Ok(_), Some(_)) => Err(PyTypeError::new_err("to: one dtype is taken, after the device if there is one")),
            (Ok(only), None) => Ok(Target { device: None, dtype: Some(only.get().0) }),
            (Err(_), dtype) => {
                let device = place(Some(target.extract()?))?;
                Ok(Target { device: Some(device), dtype: dtype.map(|dtype| dtype.0) })
            }
        }
    }
}

/// The device that an argument names, ready for use; the CPU if there is none.
pub fn place(device: Option<PyDevice>) -> PyResult<DeviceId> {
    let device = device.map_or(DeviceId::Cpu, |device| device.0);
    storage::open(device).map_err(refuse)?;
    Ok(device)
}

impl<'a, 'py> FromPyObject<'a, 'py> for PyDevice {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<PyDevice> {
        if let Ok(device) = object.cast::<PyDevice>() {
            return Ok(*device.get());
        }
        let name: String = object.extract()?;
        DeviceId::from_name(&name).map(PyDevice).map_err(refuse)
    }
}
