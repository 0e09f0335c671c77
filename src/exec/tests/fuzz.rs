//! Random graphs over all kinds, shapes, strides and thread counts: fused equals unfused in every bit.

use super::{Case, difference};
use crate::dtype::DType;
use crate::exec::Donation;
use crate::graph::{GatherMode, Layout, Op, Pattern, PatternStep, SliceDim, Source, TensorType, Val};
use crate::machine::cpu::isa::Isa;
use crate::machine::cpu::par::set_num_threads;
use crate::ops;
use crate::ops::pattern::PATTERNS;
use crate::scalar::Scalar;
use crate::shape::{Shape, Strides, broadcast};
use smallvec::smallvec;

struct Fuzz {
    case: Case,
    state: u64,
    vals: Vec<Val>,
}

impl Fuzz {
    fn below(&mut self, n: usize) -> usize {
        self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.state >> 33) as usize) % n.max(1)
    }

    fn dim(&mut self) -> usize {
        let small = [1, 1, 2, 3, 4, 5, 7, 10, 16, 33, 0];
        let large = [64, 65, 130, 200];
        if self.below(12) == 0 { large[self.below(large.len())] } else { small[self.below(small.len())] }
    }

    fn shape(&mut self) -> Shape {
        let rank = self.below(4);
        (0..rank).map(|_| self.dim()).collect()
    }

    fn leaf(&mut self, dtype: DType, shape: &Shape) -> Val {
        let seed = self.below(1000);
        let turned = self.below(3) == 0 && shape.rank() >= 2;
        let step = 1 + self.below(2);
        let offset = self.below(3);
        // Strides of a transposed, gapped block.
        let mut strides = shape.strides();
        if turned {
            let mut back: Vec<usize> = shape.to_vec();
            back.reverse();
            strides = Shape::new(&back).strides().into_iter().rev().collect();
        }
        strides.iter_mut().for_each(|s: &mut isize| *s *= step as isize);
        let n = shape.size() * step + offset + 1;
        let data: Vec<f64> = (0..n).map(|i| ((i * 7919 + seed * 31) % 97) as f64 / 16.0 - 3.0).collect();
        self.case.strided(dtype, shape, Strides::from_slice(&strides), offset, &data)
    }

    fn any(&mut self) -> Val {
        let at = self.below(self.vals.len());
        // Recent values more often, so that chains grow.
        if self.below(2) == 0 {
            self.vals[self.vals.len() - 1 - at.min(3).min(self.vals.len() - 1)]
        } else {
            self.vals[at]
        }
    }

    fn any_of(&mut self, dtype: DType) -> Val {
        let val = self.any();
        ops::cast(&mut self.case.graph, val, dtype).unwrap()
    }

    /// Two values broadcast to one shape, with one dtype.
    fn pair(&mut self) -> (Val, Val) {
        let a = self.any();
        let dtype = self.case.graph.dtype(a);
        for _ in 0..8 {
            let b = self.any_of(dtype);
            let g = &mut self.case.graph;
            let (sa, sb) = (g.shape(a).clone(), g.shape(b).clone());
            if let Some(shape) = broadcast(&sa, &sb).filter(|shape| shape.size() < 20_000) {
                return (ops::broadcast_to(g, a, &shape).unwrap(), ops::broadcast_to(g, b, &shape).unwrap());
            }
        }
        (a, a)
    }

    fn step(&mut self) -> Option<Val> {
        let kind = self.below(22);
        match kind {
            0..=2 => {
                let x = self.any_of(DType::F32);
                let g = &mut self.case.graph;
                match kind {
                    0 => ops::negative(g, x).ok(),
                    1 => ops::exp(g, x).ok(),
                    _ => ops::unary(g, &ops::arithmetic::ABS, x).ok(),
                }
            }
            3..=6 => {
                let (a, b) = self.pair();
                let which = self.below(4);
                let g = &mut self.case.graph;
                match which {
                    0 => ops::add(g, a, b).ok(),
                    1 => ops::subtract(g, a, b).ok(),
                    2 => ops::multiply(g, a, b).ok(),
                    _ => ops::greater(g, a, b).ok(),
                }
            }
            7 => {
                let (a, b) = self.pair();
                let c = ops::less(&mut self.case.graph, a, b).ok()?;
                ops::select(&mut self.case.graph, c, a, b).ok()
            }
            8 => {
                let dtypes = [DType::F32, DType::F64, DType::I64, DType::I32];
                let to = dtypes[self.below(4)];
                Some(self.any_of(to))
            }
            9..=11 => {
                let dtype = if self.below(4) == 0 { DType::F64 } else { DType::F32 };
                let x = self.any_of(dtype);
                let rank = self.case.graph.shape(x).rank();
                let axes = self.below(1 << rank) as u32;
                let (max, back) = (self.below(3) == 0, self.below(2) == 0);
                let g = &mut self.case.graph;
                let y = if max { ops::max(g, x, axes).ok()? } else { ops::sum(g, x, axes).ok()? };
                if back { ops::spread(g, y, axes, x).ok() } else { Some(y) }
            }
            12 => {
                let x = self.any();
                let rank = self.case.graph.shape(x).rank();
                let by = self.below(rank);
                let perm: Vec<usize> = (0..rank).map(|i| (i + by) % rank).collect();
                ops::permute(&mut self.case.graph, x, &perm).ok()
            }
            13 => {
                let x = self.any();
                let shape = self.case.graph.shape(x).clone();
                let flat = Shape::from([shape.size()]);
                let pairs = [shape.first().copied().unwrap_or(1), shape.iter().skip(1).product()];
                let to = if self.below(2) == 0 { flat } else { Shape::from(pairs) };
                ops::reshape(&mut self.case.graph, x, &to).ok()
            }
            14 => self.slice(),
            15 => self.join(),
            16 | 17 => self.product(),
            18 | 19 => {
                let pattern = PATTERNS[self.below(PATTERNS.len())];
                self.chain(pattern)
            }
            _ => self.index(),
        }
    }

    fn slice(&mut self) -> Option<Val> {
        let x = self.any();
        let shape = self.case.graph.shape(x).clone();
        let axis = self.below(shape.rank());
        let extent = *shape.get(axis)?;
        if extent == 0 {
            return None;
        }
        let (start, back) = (self.below(extent), self.below(2) == 0);
        let room = if back { start + 1 } else { extent - start };
        let step = 1 + self.below(2);
        let length = self.below(room.div_ceil(step)) + 1;
        let step = if back { -(step as isize) } else { step as isize };
        let start = self.case.number(start as i64, DType::I64);
        let dims = smallvec![SliceDim { axis: axis as u8, length, step }];
        let cut = self.case.graph.add(Op::Layout(Layout::Slice(dims)), &[x, start]).ok()?;
        if self.below(2) == 0 {
            return Some(cut);
        }
        let ty = self.case.graph.ty(x).clone();
        let dims = smallvec![SliceDim { axis: axis as u8, length, step }];
        Some(self.case.graph.add_typed(Op::Embed(dims), &[cut, start], ty))
    }

    fn join(&mut self) -> Option<Val> {
        let x = self.any();
        let rank = self.case.graph.shape(x).rank();
        let axis = self.below(rank) as u8;
        let dtype = self.case.graph.dtype(x);
        let y = self.any_of(dtype);
        if rank == 0 { None } else { self.case.graph.add(Op::Concat(axis), &[x, y, x]).ok() }
    }

    fn product(&mut self) -> Option<Val> {
        let dtype = [DType::F32, DType::F32, DType::F64, DType::I32][self.below(4)];
        let a = self.any_of(dtype);
        let g = &mut self.case.graph;
        let shape = g.shape(a).clone();
        if shape.rank() < 2 || shape.size() > 5000 {
            return None;
        }
        if self.below(2) == 0 {
            let turned = ops::swap_last(&mut self.case.graph, a).ok()?;
            return ops::matmul(&mut self.case.graph, a, turned).ok();
        }
        let mut other = shape.clone();
        let n = self.dim();
        let rank = other.rank();
        other.dims_mut()[rank - 2] = shape[rank - 1];
        other.dims_mut()[rank - 1] = n;
        let b = self.leaf(dtype, &other);
        ops::matmul(&mut self.case.graph, a, b).ok()
    }

    /// The ops of a chain that has a kernel; now and then a value between them is used elsewhere too.
    fn chain(&mut self, pattern: &Pattern) -> Option<Val> {
        let dtype = if self.below(4) == 0 { DType::F64 } else { DType::F32 };
        let x = if pattern.columns == 0 { self.any_of(dtype) } else { self.rows(dtype) };
        let shape = self.case.graph.shape(x).clone();
        let is_column = |input: usize| pattern.columns >> input & 1 == 1;
        let mut values = if is_column(0) { vec![self.column(x, 0)?] } else { vec![x] };
        for input in 1..pattern.inputs {
            if is_column(input) {
                let column = self.column(x, input)?;
                values.push(column);
                continue;
            }
            let is_condition = |step: &PatternStep| matches!((step.op)(), Op::Select) && step.args[0] == input as u8;
            let other = if pattern.columns == 0 { self.any_of(dtype) } else { self.leaf(dtype, &shape) };
            let constant = self.below(2) == 0;
            let g = &mut self.case.graph;
            let value = match broadcast(g.shape(other), &shape) {
                Some(common) if common == shape && !constant => ops::broadcast_to(g, other, &shape).ok()?,
                _ => ops::full_like(g, 0.3 * input as f64 + 0.04, x),
            };
            values.push(if pattern.steps.iter().any(is_condition) { ops::greater(g, value, x).ok()? } else { value });
        }
        for step in pattern.steps {
            let args: Vec<Val> = step.args.iter().map(|&value| values[value as usize]).collect();
            values.push(self.case.graph.add((step.op)(), &args).ok()?);
        }
        let outputs = pattern.outputs.iter().map(|&value| values[value as usize]);
        self.vals.extend(outputs);
        let between = values[pattern.inputs + self.below(pattern.steps.len())];
        if self.below(8) == 0 { Some(between) } else { values.last().copied() }
    }

    /// Rows that kernels take one by one.
    fn rows(&mut self, dtype: DType) -> Val {
        let lengths = [64, 115, 128, 190, 250];
        let shape = Shape::from([1 + self.below(40), lengths[self.below(lengths.len())]]);
        self.leaf(dtype, &shape)
    }

    /// The largest element or the mean of each row of x, spread along it: numbers of the size of the elements, so that
    /// devices agree on what an integer of their exponential is.
    fn column(&mut self, x: Val, which: usize) -> Option<Val> {
        let g = &mut self.case.graph;
        let reduced = if which.is_multiple_of(2) {
            ops::max(g, x, 0b10).ok()?
        } else {
            let sum = ops::sum(g, x, 0b10).ok()?;
            let share = ops::full_like(g, 1.0 / g.shape(x)[1] as f64, sum);
            ops::multiply(g, sum, share).ok()?
        };
        let shift = ops::full_like(g, 0.4 * which as f64 - 0.7, reduced);
        let shifted = ops::add(g, reduced, shift).ok()?;
        ops::spread(g, shifted, 0b10, x).ok()
    }

    fn index(&mut self) -> Option<Val> {
        let x = self.any();
        let shape = self.case.graph.shape(x).clone();
        let axis = self.below(shape.rank());
        let extent = *shape.get(axis)?;
        if extent == 0 {
            return None;
        }
        let along = self.below(2) == 0;
        let mut at: Shape = if along { shape.clone() } else { Shape::from([self.dim()]) };
        if along {
            at.dims_mut()[axis] = 1 + self.below(5);
        }
        let indices = self.case.leaf(DType::I64, &at, |i| ((i * 7) % (2 * extent)) as f64 - extent as f64);
        let mode = if along { GatherMode::Along } else { GatherMode::Take };
        let g = &mut self.case.graph;
        let picked = g.add(Op::Gather(mode, axis as u8), &[x, indices]).ok()?;
        if self.below(2) == 0 {
            return Some(picked);
        }
        let ty = TensorType { dtype: self.case.graph.dtype(picked), shape };
        Some(self.case.graph.add_typed(Op::Scatter(mode, axis as u8), &[picked, indices], ty))
    }
}

