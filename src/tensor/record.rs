//! Recording: one node for each operation, nothing computed. Types are inferred here, so that a wrong shape fails on
//! the user's own line. Elementwise operands are broadcast and numbers typed when the plan's graph is made.

use super::context;
use super::engine::{self, EXAMPLES, Engine, Operand, Record, Slot, State, Visit};
use super::evaluate;
use super::handle::{Cell, Tensor};
use super::trace;
use crate::device_id::DeviceId;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Op, Source, TensorType};
use crate::machine::lock::Guard;
use crate::ops;
use crate::scalar::Scalar;
use smallvec::{SmallVec, smallvec};
use std::sync::{Arc, LazyLock};

/// An operand as a user gives it. A number is weak: it takes the dtype of the tensors beside it.
#[derive(Clone, Copy)]
pub enum Arg<'a> {
    Tensor(&'a Tensor),
    Number(Scalar),
}

impl<'a> From<&'a Tensor> for Arg<'a> {
    fn from(tensor: &'a Tensor) -> Arg<'a> {
        Arg::Tensor(tensor)
    }
}

impl From<f64> for Arg<'_> {
    fn from(x: f64) -> Self {
        Arg::Number(Scalar::F64(x))
    }
}

impl From<i64> for Arg<'_> {
    fn from(x: i64) -> Self {
        Arg::Number(Scalar::I64(x))
    }
}

/// An argument after it was looked up: the place of a record, or a number.
#[derive(Clone, Copy)]
pub(super) enum Found {
    Node(Slot, u32),
    Number(Scalar),
}

/// The types of numbers, by dtype.
pub(super) static NUMBERS: LazyLock<[TensorType; 6]> = LazyLock::new(|| DType::ALL.map(TensorType::scalar));

pub(super) type Types = SmallVec<[TensorType; 1]>;

/// The engine, held for the recording of one user-level operation (often one node).
pub struct Recorder {
    engine: Guard<'static, Engine>,
    grad: bool,
    full: bool,
    /// Where nodes without tensor operands are made; None: wherever their operands are, else on the CPU.
    device: Option<DeviceId>,
    /// The user's line, if lines are kept.
    line: Option<String>,
}

impl Recorder {
    pub fn begin() -> Recorder {
        // Asked before the lock is taken: the answer may run other code, which may drop tensors.
        let line = if context::lines() || trace::is_open() { crate::location::current() } else { None };
        Recorder { engine: engine::lock(), grad: context::grad_enabled(), full: false, device: None, line }
    }

    /// For the recording of nodes that have their values on this device.
    pub(super) fn on(device: DeviceId) -> Recorder {
        Recorder { device: Some(device), ..Recorder::begin() }
    }

    pub(super) fn with_grad(grad: bool) -> Recorder {
        Recorder { grad, ..Recorder::begin() }
    }

    /// The operand for a tensor whose history is wanted whatever the grad mode.
    pub(super) fn history_operand(&mut self, tensor: &Tensor) -> Operand {
        self.operand_in(tensor, true)
    }

    /// The operand for a tensor as recording in this grad mode would see it.
    pub(super) fn operand_in(&mut self, tensor: &Tensor, grad: bool) -> Operand {
        let own = std::mem::replace(&mut self.grad, grad);
        let operand = self.operand(tensor);
        self.grad = own;
        operand
    }

    /// The record that a tensor names, unless it is a variable.
    pub(super) fn expression(&self, tensor: &Tensor) -> Option<Slot> {
        let state = tensor.0.state(&self.engine);
        state.variable.is_none().then_some(state.slot)
    }

    pub fn ty(&self, tensor: &Tensor) -> TensorType {
        let state = tensor.0.state(&self.engine);
        self.engine.get(state.slot).types[state.output as usize].clone()
    }

    pub fn dtype(&self, tensor: &Tensor) -> DType {
        let state = tensor.0.state(&self.engine);
        self.engine.get(state.slot).types[state.output as usize].dtype
    }

    /// Looks an argument up, once.
    pub(super) fn find(&mut self, arg: Arg) -> Found {
        match arg {
            Arg::Number(number) => Found::Number(number),
            Arg::Tensor(tensor) => match self.operand(tensor) {
                Operand::Node(slot, output) => Found::Node(slot, output),
                Operand::Number(number, _) => Found::Number(number),
            },
        }
    }

    /// The type of what was found; None for a number.
    pub(super) fn type_of(&self, found: Found) -> Option<&TensorType> {
        match found {
            Found::Node(slot, output) => Some(&self.engine.get(slot).types[output as usize]),
            Found::Number(_) => None,
        }
    }

    pub(super) fn shape_of(&self, found: Found) -> &[usize] {
        self.type_of(found).map_or(&[], |ty| &ty.shape)
    }

