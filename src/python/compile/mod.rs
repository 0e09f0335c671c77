//! `wg.compile`: a function whose calls are traced twice for each signature and replayed from then on. Owns the guards
//! that choose between replays and what of a step is Python's. What is replayed, and how, is `tensor::replay`'s.

mod arguments;
mod explain;
mod method;
mod number;
mod results;
mod session;
mod settings;
mod steps;

pub use explain::Explanation;
pub use number::FloatArgument;
pub use session::{
    current, host_call, note_mode, note_optimizer, note_set_mode, note_step, note_updater, refuse_setting,
};

use super::errors::{is_a, raise, read, refuse};
use super::script;
use super::tensor::PyTensor;
use crate::error::{Error, ErrorKind};
use crate::tensor::trace::{self, Log, Tracing};
use crate::tensor::{self, Begun, Numbers, Replay, Tensor};
use arguments::{Inputs, Pattern};
use method::CompiledMethod;
use parking_lot::Mutex;
use pyo3::exceptions::{PyIndexError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyWeakrefMethods, PyWeakrefReference};
use pyo3::{PyTraverseError, PyVisit};
use results::Results;
use session::{Event, Session};
use smallvec::SmallVec;

/// Signatures of one function that are ready to be replayed: the one that was used longest ago makes room.
const MOST_READY: usize = 16;

/// Signatures that are known, those with one call so far among them.
const MOST_KNOWN: usize = 64;

/// New signatures in a row, without a call of a known one: more are a sign of an argument that should be a tensor or a
/// float.
const MOST_NEW: usize = 64;

/// Traces in a row that may be disturbed by another thread: after that the function is simply called.
const MOST_DISTURBED: usize = 16;

/// A plan shorter than this keeps the interpreter's lock: giving it up and taking it again would be a good part of it.
const SHORT_NANOS: u64 = 20_000;

/// A function that `compile` made. Call it as the function itself.
#[pyclass(frozen, dict, weakref, module = "wengert._core")]
pub struct Compiled {
    fun: Py<PyAny>,
    state: Mutex<Known>,
}

/// What is known of a function.
#[derive(Default)]
struct Known {
    /// The one that was used last comes first.
    variants: Vec<Variant>,
    /// Signatures that were new, since a known one was called.
    new_in_a_row: usize,
    /// Traces in a row that another thread disturbed.
    disturbed_in_a_row: usize,
    /// Why the last refused call could not be compiled.
    refused: Option<String>,
}

/// One signature: its guards, and what to do.
struct Variant {
    pattern: Pattern,
    /// Whether gradients are recorded.
    grad: bool,
    modes: Vec<(Py<PyWeakrefReference>, Py<PyAny>)>,
    /// Modules whose mode the step sets after a number of plans, and the mode.
    set_modes: Vec<(usize, Py<PyWeakrefReference>, Py<PyAny>)>,
    events: Vec<Event>,
    /// The numbers of optimizer steps, by source.
    settings: Vec<SmallVec<[f64; 8]>>,
    result: Results,
    /// What it did, while another trace is still to be compared with it: until it is ready, and while an argument was
    /// the same tensor whenever it was traced.
    log: Option<Log>,
    /// Once it was traced twice.
    replay: Option<Box<Replay>>,
    /// Times it was replayed.
    calls: u64,
}

#[pymethods]
impl Compiled {
    #[pyo3(signature = (*args, **kwargs))]
    fn __call__<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.step(args, kwargs)
    }

    /// Run many steps: each tensor argument holds theirs along its first axis, other arguments are the same for all.
    ///
    /// Returns:
    ///     What the function gives back, with the tensors of all steps stacked along a new first axis.
    #[pyo3(signature = (*args))]
    fn run<'py>(&self, args: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        steps::run(self, args)
    }

    /// What the compiled function does: its kernels with their ops, bytes, operations and measured time, how numbers
    /// are found, what changes, what was baked, and why the last refused call was refused.
    fn explain(&self, py: Python<'_>) -> PyResult<Explanation> {
        explain::explain(py, self)
    }

    /// A copy, unpickled or deep, is another compiled function, which knows no signature yet. One that a module names is
    /// that very one, as functions are.
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let name = script::global_name(slf.as_any())?;
        if !name.is_none() {
            return Ok(name);
        }
        let compile = py.import("wengert._core")?.getattr("compile")?;
        Ok((compile, (slf.get().fun.bind(py),)).into_pyobject(py)?.into_any())
    }

    fn __get__<'py>(
        slf: &Bound<'py, Self>,
        instance: &Bound<'py, PyAny>,
        _owner: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match instance.is_none() {
            true => Ok(slf.clone().into_any()),
            false => {
                let method = CompiledMethod::new(slf, instance);
                Ok(Bound::new(slf.py(), method)?.into_any())
            }
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.fun)?;
        // During a call nothing of it is garbage.
        let Some(known) = self.state.try_lock() else { return Ok(()) };
        known.variants.iter().try_for_each(|variant| variant.visit(&visit))
    }

    fn __clear__(&self) {
        let variants = self.state.try_lock().map(|mut known| std::mem::take(&mut known.variants));
        drop(variants);
    }
}

