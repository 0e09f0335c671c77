//! Convolutions and pools in one call.

use crate::device_id::DeviceId;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Attrs, TensorType};
use crate::ops::{conv, pool};
use crate::scalar::Scalar;
use crate::tensor::{self, Arg, Tensor};
use smallvec::{SmallVec, smallvec};

/// What is added around the input of a convolution.
#[derive(Clone, Copy)]
pub enum Padding<'a> {
    /// As much before each axis as after it.
    Both(&'a [i64]),
    /// So much that the result has the extents of the input; an odd one is one longer after.
    Same,
}

/// Settings of a convolution; one entry an axis, or one for all.
pub struct Convolution<'a> {
    pub axes: usize,
    pub stride: &'a [i64],
    pub padding: Padding<'a>,
    pub dilation: &'a [i64],
    pub groups: i64,
}

/// Settings of a pool; one entry an axis, or one for all. An empty stride is the kernel.
pub struct Pooling<'a> {
    pub axes: usize,
    pub kernel: &'a [i64],
    pub stride: &'a [i64],
    pub padding: &'a [i64],
    pub dilation: &'a [i64],
    pub ceil_mode: bool,
}

/// What the sums of an average pool are divided by.
#[derive(Clone, Copy)]
pub enum Divisor {
    Padded,
    Inside,
    Given(i64),
}

/// The entry of an axis.
fn entry(op: &str, name: &str, entries: &[i64], axes: usize, axis: usize) -> Result<i64> {
    match entries.len() {
        1 => Ok(entries[0]),
        n if n == axes => Ok(entries[axis]),
        n => Err(Error::value(format!("{op}: {name} has {n} entries, it takes one, or {axes}"))),
    }
}

/// x convolved with the weight, plus the bias.
pub fn convolve(input: &Tensor, weight: &Tensor, bias: Option<&Tensor>, settings: &Convolution) -> Result<Tensor> {
    let axes = settings.axes;
    let op = format!("conv{axes}d");
    let taps = weight.shape();
    let mut attrs: Attrs = smallvec![axes as i64, settings.groups];
    for axis in 0..axes {
        let stride = entry(&op, "stride", settings.stride, axes, axis)?;
        let dilation = entry(&op, "dilation", settings.dilation, axes, axis)?;
        let (low, high) = match settings.padding {
            Padding::Both(padding) => {
                let padding = entry(&op, "padding", padding, axes, axis)?;
                (padding, padding)
            }
            Padding::Same if stride != 1 => {
                return Err(Error::value(format!("{op}: padding=\"same\" needs stride 1, not {stride}")));
            }
            Padding::Same => {
                let taps = taps.get(axis + 2).copied().unwrap_or(1) as i64;
                let total = dilation.saturating_mul(taps - 1).max(0);
                (total / 2, total - total / 2)
            }
        };
        attrs.extend([stride, low, high, dilation]);
    }
    let args: SmallVec<[Arg; 3]> = [Some(input), Some(weight), bias].into_iter().flatten().map(Arg::Tensor).collect();
    tensor::composite(&conv::CONV, attrs, &args)
}

fn attributes(name: &str, settings: &Pooling) -> Result<Attrs> {
    let axes = settings.axes;
    let op = format!("{name}{axes}d");
    let mut attrs: Attrs = smallvec![axes as i64, i64::from(settings.ceil_mode)];
    for axis in 0..axes {
        let taps = entry(&op, "kernel_size", settings.kernel, axes, axis)?;
        let stride = match settings.stride {
            [] => taps,
            stride => entry(&op, "stride", stride, axes, axis)?,
        };
        let low = entry(&op, "padding", settings.padding, axes, axis)?;
        attrs.extend([taps, stride, low, entry(&op, "dilation", settings.dilation, axes, axis)?]);
    }
    Ok(attrs)
}

/// The largest element of each window.
pub fn max_pool(input: &Tensor, settings: &Pooling) -> Result<Tensor> {
    let [values, _] = largest(input, settings, false)?;
    Ok(values)
}

