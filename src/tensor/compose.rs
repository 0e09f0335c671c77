//! Operations made of others: what users call that needs more than one node, or a definition with its attributes.

use super::checks::{check_classes, checked_classes};
use super::engine::Operand;
use super::functions::{
    SliceArg, binary, broadcast_to, cast, composite, composite_all, concat, full, iota, mask_of, permute,
    random_composite, random_composite_on, reduce, reshape_to, result_type, select, slice, unary,
};
use super::handle::Tensor;
use super::record::{Arg, Recorder};
use super::trace;
use crate::device_id::DeviceId;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{BinaryDef, CompositeDef, Layout, Op, SliceDim, TensorType};
use crate::ops::testing::{Behaviour, TESTING_OP};
use crate::ops::{
    self, activation, arithmetic, compare, exponential, matmul as products, reduce as reductions, softmax, statistics,
};
use crate::scalar::Scalar;
use crate::shape::{Shape, broadcast, normalize_axis};
use smallvec::{SmallVec, smallvec};

/// Another handle on the same value, with the same history: rebinding one leaves the other.
pub fn alias(x: &Tensor) -> Tensor {
    let mut recorder = Recorder::begin();
    match recorder.operand(x) {
        Operand::Node(slot, output) => recorder.tensor(slot, output),
        Operand::Number(..) => x.clone(),
    }
}

/// A tensor of one row along its first axis, without that axis. A value that exists stays where it is.
pub fn first_row(x: &Tensor) -> Result<Tensor> {
    let mut ty = x.ty();
    match x.known_value()? {
        Some((mut value, _)) => {
            ty.shape.remove(0);
            value.strides.remove(0);
            Ok(Tensor::from_value(value, ty))
        }
        None => reshape_to(x, ty.shape.without(1)),
    }
}

/// A number of the user's in every element. It is a plan input, not a constant.
pub fn filled(shape: Shape, value: Scalar, dtype: DType, device: DeviceId) -> Result<Tensor> {
    let ty = TensorType { dtype, shape: shape.checked("full")? };
    let number = Operand::Number(value, dtype);
    Recorder::on(device).finish(Op::Layout(Layout::Broadcast), smallvec![number], ty)
}

/// `start`, `start + step`, … before `stop`.
pub fn arange(start: Scalar, stop: Scalar, step: Scalar, dtype: Option<DType>, device: DeviceId) -> Result<Tensor> {
    let numbers = [start, stop, step];
    let whole = numbers.iter().all(|number| !matches!(number, Scalar::F64(_)));
    let (first, end, by) = (start.as_f64(), stop.as_f64(), step.as_f64());
    if by == 0.0 || numbers.iter().any(|number| !number.as_f64().is_finite()) {
        return Err(Error::value(format!("arange: from {first} to {end} by {by} does not end")));
    }
    let count = if whole {
        let (first, end, by) = (i128::from(start.as_i64()), i128::from(stop.as_i64()), i128::from(step.as_i64()));
        ((end - first + by - by.signum()) / by).max(0) as f64
    } else {
        ((end - first) / by).ceil().max(0.0)
    };
    if count >= (1u64 << 48) as f64 {
        return Err(Error::shape(format!("arange: {count} elements are too many")));
    }
    let dtype = dtype.unwrap_or(if whole { DType::I64 } else { DType::F32 });
    if !whole && !device.is_cpu() {
        return counted_on(device, count as usize, first, by, dtype);
    }
    let index = iota(count as usize, device)?;
    // Floats are computed in float64 and rounded once.
    let index = if whole { index } else { cast(&index, DType::F64)? };
    let scaled = binary(&arithmetic::MULTIPLY, (&index).into(), Arg::Number(step))?;
    cast(&binary(&arithmetic::ADD, (&scaled).into(), Arg::Number(start))?, dtype)
}

/// The floats of `arange` for a device without float64: made on the host, by the same two roundings.
fn counted_on(device: DeviceId, count: usize, first: f64, by: f64, dtype: DType) -> Result<Tensor> {
    let element = |at: usize| Scalar::F64(at as f64 * by + first).to_bytes(dtype);
    let bytes: Vec<u8> = (0..count).flat_map(|at| element(at)[..dtype.size()].to_vec()).collect();
    Tensor::from_bytes_on(device, &bytes, TensorType::new(dtype, [count]))
}