/// Compile a step: the first two calls of a signature run as ordinary code and are written down, later ones run without
/// Python, bit for bit the same.
///
/// A signature is: the shapes, dtypes and strides of tensor arguments; the values of ints, bools, strings and other hashable
/// arguments; grad mode; `training` of the modules that read it; which gradients and optimizer states exist; which of
/// all these tensors are one. The 16 that were used last are ready; 64 new ones in a row are refused. Tuples (named ones too), lists and dicts of arguments are
/// taken apart; the order of keywords counts. Objects that equal only themselves are not kept alive.
///
/// While tracing, a float argument stands beside tensors only: `isinstance(x, float)` holds (`type(x) is float` does not),
/// everything else that Python could make of its value is refused.
///
/// Found anew at each call: tensor arguments, float arguments, parameters and every other
/// tensor from outside, the settings of optimizers, the streams of the random generator. What was rebound is rebound
/// again: parameters, optimizer states, running statistics, gradients. Schedulers of `wg.optim.lr_scheduler` step.
///
/// Baked: all other Python values that the step read, host data that became tensors, and the choices it made by them.
/// Other side effects of Python (prints, lists that grow) happen while tracing only. What is not looked at again: which
/// module stands at a place of a model (`model[1] = other`), hooks that were added, and global names that were bound
/// again.
///
/// In eager mode, in an open transform and inside another compiled step the function is simply called. So it is where
/// another thread computes a part of what is traced, and the next call is traced then; and where an index is out of range,
/// which is an error on the function's own line.
///
/// A tensor that was the same argument in each traced call may be one that the function captured as well: another tensor
/// in its place is first traced once more.
///
/// Args:
///     fun: gives back tensors without open history, plain values, and tuples, lists and dicts of them.
///
/// Returns:
///     A callable with `fun`'s name. `.run(*stacked)` runs many steps in one call, `.explain()` says what it does.
///
/// Raises:
///     CompileError: when called: a value is read, a shape depends on data, a number or the order of operations differs
///         between the first two calls, the step sets an optimizer's settings other than by a scheduler, or a result
///         has open history. Everything is then as before the call.
///
/// Example:
///     >>> import wengert as wg
///     >>> from wengert import nn, optim
///     >>> wg.manual_seed(0)
///     >>> model = nn.Linear(2, 1)
///     >>> optimizer = optim.SGD(model.parameters(), lr=0.1)
///     >>> @wg.compile
///     ... def step(x: wg.Tensor, y: wg.Tensor) -> wg.Tensor:
///     ...     optimizer.zero_grad()
///     ...     loss = nn.functional.mse_loss(model(x), y)
///     ...     loss.backward()
///     ...     optimizer.step()
///     ...     return loss
///     >>> x, y = wg.ones((4, 2)), wg.zeros((4, 1))
///     >>> losses = [step(x, y).item() for _ in range(5)]
///     >>> losses == sorted(losses, reverse=True)
///     True
#[pyfunction]
#[pyo3(signature = (fun, /))]
pub fn compile<'py>(fun: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    if !fun.is_callable() {
        return Err(PyTypeError::new_err("compile: a function is needed"));
    }
    let made = Compiled { fun: fun.clone().unbind(), state: Mutex::default() };
    script::named(Bound::new(fun.py(), made)?.into_any(), fun)
}

