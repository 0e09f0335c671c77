//! A step run again without the code that recorded it: the same plans, on what the same tensors hold now. Owns where
//! values lie between the plans of a step and how results reach the handles. Each barrier is all or nothing, as it is
//! for ordinary code. Nothing is allocated, hashed or locked for a kernel.
//!
//! A call goes in three parts. `begin` finds the tensors under one engine lock, takes the values that will be written
//! over and marks their records as claimed, so that other threads wait; `run_plan` runs without any lock; `finish` puts
//! values back and publishes, under one engine lock.

mod build;
mod profile;

pub use profile::{KernelProfile, PlanProfile, Summary};

use super::engine::{self, Engine, Slot, State, Value};
use super::evaluate;
use super::handle::{Cell, Place, Tensor, leaf};
use super::rng;
use super::trace::{Check, Holder, Log, NameId, Origin, Returned, Same, Source, is_of};
use crate::error::{Error, Result};
use crate::exec::Prepared;
use crate::graph::TensorType;
use crate::machine::cpu::arena::{self, Lease};
use crate::machine::cpu::buffer::Buffer;
use crate::machine::cpu::view::{self, View, is_contiguous};
use crate::scalar::Scalar;
use crate::shape::Strides;
use smallvec::SmallVec;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};

/// A tensor from outside, and what is found of it in a call.
struct NameSpec {
    /// The handle, if it is found by itself.
    tensor: Option<Tensor>,
    holder: Holder,
    /// The one handle that the argument may be.
    bound: Option<Weak<Cell>>,
    variable: bool,
    /// Type and strides, if a plan reads the value.
    leaf: Option<(TensorType, Strides)>,
    /// A plan writes the new value over the old one.
    in_place: bool,
    /// What it shares with earlier names.
    same: Same,
    /// The record that was seen to fit.
    known: Option<(Slot, u64, u32)>,
    /// In a call: the address of the handle, the record, and its value or the buffer that is held for it.
    cell: usize,
    place: Option<(Slot, u32)>,
    taken: Option<Value>,
    buffer: Option<(Arc<Buffer>, usize)>,
}

/// Memory of a result.
struct Block {
    bytes: usize,
    kind: BlockKind,
    /// Results that lie here.
    outputs: u32,
    current: Option<Arc<Buffer>>,
}

enum BlockKind {
    /// Ours: only later plans of the step read it.
    Kept,
    /// New at each call.
    Fresh,
    /// The buffer of this gradient, if nobody else holds it.
    Grad(u32),
}

struct PlanStep {
    prepared: Prepared,
    nanos: u64,
    /// Each leaf that is read, and its place.
    leaves: Vec<(u32, u32)>,
    /// The place of each result buffer.
    buffers: Vec<u32>,
    numbers: Vec<(u32, Origin)>,
}

/// A value that a handle takes.
struct Version {
    /// How many plans must have run.
    after: u32,
    /// None: the handle's own buffer, written over.
    place: Option<u32>,
}

struct StateUpdate {
    name: NameId,
    versions: Vec<Version>,
}

struct GradUpdate {
    variable: NameId,
    /// How many plans have run when the step clears it, if it does before it looks at it.
    cleared: Option<usize>,
    /// None: cleared, or a tensor from outside.
    last: Option<Version>,
    /// The tensor from outside that becomes the gradient, itself.
    handle: Option<NameId>,
    /// The buffer of the gradient before may serve.
    reuses: bool,
    /// In a call: that gradient's value, and the record it was taken from.
    taken: Option<(Slot, Value)>,
}

pub struct Replay {
    names: Vec<NameSpec>,
    constants: Vec<(Value, TensorType)>,
    blocks: Vec<Block>,
    first_block: u32,
    plans: Vec<PlanStep>,
    states: Vec<StateUpdate>,
    grads: Vec<GradUpdate>,
    /// Variables that must have a gradient at the start, or must not.
    exists: Vec<(NameId, bool)>,
    returned: Vec<(Returned, TensorType, Option<u32>)>,
    /// Each with the place that it looks at.
    checks: Vec<(u32, Check)>,
    /// In a call: the plans that were begun.
    begun: usize,
    draws: u64,
    working: usize,
    /// The address of each place, in a call.
    addresses: Vec<*mut u8>,
    /// Gradients found while the engine is locked, when none may be dropped.
    held: Vec<Tensor>,
}

