//! What a compiled function gives back: tensors and float arguments, which each call makes anew, and plain values.

use super::FloatArgument;
use crate::error::Error;
use crate::python::errors::raise;
use crate::python::tensor::PyTensor;
use crate::tensor::trace;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

/// The form of a result.
pub enum Results {
    /// A tensor by position; the object itself if it is one from outside.
    Tensor(usize, Option<Py<PyAny>>),
    Float(u32),
    Same(Py<PyAny>),
    Tuple(Vec<Results>),
    List(Vec<Results>),
    Dict(Vec<(Py<PyAny>, Results)>),
}

impl Results {
    /// Takes a result apart; its tensors go to `tensors`, each once.
    pub fn of<'py>(object: &Bound<'py, PyAny>, tensors: &mut Vec<Bound<'py, PyTensor>>) -> PyResult<Results> {
        let mut one = |item: Bound<'py, PyAny>| Results::of(&item, tensors);
        if let Ok(tuple) = object.cast_exact::<PyTuple>() {
            return Ok(Results::Tuple(tuple.iter().map(&mut one).collect::<PyResult<_>>()?));
        }
        if let Ok(list) = object.cast_exact::<PyList>() {
            return Ok(Results::List(list.iter().map(&mut one).collect::<PyResult<_>>()?));
        }
        if let Ok(dict) = object.cast_exact::<PyDict>() {
            let entries = dict.iter().map(|(key, value)| Ok((key.unbind(), one(value)?)));
            return Ok(Results::Dict(entries.collect::<PyResult<_>>()?));
        }
        if let Ok(tensor) = object.cast::<PyTensor>() {
            let known = tensors.iter().position(|known| known.is(tensor));
            let at = known.unwrap_or(tensors.len());
            if known.is_none() {
                tensors.push(tensor.clone());
            }
            return Ok(Results::Tensor(at, Some(object.clone().unbind())));
        }
        if let Ok(argument) = object.cast::<FloatArgument>() {
            return Ok(Results::Float(argument.get().index));
        }
        let plain = object.is_none()
            || object.is_instance_of::<PyBool>()
            || object.is_instance_of::<PyInt>()
            || object.is_instance_of::<PyFloat>()
            || object.is_instance_of::<PyString>()
            || object.is_instance_of::<PyBytes>();
        if !plain {
            let kind = object.get_type().name()?;
            return Err(raise(trace::refusal(format!(
                "the function gives back a {kind}; a compiled one gives back tensors, plain values, and tuples, lists \
                 and dicts of them"
            ))));
        }
        Ok(Results::Same(object.clone().unbind()))
    }

    /// Forgets the objects of tensors that each call makes anew.
    pub fn forget(&mut self, is_outside: &impl Fn(usize) -> bool) {
        match self {
            Results::Tensor(at, object) if !is_outside(*at) => *object = None,
            Results::Tuple(items) | Results::List(items) => items.iter_mut().for_each(|item| item.forget(is_outside)),
            Results::Dict(items) => items.iter_mut().for_each(|(_, item)| item.forget(is_outside)),
            _ => {}
        }
    }

    /// Python objects that are kept, for the garbage collector.
    pub fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Results::Tensor(_, object) => object.as_ref().map_or(Ok(()), |object| visit.call(object)),
            Results::Same(object) => visit.call(object),
            Results::Float(_) => Ok(()),
            Results::Tuple(items) | Results::List(items) => items.iter().try_for_each(|item| item.visit(visit)),
            Results::Dict(items) => items.iter().try_for_each(|(key, item)| {
                visit.call(key)?;
                item.visit(visit)
            }),
        }
    }

    /// The result of a call, with `tensor` for each tensor that is no object from outside.
    pub fn build<'py>(
        &self,
        py: Python<'py>,
        floats: &[f64],
        tensor: &mut dyn FnMut(usize) -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let mut each = |items: &[Results]| -> PyResult<Vec<Bound<'py, PyAny>>> {
            items.iter().map(|item| item.build(py, floats, tensor)).collect()
        };
        Ok(match self {
            Results::Tensor(_, Some(object)) => object.bind(py).clone(),
            Results::Tensor(at, None) => tensor(*at)?,
            Results::Float(position) => match floats.get(*position as usize) {
                Some(&value) => PyFloat::new(py, value).into_any(),
                None => return Err(raise(Error::internal("a float argument is missing"))),
            },
            Results::Same(object) => object.bind(py).clone(),
            Results::Tuple(items) => PyTuple::new(py, each(items)?)?.into_any(),
            Results::List(items) => PyList::new(py, each(items)?)?.into_any(),
            Results::Dict(items) => {
                let made = PyDict::new(py);
                for (key, item) in items {
                    made.set_item(key, item.build(py, floats, tensor)?)?;
                }
                made.into_any()
            }
        })
    }
}
