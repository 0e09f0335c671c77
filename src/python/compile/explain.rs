//! What a compiled function does, signature by signature: as data, and as text to read.

use super::session::Event;
use super::{Compiled, Variant};
use crate::python::errors::{raise, read};
use crate::tensor::{PlanProfile, Replay, Summary, trace};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use std::fmt::Write;

/// What `explain` gives: print it, or look at `signatures`.
#[pyclass(frozen, module = "wengert._core")]
pub struct Explanation {
    /// A dict for each signature: how often it was replayed, its plans with their kernels, numbers, states, host data.
    #[pyo3(get)]
    signatures: Py<PyList>,
    /// Why the last call that was refused could not be compiled; None if none was.
    #[pyo3(get)]
    refused: Option<String>,
    text: String,
}

#[pymethods]
impl Explanation {
    fn __str__(&self) -> &str {
        &self.text
    }

    fn __repr__(&self) -> &str {
        &self.text
    }
}

pub fn explain(py: Python<'_>, compiled: &Compiled) -> PyResult<Explanation> {
    let Some(mut state) = compiled.state.try_lock() else {
        return Err(raise(trace::refusal("explain: another thread runs the compiled function")));
    };
    let signatures = PyList::empty(py);
    let mut text = String::new();
    for (at, variant) in state.variants.iter_mut().enumerate() {
        signatures.append(signature(py, at, variant, &mut text)?)?;
    }
    if let Some(reason) = &state.refused {
        let _ = writeln!(text, "refused: {reason}");
    }
    if text.is_empty() {
        text.push_str("not called yet");
    }
    let text = text.trim_end().to_owned();
    Ok(Explanation { signatures: signatures.unbind(), refused: state.refused.clone(), text })
}

fn signature<'py>(
    py: Python<'py>,
    at: usize,
    variant: &mut Variant,
    text: &mut String,
) -> PyResult<Bound<'py, PyDict>> {
    let data = PyDict::new(py);
    data.set_item("calls", variant.calls)?;
    data.set_item("grad", variant.grad)?;
    let steps = variant.events.iter().filter(|event| matches!(event, Event::Step(_))).count();
    data.set_item("optimizer_steps", steps)?;
    data.set_item("scheduler_steps", variant.events.len() - steps)?;
    data.set_item("guarded_modules", variant.modes.len())?;
    let Some(replay) = &mut variant.replay else {
        data.set_item("plans", PyList::empty(py))?;
        let _ = writeln!(text, "signature {at}: traced once; the next call of it is traced again");
        return Ok(data);
    };
    let summary = replay.summary();
    let profiles = read(|| py.detach(|| Replay::profile(replay)))?;
    let _ = writeln!(text, "signature {at}: replayed {} times, {} plans", variant.calls, profiles.len());
    let plans = PyList::empty(py);
    for (number, profile) in profiles.iter().enumerate() {
        plans.append(plan(py, number, profile, text)?)?;
    }
    data.set_item("plans", plans)?;
    describe(&data, &summary, text)?;
    Ok(data)
}

fn plan<'py>(py: Python<'py>, number: usize, profile: &PlanProfile, text: &mut String) -> PyResult<Bound<'py, PyDict>> {
    let total: u64 = profile.kernels.iter().map(|kernel| kernel.nanos).sum();
    let data = PyDict::new(py);
    data.set_item("arena_bytes", profile.arena)?;
    data.set_item("nanoseconds", total)?;
    let (count, arena) = (profile.kernels.len(), bytes(profile.arena as u64));
    let time = if profile.timed { format!("{:.1} µs", total as f64 / 1e3) } else { "not timed".to_owned() };
    let _ = write!(text, "  plan {number}: {count} kernels, {time}, arena {arena}");
    let stages = profile.kernels.iter().filter_map(|kernel| kernel.stage);
    let _ = match stages.clone().max() {
        Some(last) => writeln!(text, "; threads share {} of them in {} stages", stages.count(), last + 1),
        None => writeln!(text),
    };
    let kernels = PyList::empty(py);
    for kernel in &profile.kernels {
        let account = &kernel.account;
        let entry = PyDict::new(py);
        entry.set_item("ops", account.ops.clone())?;
        entry.set_item("bytes", account.bytes)?;
        entry.set_item("flops", account.flops)?;
        entry.set_item("nanoseconds", kernel.nanos)?;
        entry.set_item("commits", kernel.commits)?;
        entry.set_item("stage", kernel.stage)?;
        kernels.append(entry)?;
        let time = if profile.timed { format!("{:.2} µs", kernel.nanos as f64 / 1e3) } else { "-".to_owned() };
        let _ = writeln!(
            text,
            "    {time:>12} {:>9} {:>10} FLOP {}{}",
            bytes(account.bytes),
            account.flops,
            if kernel.commits { "in place: " } else { "" },
            names(&account.ops)
        );
    }
    data.set_item("kernels", kernels)?;
    Ok(data)
}

fn describe(data: &Bound<'_, PyDict>, summary: &Summary, text: &mut String) -> PyResult<()> {
    let types = |types: &[crate::graph::TensorType]| types.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (states, constants) = (types(&summary.states), types(&summary.constants));
    let _ = writeln!(
        text,
        "  states: {} tensors from outside are changed, {} of them in place; {} gradients are left",
        states.len(),
        summary.in_place,
        summary.grads
    );
    let _ = writeln!(
        text,
        "  numbers: {} from float arguments, {} from optimizer settings, {} of random draws; all others are baked",
        summary.arguments, summary.settings, summary.random
    );
    if !constants.is_empty() {
        let _ = writeln!(text, "  baked host data: {}", constants.join(", "));
    }
    let numbers = PyDict::new(data.py());
    numbers.set_item("arguments", summary.arguments)?;
    numbers.set_item("settings", summary.settings)?;
    numbers.set_item("random", summary.random)?;
    data.set_item("numbers", numbers)?;
    data.set_item("states", states)?;
    data.set_item("in_place", summary.in_place)?;
    data.set_item("gradients", summary.grads)?;
    data.set_item("baked", constants)
}

/// The ops of a kernel; one that follows itself is named once, with its count.
fn names(ops: &[&'static str]) -> String {
    let alike = ops.chunk_by(|a, b| a == b);
    let parts = alike.map(|run| if run.len() == 1 { run[0].to_owned() } else { format!("{} ×{}", run[0], run.len()) });
    parts.collect::<Vec<_>>().join(", ")
}

fn bytes(count: u64) -> String {
    match count {
        0..10_000 => format!("{count} B"),
        10_000..10_000_000 => format!("{} KiB", count >> 10),
        _ => format!("{} MiB", count >> 20),
    }
}
