//! Tests of plans and executors: a plan must agree with the unfused executor in every bit.

mod attention;
mod fuzz;
#[cfg(feature = "gpu")]
mod gpu;
mod limits;
mod ops;
mod plans;
mod shaders;
mod stages;
mod together;
mod verify;

use crate::device_id::DeviceId;
use crate::dtype::DType;
use crate::error::Result;
use crate::exec::{Donation, Inputs, Leaf, Plan, build, run, unfused};
use crate::graph::{Graph, Op, Source, TensorType, Val};
use crate::machine::cpu::buffer::Buffer;
use crate::machine::storage::Storage;
use crate::scalar::Scalar;
use crate::shape::{Shape, Strides};
use std::sync::Arc;

/// A graph with the inputs of a run.
#[derive(Default, Clone)]
pub struct Case {
    pub graph: Graph,
    pub leaves: Vec<Leaf>,
    pub strides: Vec<Strides>,
    pub numbers: Vec<Scalar>,
}

impl Case {
    /// A leaf with row-major elements made by `f`.
    pub fn leaf(&mut self, dtype: DType, shape: &[usize], f: impl Fn(usize) -> f64) -> Val {
        let shape = Shape::new(shape);
        let strides = shape.strides();
        let data: Vec<f64> = (0..shape.size()).map(f).collect();
        self.strided(dtype, &shape, strides, 0, &data)
    }

    pub fn strided(&mut self, dtype: DType, shape: &Shape, strides: Strides, offset: usize, data: &[f64]) -> Val {
        let mut bytes = Vec::new();
        for &x in data {
            let x = if dtype.is_float() { Scalar::F64(x) } else { Scalar::I64(x as i64) };
            bytes.extend_from_slice(&x.to_bytes(dtype)[..dtype.size()]);
        }
        let buffer = Arc::new(Buffer::from_bytes(&bytes).unwrap().into());
        self.leaves.push(Leaf { buffer, offset });
        self.strides.push(strides);
        let slot = self.leaves.len() as u32 - 1;
        let ty = TensorType { dtype, shape: shape.clone() };
        self.graph.add_typed(Op::Source(Source::Leaf(slot)), &[], ty)
    }

    pub fn number(&mut self, x: impl Into<Scalar>, dtype: DType) -> Val {
        self.numbers.push(x.into());
        let slot = self.numbers.len() as u32 - 1;
        self.graph.add_typed(Op::Source(Source::Number(slot)), &[], TensorType::scalar(dtype))
    }

    pub fn inputs(&self) -> Inputs<'_> {
        Inputs { leaves: &self.leaves, numbers: &self.numbers }
    }

    pub fn plan(&self, donations: &[Donation]) -> Plan {
        build(&self.graph, &[], &self.strides, donations).unwrap()
    }

    pub fn run(&self, plan: &Plan) -> Result<Vec<Arc<Storage>>> {
        run(plan, &self.inputs())
    }

    pub fn unfused(&self) -> Result<Vec<Arc<Storage>>> {
        unfused::run(&self.graph, &[], &self.strides, &self.inputs())
    }

    /// Whether each output of the plan has the bits of the unfused executor.
    pub fn check(&self) -> Plan {
        let plan = self.plan(&[]);
        let (ours, theirs) = (self.run(&plan).unwrap(), self.unfused().unwrap());
        for (at, (x, y)) in ours.iter().zip(&theirs).enumerate() {
            let ty = self.graph.ty(self.graph.outputs[at]);
            if let Some((i, x, y)) = difference(ty.dtype, x, y, ty.shape.size()) {
                panic!("output {at} ({ty}), element {i}: {x:?} instead of {y:?}\n{}\n{plan}", self.graph);
            }
        }
        plan
    }
}

/// The dtype of the elements of a leaf.
pub fn dtype(case: &Case, slot: usize) -> DType {
    let is_leaf = |op: &Op| matches!(op, Op::Source(Source::Leaf(of)) if *of as usize == slot);
    case.graph.nodes.iter().find(|node| is_leaf(&node.op)).map_or(DType::F32, |node| node.outputs[0].dtype)
}

/// The graph with float32 for every float64: devices have no other.
pub fn single(mut case: Case) -> Case {
    for slot in 0..case.leaves.len() {
        if dtype(&case, slot) == DType::F64 {
            let buffer = &case.leaves[slot].buffer;
            // SAFETY: the buffer holds this many elements.
            let doubles =
                unsafe { std::slice::from_raw_parts(buffer.host().as_ptr().cast::<f64>(), buffer.bytes() / 8) };
            let bytes: Vec<u8> = doubles.iter().flat_map(|&x| (x as f32).to_ne_bytes()).collect();
            case.leaves[slot].buffer = Arc::new(Storage::upload(DeviceId::Cpu, &bytes, DType::F32).unwrap());
        }
    }
    for node in &mut case.graph.nodes {
        node.outputs.iter_mut().filter(|ty| ty.dtype == DType::F64).for_each(|ty| ty.dtype = DType::F32);
        if let Op::Cast(to @ DType::F64) = &mut node.op {
            *to = DType::F32;
        }
    }
    case
}

pub fn floats(storage: &Storage) -> Vec<f32> {
    let buffer = storage.host();
    // SAFETY: the buffer holds this many floats.
    unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast(), buffer.len() / 4) }.to_vec()
}

/// The elements of a buffer.
pub fn scalars(storage: &Storage, dtype: DType, n: usize) -> Vec<Scalar> {
    // SAFETY: the buffer holds n elements of this dtype.
    let bytes = unsafe { std::slice::from_raw_parts(storage.host().as_ptr(), n * dtype.size()) };
    bytes.chunks_exact(dtype.size()).map(|element| Scalar::from_bytes(dtype, element)).collect()
}

/// The first element whose bits differ; NaNs count as equal.
pub fn difference(dtype: DType, x: &Storage, y: &Storage, n: usize) -> Option<(usize, Scalar, Scalar)> {
    let size = dtype.size();
    let at = |storage: &Storage, i: usize| {
        // SAFETY: both buffers hold n elements.
        let bytes = unsafe { std::slice::from_raw_parts(storage.host().as_ptr().add(i * size), size) };
        Scalar::from_bytes(dtype, bytes)
    };
    (0..n).map(|i| (i, at(x, i), at(y, i))).find(|(_, x, y)| x != y && !(x.as_f64().is_nan() && y.as_f64().is_nan()))
}
