//! Stages: kernels that threads share out give the bits of kernels that run one by one.

use super::{Case, difference};
use crate::dtype::DType;
use crate::exec::{Donation, Leaf, Plan};
use crate::graph::{GradientSpec, Op, Val};
use crate::machine::cpu::par::set_num_threads;
use crate::ops;
use crate::planner::plan::Kernel;
use crate::planner::stages::{Cut, RULES, Rules};
use crate::planner::{plan_by, simplify};
use crate::shape::Shape;

fn staged(case: &Case, rules: &Rules, donations: &[Donation]) -> Plan {
    let expanded = crate::autodiff::expand(&case.graph, &[]).unwrap();
    plan_by(rules, &simplify(&expanded).unwrap(), &case.strides, donations).unwrap()
}

fn wave(i: usize) -> f64 {
    ((i * 7919) % 97) as f64 / 97.0 - 0.5
}

/// Layers of tanh forward and back, and their updates by the gradient: x, then a weight and a bias for each layer.
fn net(rows: usize, width: usize, layers: usize) -> (Case, Vec<Donation>) {
    let mut case = Case::default();
    let x = case.leaf(DType::F32, &[rows, width], wave);
    let scale = |i: usize| wave(i) / 4.0;
    let leaves: Vec<Val> = (0..layers)
        .flat_map(|_| [[width, width], [1, width]].map(|shape| case.leaf(DType::F32, &shape, scale)))
        .collect();
    let rate = case.number(0.01, DType::F32);
    let g = &mut case.graph;
    let parameters: Vec<Val> = leaves.iter().map(|&leaf| g.add(Op::Marker, &[leaf]).unwrap()).collect();
    let mut y = x;
    for layer in parameters.chunks(2) {
        let turned = ops::swap_last(g, layer[0]).unwrap();
        let product = ops::matmul(g, y, turned).unwrap();
        let bias = ops::broadcast_to(g, layer[1], &Shape::from([rows, width])).unwrap();
        let sum = ops::add(g, product, bias).unwrap();
        y = ops::unary(g, &ops::activation::TANH, sum).unwrap();
    }
    let square = ops::multiply(g, y, y).unwrap();
    let loss = ops::sum(g, square, 0b11).unwrap();
    let spec = GradientSpec { targets: 1, wrt: parameters.len() as u32, ones: true };
    let node = g.push(Op::Gradient(spec), &[&[loss], parameters.as_slice()].concat()).unwrap();
    g.outputs.push(loss);
    let mut donations = Vec::new();
    for (at, &leaf) in leaves.iter().enumerate() {
        let grad = Val { node, output: at as u32 };
        let shape = g.shape(grad).clone();
        let rate = ops::broadcast_to(g, rate, &shape).unwrap();
        let step = ops::multiply(g, grad, rate).unwrap();
        let new = ops::subtract(g, leaf, step).unwrap();
        g.outputs.push(new);
        donations.push(Donation { output: at as u32 + 1, leaf: at as u32 + 1 });
    }
    (case, donations)
}

