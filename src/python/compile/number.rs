//! A float argument while its function is traced: it may stand beside tensors, where recording follows it, and nowhere
//! else, because what Python makes of it would be baked.

use super::current;
use crate::python::errors::raise;
use crate::python::tensor::PyTensor;
use crate::scalar::Scalar;
use crate::tensor;
use crate::tensor::trace::{self, Origin};
use pyo3::prelude::*;

/// A float argument while its function is traced: a number beside tensors, and nothing else.
#[pyclass(frozen, module = "wengert._core")]
pub struct FloatArgument {
    pub index: u32,
    pub value: f64,
    /// The session that it was made for; afterwards it is a plain number.
    pub session: u64,
}

impl FloatArgument {
    /// The number to record.
    pub fn number(&self) -> Scalar {
        match current() == Some(self.session) {
            true => trace::tag(self.value, Origin::Argument(self.index)),
            false => self.value.into(),
        }
    }

    fn plain(&self, what: &str) -> PyResult<f64> {
        if current() != Some(self.session) {
            return Ok(self.value);
        }
        let error = tensor::at_user_line(trace::refusal(format!(
            "{what} of a float argument: a compiled function uses it beside tensors only, so that it may change from \
             call to call; compute the number before the call, make it a tensor, or pass an int or a str if it is fixed"
        )));
        trace::refuse(error.clone());
        Err(raise(error))
    }

    /// With a tensor on the other side the tensor does the work; with a number it would be lost.
    fn beside(&self, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        if other.is_instance_of::<PyTensor>() {
            return Ok(other.py().NotImplemented());
        }
        self.plain("arithmetic")?;
        Ok(other.py().NotImplemented())
    }
}

#[pymethods]
impl FloatArgument {
    fn __float__(&self) -> PyResult<f64> {
        self.plain("float()")
    }

    fn __int__(&self) -> PyResult<i64> {
        self.plain("int()").map(|value| value as i64)
    }

    fn __bool__(&self) -> PyResult<bool> {
        self.plain("bool()").map(|value| value != 0.0)
    }

    fn __repr__(&self) -> PyResult<String> {
        self.plain("printing").map(|value| value.to_string())
    }

    fn __richcmp__(&self, other: &Bound<'_, PyAny>, op: pyo3::basic::CompareOp) -> PyResult<Py<PyAny>> {
        let _ = op;
        match other.is_instance_of::<PyTensor>() {
            true => Ok(other.py().NotImplemented()),
            false => {
                self.plain("comparison")?;
                Ok(other.py().NotImplemented())
            }
        }
    }

    fn __add__(&self, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.beside(other)
    }

    fn __radd__(&self, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.beside(other)
    }

    fn __sub__(&self, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.beside(other)
    }

    fn __rsub__(&self, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.beside(other)
    }

    fn __mul__(&self, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.beside(other)
    }

    fn __rmul__(&self, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.beside(other)
    }

    fn __truediv__(&self, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.beside(other)
    }

    fn __rtruediv__(&self, other: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.beside(other)
    }

    fn __neg__(&self) -> PyResult<f64> {
        self.plain("arithmetic").map(|value| -value)
    }

    fn __abs__(&self) -> PyResult<f64> {
        self.plain("arithmetic").map(f64::abs)
    }

    fn __pow__(&self, other: &Bound<'_, PyAny>, modulo: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        let _ = modulo;
        self.beside(other)
    }

    fn __rpow__(&self, other: &Bound<'_, PyAny>, modulo: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
        let _ = modulo;
        self.beside(other)
    }
}
