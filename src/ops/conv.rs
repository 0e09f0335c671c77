//! Convolutions: the trilinear form and its three derivatives, which are each other's transposes; and the op that users
//! call, which pads, adds a bias and says what does not fit.

use super::build::*;
use super::layout::{broadcast_to, reshape};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{
    Attrs, CompositeDef, ConvRole, ConvSpec, Derivative, Graph, Op, Reads, Rule, Sweep, Sweeps, TensorType, Val,
};
use crate::machine::cpu::conv::{Conv, Shape as Extents};
use crate::machine::cpu::isa::isa;
use crate::machine::cpu::par::Stopped;
use crate::machine::cpu::sweep::three;
use crate::shape::Shape;
use smallvec::{SmallVec, smallvec};

pub static DERIVATIVE: Derivative = Derivative::Bilinear([transpose, transpose]);

/// The arguments of the form that stand as inputs, in their order.
fn arguments(role: ConvRole) -> [ConvRole; 2] {
    match role {
        ConvRole::Output => [ConvRole::Input, ConvRole::Weight],
        ConvRole::Input => [ConvRole::Weight, ConvRole::Output],
        ConvRole::Weight => [ConvRole::Input, ConvRole::Output],
    }
}

/// T is linear in each argument: the cotangent takes the place of the result's own argument, and the derivative is taken
/// in that of the input.
fn transpose(g: &mut Graph, rule: &Rule, cotangents: &[Option<Val>], which: usize) -> Result<Val> {
    let (Op::Conv(spec, role), Some(cotangent)) = (rule.op, cotangents[0]) else {
        return Err(Error::internal("conv: no cotangent"));
    };
    let at = arguments(*role);
    let argument = |wanted: ConvRole| match at.iter().position(|&role| role == wanted) {
        Some(i) => rule.inputs[i],
        None => cotangent,
    };
    let ty = g.ty(rule.inputs[which]).clone();
    let inputs = arguments(at[which]).map(argument);
    Ok(g.add_typed(Op::Conv(spec.clone(), at[which]), &inputs, ty))
}

/// The extents of x, w and g, from the types of the inputs and the result.
pub fn extents(spec: &ConvSpec, role: ConvRole, inputs: [&Shape; 2], out: &Shape) -> Extents {
    let at = arguments(role);
    let shape = |wanted: ConvRole| at.iter().position(|&role| role == wanted).map_or(out, |i| inputs[i]);
    let (x, w, g) = (shape(ConvRole::Input), shape(ConvRole::Weight), shape(ConvRole::Output));
    Extents {
        batch: x[0],
        groups: spec.groups,
        inputs: w[1],
        outputs: w[0] / spec.groups,
        field: three(&x[2..], 1),
        grid: three(&g[2..], 1),
        sweeps: three(&spec.sweeps, Sweep::NONE),
    }
}

/// A convolution made ready for one dtype.
pub enum Convolution {
    Single(Conv<f32>),
    Double(Conv<f64>),
}

impl Convolution {
    pub fn new(spec: &ConvSpec, role: ConvRole, dtype: DType, inputs: [&Shape; 2], out: &Shape) -> Result<Convolution> {
        let extents = extents(spec, role, inputs, out);
        match dtype {
            DType::F32 => Ok(Convolution::Single(Conv::new(&extents, role, isa()))),
            DType::F64 => Ok(Convolution::Double(Conv::new(&extents, role, isa()))),
            dtype => Err(Error::dtype(format!("{dtype} is not supported"))),
        }
    }

    /// Multiply-adds of a run.
    pub fn work(spec: &ConvSpec, role: ConvRole, inputs: [&Shape; 2], out: &Shape) -> usize {
        extents(spec, role, inputs, out).work()
    }

    /// Bytes of working memory of a run.
    pub fn workspace(&self) -> usize {
        match self {
            Convolution::Single(conv) => conv.workspace() * 4,
            Convolution::Double(conv) => conv.workspace() * 8,
        }
    }

    /// # Safety
    /// The operands are contiguous and have the types that this was made for; `workspace` has room, and it and `out`
    /// overlap nothing.
    pub unsafe fn run(
        &self,
        [a, b]: [*mut u8; 2],
        out: *mut u8,
        workspace: *mut u8,
    ) -> std::result::Result<(), Stopped> {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Convolution::Single(conv) => conv.run(a.cast(), b.cast(), out.cast(), workspace.cast()),
                Convolution::Double(conv) => conv.run(a.cast(), b.cast(), out.cast(), workspace.cast()),
            }
        }
    }
}

/// The derivative by its definition, in float64.
pub fn reference(spec: &ConvSpec, role: ConvRole, inputs: [(&Shape, &[f64]); 2], shape: &Shape, out: &mut [f64]) {
    let extents = extents(spec, role, inputs.map(|input| input.0), shape);
    let place = |role: ConvRole| match role {
        ConvRole::Input => 0,
        ConvRole::Weight => 1,
        ConvRole::Output => 2,
    };
    let (at, [a, b]) = (place(role), arguments(role).map(place));
    out.fill(0.0);
    extents.terms(|index| out[index[at]] += inputs[0].1[index[a]] * inputs[1].1[index[b]]);
}

