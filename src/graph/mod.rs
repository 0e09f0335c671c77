//! The graph: what a plan is built from. Owns nodes, kinds, the contract of an op's definition, type inference,
//! verification and printing. Kinds are a closed enum; their members are open. Knows no op by name.

pub mod build;
pub mod def;
pub mod infer;
pub mod op;
pub mod print;
pub mod verify;

pub use build::{Copies, Graph, Node, Val};
pub use def::{
    BinaryDef, CompositeDef, Derivative, DeviceKernel, Fold, HostKernel, Masking, Pattern, PatternStep, Promote,
    RandomDef, Reads, ReduceDef, Rule, RunFn, Tangents, TransposeFn, UnaryDef, Vals,
};
pub use op::{
    Attrs, BatchSpec, ConvRole, ConvSpec, Divisor, GatherMode, GradientSpec, JvpSpec, Layout, Op, PoolRole, SliceDim,
    SliceDims, Source, Sweep, Sweeps,
};

use crate::device_id::DeviceId;
use crate::dtype::DType;
use crate::shape::Shape;
use std::fmt;

/// What is known of a value before it exists.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TensorType {
    pub dtype: DType,
    pub shape: Shape,
}

impl TensorType {
    pub fn new(dtype: DType, shape: impl Into<Shape>) -> TensorType {
        TensorType { dtype, shape: shape.into() }
    }

    pub fn scalar(dtype: DType) -> TensorType {
        TensorType { dtype, shape: Shape::scalar() }
    }

    /// Bytes of the contiguous value.
    pub fn bytes(&self) -> usize {
        self.shape.size() * self.dtype.size()
    }

    /// Bytes of the contiguous value in the memory of a device.
    pub fn bytes_on(&self, device: DeviceId) -> usize {
        let size = if device.is_cpu() { self.dtype.size() } else { self.dtype.device_size() };
        self.shape.size() * size
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}

impl fmt::Debug for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
