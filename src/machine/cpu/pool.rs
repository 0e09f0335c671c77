//! Pooling over one, two or three spatial axes: the tap of the largest element of each window, elements by tap and
//! their way back, means and theirs. Planes (all spatial axes of one channel) are independent and lie one after another.

use super::dispatch::by_isa;
use super::float::Float;
use super::isa::Isa;
use super::par::{Stopped, Work, par};
use super::sweep::Sweep;
use std::ops::Range;

/// Elements of planes that one item works on.
const ITEM: usize = 16 << 10;
/// Windows that are worked on together.
const CHUNK: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    pub planes: usize,
    pub field: [usize; 3],
    pub grid: [usize; 3],
    pub sweeps: [Sweep; 3],
}

/// What the sum over a window is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Divisor {
    /// Positions of the window inside the padded field, which is padded alike at both ends.
    Padded,
    /// Positions inside the field.
    Inside,
    Fixed(i64),
}

/// A tap as it is stored: its number in row-major order in the window.
pub trait Tap: Copy + Send + Sync + 'static {
    fn new(tap: usize) -> Self;
    fn get(self) -> usize;
}

impl Tap for u8 {
    #[inline(always)]
    fn new(tap: usize) -> u8 {
        tap as u8
    }
    #[inline(always)]
    fn get(self) -> usize {
        usize::from(self)
    }
}

impl Tap for i32 {
    #[inline(always)]
    fn new(tap: usize) -> i32 {
        tap as i32
    }
    #[inline(always)]
    fn get(self) -> usize {
        self as usize
    }
}

/// Runs the body with the first tap and the offset of each row of a plane that a row of windows meets, in the order of
/// their taps. A macro, because a closure may be compiled apart and lose the instruction set of the kernel around it.
macro_rules! for_rows {
    ($pool:expr, $at:expr, |$tap:ident, $offset:ident| $body:block) => {{
        let ([a, b, c], [plane, row]) = (&$pool.sweeps, $at);
        for i in 0..a.taps {
            let Some(plane) = a.position(plane, i, $pool.field[0]) else { continue };
            for j in 0..b.taps {
                let Some(row) = b.position(row, j, $pool.field[1]) else { continue };
                let $tap = (i * b.taps + j) * c.taps;
                let $offset = (plane * $pool.field[1] + row) * $pool.field[2];
                $body
            }
        }
    }};
}

impl Pool {
    fn field_size(&self) -> usize {
        self.field.iter().product()
    }

    fn grid_size(&self) -> usize {
        self.grid.iter().product()
    }

    fn taps(&self) -> usize {
        self.sweeps.iter().map(|sweep| sweep.taps).product()
    }

    /// Windows along an axis that have every tap inside.
    #[inline(always)]
    fn inner(&self, axis: usize) -> Range<usize> {
        let (sweep, extent) = (self.sweeps[axis], self.field[axis]);
        let stop = (extent + sweep.low).checked_sub(sweep.reach() + 1).map_or(0, |last| last / sweep.stride + 1);
        let start = sweep.low.div_ceil(sweep.stride).min(self.grid[axis]);
        start..stop.clamp(start, self.grid[axis])
    }

    /// Calls `f(tap, offset)` for the taps of a window that are inside the field, in order.
    #[inline(always)]
    fn window(&self, [plane, row, column]: [usize; 3], mut f: impl FnMut(usize, usize)) {
        for_rows!(self, [plane, row], |tap, offset| {
            for k in 0..self.sweeps[2].taps {
                if let Some(column) = self.sweeps[2].position(column, k, self.field[2]) {
                    f(tap + k, offset + column);
                }
            }
        });
    }

    /// The offset of a tap of a window; None if it is padding or no tap at all.
    fn offset(&self, window: [usize; 3], tap: usize) -> Option<usize> {
        let [_, rows, columns] = self.sweeps.map(|sweep| sweep.taps);
        let taps = [tap / columns / rows, tap / columns % rows, tap % columns];
        let mut offset = 0;
        for axis in 0..3 {
            let at = self.sweeps[axis].position(window[axis], taps[axis], self.field[axis])?;
            offset = offset * self.field[axis] + at;
        }
        Some(offset).filter(|_| tap < self.taps())
    }

