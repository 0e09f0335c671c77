//! The arguments of a compiled function, and what it gives back: tensors and floats may change from call to call, the
//! rest is a guard, by value or by identity. Tuples, lists and dicts are taken apart.

use super::FloatArgument;
use crate::error::Error;
use crate::python::errors::{raise, refuse};
use crate::python::tensor::PyTensor;
use crate::tensor::Tensor;
use crate::tensor::trace;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use smallvec::SmallVec;

/// The arguments of one signature.
pub struct Pattern {
    positional: Vec<Item>,
    keywords: Vec<(Py<PyAny>, Item)>,
}

enum Item {
    Tensor,
    Float,
    /// A hashable value, or an object that equals only itself.
    Same(Py<PyAny>),
    Tuple(Vec<Item>),
    List(Vec<Item>),
    Dict(Vec<(Py<PyAny>, Item)>),
}

/// What of the arguments of a call may change from one to the next.
#[derive(Default)]
pub struct Given<'py> {
    pub tensors: SmallVec<[Bound<'py, PyTensor>; 8]>,
    pub floats: SmallVec<[f64; 4]>,
}

impl<'py> Given<'py> {
    pub fn handles(&self) -> Vec<&Tensor> {
        self.tensors.iter().map(|tensor| &tensor.get().0).collect()
    }
}

impl Pattern {
    /// The pattern of these arguments.
    pub fn of<'py>(args: &Bound<'py, PyTuple>, kwargs: Option<&Bound<'py, PyDict>>) -> PyResult<(Pattern, Given<'py>)> {
        let mut given = Given::default();
        let positional = args.iter().map(|item| Item::of(&item, &mut given)).collect::<PyResult<_>>()?;
        let keywords = kwargs.map_or(Ok(Vec::new()), |kwargs| entries(kwargs, &mut given))?;
        Ok((Pattern { positional, keywords }, given))
    }

    /// Whether these arguments have the pattern; what may change goes to `given`.
    pub fn matches<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
        given: &mut Given<'py>,
    ) -> PyResult<bool> {
        given.tensors.clear();
        given.floats.clear();
        if args.len() != self.positional.len() || kwargs.map_or(0, |kwargs| kwargs.len()) != self.keywords.len() {
            return Ok(false);
        }
        for (item, arg) in self.positional.iter().zip(args.iter()) {
            if !item.matches(&arg, given)? {
                return Ok(false);
            }
        }
        match kwargs {
            Some(kwargs) => all_match(&self.keywords, kwargs, given),
            None => Ok(true),
        }
    }

    /// The arguments to trace with: floats in the form that recording follows.
    pub fn traced<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
        session: u64,
    ) -> PyResult<(Bound<'py, PyTuple>, Option<Bound<'py, PyDict>>)> {
        let mut next = 0;
        let mut items = Vec::with_capacity(args.len());
        for (item, arg) in self.positional.iter().zip(args.iter()) {
            items.push(item.traced(&arg, &mut next, session)?);
        }
        let kwargs = match kwargs {
            Some(kwargs) => Some(traced_entries(&self.keywords, kwargs, &mut next, session)?),
            None => None,
        };
        Ok((PyTuple::new(args.py(), items)?, kwargs))
    }
}

fn entries<'py>(dict: &Bound<'py, PyDict>, given: &mut Given<'py>) -> PyResult<Vec<(Py<PyAny>, Item)>> {
    dict.iter().map(|(key, value)| Ok((key.unbind(), Item::of(&value, given)?))).collect()
}

fn all_match<'py>(entries: &[(Py<PyAny>, Item)], dict: &Bound<'py, PyDict>, given: &mut Given<'py>) -> PyResult<bool> {
    if dict.len() != entries.len() {
        return Ok(false);
    }
    for (key, item) in entries {
        match dict.get_item(key)? {
            Some(value) if item.matches(&value, given)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

fn traced_entries<'py>(
    entries: &[(Py<PyAny>, Item)],
    dict: &Bound<'py, PyDict>,
    next: &mut u32,
    session: u64,
) -> PyResult<Bound<'py, PyDict>> {
    let made = PyDict::new(dict.py());
    for ((_, item), (key, value)) in entries.iter().zip(dict.iter()) {
        made.set_item(key, item.traced(&value, next, session)?)?;
    }
    Ok(made)
}

