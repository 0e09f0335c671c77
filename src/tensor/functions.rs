//! The operations that users call: each checks and promotes its operands and records one node, rarely two.

use super::checks::check_indices;
use super::compose::alias;
use super::context;
use super::engine::{self, Operand, Slot, Value};
use super::evaluate::Rebinding;
use super::handle::Tensor;
use super::record::{Arg, Found, Recorder};
use super::rng;
use super::trace;
use super::transfer;
use crate::device_id::DeviceId;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::infer::infer;
use crate::graph::{
    Attrs, BinaryDef, CompositeDef, GatherMode, Layout, Op, Promote, RandomDef, ReduceDef, SliceDim, SliceDims, Source,
    TensorType, UnaryDef,
};
use crate::machine::cpu::view::{self, View};
use crate::scalar::Scalar;
use crate::shape::{Shape, axes_mask, broadcast, broadcasts_to, normalize_axis};
use smallvec::{SmallVec, smallvec};

/// The dtype that an op computes in, or an error that names what came.
fn compute_dtype(op: &str, promote: Promote, dtype: DType, supported: impl Fn(DType) -> bool) -> Result<DType> {
    let dtype = if promote == Promote::Float && !dtype.is_float() { DType::F32 } else { dtype };
    if supported(dtype) { Ok(dtype) } else { Err(Error::dtype(format!("{op}: {dtype} is not supported"))) }
}

pub fn unary(def: &'static UnaryDef, x: Arg) -> Result<Tensor> {
    let mut recorder = Recorder::begin();
    let x = recorder.find(x);
    let dtype = compute_dtype(def.name, def.promote, recorder.promote(&[x]), |dtype| (def.kernels)(dtype).is_some())?;
    let result = if def.promote == Promote::Compare { DType::Bool } else { dtype };
    let shape = Shape::new(recorder.shape_of(x));
    let operand = recorder.operand_as(x, dtype)?;
    recorder.finish(Op::Unary(def), smallvec![operand], TensorType { dtype: result, shape })
}

pub fn binary(def: &'static BinaryDef, x: Arg, y: Arg) -> Result<Tensor> {
    let mut recorder = Recorder::begin();
    let (x, y) = (recorder.find(x), recorder.find(y));
    let dtype =
        compute_dtype(def.name, def.promote, recorder.promote(&[x, y]), |dtype| (def.kernels)(dtype).is_some())?;
    let result = if def.promote == Promote::Compare { DType::Bool } else { dtype };
    let (a, b) = (recorder.shape_of(x), recorder.shape_of(y));
    let shape = broadcast(a, b).ok_or_else(|| {
        Error::shape(format!("{}: shapes {} and {} do not broadcast", def.name, Shape::new(a), Shape::new(b)))
    })?;
    let operands = smallvec![recorder.operand_as(x, dtype)?, recorder.operand_as(y, dtype)?];
    recorder.finish(Op::Binary(def), operands, TensorType { dtype: result, shape })
}

/// `x` where the condition holds, else `y`.
pub fn select(condition: &Tensor, x: Arg, y: Arg) -> Result<Tensor> {
    let mut recorder = Recorder::begin();
    let flag = recorder.ty(condition);
    if flag.dtype != DType::Bool {
        return Err(Error::dtype(format!("where: the condition is {}, it must be bool", flag.dtype)));
    }
    let (x, y) = (recorder.find(x), recorder.find(y));
    let dtype = recorder.promote(&[x, y]);
    let (a, b) = (recorder.shape_of(x), recorder.shape_of(y));
    let shape = broadcast(a, b).and_then(|shape| broadcast(&shape, &flag.shape)).ok_or_else(|| {
        let (a, b) = (Shape::new(a), Shape::new(b));
        Error::shape(format!("where: condition {}, {a} and {b} do not broadcast", flag.shape))
    })?;
    let operands =
        smallvec![recorder.operand(condition), recorder.operand_as(x, dtype)?, recorder.operand_as(y, dtype)?];
    recorder.finish(Op::Select, operands, TensorType { dtype, shape })
}

/// The dtype that these operands are computed in together.
pub fn result_type(args: &[Arg]) -> DType {
    let mut recorder = Recorder::begin();
    let found: SmallVec<[Found; 3]> = args.iter().map(|&arg| recorder.find(arg)).collect();
    recorder.promote(&found)
}

