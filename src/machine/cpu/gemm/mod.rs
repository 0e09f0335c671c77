//! Matrix products in f32 and f64: strided operands, batches, threads.
//!
//! The bits of an element depend on its row of A, its column of B, the length of K and the instruction family alone:
//! each block of K is one serial chain of multiply-adds, and block sums are added in order. Neither the shape around an
//! element, nor strides, packing, tiles or threads change them. AVX2 and AVX-512 agree; the portable build has no FMA.
//!
//! `simd` and `x86` hold the vector operations, `kernel` the tile in registers, `pack` the copies, `block` the loops of
//! one thread, `thin` those of one row, `slide` and `across` those of convolutions whose groups are small; this file cuts
//! a product over threads, and `depth` one that they share by blocks of K.

pub(super) mod across;
pub(super) mod block;
mod depth;
pub(super) mod kernel;
pub(super) mod pack;
mod simd;
pub(super) mod slide;
#[cfg(test)]
mod tests;
pub(super) mod thin;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::ops::{Add, Range};

use super::isa::Isa;
use super::par::{Stopped, Work, par, poll, share, width};
use kernel::Kernels;

/// One operand: the first element, and the strides between rows and between columns, in elements. They may be 0 or
/// negative.
#[derive(Clone, Copy, Debug)]
pub struct Mat<T> {
    pub ptr: *const T,
    pub rs: isize,
    pub cs: isize,
}

/// The result. Fastest with `cs` = 1 or `rs` = 1. Its elements must not overlap each other or an operand.
#[derive(Clone, Copy, Debug)]
pub struct MatMut<T> {
    pub ptr: *mut T,
    pub rs: isize,
    pub cs: isize,
}

impl<T> Mat<T> {
    fn transposed(self) -> Self {
        Mat { rs: self.cs, cs: self.rs, ..self }
    }

    /// # Safety
    /// The element lies in the operand.
    unsafe fn at(self, row: usize, col: usize) -> *const T {
        // SAFETY: the caller's promise.
        unsafe { self.ptr.offset(row as isize * self.rs + col as isize * self.cs) }
    }
}

impl<T> MatMut<T> {
    fn transposed(self) -> Self {
        MatMut { rs: self.cs, cs: self.rs, ..self }
    }

    /// # Safety
    /// The element lies in the result.
    unsafe fn at(self, row: usize, col: usize) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { self.ptr.offset(row as isize * self.rs + col as isize * self.cs) }
    }
}

/// f32 and f64.
pub trait Element: Copy + Default + Add<Output = Self> + Send + Sync + 'static {
    /// Steps of K in a block: part of what an element's bits mean.
    #[doc(hidden)]
    const MAX_DEPTH: usize;
    #[doc(hidden)]
    fn kernels(isa: Isa) -> &'static Kernels<Self>;
}

macro_rules! element {
    ($t:ty, $depth:literal, $portable:ident, $avx2:ident, $avx512:ident) => {
        impl Element for $t {
            const MAX_DEPTH: usize = $depth;

            fn kernels(isa: Isa) -> &'static Kernels<$t> {
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 => &kernel::$avx512,
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => &kernel::$avx2,
                    _ => &kernel::$portable,
                }
            }
        }
    };
}

element!(f32, 512, PORTABLE_F32, AVX2_F32, AVX512_F32);
element!(f64, 256, PORTABLE_F64, AVX2_F64, AVX512_F64);

/// Multiply-adds that a thread should get at once: about 10 µs.
const SHARE: usize = 1 << 20;
/// Multiply-adds in the time that one takes which waits for memory.
const THIN: usize = 8;
/// Shares for each thread, so that one that starts late takes fewer.
const SHARES: usize = 2;

/// Products of a batch from one poll to the next, if they are too small to poll themselves.
const POLLED: usize = 64;