pub static CONV: CompositeDef = CompositeDef {
    name: "conv",
    doc: "yₙₒₚ = Σ wₒ꜀ₖ·xₙ꜀ᵢ + biasₒ over channels c and taps k, with i = p·stride + k·dilation - padding. Inputs: x, \
          w, and bias or none.",
    attrs: &["spatial axes", "groups", "for each axis: stride, padding before, padding after, dilation"],
    infer: |attrs, inputs| {
        let call = Call::check(attrs, inputs)?;
        Ok(smallvec![TensorType { dtype: inputs[0].dtype, shape: call.result }])
    },
    expand: |g, attrs, inputs| {
        let Call { spec, field, result } = {
            let types: SmallVec<[&TensorType; 3]> = inputs.iter().map(|&val| g.ty(val)).collect();
            Call::check(attrs, &types)?
        };
        let x = reshape(g, inputs[0], &field)?;
        let ty = TensorType { dtype: g.dtype(x), shape: batched(&result, attrs[0] as usize) };
        let mut y = g.add_typed(Op::Conv(spec, ConvRole::Output), &[x, inputs[1]], ty.clone());
        if let Some(&bias) = inputs.get(2) {
            let column: Shape = (0..ty.shape.rank()).map(|axis| if axis == 1 { ty.shape[1] } else { 1 }).collect();
            let column = reshape(g, bias, &column)?;
            let bias = broadcast_to(g, column, &ty.shape)?;
            y = add(g, y, bias)?;
        }
        Ok(smallvec![reshape(g, y, &result)?])
    },
    derivative: None,
    // The bias is only added.
    transpose: None,
    reads: Reads::BOTH,
    kernel: None,
};

/// The shape with a batch axis: of one example, a batch of one.
fn batched(shape: &Shape, axes: usize) -> Shape {
    let mut shape = shape.clone();
    if shape.rank() == axes + 1 {
        shape.insert(0, 1);
    }
    shape
}

/// The largest setting: sums and products of a few of them fit an address.
pub(super) const LARGEST: i64 = i32::MAX as i64;

/// A convolution as users call it, found to fit.
struct Call {
    spec: ConvSpec,
    /// The shape of x with a batch axis.
    field: Shape,
    /// The shape of y; without a batch axis if x has none.
    result: Shape,
}

impl Call {
    fn check(attrs: &Attrs, inputs: &[&TensorType]) -> Result<Call> {
        let (axes, groups) = (attrs[0] as usize, attrs[1]);
        let op = format!("conv{axes}d");
        let (x, w) = (inputs[0], inputs[1]);
        super::statistics::one_float(&op, &["input", "weight", "bias"], inputs)?;
        if w.shape.rank() != axes + 2 {
            let rank = axes + 2;
            return Err(Error::shape(format!("{op}: weight {} must have {rank} axes: (out, in / groups, …)", w.shape)));
        }
        if x.shape.rank() != axes + 2 && x.shape.rank() != axes + 1 {
            return Err(Error::shape(format!(
                "{op}: input {} must have {} axes, or {} without a batch",
                x.shape,
                axes + 2,
                axes + 1
            )));
        }
        let field = batched(&x.shape, axes);
        let settings = attrs[2..].chunks_exact(4);
        if let Some(wrong) =
            settings.clone().find(|s| s[0] < 1 || s[1] < 0 || s[2] < 0 || s[3] < 1 || s.iter().any(|&n| n > LARGEST))
        {
            return Err(Error::value(format!(
                "{op}: stride {}, padding {} and dilation {}: stride and dilation are at least 1, padding at \
                 least 0, all below 2^31",
                wrong[0],
                wrong[1].min(wrong[2]),
                wrong[3]
            )));
        }
        let channels = w.shape[0];
        if groups < 1 || !channels.is_multiple_of(groups as usize) || channels == 0 {
            return Err(Error::value(format!(
                "{op}: weight {} has {channels} channels of output, which {groups} groups do not divide",
                w.shape
            )));
        }
        let groups = groups as usize;
        if field[1] != w.shape[1] * groups {
            return Err(Error::shape(format!(
                "{op}: input {} has {} channels but weight {} with {groups} groups takes {}",
                x.shape,
                field[1],
                w.shape,
                w.shape[1] * groups
            )));
        }
        if let Some(bias) = inputs.get(2).filter(|bias| *bias.shape != [channels]) {
            return Err(Error::shape(format!(
                "{op}: bias {} does not fit weight {}: it must be ({channels},)",
                bias.shape, w.shape
            )));
        }
        let mut sweeps = Sweeps::new();
        let mut result = Shape::new(&[field[0], channels]);
        for (axis, settings) in settings.enumerate() {
            let [stride, low, high, dilation] =
                [settings[0], settings[1], settings[2], settings[3]].map(|n| n as usize);
            let sweep = Sweep { taps: w.shape[axis + 2], stride, dilation, low };
            let padded = field[axis + 2] + low + high;
            if sweep.taps == 0 || padded <= sweep.reach() {
                return Err(Error::shape(format!(
                    "{op}: weight {} covers {} along axis {} of the input, which has {padded} with its padding",
                    w.shape,
                    sweep.reach() + usize::from(sweep.taps > 0),
                    x.shape.rank() - axes + axis
                )));
            }
            sweeps.push(sweep);
            result.push((padded - sweep.reach() - 1) / stride + 1);
        }
        if x.shape.rank() == axes + 1 {
            result.remove(0);
        }
        Ok(Call { spec: ConvSpec { sweeps, groups }, field, result: result.checked(&op)? })
    }
}
