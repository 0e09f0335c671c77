//! Single plans: what becomes one kernel, what is donated, what fails and leaves old values whole, what planning and
//! running cost.

use super::{Case, floats};
use crate::dtype::DType;
use crate::error::ErrorKind;
use crate::exec::{Donation, OutputHome, Plan};
use crate::graph::{Attrs, GatherMode, GradientSpec, Layout, Op, TensorType, Val};
use crate::machine::cpu::par::set_num_threads;
use crate::ops;
use crate::planner::plan::Kernel;
use crate::shape::Shape;
use smallvec::smallvec;
use std::sync::Arc;
use std::time::Instant;

fn pairs(donations: &[(u32, u32)]) -> Vec<Donation> {
    donations.iter().map(|&(output, leaf)| Donation { output, leaf }).collect()
}

fn wave(i: usize) -> f64 {
    ((i * 37) % 101) as f64 / 25.0 - 2.0
}

fn composite(case: &mut Case, def: &'static crate::graph::CompositeDef, attrs: Attrs, inputs: &[Val]) -> Val {
    case.graph.add(Op::Composite(def, attrs), inputs).unwrap()
}

/// The gradient of `target` with respect to `wrt`, which is made a marker of its own first.
fn gradient(case: &mut Case, wrt: Val, f: impl Fn(&mut Case, Val) -> Val) -> (Val, Val) {
    let marker = case.graph.add(Op::Marker, &[wrt]).unwrap();
    let target = f(case, marker);
    let spec = GradientSpec { targets: 1, wrt: 1, ones: true };
    let node = case.graph.push(Op::Gradient(spec), &[target, marker]).unwrap();
    (target, Val { node, output: 0 })
}

#[test]
fn softmax_and_its_gradient_are_one_kernel() {
    for shape in [[64, 10], [3, 1000], [200, 1], [1, 7]] {
        let mut case = Case::default();
        let x = case.leaf(DType::F32, &shape, wave);
        let w = case.leaf(DType::F32, &shape, |i| (i % 5) as f64);
        let (_, dx) = gradient(&mut case, x, |case, x| {
            let y = composite(case, &ops::softmax::SOFTMAX, smallvec![1], &[x]);
            ops::multiply(&mut case.graph, y, w).unwrap()
        });
        case.graph.outputs.push(dx);
        let plan = case.check();
        assert_eq!(plan.kernels(), 1, "{plan}");
    }
}

#[test]
fn cross_entropy_and_its_gradient_are_one_kernel_and_the_mean() {
    let mut case = Case::default();
    let x = case.leaf(DType::F32, &[64, 10], wave);
    let target = case.leaf(DType::I64, &[64], |i| (i % 10) as f64);
    let (loss, dx) = gradient(&mut case, x, |case, x| {
        composite(case, &ops::cross_entropy::CROSS_ENTROPY, smallvec![1, -100, 0, 0], &[x, target])
    });
    case.graph.outputs = vec![loss, dx];
    let plan = case.check();
    println!("{plan}");
    // The mean over rows is needed before the backward half: one row program each, and one for the rows.
    assert_eq!(plan.kernels(), 3, "{plan}");
}

/// Adam on a parameter of this size: outputs are the parameter and the two moments, inputs by slot 0, 1, 2.
#[test]
fn the_slope_of_a_tanh_is_made_where_it_is_read() {
    let mut case = Case::default();
    let (x, w) = (case.leaf(DType::F32, &[32, 16], wave), case.leaf(DType::F32, &[16, 16], wave));
    let (loss, dw) = gradient(&mut case, w, |case, w| {
        let mut y = x;
        for _ in 0..3 {
            y = ops::matmul(&mut case.graph, y, w).unwrap();
            y = ops::unary(&mut case.graph, &ops::activation::TANH, y).unwrap();
        }
        y
    });
    case.graph.outputs.extend([loss, dw]);
    let plan = case.check();
    let forward = plan.accounts().0.iter().find(|account| account.ops[0] == "tanh").unwrap();
    assert_eq!(forward.ops, ["tanh"], "{plan}");
}

