//! A tensor: a handle that can be rebound. What belongs to a variable (its gradient, its identity) stays with the
//! handle whatever value it names. The engine's lock guards what handles name too.

use super::context;
use super::engine::{self, Engine, Operand, Record, Slot, State, Value, Visit};
use super::evaluate;
use super::record::no_float64;
use super::trace;
use crate::device_id::DeviceId;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Op, Source, TensorType};
use crate::machine::cpu::buffer::Buffer;
use crate::machine::storage::Storage;
use crate::shape::Shape;
use smallvec::{SmallVec, smallvec};
use std::cell::UnsafeCell;
use std::sync::Arc;

/// Cheap to clone; clones are the same tensor, as two names for one Python object are.
#[derive(Clone)]
pub struct Tensor(pub(super) Arc<Cell>);

pub(super) struct Cell {
    /// For whoever holds the engine's lock.
    state: UnsafeCell<CellState>,
    /// The id that the next record got when this handle was made: tells older handles from newer ones.
    pub born: u64,
}

pub(super) struct CellState {
    pub slot: Slot,
    pub output: u32,
    pub variable: Option<Variable>,
}

#[derive(Default)]
pub(super) struct Variable {
    pub grad: Option<Tensor>,
    /// The marker of the current version, once it was used.
    pub marker: Option<Slot>,
}

// SAFETY: the state is reached only through the engine, which one thread has at a time.
unsafe impl Sync for Cell {}

impl Cell {
    #[inline]
    pub fn state<'a>(&'a self, _: &'a Engine) -> &'a CellState {
        // SAFETY: there is one engine. Whoever can change a state has it as `&mut`, so not while this borrow lives.
        unsafe { &*self.state.get() }
    }

    #[inline]
    pub fn state_mut<'a>(&'a self, _: &'a mut Engine) -> &'a mut CellState {
        // SAFETY: there is one engine, and this borrow of it is the only one.
        unsafe { &mut *self.state.get() }
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        let mut engine = engine::lock();
        if let Some(marker) = state.variable.as_mut().and_then(|variable| variable.marker.take()) {
            engine.release(marker);
        }
        engine.release_handle(state.slot);
    }
}

impl Tensor {
    /// A handle on an output of a record.
    pub(super) fn on(engine: &mut Engine, slot: Slot, output: u32) -> Tensor {
        engine.retain_handle(slot);
        let born = engine.next_id();
        Tensor(Arc::new(Cell { state: UnsafeCell::new(CellState { slot, output, variable: None }), born }))
    }

    /// A tensor whose value exists.
    pub fn from_value(value: Value, ty: TensorType) -> Tensor {
        let line = if trace::is_open() { crate::location::current() } else { None };
        let mut engine = engine::lock();
        let slot = engine.insert(leaf(value, ty));
        if let Some(line) = line {
            trace::note_constant(engine.get(slot).id, line);
        }
        Tensor::on(&mut engine, slot, 0)
    }

    /// A tensor that holds these bytes, in row-major order.
    pub fn from_bytes(bytes: &[u8], ty: TensorType) -> Result<Tensor> {
        if bytes.len() != ty.bytes() {
            return Err(Error::internal(format!("{} bytes for {ty}", bytes.len())));
        }
        Ok(Tensor::from_buffer(Buffer::from_bytes(bytes)?, ty))
    }

    /// Likewise, on a device.
    pub fn from_bytes_on(device: DeviceId, bytes: &[u8], ty: TensorType) -> Result<Tensor> {
        if device.is_cpu() {
            return Tensor::from_bytes(bytes, ty);
        }
        if ty.dtype == DType::F64 {
            return Err(no_float64("tensor", device));
        }
        Ok(Tensor::from_buffer(Storage::upload(device, bytes, ty.dtype)?, ty))
    }

    /// A tensor on memory that holds its elements in row-major order.
    pub fn from_buffer(buffer: impl Into<Storage>, ty: TensorType) -> Tensor {
        let strides = ty.shape.strides();
        Tensor::from_value(Value { buffer: Arc::new(buffer.into()), offset: 0, strides }, ty)
    }

    pub fn ty(&self) -> TensorType {
        let engine = engine::lock();
        let state = self.0.state(&engine);
        engine.get(state.slot).types[state.output as usize].clone()
    }

    pub fn shape(&self) -> Shape {
        self.ty().shape
    }

    pub fn dtype(&self) -> DType {
        let engine = engine::lock();
        let state = self.0.state(&engine);
        engine.get(state.slot).types[state.output as usize].dtype
    }

    /// Both in one look.
    pub fn dtype_and_device(&self) -> (DType, DeviceId) {
        let engine = engine::lock();
        let state = self.0.state(&engine);
        let record = engine.get(state.slot);
        (record.types[state.output as usize].dtype, record.device)
    }