pub fn cast(x: &Tensor, dtype: DType) -> Result<Tensor> {
    let mut recorder = Recorder::begin();
    let ty = recorder.ty(x);
    if ty.dtype == dtype {
        drop(recorder);
        return Ok(alias(x));
    }
    let operand = recorder.operand(x);
    recorder.finish(Op::Cast(dtype), smallvec![operand], TensorType { dtype, shape: ty.shape })
}

/// Reduces over `axes` (None: all of them).
pub fn reduce(def: &'static ReduceDef, x: &Tensor, axes: Option<&[i64]>, keepdims: bool) -> Result<Tensor> {
    let ty = x.ty();
    let mask = mask_of(def.name, axes, ty.shape.rank())?;
    // Sums of bools and small integers are counted in int64, as NumPy and the Array API have it.
    let counts = def.empty.is_some() && (def.kernels)(DType::I64).is_some();
    let widened = match ty.dtype {
        DType::Bool | DType::U8 | DType::I32 if counts => cast(x, DType::I64)?,
        _ => x.clone(),
    };
    let reduced = if mask == 0 {
        alias(&widened)
    } else {
        let mut recorder = Recorder::begin();
        let input = recorder.ty(&widened);
        let mut types = infer(&Op::Reduce(def, mask), &[&input])?;
        let operand = recorder.operand(&widened);
        let ty = types.pop().ok_or_else(|| Error::internal("a reduction without a type"))?;
        recorder.finish(Op::Reduce(def, mask), smallvec![operand], ty)?
    };
    if keepdims { reshape_to(&reduced, ty.shape.keeping(mask)) } else { Ok(reduced) }
}

/// The axes of a reduction as a mask.
pub fn mask_of(op: &str, axes: Option<&[i64]>, rank: usize) -> Result<u32> {
    match axes {
        Some(axes) => axes_mask(op, axes, rank),
        None => Ok(crate::shape::all_axes(rank)),
    }
}

/// Records a composite of one output. Tensors go in as they are; numbers take the promoted dtype of the float tensors.
pub fn composite(def: &'static CompositeDef, attrs: Attrs, args: &[Arg]) -> Result<Tensor> {
    composite_of_one(Recorder::begin(), def, attrs, args, &[])
}

/// Records a composite that draws random numbers: seed, stream and examples follow the operands given.
pub fn random_composite(def: &'static CompositeDef, attrs: Attrs, args: &[Arg]) -> Result<Tensor> {
    let drawn = draw();
    composite_of_one(Recorder::begin(), def, attrs, args, &drawn)
}

/// Likewise, of numbers alone: the result is on this device.
pub fn random_composite_on(
    device: DeviceId,
    def: &'static CompositeDef,
    attrs: Attrs,
    numbers: &[Arg],
) -> Result<Tensor> {
    let drawn = draw();
    composite_of_one(Recorder::on(device), def, attrs, numbers, &drawn)
}

fn composite_of_one(
    mut recorder: Recorder,
    def: &'static CompositeDef,
    attrs: Attrs,
    args: &[Arg],
    more: &[Operand],
) -> Result<Tensor> {
    let (slot, count) = composite_node(&mut recorder, def, attrs, args, more)?;
    debug_assert_eq!(count, 1, "{} has several outputs", def.name);
    let made = recorder.tensor(slot, 0);
    recorder.end(&[&made])?;
    Ok(made)
}

/// Records a composite and gives all its outputs.
pub fn composite_all(def: &'static CompositeDef, attrs: Attrs, args: &[Arg]) -> Result<Vec<Tensor>> {
    let mut recorder = Recorder::begin();
    let (slot, count) = composite_node(&mut recorder, def, attrs, args, &[])?;
    let made: Vec<Tensor> = (0..count).map(|output| recorder.tensor(slot, output)).collect();
    recorder.end(&made.iter().collect::<SmallVec<[&Tensor; 4]>>())?;
    Ok(made)
}

