//! The bit-equal oracle: runs an expanded graph node by node on one thread. Every node has a contiguous buffer of its
//! own, layout ops move elements, nothing is merged or fused; but the slice kernels, the reduction trees and the matrix
//! product are the same, so a plan must agree with it in every bit. Slow and plain on purpose.

use super::cpu::{Inputs, Leaf};
use super::reduce;
use crate::autodiff::{Known, expand};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Attrs, CompositeDef, Graph, Layout, Node, Op, SliceDim, Source, TensorType, Val};
use crate::machine::cpu::buffer::Buffer;
use crate::machine::cpu::dispatch::{Arg, Kernels};
use crate::machine::cpu::gemm::{Element, Mat, MatMut, gemm};
use crate::machine::cpu::isa::isa;
use crate::machine::cpu::par::Stopped;
use crate::machine::cpu::reduce::{CHUNK_ROWS, ReduceKernels};
use crate::machine::cpu::view::{self, View};
use crate::machine::storage::Storage;
use crate::ops;
use crate::ops::conv::Convolution;
use crate::planner::{ReduceStep, reduce_steps};
use crate::scalar::Scalar;
use crate::shape::{Shape, Strides};
use std::sync::Arc;

/// Runs the graph that a plan would be built from, and gives a contiguous buffer for each output.
pub fn run(graph: &Graph, known: &Known, leaf_strides: &[Strides], inputs: &Inputs) -> Result<Vec<Arc<Storage>>> {
    let graph = expand(graph, known)?;
    let values = nodes(&graph, leaf_strides, inputs, &|_, _, _| Ok(false))?;
    let output = |val: &Val| Arc::clone(&values[val.node as usize][val.output as usize].buffer);
    Ok(graph.outputs.iter().map(output).collect())
}

/// A contiguous value.
#[derive(Clone)]
pub(super) struct Value {
    pub buffer: Arc<Storage>,
    pub ty: TensorType,
}

impl Value {
    pub fn new(ty: &TensorType) -> Result<Value> {
        Ok(Value { buffer: Arc::new(Buffer::new(ty.bytes())?.into()), ty: ty.clone() })
    }

    pub fn ptr(&self) -> *mut u8 {
        self.buffer.host().as_mut_ptr()
    }

    fn view(&self) -> View {
        View::contiguous(self.ptr(), self.ty.dtype, self.ty.shape.clone())
    }

    /// Every element as a float64.
    pub fn numbers(&self) -> Vec<f64> {
        let size = self.ty.dtype.size();
        // SAFETY: the buffer holds the elements of this type.
        let bytes = unsafe { std::slice::from_raw_parts(self.ptr(), self.ty.bytes()) };
        bytes.chunks_exact(size).map(|element| Scalar::from_bytes(self.ty.dtype, element).as_f64()).collect()
    }

    /// The int64 at index 0: a start, a seed.
    fn number(&self) -> i64 {
        // SAFETY: the caller asks for the first element of an int64 value.
        unsafe { *self.ptr().cast::<i64>() }
    }
}

/// Computes a node in another way: true if it did.
pub(super) type Instead<'a> = &'a dyn Fn(usize, &[&Value], &Value) -> Result<bool>;

/// The values of every node.
pub(super) fn nodes(
    graph: &Graph,
    leaf_strides: &[Strides],
    inputs: &Inputs,
    instead: Instead,
) -> Result<Vec<Vec<Value>>> {
    let mut values: Vec<Vec<Value>> = Vec::with_capacity(graph.nodes.len());
    for (index, node) in graph.nodes.iter().enumerate() {
        let outs = node.outputs.iter().map(Value::new).collect::<Result<Vec<_>>>()?;
        let args: Vec<&Value> = node.inputs.iter().map(|val| &values[val.node as usize][val.output as usize]).collect();
        match &node.op {
            _ if instead(index, &args, &outs[0])? => {}
            Op::Source(source) => self::source(*source, leaf_strides, inputs, &outs[0])?,
            Op::Composite(def, attrs) => hand_kernel(def, attrs, &args, &outs)?,
            _ => compute(node, &args, &outs[0]).map_err(|e| e.within(node.op.name()))?,
        }
        values.push(outs);
    }
    Ok(values)
}

