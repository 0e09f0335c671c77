//! Tensors as Python objects: copying and pickling, for subclasses too.

use super::dtype::{PyDType, PyDevice, place};
use super::errors::{read, record, refuse};
use super::tensor::PyTensor;
use crate::error::Error;
use crate::graph::TensorType;
use crate::shape::Shape;
use crate::tensor::{self, Tensor};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple, PyType};

/// An object of this class on the value of `tensor`, made without its own constructor.
fn instance<'py>(class: &Bound<'py, PyType>, tensor: Tensor, variable: bool) -> PyResult<Bound<'py, PyTensor>> {
    let py = class.py();
    let base = py.get_type::<PyTensor>();
    let made = base.getattr("__new__")?.call1((class, Bound::new(py, PyTensor(tensor))?))?.cast_into::<PyTensor>()?;
    if variable {
        record(|| made.get().0.set_requires_grad(true))?;
    }
    Ok(made)
}

/// The attributes that a subclass's object has of its own.
fn attributes<'py>(object: &Bound<'py, PyTensor>) -> PyResult<Option<Bound<'py, PyDict>>> {
    match object.getattr_opt("__dict__")? {
        Some(attributes) => Ok(Some(attributes.cast_into::<PyDict>()?)),
        None => Ok(None),
    }
}

fn refuse_history(tensor: &Tensor, what: &str) -> PyResult<()> {
    match tensor.is_leaf() {
        true => Ok(()),
        false => Err(refuse(Error::grad(format!("{what}: this tensor has history; use x.detach() first")))),
    }
}

/// A copy with its own identity: same class, value, attributes, and for a variable its gradient.
pub fn deepcopy<'py>(object: &Bound<'py, PyTensor>, memo: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = object.py();
    let own = &object.get().0;
    refuse_history(own, "deepcopy")?;
    let copy = instance(&object.get_type(), own.clone(), own.is_variable())?;
    if let Some(grad) = own.grad() {
        let grad = record(|| tensor::detach(&grad))?;
        record(|| copy.get().0.set_grad(Some(grad)))?;
    }
    memo.set_item(object.as_ptr() as usize, &copy)?;
    if let (Some(from), Some(to)) = (attributes(object)?, attributes(&copy)?) {
        let copied = py.import("copy")?.call_method1("deepcopy", (from, memo))?;
        to.update(copied.cast::<PyDict>()?.as_mapping())?;
    }
    Ok(copy.into_any())
}

/// For pickle: how to make this object again.
pub fn reduce<'py>(object: &Bound<'py, PyTensor>) -> PyResult<Bound<'py, PyTuple>> {
    let py = object.py();
    let own = &object.get().0;
    refuse_history(own, "pickle")?;
    let bytes = read(|| tensor::to_bytes(own))?;
    let ty = own.ty();
    let dtype = super::dtype::dtype_object(py, ty.dtype)?;
    let shape = PyTuple::new(py, ty.shape.iter())?;
    let (variable, device) = (own.is_variable(), own.device().to_string());
    let arguments = (object.get_type(), PyBytes::new(py, &bytes), shape, dtype, variable, attributes(object)?, device);
    let rebuild = py.import("wengert._core")?.getattr("_rebuild")?;
    (rebuild, arguments).into_pyobject(py)
}

/// Makes a pickled tensor again.
#[pyfunction]
#[pyo3(signature = (class, data, shape, dtype, requires_grad, attributes, device = None, /))]
pub fn _rebuild<'py>(
    class: &Bound<'py, PyType>,
    data: &[u8],
    shape: Vec<usize>,
    dtype: PyDType,
    requires_grad: bool,
    attributes: Option<Bound<'py, PyDict>>,
    device: Option<PyDevice>,
) -> PyResult<Bound<'py, PyTensor>> {
    let ty = TensorType { dtype: dtype.0, shape: Shape::new(&shape) };
    let device = place(device)?;
    let made = instance(class, read(|| Tensor::from_bytes_on(device, data, ty))?, requires_grad)?;
    if let (Some(from), Some(to)) = (attributes, self::attributes(&made)?) {
        to.update(from.as_mapping())?;
    }
    Ok(made)
}
