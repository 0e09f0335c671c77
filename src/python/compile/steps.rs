//! Many steps in one call: arguments stacked along a leading axis, results stacked likewise. Where the function is
//! simply called, taking the stacks apart and stacking the results is recorded like everything else.

use super::results::Results;
use super::traced::refuse_history;
use super::{Compiled, is_plain};
use crate::error::Error;
use crate::graph::TensorType;
use crate::machine::storage::Storage;
use crate::python::errors::{raise, read, record, refuse};
use crate::python::tensor::PyTensor;
use crate::tensor::{self, GradGuard, SliceArg, Tensor, Value};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use std::sync::Arc;

/// A result of all steps: one row a step.
struct Stack {
    rows: Arc<Storage>,
    ty: TensorType,
}

pub fn run<'py>(compiled: &Compiled, args: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
    let py = args.py();
    let steps = count(args)?;
    if is_plain() {
        return run_plain(compiled, args, steps);
    }
    let mut stacks: Vec<Stack> = Vec::new();
    let mut shape: Option<Results> = None;
    for step in 0..steps {
        py.check_signals()?;
        let items = args.iter().map(|arg| row(&arg, step)).collect::<PyResult<Vec<_>>>()?;
        let result = compiled.step(&PyTuple::new(py, items)?, None)?;
        let mut tensors = Vec::new();
        let mut pattern = Results::of(&result, &mut tensors)?;
        pattern.forget(&|_| false);
        if step == 0 {
            for tensor in &tensors {
                stacks.push(read(|| Stack::new(&tensor.get().0, steps))?);
            }
        }
        if tensors.len() != stacks.len() {
            return Err(differ());
        }
        for (stack, tensor) in stacks.iter().zip(&tensors) {
            read(|| stack.put(step, &tensor.get().0))?;
        }
        shape = Some(pattern);
    }
    let Some(shape) = shape else { return Err(no_steps()) };
    let mut stacked = |at: usize| -> PyResult<Bound<'py, PyAny>> {
        Ok(Bound::new(py, PyTensor(stacks[at].tensor(steps)))?.into_any())
    };
    shape.build(py, &[], &mut stacked)
}

/// Calls the function itself for each step, on recorded parts of the stacks.
fn run_plain<'py>(compiled: &Compiled, args: &Bound<'py, PyTuple>, steps: usize) -> PyResult<Bound<'py, PyAny>> {
    let py = args.py();
    let mut stacks: Vec<Vec<Tensor>> = Vec::new();
    let mut shape: Option<Results> = None;
    for step in 0..steps {
        let mut part = |tensor: &Bound<'py, PyTensor>| {
            let row = SliceArg { axis: 0, start: step as i64, length: 1, step: 1 };
            let row = record(|| tensor::squeeze(&tensor::slice(&tensor.get().0, &[row])?, &[0]))?;
            Ok(Bound::new(py, PyTensor(row))?.into_any())
        };
        let items = args.iter().map(|arg| each_tensor(&arg, &mut part)).collect::<PyResult<Vec<_>>>()?;
        let result = compiled.step(&PyTuple::new(py, items)?, None)?;
        let mut tensors = Vec::new();
        let mut pattern = Results::of(&result, &mut tensors)?;
        pattern.forget(&|_| false);
        if step == 0 {
            stacks.resize(tensors.len(), Vec::new());
        }
        if tensors.len() != stacks.len() {
            return Err(differ());
        }
        stacks.iter_mut().zip(&tensors).for_each(|(stack, tensor)| stack.push(tensor.get().0.clone()));
        shape = Some(pattern);
    }
    let Some(shape) = shape else { return Err(no_steps()) };
    let mut stacked = |at: usize| -> PyResult<Bound<'py, PyAny>> {
        let rows: Vec<&Tensor> = stacks[at].iter().collect();
        Ok(Bound::new(py, PyTensor(record(|| tensor::stack(&rows, 0))?))?.into_any())
    };
    shape.build(py, &[], &mut stacked)
}

fn differ() -> PyErr {
    raise(Error::value("run: the steps give back different numbers of tensors"))
}

fn no_steps() -> PyErr {
    raise(Error::value("run: there are no steps to run"))
}