// SAFETY: addresses are used only during a call, by the thread that makes it.
unsafe impl Send for Replay {}

/// How a call starts.
pub enum Begun {
    Ready(Call),
    /// Tensors are not as they were: this replay does not fit.
    Mismatch,
    /// These must be evaluated first.
    Pending(Tensor),
    /// An index is out of range. Nothing has happened: ordinary code says where.
    Fails,
}

/// A call under way.
pub struct Call {
    memory: Lease,
    generator: (u64, u64),
}

/// The numbers of a call.
#[derive(Clone, Copy, Default)]
pub struct Numbers<'a> {
    /// Float arguments, by position.
    pub arguments: &'a [f64],
    /// What each source makes of its settings.
    pub settings: &'a [SmallVec<[f64; 8]>],
}

/// What a call gives back at one place.
pub enum Given {
    /// The argument at this position, itself.
    Argument(u32),
    /// The handle from outside that the step gave back when it was traced.
    Outside,
    Tensor(Tensor),
    /// A gradient that does not exist.
    Nothing,
}

impl Replay {
    pub fn new(log: Log) -> Result<Replay> {
        build::build(log)
    }

    pub fn plans(&self) -> usize {
        self.plans.len()
    }

    /// About how long a plan runs, on one thread.
    pub fn nanos(&self, plan: usize) -> u64 {
        self.plans[plan].nanos
    }

    /// Finds what the step works on and claims what it writes over. `arguments` are as many as in the trace.
    pub fn begin(&mut self, arguments: &[&Tensor]) -> Result<Begun> {
        let memory = arena::lease(self.working)?;
        self.begun = 0;
        loop {
            self.held.clear();
            let mut engine = engine::lock();
            match self.find(&mut engine, arguments) {
                Found::All => {}
                Found::Mismatch => return Ok(Begun::Mismatch),
                Found::Pending(tensor) => return Ok(Begun::Pending(tensor)),
            }
            let shared = self.shared(&mut engine, arguments);
            if shared.is_empty() {
                self.claim(&mut engine, arguments);
                break;
            }
            drop(engine);
            for tensor in shared {
                unshare(&tensor)?;
            }
        }
        if self.check(|check| !is_made(check)).is_err() {
            self.give_back();
            return Ok(Begun::Fails);
        }
        if let Err(error) = self.fill_blocks() {
            self.give_back();
            return Err(error);
        }
        let generator = if self.draws > 0 { rng::draw_many(self.draws) } else { (0, 0) };
        Ok(Begun::Ready(Call { memory, generator }))
    }

    /// Looks every name up.
    fn find(&mut self, engine: &mut Engine, arguments: &[&Tensor]) -> Found {
        let walk = engine.next_walk();
        for at in 0..self.names.len() {
            if let Holder::Grad(variable) = self.names[at].holder {
                match self.tensor(variable, arguments).held_grad() {
                    Some(grad) => self.held.push(grad),
                    None => return Found::Mismatch,
                }
            }
            let tensor = match (self.names[at].holder, self.held.last()) {
                (Holder::Grad(_), Some(grad)) => grad,
                _ => self.tensor(at as NameId, arguments),
            };
            if self.names[at].bound.as_ref().is_some_and(|bound| !is_of(bound, tensor)) {
                return Found::Mismatch;
            }
            let (slot, output, variable) = {
                let state = tensor.0.lock();
                (state.slot, state.output, state.variable.is_some())
            };
            let (slot, output) = engine.unmarked(slot, output);
            let record = engine.get_mut(slot);
            if variable != self.names[at].variable || record.history {
                return Found::Mismatch;
            }
            if !record.is_done() {
                return Found::Pending(tensor.clone());
            }
            let is_first = std::mem::replace(&mut record.visit.walk, walk) != walk;
            let (own, cell) = ((slot, record.id, output), tensor.address());
            let spec = &mut self.names[at];
            if spec.known != Some(own) {
                if let Some((ty, strides)) = &spec.leaf {
                    let fits = match &record.values[output as usize] {
                        Some(value) => record.types[output as usize] == *ty && value.strides == *strides,
                        None => false,
                    };
                    if !fits {
                        return Found::Mismatch;
                    }
                }
                spec.known = Some(own);
            }
            spec.place = Some((slot, output));
            spec.cell = cell;
            if self.same(at, is_first) != self.names[at].same {
                return Found::Mismatch;
            }
        }
        let has_grad = |&(variable, exists): &(NameId, bool)| {
            let state = self.tensor(variable, arguments).0.lock();
            state.variable.as_ref().is_some_and(|variable| variable.grad.is_some()) == exists
        };
        match self.exists.iter().all(has_grad) {
            true => Found::All,
            false => Found::Mismatch,
        }
    }

