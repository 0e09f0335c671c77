//! The two trees in which every reduction on the CPU adds up: fixed by the number of elements alone, so that a result
//! has the same bits however a plan is cut, fused or threaded, and on every instruction set.
//!
//! Lane tree, for a run of contiguous elements: blocks of 4,096; in a block element i goes to lane i mod 64, in order;
//! lanes are folded by halves, and the partials of blocks pairwise. Chunk tree, for rows that are added elementwise:
//! 64 rows one after another; the partials of chunks pairwise. Pairwise means adjacent pairs, level by level; an odd
//! last one moves up. Work may be split at the borders of blocks and chunks only.

use super::dispatch::by_isa;
use crate::dtype::DType;
use std::hint::black_box;
use std::mem::MaybeUninit;

/// Elements in a block of the lane tree.
pub const BLOCK: usize = 4096;
/// Rows in a chunk of the chunk tree.
pub const CHUNK_ROWS: usize = 64;

const LANES: usize = 64;
/// Rows of fewer than `PART` elements that are reduced side by side.
const GROUP: usize = 16;
/// The lanes of a longer row that are folded together with those of other rows.
const PART: usize = 16;
/// Rows that are reduced together.
pub const TEAM: usize = 8;
/// Columns of a chunk whose partials stay in registers.
const COLUMNS: usize = 64;

/// Reduces `rows` contiguous runs of `n` elements each by the lane tree: out[r] is the result of run r.
pub type RowsKernel = unsafe fn(rows: usize, n: usize, from: *const u8, out: *mut u8);

/// Adds rows of `n` elements one after another to out[j], which starts as row 0 if these are the first of a chunk. Rows
/// lie `stride` elements apart; `out` overlaps none of them.
pub type ChunkKernel = unsafe fn(first: bool, rows: usize, n: usize, from: *const u8, stride: isize, out: *mut u8);

/// Folds `count` adjacent rows of `n` elements pairwise, in place; the result is row 0. With n = 1 it folds scalars.
pub type FoldKernel = unsafe fn(count: usize, n: usize, partials: *mut u8);

/// The kernels of one reduction for one dtype, by instruction set.
pub struct ReduceKernels {
    pub rows: [RowsKernel; 3],
    pub chunk: [ChunkKernel; 3],
    pub fold: [FoldKernel; 3],
}

/// An operation that is associative, as far as rounding allows.
pub trait FoldFn<T> {
    /// The result without elements.
    const EMPTY: T;
    fn fold(x: T, y: T) -> T;

    /// `fold` where neither operand is NaN, if that is cheaper.
    #[inline(always)]
    fn fold_numbers(x: T, y: T) -> T {
        Self::fold(x, y)
    }

    /// Whether `fold_numbers` must not see x.
    #[inline(always)]
    fn is_nan(_: T) -> bool {
        false
    }
}

pub struct Sum;
pub struct Prod;
/// Of equal elements the later one; NaN if any is.
pub struct Max;
/// Of equal elements the later one; NaN if any is.
pub struct Min;

macro_rules! fold_fn {
    ($F:ident for $($T:ident)*: $empty:expr, |$x:ident, $y:ident| $fold:expr) => {$(
        impl FoldFn<$T> for $F {
            const EMPTY: $T = $empty as $T;
            #[inline(always)]
            fn fold($x: $T, $y: $T) -> $T {
                $fold
            }
        }
    )*};
}
fold_fn!(Sum for f32 f64: 0.0, |x, y| x + y);
fold_fn!(Sum for i32 i64: 0, |x, y| x.wrapping_add(y));
fold_fn!(Prod for f32 f64: 1.0, |x, y| x * y);
fold_fn!(Prod for i32 i64: 1, |x, y| x.wrapping_mul(y));
fold_fn!(Max for u8: u8::MIN, |x, y| if x > y { x } else { y });
fold_fn!(Max for i32: i32::MIN, |x, y| if x > y { x } else { y });
fold_fn!(Max for i64: i64::MIN, |x, y| if x > y { x } else { y });
fold_fn!(Min for u8: u8::MAX, |x, y| if x < y { x } else { y });
fold_fn!(Min for i32: i32::MAX, |x, y| if x < y { x } else { y });
fold_fn!(Min for i64: i64::MAX, |x, y| if x < y { x } else { y });