/// How many steps the tensor arguments hold.
fn count(args: &Bound<'_, PyTuple>) -> PyResult<usize> {
    let mut steps = None;
    let mut look = |tensor: &Bound<'_, PyTensor>| -> PyResult<()> {
        match (steps, tensor.get().0.shape().first().copied()) {
            (_, None) => Err(refuse(Error::shape("run: an argument is 0-d; each has the steps along its first axis"))),
            (Some(steps), Some(length)) if steps != length => {
                Err(refuse(Error::shape(format!("run: the arguments hold {steps} and {length} steps"))))
            }
            (_, length) => {
                steps = length;
                Ok(())
            }
        }
    };
    for arg in args.iter() {
        each_tensor(&arg, &mut |tensor| {
            look(tensor)?;
            Ok(tensor.clone().into_any())
        })?;
    }
    steps.ok_or_else(|| refuse(Error::value("run: no tensor argument says how many steps there are")))
}

/// The argument of one step.
fn row<'py>(arg: &Bound<'py, PyAny>, step: usize) -> PyResult<Bound<'py, PyAny>> {
    each_tensor(arg, &mut |tensor| {
        let of = &tensor.get().0;
        refuse_history(&[of])?;
        let part = read(|| {
            let _mode = GradGuard::new(false);
            tensor::evaluate(&[of])?;
            let part = tensor::slice(of, &[SliceArg { axis: 0, start: step as i64, length: 1, step: 1 }])?;
            tensor::first_row(&part)
        })?;
        Ok(Bound::new(tensor.py(), PyTensor(part))?.into_any())
    })
}

type ForTensor<'a, 'py> = &'a mut dyn FnMut(&Bound<'py, PyTensor>) -> PyResult<Bound<'py, PyAny>>;

/// An argument with another object for each tensor in it that is no variable.
fn each_tensor<'py>(arg: &Bound<'py, PyAny>, change: ForTensor<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = arg.py();
    if let Ok(tensor) = arg.cast::<PyTensor>() {
        return if tensor.get().0.is_variable() { Ok(arg.clone()) } else { change(tensor) };
    }
    if let Ok(dict) = arg.cast_exact::<PyDict>() {
        let made = PyDict::new(py);
        for (key, value) in dict.iter() {
            made.set_item(key, each_tensor(&value, change)?)?;
        }
        return Ok(made.into_any());
    }
    let make = match arg.get_type().getattr("_make") {
        Ok(make) if arg.is_instance_of::<PyTuple>() => Some(make),
        _ => None,
    };
    let (is_list, is_tuple) = (arg.is_exact_instance_of::<PyList>(), arg.is_exact_instance_of::<PyTuple>());
    if !is_list && !is_tuple && make.is_none() {
        return Ok(arg.clone());
    }
    let items = PyList::empty(py);
    for item in arg.try_iter()? {
        items.append(each_tensor(&item?, change)?)?;
    }
    match make {
        Some(make) => make.call1((items,)),
        None if is_list => Ok(items.into_any()),
        None => Ok(items.to_tuple().into_any()),
    }
}

impl Stack {
    fn new(first: &Tensor, steps: usize) -> crate::error::Result<Stack> {
        let (ty, device) = (first.ty(), first.device());
        Ok(Stack { rows: Arc::new(Storage::new(device, ty.bytes_on(device) * steps)?), ty })
    }

    fn put(&self, step: usize, tensor: &Tensor) -> crate::error::Result<()> {
        let (ty, device) = (tensor.ty(), tensor.device());
        if ty != self.ty || device != self.rows.device() {
            let (own, first) = (&self.ty, self.rows.device());
            return Err(Error::shape(format!(
                "run: the steps give back {own} on {first} and {ty} on {device}, which do not stack"
            )));
        }
        // SAFETY: a row of this type for each step; nobody else has the block yet.
        unsafe { tensor::write_elements(tensor, &self.rows, step * ty.shape.size()) }
    }

    fn tensor(&self, steps: usize) -> Tensor {
        let mut ty = self.ty.clone();
        ty.shape.insert(0, steps);
        let strides = ty.shape.strides();
        Tensor::from_value(Value { buffer: Arc::clone(&self.rows), offset: 0, strides }, ty)
    }
}
