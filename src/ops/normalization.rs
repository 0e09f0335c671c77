//! Normalisations: batch norm over all axes but 1, layer norm and RMS norm over the last axes. The statistics come out as
//! outputs, so that a layer can keep running ones.

use super::arithmetic::{Add, Multiply, Negative, SQUARE, Square, Subtract};
use super::build::*;
use super::exponential::RSQRT;
use super::pattern::pattern;
use super::statistics::{MEAN, VAR, float_only};
use crate::error::{Error, Result};
use crate::graph::{CompositeDef, Graph, Op, Reads, TensorType, Val};
use crate::shape::{Shape, all_axes};
use smallvec::smallvec;

pub static BATCH_NORM: CompositeDef = CompositeDef {
    name: "batch_norm",
    doc: "(x - mean) / √(var + eps) · weight + bias, with the mean and the biased variance of x over all axes but 1 \
          (Ioffe and Szegedy 2015). Inputs: x, eps (a number), then weight and bias (channels) if present. Outputs: \
          the result, mean, var.",
    attrs: &["1 if weight is given", "1 if bias is given"],
    infer: |attrs, inputs| {
        let channels = channels("batch_norm", inputs[0])?;
        per_channel("batch_norm", inputs[0], channels, &["weight", "bias"], given(attrs, &inputs[2..]))?;
        let statistic = TensorType::new(inputs[0].dtype, [channels]);
        Ok(smallvec![inputs[0].clone(), statistic.clone(), statistic])
    },
    expand: |g, attrs, inputs| {
        let x = inputs[0];
        let axes = all_axes(g.shape(x).rank()) & !0b10;
        let mean = g.add(Op::Composite(&MEAN, smallvec![i64::from(axes)]), &[x])?;
        let var = g.add(Op::Composite(&VAR, smallvec![i64::from(axes), 0f64.to_bits() as i64]), &[x])?;
        let y = normalized(g, x, mean, var, inputs[1], axes)?;
        let [weight, bias] = given(attrs, &inputs[2..]);
        Ok(smallvec![affine(g, y, weight, bias, axes)?, mean, var])
    },
    derivative: None,
    transpose: None,
    reads: Reads { inputs: 0b111, outputs: 0 },
    kernel: None,
};

pub static BATCH_NORM_EVAL: CompositeDef = CompositeDef {
    name: "batch_norm_eval",
    doc: "(x - mean) / √(var + eps) · weight + bias with given statistics. Inputs: x, eps (a number), mean and var \
          (channels), then weight and bias (channels) if present.",
    attrs: &["1 if weight is given", "1 if bias is given"],
    infer: |attrs, inputs| {
        let channels = channels("batch_norm", inputs[0])?;
        let statistics = [Some(inputs[2]), Some(inputs[3])];
        per_channel("batch_norm", inputs[0], channels, &["running_mean", "running_var"], statistics)?;
        per_channel("batch_norm", inputs[0], channels, &["weight", "bias"], given(attrs, &inputs[4..]))?;
        Ok(smallvec![inputs[0].clone()])
    },
    expand: |g, attrs, inputs| {
        let axes = all_axes(g.shape(inputs[0]).rank()) & !0b10;
        let y = normalized(g, inputs[0], inputs[2], inputs[3], inputs[1], axes)?;
        let [weight, bias] = given(attrs, &inputs[4..]);
        Ok(smallvec![affine(g, y, weight, bias, axes)?])
    },
    derivative: None,
    transpose: None,
    reads: Reads { inputs: 0b11111, outputs: 0 },
    kernel: None,
};

