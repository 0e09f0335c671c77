//! A call that is traced: it runs as ordinary code and is written down. With a trace from before it becomes a replay.

use super::arguments::Pattern;
use super::results::Results;
use super::session::{self, Event, Session};
use super::variant::Variant;
use crate::error::{Error, ErrorKind};
use crate::machine::cpu::arena;
use crate::python::errors::{raise, read, refuse};
use crate::tensor::trace::{self, Log, Tracing};
use crate::tensor::{self, Replay, Tensor};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyWeakrefReference};
use smallvec::SmallVec;

/// What a traced call makes.
pub enum Made {
    Variant {
        variant: Box<Variant>,
        /// It takes the place of the one from before.
        replaces: bool,
    },
    /// Nothing: another thread computed a part of the step.
    Disturbed(Error),
}

/// Refuses arguments with history.
pub fn refuse_history(arguments: &[&Tensor]) -> PyResult<()> {
    match arguments.iter().position(|tensor| !tensor.is_leaf()) {
        Some(position) => Err(refuse(trace::refusal(format!(
            "tensor argument {position} has history, and a compiled step's gradients end at its arguments; give it \
             x.detach(), or compute it inside"
        )))),
        None => Ok(()),
    }
}

/// Calls the function and writes down what it does. With `before`, an earlier trace of the same signature: the variant
/// is ready to be replayed.
pub fn trace_call<'py>(
    fun: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    kwargs: Option<&Bound<'py, PyDict>>,
    before: Option<&mut Variant>,
) -> PyResult<(Bound<'py, PyAny>, Made)> {
    let py = fun.py();
    let (pattern, given) = Pattern::of(args, kwargs)?;
    let handles: Vec<Tensor> = given.handles().into_iter().cloned().collect();
    refuse_history(&handles.iter().collect::<Vec<_>>())?;
    let grad = tensor::grad_enabled();
    let tracing = read(|| Tracing::open(&handles))?;
    let id = session::open(py)?;
    let called = match given.floats.is_empty() {
        true => fun.call(args, kwargs),
        false => pattern.traced(args, kwargs, id).and_then(|(args, kwargs)| fun.call(&args, kwargs.as_ref())),
    };
    let session = session::close(py)?;
    let left = tensor::grad_enabled();
    let called = match called {
        Ok(_) if left != grad => {
            let error = trace::refusal(
                "grad mode is another one after the step; use `with wg.no_grad():` or `with wg.set_grad_enabled(...):`",
            );
            trace::refuse(error.clone());
            Err(refuse(error))
        }
        called => called,
    };
    let result = match called {
        Ok(result) => result,
        Err(error) => {
            if tracing.refusal().is_some() {
                tensor::set_grad_enabled(grad);
                tracing.undo();
                session.undo(py)?;
            }
            return Err(error);
        }
    };
    match logged(&tracing, &session, &result, &given.floats, before) {
        Ok((result, Err(error))) => Ok((result, Made::Disturbed(error))),
        Ok((result, Ok(logged))) => {
            drop(tracing);
            let replaces = logged.replay.is_some();
            if replaces {
                // Replays write over what they find, so the second copies that tracing kept would never be used again.
                arena::trim();
            }
            let variant = Box::new(logged.variant(py, pattern, grad, session)?);
            Ok((result, Made::Variant { variant, replaces }))
        }
        Err((error, undoes)) => {
            drop(result);
            if undoes {
                tracing.undo();
                session.undo(py)?;
            }
            Err(error)
        }
    }
}

/// What a call did.
struct Logged {
    /// The form of its result.
    form: Results,
    /// If another trace is still to be compared with it.
    log: Option<Log>,
    /// If there was a trace before.
    replay: Option<Box<Replay>>,
}

impl Logged {
    /// The signature of which this was a call.
    fn variant(self, py: Python<'_>, pattern: Pattern, grad: bool, session: Session) -> PyResult<Variant> {
        let Logged { form, log, replay } = self;
        let Session { events, modes, set_modes, .. } = session;
        let weak = |module: &Py<PyAny>| PyWeakrefReference::new(module.bind(py)).map(Bound::unbind);
        let modes = modes.into_iter().map(|(module, mode)| Ok((weak(&module)?, mode))).collect::<PyResult<_>>()?;
        let set_modes = set_modes.into_iter().map(|set| Ok((set.after, weak(&set.module)?, set.mode)));
        let set_modes = set_modes.collect::<PyResult<_>>()?;
        let sources = events.iter().map(|event| match event {
            Event::Step(step) => step.sources(),
            Event::Host { .. } => 0,
        });
        let settings = vec![SmallVec::new(); sources.max().unwrap_or(0)];
        let replaced = tensor::count_replaced();
        Ok(Variant { pattern, grad, modes, set_modes, events, settings, form, log, replay, replaced, calls: 0 })
    }
}

/// The result of a call and what it did; or which part of it another thread computed.
type Done<'py> = (Bound<'py, PyAny>, Result<Logged, Error>);

/// What a call did, compared with an earlier one. On an error also whether the step is to be undone.
fn logged<'py>(
    tracing: &Tracing,
    session: &Session,
    result: &Bound<'py, PyAny>,
    floats: &[f64],
    before: Option<&mut Variant>,
) -> Result<Done<'py>, (PyErr, bool)> {
    let py = result.py();
    let failed = |error: Error| (raise(error.clone()), error.kind() == ErrorKind::Compile);
    let mut tensors = Vec::new();
    let mut form = Results::of(result, &mut tensors).map_err(|error| (error, true))?;
    let returned: Vec<Tensor> = tensors.iter().map(|tensor| tensor.get().0.clone()).collect();
    let log = match tracing.finish(&returned) {
        Err(error) if !tracing.is_disturbed() => return Err(failed(error)),
        log => log,
    };
    // Float arguments that come back are numbers again.
    let mut own = |at: usize| Ok(tensors[at].clone().into_any());
    let result = match floats.is_empty() {
        true => result.clone(),
        false => form.build(py, floats, &mut own).map_err(|error| (error, true))?,
    };
    let mut log = match log {
        Ok(log) => log,
        Err(error) => return Ok((result, Err(error))),
    };
    form.forget(&|at| log.is_outside(at));
    session.keeps_settings(py, before.as_ref().map(|before| &before.events[..])).map_err(|error| (error, true))?;
    let Some((before, mut earlier)) = before.and_then(|before| before.log.take().map(|earlier| (before, earlier)))
    else {
        return Ok((result, Ok(Logged { form, log: Some(log), replay: None })));
    };
    let same = log.compare(&earlier).and_then(|()| match session.is_like(&before.events) {
        true => Ok(()),
        false => Err(trace::refusal(
            "the first two calls stepped optimizers or schedulers in another order; a compiled step does the same at \
             each call",
        )),
    });
    match same {
        Ok(()) => {
            let is_bound = log.keep_bound(&mut earlier);
            let replay = py.detach(|| Replay::new(log)).map_err(failed)?;
            Ok((result, Ok(Logged { form, log: is_bound.then_some(earlier), replay: Some(Box::new(replay)) })))
        }
        // With another tensor as its argument it may be another step.
        Err(_) if before.is_ready() || log.captures_argument_of(&earlier) => {
            before.log = Some(earlier);
            Ok((result, Ok(Logged { form, log: Some(log), replay: None })))
        }
        Err(error) => Err(failed(error)),
    }
}