pub fn graph(seed: u64, steps: usize) -> Case {
    let mut fuzz = Fuzz { case: Case::default(), state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), vals: Vec::new() };
    let common = [fuzz.dim(), fuzz.dim()];
    for shape in [Shape::from(common), Shape::from([common[1]]), Shape::from([common[0], 1]), fuzz.shape()] {
        let leaf = fuzz.leaf(DType::F32, &shape);
        fuzz.vals.push(leaf);
    }
    let number = fuzz.case.number(0.75, DType::F32);
    let full = fuzz.case.graph.full(1.5, TensorType::new(DType::F32, common));
    fuzz.vals.extend([number, full]);
    for _ in 0..steps {
        if let Some(val) = fuzz.step().filter(|&val| fuzz.case.graph.shape(val).size() < 30_000) {
            fuzz.vals.push(val);
        }
    }
    for _ in 0..1 + fuzz.below(4) {
        let output = fuzz.any();
        fuzz.case.graph.outputs.push(output);
    }
    fuzz.case.graph.outputs.extend(fuzz.vals.last());
    fuzz.case
}

/// Donations of each output to some leaf of its type; a plan refuses those that would lose an old value.
pub fn donations(case: &Case, seed: u64) -> Vec<Donation> {
    let mut donations: Vec<Donation> = Vec::new();
    for (output, &val) in case.graph.outputs.iter().enumerate() {
        let ty = case.graph.ty(val);
        let fitting = case.graph.nodes.iter().filter_map(|node| match node.op {
            Op::Source(Source::Leaf(slot)) if node.outputs[0] == *ty => Some(slot),
            _ => None,
        });
        let leaves: Vec<u32> = fitting.filter(|&slot| case.leaves[slot as usize].offset == 0).collect();
        if !leaves.is_empty() {
            let leaf = leaves[(seed as usize + output) % leaves.len()];
            donations.push(Donation { output: output as u32, leaf });
        }
    }
    donations
}