pub static LAYER_NORM: CompositeDef = CompositeDef {
    name: "layer_norm",
    doc: "(x - mean) / √(var + eps) · weight + bias, with the mean and the biased variance of each row over the last \
          axes (Ba, Kiros and Hinton 2016). Inputs: x, eps (a number), then weight and bias (those axes) if present.",
    attrs: &["number of axes", "1 if weight is given", "1 if bias is given"],
    infer: |attrs, inputs| {
        let x = inputs[0];
        float_only("layer_norm", x)?;
        let kept = (x.shape.rank() as i64 - attrs[0]).max(0) as usize;
        let row = Shape::new(&x.shape[kept..]);
        let parameters = given(&attrs[1..], &inputs[2..]);
        for (name, parameter) in ["weight", "bias"].into_iter().zip(parameters) {
            fits("layer_norm", name, parameter, x, &row)?;
        }
        Ok(smallvec![x.clone()])
    },
    expand: |g, attrs, inputs| {
        let x = inputs[0];
        let rank = g.shape(x).rank();
        let rows = all_axes(rank - attrs[0] as usize);
        let axes = all_axes(rank) & !rows;
        let mean = g.add(Op::Composite(&MEAN, smallvec![i64::from(axes)]), &[x])?;
        let var = g.add(Op::Composite(&VAR, smallvec![i64::from(axes), 0f64.to_bits() as i64]), &[x])?;
        let y = normalized(g, x, mean, var, inputs[1], axes)?;
        let [weight, bias] = given(&attrs[1..], &inputs[2..]);
        Ok(smallvec![affine(g, y, weight, bias, rows)?])
    },
    derivative: None,
    transpose: None,
    reads: Reads { inputs: 0b111, outputs: 0 },
    kernel: None,
};

pub static RMS_NORM: CompositeDef = CompositeDef {
    name: "rms_norm",
    doc: "x / √(mean x² + eps) · weight, with the mean over the last axes (Zhang and Sennrich 2019). Inputs: x, eps (a \
          number), then weight (those axes) if present.",
    attrs: &["number of axes", "1 if weight is given"],
    infer: |attrs, inputs| {
        let x = inputs[0];
        float_only("rms_norm", x)?;
        let kept = (x.shape.rank() as i64 - attrs[0]).max(0) as usize;
        fits("rms_norm", "weight", inputs.get(2).copied(), x, &Shape::new(&x.shape[kept..]))?;
        Ok(smallvec![x.clone()])
    },
    expand: |g, attrs, inputs| {
        let x = inputs[0];
        let rank = g.shape(x).rank();
        let rows = all_axes(rank - attrs[0] as usize);
        let axes = all_axes(rank) & !rows;
        let squares = unary(g, &SQUARE, x)?;
        let mean = g.add(Op::Composite(&MEAN, smallvec![i64::from(axes)]), &[squares])?;
        let eps = number(g, inputs[1], mean)?;
        let steady = add(g, mean, eps)?;
        let scale = unary(g, &RSQRT, steady)?;
        let scale = spread(g, scale, axes, x)?;
        let y = multiply(g, x, scale)?;
        Ok(smallvec![affine(g, y, inputs.get(2).copied(), None, rows)?])
    },
    derivative: None,
    transpose: None,
    reads: Reads::ALL_INPUTS,
    kernel: None,
};

