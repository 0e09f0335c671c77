//! The contract of an op's definition: what each member of a kind must bring. Every field is required, so a missing
//! piece does not compile. One derivative rule serves forward mode, reverse mode and every order.

use super::op::{Attrs, Op};
use super::{Graph, TensorType, Val};
use crate::dtype::DType;
use crate::error::Result;
use crate::machine::cpu::chain::ChainKernels;
use crate::machine::cpu::dispatch::Kernels;
use crate::machine::cpu::par::Stopped;
use crate::machine::cpu::reduce::ReduceKernels;
use crate::machine::cpu::view::View;
use crate::shape::Shape;
use smallvec::SmallVec;

pub type Vals = SmallVec<[Val; 2]>;

/// The tangent of each output; None is a tangent of zero.
pub type Tangents = SmallVec<[Option<Val>; 2]>;

/// The node that a rule speaks of: its op, and its inputs and outputs as values of the graph being built.
pub struct Rule<'a> {
    pub op: &'a Op,
    pub inputs: &'a [Val],
    pub outputs: &'a [Val],
}

/// Tangents of the outputs from tangents of the inputs (None: zero). At least one is given.
pub type JvpFn = fn(&mut Graph, &Rule, &[Option<Val>]) -> Result<Tangents>;

/// The cotangent of input `which` from the cotangents of the outputs (None: zero). At least one is given.
pub type TransposeFn = fn(&mut Graph, &Rule, cotangents: &[Option<Val>], which: usize) -> Result<Val>;

/// How an op is differentiated. Forward mode applies the rule; reverse mode transposes what forward mode produced.
pub enum Derivative {
    /// The result does not depend on its inputs in a differentiable way.
    Zero,
    /// The tangent, written with other ops.
    Jvp(JvpFn),
    /// Linear in its float inputs of the result's own dtype kind, all together. `apply` gives the tangent; see
    /// `ops::linear_apply` for the usual one.
    Linear { apply: JvpFn, transpose: TransposeFn },
    /// Linear in each of its first two inputs alone. The transpose for input i holds the other one fixed.
    Bilinear([TransposeFn; 2]),
}

/// Which inputs and outputs of a node its derivative reads, as masks: what must be kept for a later backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reads {
    pub inputs: u32,
    pub outputs: u32,
}

impl Reads {
    pub const NONE: Reads = Reads { inputs: 0, outputs: 0 };
    pub const INPUT: Reads = Reads { inputs: 1, outputs: 0 };
    pub const OUTPUT: Reads = Reads { inputs: 0, outputs: 1 };
    pub const BOTH: Reads = Reads { inputs: 3, outputs: 0 };
    pub const ALL_INPUTS: Reads = Reads { inputs: u32::MAX, outputs: 0 };

    pub fn is_none(self) -> bool {
        self == Reads::NONE
    }
}

/// Which dtypes an elementwise op takes, and what it gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promote {
    /// Computes in the promoted dtype and gives it (bool included only if a kernel exists).
    Same,
    /// Integers and bools become float32 first.
    Float,
    /// Computes in the promoted dtype and gives bool.
    Compare,
}

/// An expression in WGSL for each dtype that has kernels, but for float64. Its operands are named values: f32, i32,
/// `vec2<u32>` for int64 with the low word first, u32 for uint8 and for bool, which is 0 or 1. The functions that it
/// calls are in `ops::wgsl`.
pub type Wgsl = fn(DType) -> Option<&'static str>;

/// How a reduction folds on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fold {
    /// The value of nothing.
    pub identity: &'static str,
    /// An expression in x, what is folded so far, and y.
    pub combine: &'static str,
}

pub struct UnaryDef {
    pub name: &'static str,
    pub doc: &'static str,
    /// An interval on which tests sample: inside it the derivative matters.
    pub domain: (f64, f64),
    /// Largest error of a float32 or float64 result, in units in the last place.
    pub ulp: f64,
    pub promote: Promote,
    /// The kernel for one dtype of input; None: the dtype is refused.
    pub kernels: fn(DType) -> Option<&'static Kernels>,
    /// The same function in x on a GPU.
    pub wgsl: Wgsl,
    /// Largest error of a float32 result there, where the device keeps what WGSL promises of its own operations.
    pub gpu_ulp: f64,
    /// The same function in float64, as exact as it can be had: the reference executor uses it.
    pub reference: fn(f64) -> f64,
    pub derivative: Derivative,
    pub reads: Reads,
}

pub struct BinaryDef {
    pub name: &'static str,
    pub doc: &'static str,
    pub domain: [(f64, f64); 2],
    pub ulp: f64,
    pub promote: Promote,
    pub kernels: fn(DType) -> Option<&'static Kernels>,
    /// The same function in x and y on a GPU.
    pub wgsl: Wgsl,
    pub gpu_ulp: f64,
    pub reference: fn(f64, f64) -> f64,
    pub derivative: Derivative,
    pub reads: Reads,
}