    /// What a name shares with earlier ones, now that they are found; nothing if it is the first that names its record.
    fn same(&self, at: usize, is_first: bool) -> Same {
        let own = &self.names[at];
        let first = |alike: &dyn Fn(&NameSpec) -> bool| self.names[..at].iter().position(alike).unwrap_or(at) as NameId;
        match is_first {
            true => [at as NameId; 2],
            false => [first(&|name| name.place == own.place), first(&|name| name.cell == own.cell)],
        }
    }

    /// The handle of a name that is no gradient.
    fn tensor<'a>(&'a self, name: NameId, arguments: &[&'a Tensor]) -> &'a Tensor {
        let spec = &self.names[name as usize];
        match (spec.holder, &spec.tensor) {
            (Holder::Argument(position), _) => arguments[position as usize],
            (_, Some(tensor)) => tensor,
            (_, None) => unreachable!("a handle is kept for each name that is neither argument nor gradient"),
        }
    }

    /// The handle of any name.
    fn handle(&self, name: NameId, arguments: &[&Tensor]) -> Option<Tensor> {
        match self.names[name as usize].holder {
            Holder::Grad(variable) => self.tensor(variable, arguments).held_grad(),
            _ => Some(self.tensor(name, arguments).clone()),
        }
    }

    /// The handles whose values somebody else holds too, so that they cannot be written over. Ends the version that
    /// each rebound variable had.
    fn shared(&self, engine: &mut Engine, arguments: &[&Tensor]) -> SmallVec<[Tensor; 2]> {
        let mut shared = SmallVec::new();
        for (at, spec) in self.names.iter().enumerate().filter(|(_, spec)| spec.in_place) {
            let Some((slot, output)) = spec.place else { continue };
            if spec.variable {
                let marker =
                    self.tensor(at as NameId, arguments).0.lock().variable.as_mut().and_then(|v| v.marker.take());
                if let Some(marker) = marker {
                    engine.release(marker);
                }
            }
            if !is_alone(engine, slot, output) {
                shared.extend(self.handle(at as NameId, arguments));
            }
        }
        shared
    }

    /// Takes the values that will be written over and holds the others.
    fn claim(&mut self, engine: &mut Engine, arguments: &[&Tensor]) {
        let generation = evaluate::generation();
        for at in 0..self.names.len() {
            let spec = &mut self.names[at];
            let Some((slot, output)) = spec.place else { continue };
            let record = engine.get_mut(slot);
            let Some(value) = record.values.get_mut(output as usize) else { continue };
            if spec.in_place {
                record.state = State::Claimed(generation);
                spec.taken = value.take();
                // Another thread may rebind the handle meanwhile.
                record.refs += 1;
                self.addresses[at] =
                    spec.taken.as_ref().map_or(std::ptr::null_mut(), |value| value.buffer.as_mut_ptr());
            } else if let (Some(value), Some((ty, _))) = (value, &spec.leaf) {
                // SAFETY: a value's offset lies in its buffer.
                self.addresses[at] = unsafe { value.buffer.as_mut_ptr().add(value.offset * ty.dtype.size()) };
                spec.buffer = Some((Arc::clone(&value.buffer), value.offset));
            }
        }
        for (at, (value, ty)) in self.constants.iter().enumerate() {
            // SAFETY: as above.
            self.addresses[self.names.len() + at] =
                unsafe { value.buffer.as_mut_ptr().add(value.offset * ty.dtype.size()) };
        }
        for at in 0..self.grads.len() {
            if !self.grads[at].reuses {
                continue;
            }
            let variable = self.tensor(self.grads[at].variable, arguments).clone();
            let state = variable.0.lock();
            let Some(grad) = state.variable.as_ref().and_then(|variable| variable.grad.as_ref()) else { continue };
            // Only the variable holds the handle.
            if Arc::strong_count(&grad.0) != 1 {
                continue;
            }
            let (slot, output) = grad.place();
            let record = engine.get(slot);
            if record.is_done() && output == 0 && record.types.len() == 1 && is_alone(engine, slot, output) {
                let record = engine.get_mut(slot);
                record.state = State::Claimed(generation);
                record.refs += 1;
                self.grads[at].taken = record.values[0].take().map(|value| (slot, value));
            }
        }
    }

    fn fill_blocks(&mut self) -> Result<()> {
        for (at, block) in self.blocks.iter_mut().enumerate() {
            let taken = match block.kind {
                BlockKind::Kept => None,
                BlockKind::Fresh => Some(None),
                BlockKind::Grad(grad) => Some(self.grads[grad as usize].taken.as_ref()),
            };
            if let Some(taken) = taken {
                block.current = Some(match taken.filter(|(_, value)| value.buffer.len() == block.bytes) {
                    Some((_, value)) => Arc::clone(&value.buffer),
                    None => Arc::new(Buffer::new(block.bytes)?),
                });
            }
            self.addresses[self.first_block as usize + at] =
                block.current.as_ref().map_or(std::ptr::null_mut(), |buffer| buffer.as_mut_ptr());
        }
        Ok(())
    }

    /// Runs the plan of this number, after those before it.
    pub fn run_plan(&mut self, call: &Call, plan: usize, numbers: &Numbers) -> Result<()> {
        self.check(|check| is_made(check) && check.before == plan as u32)?;
        self.begun = plan + 1;
        let step = &mut self.plans[plan];
        for &(leaf, place) in &step.leaves {
            step.prepared.set_leaf(leaf as usize, self.addresses[place as usize]);
        }
        for (buffer, &place) in step.buffers.iter().enumerate() {
            step.prepared.set_buffer(buffer, self.addresses[place as usize]);
        }
        for &(cell, origin) in &step.numbers {
            let number = match origin {
                Origin::Literal => continue,
                Origin::Argument(position) => Scalar::F64(numbers.arguments[position as usize]),
                Origin::Seed => Scalar::I64(call.generator.0 as i64),
                Origin::Stream(offset) => Scalar::I64(call.generator.1.wrapping_add(offset) as i64),
                Origin::Setting { source, at } => Scalar::F64(numbers.settings[source as usize][at as usize]),
            };
            step.prepared.set_cell(cell as usize, number);
        }
        // SAFETY: the lease is as long as the longest plan needs. Leaves are held, results are ours, and what is
        // written over was taken from records that nobody else holds.
        let run = || unsafe { step.prepared.run(call.memory.as_mut_ptr()) };
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(evaluate::panicked(&*panic)))
    }

