//! The value: each block of queries passes over its keys once, with a running softmax.

use super::super::gemm::{Mat, MatMut, gemm_serial};
use super::super::isa::isa;
use super::super::par::{Stopped, Work, par};
use super::super::scratch::with_scratch;
use super::super::view::View;
use super::tile::{self, Running, Tile};
use super::{KEYS, Masks, Number, Problem, QUERIES, padded};

/// Fills `out` (…, L, Ev) and `logs` (…, L), the logarithm of each query's Σ exp(score).
///
/// # Safety
/// Query (…, L, E), key (…, S, E), value (…, S, Ev), scale () and the results are of type T, the mask over (…, L, S) is
/// of bools or of type T, and leading axes are equal. All views are valid, nothing is empty, and results are contiguous.
pub unsafe fn forward<T: Number>(operands: [&View; 4], masks: Masks, out: &View, logs: &View) -> Result<(), Stopped> {
    // SAFETY: the caller's promise.
    let problem = unsafe { Problem::<T>::new(operands, masks) };
    let (out, logs) = (out.ptr as usize, logs.ptr as usize);
    let blocks = problem.queries.div_ceil(QUERIES);
    let work = Work::MulAdds(problem.products().saturating_mul(problem.width + problem.out_width));
    par(problem.items * blocks, work, &|at| {
        let (item, block) = (at / blocks, at % blocks);
        let first = item * problem.queries + block * QUERIES;
        // SAFETY: each block of queries has rows of its own in the results. A stop also ends the run, which reports it.
        _ = unsafe {
            let out = (out as *mut T).add(first * problem.out_width);
            query_block(&problem, item, block * QUERIES, out, (logs as *mut T).add(first))
        };
    })
}

/// # Safety
/// As for `forward`; the results of the block are at `out` and `logs`.
unsafe fn query_block<T: Number>(
    problem: &Problem<T>,
    item: usize,
    query: usize,
    out: *mut T,
    logs: *mut T,
) -> Result<(), Stopped> {
    let rows = QUERIES.min(problem.queries - query);
    let (width, out_width) = (problem.width, problem.out_width);
    with_scratch(QUERIES * (KEYS + 4), |scores: *mut T| {
        // SAFETY: the scratch holds a tile and four numbers for each of its rows; the rest is the caller's promise.
        unsafe {
            let state = scores.add(QUERIES * KEYS);
            let running = Running {
                largest: state,
                total: state.add(QUERIES),
                correction: state.add(2 * QUERIES),
                latest: state.add(3 * QUERIES),
            };
            for row in 0..QUERIES {
                *running.largest.add(row) = T::NEG_INFINITY;
                *running.total.add(row) = T::ZERO;
                *running.latest.add(row) = T::NEG_INFINITY;
            }
            let results = MatMut { ptr: out, rs: out_width as isize, cs: 1 };
            let seen = problem.seen(query, rows);
            for key in (0..seen).step_by(KEYS) {
                let cols = KEYS.min(seen - key);
                let stride = padded(cols);
                let keys = problem.key.rows(item, key);
                let turned = Mat { rs: keys.cs, cs: keys.rs, ..keys };
                let to = MatMut { ptr: scores, rs: stride as isize, cs: 1 };
                gemm_serial((rows, width, cols), problem.query.rows(item, query), turned, to, false, isa())?;
                let tile = Tile {
                    scores,
                    rows,
                    cols,
                    stride,
                    scale: problem.scale,
                    mask: problem.mask_at(item, query, key),
                    diagonal: problem.causal.then(|| query as isize - key as isize + 1),
                };
                tile::softmax(&tile, &running);
                if key > 0 {
                    tile::rescale(running.correction, rows, out_width, out);
                }
                let weights = Mat { ptr: scores.cast_const(), rs: stride as isize, cs: 1 };
                let values = problem.value.rows(item, key);
                gemm_serial((rows, cols, out_width), weights, values, results, key > 0, isa())?;
            }
            tile::finish(&running, rows, out_width, out, logs);
        }
        Ok(())
    })
}
