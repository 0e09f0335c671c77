//! Matrix products as users write them: NumPy's `matmul`, and the affine map of a layer. Both become one contraction
//! with equal leading axes; a matrix that serves a whole batch is never repeated where folding the batch will do.

use super::build::*;
use super::contract::matmul;
use super::layout::{broadcast_to, reshape, swap_last};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{CompositeDef, Graph, Reads, TensorType, Val};
use crate::shape::{Shape, broadcast};
use smallvec::{SmallVec, smallvec};

pub static MATMUL: CompositeDef = CompositeDef {
    name: "matmul",
    doc: "Σₖ aᵢₖ·bₖⱼ over the last two axes; leading axes broadcast, a 1-d operand is a row (a) or a column (b).",
    attrs: &[],
    infer: |_, inputs| {
        let shape = product_shape(inputs[0], inputs[1])?.checked("matmul")?;
        Ok(smallvec![TensorType { dtype: inputs[0].dtype, shape }])
    },
    expand: |g, _, inputs| Ok(smallvec![product(g, inputs[0], inputs[1])?]),
    derivative: None,
    transpose: None,
    reads: Reads::BOTH,
    kernel: None,
};

pub static LINEAR: CompositeDef = CompositeDef {
    name: "linear",
    doc: "x·weightᵀ + bias. Inputs: x (…, in), weight (out, in), and bias (out) or none.",
    attrs: &[],
    infer: |_, inputs| infer_linear(inputs),
    expand: |g, _, inputs| Ok(smallvec![linear(g, inputs)?]),
    derivative: None,
    // The bias is only added.
    transpose: None,
    reads: Reads::BOTH,
    kernel: None,
};

/// Checks the operands of a product and gives the shape of the result.
fn product_shape(a: &TensorType, b: &TensorType) -> Result<Shape> {
    let (left, right) = (&a.shape, &b.shape);
    if a.dtype != b.dtype || a.dtype == DType::Bool {
        return Err(Error::dtype(format!("matmul: dtypes {} and {} have no matrix product", a.dtype, b.dtype)));
    }
    let (Some(&columns), Some(_)) = (left.last(), right.last()) else {
        return Err(Error::shape(format!("matmul: shapes {left} and {right}: both need an axis at least")));
    };
    let rows = right[right.rank().saturating_sub(2)];
    if columns != rows {
        let held = if right.rank() == 1 { "elements" } else { "rows" };
        return Err(Error::shape(format!(
            "matmul: shapes {left} and {right} do not fit: the first ends in {columns}, the second has {rows} {held}"
        )));
    }
    let (left_batch, right_batch) = (leading(left), leading(right));
    let mut shape = broadcast(&left_batch, &right_batch).ok_or_else(|| {
        Error::shape(format!(
            "matmul: shapes {left} and {right} do not fit: leading axes {left_batch} and {right_batch} do not broadcast"
        ))
    })?;
    if left.rank() > 1 {
        shape.push(left[left.rank() - 2]);
    }
    if right.rank() > 1 {
        shape.push(right[right.rank() - 1]);
    }
    Ok(shape)
}

/// All axes but the last two.
fn leading(shape: &Shape) -> Shape {
    Shape::new(&shape[..shape.rank().saturating_sub(2)])
}

fn product(g: &mut Graph, a: Val, b: Val) -> Result<Val> {
    let shape = product_shape(g.ty(a), g.ty(b))?;
    let a = if g.shape(a).rank() == 1 { with_axis(g, a, 0)? } else { a };
    let b = if g.shape(b).rank() == 1 { with_axis(g, b, 1)? } else { b };
    let (left, right) = (g.shape(a).clone(), g.shape(b).clone());
    let (left_batch, right_batch) = (leading(&left), leading(&right));
    let result = if right_batch.size() == 1 && right_batch.rank() <= left_batch.rank() {
        let columns = left[left.rank() - 1];
        let folded = reshape(g, a, &Shape::from([left[..left.rank() - 1].iter().product(), columns]))?;
        let matrix = reshape(g, b, &Shape::new(&right[right.rank() - 2..]))?;
        matmul(g, folded, matrix)?
    } else {
        let batch = broadcast(&left_batch, &right_batch).ok_or_else(|| Error::internal("matmul: batches differ"))?;
        let a = with_batch(g, a, &batch)?;
        let b = with_batch(g, b, &batch)?;
        matmul(g, a, b)?
    };
    reshape(g, result, &shape)
}

/// A vector as a matrix with one row (axis 0) or one column (axis 1).
fn with_axis(g: &mut Graph, x: Val, axis: usize) -> Result<Val> {
    let mut shape = g.shape(x).clone();
    shape.insert(axis, 1);
    reshape(g, x, &shape)
}

fn with_batch(g: &mut Graph, x: Val, batch: &Shape) -> Result<Val> {
    let matrix = g.shape(x);
    let shape: Shape = batch.iter().chain(&matrix[matrix.rank() - 2..]).copied().collect();
    broadcast_to(g, x, &shape)
}

fn infer_linear(inputs: &[&TensorType]) -> Result<SmallVec<[TensorType; 1]>> {
    let (x, weight) = (inputs[0], inputs[1]);
    if weight.shape.rank() != 2 {
        return Err(Error::shape(format!("linear: weight {} must have two axes: (out, in)", weight.shape)));
    }
    let (out, width) = (weight.shape[0], weight.shape[1]);
    if x.shape.last() != Some(&width) {
        let ending = x.shape.last().map_or("has no axis".into(), |last| format!("ends in {last}"));
        return Err(Error::shape(format!(
            "linear: input {} {ending} but weight {} takes {width}",
            x.shape, weight.shape
        )));
    }
    if let Some(bias) = inputs.get(2).filter(|bias| *bias.shape != [out]) {
        return Err(Error::shape(format!(
            "linear: bias {} does not fit weight {}: it must be ({out},)",
            bias.shape, weight.shape
        )));
    }
    super::statistics::one_float("linear", &["input", "weight", "bias"], inputs)?;
    let mut shape = x.shape.clone();
    shape.dims_mut()[x.shape.rank() - 1] = out;
    Ok(smallvec![TensorType { dtype: x.dtype, shape: shape.checked("linear")? }])
}

fn linear(g: &mut Graph, inputs: &[Val]) -> Result<Val> {
    let (x, weight) = (inputs[0], inputs[1]);
    let mut shape = g.shape(x).clone();
    let (out, width) = (g.shape(weight)[0], g.shape(weight)[1]);
    let rows = shape[..shape.rank() - 1].iter().product();
    let folded = reshape(g, x, &Shape::from([rows, width]))?;
    let turned = swap_last(g, weight)?;
    let mut y = matmul(g, folded, turned)?;
    if let Some(&bias) = inputs.get(2) {
        let bias = broadcast_to(g, bias, &Shape::from([rows, out]))?;
        y = add(g, y, bias)?;
    }
    let last = shape.rank() - 1;
    shape.dims_mut()[last] = out;
    reshape(g, y, &shape)
}
