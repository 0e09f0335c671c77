//! Stages: kernels that threads share out give the bits of kernels that run one by one.

use super::{Case, difference};
use crate::dtype::DType;
use crate::error::Result;
use crate::exec::cpu::run_in_turn;
use crate::exec::{Donation, Leaf, Plan};
use crate::graph::{GradientSpec, Layout, Op, SliceDim, TensorType, Val};
use crate::machine::cpu::par::set_num_threads;
use crate::ops;
use crate::planner::plan::Kernel;
use crate::planner::stages::{Cut, RULES, Rules};
use crate::planner::{plan_by, simplify};
use crate::shape::Shape;
use smallvec::smallvec;

fn staged(case: &Case, rules: &Rules, donations: &[Donation]) -> Plan {
    let expanded = crate::autodiff::expand(&case.graph, &[]).unwrap();
    plan_by(rules, &simplify(expanded).unwrap(), &case.strides, donations).unwrap()
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
        for how in ["at once", "in turn", "in turn from the last"] {
            let outputs = match how {
                "at once" => case.run(&plan),
                _ => run_in_turn(&plan, &case.inputs(), how != "in turn"),
            };
            for (at, (ours, theirs)) in outputs.unwrap().iter().zip(&expected).enumerate() {
                let ty = case.graph.ty(case.graph.outputs[at]);
                let found = difference(ty.dtype, ours, theirs, ty.shape.size());
                let graph = &case.graph;
                assert!(found.is_none(), "{name}, {threads} threads {how}, output {at}: {found:?}\n{graph}\n{plan}");
            }
            for (leaf, bytes) in case.leaves.iter().zip(&kept) {
                // SAFETY: nobody else uses the buffer, which holds as many bytes.
                unsafe { leaf.buffer.host().as_mut_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
            }
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
fn a_net_that_computes_again_to_save_memory_has_no_stages() {
    let (mut case, donations) = net(64, 64, 12);
    assert!(!staged(&case, &RULES, &donations).stages.is_empty());
    let (x, loss) = (Val { node: 0, output: 0 }, case.graph.outputs[0]);
    let late = case.graph.add(Op::After, &[x, loss]).unwrap();
    let again = ops::unary(&mut case.graph, &ops::activation::TANH, late).unwrap();
    case.graph.outputs.push(again);
    assert!(staged(&case, &RULES, &donations).stages.is_empty());
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
    dtype: DType,
    rows: usize,
    /// Values of so many rows, and gradients of weights.
    vals: Vec<Val>,
    sums: Vec<Val>,
    grads: Vec<Val>,
    weights: Vec<Val>,
    donations: Vec<Donation>,
}

const WIDTHS: [usize; 4] = [1, 4, 7, 33];

impl Random {
    fn new(seed: u64, rows: usize) -> Random {
        let dtype = [DType::F32, DType::F64][(seed / 8 % 2) as usize];
        let (mut case, empty) = (Case::default(), Vec::new);
        let vals = vec![case.leaf(dtype, &[rows, 7], wave)];
        let donations = Vec::new();
        Random { state: seed, case, dtype, rows, vals, sums: empty(), grads: empty(), weights: empty(), donations }
    }

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
        let kind = self.below(16);
        let made = match kind {
            0..4 => self.product(kind, x, [wide, to]),
            4..8 => self.view(kind, x, wide.min(to)),
            8 => ops::unary(&mut self.case.graph, &ops::activation::TANH, x),
            9 => {
                let turned = ops::swap_last(&mut self.case.graph, x).unwrap();
                let any = self.val();
                return self.grads.push(ops::matmul(&mut self.case.graph, turned, any).unwrap());
            }
            10 => {
                let sum = ops::sum(&mut self.case.graph, x, 0b01).unwrap();
                let row = Shape::from([1, wide]);
                return self.sums.push(ops::reshape(&mut self.case.graph, sum, &row).unwrap());
            }
            11 => {
                let g = &mut self.case.graph;
                let sum = ops::sum(g, x, 0b10).unwrap();
                ops::spread(g, sum, 0b10, x).and_then(|spread| ops::subtract(g, x, spread))
            }
            12 => {
                let bias = self.sums.iter().copied().rfind(|&sum| self.width(sum) == wide);
                let g = &mut self.case.graph;
                let spread = ops::broadcast_to(g, bias.unwrap_or(x), &Shape::from([rows, wide])).unwrap();
                ops::add(g, x, spread)
            }
            _ => self.with_another(kind, x, wide),
        };
        self.vals.push(made.unwrap());
    }

    /// Of a value and new weights: as they are, turned, one for each half of the rows, or for each half of a row.
    fn product(&mut self, kind: usize, x: Val, [wide, to]: [usize; 2]) -> Result<Val> {
        let (rows, dtype) = (self.rows, self.dtype);
        let (halves, pairs) = (kind == 0 && rows.is_multiple_of(2), kind == 2 && wide.is_multiple_of(2));
        let shape = match kind {
            _ if halves => vec![2, wide, to],
            _ if pairs => vec![wide / 2, to],
            1 | 3 => vec![to, wide],
            _ => vec![wide, to],
        };
        let leaf = self.case.leaf(dtype, &shape, wave);
        self.weights.push(leaf);
        let first = self.below(2) * rows;
        let g = &mut self.case.graph;
        if halves {
            let halves = ops::reshape(g, x, &Shape::from([2, rows / 2, wide]))?;
            let products = ops::matmul(g, halves, leaf)?;
            return ops::reshape(g, products, &Shape::from([rows, to]));
        }
        if pairs {
            let pairs = ops::reshape(g, x, &Shape::from([2 * rows, wide / 2]))?;
            let products = ops::matmul(g, pairs, leaf)?;
            let half = ops::narrow(g, products, 0, first, rows)?;
            return ops::unary(g, &ops::activation::TANH, half);
        }
        let weight = if kind & 1 == 1 { ops::swap_last(g, leaf)? } else { leaf };
        ops::matmul(g, x, weight)
    }

    /// Of a value seen otherwise: some of its columns, from a place known early or late, its rows from the last, or its
    /// elements in another order.
    fn view(&mut self, kind: usize, x: Val, columns: usize) -> Result<Val> {
        let (rows, wide) = (self.rows, self.width(x));
        let first = self.below(wide - columns + 1);
        let start = match kind {
            4 => self.case.graph.full(first as i64, TensorType::scalar(DType::I64)),
            5 => self.case.number(first as i64, DType::I64),
            _ => self.case.number(rows as i64 - 1, DType::I64),
        };
        let g = &mut self.case.graph;
        let dim = match kind {
            4 | 5 => SliceDim { axis: 1, length: columns, step: 1 },
            _ => SliceDim { axis: 0, length: rows, step: -1 },
        };
        if kind == 7 {
            let moved = ops::reshape(g, x, &Shape::from([wide, rows]))?;
            return ops::swap_last(g, moved).and_then(|turned| ops::add(g, turned, x));
        }
        let seen = g.add(Op::Layout(Layout::Slice(smallvec![dim])), &[x, start])?;
        if kind == 6 { ops::add(g, seen, x) } else { ops::unary(g, &ops::activation::TANH, seen) }
    }

    /// Of two values: one times the other, or all rows of one for each row of the other.
    fn with_another(&mut self, kind: usize, x: Val, wide: usize) -> Result<Val> {
        let same: Vec<Val> = self.vals.iter().copied().filter(|&val| self.width(val) == wide).collect();
        let (other, any) = (same[self.below(same.len())], self.val());
        let g = &mut self.case.graph;
        match kind {
            13 => ops::multiply(g, x, other),
            _ => {
                let turned = ops::swap_last(g, other)?;
                let scores = ops::matmul(g, x, turned)?;
                ops::matmul(g, scores, any)
            }
        }
    }

    /// New weights, which take the place of the old ones.
    fn update(&mut self, at: usize) {
        let weight = self.weights[at];
        let g = &mut self.case.graph;
        let grad = self.grads.iter().copied().find(|&grad| g.shape(grad) == g.shape(weight));
        let new = ops::subtract(g, weight, grad.unwrap_or(weight)).unwrap();
        g.outputs.push(new);
        // Leaf 0 is the first value.
        self.donations.push(Donation { output: g.outputs.len() as u32 - 1, leaf: at as u32 + 1 });
    }
}

#[test]
fn random_nets_agree_in_stages() {
    let (mut by_rows, mut by_strands, mut updates) = (0, 0, 0);
    for seed in 0..400 {
        let rows = [2, 3, 8, 64, 65, 130][seed % 6];
        let mut random = Random::new(seed as u64, rows);
        (0..4 + seed % 30).for_each(|_| random.step());
        let outputs = random.vals.iter().rev().step_by(1 + seed % 3).chain(&random.sums).chain(&random.grads);
        random.case.graph.outputs = outputs.copied().collect();
        (0..random.weights.len()).for_each(|at| random.update(at));
        let rules = Rules {
            least_plan: 0,
            least_stage: 0,
            most_stage: [u64::MAX, 3000][seed % 2],
            most_kernel: [u64::MAX, 2000][seed / 2 % 2],
            least_rows: 1 + seed % 2,
        };
        let plan = check(&random.case, &rules, &random.donations, &format!("seed {seed}"));
        let count =
            |rows: bool| plan.stages.iter().filter(|stage| matches!(stage.cut, Cut::Rows { .. }) == rows).count();
        by_rows += count(true);
        by_strands += count(false);
        updates += plan.stages.iter().filter(|stage| stage.kernels.start >= plan.commit).count();
    }
    let counts = format!("{by_rows} stages by rows, {by_strands} by strands, {updates} of updates");
    assert!(by_rows > 400 && by_strands > 50 && updates > 20, "{counts}");
}