impl Compiled {
    /// One call.
    fn step<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = args.py();
        if is_plain() {
            return self.fun.bind(py).call(args, kwargs);
        }
        // Whoever runs it now, in another thread or before a fork: ordinary code is always right.
        let Some(mut known) = self.state.try_lock() else { return self.fun.bind(py).call(args, kwargs) };
        let Known { variants, new_in_a_row, disturbed_in_a_row, refused } = &mut *known;
        let grad = tensor::grad_enabled();
        let mut given = Inputs::default();
        let mut traced = None;
        for at in 0..variants.len() {
            let variant = &mut variants[at];
            if variant.grad != grad || !variant.fits(args, kwargs, &mut given)? {
                continue;
            }
            match variant.replay(args, &given)? {
                Replayed::Unlike => {}
                Replayed::Fails => {
                    drop(known);
                    return self.fun.bind(py).call(args, kwargs);
                }
                Replayed::Result(result) => {
                    // The next call most likely has the same signature.
                    variants[..=at].rotate_right(1);
                    *new_in_a_row = 0;
                    return Ok(result);
                }
            }
            let is_like = |log: &Log| log.fits(&given.handles());
            if variant.log.as_ref().is_some_and(is_like)
                && read_settings(py, &mut variant.events, &mut variant.settings)?
                // One that is ready already may be another step that took its argument for a captured tensor.
                && (traced.is_none() || !variant.is_ready())
            {
                traced = Some(at);
            }
        }
        if *disturbed_in_a_row >= MOST_DISTURBED {
            return self.fun.bind(py).call(args, kwargs);
        }
        *new_in_a_row = if traced.is_some() { 0 } else { *new_in_a_row + 1 };
        if *new_in_a_row > MOST_NEW {
            let last = variants.first().map_or(Ok(None), |last| last.pattern.difference(args, kwargs))?;
            return Err(refuse(trace::refusal(format!(
                "the last {MOST_NEW} calls had a signature of their own each, and so has this one; what changes from call \
                 to call must be a tensor or a float ({})",
                last.unwrap_or_else(|| "a shape, dtype, mode, gradient or optimizer state changes".to_owned())
            ))));
        }
        let before = traced.map(|at| &mut variants[at]);
        let outcome = trace_call(self.fun.bind(py), args, kwargs, before);
        let replaces = match &outcome {
            Ok((_, made)) => matches!(made, Made::Variant { replaces: true, .. }),
            Err(_) => traced.is_some_and(|at| !variants[at].is_ready()),
        };
        if let Some(at) = traced.filter(|_| replaces) {
            variants.remove(at);
        }
        let (result, made) = outcome.inspect_err(|error| {
            if is_a(py, error, ErrorKind::Compile) {
                *refused = Some(error.value(py).to_string());
            }
        })?;
        let variant = match made {
            Made::Variant { variant, .. } => *variant,
            Made::Disturbed(error) => {
                *disturbed_in_a_row += 1;
                *refused = Some(error.to_string());
                return Ok(result);
            }
        };
        *disturbed_in_a_row = 0;
        variants.retain(|variant| !variant.pattern.is_dead(py));
        if variant.is_ready()
            && variants.iter().filter(|variant| variant.is_ready()).count() >= MOST_READY
            && let Some(oldest) = variants.iter().rposition(Variant::is_ready)
        {
            variants.remove(oldest);
        }
        variants.truncate(MOST_KNOWN - 1);
        variants.insert(0, variant);
        Ok(result)
    }
}

impl Variant {
    fn is_ready(&self) -> bool {
        self.replay.is_some()
    }

    /// Python objects that are kept, for the garbage collector.
    fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.pattern.visit(visit)?;
        self.result.visit(visit)?;
        self.modes.iter().try_for_each(|(module, _)| visit.call(module))?;
        self.set_modes.iter().try_for_each(|(_, module, _)| visit.call(module))?;
        self.events.iter().try_for_each(|event| event.visit(visit))
    }

    /// Whether arguments and modes are those of this variant, as far as Python tells.
    fn fits<'py>(
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
    fn replay<'py>(&mut self, args: &Bound<'py, PyTuple>, given: &Inputs<'py>) -> PyResult<Replayed<'py>> {
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
                            step.advance(py)?;
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
        self.result.build(py, &given.floats, &mut tensor).map(Replayed::Result)
    }
}

/// How a call of a variant went.
enum Replayed<'py> {
    Result(Bound<'py, PyAny>),
    /// Something is not as it was when it was traced.
    Unlike,
    /// An index is out of range. Nothing has happened: ordinary code says where.
    Fails,
}

