//! Packing: copies a panel of A or B into the order in which the micro-kernel reads it, one vector or more for each step
//! of K. Contiguous lanes are copied, contiguous runs along K go through register transposes, other strides one by one.

use super::simd::Simd;

/// A panel in its matrix: `lanes` rows of A or columns of B by `depth` steps of K. Strides are in elements.
pub struct Panel<T> {
    pub from: *const T,
    pub lanes: usize,
    pub lane_stride: isize,
    pub depth: usize,
    pub depth_stride: isize,
    /// Elements written for each step of K, a multiple of the vector length, at least `lanes`. Those past `lanes` hold
    /// copies of other elements or zeros: the kernels compute with them and drop the result.
    pub step: usize,
}

/// Vectors that a transposing copy fetches ahead in each run: the CPU follows few runs by itself.
const AHEAD: usize = 8;

pub type Pack<T> = unsafe fn(&Panel<T>, *mut T);

/// # Safety
/// The CPU has the instruction set of `S`; the panel is readable; `to` has room for `depth` × `step` elements.
#[inline(always)]
pub unsafe fn pack<S: Simd>(panel: &Panel<S::T>, to: *mut S::T) {
    let &Panel { from, lanes, lane_stride, depth, depth_stride, step } = panel;
    // SAFETY: all reads are inside the panel, all writes inside `depth` × `step`.
    unsafe {
        if lane_stride == 1 {
            for group in (0..lanes).step_by(S::LANES) {
                let (mut from, mut to) = (from.add(group), to.add(group));
                if lanes - group >= S::LANES {
                    for _ in 0..depth {
                        S::store(to, S::load(from));
                        (from, to) = (from.wrapping_offset(depth_stride), to.wrapping_add(step));
                    }
                } else {
                    let mask = S::mask(lanes - group);
                    for _ in 0..depth {
                        S::store(to, S::load_mask(from, mask));
                        (from, to) = (from.wrapping_offset(depth_stride), to.wrapping_add(step));
                    }
                }
            }
        } else if depth_stride == 1 {
            for p in (0..depth).step_by(S::LANES) {
                for group in (0..lanes).step_by(S::LANES) {
                    let run = from.offset(group as isize * lane_stride).add(p);
                    let (lanes, depth) = ((lanes - group).min(S::LANES), (depth - p).min(S::LANES));
                    for lane in 0..lanes {
                        S::prefetch(run.wrapping_offset(lane as isize * lane_stride).wrapping_add(AHEAD * S::LANES));
                    }
                    S::transpose(run, lane_stride, lanes, depth, to.add(p * step + group), step);
                }
            }
        } else {
            for p in 0..depth {
                for lane in 0..step {
                    let lane = lane.min(lanes - 1);
                    let element = from.offset(p as isize * depth_stride + lane as isize * lane_stride);
                    *to.add(p * step + lane) = *element;
                }
            }
        }
    }
}

/// Columns of B whose elements lie in runs: element (k, j) of a piece is `from[offsets[k] + piece.from + j]`.
pub struct Columns<'a, T> {
    pub from: *const T,
    /// For each step of K.
    pub offsets: &'a [isize],
    /// In the order of the columns, each at most one vector, without gaps.
    pub pieces: &'a [Piece],
    /// Elements written for each step of K.
    pub step: usize,
}

/// Adjacent columns in adjacent elements.
#[derive(Clone, Copy, Default)]
pub struct Piece {
    pub from: isize,
    pub at: usize,
    pub len: usize,
}

pub type Gather<T> = unsafe fn(&Columns<T>, *mut T);

/// Pieces whose masks stay in registers.
const FEW: usize = 4;

/// # Safety
/// The CPU has the instruction set of `S`; the elements are readable; `to` has room for a vector more than
/// `offsets.len()` × `step` elements.
#[inline(always)]
pub unsafe fn gather<S: Simd>(columns: &Columns<S::T>, to: *mut S::T) {
    // SAFETY: the caller's promise.
    unsafe {
        match columns.pieces.len() {
            1 => gather_few::<S, 1>(columns, to),
            2 => gather_few::<S, 2>(columns, to),
            3 => gather_few::<S, 3>(columns, to),
            FEW => gather_few::<S, FEW>(columns, to),
            _ => gather_many::<S>(columns, to),
        }
    }
}

/// A piece is stored as a whole vector: what it writes past its end, the next piece or the next step overwrites.
#[inline(always)]
unsafe fn gather_few<S: Simd, const N: usize>(columns: &Columns<S::T>, mut to: *mut S::T) {
    // SAFETY: the caller's promise; a mask covers the elements of its piece.
    unsafe {
        let mut masks = [S::mask(0); N];
        let (mut froms, mut ats) = ([0; N], [0; N]);
        for (i, piece) in columns.pieces.iter().enumerate().take(N) {
            (masks[i], froms[i], ats[i]) = (S::mask(piece.len), piece.from, piece.at);
        }
        for &offset in columns.offsets {
            let from = columns.from.wrapping_offset(offset);
            for i in 0..N {
                S::store(to.add(ats[i]), S::load_mask(from.wrapping_offset(froms[i]), masks[i]));
            }
            to = to.wrapping_add(columns.step);
        }
    }
}

#[inline(always)]
unsafe fn gather_many<S: Simd>(columns: &Columns<S::T>, mut to: *mut S::T) {
    // SAFETY: as for `gather_few`.
    unsafe {
        for &offset in columns.offsets {
            let from = columns.from.wrapping_offset(offset);
            for piece in columns.pieces {
                let mask = S::mask(piece.len);
                S::store(to.add(piece.at), S::load_mask(from.wrapping_offset(piece.from), mask));
            }
            to = to.wrapping_add(columns.step);
        }
    }
}

/// Lines of elements that are copied from one place to another.
pub struct Lines<T> {
    pub from: *const T,
    pub from_step: usize,
    pub to_step: usize,
    pub width: usize,
    pub count: usize,
}

pub type CopyLines<T> = unsafe fn(&Lines<T>, *mut T);

/// # Safety
/// The CPU has the instruction set of `S`; the lines are readable, and writable at `to`.
#[inline(always)]
pub unsafe fn copy_lines<S: Simd>(lines: &Lines<S::T>, mut to: *mut S::T) {
    let mut from = lines.from;
    let whole = lines.width / S::LANES * S::LANES;
    // SAFETY: the caller's promise; a mask covers what is left of a line.
    unsafe {
        let mask = S::mask(lines.width - whole);
        for _ in 0..lines.count {
            for i in (0..whole).step_by(S::LANES) {
                S::store(to.add(i), S::load(from.add(i)));
            }
            if whole < lines.width {
                S::store_mask(to.add(whole), S::load_mask(from.add(whole), mask), mask);
            }
            (from, to) = (from.wrapping_add(lines.from_step), to.wrapping_add(lines.to_step));
        }
    }
}
