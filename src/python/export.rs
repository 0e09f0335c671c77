//! Data out: Python numbers, lists, and NumPy arrays on the same memory. NumPy is imported when it is asked for.

use super::errors::read;
use crate::dtype::DType;
use crate::error::Error;
use crate::graph::TensorType;
use crate::scalar::Scalar;
use crate::tensor::{self, Tensor, Value, trace};
use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyList;
use std::ffi::{CStr, c_int, c_void};

/// A number as Python's own.
pub fn number(py: Python<'_>, number: Scalar) -> PyResult<Bound<'_, PyAny>> {
    Ok(match number {
        Scalar::Bool(x) => pyo3::types::PyBool::new(py, x).to_owned().into_any(),
        Scalar::I64(x) => x.into_pyobject(py)?.into_any(),
        Scalar::F64(x) => x.into_pyobject(py)?.into_any(),
    })
}

/// Nested lists of the elements.
pub fn tolist<'py>(py: Python<'py>, tensor: &Tensor) -> PyResult<Bound<'py, PyAny>> {
    read(|| trace::refuse_read("tolist"))?;
    let (bytes, ty) = read(|| Ok((tensor::to_bytes(tensor)?, tensor.ty())))?;
    let mut elements = bytes.chunks_exact(ty.dtype.size());
    list(py, ty.dtype, &ty.shape, &mut elements)
}

fn list<'py, 'a>(
    py: Python<'py>,
    dtype: DType,
    shape: &[usize],
    elements: &mut impl Iterator<Item = &'a [u8]>,
) -> PyResult<Bound<'py, PyAny>> {
    let Some((&length, inner)) = shape.split_first() else {
        let element = elements.next().map_or(Scalar::F64(f64::NAN), |bytes| Scalar::from_bytes(dtype, bytes));
        return number(py, element);
    };
    let items: Vec<_> = (0..length).map(|_| list(py, dtype, inner, elements)).collect::<PyResult<_>>()?;
    Ok(PyList::new(py, items)?.into_any())
}

/// A read-only array on the memory of the tensor, or on a copy if that is a device's.
pub fn numpy<'py>(py: Python<'py>, tensor: &Tensor) -> PyResult<Bound<'py, PyAny>> {
    read(|| trace::refuse_read("numpy"))?;
    let (value, ty) = read(|| tensor.host_value())?;
    let window = Bound::new(py, Window::new(value, ty))?;
    py.import("numpy")?.call_method1("asarray", (window,))
}

/// NumPy's own protocol: an array of this dtype, a copy if asked for.
pub fn array<'py>(
    py: Python<'py>,
    tensor: &Tensor,
    dtype: Option<&Bound<'py, PyAny>>,
    copy: Option<bool>,
) -> PyResult<Bound<'py, PyAny>> {
    let device = tensor.device();
    if copy == Some(false) && !device.is_cpu() {
        return Err(PyValueError::new_err(format!(
            "__array__: what is on {device} needs a copy, and copy=False was asked"
        )));
    }
    let array = numpy(py, tensor)?;
    let converted = match dtype {
        Some(dtype) if !py.import("numpy")?.call_method1("dtype", (dtype,))?.eq(array.getattr("dtype")?)? => {
            if copy == Some(false) {
                return Err(PyValueError::new_err("__array__: another dtype needs a copy, and copy=False was asked"));
            }
            return array.call_method1("astype", (dtype,));
        }
        _ => array,
    };
    if copy == Some(true) { converted.call_method0("copy") } else { Ok(converted) }
}

/// The memory of a value, shown by the buffer protocol. While it lives, no plan writes there.
#[pyclass(frozen, name = "_Window", module = "wengert._core")]
struct Window {
    value: Value,
    ty: TensorType,
    shape: Vec<ffi::Py_ssize_t>,
    strides: Vec<ffi::Py_ssize_t>,
}

impl Window {
    fn new(value: Value, ty: TensorType) -> Window {
        let size = ty.dtype.size() as isize;
        let shape = ty.shape.iter().map(|&dim| dim as ffi::Py_ssize_t).collect();
        let strides = value.strides.iter().map(|stride| stride * size).collect();
        Window { value, ty, shape, strides }
    }
}

fn format(dtype: DType) -> &'static CStr {
    match dtype {
        DType::Bool => c"?",
        DType::U8 => c"B",
        DType::I32 => c"i",
        // NumPy's int64 is the C type of this size that has the lower rank.
        DType::I64 if size_of::<std::ffi::c_long>() == 8 => c"l",
        DType::I64 => c"q",
        DType::F32 => c"f",
        DType::F64 => c"d",
    }
}

#[pymethods]
impl Window {
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no view was given"));
        }
        // SAFETY: the caller gives a structure to fill, or null.
        unsafe { (*view).obj = std::ptr::null_mut() };
        if flags & ffi::PyBUF_WRITABLE == ffi::PyBUF_WRITABLE {
            return Err(PyBufferError::new_err("the memory of a tensor is read-only"));
        }
        let window = slf.get();
        let strided = flags & ffi::PyBUF_STRIDES == ffi::PyBUF_STRIDES;
        if !strided && !crate::machine::cpu::view::is_contiguous(&window.ty.shape, &window.value.strides) {
            return Err(PyBufferError::new_err("the memory of this tensor is strided"));
        }
        let size = window.ty.dtype.size();
        // SAFETY: the window, which the view keeps alive, owns the memory, the shape and the strides; the offset of a
        // value lies in its buffer.
        unsafe {
            (*view).buf = window.value.buffer.host().as_mut_ptr().add(window.value.offset * size).cast::<c_void>();
            (*view).len = window.ty.bytes() as ffi::Py_ssize_t;
            (*view).readonly = 1;
            (*view).itemsize = size as ffi::Py_ssize_t;
            (*view).format = format(window.ty.dtype).as_ptr().cast_mut();
            (*view).ndim = window.shape.len() as c_int;
            (*view).shape = window.shape.as_ptr().cast_mut();
            (*view).strides = if strided { window.strides.as_ptr().cast_mut() } else { std::ptr::null_mut() };
            (*view).suboffsets = std::ptr::null_mut();
            (*view).internal = std::ptr::null_mut();
            (*view).obj = slf.into_any().into_ptr();
        }
        Ok(())
    }
}

/// An error for a tensor that should have had one element.
pub fn not_one(what: &str, tensor: &Tensor) -> Error {
    let shape = tensor.shape();
    Error::value(format!("{what}: shape {shape} has {} elements, not one", shape.size()))
}
