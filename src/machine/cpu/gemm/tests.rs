//! Every element against a scalar statement of its bits, for random shapes, strides, instruction sets and threads; and
//! against the `gemm` crate, which shares no code with ours.

use std::fmt::Debug;

use super::*;
use crate::machine::cpu::par::set_num_threads;

trait Real: Element + Debug + PartialEq {
    fn from_f64(x: f64) -> Self;
    fn to_f64(self) -> f64;
    fn bits(self) -> u64;
    fn fma(self, b: Self, c: Self) -> Self;
    fn mul_then_add(self, b: Self, c: Self) -> Self;
    const EPSILON: f64;
}

macro_rules! real {
    ($t:ident) => {
        impl Real for $t {
            fn from_f64(x: f64) -> $t {
                x as $t
            }
            fn to_f64(self) -> f64 {
                self as f64
            }
            fn bits(self) -> u64 {
                self.to_bits() as u64
            }
            fn fma(self, b: $t, c: $t) -> $t {
                self.mul_add(b, c)
            }
            fn mul_then_add(self, b: $t, c: $t) -> $t {
                self * b + c
            }
            const EPSILON: f64 = $t::EPSILON as f64;
        }
    };
}

real!(f32);
real!(f64);

struct Random(u64);

impl Random {
    fn next(&mut self) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize
    }

    fn below(&mut self, n: usize) -> usize {
        self.next() % n
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn real<T: Real>(&mut self) -> T {
        T::from_f64(self.below(1 << 20) as f64 / (1 << 19) as f64 - 1.0)
    }
}

/// A batch of matrices in a buffer of random layout.
struct Stored<T> {
    data: Vec<T>,
    first: usize,
    step: isize,
    rs: isize,
    cs: isize,
}

impl<T: Real> Stored<T> {
    fn new(random: &mut Random, batch: usize, rows: usize, cols: usize, may_repeat: bool) -> Self {
        let (pad, spread) = (random.pick(&[0, 0, 3]), random.pick(&[1, 1, 1, 2]));
        let (inner, outer) =
            (spread as isize, (spread * (if random.below(2) == 0 { cols } else { rows }) + pad) as isize);
        // Row-major where the run is a row; otherwise column-major.
        let by_rows = outer as usize == spread * cols + pad;
        let (mut rs, mut cs) = if by_rows { (outer, inner) } else { (inner, outer) };
        let size = outer as usize * if by_rows { rows } else { cols };
        let mut step = (size + pad) as isize;
        for stride in [&mut step, &mut rs, &mut cs] {
            match random.below(12) {
                0 => *stride = -*stride,
                1 if may_repeat => *stride = 0,
                _ => {}
            }
        }
        Stored::laid(random, (batch, rows, cols), (step, rs, cs))
    }

    fn laid(
        random: &mut Random,
        (batch, rows, cols): (usize, usize, usize),
        (step, rs, cs): (isize, isize, isize),
    ) -> Self {
        let reach = |stride: isize, n: usize| stride * (n.max(1) as isize - 1);
        let ends = [reach(step, batch), reach(rs, rows), reach(cs, cols)];
        let first = -ends.iter().filter(|&&end| end < 0).sum::<isize>();
        let last = first + ends.iter().filter(|&&end| end > 0).sum::<isize>();
        let data = (0..last + 1).map(|_| random.real()).collect();
        Stored { data, first: first as usize, step, rs, cs }
    }

    fn index(&self, product: usize, row: usize, col: usize) -> usize {
        let [p, i, j] = [product, row, col].map(|x| x as isize);
        (self.first as isize + p * self.step + i * self.rs + j * self.cs) as usize
    }

    fn at(&self, product: usize, row: usize, col: usize) -> T {
        self.data[self.index(product, row, col)]
    }

    fn operand(&self) -> (Mat<T>, isize) {
        (Mat { ptr: self.data[self.first..].as_ptr(), rs: self.rs, cs: self.cs }, self.step)
    }

