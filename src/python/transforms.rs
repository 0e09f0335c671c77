//! Transforms of functions: the user's function is called here, on the arguments of an open transform, and the node of
//! the transform is recorded from what it gave.

use super::errors::{record, refuse};
use super::script;
use super::tensor::PyTensor;
use crate::error::Error;
use crate::tensor::{self, BackwardOptions, Checkpoint, CustomTrace, Tensor, Transform};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyList, PyTuple};

/// One number or several: the argnums of a gradient.
#[derive(Clone)]
pub struct Argnums {
    positions: Vec<i64>,
    single: bool,
}

impl<'a, 'py> FromPyObject<'a, 'py> for Argnums {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Argnums> {
        match object.extract::<i64>() {
            Ok(position) => Ok(Argnums { positions: vec![position], single: true }),
            Err(_) => Ok(Argnums { positions: object.extract()?, single: false }),
        }
    }
}

/// A function under a transform; `wrap` gives it the name of the user's.
#[pyclass(frozen, module = "wengert._core")]
struct Transformed {
    fun: Py<PyAny>,
    kind: Kind,
}

enum Kind {
    Gradient { argnums: Argnums, has_aux: bool, value: bool },
    Batch { in_axes: Axes, out_axes: Axes },
    Custom,
    Checkpoint,
}

/// Axes of arguments or results: one for all, or one each; None: not batched.
pub enum Axes {
    All(Option<i64>),
    Each(Vec<Option<i64>>),
}

impl<'a, 'py> FromPyObject<'a, 'py> for Axes {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Axes> {
        match object.extract::<Option<i64>>() {
            Ok(axis) => Ok(Axes::All(axis)),
            Err(_) => Ok(Axes::Each(object.extract()?)),
        }
    }
}

impl Axes {
    fn get(&self, position: usize) -> Option<i64> {
        match self {
            Axes::All(axis) => *axis,
            Axes::Each(axes) => axes.get(position).copied().flatten(),
        }
    }

    fn check(&self, name: &str, count: usize) -> PyResult<()> {
        match self {
            Axes::Each(axes) if axes.len() != count => {
                Err(refuse(Error::value(format!("vmap: {name} has {} entries, there are {count}", axes.len()))))
            }
            _ => Ok(()),
        }
    }
}

#[pymethods]
impl Transformed {
    fn __call__<'py>(
        &self,
        py: Python<'py>,
        args: &Bound<'py, PyTuple>,
        kwargs: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let fun = self.fun.bind(py);
        match &self.kind {
            Kind::Gradient { argnums, has_aux, value } => gradient(fun, argnums, *has_aux, *value, args, kwargs),
            Kind::Batch { in_axes, out_axes } => batch(fun, in_axes, out_axes, args, kwargs),
            Kind::Custom => custom(fun, args, kwargs),
            Kind::Checkpoint => checkpointed(fun, args, kwargs),
        }
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        visit.call(&self.fun)
    }
}

fn transformed<'py>(fun: &Bound<'py, PyAny>, kind: Kind) -> PyResult<Bound<'py, PyAny>> {
    if !fun.is_callable() {
        return Err(PyTypeError::new_err("a function is needed"));
    }
    let call = Bound::new(fun.py(), Transformed { fun: fun.clone().unbind(), kind })?;
    script::wrap(call.into_any(), fun)
}

/// A function that gives the gradient of fun with respect to the arguments at argnums.
///
/// Args:
///     fun: gives one float number, and anything beside it if has_aux.
///     argnums: the positions of the arguments, tensors of floats.
///     has_aux: fun gives (value, aux); the result is then (gradient, aux).
///
/// Example:
///     >>> import wengert as wg
///     >>> wg.grad(lambda x: x**3)(wg.tensor(2.0))
///     tensor(12.)
#[pyfunction]
#[pyo3(signature = (fun, argnums = Argnums { positions: vec![0], single: true }, *, has_aux = false), text_signature = "(fun, argnums=0, *, has_aux=False)")]
pub fn grad<'py>(fun: &Bound<'py, PyAny>, argnums: Argnums, has_aux: bool) -> PyResult<Bound<'py, PyAny>> {
    transformed(fun, Kind::Gradient { argnums, has_aux, value: false })
}