pub struct ReduceDef {
    pub name: &'static str,
    pub doc: &'static str,
    pub domain: (f64, f64),
    /// Whether an empty axis has a value (sum: 0) or is an error (max).
    pub empty: Option<f64>,
    pub kernels: fn(DType) -> Option<&'static ReduceKernels>,
    /// For each dtype that has kernels, but for float64.
    pub wgsl: fn(DType) -> Option<Fold>,
    pub reference: fn(f64, f64) -> f64,
    pub derivative: Derivative,
    pub reads: Reads,
}

/// Fills elements `first..first + n` of the stream `stream` of `seed` with values of one dtype at `out`.
pub type FillFn = unsafe fn(seed: u64, stream: u64, first: u64, n: usize, out: *mut u8);

pub struct RandomDef {
    pub name: &'static str,
    pub doc: &'static str,
    /// None: the dtype is refused.
    pub fill: fn(DType) -> Option<FillFn>,
    /// Element `i`, a u32, of the stream `stream` of `seed`, both int64.
    pub wgsl: Wgsl,
}

/// The types of a composite's outputs, or the error that users see where they record it.
pub type InferFn = fn(&Attrs, &[&TensorType]) -> Result<SmallVec<[TensorType; 1]>>;

/// An op defined by others. It is recorded as one node and taken apart when a plan is built.
pub struct CompositeDef {
    pub name: &'static str,
    pub doc: &'static str,
    /// What the attributes are, in order.
    pub attrs: &'static [&'static str],
    pub infer: InferFn,
    pub expand: fn(&mut Graph, &Attrs, &[Val]) -> Result<Vals>,
    /// A rule of its own; None: the expansion is differentiated.
    pub derivative: Option<JvpFn>,
    /// How cotangents pass to inputs in which it is linear; None: it never stands on a tangent.
    pub transpose: Option<TransposeFn>,
    /// Without a rule of its own: all inputs.
    pub reads: Reads,
    /// A hand kernel; None: the expansion is what runs.
    pub kernel: Option<&'static HostKernel>,
}

/// A chain of elementwise ops that has one kernel: the planner puts it in the place of its parts. It changes no bit.
pub struct Pattern {
    pub name: &'static str,
    pub inputs: usize,
    /// In order; the arguments are values: first the inputs, then the results of the steps.
    pub steps: &'static [PatternStep],
    /// The values that the kernel stores. No other value of a step may be read outside the chain.
    pub outputs: &'static [u8],
    /// A bit for each input, set if that has one element for each row.
    pub columns: u32,
    pub kernels: fn(DType) -> Option<&'static ChainKernels>,
}

/// One op of a pattern, known by its kernels for the dtype of the chain.
pub struct PatternStep {
    pub op: fn() -> Op,
    pub kernels: fn(DType) -> Option<&'static Kernels>,
    pub args: &'static [u8],
}

impl CompositeDef {
    /// The hand kernel, if there is one that takes inputs of these types.
    pub fn kernel_for(&self, attrs: &Attrs, inputs: &[&TensorType]) -> Option<&'static HostKernel> {
        self.kernel.filter(|kernel| (kernel.takes)(attrs, inputs))
    }
}

/// A hand kernel of a composite on the CPU. It defines the composite's bits there; the expansion serves
/// differentiation, batching, other types and the float64 reference.
pub struct HostKernel {
    /// Decides by the types alone, so that a composite is either always expanded or never.
    pub takes: fn(&Attrs, &[&TensorType]) -> bool,
    /// About how many nanoseconds it runs on one thread.
    pub nanos: fn(&Attrs, &[&TensorType]) -> u64,
    /// The floating-point operations of its products, whatever a mask leaves out.
    pub flops: fn(&Attrs, &[&TensorType]) -> u64,
    pub run: RunFn,
    /// Whether it, and the GPU's, writes results of any strides, as long as the elements along their last axis follow
    /// each other.
    pub is_strided: bool,
    /// What a GPU has in its place, decided by the types alone, too; None: the expansion.
    pub device: fn(&Attrs, &[&TensorType]) -> Option<DeviceKernel>,
}

/// The hand kernels of GPUs: the planner generates their shaders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKernel {
    /// softmax(scale·query·keyᵀ + mask)·value, and log Σ exp(score).
    Attention(Masking),
    /// The gradients of query, key and value.
    AttentionGradient(Masking),
}

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Masking {
    /// Query i sees only the keys up to i.
    pub is_causal: bool,
    /// A mask follows the operands.
    pub is_masked: bool,
}

/// Computes the outputs, which are contiguous unless the kernel `is_strided`, from inputs of any strides.
///
/// # Safety
/// The views lie in valid memory, have the types that inference gives, and no output overlaps another view.
pub type RunFn = unsafe fn(&Attrs, inputs: &[View], outputs: &[View]) -> std::result::Result<(), Stopped>;

/// The shape of an op's result that keeps its inputs' common shape.
pub fn same_shape<'a>(op: &str, inputs: &[&'a TensorType]) -> Result<&'a Shape> {
    let (first, rest) =
        inputs.split_first().ok_or_else(|| crate::error::Error::internal(format!("{op}: no inputs")))?;
    match rest.iter().find(|other| other.shape != first.shape) {
        Some(other) => Err(crate::error::Error::internal(format!(
            "{op}: inputs of shapes {} and {} in a graph must be equal",
            first.shape, other.shape
        ))),
        None => Ok(&first.shape),
    }
}
