//! Operations: the closed list of kinds, each with its attributes. Passes and executors match on kinds exhaustively;
//! a new member of a kind (a new definition) touches no list here.

use super::def::{BinaryDef, CompositeDef, RandomDef, ReduceDef, UnaryDef};
use crate::dtype::DType;
pub use crate::machine::cpu::conv::Role as ConvRole;
pub use crate::machine::cpu::pool::Divisor;
pub use crate::machine::cpu::sweep::Sweep;
use crate::scalar::Scalar;
use smallvec::SmallVec;
use std::fmt;
use std::hash::{Hash, Hasher};

/// Integer attributes of a composite, in the order that its definition documents. Each pass of planning moves all ops, so
/// they have no room for what few need.
pub type Attrs = SmallVec<[i64; 4]>;

/// Where a value comes from when no op makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A buffer that the plan is given, by slot.
    Leaf(u32),
    /// A number that the plan is given, by slot: a 0-d value.
    Number(u32),
    /// A constant of the program, equal in every element; visible to simplification.
    Full(Scalar),
    /// 0, 1, 2, … along the only axis, as an integer.
    Iota,
    /// The argument of an open transform. It has no value; expansion replaces it.
    Placeholder,
}

/// Rearrangements that a plan resolves to views where it can.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// To the node's own shape, by NumPy's rule.
    Broadcast,
    /// To the node's own shape, in row-major order.
    Reshape,
    /// Output axis i is input axis `perm[i]`.
    Permute(SmallVec<[u8; 8]>),
    /// Inputs: the tensor, then one start (an int64 number) for each entry.
    Slice(SliceDims),
}

/// One sliced axis: `length` elements, `step` apart (never 0). Starts are inputs, so they are not in a plan's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SliceDim {
    pub axis: u8,
    pub length: usize,
    pub step: isize,
}

/// Most slices cut one axis.
pub type SliceDims = SmallVec<[SliceDim; 1]>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GatherMode {
    /// Whole slices along the axis: `numpy.take`.
    Take,
    /// One element along the axis for each index: `numpy.take_along_axis`.
    Along,
}

/// How the windows of a convolution or a pooling move along its spatial axes, the last one to three.
pub type Sweeps = Vec<Sweep>;

/// The trilinear form T(x, w, g) = Σ x[n, c, i]·w[o, c, k]·g[n, o, p], where window p meets position i with tap k.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConvSpec {
    pub sweeps: Sweeps,
    /// Channels fall into so many groups; those of g meet only those of x in their group.
    pub groups: usize,
}

/// What a pooling does with its windows. A tap is stored as its number in the window: uint8, or int32 for large windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolRole {
    /// The tap of the largest element. Input: the field.
    Index,
    /// The element at the tap. Inputs: the field, the taps.
    Pick,
    /// The windows added at their taps: the transpose of `Pick`. Inputs: a value for each window, the taps.
    Place,
    Mean(Divisor),
    /// The transpose of `Mean`.
    Spread(Divisor),
}

/// Inputs: `targets` values, then a cotangent for each (none if `ones`), then the `wrt` markers.
/// Outputs: the gradient for each of `wrt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GradientSpec {
    pub targets: u32,
    pub wrt: u32,
    /// Every cotangent is one.
    pub ones: bool,
}

/// Inputs: `targets` values, then the `primals` markers, then a tangent for each marker.
/// Outputs: the tangent of each target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct JvpSpec {
    pub targets: u32,
    pub primals: u32,
}

/// Inputs: `targets` per-example values, then the `examples` placeholders, then the batched argument for each.
/// Outputs: each target with a leading axis of `size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BatchSpec {
    pub targets: u32,
    pub examples: u32,
    pub size: usize,
}

// A plan moves thousands of nodes; what is rare and large is behind a pointer.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Op>() <= 56);

