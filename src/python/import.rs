//! Data in: numbers, nested sequences, buffers and arrays become tensors. Nothing is computed.

use super::errors::{read, record, refuse};
use super::operand;
use super::tensor::PyTensor;
use crate::device_id::DeviceId;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::TensorType;
use crate::machine::cpu::buffer::Buffer;
use crate::machine::cpu::view::{self, View};
use crate::scalar::Scalar;
use crate::shape::{Shape, Strides};
use crate::tensor::{self, Tensor, Value};
use parking_lot::Mutex;
use pyo3::buffer::PyUntypedBuffer;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt, PyList, PyTuple};
use std::ptr::NonNull;
use std::sync::Arc;

/// Nested deeper than this, a list is not data.
const MAX_DEPTH: usize = 32;

/// A new handle on the data, copied unless it is a tensor's. What is no tensor goes to the CPU if no device is given.
pub fn tensor(data: &Bound<'_, PyAny>, dtype: Option<DType>, device: Option<DeviceId>) -> PyResult<Tensor> {
    if let Ok(tensor) = data.cast::<PyTensor>() {
        return record(|| {
            let value = tensor::detach(&tensor.get().0)?;
            match (dtype.filter(|dtype| *dtype != value.dtype()), device.filter(|device| *device != value.device())) {
                (None, None) => Ok(value),
                (dtype, device) => {
                    let _mode = tensor::GradGuard::new(false);
                    tensor::convert(&value, device, dtype)
                }
            }
        });
    }
    let target = Target { dtype, device: device.unwrap_or_default() };
    let made = if is_nested(data) { nested(data, target)? } else { single(data, target)? };
    match dtype {
        Some(dtype) if dtype != made.dtype() => record(|| tensor::convert(&made, Some(target.device), Some(dtype))),
        _ => Ok(made),
    }
}

/// What is wanted of data that become a tensor.
#[derive(Clone, Copy)]
struct Target {
    dtype: Option<DType>,
    device: DeviceId,
}

impl Target {
    /// Where data of this dtype are put: first on the CPU if they must change their dtype.
    fn device_for(self, dtype: DType) -> DeviceId {
        if self.dtype.is_none_or(|wanted| wanted == dtype) { self.device } else { DeviceId::Cpu }
    }
}

/// The tensor itself, or other data as a tensor.
pub fn borrow(data: &Bound<'_, PyAny>) -> PyResult<Tensor> {
    match data.cast::<PyTensor>() {
        Ok(tensor) => Ok(tensor.get().0.clone()),
        Err(_) => tensor(data, None, None),
    }
}

/// Memory of another object as a tensor, without a copy.
pub fn share(data: &Bound<'_, PyAny>) -> PyResult<Tensor> {
    let buffer = buffer(data)?.ok_or_else(|| {
        refuse(Error::value("copy=False: only an object with a buffer, such as a NumPy array, can be shared"))
    })?;
    read(|| {
        let layout = Layout::of(&buffer)?;
        if !(layout.first as usize).is_multiple_of(layout.ty.dtype.size()) {
            return Err(Error::value("copy=False: the memory of the array is not aligned to its elements"));
        }
        let (lowest, bytes) = layout.extent();
        let size = layout.ty.dtype.size();
        let offset = (layout.first as usize - lowest as usize) / size;
        let ptr = NonNull::new(lowest).unwrap_or(NonNull::dangling());
        let owner = Box::new(Shared(Some(buffer)));
        // SAFETY: the exporter keeps the memory until `owner` gives the buffer back.
        let memory = unsafe { Buffer::from_owner(ptr, bytes, owner) };
        Ok(Tensor::from_value(Value { buffer: Arc::new(memory.into()), offset, strides: layout.strides }, layout.ty))
    })
}

fn is_nested(data: &Bound<'_, PyAny>) -> bool {
    data.is_instance_of::<PyList>() || data.is_instance_of::<PyTuple>()
}

