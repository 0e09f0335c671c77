//! Forks: the locks that a child needs are held while its parent forks, so that it finds what they guard whole. They
//! are taken in the order in which evaluation nests them.

use super::engine::ENGINE;
use super::evaluate::{self, PLANS};
use super::record::NUMBERS;
use super::replaced::REPLACED;
use super::rng::GENERATOR;
use crate::machine::cpu::{arena, buffer, isa};
#[cfg(feature = "gpu")]
use crate::machine::gpu;
use crate::planner;
use std::sync::LazyLock;

/// Takes the locks, in the thread that is about to fork. What is made at its first use is made before: a child would wait
/// for the thread that was making it, which it does not have.
pub fn before_fork() {
    isa::isa();
    LazyLock::force(&NUMBERS);
    planner::before_fork();
    ENGINE.before_fork();
    PLANS.before_fork();
    GENERATOR.before_fork();
    REPLACED.before_fork();
    arena::POOL.before_fork();
    buffer::POOL.before_fork();
    #[cfg(feature = "gpu")]
    gpu::before_fork();
}

/// Gives them back, in the parent and in the child.
///
/// # Safety
/// Must follow `before_fork` in the same thread, once in the parent and once in the child.
pub unsafe fn after_fork() {
    // SAFETY: as the caller promises.
    unsafe {
        #[cfg(feature = "gpu")]
        gpu::after_fork();
        buffer::POOL.after_fork();
        arena::POOL.after_fork();
        REPLACED.after_fork();
        GENERATOR.after_fork();
        PLANS.after_fork();
        ENGINE.after_fork();
    }
}

/// Makes the child a process of its own: what other threads of the parent had claimed is not waited for.
pub fn enter_child() {
    evaluate::next_generation();
}
