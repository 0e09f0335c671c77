//! The parameters of a group with their state, and the step over all groups: one barrier, after which every handle
//! names its new value, or on failure its old one.

use super::journal::{Before, Journal};
use super::rules::{Recipe, Rule};
use crate::device_id::DeviceId;
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::Attrs;
use crate::machine::storage::Ticket;
use crate::scalar::Scalar;
use crate::tensor::trace::{self, Origin};
use crate::tensor::{self, Arg, GradGuard, Rebinding, Tensor};
use smallvec::SmallVec;

/// One update rule over parameters.
pub struct Updater {
    rule: Rule,
    params: Vec<Tensor>,
    states: Vec<State>,
    /// Zeros for the first step of each parameter, if they were made; used up or let go by the first step of all.
    zeros: Vec<[Option<Tensor>; 3]>,
    /// How often a state was put in from outside, or taken away.
    revision: u64,
    /// The steps on a device that may yet turn out not to have been.
    journal: Journal,
}

/// What a rule remembers of one parameter.
#[derive(Clone, Default)]
pub struct State {
    /// Steps done.
    pub step: u64,
    /// In the order of `Rule::state_names`.
    pub tensors: [Option<Tensor>; 3],
}

impl State {
    /// With its tensors where the parameter is.
    fn moved_to(mut self, param: &Tensor) -> Result<State> {
        let _mode = GradGuard::new(false);
        let device = param.device();
        for tensor in self.tensors.iter_mut().flatten().filter(|tensor| tensor.device() != device) {
            *tensor = tensor::follow(tensor, device)?;
        }
        Ok(self)
    }
}

impl Updater {
    pub fn new(rule: Rule, params: Vec<Tensor>) -> Updater {
        let states = params.iter().map(|_| State::default()).collect();
        Updater { rule, params, states, zeros: Vec::new(), revision: 0, journal: Journal::default() }
    }

    /// Evaluates the parameters and makes the zeros that a first step by these settings starts from. So it finds their
    /// memory, and its plan is that of all later steps.
    pub fn prepare(&mut self, settings: &[f64]) -> Result<()> {
        let _mode = GradGuard::new(false);
        let uses = self.rule.recipe(1, settings, [false; 3])?.uses;
        let made = self.params.iter().zip(&self.states).map(|(param, state)| {
            let is_first = state.step == 0 && param.requires_grad();
            let [a, b, c] = uses.map(|used| (used && is_first).then(|| zeros_like(param)).transpose());
            Ok([a?, b?, c?])
        });
        let zeros: Vec<[Option<Tensor>; 3]> = made.collect::<Result<_>>()?;
        tensor::evaluate(&self.params.iter().chain(zeros.iter().flatten().flatten()).collect::<Vec<_>>())?;
        self.zeros = zeros;
        Ok(())
    }

    /// What a state tensor of a parameter is before its first step.
    fn zeros(&self, index: usize, which: usize) -> Result<Tensor> {
        let param = &self.params[index];
        let made = self.zeros.get(index).and_then(|zeros| zeros[which].as_ref());
        let is_like = |zeros: &&Tensor| zeros.ty() == param.ty() && zeros.device() == param.device();
        made.filter(is_like).map_or_else(|| zeros_like(param), |zeros| Ok(zeros.clone()))
    }

    pub fn rule(&self) -> Rule {
        self.rule
    }

    pub fn params(&self) -> &[Tensor] {
        &self.params
    }

    /// Undoes the steps that turned out not to have been, as far as that is known.
    fn settle(&mut self) {
        self.revision += u64::from(self.journal.settle(&mut self.states));
    }

    /// The state of a parameter. Waits for the device of a step that may yet turn out not to have been.
    pub fn state(&mut self, index: usize) -> Result<&State> {
        self.settle();
        self.journal.judge()?;
        self.settle();
        self.states.get(index).ok_or_else(|| out_of_range(index, self.params.len()))
    }

