//! A float argument while its function is traced: it may stand beside tensors, where recording follows it, and nowhere
//! else, because what Python makes of it would be baked. Afterwards it is a plain number.

use super::current;
use crate::python::errors::raise;
use crate::python::tensor::PyTensor;
use crate::scalar::Scalar;
use crate::tensor;
use crate::tensor::trace::{self, Origin};
use pyo3::exceptions::PyAttributeError;
use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyType};

/// A float argument while its function is traced: a number beside tensors, and nothing else. It says that it is a
/// float, but is no subclass: C code would read the number past every check here.
#[pyclass(frozen, module = "wengert._core")]
pub struct FloatArgument {
    pub index: u32,
    pub value: f64,
    /// The session that it was made for; afterwards it is a plain number.
    pub session: u64,
}

type Object<'py> = PyResult<Bound<'py, PyAny>>;

impl FloatArgument {
    /// The number to record.
    pub fn number(&self) -> Scalar {
        match current() == Some(self.session) {
            true => trace::tag(self.value, Origin::Argument(self.index)),
            false => self.value.into(),
        }
    }

    /// The number, if the trace is over.
    fn plain<'py>(&self, py: Python<'py>, what: &str) -> PyResult<Bound<'py, PyFloat>> {
        if current() != Some(self.session) {
            return Ok(PyFloat::new(py, self.value));
        }
        let error = tensor::at_user_line(trace::refusal(format!(
            "{what} of a float argument (a FloatArgument while tracing): a compiled function uses it beside tensors only, \
             so that it may change from call to call; compute the number before the call, make it a tensor, or pass an \
             int or a str if it is fixed"
        )));
        trace::refuse(error.clone());
        Err(raise(error))
    }

    /// What a method of float gives.
    fn method<'py>(&self, py: Python<'py>, what: &str, name: &str) -> Object<'py> {
        self.plain(py, what)?.call_method0(name)
    }

    /// With a tensor on the other side the tensor does the work; with a number it would be lost.
    fn beside<'py>(&self, other: &Bound<'py, PyAny>, what: &str, name: &str) -> Object<'py> {
        let py = other.py();
        if other.is_instance_of::<PyTensor>() {
            return Ok(py.NotImplemented().into_bound(py));
        }
        let plain = self.plain(py, what)?;
        match other.cast::<FloatArgument>() {
            Ok(argument) => plain.call_method1(name, (argument.get().plain(py, what)?,)),
            Err(_) => plain.call_method1(name, (other,)),
        }
    }

    fn arithmetic<'py>(&self, other: &Bound<'py, PyAny>, name: &str) -> Object<'py> {
        self.beside(other, "arithmetic", name)
    }
}