impl Item {
    fn of<'py>(object: &Bound<'py, PyAny>, given: &mut Given<'py>) -> PyResult<Item> {
        if let Ok(tensor) = object.cast::<PyTensor>() {
            if tensor.get().0.is_variable() {
                return Ok(Item::Same(object.clone().unbind()));
            }
            given.tensors.push(tensor.clone());
            return Ok(Item::Tensor);
        }
        if let Ok(number) = object.cast::<PyFloat>() {
            given.floats.push(number.value());
            return Ok(Item::Float);
        }
        if let Ok(tuple) = object.cast_exact::<PyTuple>() {
            return Ok(Item::Tuple(tuple.iter().map(|item| Item::of(&item, given)).collect::<PyResult<_>>()?));
        }
        if let Ok(list) = object.cast_exact::<PyList>() {
            return Ok(Item::List(list.iter().map(|item| Item::of(&item, given)).collect::<PyResult<_>>()?));
        }
        if let Ok(dict) = object.cast_exact::<PyDict>() {
            return Ok(Item::Dict(entries(dict, given)?));
        }
        if object.hash().is_err() {
            let kind = object.get_type().name()?;
            return Err(refuse(trace::refusal(format!(
                "an argument of a compiled function is a {kind}; it takes tensors, numbers, hashable values, and tuples, \
                 lists and dicts of them; make a tensor of data with wg.tensor"
            ))));
        }
        Ok(Item::Same(object.clone().unbind()))
    }

    fn matches<'py>(&self, object: &Bound<'py, PyAny>, given: &mut Given<'py>) -> PyResult<bool> {
        match self {
            Item::Tensor => {
                let Ok(tensor) = object.cast::<PyTensor>() else { return Ok(false) };
                given.tensors.push(tensor.clone());
                Ok(true)
            }
            Item::Float => {
                let Ok(number) = object.cast::<PyFloat>() else { return Ok(false) };
                given.floats.push(number.value());
                Ok(true)
            }
            Item::Same(known) => is_same(known.bind(object.py()), object),
            Item::Tuple(items) => match object.cast_exact::<PyTuple>() {
                Ok(tuple) if tuple.len() == items.len() => each_matches(items, tuple.iter(), given),
                _ => Ok(false),
            },
            Item::List(items) => match object.cast_exact::<PyList>() {
                Ok(list) if list.len() == items.len() => each_matches(items, list.iter(), given),
                _ => Ok(false),
            },
            Item::Dict(items) => match object.cast_exact::<PyDict>() {
                Ok(dict) => all_match(items, dict, given),
                Err(_) => Ok(false),
            },
        }
    }

    fn traced<'py>(&self, object: &Bound<'py, PyAny>, next: &mut u32, session: u64) -> PyResult<Bound<'py, PyAny>> {
        let py = object.py();
        Ok(match self {
            Item::Tensor | Item::Same(_) => object.clone(),
            Item::Float => {
                let index = *next;
                *next += 1;
                Bound::new(py, FloatArgument { index, value: object.extract()?, session })?.into_any()
            }
            Item::Tuple(items) => PyTuple::new(py, each_traced(items, object.try_iter()?, next, session)?)?.into_any(),
            Item::List(items) => PyList::new(py, each_traced(items, object.try_iter()?, next, session)?)?.into_any(),
            Item::Dict(items) => traced_entries(items, object.cast()?, next, session)?.into_any(),
        })
    }
}

fn each_matches<'py>(
    items: &[Item],
    objects: impl Iterator<Item = Bound<'py, PyAny>>,
    given: &mut Given<'py>,
) -> PyResult<bool> {
    for (item, object) in items.iter().zip(objects) {
        if !item.matches(&object, given)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn each_traced<'py>(
    items: &[Item],
    objects: impl Iterator<Item = PyResult<Bound<'py, PyAny>>>,
    next: &mut u32,
    session: u64,
) -> PyResult<Vec<Bound<'py, PyAny>>> {
    items.iter().zip(objects).map(|(item, object)| item.traced(&object?, next, session)).collect()
}

