//! Optimizers: the class `Updater` and the step over several of them.

use super::axes::borrowed;
use super::compile;
use super::errors::{read, record, refuse};
use super::tensor::PyTensor;
use crate::error::Error;
use crate::optim::{self, Rule, State, Updater};
use parking_lot::{Mutex, MutexGuard};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use pyo3::{PyTraverseError, PyVisit, intern};
use smallvec::SmallVec;
use std::time::Duration;

/// Between two looks whether another thread still steps.
const WAIT: Duration = Duration::from_micros(50);

/// One update rule over the parameters of one group, with their state.
///
/// Rules, the numbers each takes in `step`, in order, and the state of a parameter:
///   sgd: lr, momentum, dampening, weight_decay, nesterov, maximize; momentum_buffer
///   rmsprop: lr, alpha, eps, weight_decay, momentum, centered, maximize; step, square_avg, momentum_buffer, grad_avg
///   adam: lr, beta1, beta2, eps, weight_decay, amsgrad, maximize; step, exp_avg, exp_avg_sq, max_exp_avg_sq
///   adamw: as adam, with the decay of the weights apart from the gradient
/// State that a setting does not need is absent. A parameter without a gradient is left alone by a step.
#[pyclass(frozen, name = "Updater", module = "wengert._core")]
pub struct PyUpdater {
    updater: Mutex<Updater>,
    settings: Mutex<Settings>,
}

#[pymethods]
impl PyUpdater {
    #[new]
    fn new(rule: &str, params: Vec<PyRef<'_, PyTensor>>) -> PyResult<PyUpdater> {
        let rule = Rule::from_name(rule).map_err(refuse)?;
        let params = borrowed(&params).into_iter().cloned().collect();
        Ok(PyUpdater { updater: Mutex::new(Updater::new(rule, params)), settings: Mutex::default() })
    }

    /// Evaluate the parameters and make the zeros that a first step of this group starts from. Does nothing for an
    /// optimizer from outside the package, which may not be ready to tell its numbers.
    #[pyo3(signature = (owner, group, /))]
    fn prepare(&self, owner: &Bound<'_, PyAny>, group: &Bound<'_, PyDict>) -> PyResult<()> {
        if !is_ours(owner)? {
            return Ok(());
        }
        let numbers = numbers(owner, group)?;
        let mut updater = self.lock(owner.py());
        read(|| updater.prepare(&numbers))
    }

    /// The state of parameter `index`; empty before its first step.
    #[pyo3(signature = (index, /))]
    fn state<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyDict>> {
        let (rule, state) = {
            let mut updater = self.lock(py);
            (updater.rule(), read(|| updater.state(index).cloned())?)
        };
        let entries = PyDict::new(py);
        if rule.counts_steps() && state.step > 0 {
            entries.set_item("step", state.step)?;
        }
        for (name, tensor) in rule.state_names().iter().zip(state.tensors) {
            if let Some(tensor) = tensor {
                // A handle of its own: the next step moves ours.
                entries.set_item(name, PyTensor(crate::tensor::alias(&tensor)))?;
            }
        }
        Ok(entries)
    }

    /// Put back what `state` gave.
    #[pyo3(signature = (index, state, /))]
    fn set_state(&self, index: usize, state: &Bound<'_, PyDict>) -> PyResult<()> {
        let rule = self.lock(state.py()).rule();
        let names = rule.state_names();
        let mut new = State::default();
        for (key, value) in state {
            let key: String = key.extract()?;
            if key == "step" {
                new.step = value.extract()?;
                continue;
            }
            let Some(place) = names.iter().position(|name| *name == key) else {
                return Err(refuse(Error::value(format!("set_state: {key:?} is not part of the state of this rule"))));
            };
            // A handle of our own: the next step rebinds it.
            let tensor = value.cast::<PyTensor>()?;
            new.tensors[place] = Some(record(|| crate::tensor::detach(&tensor.get().0))?);
        }
        if !rule.counts_steps() && new.tensors[0].is_some() {
            new.step = 1;
        }
        let mut updater = self.lock(state.py());
        record(|| updater.set_state(index, new))
    }

    /// Forget the gradients, or make them zero.
    #[pyo3(signature = (set_to_none = true))]
    fn zero_grad(&self, py: Python<'_>, set_to_none: bool) -> PyResult<()> {
        let updater = self.lock(py);
        record(|| updater.zero_grad(set_to_none))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // During a step nothing of it is garbage.
        let Some(settings) = self.settings.try_lock() else { return Ok(()) };
        settings.seen.iter().try_for_each(|value| visit.call(value))
    }

    fn __clear__(&self) {
        let seen = self.settings.try_lock().map(|mut settings| std::mem::take(&mut settings.seen));
        drop(seen);
    }
}

