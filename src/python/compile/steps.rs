//! Many steps in one call: arguments stacked along a leading axis, results stacked likewise.

use super::Compiled;
use super::arguments::Result;
use crate::error::Error;
use crate::graph::TensorType;
use crate::machine::cpu::buffer::Buffer;
use crate::machine::cpu::view::{self, View};
use crate::python::errors::{raise, read, refuse};
use crate::python::tensor::PyTensor;
use crate::tensor::{self, GradGuard, SliceArg, Tensor, Value};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::sync::Arc;

/// A result of all steps: one row a step.
struct Stack {
    rows: Arc<Buffer>,
    ty: TensorType,
}

pub fn run<'py>(compiled: &Compiled, args: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
    let py = args.py();
    let steps = count(args)?;
    let mut stacks: Vec<Stack> = Vec::new();
    let mut shape: Option<Result> = None;
    for step in 0..steps {
        py.check_signals()?;
        let items = args.iter().map(|arg| row(&arg, step)).collect::<PyResult<Vec<_>>>()?;
        let result = compiled.step(&PyTuple::new(py, items)?, None)?;
        let mut tensors = Vec::new();
        let mut pattern = Result::of(&result, &mut tensors)?;
        pattern.forget(&|_| false);
        if step == 0 {
            for tensor in &tensors {
                stacks.push(read(|| Stack::new(&tensor.get().0, steps))?);
            }
        }
        if tensors.len() != stacks.len() {
            return Err(raise(Error::value("run: the steps give back different numbers of tensors")));
        }
        for (stack, tensor) in stacks.iter().zip(&tensors) {
            read(|| stack.put(step, &tensor.get().0))?;
        }
        shape = Some(pattern);
    }
    let Some(shape) = shape else { return Err(raise(Error::value("run: there are no steps to run"))) };
    let mut stacked = |at: usize| -> PyResult<Bound<'py, PyAny>> {
        Ok(Bound::new(py, PyTensor(stacks[at].tensor(steps)))?.into_any())
    };
    shape.build(py, &[], &mut stacked)
}

/// How many steps the tensor arguments hold.
fn count(args: &Bound<'_, PyTuple>) -> PyResult<usize> {
    let mut steps = None;
    for arg in args.iter() {
        let Ok(tensor) = arg.cast::<PyTensor>() else { continue };
        let tensor = &tensor.get().0;
        if tensor.is_variable() {
            continue;
        }
        let shape = tensor.shape();
        let length = shape.first().copied();
        match (steps, length) {
            (_, None) => {
                return Err(refuse(Error::shape("run: an argument is 0-d; each has the steps along its first axis")));
            }
            (Some(steps), Some(length)) if steps != length => {
                return Err(refuse(Error::shape(format!("run: the arguments hold {steps} and {length} steps"))));
            }
            _ => steps = length,
        }
    }
    steps.ok_or_else(|| refuse(Error::value("run: no tensor argument says how many steps there are")))
}

/// The argument of one step.
fn row<'py>(arg: &Bound<'py, PyAny>, step: usize) -> PyResult<Bound<'py, PyAny>> {
    match arg.cast::<PyTensor>() {
        Ok(tensor) if !tensor.get().0.is_variable() => {
            let of = &tensor.get().0;
            let part = read(|| {
                let _mode = GradGuard::new(false);
                tensor::evaluate(&[of])?;
                let part = tensor::slice(of, &[SliceArg { axis: 0, start: step as i64, length: 1, step: 1 }])?;
                tensor::first_row(&part)
            })?;
            Ok(Bound::new(arg.py(), PyTensor(part))?.into_any())
        }
        _ => Ok(arg.clone()),
    }
}

impl Stack {
    fn new(first: &Tensor, steps: usize) -> crate::error::Result<Stack> {
        let ty = first.ty();
        Ok(Stack { rows: Arc::new(Buffer::new(ty.bytes() * steps)?), ty })
    }

    fn put(&self, step: usize, tensor: &Tensor) -> crate::error::Result<()> {
        let (value, ty) = tensor.value()?;
        if ty != self.ty {
            return Err(Error::shape(format!("run: the steps give back {} and {ty}, which do not stack", self.ty)));
        }
        // SAFETY: a row of this type for each step; nobody else has the buffer yet.
        unsafe {
            let to = self.rows.as_mut_ptr().add(step * ty.bytes());
            view::copy(&value.view(&ty), &View::contiguous(to, ty.dtype, ty.shape.clone()));
        }
        Ok(())
    }

    fn tensor(&self, steps: usize) -> Tensor {
        let mut ty = self.ty.clone();
        ty.shape.insert(0, steps);
        let strides = ty.shape.strides();
        Tensor::from_value(Value { buffer: Arc::clone(&self.rows), offset: 0, strides }, ty)
    }
}