/// A number, or an object that can show its elements.
fn single(data: &Bound<'_, PyAny>, target: Target) -> PyResult<Tensor> {
    // NumPy's float64 is a float by inheritance; it has a dtype of its own all the same.
    if data.is_exact_instance_of::<PyFloat>() || data.is_instance_of::<PyInt>() || data.is_instance_of::<PyBool>() {
        return from_scalar(operand::number(data.as_borrowed())?, target);
    }
    if let Some(tensor) = from_buffer(data, target)? {
        return Ok(tensor);
    }
    // SciPy, pandas, torch and others say so.
    if data.hasattr("__array__")? {
        let array = data.call_method0("__array__")?;
        if let Some(tensor) = from_buffer(&array, target)? {
            return Ok(tensor);
        }
    }
    from_scalar(operand::number(data.as_borrowed())?, target)
}

fn from_scalar(number: Scalar, target: Target) -> PyResult<Tensor> {
    let dtype = target.dtype.unwrap_or(number.dtype());
    let bytes = &number.to_bytes(dtype)[..dtype.size()];
    record(|| Tensor::from_bytes_on(target.device, bytes, TensorType::scalar(dtype)))
}

/// A copy of the buffer of an object that has one.
fn from_buffer(data: &Bound<'_, PyAny>, target: Target) -> PyResult<Option<Tensor>> {
    match buffer(data) {
        Ok(Some(buffer)) => record(|| copy(&buffer, target)).map(Some),
        Ok(None) => Ok(None),
        Err(error) => element(data, target)?.map_or(Err(error), |tensor| Ok(Some(tensor))),
    }
}

/// A buffer without axes. NumPy leaves its shape unset, which `PyUntypedBuffer` refuses.
fn element(data: &Bound<'_, PyAny>, target: Target) -> PyResult<Option<Tensor>> {
    let view = data.py().import("builtins")?.getattr("memoryview")?.call1((data,))?;
    if view.getattr("ndim")?.extract::<usize>()? != 0 {
        return Ok(None);
    }
    let format: String = view.getattr("format")?.extract()?;
    let size: usize = view.getattr("itemsize")?.extract()?;
    let bytes: Vec<u8> = view.call_method0("tobytes")?.extract()?;
    record(|| {
        let dtype = element_type(&format, size)?;
        Tensor::from_bytes_on(target.device_for(dtype), &bytes, TensorType::scalar(dtype))
    })
    .map(Some)
}

/// The buffer of an object that has one.
fn buffer(data: &Bound<'_, PyAny>) -> PyResult<Option<PyUntypedBuffer>> {
    // SAFETY: the object is alive and the thread attached.
    match unsafe { ffi::PyObject_CheckBuffer(data.as_ptr()) } {
        0 => Ok(None),
        _ => PyUntypedBuffer::get(data).map(Some),
    }
}

/// A buffer in this crate's terms.
struct Layout {
    ty: TensorType,
    first: *mut u8,
    strides: Strides,
}

impl Layout {
    fn of(buffer: &PyUntypedBuffer) -> Result<Layout> {
        let dtype = element_type(&buffer.format().to_string_lossy(), buffer.item_size())?;
        let shape = Shape::new(buffer.shape()).checked("tensor")?;
        let size = dtype.size() as isize;
        if buffer.suboffsets().is_some_and(|offsets| offsets.iter().any(|&offset| offset >= 0)) {
            return Err(Error::value("tensor: buffers of pointers are not read; copy the data into one block first"));
        }
        if buffer.strides().iter().any(|stride| stride % size != 0) {
            return Err(Error::value("tensor: the strides of the buffer are not multiples of its element size"));
        }
        let strides = buffer.strides().iter().map(|stride| stride / size).collect();
        Ok(Layout { ty: TensorType { dtype, shape }, first: buffer.buf_ptr().cast(), strides })
    }

