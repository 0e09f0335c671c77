//! The parameters of a group with their state, and the step over all groups: one barrier, after which every handle
//! names its new value, or on failure its old one.

use super::rules::{Recipe, Rule};
use crate::error::{Error, Result};
use crate::scalar::Scalar;
use crate::tensor::{self, Arg, GradGuard, Rebinding, Tensor};
use smallvec::SmallVec;

/// One update rule over parameters.
pub struct Updater {
    rule: Rule,
    params: Vec<Tensor>,
    states: Vec<State>,
}

/// What a rule remembers of one parameter.
#[derive(Clone, Default)]
pub struct State {
    /// Steps done.
    pub step: u64,
    /// In the order of `Rule::state_names`.
    pub tensors: [Option<Tensor>; 3],
}

impl Updater {
    pub fn new(rule: Rule, params: Vec<Tensor>) -> Updater {
        let states = params.iter().map(|_| State::default()).collect();
        Updater { rule, params, states }
    }

    pub fn rule(&self) -> Rule {
        self.rule
    }

    pub fn params(&self) -> &[Tensor] {
        &self.params
    }

    /// The state of a parameter.
    pub fn state(&self, index: usize) -> Result<&State> {
        self.states.get(index).ok_or_else(|| out_of_range(index, self.params.len()))
    }

    /// Puts a state back. Its tensors must have the shape of the parameter.
    pub fn set_state(&mut self, index: usize, state: State) -> Result<()> {
        let param = self.params.get(index).ok_or_else(|| out_of_range(index, self.params.len()))?;
        for (name, tensor) in self.rule.state_names().iter().zip(&state.tensors) {
            if let Some(tensor) = tensor
                && tensor.shape() != param.shape()
            {
                return Err(Error::shape(format!(
                    "set_state: {name} has shape {}, parameter {index} has {}",
                    tensor.shape(),
                    param.shape()
                )));
            }
        }
        self.states[index] = state;
        Ok(())
    }

    /// Forgets the gradients, or makes them zero.
    pub fn zero_grad(&self, set_to_none: bool) -> Result<()> {
        let _mode = GradGuard::new(false);
        for param in &self.params {
            match param.grad() {
                Some(grad) if !set_to_none => {
                    let ty = grad.ty();
                    grad.rebind(&tensor::full(ty.shape, Scalar::F64(0.0), ty.dtype)?)?;
                }
                _ => param.set_grad(None)?,
            }
        }
        Ok(())
    }

    /// Records the update of each parameter that has a gradient and moves the handles; gives the new states.
    fn record(&self, settings: &[f64], moved: &mut Vec<Rebinding>) -> Result<Vec<Option<State>>> {
        let mut update = |(param, state): (&Tensor, &State)| {
            param.grad().map(|grad| self.record_one(param, &grad, state, settings, moved)).transpose()
        };
        self.params.iter().zip(&self.states).map(&mut update).collect()
    }

    fn record_one(
        &self,
        param: &Tensor,
        grad: &Tensor,
        state: &State,
        settings: &[f64],
        moved: &mut Vec<Rebinding>,
    ) -> Result<State> {
        let step = state.step + 1;
        let exists = [0, 1, 2].map(|which| state.tensors[which].is_some());
        let Recipe { def, attrs, uses, numbers } = self.rule.recipe(step, settings, exists)?;
        let mut next = State { step, tensors: state.tensors.clone() };
        for (slot, used) in next.tensors.iter_mut().zip(uses) {
            if used && slot.is_none() {
                let ty = param.ty();
                *slot = Some(tensor::full(ty.shape, Scalar::F64(0.0), ty.dtype)?);
            }
        }
        let states = next.tensors.iter().zip(uses).filter_map(|(slot, used)| slot.as_ref().filter(|_| used));
        let handles: SmallVec<[&Tensor; 4]> = std::iter::once(param).chain(states).collect();
        let args: SmallVec<[Arg; 16]> = [param, grad]
            .into_iter()
            .chain(handles[1..].iter().copied())
            .map(Arg::Tensor)
            .chain(numbers.iter().map(|&number| number.into()))
            .collect();
        tensor::rebind_composite(def, attrs, &args, &handles, moved)?;
        drop((args, handles));
        Ok(next)
    }
}

fn out_of_range(index: usize, count: usize) -> Error {
    Error::index(format!("state: parameter {index} is out of range for {count}"))
}

/// Records the updates of all groups, moves the handles, and evaluates them with everything pending. If anything
/// fails, parameters, state and step counts are as they were.
pub fn step(updates: &mut [(&mut Updater, &[f64])]) -> Result<()> {
    let _mode = GradGuard::new(false);
    let mut moved: Vec<Rebinding> = Vec::new();
    let mut next: Vec<Vec<Option<State>>> = Vec::with_capacity(updates.len());
    for (updater, settings) in updates.iter() {
        match updater.record(settings, &mut moved) {
            Ok(states) => next.push(states),
            Err(error) => {
                moved.into_iter().rev().for_each(Rebinding::undo);
                return Err(error);
            }
        }
    }
    tensor::evaluate_all(&moved)?;
    for ((updater, _), states) in updates.iter_mut().zip(next) {
        for (state, next) in updater.states.iter_mut().zip(states) {
            if let Some(next) = next {
                *state = next;
            }
        }
    }
    Ok(())
}