#[test]
fn a_normalised_row_is_made_again_from_what_the_backward_pass_reads_anyway() {
    const SIZE: u64 = 128 * 64 * 4;
    let mut case = Case::default();
    let (x, w) = (case.leaf(DType::F32, &[128, 64], wave), case.leaf(DType::F32, &[64, 64], wave));
    let scale = case.leaf(DType::F32, &[64], |i| wave(i) + 3.0);
    let eps = case.number(1e-5, DType::F32);
    let (loss, slope) = gradient(&mut case, scale, |case, scale| {
        let rows = TensorType::new(DType::F32, [128, 64]);
        let rows = case.graph.add_typed(Op::Layout(Layout::Broadcast), &[scale], rows);
        let y = ops::multiply(&mut case.graph, x, rows).unwrap();
        let y = ops::matmul(&mut case.graph, y, w).unwrap();
        let y = composite(case, &ops::normalization::LAYER_NORM, smallvec![1, 1, 0], &[y, eps, scale]);
        ops::matmul(&mut case.graph, y, w).unwrap()
    });
    case.graph.outputs.extend([loss, slope]);
    let plan = case.check();
    let forward = plan.accounts().0.iter().find(|account| account.ops.contains(&"rsqrt")).unwrap();
    assert!((3 * SIZE..4 * SIZE).contains(&forward.bytes), "the row, centred, and the result: {forward:?}\n{plan}");
}

fn adam(size: usize) -> Case {
    let mut case = Case::default();
    let leaves: Vec<Val> = (0..4).map(|k| case.leaf(DType::F32, &[size], |i| wave(i + k).abs())).collect();
    let numbers: Vec<Val> = [0.9, 0.1, 0.999, 0.001, 0.01, 1e-8].map(|x| case.number(x, DType::F32)).to_vec();
    let g = &mut case.graph;
    let shape = Shape::from([size]);
    let n: Vec<Val> = numbers.iter().map(|&x| ops::broadcast_to(g, x, &shape).unwrap()).collect();
    let (p, m, v, grad) = (leaves[0], leaves[1], leaves[2], leaves[3]);
    let mix = |g: &mut crate::graph::Graph, old: Val, new: Val, a: Val, b: Val| {
        let (old, new) = (ops::multiply(g, old, a).unwrap(), ops::multiply(g, new, b).unwrap());
        ops::add(g, old, new).unwrap()
    };
    let m = mix(g, m, grad, n[0], n[1]);
    let square = ops::multiply(g, grad, grad).unwrap();
    let v = mix(g, v, square, n[2], n[3]);
    let root = ops::unary(g, &ops::exponential::SQRT, v).unwrap();
    let below = ops::add(g, root, n[5]).unwrap();
    let ratio = ops::divide(g, m, below).unwrap();
    let step = ops::multiply(g, ratio, n[4]).unwrap();
    let p = ops::subtract(g, p, step).unwrap();
    g.outputs = vec![p, m, v];
    case
}

#[test]
fn adam_is_one_kernel_and_updates_in_place() {
    for size in [1, 10, 1000, 300_000] {
        for threads in 1..4 {
            set_num_threads(threads);
            let case = adam(size);
            assert_eq!(case.check().kernels(), 1);
            let expected = case.unfused().unwrap();
            let plan = case.plan(&pairs(&[(0, 0), (1, 1), (2, 2)]));
            assert_eq!(plan.donated().collect::<Vec<_>>(), [0, 1, 2], "{plan}");
            let outputs = case.run(&plan).unwrap();
            assert!(outputs.iter().zip(&case.leaves).all(|(buffer, leaf)| Arc::ptr_eq(buffer, &leaf.buffer)));
            for (leaf, expected) in case.leaves.iter().zip(&expected) {
                assert_eq!(floats(&leaf.buffer), floats(expected));
            }
        }
    }
}

#[test]
fn the_gradient_of_a_weight_is_computed_before_that_of_the_input() {
    let mut case = Case::default();
    let x = case.leaf(DType::F32, &[64, 32], wave);
    let weights = [case.leaf(DType::F32, &[16, 32], wave), case.leaf(DType::F32, &[8, 16], wave)];
    let g = &mut case.graph;
    let markers = weights.map(|weight| g.add(Op::Marker, &[weight]).unwrap());
    let [first, second] = markers.map(|marker| ops::swap_last(g, marker).unwrap());
    let hidden = ops::matmul(g, x, first).unwrap();
    let hidden = ops::unary(g, &ops::activation::TANH, hidden).unwrap();
    let y = ops::matmul(g, hidden, second).unwrap();
    let square = ops::multiply(g, y, y).unwrap();
    let spec = GradientSpec { targets: 1, wrt: 2, ones: true };
    let node = g.push(Op::Gradient(spec), &[square, markers[0], markers[1]]).unwrap();
    g.outputs = vec![Val { node, output: 0 }, Val { node, output: 1 }];
    let plan = case.check();
    let products = plan.instrs.iter().filter_map(|instr| match &instr.kernel {
        Kernel::Contract(product) => Some(product.shape),
        _ => None,
    });
    let forward = [(64, 32, 16), (64, 16, 8)];
    let backward = [(8, 64, 16), (64, 8, 16), (16, 64, 32)];
    assert!(products.eq(forward.into_iter().chain(backward)), "{plan}");
}

