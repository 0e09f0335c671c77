//! Class indices as rows of zeros with a single one.

use super::build::*;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{CompositeDef, Graph, Reads, TensorType, Val};
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
