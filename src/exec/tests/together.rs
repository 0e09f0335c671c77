//! Elementwise work that several groups of a plan share a kernel for: as much as a device binds, and no two parts of which
//! one needs the other.

use super::Case;
use super::shaders::{LIMITS, check, plan, validate, whole};
use crate::dtype::DType;
use crate::exec::Donation;
use crate::graph::Val;
use crate::ops::{add, broadcast_to, multiply, subtract};
use crate::planner;
use crate::planner::gpu::Limits;

/// A step of gradient descent for parameters of many sizes, each in place.
fn updates(count: usize) -> (Case, Vec<Donation>) {
    let mut case = Case::default();
    let rate = case.number(2.0, DType::F32);
    for k in 0..count {
        let size = [k * 97 % 5 * 300 + k + 1];
        let (p, g) = (case.leaf(DType::F32, &size, whole(k)), case.leaf(DType::F32, &size, whole(k + 1)));
        let rate = broadcast_to(&mut case.graph, rate, &size.into()).unwrap();
        let step = multiply(&mut case.graph, g, rate).unwrap();
        let moved = subtract(&mut case.graph, p, step).unwrap();
        case.graph.outputs.push(moved);
    }
    (case, (0..count as u32).map(|k| Donation { output: k, leaf: 2 * k }).collect())
}

#[test]
fn updates_of_many_parameters_share_kernels() {
    let (case, donations) = updates(20);
    for (buffers, kernels) in [(8, 7), (16, 3), (32, 2), (1 << 20, 1)] {
        let limits = Limits { buffers, ..LIMITS };
        let graph = planner::simplify(&case.graph).unwrap();
        let plan = planner::gpu::plan(&graph, &case.strides, &donations, &limits).unwrap();
        assert_eq!((plan.kernels().len(), plan.commit), (kernels, 0), "{plan}");
        for kernel in plan.kernels() {
            validate(&kernel.wgsl);
            assert!(kernel.fault && kernel.bindings.len() < buffers, "{plan}");
        }
    }
    #[cfg(feature = "gpu")]
    if super::gpu::is_there() {
        let (made, plan) = super::gpu::run(&case, &donations).unwrap();
        for ((made, want), val) in made.iter().zip(case.unfused().unwrap()).zip(&case.graph.outputs) {
            assert_eq!(*made, super::scalars(&want, DType::F32, case.graph.shape(*val).size()), "{plan}");
        }
    }
}

/// Each element of a row again for each of `rows` rows, plus one of `x`.
fn spread(case: &mut Case, row: Val, x: Val) -> Val {
    let shape = case.graph.shape(x).clone();
    let row = broadcast_to(&mut case.graph, row, &shape).unwrap();
    add(&mut case.graph, row, x).unwrap()
}

#[test]
fn work_that_needs_other_work_has_another_kernel() {
    let mut case = Case::default();
    let [x, y] = [1, 2].map(|seed| case.leaf(DType::F32, &[300], whole(seed)));
    let [a, b] = [3, 4].map(|seed| case.leaf(DType::F32, &[9, 300], whole(seed)));
    // The second square is kept where the first one was, which the first spread reads.
    let first = multiply(&mut case.graph, x, x).unwrap();
    let first = spread(&mut case, first, a);
    let second = multiply(&mut case.graph, y, y).unwrap();
    let second = spread(&mut case, second, b);
    case.graph.outputs = vec![first, second];
    let plan = plan(&case, &LIMITS);
    assert_eq!((plan.kernels().len(), plan.slots.len()), (4, 1), "{plan}");
    check(&case, 0.0);
}