/// A graph of two leaves and the outputs that `f` makes; which of the donations are honoured.
fn honoured(f: impl Fn(&mut crate::graph::Graph, Val, Val) -> Vec<Val>, donations: &[(u32, u32)]) -> Vec<bool> {
    let mut case = Case::default();
    let (a, b) = (case.leaf(DType::F32, &[4, 4], wave), case.leaf(DType::F32, &[4, 4], |i| i as f64));
    case.graph.outputs = f(&mut case.graph, a, b);
    let expected = case.unfused().unwrap();
    let plan = case.plan(&pairs(donations));
    let outputs = case.run(&plan).unwrap();
    for (at, (ours, theirs)) in outputs.iter().zip(&expected).enumerate() {
        assert_eq!(floats(ours), floats(theirs), "output {at}\n{plan}");
    }
    donations.iter().map(|&(output, leaf)| plan.outputs()[output as usize] == OutputHome::Donated(leaf)).collect()
}

#[test]
fn donations_are_refused_where_an_old_value_would_be_lost() {
    let add = |g: &mut crate::graph::Graph, a, b| ops::add(g, a, b).unwrap();
    // Plain update.
    assert_eq!(honoured(|g, a, b| vec![add(g, a, b)], &[(0, 0)]), [true]);
    // The old value is read transposed by the same kernel.
    let turned = |g: &mut crate::graph::Graph, a: Val, b: Val| {
        let t = ops::swap_last(g, a).unwrap();
        vec![add(g, t, b)]
    };
    assert_eq!(honoured(turned, &[(0, 0)]), [false]);
    assert_eq!(honoured(turned, &[(0, 1)]), [true]);
    // The new value is read by another kernel.
    let read = |g: &mut crate::graph::Graph, a: Val, b: Val| {
        let new = add(g, a, b);
        let product = ops::matmul(g, new, b).unwrap();
        vec![new, product]
    };
    assert_eq!(honoured(read, &[(0, 0)]), [false]);
    // The old value is read by a kernel that runs before: fine, and by another one of the commit block: not.
    let before = |g: &mut crate::graph::Graph, a: Val, b: Val| {
        let product = ops::matmul(g, a, b).unwrap();
        vec![add(g, a, b), product]
    };
    assert_eq!(honoured(before, &[(0, 0)]), [true]);
    let crossed = |g: &mut crate::graph::Graph, a: Val, b: Val| {
        let t = ops::swap_last(g, b).unwrap();
        let first = add(g, a, t);
        let u = ops::swap_last(g, a).unwrap();
        let second = ops::multiply(g, u, b).unwrap();
        vec![first, second]
    };
    assert_eq!(honoured(crossed, &[(0, 0), (1, 1)]), [false, false]);
    let part = |g: &mut crate::graph::Graph, a: Val, b: Val| {
        let half = ops::narrow(g, a, 0, 0, 2).unwrap();
        let pair = ops::reshape(g, b, &Shape::from([2, 8])).unwrap();
        let both = ops::reshape(g, half, &Shape::from([1, 8])).unwrap();
        let both = ops::broadcast_to(g, both, &Shape::from([2, 8])).unwrap();
        let new = ops::multiply(g, pair, both).unwrap();
        vec![ops::negative(g, a).unwrap(), ops::reshape(g, new, &Shape::from([4, 4])).unwrap()]
    };
    assert!(honoured(part, &[(0, 0), (1, 1)]).iter().filter(|x| **x).count() < 2);
    // Two outputs of one value, one leaf twice, a product, an output that is the leaf itself.
    assert_eq!(
        honoured(
            |g, a, b| {
                let x = add(g, a, b);
                vec![x, x]
            },
            &[(0, 0)]
        ),
        [false]
    );
    let two = |g: &mut crate::graph::Graph, a: Val, b: Val| vec![add(g, a, b), ops::subtract(g, a, b).unwrap()];
    assert_eq!(honoured(two, &[(0, 0), (1, 0)]), [true, false]);
    assert_eq!(honoured(two, &[(0, 0), (1, 1)]), [true, true]);
    assert_eq!(honoured(|g, a, b| vec![ops::matmul(g, a, b).unwrap()], &[(0, 0)]), [false]);
    assert_eq!(honoured(|g, a, b| vec![add(g, a, b), a], &[(0, 0)]), [true]);
    // Swapped values, and an old value that is read again after the new one is made.
    let swap = |g: &mut crate::graph::Graph, a: Val, b: Val| {
        let (x, y) = (ops::negative(g, a).unwrap(), ops::negative(g, b).unwrap());
        let z = add(g, x, b);
        vec![z, add(g, y, a)]
    };
    honoured(swap, &[(0, 0), (1, 1)]);
    honoured(swap, &[(0, 1), (1, 0)]);
}

