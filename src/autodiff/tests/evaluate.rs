//! A node-by-node evaluator of primitive graphs in float64: plain loops over index tuples, no kernels.

use crate::dtype::DType;
use crate::graph::{GatherMode, Graph, Layout, Op, SliceDim, Source, TensorType};
use crate::shape::Shape;

/// A tensor of any dtype; every number is held as f64.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    pub ty: TensorType,
    pub data: Vec<f64>,
}

impl Value {
    pub fn new(dtype: DType, shape: impl Into<Shape>, data: Vec<f64>) -> Value {
        let ty = TensorType::new(dtype, shape);
        assert_eq!(ty.shape.size(), data.len());
        Value { ty, data }
    }

    pub fn floats(shape: impl Into<Shape>, data: &[f64]) -> Value {
        Value::new(DType::F64, shape, data.to_vec())
    }

    pub fn ints(shape: impl Into<Shape>, data: &[i64]) -> Value {
        Value::new(DType::I64, shape, data.iter().map(|&x| x as f64).collect())
    }

    pub fn number(x: f64) -> Value {
        Value::floats([], &[x])
    }

    pub fn dot(&self, other: &Value) -> f64 {
        self.data.iter().zip(&other.data).map(|(x, y)| x * y).sum()
    }
}

/// The values of the graph's outputs when leaf `i` holds `leaves[i]`.
pub fn evaluate(graph: &Graph, leaves: &[Value]) -> Vec<Value> {
    let mut values: Vec<Value> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let inputs: Vec<&Value> = node.inputs.iter().map(|val| &values[val.node as usize]).collect();
        let data = compute(&node.op, &inputs, &node.outputs[0], leaves);
        assert_eq!(data.len(), node.outputs[0].shape.size(), "{}", node.op.name());
        values.push(Value { ty: node.outputs[0].clone(), data });
    }
    graph.outputs.iter().map(|val| values[val.node as usize].clone()).collect()
}

fn compute(op: &Op, inputs: &[&Value], out: &TensorType, leaves: &[Value]) -> Vec<f64> {
    match op {
        Op::Source(Source::Leaf(slot)) => {
            assert_eq!(leaves[*slot as usize].ty, *out);
            leaves[*slot as usize].data.clone()
        }
        Op::Source(Source::Full(value)) => vec![value.as_f64(); out.shape.size()],
        Op::Source(Source::Iota) => (0..out.shape.size()).map(|i| i as f64).collect(),
        Op::Unary(def) => inputs[0].data.iter().map(|&x| (def.reference)(x)).collect(),
        Op::Binary(def) => inputs[0].data.iter().zip(&inputs[1].data).map(|(&x, &y)| (def.reference)(x, y)).collect(),
        Op::Select => (0..out.shape.size())
            .map(|i| if inputs[0].data[i] != 0.0 { inputs[1].data[i] } else { inputs[2].data[i] })
            .collect(),
        Op::Cast(dtype) => inputs[0].data.iter().map(|&x| cast(x, *dtype)).collect(),
        Op::Reduce(def, axes) => {
            let mut result: Vec<Option<f64>> = vec![None; out.shape.size()];
            for (i, index) in indices(&inputs[0].ty.shape).enumerate() {
                let kept: Vec<usize> =
                    index.iter().enumerate().filter(|(axis, _)| axes >> axis & 1 == 0).map(|(_, &i)| i).collect();
                let slot = &mut result[flat(&out.shape, &kept)];
                let x = inputs[0].data[i];
                *slot = Some(slot.map_or(x, |y| (def.reference)(y, x)));
            }
            result.into_iter().map(|x| x.or(def.empty).unwrap()).collect()
        }
        Op::Layout(layout) => layout_of(layout, inputs, out),
        Op::Embed(dims) => {
            let mut result = vec![0.0; out.shape.size()];
            for (i, index) in indices(&inputs[0].ty.shape).enumerate() {
                result[flat(&out.shape, &placed(&index, dims, &inputs[1..]))] = inputs[0].data[i];
            }
            result
        }
        Op::Concat(axis) => concat(*axis as usize, inputs, out),
        Op::Gather(mode, axis) => {
            let shape = &inputs[0].ty.shape;
            let along = shape[*axis as usize];
            indices(&out.shape)
                .map(|index| inputs[0].data[flat(shape, &source(*mode, *axis as usize, &index, inputs[1], along))])
                .collect()
        }
        Op::Scatter(mode, axis) => {
            let mut result = vec![0.0; out.shape.size()];
            let along = out.shape[*axis as usize];
            for (i, index) in indices(&inputs[0].ty.shape).enumerate() {
                result[flat(&out.shape, &source(*mode, *axis as usize, &index, inputs[1], along))] += inputs[0].data[i];
            }
            result
        }
        Op::Contract => contract(inputs, out),
        Op::Conv(spec, role) => {
            let mut result = vec![0.0; out.shape.size()];
            let args = [0, 1].map(|i| (&inputs[i].ty.shape, inputs[i].data.as_slice()));
            crate::ops::conv::reference(spec, *role, args, &out.shape, &mut result);
            result
        }
        Op::Pool(sweeps, role) => {
            let mut result = vec![0.0; out.shape.size()];
            let pool = crate::ops::pool::extents(sweeps, *role, &inputs[0].ty.shape, &out.shape);
            let taps = inputs.get(1).map_or(&[][..], |taps| &taps.data);
            crate::ops::pool::reference(&pool, *role, &inputs[0].data, taps, &mut result);
            result
        }
        Op::Random(def) => {
            // Any function of seed, stream and position serves the rules that are tested here.
            let unit = |i: usize| {
                let word = (inputs[0].data[0] * 7919.0 + inputs[1].data[0] * 104_729.0 + i as f64 * 31.7).sin();
                (word * 43_758.545).rem_euclid(1.0)
            };
            let scale = if def.name == "random_bits" { 1e9 } else { 1.0 };
            (0..out.shape.size()).map(|i| if scale > 1.0 { (unit(i) * scale).floor() } else { unit(i) }).collect()
        }
        op => panic!("{} is not primitive", op.name()),
    }
}