/// 1 where the new last axis counts to the index, else 0.
pub fn one_hot(indices: &Tensor, classes: i64, dtype: DType) -> Result<Tensor> {
    let checked = checked_classes(indices, classes.max(0) as usize, None)?;
    let hot = composite(&ops::one_hot::ONE_HOT, smallvec![classes], &[(&checked).into()])?;
    check_classes("one_hot", indices, classes as usize, None)?;
    cast(&hot, dtype)
}

/// Uniform integers of at least `low` and less than `high`.
pub fn randint(low: i64, high: i64, shape: &Shape, device: DeviceId) -> Result<Tensor> {
    if low >= high {
        return Err(Error::value(format!("randint: no integer is at least {low} and less than {high}")));
    }
    let attrs = shape.iter().map(|&dim| dim as i64).collect();
    random_composite_on(device, &ops::random::RANDINT, attrs, &[low.into(), high.into()])
}

/// 1 with probability p, else 0.
pub fn bernoulli(p: &Tensor) -> Result<Tensor> {
    random_composite(&ops::random::BERNOULLI, SmallVec::new(), &[p.into()])
}

/// x / (1 - p) with probability 1 - p, else 0.
pub fn dropout(x: &Tensor, p: f64) -> Result<Tensor> {
    ops::random::check_probability("dropout", p)?;
    random_composite(&ops::random::DROPOUT, SmallVec::new(), &[x.into(), p.into()])
}

/// All operands as tensors of their common shape and dtype.
fn broadcast_together<const N: usize>(op: &str, args: [Arg; N]) -> Result<[Tensor; N]> {
    let dtype = result_type(&args);
    let mut shape = Shape::scalar();
    let mut device = DeviceId::Cpu;
    for arg in args {
        if let Arg::Tensor(tensor) = arg {
            let other = tensor.shape();
            device = tensor.device();
            shape = broadcast(&shape, &other)
                .ok_or_else(|| Error::shape(format!("{op}: shapes {shape} and {other} do not broadcast")))?;
        }
    }
    let spread = |arg: Arg| match arg {
        Arg::Tensor(tensor) => broadcast_to(&cast(tensor, dtype)?, shape.clone()),
        Arg::Number(number) => filled(shape.clone(), number, dtype, device),
    };
    let made: Vec<Tensor> = args.into_iter().map(spread).collect::<Result<_>>()?;
    made.try_into().map_err(|_| Error::internal("broadcast_together: operands were lost"))
}

/// Parts of these lengths along the axis, which they cover.
pub fn split(x: &Tensor, lengths: &[usize], axis: i64) -> Result<Vec<Tensor>> {
    let shape = x.shape();
    let axis = normalize_axis("split", axis, shape.rank())?;
    if lengths.is_empty() || lengths.iter().sum::<usize>() != shape[axis] {
        return Err(Error::value(format!("split: parts of {lengths:?} do not cover axis {axis} of shape {shape}")));
    }
    let attrs = [axis].iter().chain(lengths).map(|&number| number as i64).collect();
    composite_all(&ops::split::SPLIT, attrs, &[x.into()])
}

/// Parts of equal length along the axis.
pub fn split_evenly(x: &Tensor, parts: i64, axis: i64) -> Result<Vec<Tensor>> {
    let shape = x.shape();
    let length = shape[normalize_axis("split", axis, shape.rank())?];
    match usize::try_from(parts) {
        Ok(parts) if parts > 0 && length.is_multiple_of(parts) => split(x, &vec![length / parts; parts], axis),
        _ => Err(Error::value(format!("split: axis {axis} of shape {shape} has no {parts} equal parts"))),
    }
}

/// Parts cut before each index along the axis.
pub fn split_before(x: &Tensor, cuts: &[i64], axis: i64) -> Result<Vec<Tensor>> {
    let shape = x.shape();
    let end = shape[normalize_axis("split", axis, shape.rank())?] as i64;
    let from_front = |&cut: &i64| if cut < 0 { cut + end } else { cut };
    let borders: Vec<i64> = [0].into_iter().chain(cuts.iter().map(from_front)).chain([end]).collect();
    if borders.windows(2).any(|pair| pair[0] > pair[1]) {
        return Err(Error::value(format!("split: indices {cuts:?} do not ascend in axis {axis} of shape {shape}")));
    }
    let lengths: Vec<usize> = borders.windows(2).map(|pair| (pair[1] - pair[0]) as usize).collect();
    split(x, &lengths, axis)
}