    fn result(&mut self) -> (MatMut<T>, isize) {
        (MatMut { ptr: self.data[self.first..].as_mut_ptr(), rs: self.rs, cs: self.cs }, self.step)
    }
}

/// What the bits of an element mean.
fn element<T: Real>(isa: Isa, k: usize, a: impl Fn(usize) -> T, b: impl Fn(usize) -> T) -> T {
    let step = if isa == Isa::Portable { T::mul_then_add } else { T::fma };
    if k == 0 {
        return T::default();
    }
    let blocks = k.div_ceil(T::MAX_DEPTH);
    let depth = k.div_ceil(blocks).next_multiple_of(16);
    let sums = (0..k).step_by(depth).map(|p| (p..k.min(p + depth)).fold(T::default(), |sum, p| step(a(p), b(p), sum)));
    sums.reduce(|total, sum| total + sum).unwrap()
}

fn supported() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_supported())
}

/// Computes, and compares each element's bits, and that no other memory of C changed.
fn check<T: Real>(random: &mut Random, batch: usize, m: usize, k: usize, n: usize) {
    let a = Stored::<T>::new(random, batch, m, k, true);
    let b = Stored::<T>::new(random, batch, k, n, true);
    check_stored(batch, (m, k, n), &a, &b, Stored::new(random, batch, m, n, false));
}

fn check_stored<T: Real>(
    batch: usize,
    (m, k, n): (usize, usize, usize),
    a: &Stored<T>,
    b: &Stored<T>,
    mut c: Stored<T>,
) {
    for isa in supported() {
        let mut expected = c.data.clone();
        for product in 0..batch {
            for i in 0..m {
                for j in 0..n {
                    expected[c.index(product, i, j)] =
                        element(isa, k, |p| a.at(product, i, p), |p| b.at(product, p, j));
                }
            }
        }
        // SAFETY: the layouts hold the shapes, and C names each element once.
        unsafe { gemm(batch, (m, k, n), a.operand(), b.operand(), c.result(), isa) }.unwrap();
        let same = c.data.iter().zip(&expected).all(|(x, y)| x.bits() == y.bits());
        assert!(
            same,
            "{} {batch} x ({m}, {k}, {n}) a {:?} b {:?} c {:?}",
            isa.name(),
            (a.step, a.rs, a.cs),
            (b.step, b.rs, b.cs),
            (c.step, c.rs, c.cs)
        );
    }
}

fn check_random<T: Real>(seed: u64) {
    let mut random = Random(seed);
    const SIZES: [usize; 22] = [0, 1, 1, 2, 3, 4, 5, 7, 8, 13, 14, 15, 16, 17, 29, 31, 32, 33, 48, 64, 65, 90];
    for _ in 0..400 {
        let [m, k, n] = [0; 3].map(|_| random.pick(&SIZES));
        let batch = random.pick(&[0, 1, 1, 1, 2, 5]);
        check::<T>(&mut random, batch, m, k, n);
    }
    for (m, k, n) in [
        (3, 513, 5),
        (61, 300, 170),
        (61, 1056, 40),
        (5, 1100, 300),
        (45, 257, 33),
        (1, 700, 40),
        (40, 700, 1),
        (70, 520, 3),
        (130, 64, 140),
    ] {
        for _ in 0..4 {
            check::<T>(&mut random, 1, m, k, n);
        }
    }
}

#[test]
fn f32_elements_have_the_stated_bits() {
    check_random::<f32>(1);
}

#[test]
fn f64_elements_have_the_stated_bits() {
    check_random::<f64>(2);
}