    /// Makes the checks that are due.
    fn check(&self, is_due: impl Fn(&Check) -> bool) -> Result<()> {
        for (place, Check { ty, check, .. }) in self.checks.iter().filter(|(_, check)| is_due(check)) {
            let strides = match self.names.get(*place as usize).and_then(|name| name.leaf.as_ref()) {
                Some((_, strides)) => strides.clone(),
                None => ty.shape.strides(),
            };
            let ptr = self.addresses[*place as usize];
            if !ptr.is_null() {
                // SAFETY: the value is held during the call.
                unsafe { check.check(&View { ptr, dtype: ty.dtype, shape: ty.shape.clone(), strides })? };
            }
        }
        Ok(())
    }

    /// Puts everything back, before any plan ran.
    fn give_back(&mut self) {
        let mut engine = engine::lock();
        self.put_back(&mut engine);
        for grad in &mut self.grads {
            if let Some((slot, value)) = grad.taken.take() {
                let record = engine.get_mut(slot);
                record.values[0] = Some(value);
                record.state = State::Done;
                engine.release(slot);
            }
        }
        drop(engine);
        self.let_go();
    }

    /// Puts the values of names back.
    fn put_back(&mut self, engine: &mut Engine) {
        for spec in self.names.iter_mut() {
            if let (Some(value), Some((slot, output))) = (spec.taken.take(), spec.place) {
                let record = engine.get_mut(slot);
                record.values[output as usize] = Some(value);
                record.state = State::Done;
                engine.release(slot);
            }
        }
    }

