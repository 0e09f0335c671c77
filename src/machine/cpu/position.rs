//! Where along an axis the largest or smallest element stands: the first one, or the first NaN. Runs of contiguous
//! elements are reduced, then searched; adjacent columns are compared row by row.

use super::dispatch::by_isa;
use super::isa::isa;
use super::par::{Stopped, Work, par};
use super::reduce::{self, Max, Min, ReduceKernels};
use super::view::{View, for_each_row};
use crate::dtype::DType;

/// Elements that an item goes through, about.
const ITEM: usize = 64 << 10;
/// Columns that are compared together; those that are left, fewer.
const COLUMNS: usize = 64;
const FEW: usize = 16;
/// Elements that are searched between two looks at what was found.
const BLOCK: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extreme {
    Largest,
    Smallest,
}

/// An order of elements in which NaN comes first.
trait Order<T> {
    /// Whether an element takes the place of the best one before it.
    fn beats(x: T, best: T) -> bool;
}

macro_rules! order {
    ($F:ident, $op:tt for $($T:ident)*) => {$(
        impl Order<$T> for $F {
            #[inline(always)]
            #[allow(clippy::eq_op, clippy::neg_cmp_op_on_partial_ord, reason = "NaN beats all but NaN")]
            fn beats(x: $T, best: $T) -> bool {
                !(x $op best) & (best == best)
            }
        }
    )*};
}
order!(Max, <= for u8 i32 i64 f32 f64);
order!(Min, >= for u8 i32 i64 f32 f64);

trait Element: Copy + PartialEq {}
impl<T: Copy + PartialEq> Element for T {}

/// Writes the first place of `best`, or of a NaN, in the n elements from `from` on, which hold one.
type Find = unsafe fn(n: usize, from: *const u8, best: *const u8, place: *mut i64);
/// Writes the place in each of n adjacent columns, of rows that are `stride` elements apart.
type Columns = unsafe fn(n: usize, from: *const u8, rows: usize, stride: isize, places: *mut i64);

struct Kernels {
    reduce: fn(DType) -> Option<&'static ReduceKernels>,
    find: [Find; 3],
    columns: [Columns; 3],
}

fn kernels(extreme: Extreme, dtype: DType) -> &'static Kernels {
    macro_rules! table {
        ($F:ident, $reduce:path, $T:ty) => {{
            static KERNELS: Kernels =
                Kernels { reduce: $reduce, find: find_kernels::<$T>(), columns: columns_kernels::<$F, $T>() };
            &KERNELS
        }};
    }
    macro_rules! of {
        ($T:ty) => {
            match extreme {
                Extreme::Largest => table!(Max, reduce::max, $T),
                Extreme::Smallest => table!(Min, reduce::min, $T),
            }
        };
    }
    match dtype {
        DType::Bool | DType::U8 => of!(u8),
        DType::I32 => of!(i32),
        DType::I64 => of!(i64),
        DType::F32 => of!(f32),
        DType::F64 => of!(f64),
    }
}

const fn find_kernels<T: Element>() -> [Find; 3] {
    by_isa!(find<T: Element>(n: usize, from: *const u8, best: *const u8, place: *mut i64))
}

const fn columns_kernels<F: Order<T>, T: Element>() -> [Columns; 3] {
    by_isa!(
        columns<F: Order<T>, T: Element>(n: usize, from: *const u8, rows: usize, stride: isize, places: *mut i64)
    )
}

#[inline(always)]
unsafe fn find<T: Element, const FMA: bool>(n: usize, from: *const u8, best: *const u8, place: *mut i64) {
    let from = from.cast::<T>();
    // SAFETY: the caller gives n elements and the best of them, and room for the place.
    unsafe {
        let best = *best.cast::<T>();
        #[allow(clippy::eq_op, reason = "NaN differs from itself")]
        let is_best = |x: T| (x == best) | (x != x);
        let mut at = 0;
        while n - at >= BLOCK {
            let block = from.add(at).cast::<[T; BLOCK]>().read();
            if block.iter().fold(false, |any, &x| any | is_best(x)) {
                break;
            }
            at += BLOCK;
        }
        while at < n && !is_best(*from.add(at)) {
            at += 1;
        }
        *place = at as i64;
    }
}

#[inline(always)]
unsafe fn columns<F: Order<T>, T: Element, const FMA: bool>(
    n: usize,
    from: *const u8,
    rows: usize,
    stride: isize,
    places: *mut i64,
) {
    let from = from.cast::<T>();
    // SAFETY: the caller gives rows of n elements, and room for as many places.
    unsafe {
        let mut at = 0;
        while n - at >= COLUMNS {
            some_columns::<F, T, COLUMNS>(from.add(at), rows, stride, places.add(at));
            at += COLUMNS;
        }
        while n - at >= FEW {
            some_columns::<F, T, FEW>(from.add(at), rows, stride, places.add(at));
            at += FEW;
        }
        while at < n {
            some_columns::<F, T, 1>(from.add(at), rows, stride, places.add(at));
            at += 1;
        }
    }
}

#[inline(always)]
unsafe fn some_columns<F: Order<T>, T: Element, const N: usize>(
    from: *const T,
    rows: usize,
    stride: isize,
    places: *mut i64,
) {
    // SAFETY: the caller gives rows of N elements, and room for as many places.
    unsafe {
        let mut best = from.cast::<[T; N]>().read();
        let mut place = [0u32; N];
        for row in 1..rows {
            let next = from.offset(row as isize * stride).cast::<[T; N]>().read();
            for i in 0..N {
                let beats = F::beats(next[i], best[i]);
                best[i] = if beats { next[i] } else { best[i] };
                place[i] = if beats { row as u32 } else { place[i] };
            }
        }
        for (i, &place) in place.iter().enumerate() {
            *places.add(i) = i64::from(place);
        }
    }
}