/// The slices along an axis, which they lack.
pub fn unstack(x: &Tensor, axis: i64) -> Result<Vec<Tensor>> {
    let mut shape = x.shape();
    let axis = normalize_axis("unstack", axis, shape.rank())?;
    let count = shape[axis];
    if count == 0 {
        return Ok(Vec::new());
    }
    let parts = split(x, &vec![1; count], axis as i64)?;
    shape.remove(axis);
    parts.iter().map(|part| reshape_to(part, shape.clone())).collect()
}

/// log(exp(x) + exp(y)).
pub fn logaddexp(x: Arg, y: Arg) -> Result<Tensor> {
    let [x, y] = broadcast_together("logaddexp", [x, y])?;
    composite(&exponential::LOGADDEXP, SmallVec::new(), &[(&x).into(), (&y).into()])
}

/// A comparison of truth values: each operand counts as true where it is not zero.
pub fn logical(def: &'static BinaryDef, x: Arg, y: Arg) -> Result<Tensor> {
    let (x, y) = (truth(x)?, truth(y)?);
    binary(def, (&x).into(), (&y).into())
}

/// Whether each element is not zero.
fn truth(x: Arg) -> Result<Tensor> {
    match x {
        Arg::Tensor(tensor) if tensor.dtype() == DType::Bool => Ok(tensor.clone()),
        x => binary(&compare::NOT_EQUAL, x, 0i64.into()),
    }
}

pub fn logical_not(x: &Tensor) -> Result<Tensor> {
    match x.dtype() {
        DType::Bool => unary(&compare::LOGICAL_NOT, x.into()),
        _ => binary(&compare::EQUAL, x.into(), 0i64.into()),
    }
}

/// x within [min, max]. The gradient passes inside the closed interval.
pub fn clip(x: &Tensor, min: Option<Arg>, max: Option<Arg>) -> Result<Tensor> {
    let args: SmallVec<[Arg; 3]> = [Some(x.into()), min, max].into_iter().flatten().collect();
    if args.len() == 1 {
        return Ok(alias(x));
    }
    let dtype = result_type(&args);
    let mut shape = x.shape();
    for bound in
        args[1..].iter().filter_map(|arg| if let Arg::Tensor(tensor) = arg { Some(tensor.shape()) } else { None })
    {
        shape = broadcast(&shape, &bound)
            .ok_or_else(|| Error::shape(format!("clip: shapes {shape} and {bound} do not broadcast")))?;
    }
    let x = broadcast_to(&cast(x, dtype)?, shape)?;
    let flags = i64::from(min.is_some()) | i64::from(max.is_some()) << 1;
    let rest = args[1..].iter().copied();
    let args: SmallVec<[Arg; 3]> = std::iter::once((&x).into()).chain(rest).collect();
    composite(&arithmetic::CLIP, smallvec![flags], &args)
}

/// x to the power y. Constant multiples of one half are multiplied out, exact where multiplication is.
pub fn pow(x: Arg, y: Arg) -> Result<Tensor> {
    if let Arg::Number(exponent) = y
        && trace::is_tagged(exponent)
    {
        let error = trace::refusal(
            "pow: an exponent decides what is recorded, so it cannot be a float argument of a compiled function; pass \
             an int, or a tensor",
        );
        trace::refuse(error.clone());
        return Err(error);
    }
    if let (Arg::Tensor(base), Arg::Number(exponent)) = (x, y)
        && let Some(twice) = twice_exponent(exponent)
    {
        let dtype = result_type(&[x, y]);
        return composite(&arithmetic::POW_CONSTANT, smallvec![twice], &[(&cast(base, dtype)?).into()]);
    }
    binary(&arithmetic::POWER, x, y)
}

/// Twice the exponent, if that is an integer of moderate size.
fn twice_exponent(exponent: Scalar) -> Option<i64> {
    let twice = 2.0 * exponent.as_f64();
    (twice.fract() == 0.0 && twice.abs() <= 2048.0).then_some(twice as i64)
}

/// The sum over the axes, of this dtype if one is given.
pub fn sum(x: &Tensor, axes: Option<&[i64]>, dtype: Option<DType>, keepdims: bool) -> Result<Tensor> {
    let x = match dtype {
        Some(dtype) => cast(x, dtype)?,
        None => x.clone(),
    };
    let total = reduce(&reductions::SUM, &x, axes, keepdims)?;
    match dtype {
        Some(dtype) => cast(&total, dtype),
        None => Ok(total),
    }
}