    /// Puts a state back. Its tensors must have the shape of the parameter, and are taken to its device.
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
        self.states[index] = state.moved_to(param)?;
        self.revision += 1;
        self.journal.forget(index);
        Ok(())
    }

    /// Takes the states to where their parameters are by now. Whether one was elsewhere.
    fn follow(&mut self) -> Result<bool> {
        let pairs = || self.params.iter().zip(&self.states);
        let is_away = |param: &Tensor, state: &State| {
            let device = param.device();
            state.tensors.iter().flatten().any(|tensor| tensor.device() != device)
        };
        if !pairs().any(|(param, state)| is_away(param, state)) {
            return Ok(false);
        }
        self.states = pairs().map(|(param, state)| state.clone().moved_to(param)).collect::<Result<_>>()?;
        self.revision += 1;
        Ok(true)
    }

    /// Forgets the gradients, or makes them zero.
    pub fn zero_grad(&self, set_to_none: bool) -> Result<()> {
        let _mode = GradGuard::new(false);
        for param in &self.params {
            if set_to_none {
                param.set_grad(None)?;
            } else if let Some(grad) = param.grad() {
                grad.rebind(&zeros_like(&grad)?)?;
            }
        }
        Ok(())
    }

    /// Records the updates of all parameters that have a gradient and moves the handles.
    fn record(&self, settings: &[f64], moved: &mut Vec<Rebinding>, parts: &mut Vec<Part>) -> Result<Vec<Update>> {
        let mut updates: Vec<Update> = Vec::with_capacity(self.params.len());
        for (index, (param, state)) in self.params.iter().zip(&self.states).enumerate() {
            if let Some(grad) = param.grad() {
                let exists = [0, 1, 2].map(|which| state.tensors[which].is_some());
                let next = State { step: state.step + 1, tensors: state.tensors.clone() };
                let (dtype, device) = grad.dtype_and_device();
                updates.push(Update { index, dtype, device, grad, exists, next });
            }
        }
        for alike in updates.chunk_by_mut(Update::is_like) {
            self.record_alike(alike, settings, moved, parts)?;
        }
        Ok(updates)
    }

    /// Records updates that one recipe serves, in as few nodes as hold them.
    fn record_alike(
        &self,
        updates: &mut [Update],
        settings: &[f64],
        moved: &mut Vec<Rebinding>,
        parts: &mut Vec<Part>,
    ) -> Result<()> {
        let Recipe { def, attrs, uses, numbers } =
            self.rule.recipe(updates[0].next.step, settings, updates[0].exists)?;
        let source = trace::is_open().then(trace::new_source);
        if let Some(source) = source {
            let params = updates.iter().map(|update| update.index).collect();
            let (attrs, exists) = (attrs.clone(), updates[0].exists);
            parts.push(Part { source, params, exists, attrs, revision: self.revision });
        }
        for Update { index, next, .. } in updates.iter_mut() {
            for (which, slot) in next.tensors.iter_mut().enumerate().filter(|(which, _)| uses[*which]) {
                if slot.is_none() {
                    *slot = Some(self.zeros(*index, which)?);
                }
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
            args.extend(numbers.iter().enumerate().map(|(at, &number)| {
                Arg::Number(match source {
                    Some(source) => trace::tag(number, Origin::Setting { source, at: at as u32 }),
                    None => number.into(),
                })
            }));
            tensor::rebind_composite(def, attrs.clone(), &args, &handles, moved)?;
        }
        Ok(())
    }
}

/// What a traced step wrote down of parameters that one recipe serves.
pub struct Part {
    /// The index of its numbers in the trace.
    pub source: u32,
    params: Vec<usize>,
    exists: [bool; 3],
    attrs: Attrs,
    revision: u64,
}

impl Updater {
    /// The numbers of the next step of a part. False: it would be recorded in another way by now.
    pub fn numbers(&mut self, part: &Part, settings: &[f64], numbers: &mut SmallVec<[f64; 8]>) -> Result<bool> {
        self.journal.make_room()?;
        self.settle();
        let first = &self.states[part.params[0]];
        let alike = |&index: &usize| self.states[index].step == first.step;
        let exists = [0, 1, 2].map(|which| first.tensors[which].is_some());
        if self.revision != part.revision || exists != part.exists || !part.params.iter().all(alike) {
            return Ok(false);
        }
        let recipe = self.rule.recipe(first.step + 1, settings, exists)?;
        numbers.clear();
        numbers.extend_from_slice(&recipe.numbers);
        Ok(recipe.attrs == part.attrs)
    }