/// Two kernels of different sizes, one of which reads what the other overwrites: one donation at most, either way.
#[test]
fn commit_kernels_do_not_read_what_others_overwrite() {
    for order in [[(0, 0), (1, 1)], [(1, 1), (0, 0)]] {
        let mut case = Case::default();
        let (a, b) = (case.leaf(DType::F32, &[8], wave), case.leaf(DType::F32, &[4], |i| i as f64));
        let g = &mut case.graph;
        let half = ops::narrow(g, a, 0, 2, 4).unwrap();
        g.outputs = vec![ops::negative(g, a).unwrap(), ops::add(g, b, half).unwrap()];
        let expected = case.unfused().unwrap();
        let plan = case.plan(&pairs(&order));
        assert_eq!(plan.donated().collect::<Vec<_>>(), [order[0].1], "{plan}");
        let outputs = case.run(&plan).unwrap();
        assert!(outputs.iter().zip(&expected).all(|(x, y)| floats(x) == floats(y)), "{plan}");
    }
}

#[test]
fn a_bad_index_is_told_before_anything_is_committed() {
    let mut case = Case::default();
    let table = case.leaf(DType::F32, &[5, 3], wave);
    let indices = case.leaf(DType::I64, &[4], |i| if i == 2 { -6.0 } else { i as f64 });
    let g = &mut case.graph;
    let picked = g.add(Op::Gather(GatherMode::Take, 0), &[table, indices]).unwrap();
    let moved = g.add_typed(Op::Scatter(GatherMode::Take, 0), &[picked, indices], TensorType::new(DType::F32, [5, 3]));
    let new = ops::subtract(g, table, moved).unwrap();
    g.outputs = vec![new];
    let old = floats(&case.leaves[0].buffer);
    let plan = case.plan(&pairs(&[(0, 0)]));
    assert_eq!(plan.donated().count(), 1, "{plan}");
    let error = case.run(&plan).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Index);
    assert_eq!(error.message(), "take: index -6 is out of range for axis 0 of size 5");
    assert_eq!(floats(&case.leaves[0].buffer), old);
}

#[test]
fn sums_of_many_rows_and_long_rows_agree_for_any_thread_count() {
    for shape in [&[3, 70, 5, 130][..], &[1000, 300], &[2, 300_000], &[70_000], &[9000, 2, 64], &[64, 9000]] {
        let mut case = Case::default();
        let x = case.leaf(DType::F32, shape, wave);
        for axes in 1..1u32 << shape.len() {
            let g = &mut case.graph;
            let y = ops::exp(g, x).unwrap();
            let z = ops::sum(g, y, axes).unwrap();
            let w = ops::spread(g, z, axes, x).unwrap();
            let w = ops::divide(g, y, w).unwrap();
            let w = ops::max(g, w, axes).unwrap();
            g.outputs.extend([z, w]);
        }
        for threads in 1..4 {
            set_num_threads(threads);
            case.check();
        }
    }
}

#[test]
fn a_mean_squared_error_of_many_elements_is_one_kernel() {
    let mut case = Case::default();
    let (x, y) = (case.leaf(DType::F32, &[300, 70], wave), case.leaf(DType::F32, &[300, 70], |i| wave(i * 3)));
    let g = &mut case.graph;
    let e = ops::subtract(g, x, y).unwrap();
    let e = ops::multiply(g, e, e).unwrap();
    let s = ops::sum(g, e, 0b11).unwrap();
    g.outputs = vec![s];
    assert_eq!(case.check().kernels(), 1);
}

