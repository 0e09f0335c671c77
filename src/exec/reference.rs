//! The reference: every float in float64, every op by its definition's `reference` and plain loops, node by node. It
//! shares no kernel with the plan where floats are computed, so the distance to it bounds a plan's error. Integers and
//! bools are exact. A constant or number is first rounded to the dtype that the graph gives it.

use super::cpu::{Inputs, Leaf};
use super::unfused::{Value, nodes};
use crate::autodiff::{HandKernels, Known, expand_to};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Graph, Op, Source};
use crate::machine::cpu::buffer::Buffer;
use crate::machine::storage::Storage;
use crate::ops;
use crate::scalar::Scalar;
use crate::shape::Strides;
use std::sync::Arc;

/// Runs the graph; float outputs come as float64, the others in their own dtype.
pub fn run(graph: &Graph, known: &Known, leaf_strides: &[Strides], inputs: &Inputs) -> Result<Vec<Arc<Storage>>> {
    let graph = expand_to(graph, known, HandKernels::Expand)?;
    let wide = widen(&graph);
    let leaves = inputs.leaves.iter().enumerate().map(|(slot, leaf)| widen_leaf(&graph, slot as u32, leaf));
    let leaves = leaves.collect::<Result<Vec<_>>>()?;
    let inputs = Inputs { leaves: &leaves, numbers: inputs.numbers };
    let values = nodes(&wide, leaf_strides, &inputs, &|index, args, out| compute(&graph, &inputs, index, args, out))?;
    Ok(graph.outputs.iter().map(|val| Arc::clone(&values[val.node as usize][0].buffer)).collect())
}

/// The same graph with float64 for every float.
fn widen(graph: &Graph) -> Graph {
    let mut wide = graph.clone();
    for node in &mut wide.nodes {
        node.outputs.iter_mut().filter(|ty| ty.dtype.is_float()).for_each(|ty| ty.dtype = DType::F64);
        if let Op::Cast(to) = &mut node.op {
            *to = if to.is_float() { DType::F64 } else { *to };
        }
    }
    wide
}

/// The whole buffer of a leaf, float32 elements as float64.
fn widen_leaf(graph: &Graph, slot: u32, leaf: &Leaf) -> Result<Leaf> {
    let is_single = |node: &crate::graph::Node| {
        matches!(node.op, Op::Source(Source::Leaf(s)) if s == slot) && node.outputs[0].dtype == DType::F32
    };
    if !graph.nodes.iter().any(is_single) {
        return Ok(leaf.clone());
    }
    let single = leaf.buffer.host();
    let n = single.len() / 4;
    let wide = Buffer::new(n * 8)?;
    for i in 0..n {
        // SAFETY: element i of both buffers.
        unsafe { *wide.as_mut_ptr().cast::<f64>().add(i) = f64::from(*single.as_ptr().cast::<f32>().add(i)) };
    }
    Ok(Leaf { buffer: Arc::new(wide.into()), offset: leaf.offset })
}

#[allow(clippy::mut_from_ref, reason = "values are raw memory, as in every executor")]
fn floats(value: &Value) -> &mut [f64] {
    // SAFETY: float values are float64 here and contiguous; each is written once, before it is read.
    unsafe { std::slice::from_raw_parts_mut(value.ptr().cast(), value.ty.shape.size()) }
}

fn rounded(x: Scalar, dtype: DType) -> f64 {
    Scalar::from_bytes(dtype, &x.to_bytes(dtype)).as_f64()
}

/// Computes a node on floats; false leaves it to the kernels.
fn compute(graph: &Graph, inputs: &Inputs, index: usize, args: &[&Value], out: &Value) -> Result<bool> {
    let node = &graph.nodes[index];
    let dtype = node.outputs[0].dtype;
    let float_args = args.first().is_some_and(|arg| arg.ty.dtype.is_float());
    match &node.op {
        Op::Source(Source::Full(x)) if dtype.is_float() => floats(out).fill(rounded(*x, dtype)),
        Op::Source(Source::Number(slot)) if dtype.is_float() => {
            floats(out).fill(rounded(inputs.numbers[*slot as usize], dtype));
        }
        Op::Unary(def) if float_args && dtype.is_float() => {
            floats(out).iter_mut().zip(&*floats(args[0])).for_each(|(y, &x)| *y = (def.reference)(x));
        }
        Op::Binary(def) if float_args && dtype.is_float() => {
            let operands = floats(args[0]).iter().zip(&*floats(args[1]));
            floats(out).iter_mut().zip(operands).for_each(|(z, (&x, &y))| *z = (def.reference)(x, y));
        }
        Op::Reduce(def, axes) if float_args && args[0].ty.shape.size() > 0 => {
            let shape = &args[0].ty.shape;
            let strides = shape.without(*axes).strides();
            let mut seen = vec![false; out.ty.shape.size()];
            for (i, &x) in floats(args[0]).iter().enumerate() {
                let (mut rest, mut at, mut kept) = (i, 0, strides.len());
                for axis in (0..shape.rank()).rev() {
                    if axes >> axis & 1 == 0 {
                        kept -= 1;
                        at += rest % shape[axis] * strides[kept] as usize;
                    }
                    rest /= shape[axis];
                }
                let y = &mut floats(out)[at];
                *y = if seen[at] { (def.reference)(*y, x) } else { x };
                seen[at] = true;
            }
        }
        Op::Contract if float_args => contract(args, out),
        Op::Conv(spec, role) => {
            let inputs = [0, 1].map(|i| (&args[i].ty.shape, &*floats(args[i])));
            ops::conv::reference(spec, *role, inputs, &out.ty.shape, floats(out));
        }
        Op::Pool(sweeps, role) if dtype.is_float() => {
            let pool = ops::pool::extents(sweeps, *role, &args[0].ty.shape, &out.ty.shape);
            let taps = args.get(1).map_or(Vec::new(), |taps| taps.numbers());
            ops::pool::reference(&pool, *role, floats(args[0]), &taps, floats(out));
        }
        Op::Random(def) if dtype == DType::F32 => {
            let fill = (def.fill)(dtype).ok_or_else(|| Error::internal("a random op without a kernel"))?;
            let mut single = vec![0f32; out.ty.shape.size()];
            // SAFETY: seed and stream are int64 values; the vector holds as many elements.
            unsafe {
                let (seed, stream) = (*args[0].ptr().cast::<u64>(), *args[1].ptr().cast::<u64>());
                fill(seed, stream, 0, single.len(), single.as_mut_ptr().cast());
            }
            floats(out).iter_mut().zip(single).for_each(|(y, x)| *y = f64::from(x));
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn contract(args: &[&Value], out: &Value) {
    let (a, b, c) = (floats(args[0]), floats(args[1]), floats(out));
    let shape = &out.ty.shape;
    let (m, n) = (shape[shape.rank() - 2], shape[shape.rank() - 1]);
    let k = args[0].ty.shape[shape.rank() - 1];
    for (at, sum) in c.iter_mut().enumerate() {
        let (item, row, column) = (at / (m * n), at / n % m, at % n);
        *sum = (0..k).map(|i| a[(item * m + row) * k + i] * b[(item * k + i) * n + column]).sum();
    }
}