fn hand_kernel(def: &CompositeDef, attrs: &Attrs, args: &[&Value], outs: &[Value]) -> Result<()> {
    let types: Vec<&TensorType> = args.iter().map(|arg| &arg.ty).collect();
    let kernel = def.kernel_for(attrs, &types).ok_or_else(|| Error::internal("is not a primitive op"))?;
    let inputs: Vec<View> = args.iter().map(|arg| arg.view()).collect();
    let outputs: Vec<View> = outs.iter().map(Value::view).collect();
    // SAFETY: contiguous values of inferred types, each in a buffer of its own.
    let result = unsafe { (kernel.run)(attrs, &inputs, &outputs) };
    result.map_err(|_| Error::new(crate::error::ErrorKind::Interrupted, "the run was interrupted"))
}

fn source(source: Source, leaf_strides: &[Strides], inputs: &Inputs, out: &Value) -> Result<()> {
    let size = out.ty.dtype.size();
    match source {
        Source::Leaf(slot) => {
            let Leaf { buffer, offset } = &inputs.leaves[slot as usize];
            // SAFETY: the leaf's elements start inside its buffer.
            let ptr = unsafe { buffer.host().as_mut_ptr().add(offset * size) };
            let strides = leaf_strides[slot as usize].clone();
            let from = View { ptr, dtype: out.ty.dtype, shape: out.ty.shape.clone(), strides };
            // SAFETY: the caller's strides stay inside the buffer; the copy is new.
            unsafe { view::copy(&from, &out.view()) };
        }
        Source::Number(slot) => fill(out, |_| inputs.numbers[slot as usize]),
        Source::Full(x) => fill(out, |_| x),
        Source::Iota => fill(out, |i| Scalar::I64(i as i64)),
        Source::Placeholder => return Err(Error::internal("a placeholder has no value")),
    }
    Ok(())
}

fn fill(out: &Value, element: impl Fn(usize) -> Scalar) {
    let size = out.ty.dtype.size();
    for i in 0..out.ty.shape.size() {
        let bytes = element(i).to_bytes(out.ty.dtype);
        // SAFETY: element i of the value.
        unsafe { out.ptr().add(i * size).copy_from_nonoverlapping(bytes.as_ptr(), size) };
    }
}

fn compute(node: &Node, args: &[&Value], out: &Value) -> Result<()> {
    let (from, shape) = (args[0].ty.dtype, &out.ty.shape);
    match &node.op {
        Op::Unary(def) => map((def.kernels)(from), args, out),
        Op::Binary(def) => map((def.kernels)(from), args, out),
        Op::Select => map(Some(ops::select_kernels(out.ty.dtype)), args, out),
        Op::Cast(to) => map(Some(ops::cast_kernels(from, *to)), args, out),
        Op::Reduce(def, axes) => {
            if args[0].ty.shape.size() == 0 {
                fill(out, |_| Scalar::F64(def.empty.unwrap_or(0.0)));
                return Ok(());
            }
            reduce_axes((def.kernels)(from).ok_or_else(|| refused(from))?, args[0], *axes, out)
        }
        Op::After => {
            // SAFETY: two contiguous values of one type.
            unsafe { view::copy(&args[0].view(), &out.view()) };
            Ok(())
        }
        Op::Layout(layout) => rearrange(layout, args, out),
        Op::Embed(dims) => {
            check_starts(dims, args, shape)?;
            let window = window(&out.view(), dims, args);
            let window = View { shape: args[0].ty.shape.clone(), ..window };
            // SAFETY: the starts were checked.
            unsafe { ops::embed_elements(&args[0].view(), &window, &out.view()) };
            Ok(())
        }
        Op::Concat(axis) => {
            let mut start = 0;
            for arg in args {
                let whole = out.view();
                let skip = start * whole.strides[*axis as usize] as usize * from.size();
                // SAFETY: the part starts inside the result, or is empty.
                let ptr = unsafe { whole.ptr.add(skip) };
                start += arg.ty.shape[*axis as usize];
                // SAFETY: the part lies inside the result.
                unsafe { view::copy(&arg.view(), &View { ptr, shape: arg.ty.shape.clone(), ..whole }) };
            }
            Ok(())
        }
        Op::Gather(mode, axis) => {
            if shape.size() == 0 {
                return Ok(());
            }
            // SAFETY: contiguous values of inferred shapes.
            let bad =
                unsafe { ops::gather_elements(*mode, *axis as usize, &args[0].view(), &args[1].view(), &out.view()) };
            range_error(bad, args[0].ty.shape[*axis as usize])
        }
        Op::Scatter(mode, axis) => {
            if shape.size() == 0 {
                return Ok(());
            }
            fill(out, |_| Scalar::I64(0));
            // SAFETY: contiguous values of inferred shapes.
            let bad =
                unsafe { ops::scatter_elements(*mode, *axis as usize, &args[0].view(), &args[1].view(), &out.view()) };
            range_error(bad, shape[*axis as usize])
        }
        Op::Contract => contract(args[0], args[1], out),
        Op::Conv(spec, role) => {
            let shapes = [&args[0].ty.shape, &args[1].ty.shape];
            if shape.size() == 0 {
                return Ok(());
            }
            let conv = Convolution::new(spec, *role, from, shapes, shape)?;
            let workspace = Buffer::new(conv.workspace())?;
            // SAFETY: contiguous values of verified types.
            interrupted(unsafe { conv.run([args[0].ptr(), args[1].ptr()], out.ptr(), workspace.as_mut_ptr()) })
        }
        Op::Pool(sweeps, role) => {
            let (pool, last) = (ops::pool::extents(sweeps, *role, &args[0].ty.shape, shape), args[args.len() - 1]);
            let taps = if args.len() == 1 { out.ty.dtype } else { last.ty.dtype };
            // SAFETY: as above.
            interrupted(unsafe { ops::pool::run(&pool, *role, (from, taps), [args[0].ptr(), last.ptr()], out.ptr()) })
        }
        Op::Random(def) => {
            let fill = (def.fill)(out.ty.dtype).ok_or_else(|| refused(out.ty.dtype))?;
            let (seed, stream) = (args[0].number() as u64, args[1].number() as u64);
            // SAFETY: the result holds as many elements.
            unsafe { fill(seed, stream, 0, shape.size(), out.ptr()) };
            Ok(())
        }
        _ => Err(Error::internal("is not a primitive op")),
    }
}