    /// The lowest address of an element, and the bytes from there to the end of the highest.
    fn extent(&self) -> (*mut u8, usize) {
        if self.ty.shape.size() == 0 {
            return (self.first, 0);
        }
        let (mut low, mut high) = (0isize, 0isize);
        for (&dim, &stride) in self.ty.shape.iter().zip(&self.strides) {
            let reach = (dim as isize - 1) * stride;
            if reach < 0 { low += reach } else { high += reach }
        }
        let size = self.ty.dtype.size();
        (self.first.wrapping_offset(low * size as isize), (high - low) as usize * size + size)
    }
}

/// The dtype of a buffer format, in native byte order.
fn element_type(format: &str, size: usize) -> Result<DType> {
    let native = if cfg!(target_endian = "little") { '<' } else { '>' };
    let letters = format.trim_start_matches(['@', '=', native]);
    let dtype = match (letters, size) {
        ("?", 1) => Some(DType::Bool),
        ("B", 1) => Some(DType::U8),
        ("i" | "l", 4) => Some(DType::I32),
        ("q" | "l", 8) => Some(DType::I64),
        ("f", 4) => Some(DType::F32),
        ("d", 8) => Some(DType::F64),
        _ => None,
    };
    dtype.ok_or_else(|| {
        let held: Vec<&str> = DType::ALL.iter().map(|dtype| dtype.name()).collect();
        let name = match letters {
            "e" => "float16",
            "b" => "int8",
            "h" => "int16",
            "H" => "uint16",
            "I" => "uint32",
            "L" | "Q" => "uint64",
            "Zf" => "complex64",
            "Zd" => "complex128",
            other => other,
        };
        Error::dtype(format!(
            "tensor: elements of {name} (format {format:?}) are not supported; convert to one of {}",
            held.join(", ")
        ))
    })
}

fn copy(buffer: &PyUntypedBuffer, target: Target) -> Result<Tensor> {
    let Layout { ty, first, strides } = Layout::of(buffer)?;
    let memory = Buffer::new(ty.bytes())?;
    let from = View { ptr: first, dtype: ty.dtype, shape: ty.shape.clone(), strides };
    let to = View::contiguous(memory.as_mut_ptr(), ty.dtype, ty.shape.clone());
    // SAFETY: the exporter describes valid memory; the new block has room for every element.
    unsafe { view::copy(&from, &to) };
    match target.device_for(ty.dtype) {
        DeviceId::Cpu => Ok(Tensor::from_buffer(memory, ty)),
        // SAFETY: the block holds every element of this type.
        device => Tensor::from_bytes_on(device, unsafe { std::slice::from_raw_parts(memory.as_ptr(), ty.bytes()) }, ty),
    }
}

/// A buffer of another object. It goes back only where the interpreter's lock is held: a tensor can end anywhere.
struct Shared(Option<PyUntypedBuffer>);

// SAFETY: the buffer is only kept here; it is used and released by threads that hold the interpreter's lock.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

static RETURNED: Mutex<Vec<Shared>> = Mutex::new(Vec::new());

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(buffer) = self.0.take() {
            RETURNED.lock().push(Shared(Some(buffer)));
            // SAFETY: the call needs no lock; `release` takes no argument.
            unsafe { ffi::Py_AddPendingCall(Some(release), std::ptr::null_mut()) };
        }
    }
}

/// Called by the interpreter, which holds its lock.
extern "C" fn release(_: *mut std::ffi::c_void) -> std::ffi::c_int {
    let returned = std::mem::take(&mut *RETURNED.lock());
    for mut shared in returned {
        drop(shared.0.take());
    }
    0
}

/// The elements of nested sequences as they are found.
struct Elements {
    numbers: Vec<Scalar>,
    /// The dtype that arrays among them ask for; Python's numbers are weak.
    strong: Option<DType>,
    weak: Option<DType>,
    shape: Option<Shape>,
}

