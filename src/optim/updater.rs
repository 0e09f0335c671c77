//! The parameters of a group with their state, and the step over all groups: one barrier, after which every handle
//! names its new value, or on failure its old one.

use super::rules::{Recipe, Rule};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::scalar::Scalar;
use crate::tensor::{self, Arg, GradGuard, Rebinding, Tensor};

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

    /// Records the updates of all parameters that have a gradient and moves the handles.
    fn record(&self, settings: &[f64], moved: &mut Vec<Rebinding>) -> Result<Vec<Update>> {
        let mut updates: Vec<Update> = Vec::with_capacity(self.params.len());
        for (index, (param, state)) in self.params.iter().zip(&self.states).enumerate() {
            if let Some(grad) = param.grad() {
                let exists = [0, 1, 2].map(|which| state.tensors[which].is_some());
                let next = State { step: state.step + 1, tensors: state.tensors.clone() };
                updates.push(Update { index, dtype: grad.dtype(), grad, exists, next });
            }
        }
        for alike in updates.chunk_by_mut(Update::is_like) {
            self.record_alike(alike, settings, moved)?;
        }
        Ok(updates)
    }

    /// Records updates that one recipe serves, in as few nodes as hold them.
    fn record_alike(&self, updates: &mut [Update], settings: &[f64], moved: &mut Vec<Rebinding>) -> Result<()> {
        let Recipe { def, attrs, uses, numbers } =
            self.rule.recipe(updates[0].next.step, settings, updates[0].exists)?;
        for Update { index, next, .. } in updates.iter_mut() {
            for (slot, _) in next.tensors.iter_mut().zip(uses).filter(|(slot, used)| *used && slot.is_none()) {
                let ty = self.params[*index].ty();
                *slot = Some(tensor::full(ty.shape, Scalar::F64(0.0), ty.dtype)?);
            }
        }
        let states = uses.iter().filter(|used| **used).count();
        for some in updates.chunks(MOST_OUTPUTS / (1 + states)) {
            let mut args: Vec<Arg> = Vec::with_capacity(some.len() * (2 + states) + numbers.len());
            let mut handles: Vec<&Tensor> = Vec::with_capacity(some.len() * (1 + states));
            for Update { index, grad, next, .. } in some {
                let param = &self.params[*index];
                let states = next.tensors.iter().zip(uses).filter_map(|(slot, used)| slot.as_ref().filter(|_| used));
                args.extend([param, grad].map(Arg::Tensor));
                args.extend(states.clone().map(Arg::Tensor));
                handles.push(param);
                handles.extend(states);
            }
            args.extend(numbers.iter().map(|&number| Arg::from(number)));
            tensor::rebind_composite(def, attrs.clone(), &args, &handles, moved)?;
        }
        Ok(())
    }
}

/// Outputs of one recorded update: which of them a plan publishes and donates is told by a bit each.
const MOST_OUTPUTS: usize = 30;

/// The step of one parameter.
struct Update {
    index: usize,
    dtype: DType,
    grad: Tensor,
    /// Which state tensors there were before.
    exists: [bool; 3],
    next: State,
}

impl Update {
    /// Whether one recipe and one node serve both.
    fn is_like(&self, other: &Update) -> bool {
        (self.next.step, self.exists, self.dtype) == (other.next.step, other.exists, other.dtype)
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
    let mut next: Vec<Vec<Update>> = Vec::with_capacity(updates.len());
    for (updater, settings) in updates.iter() {
        match updater.record(settings, &mut moved) {
            Ok(steps) => next.push(steps),
            Err(error) => {
                moved.into_iter().rev().for_each(Rebinding::undo);
                return Err(error);
            }
        }
    }
    tensor::evaluate_all(&moved)?;
    for ((updater, _), steps) in updates.iter_mut().zip(next) {
        for Update { index, next, .. } in steps {
            updater.states[index] = next;
        }
    }
    Ok(())
}