    /// The offset of each tap from that of the first, and 0 for numbers up to 255 that are no tap.
    fn offsets(&self) -> Vec<usize> {
        let [a, b, c] = self.sweeps;
        let taps = (0..a.taps).flat_map(|i| (0..b.taps).flat_map(move |j| (0..c.taps).map(move |k| (i, j, k))));
        let offset = |(i, j, k)| (i * a.dilation * self.field[1] + j * b.dilation) * self.field[2] + k * c.dilation;
        let mut offsets: Vec<usize> = taps.map(offset).collect();
        offsets.resize(offsets.len().max(256), 0);
        offsets
    }

    /// How many positions of a window count, along one axis.
    #[inline(always)]
    fn counted(&self, divisor: Divisor, axis: usize, window: usize) -> usize {
        let (sweep, extent) = (self.sweeps[axis], self.field[axis]);
        let (start, end) = (window * sweep.stride, window * sweep.stride + sweep.taps);
        match divisor {
            Divisor::Inside => end.min(extent + sweep.low).saturating_sub(start.max(sweep.low)),
            _ => end.min(extent + 2 * sweep.low) - start,
        }
    }

    #[inline(always)]
    pub fn divisor<T: Float>(&self, divisor: Divisor, window: [usize; 3]) -> T {
        T::from_f64(match divisor {
            Divisor::Fixed(n) => n as f64,
            _ => {
                let counted = |axis: usize| self.counted(divisor, axis, window[axis]);
                (counted(0) * counted(1) * counted(2)) as f64
            }
        })
    }

    /// Calls `f(first element of the plane, window, its place, its taps inside)` for each window: what pooling means. A
    /// tap comes with its offset in the plane.
    pub fn terms(&self, mut f: impl FnMut(usize, usize, [usize; 3], &[(usize, usize)])) {
        let grid = self.grid_size();
        for (plane, window) in (0..self.planes).flat_map(|plane| (0..grid).map(move |window| (plane, window))) {
            let [_, b, c] = self.grid;
            let place = [window / c / b, window / c % b, window % c];
            let inside: Vec<_> = (0..self.taps()).filter_map(|tap| Some((tap, self.offset(place, tap)?))).collect();
            f(plane * self.field_size(), plane * grid + window, place, &inside);
        }
    }

    /// Runs `f(plane)` for each plane.
    fn each(&self, f: &(dyn Fn(usize) + Sync)) -> Result<(), Stopped> {
        let size = self.field_size().max(self.grid_size()).max(1);
        let planes = (ITEM / size).max(1);
        par(self.planes.div_ceil(planes), Work::Plain(self.planes * size), &|item| {
            (item * planes..self.planes.min((item + 1) * planes)).for_each(f);
        })
    }
}

/// A pointer that planes share.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);

// SAFETY: each plane is written by one item only; what is read is not written.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn at(&self, offset: usize) -> *mut T {
        self.0.wrapping_add(offset)
    }
}

/// The tap of the largest element of each window: the first of equal ones; NaN is larger than any number, and of several
/// NaNs it is the last.
///
/// # Safety
/// The CPU runs `isa`; operands and results here and below are contiguous and have the extents of the pool, and results
/// overlap nothing. Each window has a tap inside the field.
pub unsafe fn index<T: Float, I: Tap>(pool: &Pool, x: *const T, out: *mut I, isa: Isa) -> Result<(), Stopped> {
    let kernel =
        by_isa!(index_plane<T: Float, I: Tap>(pool: &Pool, x: *const T, more: usize, out: *mut I))[isa as usize];
    let (x, out) = (Shared(x.cast_mut()), Shared(out));
    let (field, grid) = (pool.field_size(), pool.grid_size());
    pool.each(&|plane| {
        // SAFETY: the caller's promise, for one plane; after it come the elements of the others.
        unsafe { kernel(pool, x.at(plane * field), (pool.planes - plane - 1) * field, out.at(plane * grid)) }
    })
}

/// One plane. A chunk inlined here has the instruction set of the kernel; a pointer to one would not.
#[inline(always)]
unsafe fn index_plane<T: Float, I: Tap, const FMA: bool>(pool: &Pool, x: *const T, more: usize, out: *mut I) {
    // SAFETY: the caller's promise.
    unsafe {
        match pool.sweeps[2].stride {
            1 => index_lines::<T, I, 1>(pool, x, more, out),
            2 => index_lines::<T, I, 2>(pool, x, more, out),
            _ => index_lines::<T, I, 0>(pool, x, more, out),
        }
    }
}

