//! Optimizers: the class `Updater` and the step over several of them.

use super::axes::borrowed;
use super::compile;
use super::errors::{record, refuse};
use super::tensor::PyTensor;
use crate::error::Error;
use crate::optim::{self, Rule, State, Updater};
use parking_lot::{Mutex, MutexGuard};
use pyo3::prelude::*;
use pyo3::types::PyDict;
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
pub struct PyUpdater(pub Mutex<Updater>);

#[pymethods]
impl PyUpdater {
    #[new]
    fn new(rule: &str, params: Vec<PyRef<'_, PyTensor>>) -> PyResult<PyUpdater> {
        let rule = Rule::from_name(rule).map_err(refuse)?;
        let params = borrowed(&params).into_iter().cloned().collect();
        Ok(PyUpdater(Mutex::new(Updater::new(rule, params))))
    }

    /// The state of parameter `index`; empty before its first step.
    #[pyo3(signature = (index, /))]
    fn state<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyDict>> {
        let (rule, state) = {
            let updater = self.lock(py);
            (updater.rule(), updater.state(index).map_err(refuse)?.clone())
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
}

impl PyUpdater {
    /// The updater, waited for without the interpreter's lock, which a thread that steps needs again and again.
    fn lock(&self, py: Python<'_>) -> MutexGuard<'_, Updater> {
        loop {
            if let Some(updater) = self.0.try_lock() {
                return updater;
            }
            py.detach(|| std::thread::sleep(WAIT));
        }
    }
}

/// Record the updates of all groups of an optimizer, then evaluate them and everything pending: the barrier.
#[pyfunction]
#[pyo3(signature = (owner, updates, /))]
pub fn step(owner: &Bound<'_, PyAny>, updates: Vec<(Bound<'_, PyUpdater>, Vec<f64>)>) -> PyResult<()> {
    for (position, (updater, _)) in updates.iter().enumerate() {
        if updates[..position].iter().any(|(other, _)| other.is(updater)) {
            return Err(refuse(Error::value("step: an updater is given twice")));
        }
    }
    compile::note_optimizer(owner)?;
    let parts = record(|| {
        let mut open = Vec::with_capacity(updates.len());
        for (updater, settings) in &updates {
            let Some(guard) = updater.get().0.try_lock() else {
                return Err(Error::value("step: another thread is stepping these parameters"));
            };
            compile::note_updater(updater, || guard.states());
            open.push((guard, settings.as_slice()));
        }
        let mut groups: Vec<(&mut Updater, &[f64])> =
            open.iter_mut().map(|(guard, settings)| (&mut **guard, *settings)).collect();
        optim::step(&mut groups)
    })?;
    if parts.is_empty() { Ok(()) } else { compile::note_step(owner, &updates, parts) }
}
