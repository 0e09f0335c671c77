//! The class `Tensor`: properties, reads, operators, and the methods that are functions of the same name.

use super::dtype::{PyDType, PyDevice, Target, dtype_object};
use super::errors::{read, record, refuse};
use super::operand::{Ints, Operand, Other, refuse_other};
use super::{export, import, index, objects, print};
use crate::device_id::DeviceId;
use crate::error::{Error, Result};
use crate::ops::{activation, arithmetic, compare, exponential, reduce, trigonometric};
use crate::scalar::Scalar;
use crate::shape::Shape;
use crate::tensor::{self, BackwardOptions, SliceArg, Tensor, trace};
use pyo3::exceptions::{PyAttributeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A handle on a value that exists or is recorded. It can be subclassed.
///
/// `Tensor(data)` is a new handle, without history, on the value of the tensor `data`, or on a copy of other data.
///
/// Args:
///     data: a tensor, a number, nested lists, or an array.
///     dtype: the element type; by default that of `data`, float32 for Python floats, int64 for Python integers.
///
/// Example:
///     >>> import wengert as wg
///     >>> wg.Tensor([1.0, 2.0]) * 2
///     tensor([2., 4.])
#[pyclass(frozen, subclass, weakref, name = "Tensor", module = "wengert")]
pub struct PyTensor(pub Tensor);

/// Records, and gives the new tensor.
#[inline]
pub fn made(f: impl FnOnce() -> Result<Tensor>) -> PyResult<PyTensor> {
    record(f).map(PyTensor)
}

type Axes = Option<Ints>;

#[pymethods]
impl PyTensor {
    #[new]
    #[pyo3(signature = (data, *, dtype = None))]
    fn new(data: &Bound<'_, PyAny>, dtype: Option<PyDType>) -> PyResult<PyTensor> {
        import::tensor(data, dtype.map(|dtype| dtype.0), None).map(PyTensor)
    }

    #[classattr]
    fn __array_ufunc__() -> Option<()> {
        None
    }

    #[classattr]
    fn __array_priority__() -> f64 {
        1000.0
    }

    fn __hash__(&self) -> isize {
        self.0.address() as isize >> 4
    }

    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.0.shape().iter())
    }

    #[getter]
    fn dtype(&self, py: Python<'_>) -> PyResult<Py<PyDType>> {
        dtype_object(py, self.0.dtype())
    }

    #[getter]
    fn device(&self) -> PyDevice {
        PyDevice(self.0.device())
    }

    #[getter]
    fn ndim(&self) -> usize {
        self.0.shape().rank()
    }

    /// The number of elements.
    #[getter]
    fn size(&self) -> usize {
        self.0.shape().size()
    }

    #[getter]
    fn nbytes(&self) -> usize {
        self.0.ty().bytes()
    }

    /// The transpose of a tensor of two axes.
    #[getter(T)]
    fn transpose(&self) -> PyResult<PyTensor> {
        made(|| match self.0.shape().rank() {
            2 => tensor::permute(&self.0, &[1, 0]),
            _ => Err(Error::value(format!("T: shape {} has not two axes; use mT or permute_dims", self.0.shape()))),
        })
    }

    /// The last two axes exchanged.
    #[getter(mT)]
    fn matrix_transpose(&self) -> PyResult<PyTensor> {
        made(|| tensor::matrix_transpose(&self.0))
    }

    #[getter]
    fn requires_grad(&self) -> bool {
        self.0.requires_grad()
    }

    #[setter(requires_grad)]
    fn put_requires_grad(&self, on: bool) -> PyResult<()> {
        record(|| self.0.set_requires_grad(on))
    }

    #[getter]
    fn grad(&self) -> Option<PyTensor> {
        self.0.grad().map(PyTensor)
    }

    #[setter(grad)]
    fn put_grad(&self, grad: Option<PyRef<'_, PyTensor>>) -> PyResult<()> {
        record(|| self.0.set_grad(grad.map(|grad| grad.0.clone())))
    }

    /// Whether this is a variable, or a value without history.
    #[getter]
    fn is_leaf(&self) -> bool {
        self.0.is_leaf()
    }

    /// The only element, as a Python number.
    fn item<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        read(|| trace::refuse_read("item"))?;
        export::number(py, read(|| tensor::item(&self.0))?)
    }

    /// Nested lists of Python numbers; a number for a 0-d tensor.
    fn tolist<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        export::tolist(py, &self.0)
    }

    /// A read-only NumPy array on the same memory.
    fn numpy<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        export::numpy(py, &self.0)
    }

    #[pyo3(signature = (dtype = None, copy = None))]
    fn __array__<'py>(
        &self,
        py: Python<'py>,
        dtype: Option<&Bound<'py, PyAny>>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        export::array(py, &self.0, dtype, copy)
    }

    fn __bool__(&self) -> PyResult<bool> {
        self.only_element("bool").map(Scalar::as_bool)
    }

    fn __float__(&self) -> PyResult<f64> {
        self.only_element("float").map(Scalar::as_f64)
    }

    fn __int__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        export::number(py, self.only_element("int")?)?.call_method0("__int__")
    }

    fn __index__(&self) -> PyResult<i64> {
        match (self.0.dtype().is_integer(), self.0.shape().rank()) {
            (true, 0) => self.only_element("index").map(Scalar::as_i64),
            _ => Err(PyTypeError::new_err(format!(
                "only an integer tensor without axes is an index, not {}",
                self.0.ty()
            ))),
        }
    }

    fn __len__(&self) -> PyResult<usize> {
        self.0.shape().first().copied().ok_or_else(|| PyTypeError::new_err("a tensor without axes has no length"))
    }

    /// Parts along the first axis; a 0-d tensor raises TypeError.
    fn __iter__(&self) -> PyResult<Parts> {
        Ok(Parts { tensor: self.0.clone(), length: self.__len__()?, next: AtomicUsize::new(0) })
    }

    /// Called for names that do not exist: says what does the same here.
    fn __getattr__(slf: &Bound<'_, Self>, name: &str) -> PyResult<Py<PyAny>> {
        let class = slf.get_type().name()?;
        Err(PyAttributeError::new_err(match replacement(name) {
            Some(replacement) => format!("{class} has no attribute {name:?}; {replacement}"),
            None => format!("{class} has no attribute {name:?}"),
        }))
    }

    fn __repr__(&self) -> PyResult<String> {
        read(|| print::tensor(&self.0))
    }

    fn __format__<'py>(&self, py: Python<'py>, spec: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        print::format(py, &self.0, spec)
    }

    fn __deepcopy__<'py>(slf: &Bound<'py, Self>, memo: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        objects::deepcopy(slf, memo)
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        objects::reduce(slf)
    }

    /// Add the gradient of this tensor to `.grad` of the variables it depends on.
    ///
    /// Args:
    ///     gradient: the cotangent of this tensor, of its shape; 1 for a tensor of one element.
    ///     retain_graph: keep the history for another backward pass.
    ///     create_graph: record the gradient so that it can be differentiated.
    ///     strict: raise if a variable that this was computed from gets no gradient.
    ///
    /// Raises:
    ///     GradError: no variable reaches this tensor, or its history was used up by an earlier pass.
    ///
    /// Example:
    ///     >>> import wengert as wg
    ///     >>> w = wg.tensor([1.0, 2.0], requires_grad=True)
    ///     >>> (w * w).sum().backward()
    ///     >>> w.grad
    ///     tensor([2., 4.])
    #[pyo3(signature = (gradient = None, *, retain_graph = false, create_graph = false, strict = false))]
    fn backward(
        &self,
        gradient: Option<PyRef<'_, PyTensor>>,
        retain_graph: bool,
        create_graph: bool,
        strict: bool,
    ) -> PyResult<()> {
        // As in torch, what can be differentiated again is kept.
        let options = BackwardOptions { retain_graph: Some(retain_graph || create_graph), create_graph, strict };
        record(|| tensor::backward(&self.0, gradient.as_ref().map(|gradient| &gradient.0), options))
    }

    #[pyo3(signature = (requires_grad = true))]
    fn requires_grad_<'py>(slf: &Bound<'py, Self>, requires_grad: bool) -> PyResult<Bound<'py, Self>> {
        record(|| slf.get().0.set_requires_grad(requires_grad))?;
        Ok(slf.clone())
    }

    fn detach(&self) -> PyResult<PyTensor> {
        made(|| tensor::detach(&self.0))
    }

    fn clone(&self) -> PyResult<PyTensor> {
        made(|| Ok(tensor::alias(&self.0)))
    }

    /// Take the values of `source`, broadcast and cast, from any device. For variables and plain values, in any grad mode.
    fn copy_<'py>(slf: &Bound<'py, Self>, source: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Self>> {
        let source = import::borrow(source)?;
        record(|| {
            let own = &slf.get().0;
            let ty = own.ty();
            let device = own.device();
            let _mode = (source.device() != device).then(|| tensor::GradGuard::new(false));
            let taken = tensor::convert(&source, Some(device), Some(ty.dtype))?;
            crate::nn::assign("copy_", own, &tensor::broadcast_to(&taken, ty.shape)?)
        })?;
        Ok(slf.clone())
    }

    #[pyo3(signature = (dtype, /, *, copy = true))]
    fn astype(&self, dtype: PyDType, copy: bool) -> PyResult<PyTensor> {
        let _ = copy;
        made(|| tensor::cast(&self.0, dtype.0))
    }

    /// This tensor on another device, or with another element type, or both.
    ///
    /// A move between devices evaluates the tensor and copies the value. No gradient passes through it.
    ///
    /// Args:
    ///     target: a device ("cpu", "gpu", "gpu:1") or an element type.
    ///     dtype: the element type, after a device.
    ///
    /// Raises:
    ///     DeviceError: no such device.
    ///     GradError: a move of a tensor that requires a gradient, outside `no_grad`.
    ///     UnsupportedError: float64 on a GPU.
    ///
    /// Example:
    ///     >>> import wengert as wg
    ///     >>> wg.ones((2,)).to("cpu", wg.int64)
    ///     tensor([1, 1])
    #[pyo3(signature = (target, dtype = None, /))]
    fn to(&self, target: &Bound<'_, PyAny>, dtype: Option<PyDType>) -> PyResult<PyTensor> {
        let Target { device, dtype } = Target::of(target, dtype)?;
        made(|| tensor::convert(&self.0, device, dtype))
    }

    /// This tensor on the CPU: itself if it is there.
    fn cpu(&self) -> PyResult<PyTensor> {
        made(|| tensor::to_device(&self.0, DeviceId::Cpu))
    }

    fn __add__(&self, other: Operand<'_, '_>) -> PyResult<PyTensor> {
        made(|| tensor::binary(&arithmetic::ADD, (&self.0).into(), other.arg()))
    }

    fn __radd__(&self, other: Operand<'_, '_>) -> PyResult<PyTensor> {
        made(|| tensor::binary(&arithmetic::ADD, other.arg(), (&self.0).into()))
    }

    fn __sub__(&self, other: Operand<'_, '_>) -> PyResult<PyTensor> {
        made(|| tensor::binary(&arithmetic::SUBTRACT, (&self.0).into(), other.arg()))
    }

    fn __rsub__(&self, other: Operand<'_, '_>) -> PyResult<PyTensor> {
        made(|| tensor::binary(&arithmetic::SUBTRACT, other.arg(), (&self.0).into()))
    }

    fn __mul__(&self, other: Operand<'_, '_>) -> PyResult<PyTensor> {
        made(|| tensor::binary(&arithmetic::MULTIPLY, (&self.0).into(), other.arg()))
    }

    fn __rmul__(&self, other: Operand<'_, '_>) -> PyResult<PyTensor> {
        made(|| tensor::binary(&arithmetic::MULTIPLY, other.arg(), (&self.0).into()))
    }

    fn __truediv__(&self, other: Operand<'_, '_>) -> PyResult<PyTensor> {
        made(|| tensor::binary(&arithmetic::DIVIDE, (&self.0).into(), other.arg()))
    }

    fn __rtruediv__(&self, other: Operand<'_, '_>) -> PyResult<PyTensor> {
        made(|| tensor::binary(&arithmetic::DIVIDE, other.arg(), (&self.0).into()))
    }

    fn __floordiv__(&self, other: Operand<'_, '_>) -> PyResult<PyTensor> {
        made(|| tensor::binary(&arithmetic::FLOOR_DIVIDE, (&self.0).into(), other.arg()))
    }

    fn __rfloordiv__(&self, other: Operand<'_, '_>) -> PyResult<PyTensor> {
        made(|| tensor::binary(&arithmetic::FLOOR_DIVIDE, other.arg(), (&self.0).into()))
    }

    fn __mod__(&self, other: Operand<'_, '_>) -> PyResult<PyTensor> {
        made(|| tensor::binary(&arithmetic::REMAINDER, (&self.0).into(), other.arg()))
    }

    fn __rmod__(&self, other: Operand<'_, '_>) -> PyResult<PyTensor> {
        made(|| tensor::binary(&arithmetic::REMAINDER, other.arg(), (&self.0).into()))
    }

    fn __pow__(&self, other: Operand<'_, '_>, modulo: Option<&Bound<'_, PyAny>>) -> PyResult<PyTensor> {
        refuse_modulo(modulo)?;
        made(|| tensor::pow((&self.0).into(), other.arg()))
    }

    fn __rpow__(&self, other: Operand<'_, '_>, modulo: Option<&Bound<'_, PyAny>>) -> PyResult<PyTensor> {
        refuse_modulo(modulo)?;
        made(|| tensor::pow(other.arg(), (&self.0).into()))
    }

    fn __and__(&self, other: Operand<'_, '_>) -> PyResult<PyTensor> {
        made(|| tensor::binary(&compare::AND, (&self.0).into(), other.arg()))
    }

    fn __rand__(&self, other: Operand<'_, '_>) -> PyResult<PyTensor> {
        made(|| tensor::binary(&compare::AND, other.arg(), (&self.0).into()))
    }

    fn __or__(&self, other: Operand<'_, '_>) -> PyResult<PyTensor> {
        made(|| tensor::binary(&compare::OR, (&self.0).into(), other.arg()))
    }

    fn __ror__(&self, other: Operand<'_, '_>) -> PyResult<PyTensor> {
        made(|| tensor::binary(&compare::OR, other.arg(), (&self.0).into()))
    }

    fn __xor__(&self, other: Operand<'_, '_>) -> PyResult<PyTensor> {
        made(|| tensor::binary(&compare::XOR, (&self.0).into(), other.arg()))
    }

    fn __rxor__(&self, other: Operand<'_, '_>) -> PyResult<PyTensor> {
        made(|| tensor::binary(&compare::XOR, other.arg(), (&self.0).into()))
    }

    fn __iadd__(slf: &Bound<'_, Self>, other: Operand<'_, '_>) -> PyResult<()> {
        let own = &slf.get().0;
        record(|| in_place(own, || tensor::binary(&arithmetic::ADD, own.into(), other.arg())))
    }

    fn __isub__(slf: &Bound<'_, Self>, other: Operand<'_, '_>) -> PyResult<()> {
        let own = &slf.get().0;
        record(|| in_place(own, || tensor::binary(&arithmetic::SUBTRACT, own.into(), other.arg())))
    }

    fn __imul__(slf: &Bound<'_, Self>, other: Operand<'_, '_>) -> PyResult<()> {
        let own = &slf.get().0;
        record(|| in_place(own, || tensor::binary(&arithmetic::MULTIPLY, own.into(), other.arg())))
    }

    fn __itruediv__(slf: &Bound<'_, Self>, other: Operand<'_, '_>) -> PyResult<()> {
        let own = &slf.get().0;
        record(|| in_place(own, || tensor::binary(&arithmetic::DIVIDE, own.into(), other.arg())))
    }

    fn __lt__(&self, other: Operand<'_, '_>) -> PyResult<PyTensor> {
        made(|| tensor::binary(&compare::LESS, (&self.0).into(), other.arg()))
    }

    fn __le__(&self, other: Operand<'_, '_>) -> PyResult<PyTensor> {
        made(|| tensor::binary(&compare::LESS_EQUAL, (&self.0).into(), other.arg()))
    }

    fn __gt__(&self, other: Operand<'_, '_>) -> PyResult<PyTensor> {
        made(|| tensor::binary(&compare::GREATER, (&self.0).into(), other.arg()))
    }

    fn __ge__(&self, other: Operand<'_, '_>) -> PyResult<PyTensor> {
        made(|| tensor::binary(&compare::GREATER_EQUAL, (&self.0).into(), other.arg()))
    }

    fn __eq__(&self, other: Operand<'_, '_>) -> PyResult<PyTensor> {
        made(|| tensor::binary(&compare::EQUAL, (&self.0).into(), other.arg()))
    }

    fn __ne__(&self, other: Operand<'_, '_>) -> PyResult<PyTensor> {
        made(|| tensor::binary(&compare::NOT_EQUAL, (&self.0).into(), other.arg()))
    }

    fn __matmul__(&self, other: PyRef<'_, PyTensor>) -> PyResult<PyTensor> {
        made(|| tensor::matmul(&self.0, &other.0))
    }

    fn __neg__(&self) -> PyResult<PyTensor> {
        made(|| tensor::unary(&arithmetic::NEGATIVE, (&self.0).into()))
    }

    fn __pos__(&self) -> PyResult<PyTensor> {
        made(|| Ok(tensor::alias(&self.0)))
    }

    fn __abs__(&self) -> PyResult<PyTensor> {
        self.abs()
    }

    fn __invert__(&self) -> PyResult<PyTensor> {
        made(|| tensor::unary(&compare::INVERT, (&self.0).into()))
    }

    fn __getitem__(&self, index: &Bound<'_, PyAny>) -> PyResult<PyTensor> {
        index::get(&self.0, index).map(PyTensor)
    }

    fn __setitem__(&self, index: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        index::set(&self.0, index, value)
    }

    fn abs(&self) -> PyResult<PyTensor> {
        made(|| tensor::unary(&arithmetic::ABS, (&self.0).into()))
    }

    fn square(&self) -> PyResult<PyTensor> {
        made(|| tensor::unary(&arithmetic::SQUARE, (&self.0).into()))
    }

    fn sign(&self) -> PyResult<PyTensor> {
        made(|| tensor::unary(&arithmetic::SIGN, (&self.0).into()))
    }

    fn exp(&self) -> PyResult<PyTensor> {
        made(|| tensor::unary(&exponential::EXP, (&self.0).into()))
    }

    fn log(&self) -> PyResult<PyTensor> {
        made(|| tensor::unary(&exponential::LOG, (&self.0).into()))
    }

    fn sqrt(&self) -> PyResult<PyTensor> {
        made(|| tensor::unary(&exponential::SQRT, (&self.0).into()))
    }

    fn sin(&self) -> PyResult<PyTensor> {
        made(|| tensor::unary(&trigonometric::SIN, (&self.0).into()))
    }

    fn cos(&self) -> PyResult<PyTensor> {
        made(|| tensor::unary(&trigonometric::COS, (&self.0).into()))
    }

    fn tanh(&self) -> PyResult<PyTensor> {
        made(|| tensor::unary(&activation::TANH, (&self.0).into()))
    }

    fn sigmoid(&self) -> PyResult<PyTensor> {
        made(|| tensor::unary(&activation::SIGMOID, (&self.0).into()))
    }

    fn relu(&self) -> PyResult<PyTensor> {
        made(|| tensor::unary(&activation::RELU, (&self.0).into()))
    }

    #[pyo3(signature = (min = None, max = None))]
    fn clip(&self, min: Option<Operand<'_, '_>>, max: Option<Operand<'_, '_>>) -> PyResult<PyTensor> {
        made(|| tensor::clip(&self.0, min.as_ref().map(Operand::arg), max.as_ref().map(Operand::arg)))
    }

    #[pyo3(signature = (exponent, /))]
    fn pow(&self, exponent: Operand<'_, '_>) -> PyResult<PyTensor> {
        made(|| tensor::pow((&self.0).into(), exponent.arg()))
    }

    #[pyo3(signature = (*shape))]
    fn reshape(&self, shape: &Bound<'_, PyTuple>) -> PyResult<PyTensor> {
        let one = if shape.len() == 1 { shape.get_item(0)? } else { shape.clone().into_any() };
        let Ints(dims) = one.extract()?;
        made(|| tensor::reshape(&self.0, &dims))
    }

    #[pyo3(signature = (start_axis = 0, end_axis = -1), text_signature = "($self, start_axis=0, end_axis=-1)")]
    fn flatten(&self, start_axis: i64, end_axis: i64) -> PyResult<PyTensor> {
        made(|| tensor::flatten(&self.0, start_axis, end_axis))
    }

    fn squeeze(&self, axis: Ints) -> PyResult<PyTensor> {
        made(|| tensor::squeeze(&self.0, &axis.0))
    }

    fn expand_dims(&self, axis: i64) -> PyResult<PyTensor> {
        made(|| tensor::expand_dims(&self.0, axis))
    }

    fn broadcast_to(&self, shape: super::operand::Dims) -> PyResult<PyTensor> {
        made(|| tensor::broadcast_to(&self.0, shape.0))
    }

    fn permute_dims(&self, axes: Ints) -> PyResult<PyTensor> {
        made(|| tensor::permute(&self.0, &axes.0))
    }

    #[pyo3(signature = (axis = None, *, dtype = None, keepdims = false, **other), text_signature = "($self, axis=None, *, dtype=None, keepdims=False)")]
    fn sum(
        &self,
        axis: Axes,
        dtype: Option<PyDType>,
        keepdims: bool,
        other: Option<Other<'_, '_>>,
    ) -> PyResult<PyTensor> {
        refuse_other(other)?;
        made(|| tensor::sum(&self.0, slice(&axis), dtype.map(|dtype| dtype.0), keepdims))
    }

    #[pyo3(signature = (axis = None, *, dtype = None, keepdims = false, **other), text_signature = "($self, axis=None, *, dtype=None, keepdims=False)")]
    fn prod(
        &self,
        axis: Axes,
        dtype: Option<PyDType>,
        keepdims: bool,
        other: Option<Other<'_, '_>>,
    ) -> PyResult<PyTensor> {
        refuse_other(other)?;
        made(|| tensor::prod(&self.0, slice(&axis), dtype.map(|dtype| dtype.0), keepdims))
    }

    #[pyo3(signature = (axis = None, *, keepdims = false, **other), text_signature = "($self, axis=None, *, keepdims=False)")]
    fn mean(&self, axis: Axes, keepdims: bool, other: Option<Other<'_, '_>>) -> PyResult<PyTensor> {
        refuse_other(other)?;
        made(|| tensor::mean(&self.0, slice(&axis), keepdims))
    }

    #[pyo3(signature = (axis = None, *, keepdims = false, **other), text_signature = "($self, axis=None, *, keepdims=False)")]
    fn max(&self, axis: Axes, keepdims: bool, other: Option<Other<'_, '_>>) -> PyResult<PyTensor> {
        refuse_other(other)?;
        made(|| tensor::reduce(&reduce::MAX, &self.0, slice(&axis), keepdims))
    }

    #[pyo3(signature = (axis = None, *, keepdims = false, **other), text_signature = "($self, axis=None, *, keepdims=False)")]
    fn min(&self, axis: Axes, keepdims: bool, other: Option<Other<'_, '_>>) -> PyResult<PyTensor> {
        refuse_other(other)?;
        made(|| tensor::reduce(&reduce::MIN, &self.0, slice(&axis), keepdims))
    }

    #[pyo3(signature = (axis = None, *, correction = 0.0, keepdims = false, **other), text_signature = "($self, axis=None, *, correction=0.0, keepdims=False)")]
    fn var(&self, axis: Axes, correction: f64, keepdims: bool, other: Option<Other<'_, '_>>) -> PyResult<PyTensor> {
        refuse_other(other)?;
        made(|| tensor::var(&self.0, slice(&axis), correction, keepdims))
    }

    #[pyo3(signature = (axis = None, *, correction = 0.0, keepdims = false, **other), text_signature = "($self, axis=None, *, correction=0.0, keepdims=False)")]
    fn std(&self, axis: Axes, correction: f64, keepdims: bool, other: Option<Other<'_, '_>>) -> PyResult<PyTensor> {
        refuse_other(other)?;
        made(|| tensor::std(&self.0, slice(&axis), correction, keepdims))
    }

    #[pyo3(signature = (axis = None, *, keepdims = false, **other), text_signature = "($self, axis=None, *, keepdims=False)")]
    fn all(&self, axis: Axes, keepdims: bool, other: Option<Other<'_, '_>>) -> PyResult<PyTensor> {
        refuse_other(other)?;
        made(|| tensor::all(&self.0, slice(&axis), keepdims))
    }

    #[pyo3(signature = (axis = None, *, keepdims = false, **other), text_signature = "($self, axis=None, *, keepdims=False)")]
    fn any(&self, axis: Axes, keepdims: bool, other: Option<Other<'_, '_>>) -> PyResult<PyTensor> {
        refuse_other(other)?;
        made(|| tensor::any(&self.0, slice(&axis), keepdims))
    }

    #[pyo3(signature = (axis = None, *, keepdims = false, **other), text_signature = "($self, axis=None, *, keepdims=False)")]
    fn argmax(&self, axis: Option<i64>, keepdims: bool, other: Option<Other<'_, '_>>) -> PyResult<PyTensor> {
        refuse_other(other)?;
        made(|| tensor::argmax(&self.0, axis, keepdims))
    }

    #[pyo3(signature = (axis = None, *, keepdims = false, **other), text_signature = "($self, axis=None, *, keepdims=False)")]
    fn argmin(&self, axis: Option<i64>, keepdims: bool, other: Option<Other<'_, '_>>) -> PyResult<PyTensor> {
        refuse_other(other)?;
        made(|| tensor::argmin(&self.0, axis, keepdims))
    }

    #[pyo3(signature = (axis = -1, **other), text_signature = "($self, axis=-1)")]
    fn softmax(&self, axis: i64, other: Option<Other<'_, '_>>) -> PyResult<PyTensor> {
        refuse_other(other)?;
        made(|| tensor::softmax(&self.0, axis))
    }

    #[pyo3(signature = (axis = -1, **other), text_signature = "($self, axis=-1)")]
    fn log_softmax(&self, axis: i64, other: Option<Other<'_, '_>>) -> PyResult<PyTensor> {
        refuse_other(other)?;
        made(|| tensor::log_softmax(&self.0, axis))
    }
}