    /// Counts a step that a replay made of a part. `ticket` gives the run that made it where a parameter is, if that is a
    /// device.
    pub fn advance(&mut self, part: &Part, ticket: impl Fn(&Tensor) -> Option<Ticket>) {
        if let Some(ticket) = ticket(&self.params[part.params[0]]) {
            self.journal.note(ticket, part.params.iter().map(|&index| self.before(index)).collect());
        }
        part.params.iter().for_each(|&index| self.states[index].step += 1);
    }

    fn before(&self, index: usize) -> Before {
        let State { step, tensors } = &self.states[index];
        Before { index, step: *step, exists: [0, 1, 2].map(|which| tensors[which].is_some()) }
    }

    /// Takes the states of a step over.
    fn take(&mut self, steps: Vec<Update>) {
        let is_on_device = |alike: &&[Update]| !alike[0].device.is_cpu();
        for alike in steps.chunk_by(|a, b| a.device == b.device).filter(is_on_device) {
            if let Some(ticket) = self.params[alike[0].index].written() {
                self.journal.note(ticket, alike.iter().map(|update| self.before(update.index)).collect());
            }
        }
        if !steps.is_empty() {
            self.zeros.clear();
        }
        for Update { index, next, .. } in steps {
            self.states[index] = next;
        }
    }

    /// Everything that is remembered, to be put back by `restore`.
    pub fn states(&mut self) -> Vec<State> {
        self.settle();
        self.states.clone()
    }

    /// Puts back what `states` gave.
    pub fn restore(&mut self, states: Vec<State>) {
        self.states = states;
    }
}

/// Outputs of one recorded update: which of them a plan publishes and donates is told by a bit each.
const MOST_OUTPUTS: usize = 30;

/// The step of one parameter.
struct Update {
    index: usize,
    dtype: DType,
    device: DeviceId,
    grad: Tensor,
    /// Which state tensors there were before.
    exists: [bool; 3],
    next: State,
}

impl Update {
    /// Whether one recipe and one node serve both.
    fn is_like(&self, other: &Update) -> bool {
        let kind = |update: &Update| (update.next.step, update.exists, update.dtype, update.device);
        kind(self) == kind(other)
    }
}

fn zeros_like(tensor: &Tensor) -> Result<Tensor> {
    let ty = tensor.ty();
    tensor::full(ty.shape, Scalar::F64(0.0), ty.dtype, tensor.device())
}

fn out_of_range(index: usize, count: usize) -> Error {
    Error::index(format!("state: parameter {index} is out of range for {count}"))
}

/// Records the updates of all groups, moves the handles, and evaluates them with everything pending. If anything
/// fails, parameters, state and step counts are as they were; likewise once it turns out that an index of a device was
/// out of range. In a traced step: the parts of each group.
pub fn step(updates: &mut [(&mut Updater, &[f64])]) -> Result<Vec<Vec<Part>>> {
    let _mode = GradGuard::new(false);
    let mut traced: Vec<Vec<Part>> = Vec::new();
    let mut moved: Vec<Rebinding> = Vec::new();
    let mut next: Vec<Vec<Update>> = Vec::with_capacity(updates.len());
    updates.iter().try_for_each(|(updater, _)| updater.journal.make_room())?;
    for (updater, settings) in updates.iter_mut() {
        updater.settle();
        let mut parts = Vec::new();
        let before = moved.len();
        let mut recorded = updater.record(settings, &mut moved, &mut parts);
        if recorded.as_ref().is_err_and(|error| error.kind() == ErrorKind::Device) {
            // Looked for only now: parameters that were moved since the last step are rare.
            moved.drain(before..).rev().for_each(Rebinding::undo);
            if updater.follow()? {
                parts.clear();
                recorded = updater.record(settings, &mut moved, &mut parts);
            }
        }
        match recorded {
            Ok(steps) => next.push(steps),
            Err(error) => {
                moved.into_iter().rev().for_each(Rebinding::undo);
                return Err(error);
            }
        }
        if trace::is_open() {
            traced.push(parts);
        }
    }
    tensor::evaluate_all(&moved)?;
    updates.iter_mut().zip(next).for_each(|((updater, _), steps)| updater.take(steps));
    Ok(traced)
}