/// A function that gives the value of fun and its gradient; as `grad` otherwise. With has_aux: ((value, aux), gradient).
#[pyfunction]
#[pyo3(signature = (fun, argnums = Argnums { positions: vec![0], single: true }, *, has_aux = false), text_signature = "(fun, argnums=0, *, has_aux=False)")]
pub fn value_and_grad<'py>(fun: &Bound<'py, PyAny>, argnums: Argnums, has_aux: bool) -> PyResult<Bound<'py, PyAny>> {
    transformed(fun, Kind::Gradient { argnums, has_aux, value: true })
}

fn gradient<'py>(
    fun: &Bound<'py, PyAny>,
    argnums: &Argnums,
    has_aux: bool,
    with_value: bool,
    args: &Bound<'py, PyTuple>,
    kwargs: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = fun.py();
    let mut given: Vec<Bound<'py, PyAny>> = args.iter().collect();
    let positions = positions(&argnums.positions, given.len())?;
    let frame = record(Transform::differentiate)?;
    let mut arguments = Vec::with_capacity(positions.len());
    for &position in &positions {
        let argument = argument(&frame, "grad", &given[position])?;
        given[position] = Bound::new(py, PyTensor(argument.clone()))?.into_any();
        arguments.push(argument);
    }
    let result = fun.call(PyTuple::new(py, given)?, Some(kwargs))?;
    let (value, aux) = if has_aux {
        pair(&result, "fun with has_aux=True", "(value, aux)")?
    } else {
        (result, py.None().into_bound(py))
    };
    let value = tensor_of(&value, "grad: fun")?;
    record(|| frame.close())?;
    let own: Vec<&Tensor> = arguments.iter().collect();
    let gradients = record(|| {
        let ty = value.ty();
        if ty.shape.size() != 1 || !ty.dtype.is_float() {
            return Err(Error::grad(format!("grad: fun gave {ty}, a gradient is that of one float number")));
        }
        tensor::results(tensor::gradient(&[&value], None, &own)?, &own)
    })?;
    let gradients = pack(py, gradients, argnums.single)?;
    if !with_value && !has_aux {
        return Ok(gradients);
    }
    let aux = if has_aux { released(&aux, &own)? } else { aux };
    if !with_value {
        return Ok((gradients, aux).into_pyobject(py)?.into_any());
    }
    let value = Bound::new(py, PyTensor(record(|| tensor::result(&value, &own))?))?.into_any();
    let first = if has_aux { (value, aux).into_pyobject(py)?.into_any() } else { value };
    Ok((first, gradients).into_pyobject(py)?.into_any())
}

fn positions(argnums: &[i64], count: usize) -> PyResult<Vec<usize>> {
    argnums
        .iter()
        .map(|&argnum| {
            let from_front = if argnum < 0 { argnum + count as i64 } else { argnum };
            usize::try_from(from_front).ok().filter(|&position| position < count).ok_or_else(|| {
                refuse(Error::value(format!(
                    "grad: argnums names argument {argnum}, fun was given {count} positional ones"
                )))
            })
        })
        .collect()
}

/// The argument to call the function with in the place of a tensor, or of a float.
fn argument(frame: &Transform, op: &str, given: &Bound<'_, PyAny>) -> PyResult<Tensor> {
    let tensor = operand(given, op)?;
    record(|| frame.argument(&tensor))
}

/// A tensor, or a number as one.
fn operand(given: &Bound<'_, PyAny>, op: &str) -> PyResult<Tensor> {
    if let Ok(tensor) = given.cast::<PyTensor>() {
        return Ok(tensor.get().0.clone());
    }
    if given.is_instance_of::<PyFloat>() {
        return super::import::tensor(given, None, None);
    }
    let kind = given.get_type().name()?;
    Err(PyTypeError::new_err(format!("{op}: an argument that is differentiated is a {kind}, it must be a tensor")))
}

fn tensor_of(object: &Bound<'_, PyAny>, what: &str) -> PyResult<Tensor> {
    match object.cast::<PyTensor>() {
        Ok(tensor) => Ok(tensor.get().0.clone()),
        Err(_) => {
            let kind = object.get_type().name()?;
            Err(PyTypeError::new_err(format!("{what} gave a {kind}, it must give a tensor")))
        }
    }
}

