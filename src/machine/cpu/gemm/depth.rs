//! Products that threads share by blocks of K: gradients of weights, where rows of both operands are steps of K. Kernels
//! before are cut by rows, so each thread has some steps of both in its cache; cut by rows or columns of C, each would
//! fetch the others' too, and what several threads have read is slow to write for whoever uses the memory next.

use super::simd::Simd;
use super::{Element, Job, Mat, MatMut, SHARE, block};
use crate::machine::cpu::par::{Stopped, Work, par};
use crate::machine::cpu::scratch::with_scratch;
use smallvec::SmallVec;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of sums that may wait beside C: they stay in a cache.
const WAITING: usize = 512 << 10;

/// Adds the second of two runs of so many elements to the first and writes over it.
pub type Merge<T> = unsafe fn(*mut T, *mut T, usize);

/// What one thread has only read is several times slower to write for another than what it wrote, so zeros take the place
/// of what was added.
///
/// # Safety
/// The CPU has the instruction set of `S`; both runs are writable and nobody else uses them.
#[inline(always)]
pub unsafe fn merge<S: Simd>(to: *mut S::T, from: *mut S::T, n: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        let zero = S::splat(S::T::default());
        for j in (0..n / S::LANES * S::LANES).step_by(S::LANES) {
            S::store(to.add(j), S::add(S::load(to.add(j)), S::load(from.add(j))));
            S::store(from.add(j), zero);
        }
        let (at, mask) = (n / S::LANES * S::LANES, S::mask(n % S::LANES));
        let sum = S::add(S::load_mask(to.add(at), mask), S::load_mask(from.add(at), mask));
        S::store_mask(to.add(at), sum, mask);
        S::store_mask(from.add(at), zero, mask);
    }
}

impl<T: Element> Job<T> {
    /// Whether threads should share the product by blocks of K.
    pub(super) fn goes_by_depth(&self) -> bool {
        let waiting = self.m * self.n * size_of::<T>() * (self.k.div_ceil(block::depth_step::<T>(self.k)) - 1);
        self.batch == 1 && self.a.rs == 1 && self.b.cs == 1 && self.c.cs == 1 && (1..=WAITING).contains(&waiting)
    }

    /// Cuts by blocks of K and, if there are more threads, by columns. The sums of later blocks wait; who comes last to a
    /// part of C adds them to it, in order.
    ///
    /// # Safety
    /// As for [`super::gemm`].
    pub(super) unsafe fn by_depth(&self, threads: usize, work: Work) -> Result<(), Stopped> {
        let depth = block::depth_step::<T>(self.k);
        let blocks = self.k.div_ceil(depth);
        let most = (self.cost() / SHARE).div_ceil(blocks).clamp(1, self.n.div_ceil(self.kernels.cols()));
        // As many items for each thread.
        let parts = (1..most).find(|parts| (blocks * parts).is_multiple_of(threads)).unwrap_or(most);
        let left: SmallVec<[AtomicUsize; 8]> = (0..parts).map(|_| AtomicUsize::new(blocks)).collect();
        with_scratch((blocks - 1) * self.m * self.n, |sums: *mut T| {
            let waiting = Job { c: MatMut { ptr: sums, rs: self.n as isize, cs: 1 }, ..*self };
            par(blocks * parts, work, &|item| {
                let (block, cols) = (item / parts, self.columns(item % parts, parts));
                // SAFETY: blocks are inside K, the sum of each has a place of its own, and parts are disjoint.
                unsafe {
                    let c = if block == 0 { self.c } else { waiting.sum(block) };
                    let a = Mat { ptr: self.a.at(0, block * depth), ..self.a };
                    let b = Mat { ptr: self.b.at(block * depth, 0), ..self.b };
                    let job = Job { a, b, c, k: depth.min(self.k - block * depth), ..*self };
                    // A stop also ends the run, which reports it.
                    let is_done = job.part(0..1, 0..self.m, cols.clone()).is_ok();
                    if is_done && left[item % parts].fetch_sub(1, Ordering::AcqRel) == 1 {
                        (1..blocks).for_each(|block| self.merge(waiting.sum(block), cols.clone()));
                    }
                }
            })
        })
    }

    /// Where the sum of a later block of K waits.
    ///
    /// # Safety
    /// There is such a block, and C is the room for all.
    unsafe fn sum(&self, block: usize) -> MatMut<T> {
        // SAFETY: the caller's promise.
        MatMut { ptr: unsafe { self.c.ptr.add((block - 1) * self.m * self.n) }, ..self.c }
    }

    /// Adds some columns of what waits to C.
    ///
    /// # Safety
    /// Both have them, contiguous in each row, and nobody else uses them.
    unsafe fn merge(&self, waiting: MatMut<T>, cols: Range<usize>) {
        for row in 0..self.m {
            // SAFETY: the caller's promise.
            unsafe { (self.kernels.merge)(self.c.at(row, cols.start), waiting.at(row, cols.start), cols.len()) };
        }
    }
}
