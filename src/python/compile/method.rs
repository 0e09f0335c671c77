//! A compiled function as a method.

use super::{Compiled, steps};
use pyo3::basic::CompareOp;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{PyTraverseError, PyVisit};
use smallvec::SmallVec;

/// A compiled function as a method of an object, which is its first argument.
#[pyclass(frozen, module = "wengert._core")]
pub struct CompiledMethod {
    #[pyo3(get, name = "__func__")]
    fun: Py<Compiled>,
    #[pyo3(get, name = "__self__")]
    instance: Py<PyAny>,
}

#[pymethods]
impl CompiledMethod {
    #[pyo3(signature = (*args, **kwargs))]
    fn __call__<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.fun.get().step(&self.arguments(args)?, kwargs)
    }

    /// Run many steps, as `Compiled.run` does.
    #[pyo3(signature = (*args))]
    fn run<'py>(&self, args: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        steps::run(self.fun.get(), &self.arguments(args)?)
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let getattr = py.import("builtins")?.getattr("getattr")?;
        let name = self.fun.bind(py).getattr("__name__")?;
        Ok((getattr, (self.instance.bind(py), name)).into_pyobject(py)?.into_any())
    }

    /// Everything else is the function's.
    fn __getattr__<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        self.fun.bind(py).getattr(name)
    }

    fn __richcmp__(&self, other: &Bound<'_, PyAny>, op: CompareOp) -> PyResult<bool> {
        let same = other.cast::<CompiledMethod>().is_ok_and(|other| {
            let other = other.get();
            self.fun.is(&other.fun) && self.instance.is(&other.instance)
        });
        match op {
            CompareOp::Eq => Ok(same),
            CompareOp::Ne => Ok(!same),
            _ => Err(PyTypeError::new_err("methods have no order")),
        }
    }

    fn __hash__(&self) -> usize {
        self.fun.as_ptr() as usize ^ self.instance.as_ptr() as usize
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.fun)?;
        visit.call(&self.instance)
    }
}

impl CompiledMethod {
    pub fn new(fun: &Bound<'_, Compiled>, instance: &Bound<'_, PyAny>) -> CompiledMethod {
        CompiledMethod { fun: fun.clone().unbind(), instance: instance.clone().unbind() }
    }

    fn arguments<'py>(&self, args: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyTuple>> {
        let py = args.py();
        PyTuple::new(
            py,
            std::iter::once(self.instance.bind(py).clone()).chain(args.iter()).collect::<SmallVec<[_; 8]>>(),
        )
    }
}
