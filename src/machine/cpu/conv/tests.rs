//! Each derivative against plain loops, for many shapes, instruction sets and threads; the bits for threads.

use super::*;
use crate::machine::cpu::par::set_num_threads;
use std::fmt::Debug;

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }

    fn pick(&mut self, from: &[usize]) -> usize {
        from[self.below(from.len())]
    }
}

trait Real: Element + Debug + PartialEq {
    const EPSILON: f64;
    fn from_f64(x: f64) -> Self;
    fn to_f64(self) -> f64;
}

macro_rules! real {
    ($t:ident) => {
        impl Real for $t {
            const EPSILON: f64 = $t::EPSILON as f64;
            fn from_f64(x: f64) -> $t {
                x as $t
            }
            fn to_f64(self) -> f64 {
                self as f64
            }
        }
    };
}

real!(f32);
real!(f64);

fn shape(batch: usize, groups: usize, channels: (usize, usize), axes: &[(usize, Sweep)]) -> Shape {
    let grid = |&(extent, sweep): &(usize, Sweep)| (extent + 2 * sweep.low - sweep.reach() - 1) / sweep.stride + 1;
    let three = |f: &dyn Fn(&(usize, Sweep)) -> usize| {
        crate::machine::cpu::sweep::three(&axes.iter().map(f).collect::<Vec<_>>(), 1)
    };
    Shape {
        batch,
        groups,
        inputs: channels.0,
        outputs: channels.1,
        field: three(&|axis| axis.0),
        grid: three(&grid),
        sweeps: crate::machine::cpu::sweep::three(&axes.iter().map(|axis| axis.1).collect::<Vec<_>>(), Sweep::NONE),
    }
}

fn sizes(shape: &Shape) -> [usize; 3] {
    let size = |extents: [usize; 3]| extents.iter().product::<usize>();
    [
        shape.batch * shape.groups * shape.inputs * size(shape.field),
        shape.groups * shape.outputs * shape.inputs * shape.taps(),
        shape.batch * shape.groups * shape.outputs * size(shape.grid),
    ]
}

fn operands<T: Real>(random: &mut Random, shape: &Shape) -> [Vec<T>; 3] {
    sizes(shape).map(|n| (0..n).map(|_| T::from_f64(random.below(2001) as f64 / 1000.0 - 1.0)).collect())
}

/// Where the argument stands among x, w, g.
fn position(role: Role) -> usize {
    match role {
        Role::Input => 0,
        Role::Weight => 1,
        Role::Output => 2,
    }
}

fn run<T: Real>(shape: &Shape, role: Role, isa: Isa, values: &[Vec<T>; 3]) -> Vec<T> {
    let conv = Conv::<T>::new(shape, role, isa);
    let nan = T::from_f64(f64::NAN);
    let mut out = vec![nan; sizes(shape)[position(role)]];
    let mut workspace = vec![nan; conv.workspace()];
    let (a, b) = match role {
        Role::Output => (0, 1),
        Role::Input => (1, 2),
        Role::Weight => (0, 2),
    };
    // SAFETY: the vectors have the extents of the shape.
    unsafe {
        conv.run(values[a].as_ptr(), values[b].as_ptr(), out.as_mut_ptr(), workspace.as_mut_ptr()).unwrap();
    }
    out
}

fn check<T: Real>(random: &mut Random, shape: &Shape) {
    let values = operands::<T>(random, shape);
    for role in [Role::Output, Role::Input, Role::Weight] {
        let at = position(role);
        let (mut want, mut size) = (vec![0.0; sizes(shape)[at]], vec![0.0; sizes(shape)[at]]);
        shape.terms(|index| {
            let product: f64 = (0..3).filter(|&i| i != at).map(|i| values[i][index[i]].to_f64()).product();
            want[index[at]] += product;
            size[index[at]] += product.abs();
        });
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
            let got = run(shape, role, isa, &values);
            for (i, (x, y)) in got.iter().zip(&want).enumerate() {
                let bound = T::EPSILON * 8.0 * (1.0 + size[i]);
                assert!((x.to_f64() - y).abs() <= bound, "{shape:?} {role:?} {}: {i}: {x:?} {y}", isa.name());
            }
        }
    }
}

