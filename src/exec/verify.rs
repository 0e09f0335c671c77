//! Checks the ops of a plan on several devices: each op alone, on the values that it has in this run, against its
//! definition in float64. So one wrong kernel is found where it stands, not where its error ends up.

use super::cpu::{Inputs, Leaf};
use super::device::DevicePlan;
use super::reference;
use super::unfused::{Value, nodes};
use crate::autodiff::{HandKernels, Known, expand_to};
use crate::device_id::DeviceId;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Derivative, Graph, Node, Op, PoolRole, Source, TensorType, Val};
use crate::machine::cpu::buffer::Buffer;
use crate::machine::storage::Storage;
use crate::planner;
use crate::scalar::Scalar;
use crate::shape::Strides;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Where an op gave another value than its bound allows.
#[derive(Clone, Debug)]
pub struct Divergence {
    pub op: &'static str,
    pub device: DeviceId,
    pub ty: TensorType,
    /// The worst element, in row-major order, what the device gave, and what the definition gives.
    pub element: usize,
    pub got: f64,
    pub want: f64,
    pub bound: f64,
    /// The operands: their types and first elements.
    pub inputs: Vec<(TensorType, Vec<f64>)>,
}

/// How often an op was checked on a device, and its largest error as a part of its bound.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Checked {
    pub times: u64,
    pub worst: f64,
}

/// What was checked, and the first divergence.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub ops: BTreeMap<(&'static str, DeviceId), Checked>,
    pub first: Option<Divergence>,
}

/// Elements of an operand that a divergence shows.
const SHOWN: usize = 8;

/// Checks every op of the graph, its gradients expanded, on each device. The leaves lie on the host.
pub fn verify(
    graph: &Graph,
    known: &Known,
    leaf_strides: &[Strides],
    inputs: &Inputs,
    devices: &[DeviceId],
    report: &mut Report,
) -> Result<()> {
    let graph = planner::simplify(expand_to(graph, known, HandKernels::Expand)?)?;
    let values = nodes(&graph, leaf_strides, inputs, &|_, _, _| Ok(false))?;
    for (index, node) in graph.nodes.iter().enumerate() {
        if matches!(node.op, Op::Source(_)) || node.outputs[0].shape.size() == 0 {
            continue;
        }
        let args = node.inputs.iter().map(|val| &values[val.node as usize][val.output as usize]).collect();
        let alone = Alone::new(&graph, node, args, inputs.numbers);
        let want = alone.reference(|x| x)?;
        let scale = alone.scale(&values[index][0])?;
        for &device in devices {
            let got = alone.run(device)?;
            let ulps = alone.ulps(device);
            let bounds =
                want.iter().zip(&scale).map(|(want, scale)| ulps * spacing(*want, node.outputs[0].dtype) + scale);
            alone.compare(device, &got, &want, bounds, report);
        }
    }
    Ok(())
}

/// The distance of neighbouring numbers near x.
fn spacing(x: f64, dtype: DType) -> f64 {
    match dtype {
        DType::F32 => x.abs().max(f64::from(f32::MIN_POSITIVE)) * f64::from(f32::EPSILON),
        DType::F64 => x.abs().max(f64::MIN_POSITIVE) * f64::EPSILON,
        _ => 0.0,
    }
}

/// One op with its operands as leaves; numbers stay numbers, because starts and seeds must be.
struct Alone<'a> {
    node: &'a Node,
    graph: Graph,
    args: Vec<&'a Value>,
    leaves: Vec<Leaf>,
    strides: Vec<Strides>,
    numbers: &'a [Scalar],
}

