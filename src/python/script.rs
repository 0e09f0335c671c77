//! The few lines of this module that are written in Python: what wraps a user's function, so that the wrapper has its
//! name, docstring and binding rules.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::ffi::CStr;

const SOURCE: &CStr = c"
from functools import wraps as _wraps


def decorate(scope, fun):
    @_wraps(fun)
    def decorated(*args, **kwargs):
        with scope:
            return fun(*args, **kwargs)

    return decorated


def wrap(call, fun):
    @_wraps(fun)
    def transformed(*args, **kwargs):
        return call(args, kwargs)

    return transformed
";

static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();

fn module(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    let module = MODULE.get_or_try_init(py, || {
        // The module name tells the search for the user's line that these frames are ours.
        PyModule::from_code(py, SOURCE, c"wengert/_core", c"wengert._wrap").map(Bound::unbind)
    })?;
    Ok(module.bind(py))
}

/// `fun`, called inside `scope`.
pub fn decorate<'py>(scope: &Bound<'py, PyAny>, fun: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    module(scope.py())?.getattr("decorate")?.call1((scope, fun))
}

/// A function with the name of `fun` that calls `call(args, kwargs)`.
pub fn wrap<'py>(call: Bound<'py, PyAny>, fun: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    module(call.py())?.getattr("wrap")?.call1((call, fun))
}
