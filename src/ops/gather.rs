//! Reading by index, and its transpose, adding by index.

use super::build::linear_apply;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Derivative, GatherMode, Graph, Op, Rule, Val};
use crate::machine::cpu::par::{Work, par, width};
use crate::machine::cpu::view::{View, for_each_row};
use crate::shape::{Shape, Strides};
use parking_lot::Mutex;

pub static GATHER: Derivative = Derivative::Linear { apply: linear_apply, transpose: transpose_gather };
pub static SCATTER: Derivative = Derivative::Linear { apply: linear_apply, transpose: transpose_scatter };

fn transpose_gather(g: &mut Graph, rule: &Rule, cotangents: &[Option<Val>], _: usize) -> Result<Val> {
    let (Op::Gather(mode, axis), Some(ct)) = (rule.op, cotangents[0]) else {
        return Err(Error::internal("gather: no cotangent"));
    };
    let ty = g.ty(rule.inputs[0]).clone();
    Ok(g.add_typed(Op::Scatter(*mode, *axis), &[ct, rule.inputs[1]], ty))
}

fn transpose_scatter(g: &mut Graph, rule: &Rule, cotangents: &[Option<Val>], _: usize) -> Result<Val> {
    let (Op::Scatter(mode, axis), Some(ct)) = (rule.op, cotangents[0]) else {
        return Err(Error::internal("scatter: no cotangent"));
    };
    g.add(Op::Gather(*mode, *axis), &[ct, rule.inputs[1]])
}

/// Elements read or added by index, in the order of the indices; all offsets count elements.
struct Walk {
    /// Index tuples: the axes before, the axes of the indices, the axes after.
    shape: Shape,
    /// Steps of the indexed tensor, 0 along the axes of the indices.
    field: Strides,
    /// Steps of the tensor that has an element for each index.
    picked: Strides,
    indices: Strides,
    /// Elements of the indexed axis, and its step.
    extent: usize,
    step: isize,
}

impl Walk {
    fn new(mode: GatherMode, axis: usize, field: &View, indices: &View, picked: &View) -> Walk {
        let (extent, step) = (field.shape[axis], field.strides[axis]);
        let mut steps = field.strides.clone();
        let mut index_steps = indices.strides.clone();
        match mode {
            GatherMode::Along => steps[axis] = 0,
            GatherMode::Take => {
                let (before, after) = (axis, field.shape.rank() - axis - 1);
                let zeros = |n: usize| std::iter::repeat_n(0, n);
                steps = field.strides[..axis].iter().copied().chain(zeros(indices.shape.rank())).collect();
                steps.extend_from_slice(&field.strides[axis + 1..]);
                index_steps = zeros(before).chain(indices.strides.iter().copied()).chain(zeros(after)).collect();
            }
        }
        let shape = picked.shape.clone();
        Walk { shape, field: steps, picked: picked.strides.clone(), indices: index_steps, extent, step }
    }

    /// Calls `run(field offset, picked offset, n, steps)` for the elements of an index that has several, or
    /// `one(field offset, picked offset)`; gives the first index out of range. Such an index is clamped.
    unsafe fn each(
        &self,
        indices: *const i64,
        mut run: impl FnMut(isize, isize, usize, [isize; 2]),
        mut one: impl FnMut(isize, isize),
    ) -> Option<i64> {
        let mut bad = None;
        let mut locate = |at: isize| {
            // SAFETY: the offset comes from the shape and strides of the view on the indices.
            let index = unsafe { *indices.offset(at) };
            let from_front = if index < 0 { index.wrapping_add(self.extent as i64) } else { index };
            if !(0..self.extent as i64).contains(&from_front) {
                bad = bad.or(Some(index));
            }
            from_front.clamp(0, self.extent as i64 - 1) as isize * self.step
        };
        for_each_row(&self.shape, [&self.field, &self.picked, &self.indices], |[x, y, i], n, [sx, sy, si]| {
            if si == 0 {
                run(x + locate(i), y, n, [sx, sy]);
            } else {
                for k in 0..n as isize {
                    one(x + k * sx + locate(i + k * si), y + k * sy);
                }
            }
        });
        bad
    }
}

