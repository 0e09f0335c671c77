//! Arguments as users write them: a tensor or a number, axes, shapes. Extraction is by hand, because it is most of the
//! cost of an operation.

use super::compile::FloatArgument;
use super::errors::refuse;
use super::tensor::PyTensor;
use crate::error::Error;
use crate::scalar::Scalar;
use crate::shape::Shape;
use crate::tensor::Arg;
use crate::tensor::trace;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt};
use smallvec::SmallVec;

/// A tensor, or a number beside one.
pub enum Operand<'a, 'py> {
    Tensor(Borrowed<'a, 'py, PyTensor>),
    Number(Scalar),
}

impl Operand<'_, '_> {
    pub fn arg(&self) -> Arg<'_> {
        match self {
            Operand::Tensor(tensor) => Arg::Tensor(&tensor.get().0),
            Operand::Number(number) => Arg::Number(*number),
        }
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for Operand<'a, 'py> {
    type Error = PyErr;

    #[inline]
    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        match object.cast::<PyTensor>() {
            Ok(tensor) => Ok(Operand::Tensor(tensor)),
            Err(_) if trace::is_open() => match object.cast::<FloatArgument>() {
                Ok(argument) => Ok(Operand::Number(argument.get().number())),
                Err(_) => number(object).map(Operand::Number),
            },
            Err(_) => number(object).map(Operand::Number),
        }
    }
}

/// A Python or NumPy number, exact.
pub fn number(object: Borrowed<'_, '_, PyAny>) -> PyResult<Scalar> {
    if let Ok(x) = object.cast::<PyFloat>() {
        return Ok(Scalar::F64(x.value()));
    }
    if let Ok(x) = object.cast::<PyBool>() {
        return Ok(Scalar::Bool(x.is_true()));
    }
    if object.is_instance_of::<PyInt>() {
        return integer(object);
    }
    foreign_number(object)
}

fn integer(object: Borrowed<'_, '_, PyAny>) -> PyResult<Scalar> {
    let x: Result<i64, PyErr> = object.extract();
    x.map(Scalar::I64).map_err(|_| refuse(Error::value("an integer does not fit into 64 bits")))
}

/// NumPy's scalars and whatever else can say what number it is. Arrays cannot: they go through `wengert.tensor`.
fn foreign_number(object: Borrowed<'_, '_, PyAny>) -> PyResult<Scalar> {
    let kind = object.get_type();
    let kind_name = kind.name()?.to_string();
    let refused = || PyTypeError::new_err(format!("a tensor or a number is needed, not {kind_name}"));
    if kind.hasattr("__len__")? {
        return Err(refused());
    }
    if kind_name == "bool" || kind_name == "bool_" {
        return Ok(Scalar::Bool(object.is_truthy()?));
    }
    if kind.hasattr("__index__")? {
        return integer(object);
    }
    if kind.hasattr("__float__")? {
        return Ok(Scalar::F64(object.extract()?));
    }
    Err(refused())
}

/// Any number of integers: one, or a sequence of them.
pub struct Ints(pub SmallVec<[i64; 4]>);

impl<'a, 'py> FromPyObject<'a, 'py> for Ints {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Ints> {
        if let Ok(one) = object.extract::<i64>() {
            return Ok(Ints(SmallVec::from_slice(&[one])));
        }
        let items = object.try_iter().map_err(|_| {
            let kind = object.get_type().name().map_or_else(|_| String::new(), |name| name.to_string());
            PyTypeError::new_err(format!("an integer or a sequence of integers is needed, not {kind}"))
        })?;
        // Not collected: that asks for the length by an import which a fork may catch half done.
        let mut ints = Ints(SmallVec::new());
        for item in items {
            ints.0.push(item?.extract::<i64>()?);
        }
        Ok(ints)
    }
}

/// A shape: a sequence of dimensions, or one.
pub struct Dims(pub Shape);

impl<'a, 'py> FromPyObject<'a, 'py> for Dims {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Dims> {
        let Ints(dims) = object.extract()?;
        let shape: Option<Shape> = dims.iter().map(|&dim| usize::try_from(dim).ok()).collect();
        match shape {
            Some(shape) => shape.checked("shape").map(Dims).map_err(refuse),
            None => Err(refuse(Error::shape("a dimension of a shape is negative"))),
        }
    }
}

/// Keywords that a function does not have.
pub type Other<'a, 'py> = &'a Bound<'py, PyDict>;

/// Says what another library's keyword is called here.
pub fn refuse_other(other: Option<Other<'_, '_>>) -> PyResult<()> {
    let Some(name) = other.and_then(|other| other.keys().iter().next()) else { return Ok(()) };
    let name: String = name.extract()?;
    let hint = match name.as_str() {
        "dim" | "dims" => "; use axis=",
        "keepdim" => "; use keepdims=",
        "unbiased" | "ddof" => "; use correction=",
        _ => "",
    };
    Err(PyTypeError::new_err(format!("there is no keyword argument {name:?} here{hint}")))
}

/// One of a few words.
pub fn choice<T: Copy>(name: &str, given: &str, choices: &[(&str, T)]) -> PyResult<T> {
    choices.iter().find(|(word, _)| *word == given).map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
        PyValueError::new_err(format!("{name}={given:?}: use one of {}", words.join(", ")))
    })
}
