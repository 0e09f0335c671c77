//! The outer reduction: rows added up by the chunk tree. 64 rows serially, then the partial sums of chunks pairwise. The
//! row interpreter and the unfused executor call the same two functions, so they agree in every bit.

use crate::machine::cpu::dispatch::{Arg, SliceKernel};
use crate::planner::CHUNK;

/// Adds `rows` rows of `n` elements at `from`, `step` bytes apart, to the partial at `partial`. `at` is the index of the
/// first of them in its chunk; row 0 of a chunk starts the partial.
///
/// # Safety
/// `combine` takes elements of `bytes` bytes; the rows and the partial are valid and do not overlap.
#[inline]
pub unsafe fn accumulate(
    combine: SliceKernel,
    (at, rows): (usize, usize),
    (n, bytes): (usize, usize),
    from: *const u8,
    step: usize,
    partial: *mut u8,
) {
    for row in 0..rows {
        // SAFETY: the caller's promise.
        unsafe {
            let from = from.add(row * step);
            if at + row == 0 {
                partial.copy_from_nonoverlapping(from, n * bytes);
            } else {
                combine(n, partial, &[Arg { ptr: partial, scalar: false }, Arg { ptr: from, scalar: false }]);
            }
        }
    }
}

/// Folds `chunks` partials of `n` elements pairwise into `out`: neighbours, again and again; an odd last one moves up.
///
/// # Safety
/// As for `accumulate`; `out` may be the first partial.
pub unsafe fn fold(combine: SliceKernel, chunks: usize, n: usize, bytes: usize, partials: *mut u8, out: *mut u8) {
    let at = |i: usize| {
        // SAFETY: i is less than the number of partials.
        unsafe { partials.add(i * n * bytes) }
    };
    let mut left = chunks;
    while left > 1 {
        for i in 0..left / 2 {
            let args = [Arg { ptr: at(2 * i), scalar: false }, Arg { ptr: at(2 * i + 1), scalar: false }];
            // The result may take the place of the left operand or lie before both.
            // SAFETY: the caller's promise.
            unsafe { combine(n, at(i), &args) };
        }
        if left % 2 == 1 {
            // SAFETY: different partials, since more than one is left.
            unsafe { at(left / 2).copy_from_nonoverlapping(at(left - 1), n * bytes) };
        }
        left = left.div_ceil(2);
    }
    if out != partials {
        // SAFETY: the caller's promise.
        unsafe { out.copy_from_nonoverlapping(partials, n * bytes) };
    }
}

/// [outer, len, inner] to [outer, inner], all contiguous.
///
/// # Safety
/// As for `accumulate`; `partials` holds `len / CHUNK` rows, rounded up, of `inner` elements.
pub unsafe fn outer(
    combine: SliceKernel,
    (outer, len, inner): (usize, usize, usize),
    bytes: usize,
    from: *const u8,
    partials: *mut u8,
    out: *mut u8,
) {
    let row = inner * bytes;
    for segment in 0..outer {
        let mut chunk = 0;
        while chunk * CHUNK < len {
            let rows = (len - chunk * CHUNK).min(CHUNK);
            // SAFETY: the caller's promise.
            unsafe {
                let from = from.add((segment * len + chunk * CHUNK) * row);
                accumulate(combine, (0, rows), (inner, bytes), from, row, partials.add(chunk * row));
            }
            chunk += 1;
        }
        // SAFETY: the caller's promise.
        unsafe { fold(combine, chunk, inner, bytes, partials, out.add(segment * row)) };
    }
}