#[test]
fn random_graphs_agree_when_buffers_are_donated() {
    let mut honoured = 0;
    for seed in 0..2000 {
        set_num_threads(1 + seed as usize % 3);
        let case = graph(seed, 3 + seed as usize % 25);
        let plan = case.plan(&donations(&case, seed));
        honoured += plan.donated().count();
        let expected = case.unfused().unwrap();
        let outputs = case.run(&plan).unwrap();
        for (at, (ours, theirs)) in outputs.iter().zip(&expected).enumerate() {
            let ty = case.graph.ty(case.graph.outputs[at]);
            let found = difference(ty.dtype, ours, theirs, ty.shape.size());
            assert!(found.is_none(), "seed {seed}, output {at}: {found:?}\n{}\n{plan}", case.graph);
        }
    }
    assert!(honoured > 100, "{honoured} donations were honoured");
}

#[test]
fn chains_are_found_and_change_no_bit() {
    for pattern in PATTERNS {
        let mut found = 0;
        for seed in 0..60 {
            set_num_threads(1 + seed as usize % 3);
            let mut case = graph(seed, 2 + seed as usize % 6);
            let fuzz = &mut Fuzz { vals: case.graph.outputs.clone(), case: std::mem::take(&mut case), state: seed };
            let last = fuzz.chain(pattern);
            let outputs = pattern.outputs.len();
            let outputs: Vec<Val> = fuzz.vals.iter().rev().take(outputs).copied().chain(last).collect();
            fuzz.case.graph.outputs.extend(outputs);
            let text = fuzz.case.check().to_string();
            found += usize::from(text.split([' ', '(', ')']).any(|word| word == pattern.name));
        }
        // Where operands coincide, ops merge and the chain is another.
        assert!(found > 20, "{} was found {found} times", pattern.name);
    }
}