/// Rows of K apart or backward, and rows of C apart.
fn check_by_depth<T: Real>((m, k, n): (usize, usize, usize)) {
    let mut random = Random(12);
    let (columns, rows) = ((m + 3) as isize, (n + 2) as isize);
    for (threads, a_back, b_back) in [(2, false, true), (3, true, false), (4, true, true), (5, false, false)] {
        set_num_threads(threads);
        let turned = |back: bool, stride: isize| if back { -stride } else { stride };
        let a = Stored::<T>::laid(&mut random, (1, m, k), (0, 1, turned(a_back, columns)));
        let b = Stored::<T>::laid(&mut random, (1, k, n), (0, turned(b_back, rows), 1));
        let mut c = Stored::<T>::laid(&mut random, (1, m, n), (0, rows, 1));
        let (kernels, (a_mat, a_step), (b_mat, b_step)) = (T::kernels(Isa::Portable), a.operand(), b.operand());
        let (c_mat, c_step) = c.result();
        let job = Job { kernels, batch: 1, m, k, n, a: a_mat, b: b_mat, c: c_mat, a_step, b_step, c_step };
        assert!(job.goes_by_depth());
        check_stored(1, (m, k, n), &a, &b, c);
    }
}

#[test]
fn products_shared_by_depth_have_the_stated_bits_in_any_layout() {
    for shape in [(60, 1030, 70), (31, 2100, 70), (1, 1100, 600)] {
        check_by_depth::<f32>(shape);
        check_by_depth::<f64>(shape);
    }
}

/// Row-major or transposed, without padding.
#[test]
fn one_row_has_the_stated_bits() {
    let mut random = Random(11);
    for k in [1, 4, 15, 16, 40, 513, 1030] {
        for n in [1, 5, 16, 63, 64, 65, 128, 130, 300] {
            for _ in 0..3 {
                check::<f32>(&mut random, 1, 1, k, n);
                check::<f64>(&mut random, 1, 1, k, n);
            }
            check::<f32>(&mut random, 2, n, k, 1);
        }
    }
}

fn dense<T>(data: &[T], rows: usize, cols: usize, transposed: bool) -> (Mat<T>, isize) {
    let (rs, cs) = if transposed { (1, rows) } else { (cols, 1) };
    (Mat { ptr: data.as_ptr(), rs: rs as isize, cs: cs as isize }, (rows * cols) as isize)
}

fn threads_agree<T: Real>() {
    let mut random = Random(3);
    // Above the size from which products are threaded: one by rows, by columns, by product, mixed, and, where A is
    // transposed, by depth.
    let shapes = [
        (1, 1100, 300, 20),
        (1, 9, 600, 1000),
        (70, 40, 50, 45),
        (3, 130, 129, 131),
        (1, 200, 150, 150),
        (1, 100, 1100, 90),
        (1, 60, 513, 200),
        (1, 1, 4000, 300),
    ];
    for (batch, m, k, n) in shapes {
        let a: Vec<T> = (0..batch * m * k).map(|_| random.real()).collect();
        let b: Vec<T> = (0..batch * k * n).map(|_| random.real()).collect();
        for (isa, ta, tb) in supported().flat_map(|isa| [(isa, false, false), (isa, false, true), (isa, true, false)]) {
            let run = |threads| {
                set_num_threads(threads);
                let mut c = vec![T::from_f64(f64::NAN); batch * m * n];
                let result = MatMut { ptr: c.as_mut_ptr(), rs: n as isize, cs: 1 };
                // SAFETY: the vectors have the sizes of the shapes.
                unsafe {
                    let (a, b) = (dense(&a, m, k, ta), dense(&b, k, n, tb));
                    gemm(batch, (m, k, n), a, b, (result, (m * n) as isize), isa).unwrap();
                }
                c
            };
            let one = run(1);
            for threads in 2..=4 {
                let same = run(threads).iter().zip(&one).all(|(x, y)| x.bits() == y.bits());
                assert!(same, "{} {batch} x ({m}, {k}, {n}) on {threads} threads", isa.name());
            }
        }
    }
}

#[test]
fn threads_do_not_change_bits_f32() {
    threads_agree::<f32>();
}

#[test]
fn threads_do_not_change_bits_f64() {
    threads_agree::<f64>();
}