pattern!(
    CENTRED_SQUARES, CentredSquares, "centred_squares", (x: T, mean: Column<T>) -> (centred: T, squares: T) {
        centred = binary::Subtract(x, mean);
        squares = unary::Square(centred);
    }
);
pattern!(
    SCALED_AFFINE, ScaledAffine, "scaled_affine", (x: T, scale: Column<T>, weight: T, bias: T) -> (y: T) {
        scaled = binary::Multiply(x, scale);
        weighted = binary::Multiply(scaled, weight);
        y = binary::Add(weighted, bias);
    }
);
pattern!(
    SCALED_WEIGHTED, ScaledWeighted, "scaled_weighted", (x: T, scale: Column<T>, weight: T) -> (y: T) {
        scaled = binary::Multiply(x, scale);
        y = binary::Multiply(scaled, weight);
    }
);
pattern!(
    /// What the sum over all rows is the gradient of a weight.
    WEIGHT_GRADIENT, WeightGradient, "weight_gradient", (g: T, x: T, scale: Column<T>) -> (y: T) {
        scaled = binary::Multiply(x, scale);
        y = binary::Multiply(g, scaled);
    }
);
pattern!(
    /// Of a gradient g: what goes on through the scale, through the mean, and to the row itself.
    NORM_GRADIENT, NormGradient, "norm_gradient",
    (g: T, weight: T, centred: T, scale: Column<T>) -> (to_scale: T, scaled: T, to_mean: T) {
        weighted = binary::Multiply(g, weight);
        to_scale = binary::Multiply(weighted, centred);
        scaled = binary::Multiply(weighted, scale);
        to_mean = unary::Negative(scaled);
    }
);
pattern!(
    RMS_GRADIENT, RmsGradient, "rms_gradient",
    (g: T, weight: T, x: T, scale: Column<T>) -> (to_scale: T, scaled: T) {
        weighted = binary::Multiply(g, weight);
        to_scale = binary::Multiply(weighted, x);
        scaled = binary::Multiply(weighted, scale);
    }
);
pattern!(
    /// The two parts of the gradient of a row together, of which one is that of its squares.
    RMS_ROW_GRADIENT, RmsRowGradient, "rms_row_gradient", (slope: Column<T>, x: T, scaled: T) -> (y: T) {
        twice = binary::Add(x, x);
        sloped = binary::Multiply(slope, twice);
        y = binary::Add(sloped, scaled);
    }
);
pattern!(
    /// The three parts of the gradient of a row together.
    ROW_GRADIENT, RowGradient, "row_gradient",
    (slope: Column<T>, centred: T, shift: Column<T>, scaled: T) -> (y: T) {
        sloped = binary::Multiply(slope, centred);
        shifted = binary::Add(shift, sloped);
        y = binary::Add(shifted, scaled);
    }
);

/// Two optional inputs by their flags.
fn given<T: Copy>(flags: &[i64], inputs: &[T]) -> [Option<T>; 2] {
    let mut rest = inputs.iter().copied();
    [flags[0], flags[1]].map(|flag| if flag == 1 { rest.next() } else { None })
}

fn channels(op: &str, x: &TensorType) -> Result<usize> {
    float_only(op, x)?;
    match x.shape.get(1) {
        Some(&channels) => Ok(channels),
        None => Err(Error::shape(format!("{op}: input {} has no axis 1 for its channels", x.shape))),
    }
}

fn per_channel(
    op: &str,
    x: &TensorType,
    channels: usize,
    names: &[&str; 2],
    parameters: [Option<&TensorType>; 2],
) -> Result<()> {
    names.iter().zip(parameters).try_for_each(|(name, given)| fits(op, name, given, x, &Shape::from([channels])))
}

fn fits(op: &str, name: &str, parameter: Option<&TensorType>, x: &TensorType, shape: &Shape) -> Result<()> {
    match parameter {
        Some(ty) if ty.shape != *shape => {
            Err(Error::shape(format!("{op}: {name} {} does not fit input {}: it must be {shape}", ty.shape, x.shape)))
        }
        Some(ty) if ty.dtype != x.dtype => {
            Err(Error::dtype(format!("{op}: input is {} and {name} is {}", x.dtype, ty.dtype)))
        }
        _ => Ok(()),
    }
}

/// (x - mean) / √(var + eps), where the statistics lack the axes.
fn normalized(g: &mut Graph, x: Val, mean: Val, var: Val, eps: Val, axes: u32) -> Result<Val> {
    let eps = number(g, eps, var)?;
    let steady = add(g, var, eps)?;
    let scale = unary(g, &RSQRT, steady)?;
    let (mean, scale) = (spread(g, mean, axes, x)?, spread(g, scale, axes, x)?);
    let centred = subtract(g, x, mean)?;
    multiply(g, centred, scale)
}

/// y·weight + bias, where both lack the axes.
fn affine(g: &mut Graph, y: Val, weight: Option<Val>, bias: Option<Val>, axes: u32) -> Result<Val> {
    let mut y = y;
    if let Some(weight) = weight {
        let weight = spread(g, weight, axes, y)?;
        y = multiply(g, y, weight)?;
    }
    if let Some(bias) = bias {
        let bias = spread(g, bias, axes, y)?;
        y = add(g, y, bias)?;
    }
    Ok(y)
}