    /// The dtype of an operation on these operands: tensors decide, numbers follow.
    pub(super) fn promote(&self, found: &[Found]) -> DType {
        let strong = found.iter().filter_map(|&found| self.type_of(found)).map(|ty| ty.dtype).reduce(DType::promote);
        let numbers = found.iter().filter_map(|found| match found {
            Found::Number(number) => Some(strong.map_or(number.dtype(), |dtype| number.weak_dtype(dtype))),
            Found::Node(..) => None,
        });
        strong.into_iter().chain(numbers).reduce(DType::promote).unwrap_or(DType::F32)
    }

    /// The operand of this dtype: tensors of another one are cast first.
    pub(super) fn operand_as(&mut self, found: Found, dtype: DType) -> Result<Operand> {
        match found {
            Found::Number(number) => Ok(Operand::Number(number, dtype)),
            Found::Node(slot, output) => self.cast_operand(Operand::Node(slot, output), dtype),
        }
    }

    /// Likewise, of an operand.
    pub(super) fn cast_operand(&mut self, operand: Operand, dtype: DType) -> Result<Operand> {
        let (slot, output) = match operand {
            Operand::Number(number, _) => return Ok(Operand::Number(number, dtype)),
            Operand::Node(slot, output) => (slot, output),
        };
        let ty = &self.engine.get(slot).types[output as usize];
        if ty.dtype == dtype {
            return Ok(Operand::Node(slot, output));
        }
        let ty = TensorType { dtype, shape: ty.shape.clone() };
        let cast = self.push(Op::Cast(dtype), smallvec![Operand::Node(slot, output)], smallvec![ty])?;
        Ok(Operand::Node(cast, 0))
    }

    #[inline]
    pub(super) fn operand_type(&self, operand: &Operand) -> &TensorType {
        match *operand {
            Operand::Node(slot, output) => &self.engine.get(slot).types[output as usize],
            Operand::Number(_, dtype) => &NUMBERS[dtype as usize],
        }
    }

    /// Drops casts that were recorded for a node which is not recorded after all.
    pub(super) fn discard(&mut self, operands: &[Operand]) {
        for slot in operands.iter().filter_map(super::handle::operand_slot) {
            self.engine.drop_if_unheld(slot);
        }
    }

    /// The operand for a tensor: its marker if it is a variable and gradients are recorded, else its node.
    pub(super) fn operand(&mut self, tensor: &Tensor) -> Operand {
        if trace::is_open() {
            trace::note_use(&self.engine, tensor);
        }
        let state = tensor.0.state(&self.engine);
        let (slot, output) = (state.slot, state.output);
        let Some(variable) = state.variable.as_ref().filter(|_| self.grad) else {
            return Operand::Node(slot, output);
        };
        if let Some(marker) = variable.marker {
            return Operand::Node(marker, 0);
        }
        let marker = push_marker(&mut self.engine, slot, output, Some(&tensor.0));
        if let Some(variable) = &mut tensor.0.state_mut(&mut self.engine).variable {
            variable.marker = Some(marker);
        }
        Operand::Node(marker, 0)
    }

    /// Records one node. It has no holder yet: the caller makes a tensor of it or uses it as an operand.
    pub(super) fn push(&mut self, op: Op, mut operands: SmallVec<[Operand; 3]>, types: Types) -> Result<Slot> {
        if trace::is_open() {
            trace::note_record(self.engine.next_id(), &mut operands, self.line.as_ref());
        }
        let mut history = false;
        let mut transforms = 0;
        let mut device = self.device;
        let differentiable = self.grad && types.iter().any(|ty| ty.dtype.is_float()) && ops::passes_gradient(&op);
        for (position, operand) in operands.iter().enumerate() {
            let Operand::Node(slot, output) = *operand else { continue };
            let record = self.engine.get_mut(slot);
            if let State::Failed(error) = &record.state {
                let error = error.clone();
                return self.refuse(&operands, position, error);
            }
            if !record.device.is_cpu()
                && let Some(error) = record.values[output as usize].as_ref().and_then(|value| value.buffer.error())
            {
                return self.refuse(&operands, position, error);
            }
            let place = *device.get_or_insert(record.device);
            if place != record.device {
                let error = mixed_devices(&op, place, record.device);
                return self.refuse(&operands, position, error);
            }
            record.refs += 1;
            let flow = flow(&op, position);
            if flow != Flow::None {
                transforms |= record.transforms;
            }
            history |= differentiable && flow == Flow::Tangent && record.history;
            if let (Some(value), false) = (&record.values[output as usize], record.history) {
                self.full |= context::note_leaf(&value.buffer);
            }
        }
        let device = device.unwrap_or_default();
        if !device.is_cpu() && types.iter().any(|ty| ty.dtype == DType::F64) {
            return self.refuse(&operands, operands.len(), no_float64(op.name(), device));
        }
        let outputs = types.len();
        let slot = self.engine.insert(Record {
            id: 0,
            refs: 0,
            handles: 0,
            op,
            device,
            operands,
            types,
            values: SmallVec::from_elem(None, outputs),
            state: State::Pending,
            history,
            consumed: None,
            transforms,
            variable: None,
            visit: Visit::default(),
        });
        self.full |= context::note_pending(slot, self.engine.get(slot).id);
        if let Some(line) = &self.line {
            self.engine.keep_line(slot, line);
        }
        Ok(slot)
    }