#[inline(always)]
unsafe fn index_lines<T: Float, I: Tap, const S: usize>(pool: &Pool, x: *const T, more: usize, out: *mut I) {
    let inner = pool.inner(2);
    let mut out = out;
    for window in windows(pool.grid[0], pool.grid[1]) {
        let mut column = 0;
        while column < pool.grid[2] {
            // A chunk may read past its end, into the planes that follow.
            let wanted = CHUNK.min(inner.end.saturating_sub(column));
            if inner.contains(&column) && (wanted == CHUNK || more >= CHUNK * pool.sweeps[2].stride) {
                // SAFETY: the taps of the windows wanted are inside the plane, those of the rest inside the operand.
                unsafe {
                    let taps = index_chunk::<T, S>(pool, x, window, column);
                    for (i, &tap) in taps.iter().enumerate().take(wanted) {
                        *out.add(column + i) = I::new(tap as usize);
                    }
                }
                column += wanted;
                continue;
            }
            let mut best: Option<(T, usize)> = None;
            pool.window([window[0], window[1], column], |tap, offset| {
                // SAFETY: the tap is inside the plane.
                let value = unsafe { *x.add(offset) };
                if best.is_none_or(|(largest, _)| value > largest || value.is_nan()) {
                    best = Some((value, tap));
                }
            });
            // SAFETY: an element of the result.
            unsafe { *out.add(column) = I::new(best.map_or(0, |(_, tap)| tap)) };
            column += 1;
        }
        out = out.wrapping_add(pool.grid[2]);
    }
}

/// The taps of adjacent windows that have every tap along the last axis inside. `S` is the stride; 0: any.
#[inline(always)]
unsafe fn index_chunk<T: Float, const S: usize>(
    pool: &Pool,
    x: *const T,
    at: [usize; 2],
    column: usize,
) -> [u32; CHUNK] {
    let sweep = pool.sweeps[2];
    let stride = if S == 0 { sweep.stride } else { S };
    let (mut largest, mut taps, mut first) = ([T::ZERO; CHUNK], [0u32; CHUNK], true);
    for_rows!(pool, at, |tap, offset| {
        for k in 0..sweep.taps {
            let from = x.wrapping_add(offset + column * stride + k * sweep.dilation - sweep.low);
            for i in 0..CHUNK {
                // SAFETY: the caller's promise.
                let value = unsafe { *from.add(i * stride) };
                let take = first | (value > largest[i]) | value.is_nan();
                largest[i] = if take { value } else { largest[i] };
                taps[i] = if take { (tap + k) as u32 } else { taps[i] };
            }
            first = false;
        }
    });
    taps
}

fn windows(planes: usize, rows: usize) -> impl Iterator<Item = [usize; 2]> {
    (0..planes).flat_map(move |plane| (0..rows).map(move |row| [plane, row]))
}

/// Calls `f(window, offset)` for each window of a plane and the offset of its tap; None where that is padding.
#[inline(always)]
unsafe fn taps<I: Tap>(pool: &Pool, offsets: &[usize], index: *const I, mut f: impl FnMut(usize, Option<usize>)) {
    let inner = [0, 1, 2].map(|axis| pool.inner(axis));
    let sweep = pool.sweeps[2];
    let last = offsets.len() - 1;
    let mut at = 0;
    for [plane, row] in windows(pool.grid[0], pool.grid[1]) {
        let is_inner = inner[0].contains(&plane) && inner[1].contains(&row);
        let inner = if is_inner { inner[2].clone() } else { 0..0 };
        let edge = |column: usize, at: usize| {
            // SAFETY: an element of the index.
            pool.offset([plane, row, column], unsafe { *index.add(at) }.get())
        };
        for column in 0..inner.start {
            f(at + column, edge(column, at + column));
        }
        if !inner.is_empty() {
            let start = |axis: usize, window: usize| window * pool.sweeps[axis].stride - pool.sweeps[axis].low;
            let line = (start(0, plane) * pool.field[1] + start(1, row)) * pool.field[2] + inner.start * sweep.stride;
            let line = line - sweep.low;
            for column in inner.clone() {
                // SAFETY: an element of the index; the table has an entry for each byte.
                let offset = unsafe { *offsets.get_unchecked((*index.add(at + column)).get().min(last)) };
                f(at + column, Some(line + (column - inner.start) * sweep.stride + offset));
            }
        }
        for column in inner.end..pool.grid[2] {
            f(at + column, edge(column, at + column));
        }
        at += pool.grid[2];
    }
}