pub fn mean(x: &Tensor, axes: Option<&[i64]>, keepdims: bool) -> Result<Tensor> {
    over(&statistics::MEAN, x, axes, keepdims, &[])
}

/// The mean square distance from the mean, over n - correction.
pub fn var(x: &Tensor, axes: Option<&[i64]>, correction: f64, keepdims: bool) -> Result<Tensor> {
    over(&statistics::VAR, x, axes, keepdims, &[correction.to_bits() as i64])
}

pub fn std(x: &Tensor, axes: Option<&[i64]>, correction: f64, keepdims: bool) -> Result<Tensor> {
    let var = var(x, axes, correction, keepdims)?;
    unary(&exponential::SQRT, (&var).into())
}

pub fn logsumexp(x: &Tensor, axes: Option<&[i64]>, keepdims: bool) -> Result<Tensor> {
    over(&softmax::LOGSUMEXP, x, axes, keepdims, &[])
}

/// The Euclidean norm.
pub fn norm(x: &Tensor, axes: Option<&[i64]>, keepdims: bool) -> Result<Tensor> {
    over(&statistics::NORM, x, axes, keepdims, &[])
}

/// The product over the axes, of this dtype if one is given; bools and small integers are counted in int64.
pub fn prod(x: &Tensor, axes: Option<&[i64]>, dtype: Option<DType>, keepdims: bool) -> Result<Tensor> {
    let (shape, own) = (x.shape(), x.dtype());
    let mask = mask_of("prod", axes, shape.rank())?;
    let wide = match (dtype, own) {
        (Some(dtype), _) => cast(x, dtype)?,
        (None, DType::Bool | DType::U8 | DType::I32) => cast(x, DType::I64)?,
        (None, _) => x.clone(),
    };
    let product = composite(&reductions::PROD, smallvec![i64::from(mask)], &[(&wide).into()])?;
    if keepdims { reshape_to(&product, shape.keeping(mask)) } else { Ok(product) }
}

/// A composite whose first attribute is the mask of the axes it drops. Integers and bools become float32 first.
fn over(def: &'static CompositeDef, x: &Tensor, axes: Option<&[i64]>, keepdims: bool, more: &[i64]) -> Result<Tensor> {
    let shape = x.shape();
    let mask = mask_of(def.name, axes, shape.rank())?;
    let float = if x.dtype().is_float() { x.clone() } else { cast(x, DType::F32)? };
    let attrs = [i64::from(mask)].iter().chain(more).copied().collect();
    let reduced = composite(def, attrs, &[(&float).into()])?;
    if keepdims { reshape_to(&reduced, shape.keeping(mask)) } else { Ok(reduced) }
}

/// Whether every element over the axes is true (not zero).
pub fn all(x: &Tensor, axes: Option<&[i64]>, keepdims: bool) -> Result<Tensor> {
    reduce(&reductions::ALL, &truth(x.into())?, axes, keepdims)
}

/// Whether some element over the axes is true (not zero).
pub fn any(x: &Tensor, axes: Option<&[i64]>, keepdims: bool) -> Result<Tensor> {
    reduce(&reductions::ANY, &truth(x.into())?, axes, keepdims)
}

/// The index of the first largest element along the axis (of all elements in row-major order if None).
pub fn argmax(x: &Tensor, axis: Option<i64>, keepdims: bool) -> Result<Tensor> {
    position(&reductions::ARGMAX, x, axis, keepdims)
}

/// The index of the first smallest element, likewise.
pub fn argmin(x: &Tensor, axis: Option<i64>, keepdims: bool) -> Result<Tensor> {
    position(&reductions::ARGMIN, x, axis, keepdims)
}

fn position(def: &'static CompositeDef, x: &Tensor, axis: Option<i64>, keepdims: bool) -> Result<Tensor> {
    let shape = x.shape();
    let Some(axis) = axis else {
        let flat = reshape_to(x, Shape::from([shape.size()]))?;
        let index = composite(def, smallvec![0], &[(&flat).into()])?;
        return if keepdims { reshape_to(&index, shape.keeping(u32::MAX)) } else { Ok(index) };
    };
    let axis = normalize_axis(def.name, axis, shape.rank())?;
    let index = composite(def, smallvec![axis as i64], &[x.into()])?;
    if keepdims { reshape_to(&index, shape.keeping(1 << axis)) } else { Ok(index) }
}

