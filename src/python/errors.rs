//! How failure reaches Python: the exception classes, the one mapping from categories to them, and the chokepoints
//! that every entry goes through. No panic gets past them.

use super::interrupt;
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::at_user_line;
use pyo3::exceptions::{PyIndexError, PyMemoryError, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// An exception class of this package: its category, name, meaning, and bases: builtins, beside which stands
/// `WengertError`, or a class further up in the list.
struct Class {
    kind: ErrorKind,
    name: &'static str,
    doc: &'static str,
    bases: &'static [&'static str],
}

const ROOT: (&str, &str) = ("WengertError", "The root of the errors that this package defines.");

const CLASSES: [Class; 10] = [
    Class { kind: ErrorKind::Shape, name: "ShapeError", doc: "Shapes that do not fit.", bases: &["ValueError"] },
    Class {
        kind: ErrorKind::DType,
        name: "DTypeError",
        doc: "An element type that the operation does not take.",
        bases: &["TypeError"],
    },
    Class {
        kind: ErrorKind::Axis,
        name: "AxisError",
        doc: "An axis that does not exist, or one named twice.",
        bases: &["IndexError", "ValueError"],
    },
    Class {
        kind: ErrorKind::Device,
        name: "DeviceError",
        doc: "Tensors on different devices, or a device that does not exist.",
        bases: &["RuntimeError"],
    },
    Class {
        kind: ErrorKind::DeviceLost,
        name: "DeviceLostError",
        doc: "A device that is gone, and the tensors on it with it.",
        bases: &["DeviceError"],
    },
    Class {
        kind: ErrorKind::Grad,
        name: "GradError",
        doc: "Differentiation that cannot be done as asked.",
        bases: &["RuntimeError"],
    },
    Class {
        kind: ErrorKind::Compile,
        name: "CompileError",
        doc: "A step that cannot be compiled.",
        bases: &["RuntimeError"],
    },
    Class {
        kind: ErrorKind::Unsupported,
        name: "UnsupportedError",
        doc: "Something that this version or device does not do.",
        bases: &["NotImplementedError"],
    },
    Class {
        kind: ErrorKind::Format,
        name: "FormatError",
        doc: "A file that is not what it should be.",
        bases: &["ValueError"],
    },
    Class {
        kind: ErrorKind::Internal,
        name: "InternalError",
        doc: "A mistake in the package itself.",
        bases: &["RuntimeError"],
    },
];

static MADE: PyOnceLock<Vec<Py<PyType>>> = PyOnceLock::new();

/// The classes in the order of `CLASSES`, made once.
fn classes(py: Python<'_>) -> PyResult<&[Py<PyType>]> {
    MADE.get_or_try_init(py, || {
        let exception = py.import("builtins")?.getattr("Exception")?;
        let root = class(py, ROOT.0, ROOT.1, vec![exception])?;
        let builtins = py.import("builtins")?;
        let mut made: Vec<Py<PyType>> = Vec::with_capacity(CLASSES.len() + 1);
        for Class { name, doc, bases, .. } in &CLASSES {
            let own = CLASSES.iter().zip(&made).find(|(class, _)| bases.contains(&class.name));
            let all = match own {
                Some((_, base)) => vec![base.bind(py).clone().into_any()],
                None => {
                    let builtins = bases.iter().map(|base| builtins.getattr(*base));
                    std::iter::once(Ok(root.clone().into_any())).chain(builtins).collect::<PyResult<_>>()?
                }
            };
            made.push(class(py, name, doc, all)?.unbind());
        }
        made.push(root.unbind());
        Ok(made)
    })
    .map(Vec::as_slice)
}

fn class<'py>(py: Python<'py>, name: &str, doc: &str, bases: Vec<Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyType>> {
    let body = PyDict::new(py);
    body.set_item("__module__", "wengert")?;
    body.set_item("__doc__", doc)?;
    let made = py.get_type::<PyType>().call1((name, PyTuple::new(py, bases)?, body))?;
    Ok(made.cast_into()?)
}

/// Adds the classes to the module.
pub fn export(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let made = classes(module.py())?;
    let names = CLASSES.iter().map(|class| class.name).chain([ROOT.0]);
    names.zip(made).try_for_each(|(name, class)| module.add(name, class.clone_ref(module.py())))
}

/// The exception for an error: the one mapping of categories to classes.
pub fn raise(error: Error) -> PyErr {
    Python::attach(|py| {
        let message = error.message().to_owned();
        match error.kind() {
            ErrorKind::Index => PyIndexError::new_err(message),
            ErrorKind::Value => PyValueError::new_err(message),
            ErrorKind::Io => match errno(&message) {
                // With its number Python finds the subclass: FileNotFoundError and the like.
                Some(number) => PyOSError::new_err((number, message)),
                None => PyOSError::new_err(message),
            },
            ErrorKind::Memory => PyMemoryError::new_err(message),
            ErrorKind::Interrupted => interrupt::take(),
            kind => {
                let position = CLASSES.iter().position(|class| class.kind == kind);
                match (position, classes(py)) {
                    (Some(position), Ok(made)) => PyErr::from_type(made[position].bind(py).clone(), message),
                    (_, Err(error)) => error,
                    (None, _) => PyValueError::new_err(message),
                }
            }
        }
    })
}

/// Whether an exception is of this package's class for a category.
pub fn is_a(py: Python<'_>, error: &PyErr, kind: ErrorKind) -> bool {
    let position = CLASSES.iter().position(|class| class.kind == kind);
    position.zip(classes(py).ok()).is_some_and(|(position, made)| error.is_instance(py, made[position].bind(py)))
}

/// The system's number in a message that ends in "(os error 2)", as the standard library writes it.
fn errno(message: &str) -> Option<i32> {
    message.rsplit_once("(os error ")?.1.strip_suffix(')')?.parse().ok()
}

thread_local! {
    /// What the last panic of this thread said, and where.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps panics off stderr, unless WENGERT_BACKTRACE is set: they come out as InternalError, with their place in the
/// message.
pub fn quiet_panics() {
    let loud = std::env::var_os("WENGERT_BACKTRACE").is_some();
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANIC.set(Some(info.to_string().replace('\n', " ")));
        if loud {
            print(info);
        }
    }));
}

fn guard<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|_| {
        let text = PANIC.take().unwrap_or_else(|| "a panic".to_owned());
        Err(Error::internal(format!("{text}; please report it")))
    })
}

/// Runs what records: its errors name the user's line.
pub fn record<T>(f: impl FnOnce() -> Result<T>) -> PyResult<T> {
    guard(f).map_err(|error| raise(at_user_line(error)))
}

/// Runs what reads or evaluates: its errors name the op that failed.
pub fn read<T>(f: impl FnOnce() -> Result<T>) -> PyResult<T> {
    guard(f).map_err(raise)
}

/// An exception for arguments that are wrong before anything is recorded.
pub fn refuse(error: Error) -> PyErr {
    raise(at_user_line(error))
}
