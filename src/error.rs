//! The one error type: a category that Python maps to an exception class, and a message in plain words.
//! Form of a message: `op: problem: what came, what would be right`.

use std::fmt;
use std::sync::Arc;

/// Categories of failure. `python/errors.rs` maps each to one exception class; a test compares the two lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    Shape,
    DType,
    Axis,
    Index,
    Value,
    Device,
    DeviceLost,
    Grad,
    Compile,
    Unsupported,
    Format,
    Io,
    Memory,
    Interrupted,
    Internal,
}

/// Cheap to clone: a failed node and everything that depends on it keep the same error. One pointer wide, so that a
/// `Result` without a value is returned in a register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(Arc<Report>);

#[derive(Debug, PartialEq, Eq)]
struct Report {
    kind: ErrorKind,
    message: String,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error(Arc::new(Report { kind, message: message.into() }))
    }

    pub fn shape(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Shape, message)
    }

    pub fn dtype(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::DType, message)
    }

    pub fn axis(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Axis, message)
    }

    pub fn index(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Index, message)
    }

    pub fn value(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Value, message)
    }

    pub fn device(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Device, message)
    }

    pub fn grad(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Grad, message)
    }

    pub fn unsupported(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Unsupported, message)
    }

    /// A broken promise of this crate's own: never the user's fault.
    pub fn internal(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Internal, message)
    }

    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The same error, told in the name of `op`.
    pub fn within(self, op: &str) -> Error {
        Error::new(self.kind(), format!("{op}: {}", self.message()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Error {}
