//! One row of A against a B that is stored by columns: a layer on a single example. Packing would cost more than the
//! product, so columns are transposed in registers and used at once. Each element is the same serial chain of
//! multiply-adds as in a tile.

use super::block::{DEPTH_UNIT, even};
use super::kernel::Kernels;
use super::simd::Simd;
use super::{Element, Mat, MatMut};
use crate::machine::cpu::par::{Stopped, poll};

/// Vectors of columns that are worked on together: one chain of multiply-adds each, to hide their latency.
const GROUPS: usize = 4;
/// Vectors that are fetched ahead in each column: the CPU follows few by itself.
const AHEAD: usize = 8;
/// Elements of a square of lanes, of any backend.
const SQUARE: usize = 16 * 16;

/// Some columns over one block of K. Strides are in elements.
pub struct Columns<T> {
    pub a: *const T,
    pub a_ks: isize,
    /// Columns of contiguous elements.
    pub b: *const T,
    pub b_cs: isize,
    pub depth: usize,
    pub c: *mut T,
    pub cols: usize,
    /// Adds to C instead of overwriting it.
    pub add: bool,
}

pub type Thin<T> = unsafe fn(&Columns<T>);

/// # Safety
/// The CPU has the instruction set of `S`; A, B and C cover the columns.
#[inline(always)]
pub unsafe fn thin<S: Simd>(columns: &Columns<S::T>) {
    let mut at = 0;
    // SAFETY: the caller's promise.
    unsafe {
        while columns.cols - at >= GROUPS * S::LANES {
            groups::<S, GROUPS>(columns, at, S::LANES);
            at += GROUPS * S::LANES;
        }
        while at < columns.cols {
            groups::<S, 1>(columns, at, S::LANES.min(columns.cols - at));
            at += S::LANES;
        }
    }
}

/// `N` vectors of columns from `at` on; `lanes` columns in each.
#[inline(always)]
unsafe fn groups<S: Simd, const N: usize>(t: &Columns<S::T>, at: usize, lanes: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut acc = [S::splat(S::T::default()); N];
        let first = t.b.offset(at as isize * t.b_cs);
        for p in (0..t.depth).step_by(S::LANES) {
            let a = t.a.offset(p as isize * t.a_ks);
            let steps = S::LANES.min(t.depth - p);
            for (group, acc) in acc.iter_mut().enumerate() {
                let run = first.offset((group * S::LANES) as isize * t.b_cs).add(p);
                for lane in 0..lanes {
                    S::prefetch(run.wrapping_offset(lane as isize * t.b_cs).wrapping_add(AHEAD * S::LANES));
                }
                *acc = if lanes == S::LANES && steps == S::LANES {
                    S::fold(a, t.a_ks, run, t.b_cs, *acc)
                } else {
                    let mut square = [S::T::default(); SQUARE];
                    S::transpose(run, t.b_cs, lanes, steps, square.as_mut_ptr(), S::LANES);
                    let mut acc = *acc;
                    for step in 0..steps {
                        let factor = S::splat(*a.offset(step as isize * t.a_ks));
                        acc = S::fma(factor, S::load(square.as_ptr().add(step * S::LANES)), acc);
                    }
                    acc
                };
            }
        }
        let mask = S::mask(lanes);
        for (group, acc) in acc.iter().enumerate() {
            let c = t.c.add(at + group * S::LANES);
            let sum = if t.add { S::add(S::load_mask(c, mask), *acc) } else { *acc };
            S::store_mask(c, sum, mask);
        }
    }
}

/// c\[n\] = a\[k\] · b\[k, n\], or c + a · b if `add`, on this thread, for a B whose columns are contiguous.
///
/// # Safety
/// As for [`super::gemm`].
pub unsafe fn product<T: Element>(
    kernels: &Kernels<T>,
    (k, n): (usize, usize),
    a: Mat<T>,
    b: Mat<T>,
    c: MatMut<T>,
    add: bool,
) -> Result<(), Stopped> {
    let width = GROUPS * kernels.lanes;
    let depth_step = even(k, T::MAX_DEPTH, DEPTH_UNIT);
    for col in (0..n).step_by(width) {
        poll()?;
        for p in (0..k).step_by(depth_step) {
            // SAFETY: the columns and the block of K are inside the product.
            unsafe {
                (kernels.thin)(&Columns {
                    a: a.at(0, p),
                    a_ks: a.cs,
                    b: b.at(p, col),
                    b_cs: b.cs,
                    depth: depth_step.min(k - p),
                    c: c.at(0, col),
                    cols: width.min(n - col),
                    add: add || p > 0,
                });
            }
        }
    }
    Ok(())
}