fn nested(data: &Bound<'_, PyAny>, target: Target) -> PyResult<Tensor> {
    let mut elements = Elements { numbers: Vec::new(), strong: None, weak: None, shape: None };
    let mut position = Vec::new();
    elements.collect(data, &mut position)?;
    let shape = elements.shape.clone().unwrap_or_else(|| Shape::from([0]));
    let found = match (elements.strong, elements.weak) {
        (Some(strong), Some(DType::F32)) if !strong.is_float() => DType::F32,
        (Some(DType::Bool), Some(weak)) => weak,
        (Some(strong), _) => strong,
        (None, weak) => weak.unwrap_or(DType::F32),
    };
    let dtype = target.dtype.unwrap_or(found);
    record(|| {
        let mut bytes = Vec::with_capacity(elements.numbers.len() * dtype.size());
        elements.numbers.iter().for_each(|number| bytes.extend_from_slice(&number.to_bytes(dtype)[..dtype.size()]));
        Tensor::from_bytes_on(target.device, &bytes, TensorType { dtype, shape: shape.checked("tensor")? })
    })
}

impl Elements {
    /// Takes in `data`, which stands at `position`.
    fn collect(&mut self, data: &Bound<'_, PyAny>, position: &mut Vec<usize>) -> PyResult<()> {
        if !is_nested(data) {
            return self.leaf(data, position);
        }
        if position.len() >= MAX_DEPTH {
            return Err(refuse(Error::value(format!("tensor: lists are nested deeper than {MAX_DEPTH}"))));
        }
        let before = self.shape.take();
        let mut inner: Option<Shape> = None;
        let mut count = 0;
        for item in data.try_iter()? {
            position.push(count);
            self.shape = None;
            self.collect(&item?, position)?;
            let found = self.shape.take().unwrap_or_default();
            match &inner {
                Some(first) if *first != found => return Err(ragged(position, first, &found)),
                _ => inner = Some(found),
            }
            position.pop();
            count += 1;
        }
        let mut shape = inner.unwrap_or_default();
        shape.insert(0, count);
        self.shape = Some(shape);
        debug_assert!(before.is_none());
        Ok(())
    }

    fn leaf(&mut self, data: &Bound<'_, PyAny>, position: &[usize]) -> PyResult<()> {
        let is_number = data.is_instance_of::<PyFloat>() || data.is_instance_of::<PyInt>();
        if !is_number {
            if let Ok(tensor) = data.cast::<PyTensor>() {
                return self.array(&tensor.get().0);
            }
            if let Some(tensor) = from_buffer(data, Target { dtype: None, device: DeviceId::Cpu })? {
                return self.array(&tensor);
            }
        }
        let number = operand::number(data.as_borrowed()).map_err(|error| {
            let kind = data.get_type().name().map_or_else(|_| String::new(), |name| name.to_string());
            match error.is_instance_of::<pyo3::exceptions::PyTypeError>(data.py()) {
                true => refuse(Error::new(
                    crate::error::ErrorKind::DType,
                    format!("tensor: element {} is a {kind}, not a number", place(position)),
                )),
                false => error,
            }
        })?;
        let dtype = number.dtype();
        self.weak = Some(self.weak.map_or(dtype, |weak| weak.promote(dtype)));
        self.numbers.push(number);
        self.shape = Some(Shape::scalar());
        Ok(())
    }

    fn array(&mut self, tensor: &Tensor) -> PyResult<()> {
        let ty = tensor.ty();
        let bytes = read(|| tensor::to_bytes(tensor))?;
        self.strong = Some(self.strong.map_or(ty.dtype, |strong| strong.promote(ty.dtype)));
        self.numbers.extend(bytes.chunks_exact(ty.dtype.size()).map(|element| Scalar::from_bytes(ty.dtype, element)));
        self.shape = Some(ty.shape);
        Ok(())
    }
}

fn place(position: &[usize]) -> String {
    position.iter().map(|index| format!("[{index}]")).collect()
}

fn ragged(position: &[usize], first: &Shape, found: &Shape) -> PyErr {
    let mut start = position.to_vec();
    if let Some(last) = start.last_mut() {
        *last = 0;
    }
    refuse(Error::shape(format!(
        "tensor: ragged data: element {} has shape {found}, element {} has {first}",
        place(position),
        place(&start)
    )))
}
