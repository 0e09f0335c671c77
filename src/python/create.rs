//! Functions that make tensors: from data, from shapes, at random.

use super::dtype::{PyDType, PyDevice, place};
use super::errors::{read, record, refuse};
use super::import;
use super::operand::{self, Dims};
use super::tensor::{PyTensor, made};
use crate::device_id::DeviceId;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::scalar::Scalar;
use crate::tensor::{self, Tensor, trace};
use pyo3::prelude::*;

/// A number argument, exact.
pub struct Number(Scalar);

impl<'a, 'py> FromPyObject<'a, 'py> for Number {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Number> {
        operand::number(object).map(Number)
    }
}

fn or(dtype: Option<PyDType>, default: DType) -> DType {
    dtype.map_or(default, |dtype| dtype.0)
}

/// The device that an argument names, else that of `x`.
fn like(x: &Tensor, device: Option<PyDevice>) -> PyResult<DeviceId> {
    device.map_or(Ok(x.device()), |device| place(Some(device)))
}

/// Copy numbers, nested lists, buffers, arrays or a tensor.
///
/// Args:
///     data: what to copy. Python floats become float32, integers int64; buffers and arrays keep their dtype.
///     dtype: the element type, if another one is wanted.
///     device: "cpu" or "gpu"; that of the data by default.
///     requires_grad: make it a variable.
///
/// Raises:
///     ShapeError: nested lists of unequal lengths.
///     DTypeError: elements of a type that is not held.
///
/// Example:
///     >>> import wengert as wg
///     >>> wg.tensor([[1, 2], [3, 4]]).shape
///     (2, 2)
#[pyfunction(name = "tensor")]
#[pyo3(signature = (data, *, dtype = None, device = None, requires_grad = false))]
pub fn new_tensor(
    data: &Bound<'_, PyAny>,
    dtype: Option<PyDType>,
    device: Option<PyDevice>,
    requires_grad: bool,
) -> PyResult<PyTensor> {
    let device = device.map(|device| place(Some(device))).transpose()?;
    let made = import::tensor(data, dtype.map(|dtype| dtype.0), device)?;
    if requires_grad {
        record(|| made.set_requires_grad(true))?;
    }
    Ok(PyTensor(made))
}

/// Return a tensor as it is, or copy other data; `copy=False` shares a buffer: do not write to it while pending.
#[pyfunction]
#[pyo3(signature = (obj, *, dtype = None, device = None, copy = None))]
pub fn asarray<'py>(
    obj: &Bound<'py, PyAny>,
    dtype: Option<PyDType>,
    device: Option<PyDevice>,
    copy: Option<bool>,
) -> PyResult<Bound<'py, PyTensor>> {
    let wanted = dtype.map(|dtype| dtype.0);
    let device = device.map(|device| place(Some(device))).transpose()?;
    if let (Ok(tensor), true) = (obj.cast::<PyTensor>(), copy != Some(true)) {
        let own = &tensor.get().0;
        if wanted.is_none_or(|wanted| wanted == own.dtype()) && device.is_none_or(|device| device == own.device()) {
            return Ok(tensor.clone());
        }
    }
    if copy != Some(false) {
        return Bound::new(obj.py(), PyTensor(import::tensor(obj, wanted, device)?));
    }
    if let Some(device) = device.filter(|device| !device.is_cpu()) {
        return Err(refuse(Error::value(format!("asarray: {device} needs a copy, which copy=False forbids"))));
    }
    let shared = import::share(obj)?;
    match wanted.filter(|wanted| *wanted != shared.dtype()) {
        Some(wanted) => Err(refuse(Error::value(format!(
            "asarray: the array is {}, and {wanted} needs a copy, which copy=False forbids",
            shared.dtype()
        )))),
        None => Bound::new(obj.py(), PyTensor(shared)),
    }
}

/// Copy a NumPy array; `copy=False` shares its memory: do not write to it while pending.
#[pyfunction]
#[pyo3(signature = (array, *, copy = true))]
pub fn from_numpy(array: &Bound<'_, PyAny>, copy: bool) -> PyResult<PyTensor> {
    let made = if copy { import::tensor(array, None, None)? } else { import::share(array)? };
    Ok(PyTensor(made))
}

/// Zeros of this shape.
#[pyfunction]
#[pyo3(signature = (shape, *, dtype = None, device = None))]
pub fn zeros(shape: Dims, dtype: Option<PyDType>, device: Option<PyDevice>) -> PyResult<PyTensor> {
    let device = place(device)?;
    made(|| constant(shape, 0, or(dtype, DType::F32), device))
}

/// Ones of this shape.
#[pyfunction]
#[pyo3(signature = (shape, *, dtype = None, device = None))]
pub fn ones(shape: Dims, dtype: Option<PyDType>, device: Option<PyDevice>) -> PyResult<PyTensor> {
    let device = place(device)?;
    made(|| constant(shape, 1, or(dtype, DType::F32), device))
}

