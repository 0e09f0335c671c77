//! The arguments of a compiled function: tensors and floats may change from call to call, the rest is a guard, by value
//! or by identity. Tuples, named ones too, lists and dicts are taken apart.

use super::FloatArgument;
use crate::python::errors::refuse;
use crate::python::tensor::PyTensor;
use crate::tensor::Tensor;
use crate::tensor::trace;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyInt, PyList, PyString, PyTuple, PyType, PyWeakrefMethods, PyWeakrefReference};
use pyo3::{PyTraverseError, PyVisit, intern};
use smallvec::SmallVec;

/// The arguments of one signature.
pub struct Pattern {
    positional: Vec<Item>,
    keywords: Vec<(Py<PyAny>, Item)>,
}

enum Item {
    Tensor,
    Float,
    /// A hashable value.
    Same(Py<PyAny>),
    /// An object that equals only itself; it may go.
    Itself(Py<PyWeakrefReference>),
    Tuple(Vec<Item>),
    /// A named tuple.
    Named(Py<PyType>, Vec<Item>),
    List(Vec<Item>),
    Dict(Vec<(Py<PyAny>, Item)>),
}

/// What of the arguments of a call may change from one to the next.
#[derive(Default)]
pub struct Inputs<'py> {
    pub tensors: SmallVec<[Bound<'py, PyTensor>; 8]>,
    pub floats: SmallVec<[f64; 4]>,
}

impl<'py> Inputs<'py> {
    pub fn handles(&self) -> Vec<&Tensor> {
        self.tensors.iter().map(|tensor| &tensor.get().0).collect()
    }
}

impl Pattern {
    /// The pattern of these arguments.
    pub fn of<'py>(
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<(Pattern, Inputs<'py>)> {
        let mut given = Inputs::default();
        let positional = args.iter().map(|item| Item::of(&item, &mut given)).collect::<PyResult<_>>()?;
        let keywords = kwargs.map_or(Ok(Vec::new()), |kwargs| entries(kwargs, &mut given))?;
        Ok((Pattern { positional, keywords }, given))
    }

    /// Whether these arguments have the pattern; what may change goes to `given`.
    pub fn matches<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
        given: &mut Inputs<'py>,
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

    /// Whether no call can have this pattern any more.
    pub fn is_dead(&self, py: Python<'_>) -> bool {
        self.positional.iter().chain(self.keywords.iter().map(|(_, item)| item)).any(|item| item.is_dead(py))
    }

    /// Python objects that are kept, for the garbage collector.
    pub fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.positional.iter().try_for_each(|item| item.visit(visit))?;
        visit_entries(&self.keywords, visit)
    }

    /// The first argument that does not fit, as a user would name it.
    pub fn difference(
        &self,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Option<String>> {
        let mut given = Inputs::default();
        for (at, (item, arg)) in self.positional.iter().zip(args.iter()).enumerate() {
            if !item.matches(&arg, &mut given)? {
                return Ok(Some(format!("argument {at}, now {}", shown(&arg)?)));
            }
        }
        for (key, item) in &self.keywords {
            if let Some(value) = kwargs.map_or(Ok(None), |kwargs| kwargs.get_item(key))?
                && !item.matches(&value, &mut given)?
            {
                return Ok(Some(format!("argument {key}, now {}", shown(&value)?)));
            }
        }
        Ok(None)
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

/// A value for a message.
fn shown(object: &Bound<'_, PyAny>) -> PyResult<String> {
    match object.is_instance_of::<PyInt>() || object.is_instance_of::<PyString>() {
        true => Ok(object.repr()?.to_string()),
        false => Ok(format!("a {}", object.get_type().name()?)),
    }
}

fn entries<'py>(dict: &Bound<'py, PyDict>, given: &mut Inputs<'py>) -> PyResult<Vec<(Py<PyAny>, Item)>> {
    dict.iter().map(|(key, value)| Ok((key.unbind(), Item::of(&value, given)?))).collect()
}

/// The order of the keys is part of the pattern: a function may go by it.
fn all_match<'py>(entries: &[(Py<PyAny>, Item)], dict: &Bound<'py, PyDict>, given: &mut Inputs<'py>) -> PyResult<bool> {
    if dict.len() != entries.len() {
        return Ok(false);
    }
    for ((known, item), (key, value)) in entries.iter().zip(dict.iter()) {
        if !(key.is(known) || key.eq(known)?) || !item.matches(&value, given)? {
            return Ok(false);
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
    fn of<'py>(object: &Bound<'py, PyAny>, given: &mut Inputs<'py>) -> PyResult<Item> {
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
        let py = object.py();
        if let Ok(tuple) = object.cast::<PyTuple>() {
            let kind = object.get_type();
            let is_plain = tuple.is_exact_instance_of::<PyTuple>();
            if is_plain || kind.hasattr(intern!(py, "_make"))? {
                let items = tuple.iter().map(|item| Item::of(&item, given)).collect::<PyResult<_>>()?;
                return Ok(if is_plain { Item::Tuple(items) } else { Item::Named(kind.unbind(), items) });
            }
        }
        if let Ok(list) = object.cast_exact::<PyList>() {
            return Ok(Item::List(list.iter().map(|item| Item::of(&item, given)).collect::<PyResult<_>>()?));
        }
        if let Ok(dict) = object.cast_exact::<PyDict>() {
            return Ok(Item::Dict(entries(dict, given)?));
        }
        if object.hash().is_err() || holds_tensors(object)? {
            return Err(not_taken(object)?);
        }
        // Nothing but itself equals it: the signature need not keep it.
        let equals = intern!(py, "__eq__");
        if object.get_type().getattr(equals)?.is(py.get_type::<PyAny>().getattr(equals)?)
            && let Ok(reference) = PyWeakrefReference::new(object)
        {
            return Ok(Item::Itself(reference.unbind()));
        }
        Ok(Item::Same(object.clone().unbind()))
    }

    fn matches<'py>(&self, object: &Bound<'py, PyAny>, given: &mut Inputs<'py>) -> PyResult<bool> {
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
            Item::Itself(reference) => Ok(reference.bind(object.py()).upgrade().is_some_and(|known| known.is(object))),
            Item::Named(kind, items) => match object.cast::<PyTuple>() {
                Ok(tuple) if object.get_type().is(kind) && tuple.len() == items.len() => {
                    each_matches(items, tuple.iter(), given)
                }
                _ => Ok(false),
            },
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
            Item::Tensor | Item::Same(_) | Item::Itself(_) => object.clone(),
            Item::Float => {
                let index = *next;
                *next += 1;
                Bound::new(py, FloatArgument { index, value: object.extract()?, session })?.into_any()
            }
            Item::Tuple(items) => PyTuple::new(py, each_traced(items, object.try_iter()?, next, session)?)?.into_any(),
            Item::Named(kind, items) => {
                let items = PyList::new(py, each_traced(items, object.try_iter()?, next, session)?)?;
                kind.bind(py).call_method1(intern!(py, "_make"), (items,))?
            }
            Item::List(items) => PyList::new(py, each_traced(items, object.try_iter()?, next, session)?)?.into_any(),
            Item::Dict(items) => traced_entries(items, object.cast()?, next, session)?.into_any(),
        })
    }
}