/// Records a composite whose outputs are the new values of `handles`, and moves the handles there. Nothing is evaluated
/// before the barrier that the caller goes to next.
pub fn rebind_composite(
    def: &'static CompositeDef,
    attrs: Attrs,
    args: &[Arg],
    handles: &[&Tensor],
    moved: &mut Vec<Rebinding>,
) -> Result<()> {
    let mut recorder = Recorder::begin();
    let (slot, count) = composite_node(&mut recorder, def, attrs, args, &[])?;
    if count as usize != handles.len() {
        recorder.discard(&[Operand::Node(slot, 0)]);
        return Err(Error::internal(format!("{}: {count} results for {} handles", def.name, handles.len())));
    }
    let engine = recorder.engine();
    moved.extend(handles.iter().zip(0..count).map(|(handle, output)| Rebinding::at(engine, handle, slot, output)));
    Ok(())
}

/// Records the node of a composite; gives its slot and how many outputs it has.
fn composite_node(
    recorder: &mut Recorder,
    def: &'static CompositeDef,
    attrs: Attrs,
    args: &[Arg],
    more: &[Operand],
) -> Result<(Slot, u32)> {
    let mut operands: SmallVec<[Operand; 3]> = SmallVec::with_capacity(args.len() + more.len());
    let mut float: Option<DType> = None;
    let mut is_mixed = false;
    for &arg in args {
        operands.push(match arg {
            Arg::Tensor(tensor) => {
                let operand = recorder.operand(tensor);
                let dtype = recorder.operand_type(&operand).dtype;
                if dtype.is_float() {
                    is_mixed |= float.is_some_and(|float| float != dtype);
                    float = Some(float.map_or(dtype, |float| float.promote(dtype)));
                }
                operand
            }
            Arg::Number(number @ Scalar::I64(_)) => Operand::Number(number, DType::I64),
            Arg::Number(number) => Operand::Number(number, DType::F32),
        });
    }
    let float = float.unwrap_or(DType::F32);
    for operand in &mut operands {
        match operand {
            Operand::Number(_, dtype) if dtype.is_float() => *dtype = float,
            Operand::Node(..) if is_mixed && recorder.operand_type(operand).dtype.is_float() => {
                *operand = recorder.cast_operand(*operand, float)?;
            }
            _ => {}
        }
    }
    operands.extend_from_slice(more);
    let inferred = {
        let inputs: SmallVec<[&TensorType; 16]> =
            operands.iter().map(|operand| recorder.operand_type(operand)).collect();
        (def.infer)(&attrs, &inputs)
    };
    let types = match inferred {
        Ok(types) => types,
        Err(error) => {
            recorder.discard(&operands);
            return Err(error);
        }
    };
    let count = types.len() as u32;
    Ok((recorder.push(Op::Composite(def, attrs), operands, types)?, count))
}

pub fn broadcast_to(x: &Tensor, shape: Shape) -> Result<Tensor> {
    let mut recorder = Recorder::begin();
    let ty = recorder.ty(x);
    if ty.shape == shape {
        drop(recorder);
        return Ok(alias(x));
    }
    if !broadcasts_to(&ty.shape, &shape) {
        return Err(Error::shape(format!("broadcast_to: shape {} does not broadcast to {shape}", ty.shape)));
    }
    let operand = recorder.operand(x);
    recorder.finish(
        Op::Layout(Layout::Broadcast),
        smallvec![operand],
        TensorType { shape: shape.checked("broadcast_to")?, ..ty },
    )
}

/// Another shape of as many elements; one dimension may be -1.
pub fn reshape(x: &Tensor, dims: &[i64]) -> Result<Tensor> {
    let from = x.shape();
    let known: i64 = dims.iter().filter(|&&dim| dim != -1).product();
    let holes = dims.iter().filter(|&&dim| dim == -1).count();
    let size = from.size() as i64;
    let fail = || {
        let asked: Vec<String> = dims.iter().map(i64::to_string).collect();
        Error::shape(format!("reshape: shape {from} has {size} elements, which ({}) cannot hold", asked.join(", ")))
    };
    if holes > 1 || dims.iter().any(|&dim| dim < -1) || (holes == 1 && (known == 0 || size % known != 0)) {
        return Err(fail());
    }
    let shape: Shape = dims.iter().map(|&dim| if dim == -1 { (size / known) as usize } else { dim as usize }).collect();
    if shape.size() != from.size() {
        return Err(fail());
    }
    reshape_to(x, shape)
}

