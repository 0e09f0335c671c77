//! Functions over axes: reductions, rearrangements, selections, products.

use super::dtype::PyDType;
use super::errors::record;
use super::operand::{Dims, Ints, Other, refuse_other};
use super::tensor::{PyTensor, made};
use crate::error::Error;
use crate::graph::GatherMode;
use crate::ops::reduce as definitions;
use crate::tensor::{self, Tensor};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

type Axes = Option<Ints>;

fn list(axes: &Axes) -> Option<&[i64]> {
    axes.as_ref().map(|axes| axes.0.as_slice())
}

/// Reductions over any axes; `axis=None` is all of them.
macro_rules! reduction {
    ($($(#[$doc:meta])* $name:ident($x:ident, $axes:ident, $keepdims:ident) = $record:expr;)*) => {$(
        $(#[$doc])*
        #[pyfunction]
        #[pyo3(signature = (x, /, axis = None, *, keepdims = false, **other), text_signature = "(x, /, axis=None, *, keepdims=False)")]
        pub fn $name(x: PyRef<'_, PyTensor>, axis: Axes, keepdims: bool, other: Option<Other<'_, '_>>) -> PyResult<PyTensor> {
            refuse_other(other)?;
            let ($x, $axes, $keepdims) = (&x.0, list(&axis), keepdims);
            made(|| $record)
        }
    )*};
}

reduction! {
    /// Σx / n over the axes, n elements each; integers and bools become float32 first.
    mean(x, axes, keepdims) = tensor::mean(x, axes, keepdims);
    /// The largest element over the axes; NaN if any is. Equal ones share the gradient.
    max(x, axes, keepdims) = tensor::reduce(&definitions::MAX, x, axes, keepdims);
    /// The smallest element over the axes; NaN if any is. Equal ones share the gradient.
    min(x, axes, keepdims) = tensor::reduce(&definitions::MIN, x, axes, keepdims);
    /// Whether every element over the axes is true (not zero).
    all(x, axes, keepdims) = tensor::all(x, axes, keepdims);
    /// Whether some element over the axes is true (not zero).
    any(x, axes, keepdims) = tensor::any(x, axes, keepdims);
    /// log Σ exp(x) over the axes.
    logsumexp(x, axes, keepdims) = tensor::logsumexp(x, axes, keepdims);
    /// The Euclidean norm over the axes, √Σx²; the gradient at 0 is 0.
    vector_norm(x, axes, keepdims) = tensor::norm(x, axes, keepdims);
}

/// Σx over the axes, of this dtype if one is given; bools and small integers are counted in int64.
#[pyfunction]
#[pyo3(signature = (x, /, axis = None, *, dtype = None, keepdims = false, **other), text_signature = "(x, /, axis=None, *, dtype=None, keepdims=False)")]
pub fn sum(
    x: PyRef<'_, PyTensor>,
    axis: Axes,
    dtype: Option<PyDType>,
    keepdims: bool,
    other: Option<Other<'_, '_>>,
) -> PyResult<PyTensor> {
    refuse_other(other)?;
    made(|| tensor::sum(&x.0, list(&axis), dtype.map(|dtype| dtype.0), keepdims))
}

/// The product over the axes, of this dtype if one is given; bools and small integers are counted in int64.
#[pyfunction]
#[pyo3(signature = (x, /, axis = None, *, dtype = None, keepdims = false, **other), text_signature = "(x, /, axis=None, *, dtype=None, keepdims=False)")]
pub fn prod(
    x: PyRef<'_, PyTensor>,
    axis: Axes,
    dtype: Option<PyDType>,
    keepdims: bool,
    other: Option<Other<'_, '_>>,
) -> PyResult<PyTensor> {
    refuse_other(other)?;
    made(|| tensor::prod(&x.0, list(&axis), dtype.map(|dtype| dtype.0), keepdims))
}

/// Σ(x - mean)² / (n - correction) over the axes, n elements each.
#[pyfunction]
#[pyo3(signature = (x, /, axis = None, *, correction = 0.0, keepdims = false, **other), text_signature = "(x, /, axis=None, *, correction=0.0, keepdims=False)")]
pub fn var(
    x: PyRef<'_, PyTensor>,
    axis: Axes,
    correction: f64,
    keepdims: bool,
    other: Option<Other<'_, '_>>,
) -> PyResult<PyTensor> {
    refuse_other(other)?;
    made(|| tensor::var(&x.0, list(&axis), correction, keepdims))
}

/// The square root of the variance.
#[pyfunction]
#[pyo3(signature = (x, /, axis = None, *, correction = 0.0, keepdims = false, **other), text_signature = "(x, /, axis=None, *, correction=0.0, keepdims=False)")]
pub fn std(
    x: PyRef<'_, PyTensor>,
    axis: Axes,
    correction: f64,
    keepdims: bool,
    other: Option<Other<'_, '_>>,
) -> PyResult<PyTensor> {
    refuse_other(other)?;
    made(|| tensor::std(&x.0, list(&axis), correction, keepdims))
}

/// The index of the largest element along the axis, the first of equal ones; of all elements if the axis is None.
#[pyfunction]
#[pyo3(signature = (x, /, axis = None, *, keepdims = false, **other), text_signature = "(x, /, axis=None, *, keepdims=False)")]
pub fn argmax(
    x: PyRef<'_, PyTensor>,
    axis: Option<i64>,
    keepdims: bool,
    other: Option<Other<'_, '_>>,
) -> PyResult<PyTensor> {
    refuse_other(other)?;
    made(|| tensor::argmax(&x.0, axis, keepdims))
}

/// The index of the smallest element along the axis, the first of equal ones; of all elements if the axis is None.
#[pyfunction]
#[pyo3(signature = (x, /, axis = None, *, keepdims = false, **other), text_signature = "(x, /, axis=None, *, keepdims=False)")]
pub fn argmin(
    x: PyRef<'_, PyTensor>,
    axis: Option<i64>,
    keepdims: bool,
    other: Option<Other<'_, '_>>,
) -> PyResult<PyTensor> {
    refuse_other(other)?;
    made(|| tensor::argmin(&x.0, axis, keepdims))
}

/// exp(x) / Σ exp(x) along the axis.
#[pyfunction]
#[pyo3(signature = (x, /, axis = -1, **other), text_signature = "(x, /, axis=-1)")]
pub fn softmax(x: PyRef<'_, PyTensor>, axis: i64, other: Option<Other<'_, '_>>) -> PyResult<PyTensor> {
    refuse_other(other)?;
    made(|| tensor::softmax(&x.0, axis))
}

/// x - log Σ exp(x) along the axis.
#[pyfunction]
#[pyo3(signature = (x, /, axis = -1, **other), text_signature = "(x, /, axis=-1)")]
pub fn log_softmax(x: PyRef<'_, PyTensor>, axis: i64, other: Option<Other<'_, '_>>) -> PyResult<PyTensor> {
    refuse_other(other)?;
    made(|| tensor::log_softmax(&x.0, axis))
}

/// x with another shape of as many elements, in row-major order; one dimension may be -1.
#[pyfunction]
#[pyo3(signature = (x, /, shape))]
pub fn reshape(x: PyRef<'_, PyTensor>, shape: Ints) -> PyResult<PyTensor> {
    made(|| tensor::reshape(&x.0, &shape.0))
}

/// x with the axes from start_axis to end_axis as one.
#[pyfunction]
#[pyo3(signature = (x, /, start_axis = 0, end_axis = -1), text_signature = "(x, /, start_axis=0, end_axis=-1)")]
pub fn flatten(x: PyRef<'_, PyTensor>, start_axis: i64, end_axis: i64) -> PyResult<PyTensor> {
    made(|| tensor::flatten(&x.0, start_axis, end_axis))
}

/// x with its axes in this order.
#[pyfunction]
#[pyo3(signature = (x, /, axes))]
pub fn permute_dims(x: PyRef<'_, PyTensor>, axes: Ints) -> PyResult<PyTensor> {
    made(|| tensor::permute(&x.0, &axes.0))
}

/// x with its last two axes exchanged.
#[pyfunction]
#[pyo3(signature = (x, /))]
pub fn matrix_transpose(x: PyRef<'_, PyTensor>) -> PyResult<PyTensor> {
    made(|| tensor::matrix_transpose(&x.0))
}

/// x with the axes of source at the places of destination, the others in their order.
#[pyfunction]
#[pyo3(signature = (x, source, destination, /))]
pub fn moveaxis(x: PyRef<'_, PyTensor>, source: Ints, destination: Ints) -> PyResult<PyTensor> {
    made(|| tensor::moveaxis(&x.0, &source.0, &destination.0))
}

/// x with a new axis of size 1 that gets this number.
#[pyfunction]
#[pyo3(signature = (x, /, axis))]
pub fn expand_dims(x: PyRef<'_, PyTensor>, axis: i64) -> PyResult<PyTensor> {
    made(|| tensor::expand_dims(&x.0, axis))
}

/// x without these axes, which must have size 1.
#[pyfunction]
#[pyo3(signature = (x, /, axis))]
pub fn squeeze(x: PyRef<'_, PyTensor>, axis: Ints) -> PyResult<PyTensor> {
    made(|| tensor::squeeze(&x.0, &axis.0))
}

/// x repeated to this shape by NumPy's rule.
#[pyfunction]
#[pyo3(signature = (x, /, shape))]
pub fn broadcast_to(x: PyRef<'_, PyTensor>, shape: Dims) -> PyResult<PyTensor> {
    made(|| tensor::broadcast_to(&x.0, shape.0))
}

/// x backward along the axes; all of them if None.
#[pyfunction]
#[pyo3(signature = (x, /, axis = None, **other), text_signature = "(x, /, axis=None)")]
pub fn flip(x: PyRef<'_, PyTensor>, axis: Axes, other: Option<Other<'_, '_>>) -> PyResult<PyTensor> {
    refuse_other(other)?;
    made(|| tensor::flip(&x.0, list(&axis)))
}

/// The tensors one after another along an axis; each flattened first if the axis is None.
#[pyfunction]
#[pyo3(signature = (arrays, /, axis = Some(0), **other), text_signature = "(arrays, /, axis=0)")]
pub fn concat(arrays: Vec<PyRef<'_, PyTensor>>, axis: Option<i64>, other: Option<Other<'_, '_>>) -> PyResult<PyTensor> {
    refuse_other(other)?;
    made(|| match axis {
        Some(axis) => tensor::concat(&borrowed(&arrays), axis),
        None => {
            let flat: Vec<Tensor> =
                arrays.iter().map(|array| tensor::reshape(&array.0, &[-1])).collect::<Result<_, _>>()?;
            tensor::concat(&flat.iter().collect::<Vec<_>>(), 0)
        }
    })
}

/// How `split` cuts: into so many equal parts, or before these indices.
pub enum Cuts {
    Parts(i64),
    Before(Vec<i64>),
}

impl<'a, 'py> FromPyObject<'a, 'py> for Cuts {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Cuts> {
        match object.extract::<i64>() {
            Ok(parts) => Ok(Cuts::Parts(parts)),
            Err(_) => Ok(Cuts::Before(object.extract()?)),
        }
    }
}

/// Parts of x along an axis: so many equal ones, or cut before the indices given.
///
/// Returns:
///     A tuple of tensors.
///
/// Raises:
///     ValueError: the axis has no such equal parts, or the indices do not ascend inside it.
///
/// Example:
///     >>> import wengert as wg
///     >>> wg.split(wg.arange(4), 2)
///     (tensor([0, 1]), tensor([2, 3]))
#[pyfunction]
#[pyo3(signature = (x, indices_or_sections, /, axis = 0, **other), text_signature = "(x, indices_or_sections, /, axis=0)")]
pub fn split<'py>(
    x: &Bound<'py, PyTensor>,
    indices_or_sections: Cuts,
    axis: i64,
    other: Option<Other<'_, '_>>,
) -> PyResult<Bound<'py, PyTuple>> {
    refuse_other(other)?;
    let tensor = &x.get().0;
    let parts = record(|| match &indices_or_sections {
        Cuts::Parts(parts) => tensor::split_evenly(tensor, *parts, axis),
        Cuts::Before(cuts) => tensor::split_before(tensor, cuts, axis),
    })?;
    PyTuple::new(x.py(), parts.into_iter().map(PyTensor))
}

