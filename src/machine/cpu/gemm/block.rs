//! The blocked product on one thread: cuts K, columns and rows, packs what is read often enough, and calls the kernels.
//!
//! K is cut by K alone, so the sum behind an element never depends on the shape around it. Column blocks are sized for
//! the L2 cache, row panels for the registers. While the tiles of a block are computed, the next block comes into the
//! cache: the CPU does not guess where it lies, and a first pass that waits for memory cost 4 to 8 % of a product.

use super::kernel::{Fetch, Kernel, Kernels, Rows, Tile};
use super::pack::Panel;
use super::{Element, Mat, MatMut, thin};
use crate::machine::cpu::par::{Stopped, poll};
use crate::machine::cpu::scratch::with_scratch;

/// Blocks of K are whole vectors of any backend, so that all cut alike.
pub const DEPTH_UNIT: usize = 16;
/// Bytes of B that stay in the L2 cache while the rows of A pass, if they are of all columns.
const B_BYTES: usize = 512 << 10;
/// The same of some columns: the next block comes in beside them.
const B_PART_BYTES: usize = 256 << 10;
/// Bytes of C from which on a product of one block fetches it: so much is in no near cache when it is stored.
const FETCHED: usize = 64 << 10;
/// Rows of A that stay packed from one column block to the next.
const A_ROWS: usize = 2048;
/// Column panels up to which A is read in place, and the same where its runs are far apart.
const A_REUSE: usize = 16;
const A_REUSE_FAR: usize = 4;
/// Row panels up to which B is read in place, and the same where its rows are far apart.
const B_REUSE: usize = 4;
const B_REUSE_FAR: usize = 2;
/// Bytes between runs from which the CPU reads them badly: they share few cache sets, and pages are not fetched ahead.
const FAR: usize = 2048;
/// Bytes of a cache line.
const LINE: usize = 64;
/// C of one tile when its columns are not contiguous: the largest tile of any backend.
pub const TILE: usize = 14 * 32;

pub fn is_far(stride: isize, element: usize) -> bool {
    stride.unsigned_abs() >= FAR / element
}

/// Cuts `n` into as few parts of at most `most` as will do, evenly, and rounds their size up to a multiple of `unit`.
/// The usual small case costs no division.
pub fn even(n: usize, most: usize, unit: usize) -> usize {
    if n <= most { n } else { n.div_ceil(n.div_ceil(most)).next_multiple_of(unit) }
}

/// Steps of K in a block; the last may have fewer.
pub fn depth_step<T: Element>(k: usize) -> usize {
    even(k, T::MAX_DEPTH, DEPTH_UNIT)
}

/// One product, or a part of one, and how it is cut.
struct Product<'a, T: 'static> {
    kernels: &'a Kernels<T>,
    b: Mat<T>,
    c: MatMut<T>,
    pack_b: bool,
    /// The packed column block of B: panel by panel.
    b_packed: *mut T,
    /// Whether the product is added to C.
    add: bool,
    /// Whether tiles fetch C and the next block of B.
    fetches: bool,
    k: usize,
    n: usize,
}

/// C = A · B, or C + A · B if `add`, on this thread. No dimension is 0.
///
/// # Safety
/// As for [`super::gemm`].
pub unsafe fn product<T: Element>(
    kernels: &Kernels<T>,
    (m, k, n): (usize, usize, usize),
    a: Mat<T>,
    b: Mat<T>,
    c: MatMut<T>,
    add: bool,
) -> Result<(), Stopped> {
    if m == 1 && b.rs == 1 && b.cs != 1 && c.cs == 1 {
        // SAFETY: the caller's promise.
        return unsafe { thin::product(kernels, (k, n), a, b, c, add) };
    }
    let (rows, cols) = (kernels.rows(), kernels.cols());
    if is_one_tile(kernels, (m, k, n), c) {
        // SAFETY: the caller's promise.
        unsafe { one_tile(kernels, (m, k, n), a, b, c, add) };
        return Ok(());
    }
    let a_runs = if a.rs == 1 { a.cs } else { a.rs };
    let pack_a = n > cols * if is_far(a_runs, size_of::<T>()) { A_REUSE_FAR } else { A_REUSE };
    let pack_b = b.cs != 1 || m > rows * if is_far(b.rs, size_of::<T>()) { B_REUSE_FAR } else { B_REUSE };

    let depth_step = depth_step::<T>(k);
    let is_whole = n <= cols || n * depth_step <= B_BYTES / size_of::<T>();
    let col_step = if is_whole { n } else { even(n, (B_PART_BYTES / size_of::<T>() / depth_step) & !(cols - 1), cols) };
    // With one column block a panel of A is used up before the next is packed.
    let keep_a = pack_a && n > col_step;
    let row_step = if keep_a { m.min(A_ROWS) } else { m };
    let a_panel = if pack_a { kernels.padded(rows) * depth_step } else { 0 };
    let a_room = if keep_a { a_panel * row_step.div_ceil(rows) } else { a_panel };
    let b_room = if pack_b { kernels.padded(col_step) * depth_step } else { 0 };

    with_scratch(a_room + b_room, |scratch: *mut T| {
        let b_packed = scratch.wrapping_add(a_room);
        let fetches = pack_b && (n > col_step || k > depth_step || m * n >= FETCHED / size_of::<T>());
        let product = Product { kernels, b, c, pack_b, b_packed, add, fetches, k, n };
        for p in (0..k).step_by(depth_step) {
            let depth = depth_step.min(k - p);
            for row in (0..m).step_by(row_step) {
                let row_end = m.min(row + row_step);
                for col in (0..n).step_by(col_step) {
                    let block = Block { p, depth, col, width: col_step.min(n - col) };
                    // SAFETY: the blocks are parts of the product, and the scratch has room for the largest.
                    unsafe {
                        if pack_b && b.cs != 1 {
                            product.pack_b(&block);
                        }
                        let (mut i, mut to) = (row, scratch);
                        let panels = if row_end - row <= rows { 1 } else { (row_end - row).div_ceil(rows) };
                        for left in (0..panels).rev() {
                            poll()?;
                            let height = if left == 0 { row_end - i } else { (row_end - i).div_ceil(left + 1) };
                            let from = Mat { ptr: a.at(i, p), ..a };
                            let a = if pack_a {
                                product.pack_a(from, height, depth, to, col == 0 || !keep_a)
                            } else {
                                from
                            };
                            product.row_panel(&block, (i, height), a, i == row, left);
                            if keep_a {
                                to = to.add(a_panel);
                            }
                            i += height;
                        }
                    }
                }
            }
        }
        Ok(())
    })
}

