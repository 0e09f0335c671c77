//! Products of tiles, a band of rows at a time: so that what a causal mask empties can be left out. An element is one
//! serial chain of multiply-adds along the steps that are asked for, and bands are cut by the number of rows alone, so no
//! bit depends on strides or on the instruction set.

use super::super::gemm::kernel::{Fetch, Kernels, Rows, Tile};
use super::super::gemm::pack::Panel;
use super::super::gemm::{Mat, MatMut};
use super::super::isa::isa;
use super::super::par::share;
use super::Number;
use std::ops::Range;

/// Rows of a band at most: whole tiles of each instruction set.
pub const BAND: usize = 12;

/// Cuts rows into bands, evenly.
pub fn bands(rows: usize) -> impl Iterator<Item = Range<usize>> {
    let count = rows.div_ceil(BAND);
    (0..count).map(move |band| rows * band / count..rows * (band + 1) / count)
}

/// Copies `rows` rows of `cols` elements, one after another, as columns that are `step` apart from element to element.
///
/// # Safety
/// They are readable, and there is room for them at `to`; `step` is whole vectors, and no less than `rows`.
pub unsafe fn turn<T: Number>((rows, cols): (usize, usize), from: *const T, to: *mut T, step: usize) {
    let panel = Panel { from, lanes: rows, lane_stride: cols as isize, depth: cols, depth_stride: 1, step };
    // SAFETY: the caller's promise.
    unsafe { (T::kernels(isa()).pack)(&panel, to) }
}

/// A right operand, in the order in which the kernels read it.
#[derive(Clone, Copy)]
pub struct Packed<T: 'static> {
    kernels: &'static Kernels<T>,
    from: *const T,
    depth: usize,
    cols: usize,
}

/// Elements that a right operand takes.
pub fn room<T: Number>(depth: usize, cols: usize) -> usize {
    T::kernels(isa()).padded(cols) * depth
}

impl<T: Number> Packed<T> {
    /// Copies `depth` rows of `cols` columns, of any strides.
    ///
    /// # Safety
    /// The elements are readable, and there is room for them at `to`.
    pub unsafe fn new((depth, cols): (usize, usize), from: Mat<T>, to: *mut T) -> Packed<T> {
        let kernels = T::kernels(isa());
        for col in (0..cols).step_by(kernels.cols()) {
            let lanes = kernels.cols().min(cols - col);
            // SAFETY: the panel is a part of the operand, and its copy of the room.
            unsafe {
                let panel = Panel {
                    from: from.ptr.offset(col as isize * from.cs),
                    lanes,
                    lane_stride: from.cs,
                    depth,
                    depth_stride: from.rs,
                    step: kernels.padded(lanes),
                };
                (kernels.pack)(&panel, to.add(col * depth));
            }
        }
        Packed { kernels, from: to, depth, cols }
    }

    /// The first `cols` columns of c = a · b, or c + a · b if `add`, for a band of rows, over some of the steps. Zeros, if
    /// there are none.
    ///
    /// # Safety
    /// `a` holds the band and all steps, `c` the band; its columns are contiguous.
    pub unsafe fn times(
        &self,
        a: Mat<T>,
        band: Range<usize>,
        steps: Range<usize>,
        cols: usize,
        c: MatMut<T>,
        add: bool,
    ) {
        let kernels = self.kernels;
        let parts = band.len().div_ceil(kernels.rows());
        for part in 0..parts {
            let mine = share(part, parts, band.len());
            let (first, rows) = (band.start + mine.start, mine.len());
            for col in (0..cols).step_by(kernels.cols()) {
                let (width, in_panel) = (kernels.cols().min(cols - col), kernels.cols().min(self.cols - col));
                let step = kernels.padded(in_panel);
                let kernel = kernels.tile(rows, width > kernels.lanes, a.rs == 1, Rows::Full);
                // SAFETY: the tile is a part of the product; packed rows reach to the end of their last vector.
                unsafe {
                    kernel(&Tile {
                        depth: steps.len(),
                        runs: 1,
                        a_skip: 0,
                        a: a.ptr.offset(first as isize * a.rs + steps.start as isize * a.cs),
                        a_rs: a.rs,
                        a_ks: a.cs,
                        b: self.from.add(col * self.depth + steps.start * step),
                        b_ks: step as isize,
                        b_packed: std::ptr::null_mut(),
                        c: c.ptr.offset(first as isize * c.rs).add(col),
                        c_rs: c.rs,
                        cols: width,
                        add,
                        fetch: Fetch::NOTHING,
                    });
                }
            }
        }
    }
}