/// Reads the settings of all optimizer steps. False: one would be recorded in another way by now.
fn read_settings(py: Python<'_>, events: &mut [Event], settings: &mut [SmallVec<[f64; 8]>]) -> PyResult<bool> {
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

/// Refuses arguments with history.
fn refuse_history(arguments: &[&Tensor]) -> PyResult<()> {
    match arguments.iter().position(|tensor| !tensor.is_leaf()) {
        Some(position) => Err(refuse(trace::refusal(format!(
            "tensor argument {position} has history, and a compiled step's gradients end at its arguments; give it \
             x.detach(), or compute it inside"
        )))),
        None => Ok(()),
    }
}

/// Whether the functions of compiled steps are simply called now.
fn is_plain() -> bool {
    tensor::eager() || tensor::in_transform() || trace::is_open()
}

/// What a traced call makes.
enum Made {
    Variant {
        variant: Box<Variant>,
        /// It takes the place of the one from before.
        replaces: bool,
    },
    /// Nothing: another thread computed a part of the step.
    Disturbed(Error),
}

/// Calls the function and writes down what it does. With `before`, an earlier trace of the same signature: the variant
/// is ready to be replayed.
fn trace_call<'py>(
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
        Ok(Logged { result, undisturbed: Err(error) }) => Ok((result, Made::Disturbed(error))),
        Ok(Logged { result, undisturbed: Ok((result_pattern, log, replay, replaces)) }) => {
            drop(tracing);
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
            let result_of = result_pattern;
            let variant =
                Variant { pattern, grad, modes, set_modes, events, settings, result: result_of, log, replay, calls: 0 };
            Ok((result, Made::Variant { variant: Box::new(variant), replaces }))
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

/// A call that was traced.
struct Logged<'py> {
    result: Bound<'py, PyAny>,
    undisturbed: Result<Step, Error>,
}

/// The pattern of the result; the log, if another trace is still to be compared with it; the replay, if there was one
/// before; and whether this takes the earlier one's place.
type Step = (Results, Option<Log>, Option<Box<Replay>>, bool);

/// What a call did, compared with an earlier one. On an error also whether the step is to be undone.
fn logged<'py>(
    tracing: &Tracing,
    session: &Session,
    result: &Bound<'py, PyAny>,
    floats: &[f64],
    before: Option<&mut Variant>,
) -> Result<Logged<'py>, (PyErr, bool)> {
    let py = result.py();
    let failed = |error: Error| (raise(error.clone()), error.kind() == ErrorKind::Compile);
    let mut tensors = Vec::new();
    let mut pattern = Results::of(result, &mut tensors).map_err(|error| (error, true))?;
    let returned: Vec<Tensor> = tensors.iter().map(|tensor| tensor.get().0.clone()).collect();
    let log = match tracing.finish(&returned) {
        Err(error) if !tracing.is_disturbed() => return Err(failed(error)),
        log => log,
    };
    // Float arguments that come back are numbers again.
    let mut own = |at: usize| Ok(tensors[at].clone().into_any());
    let result = match floats.is_empty() {
        true => result.clone(),
        false => pattern.build(py, floats, &mut own).map_err(|error| (error, true))?,
    };
    let mut log = match log {
        Ok(log) => log,
        Err(error) => return Ok(Logged { result, undisturbed: Err(error) }),
    };
    pattern.forget(&|at| log.is_outside(at));
    session.keeps_settings(py, before.as_ref().map(|before| &before.events[..])).map_err(|error| (error, true))?;
    let first =
        |pattern, log| Ok(Logged { result: result.clone(), undisturbed: Ok((pattern, Some(log), None, false)) });
    let Some(before) = before else { return first(pattern, log) };
    let Some(mut earlier) = before.log.take() else { return first(pattern, log) };
    let same = log.compare(&earlier).and_then(|()| match session.is_like(&before.events) {
        true => Ok(()),
        false => Err(trace::refusal(
            "the first two calls stepped optimizers or schedulers in another order; a compiled step does the same at \
             each call",
        )),
    });
    match same {
        Ok(()) => {}
        // With another tensor as its argument it may be another step.
        Err(_) if before.is_ready() || log.captures_argument_of(&earlier) => {
            before.log = Some(earlier);
            return first(pattern, log);
        }
        Err(error) => return Err(failed(error)),
    }
    let is_bound = log.keep_bound(&mut earlier);
    let replay = py.detach(|| Replay::new(log)).map_err(failed)?;
    Ok(Logged { result, undisturbed: Ok((pattern, is_bound.then_some(earlier), Some(Box::new(replay)), true)) })
}