impl Walk {
    /// Runs `f` for parts of the walk, in order along its outermost axis, with the offsets of field, picked elements and indices;
    /// gives the first index out of range that it gives. Parts share the field.
    fn in_parts(self, f: impl Fn(&Walk, [isize; 3]) -> Option<i64> + Sync) -> Option<i64> {
        let cut = self.shape.iter().position(|&n| n > 1);
        let Some(cut) = cut.filter(|_| self.shape.size() > ITEM) else { return f(&self, [0; 3]) };
        let (size, length) = (self.shape.size(), self.shape[cut]);
        let part = (ITEM / (size / length)).clamp(1, length);
        let parts = length.div_ceil(part);
        let bad: Mutex<Option<(usize, i64)>> = Mutex::new(None);
        // A stop also ends the run of the plan, which reports it.
        _ = par(parts, Work::Plain(size), &|item| {
            let first = item * part;
            let mut shape = self.shape.clone();
            shape.dims_mut()[cut] = part.min(length - first);
            let steps = [&self.field, &self.picked, &self.indices].map(Strides::clone);
            let offsets = steps.each_ref().map(|steps| first as isize * steps[cut]);
            let [field, picked, indices] = steps;
            let walk = Walk { shape, field, picked, indices, extent: self.extent, step: self.step };
            if let Some(index) = f(&walk, offsets) {
                let mut bad = bad.lock();
                if bad.is_none_or(|(other, _)| item < other) {
                    *bad = Some((item, index));
                }
            }
        });
        bad.into_inner().map(|(_, index)| index)
    }
}

/// Indices that a thread takes at a time, and elements that it reads for them, about.
const RUN: usize = 256;
const ITEM: usize = 16 << 10;

/// A take of contiguous rows: `before` fields of `extent` rows, from each of which `count` rows of `width` are picked.
struct Rows {
    before: usize,
    extent: usize,
    count: usize,
    width: usize,
}

impl Rows {
    /// None: some operand is not contiguous, or indices pick single elements.
    fn of(mode: GatherMode, axis: usize, field: &View, indices: &View, picked: &View) -> Option<Rows> {
        let contiguous = [field, indices, picked].iter().all(|view| view.is_contiguous());
        if mode != GatherMode::Take || !contiguous || field.shape.contains(&0) {
            return None;
        }
        let (before, after) = (&field.shape[..axis], &field.shape[axis + 1..]);
        Some(Rows {
            before: before.iter().product(),
            extent: field.shape[axis],
            count: indices.shape.size(),
            width: after.iter().product(),
        })
    }

    fn work(&self) -> Work {
        Work::Plain(self.before.saturating_mul(self.count).saturating_mul(self.width))
    }

    /// The row that an index names; an index out of range is clamped.
    fn row(&self, index: i64) -> usize {
        let from_front = if index < 0 { index.wrapping_add(self.extent as i64) } else { index };
        from_front.clamp(0, self.extent as i64 - 1) as usize
    }

    fn first_bad(&self, indices: &[i64]) -> Option<i64> {
        let extent = self.extent as i64;
        indices.iter().copied().find(|index| !(-extent..extent).contains(index))
    }

    /// Copies the rows picked, a run of indices in some fields to a thread.
    unsafe fn gather<T: Copy>(&self, from: &View, indices: &[i64], out: &View) {
        let (from, out) = (from.ptr as usize, out.ptr as usize);
        let runs = self.count.div_ceil(RUN);
        let fields = (ITEM / (RUN * self.width.max(1))).clamp(1, self.before.max(1));
        // A stop also ends the run of the plan, which reports it.
        _ = par(runs * self.before.div_ceil(fields), self.work(), &|item| {
            let (first, field) = (item % runs * RUN, item / runs * fields);
            let indices = &indices[first..self.count.min(first + RUN)];
            let mut steps = [0; RUN];
            for (step, &index) in steps.iter_mut().zip(indices) {
                *step = self.row(index) * self.width;
            }
            let steps = &steps[..indices.len()];
            for field in field..self.before.min(field + fields) {
                // SAFETY: rows lie inside their tensors, and each row of the result is one item's.
                unsafe {
                    let from = (from as *const T).add(field * self.extent * self.width);
                    let to = (out as *mut T).add((field * self.count + first) * self.width);
                    if self.width == 1 {
                        steps.iter().enumerate().for_each(|(at, &step)| *to.add(at) = *from.add(step));
                    } else {
                        for (at, &step) in steps.iter().enumerate() {
                            to.add(at * self.width).copy_from_nonoverlapping(from.add(step), self.width);
                        }
                    }
                }
            }
        });
    }