pub fn reshape_to(x: &Tensor, shape: Shape) -> Result<Tensor> {
    let mut recorder = Recorder::begin();
    let ty = recorder.ty(x);
    if ty.shape == shape {
        drop(recorder);
        return Ok(alias(x));
    }
    let operand = recorder.operand(x);
    recorder.finish(Op::Layout(Layout::Reshape), smallvec![operand], TensorType { shape, ..ty })
}

pub fn permute(x: &Tensor, axes: &[i64]) -> Result<Tensor> {
    let mut recorder = Recorder::begin();
    let ty = recorder.ty(x);
    let rank = ty.shape.rank();
    if axes.len() != rank {
        return Err(Error::value(format!("permute_dims: {} axes given for shape {}", axes.len(), ty.shape)));
    }
    axes_mask("permute_dims", axes, rank)?;
    let perm: SmallVec<[u8; 8]> = axes
        .iter()
        .map(|&axis| normalize_axis("permute_dims", axis, rank).map(|axis| axis as u8))
        .collect::<Result<_>>()?;
    let shape = perm.iter().map(|&axis| ty.shape[axis as usize]).collect();
    let operand = recorder.operand(x);
    recorder.finish(Op::Layout(Layout::Permute(perm)), smallvec![operand], TensorType { shape, ..ty })
}

/// One axis of a basic slice, with its start counted from the front and inside the axis.
#[derive(Clone, Copy, Debug)]
pub struct SliceArg {
    pub axis: usize,
    pub start: i64,
    pub length: usize,
    pub step: isize,
}

/// A basic slice. Starts are plan inputs; a slice of a value outside differentiation is a view at once.
pub fn slice(x: &Tensor, slices: &[SliceArg]) -> Result<Tensor> {
    if slices.is_empty() {
        return Ok(alias(x));
    }
    if let Some(view) = slice_value(x, slices) {
        return Ok(view);
    }
    let mut recorder = Recorder::begin();
    let ty = recorder.ty(x);
    let mut shape = ty.shape.clone();
    let mut operands: SmallVec<[Operand; 3]> = smallvec![recorder.operand(x)];
    let mut dims = SliceDims::new();
    for slice in slices {
        shape.dims_mut()[slice.axis] = slice.length;
        dims.push(SliceDim { axis: slice.axis as u8, length: slice.length, step: slice.step });
        operands.push(Operand::Number(Scalar::I64(slice.start), DType::I64));
    }
    recorder.finish(Op::Layout(Layout::Slice(dims)), operands, TensorType { shape, ..ty })
}

/// The slice as a window on the same buffer, if the value exists and no gradient can pass.
fn slice_value(x: &Tensor, slices: &[SliceArg]) -> Option<Tensor> {
    let (mut value, mut ty) = {
        let engine = engine::lock();
        let state = x.0.state(&engine);
        let record = engine.get(state.slot);
        let differentiated = context::grad_enabled() && (record.history || state.variable.is_some());
        // A traced step records it: at each call the window lies on another argument.
        if differentiated || record.transforms != 0 || trace::is_open() {
            return None;
        }
        (record.values[state.output as usize].clone()?, record.types[state.output as usize].clone())
    };
    for slice in slices {
        let stride = value.strides[slice.axis];
        if slice.length > 0 {
            value.offset = (value.offset as isize + slice.start as isize * stride) as usize;
        }
        value.strides[slice.axis] = stride * slice.step;
        ty.shape.dims_mut()[slice.axis] = slice.length;
    }
    Some(Tensor::from_value(value, ty))
}

pub fn concat(tensors: &[&Tensor], axis: i64) -> Result<Tensor> {
    let mut recorder = Recorder::begin();
    let first = tensors.first().ok_or_else(|| Error::value("concat: no tensors were given"))?;
    let axis = normalize_axis("concat", axis, recorder.ty(first).shape.rank())?;
    let found: Vec<Found> = tensors.iter().map(|&tensor| recorder.find(tensor.into())).collect();
    let dtype = recorder.promote(&found);
    let inputs: Vec<TensorType> =
        tensors.iter().map(|tensor| TensorType { dtype, shape: recorder.ty(tensor).shape }).collect();
    let mut types = infer(&Op::Concat(axis as u8), &inputs.iter().collect::<Vec<_>>())?;
    let operands = found.iter().map(|&found| recorder.operand_as(found, dtype)).collect::<Result<_>>()?;
    let ty = types.pop().ok_or_else(|| Error::internal("concat without a type"))?;
    recorder.finish(Op::Concat(axis as u8), operands, ty)
}