fn sweep(taps: usize, stride: usize, dilation: usize, low: usize) -> Sweep {
    Sweep { taps, stride, dilation, low }
}

#[test]
fn values_are_those_of_plain_loops() {
    let mut random = Random(1);
    for round in 0..120 {
        let axes = 1 + random.below(3);
        let axes: Vec<(usize, Sweep)> = (0..axes)
            .map(|_| {
                let taps = random.pick(&[1, 1, 2, 3, 3, 5]);
                let dilation = random.pick(&[1, 1, 1, 2, 3]);
                let low = random.pick(&[0, 0, 1, 2, 7]);
                let sweep = sweep(taps, random.pick(&[1, 1, 2, 3, 4]), dilation, low);
                let least = (sweep.reach() + 1).saturating_sub(2 * low).max(1);
                (least + random.pick(&[0, 1, 2, 5, 9, 20]), sweep)
            })
            .collect();
        let channels = (random.pick(&[1, 2, 3, 5, 16]), random.pick(&[1, 2, 4, 15, 33]));
        let shape = shape(random.pick(&[1, 2, 3, 5]), random.pick(&[1, 1, 2, 3]), channels, &axes);
        if shape.work() < 400_000 {
            check::<f32>(&mut random, &shape);
            if round % 2 == 0 {
                check::<f64>(&mut random, &shape);
            }
        }
    }
}

#[test]
fn fields_of_every_size_are_cut_into_items() {
    let mut random = Random(2);
    for (batch, channels, axes) in [
        (1, (3, 4), vec![(70, sweep(3, 1, 1, 1)), (90, sweep(3, 1, 1, 1))]),
        (2, (2, 3), vec![(131, sweep(5, 2, 1, 2)), (67, sweep(3, 2, 1, 1))]),
        (1, (40, 3), vec![(60, sweep(3, 1, 1, 1)), (61, sweep(3, 1, 1, 1))]),
        (1, (2, 3), vec![(6000, sweep(7, 1, 2, 3))]),
        (1, (2, 3), vec![(6000, sweep(4, 3, 1, 1))]),
        (1, (2, 3), vec![(20, sweep(3, 1, 1, 1)), (20, sweep(2, 1, 1, 0)), (21, sweep(3, 2, 1, 1))]),
        // Strides beyond everything.
        (1, (2, 3), vec![(9, sweep(3, 40, 1, 1)), (9, sweep(2, 1 << 30, 3, 1))]),
        // More channels than one block of K holds.
        (2, (130, 9), vec![(8, sweep(3, 1, 1, 1)), (8, sweep(3, 1, 1, 1))]),
        (0, (2, 3), vec![(8, sweep(3, 1, 1, 1)), (8, sweep(3, 1, 1, 1))]),
        (2, (9, 130), vec![(8, sweep(3, 2, 1, 1)), (8, sweep(3, 1, 1, 1))]),
    ] {
        check::<f32>(&mut random, &shape(batch, 1, channels, &axes));
    }
}

/// Layers with few channels in a group.
fn narrow() -> Vec<Shape> {
    let square = |extent: usize, sweep: Sweep| vec![(extent, sweep), (extent, sweep)];
    vec![
        shape(2, 17, (1, 1), &square(28, sweep(3, 1, 1, 1))),
        shape(3, 33, (1, 1), &square(9, sweep(3, 2, 1, 1))),
        shape(6, 16, (1, 2), &square(7, sweep(3, 1, 1, 1))),
        shape(1, 5, (3, 1), &square(40, sweep(5, 1, 2, 4))),
        shape(1, 9, (2, 3), &[(30, sweep(2, 3, 1, 0)), (41, sweep(3, 2, 1, 2))]),
        shape(2, 8, (4, 4), &square(12, sweep(3, 1, 1, 0))),
        shape(2, 20, (1, 1), &[(700, sweep(3, 1, 1, 1))]),
        shape(1, 20, (1, 1), &[(900, sweep(3, 1, 400, 10))]),
        shape(1, 18, (1, 1), &[(5, sweep(3, 1, 1, 1)), (9, sweep(3, 1, 1, 1)), (19, sweep(3, 1, 1, 1))]),
        shape(2, 40, (1, 1), &square(1, sweep(1, 1, 1, 0))),
        shape(1, 17, (1, 1), &[(70, sweep(3, 1, 1, 1)), (90, sweep(3, 1, 1, 1))]),
    ]
}