/// The reference is within rounding of the plan, and not a copy of it.
#[test]
fn the_reference_bounds_errors() {
    let case = xor();
    let ours = case.run(&case.plan(&[])).unwrap();
    let exact = crate::exec::reference::run(&case.graph, &[], &case.strides, &case.inputs()).unwrap();
    for (at, (ours, exact)) in ours.iter().zip(&exact).enumerate() {
        for (i, x) in floats(ours).into_iter().enumerate() {
            // SAFETY: float outputs of the reference are float64.
            let y = unsafe { *exact.host().as_ptr().cast::<f64>().add(i) };
            assert!((f64::from(x) - y).abs() < 2e-6 * y.abs().max(1.0), "output {at}: {x} instead of {y}");
        }
    }
}

fn chain(nodes: usize) -> Case {
    let mut case = Case::default();
    let (mut x, b) = (case.leaf(DType::F32, &[4], wave), case.leaf(DType::F32, &[4, 4], wave));
    for i in 0..nodes / 10 {
        let g = &mut case.graph;
        x = if i % 50 == 0 {
            let column = ops::reshape(g, x, &Shape::from([4, 1])).unwrap();
            let y = ops::matmul(g, b, column).unwrap();
            ops::reshape(g, y, &Shape::from([4])).unwrap()
        } else {
            let y = ops::unary(g, &ops::activation::TANH, x).unwrap();
            let s = ops::sum(g, y, 1).unwrap();
            let s = ops::spread(g, s, 1, y).unwrap();
            let z = ops::add(g, y, s).unwrap();
            let z = ops::negative(g, z).unwrap();
            let z = ops::multiply(g, z, y).unwrap();
            let z = ops::subtract(g, z, x).unwrap();
            ops::multiply(g, z, z).unwrap()
        };
    }
    case.graph.outputs.push(x);
    case
}

#[test]
fn a_hundred_thousand_nodes_plan_and_run_on_a_small_stack() {
    let work = || {
        let case = chain(120_000);
        assert!(case.graph.nodes.len() > 100_000);
        let plan = case.plan(&[]);
        case.run(&plan).unwrap();
    };
    std::thread::Builder::new().stack_size(512 << 10).spawn(work).unwrap().join().unwrap();
}

/// xor: 4 × 2 → 8 → 1, forward, backward and momentum updates.
fn xor() -> Case {
    let mut case = Case::default();
    let x = case.leaf(DType::F32, &[4, 2], |i| [0., 0., 0., 1., 1., 0., 1., 1.][i]);
    let target = case.leaf(DType::F32, &[4, 1], |i| [0., 1., 1., 0.][i]);
    let shapes: [&[usize]; 4] = [&[2, 8], &[8], &[8, 1], &[1]];
    let parameters: Vec<Val> = shapes.iter().map(|s| case.leaf(DType::F32, s, wave)).collect();
    let momenta: Vec<Val> = shapes.iter().map(|s| case.leaf(DType::F32, s, |_| 0.0)).collect();
    let (lr, mu) = (case.number(0.1, DType::F32), case.number(0.9, DType::F32));
    let g = &mut case.graph;
    let p: Vec<Val> = parameters.iter().map(|&p| g.add(Op::Marker, &[p]).unwrap()).collect();
    let linear = |g: &mut crate::graph::Graph, x: Val, w: Val, b: Val| {
        let y = ops::matmul(g, x, w).unwrap();
        let shape = g.shape(y).clone();
        let b = ops::broadcast_to(g, b, &shape).unwrap();
        ops::add(g, y, b).unwrap()
    };
    let h = linear(g, x, p[0], p[1]);
    let h = ops::unary(g, &ops::activation::TANH, h).unwrap();
    let y = linear(g, h, p[2], p[3]);
    let e = ops::subtract(g, y, target).unwrap();
    let e = ops::multiply(g, e, e).unwrap();
    let s = ops::sum(g, e, 0b11).unwrap();
    let quarter = ops::full_like(g, 0.25, s);
    let loss = ops::multiply(g, s, quarter).unwrap();
    let mut inputs = vec![loss];
    inputs.extend(&p);
    let node = g.push(Op::Gradient(GradientSpec { targets: 1, wrt: 4, ones: true }), &inputs).unwrap();
    g.outputs.push(loss);
    for output in 0..4 {
        let grad = Val { node, output: output as u32 };
        let shape = g.shape(grad).clone();
        let (lr, mu) = (ops::broadcast_to(g, lr, &shape).unwrap(), ops::broadcast_to(g, mu, &shape).unwrap());
        let kept = ops::multiply(g, momenta[output], mu).unwrap();
        let m = ops::add(g, kept, grad).unwrap();
        let step = ops::multiply(g, m, lr).unwrap();
        let new = ops::subtract(g, parameters[output], step).unwrap();
        g.outputs.extend([new, m]);
    }
    case
}