fn pair<'py>(object: &Bound<'py, PyAny>, what: &str, form: &str) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    match object.cast::<PyTuple>() {
        Ok(pair) if pair.len() == 2 => Ok((pair.get_item(0)?, pair.get_item(1)?)),
        _ => Err(PyTypeError::new_err(format!("{what} must give {form}"))),
    }
}

/// Tensors as Python takes them: one, or a tuple.
fn pack(py: Python<'_>, tensors: Vec<Tensor>, single: bool) -> PyResult<Bound<'_, PyAny>> {
    let mut objects = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        objects.push(Bound::new(py, PyTensor(tensor))?.into_any());
    }
    match (single, objects.len()) {
        (true, 1) => Ok(objects.remove(0)),
        _ => Ok(PyTuple::new(py, objects)?.into_any()),
    }
}

/// What a function gave: one tensor, or a tuple or list of them.
fn outputs(object: &Bound<'_, PyAny>, what: &str) -> PyResult<(Vec<Tensor>, bool)> {
    if object.is_instance_of::<PyTuple>() || object.is_instance_of::<PyList>() {
        let mut tensors = Vec::new();
        for item in object.try_iter()? {
            tensors.push(tensor_of(&item?, what)?);
        }
        return Ok((tensors, false));
    }
    Ok((vec![tensor_of(object, what)?], true))
}

/// Results beside the value, cut off the arguments of the transform that made them: tensors in tuples, lists, dicts.
fn released<'py>(aux: &Bound<'py, PyAny>, arguments: &[&Tensor]) -> PyResult<Bound<'py, PyAny>> {
    let py = aux.py();
    if let Ok(tensor) = aux.cast::<PyTensor>() {
        let tensor = record(|| tensor::result(&tensor.get().0, arguments))?;
        return Ok(Bound::new(py, PyTensor(tensor))?.into_any());
    }
    if let Ok(items) = aux.cast_exact::<PyTuple>() {
        let items: Vec<_> = items.iter().map(|item| released(&item, arguments)).collect::<PyResult<_>>()?;
        return Ok(PyTuple::new(py, items)?.into_any());
    }
    if let Ok(items) = aux.cast_exact::<PyList>() {
        let items: Vec<_> = items.iter().map(|item| released(&item, arguments)).collect::<PyResult<_>>()?;
        return Ok(PyList::new(py, items)?.into_any());
    }
    if let Ok(entries) = aux.cast_exact::<PyDict>() {
        let copy = PyDict::new(py);
        for (key, value) in entries {
            copy.set_item(key, released(&value, arguments)?)?;
        }
        return Ok(copy.into_any());
    }
    Ok(aux.clone())
}

/// Opens a transform over all primals and calls fun on its arguments.
fn trace(fun: &Bound<'_, PyAny>, op: &str, primals: &[Tensor]) -> PyResult<(Vec<Tensor>, Vec<Tensor>, bool)> {
    let py = fun.py();
    let frame = record(Transform::differentiate)?;
    let arguments: Vec<Tensor> =
        primals.iter().map(|primal| record(|| frame.argument(primal))).collect::<PyResult<_>>()?;
    let objects =
        arguments.iter().map(|argument| Bound::new(py, PyTensor(argument.clone()))).collect::<PyResult<Vec<_>>>()?;
    let result = fun.call1(PyTuple::new(py, objects)?)?;
    let (values, single) = outputs(&result, &format!("{op}: fun"))?;
    record(|| frame.close())?;
    Ok((arguments, values, single))
}

/// Primals or tangents: one tensor, whose axes are not primals, or a tuple or list of them. Also whether it was one.
fn operands(given: &Bound<'_, PyAny>, op: &str, what: &str) -> PyResult<(Vec<Tensor>, bool)> {
    if given.is_instance_of::<PyTuple>() || given.is_instance_of::<PyList>() {
        let tensors = given.try_iter()?.map(|item| operand(&item?, op)).collect::<PyResult<_>>()?;
        return Ok((tensors, false));
    }
    if given.is_instance_of::<PyTensor>() || given.is_exact_instance_of::<PyFloat>() {
        return Ok((vec![operand(given, op)?], true));
    }
    let kind = given.get_type().name()?;
    Err(PyTypeError::new_err(format!(
        "{op}: {what} are a {kind}, they must be a tensor, or a tuple or list of tensors"
    )))
}

