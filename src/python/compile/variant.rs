//! One signature of a compiled function: whether a call has it, and how it is replayed.

use super::arguments::{Inputs, Pattern};
use super::results::Results;
use super::session::Event;
use crate::python::errors::{read, refuse};
use crate::python::tensor::PyTensor;
use crate::tensor::trace::{self, Log};
use crate::tensor::{self, Begun, Numbers, Replay, Tensor};
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyWeakrefMethods, PyWeakrefReference};
use pyo3::{PyTraverseError, PyVisit, intern};
use smallvec::SmallVec;

/// A plan shorter than this keeps the interpreter's lock: giving it up and taking it again would be a good part of it.
const SHORT_NANOS: u64 = 20_000;

/// One signature: its guards, and what to do.
pub struct Variant {
    pub pattern: Pattern,
    /// Whether gradients are recorded.
    pub grad: bool,
    pub modes: Vec<(Py<PyWeakrefReference>, Py<PyAny>)>,
    /// Modules whose mode the step sets after a number of plans, and the mode.
    pub set_modes: Vec<(usize, Py<PyWeakrefReference>, Py<PyAny>)>,
    pub events: Vec<Event>,
    /// The numbers of optimizer steps, by source.
    pub settings: Vec<SmallVec<[f64; 8]>>,
    /// The form of its result.
    pub form: Results,
    /// What it did, while another trace is still to be compared with it: until it is ready, and while an argument was
    /// the same tensor whenever it was traced.
    pub log: Option<Log>,
    /// Once it was traced twice.
    pub replay: Option<Box<Replay>>,
    /// Tensors that modules had replaced when it was traced.
    pub replaced: u64,
    /// Times it was replayed.
    pub calls: u64,
}

impl Variant {
    pub fn is_ready(&self) -> bool {
        self.replay.is_some()
    }

    /// Whether it uses one of these tensors, which a module replaced since it was traced: the step may use another by now.
    pub fn is_stale(&self, replaced: &[(u64, Tensor)]) -> bool {
        replaced.iter().filter(|(count, _)| *count > self.replaced).any(|(_, tensor)| {
            self.log.as_ref().is_some_and(|log| log.captures(tensor))
                || self.replay.as_ref().is_some_and(|replay| replay.captures(tensor))
        })
    }

    /// Python objects that are kept, for the garbage collector.
    pub fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.pattern.visit(visit)?;
        self.form.visit(visit)?;
        self.modes.iter().try_for_each(|(module, _)| visit.call(module))?;
        self.set_modes.iter().try_for_each(|(_, module, _)| visit.call(module))?;
        self.events.iter().try_for_each(|event| event.visit(visit))
    }

    /// Whether arguments and modes are those of this variant, as far as Python tells.
    pub fn fits<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
        given: &mut Inputs<'py>,
    ) -> PyResult<bool> {
        let py = args.py();
        if !self.pattern.matches(args, kwargs, given)? {
            return Ok(false);
        }
        for (module, mode) in &self.modes {
            // One that is gone was made by the step, or the function names another one by now.
            if let Some(module) = module.bind(py).upgrade()
                && !module.getattr(intern!(py, "training"))?.is(mode)
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Runs the step again.
    pub fn replay<'py>(&mut self, args: &Bound<'py, PyTuple>, given: &Inputs<'py>) -> PyResult<Replayed<'py>> {
        let py = args.py();
        let (Some(replay), settings) = (&mut self.replay, &mut self.settings) else { return Ok(Replayed::Unlike) };
        if !read_settings(py, &mut self.events, settings)? {
            return Ok(Replayed::Unlike);
        }
        let tensors: SmallVec<[&Tensor; 8]> = given.tensors.iter().map(|tensor| &tensor.get().0).collect();
        let call = loop {
            match read(|| replay.begin(&tensors))? {
                Begun::Ready(call) => break call,
                Begun::Mismatch => return Ok(Replayed::Unlike),
                Begun::Fails => return Ok(Replayed::Fails),
                Begun::Pending(tensor) => read(|| tensor::evaluate(&[&tensor]))?,
            }
        };
        let (mut ran, mut next) = (0, 0);
        let mut run = || -> PyResult<()> {
            loop {
                // What Python did after so many plans.
                while next < self.events.len() {
                    match &self.events[next] {
                        Event::Step(step) if step.after == ran => {
                            step.advance(py, replay)?;
                            read_later(py, &mut self.events[next + 1..], settings)?;
                        }
                        Event::Host { before, call } if *before == ran => {
                            call.call0(py)?;
                            read_later(py, &mut self.events[next + 1..], settings)?;
                        }
                        _ => break,
                    }
                    next += 1;
                }
                if ran == replay.plans() {
                    return Ok(());
                }
                let numbers = Numbers { arguments: &given.floats, settings };
                read(|| match replay.nanos(ran) < SHORT_NANOS {
                    true => replay.run_plan(&call, ran, &numbers),
                    false => py.detach(|| replay.run_plan(&call, ran, &numbers)),
                })?;
                ran += 1;
            }
        };
        let outcome = run();
        let made = read(|| replay.finish(&tensors, ran));
        if (ran, next) == (0, 0) && outcome.as_ref().is_err_and(|error| error.is_instance_of::<PyIndexError>(py)) {
            replay.forget_draws(&call);
            return Ok(Replayed::Fails);
        }
        self.calls += 1;
        for (_, module, mode) in self.set_modes.iter().filter(|(after, ..)| *after <= ran) {
            if let Some(module) = module.bind(py).upgrade()
                && !module.getattr(intern!(py, "training"))?.is(mode)
            {
                module.setattr(intern!(py, "training"), mode)?;
            }
        }
        outcome?;
        let mut made = made?;
        let mut objects: SmallVec<[Option<Bound<'py, PyAny>>; 2]> = SmallVec::new();
        objects.resize(made.len(), None);
        let mut tensor = |at: usize| -> PyResult<Bound<'py, PyAny>> {
            if let Some(object) = &objects[at] {
                return Ok(object.clone());
            }
            let object = match std::mem::replace(&mut made[at], tensor::Given::Nothing) {
                tensor::Given::Tensor(tensor) => Bound::new(py, PyTensor(tensor))?.into_any(),
                tensor::Given::Argument(position) => given.tensors[position as usize].clone().into_any(),
                tensor::Given::Outside | tensor::Given::Nothing => py.None().into_bound(py),
            };
            objects[at] = Some(object.clone());
            Ok(object)
        };
        self.form.build(py, &given.floats, &mut tensor).map(Replayed::Result)
    }
}

/// How a call of a variant went.
pub enum Replayed<'py> {
    Result(Bound<'py, PyAny>),
    /// Something is not as it was when it was traced.
    Unlike,
    /// An index is out of range. Nothing has happened: ordinary code says where.
    Fails,
}

/// Reads the settings of all optimizer steps. False: one would be recorded in another way by now.
pub fn read_settings(py: Python<'_>, events: &mut [Event], settings: &mut [SmallVec<[f64; 8]>]) -> PyResult<bool> {
    for event in events {
        if let Event::Step(step) = event
            && !step.read(py, settings)?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads the settings of the steps that are still to come.
fn read_later(py: Python<'_>, events: &mut [Event], settings: &mut [SmallVec<[f64; 8]>]) -> PyResult<()> {
    match read_settings(py, events, settings)? {
        true => Ok(()),
        false => Err(refuse(trace::refusal(
            "an optimizer's settings changed within the step, so that its next update is another one",
        ))),
    }
}