    /// Lets go of the operands of a node that is not recorded after all, of which the first ones were held.
    #[cold]
    fn refuse(&mut self, operands: &[Operand], held: usize, error: Error) -> Result<Slot> {
        for slot in operands[..held].iter().filter_map(super::handle::operand_slot) {
            self.engine.release(slot);
        }
        self.discard(&operands[held..]);
        Err(error)
    }

    /// Takes transform bits off a record: the result of a transform does not depend on its own arguments.
    pub(super) fn set_transforms(&mut self, slot: Slot, transforms: u64) {
        self.engine.get_mut(slot).transforms = transforms;
    }

    pub(super) fn engine_ref(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    pub(super) fn tensor(&mut self, slot: Slot, output: u32) -> Tensor {
        Tensor::on(&mut self.engine, slot, output)
    }

    /// Records a node of one output and ends the recording.
    pub(super) fn finish(mut self, op: Op, operands: SmallVec<[Operand; 3]>, ty: TensorType) -> Result<Tensor> {
        let slot = self.push(op, operands, smallvec![ty])?;
        let tensor = self.tensor(slot, 0);
        self.end(&[&tensor])?;
        Ok(tensor)
    }

    /// Ends the recording: evaluates at once in eager mode, or when too much is pending.
    pub fn end(self, made: &[&Tensor]) -> Result<()> {
        let evaluates =
            context::eager() && !made.iter().any(|tensor| self.engine.get(tensor.place(&self.engine).0).is_example());
        let full = self.full;
        drop(self);
        if evaluates {
            evaluate::evaluate(made)?;
        } else if full {
            evaluate::evaluate_all(&[])?;
        }
        Ok(())
    }
}

#[cold]
fn mixed_devices(op: &Op, one: DeviceId, other: DeviceId) -> Error {
    let target = if one.is_cpu() { other } else { one };
    Error::device(format!(
        "{}: operands are on {one} and {other}, all must be on one device; use x.to({:?})",
        op.name(),
        target.short()
    ))
}

/// The error for an operation on float64 where that does not exist.
#[cold]
pub(super) fn no_float64(op: &str, device: DeviceId) -> Error {
    Error::unsupported(format!(
        "{op}: float64 is not supported on {device}; use float32, or move the operands with x.to(\"cpu\")"
    ))
}

/// What passes from an operand to the result.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// Structure only: the traced pullback of a custom gradient.
    None,
    /// The value.
    Value,
    /// The value, and tangents.
    Tangent,
}

fn flow(op: &Op, position: usize) -> Flow {
    match op {
        Op::CustomGradient(n) if (2..2 + *n as usize).contains(&position) => Flow::Tangent,
        Op::CustomGradient(_) if position == 0 => Flow::Value,
        Op::CustomGradient(_) => Flow::None,
        Op::After if position == 1 => Flow::Value,
        _ => Flow::Tangent,
    }
}

/// A marker on an output: of a variable's version, or of a transform's argument.
pub(super) fn push_marker(engine: &mut Engine, slot: Slot, output: u32, variable: Option<&Arc<Cell>>) -> Slot {
    engine.retain(slot);
    let record = engine.get(slot);
    let (ty, transforms, device) = (record.types[output as usize].clone(), record.transforms, record.device);
    engine.insert(Record {
        id: 0,
        refs: 1,
        handles: 0,
        op: Op::Marker,
        device,
        operands: smallvec![Operand::Node(slot, output)],
        types: smallvec![ty],
        values: smallvec![None],
        state: State::Pending,
        history: true,
        consumed: None,
        transforms,
        variable: variable.map(Arc::downgrade),
        visit: Visit::default(),
    })
}

/// A placeholder: the argument of an open batch, or the cotangent of a custom gradient. Its caller holds it.
pub(super) fn push_placeholder(engine: &mut Engine, ty: TensorType, device: DeviceId, bit: u64) -> Slot {
    debug_assert!(bit & EXAMPLES != 0);
    engine.insert(Record {
        id: 0,
        refs: 1,
        handles: 0,
        op: Op::Source(Source::Placeholder),
        device,
        operands: SmallVec::new(),
        types: smallvec![ty],
        values: smallvec![None],
        state: State::Pending,
        history: false,
        consumed: None,
        transforms: bit,
        variable: None,
        visit: Visit::default(),
    })
}

/// Says where the user stands, for errors raised while recording.
pub fn at_user_line(error: Error) -> Error {
    match crate::location::current() {
        // An error may pass several places that could tell the line.
        Some(line) if error.message().ends_with(&format!(" ({line})")) => error,
        Some(line) => Error::new(error.kind(), format!("{} ({line})", error.message())),
        None => error,
    }
}
