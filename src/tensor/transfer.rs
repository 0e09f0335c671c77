//! Values from one device to another. What is pending is evaluated first: a record belongs to one device, and so does a
//! plan, so a move is never part of either.

use super::compose::alias;
use super::context;
use super::engine::Value;
use super::evaluate::in_scope;
use super::functions::{bytes_of, cast};
use super::handle::Tensor;
use super::record::{Recorder, no_float64};
use super::trace;
use crate::device_id::DeviceId;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Op, TensorType};
use crate::machine::cpu::view::{self, View, is_contiguous};
use crate::machine::storage::{self, Storage, Ticket};
use smallvec::smallvec;
use std::sync::Arc;

/// `x` on a device: itself if it is there, else a copy without history.
pub fn to_device(x: &Tensor, device: DeviceId) -> Result<Tensor> {
    let own = x.device();
    if own == device {
        return Ok(alias(x));
    }
    trace::refuse_call("to: a compiled step stays on its devices; move tensors before the call, or after it")?;
    if context::grad_enabled() && x.requires_grad() {
        return Err(Error::grad(format!(
            "to: gradients do not pass from {own} to {device}; move what this tensor is computed from, or a module by its \
             own to(), or cut the history off with x.detach().to({:?})",
            device.short()
        )));
    }
    if !device.is_cpu() && x.dtype() == DType::F64 {
        return Err(no_float64("to", device));
    }
    storage::open(device)?;
    let (value, ty) = x.value()?;
    copied(&value, ty, device)
}

/// State of an optimizer on the device of its parameter. In a traced step it is moved too: once, so that the call is
/// no example of later ones.
pub fn follow(state: &Tensor, device: DeviceId) -> Result<Tensor> {
    trace::disturb(
        "the state of an optimizer was moved to where its parameters are; the step is traced at a later call",
    );
    match state.known_value()? {
        Some((value, ty)) => copied(&value, ty, device),
        None => to_device(state, device),
    }
}

/// A tensor on a device with the elements of a value.
fn copied(value: &Value, ty: TensorType, device: DeviceId) -> Result<Tensor> {
    let value = to_host(value, &ty)?;
    if device.is_cpu() {
        return Ok(Tensor::from_value(value, ty));
    }
    let view = value.view(&ty);
    if view.is_contiguous() {
        // SAFETY: the value holds this many bytes from its offset on, and is held here.
        let bytes = unsafe { std::slice::from_raw_parts(view.ptr, ty.bytes()) };
        return Tensor::from_bytes_on(device, bytes, ty);
    }
    // SAFETY: a value's shape and strides stay in its buffer, which is held here.
    let bytes = unsafe { bytes_of(&view) };
    Tensor::from_bytes_on(device, &bytes, ty)
}

/// The value in memory of the host: itself, or what lies on a device, copied.
fn to_host(value: &Value, ty: &TensorType) -> Result<Value> {
    if value.buffer.device().is_cpu() {
        return Ok(value.clone());
    }
    let value = gathered(value.clone(), ty)?;
    let memory = in_scope(|| value.buffer.download(ty.dtype, value.offset, ty.shape.size()))?;
    Ok(Value { buffer: Arc::new(memory.into()), offset: 0, strides: ty.shape.strides() })
}

/// `x` with another element type and on another device, each if given. The type changes where both exist.
pub fn convert(x: &Tensor, device: Option<DeviceId>, dtype: Option<DType>) -> Result<Tensor> {
    let dtype = dtype.unwrap_or(x.dtype());
    match device {
        None => cast(x, dtype),
        Some(DeviceId::Cpu) => cast(&to_device(x, DeviceId::Cpu)?, dtype),
        Some(device) => to_device(&cast(x, dtype)?, device),
    }
}

/// Waits until it is known of a run whether it met an index out of range; raises a new one.
pub fn judge(ticket: &Ticket) -> Result<()> {
    in_scope(|| ticket.judge())
}

impl Tensor {
    /// The run of a device that wrote the value, if there is one.
    pub fn written(&self) -> Option<Ticket> {
        let (value, _) = self.known_value().ok().flatten()?;
        value.buffer.written()
    }

    /// The value in memory of the host, computed now if it is pending and copied there if it lies on a device.
    pub fn host_value(&self) -> Result<(Value, TensorType)> {
        let (value, ty) = self.value()?;
        Ok((on_host(value, &ty)?, ty))
    }
}

/// The value in memory of the host.
pub(super) fn on_host(value: Value, ty: &TensorType) -> Result<Value> {
    if value.buffer.device().is_cpu() { Ok(value) } else { to_host(&value, ty) }
}

/// The bytes of a value as the host has them, in row-major order.
pub(super) fn value_bytes(value: &Value, ty: &TensorType) -> Result<Vec<u8>> {
    let value = to_host(value, ty)?;
    // SAFETY: a value's shape and strides stay in its buffer, which it holds.
    Ok(unsafe { bytes_of(&value.view(ty)) })
}

/// A copy of a value that nobody else holds.
pub(super) fn own_copy(value: &Value, ty: &TensorType) -> Result<Value> {
    let device = value.buffer.device();
    let block = Storage::new(device, ty.bytes_on(device))?;
    let copy = Value { buffer: Arc::new(block), offset: 0, strides: ty.shape.strides() };
    if device.is_cpu() {
        // SAFETY: the old value is held; the new one is ours alone.
        unsafe { view::copy(&value.view(ty), &copy.view(ty)) };
    } else {
        let value = gathered(value.clone(), ty)?;
        copy.buffer.copy_from(&value.buffer, ty.dtype, value.offset, 0, ty.shape.size())?;
    }
    Ok(copy)
}

/// Writes the elements of `x` into a block of its own device, from this one on.
///
/// # Safety
/// The block holds as many elements of this dtype from there on, and nobody else uses it yet.
pub unsafe fn write_elements(x: &Tensor, block: &Storage, first: usize) -> Result<()> {
    let (value, ty) = x.value()?;
    if value.buffer.device().is_cpu() {
        // SAFETY: the caller's promise, and a value's shape and strides stay in its buffer, which is held here.
        unsafe {
            let to = block.host().as_mut_ptr().add(first * ty.dtype.size());
            view::copy(&value.view(&ty), &View::contiguous(to, ty.dtype, ty.shape.clone()));
        }
        return Ok(());
    }
    let value = gathered(value, &ty)?;
    block.copy_from(&value.buffer, ty.dtype, value.offset, first, ty.shape.size())
}

/// A device's value with its elements one after another, put so there: only what is asked for is then copied.
fn gathered(value: Value, ty: &TensorType) -> Result<Value> {
    if is_contiguous(&ty.shape, &value.strides) {
        return Ok(value);
    }
    let window = Tensor::from_value(value, ty.clone());
    let mut recorder = Recorder::with_grad(false);
    let operand = recorder.operand(&window);
    let copy = recorder.finish(Op::Detach, smallvec![operand], ty.clone())?;
    Ok(copy.value()?.0)
}
