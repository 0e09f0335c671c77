//! Steps on a device that may turn out not to have been: an index out of range is found late, and from there on the device
//! keeps all old values until a read has raised it. Knows what the host has to put back then.

use super::updater::State;
use crate::error::Result;
use crate::machine::storage::{Fate, Ticket};
use crate::tensor;
use std::collections::VecDeque;

/// Steps that are remembered; then the device is waited for.
const MOST: usize = 256;

/// What a step changed of one parameter's state.
pub struct Before {
    pub index: usize,
    pub step: u64,
    /// Which state tensors there were.
    pub exists: [bool; 3],
}

/// A step on one device.
struct Step {
    ticket: Ticket,
    before: Vec<Before>,
}

#[derive(Default)]
pub struct Journal {
    steps: VecDeque<Step>,
}

impl Journal {
    pub fn note(&mut self, ticket: Ticket, before: Vec<Before>) {
        self.steps.push_back(Step { ticket, before });
    }

    /// Forgets the steps that were, and puts back what those changed that were not. Whether there were any.
    pub fn settle(&mut self, states: &mut [State]) -> bool {
        if self.steps.is_empty() {
            return false;
        }
        // What is not known of a run is not known of later ones on its device.
        let mut unknown: Option<Ticket> = None;
        let mut undone = Vec::new();
        self.steps.retain_mut(|step| {
            if unknown.as_ref().is_some_and(|ticket| ticket.is_beside(&step.ticket)) {
                return true;
            }
            match step.ticket.fate() {
                Fate::Unknown => {
                    unknown = Some(step.ticket.clone());
                    return true;
                }
                Fate::Done => {}
                Fate::Void => undone.push(std::mem::take(&mut step.before)),
            }
            false
        });
        // The first of them says how everything was.
        for Before { index, step, exists } in undone.iter().rev().flatten() {
            let state = &mut states[*index];
            state.step = *step;
            state.tensors.iter_mut().zip(exists).filter(|(_, exists)| !**exists).for_each(|(tensor, _)| *tensor = None);
        }
        !undone.is_empty()
    }

    /// Waits until all steps can be settled; raises an index out of range that is new.
    pub fn judge(&self) -> Result<()> {
        self.steps
            .iter()
            .rev()
            .filter(|step| step.ticket.fate() == Fate::Unknown)
            .try_for_each(|step| tensor::judge(&step.ticket))
    }

    /// Makes room for another step.
    pub fn make_room(&self) -> Result<()> {
        if self.steps.len() < MOST { Ok(()) } else { self.judge() }
    }

    /// The state of a parameter was put in from outside.
    pub fn forget(&mut self, index: usize) {
        self.steps.iter_mut().for_each(|step| step.before.retain(|before| before.index != index));
    }
}