/// c\[m, n\] = a\[m, k\] · b\[k, n\] for each of `batch` products; each operand comes with its stride from product to
/// product. k = 0 gives zeros.
///
/// # Safety
/// The CPU runs `isa`. Every element named by shapes and strides is readable, in `c` writable, and no element of `c` is
/// named twice or is part of `a` or `b`.
pub unsafe fn gemm<T: Element>(
    batch: usize,
    (m, k, n): (usize, usize, usize),
    (a, a_step): (Mat<T>, isize),
    (b, b_step): (Mat<T>, isize),
    (c, c_step): (MatMut<T>, isize),
    isa: Isa,
) -> Result<(), Stopped> {
    debug_assert!(isa.is_supported());
    if batch == 0 || m == 0 || n == 0 {
        return Ok(());
    }
    let kernels = T::kernels(isa);
    if batch == 1 && m > 1 && c.rs != 1 && block::is_one_tile(kernels, (m, k, n), c) {
        // SAFETY: the caller's promise.
        unsafe { block::one_tile(kernels, (m, k, n), a, b, c, false) };
        return Ok(());
    }
    let mut job = Job { kernels, batch, m, k, n, a, b, c, a_step, b_step, c_step };
    job.simplify();
    // SAFETY: the caller's promise; `simplify` names the same elements in another order.
    unsafe { job.run() }
}

/// c\[m, n\] = a · b, or c + a · b if `add`, on this thread: for kernels whose own items run in parallel. An element has
/// the bits of [`gemm`]; with `add`, those of its old value plus each block of K in order.
///
/// # Safety
/// As for [`gemm`].
pub unsafe fn gemm_serial<T: Element>(
    (m, k, n): (usize, usize, usize),
    a: Mat<T>,
    b: Mat<T>,
    c: MatMut<T>,
    add: bool,
    isa: Isa,
) -> Result<(), Stopped> {
    debug_assert!(isa.is_supported() && m > 0 && k > 0 && n > 0);
    poll()?;
    // SAFETY: the caller's promise.
    unsafe { block::product(T::kernels(isa), (m, k, n), a, b, c, add) }
}

#[derive(Clone, Copy)]
struct Job<T: 'static> {
    kernels: &'static Kernels<T>,
    batch: usize,
    m: usize,
    k: usize,
    n: usize,
    a: Mat<T>,
    b: Mat<T>,
    c: MatMut<T>,
    a_step: isize,
    b_step: isize,
    c_step: isize,
}

// SAFETY: threads write separate elements of `c` and only read `a` and `b`.
unsafe impl<T: Element> Sync for Job<T> {}

impl<T: Element> Job<T> {
    /// Rewrites the same products in the form that the loops handle best.
    fn simplify(&mut self) {
        let rows = self.m as isize;
        let one_a = self.a_step == rows * self.a.rs && self.c_step == rows * self.c.rs;
        if self.batch > 1 && self.b_step == 0 && one_a {
            // One B for all: the rows of all products follow each other.
            self.m *= self.batch;
            self.batch = 1;
        }
        if self.n == 1 {
            self.c.cs = 1;
        }
        if self.m == 1 {
            self.c.rs = 1;
        }
        // The same elements, since a product commutes; it fills vectors that a narrow C would leave empty.
        let narrow = self.c.rs == 1 && self.n < self.m && self.n < self.kernels.lanes;
        if self.c.cs != 1 && self.c.rs == 1 || narrow {
            (self.m, self.n) = (self.n, self.m);
            (self.a, self.b) = (self.b.transposed(), self.a.transposed());
            (self.a_step, self.b_step) = (self.b_step, self.a_step);
            self.c = self.c.transposed();
        }
    }

    /// Multiply-adds of one product, or what takes as long: one row uses each element of B once.
    fn cost(&self) -> usize {
        let reads = if self.m == 1 { THIN } else { 1 };
        self.m.saturating_mul(self.k).saturating_mul(self.n).saturating_mul(reads)
    }