fn cast(x: f64, dtype: DType) -> f64 {
    match dtype {
        DType::Bool => f64::from(u8::from(x != 0.0)),
        DType::U8 => f64::from(x as u8),
        DType::I32 => f64::from(x as i32),
        DType::I64 => x as i64 as f64,
        DType::F32 => f64::from(x as f32),
        DType::F64 => x,
    }
}

fn layout_of(layout: &Layout, inputs: &[&Value], out: &TensorType) -> Vec<f64> {
    let x = inputs[0];
    let at = |index: &[usize]| x.data[flat(&x.ty.shape, index)];
    match layout {
        Layout::Reshape => x.data.clone(),
        Layout::Broadcast => indices(&out.shape)
            .map(|index| {
                let own = &index[index.len() - x.ty.shape.rank()..];
                let own: Vec<usize> = own.iter().zip(x.ty.shape.iter()).map(|(&i, &dim)| i.min(dim - 1)).collect();
                at(&own)
            })
            .collect(),
        Layout::Permute(perm) => indices(&out.shape)
            .map(|index| {
                let mut from = vec![0; index.len()];
                perm.iter().enumerate().for_each(|(i, &axis)| from[axis as usize] = index[i]);
                at(&from)
            })
            .collect(),
        Layout::Slice(dims) => indices(&out.shape).map(|index| at(&placed(&index, dims, &inputs[1..]))).collect(),
    }
}

/// Where an index of a slice lies in the tensor it was taken from.
fn placed(index: &[usize], dims: &[SliceDim], starts: &[&Value]) -> Vec<usize> {
    let mut index = index.to_vec();
    for (dim, start) in dims.iter().zip(starts) {
        let at = &mut index[dim.axis as usize];
        *at = (start.data[0] as isize + *at as isize * dim.step) as usize;
    }
    index
}

fn concat(axis: usize, inputs: &[&Value], out: &TensorType) -> Vec<f64> {
    indices(&out.shape)
        .map(|mut index| {
            let mut part = 0;
            while index[axis] >= inputs[part].ty.shape[axis] {
                index[axis] -= inputs[part].ty.shape[axis];
                part += 1;
            }
            inputs[part].data[flat(&inputs[part].ty.shape, &index)]
        })
        .collect()
}

/// The index in the large tensor that belongs to `index` in the gathered one.
fn source(mode: GatherMode, axis: usize, index: &[usize], picks: &Value, along: usize) -> Vec<usize> {
    let wrap = |pick: f64| if pick < 0.0 { (pick + along as f64) as usize } else { pick as usize };
    match mode {
        GatherMode::Along => {
            let mut from = index.to_vec();
            from[axis] = wrap(picks.data[flat(&picks.ty.shape, index)]);
            from
        }
        GatherMode::Take => {
            let rank = picks.ty.shape.rank();
            let pick = wrap(picks.data[flat(&picks.ty.shape, &index[axis..axis + rank])]);
            [&index[..axis], &[pick], &index[axis + rank..]].concat()
        }
    }
}

fn contract(inputs: &[&Value], out: &TensorType) -> Vec<f64> {
    let (a, b) = (inputs[0], inputs[1]);
    let rank = out.shape.rank();
    indices(&out.shape)
        .map(|index| {
            (0..a.ty.shape[rank - 1])
                .map(|k| {
                    let (mut left, mut right) = (index.clone(), index.clone());
                    left[rank - 1] = k;
                    right[rank - 2] = k;
                    a.data[flat(&a.ty.shape, &left)] * b.data[flat(&b.ty.shape, &right)]
                })
                .sum()
        })
        .collect()
}

/// Every index of a shape in row-major order.
pub fn indices(shape: &Shape) -> impl Iterator<Item = Vec<usize>> + use<> {
    let shape = shape.clone();
    (0..shape.size()).map(move |mut flat| {
        let mut index = vec![0; shape.rank()];
        for axis in (0..shape.rank()).rev() {
            index[axis] = flat % shape[axis];
            flat /= shape[axis];
        }
        index
    })
}

fn flat(shape: &Shape, index: &[usize]) -> usize {
    assert_eq!(shape.rank(), index.len());
    shape.iter().zip(index).fold(0, |flat, (&dim, &i)| {
        assert!(i < dim, "index {index:?} is outside {shape}");
        flat * dim + i
    })
}