fn donate_all() -> Vec<Donation> {
    (0..4).flat_map(|k| pairs(&[(1 + 2 * k, 2 + k), (2 + 2 * k, 6 + k)])).collect()
}

#[test]
fn a_training_step_is_a_few_kernels() {
    let case = xor();
    case.check();
    let plan = case.plan(&donate_all());
    println!("{plan}");
    assert_eq!(plan.donated().count(), 8, "{plan}");
    let expected = case.unfused().unwrap();
    case.run(&plan).unwrap();
    for k in 0..4 {
        assert_eq!(floats(&case.leaves[2 + k].buffer), floats(&expected[1 + 2 * k]));
    }
}

fn best(times: usize, mut f: impl FnMut()) -> f64 {
    let time = |f: &mut dyn FnMut()| {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64()
    };
    (0..times).map(|_| time(&mut f)).fold(f64::INFINITY, f64::min)
}

/// Prints costs: `cargo test --release -- --ignored costs --nocapture`.
#[test]
#[ignore = "prints timings"]
fn costs() {
    let case = chain(10_000);
    let nodes = case.graph.nodes.len();
    let planning = best(5, || drop(case.plan(&[])));
    println!("planning: {:.2} µs a node ({nodes} nodes)", planning * 1e6 / nodes as f64);
    let expansion = best(5, || drop(crate::autodiff::expand(&case.graph, &[]).unwrap()));
    println!("expansion alone: {:.2} µs a node", expansion * 1e6 / nodes as f64);
    let case = xor();
    let nodes = crate::autodiff::expand(&case.graph, &[]).unwrap().nodes.len();
    let planning = best(50, || drop(case.plan(&donate_all())));
    println!("planning xor: {:.1} µs for {nodes} nodes", planning * 1e6);
    let plan: Plan = case.plan(&donate_all());
    let inputs = case.inputs();
    let running = best(20, || (0..1000).for_each(|_| drop(crate::exec::run(&plan, &inputs).unwrap())));
    println!("running xor: {:.2} µs, {} kernels\n{plan}", running * 1e3, plan.kernels());
    let cache = crate::exec::Cache::new(1 << 20);
    let plan = Arc::new(crate::exec::DevicePlan::Cpu(plan));
    for words in [100, 400, 2000] {
        let key: Vec<u64> = (0..words).collect();
        cache.insert(key.clone(), Arc::clone(&plan));
        let looking = best(20, || (0..1000).for_each(|_| drop(std::hint::black_box(cache.get(&key)))));
        println!("a lookup of {words} words: {:.0} ns", looking * 1e6);
    }
    for size in [1000, 100_000, 4_000_000] {
        let case = adam(size);
        let plan = case.plan(&pairs(&[(0, 0), (1, 1), (2, 2)]));
        for threads in [1, 2] {
            set_num_threads(threads);
            let running = best(20, || drop(crate::exec::run(&plan, &case.inputs()).unwrap()));
            println!(
                "adam {size}, {threads} threads: {:.1} µs, {:.3} ns an element",
                running * 1e6,
                running * 1e9 / size as f64
            );
        }
    }
    for shape in [[64, 10], [64, 1000], [4096, 512]] {
        let mut case = Case::default();
        let x = case.leaf(DType::F32, &shape, wave);
        let y = composite(&mut case, &ops::softmax::SOFTMAX, smallvec![1], &[x]);
        case.graph.outputs.push(y);
        let plan = case.plan(&[]);
        let running = best(20, || drop(case.run(&plan).unwrap()));
        println!(
            "softmax {shape:?}: {:.2} µs, {:.3} ns an element",
            running * 1e6,
            running * 1e9 / (shape[0] * shape[1]) as f64
        );
    }
}