/// Walks a tensor along its first axis.
#[pyclass(frozen, module = "wengert._core")]
struct Parts {
    tensor: Tensor,
    length: usize,
    next: AtomicUsize,
}

#[pymethods]
impl Parts {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self) -> PyResult<Option<PyTensor>> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        if next >= self.length {
            return Ok(None);
        }
        made(|| {
            let part = tensor::slice(&self.tensor, &[SliceArg { axis: 0, start: next as i64, length: 1, step: 1 }])?;
            tensor::reshape_to(&part, self.tensor.shape().without(1))
        })
        .map(Some)
    }
}

impl PyTensor {
    fn only_element(&self, wanted: &str) -> PyResult<Scalar> {
        read(|| {
            trace::refuse_read(wanted)?;
            let shape: Shape = self.0.shape();
            match shape.size() {
                1 => tensor::item(&self.0),
                n => Err(Error::value(format!(
                    "{wanted}: shape {shape} has {n} elements, not one; use all(), any() or tolist()"
                ))),
            }
        })
    }
}

/// What to write instead of a name that other libraries have.
fn replacement(name: &str) -> Option<&'static str> {
    Some(match name {
        "data" => "use x.detach(), or change x under wg.no_grad()",
        "view" | "view_as" | "reshape_as" => "use x.reshape(shape)",
        "numel" | "nelement" => "use x.size",
        "dim" => "use x.ndim",
        "unsqueeze" => "use x.expand_dims(axis)",
        "transpose" | "permute" | "swapaxes" => "use x.permute_dims(axes), x.T or x.mT",
        "expand" => "use x.broadcast_to(shape)",
        "clamp" => "use x.clip(min, max)",
        "norm" => "use wg.vector_norm(x)",
        "cuda" | "gpu" => "use x.to(\"gpu\")",
        "float" => "use x.astype(wg.float32)",
        "double" => "use x.astype(wg.float64)",
        "long" => "use x.astype(wg.int64)",
        "fill_" | "zero_" | "uniform_" | "normal_" => "use wg.nn.init",
        _ if name.ends_with('_') && !name.starts_with('_') => {
            "use x += y and the like, under wg.no_grad() for a variable"
        }
        _ => return None,
    })
}

fn slice(axes: &Axes) -> Option<&[i64]> {
    axes.as_ref().map(|axes| axes.0.as_slice())
}

/// Rebinds a tensor to what was recorded from it.
fn in_place(own: &Tensor, f: impl FnOnce() -> Result<Tensor>) -> Result<()> {
    if own.is_variable() && tensor::grad_enabled() {
        return own.rebind(own);
    }
    let ty = own.ty();
    let new = f()?;
    let got = new.ty();
    if got.shape != ty.shape {
        return Err(Error::shape(format!(
            "a tensor of shape {} cannot take a result of shape {}",
            ty.shape, got.shape
        )));
    }
    if got.dtype != ty.dtype {
        return Err(Error::dtype(format!(
            "a tensor of {} cannot take a result of {}; use astype",
            ty.dtype, got.dtype
        )));
    }
    own.rebind(&new)
}

fn refuse_modulo(modulo: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    match modulo {
        Some(modulo) if !modulo.is_none() => Err(refuse(Error::unsupported("pow: a modulus is not supported"))),
        _ => Ok(()),
    }
}
