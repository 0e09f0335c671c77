//! The operations, one file a family. Each scalar primitive is one struct with its `eval` and one row of definition;
//! each composite is one function. This file names the rules of the kinds that have one member, and exports.

pub mod activation;
pub mod arithmetic;
mod build;
mod cast;
pub mod compare;
mod concat;
mod contract;
mod define;
pub mod exponential;
mod gather;
mod layout;
pub mod reduce;
mod select;
pub mod trigonometric;

pub use build::*;
pub use contract::matmul;
pub use layout::{broadcast_to, narrow, permute, reshape, swap_last};

use crate::graph::{Derivative, Layout, Op};

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
        Op::Source(_)
        | Op::Marker
        | Op::Detach
        | Op::Random(_)
        | Op::Composite(..)
        | Op::Gradient(_)
        | Op::Jvp(_)
        | Op::Batch(_)
        | Op::CustomGradient(_)
        | Op::Pullback(_) => &Derivative::Zero,
    }
}
