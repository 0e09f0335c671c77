//! The outer reduction: rows added up by the chunk tree of `machine::cpu::reduce`. The row interpreter and the unfused
//! executor call the same kernels in the same order, so they agree in every bit.

use crate::machine::cpu::isa::isa;
use crate::machine::cpu::reduce::{CHUNK_ROWS, ReduceKernels};

/// Folds `chunks` partials of `n` elements pairwise into `out`, which may be the first partial.
///
/// # Safety
/// The partials and the result are valid and of the kernels' dtype.
pub unsafe fn fold(
    kernels: &ReduceKernels,
    chunks: usize,
    (n, bytes): (usize, usize),
    partials: *mut u8,
    out: *mut u8,
) {
    // SAFETY: the caller's promise.
    unsafe {
        kernels.fold[isa() as usize](chunks, n, partials);
        if out != partials {
            out.copy_from_nonoverlapping(partials, n * bytes);
        }
    }
}

/// [outer, len, inner] to [outer, inner], all contiguous.
///
/// # Safety
/// All are valid, of the kernels' dtype, and do not overlap; `partials` has room for a row of `inner` elements for each
/// chunk of `len`.
pub unsafe fn outer(
    kernels: &ReduceKernels,
    (outer, len, inner): (usize, usize, usize),
    bytes: usize,
    from: *const u8,
    partials: *mut u8,
    out: *mut u8,
) {
    let row = inner * bytes;
    let chunks = len.div_ceil(CHUNK_ROWS);
    for segment in 0..outer {
        for chunk in 0..chunks {
            let rows = (len - chunk * CHUNK_ROWS).min(CHUNK_ROWS);
            // SAFETY: the caller's promise.
            unsafe {
                let from = from.add((segment * len + chunk * CHUNK_ROWS) * row);
                kernels.chunk[isa() as usize](true, rows, inner, from, inner as isize, partials.add(chunk * row));
            }
        }
        // SAFETY: every partial is complete.
        unsafe { fold(kernels, chunks, (inner, bytes), partials, out.add(segment * row)) };
    }
}