/// Elements of `x` at `indices` along `axis`.
pub fn gather(mode: GatherMode, x: &Tensor, indices: &Tensor, axis: i64) -> Result<Tensor> {
    let name = Op::Gather(mode, 0).name();
    let rank = x.shape().rank();
    let axis = normalize_axis(name, axis, rank)?;
    let mut indices = index_tensor(name, indices)?;
    check_indices(name, &indices, x.shape()[axis], axis)?;
    let mut x = alias(x);
    if mode == GatherMode::Along {
        (x, indices) = broadcast_other_axes(name, &x, &indices, axis)?;
    }
    let mut recorder = Recorder::begin();
    let op = Op::Gather(mode, axis as u8);
    let mut types = infer(&op, &[&recorder.ty(&x), &recorder.ty(&indices)])?;
    let operands = smallvec![recorder.operand(&x), recorder.operand(&indices)];
    let ty = types.pop().ok_or_else(|| Error::internal("gather without a type"))?;
    recorder.finish(op, operands, ty)
}

/// Both repeated to their common shape on every axis but one.
fn broadcast_other_axes(op: &str, x: &Tensor, indices: &Tensor, axis: usize) -> Result<(Tensor, Tensor)> {
    let (mut a, mut b) = (x.shape(), indices.shape());
    let (along, picked) = (a[axis], b.get(axis).copied());
    let Some(picked) = picked.filter(|_| a.rank() == b.rank()) else {
        return Err(Error::shape(format!("{op}: tensor {a} and indices {b} must have as many axes")));
    };
    a.dims_mut()[axis] = 1;
    b.dims_mut()[axis] = 1;
    let mut shape = broadcast(&a, &b).ok_or_else(|| {
        Error::shape(format!(
            "{op}: tensor {} and indices {} must agree on every axis but {axis}",
            x.shape(),
            indices.shape()
        ))
    })?;
    shape.dims_mut()[axis] = along;
    let x = broadcast_to(x, shape.clone())?;
    shape.dims_mut()[axis] = picked;
    Ok((x, broadcast_to(indices, shape)?))
}

/// `x` with `updates` added at `indices` along `axis`.
pub fn scatter_add(mode: GatherMode, x: &Tensor, indices: &Tensor, updates: &Tensor, axis: i64) -> Result<Tensor> {
    let name = Op::Scatter(mode, 0).name();
    let ty = x.ty();
    let axis = normalize_axis(name, axis, ty.shape.rank())?;
    let indices = index_tensor(name, indices)?;
    check_indices(name, &indices, ty.shape[axis], axis)?;
    let added = {
        let mut recorder = Recorder::begin();
        let op = Op::Scatter(mode, axis as u8);
        let want = infer(&Op::Gather(mode, axis as u8), &[&ty, &recorder.ty(&indices)])?;
        let got = recorder.ty(updates).shape;
        if want[0].shape != got {
            return Err(Error::shape(format!(
                "{name}: updates have shape {got}, the indices ask for {}",
                want[0].shape
            )));
        }
        let found = recorder.find(updates.into());
        let operands = smallvec![recorder.operand_as(found, ty.dtype)?, recorder.operand(&indices)];
        recorder.finish(op, operands, ty)?
    };
    binary(&crate::ops::arithmetic::ADD, x.into(), (&added).into())
}

fn index_tensor(op: &str, indices: &Tensor) -> Result<Tensor> {
    let dtype = indices.dtype();
    if !dtype.is_integer() {
        return Err(Error::dtype(format!("{op}: indices are {dtype}, they must be integers")));
    }
    cast(indices, DType::I64)
}

/// The elements of an integer tensor, in row-major order.
pub fn to_i64(tensor: &Tensor) -> Result<Vec<i64>> {
    let bytes = to_bytes(tensor)?;
    let dtype = tensor.dtype();
    Ok(bytes.chunks_exact(dtype.size()).map(|element| Scalar::from_bytes(dtype, element).as_i64()).collect())
}

