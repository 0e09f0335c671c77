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

#[test]
fn threads_do_not_change_bits() {
    let mut random = Random(3);
    let axes = [(24, sweep(3, 1, 1, 1)), (24, sweep(3, 1, 1, 1))];
    let strided = [(41, sweep(3, 2, 1, 1)), (40, sweep(3, 2, 1, 1))];
    for shape in [
        shape(16, 1, (16, 40), &axes),
        shape(1, 1, (16, 70), &[(90, sweep(3, 1, 1, 0)), (90, sweep(3, 1, 1, 0))]),
        shape(6, 2, (12, 24), &strided),
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