    /// Wakes those who wait for what was claimed, and lets go of what was held.
    fn let_go(&mut self) {
        engine::tell_settled();
        self.held.clear();
        self.names.iter_mut().for_each(|name| name.buffer = None);
        for block in self.blocks.iter_mut().filter(|block| !matches!(block.kind, BlockKind::Kept)) {
            block.current = None;
        }
    }

    /// Gives back the random streams of a call that is made again as ordinary code.
    pub fn forget_draws(&self, call: &Call) {
        rng::give_back(call.generator, self.draws);
    }

    /// Puts back what was taken and publishes what `ran` plans made. The results of a call of which all plans ran.
    pub fn finish(&mut self, arguments: &[&Tensor], ran: usize) -> Result<SmallVec<[Given; 1]>> {
        let done = ran == self.plans.len();
        let mut given: SmallVec<[Given; 1]> = SmallVec::new();
        let mut lost = false;
        // Dropped when the engine is free again.
        let mut dropped: SmallVec<[Option<Tensor>; 4]> = SmallVec::new();
        let mut made: SmallVec<[(u32, Slot); 4]> = SmallVec::new();
        let mut engine = engine::lock();
        self.put_back(&mut engine);
        for state in &self.states {
            let version = state
                .versions
                .iter()
                .rev()
                .find(|version| version.after as usize <= ran && (done || version.after > 0));
            let Some(place) = version.and_then(|version| version.place) else { continue };
            let Some(tensor) = self.handle(state.name, arguments) else { continue };
            // Handles that take one value name one record, as they would after ordinary code.
            let slot = match made.iter().find(|(known, _)| *known == place) {
                Some(&(_, slot)) => slot,
                None => {
                    let ty = tensor.type_in(&engine);
                    let Some(value) = self.value(place, &ty) else {
                        lost = true;
                        continue;
                    };
                    let slot = engine.insert(leaf(value, ty));
                    made.push((place, slot));
                    slot
                }
            };
            let old = tensor.move_to(&mut engine, Place { slot, output: 0 });
            engine.release(old.slot);
            dropped.push(Some(tensor));
        }
        lost |= !self.publish_grads(&mut engine, arguments, ran, &mut dropped);
        if done {
            for (kind, ty, place) in &self.returned {
                given.push(match (kind, place) {
                    (Returned::Name(name), _) => match self.names[*name as usize].holder {
                        Holder::Argument(position) => Given::Argument(position),
                        Holder::Handle => Given::Outside,
                        Holder::Grad(_) => self.found_grad(*name).map_or(Given::Nothing, Given::Tensor),
                    },
                    (Returned::Grad(variable), _) => {
                        self.tensor(*variable, arguments).held_grad().map_or(Given::Nothing, Given::Tensor)
                    }
                    (Returned::Value(_) | Returned::Used(..), place) => {
                        let value = place.and_then(|place| self.value(place, ty));
                        lost |= value.is_none();
                        value.map_or(Given::Nothing, |value| {
                            let (record, output) = match kind {
                                Returned::Used(_, spent) => (spent.record(value), spent.output),
                                _ => (leaf(value, ty.clone()), 0),
                            };
                            let slot = engine.insert(record);
                            Given::Tensor(Tensor::on(&mut engine, slot, output))
                        })
                    }
                });
            }
        }
        drop(engine);
        self.let_go();
        match lost {
            true => Err(Error::internal("a value that a step leaves behind is nowhere")),
            false => Ok(given),
        }
    }

    /// The gradient that was found under this name when the call began.
    fn found_grad(&self, name: NameId) -> Option<Tensor> {
        let before = self.names[..name as usize].iter().filter(|name| matches!(name.holder, Holder::Grad(_)));
        self.held.get(before.count()).cloned()
    }

