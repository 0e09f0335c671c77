//! Products that threads share by blocks of K: gradients of weights, where rows of both operands are steps of K.
//! Kernels before are cut by rows, so each thread has some steps of both in its cache; cut by rows or columns of C, each
//! would fetch the others' too, and what several threads have read is slow to write for whoever uses the memory next.

use super::simd::Simd;
use super::{Element, Job, Mat, MatMut, SHARE, block};
use crate::machine::cpu::par::{Stopped, Work, par};
use crate::machine::cpu::scratch::with_scratch;
use smallvec::SmallVec;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of sums that may wait beside C: they stay in a cache.
const WAITING: usize = 512 << 10;

pub type Merge<T> = unsafe fn(*mut T, *mut T, usize);

/// Adds `from` to `to` and clears it: what one thread has only read is several times slower to write for another than
/// what it wrote.
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
        let is_deep = self.batch == 1 && self.a.rs == 1 && self.b.cs == 1 && self.c.cs == 1 && self.k > T::MAX_DEPTH;
        let later = || self.k.div_ceil(block::depth_step::<T>(self.k)) - 1;
        let sum = self.m.saturating_mul(self.n).saturating_mul(size_of::<T>());
        is_deep && sum.saturating_mul(later()) <= WAITING
    }

    /// Cuts by blocks of K and, if that does not give each thread as many items, by columns. The sums of later blocks
    /// wait; who comes last to a part of C adds them to it, in order.
    ///
    /// # Safety
    /// As for [`super::gemm`].
    pub(super) unsafe fn by_depth(&self, threads: usize, work: Work) -> Result<(), Stopped> {
        let depth = block::depth_step::<T>(self.k);
        let blocks = self.k.div_ceil(depth);
        let most = (self.cost() / SHARE).div_ceil(blocks).clamp(1, self.n.div_ceil(self.kernels.cols()));
        // One item a thread where that does: smaller ones read A again.
        let parts = (1..most).find(|parts| (blocks * parts).is_multiple_of(threads)).unwrap_or(most);
        let left: SmallVec<[AtomicUsize; 8]> = (0..parts).map(|_| AtomicUsize::new(blocks)).collect();
        with_scratch((blocks - 1) * self.m * self.n, |sums: *mut T| {
            let waiting = Waiting { sums, cols: self.n, size: self.m * self.n };
            par(blocks * parts, work, &|item| {
                let (block, cols) = (item / parts, self.columns(item % parts, parts));
                // SAFETY: blocks are inside K, the sum of each has a place of its own, and parts are disjoint.
                unsafe {
                    let c = if block == 0 { self.c } else { waiting.of(block) };
                    let a = Mat { ptr: self.a.at(0, block * depth), ..self.a };
                    let b = Mat { ptr: self.b.at(block * depth, 0), ..self.b };
                    let job = Job { a, b, c, k: depth.min(self.k - block * depth), ..*self };
                    // A stop also ends the run, which reports it.
                    let is_done = job.part(0..1, 0..self.m, cols.clone()).is_ok();
                    if is_done && left[item % parts].fetch_sub(1, Ordering::AcqRel) == 1 {
                        (1..blocks).for_each(|block| self.take(waiting.of(block), cols.clone()));
                    }
                }
            })
        })
    }

    /// Adds some columns of what waits to C.
    ///
    /// # Safety
    /// Both have them, contiguous in each row, and nobody else uses them.
    unsafe fn take(&self, waiting: MatMut<T>, cols: Range<usize>) {
        for row in 0..self.m {
            // SAFETY: the caller's promise.
            unsafe { (self.kernels.merge)(self.c.at(row, cols.start), waiting.at(row, cols.start), cols.len()) };
        }
    }
}

/// The sums of later blocks of K, one after the other.
struct Waiting<T> {
    sums: *mut T,
    cols: usize,
    size: usize,
}

// SAFETY: threads use separate elements of a sum until its last has counted them done.
unsafe impl<T: Element> Sync for Waiting<T> {}

impl<T> Waiting<T> {
    fn of(&self, block: usize) -> MatMut<T> {
        MatMut { ptr: self.sums.wrapping_add((block - 1) * self.size), rs: self.cols as isize, cs: 1 }
    }
}