macro_rules! extreme {
    ($F:ident, $empty:ident, $op:tt for $($T:ident)*) => {$(
        impl FoldFn<$T> for $F {
            const EMPTY: $T = $T::$empty;
            #[inline(always)]
            fn fold(x: $T, y: $T) -> $T {
                let numbers = Self::fold_numbers(x, y);
                if x.is_nan() { x } else { numbers }
            }
            #[inline(always)]
            fn fold_numbers(x: $T, y: $T) -> $T {
                if x $op y { x } else { y }
            }
            #[inline(always)]
            fn is_nan(x: $T) -> bool {
                x.is_nan()
            }
        }
    )*};
}
extreme!(Max, NEG_INFINITY, > for f32 f64);
extreme!(Min, INFINITY, < for f32 f64);

macro_rules! tables {
    ($(#[$doc:meta])* $name:ident, $F:ident: $($dtype:ident $(| $more:ident)? = $T:ident),*) => {
        $(#[$doc])*
        pub fn $name(dtype: DType) -> Option<&'static ReduceKernels> {
            match dtype {
                $(DType::$dtype $(| DType::$more)? => {
                    static KERNELS: ReduceKernels = kernels::<$F, $T>();
                    Some(&KERNELS)
                })*
                #[allow(unreachable_patterns, reason = "some reductions take every dtype")]
                _ => None,
            }
        }
    };
}
tables!(
    /// The sum; integers wrap.
    sum, Sum: I32 = i32, I64 = i64, F32 = f32, F64 = f64
);
tables!(
    /// The product; integers wrap.
    prod, Prod: I32 = i32, I64 = i64, F32 = f32, F64 = f64
);
tables!(
    /// The largest element; of bools: whether any is true.
    max, Max: Bool | U8 = u8, I32 = i32, I64 = i64, F32 = f32, F64 = f64
);
tables!(
    /// The smallest element; of bools: whether all are true.
    min, Min: Bool | U8 = u8, I32 = i32, I64 = i64, F32 = f32, F64 = f64
);

/// The kernels of one operation on one type.
pub const fn kernels<F: FoldFn<T>, T: Copy>() -> ReduceKernels {
    ReduceKernels {
        rows: by_isa!(rows<F: FoldFn<T>, T: Copy>(count: usize, n: usize, from: *const u8, out: *mut u8)),
        chunk: by_isa!(
            chunk<F: FoldFn<T>, T: Copy>(
                first: bool, rows: usize, n: usize, from: *const u8, stride: isize, out: *mut u8
            )
        ),
        fold: by_isa!(fold<F: FoldFn<T>, T: Copy>(count: usize, n: usize, partials: *mut u8)),
    }
}

#[inline(always)]
unsafe fn rows<F: FoldFn<T>, T: Copy, const FMA: bool>(count: usize, n: usize, from: *const u8, out: *mut u8) {
    let (from, out) = (from.cast::<T>(), out.cast::<T>());
    let mut r = 0;
    // SAFETY: the caller gives `count` runs of n elements, and room for as many results.
    unsafe {
        if n < PART {
            while n > 1 && count - r >= GROUP {
                out.add(r).cast::<[T; GROUP]>().write(group::<F, T>(from.add(r * n), n));
                r += GROUP;
            }
            while r < count {
                out.add(r).write(short_run::<F, T>(from.add(r * n), n));
                r += 1;
            }
        } else if n > BLOCK || count == 1 {
            while r < count {
                out.add(r).write(run::<F, T>(from.add(r * n), n));
                r += 1;
            }
        } else {
            while r < count {
                let (rows, from) = ((count - r).min(TEAM), from.add(r * n));
                let results = match n {
                    64.. => team::<F, T, 64>(rows, n, from),
                    32.. => team::<F, T, 32>(rows, n, from),
                    _ => team::<F, T, PART>(rows, n, from),
                };
                if rows == TEAM {
                    out.add(r).cast::<[T; TEAM]>().write(results);
                } else {
                    out.add(r).copy_from_nonoverlapping(results.as_ptr(), rows);
                }
                r += rows;
            }
        }
    }
}

/// Lanes on whole lines of memory: others are read and written in two steps.
#[repr(align(64))]
struct Aligned<T>(T);

/// The results of up to `TEAM` runs of `L` to `BLOCK` elements, of fewer than 2 `L` if `L` is less than `LANES`. So all
/// elements past the first `L`, or a multiple of it, meet their lane by index.
#[inline(always)]
unsafe fn team<F: FoldFn<T>, T: Copy, const L: usize>(rows: usize, n: usize, from: *const T) -> [T; TEAM] {
    let mut parts = Aligned([[F::EMPTY; PART]; TEAM]);
    let rest = n % L;
    // SAFETY: each of the rows has n elements, at least `L`.
    unsafe {
        if rest == 0 {
            for (r, part) in parts.0.iter_mut().enumerate().take(rows) {
                *part = halves::<F, T, L>(&lanes::<F, T, L>(from.add(r * n), n));
            }
            return fold_team::<F, T>(&parts.0);
        }
        // Pass by pass over the rows, so that no load waits for a narrower store just before it.
        let mut all = Aligned([[MaybeUninit::<T>::uninit(); L]; TEAM]);
        for (r, row) in all.0.iter_mut().enumerate().take(rows) {
            row.as_mut_ptr().cast::<[T; L]>().write(lanes::<F, T, L>(from.add(r * n), n));
        }
        for (r, row) in all.0.iter_mut().enumerate().take(rows) {
            ends::<F, T>(rest, from.add((r + 1) * n - rest), black_box(row.as_mut_ptr().cast()));
        }
        for (row, part) in all.0.iter().zip(&mut parts.0).take(rows) {
            *part = halves::<F, T, L>(&*black_box(row.as_ptr().cast::<[T; L]>()));
        }
    }
    fold_team::<F, T>(&parts.0)
}

/// The lanes of a run of at least `L` elements, without those past the last multiple of `L`.
#[inline(always)]
unsafe fn lanes<F: FoldFn<T>, T: Copy, const L: usize>(from: *const T, n: usize) -> [T; L] {
    // LLVM would gather from several rows.
    let from = black_box(from);
    // SAFETY: the run has n elements.
    unsafe {
        let mut lanes = from.cast::<[T; L]>().read();
        let mut at = L;
        while n - at >= L {
            let next = from.add(at).cast::<[T; L]>().read();
            for i in 0..L {
                lanes[i] = F::fold(lanes[i], next[i]);
            }
            at += L;
        }
        lanes
    }
}

/// Folds the last elements of a run into its first lanes.
#[inline(always)]
unsafe fn ends<F: FoldFn<T>, T: Copy>(rest: usize, from: *const T, lanes: *mut T) {
    let mut at = 0;
    // SAFETY: there are `rest` elements and more lanes.
    unsafe {
        while rest - at >= PART {
            fold_into::<F, T, PART>(from.add(at), lanes.add(at));
            at += PART;
        }
        while rest - at >= 4 {
            fold_into::<F, T, 4>(from.add(at), lanes.add(at));
            at += 4;
        }
        while at < rest {
            fold_into::<F, T, 1>(from.add(at), lanes.add(at));
            at += 1;
        }
    }
}

#[inline(always)]
unsafe fn fold_into<F: FoldFn<T>, T: Copy, const N: usize>(from: *const T, lanes: *mut T) {
    // SAFETY: the caller has N of both.
    unsafe {
        let (mut folded, next) = (lanes.cast::<[T; N]>().read(), from.cast::<[T; N]>().read());
        for i in 0..N {
            folded[i] = F::fold(folded[i], next[i]);
        }
        lanes.cast::<[T; N]>().write(folded);
    }
}

/// `PART` lanes of 64, 32 or `PART`, folded by halves.
#[inline(always)]
fn halves<F: FoldFn<T>, T: Copy, const L: usize>(lanes: &[T; L]) -> [T; PART] {
    // SAFETY: asked for lanes below `L` only.
    let part = |at: usize| unsafe { lanes.as_ptr().add(at).cast::<[T; PART]>().read() };
    match L {
        64 => both::<F, T>(both::<F, T>(part(0), part(32)), both::<F, T>(part(16), part(48))),
        32 => both::<F, T>(part(0), part(16)),
        _ => part(0),
    }
}

#[inline(always)]
fn both<F: FoldFn<T>, T: Copy>(mut x: [T; PART], y: [T; PART]) -> [T; PART] {
    for i in 0..PART {
        x[i] = F::fold(x[i], y[i]);
    }
    x
}

/// Folds the lanes of each part by halves, those of all parts at once.
#[inline(always)]
fn fold_team<F: FoldFn<T>, T: Copy>(parts: &[[T; PART]; TEAM]) -> [T; TEAM] {
    let [a, b, c, d, e, f, g, h] = *parts;
    let (a, b) = (halve_two::<F, T, 8>(a, b), halve_two::<F, T, 8>(c, d));
    let (c, d) = (halve_two::<F, T, 8>(e, f), halve_two::<F, T, 8>(g, h));
    let (a, b) = (halve_two::<F, T, 4>(a, b), halve_two::<F, T, 4>(c, d));
    let pairs = halve_two::<F, T, 2>(a, b);
    let mut results = [pairs[0]; TEAM];
    for (r, result) in results.iter_mut().enumerate() {
        *result = F::fold(pairs[2 * r], pairs[2 * r + 1]);
    }
    results
}

/// Lanes in stretches of 2 `HALF`, folded by halves: first those of a, then those of b.
#[inline(always)]
fn halve_two<F: FoldFn<T>, T: Copy, const HALF: usize>(a: [T; PART], b: [T; PART]) -> [T; PART] {
    let (mut x, mut y) = (a, a);
    for i in 0..PART / 2 {
        let at = i / HALF * 2 * HALF + i % HALF;
        (x[i], y[i]) = (a[at], a[at + HALF]);
        (x[i + PART / 2], y[i + PART / 2]) = (b[at], b[at + HALF]);
    }
    both::<F, T>(x, y)
}

/// The results of `GROUP` runs of fewer than `PART` elements: the lanes are vectors over the runs.
#[inline(always)]
unsafe fn group<F: FoldFn<T>, T: Copy>(from: *const T, n: usize) -> [T; GROUP] {
    let mut lanes = [[MaybeUninit::<T>::uninit(); GROUP]; PART];
    for (i, lane) in lanes.iter_mut().enumerate().take(n) {
        for (r, element) in lane.iter_mut().enumerate() {
            // SAFETY: element i of run r. Volatile because LLVM would gather, which takes twice as long.
            element.write(unsafe { from.add(r * n + i).read_volatile() });
        }
    }
    let mut live = n;
    while live > 1 {
        let half = live.next_power_of_two() / 2;
        let (first, second) = lanes.split_at_mut(half);
        for (x, y) in first.iter_mut().zip(second).take(live - half) {
            for (x, y) in x.iter_mut().zip(y) {
                // SAFETY: lanes below `live` are written.
                x.write(unsafe { F::fold(x.assume_init(), y.assume_init()) });
            }
        }
        live = half;
    }
    // SAFETY: there is at least one element in a run.
    unsafe { lanes[0].as_ptr().cast::<[T; GROUP]>().read() }
}

/// One run of up to `LANES` elements: each is a lane.
#[inline(always)]
unsafe fn short_run<F: FoldFn<T>, T: Copy>(from: *const T, n: usize) -> T {
    if n == 0 {
        return F::EMPTY;
    }
    let mut lanes = [MaybeUninit::<T>::uninit(); LANES];
    // SAFETY: the run has n elements, and lanes below `live` are written.
    unsafe {
        for (i, lane) in lanes.iter_mut().enumerate().take(n) {
            lane.write(*from.add(i));
        }
        let mut live = n;
        while live > 1 {
            let half = live.next_power_of_two() / 2;
            for i in 0..live - half {
                lanes[i].write(F::fold(lanes[i].assume_init(), lanes[i + half].assume_init()));
            }
            live = half;
        }
        lanes[0].assume_init()
    }
}

/// One run of any length.
#[inline(always)]
unsafe fn run<F: FoldFn<T>, T: Copy>(from: *const T, n: usize) -> T {
    // Partials of 1, 2, 4, … blocks wait for their neighbour: the pairwise fold without a list.
    let mut waiting = [MaybeUninit::<T>::uninit(); usize::BITS as usize];
    let (mut depth, mut blocks, mut at) = (0, 0usize, 0);
    // SAFETY: blocks lie inside the run, and entries below `depth` are written.
    unsafe {
        loop {
            let len = (n - at).min(BLOCK);
            let mut partial = block::<F, T>(from.add(at), len);
            at += len;
            let is_last = at == n;
            let mut level = blocks;
            while depth > 0 && (is_last || level % 2 == 1) {
                depth -= 1;
                partial = F::fold(waiting[depth].assume_init(), partial);
                level /= 2;
            }
            if is_last {
                return partial;
            }
            waiting[depth].write(partial);
            depth += 1;
            blocks += 1;
        }
    }
}

/// One block of 1 to `BLOCK` elements.
#[inline(always)]
unsafe fn block<F: FoldFn<T>, T: Copy>(from: *const T, len: usize) -> T {
    // SAFETY: the block has `len` elements.
    unsafe {
        if len < LANES {
            return short_run::<F, T>(from, len);
        }
        let mut lanes = from.cast::<[T; LANES]>().read();
        let mut at = LANES;
        while len - at >= LANES {
            let next = from.add(at).cast::<[T; LANES]>().read();
            for i in 0..LANES {
                lanes[i] = F::fold(lanes[i], next[i]);
            }
            at += LANES;
        }
        for (i, lane) in lanes.iter_mut().enumerate().take(len - at) {
            *lane = F::fold(*lane, *from.add(at + i));
        }
        if lanes.iter().fold(false, |any, &x| any | F::is_nan(x)) {
            return short_run::<F, T>(lanes.as_ptr(), LANES);
        }
        let lanes = halve::<F, T, 32>(&lanes);
        let lanes = halve::<F, T, 16>(&lanes);
        let lanes = halve::<F, T, 8>(&lanes);
        let lanes = halve::<F, T, 4>(&lanes);
        let lanes = halve::<F, T, 2>(&lanes);
        F::fold_numbers(lanes[0], lanes[1])
    }
}

/// The first half of the lanes folded with the second; none is NaN if that matters.
#[inline(always)]
fn halve<F: FoldFn<T>, T: Copy, const HALF: usize>(lanes: &[T]) -> [T; HALF] {
    // A plain loop: `array::from_fn` is not always inlined.
    let mut folded = [lanes[0]; HALF];
    for (i, folded) in folded.iter_mut().enumerate() {
        *folded = F::fold_numbers(lanes[i], lanes[i + HALF]);
    }
    folded
}

#[inline(always)]
unsafe fn chunk<F: FoldFn<T>, T: Copy, const FMA: bool>(
    first: bool,
    rows: usize,
    n: usize,
    from: *const u8,
    stride: isize,
    out: *mut u8,
) {
    let (from, out) = (from.cast::<T>(), out.cast::<T>());
    let mut j = 0;
    // SAFETY: the caller gives rows of n elements, `stride` apart, and room for n results.
    unsafe {
        while n - j >= COLUMNS {
            columns::<F, T, COLUMNS>(first, rows, from.add(j), stride, out.add(j));
            j += COLUMNS;
        }
        while n - j >= GROUP {
            columns::<F, T, GROUP>(first, rows, from.add(j), stride, out.add(j));
            j += GROUP;
        }
        while n - j >= 4 {
            columns::<F, T, 4>(first, rows, from.add(j), stride, out.add(j));
            j += 4;
        }
        while j < n {
            columns::<F, T, 1>(first, rows, from.add(j), stride, out.add(j));
            j += 1;
        }
    }
}

#[inline(always)]
unsafe fn columns<F: FoldFn<T>, T: Copy, const N: usize>(
    first: bool,
    rows: usize,
    from: *const T,
    stride: isize,
    out: *mut T,
) {
    if rows == 0 {
        // SAFETY: as below.
        return unsafe { out.cast::<[T; N]>().write([F::EMPTY; N]) };
    }
    let start = if first { from } else { out.cast_const() };
    // SAFETY: `chunk` asks for columns inside the rows.
    unsafe {
        let mut sums = start.cast::<[T; N]>().read();
        for r in usize::from(first) as isize..rows as isize {
            let row = from.offset(r * stride).cast::<[T; N]>().read();
            for j in 0..N {
                sums[j] = F::fold(sums[j], row[j]);
            }
        }
        out.cast::<[T; N]>().write(sums);
    }
}

#[inline(always)]
unsafe fn fold<F: FoldFn<T>, T: Copy, const FMA: bool>(count: usize, n: usize, partials: *mut u8) {
    let partials = partials.cast::<T>();
    let mut gap = 1;
    while gap < count {
        let mut at = 0;
        while at + gap < count {
            // SAFETY: both rows are among the `count` rows and do not overlap.
            unsafe {
                let sums = std::slice::from_raw_parts_mut(partials.add(at * n), n);
                let row = std::slice::from_raw_parts(partials.add((at + gap) * n), n);
                for (sum, &x) in sums.iter_mut().zip(row) {
                    *sum = F::fold(*sum, x);
                }
            }
            at += 2 * gap;
        }
        gap *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::super::isa::Isa;
    use super::*;
    use std::fmt::Debug;

    const LENGTHS: [usize; 27] = [
        1, 2, 3, 4, 5, 7, 8, 10, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 100, 127, 128, 1000, 4095, 4096, 4097, 20_000,
        100_000,
    ];

    /// The lane tree as it is defined, slowly.
    fn slow_run<F: FoldFn<T>, T: Copy>(x: &[T]) -> T {
        if x.is_empty() {
            return F::EMPTY;
        }
        let partials = x.chunks(BLOCK).map(|block| {
            let mut lanes: Vec<T> = Vec::new();
            for (i, &x) in block.iter().enumerate() {
                if i < LANES {
                    lanes.push(x);
                } else {
                    lanes[i % LANES] = F::fold(lanes[i % LANES], x);
                }
            }
            let mut half = lanes.len().next_power_of_two() / 2;
            while half > 0 {
                for i in 0..lanes.len() - half {
                    lanes[i] = F::fold(lanes[i], lanes[i + half]);
                }
                lanes.truncate(half);
                half /= 2;
            }
            lanes[0]
        });
        slow_pairs(partials.collect(), &F::fold)
    }

    fn slow_pairs<R: Clone>(mut level: Vec<R>, fold: &dyn Fn(R, R) -> R) -> R {
        while level.len() > 1 {
            level = level
                .chunks(2)
                .map(|pair| if pair.len() == 2 { fold(pair[0].clone(), pair[1].clone()) } else { pair[0].clone() })
                .collect();
        }
        level.swap_remove(0)
    }

    /// Values of mixed size and sign, so that another order would give other bits.
    fn values(n: usize) -> Vec<f64> {
        let mut state = 7u32;
        let mut next = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state >> 8) / f64::from(1 << 24)
        };
        (0..n).map(|_| (next() - 0.45) * (8.0 * next()).exp2()).collect()
    }

    fn check_runs<F: FoldFn<T>, T: Copy + Debug>(from: &dyn Fn(f64) -> T, same: &dyn Fn(T, T) -> bool) {
        let kernels = kernels::<F, T>();
        for n in LENGTHS {
            let rows = if n < 200 { 37 } else { 3 };
            let x: Vec<T> = values(rows * n).into_iter().map(from).collect();
            let expected: Vec<T> = x.chunks(n).map(slow_run::<F, T>).collect();
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
                let mut out = vec![F::EMPTY; rows];
                // SAFETY: `rows` runs of n elements.
                unsafe { kernels.rows[isa as usize](rows, n, x.as_ptr().cast(), out.as_mut_ptr().cast()) };
                for (&out, &expected) in out.iter().zip(&expected) {
                    assert!(same(out, expected), "n = {n}, {}: {out:?} is not {expected:?}", isa.name());
                }
                // Blocks reduced apart and folded give the same.
                let blocks = n.div_ceil(BLOCK);
                let mut partials = vec![F::EMPTY; blocks];
                for (i, partial) in partials.iter_mut().enumerate() {
                    let len = (n - i * BLOCK).min(BLOCK);
                    // SAFETY: one block of the first run.
                    unsafe {
                        let at = x.as_ptr().add(i * BLOCK).cast();
                        kernels.rows[isa as usize](1, len, at, (partial as *mut T).cast());
                    }
                }
                // SAFETY: `blocks` scalars.
                unsafe { kernels.fold[isa as usize](blocks, 1, partials.as_mut_ptr().cast()) };
                assert!(same(partials[0], expected[0]), "blocks of n = {n}");
            }
        }
    }

    fn check_rows<F: FoldFn<T>, T: Copy + Debug>(from: &dyn Fn(f64) -> T, same: &dyn Fn(T, T) -> bool) {
        let kernels = kernels::<F, T>();
        for (rows, n) in [(1, 5), (2, 70), (63, 3), (64, 97), (65, 97), (129, 1), (400, 18), (1000, 130)] {
            let stride = n + 3;
            let x: Vec<T> = values(rows * stride).into_iter().map(from).collect();
            let row = |r: usize| x[r * stride..][..n].to_vec();
            let add = |a: Vec<T>, b: Vec<T>| -> Vec<T> { a.into_iter().zip(b).map(|(a, b)| F::fold(a, b)).collect() };
            let starts: Vec<usize> = (0..rows).step_by(CHUNK_ROWS).collect();
            let chunk_rows = |start: usize| CHUNK_ROWS.min(rows - start);
            let partials = starts
                .iter()
                .map(|&start| (start + 1..start + chunk_rows(start)).fold(row(start), |sum, r| add(sum, row(r))));
            let expected = slow_pairs(partials.collect(), &add);
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
                let mut sums = vec![F::EMPTY; starts.len() * n];
                // SAFETY: each chunk lies in x, and there are n results for each.
                unsafe {
                    for (i, &start) in starts.iter().enumerate() {
                        let from = |row: usize| x.as_ptr().add((start + row) * stride).cast();
                        let out = sums.as_mut_ptr().add(i * n).cast();
                        let kernel = kernels.chunk[isa as usize];
                        let (rows, some) = (chunk_rows(start), chunk_rows(start).div_ceil(3));
                        kernel(true, some, n, from(0), stride as isize, out);
                        if some < rows {
                            kernel(false, rows - some, n, from(some), stride as isize, out);
                        }
                    }
                    kernels.fold[isa as usize](starts.len(), n, sums.as_mut_ptr().cast());
                }
                for (&sum, &expected) in sums.iter().zip(&expected) {
                    assert!(same(sum, expected), "{rows} rows, {}: {sum:?} is not {expected:?}", isa.name());
                }
            }
        }
    }

    fn check<F: FoldFn<f32> + FoldFn<f64>>() {
        let same = |a: f32, b: f32| a.to_bits() == b.to_bits();
        check_runs::<F, f32>(&|x| x as f32, &same);
        check_rows::<F, f32>(&|x| x as f32, &same);
        let same = |a: f64, b: f64| a.to_bits() == b.to_bits();
        check_runs::<F, f64>(&|x| x, &same);
        check_rows::<F, f64>(&|x| x, &same);
    }

    #[test]
    fn floats_follow_the_trees() {
        check::<Sum>();
        check::<Prod>();
        check::<Max>();
        check::<Min>();
    }

    #[test]
    fn integers_follow_the_trees_and_wrap() {
        check_runs::<Sum, i32>(&|x| (x * 1e7) as i32, &|a, b| a == b);
        check_runs::<Prod, i64>(&|x| (x * 1e15) as i64, &|a, b| a == b);
        check_runs::<Max, i64>(&|x| (x * 1e15) as i64, &|a, b| a == b);
        check_runs::<Min, u8>(&|x| (x * 4.0) as u8, &|a, b| a == b);
        check_rows::<Sum, i64>(&|x| (x * 1e15) as i64, &|a, b| a == b);
        check_rows::<Max, u8>(&|x| (x * 4.0) as u8, &|a, b| a == b);
        assert_eq!(slow_run::<Sum, i32>(&[i32::MAX, 1]), i32::MIN);
    }

    #[test]
    fn nan_wins_wherever_it_stands() {
        for n in [1, 2, 9, 63, 64, 65, 100, 5000] {
            for at in [0, n / 3, n / 2, n - 1] {
                let mut x = vec![1f32; n];
                x[at] = f32::NAN;
                for table in [max(DType::F32).unwrap(), min(DType::F32).unwrap(), sum(DType::F32).unwrap()] {
                    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
                        let mut out = 0f32;
                        // SAFETY: one run of n elements.
                        unsafe { table.rows[isa as usize](1, n, x.as_ptr().cast(), (&raw mut out).cast()) };
                        assert!(out.is_nan());
                    }
                }
            }
        }
    }

    #[test]
    fn equal_zeros_follow_the_tree() {
        let zeros = |x: f64| if x > 1.0 { f32::NAN } else { (0f32).copysign(x as f32) };
        check_runs::<Max, f32>(&zeros, &|a, b| a.to_bits() == b.to_bits());
        check_runs::<Min, f32>(&zeros, &|a, b| a.to_bits() == b.to_bits());
        check_rows::<Max, f32>(&zeros, &|a, b| a.to_bits() == b.to_bits());
        let signs = |x: f64| (0f32).copysign(x as f32);
        check_runs::<Max, f32>(&signs, &|a, b| a.to_bits() == b.to_bits());
        check_runs::<Min, f32>(&signs, &|a, b| a.to_bits() == b.to_bits());
        check_runs::<Sum, f32>(&signs, &|a, b| a.to_bits() == b.to_bits());
    }

    #[test]
    fn empty_runs_have_the_neutral_value() {
        let mut out = [7f32; 20];
        // SAFETY: twenty empty runs.
        unsafe { sum(DType::F32).unwrap().rows[0](20, 0, [0u32].as_ptr().cast(), out.as_mut_ptr().cast()) };
        assert_eq!(out, [0.0; 20]);
        // SAFETY: no rows of twenty elements.
        unsafe { prod(DType::F32).unwrap().chunk[0](true, 0, 20, out.as_ptr().cast(), 0, out.as_mut_ptr().cast()) };
        assert_eq!(out, [1.0; 20]);
        assert!(sum(DType::Bool).is_none());
    }
}
