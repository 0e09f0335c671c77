//! The settings of an optimizer's step, read again before each replay: from the same groups, by the same rule.

use crate::optim::Part;
use crate::python::errors::read;
use crate::python::optimizer::{Numbers, PyUpdater, Update, numbers};
use crate::tensor::Replay;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use pyo3::{PyTraverseError, PyVisit};

/// A step of an optimizer: the plan of this number makes its updates.
pub struct StepEvent {
    owner: Py<PyAny>,
    updaters: Py<PyList>,
    groups: Py<PyList>,
    /// Plans that have run when it is done.
    pub after: usize,
    uses: Vec<GroupUse>,
}

struct GroupUse {
    updater: Py<PyUpdater>,
    group: Py<PyDict>,
    settings: Numbers,
    parts: Vec<Part>,
}

impl StepEvent {
    pub fn new(
        owner: &Bound<'_, PyAny>,
        updates: &[Update<'_>],
        parts: Vec<Vec<Part>>,
        after: usize,
    ) -> PyResult<StepEvent> {
        let py = owner.py();
        let groups = owner.getattr(intern!(py, "param_groups"))?.cast_into::<PyList>()?;
        let mut uses = Vec::with_capacity(updates.len());
        for (((updater, settings), parts), group) in updates.iter().zip(parts).zip(groups.iter()) {
            uses.push(GroupUse {
                updater: updater.clone().unbind(),
                group: group.cast_into::<PyDict>()?.unbind(),
                settings: settings.clone(),
                parts,
            });
        }
        Ok(StepEvent {
            owner: owner.clone().unbind(),
            updaters: owner.getattr(intern!(py, "_updaters"))?.cast_into::<PyList>()?.unbind(),
            groups: groups.unbind(),
            after,
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
            visit.call(&one.group)
        })
    }

    /// Whether the groups still have the settings of this step.
    pub fn is_left(&self, py: Python<'_>) -> PyResult<bool> {
        for one in &self.uses {
            if numbers(self.owner.bind(py), one.group.bind(py))? != one.settings {
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
    pub fn read(&mut self, py: Python<'_>, made: &mut [Numbers]) -> PyResult<bool> {
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
            one.settings = updater.get().settings(owner, one.group.bind(py))?;
            let mut open = read(|| updater.get().open())?;
            for part in &one.parts {
                if !read(|| open.numbers(part, &one.settings, &mut made[part.source as usize]))? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Counts the step that a replay made.
    pub fn advance(&self, py: Python<'_>, replay: &Replay) -> PyResult<()> {
        for one in &self.uses {
            let mut open = read(|| one.updater.bind(py).get().open())?;
            one.parts.iter().for_each(|part| open.advance(part, |param| replay.ticket(self.after, param)));
        }
        Ok(())
    }
}