/// exp(x) / Σ exp(x) along the axis.
pub fn softmax(x: &Tensor, axis: i64) -> Result<Tensor> {
    along(&softmax::SOFTMAX, x, axis)
}

/// x - log Σ exp(x) along the axis.
pub fn log_softmax(x: &Tensor, axis: i64) -> Result<Tensor> {
    along(&softmax::LOG_SOFTMAX, x, axis)
}

fn along(def: &'static CompositeDef, x: &Tensor, axis: i64) -> Result<Tensor> {
    let axis = normalize_axis(def.name, axis, x.shape().rank())?;
    composite(def, smallvec![axis as i64], &[x.into()])
}

/// x where x > 0, else slope·x.
pub fn leaky_relu(x: &Tensor, slope: f64) -> Result<Tensor> {
    composite(&activation::LEAKY_RELU, SmallVec::new(), &[x.into(), slope.into()])
}

/// x where x > 0, else alpha·(exp(x) - 1).
pub fn elu(x: &Tensor, alpha: f64) -> Result<Tensor> {
    composite(&activation::ELU, SmallVec::new(), &[x.into(), alpha.into()])
}

/// x·sigmoid(x).
pub fn silu(x: &Tensor) -> Result<Tensor> {
    composite(&activation::SILU, SmallVec::new(), &[x.into()])
}

/// log(1 + exp(x)).
pub fn softplus(x: &Tensor) -> Result<Tensor> {
    composite(&activation::SOFTPLUS, SmallVec::new(), &[x.into()])
}

/// x·Φ(x), exact or by tanh.
pub fn gelu(x: &Tensor, tanh: bool) -> Result<Tensor> {
    composite(&activation::GELU, smallvec![i64::from(tanh)], &[x.into()])
}

/// Σₖ aᵢₖ·bₖⱼ over the last two axes, leading axes broadcast.
pub fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    composite(&products::MATMUL, SmallVec::new(), &[a.into(), b.into()])
}

/// The axes from `start` to `end` as one.
pub fn flatten(x: &Tensor, start: i64, end: i64) -> Result<Tensor> {
    let shape = x.shape();
    if shape.rank() == 0 {
        return reshape_to(x, Shape::from([1]));
    }
    let (first, last) =
        (normalize_axis("flatten", start, shape.rank())?, normalize_axis("flatten", end, shape.rank())?);
    if first > last {
        return Err(Error::axis(format!("flatten: start_axis {start} comes after end_axis {end}")));
    }
    let merged: usize = shape[first..=last].iter().product();
    reshape_to(x, shape[..first].iter().chain([&merged]).chain(&shape[last + 1..]).copied().collect())
}

/// Without these axes, which must have size 1.
pub fn squeeze(x: &Tensor, axes: &[i64]) -> Result<Tensor> {
    let shape = x.shape();
    let mask = mask_of("squeeze", Some(axes), shape.rank())?;
    if let Some(axis) = (0..shape.rank()).find(|&axis| mask >> axis & 1 == 1 && shape[axis] != 1) {
        return Err(Error::value(format!("squeeze: axis {axis} of shape {shape} has size {}, not 1", shape[axis])));
    }
    reshape_to(x, shape.without(mask))
}

/// With a new axis of size 1 that gets this number.
pub fn expand_dims(x: &Tensor, axis: i64) -> Result<Tensor> {
    let mut shape = x.shape();
    let axis = normalize_axis("expand_dims", axis, shape.rank() + 1)?;
    shape.insert(axis, 1);
    reshape_to(x, shape.checked("expand_dims")?)
}

/// With the axes of `source` at the places of `destination`, the others in their order.
pub fn moveaxis(x: &Tensor, source: &[i64], destination: &[i64]) -> Result<Tensor> {
    let rank = x.shape().rank();
    if source.len() != destination.len() {
        return Err(Error::value(format!(
            "moveaxis: {} source axes and {} destinations were given",
            source.len(),
            destination.len()
        )));
    }
    let taken = mask_of("moveaxis", Some(source), rank)?;
    mask_of("moveaxis", Some(destination), rank)?;
    let mut order: Vec<Option<i64>> = vec![None; rank];
    for (&from, &to) in source.iter().zip(destination) {
        order[normalize_axis("moveaxis", to, rank)?] = Some(normalize_axis("moveaxis", from, rank)? as i64);
    }
    let mut rest = (0..rank as i64).filter(|axis| taken >> axis & 1 == 0);
    let axes: Vec<i64> = order.into_iter().filter_map(|axis| axis.or_else(|| rest.next())).collect();
    permute(x, &axes)
}