impl Item {
    /// Whether an object that it is about is gone.
    fn is_dead(&self, py: Python<'_>) -> bool {
        match self {
            Item::Tensor | Item::Float | Item::Same(_) => false,
            Item::Itself(reference) => reference.bind(py).upgrade().is_none(),
            Item::Tuple(items) | Item::Named(_, items) | Item::List(items) => items.iter().any(|item| item.is_dead(py)),
            Item::Dict(items) => items.iter().any(|(_, item)| item.is_dead(py)),
        }
    }

    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Item::Tensor | Item::Float => Ok(()),
            Item::Same(object) => visit.call(object),
            Item::Itself(reference) => visit.call(reference),
            Item::Tuple(items) | Item::List(items) => items.iter().try_for_each(|item| item.visit(visit)),
            Item::Named(kind, items) => {
                visit.call(kind)?;
                items.iter().try_for_each(|item| item.visit(visit))
            }
            Item::Dict(items) => visit_entries(items, visit),
        }
    }
}

fn visit_entries(entries: &[(Py<PyAny>, Item)], visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
    entries.iter().try_for_each(|(key, item)| {
        visit.call(key)?;
        item.visit(visit)
    })
}

/// Whether it is a tuple of an own class or a dataclass with a tensor in it: to compare two of them would read their values.
fn holds_tensors(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = object.py();
    if let Ok(tuple) = object.cast::<PyTuple>() {
        return Ok(tuple.iter().any(|item| item.is_instance_of::<PyTensor>()));
    }
    let Ok(fields) = object.get_type().getattr(intern!(py, "__dataclass_fields__")) else { return Ok(false) };
    for name in fields.cast::<PyDict>()?.keys() {
        if object.getattr(name.cast()?).is_ok_and(|value| value.is_instance_of::<PyTensor>()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn not_taken(object: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    let kind = object.get_type().name()?;
    Ok(refuse(trace::refusal(format!(
        "an argument of a compiled function is a {kind}; it takes tensors, numbers, hashable values without tensors in \
         them, and tuples, lists and dicts of these; make a tensor of data with wg.tensor"
    ))))
}

fn each_matches<'py>(
    items: &[Item],
    objects: impl Iterator<Item = Bound<'py, PyAny>>,
    given: &mut Inputs<'py>,
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
    if !object.is_instance_of::<PyInt>() && !object.is_instance_of::<PyString>() && holds_tensors(object)? {
        return Ok(false);
    }
    known.eq(object)
}
