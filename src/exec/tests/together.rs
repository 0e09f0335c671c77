//! Elementwise work that shares a kernel: that of several groups, as much as a device binds and no two parts of which one
//! needs the other, and that at the end of a product.

use super::Case;
use super::shaders::{LIMITS, check, plan, sweep, validate, whole};
use crate::dtype::DType;
use crate::exec::Donation;
use crate::graph::{ConvRole, ConvSpec, Op, Sweeps, TensorType, Val};
use crate::ops::activation::TANH;
use crate::ops::reduce::{MAX, SUM};
use crate::ops::softmax::SOFTMAX;
use crate::ops::{add, broadcast_to, multiply, subtract};
use crate::planner;
use crate::planner::gpu::Limits;
use hashbrown::HashSet;
use smallvec::smallvec;

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
        let graph = planner::simplify(case.graph.clone()).unwrap();
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

/// Products of every form, each ended by work that reads another operand of its size and leaves two results.
fn ended(dtype: DType, shapes: &[([usize; 3], [usize; 3])]) -> Case {
    let mut case = Case::default();
    for (at, (left, right)) in shapes.iter().enumerate() {
        let [a, b] = [(left, at), (right, at + 1)].map(|(shape, seed)| case.leaf(dtype, shape, whole(seed)));
        let product = case.graph.add(Op::Contract, &[a, b]).unwrap();
        let shape = case.graph.shape(product).clone();
        let (bias, other) = (case.leaf(dtype, &shape[2..], whole(at + 2)), case.leaf(dtype, &shape, whole(at + 3)));
        let biased = spread(&mut case, bias, product);
        let scaled = multiply(&mut case.graph, biased, other).unwrap();
        case.graph.outputs.extend([biased, scaled]);
    }
    case
}

#[test]
fn products_end_in_the_work_that_alone_reads_them() {
    // A thread an element, tiles, and both with their sums cut.
    let shapes = [
        ([2, 3, 40], [2, 40, 50]),
        ([2, 70, 40], [2, 40, 50]),
        ([1, 2, 3000], [1, 3000, 3]),
        ([1, 20, 5000], [1, 5000, 30]),
    ];
    for dtype in [DType::F32, DType::I32, DType::I64] {
        let case = ended(dtype, &shapes);
        let plan = plan(&case, &LIMITS);
        assert_eq!((plan.kernels().len(), plan.slots.len()), (6, 2), "{plan}");
        check(&case, 0.0);
    }
}

#[test]
fn alike_layers_have_one_shader() {
    let mut case = Case::default();
    let mut x = case.leaf(DType::F32, &[40, 50], whole(1));
    for seed in 0..10 {
        let weight = case.leaf(DType::F32, &[50, 50], whole(seed));
        x = case.graph.add(Op::Contract, &[x, weight]).unwrap();
        x = case.graph.add(Op::Unary(&TANH), &[x]).unwrap();
        x = case.graph.add(Op::Composite(&SOFTMAX, smallvec![1]), &[x]).unwrap();
    }
    case.graph.outputs.push(x);
    let plan = plan(&case, &LIMITS);
    let texts: HashSet<&str> = plan.kernels().iter().map(|kernel| kernel.wgsl.as_str()).collect();
    // The first layer reads a leaf, the last one leaves an output.
    assert!(plan.kernels().len() == 20 && texts.len() <= 6, "{} texts of\n{plan}", texts.len());
}

#[test]
fn products_that_others_need_stay_whole() {
    let shapes = [([1, 20, 30], [1, 30, 40])];
    let kernels = |change: fn(&mut Case, Val)| {
        let mut case = ended(DType::F32, &shapes);
        let product = Val { node: 2, output: 0 };
        assert!(matches!(case.graph.node(product).op, Op::Contract));
        change(&mut case, product);
        check(&case, 0.0);
        plan(&case, &LIMITS).kernels().len()
    };
    assert_eq!(kernels(|_, _| {}), 1);
    assert_eq!(kernels(|case, product| case.graph.outputs.push(product)), 2);
    // Added up, too, beside the work that reads it.
    let turned = |case: &mut Case, product: Val| {
        let sum = case.graph.add(Op::Reduce(&SUM, 0b10), &[product]).unwrap();
        case.graph.outputs.push(sum);
    };
    assert_eq!(kernels(turned), 2);
}

#[test]
fn convolutions_end_in_the_work_that_alone_reads_them() {
    let mut case = Case::default();
    let sweeps: Sweeps = vec![sweep(3, 2, 1, 1), sweep(2, 3, 1, 0)];
    let (x, w, y) = ([2, 3, 9, 8], [4, 3, 3, 2], [2, 4, 5, 3]);
    for (role, shapes) in [(ConvRole::Output, [x, w, y]), (ConvRole::Input, [w, y, x]), (ConvRole::Weight, [x, y, w])] {
        let inputs = [0, 1].map(|at| case.leaf(DType::F32, &shapes[at], whole(at)));
        let spec = ConvSpec { sweeps: sweeps.clone(), groups: 1 };
        let made = case.graph.add_typed(Op::Conv(spec, role), &inputs, TensorType::new(DType::F32, shapes[2]));
        let other = case.leaf(DType::F32, &shapes[2], whole(3));
        let scaled = multiply(&mut case.graph, made, other).unwrap();
        case.graph.outputs.push(scaled);
    }
    assert_eq!(plan(&case, &LIMITS).kernels().len(), 3);
    check(&case, 0.0);
}

#[test]
fn neighbouring_sums_share_kernels() {
    let mut case = Case::default();
    for (seed, (shape, axes)) in
        [([300, 40], 0b01), ([300, 40], 0b10), ([7, 2000], 0b10), ([2, 9], 0b11)].into_iter().enumerate()
    {
        let x = case.leaf(DType::F32, &shape, whole(seed));
        let sum = case.graph.add(Op::Reduce(&SUM, axes), &[x]).unwrap();
        let largest = case.graph.add(Op::Reduce(&MAX, axes), &[x]).unwrap();
        case.graph.outputs.extend([sum, largest]);
    }
    check(&case, 0.0);
    // Seven buffers to a kernel.
    assert!(plan(&case, &LIMITS).kernels().len() <= 4);
    // What one reads another writes.
    let mut case = Case::default();
    let x = case.leaf(DType::F32, &[60, 50, 40], whole(1));
    let planes = case.graph.add(Op::Reduce(&SUM, 0b001), &[x]).unwrap();
    let rows = case.graph.add(Op::Reduce(&SUM, 0b01), &[planes]).unwrap();
    case.graph.outputs.push(rows);
    check(&case, 0.0);
    assert_eq!(plan(&case, &LIMITS).kernels().len(), 2);
}

#[test]
fn many_operands_are_joined_by_few_kernels() {
    for axis in 0..2 {
        let mut case = Case::default();
        let parts: Vec<Val> = (0..20)
            .map(|k| {
                let mut shape = [300, 300];
                shape[axis] = k * 7 % 5;
                case.leaf(DType::F32, &shape, whole(k))
            })
            .collect();
        let joined = case.graph.add(Op::Concat(axis as u8), &parts).unwrap();
        case.graph.outputs.push(joined);
        check(&case, 0.0);
        // Sixteen are not empty; six to a kernel.
        assert_eq!(plan(&case, &LIMITS).kernels().len(), 3);
    }
}