/// The last two axes exchanged.
pub fn matrix_transpose(x: &Tensor) -> Result<Tensor> {
    let rank = x.shape().rank() as i64;
    if rank < 2 {
        return Err(Error::value(format!("matrix_transpose: shape {} has fewer than two axes", x.shape())));
    }
    permute(x, &(0..rank - 2).chain([rank - 1, rank - 2]).collect::<Vec<_>>())
}

/// Backward along the axes.
pub fn flip(x: &Tensor, axes: Option<&[i64]>) -> Result<Tensor> {
    let shape = x.shape();
    let mask = mask_of("flip", axes, shape.rank())?;
    let slices: Vec<SliceArg> = (0..shape.rank())
        .filter(|axis| mask >> axis & 1 == 1)
        .map(|axis| SliceArg { axis, start: shape[axis].max(1) as i64 - 1, length: shape[axis], step: -1 })
        .collect();
    slice(x, &slices)
}

/// Tensors of one shape along a new axis.
pub fn stack(tensors: &[&Tensor], axis: i64) -> Result<Tensor> {
    let first = tensors.first().ok_or_else(|| Error::value("stack: no tensors were given"))?.shape();
    if let Some(other) = tensors.iter().map(|tensor| tensor.shape()).find(|shape| *shape != first) {
        return Err(Error::shape(format!("stack: shapes {first} and {other} must be equal")));
    }
    let axis = normalize_axis("stack", axis, first.rank() + 1)? as i64;
    let parts: Vec<Tensor> = tensors.iter().map(|tensor| expand_dims(tensor, axis)).collect::<Result<_>>()?;
    concat(&parts.iter().collect::<Vec<_>>(), axis)
}

/// `x`, which fails, sleeps or panics when it is computed: for tests.
pub fn testing_op(x: &Tensor, behaviour: Behaviour, seconds: f64) -> Result<Tensor> {
    let microseconds = (seconds.max(0.0) * 1e6) as i64;
    composite(&TESTING_OP, smallvec![behaviour as i64], &[x.into(), 0i64.into(), microseconds.into()])
}

/// `x` with `value` in the place of a basic slice. `value` broadcasts to `shown`, the shape of the slice as the user
/// sees it: without the axes that an integer index drops.
pub fn with_slice(x: &Tensor, slices: &[SliceArg], shown: &Shape, value: Arg) -> Result<Tensor> {
    let (ty, device) = (x.ty(), x.device());
    let mut sliced = ty.shape.clone();
    slices.iter().for_each(|slice| sliced.dims_mut()[slice.axis] = slice.length);
    let part = match value {
        Arg::Number(number) => filled(sliced.clone(), number, ty.dtype, device)?,
        Arg::Tensor(tensor) => reshape_to(&broadcast_to(&cast(tensor, ty.dtype)?, shown.clone())?, sliced.clone())?,
    };
    if slices.is_empty() {
        return Ok(part);
    }
    let inside = embed(&full(sliced, Scalar::Bool(true), DType::Bool, device)?, slices, &ty.shape)?;
    let placed = embed(&part, slices, &ty.shape)?;
    select(&inside, (&placed).into(), x.into())
}

/// `x` at the place of a slice in zeros of this shape.
fn embed(x: &Tensor, slices: &[SliceArg], shape: &Shape) -> Result<Tensor> {
    let mut recorder = Recorder::begin();
    let dtype = recorder.dtype(x);
    let mut operands: SmallVec<[Operand; 3]> = smallvec![recorder.operand(x)];
    let mut dims = SmallVec::new();
    for slice in slices {
        dims.push(SliceDim { axis: slice.axis as u8, length: slice.length, step: slice.step });
        operands.push(Operand::Number(Scalar::I64(slice.start), DType::I64));
    }
    recorder.finish(Op::Embed(dims), operands, TensorType { dtype, shape: shape.clone() })
}
