//! Grad mode, the eager switch, evaluation, threads, and what `wengert.debug` and tests look at.

use super::errors::{read, refuse};
use super::gpu;
use super::operand::choice;
use super::tensor::{PyTensor, made};
use super::{axes, script};
use crate::error::Error;
use crate::machine::cpu::{arena, par};
use crate::ops::table::{self, Row};
use crate::ops::testing::Behaviour;
use crate::tensor::{self, EagerGuard};
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// A class that sets grad mode inside `with`, or for the calls of a function that it decorates.
macro_rules! grad_mode {
    ($(#[$doc:meta])* $name:ident, $on:literal) => {
        $(#[$doc])*
        #[pyclass(frozen, module = "wengert")]
        #[derive(Default)]
        #[allow(non_camel_case_types, reason = "the name users write")]
        pub struct $name {
            /// The modes before, for each `with` that is open.
            before: Mutex<Vec<bool>>,
        }

        #[pymethods]
        impl $name {
            #[new]
            fn new() -> $name {
                $name::default()
            }

            fn __enter__(&self) {
                self.before.lock().push(tensor::set_grad_enabled($on));
            }

            #[pyo3(signature = (kind, error, trace, /))]
            fn __exit__(&self, kind: &Bound<'_, PyAny>, error: &Bound<'_, PyAny>, trace: &Bound<'_, PyAny>) {
                let _ = (kind, error, trace);
                if let Some(before) = self.before.lock().pop() {
                    tensor::set_grad_enabled(before);
                }
            }

            #[pyo3(signature = (fun, /))]
            fn __call__<'py>(slf: &Bound<'py, Self>, fun: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
                script::decorate(slf.as_any(), fun)
            }
        }
    };
}

grad_mode!(
    /// Records without gradients, inside `with` or in a decorated function.
    no_grad,
    false
);
grad_mode!(
    /// Records with gradients, inside `with` or in a decorated function.
    enable_grad,
    true
);

/// Takes effect at once; as a context manager it restores the mode before at the end.
#[pyclass(frozen, module = "wengert")]
#[allow(non_camel_case_types, reason = "the name users write")]
pub struct set_grad_enabled {
    mode: bool,
    /// The mode that making this object changed, until the first `with` takes it over.
    made_in: Mutex<Option<bool>>,
    before: Mutex<Vec<bool>>,
}

#[pymethods]
impl set_grad_enabled {
    #[new]
    fn new(mode: bool) -> set_grad_enabled {
        let made_in = tensor::set_grad_enabled(mode);
        set_grad_enabled { mode, made_in: Mutex::new(Some(made_in)), before: Mutex::default() }
    }

    fn __enter__(&self) {
        let current = tensor::set_grad_enabled(self.mode);
        let before = self.made_in.lock().take().unwrap_or(current);
        self.before.lock().push(before);
    }

    #[pyo3(signature = (kind, error, trace, /))]
    fn __exit__(&self, kind: &Bound<'_, PyAny>, error: &Bound<'_, PyAny>, trace: &Bound<'_, PyAny>) {
        let _ = (kind, error, trace);
        if let Some(before) = self.before.lock().pop() {
            tensor::set_grad_enabled(before);
        }
    }

    #[pyo3(signature = (fun, /))]
    fn __call__<'py>(slf: &Bound<'py, Self>, fun: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        // As a decorator it says nothing of the mode outside the function.
        if let Some(before) = slf.get().made_in.lock().take() {
            tensor::set_grad_enabled(before);
        }
        script::decorate(slf.as_any(), fun)
    }
}

/// Evaluate after each operation, in this thread, inside `with`.
#[pyclass(frozen, module = "wengert")]
#[allow(non_camel_case_types, reason = "the name users write")]
pub struct eager {
    on: bool,
    open: Mutex<Vec<EagerGuard>>,
}

#[pymethods]
impl eager {
    #[new]
    #[pyo3(signature = (on = true))]
    fn new(on: bool) -> eager {
        eager { on, open: Mutex::default() }
    }

    fn __enter__(&self) {
        self.open.lock().push(EagerGuard::new(self.on));
    }

    #[pyo3(signature = (kind, error, trace, /))]
    fn __exit__(&self, kind: &Bound<'_, PyAny>, error: &Bound<'_, PyAny>, trace: &Bound<'_, PyAny>) {
        let _ = (kind, error, trace);
        drop(self.open.lock().pop());
    }
}