#[derive(Clone)]
pub enum Op {
    Source(Source),
    /// The identity at which differentiation stops: a version of a variable, or the argument of a transform.
    Marker,
    /// The identity through which no derivative passes.
    Detach,
    /// The first input, for what must be made no earlier than the second and never merged with what was made before.
    After,
    Unary(&'static UnaryDef),
    Binary(&'static BinaryDef),
    /// Inputs: condition (bool), value where true, value where false.
    Select,
    Cast(DType),
    /// Over the axes of the mask, which are dropped.
    Reduce(&'static ReduceDef, u32),
    Layout(Layout),
    /// The tensor in a larger field of zeros: the transpose of a slice. Inputs: the tensor, one start for each entry.
    Embed(SliceDims),
    Concat(u8),
    /// Inputs: tensor, indices (int64).
    Gather(GatherMode, u8),
    /// Zeros with the updates added at the indices: the transpose of a gather. Inputs: updates, indices (int64).
    Scatter(GatherMode, u8),
    /// Matrix product over the last two axes; leading axes are equal.
    Contract,
    /// The derivative of the trilinear form in one argument. Inputs: the other two, in the order x, w, g.
    Conv(ConvSpec, ConvRole),
    /// Over the last axes; those before are planes.
    Pool(Sweeps, PoolRole),
    /// Inputs: seed and stream (int64 numbers), then the placeholders of the open batches it must differ under.
    Random(&'static RandomDef),
    Composite(&'static CompositeDef, Attrs),
    Gradient(GradientSpec),
    Jvp(JvpSpec),
    Batch(BatchSpec),
    /// A value with the user's own pullback. Inputs: value, cotangent placeholder, the n arguments (markers), then the
    /// n gradients traced from the placeholder. Output: the value.
    CustomGradient(u32),
    /// The tangent of a custom gradient, only inside an expansion. Inputs: n tangents, cotangent placeholder, n gradients.
    Pullback(u32),
}

impl Op {
    /// The name in error messages, prints and `op_table()`.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Source(Source::Leaf(_)) => "leaf",
            Op::Source(Source::Number(_)) => "number",
            Op::Source(Source::Full(_)) => "full",
            Op::Source(Source::Iota) => "iota",
            Op::Source(Source::Placeholder) => "placeholder",
            Op::Marker => "marker",
            Op::Detach => "detach",
            Op::After => "after",
            Op::Unary(def) => def.name,
            Op::Binary(def) => def.name,
            Op::Select => "where",
            Op::Cast(_) => "astype",
            Op::Reduce(def, _) => def.name,
            Op::Layout(Layout::Broadcast) => "broadcast_to",
            Op::Layout(Layout::Reshape) => "reshape",
            Op::Layout(Layout::Permute(_)) => "permute_dims",
            Op::Layout(Layout::Slice(_)) => "slice",
            Op::Embed(_) => "embed",
            Op::Concat(_) => "concat",
            Op::Gather(GatherMode::Take, _) => "take",
            Op::Gather(GatherMode::Along, _) => "take_along_axis",
            Op::Scatter(GatherMode::Take, _) => "index_add",
            Op::Scatter(GatherMode::Along, _) => "scatter_add",
            Op::Contract => "matmul",
            Op::Conv(_, ConvRole::Output) => "conv",
            Op::Conv(_, ConvRole::Input) => "conv_to_input",
            Op::Conv(_, ConvRole::Weight) => "conv_to_weight",
            Op::Pool(_, PoolRole::Index) => "pool_index",
            Op::Pool(_, PoolRole::Pick) => "pool_pick",
            Op::Pool(_, PoolRole::Place) => "pool_place",
            Op::Pool(_, PoolRole::Mean(_)) => "pool_mean",
            Op::Pool(_, PoolRole::Spread(_)) => "pool_spread",
            Op::Random(def) => def.name,
            Op::Composite(def, _) => def.name,
            Op::Gradient(_) => "gradient",
            Op::Jvp(_) => "jvp",
            Op::Batch(_) => "batch",
            Op::CustomGradient(_) => "custom_gradient",
            Op::Pullback(_) => "pullback",
        }
    }

    /// Whether two ops are the same operation: same kind, same definition, same attributes.
    pub fn same(&self, other: &Op) -> bool {
        let (mut a, mut b) = (Words::new(), Words::new());
        self.words(&mut a);
        other.words(&mut b);
        a == b
    }

    /// Appends words that are equal exactly for equal ops: what plan keys and merging compare.
    /// Types are not included: they follow from the op, its inputs and (for sources and layouts) the node's own type.
    pub fn words(&self, out: &mut impl Extend<u64>) {
        let def = |def: *const u8| def as u64;
        let mut put = |words: &[u64]| out.extend(words.iter().copied());
        match self {
            Op::Source(Source::Leaf(slot)) => put(&[1, u64::from(*slot)]),
            Op::Source(Source::Number(slot)) => put(&[2, u64::from(*slot)]),
            Op::Source(Source::Full(x)) => put(&[3, scalar_kind(*x), x.to_word()]),
            Op::Source(Source::Iota) => put(&[4]),
            Op::Source(Source::Placeholder) => put(&[5]),
            Op::Marker => put(&[6]),
            Op::Unary(d) => put(&[7, def((*d as *const UnaryDef).cast())]),
            Op::Binary(d) => put(&[8, def((*d as *const BinaryDef).cast())]),
            Op::Select => put(&[9]),
            Op::Cast(dtype) => put(&[10, *dtype as u64]),
            Op::Reduce(d, axes) => put(&[11, def((*d as *const ReduceDef).cast()), u64::from(*axes)]),
            Op::Layout(Layout::Broadcast) => put(&[12]),
            Op::Layout(Layout::Reshape) => put(&[13]),
            Op::Layout(Layout::Permute(perm)) => {
                put(&[14, perm.len() as u64]);
                perm.iter().for_each(|&axis| put(&[u64::from(axis)]));
            }
            Op::Layout(Layout::Slice(dims)) => {
                put(&[15, dims.len() as u64]);
                dims.iter().for_each(|d| put(&[u64::from(d.axis), d.length as u64, d.step as u64]));
            }
            Op::Embed(dims) => {
                put(&[16, dims.len() as u64]);
                dims.iter().for_each(|d| put(&[u64::from(d.axis), d.length as u64, d.step as u64]));
            }
            Op::Concat(axis) => put(&[17, u64::from(*axis)]),
            Op::Gather(mode, axis) => put(&[18, *mode as u64, u64::from(*axis)]),
            Op::Scatter(mode, axis) => put(&[19, *mode as u64, u64::from(*axis)]),
            Op::Contract => put(&[20]),
            Op::Random(d) => put(&[21, def((*d as *const RandomDef).cast())]),
            Op::Composite(d, attrs) => {
                put(&[22, def((*d as *const CompositeDef).cast()), attrs.len() as u64]);
                attrs.iter().for_each(|&a| put(&[a as u64]));
            }
            Op::Gradient(s) => put(&[23, u64::from(s.targets), u64::from(s.wrt), u64::from(s.ones)]),
            Op::Jvp(s) => put(&[24, u64::from(s.targets), u64::from(s.primals)]),
            Op::Batch(s) => put(&[25, u64::from(s.targets), u64::from(s.examples), s.size as u64]),
            Op::CustomGradient(n) => put(&[26, u64::from(*n)]),
            Op::Pullback(n) => put(&[27, u64::from(*n)]),
            Op::Detach => put(&[28]),
            Op::After => put(&[31]),
            Op::Conv(spec, role) => {
                put(&[29, *role as u64, spec.groups as u64, spec.sweeps.len() as u64]);
                spec.sweeps.iter().for_each(|sweep| put(&sweep_words(sweep)));
            }
            Op::Pool(sweeps, role) => {
                put(&[30, sweeps.len() as u64]);
                put(&pool_words(*role));
                sweeps.iter().for_each(|sweep| put(&sweep_words(sweep)));
            }
        }
    }
}

type Words = SmallVec<[u64; 16]>;

fn sweep_words(sweep: &Sweep) -> [u64; 4] {
    [sweep.taps, sweep.stride, sweep.dilation, sweep.low].map(|n| n as u64)
}

fn pool_words(role: PoolRole) -> [u64; 3] {
    let divided = |divisor: Divisor| match divisor {
        Divisor::Padded => [0, 0],
        Divisor::Inside => [1, 0],
        Divisor::Fixed(n) => [2, n as u64],
    };
    let (kind, [divisor, n]) = match role {
        PoolRole::Index => (0, [0; 2]),
        PoolRole::Pick => (1, [0; 2]),
        PoolRole::Place => (2, [0; 2]),
        PoolRole::Mean(divisor) => (3, divided(divisor)),
        PoolRole::Spread(divisor) => (4, divided(divisor)),
    };
    [kind, divisor, n]
}

fn scalar_kind(x: Scalar) -> u64 {
    match x {
        Scalar::Bool(_) => 0,
        Scalar::I64(_) => 1,
        Scalar::F64(_) => 2,
    }
}

impl PartialEq for Op {
    fn eq(&self, other: &Op) -> bool {
        self.same(other)
    }
}

impl Eq for Op {}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Hash for Op {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut words = Words::new();
        self.words(&mut words);
        words.hash(state);
    }
}