impl<'a> Alone<'a> {
    fn new(whole: &Graph, node: &'a Node, args: Vec<&'a Value>, numbers: &'a [Scalar]) -> Alone<'a> {
        let mut alone = Alone { node, graph: Graph::new(), args, leaves: Vec::new(), strides: Vec::new(), numbers };
        let mut inputs: Vec<Val> = Vec::with_capacity(node.inputs.len());
        for (&val, value) in node.inputs.iter().zip(&alone.args) {
            let made_by = &whole.node(val).op;
            let op = match made_by {
                Op::Source(Source::Number(_) | Source::Full(_)) => made_by.clone(),
                _ => {
                    alone.leaves.push(Leaf { buffer: Arc::clone(&value.buffer), offset: 0 });
                    alone.strides.push(value.ty.shape.strides());
                    Op::Source(Source::Leaf(alone.leaves.len() as u32 - 1))
                }
            };
            inputs.push(alone.graph.add_typed(op, &[], value.ty.clone()));
        }
        let made = alone.graph.push_typed(node.op.clone(), &inputs, node.outputs.clone());
        alone.graph.outputs = alone.graph.nodes[made as usize].vals(made).to_vec();
        alone
    }

    /// The types of the leaves, in order.
    fn leaf_types(&self) -> impl Iterator<Item = &TensorType> {
        let leaves = self.graph.nodes.iter().filter(|node| matches!(node.op, Op::Source(Source::Leaf(_))));
        leaves.map(|node| &node.outputs[0])
    }

    /// The first output as the definition gives it, after `change` was made to each float of the leaves.
    fn reference(&self, change: impl Fn(f64) -> f64) -> Result<Vec<f64>> {
        let mut leaves = Vec::with_capacity(self.leaves.len());
        for (ty, leaf) in self.leaf_types().zip(&self.leaves) {
            let value = Value { buffer: Arc::clone(&leaf.buffer), ty: ty.clone() };
            leaves.push(if ty.dtype.is_float() {
                let changed = value.numbers().into_iter().map(|x| Scalar::F64(change(x)).to_bytes(ty.dtype));
                let bytes: Vec<u8> = changed.flat_map(|bytes| bytes.into_iter().take(ty.dtype.size())).collect();
                Leaf { buffer: Arc::new(Buffer::from_bytes(&bytes)?.into()), offset: 0 }
            } else {
                leaf.clone()
            });
        }
        let inputs = Inputs { leaves: &leaves, numbers: self.numbers };
        let outputs = reference::run(&self.graph, &[], &self.strides, &inputs)?;
        let ty = &self.node.outputs[0];
        let dtype = if ty.dtype.is_float() { DType::F64 } else { ty.dtype };
        Ok(Value { buffer: Arc::clone(&outputs[0]), ty: TensorType { dtype, shape: ty.shape.clone() } }.numbers())
    }

    fn run(&self, device: DeviceId) -> Result<Vec<f64>> {
        let plan = DevicePlan::build(device, &self.graph, &[], &self.strides, &[])?;
        let move_to = |(leaf, ty): (&Leaf, &TensorType)| {
            let host = leaf.buffer.host();
            // SAFETY: the buffer of a contiguous value is as long as its type says.
            let bytes = unsafe { std::slice::from_raw_parts(host.as_ptr(), ty.bytes()) };
            Ok(Leaf { buffer: Arc::new(Storage::upload(device, bytes, ty.dtype)?), offset: 0 })
        };
        let leaves = self.leaves.iter().zip(self.leaf_types()).map(move_to).collect::<Result<Vec<_>>>()?;
        let made = plan.run(&Inputs { leaves: &leaves, numbers: self.numbers })?;
        let ty = &self.node.outputs[0];
        let read = made[0].download(ty.dtype, 0, ty.shape.size())?;
        Ok(Value { buffer: Arc::new(read.into()), ty: ty.clone() }.numbers())
    }

    /// The bound of a scalar function, in units in the last place of its result.
    fn ulps(&self, device: DeviceId) -> f64 {
        let on_gpu = !device.is_cpu();
        match &self.node.op {
            Op::Unary(def) => {
                if on_gpu {
                    def.gpu_ulp
                } else {
                    def.ulp
                }
            }
            Op::Binary(def) => {
                if on_gpu {
                    def.gpu_ulp
                } else {
                    def.ulp
                }
            }
            Op::Cast(_) => 0.5,
            Op::Random(_) => 16.0,
            _ => 0.0,
        }
    }

    /// What rounding may add to sums, for each element: n roundings of half a unit of the sum of magnitudes, in any order.
    fn scale(&self, made: &Value) -> Result<Vec<f64>> {
        let size = made.ty.shape.size();
        let sums = match &self.node.op {
            Op::Reduce(def, _) => matches!(def.derivative, Derivative::Linear { .. }),
            Op::Pool(_, role) => matches!(role, PoolRole::Mean(_) | PoolRole::Spread(_) | PoolRole::Place),
            Op::Contract | Op::Conv(..) | Op::Scatter(..) => true,
            _ => false,
        };
        if !sums || !made.ty.dtype.is_float() {
            return Ok(vec![0.0; size]);
        }
        let read: usize = self.args.iter().filter(|arg| arg.ty.dtype.is_float()).map(|arg| arg.ty.shape.size()).sum();
        let terms = match &self.node.op {
            // An average counts as one; no window is larger than the field.
            Op::Pool(..) => vec![read as f64; size],
            _ => self.reference(|_| 1.0)?,
        };
        let unit = spacing(1.0, made.ty.dtype) / 2.0;
        let magnitudes = self.reference(f64::abs)?;
        Ok(terms.iter().zip(magnitudes).map(|(n, sum)| (n + 2.0) * unit * sum).collect())
    }

    fn compare(
        &self,
        device: DeviceId,
        got: &[f64],
        want: &[f64],
        bounds: impl Iterator<Item = f64>,
        report: &mut Report,
    ) {
        let ty = &self.node.outputs[0];
        let mut worst = (0.0, 0, 0.0);
        for (element, ((&x, &y), bound)) in got.iter().zip(want).zip(bounds).enumerate() {
            let share = share(x, y, bound, ty.dtype);
            if share > worst.0 {
                worst = (share, element, bound);
            }
        }
        let op = self.node.op.name();
        let checked = report.ops.entry((op, device)).or_default();
        checked.times += 1;
        checked.worst = checked.worst.max(worst.0);
        if worst.0 > 1.0 && report.first.is_none() {
            let shown = |value: &&Value| (value.ty.clone(), value.numbers().into_iter().take(SHOWN).collect());
            let (element, bound) = (worst.1, worst.2);
            report.first = Some(Divergence {
                op,
                device,
                ty: ty.clone(),
                element,
                got: got[element],
                want: want[element],
                bound,
                inputs: self.args.iter().map(shown).collect(),
            });
        }
    }
}

/// An error as a part of its bound.
fn share(got: f64, want: f64, bound: f64, dtype: DType) -> f64 {
    // What rounds to infinity is infinite; devices may flush what is smaller than the smallest normal number.
    let rounded = if dtype == DType::F32 { f64::from(want as f32) } else { want };
    let error = (got - want).abs();
    let is_equal = got == want || got == rounded || (got.is_nan() && want.is_nan());
    if is_equal || (dtype == DType::F32 && error <= f64::from(f32::MIN_POSITIVE)) {
        0.0
    } else if bound > 0.0 && error.is_finite() {
        error / bound
    } else {
        f64::INFINITY
    }
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Divergence { op, device, ty, element, got, want, bound, inputs } = self;
        write!(f, "{op} on {device}: element {element} of {ty} is {got:e}, not {want:e} (bound {bound:.1e})")?;
        for (ty, first) in inputs {
            let more = if ty.shape.size() > first.len() { ", …" } else { "" };
            let first: Vec<String> = first.iter().map(|x| x.to_string()).collect();
            write!(f, "\n  operand {ty}: [{}{more}]", first.join(", "))?;
        }
        Ok(())
    }
}
