//! Indexing: integers, slices, None and Ellipsis become one slice and one reshape; integer tensors become a gather;
//! bool masks are evaluated and become a gather of the places where they hold.

use super::errors::{record, refuse};
use super::import;
use super::operand::Operand;
use super::tensor::PyTensor;
use crate::device_id::DeviceId;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{GatherMode, TensorType};
use crate::ops::arithmetic;
use crate::shape::{Shape, broadcast};
use crate::tensor::{self, Arg, SliceArg, Tensor};
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyEllipsis, PyList, PySlice, PyTuple};

/// One entry of an index.
enum Item {
    At(i64),
    Slice { start: Option<i64>, stop: Option<i64>, step: i64 },
    NewAxis,
    Ellipsis,
    Indices(Tensor),
    Mask(Tensor),
}

/// A parsed index on a shape.
struct Plan {
    slices: Vec<SliceArg>,
    /// The shape after slicing, without the axes of integers and with the new ones.
    shown: Shape,
    /// Tensors, each with the axis of `shown` it applies to. A mask takes as many axes as it has.
    tensors: Vec<(usize, Tensor)>,
}

/// `x[index]`.
pub fn get(x: &Tensor, index: &Bound<'_, PyAny>) -> PyResult<Tensor> {
    let items = parse(index, x.device())?;
    record(|| {
        let Plan { slices, shown, tensors } = plan(&x.shape(), items)?;
        let basic = tensor::reshape_to(&tensor::slice(x, &slices)?, shown)?;
        gather(&basic, &tensors)
    })
}

/// `x[index] = value`: the handle is rebound to a tensor with the value in that place.
pub fn set(x: &Tensor, index: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
    let items = parse(index, x.device())?;
    let imported;
    let value = match value.extract::<Operand<'_, '_>>() {
        Ok(operand) => operand,
        Err(_) => {
            let device = x.device();
            let dtype = (!device.is_cpu()).then(|| x.dtype());
            imported = Bound::new(value.py(), PyTensor(import::tensor(value, dtype, Some(device))?))?;
            Operand::Tensor(imported.as_borrowed())
        }
    };
    record(|| {
        if x.is_variable() && tensor::grad_enabled() {
            return x.rebind(x);
        }
        let Plan { slices, shown, tensors } = plan(&x.shape(), items)?;
        let new = match tensors.as_slice() {
            [] => tensor::with_slice(x, &slices, &shown, value.arg())?,
            [(axis, mask)] if mask.dtype() == DType::Bool && slices.is_empty() && shown == x.shape() => {
                with_mask(x, *axis, mask, value.arg())?
            }
            _ => {
                return Err(Error::unsupported(
                    "x[index] = value: index by integers, slices or one bool mask; for integer tensors use index_add, \
                     scatter_add or where",
                ));
            }
        };
        x.rebind(&new)
    })
}

/// The entries of an index on a tensor of this device, to which lists and arrays are taken.
fn parse(index: &Bound<'_, PyAny>, device: DeviceId) -> PyResult<Vec<Item>> {
    match index.cast::<PyTuple>() {
        Ok(items) => items.iter().map(|item| parse_item(&item, device)).collect(),
        Err(_) => Ok(vec![parse_item(index, device)?]),
    }
}

fn parse_item(item: &Bound<'_, PyAny>, device: DeviceId) -> PyResult<Item> {
    if item.is_none() {
        return Ok(Item::NewAxis);
    }
    if let Ok(slice) = item.cast::<PySlice>() {
        return parse_slice(slice);
    }
    if item.is_instance_of::<PyEllipsis>() {
        return Ok(Item::Ellipsis);
    }
    if item.is_instance_of::<PyBool>() {
        return Err(PyIndexError::new_err("a bool is not an index; a mask is a bool tensor"));
    }
    if let Ok(tensor) = item.cast::<PyTensor>() {
        return of_tensor(tensor.get().0.clone());
    }
    if item.is_instance_of::<PyList>() || item.hasattr("__array__")? && item.hasattr("__len__")? {
        let tensor = import::tensor(item, None, Some(device))?;
        // An empty list has no numbers to tell its dtype.
        let empty = tensor.shape().size() == 0 && tensor.dtype().is_float();
        return of_tensor(if empty { record(|| tensor::cast(&tensor, DType::I64))? } else { tensor });
    }
    match item.extract::<i64>() {
        Ok(at) => Ok(Item::At(at)),
        Err(_) => {
            let kind = item.get_type().name()?;
            Err(PyIndexError::new_err(format!(
                "a {kind} is not an index; use integers, slices, None, ..., integer or bool tensors"
            )))
        }
    }
}