    /// Adds the rows picked to zeros. A thread owns a range of rows and looks for their indices, so that each row adds
    /// its updates in the order of the indices.
    unsafe fn scatter<T: Copy + Sync>(
        &self,
        updates: &View,
        indices: &[i64],
        out: &View,
        add: impl Fn(T, T) -> T + Sync,
    ) {
        let (updates, out) = (updates.ptr as usize, out.ptr as usize);
        let ranges = (2 * width(self.work())).min(self.extent);
        _ = par(self.before * ranges, self.work(), &|item| {
            let (field, range) = (item / ranges, item % ranges);
            let rows = range * self.extent / ranges..(range + 1) * self.extent / ranges;
            for (at, &index) in indices.iter().enumerate() {
                let row = self.row(index);
                if !rows.contains(&row) {
                    continue;
                }
                // SAFETY: rows lie inside their tensors, and each row of the result is one item's.
                unsafe {
                    let from = (updates as *const T).add((field * self.count + at) * self.width);
                    let to = (out as *mut T).add((field * self.extent + row) * self.width);
                    (0..self.width).for_each(|i| *to.add(i) = add(*to.add(i), *from.add(i)));
                }
            }
        });
    }
}

/// Reads `from` at the indices into `out`; gives the first index out of range, which is clamped.
///
/// # Safety
/// The views lie in valid memory, fit each other as inference says, and `out` overlaps nothing.
pub unsafe fn gather(mode: GatherMode, axis: usize, from: &View, indices: &View, out: &View) -> Option<i64> {
    // SAFETY: the caller's promise.
    unsafe {
        match from.dtype.size() {
            1 => gather_typed::<u8>(mode, axis, from, indices, out),
            4 => gather_typed::<u32>(mode, axis, from, indices, out),
            _ => gather_typed::<u64>(mode, axis, from, indices, out),
        }
    }
}

unsafe fn gather_typed<T: Copy>(mode: GatherMode, axis: usize, from: &View, indices: &View, out: &View) -> Option<i64> {
    if let Some(rows) = Rows::of(mode, axis, from, indices, out) {
        // SAFETY: the indices are contiguous; the rest is the caller's promise.
        unsafe {
            let indices = std::slice::from_raw_parts(indices.ptr.cast::<i64>().cast_const(), rows.count);
            rows.gather::<T>(from, indices, out);
            return rows.first_bad(indices);
        }
    }
    let walk = Walk::new(mode, axis, from, indices, out);
    let (x, y) = (from.ptr.cast::<T>(), out.ptr.cast::<T>());
    if walk.extent == 0 && walk.shape.size() > 0 {
        // Nothing to read: any index is out of range.
        // SAFETY: there is at least one index.
        return Some(unsafe { *indices.ptr.cast::<i64>() });
    }
    let (x, y, indices) = (x as usize, y as usize, indices.ptr as usize);
    walk.in_parts(|walk, [a, b, i]| {
        // SAFETY: offsets come from the views; indices are clamped into the axis.
        unsafe {
            let (x, y) = ((x as *const T).offset(a), (y as *mut T).offset(b));
            let run = |a: isize, b: isize, n: usize, [sa, sb]: [isize; 2]| {
                let (x, y) = (x.offset(a), y.offset(b));
                if sa == 1 && sb == 1 {
                    y.copy_from_nonoverlapping(x, n);
                } else {
                    (0..n as isize).for_each(|k| *y.offset(k * sb) = *x.offset(k * sa));
                }
            };
            walk.each((indices as *const i64).offset(i), run, |a, b| *y.offset(b) = *x.offset(a))
        }
    })
}

