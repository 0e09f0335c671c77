//! Tensors as users hold them: handles on recorded nodes, variables, evaluation, gradients and transforms. Knows no
//! layer, optimizer or Python.

mod backward;
mod checkpoint;
mod checks;
mod compose;
mod context;
mod engine;
mod evaluate;
mod fork;
mod functions;
mod handle;
mod key;
mod lower;
mod publish;
mod record;
mod replaced;
mod replay;
mod rng;
pub mod trace;
mod transfer;
mod transform;
mod verify;
mod walk;

pub use backward::{BackwardOptions, autograd_grad, backward};
pub use checkpoint::Checkpoint;
pub use checks::{check_classes, checked_classes, counted_indices};
pub use compose::*;
pub use context::{EagerGuard, GradGuard, eager, grad_enabled, in_transform, set_eager, set_grad_enabled, set_lines};
pub use engine::{Value, live_nodes};
pub use evaluate::{
    PLANS, Rebinding, Scope, evaluate, evaluate_all, nodes_computed, pending_nodes, plans_run, set_evaluation_scope,
};
pub use fork::{after_fork, before_fork, enter_child};
pub use functions::*;
pub use handle::Tensor;
pub use record::{Arg, at_user_line};
pub use replaced::{count_replaced, note_replaced, replaced_since};
pub use replay::{Begun, Call, Given, KernelProfile, Numbers, PlanProfile, Replay, Summary};
pub use rng::{manual_seed, next_stream, seed, set_state as set_rng_state};
pub use transfer::{convert, follow, judge, to_device, write_elements};
pub use transform::{CustomTrace, Transform, gradient, jvp, result, results, vmap_axis};
pub use verify::verifying;

#[cfg(test)]
mod device_tests;
#[cfg(test)]
mod publication_tests;
#[cfg(test)]
mod tests;