#[test]
fn groups_with_few_channels_are_those_of_plain_loops() {
    let mut random = Random(4);
    for shape in narrow() {
        check::<f32>(&mut random, &shape);
        check::<f64>(&mut random, &shape);
    }
}

/// Channels `first..first + count` of an operand \[outer, channels, inner\].
fn channels(from: &[f32], outer: usize, channels: usize, first: usize, count: usize) -> Vec<f32> {
    let inner = from.len() / outer / channels;
    let image = |at: usize| at * channels * inner + first * inner;
    (0..outer).flat_map(|at| from[image(at)..image(at) + count * inner].to_vec()).collect()
}

#[test]
fn a_group_has_the_same_bits_alone() {
    let mut random = Random(5);
    for all in narrow() {
        let alone = Shape { groups: 1, ..all };
        let values = operands::<f32>(&mut random, &all);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
            for role in [Role::Output, Role::Input, Role::Weight] {
                let whole = run(&all, role, isa, &values);
                for group in 0..all.groups {
                    let part = |at: usize, values: &[f32]| {
                        let images = if at == position(Role::Weight) { 1 } else { all.batch };
                        channels(values, images, all.groups, group, 1)
                    };
                    let own = [0, 1, 2].map(|at| part(at, &values[at]));
                    let want = part(position(role), &whole);
                    assert!(run(&alone, role, isa, &own) == want, "{all:?} {role:?} {}: group {group}", isa.name());
                }
            }
        }
    }
}

#[test]
fn few_rows_have_the_bits_that_they_have_among_many() {
    let mut random = Random(6);
    for few in narrow() {
        let few = Shape { groups: 1, ..few };
        let many = Shape { outputs: few.outputs + 20, ..few };
        let values = operands::<f32>(&mut random, &many);
        let some = [
            values[0].clone(),
            channels(&values[1], 1, many.outputs, 0, few.outputs),
            channels(&values[2], few.batch, many.outputs, 0, few.outputs),
        ];
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
            let want = channels(&run(&many, Role::Output, isa, &values), few.batch, many.outputs, 0, few.outputs);
            assert!(run(&few, Role::Output, isa, &some) == want, "{few:?} {}", isa.name());
        }
    }
}

#[test]
fn threads_do_not_change_bits() {
    let mut random = Random(3);
    let axes = [(24, sweep(3, 1, 1, 1)), (24, sweep(3, 1, 1, 1))];
    let strided = [(41, sweep(3, 2, 1, 1)), (40, sweep(3, 2, 1, 1))];
    for shape in [
        shape(16, 1, (16, 40), &axes),
        shape(1, 1, (16, 70), &[(90, sweep(3, 1, 1, 0)), (90, sweep(3, 1, 1, 0))]),
        shape(6, 2, (12, 24), &strided),
        shape(16, 40, (1, 1), &axes),
        shape(16, 20, (2, 2), &strided),
    ] {
        let values = operands::<f32>(&mut random, &shape);
        for role in [Role::Output, Role::Input, Role::Weight] {
            let isa = crate::machine::cpu::isa::isa();
            set_num_threads(1);
            let one = run(&shape, role, isa, &values);
            for threads in 2..5 {
                set_num_threads(threads);
                let many = run(&shape, role, isa, &values);
                assert!(one.iter().zip(&many).all(|(x, y)| x.to_bits() == y.to_bits()), "{role:?} {threads}");
            }
        }
    }
    set_num_threads(2);
}