/// Adds `updates` to `out` at the indices, for each element in the order of the indices, so that its rounding depends on
/// nothing else. `out` holds zeros before. Gives the first index out of range, which is clamped.
///
/// # Safety
/// As for `gather`.
pub unsafe fn scatter(mode: GatherMode, axis: usize, updates: &View, indices: &View, out: &View) -> Option<i64> {
    // SAFETY: the caller's promise.
    unsafe {
        match out.dtype {
            DType::Bool => scatter_typed::<u8>(mode, axis, updates, indices, out, |x, y| x | y),
            DType::U8 => scatter_typed::<u8>(mode, axis, updates, indices, out, u8::wrapping_add),
            DType::I32 => scatter_typed::<i32>(mode, axis, updates, indices, out, i32::wrapping_add),
            DType::I64 => scatter_typed::<i64>(mode, axis, updates, indices, out, i64::wrapping_add),
            DType::F32 => scatter_typed::<f32>(mode, axis, updates, indices, out, |x, y| x + y),
            DType::F64 => scatter_typed::<f64>(mode, axis, updates, indices, out, |x, y| x + y),
        }
    }
}

unsafe fn scatter_typed<T: Copy + Sync>(
    mode: GatherMode,
    axis: usize,
    updates: &View,
    indices: &View,
    out: &View,
    add: impl Fn(T, T) -> T + Sync,
) -> Option<i64> {
    if let Some(rows) = Rows::of(mode, axis, out, indices, updates) {
        // SAFETY: the indices are contiguous; the rest is the caller's promise.
        unsafe {
            let indices = std::slice::from_raw_parts(indices.ptr.cast::<i64>().cast_const(), rows.count);
            rows.scatter::<T>(updates, indices, out, add);
            return rows.first_bad(indices);
        }
    }
    let walk = Walk::new(mode, axis, out, indices, updates);
    let (x, y) = (out.ptr.cast::<T>(), updates.ptr.cast::<T>());
    if walk.extent == 0 && walk.shape.size() > 0 {
        // SAFETY: there is at least one index.
        return Some(unsafe { *indices.ptr.cast::<i64>() });
    }
    // SAFETY: offsets come from the views; indices are clamped into the axis.
    unsafe {
        let one = |a: isize, b: isize| *x.offset(a) = add(*x.offset(a), *y.offset(b));
        let run = |a: isize, b: isize, n: usize, [sa, sb]: [isize; 2]| {
            (0..n as isize).for_each(|k| one(a + k * sa, b + k * sb));
        };
        walk.each(indices.ptr.cast(), run, one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view<T>(data: &mut [T], dtype: DType, shape: &[usize]) -> View {
        View::contiguous(data.as_mut_ptr().cast(), dtype, Shape::new(shape))
    }

    #[test]
    fn take_reads_slices_and_its_transpose_adds_them() {
        let mut x: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let mut at = [2i64, -3, 2];
        let mut out = [0f32; 12];
        let (from, indices) = (view(&mut x, DType::F32, &[3, 4]), view(&mut at, DType::I64, &[3]));
        let picked = view(&mut out, DType::F32, &[3, 4]);
        // SAFETY: the views lie in the arrays above.
        assert_eq!(unsafe { gather(GatherMode::Take, 0, &from, &indices, &picked) }, None);
        assert_eq!(out, [8., 9., 10., 11., 0., 1., 2., 3., 8., 9., 10., 11.]);
        let mut sum = [0f32; 12];
        let field = view(&mut sum, DType::F32, &[3, 4]);
        // SAFETY: as above.
        assert_eq!(unsafe { scatter(GatherMode::Take, 0, &picked, &indices, &field) }, None);
        assert_eq!(sum, [0., 1., 2., 3., 0., 0., 0., 0., 16., 18., 20., 22.]);
    }

    #[test]
    fn along_reads_one_element_an_index_and_reports_the_first_bad_one() {
        let mut x: Vec<f64> = (0..6).map(|i| i as f64).collect();
        let mut at = [1i64, 7, -9, 0];
        let mut out = [0f64; 4];
        let (from, indices) = (view(&mut x, DType::F64, &[2, 3]), view(&mut at, DType::I64, &[2, 2]));
        // SAFETY: the views lie in the arrays above.
        let bad = unsafe { gather(GatherMode::Along, 1, &from, &indices, &view(&mut out, DType::F64, &[2, 2])) };
        assert_eq!((bad, out), (Some(7), [1., 2., 3., 3.]));
    }
}
