//! Clipping gradients by their common norm.

use crate::device_id::DeviceId;
use crate::error::{Error, Result};
use crate::ops::{arithmetic, exponential, reduce};
use crate::tensor::{self, GradGuard, Tensor};

/// Which norm of all elements together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    One,
    Two,
    Infinity,
}

/// Scales the gradients of `params` by min(1, max_norm / (norm + 1e-6)) and gives the norm before. All is recorded,
/// nothing computed.
pub fn clip_grad_norm(params: &[&Tensor], max_norm: f64, norm: Norm) -> Result<Tensor> {
    let _mode = GradGuard::new(false);
    let grads: Vec<Tensor> = params.iter().filter_map(|param| param.grad()).collect();
    let device = params.first().map_or(DeviceId::Cpu, |param| param.device());
    let total = total_norm(&grads, norm, device)?;
    let above = tensor::binary(&arithmetic::ADD, (&total).into(), 1e-6.into())?;
    let ratio = tensor::binary(&arithmetic::DIVIDE, max_norm.into(), (&above).into())?;
    let scale = tensor::binary(&arithmetic::MINIMUM, (&ratio).into(), 1.0.into())?;
    for grad in &grads {
        let scale = tensor::cast(&scale, grad.dtype())?;
        let clipped = tensor::binary(&arithmetic::MULTIPLY, grad.into(), (&scale).into())?;
        grad.rebind(&clipped)?;
    }
    Ok(total)
}

fn total_norm(grads: &[Tensor], norm: Norm, device: DeviceId) -> Result<Tensor> {
    let mut total: Option<Tensor> = None;
    for grad in grads.iter().filter(|grad| grad.shape().size() > 0) {
        let part = of_one(grad, norm)?;
        let join = if norm == Norm::Infinity { &arithmetic::MAXIMUM } else { &arithmetic::ADD };
        total = Some(match &total {
            Some(total) => tensor::binary(join, total.into(), (&part).into())?,
            None => part,
        });
    }
    match (total, norm) {
        (Some(total), Norm::Two) => tensor::unary(&exponential::SQRT, (&total).into()),
        (Some(total), _) => Ok(total),
        (None, _) => tensor::full(Default::default(), 0.0.into(), crate::dtype::DType::F32, device),
    }
}

/// What one gradient adds: Σ|g|, Σg² or max |g|.
fn of_one(grad: &Tensor, norm: Norm) -> Result<Tensor> {
    let size = match norm {
        Norm::Two => tensor::unary(&arithmetic::SQUARE, grad.into())?,
        Norm::One | Norm::Infinity => tensor::unary(&arithmetic::ABS, grad.into())?,
    };
    let reduction = if norm == Norm::Infinity { &reduce::MAX } else { &reduce::SUM };
    tensor::reduce(reduction, &size, None, false)
}

impl Norm {
    /// The norm of order 1, 2 or infinity.
    pub fn of_order(order: f64) -> Result<Norm> {
        match order {
            1.0 => Ok(Norm::One),
            2.0 => Ok(Norm::Two),
            f64::INFINITY => Ok(Norm::Infinity),
            _ => Err(Error::value(format!("clip_grad_norm: norm_type is {order}, it must be 1, 2 or inf"))),
        }
    }
}
