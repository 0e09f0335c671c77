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
mod traced;
mod variant;

pub use explain::Explanation;
pub use number::FloatArgument;
pub use session::{
    current, host_call, note_mode, note_optimizer, note_set_mode, note_step, note_updater, refuse_setting,
};

use super::errors::{is_a, refuse};
use super::script;
use super::tensor::PyTensor;
use crate::error::ErrorKind;
use crate::tensor;
use crate::tensor::trace::{self, Log};
use arguments::Inputs;
use method::CompiledMethod;
use parking_lot::Mutex;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{PyTraverseError, PyVisit};
use traced::{Made, trace_call};
use variant::{Replayed, Variant, read_settings};

/// Signatures of one function that are ready to be replayed: the one that was used longest ago makes room.
const MOST_READY: usize = 16;

/// Signatures that are known, those with one call so far among them.
const MOST_KNOWN: usize = 64;

/// New signatures in a row, without a call of a known one: more are a sign of an argument that should be a tensor or a
/// float.
const MOST_NEW: usize = 64;

/// Traces in a row that may be disturbed by another thread: after that the function is simply called.
const MOST_DISTURBED: usize = 16;

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
    /// Tensors that modules had replaced at the last call.
    replaced: u64,
    /// Signatures that were new, since a known one was called.
    new_in_a_row: usize,
    /// Traces in a row that another thread disturbed.
    disturbed_in_a_row: usize,
    /// Why the last refused call could not be compiled.
    refused: Option<String>,
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
/// A signature is: the shapes, dtypes and strides of tensor arguments; the values of ints, bools, strings and other
/// hashable arguments; grad mode; `training` of the modules that read it; which gradients and optimizer states exist;
/// which tensors require a gradient; which of them are one. The 16 that were used last are ready; 64 new ones in a row
/// are refused. Tuples (named ones too), lists and dicts of arguments are taken apart; the order of keywords counts.
/// Objects that equal only themselves are not kept alive.
///
/// While tracing, a float argument stands beside tensors only: `isinstance(x, float)` holds (`type(x) is float` does
/// not), everything else that Python could make of its value is refused.
///
/// Found anew at each call: tensor arguments (those that are pending are computed first), float arguments, parameters
/// and every other tensor from outside, the settings of optimizers, the streams of the random generator. Where a module
/// has another parameter or buffer than before, the step is traced anew. What was rebound is rebound again: parameters,
/// optimizer states, running statistics, gradients. Schedulers of `wg.optim.lr_scheduler` step.
///
/// Baked: all other Python values that the step read, host data that became tensors, and the choices it made by them.
/// Other side effects of Python (prints, lists that grow) happen while tracing only. What is not looked at again: which
/// module stands at a place of a model (`model[1] = other`), hooks that were added, and global names that were bound
/// again.
///
/// In eager mode, in an open transform and inside another compiled step the function is simply called. So it is where
/// another thread computes a part of what is traced, and the next call is traced then; and where an index is out of
/// range, which is an error on the function's own line.
///
/// A tensor that was the same argument in each traced call may be one that the function captured as well: another
/// tensor in its place is first traced once more.
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
        let was_stale = tensor::count_replaced() != known.replaced && known.forget_stale();
        let Known { variants, new_in_a_row, disturbed_in_a_row, refused, .. } = &mut *known;
        let grad = tensor::grad_enabled();
        let mut given = Inputs::default();
        let mut traced = None;
        for at in 0..variants.len() {
            let variant = &mut variants[at];
            if variant.grad != grad || !variant.fits(args, kwargs, &mut given)? {
                continue;
            }
            let replayed = match variant.replay(args, &given) {
                Err(error) if is_a(py, &error, ErrorKind::DeviceLost) => {
                    // Host data that became part of it is gone with the device.
                    variants.remove(at);
                    return Err(error);
                }
                replayed => replayed?,
            };
            match replayed {
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
        if traced.is_none() && !was_stale && *new_in_a_row == MOST_NEW {
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
        *new_in_a_row = if traced.is_some() { 0 } else { *new_in_a_row + usize::from(!was_stale) };
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

impl Known {
    /// Forgets the signatures that use a tensor in whose place a module has another one by now. Whether there were any.
    #[cold]
    fn forget_stale(&mut self) -> bool {
        let count = tensor::count_replaced();
        let replaced = tensor::replaced_since(std::mem::replace(&mut self.replaced, count));
        let before = self.variants.len();
        self.variants.retain(|variant| !variant.is_stale(&replaced));
        self.variants.len() < before
    }
}

/// Says that a module has another tensor, or none, in the place of this one.
#[pyfunction]
#[pyo3(signature = (tensor, /))]
pub fn note_replaced(tensor: &Bound<'_, PyTensor>) {
    tensor::note_replaced(&tensor.get().0);
}

/// Whether the functions of compiled steps are simply called now.
fn is_plain() -> bool {
    tensor::eager() || tensor::in_transform() || trace::is_open()
}