fn refused(dtype: DType) -> Error {
    Error::dtype(format!("{dtype} is not supported"))
}

fn range_error(bad: Option<i64>, extent: usize) -> Result<()> {
    match bad {
        Some(index) => Err(Error::index(format!("index {index} is out of range for {extent} elements"))),
        None => Ok(()),
    }
}

fn map(kernels: Option<&'static Kernels>, args: &[&Value], out: &Value) -> Result<()> {
    let kernels = kernels.ok_or_else(|| refused(args[0].ty.dtype))?;
    let args: Vec<Arg> = args.iter().map(|arg| Arg { ptr: arg.ptr(), scalar: false }).collect();
    // SAFETY: equal shapes, own buffers.
    unsafe { kernels[isa() as usize](out.ty.shape.size(), out.ptr(), &args) };
    Ok(())
}

fn reduce_axes(kernels: &ReduceKernels, from: &Value, axes: u32, out: &Value) -> Result<()> {
    let dtype = out.ty.dtype;
    let mut value = Value { ty: TensorType { dtype, shape: from.ty.shape.clone() }, ..from.clone() };
    for ReduceStep { outer, len, inner } in reduce_steps(&from.ty.shape, axes) {
        let next = Value::new(&TensorType::new(dtype, [outer, inner]))?;
        let partials = Value::new(&TensorType::new(dtype, [len.div_ceil(CHUNK_ROWS), inner]))?;
        // SAFETY: the buffers have these extents.
        unsafe {
            match inner {
                1 => kernels.rows[isa() as usize](outer, len, value.ptr(), next.ptr()),
                _ => reduce::outer(kernels, (outer, len, inner), dtype.size(), value.ptr(), partials.ptr(), next.ptr()),
            }
        }
        value = next;
    }
    // SAFETY: as many elements as the result has.
    unsafe { out.ptr().copy_from_nonoverlapping(value.ptr(), out.ty.bytes()) };
    Ok(())
}