/// The slices along an axis, which they lack.
///
/// Returns:
///     A tuple of tensors.
///
/// Example:
///     >>> import wengert as wg
///     >>> wg.unstack(wg.tensor([[1, 2], [3, 4]]))
///     (tensor([1, 2]), tensor([3, 4]))
#[pyfunction]
#[pyo3(signature = (x, /, *, axis = 0, **other), text_signature = "(x, /, *, axis=0)")]
pub fn unstack<'py>(
    x: &Bound<'py, PyTensor>,
    axis: i64,
    other: Option<Other<'_, '_>>,
) -> PyResult<Bound<'py, PyTuple>> {
    refuse_other(other)?;
    let parts = record(|| tensor::unstack(&x.get().0, axis))?;
    PyTuple::new(x.py(), parts.into_iter().map(PyTensor))
}

/// Tensors of one shape along a new axis.
#[pyfunction]
#[pyo3(signature = (arrays, /, axis = 0, **other), text_signature = "(arrays, /, axis=0)")]
pub fn stack(arrays: Vec<PyRef<'_, PyTensor>>, axis: i64, other: Option<Other<'_, '_>>) -> PyResult<PyTensor> {
    refuse_other(other)?;
    made(|| tensor::stack(&borrowed(&arrays), axis))
}

pub fn borrowed<'a>(tensors: &'a [PyRef<'_, PyTensor>]) -> Vec<&'a Tensor> {
    tensors.iter().map(|tensor| &tensor.0).collect()
}

/// Whole slices of x at the indices along the axis, which may be left out if x has one axis.
#[pyfunction]
#[pyo3(signature = (x, indices, /, axis = None, **other), text_signature = "(x, indices, /, axis=None)")]
pub fn take(
    x: PyRef<'_, PyTensor>,
    indices: PyRef<'_, PyTensor>,
    axis: Option<i64>,
    other: Option<Other<'_, '_>>,
) -> PyResult<PyTensor> {
    refuse_other(other)?;
    made(|| {
        let rank = x.0.shape().rank();
        let axis = match axis {
            Some(axis) => axis,
            None if rank == 1 => 0,
            None => return Err(Error::axis(format!("take: x has {rank} axes; say which with axis="))),
        };
        tensor::gather(GatherMode::Take, &x.0, &indices.0, axis)
    })
}

/// One element of x for each index along the axis.
#[pyfunction]
#[pyo3(signature = (x, indices, /, axis = -1, **other), text_signature = "(x, indices, /, axis=-1)")]
pub fn take_along_axis(
    x: PyRef<'_, PyTensor>,
    indices: PyRef<'_, PyTensor>,
    axis: i64,
    other: Option<Other<'_, '_>>,
) -> PyResult<PyTensor> {
    refuse_other(other)?;
    made(|| tensor::gather(GatherMode::Along, &x.0, &indices.0, axis))
}

/// x with each update added at its index along the axis: the transpose of `take_along_axis`.
#[pyfunction]
#[pyo3(signature = (x, indices, updates, /, axis = -1, **other), text_signature = "(x, indices, updates, /, axis=-1)")]
pub fn scatter_add(
    x: PyRef<'_, PyTensor>,
    indices: PyRef<'_, PyTensor>,
    updates: PyRef<'_, PyTensor>,
    axis: i64,
    other: Option<Other<'_, '_>>,
) -> PyResult<PyTensor> {
    refuse_other(other)?;
    made(|| tensor::scatter_add(GatherMode::Along, &x.0, &indices.0, &updates.0, axis))
}

/// x with whole slices added at the indices (1-d) along the axis: the transpose of `take`.
#[pyfunction]
#[pyo3(signature = (x, indices, updates, /, axis = 0, **other), text_signature = "(x, indices, updates, /, axis=0)")]
pub fn index_add(
    x: PyRef<'_, PyTensor>,
    indices: PyRef<'_, PyTensor>,
    updates: PyRef<'_, PyTensor>,
    axis: i64,
    other: Option<Other<'_, '_>>,
) -> PyResult<PyTensor> {
    refuse_other(other)?;
    made(|| tensor::scatter_add(GatherMode::Take, &x.0, &indices.0, &updates.0, axis))
}

/// Σₖ x1ᵢₖ·x2ₖⱼ over the last two axes; leading axes broadcast, a 1-d operand is a row (x1) or a column (x2).
#[pyfunction]
#[pyo3(signature = (x1, x2, /))]
pub fn matmul(x1: PyRef<'_, PyTensor>, x2: PyRef<'_, PyTensor>) -> PyResult<PyTensor> {
    made(|| tensor::matmul(&x1.0, &x2.0))
}
