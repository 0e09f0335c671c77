//! The few lines of this module that are written in Python: what wraps a user's function, so that the wrapper has its
//! name, docstring and binding rules.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::ffi::CStr;

const SOURCE: &CStr = c"
from functools import update_wrapper as named
from functools import wraps as _wraps
from sys import modules as _modules


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


def global_name(made):
    name = getattr(made, '__qualname__', '')
    found = _modules.get(made.__module__)
    for part in name.split('.'):
        found = getattr(found, part, None)
    return name if found is made else None


class WatchedMode:
    def __init__(self, note, note_set):
        self.note = note
        self.note_set = note_set

    def __get__(self, module, owner=None):
        mode = module.__dict__['training']
        self.note(module, mode)
        return mode

    def __set__(self, module, mode):
        self.note_set(module, module.__dict__.get('training'), mode)
        module.__dict__['training'] = mode


watchers = 0


def watch_modes(note, note_set, on):
    global watchers
    watchers += 1 if on else -1
    nn = _modules.get('wengert.nn.module')
    if nn is None:
        return
    watched = 'training' in vars(nn.Module)
    if on and not watched:
        nn.Module.training = WatchedMode(note, note_set)
    elif watched and watchers == 0:
        del nn.Module.training
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

/// `made` with the name and docstring of `fun`.
pub fn named<'py>(made: Bound<'py, PyAny>, fun: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    module(made.py())?.getattr("named")?.call1((made, fun))
}

/// The name by which `made` is found in its module, or None.
pub fn global_name<'py>(made: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    module(made.py())?.getattr("global_name")?.call1((made,))
}

/// While it is on, reads and changes of the mode of a module are noted. On and off come in pairs.
pub fn watch_modes(py: Python<'_>, on: bool) -> PyResult<()> {
    let note = pyo3::wrap_pyfunction!(super::compile::note_mode, py)?;
    let note_set = pyo3::wrap_pyfunction!(super::compile::note_set_mode, py)?;
    module(py)?.getattr("watch_modes")?.call1((note, note_set, on)).map(|_| ())
}