fn rearrange(layout: &Layout, args: &[&Value], out: &Value) -> Result<()> {
    let mut from = args[0].view();
    match layout {
        Layout::Broadcast => {
            let added = out.ty.shape.rank() - from.shape.rank();
            let strides = (0..out.ty.shape.rank()).map(|axis| match axis.checked_sub(added) {
                Some(old) if from.shape[old] == out.ty.shape[axis] => from.strides[old],
                _ => 0,
            });
            from.strides = strides.collect();
        }
        Layout::Reshape => from = View::contiguous(from.ptr, from.dtype, out.ty.shape.clone()),
        Layout::Permute(perm) => from.strides = perm.iter().map(|&axis| from.strides[axis as usize]).collect(),
        Layout::Slice(dims) => {
            check_starts(dims, args, &args[0].ty.shape)?;
            from = window(&from, dims, args);
        }
    }
    from.shape = out.ty.shape.clone();
    // SAFETY: the strides name elements of the operand only.
    unsafe { view::copy(&from, &out.view()) };
    Ok(())
}

/// The view from the starts (all inputs but the first) on, by the steps of `dims`.
fn window(whole: &View, dims: &[SliceDim], args: &[&Value]) -> View {
    let mut window = whole.clone();
    for (dim, start) in dims.iter().zip(&args[1..]) {
        let axis = dim.axis as usize;
        if dim.length > 0 {
            let skip = start.number() as isize * whole.strides[axis] * whole.dtype.size() as isize;
            window.ptr = window.ptr.wrapping_offset(skip);
        }
        window.strides[axis] *= dim.step;
    }
    window
}

fn check_starts(dims: &[SliceDim], args: &[&Value], field: &Shape) -> Result<()> {
    for (dim, start) in dims.iter().zip(&args[1..]).filter(|(dim, _)| dim.length > 0) {
        let extent = field[dim.axis as usize] as i64;
        let (first, last) = (start.number(), start.number() + (dim.length as i64 - 1) * dim.step as i64);
        if !(0..extent).contains(&first) || !(0..extent).contains(&last) {
            return Err(Error::index(format!("start {first} is out of range for an axis of {extent}")));
        }
    }
    Ok(())
}

fn contract(a: &Value, b: &Value, out: &Value) -> Result<()> {
    let rank = out.ty.shape.rank();
    let (m, n, k) = (out.ty.shape[rank - 2], out.ty.shape[rank - 1], a.ty.shape[rank - 1]);
    let batch: usize = out.ty.shape[..rank - 2].iter().product();
    // SAFETY: contiguous operands of these extents.
    unsafe {
        match out.ty.dtype {
            DType::F32 => float::<f32>(batch, (m, k, n), [a, b, out]),
            DType::F64 => float::<f64>(batch, (m, k, n), [a, b, out]),
            dtype => {
                whole(dtype, batch, (m, k, n), [a, b, out]);
                Ok(())
            }
        }
    }
}

unsafe fn float<T: Element>(batch: usize, (m, k, n): (usize, usize, usize), [a, b, out]: [&Value; 3]) -> Result<()> {
    let a = Mat { ptr: a.ptr().cast::<T>().cast_const(), rs: k as isize, cs: 1 };
    let b = Mat { ptr: b.ptr().cast::<T>().cast_const(), rs: n as isize, cs: 1 };
    let c = MatMut { ptr: out.ptr().cast::<T>(), rs: n as isize, cs: 1 };
    let steps = [(m * k) as isize, (k * n) as isize, (m * n) as isize];
    // SAFETY: the caller's promise.
    interrupted(unsafe { gemm(batch, (m, k, n), (a, steps[0]), (b, steps[1]), (c, steps[2]), isa()) })
}

fn interrupted(result: std::result::Result<(), Stopped>) -> Result<()> {
    result.map_err(|Stopped| Error::new(crate::error::ErrorKind::Interrupted, "the run was interrupted"))
}

/// Integer products by plain loops that wrap to the dtype.
fn whole(dtype: DType, batch: usize, (m, k, n): (usize, usize, usize), [a, b, out]: [&Value; 3]) {
    let size = dtype.size();
    let read = |value: &Value, i: usize| {
        // SAFETY: element i of a contiguous value.
        let bytes = unsafe { std::slice::from_raw_parts(value.ptr().add(i * size), size) };
        Scalar::from_bytes(dtype, bytes).as_i64()
    };
    fill(out, |at| {
        let (item, row, column) = (at / (m * n), at / n % m, at % n);
        debug_assert!(item < batch);
        let terms =
            (0..k).map(|i| read(a, (item * m + row) * k + i).wrapping_mul(read(b, (item * k + i) * n + column)));
        Scalar::I64(terms.fold(0, i64::wrapping_add))
    });
}
