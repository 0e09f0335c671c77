//! The settings of an optimizer's step, read again before each replay: from the same groups, by the same rule.

use crate::error::Error;
use crate::optim::Part;
use crate::python::errors::{raise, read};
use crate::python::optimizer::PyUpdater;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};
use pyo3::{PyTraverseError, PyVisit};
use smallvec::SmallVec;

/// A step of an optimizer: the plan of this number makes its updates.
pub struct StepEvent {
    owner: Py<PyAny>,
    updaters: Py<PyList>,
    groups: Py<PyList>,
    /// Plans that have run when it is done.
    pub after: usize,
    /// Whether the numbers follow from the groups' values alone.
    ours: bool,
    uses: Vec<GroupUse>,
}

struct GroupUse {
    updater: Py<PyUpdater>,
    group: Py<PyDict>,
    /// The values of the group that `settings` come from; none if they may change by themselves.
    seen: Vec<Py<PyAny>>,
    settings: Vec<f64>,
    parts: Vec<Part>,
}

impl StepEvent {
    pub fn new(
        owner: &Bound<'_, PyAny>,
        updates: &[(Bound<'_, PyUpdater>, Vec<f64>)],
        parts: Vec<Vec<Part>>,
        after: usize,
    ) -> PyResult<StepEvent> {
        let py = owner.py();
        let groups = owner.getattr(intern!(py, "param_groups"))?.cast_into::<PyList>()?;
        let module: String = owner.get_type().getattr("__module__")?.extract()?;
        let mut uses = Vec::with_capacity(updates.len());
        for (((updater, settings), parts), group) in updates.iter().zip(parts).zip(groups.iter()) {
            uses.push(GroupUse {
                updater: updater.clone().unbind(),
                group: group.cast_into::<PyDict>()?.unbind(),
                seen: Vec::new(),
                settings: settings.clone(),
                parts,
            });
        }
        Ok(StepEvent {
            owner: owner.clone().unbind(),
            updaters: owner.getattr(intern!(py, "_updaters"))?.cast_into::<PyList>()?.unbind(),
            groups: groups.unbind(),
            after,
            ours: module.starts_with("wengert."),
            uses,
        })
    }

    pub fn is_like(&self, other: &StepEvent) -> bool {
        self.owner.is(&other.owner)
            && self.after == other.after
            && self.uses.len() == other.uses.len()
            && self
                .uses
                .iter()
                .zip(&other.uses)
                .all(|(a, b)| a.updater.is(&b.updater) && a.parts.len() == b.parts.len())
    }

    /// Python objects that are kept, for the garbage collector.
    pub fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.owner)?;
        visit.call(&self.updaters)?;
        visit.call(&self.groups)?;
        self.uses.iter().try_for_each(|one| {
            visit.call(&one.updater)?;
            visit.call(&one.group)?;
            one.seen.iter().try_for_each(|value| visit.call(value))
        })
    }

    /// Whether the groups still have the settings of this step.
    pub fn is_left(&self, py: Python<'_>) -> PyResult<bool> {
        for one in &self.uses {
            let now: Vec<f64> = self.owner.bind(py).call_method1(intern!(py, "numbers"), (&one.group,))?.extract()?;
            if now != one.settings {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub fn has_settings_of(&self, other: &StepEvent) -> bool {
        self.uses.iter().zip(&other.uses).all(|(a, b)| a.settings == b.settings)
    }

    /// The name of the optimizer's class.
    pub fn owner_name(&self, py: Python<'_>) -> PyResult<String> {
        self.owner.bind(py).get_type().name()?.extract()
    }

    /// How many sources of numbers there are, counted from the first of the step.
    pub fn sources(&self) -> usize {
        self.uses.iter().flat_map(|one| &one.parts).map(|part| part.source as usize + 1).max().unwrap_or(0)
    }

    /// Reads the settings and makes the numbers of the next step. False: it would be recorded in another way by now.
    pub fn read(&mut self, py: Python<'_>, numbers: &mut [SmallVec<[f64; 8]>]) -> PyResult<bool> {
        let owner = self.owner.bind(py);
        let groups = self.groups.bind(py);
        let same_lists = owner.getattr(intern!(py, "_updaters"))?.is(&self.updaters)
            && owner.getattr(intern!(py, "param_groups"))?.is(groups)
            && groups.len() == self.uses.len();
        if !same_lists {
            return Ok(false);
        }
        for (at, one) in self.uses.iter_mut().enumerate() {
            let updater = one.updater.bind(py);
            if !groups.get_item(at)?.is(&one.group) || !self.updaters.bind(py).get_item(at)?.is(updater) {
                return Ok(false);
            }
            let group = one.group.bind(py);
            if !self.ours || !is_seen(group, &one.seen) {
                one.settings = owner.call_method1(intern!(py, "numbers"), (group,))?.extract()?;
                one.seen = seen(group);
            }
            let Some(open) = updater.get().0.try_lock() else { return Err(busy()) };
            for part in &one.parts {
                let numbers = &mut numbers[part.source as usize];
                if !read(|| open.numbers(part, &one.settings, numbers))? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Counts the step that a replay made.
    pub fn advance(&self, py: Python<'_>) -> PyResult<()> {
        for one in &self.uses {
            let Some(mut open) = one.updater.bind(py).get().0.try_lock() else { return Err(busy()) };
            one.parts.iter().for_each(|part| open.advance(part));
        }
        Ok(())
    }
}

fn busy() -> PyErr {
    raise(Error::value("step: another thread is stepping these parameters"))
}

/// Whether a group holds the very objects that were seen.
fn is_seen(group: &Bound<'_, PyDict>, seen: &[Py<PyAny>]) -> bool {
    group.len() == seen.len() && group.iter().zip(seen).all(|((_, value), seen)| value.is(seen))
}

/// The values of a group, if none of them can change and stay the same object. The parameters are the updater's.
fn seen(group: &Bound<'_, PyDict>) -> Vec<Py<PyAny>> {
    let fixed = |(key, value): &(Bound<'_, PyAny>, Bound<'_, PyAny>)| {
        let number = |value: &Bound<'_, PyAny>| {
            value.is_none()
                || value.is_instance_of::<PyString>()
                || value.is_instance_of::<pyo3::types::PyFloat>()
                || value.is_instance_of::<pyo3::types::PyInt>()
        };
        let of_numbers = |tuple: &Bound<'_, PyTuple>| tuple.iter().all(|item| number(&item));
        number(value)
            || value.cast_exact::<PyTuple>().is_ok_and(of_numbers)
            || key.cast::<PyString>().is_ok_and(|key| key.eq("params"))
    };
    let entries: Vec<_> = group.iter().collect();
    match entries.iter().all(fixed) {
        true => entries.into_iter().map(|(_, value)| value.unbind()).collect(),
        false => Vec::new(),
    }
}