/// Whether the kernels count this far.
pub fn reaches(extent: usize) -> bool {
    u32::try_from(extent).is_ok()
}

/// Writes to `out`, which is contiguous, the places along the axis of `x`, which is not empty and has an extent that the
/// kernels reach.
///
/// # Safety
/// The views lie in valid memory, fit each other, and `out`, of int64, overlaps nothing.
pub unsafe fn position(extreme: Extreme, axis: usize, x: &View, out: &View) -> Result<(), Stopped> {
    let (extent, stride) = (x.shape[axis], x.strides[axis]);
    let mut strides = x.strides.clone();
    strides.remove(axis);
    let size = x.shape.size();
    // Items are parts of the longest axis of the result.
    let cut = (0..out.shape.rank()).max_by_key(|&axis| out.shape[axis]);
    let length = cut.map_or(1, |cut| out.shape[cut]);
    let part = (ITEM / (size / length)).next_multiple_of(COLUMNS).clamp(1, length);
    let line = Lines { kernels: kernels(extreme, x.dtype), dtype: x.dtype, extent, stride };
    par(length.div_ceil(part), Work::Plain(size), &|item| {
        let (first, mut shape) = (item * part, out.shape.clone());
        let (mut from, mut to) = (x.ptr, out.ptr.cast::<i64>());
        if let Some(cut) = cut {
            shape.dims_mut()[cut] = part.min(length - first);
            let at = first as isize;
            from = from.wrapping_offset(at * strides[cut] * x.dtype.size() as isize);
            to = to.wrapping_offset(at * out.strides[cut]);
        }
        for_each_row(&shape, [&strides, &out.strides], |[a, b], n, [step, out_step]| {
            let from = from.wrapping_offset(a * x.dtype.size() as isize);
            // SAFETY: offsets come from the shapes and strides of the views; items have separate places.
            unsafe { line.positions(n, from, step, to.wrapping_offset(b), out_step) };
        });
    })
}

/// The lines along the axis.
struct Lines {
    kernels: &'static Kernels,
    dtype: DType,
    extent: usize,
    stride: isize,
}

impl Lines {
    /// The places in n lines that start `step` elements apart.
    unsafe fn positions(&self, n: usize, from: *const u8, step: isize, to: *mut i64, out_step: isize) {
        let size = self.dtype.size() as isize;
        let columns = self.kernels.columns[isa() as usize];
        // SAFETY: the caller's promise.
        unsafe {
            if step == 1 && out_step == 1 && n > 1 {
                return columns(n, from, self.extent, self.stride, to);
            }
            for line in 0..n as isize {
                let (from, to) = (from.offset(line * step * size), to.offset(line * out_step));
                match (self.kernels.reduce)(self.dtype) {
                    Some(reduce) if self.stride == 1 && self.extent >= BLOCK => {
                        let mut best = 0u64;
                        let best = (&raw mut best).cast::<u8>();
                        reduce.rows[isa() as usize](1, self.extent, from, best);
                        self.kernels.find[isa() as usize](self.extent, from, best, to);
                    }
                    _ => columns(1, from, self.extent, self.stride, to),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::{Shape, Strides};

    fn plain(extreme: Extreme, line: &[f32]) -> i64 {
        let beats = |x: f32, y: f32| match extreme {
            _ if y.is_nan() => false,
            _ if x.is_nan() => true,
            Extreme::Largest => x > y,
            Extreme::Smallest => x < y,
        };
        (0..line.len()).fold(0, |best, i| if beats(line[i], line[best]) { i } else { best }) as i64
    }

    #[test]
    fn places_are_the_first_along_any_axis_of_any_layout() {
        let mut state = 1u64;
        let mut below = |n: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % n
        };
        for (dims, order) in [
            ([3, 70, 130], [0, 1, 2]),
            ([70, 3, 5], [2, 0, 1]),
            ([1, 200, 65], [0, 2, 1]),
            ([2, 1, 300], [1, 2, 0]),
            ([130, 80, 9], [2, 1, 0]),
        ] {
            for values in [3, 40, 1 << 20] {
                let size: usize = dims.iter().product();
                let mut data: Vec<f32> = (0..size).map(|_| below(values) as f32 - 20.0).collect();
                (0..size / 100).for_each(|_| data[below(size as u64) as usize] = f32::NAN);
                let mut x = View::contiguous(data.as_mut_ptr().cast(), DType::F32, Shape::from(dims));
                x.shape = order.map(|axis| dims[axis]).into();
                x.strides = Strides::from_iter(order.map(|axis| Shape::from(dims).strides()[axis]));
                for axis in 0..3 {
                    let rest = x.shape.without(1 << axis);
                    for extreme in [Extreme::Largest, Extreme::Smallest] {
                        let mut got = vec![-1i64; rest.size()];
                        let out = View::contiguous(got.as_mut_ptr().cast(), DType::I64, rest.clone());
                        // SAFETY: the views lie in the vectors above.
                        unsafe { position(extreme, axis, &x, &out) }.unwrap();
                        let mut lines = x.strides.clone();
                        lines.remove(axis);
                        for_each_row(&rest, [&lines, &out.strides], |[a, b], n, [step, out_step]| {
                            for i in 0..n as isize {
                                let first = a + i * step;
                                let at = |k: usize| data[(first + k as isize * x.strides[axis]) as usize];
                                let line: Vec<f32> = (0..x.shape[axis]).map(at).collect();
                                assert_eq!(got[(b + i * out_step) as usize], plain(extreme, &line));
                            }
                        });
                    }
                }
            }
        }
    }
}