/// Whether a product is one tile of C with contiguous columns.
#[inline]
pub fn is_one_tile<T: Element>(kernels: &Kernels<T>, (m, k, n): (usize, usize, usize), c: MatMut<T>) -> bool {
    m <= kernels.rows() && n <= kernels.cols() && (1..=T::MAX_DEPTH).contains(&k) && c.cs == 1
}

/// A product that is one tile: the kernel at once, without loops over blocks.
///
/// # Safety
/// As for [`product`].
pub unsafe fn one_tile<T: Element>(
    kernels: &Kernels<T>,
    (m, depth, n): (usize, usize, usize),
    a: Mat<T>,
    b: Mat<T>,
    c: MatMut<T>,
    add: bool,
) {
    let padded = kernels.padded(n);
    let run = |b: *const T, b_ks: isize, reads: Rows| {
        let kernel = kernels.tile(m, padded == kernels.cols(), a.rs == 1, reads);
        let (a, a_rs, a_ks, c, c_rs) = (a.ptr, a.rs, a.cs, c.ptr, c.rs);
        let (b_packed, fetch) = (std::ptr::null_mut(), Fetch::NOTHING);
        // SAFETY: the tile is the whole product.
        unsafe {
            let (runs, a_skip, cols) = (1, 0, n);
            kernel(&Tile { depth, runs, a_skip, a, a_rs, a_ks, b, b_ks, b_packed, c, c_rs, cols, add, fetch });
        };
    };
    if b.cs == 1 {
        return run(b.ptr, b.rs, if n == padded { Rows::Full } else { Rows::Masked });
    }
    with_scratch(padded * depth, |packed: *mut T| {
        let panel = Panel { from: b.ptr, lanes: n, lane_stride: b.cs, depth, depth_stride: b.rs, step: padded };
        // SAFETY: the panel is all of B, and the scratch has room for it.
        unsafe { (kernels.pack)(&panel, packed) };
        run(packed, padded as isize, Rows::Full);
    });
}

/// Steps of K and columns that are worked on together.
struct Block {
    p: usize,
    depth: usize,
    col: usize,
    width: usize,
}