    /// Where its values are.
    pub fn device(&self) -> DeviceId {
        let engine = engine::lock();
        let state = self.0.state(&engine);
        engine.get(state.slot).device
    }

    /// Whether gradients flow to or through this tensor.
    pub fn requires_grad(&self) -> bool {
        trace::note_question(self);
        let engine = engine::lock();
        let state = self.0.state(&engine);
        state.variable.is_some() || engine.get(state.slot).history
    }

    /// Whether this is a variable, or a value without history.
    pub fn is_leaf(&self) -> bool {
        trace::note_question(self);
        let engine = engine::lock();
        let state = self.0.state(&engine);
        state.variable.is_some() || !engine.get(state.slot).history
    }

    pub fn is_variable(&self) -> bool {
        self.is_variable_in(&engine::lock())
    }

    /// The same, for whoever has the engine.
    pub(super) fn is_variable_in(&self, engine: &Engine) -> bool {
        self.0.state(engine).variable.is_some()
    }

    /// Makes this handle a variable, or an ordinary tensor again.
    pub fn set_requires_grad(&self, on: bool) -> Result<()> {
        if on != self.is_variable() {
            trace::note_variable(self);
        }
        let mut engine = engine::lock();
        let state = self.0.state(&engine);
        let record = engine.get(state.slot);
        let dtype = record.types[state.output as usize].dtype;
        if on && !dtype.is_float() {
            return Err(Error::grad(format!("requires_grad_: only float tensors have gradients, this one is {dtype}")));
        }
        if state.variable.is_none() && record.history {
            return Err(Error::grad(format!(
                "requires_grad_: this is the result of {}, not a leaf; use x.detach() to cut it off first",
                record.op.name()
            )));
        }
        let state = self.0.state_mut(&mut engine);
        let old = match (on, state.variable.is_some()) {
            (true, false) => state.variable.replace(Variable::default()),
            (false, true) => state.variable.take(),
            _ => None,
        };
        if let Some(marker) = old.as_ref().and_then(|variable| variable.marker) {
            engine.release(marker);
        }
        drop(engine);
        drop(old);
        Ok(())
    }

    pub fn grad(&self) -> Option<Tensor> {
        trace::note_grad(self, false);
        self.held_grad(&engine::lock())
    }

    pub fn set_grad(&self, grad: Option<Tensor>) -> Result<()> {
        if let Some(grad) = &grad {
            let (own, new) = (self.ty(), grad.ty());
            if own != new {
                return Err(Error::grad(format!("grad: a gradient of {new} was given for a variable of {own}")));
            }
            refuse_device("grad", self.device(), grad.device())?;
        }
        trace::note_grad(self, true);
        let mut engine = engine::lock();
        if grad.is_some() && !self.is_variable_in(&engine) {
            return Err(Error::grad("grad: this tensor does not require a gradient; call requires_grad_() first"));
        }
        let old = self.replace_grad(&mut engine, grad);
        drop(engine);
        drop(old);
        Ok(())
    }

    /// Gives this handle the value that `other` names. Outside `no_grad` a variable cannot be rebound.
    pub fn rebind(&self, other: &Tensor) -> Result<()> {
        if self.is_variable() && context::grad_enabled() {
            return Err(Error::grad(
                "a variable is changed in place while gradients are recorded; wrap the update in wg.no_grad()",
            ));
        }
        let (own, new) = (self.ty(), other.ty());
        if self.is_variable() && own != new {
            return Err(Error::shape(format!("a variable of {own} cannot take a value of {new}")));
        }
        if self.is_variable() {
            refuse_device("rebind", self.device(), other.device())?;
        }
        let previous = self.point_to(other);
        context::log_rebind(self, previous);
        Ok(())
    }

    /// Rebinds without asking and gives the old place, still held, for whoever may have to restore it.
    pub(super) fn point_to(&self, other: &Tensor) -> Place {
        let mut engine = engine::lock();
        let (slot, output) = other.place(&engine);
        self.move_to(&mut engine, Place { slot, output })
    }

    /// Names `place` from now on; the handle's hold on the old place goes over to the caller, as a plain reference.
    pub(super) fn move_to(&self, engine: &mut Engine, place: Place) -> Place {
        if trace::is_open() {
            trace::note_move(engine, self, place);
        }
        engine.retain_handle(place.slot);
        self.end_version(engine);
        let state = self.0.state_mut(engine);
        let old = Place { slot: state.slot, output: state.output };
        (state.slot, state.output) = (place.slot, place.output);
        engine.demote_handle(old.slot);
        old
    }

