//! The value: each block of queries passes over its keys once, with a running softmax.

use super::super::gemm::{Mat, MatMut};
use super::super::par::{Stopped, Work, par, poll};
use super::super::scratch::with_scratch;
use super::super::view::View;
use super::product::{Packed, bands, room};
use super::tile::{self, FOLDING, Running, Tile};
use super::{KEYS, Masks, Number, Problem, QUERIES, Stack, column, padded, turned};

/// Fills `out` (…, L, Ev) and `logs` (…, L), the logarithm of each query's Σ exp(score).
///
/// # Safety
/// Query (…, L, E), key (…, S, E), value (…, S, Ev), scale () and the results are of type T, the mask over (…, L, S) is
/// of bools or of type T, and leading axes are equal. All views are valid, nothing is empty, and rows of `out` are
/// contiguous.
pub unsafe fn forward<T: Number>(operands: [&View; 4], masks: Masks, out: &View, logs: &View) -> Result<(), Stopped> {
    // SAFETY: the caller's promise.
    let (problem, out, logs) =
        unsafe { (Problem::<T>::new(operands, masks), Stack::<T>::new(out), Stack::<T>::new(&column(logs))) };
    let blocks = problem.queries.div_ceil(QUERIES);
    let work = Work::MulAdds(problem.products().saturating_mul(problem.width + problem.out_width));
    par(problem.items * blocks, work, &|at| {
        let (item, query) = (at / blocks, at % blocks * QUERIES);
        // SAFETY: each block of queries has rows of its own in the results. A stop also ends the run, which reports it.
        _ = unsafe { query_block(&problem, item, query, out.target(item, query), logs.target(item, query)) };
    })
}

/// # Safety
/// As for `forward`; the results of the block are at `out` and `logs`.
unsafe fn query_block<T: Number>(
    problem: &Problem<T>,
    item: usize,
    query: usize,
    out: MatMut<T>,
    logs: MatMut<T>,
) -> Result<(), Stopped> {
    let rows = QUERIES.min(problem.queries - query);
    let (width, out_width) = (problem.width, problem.out_width);
    let (for_keys, for_values) = (room::<T>(width, KEYS), room::<T>(KEYS, out_width));
    with_scratch(QUERIES * (KEYS + 3) + FOLDING + for_keys + for_values, |scores: *mut T| {
        // SAFETY: the scratch holds a tile, the state of its rows, and packed keys and values; the rest is the
        // caller's promise.
        unsafe {
            let state = scores.add(QUERIES * KEYS);
            let running = Running::new(state);
            let packed = state.add(3 * QUERIES + FOLDING);
            let queries = problem.query.rows(item, query);
            let seen = problem.seen(query, rows);
            for key in (0..seen).step_by(KEYS) {
                poll()?;
                let cols = KEYS.min(seen - key);
                let tile = Tile {
                    scores,
                    rows,
                    cols,
                    stride: padded(cols),
                    scale: problem.scale,
                    mask: problem.mask_at(item, query, key),
                    diagonal: problem.causal.then(|| query as isize - key as isize + 1),
                };
                let keys = Packed::new((width, cols), turned(problem.key.rows(item, key)), packed);
                for band in bands(rows) {
                    keys.times(queries, band.clone(), 0..width, tile.columns(&band), tile.whole(), false);
                }
                tile::softmax(&tile, &running);
                if key > 0 {
                    tile::rescale(running.correction, rows, out_width, out);
                }
                let values = Packed::new((cols, out_width), problem.value.rows(item, key), packed.add(for_keys));
                let weights = Mat { ptr: scores.cast_const(), rs: tile.stride as isize, cs: 1 };
                for band in bands(rows) {
                    values.times(weights, band.clone(), 0..tile.seen(band.end - 1), out_width, out, key > 0);
                }
            }
            tile::finish(&running, rows, out_width, out, logs);
        }
        Ok(())
    })
}