/// The primals, and a tangent for each.
fn with_tangents(
    op: &str,
    primals: &Bound<'_, PyAny>,
    tangents: &Bound<'_, PyAny>,
) -> PyResult<(Vec<Tensor>, Vec<Tensor>)> {
    let (points, one_point) = operands(primals, op, "primals")?;
    let (directions, one_direction) = operands(tangents, op, "tangents")?;
    if one_point != one_direction {
        let (primals, tangents) = (primals.get_type().name()?, tangents.get_type().name()?);
        return Err(PyTypeError::new_err(format!(
            "{op}: primals are a {primals} and tangents a {tangents}: both must be a tensor, or both a tuple or list"
        )));
    }
    record(|| check_like(&format!("{op}: tangent"), &directions, &points))?;
    Ok((points, directions))
}

/// The function from cotangents of a result to those of the primals.
#[pyclass(frozen, module = "wengert._core")]
struct Pullback {
    values: Vec<Tensor>,
    arguments: Vec<Tensor>,
}

#[pymethods]
impl Pullback {
    /// Cotangents as fun gave its values: one tensor, or a tuple.
    #[pyo3(signature = (*cotangents))]
    fn __call__<'py>(&self, py: Python<'py>, cotangents: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        let given = match cotangents.len() {
            1 => cotangents.get_item(0)?,
            _ => cotangents.clone().into_any(),
        };
        let (cotangents, _) = outputs(&given, "vjp: the caller")?;
        let gradients = record(|| {
            check_like("vjp: cotangent", &cotangents, &self.values)?;
            let values: Vec<&Tensor> = self.values.iter().collect();
            let own: Vec<&Tensor> = self.arguments.iter().collect();
            let gradients = tensor::gradient(&values, Some(&cotangents.iter().collect::<Vec<_>>()), &own)?;
            tensor::results(gradients, &own)
        })?;
        pack(py, gradients, false)
    }
}

/// Refuses tensors whose types are not those of `like`, one by one.
fn check_like(what: &str, given: &[Tensor], like: &[Tensor]) -> crate::error::Result<()> {
    if given.len() != like.len() {
        return Err(Error::value(format!("{what}: {} given for {}", given.len(), like.len())));
    }
    for (position, (given, like)) in given.iter().zip(like).enumerate() {
        let (got, want) = (given.ty(), like.ty());
        if got.shape != want.shape {
            return Err(Error::shape(format!("{what} {position}: shape {} was given for {}", got.shape, want.shape)));
        }
        if got.dtype != want.dtype {
            return Err(Error::dtype(format!("{what} {position}: {} was given for {}", got.dtype, want.dtype)));
        }
    }
    Ok(())
}

/// The value of fun, and the function, callable again, from a cotangent of it to those of the primals.
///
/// Example:
///     >>> import wengert as wg
///     >>> value, pull = wg.vjp(lambda x: x * x, wg.tensor([1.0, 2.0]))
///     >>> pull(wg.tensor([1.0, 1.0]))
///     (tensor([2., 4.]),)
#[pyfunction]
#[pyo3(signature = (fun, *primals))]
pub fn vjp<'py>(
    fun: &Bound<'py, PyAny>,
    primals: &Bound<'py, PyTuple>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let py = fun.py();
    let (primals, _) = operands(primals.as_any(), "vjp", "primals")?;
    let (arguments, values, single) = trace(fun, "vjp", &primals)?;
    let own: Vec<&Tensor> = arguments.iter().collect();
    let shown = values.iter().map(|value| record(|| tensor::result(value, &own))).collect::<PyResult<_>>()?;
    let shown = pack(py, shown, single)?;
    let pull = Bound::new(py, Pullback { values, arguments })?;
    Ok((shown, pull.into_any()))
}

