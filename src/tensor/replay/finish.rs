//! The end of a call: what was taken goes back, states and gradients are published, and results are made.

use super::{Given, Replay};
use crate::error::{Error, Result};
use crate::graph::TensorType;
use crate::tensor::engine::{self, Engine, Slot, State, Value};
use crate::tensor::handle::{Place, Tensor, leaf};
use crate::tensor::trace::{Holder, NameId, Returned};
use smallvec::SmallVec;
use std::sync::Arc;

impl Replay {
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
            let Some(tensor) = self.handle(&engine, state.name, arguments) else { continue };
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
                        self.tensor(*variable, arguments).held_grad(&engine).map_or(Given::Nothing, Given::Tensor)
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
                    dropped.push(variable.replace_grad(engine, None));
                    continue;
                }
            }
            if !done && !made {
                if update.cleared.is_some_and(|plans| plans < self.begun) {
                    dropped.push(variable.replace_grad(engine, None));
                }
                continue;
            }
            let new = match &update.last {
                None => update.handle.and_then(|name| self.handle(engine, name, arguments)),
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
            dropped.push(variable.replace_grad(engine, new));
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