#[test]
fn gradients_of_weights_go_by_depth() {
    let goes = |(m, k, n): (usize, usize, usize), ta: bool, tb: bool| {
        let (data, mut c) = (vec![0.0f32; k * m.max(n)], vec![0.0f32; m * n]);
        let ((a, a_step), (b, b_step)) = (dense(&data, m, k, ta), dense(&data, k, n, tb));
        let c = MatMut { ptr: c.as_mut_ptr(), rs: n as isize, cs: 1 };
        let kernels = f32::kernels(Isa::Portable);
        Job { kernels, batch: 1, m, k, n, a, b, c, a_step, b_step, c_step: 0 }.goes_by_depth()
    };
    assert!(goes((128, 768, 512), true, false));
    // Layers forward, gradients of what they read, one block of K, and sums too large to wait.
    assert!(!goes((128, 768, 512), false, false) && !goes((128, 768, 512), false, true));
    assert!(!goes((128, 512, 512), true, false) && !goes((512, 768, 512), true, false));
}

fn close_to_the_gemm_crate<T: Real>() {
    let mut random = Random(4);
    for (m, k, n) in [(1, 1, 1), (14, 16, 32), (33, 47, 65), (100, 700, 50), (257, 300, 129), (300, 40, 600)] {
        let a: Vec<T> = (0..m * k).map(|_| random.real()).collect();
        let b: Vec<T> = (0..k * n).map(|_| random.real()).collect();
        for (isa, ta, tb) in supported().flat_map(|isa| [false, true].map(|ta| (isa, ta, ta ^ (m > 50)))) {
            let (mut ours, mut theirs) = (vec![T::default(); m * n], vec![T::default(); m * n]);
            let ((a, _), (b, _)) = (dense(&a, m, k, ta), dense(&b, k, n, tb));
            let (zero, one, rs) = (T::default(), T::from_f64(1.0), n as isize);
            // SAFETY: the vectors have the sizes of the shapes.
            unsafe {
                gemm(1, (m, k, n), (a, 0), (b, 0), (MatMut { ptr: ours.as_mut_ptr(), rs, cs: 1 }, 0), isa).unwrap();
                let (to, serial) = (theirs.as_mut_ptr(), ::gemm::Parallelism::None);
                ::gemm::gemm(
                    m, n, k, to, 1, rs, false, a.ptr, a.cs, a.rs, b.ptr, b.cs, b.rs, zero, one, false, false, false,
                    serial,
                );
            }
            // The operands are below 1, so that each of the k roundings errs by at most k ε / 2.
            let bound = T::EPSILON * (k * k) as f64;
            for (x, y) in ours.iter().zip(&theirs) {
                assert!((x.to_f64() - y.to_f64()).abs() <= bound, "{} ({m}, {k}, {n}): {x:?} {y:?}", isa.name());
            }
        }
    }
}

#[test]
fn values_match_the_gemm_crate() {
    close_to_the_gemm_crate::<f32>();
    close_to_the_gemm_crate::<f64>();
}

#[test]
fn nan_and_infinity_reach_their_row_and_column_only() {
    let (m, k, n) = (40, 50, 70);
    for isa in supported() {
        let (mut a, mut b, mut c) = (vec![1.0f32; m * k], vec![1.0f32; k * n], vec![0.0f32; m * n]);
        a[3 * k + 7] = f32::NAN;
        b[9 * n + 69] = f32::INFINITY;
        let result = MatMut { ptr: c.as_mut_ptr(), rs: n as isize, cs: 1 };
        // SAFETY: the vectors have the sizes of the shapes.
        unsafe { gemm(1, (m, k, n), dense(&a, m, k, false), dense(&b, k, n, false), (result, 0), isa).unwrap() };
        for (index, &x) in c.iter().enumerate() {
            match (index / n, index % n) {
                (3, _) => assert!(x.is_nan()),
                (_, 69) => assert_eq!(x, f32::INFINITY),
                _ => assert_eq!(x, k as f32),
            }
        }
    }
}