/// The value of fun, and its derivative along the tangents.
///
/// Args:
///     fun: takes as many tensors as there are primals.
///     primals: where to differentiate: a tuple or list, or the one tensor.
///     tangents: the direction, in the form of the primals; each of the shape and dtype of its primal.
///
/// Example:
///     >>> import wengert as wg
///     >>> wg.jvp(lambda x: x**3, wg.tensor(2.0), wg.tensor(1.0))
///     (tensor(8.), tensor(12.))
///     >>> wg.jvp(lambda x, y: x * y, (wg.tensor(2.0), wg.tensor(3.0)), (wg.tensor(1.0), wg.tensor(0.0)))
///     (tensor(6.), tensor(3.))
#[pyfunction]
pub fn jvp<'py>(
    fun: &Bound<'py, PyAny>,
    primals: &Bound<'py, PyAny>,
    tangents: &Bound<'py, PyAny>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let py = fun.py();
    let (primals, tangents) = with_tangents("jvp", primals, tangents)?;
    let (arguments, values, single) = trace(fun, "jvp", &primals)?;
    let own: Vec<&Tensor> = arguments.iter().collect();
    let moved = record(|| {
        let moved = tensor::jvp(&values.iter().collect::<Vec<_>>(), &own, &tangents.iter().collect::<Vec<_>>())?;
        tensor::results(moved, &own)
    })?;
    let shown = values.iter().map(|value| record(|| tensor::result(value, &own))).collect::<PyResult<_>>()?;
    Ok((pack(py, shown, single)?, pack(py, moved, single)?))
}

/// The Hessian of fun times the tangents: a tensor, or a tuple if there are several primals.
///
/// Args:
///     fun: takes as many tensors as there are primals, and gives one float number.
///     primals: where to differentiate: a tuple or list, or the one tensor.
///     tangents: what the Hessian is multiplied by, in the form of the primals; each of the shape and dtype of its primal.
///
/// Example:
///     >>> import wengert as wg
///     >>> wg.hvp(lambda x: (x**3).sum(), wg.tensor([1.0, 2.0]), wg.tensor([1.0, 1.0]))
///     tensor([ 6., 12.])
#[pyfunction]
pub fn hvp<'py>(
    fun: &Bound<'py, PyAny>,
    primals: &Bound<'py, PyAny>,
    tangents: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let (primals, tangents) = with_tangents("hvp", primals, tangents)?;
    let outer = record(Transform::differentiate)?;
    let arguments: Vec<Tensor> =
        primals.iter().map(|primal| record(|| outer.argument(primal))).collect::<PyResult<_>>()?;
    let (inner, values, single) = trace(fun, "hvp", &arguments)?;
    let gradients = record(|| {
        let ty = values[0].ty();
        if !single || ty.shape.size() != 1 {
            return Err(Error::grad(format!(
                "hvp: fun gave {} values of {ty}, a Hessian is that of one number",
                values.len()
            )));
        }
        tensor::gradient(&[&values[0]], None, &inner.iter().collect::<Vec<_>>())
    })?;
    record(|| outer.close())?;
    let (own, along): (Vec<&Tensor>, Vec<&Tensor>) = (arguments.iter().collect(), tangents.iter().collect());
    let both: Vec<&Tensor> = arguments.iter().chain(&inner).collect();
    let products = record(|| {
        let products = tensor::jvp(&gradients.iter().collect::<Vec<_>>(), &own, &along)?;
        tensor::results(products, &both)
    })?;
    pack(fun.py(), products, primals.len() == 1)
}

/// A function that does for each example of a batch what fun does for one.
///
/// Args:
///     fun: takes and gives tensors without the batch axis.
///     in_axes: the batch axis of each argument; None for what all examples share.
///     out_axes: the batch axis of each result.
///
/// Example:
///     >>> import wengert as wg
///     >>> wg.vmap(lambda x: x.sum())(wg.ones((2, 3)))
///     tensor([3., 3.])
#[pyfunction]
#[pyo3(signature = (fun, in_axes = Axes::All(Some(0)), out_axes = Axes::All(Some(0))), text_signature = "(fun, in_axes=0, out_axes=0)")]
pub fn vmap<'py>(fun: &Bound<'py, PyAny>, in_axes: Axes, out_axes: Axes) -> PyResult<Bound<'py, PyAny>> {
    transformed(fun, Kind::Batch { in_axes, out_axes })
}

