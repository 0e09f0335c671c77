//! Class indices as rows of zeros with a single one.

use super::build::*;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Attrs, CompositeDef, GatherMode, Graph, Op, Reads, Source, TensorType, Val};
use smallvec::{SmallVec, smallvec};

pub static ONE_HOT: CompositeDef = CompositeDef {
    name: "one_hot",
    doc: "1 where the new last axis counts to the index, else 0, as int64; an index out of range gives zeros.",
    attrs: &["number of classes"],
    infer: |attrs, inputs| infer(attrs[0], inputs[0]),
    expand: |g, attrs, inputs| Ok(smallvec![expand(g, attrs[0] as usize, inputs[0])?]),
    derivative: Some(|_, _, _| Ok(smallvec![None])),
    transpose: None,
    reads: Reads::NONE,
    kernel: None,
};

/// Class indices that are checked by a kernel: what is recorded before they are known.
pub static CLASS_INDEX: CompositeDef = CompositeDef {
    name: "class_index",
    doc: "The indices as int64; one that is neither a class nor the ignored one is an IndexError where it is computed.",
    attrs: &["number of classes", "1 if one index is ignored", "ignored index"],
    infer: |_, inputs| Ok(smallvec![TensorType { dtype: DType::I64, shape: inputs[0].shape.clone() }]),
    expand: |g, attrs, inputs| Ok(smallvec![checked(g, attrs, inputs[0])?]),
    derivative: Some(|_, _, _| Ok(smallvec![None])),
    transpose: None,
    reads: Reads::NONE,
    kernel: None,
};

/// Takes each index from the numbers 0, 1, 2, …: a gather checks what it is given.
fn checked(g: &mut Graph, attrs: &Attrs, indices: Val) -> Result<Val> {
    let indices = cast(g, indices, DType::I64)?;
    let counting = g.add_typed(Op::Source(Source::Iota), &[], TensorType::new(DType::I64, [attrs[0] as usize]));
    let ty = g.ty(indices).clone();
    let (zero, last) = (g.full(0i64, ty.clone()), g.full(attrs[0], ty.clone()));
    // A gather counts negative indices from the end, but no class is negative.
    let negative = less(g, indices, zero)?;
    let index = select(g, negative, last, indices)?;
    if attrs[1] == 0 {
        return g.add(Op::Gather(GatherMode::Take, 0), &[counting, index]);
    }
    let ignored = g.full(attrs[2], ty);
    let is_ignored = equal(g, indices, ignored)?;
    let index = select(g, is_ignored, zero, index)?;
    let class = g.add(Op::Gather(GatherMode::Take, 0), &[counting, index])?;
    select(g, is_ignored, ignored, class)
}

fn infer(classes: i64, indices: &TensorType) -> Result<SmallVec<[TensorType; 1]>> {
    if !indices.dtype.is_integer() {
        return Err(Error::dtype(format!("one_hot: indices are {}, they must be integers", indices.dtype)));
    }
    if classes < 0 {
        return Err(Error::value(format!("one_hot: num_classes is {classes}, it cannot be negative")));
    }
    let mut shape = indices.shape.clone();
    shape.push(classes as usize);
    Ok(smallvec![TensorType { dtype: DType::I64, shape: shape.checked("one_hot")? }])
}

fn expand(g: &mut Graph, classes: usize, indices: Val) -> Result<Val> {
    let mut column = g.shape(indices).clone();
    let axis = column.rank();
    column.push(1);
    let mut shape = column.clone();
    shape.dims_mut()[axis] = classes;
    let indices = cast(g, indices, DType::I64)?;
    let indices = super::reshape(g, indices, &column)?;
    let indices = super::broadcast_to(g, indices, &shape)?;
    let counting = iota_along(g, &shape, axis)?;
    let hit = equal(g, counting, indices)?;
    cast(g, hit, DType::I64)
}
