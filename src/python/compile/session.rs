//! What Python code does while a step is traced that a replay must do again or guard against: optimizer steps with
//! their settings, scheduler steps, reads of `training`.

use super::settings::StepEvent;
use crate::error::Error;
use crate::optim::{Part, State};
use crate::python::errors::{raise, refuse};
use crate::python::optimizer::PyUpdater;
use crate::python::script;
use crate::tensor::trace;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

/// What happens after a number of plans.
pub enum Event {
    Step(StepEvent),
    /// A call that changes settings only: the step of a scheduler.
    Host {
        before: usize,
        call: Py<PyAny>,
    },
}

#[derive(Default)]
pub struct Session {
    pub id: u64,
    pub events: Vec<Event>,
    /// Modules whose mode was read before the step set it, and the mode.
    pub modes: Vec<(Py<PyAny>, Py<PyAny>)>,
    /// Modules whose mode the step set, with the mode before and the last one.
    pub set_modes: Vec<(Py<PyAny>, Py<PyAny>, Py<PyAny>)>,
    updaters: Vec<(Py<PyUpdater>, Vec<State>)>,
    /// Dicts that host calls change, and what they held.
    dicts: Vec<(Py<PyDict>, Py<PyDict>)>,
}

thread_local! {
    static SESSION: RefCell<Option<Session>> = const { RefCell::new(None) };
}

static SESSIONS: AtomicU64 = AtomicU64::new(1);

/// Starts to write down; gives the session's number.
pub fn open(py: Python<'_>) -> PyResult<u64> {
    let id = SESSIONS.fetch_add(1, Ordering::Relaxed);
    SESSION.set(Some(Session { id, ..Session::default() }));
    script::watch_modes(py, true)?;
    Ok(id)
}

/// Ends the session of this thread.
pub fn close(py: Python<'_>) -> PyResult<Session> {
    script::watch_modes(py, false)?;
    Ok(SESSION.take().unwrap_or_default())
}

/// The number of the open session.
pub fn current() -> Option<u64> {
    SESSION.with_borrow(|session| session.as_ref().map(|session| session.id))
}

fn with<R>(f: impl FnOnce(&mut Session) -> R) -> Option<R> {
    SESSION.with_borrow_mut(|session| session.as_mut().map(f))
}

/// Remembers the states of an updater before its first step in this session.
pub fn note_updater(updater: &Bound<'_, PyUpdater>, states: impl FnOnce() -> Vec<State>) {
    with(|session| {
        if !session.updaters.iter().any(|(known, _)| known.is(updater)) {
            session.updaters.push((updater.clone().unbind(), states()));
        }
    });
}

/// Writes down a step of an optimizer that just ran.
pub fn note_step(
    owner: &Bound<'_, PyAny>,
    updates: &[(Bound<'_, PyUpdater>, Vec<f64>)],
    parts: Vec<Vec<Part>>,
) -> PyResult<()> {
    let event = StepEvent::new(owner, updates, parts, trace::plans() as usize)?;
    with(|session| session.events.push(Event::Step(event)));
    Ok(())
}

/// In a traced step: writes down a call of a method that changes only these dicts of settings and numbers.
#[pyfunction]
#[pyo3(signature = (call, dicts, /))]
pub fn host_call(call: &Bound<'_, PyAny>, dicts: &Bound<'_, PyList>) -> PyResult<()> {
    if current().is_none() {
        return Ok(());
    }
    let owner = call.getattr("__self__")?;
    let module: String = owner.get_type().getattr("__module__")?.extract()?;
    if !module.starts_with("wengert.") {
        let kind = owner.get_type().name()?;
        let error = trace::refusal(format!(
            "{kind}.step is the user's own Python, which a replay cannot run; call it outside the compiled function"
        ));
        trace::refuse(error.clone());
        return Err(refuse(error));
    }
    let mut kept = Vec::new();
    for dict in dicts.iter() {
        let dict = dict.cast_into::<PyDict>()?;
        kept.push((dict.clone().unbind(), dict.copy()?.unbind()));
    }
    let event = Event::Host { before: trace::plans() as usize, call: call.clone().unbind() };
    with(|session| {
        session.dicts.extend(kept);
        session.events.push(event);
    });
    Ok(())
}

/// In a traced step: notes that the mode of a module was read.
#[pyfunction]
#[pyo3(signature = (module, mode, /))]
pub fn note_mode(module: &Bound<'_, PyAny>, mode: &Bound<'_, PyAny>) {
    with(|session| {
        let is_set = session.set_modes.iter().any(|(known, ..)| known.is(module));
        if !is_set && !session.modes.iter().any(|(known, _)| known.is(module)) {
            session.modes.push((module.clone().unbind(), mode.clone().unbind()));
        }
    });
}

/// In a traced step: notes that the mode of a module is set.
#[pyfunction]
#[pyo3(signature = (module, before, mode, /))]
pub fn note_set_mode(module: &Bound<'_, PyAny>, before: &Bound<'_, PyAny>, mode: &Bound<'_, PyAny>) {
    with(|session| match session.set_modes.iter_mut().find(|(known, ..)| known.is(module)) {
        Some((_, _, last)) => *last = mode.clone().unbind(),
        None => {
            let entry = (module.clone().unbind(), before.clone().unbind(), mode.clone().unbind());
            session.set_modes.push(entry);
        }
    });
}

impl Session {
    /// Puts back what the step changed beside tensors.
    pub fn undo(self, py: Python<'_>) -> PyResult<()> {
        for (updater, states) in self.updaters {
            let updater = updater.bind(py).get();
            let Some(mut open) = updater.0.try_lock() else {
                return Err(raise(Error::value("compile: another thread is stepping these parameters")));
            };
            open.restore(states);
        }
        for (module, before, _) in self.set_modes {
            module.bind(py).setattr("training", before)?;
        }
        for (dict, before) in self.dicts.into_iter().rev() {
            let dict = dict.bind(py);
            dict.clear();
            dict.update(before.bind(py).as_mapping())?;
        }
        Ok(())
    }

    /// Whether another session did the same.
    pub fn is_like(&self, other: &[Event]) -> bool {
        self.events.len() == other.len()
            && self.events.iter().zip(other).all(|pair| match pair {
                (Event::Step(a), Event::Step(b)) => a.is_like(b),
                (Event::Host { before, call }, Event::Host { before: other_before, call: other }) => {
                    before == other_before && same_method(call, other)
                }
                _ => false,
            })
    }
}

/// Two bound methods of one object are two objects; they are equal.
fn same_method(a: &Py<PyAny>, b: &Py<PyAny>) -> bool {
    Python::attach(|py| a.bind(py).eq(b.bind(py)).unwrap_or(false))
}