fn batch<'py>(
    fun: &Bound<'py, PyAny>,
    in_axes: &Axes,
    out_axes: &Axes,
    args: &Bound<'py, PyTuple>,
    kwargs: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = fun.py();
    in_axes.check("in_axes", args.len())?;
    let mut batched: Vec<Option<Tensor>> = Vec::with_capacity(args.len());
    for (position, arg) in args.iter().enumerate() {
        let axis = in_axes.get(position);
        batched.push(match (arg.cast::<PyTensor>(), axis) {
            (Ok(tensor), Some(axis)) => Some(record(|| tensor::moveaxis(&tensor.get().0, &[axis], &[0]))?),
            _ => None,
        });
    }
    let size = batch_size(&batched)?;
    let frame = record(Transform::batch)?;
    let mut given = Vec::with_capacity(args.len());
    let mut examples = Vec::new();
    for (arg, batched) in args.iter().zip(&batched) {
        given.push(match batched {
            None => arg,
            Some(tensor) => {
                let example = record(|| frame.example(tensor))?;
                examples.push(example.clone());
                Bound::new(py, PyTensor(example))?.into_any()
            }
        });
    }
    let result = fun.call(PyTuple::new(py, given)?, Some(kwargs))?;
    let (targets, single) = outputs(&result, "vmap: fun")?;
    out_axes.check("out_axes", targets.len())?;
    record(|| frame.close())?;
    let stacked = record(|| {
        let args: Vec<&Tensor> = batched.iter().flatten().collect();
        tensor::vmap_axis(size, &targets.iter().collect::<Vec<_>>(), &examples.iter().collect::<Vec<_>>(), &args)
    })?;
    let mut moved = Vec::with_capacity(stacked.len());
    for (position, tensor) in stacked.iter().enumerate() {
        let Some(axis) = out_axes.get(position) else {
            return Err(refuse(Error::value("vmap: out_axes holds None; every result has the batch axis")));
        };
        moved.push(record(|| tensor::moveaxis(tensor, &[0], &[axis]))?);
    }
    pack(py, moved, single)
}

/// The number of examples, which all batched arguments must have.
fn batch_size(batched: &[Option<Tensor>]) -> PyResult<usize> {
    let mut found: Option<(usize, usize)> = None;
    for (position, tensor) in batched.iter().enumerate() {
        let Some(tensor) = tensor else { continue };
        let size = tensor.shape()[0];
        match found {
            Some((first, other)) if other != size => {
                return Err(refuse(Error::shape(format!(
                    "vmap: argument {first} has {other} examples, argument {position} has {size}"
                ))));
            }
            _ => found = Some((position, size)),
        }
    }
    found
        .map(|(_, size)| size)
        .ok_or_else(|| refuse(Error::value("vmap: no argument is batched; in_axes are all None")))
}

/// Fun gives its value and a function from the cotangent of it to that of each argument (one, or a tuple).
///
/// Example:
///     >>> import wengert as wg
///     >>> @wg.custom_gradient
///     ... def bounded(x):
///     ...     return x * 1.0, lambda ct: wg.clip(ct, -1.0, 1.0)
///     >>> wg.grad(lambda x: bounded(x) * 5.0)(wg.tensor(1.0))
///     tensor(1.)
#[pyfunction]
pub fn custom_gradient<'py>(fun: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    transformed(fun, Kind::Custom)
}

fn custom<'py>(
    fun: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    kwargs: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = fun.py();
    let arguments: Vec<Tensor> =
        args.iter().filter_map(|arg| arg.cast::<PyTensor>().ok().map(|tensor| tensor.get().0.clone())).collect();
    let result = fun.call(args.clone(), Some(kwargs))?;
    let (value, pullback) = pair(&result, "custom_gradient: fun", "(value, function from cotangent to gradients)")?;
    let value = tensor_of(&value, "custom_gradient: fun")?;
    let open = record(|| CustomTrace::begin(&value))?;
    let cotangent = Bound::new(py, PyTensor(open.cotangent().clone()))?;
    let (gradients, _) = outputs(&pullback.call1((cotangent,))?, "custom_gradient: the pullback")?;
    let floats: Vec<&Tensor> = arguments.iter().filter(|argument| argument.dtype().is_float()).collect();
    if gradients.len() != floats.len() {
        return Err(refuse(Error::grad(format!(
            "custom_gradient: the pullback gave {} gradients for {} float arguments",
            gradients.len(),
            floats.len()
        ))));
    }
    let made = record(|| open.finish(&value, &floats, &gradients.iter().collect::<Vec<_>>()))?;
    Ok(Bound::new(py, PyTensor(made))?.into_any())
}