/// A digest of the outputs of plans of random graphs.
fn digest() -> u64 {
    let mut digest = 0xcbf2_9ce4_8422_2325;
    for seed in 0..400 {
        set_num_threads(1 + seed as usize % 3);
        let case = graph(seed, 4 + seed as usize % 40);
        for (buffer, &val) in case.run(&case.plan(&[])).unwrap().iter().zip(&case.graph.outputs) {
            let ty = case.graph.ty(val);
            for i in 0..ty.shape.size() {
                // SAFETY: element i of the output.
                let bytes = unsafe {
                    std::slice::from_raw_parts(buffer.host().as_ptr().add(i * ty.dtype.size()), ty.dtype.size())
                };
                let element = Scalar::from_bytes(ty.dtype, bytes);
                let is_nan = element.as_f64().is_nan();
                let bits = if is_nan { u64::MAX } else { u64::from_ne_bytes(element.to_bytes(ty.dtype)) };
                digest = (digest ^ bits).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
    }
    digest
}

#[test]
#[ignore = "run by the test below, in a process for each instruction set"]
fn print_digest() {
    println!("digest {:x}", digest());
}

#[test]
fn whole_plans_agree_on_avx2_and_avx512() {
    let digest = |isa: Isa| {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "exec::tests::fuzz::print_digest"])
            .env("WENGERT_ISA", isa.name())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().find_map(|line| Some(line.split_once("digest ")?.1.to_string())).unwrap()
    };
    if Isa::Avx512.is_supported() {
        assert_eq!(digest(Isa::Avx2), digest(Isa::Avx512));
    }
}

#[test]
fn random_graphs_agree_with_the_unfused_executor() {
    for seed in 0..1500 {
        set_num_threads(1 + seed as usize % 4);
        graph(seed, 4 + seed as usize % 40).check();
    }
}