impl PyUpdater {
    /// The updater, waited for without the interpreter's lock, which a thread that steps needs again and again.
    fn lock(&self, py: Python<'_>) -> MutexGuard<'_, Updater> {
        loop {
            if let Some(updater) = self.updater.try_lock() {
                return updater;
            }
            py.detach(|| std::thread::sleep(WAIT));
        }
    }

    /// The updater, for a step.
    pub fn open(&self) -> crate::error::Result<MutexGuard<'_, Updater>> {
        self.updater.try_lock().ok_or_else(busy)
    }

    /// The settings of a group as the rule takes them, read again if a value of the group is another object.
    pub fn settings(&self, owner: &Bound<'_, PyAny>, group: &Bound<'_, PyDict>) -> PyResult<Numbers> {
        let Some(mut settings) = self.settings.try_lock() else { return Err(refuse(busy())) };
        if !settings.are_seen(group) {
            settings.numbers = numbers(owner, group)?;
            settings.seen = if is_ours(owner)? { fixed_values(group) } else { Vec::new() };
        }
        Ok(settings.numbers.clone())
    }
}

fn busy() -> Error {
    Error::value("step: another thread is stepping these parameters")
}

/// Settings as a rule takes them.
pub type Numbers = SmallVec<[f64; 8]>;

/// The settings of a group, as they were read last.
#[derive(Default)]
struct Settings {
    /// The values of the group that the numbers come from; none if they may change by themselves.
    seen: Vec<Py<PyAny>>,
    numbers: Numbers,
}

impl Settings {
    /// Whether a group holds the very objects that were seen.
    fn are_seen(&self, group: &Bound<'_, PyDict>) -> bool {
        group.len() == self.seen.len() && group.iter().zip(&self.seen).all(|((_, value), seen)| value.is(seen))
    }
}

/// What the optimizer says of a group.
pub fn numbers(owner: &Bound<'_, PyAny>, group: &Bound<'_, PyDict>) -> PyResult<Numbers> {
    let numbers: Vec<f64> = owner.call_method1(intern!(owner.py(), "numbers"), (group,))?.extract()?;
    Ok(SmallVec::from_vec(numbers))
}

/// Whether the numbers of an optimizer follow from the values of its groups alone.
fn is_ours(owner: &Bound<'_, PyAny>) -> PyResult<bool> {
    let module: String = owner.get_type().getattr(intern!(owner.py(), "__module__"))?.extract()?;
    Ok(module.starts_with("wengert."))
}

/// The values of a group, if none of them can change and stay the same object. The parameters are the updater's.
fn fixed_values(group: &Bound<'_, PyDict>) -> Vec<Py<PyAny>> {
    let is_number = |value: &Bound<'_, PyAny>| {
        value.is_none()
            || value.is_exact_instance_of::<PyFloat>()
            || value.is_exact_instance_of::<PyBool>()
            || value.is_exact_instance_of::<PyInt>()
            || value.is_exact_instance_of::<PyString>()
    };
    let is_fixed = |(key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>)| {
        is_number(&value)
            || value.cast_exact::<PyTuple>().is_ok_and(|tuple| tuple.iter().all(|item| is_number(&item)))
            || key.cast::<PyString>().is_ok_and(|key| key.eq("params"))
    };
    match group.iter().all(is_fixed) {
        true => group.iter().map(|(_, value)| value.unbind()).collect(),
        false => Vec::new(),
    }
}

/// An updater with the settings of its group.
pub type Update<'py> = (Bound<'py, PyUpdater>, Numbers);

/// Record the updates of all groups of an optimizer, then evaluate them and everything pending: the barrier.
#[pyfunction]
#[pyo3(signature = (owner, updaters, groups, /))]
pub fn step(owner: &Bound<'_, PyAny>, updaters: &Bound<'_, PyList>, groups: &Bound<'_, PyList>) -> PyResult<()> {
    if updaters.len() != groups.len() {
        let (updaters, groups) = (updaters.len(), groups.len());
        return Err(refuse(Error::value(format!("step: {groups} groups for {updaters} updaters"))));
    }
    let mut updates: SmallVec<[Update<'_>; 1]> = SmallVec::with_capacity(groups.len());
    for (updater, group) in updaters.iter().zip(groups.iter()) {
        let updater = updater.cast_into::<PyUpdater>()?;
        let settings = updater.get().settings(owner, group.cast::<PyDict>()?)?;
        if updates.iter().any(|(other, _)| other.is(&updater)) {
            return Err(refuse(Error::value("step: an updater is given twice")));
        }
        updates.push((updater, settings));
    }
    compile::note_optimizer(owner)?;
    let parts = record(|| {
        let mut open: SmallVec<[_; 1]> = SmallVec::with_capacity(updates.len());
        for (updater, settings) in &updates {
            let mut guard = updater.get().open()?;
            compile::note_updater(updater, || guard.states());
            open.push((guard, settings.as_slice()));
        }
        let mut groups: SmallVec<[(&mut Updater, &[f64]); 1]> =
            open.iter_mut().map(|(guard, settings)| (&mut **guard, *settings)).collect();
        optim::step(&mut groups)
    })?;
    if parts.is_empty() { Ok(()) } else { compile::note_step(owner, &updates, parts) }
}