/// Runs the plan for some numbers of threads and compares each output with the unfused executor's.
fn check(case: &Case, rules: &Rules, donations: &[Donation], name: &str) -> Plan {
    let expected = case.unfused().unwrap();
    let bytes = |leaf: &Leaf| {
        let buffer = leaf.buffer.host();
        // SAFETY: the buffer holds so many bytes, and nobody writes them now.
        unsafe { std::slice::from_raw_parts(buffer.as_ptr(), buffer.len()) }.to_vec()
    };
    let kept: Vec<Vec<u8>> = case.leaves.iter().map(bytes).collect();
    for threads in [1, 2, 3, 5] {
        set_num_threads(threads);
        // The first run of a plan is shared.
        let plan = staged(case, rules, donations);
        let outputs = case.run(&plan).unwrap();
        for (at, (ours, theirs)) in outputs.iter().zip(&expected).enumerate() {
            let ty = case.graph.ty(case.graph.outputs[at]);
            let found = difference(ty.dtype, ours, theirs, ty.shape.size());
            assert!(found.is_none(), "{name}, {threads} threads, output {at}: {found:?}\n{}\n{plan}", case.graph);
        }
        for (leaf, bytes) in case.leaves.iter().zip(&kept) {
            // SAFETY: nobody else uses the buffer, which holds as many bytes.
            unsafe { leaf.buffer.host().as_mut_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        }
    }
    staged(case, rules, donations)
}

#[test]
fn a_deep_net_goes_by_rows_and_then_by_strands() {
    let (case, donations) = net(64, 64, 12);
    let plan = check(&case, &RULES, &donations, "net");
    let shapes: Vec<&Cut> = plan.stages.iter().map(|stage| &stage.cut).collect();
    let rows = Cut::Rows { rows: 64, parts: 4 };
    // Forward, backward, the gradients of weights and biases; the updates are too little.
    assert!(matches!(shapes.as_slice(), [a, b, Cut::Strands(_)] if **a == rows && **b == rows), "{plan}");
    let gradients = &plan.stages[2];
    assert!(gradients.kernels.end <= plan.commit, "{plan}");
    assert_eq!(plan.donated().count(), 24);
    let alone = plan.commit - plan.stages.iter().map(|stage| stage.kernels.len()).sum::<usize>();
    assert!(alone < 8, "{alone} kernels run alone\n{plan}");
}

#[test]
fn small_plans_and_large_kernels_have_no_stages() {
    let (small, donations) = net(16, 16, 3);
    assert!(staged(&small, &RULES, &donations).stages.is_empty());
    let (large, donations) = net(256, 256, 3);
    let plan = staged(&large, &RULES, &donations);
    let is_product = |at: usize| matches!(plan.instrs[at].kernel, Kernel::Contract(_));
    assert!(!plan.stages.iter().any(|stage| stage.kernels.clone().any(is_product)), "{plan}");
}

struct Random {
    state: u64,
    case: Case,
    rows: usize,
    /// Values of so many rows, and gradients of weights.
    vals: Vec<Val>,
    sums: Vec<Val>,
    grads: Vec<Val>,
}

const WIDTHS: [usize; 4] = [1, 4, 7, 33];

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.state >> 33) as usize % n
    }

    fn val(&mut self) -> Val {
        // Recent values more often, so that stages grow.
        let last = self.vals.len() - 1;
        let back = if self.below(3) > 0 { self.below(3).min(last) } else { self.below(last + 1) };
        self.vals[last - back]
    }

    fn width(&self, val: Val) -> usize {
        self.case.graph.shape(val)[1]
    }

    fn step(&mut self) {
        let (rows, x) = (self.rows, self.val());
        let (wide, to) = (self.width(x), WIDTHS[self.below(4)]);
        let kind = self.below(12);
        let weight = [[wide, to], [to, wide]][kind & 1];
        let leaf = (kind < 4).then(|| self.case.leaf(DType::F32, &weight, wave));
        let same: Vec<Val> = self.vals.iter().copied().filter(|&val| self.width(val) == wide).collect();
        let (other, any) = (same[self.below(same.len())], self.val());
        let bias = self.sums.iter().copied().rfind(|&sum| self.width(sum) == wide);
        let g = &mut self.case.graph;
        let made = match kind {
            0 | 2 => ops::matmul(g, x, leaf.unwrap()),
            1 | 3 => ops::swap_last(g, leaf.unwrap()).and_then(|turned| ops::matmul(g, x, turned)),
            4 => ops::unary(g, &ops::activation::TANH, x),
            5 => ops::multiply(g, x, other),
            6 => {
                let turned = ops::swap_last(g, x).unwrap();
                self.grads.push(ops::matmul(g, turned, any).unwrap());
                return;
            }
            7 => {
                let sum = ops::sum(g, x, 0b01).unwrap();
                self.sums.push(ops::reshape(g, sum, &Shape::from([1, wide])).unwrap());
                return;
            }
            8 => {
                let sum = ops::sum(g, x, 0b10).unwrap();
                ops::spread(g, sum, 0b10, x).and_then(|spread| ops::subtract(g, x, spread))
            }
            9 => {
                let spread = ops::broadcast_to(g, bias.unwrap_or(x), &Shape::from([rows, wide])).unwrap();
                ops::add(g, x, spread)
            }
            10 => {
                // All rows of another value for each row of one.
                let turned = ops::swap_last(g, other).unwrap();
                let scores = ops::matmul(g, x, turned).unwrap();
                ops::matmul(g, scores, any)
            }
            _ => {
                let moved = ops::reshape(g, x, &Shape::from([wide, rows])).unwrap();
                ops::swap_last(g, moved).and_then(|turned| ops::add(g, turned, x))
            }
        };
        self.vals.push(made.unwrap());
    }
}

#[test]
fn random_nets_agree_in_stages() {
    let (mut by_rows, mut by_strands) = (0, 0);
    for seed in 0..400 {
        let rows = [2, 3, 8, 64, 65, 130][seed % 6];
        let mut random = Random {
            state: seed as u64,
            case: Case::default(),
            rows,
            vals: Vec::new(),
            sums: Vec::new(),
            grads: Vec::new(),
        };
        random.vals.push(random.case.leaf(DType::F32, &[rows, 7], wave));
        (0..4 + seed % 30).for_each(|_| random.step());
        let Random { mut case, vals, sums, grads, .. } = random;
        let every = 1 + seed % 3;
        let outputs = vals.iter().rev().step_by(every).chain(&sums).chain(&grads);
        case.graph.outputs = outputs.copied().collect();
        let rules = Rules {
            least_plan: 0,
            least_stage: 0,
            most_stage: [u64::MAX, 3000][seed % 2],
            most_kernel: [u64::MAX, 2000][seed / 2 % 2],
            least_rows: 1 + seed % 2,
        };
        let plan = check(&case, &rules, &[], &format!("seed {seed}"));
        let count =
            |rows: bool| plan.stages.iter().filter(|stage| matches!(stage.cut, Cut::Rows { .. }) == rows).count();
        by_rows += count(true);
        by_strands += count(false);
    }
    assert!(by_rows > 400 && by_strands > 50, "{by_rows} stages by rows, {by_strands} by strands");
}