/// Whether operations are recorded for gradients.
#[pyfunction]
pub fn is_grad_enabled() -> bool {
    tensor::grad_enabled()
}

/// Evaluate after each operation, in all threads, until set again.
#[pyfunction]
#[pyo3(signature = (on, /))]
pub fn set_eager(on: bool) {
    tensor::set_eager(on);
}

/// Whether each operation is evaluated at once.
#[pyfunction]
pub fn is_eager() -> bool {
    tensor::eager()
}

/// Compute these tensors, all in one plan.
#[pyfunction]
#[pyo3(signature = (*tensors))]
pub fn eval(tensors: Vec<PyRef<'_, PyTensor>>) -> PyResult<()> {
    let tensors = axes::borrowed(&tensors);
    read(|| tensor::evaluate(&tensors))
}

/// Use this many threads; results never depend on it.
#[pyfunction]
#[pyo3(signature = (n, /))]
pub fn set_num_threads(n: usize) -> PyResult<()> {
    if n == 0 {
        return Err(refuse(Error::value("set_num_threads: at least one thread is needed")));
    }
    par::set_num_threads(n);
    Ok(())
}

/// The threads that a plan may use.
#[pyfunction]
pub fn get_num_threads() -> usize {
    par::num_threads()
}

/// Plans (run so far), hits, misses, nodes_computed, pending (in this thread), live_nodes.
#[pyfunction]
pub fn counters(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let cache = tensor::PLANS.counters();
    let counters = PyDict::new(py);
    counters.set_item("plans", tensor::plans_run())?;
    counters.set_item("hits", cache.hits)?;
    counters.set_item("misses", cache.misses)?;
    counters.set_item("nodes_computed", tensor::nodes_computed())?;
    counters.set_item("pending", tensor::pending_nodes())?;
    counters.set_item("live_nodes", tensor::live_nodes())?;
    Ok(counters)
}

/// hits, misses, plans, bytes.
#[pyfunction]
pub fn plan_cache(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let cache = tensor::PLANS.counters();
    let entries = PyDict::new(py);
    entries.set_item("hits", cache.hits)?;
    entries.set_item("misses", cache.misses)?;
    entries.set_item("plans", cache.plans)?;
    entries.set_item("bytes", cache.bytes)?;
    Ok(entries)
}

/// Forget all plans, and give free memory back to the system.
#[pyfunction]
pub fn clear_plan_cache(py: Python<'_>) -> PyResult<()> {
    tensor::PLANS.clear();
    arena::trim();
    gpu::trim(py)
}

/// One entry for each op: name, kind, doc, inputs, domain, ulp, gpu_ulp, attrs, reads (masks), differentiable.
#[pyfunction]
pub fn op_table(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyDict>>> {
    let row = |row: Row| {
        let entry = PyDict::new(py);
        entry.set_item("name", row.name)?;
        entry.set_item("kind", row.kind)?;
        entry.set_item("doc", row.doc)?;
        entry.set_item("inputs", row.inputs)?;
        entry.set_item("domain", row.domain)?;
        entry.set_item("ulp", row.ulp)?;
        entry.set_item("gpu_ulp", row.gpu_ulp)?;
        entry.set_item("attrs", row.attrs)?;
        entry.set_item("reads", (row.reads.inputs, row.reads.outputs))?;
        entry.set_item("differentiable", row.differentiable)?;
        Ok(entry)
    };
    table::op_table().into_iter().map(row).collect()
}

/// Whether each node remembers the line that recorded it; returns the setting before.
#[pyfunction]
#[pyo3(signature = (on, /))]
pub fn set_lines(on: bool) -> bool {
    tensor::set_lines(on)
}

/// The identity, which at evaluation fails with ValueError("testing_op: fail"), sleeps, or panics.
#[pyfunction]
#[pyo3(signature = (x, behaviour, seconds = 0.0))]
pub fn testing_op(x: PyRef<'_, PyTensor>, behaviour: &str, seconds: f64) -> PyResult<PyTensor> {
    let behaviours = [("fail", Behaviour::Fail), ("sleep", Behaviour::Sleep), ("panic", Behaviour::Panic)];
    let behaviour = choice("behaviour", behaviour, &behaviours)?;
    made(|| tensor::testing_op(&x.0, behaviour, seconds))
}