/// The largest element of each window, and where it is in its plane.
pub fn max_pool_with_positions(input: &Tensor, settings: &Pooling) -> Result<(Tensor, Tensor)> {
    let [values, _, positions] = largest(input, settings, true)?;
    Ok((values, positions))
}

fn largest<const N: usize>(input: &Tensor, settings: &Pooling, with_positions: bool) -> Result<[Tensor; N]> {
    let mut attrs = attributes("max_pool", settings)?;
    attrs.push(i64::from(with_positions));
    let made = tensor::composite_all(&pool::MAX_POOL, attrs, &[input.into()])?;
    made.try_into().map_err(|_| Error::internal(format!("max_pool: not {N} outputs")))
}

/// The mean of each window.
pub fn avg_pool(input: &Tensor, settings: &Pooling, divisor: Divisor) -> Result<Tensor> {
    let mut attrs = attributes("avg_pool", settings)?;
    attrs.extend(match divisor {
        Divisor::Padded => [0, 0],
        Divisor::Inside => [1, 0],
        Divisor::Given(0) => return Err(Error::value("avg_pool: divisor_override is 0")),
        Divisor::Given(n) => [2, n],
    });
    tensor::composite(&pool::AVG_POOL, attrs, &[input.into()])
}

/// The mean of windows that cover each axis with as many as asked: window i of n runs from ⌊i·extent/n⌋ to
/// ⌈(i + 1)·extent/n⌉. None keeps the extent.
pub fn adaptive_avg_pool(input: &Tensor, axes: usize, sizes: &[Option<i64>]) -> Result<Tensor> {
    let op = format!("adaptive_avg_pool{axes}d");
    let ty = input.ty();
    let rank = ty.shape.rank();
    if !ty.dtype.is_float() {
        return Err(Error::dtype(format!("{op}: {} is not supported, a float is", ty.dtype)));
    }
    if rank != axes + 1 && rank != axes + 2 {
        let wanted = axes + 2;
        return Err(Error::shape(format!(
            "{op}: input {} must have {wanted} axes, or {} without a batch",
            ty.shape,
            axes + 1
        )));
    }
    if sizes.len() != 1 && sizes.len() != axes {
        return Err(Error::value(format!("{op}: output_size has {} entries, it takes one, or {axes}", sizes.len())));
    }
    let mut result = tensor::alias(input);
    for axis in 0..axes {
        let extent = ty.shape[rank - axes + axis];
        let Some(size) = sizes[if sizes.len() == 1 { 0 } else { axis }] else { continue };
        let size = usize::try_from(size)
            .map_err(|_| Error::value(format!("{op}: output_size {size} is negative; it must be at least 0")))?;
        if size != extent {
            result = average_along(&result, rank - axes + axis, &averages(extent, size, ty.dtype, input.device())?)?;
        }
    }
    Ok(result)
}

/// A column of weights for each window.
fn averages(extent: usize, size: usize, dtype: DType, device: DeviceId) -> Result<Tensor> {
    let mut bytes = Vec::new();
    for (at, window) in (0..extent).flat_map(|at| (0..size).map(move |window| (at, window))) {
        let range = window * extent / size..((window + 1) * extent).div_ceil(size);
        let weight = if range.contains(&at) { 1.0 / range.len() as f64 } else { 0.0 };
        bytes.extend_from_slice(&Scalar::F64(weight).to_bytes(dtype)[..dtype.size()]);
    }
    Tensor::from_bytes_on(device, &bytes, TensorType::new(dtype, [extent, size]))
}

fn average_along(x: &Tensor, axis: usize, weights: &Tensor) -> Result<Tensor> {
    let last = x.shape().rank() - 1;
    let mut turn: SmallVec<[i64; 8]> = (0..=last as i64).collect();
    turn.swap(axis, last);
    let product = tensor::matmul(&tensor::permute(x, &turn)?, weights)?;
    tensor::permute(&product, &turn)
}
