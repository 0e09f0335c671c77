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