impl<T: Element> Product<'_, T> {
    /// Packs the block of B in a pass of its own: for columns that are not contiguous.
    ///
    /// # Safety
    /// The block is inside the product.
    unsafe fn pack_b(&self, block: &Block) {
        for j in (0..block.width).step_by(self.kernels.cols()) {
            let lanes = self.kernels.cols().min(block.width - j);
            // SAFETY: the panel is inside the block, and its copy in the room for it.
            unsafe {
                let from = self.b.at(block.p, block.col + j);
                let (lane_stride, depth, depth_stride) = (self.b.cs, block.depth, self.b.rs);
                let step = self.kernels.padded(lanes);
                let panel = Panel { from, lanes, lane_stride, depth, depth_stride, step };
                (self.kernels.pack)(&panel, self.b_packed.add(j * depth));
            }
        }
    }

    /// The packed form of a row panel of A at `to`, copied now or before.
    ///
    /// # Safety
    /// The panel is inside the product, and `to` has room for it.
    unsafe fn pack_a(&self, from: Mat<T>, lanes: usize, depth: usize, to: *mut T, now: bool) -> Mat<T> {
        let step = self.kernels.padded(lanes);
        if now {
            let panel = Panel { from: from.ptr, lanes, lane_stride: from.rs, depth, depth_stride: from.cs, step };
            // SAFETY: the caller's promise.
            unsafe { (self.kernels.pack)(&panel, to) };
        }
        Mat { ptr: to, rs: 1, cs: step as isize }
    }

    /// What a tile at column `j` fetches. The last row panels share out the next block of B, column by column. Inlined, it
    /// would cost small products, which fetch nothing, 1 %.
    #[inline(never)]
    fn fetch(&self, block: &Block, j: usize, left: usize) -> Fetch<T> {
        let Mat { ptr, rs, cs } = self.b;
        let line = LINE / size_of::<T>();
        let at = |p: usize, col: usize| ptr.wrapping_offset(p as isize * rs + col as isize * cs);
        let end = block.col + block.width;
        let (p, col) = if end < self.n { (block.p, end) } else { (block.p + block.depth, 0) };
        if cs == 1 && left < line && p < self.k {
            // A row for each run.
            Fetch { at: at(p + left * (block.depth / line), col + j), pair: line as isize, step: rs }
        } else if rs == 1 && 2 * left < self.kernels.cols() && p < self.k {
            // Two columns, a line of each for each run.
            Fetch { at: at(p, col + j + 2 * left), pair: cs, step: line as isize }
        } else {
            Fetch { at: self.c.ptr, pair: 0, step: 0 }
        }
    }

    /// One row panel of A against the block of B; `left` more follow. The first packs B on its way where columns are
    /// contiguous.
    ///
    /// # Safety
    /// Both are inside the product; the packed parts were packed.
    unsafe fn row_panel(&self, block: &Block, (row, height): (usize, usize), a: Mat<T>, is_first: bool, left: usize) {
        let cols = self.kernels.cols();
        let line = LINE / size_of::<T>();
        let fetches = self.fetches && block.depth.is_multiple_of(line);
        let (depth, runs) = if fetches { (line, block.depth / line) } else { (block.depth, 1) };
        let by_rows = height == 1 && !self.pack_b && self.c.cs == 1;
        let mut next = 0;
        while next < block.width {
            let j = next;
            let is_row = by_rows && block.width - j >= self.kernels.row_cols();
            let width = if is_row { self.kernels.row_cols() } else { cols.min(block.width - j) };
            next += width;
            let padded = self.kernels.padded(width);
            let b_packed = self.b_packed.wrapping_add(j * block.depth);
            // SAFETY: the tile is inside the product.
            unsafe {
                let (reads, b, b_ks) = if self.pack_b && !(is_first && self.b.cs == 1) {
                    let reads = if fetches { Rows::Fetching } else { Rows::Full };
                    (reads, b_packed.cast_const(), padded as isize)
                } else {
                    let reads = match (self.pack_b, width == padded) {
                        (true, _) => Rows::Copied,
                        (false, true) => Rows::Full,
                        (false, false) => Rows::Masked,
                    };
                    (reads, self.b.at(block.p, block.col + j), self.b.rs)
                };
                let kernel = if is_row {
                    self.kernels.row()
                } else {
                    self.kernels.tile(height, padded == cols, a.rs == 1, reads)
                };
                let tile = Tile {
                    depth,
                    runs,
                    a_skip: 0,
                    a: a.ptr,
                    a_rs: a.rs,
                    a_ks: a.cs,
                    b,
                    b_ks,
                    b_packed,
                    c: self.c.at(row, block.col + j),
                    c_rs: self.c.rs,
                    cols: width,
                    add: self.add || block.p > 0,
                    fetch: if fetches { self.fetch(block, j, left) } else { Fetch::NOTHING },
                };
                if self.c.cs == 1 { kernel(&tile) } else { scatter(kernel, tile, height, self.c.cs) }
            }
        }
    }
}

/// Runs a kernel for a tile of C whose columns are `c_cs` apart.
///
/// # Safety
/// As for the kernel.
unsafe fn scatter<T: Element>(kernel: Kernel<T>, tile: Tile<T>, rows: usize, c_cs: isize) {
    let mut local = [T::default(); TILE];
    let stride = TILE / rows;
    // SAFETY: `local` holds `rows` rows of at most `stride` columns; C is the caller's promise.
    unsafe {
        kernel(&Tile { c: local.as_mut_ptr(), c_rs: stride as isize, add: false, ..tile });
        for i in 0..rows {
            for j in 0..tile.cols {
                let c = tile.c.offset(i as isize * tile.c_rs + j as isize * c_cs);
                let sum = local[i * stride + j];
                *c = if tile.add { *c + sum } else { sum };
            }
        }
    }
}