/// A function like fun that keeps nothing of its inside: its gradient computes it again.
///
/// With y = fun(x) and the cotangent ȳ, the gradient x̄ = (∂y/∂x)ᵀ·ȳ needs the values inside fun. They are dropped after
/// the forward pass; once ȳ is there, fun's operations run a second time from x and from the tensors that fun captured
/// (parameters), with the same bits and the same random draws. So n blocks of a net hold their n inputs and the inside
/// of one block, for one more forward pass of time. `fun` itself is called once a call.
///
/// The gradient of a tensor that fun uses more than once is added up inside before it meets other parts, and forward mode
/// and higher orders add in another order; other values and gradients are bit for bit as without checkpoint. Without a
/// gradient to come (under `wg.no_grad()`, or if nothing that fun
/// uses requires one) it is a plain call. Tensors that fun stores elsewhere keep their own history.
///
/// Args:
///     fun: takes anything and gives one tensor; a module, too. Usable as a decorator.
///
/// Returns:
///     A function of the arguments of fun; it gives what fun gives, a tensor of the same shape and dtype.
///
/// Raises:
///     TypeError: fun is not callable, or does not give one tensor (give several joined as one).
///
/// Example:
///     >>> import wengert as wg
///     >>> w = wg.tensor([0.5, 2.0]).requires_grad_()
///     >>> block = wg.checkpoint(lambda x: wg.tanh(x * w) * w)
///     >>> wg.grad(lambda x: block(x).sum())(wg.tensor([0.0, 0.0])).tolist()
///     [0.25, 4.0]
///
/// Source: Chen, Xu, Zhang, Guestrin 2016, "Training deep nets with sublinear memory cost", arXiv:1604.06174.
#[pyfunction]
pub fn checkpoint<'py>(fun: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    transformed(fun, Kind::Checkpoint)
}

fn checkpointed<'py>(
    fun: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    kwargs: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyAny>> {
    let open = Checkpoint::begin();
    let value = tensor_of(&fun.call(args.clone(), Some(kwargs))?, "checkpoint: fun")?;
    let made = record(|| open.finish(&value))?;
    Ok(Bound::new(fun.py(), PyTensor(made))?.into_any())
}

/// Gradients of Σ output·grad_output with respect to each input; `wengert.autograd.grad` is the one to call.
#[pyfunction]
#[pyo3(signature = (outputs, inputs, grad_outputs = None, *, retain_graph = None, create_graph = false, allow_unused = false))]
pub fn grad_of<'py>(
    py: Python<'py>,
    outputs: Vec<PyRef<'py, PyTensor>>,
    inputs: Vec<PyRef<'py, PyTensor>>,
    grad_outputs: Option<Vec<Option<PyRef<'py, PyTensor>>>>,
    retain_graph: Option<bool>,
    create_graph: bool,
    allow_unused: bool,
) -> PyResult<Bound<'py, PyTuple>> {
    let gradients = record(|| {
        let outputs = super::axes::borrowed(&outputs);
        let cotangents = match grad_outputs {
            Some(given) if given.iter().any(Option::is_some) => Some(cotangents(&outputs, &given)?),
            _ => None,
        };
        let options = BackwardOptions { retain_graph, create_graph, strict: false };
        let cotangents: Option<Vec<&Tensor>> = cotangents.as_ref().map(|tensors| tensors.iter().collect());
        tensor::autograd_grad(&outputs, &super::axes::borrowed(&inputs), cotangents.as_deref(), options, allow_unused)
    })?;
    PyTuple::new(py, gradients.into_iter().map(|gradient| gradient.map(PyTensor)))
}

/// The cotangent of each output: as given, or 1 for an output of one element.
fn cotangents(outputs: &[&Tensor], given: &[Option<PyRef<'_, PyTensor>>]) -> crate::error::Result<Vec<Tensor>> {
    if given.len() != outputs.len() {
        return Err(Error::value(format!(
            "grad: {} grad_outputs were given for {} outputs",
            given.len(),
            outputs.len()
        )));
    }
    let pairs = outputs.iter().zip(given);
    pairs
        .map(|(output, given)| match given {
            Some(given) => Ok(given.0.clone()),
            None => {
                let ty = output.ty();
                if ty.shape.size() != 1 {
                    return Err(Error::grad(format!("grad: an output of shape {} needs its grad_output", ty.shape)));
                }
                tensor::full(ty.shape, 1.0.into(), ty.dtype, output.device())
            }
        })
        .collect()
}