/// The elements at the taps: out\[window\] = x\[its tap\], 0 where that is padding.
///
/// # Safety
/// As for `index`.
pub unsafe fn pick<T: Float, I: Tap>(pool: &Pool, x: *const T, index: *const I, out: *mut T) -> Result<(), Stopped> {
    let (x, index, out) = (Shared(x.cast_mut()), Shared(index.cast_mut()), Shared(out));
    let (field, grid, offsets) = (pool.field_size(), pool.grid_size(), pool.offsets());
    pool.each(&|plane| {
        let (x, out) = (x.at(plane * field), out.at(plane * grid));
        // SAFETY: the caller's promise; offsets lie in the plane.
        unsafe {
            taps(pool, &offsets, index.at(plane * grid), |window, offset| {
                *out.add(window) = offset.map_or(T::ZERO, |offset| *x.add(offset));
            });
        }
    })
}

/// The transpose of `pick`: zeros, with the windows of g added at their taps, in order.
///
/// # Safety
/// As for `index`.
pub unsafe fn place<T: Float, I: Tap>(pool: &Pool, g: *const T, index: *const I, out: *mut T) -> Result<(), Stopped> {
    let (g, index, out) = (Shared(g.cast_mut()), Shared(index.cast_mut()), Shared(out));
    let (field, grid, offsets) = (pool.field_size(), pool.grid_size(), pool.offsets());
    pool.each(&|plane| {
        let (g, out) = (g.at(plane * grid), out.at(plane * field));
        // SAFETY: the caller's promise; offsets lie in the plane, and zero bytes are zeros.
        unsafe {
            out.write_bytes(0, field);
            taps(pool, &offsets, index.at(plane * grid), |window, offset| {
                if let Some(offset) = offset {
                    *out.add(offset) += *g.add(window);
                }
            });
        }
    })
}

/// The mean of each window: the sum in the order of the taps, divided once.
///
/// # Safety
/// As for `index`.
pub unsafe fn mean<T: Float>(pool: &Pool, divisor: Divisor, x: *const T, out: *mut T, isa: Isa) -> Result<(), Stopped> {
    let kernel = by_isa!(mean_plane<T: Float>(pool: &Pool, divisor: Divisor, x: *const T, more: usize, out: *mut T))
        [isa as usize];
    let (x, out) = (Shared(x.cast_mut()), Shared(out));
    let (field, grid) = (pool.field_size(), pool.grid_size());
    pool.each(&|plane| {
        // SAFETY: the caller's promise, for one plane; after it come the elements of the others.
        unsafe { kernel(pool, divisor, x.at(plane * field), (pool.planes - plane - 1) * field, out.at(plane * grid)) }
    })
}

#[inline(always)]
unsafe fn mean_plane<T: Float, const FMA: bool>(pool: &Pool, divisor: Divisor, x: *const T, more: usize, out: *mut T) {
    // SAFETY: the caller's promise.
    unsafe {
        match pool.sweeps[2].stride {
            1 => mean_lines::<T, 1>(pool, divisor, x, more, out),
            2 => mean_lines::<T, 2>(pool, divisor, x, more, out),
            _ => mean_lines::<T, 0>(pool, divisor, x, more, out),
        }
    }
}

#[inline(always)]
unsafe fn mean_lines<T: Float, const S: usize>(pool: &Pool, divisor: Divisor, x: *const T, more: usize, out: *mut T) {
    let inner = pool.inner(2);
    let mut out = out;
    for [plane, row] in windows(pool.grid[0], pool.grid[1]) {
        let mut column = 0;
        while column < pool.grid[2] {
            let wanted = CHUNK.min(inner.end.saturating_sub(column));
            if inner.contains(&column) && (wanted == CHUNK || more >= CHUNK * pool.sweeps[2].stride) {
                let divisor: T = pool.divisor(divisor, [plane, row, column]);
                // SAFETY: as in `index_lines`; windows with every tap inside have one divisor.
                unsafe {
                    let sums = sum_chunk::<T, S>(pool, x, [plane, row], column);
                    for (i, &sum) in sums.iter().enumerate().take(wanted) {
                        *out.add(column + i) = sum / divisor;
                    }
                }
                column += wanted;
                continue;
            }
            let mut sum = T::ZERO;
            // SAFETY: the taps are inside the plane.
            pool.window([plane, row, column], |_, offset| sum += unsafe { *x.add(offset) });
            // SAFETY: an element of the result.
            unsafe { *out.add(column) = sum / pool.divisor(divisor, [plane, row, column]) };
            column += 1;
        }
        out = out.wrapping_add(pool.grid[2]);
    }
}