/// The same object, or an equal one of the same type.
fn is_same(known: &Bound<'_, PyAny>, object: &Bound<'_, PyAny>) -> PyResult<bool> {
    if known.is(object) {
        return Ok(true);
    }
    // Comparing tensors records an operation: a variable is itself or another.
    if !known.get_type().is(object.get_type()) || known.is_instance_of::<PyTensor>() {
        return Ok(false);
    }
    known.eq(object)
}

/// What a compiled function gives back.
pub enum Result {
    /// A tensor by position; the object itself if it is one from outside.
    Tensor(usize, Option<Py<PyAny>>),
    Float(u32),
    Same(Py<PyAny>),
    Tuple(Vec<Result>),
    List(Vec<Result>),
    Dict(Vec<(Py<PyAny>, Result)>),
}

impl Result {
    /// Takes a result apart; its tensors go to `tensors`.
    pub fn of<'py>(object: &Bound<'py, PyAny>, tensors: &mut Vec<Bound<'py, PyTensor>>) -> PyResult<Result> {
        let mut one = |item: Bound<'py, PyAny>| Result::of(&item, tensors);
        if let Ok(tuple) = object.cast_exact::<PyTuple>() {
            return Ok(Result::Tuple(tuple.iter().map(&mut one).collect::<PyResult<_>>()?));
        }
        if let Ok(list) = object.cast_exact::<PyList>() {
            return Ok(Result::List(list.iter().map(&mut one).collect::<PyResult<_>>()?));
        }
        if let Ok(dict) = object.cast_exact::<PyDict>() {
            let entries = dict.iter().map(|(key, value)| Ok((key.unbind(), one(value)?)));
            return Ok(Result::Dict(entries.collect::<PyResult<_>>()?));
        }
        if let Ok(tensor) = object.cast::<PyTensor>() {
            tensors.push(tensor.clone());
            return Ok(Result::Tensor(tensors.len() - 1, Some(object.clone().unbind())));
        }
        if let Ok(argument) = object.cast::<FloatArgument>() {
            return Ok(Result::Float(argument.get().index));
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
        Ok(Result::Same(object.clone().unbind()))
    }

    /// Forgets the objects of tensors that each call makes anew.
    pub fn forget(&mut self, is_outside: &impl Fn(usize) -> bool) {
        match self {
            Result::Tensor(at, object) if !is_outside(*at) => *object = None,
            Result::Tuple(items) | Result::List(items) => items.iter_mut().for_each(|item| item.forget(is_outside)),
            Result::Dict(items) => items.iter_mut().for_each(|(_, item)| item.forget(is_outside)),
            _ => {}
        }
    }

    /// The result of a call, with `tensor` for each tensor that is no object from outside.
    pub fn build<'py>(
        &self,
        py: Python<'py>,
        floats: &[f64],
        tensor: &mut dyn FnMut(usize) -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let mut each = |items: &[Result]| -> PyResult<Vec<Bound<'py, PyAny>>> {
            items.iter().map(|item| item.build(py, floats, tensor)).collect()
        };
        Ok(match self {
            Result::Tensor(_, Some(object)) => object.bind(py).clone(),
            Result::Tensor(at, None) => tensor(*at)?,
            Result::Float(position) => match floats.get(*position as usize) {
                Some(&value) => PyFloat::new(py, value).into_any(),
                None => return Err(raise(Error::internal("a float argument is missing"))),
            },
            Result::Same(object) => object.bind(py).clone(),
            Result::Tuple(items) => PyTuple::new(py, each(items)?)?.into_any(),
            Result::List(items) => PyList::new(py, each(items)?)?.into_any(),
            Result::Dict(items) => {
                let made = PyDict::new(py);
                for (key, item) in items {
                    made.set_item(key, item.build(py, floats, tensor)?)?;
                }
                made.into_any()
            }
        })
    }
}