    /// False: a value was not there.
    fn publish_grads(
        &mut self,
        engine: &mut Engine,
        arguments: &[&Tensor],
        ran: usize,
        dropped: &mut SmallVec<[Option<Tensor>; 4]>,
    ) -> bool {
        let mut is_whole = true;
        let done = ran == self.plans.len();
        for at in 0..self.grads.len() {
            let taken = self.grads[at].taken.take();
            let update = &self.grads[at];
            let made = update.last.as_ref().is_some_and(|version| version.after as usize <= ran);
            let variable = self.tensor(update.variable, arguments);
            if let Some((slot, value)) = taken {
                let record = engine.get_mut(slot);
                record.state = State::Done;
                let is_written = update.last.as_ref().is_some_and(|version| version.after as usize <= self.begun);
                let is_whole = made || !is_written;
                if is_whole {
                    record.values[0] = Some(value);
                }
                engine.release(slot);
                if made {
                    continue;
                }
                if !is_whole {
                    dropped.push(variable.replace_grad(None));
                    continue;
                }
            }
            if !done && !made {
                if update.cleared.is_some_and(|plans| plans < self.begun) {
                    dropped.push(variable.replace_grad(None));
                }
                continue;
            }
            let new = match &update.last {
                None => update.handle.and_then(|name| self.handle(name, arguments)),
                Some(version) => {
                    let ty = variable.type_in(engine);
                    let Some(value) = version.place.and_then(|place| self.value(place, &ty)) else {
                        is_whole = false;
                        continue;
                    };
                    let slot = engine.insert(leaf(value, ty));
                    Some(Tensor::on(engine, slot, 0))
                }
            };
            dropped.push(variable.replace_grad(new));
        }
        is_whole
    }

    /// The value at a place, of this type: there during a call.
    fn value(&self, place: u32, ty: &TensorType) -> Option<Value> {
        if let Some(block) = place.checked_sub(self.first_block) {
            let buffer = self.blocks[block as usize].current.clone()?;
            return Some(Value { buffer, offset: 0, strides: ty.shape.strides() });
        }
        if let Some(constant) = (place as usize).checked_sub(self.names.len()) {
            return Some(self.constants[constant].0.clone());
        }
        let spec = &self.names[place as usize];
        match (&spec.buffer, &spec.leaf) {
            (Some((buffer, offset)), Some((_, strides))) => {
                Some(Value { buffer: Arc::clone(buffer), offset: *offset, strides: strides.clone() })
            }
            _ => None,
        }
    }
}

enum Found {
    All,
    Mismatch,
    Pending(Tensor),
}

/// Whether a check looks at what a plan of the step makes.
fn is_made(check: &Check) -> bool {
    matches!(check.source, Source::Output(..))
}

/// Whether one handle is all that holds a value, so that it can be written over.
fn is_alone(engine: &Engine, slot: Slot, output: u32) -> bool {
    let record = engine.get(slot);
    let ours = |value: &Value| {
        value.offset == 0
            && value.buffer.is_owned()
            && value.buffer.len() == record.types[output as usize].bytes()
            && Arc::strong_count(&value.buffer) == 1
            && is_contiguous(&record.types[output as usize].shape, &value.strides)
    };
    record.handles == 1 && record.refs == 0 && record.values[output as usize].as_ref().is_some_and(ours)
}

/// Gives a handle a copy of its value that is its own.
fn unshare(tensor: &Tensor) -> Result<()> {
    let (slot, output) = tensor.place();
    let Some((value, ty)) = tensor.known_value()? else { return Ok(()) };
    let buffer = Arc::new(Buffer::new(ty.bytes())?);
    let copy = Value { buffer, offset: 0, strides: ty.shape.strides() };
    // SAFETY: the old value is held; the new one is ours alone.
    unsafe { view::copy(&value.view(&ty), &copy.view(&ty)) };
    let mut engine = engine::lock();
    if tensor.place() == (slot, output) {
        let own = engine.insert(leaf(copy, ty));
        let old = tensor.move_to(&mut engine, Place { slot: own, output: 0 });
        engine.release(old.slot);
    }
    Ok(())
}