    /// # Safety
    /// As for [`gemm`].
    unsafe fn run(&self) -> Result<(), Stopped> {
        let work = Work::MulAdds(self.batch.saturating_mul(self.cost()));
        let threads = width(work);
        if threads == 1 {
            // SAFETY: the caller's promise.
            return unsafe { self.part(0..self.batch, 0..self.m, 0..self.n) };
        }
        if self.goes_by_depth() {
            // SAFETY: the caller's promise.
            return unsafe { self.by_depth(threads, work) };
        }
        let grid = self.cut(threads * SHARES);
        par(grid.batch * grid.rows * grid.cols, work, &|item| {
            // A thread's items share rows where they can: most kernels before and after are cut by rows too.
            let (row, col) = (item / grid.cols % grid.rows, item % grid.cols);
            let products = share(item / grid.rows / grid.cols, grid.batch, self.batch);
            // SAFETY: items are disjoint parts of C. A stop also ends the run, which reports it.
            _ = unsafe { self.part(products, share(row, grid.rows, self.m), self.columns(col, grid.cols)) };
        })
    }

    /// Columns of a part: whole panels.
    fn columns(&self, part: usize, parts: usize) -> Range<usize> {
        let cols = self.kernels.cols();
        let panels = share(part, parts, self.n.div_ceil(cols));
        panels.start * cols..self.n.min(panels.end * cols)
    }

    /// Cuts into about `parts`, none much smaller than a share: by product, then each into the rows and columns that read
    /// least. Only a strided A is cut by rows first, so that each part of it is packed once.
    fn cut(&self, parts: usize) -> Grid {
        let parts = parts.min(self.batch.saturating_mul(self.cost()) / SHARE).max(1);
        let batch = self.batch.min(parts);
        let parts = parts.div_ceil(batch);
        let (row_panels, col_panels) = (self.m.div_ceil(self.kernels.rows()), self.n.div_ceil(self.kernels.cols()));
        let packs_a = self.a.rs == 1 && block::is_far(self.a.cs, size_of::<T>());
        let most_rows = row_panels.min(parts);
        // Each column of parts reads all of A, each row of parts all of B; a packed B is read twice.
        let b_cost = if self.b.cs == 1 { self.n } else { 2 * self.n };
        let grids = (1..=most_rows).map(|rows| (rows, col_panels.min(parts.div_ceil(rows))));
        let (rows, cols) = grids
            .min_by_key(|&(rows, cols)| {
                let missing = parts.saturating_sub(rows * cols);
                let reads = rows.saturating_mul(b_cost).saturating_add(cols.saturating_mul(self.m));
                (missing, if packs_a { most_rows - rows } else { reads })
            })
            .unwrap_or((1, 1));
        Grid { batch, rows, cols }
    }

    /// # Safety
    /// As for [`gemm`]; the ranges are inside the job.
    unsafe fn part(&self, products: Range<usize>, rows: Range<usize>, cols: Range<usize>) -> Result<(), Stopped> {
        for product in products {
            if product % POLLED == POLLED - 1 {
                poll()?;
            }
            let at = product as isize;
            // SAFETY: the ranges are inside the job.
            let (a, b, c) = unsafe {
                (
                    Mat { ptr: self.a.at(rows.start, 0).offset(at * self.a_step), ..self.a },
                    Mat { ptr: self.b.at(0, cols.start).offset(at * self.b_step), ..self.b },
                    MatMut { ptr: self.c.at(rows.start, cols.start).offset(at * self.c_step), ..self.c },
                )
            };
            if self.k == 0 {
                for i in 0..rows.len() {
                    for j in 0..cols.len() {
                        // SAFETY: an element of this part of C.
                        unsafe { *c.at(i, j) = T::default() };
                    }
                }
            } else {
                // SAFETY: the caller's promise, for a part of it.
                unsafe { block::product(self.kernels, (rows.len(), self.k, cols.len()), a, b, c, false)? };
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Grid {
    batch: usize,
    rows: usize,
    cols: usize,
}