/// The bytes of a tensor, in row-major order.
pub fn to_bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let (value, ty) = tensor.host_value()?;
    // SAFETY: a value's shape and strides stay in its buffer, which is held here.
    Ok(unsafe { bytes_of(&value.view(&ty)) })
}

/// The bytes that a view shows, in row-major order.
///
/// # Safety
/// The view lies in valid memory.
pub(super) unsafe fn bytes_of(from: &View) -> Vec<u8> {
    let mut bytes = vec![0u8; from.shape.size() * from.dtype.size()];
    let to = View::contiguous(bytes.as_mut_ptr(), from.dtype, from.shape.clone());
    // SAFETY: the caller's promise; the target was made to fit.
    unsafe { view::copy(from, &to) };
    bytes
}

/// The value, cut off the history.
pub fn detach(x: &Tensor) -> Result<Tensor> {
    let mut recorder = Recorder::with_grad(false);
    let existing = {
        let engine = recorder.engine();
        let (slot, output) = x.place(engine);
        let (record, output) = (engine.get(slot), output as usize);
        record.values[output].clone().map(|value| (value, record.types[output].clone()))
    };
    if let Some((value, ty)) = existing.filter(|_| !trace::is_open()) {
        drop(recorder);
        return Ok(Tensor::from_value(value, ty));
    }
    let ty = recorder.ty(x);
    let operand = recorder.operand(x);
    recorder.finish(Op::Detach, smallvec![operand], ty)
}

/// A constant of the program in every element.
pub fn full(shape: Shape, value: Scalar, dtype: DType, device: DeviceId) -> Result<Tensor> {
    let ty = TensorType { dtype, shape: shape.checked("full")? };
    Recorder::on(device).finish(Op::Source(Source::Full(value)), SmallVec::new(), ty)
}

/// 0, 1, … n - 1.
pub fn iota(n: usize, device: DeviceId) -> Result<Tensor> {
    let ty = TensorType { dtype: DType::I64, shape: Shape::from([n]).checked("arange")? };
    Recorder::on(device).finish(Op::Source(Source::Iota), SmallVec::new(), ty)
}

/// The operands that every random op takes: seed and stream, and below a batch the examples it differs for.
fn draw() -> SmallVec<[Operand; 3]> {
    let (seed, stream) = rng::next_stream();
    let (seed, stream) = trace::tag_draw(seed, stream);
    let mut operands: SmallVec<[Operand; 3]> =
        smallvec![Operand::Number(seed, DType::I64), Operand::Number(stream, DType::I64)];
    operands.extend(context::open_placeholders().into_iter().map(|slot| Operand::Node(slot, 0)));
    operands
}

/// Random numbers of this shape and dtype.
pub fn random(def: &'static RandomDef, shape: Shape, dtype: DType, device: DeviceId) -> Result<Tensor> {
    if (def.fill)(dtype).is_none() {
        return Err(Error::dtype(format!("{}: {dtype} is not supported", def.name)));
    }
    let ty = TensorType { dtype, shape: shape.checked(def.name)? };
    Recorder::on(device).finish(Op::Random(def), draw(), ty)
}

/// The number in a tensor of one element.
pub fn item(tensor: &Tensor) -> Result<Scalar> {
    trace::refuse_read("reading a value")?;
    let one_element = |ty: &TensorType| match ty.shape.size() {
        1 => Ok(()),
        size => Err(Error::value(format!("item: shape {} has {size} elements, not one", ty.shape))),
    };
    let (value, ty) = match tensor.known_value()? {
        Some(known) => known,
        None => {
            one_element(&tensor.ty())?;
            tensor.value()?
        }
    };
    one_element(&ty)?;
    let Value { buffer, offset, .. } = transfer::on_host(value, &ty)?;
    let size = ty.dtype.size();
    let mut bytes = [0u8; 8];
    // SAFETY: the value has one element, at its offset.
    unsafe { bytes.as_mut_ptr().copy_from_nonoverlapping(buffer.host().as_ptr().add(offset * size), size) };
    Ok(Scalar::from_bytes(ty.dtype, &bytes))
}