fn of_tensor(tensor: Tensor) -> PyResult<Item> {
    let dtype = tensor.dtype();
    if dtype == DType::Bool {
        return Ok(Item::Mask(tensor));
    }
    if dtype.is_integer() {
        return Ok(Item::Indices(tensor));
    }
    Err(PyIndexError::new_err(format!("a tensor of {dtype} is not an index; use integers or bools")))
}

fn parse_slice(slice: &Bound<'_, PySlice>) -> PyResult<Item> {
    let part = |name: &str| -> PyResult<Option<i64>> {
        let value = slice.getattr(name)?;
        if value.is_none() { Ok(None) } else { value.extract().map(Some) }
    };
    let step = part("step")?.unwrap_or(1);
    if step == 0 {
        return Err(refuse(Error::value("a slice has step 0")));
    }
    Ok(Item::Slice { start: part("start")?, stop: part("stop")?, step })
}

/// Lays an index on a shape.
fn plan(shape: &Shape, items: Vec<Item>) -> Result<Plan> {
    let used: usize = items
        .iter()
        .map(|item| match item {
            Item::At(_) | Item::Slice { .. } | Item::Indices(_) => 1,
            Item::Mask(mask) => mask.shape().rank(),
            Item::NewAxis | Item::Ellipsis => 0,
        })
        .sum();
    if used > shape.rank() {
        return Err(Error::index(format!("{used} axes are indexed, shape {shape} has {}", shape.rank())));
    }
    if items.iter().filter(|item| matches!(item, Item::Ellipsis)).count() > 1 {
        return Err(Error::index("an index has more than one ..."));
    }
    let mut plan = Plan { slices: Vec::new(), shown: Shape::scalar(), tensors: Vec::new() };
    let mut axis = 0;
    for item in items {
        axis = plan.lay(shape, axis, item, shape.rank() - used)?;
    }
    shape[axis..].iter().for_each(|&dim| plan.shown.push(dim));
    Ok(plan)
}

impl Plan {
    /// Lays one item on the next axes of the shape; gives the axis after them.
    fn lay(&mut self, shape: &Shape, axis: usize, item: Item, skipped: usize) -> Result<usize> {
        match item {
            Item::NewAxis => {
                self.shown.push(1);
                Ok(axis)
            }
            Item::Ellipsis => {
                shape[axis..axis + skipped].iter().for_each(|&dim| self.shown.push(dim));
                Ok(axis + skipped)
            }
            Item::At(at) => {
                let dim = shape[axis] as i64;
                if at < -dim || at >= dim {
                    return Err(Error::index(format!("index {at} is out of range for axis {axis} of size {dim}")));
                }
                let start = if at < 0 { at + dim } else { at };
                self.slices.push(SliceArg { axis, start, length: 1, step: 1 });
                Ok(axis + 1)
            }
            Item::Slice { start, stop, step } => {
                let (first, length) = bounds(shape[axis] as i64, start, stop, step);
                if step != 1 || length != shape[axis] {
                    self.slices.push(SliceArg { axis, start: first, length, step: step as isize });
                }
                self.shown.push(length);
                Ok(axis + 1)
            }
            Item::Indices(indices) => {
                self.tensors.push((self.shown.rank(), indices));
                self.shown.push(shape[axis]);
                Ok(axis + 1)
            }
            Item::Mask(mask) => {
                let covered = mask.shape();
                let end = axis + covered.rank();
                if shape[axis..end] != covered[..] {
                    return Err(Error::index(format!(
                        "a mask of shape {covered} does not fit shape {shape} at axis {axis}"
                    )));
                }
                self.tensors.push((self.shown.rank(), mask));
                covered.iter().for_each(|&dim| self.shown.push(dim));
                Ok(end)
            }
        }
    }
}

/// First element and length of a slice, as Python counts them.
fn bounds(dim: i64, start: Option<i64>, stop: Option<i64>, step: i64) -> (i64, usize) {
    let (low, high) = if step > 0 { (0, dim) } else { (-1, dim - 1) };
    let clamp = |at: i64| (if at < 0 { at.saturating_add(dim) } else { at }).clamp(low, high);
    let start = start.map_or(if step > 0 { low } else { high }, clamp);
    let stop = stop.map_or(if step > 0 { high } else { low }, clamp);
    let length = if step > 0 { (stop - start).max(0) as u64 } else { (start - stop).max(0) as u64 }
        .div_ceil(step.unsigned_abs());
    (if length == 0 { 0 } else { start }, length as usize)
}

