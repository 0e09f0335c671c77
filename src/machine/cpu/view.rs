//! A strided window on memory: what kernels outside the slice interpreter read and write.

use super::par::{Stopped, Work, par};
use crate::dtype::DType;
use crate::shape::{Shape, Strides};
use smallvec::SmallVec;
use std::ops::Range;

/// Strides count elements. A view does not own its memory; whoever makes one keeps the memory alive while it is used.
#[derive(Clone, Debug)]
pub struct View {
    pub ptr: *mut u8,
    pub dtype: DType,
    pub shape: Shape,
    pub strides: Strides,
}

// SAFETY: a view is an address and numbers; the executor that makes it says who may touch the memory.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    pub fn contiguous(ptr: *mut u8, dtype: DType, shape: Shape) -> View {
        let strides = shape.strides();
        View { ptr, dtype, shape, strides }
    }

    /// The indices in the range along an axis.
    fn part(&self, axis: usize, range: Range<usize>) -> View {
        let mut part = self.clone();
        part.shape.dims_mut()[axis] = range.len();
        let bytes = range.start as isize * self.strides[axis] * self.dtype.size() as isize;
        part.ptr = self.ptr.wrapping_offset(bytes);
        part
    }

    /// Whether elements lie one after another in row-major order.
    pub fn is_contiguous(&self) -> bool {
        is_contiguous(&self.shape, &self.strides)
    }
}

/// Whether these strides are the row-major ones; the strides of axes of one element do not matter.
pub fn is_contiguous(shape: &[usize], strides: &[isize]) -> bool {
    let mut expected = 1isize;
    for (&dim, &stride) in shape.iter().zip(strides).rev() {
        if dim != 1 && stride != expected {
            return shape.contains(&0);
        }
        expected *= dim as isize;
    }
    true
}

/// Elements that a thread copies at a time, about.
const ITEM: usize = 64 << 10;

/// As `copy`, on all threads if there is much to copy.
///
/// # Safety
/// As for `copy`.
pub unsafe fn copy_shared(from: &View, to: &View) -> Result<(), Stopped> {
    let size = from.shape.size();
    let Some(cut) = from.shape.iter().position(|&n| n > 1).filter(|_| size > ITEM) else {
        // SAFETY: the caller's promise.
        unsafe { copy(from, to) };
        return Ok(());
    };
    let length = from.shape[cut];
    let part = (ITEM / (size / length)).clamp(1, length);
    par(length.div_ceil(part), Work::Plain(size), &|item| {
        let range = item * part..length.min((item + 1) * part);
        // SAFETY: parts of the views, and each is copied once.
        unsafe { copy(&from.part(cut, range.clone()), &to.part(cut, range)) }
    })
}

/// Copies `from` to `to`, which have equal shapes and dtypes.
///
/// # Safety
/// Both views must lie in valid memory; `to` must not overlap `from` or anything else in use.
pub unsafe fn copy(from: &View, to: &View) {
    let size = from.dtype.size();
    if from.shape.contains(&0) {
        return;
    }
    if from.is_contiguous() && to.is_contiguous() {
        // SAFETY: both runs hold `shape.size()` elements.
        unsafe { to.ptr.copy_from_nonoverlapping(from.ptr, from.shape.size() * size) };
        return;
    }
    // SAFETY: the elements are plain bytes of this size.
    unsafe {
        match size {
            1 => copy_elements::<u8>(from, to),
            4 => copy_elements::<u32>(from, to),
            _ => copy_elements::<u64>(from, to),
        }
    }
}

unsafe fn copy_elements<T: Copy>(from: &View, to: &View) {
    for_each_row(&from.shape, [&from.strides, &to.strides], |[a, b], n, [step_a, step_b]| {
        // SAFETY: offsets come from the shapes and strides of valid views.
        unsafe {
            let (a, b) = ((from.ptr as *const T).offset(a), (to.ptr as *mut T).offset(b));
            if step_a == 1 && step_b == 1 {
                b.copy_from_nonoverlapping(a, n);
            } else {
                for i in 0..n as isize {
                    *b.offset(i * step_b) = *a.offset(i * step_a);
                }
            }
        }
    });
}

/// Walks the elements of `N` operands in row-major order, in rows as long as the strides allow: calls
/// `f(offsets, row length, inner strides)`.
pub fn for_each_row<const N: usize>(
    shape: &[usize],
    strides: [&[isize]; N],
    mut f: impl FnMut([isize; N], usize, [isize; N]),
) {
    if shape.contains(&0) {
        return;
    }
    let axes = merged(shape, strides);
    let Some((&(inner, steps), outer)) = axes.split_last() else {
        return f([0; N], 1, [0; N]);
    };
    let mut index: SmallVec<[usize; 6]> = SmallVec::from_elem(0, outer.len());
    let mut offsets = [0isize; N];
    loop {
        f(offsets, inner, steps);
        let mut axis = outer.len();
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            let (extent, steps) = outer[axis];
            index[axis] += 1;
            for (offset, step) in offsets.iter_mut().zip(steps) {
                *offset += step;
            }
            if index[axis] < extent {
                break;
            }
            for (offset, step) in offsets.iter_mut().zip(steps) {
                *offset -= step * extent as isize;
            }
            index[axis] = 0;
        }
    }
}

/// The axes of more than one element, those joined that all operands walk as one: extents and strides.
fn merged<const N: usize>(shape: &[usize], strides: [&[isize]; N]) -> SmallVec<[(usize, [isize; N]); 6]> {
    let mut axes: SmallVec<[(usize, [isize; N]); 6]> = SmallVec::new();
    for (axis, &extent) in shape.iter().enumerate().filter(|(_, extent)| **extent != 1) {
        let steps = strides.map(|operand| operand[axis]);
        match axes.last_mut() {
            Some(last) if last.1 == steps.map(|step| step * extent as isize) => *last = (last.0 * extent, steps),
            _ => axes.push((extent, steps)),
        }
    }
    axes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_transposed_views() {
        let mut source: Vec<f32> = (0..6).map(|i| i as f32).collect();
        let mut target = vec![0f32; 6];
        let mut from = View::contiguous(source.as_mut_ptr().cast(), DType::F32, Shape::from([3, 2]));
        from.strides = Strides::from_slice(&[1, 3]);
        let to = View::contiguous(target.as_mut_ptr().cast(), DType::F32, Shape::from([3, 2]));
        // SAFETY: both views lie in the vectors above.
        unsafe { copy(&from, &to) };
        assert_eq!(target, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert!(!from.is_contiguous() && to.is_contiguous());
    }

    #[test]
    fn rows_are_as_long_as_strides_allow() {
        let rows = |shape: &[usize], strides: [&[isize]; 2]| {
            let mut rows = Vec::new();
            for_each_row(shape, strides, |offsets, n, steps| rows.push((offsets, n, steps)));
            rows
        };
        assert_eq!(rows(&[3, 4, 1], [&[4, 1, 7], &[8, 2, 1]]), [([0, 0], 12, [1, 2])]);
        assert_eq!(rows(&[2, 3], [&[3, 1], &[4, 1]]), [([0, 0], 3, [1, 1]), ([3, 4], 3, [1, 1])]);
        assert_eq!(rows(&[1, 1], [&[5, 5], &[0, 0]]), [([0, 0], 1, [0, 0])]);
    }
}
