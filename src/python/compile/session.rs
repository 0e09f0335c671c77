//! What Python code does while a step is traced that a replay must do again or guard against: optimizer steps with
//! their settings, scheduler steps, reads of `training`.

use super::settings::StepEvent;
use crate::optim::{Part, State};
use crate::python::errors::{read, refuse};
use crate::python::optimizer::{PyUpdater, Update};
use crate::python::script;
use crate::tensor::trace;
use hashbrown::HashMap;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use pyo3::{PyTraverseError, PyVisit};
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

impl Event {
    /// Python objects that are kept, for the garbage collector.
    pub fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Event::Step(step) => step.visit(visit),
            Event::Host { call, .. } => visit.call(call),
        }
    }
}

#[derive(Default)]
pub struct Session {
    pub id: u64,
    pub events: Vec<Event>,
    /// Modules whose mode was read before the step set it, and the mode.
    pub modes: Vec<(Py<PyAny>, Py<PyAny>)>,
    /// Each time that the step set a mode.
    pub set_modes: Vec<SetMode>,
    /// What is known of each module, by address: the last mode that the step set, if it did.
    known_modes: HashMap<usize, Option<Py<PyAny>>>,
    updaters: Vec<(Py<PyUpdater>, Vec<State>)>,
    /// Attributes, lists and dicts that an optimizer or a scheduler changes, and what they held.
    attributes: Vec<(Py<PyAny>, &'static str, Py<PyAny>)>,
    lists: Vec<(Py<PyList>, Py<PyList>)>,
    dicts: Vec<(Py<PyDict>, Py<PyDict>)>,
}

/// A step set the mode of a module from outside.
pub struct SetMode {
    pub module: Py<PyAny>,
    before: Py<PyAny>,
    pub mode: Py<PyAny>,
    /// Plans that had run.
    pub after: usize,
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

/// Remembers the settings of an optimizer before its first step in this session.
pub fn note_optimizer(owner: &Bound<'_, PyAny>) -> PyResult<()> {
    let is_new = with(|session| !session.attributes.iter().any(|(known, ..)| known.is(owner)));
    if is_new != Some(true) {
        return Ok(());
    }
    let (mut attributes, mut lists, mut dicts) = (Vec::new(), Vec::new(), Vec::new());
    for name in ["_updaters", "param_groups"] {
        let list = owner.getattr(name)?.cast_into::<PyList>()?;
        for item in list.iter() {
            if let Ok(group) = item.cast_into::<PyDict>() {
                dicts.push((group.clone().unbind(), group.copy()?.unbind()));
            }
        }
        lists.push((list.clone().unbind(), list.get_slice(0, list.len()).unbind()));
        attributes.push((owner.clone().unbind(), name, list.into_any().unbind()));
    }
    with(|session| {
        session.attributes.extend(attributes);
        session.lists.extend(lists);
        session.dicts.extend(dicts);
    });
    Ok(())
}

/// Writes down a step of an optimizer that just ran.
pub fn note_step(owner: &Bound<'_, PyAny>, updates: &[Update<'_>], parts: Vec<Vec<Part>>) -> PyResult<()> {
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

/// In a traced step: refuses a change of this setting of an optimizer.
#[pyfunction]
#[pyo3(signature = (name, /))]
pub fn refuse_setting(name: &str) -> PyResult<()> {
    read(|| {
        trace::refuse_call(&format!(
            "the step itself changes the settings of an optimizer ({name}), which a replay would not do; set them outside \
             the compiled function, or by a scheduler of wg.optim.lr_scheduler"
        ))
    })
}

/// In a traced step: notes that the mode of a module was read.
#[pyfunction]
#[pyo3(signature = (module, mode, /))]
pub fn note_mode(module: &Bound<'_, PyAny>, mode: &Bound<'_, PyAny>) {
    with(|session| {
        session.known_modes.entry(module.as_ptr() as usize).or_insert_with(|| {
            session.modes.push((module.clone().unbind(), mode.clone().unbind()));
            None
        });
    });
}

/// In a traced step: notes that the mode of a module is set. One that had none is made by the step.
#[pyfunction]
#[pyo3(signature = (module, before, mode, /))]
pub fn note_set_mode(module: &Bound<'_, PyAny>, before: &Bound<'_, PyAny>, mode: &Bound<'_, PyAny>) {
    if before.is_none() {
        return;
    }
    with(|session| {
        let last = session.known_modes.insert(module.as_ptr() as usize, Some(mode.clone().unbind())).flatten();
        if !last.is_some_and(|last| last.is(mode)) {
            session.set_modes.push(SetMode {
                module: module.clone().unbind(),
                before: before.clone().unbind(),
                mode: mode.clone().unbind(),
                after: trace::plans() as usize,
            });
        }
    });
}

impl Session {
    /// Puts back what the step changed beside tensors.
    pub fn undo(self, py: Python<'_>) -> PyResult<()> {
        for (updater, states) in self.updaters {
            read(|| updater.bind(py).get().open())?.restore(states);
        }
        for set in self.set_modes.into_iter().rev() {
            set.module.bind(py).setattr("training", set.before)?;
        }
        for (owner, name, before) in self.attributes {
            owner.bind(py).setattr(name, before)?;
        }
        for (list, before) in self.lists {
            let list = list.bind(py);
            list.set_slice(0, list.len(), before.bind(py))?;
        }
        for (dict, before) in self.dicts.into_iter().rev() {
            let dict = dict.bind(py);
            dict.clear();
            dict.update(before.bind(py).as_mapping())?;
        }
        Ok(())
    }

    /// That nothing but schedulers changes the settings of an optimizer: neither before its step (`found` are the events
    /// of an earlier call, with the settings that this one found) nor after it.
    pub fn keeps_settings(&self, py: Python<'_>, found: Option<&[Event]>) -> PyResult<()> {
        for (at, event) in self.events.iter().enumerate() {
            let Event::Step(step) = event else { continue };
            let is_scheduled = |events: &[Event]| events.iter().any(|event| matches!(event, Event::Host { .. }));
            let earlier = match found.and_then(|found| found.get(at)) {
                Some(Event::Step(earlier)) if !is_scheduled(&self.events[..at]) => Some(earlier),
                _ => None,
            };
            let is_left = is_scheduled(&self.events[at..]) || step.is_left(py)?;
            if !is_left || earlier.is_some_and(|earlier| !step.has_settings_of(earlier)) {
                let error = trace::refusal(format!(
                    "the step itself changes the settings of {}, such as lr; set them outside the compiled function, or \
                     by a scheduler of wg.optim.lr_scheduler",
                    step.owner_name(py)?
                ));
                return Err(refuse(error));
            }
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