/// Applies the tensors of an index: none, one, or several on adjacent axes.
fn gather(x: &Tensor, tensors: &[(usize, Tensor)]) -> Result<Tensor> {
    match tensors {
        [] => Ok(x.clone()),
        [(axis, mask)] if mask.dtype() == DType::Bool => {
            let merged = merge(x, *axis, mask.shape().rank())?;
            tensor::gather(GatherMode::Take, &merged, &places(mask)?, *axis as i64)
        }
        [(axis, indices)] => tensor::gather(GatherMode::Take, x, indices, *axis as i64),
        several => {
            let first = several[0].0;
            let adjacent = several
                .iter()
                .enumerate()
                .all(|(i, (axis, indices))| *axis == first + i && indices.dtype() != DType::Bool);
            if !adjacent {
                return Err(Error::unsupported(
                    "several tensors in an index must be integers on adjacent axes; index one after another",
                ));
            }
            let merged = merge(x, first, several.len())?;
            tensor::gather(GatherMode::Take, &merged, &joined(x, several)?, first as i64)
        }
    }
}

/// `x` with `count` axes from `axis` on as one.
fn merge(x: &Tensor, axis: usize, count: usize) -> Result<Tensor> {
    let shape = x.shape();
    let size: usize = shape[axis..axis + count].iter().product();
    tensor::reshape_to(x, shape[..axis].iter().chain([&size]).chain(&shape[axis + count..]).copied().collect())
}

/// The row-major places where a mask holds. Evaluates it: the shape of the result depends on it.
fn places(mask: &Tensor) -> Result<Tensor> {
    tensor::trace::refuse_read("index by a mask, whose values decide the shape")?;
    let bytes = tensor::to_bytes(mask)?;
    let count = bytes.iter().filter(|on| **on != 0).count();
    // One more than needed: a place is written before it is known whether it counts, which spares a branch.
    let mut places = vec![0i64; count + 1];
    let mut found = 0;
    for (at, on) in bytes.iter().enumerate() {
        places[found] = at as i64;
        found += usize::from(*on != 0);
    }
    // SAFETY: the bytes of the first `count` places.
    let bytes = unsafe { std::slice::from_raw_parts(places.as_ptr().cast::<u8>(), count * size_of::<i64>()) };
    Tensor::from_bytes_on(mask.device(), bytes, TensorType { dtype: DType::I64, shape: Shape::from([count]) })
}

/// Indices on adjacent axes as one index into the merged axis.
fn joined(x: &Tensor, several: &[(usize, Tensor)]) -> Result<Tensor> {
    let shape = x.shape();
    let mut total: Option<Tensor> = None;
    let mut common = Shape::scalar();
    for (axis, indices) in several {
        let dim = shape[*axis];
        common = broadcast(&common, &indices.shape()).ok_or_else(|| {
            Error::index(format!("index tensors of {common} and {} do not broadcast", indices.shape()))
        })?;
        let place = tensor::counted_indices("index", indices, dim, *axis)?;
        total = Some(match total {
            None => place,
            Some(total) => {
                let scaled = tensor::binary(&arithmetic::MULTIPLY, (&total).into(), (dim as i64).into())?;
                tensor::binary(&arithmetic::ADD, (&scaled).into(), (&place).into())?
            }
        });
    }
    total.ok_or_else(|| Error::internal("an index without tensors"))
}

/// `x` with `value` where the mask, which covers the axes from `axis` on, holds.
fn with_mask(x: &Tensor, axis: usize, mask: &Tensor, value: Arg) -> Result<Tensor> {
    let ty = x.ty();
    let mut open: Shape = mask.shape();
    (axis + mask.shape().rank()..ty.shape.rank()).for_each(|_| open.push(1));
    let mask_open = tensor::reshape_to(mask, open)?;
    let value = match value {
        Arg::Tensor(tensor) if tensor.shape().rank() > 0 => tensor,
        Arg::Tensor(tensor) => {
            let value = tensor::cast(tensor, ty.dtype)?;
            return tensor::select(&mask_open, (&value).into(), x.into());
        }
        number => {
            let value = tensor::filled(Shape::scalar(), scalar(number), ty.dtype, x.device())?;
            return tensor::select(&mask_open, (&value).into(), x.into());
        }
    };
    let merged = merge(x, axis, mask.shape().rank())?;
    let places = places(mask)?;
    let mut part = merged.shape();
    part.dims_mut()[axis] = places.shape()[0];
    let value = tensor::broadcast_to(&tensor::cast(value, ty.dtype)?, part)?;
    let merged_ty = merged.ty();
    let zeros = tensor::full(merged_ty.shape, 0.0.into(), merged_ty.dtype, x.device())?;
    let placed = tensor::scatter_add(GatherMode::Take, &zeros, &places, &value, axis as i64)?;
    let placed = tensor::reshape_to(&placed, ty.shape)?;
    tensor::select(&mask_open, (&placed).into(), x.into())
}

fn scalar(arg: Arg) -> crate::scalar::Scalar {
    match arg {
        Arg::Number(number) => number,
        Arg::Tensor(_) => crate::scalar::Scalar::F64(f64::NAN),
    }
}