#[inline(always)]
unsafe fn sum_chunk<T: Float, const S: usize>(pool: &Pool, x: *const T, at: [usize; 2], column: usize) -> [T; CHUNK] {
    let sweep = pool.sweeps[2];
    let stride = if S == 0 { sweep.stride } else { S };
    let mut sums = [T::ZERO; CHUNK];
    for_rows!(pool, at, |_tap, offset| {
        for k in 0..sweep.taps {
            let from = x.wrapping_add(offset + column * stride + k * sweep.dilation - sweep.low);
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                *sum += unsafe { *from.add(i * stride) };
            }
        }
    });
    sums
}

/// The transpose of `mean`: each window's g over its divisor, added at all of its taps; row by row of windows, those at
/// the ends of a row first.
///
/// # Safety
/// As for `index`.
pub unsafe fn spread<T: Float>(pool: &Pool, divisor: Divisor, g: *const T, out: *mut T) -> Result<(), Stopped> {
    let (g, out) = (Shared(g.cast_mut()), Shared(out));
    let (field, grid) = (pool.field_size(), pool.grid_size());
    let (inner, sweep) = (pool.inner(2), pool.sweeps[2]);
    pool.each(&|plane| {
        let (mut g, out) = (g.at(plane * grid).cast_const(), out.at(plane * field));
        // SAFETY: the caller's promise; taps are inside the plane, and zero bytes are zeros.
        unsafe {
            out.write_bytes(0, field);
            for [plane, row] in windows(pool.grid[0], pool.grid[1]) {
                for column in (0..inner.start).chain(inner.end..pool.grid[2]) {
                    let part = *g.add(column) / pool.divisor(divisor, [plane, row, column]);
                    pool.window([plane, row, column], |_, offset| *out.add(offset) += part);
                }
                if !inner.is_empty() {
                    let shared: T = pool.divisor(divisor, [plane, row, inner.start]);
                    for_rows!(pool, [plane, row], |_tap, offset| {
                        for column in inner.clone() {
                            let part = *g.add(column) / shared;
                            let first = out.add(offset + column * sweep.stride - sweep.low);
                            (0..sweep.taps).for_each(|tap| *first.add(tap * sweep.dilation) += part);
                        }
                    });
                }
                g = g.add(pool.grid[2]);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::cpu::sweep::three;

    fn sweep(taps: usize, stride: usize, dilation: usize, low: usize) -> Sweep {
        Sweep { taps, stride, dilation, low }
    }

    fn pool(planes: usize, axes: &[(usize, Sweep)]) -> Pool {
        let grid: Vec<usize> = axes.iter().map(|(n, s)| (n + 2 * s.low - s.reach() - 1) / s.stride + 1).collect();
        let (fields, sweeps): (Vec<usize>, Vec<Sweep>) = axes.iter().copied().unzip();
        Pool { planes, field: three(&fields, 1), grid: three(&grid, 1), sweeps: three(&sweeps, Sweep::NONE) }
    }

    fn pools() -> Vec<Pool> {
        vec![
            pool(6, &[(24, sweep(2, 2, 1, 0)), (24, sweep(2, 2, 1, 0))]),
            pool(3, &[(9, sweep(3, 2, 1, 1)), (41, sweep(3, 2, 1, 1))]),
            pool(2, &[(7, sweep(3, 1, 1, 1)), (37, sweep(3, 1, 1, 1))]),
            pool(2, &[(12, sweep(2, 3, 2, 1)), (70, sweep(3, 3, 2, 2))]),
            pool(5, &[(50, sweep(4, 4, 1, 0))]),
            pool(2, &[(4, sweep(2, 2, 1, 0)), (5, sweep(2, 1, 1, 1)), (6, sweep(3, 2, 1, 1))]),
            pool(40, &[(100, sweep(2, 2, 1, 0)), (100, sweep(2, 2, 1, 0))]),
        ]
    }

    /// Numbers with ties, infinities and a few NaNs.
    fn numbers(n: usize) -> Vec<f32> {
        let value = |i: usize| match i * 7919 % 101 {
            0 => f32::NAN,
            1 => f32::NEG_INFINITY,
            k => (k % 7) as f32 - 3.0,
        };
        (0..n).map(value).collect()
    }

    #[test]
    fn the_index_is_the_first_of_the_largest_or_the_last_nan() {
        for pool in pools() {
            let x = numbers(pool.planes * pool.field_size());
            let n = pool.planes * pool.grid_size();
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
                let (mut narrow, mut wide) = (vec![255u8; n], vec![-1i32; n]);
                // SAFETY: the vectors have the extents of the pool.
                unsafe {
                    index(&pool, x.as_ptr(), narrow.as_mut_ptr(), isa).unwrap();
                    index(&pool, x.as_ptr(), wide.as_mut_ptr(), isa).unwrap();
                }
                pool.terms(|plane, at, window, taps| {
                    let last_nan = taps.iter().rev().find(|tap| x[plane + tap.1].is_nan());
                    let largest = taps.iter().map(|tap| x[plane + tap.1]).fold(f32::NEG_INFINITY, f32::max);
                    let want = last_nan.or(taps.iter().find(|tap| x[plane + tap.1] == largest)).unwrap();
                    assert_eq!((usize::from(narrow[at]), wide[at] as usize), (want.0, want.0), "{pool:?} {window:?}");
                });
            }
        }
    }

    #[test]
    fn picking_and_placing_follow_the_index() {
        for pool in pools() {
            let x: Vec<f64> = (0..pool.planes * pool.field_size()).map(|i| (i % 89) as f64 - 40.0).collect();
            let n = pool.planes * pool.grid_size();
            let mut at = vec![0u8; n];
            pool.terms(|_, window, _, taps| {
                at[window] = taps[window * 31 % taps.len()].0 as u8;
            });
            let (mut picked, mut placed) = (vec![f64::NAN; n], vec![f64::NAN; x.len()]);
            let g: Vec<f64> = (0..n).map(|i| (i % 13) as f64 - 5.0).collect();
            // SAFETY: the vectors have the extents of the pool.
            unsafe {
                pick(&pool, x.as_ptr(), at.as_ptr(), picked.as_mut_ptr()).unwrap();
                place(&pool, g.as_ptr(), at.as_ptr(), placed.as_mut_ptr()).unwrap();
            }
            let mut want = vec![0.0; x.len()];
            pool.terms(|plane, window, position, _| {
                let offset = plane + pool.offset(position, usize::from(at[window])).unwrap();
                assert_eq!(picked[window], x[offset]);
                want[offset] += g[window];
            });
            assert_eq!(placed, want);
        }
    }

    #[test]
    fn means_and_their_transpose_divide_by_what_counts() {
        for pool in pools().into_iter().filter(|pool| pool.sweeps.iter().all(|sweep| sweep.dilation == 1)) {
            for divisor in [Divisor::Padded, Divisor::Inside, Divisor::Fixed(-3)] {
                let x: Vec<f64> = (0..pool.planes * pool.field_size()).map(|i| (i % 89) as f64 - 40.0).collect();
                let n = pool.planes * pool.grid_size();
                let g: Vec<f64> = (0..n).map(|i| (i % 13) as f64 - 5.0).collect();
                let mut transposed = vec![f64::NAN; x.len()];
                // SAFETY: the vectors have the extents of the pool.
                unsafe { spread(&pool, divisor, g.as_ptr(), transposed.as_mut_ptr()).unwrap() };
                let mut want = vec![0.0; x.len()];
                for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
                    let mut means = vec![f64::NAN; n];
                    // SAFETY: as above.
                    unsafe { mean(&pool, divisor, x.as_ptr(), means.as_mut_ptr(), isa).unwrap() };
                    want.fill(0.0);
                    pool.terms(|plane, window, position, taps| {
                        let count = match divisor {
                            Divisor::Fixed(n) => n as f64,
                            Divisor::Inside => taps.len() as f64,
                            Divisor::Padded => (0..3)
                                .map(|axis| {
                                    let Sweep { taps, stride, low, .. } = pool.sweeps[axis];
                                    let end = pool.field[axis] + 2 * low;
                                    (position[axis] * stride..position[axis] * stride + taps)
                                        .filter(|&at| at < end)
                                        .count()
                                })
                                .product::<usize>() as f64,
                        };
                        let sum: f64 = taps.iter().map(|tap| x[plane + tap.1]).sum();
                        assert_eq!(means[window], sum / count, "{pool:?} {position:?}");
                        taps.iter().for_each(|tap| want[plane + tap.1] += g[window] / count);
                    });
                }
                // Sums of a few parts, which overlapping windows may add in another order.
                assert!(transposed.iter().zip(&want).all(|(x, y)| (x - y).abs() < 1e-13 * (1.0 + y.abs())));
            }
        }
    }
}