#[pymethods]
impl FloatArgument {
    /// `isinstance(x, float)` holds, as it does for the number.
    #[getter(__class__)]
    fn class<'py>(&self, py: Python<'py>) -> Bound<'py, PyType> {
        py.get_type::<PyFloat>()
    }

    /// Everything else that a float has.
    fn __getattr__<'py>(&self, py: Python<'py>, name: &str) -> Object<'py> {
        match py.get_type::<PyFloat>().hasattr(name)? {
            true => self.plain(py, name)?.getattr(name),
            false => Err(PyAttributeError::new_err(format!("'float' object has no attribute '{name}'"))),
        }
    }

    fn __float__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyFloat>> {
        self.plain(py, "float()")
    }

    fn __int__<'py>(&self, py: Python<'py>) -> Object<'py> {
        self.method(py, "int()", "__int__")
    }

    fn __bool__(&self, py: Python<'_>) -> PyResult<bool> {
        self.plain(py, "bool()")?.is_truthy()
    }

    fn __repr__<'py>(&self, py: Python<'py>) -> Object<'py> {
        self.method(py, "printing", "__repr__")
    }

    fn __format__<'py>(&self, py: Python<'py>, spec: &str) -> Object<'py> {
        self.plain(py, "printing")?.call_method1("__format__", (spec,))
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        self.plain(py, "hash()")?.hash()
    }

    #[pyo3(signature = (digits = None))]
    fn __round__<'py>(&self, py: Python<'py>, digits: Option<&Bound<'py, PyAny>>) -> Object<'py> {
        self.plain(py, "rounding")?.call_method1("__round__", (digits,))
    }

    fn __trunc__<'py>(&self, py: Python<'py>) -> Object<'py> {
        self.method(py, "rounding", "__trunc__")
    }

    fn __floor__<'py>(&self, py: Python<'py>) -> Object<'py> {
        self.method(py, "rounding", "__floor__")
    }

    fn __ceil__<'py>(&self, py: Python<'py>) -> Object<'py> {
        self.method(py, "rounding", "__ceil__")
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyType>, (Bound<'py, PyFloat>,))> {
        Ok((py.get_type::<PyFloat>(), (self.plain(py, "copying")?,)))
    }

    fn __richcmp__<'py>(&self, other: &Bound<'py, PyAny>, op: pyo3::basic::CompareOp) -> Object<'py> {
        use pyo3::basic::CompareOp::{Eq, Ge, Gt, Le, Lt, Ne};
        let name = match op {
            Lt => "__lt__",
            Le => "__le__",
            Eq => "__eq__",
            Ne => "__ne__",
            Gt => "__gt__",
            Ge => "__ge__",
        };
        self.beside(other, "comparison", name)
    }

    fn __add__<'py>(&self, other: &Bound<'py, PyAny>) -> Object<'py> {
        self.arithmetic(other, "__add__")
    }

    fn __radd__<'py>(&self, other: &Bound<'py, PyAny>) -> Object<'py> {
        self.arithmetic(other, "__radd__")
    }

    fn __sub__<'py>(&self, other: &Bound<'py, PyAny>) -> Object<'py> {
        self.arithmetic(other, "__sub__")
    }

    fn __rsub__<'py>(&self, other: &Bound<'py, PyAny>) -> Object<'py> {
        self.arithmetic(other, "__rsub__")
    }

    fn __mul__<'py>(&self, other: &Bound<'py, PyAny>) -> Object<'py> {
        self.arithmetic(other, "__mul__")
    }

    fn __rmul__<'py>(&self, other: &Bound<'py, PyAny>) -> Object<'py> {
        self.arithmetic(other, "__rmul__")
    }

    fn __truediv__<'py>(&self, other: &Bound<'py, PyAny>) -> Object<'py> {
        self.arithmetic(other, "__truediv__")
    }

    fn __rtruediv__<'py>(&self, other: &Bound<'py, PyAny>) -> Object<'py> {
        self.arithmetic(other, "__rtruediv__")
    }

    fn __floordiv__<'py>(&self, other: &Bound<'py, PyAny>) -> Object<'py> {
        self.arithmetic(other, "__floordiv__")
    }

    fn __rfloordiv__<'py>(&self, other: &Bound<'py, PyAny>) -> Object<'py> {
        self.arithmetic(other, "__rfloordiv__")
    }

    fn __mod__<'py>(&self, other: &Bound<'py, PyAny>) -> Object<'py> {
        self.arithmetic(other, "__mod__")
    }

    fn __rmod__<'py>(&self, other: &Bound<'py, PyAny>) -> Object<'py> {
        self.arithmetic(other, "__rmod__")
    }

    fn __divmod__<'py>(&self, other: &Bound<'py, PyAny>) -> Object<'py> {
        self.arithmetic(other, "__divmod__")
    }

    fn __rdivmod__<'py>(&self, other: &Bound<'py, PyAny>) -> Object<'py> {
        self.arithmetic(other, "__rdivmod__")
    }

    fn __pow__<'py>(&self, other: &Bound<'py, PyAny>, _modulo: Option<&Bound<'py, PyAny>>) -> Object<'py> {
        self.arithmetic(other, "__pow__")
    }

    fn __rpow__<'py>(&self, other: &Bound<'py, PyAny>, _modulo: Option<&Bound<'py, PyAny>>) -> Object<'py> {
        self.arithmetic(other, "__rpow__")
    }

    fn __neg__<'py>(&self, py: Python<'py>) -> Object<'py> {
        self.method(py, "arithmetic", "__neg__")
    }

    fn __pos__<'py>(&self, py: Python<'py>) -> Object<'py> {
        self.method(py, "arithmetic", "__pos__")
    }

    fn __abs__<'py>(&self, py: Python<'py>) -> Object<'py> {
        self.method(py, "arithmetic", "__abs__")
    }
}