    /// Lets go of the marker of a variable's current version, whose value is about to change.
    pub(super) fn end_version(&self, engine: &mut Engine) {
        let variable = self.0.state_mut(engine).variable.as_mut();
        if let Some(marker) = variable.and_then(|variable| variable.marker.take()) {
            engine.release(marker);
        }
    }

    /// Undoes `point_to`.
    pub(super) fn restore(&self, old: Place) {
        let mut engine = engine::lock();
        let new = self.move_to(&mut engine, old);
        engine.release(new.slot);
        engine.release(old.slot);
    }

    /// The gradient, for code that no trace looks at.
    pub(super) fn held_grad(&self, engine: &Engine) -> Option<Tensor> {
        self.0.state(engine).variable.as_ref().and_then(|variable| variable.grad.clone())
    }

    /// Gives a variable another gradient; the old one is the caller's to drop, once the engine is free.
    pub(super) fn replace_grad(&self, engine: &mut Engine, grad: Option<Tensor>) -> Option<Tensor> {
        match &mut self.0.state_mut(engine).variable {
            Some(variable) => std::mem::replace(&mut variable.grad, grad),
            None => grad,
        }
    }

    /// The type, for whoever has the engine.
    pub(super) fn type_in(&self, engine: &Engine) -> TensorType {
        let (slot, output) = self.place(engine);
        engine.get(slot).types[output as usize].clone()
    }

    /// The record and the output that this handle names.
    pub(super) fn place(&self, engine: &Engine) -> (Slot, u32) {
        let state = self.0.state(engine);
        (state.slot, state.output)
    }

    /// The value, computed now if it is pending.
    pub fn value(&self) -> Result<(Value, TensorType)> {
        trace::refuse_read("reading a value")?;
        if let Some(found) = self.known_value()? {
            return Ok(found);
        }
        // The place is held: another thread may rebind the handle meanwhile.
        let place = self.hold();
        let value = evaluate::evaluate_slots(&[place.slot]).and_then(|()| value_at(&engine::lock(), place));
        place.release();
        value?.ok_or_else(|| Error::internal("a value is missing after its evaluation"))
    }

    /// What this handle names now, with a reference for the caller.
    fn hold(&self) -> Place {
        let mut engine = engine::lock();
        let (slot, output) = self.place(&engine);
        engine.retain(slot);
        Place { slot, output }
    }

    /// Whether the value exists already.
    pub fn is_evaluated(&self) -> bool {
        matches!(self.known_value(), Ok(Some(_)))
    }

    /// The value, if it exists already.
    pub(super) fn known_value(&self) -> Result<Option<(Value, TensorType)>> {
        let engine = engine::lock();
        let (slot, output) = self.place(&engine);
        value_at(&engine, Place { slot, output })
    }

    /// The same tensor object?
    pub fn is(&self, other: &Tensor) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// A number that two names of one tensor share.
    pub fn address(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }
}

/// An output of a record that somebody holds a plain reference on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub slot: Slot,
    pub output: u32,
}

/// The value at a place, if it exists.
fn value_at(engine: &Engine, place: Place) -> Result<Option<(Value, TensorType)>> {
    let (slot, output) = engine.unmarked(place.slot, place.output);
    let record = engine.get(slot);
    if let State::Failed(error) = &record.state {
        return Err(error.clone());
    }
    let output = output as usize;
    Ok(record.values[output].clone().map(|value| (value, record.types[output].clone())))
}

impl Place {
    pub fn release(self) {
        engine::lock().release(self.slot);
    }
}

/// A record for a value that exists.
pub(super) fn leaf(value: Value, ty: TensorType) -> Record {
    Record {
        id: 0,
        refs: 0,
        handles: 0,
        op: Op::Source(Source::Leaf(0)),
        device: value.buffer.device(),
        operands: SmallVec::new(),
        types: smallvec![ty],
        values: smallvec![Some(value)],
        state: State::Done,
        history: false,
        consumed: None,
        transforms: 0,
        variable: None,
        visit: Visit::default(),
    }
}

/// Refuses a value that is not where its variable is.
fn refuse_device(what: &str, own: DeviceId, given: DeviceId) -> Result<()> {
    match own == given {
        true => Ok(()),
        false => Err(Error::device(format!(
            "{what}: the variable is on {own} and the value on {given}; move the value with .to({:?}), or the module \
             that has the variable with its own to()",
            own.short()
        ))),
    }
}

/// Whether an operand is on this record.
pub(super) fn operand_slot(operand: &Operand) -> Option<Slot> {
    match operand {
        Operand::Node(slot, _) => Some(*slot),
        Operand::Number(..) => None,
    }
}
