//! The start of a call: every tensor is found and checked, what will be written over is taken, and its records are
//! marked as claimed, so that other threads wait; and how all that is given back where the call goes no further.

use super::{Begun, BlockKind, Call, NameSpec, Replay, is_made};
use crate::error::Result;
use crate::machine::cpu::arena;
use crate::machine::cpu::buffer::Buffer;
use crate::machine::cpu::view::is_contiguous;
use crate::tensor::engine::{self, Engine, Record, State, Value};
use crate::tensor::evaluate;
use crate::tensor::handle::{Place, Tensor, leaf};
use crate::tensor::rng;
use crate::tensor::trace::{Holder, NameId, Same, is_of};
use crate::tensor::transfer::own_copy;
use smallvec::SmallVec;
use std::sync::Arc;

impl Replay {
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
                match self.tensor(variable, arguments).held_grad(engine) {
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
            let state = tensor.0.state(engine);
            let (slot, output, variable) = (state.slot, state.output, state.variable.is_some());
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
                if record.device != spec.device {
                    return Found::Mismatch;
                }
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
                spec.is_whole = is_whole(record, output);
            }
            spec.place = Some((slot, output));
            spec.cell = cell;
            if self.same(at, is_first) != self.names[at].same {
                return Found::Mismatch;
            }
        }
        let has_grad = |&(variable, exists): &(NameId, bool)| {
            let state = self.tensor(variable, arguments).0.state(engine);
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

    /// The handles whose values somebody else holds too, so that they cannot be written over. Ends the version that
    /// each rebound variable had.
    fn shared(&self, engine: &mut Engine, arguments: &[&Tensor]) -> SmallVec<[Tensor; 2]> {
        let mut shared = SmallVec::new();
        for (at, spec) in self.names.iter().enumerate().filter(|(_, spec)| spec.in_place) {
            let Some((slot, output)) = spec.place else { continue };
            if spec.variable {
                self.tensor(at as NameId, arguments).end_version(engine);
            }
            if !(spec.is_whole && is_alone(engine.get(slot), output)) {
                shared.extend(self.handle(engine, at as NameId, arguments));
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
                self.addresses[at] = spec.taken.as_ref().map_or(std::ptr::null_mut(), |value| address(value, 0));
            } else if let (Some(value), Some((ty, _))) = (value, &spec.leaf) {
                self.addresses[at] = address(value, ty.dtype.size());
                spec.buffer = Some((Arc::clone(&value.buffer), value.offset));
            }
        }
        for (at, (value, ty)) in self.constants.iter().enumerate() {
            self.addresses[self.names.len() + at] = address(value, ty.dtype.size());
        }
        for at in 0..self.grads.len() {
            if !self.grads[at].reuses {
                continue;
            }
            let state = self.tensor(self.grads[at].variable, arguments).0.state(engine);
            let grad = state.variable.as_ref().and_then(|variable| variable.grad.as_ref());
            // Only the variable may hold the handle.
            let Some(grad) = grad.filter(|grad| Arc::strong_count(&grad.0) == 1) else { continue };
            let (slot, output) = grad.place(engine);
            let record = engine.get(slot);
            let is_free = || is_alone(record, output) && is_whole(record, output);
            if record.is_done() && output == 0 && record.types.len() == 1 && is_free() {
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
                BlockKind::Device => continue,
                BlockKind::Kept => None,
                BlockKind::Fresh => Some(None),
                BlockKind::Grad(grad) => Some(self.grads[grad as usize].taken.as_ref()),
            };
            if let Some(taken) = taken {
                block.current = Some(match taken.filter(|(_, value)| value.buffer.bytes() == block.bytes) {
                    Some((_, value)) => Arc::clone(&value.buffer),
                    None => Arc::new(Buffer::new(block.bytes)?.into()),
                });
            }
            self.addresses[self.first_block as usize + at] =
                block.current.as_ref().map_or(std::ptr::null_mut(), |buffer| buffer.host().as_mut_ptr());
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
    pub(super) fn put_back(&mut self, engine: &mut Engine) {
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
    pub(super) fn let_go(&mut self) {
        engine::tell_settled();
        self.held.clear();
        self.names.iter_mut().for_each(|name| name.buffer = None);
        for block in self.blocks.iter_mut().filter(|block| !matches!(block.kind, BlockKind::Kept)) {
            block.current = None;
        }
    }
}

/// Where a value on the host starts, its elements being of this size. One on a device has no address.
fn address(value: &Value, size: usize) -> *mut u8 {
    let start = value.buffer.address();
    if start.is_null() { start } else { start.wrapping_add(value.offset * size) }
}

enum Found {
    All,
    Mismatch,
    Pending(Tensor),
}

/// Whether one handle is all that holds a value, so that it can be written over if it is whole.
fn is_alone(record: &Record, output: u32) -> bool {
    let value = record.values[output as usize].as_ref();
    record.handles == 1 && record.refs == 0 && value.is_some_and(|value| Arc::strong_count(&value.buffer) == 1)
}

/// Whether a value is all of memory of our own, in order.
fn is_whole(record: &Record, output: u32) -> bool {
    let ty = &record.types[output as usize];
    record.values[output as usize].as_ref().is_some_and(|value| {
        value.offset == 0
            && value.buffer.is_owned()
            && value.buffer.bytes() == ty.bytes_on(record.device)
            && is_contiguous(&ty.shape, &value.strides)
    })
}

/// Gives a handle a copy of its value that is its own.
fn unshare(tensor: &Tensor) -> Result<()> {
    let place = tensor.place(&engine::lock());
    let Some((value, ty)) = tensor.known_value()? else { return Ok(()) };
    let copy = own_copy(&value, &ty)?;
    let mut engine = engine::lock();
    if tensor.place(&engine) == place {
        let own = engine.insert(leaf(copy, ty));
        let old = tensor.move_to(&mut engine, Place { slot: own, output: 0 });
        engine.release(old.slot);
    }
    Ok(())
}
