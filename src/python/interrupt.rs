//! Where the engine meets the interpreter's lock and signals: evaluation runs without the lock, Ctrl-C stops it, an
//! error finds the user's line, and a fork finds every lock of ours free.

use crate::machine::cpu::par;
use crate::{location, tensor};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    /// The exception that a signal handler raised while a plan ran in this thread.
    static RAISED: RefCell<Option<PyErr>> = const { RefCell::new(None) };
}

/// Sets all hooks, once for the process.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        location::set_hook(user_line);
        par::set_poll(signalled);
        tensor::set_evaluation_scope(without_lock);
        #[cfg(unix)]
        fork::install();
    });
}

/// The exception of the signal that stopped a plan of this thread.
pub fn take() -> PyErr {
    RAISED.take().unwrap_or_else(|| PyKeyboardInterrupt::new_err(()))
}

/// Runs pending signal handlers; true if one of them raised. Only the main thread ever has any.
fn signalled() -> bool {
    let raised = Python::try_attach(|py| py.check_signals().err()).flatten();
    let stop = raised.is_some();
    if stop {
        RAISED.set(raised);
    }
    stop
}

/// Runs an evaluation without the interpreter's lock.
fn without_lock(work: &mut (dyn FnMut() + Send)) {
    let mut work = Some(work);
    Python::try_attach(|py| {
        if let Some(work) = work.take() {
            py.detach(work);
        }
    });
    // The interpreter is not there: nothing to let go of.
    if let Some(work) = work {
        work();
    }
}

/// `file:line` of the innermost Python frame outside this package.
fn user_line() -> Option<String> {
    Python::try_attach(|py| find_line(py).ok().flatten()).flatten()
}

fn find_line(py: Python<'_>) -> PyResult<Option<String>> {
    // SAFETY: the thread is attached; the call gives a borrowed frame, or null when no Python code runs.
    let frame = unsafe { Bound::from_borrowed_ptr_or_opt(py, ffi::PyEval_GetFrame().cast()) };
    let mut frame = match frame {
        Some(frame) => frame,
        None => return Ok(None),
    };
    loop {
        let globals = frame.getattr("f_globals")?.cast_into::<PyDict>()?;
        let module = globals.get_item("__name__")?.and_then(|name| name.extract::<String>().ok()).unwrap_or_default();
        if module != "wengert" && !module.starts_with("wengert.") {
            break;
        }
        frame = frame.getattr("f_back")?;
        if frame.is_none() {
            return Ok(None);
        }
    }
    let path: String = frame.getattr("f_code")?.getattr("co_filename")?.extract()?;
    let line: u32 = frame.getattr("f_lineno")?.extract()?;
    let name = path.rsplit(['/', '\\']).next().unwrap_or(&path);
    Ok(Some(format!("{name}:{line}")))
}

#[cfg(unix)]
mod fork {
    use crate::tensor;

    /// Holds the engine's locks across a fork. No thread that has one waits for the interpreter, so this cannot hang.
    pub fn install() {
        // SAFETY: the three functions live as long as the process, take no arguments and do not unwind.
        unsafe { libc::pthread_atfork(Some(before), Some(parent), Some(child)) };
    }

    unsafe extern "C" fn before() {
        tensor::before_fork();
    }

    unsafe extern "C" fn parent() {
        // SAFETY: `before` ran in this thread just now.
        unsafe { tensor::after_fork() };
    }

    unsafe extern "C" fn child() {
        // SAFETY: as in the parent; the child has this one thread.
        unsafe { tensor::after_fork() };
        tensor::enter_child();
    }
}