fn constant(shape: Dims, value: i64, dtype: DType, device: DeviceId) -> Result<Tensor> {
    let constant = match dtype {
        DType::Bool => Scalar::Bool(value != 0),
        DType::F32 | DType::F64 => Scalar::F64(value as f64),
        DType::U8 | DType::I32 | DType::I64 => Scalar::I64(value),
    };
    tensor::full(shape.0, constant, dtype, device)
}

/// A number in every element; the dtype is that of the number unless given.
#[pyfunction]
#[pyo3(signature = (shape, fill_value, *, dtype = None, device = None))]
pub fn full(shape: Dims, fill_value: Number, dtype: Option<PyDType>, device: Option<PyDevice>) -> PyResult<PyTensor> {
    let device = place(device)?;
    made(|| tensor::filled(shape.0, fill_value.0, or(dtype, fill_value.0.dtype()), device))
}

/// Zeros of the shape and dtype of x, on its device unless another is given.
#[pyfunction]
#[pyo3(signature = (x, /, *, dtype = None, device = None))]
pub fn zeros_like(x: PyRef<'_, PyTensor>, dtype: Option<PyDType>, device: Option<PyDevice>) -> PyResult<PyTensor> {
    let device = like(&x.0, device)?;
    made(|| constant(Dims(x.0.shape()), 0, or(dtype, x.0.dtype()), device))
}

/// Ones of the shape and dtype of x, on its device unless another is given.
#[pyfunction]
#[pyo3(signature = (x, /, *, dtype = None, device = None))]
pub fn ones_like(x: PyRef<'_, PyTensor>, dtype: Option<PyDType>, device: Option<PyDevice>) -> PyResult<PyTensor> {
    let device = like(&x.0, device)?;
    made(|| constant(Dims(x.0.shape()), 1, or(dtype, x.0.dtype()), device))
}

/// A number in every element, of the shape and dtype of x, on its device unless another is given.
#[pyfunction]
#[pyo3(signature = (x, /, fill_value, *, dtype = None, device = None))]
pub fn full_like(
    x: PyRef<'_, PyTensor>,
    fill_value: Number,
    dtype: Option<PyDType>,
    device: Option<PyDevice>,
) -> PyResult<PyTensor> {
    let device = like(&x.0, device)?;
    made(|| tensor::filled(x.0.shape(), fill_value.0, or(dtype, x.0.dtype()), device))
}

/// start, start + step, … before stop; from 0 if only one number is given.
///
/// Example:
///     >>> import wengert as wg
///     >>> wg.arange(3)
///     tensor([0, 1, 2])
#[pyfunction]
#[pyo3(signature = (start, /, stop = None, step = Number(Scalar::I64(1)), *, dtype = None, device = None), text_signature = "(start, /, stop=None, step=1, *, dtype=None, device=None)")]
pub fn arange(
    start: Number,
    stop: Option<Number>,
    step: Number,
    dtype: Option<PyDType>,
    device: Option<PyDevice>,
) -> PyResult<PyTensor> {
    let device = place(device)?;
    let (first, end) = match stop {
        Some(stop) => (start.0, stop.0),
        None => (Scalar::I64(0), start.0),
    };
    made(|| tensor::arange(first, end, step.0, dtype.map(|dtype| dtype.0), device))
}

/// 1 where the new last axis counts to the index, else 0; an index out of range gives a row of zeros.
#[pyfunction]
#[pyo3(signature = (indices, num_classes, *, dtype = None))]
pub fn one_hot(indices: PyRef<'_, PyTensor>, num_classes: i64, dtype: Option<PyDType>) -> PyResult<PyTensor> {
    made(|| tensor::one_hot(&indices.0, num_classes, or(dtype, DType::I64)))
}

/// Starts the random streams of this seed again.
#[pyfunction]
pub fn manual_seed(seed: i64) -> PyResult<()> {
    read(|| trace::refuse_call("manual_seed: a compiled step draws on from where the generator is; seed it outside"))?;
    tensor::manual_seed(seed as u64);
    Ok(())
}

/// The seed in use.
#[pyfunction]
pub fn initial_seed() -> u64 {
    tensor::seed().0
}

/// The seed and the number of streams used.
#[pyfunction]
pub fn get_rng_state() -> (u64, u64) {
    tensor::seed()
}

/// Puts back what `get_rng_state` gave.
#[pyfunction]
#[pyo3(signature = (state, /))]
pub fn set_rng_state(state: (u64, u64)) -> PyResult<()> {
    read(|| trace::refuse_call("set_rng_state: a compiled step draws on from where the generator is; set it outside"))?;
    tensor::set_rng_state(state.0, state.1);
    Ok(())
}
