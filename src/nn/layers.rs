//! Layers in one call.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::GatherMode;
use crate::ops::{arithmetic, compare, matmul, normalization};
use crate::shape::Shape;
use crate::tensor::{self, Arg, GradGuard, Tensor};
use smallvec::{SmallVec, smallvec};

/// input·weightᵀ + bias.
pub fn linear(input: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let args: SmallVec<[Arg; 3]> = [Some(input), Some(weight), bias].into_iter().flatten().map(Arg::Tensor).collect();
    tensor::composite(&matmul::LINEAR, SmallVec::new(), &args)
}

/// The rows of weight that input names. Rows of `padding` have no gradient.
pub fn embedding(input: &Tensor, weight: &Tensor, padding: Option<i64>) -> Result<Tensor> {
    let shape = weight.shape();
    if shape.rank() != 2 {
        return Err(Error::shape(format!("embedding: weight {shape} must have two axes: (rows, width)")));
    }
    let rows = shape[0] as i64;
    let picked = tensor::gather(GatherMode::Take, weight, input, 0)?;
    let Some(padding) = padding else { return Ok(picked) };
    if !(-rows..rows).contains(&padding) {
        return Err(Error::value(format!("embedding: padding_idx {padding} is no row of weight {shape}")));
    }
    let padding = if padding < 0 { padding + rows } else { padding };
    // An index may name the row from the end: both spellings are counted from the front, in a dtype that holds rows.
    let index = tensor::cast(input, DType::I64)?;
    let index = tensor::binary(&arithmetic::REMAINDER, (&index).into(), rows.into())?;
    let is_padding = tensor::binary(&compare::EQUAL, (&index).into(), padding.into())?;
    let column = tensor::expand_dims(&is_padding, -1)?;
    tensor::select(&column, (&tensor::detach(&picked)?).into(), (&picked).into())
}

/// Normalises over the last axes, which have this shape, by the root of the mean square.
pub fn rms_norm(input: &Tensor, normalized: &Shape, weight: Option<&Tensor>, eps: Option<f64>) -> Result<Tensor> {
    let ty = input.ty();
    if normalized.rank() == 0 || !ty.shape.ends_with(normalized) {
        return Err(Error::shape(format!(
            "rms_norm: input {} does not end in normalized_shape {normalized}",
            ty.shape
        )));
    }
    let smallest = if ty.dtype == DType::F64 { f64::EPSILON } else { f64::from(f32::EPSILON) };
    let args: SmallVec<[Arg; 3]> =
        [input.into(), eps.unwrap_or(smallest).into()].into_iter().chain(weight.map(Arg::Tensor)).collect();
    tensor::composite(&normalization::RMS_NORM, smallvec![normalized.rank() as i64, i64::from(weight.is_some())], &args)
}

/// Normalises over the last axes, which have this shape.
pub fn layer_norm(
    input: &Tensor,
    normalized: &Shape,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
) -> Result<Tensor> {
    let shape = input.shape();
    if normalized.rank() == 0 || !shape.ends_with(normalized) {
        return Err(Error::shape(format!("layer_norm: input {shape} does not end in normalized_shape {normalized}")));
    }
    let attrs = smallvec![normalized.rank() as i64, i64::from(weight.is_some()), i64::from(bias.is_some())];
    let affine = [weight, bias].into_iter().flatten().map(Arg::Tensor);
    let args: SmallVec<[Arg; 4]> = [input.into(), eps.into()].into_iter().chain(affine).collect();
    tensor::composite(&normalization::LAYER_NORM, attrs, &args)
}

/// The settings of a batch norm.
pub struct BatchNorm<'a> {
    pub running_mean: Option<&'a Tensor>,
    pub running_var: Option<&'a Tensor>,
    pub weight: Option<&'a Tensor>,
    pub bias: Option<&'a Tensor>,
    pub training: bool,
    pub momentum: f64,
    pub eps: f64,
}

/// Normalises over all axes but 1: in training by the statistics of the input, to which the running ones are moved.
pub fn batch_norm(input: &Tensor, settings: &BatchNorm) -> Result<Tensor> {
    let flags = smallvec![i64::from(settings.weight.is_some()), i64::from(settings.bias.is_some())];
    let affine = [settings.weight, settings.bias].into_iter().flatten().map(Arg::Tensor);
    if let (false, Some(mean), Some(var)) = (settings.training, settings.running_mean, settings.running_var) {
        let args: SmallVec<[Arg; 6]> =
            [input.into(), settings.eps.into(), mean.into(), var.into()].into_iter().chain(affine).collect();
        return tensor::composite(&normalization::BATCH_NORM_EVAL, flags, &args);
    }
    if !settings.training {
        let missing = match (settings.running_mean, settings.running_var) {
            (None, None) => "running_mean and running_var are",
            (None, _) => "running_mean is",
            _ => "running_var is",
        };
        return Err(Error::value(format!(
            "batch_norm: {missing} missing: without training both are needed; training=True takes those of the input"
        )));
    }
    let shape = input.shape();
    let values = shape.size() / shape.get(1).copied().unwrap_or(1).max(1);
    if values < 2 {
        return Err(Error::shape(format!(
            "batch_norm: input {shape} has {values} value a channel; training needs two at least"
        )));
    }
    let args: SmallVec<[Arg; 4]> = [input.into(), settings.eps.into()].into_iter().chain(affine).collect();
    let made = tensor::composite_all(&normalization::BATCH_NORM, flags, &args)?;
    let [result, mean, var] =
        <[Tensor; 3]>::try_from(made).map_err(|_| Error::internal("batch_norm: not three outputs"))?;
    // The running variance is that of the population, estimated without bias.
    let unbiased = values as f64 / (values as f64 - 1.0);
    move_towards(settings.running_mean, &mean, settings.momentum, 1.0)?;
    move_towards(settings.running_var, &var, settings.momentum, unbiased)?;
    Ok(result)
}

/// running = (1 - momentum)·running + momentum·scale·statistic.
fn move_towards(running: Option<&Tensor>, statistic: &Tensor, momentum: f64, scale: f64) -> Result<()> {
    let Some(running) = running else { return Ok(()) };
    let _mode = GradGuard::new(false);
    let kept = tensor::binary(&arithmetic::MULTIPLY, running.into(), (1.0 - momentum).into())?;
    let part = tensor::binary(&arithmetic::MULTIPLY, statistic.into(), (momentum * scale).into())?;
    let new = tensor::binary(&arithmetic::ADD, (&kept).into(), (&part).into())?;
    running.rebind(&tensor::cast(&new, running.dtype())?)
}
