//! New values for variables and plain tensors, in any grad mode. They leave no history, and a tensor that has one is
//! refused.

use crate::device_id::DeviceId;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::ops::{arithmetic, random};
use crate::scalar::Scalar;
use crate::tensor::{self, GradGuard, Tensor};

/// Gives `target` a value of its own type; its identity and gradient stay.
pub fn assign(op: &str, target: &Tensor, value: &Tensor) -> Result<()> {
    refuse_history(op, target)?;
    let _mode = GradGuard::new(false);
    target.rebind(value)
}

fn refuse_history(op: &str, target: &Tensor) -> Result<()> {
    if target.is_leaf() {
        return Ok(());
    }
    Err(Error::grad(format!(
        "{op}: this tensor is the result of recorded operations; only variables and plain values \
                             can be given new ones"
    )))
}

/// Uniform numbers in [low, high).
pub fn uniform(target: &Tensor, low: f64, high: f64) -> Result<()> {
    drawn("uniform_", target, &random::UNIFORM, high - low, low)
}

/// Normal numbers of this mean and standard deviation.
pub fn normal(target: &Tensor, mean: f64, std: f64) -> Result<()> {
    drawn("normal_", target, &random::NORMAL, std, mean)
}

fn drawn(op: &str, target: &Tensor, def: &'static crate::graph::RandomDef, scale: f64, shift: f64) -> Result<()> {
    refuse_history(op, target)?;
    let ty = target.ty();
    let _mode = GradGuard::new(false);
    let draw = tensor::random(def, ty.shape, ty.dtype, target.device())?;
    let scaled = tensor::binary(&arithmetic::MULTIPLY, (&draw).into(), scale.into())?;
    assign(op, target, &tensor::binary(&arithmetic::ADD, (&scaled).into(), shift.into())?)
}

/// One number in every element.
pub fn fill(target: &Tensor, value: Scalar) -> Result<()> {
    let ty = target.ty();
    assign("fill_", target, &tensor::filled(ty.shape, value, ty.dtype, target.device())?)
}

/// Another device or dtype in place: the handle stays the same variable, and its gradient is converted too.
pub fn convert(target: &Tensor, device: Option<DeviceId>, dtype: Option<DType>) -> Result<()> {
    refuse_history("convert_", target)?;
    let device = device.filter(|device| *device != target.device());
    let dtype = dtype.filter(|dtype| *dtype != target.dtype());
    if device.is_none() && dtype.is_none() {
        return Ok(());
    }
    let _mode = GradGuard::new(false);
    let variable = target.is_variable();
    if let Some(dtype) = dtype.filter(|dtype| variable && !dtype.is_float()) {
        return Err(Error::dtype(format!("convert_: a variable cannot become {dtype}; only floats have gradients")));
    }
    let grad = target.grad().map(|grad| tensor::convert(&grad, device, dtype)).transpose()?;
    let value = tensor::convert(target, device, dtype)?;
    target.set_requires_grad(false)?;
    target.rebind(&value)?;
    target.set_requires_grad(variable)?;
    target.set_grad(grad)
}
