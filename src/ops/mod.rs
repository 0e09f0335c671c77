//! The operations, one file a family. Each scalar primitive is one struct with its `eval` and one row of definition;
//! each composite is one function. This file names the rules of the kinds that have one member, and exports.

pub mod activation;
pub mod arithmetic;
pub mod attention;
mod build;
mod cast;
pub mod compare;
mod concat;
mod contract;
pub mod conv;
pub mod cross_entropy;
mod define;
pub mod exponential;
mod gather;
mod layout;
pub mod losses;
pub mod matmul;
pub mod normalization;
pub mod one_hot;
pub mod pattern;
pub mod pool;
pub mod random;
pub mod reduce;
pub mod rounding;
mod select;
pub mod softmax;
pub mod split;
pub mod statistics;
pub mod table;
pub mod testing;
#[cfg(test)]
mod tests;
pub mod trigonometric;
pub mod update;
pub mod wgsl;

pub use build::*;
pub use cast::kernels as cast_kernels;
pub use cast::wgsl as cast_wgsl;
pub use contract::matmul;
pub use gather::{gather as gather_elements, scatter as scatter_elements};
pub use layout::embed_elements;
pub use layout::{broadcast_to, narrow, permute, reshape, swap_last};
pub use select::kernels as select_kernels;
pub use select::wgsl as select_wgsl;

use crate::graph::{Derivative, Layout, Op, Reads};

/// The derivative rule of a primitive op.
pub fn derivative(op: &Op) -> &'static Derivative {
    match op {
        Op::Unary(def) => &def.derivative,
        Op::Binary(def) => &def.derivative,
        Op::Reduce(def, _) => &def.derivative,
        Op::Select => &select::DERIVATIVE,
        Op::Cast(_) => &cast::DERIVATIVE,
        Op::Layout(Layout::Broadcast) => &layout::BROADCAST,
        Op::Layout(Layout::Reshape) => &layout::RESHAPE,
        Op::Layout(Layout::Permute(_)) => &layout::PERMUTE,
        Op::Layout(Layout::Slice(_)) => &layout::SLICE,
        Op::Embed(_) => &layout::EMBED,
        Op::Concat(_) => &concat::DERIVATIVE,
        Op::Gather(..) => &gather::GATHER,
        Op::Scatter(..) => &gather::SCATTER,
        Op::Contract => &contract::DERIVATIVE,
        Op::Conv(..) => &conv::DERIVATIVE,
        Op::Pool(_, role) => pool::derivative(*role),
        Op::Source(_)
        | Op::Marker
        | Op::Detach
        | Op::After
        | Op::Random(_)
        | Op::Composite(..)
        | Op::Gradient(_)
        | Op::Jvp(_)
        | Op::Batch(_)
        | Op::CustomGradient(_)
        | Op::Pullback(_) => &Derivative::Zero,
    }
}

/// Whether a tangent can pass through this op at all.
pub fn passes_gradient(op: &Op) -> bool {
    match op {
        Op::Marker
        | Op::After
        | Op::Composite(..)
        | Op::Gradient(_)
        | Op::Jvp(_)
        | Op::Batch(_)
        | Op::CustomGradient(_) => true,
        op => !matches!(derivative(op), Derivative::Zero),
    }
}

/// Which inputs and outputs the derivative of a recorded op reads.
pub fn reads(op: &Op) -> Reads {
    match op {
        Op::Unary(def) => def.reads,
        Op::Binary(def) => def.reads,
        Op::Reduce(def, _) => def.reads,
        Op::Composite(def, _) => def.reads,
        Op::Contract | Op::Conv(..) => Reads::BOTH,
        Op::Pool(_, role) => pool::reads(*role),
        Op::Select => Reads { inputs: 0b1, outputs: 0 },
        Op::Gather(..) | Op::Scatter(..) => Reads { inputs: 0b10, outputs: 0 },
        // Their expansion reads what the nodes of their region read; of their own inputs, cotangents and tangents.
        Op::Gradient(_) | Op::Jvp(_) | Op::Batch(_) | Op::CustomGradient(_) => Reads::ALL_INPUTS,
        Op::Source(_)
        | Op::Marker
        | Op::Detach
        | Op::After
        | Op::Cast(_)
        | Op::Layout(_)
        | Op::Embed(_)
        | Op::Concat(_)
        | Op::Random(_)
        | Op::Pullback(_) => Reads::NONE,
    }
}
