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

/// An update that is recorded and not yet in place.
struct Update {
    /// The handles to rebind, each with its new value.
    moves: Vec<(Tensor, Tensor)>,
    state: State,
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

    /// Records the update of each parameter that has a gradient.
    fn record(&self, settings: &[f64]) -> Result<Vec<Option<Update>>> {
        let update = |(param, state): (&Tensor, &State)| {
            param.grad().map(|grad| self.record_one(param, &grad, state, settings)).transpose()
        };
        self.params.iter().zip(&self.states).map(update).collect()
    }

    fn record_one(&self, param: &Tensor, grad: &Tensor, state: &State, settings: &[f64]) -> Result<Update> {
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
        let used = next.tensors.iter().zip(uses).filter(|(_, used)| *used);
        let states: SmallVec<[Tensor; 3]> = used.filter_map(|(slot, _)| slot.clone()).collect();
        let args: SmallVec<[Arg; 16]> = [param, grad]
            .into_iter()
            .chain(&states)
            .map(Arg::Tensor)
            .chain(numbers.iter().map(|&number| number.into()))
            .collect();
        let made = tensor::composite_all(def, attrs, &args)?;
        drop(args);
        let handles = std::iter::once(param.clone()).chain(states);
        let moves = handles.zip(made).collect();
        Ok(Update { moves, state: next })
    }
}

fn out_of_range(index: usize, count: usize) -> Error {
    Error::index(format!("state: parameter {index} is out of range for {count}"))
}

/// Records the updates of all groups, moves the handles, and evaluates them with everything pending. If anything
/// fails, parameters, state and step counts are as they were.
pub fn step(updates: &mut [(&mut Updater, &[f64])]) -> Result<()> {
    let _mode = GradGuard::new(false);
    let recorded: Vec<Vec<Option<Update>>> =
        updates.iter().map(|(updater, settings)| updater.record(settings)).collect::<Result<_>>()?;
    let moves = recorded.iter().flatten().flatten().flat_map(|update| &update.moves);
    let rebindings: Vec<Rebinding> = moves.map(|(handle, new)| Rebinding::new(handle, new)).collect();
    let mut next: Vec<Vec<Option<State>>> = Vec::with_capacity(recorded.len());
    // The recorded values go now: only the handles that they moved to may hold them.
    for group in recorded {
        next.push(group.into_iter().map(|update| update.map(|update| update.state)).collect());
    }
    tensor::evaluate_all(&rebindings)?;
    for ((updater, _), states) in updates.iter_mut().zip(next) {
        for (state, next) in updater.states.iter_mut().zip(states) {
            if let Some(next) = next {
                *state = next;
            }
        }
    }
    Ok(())
}
