//! The value: each block of queries passes over its keys once, with a running softmax.

use super::super::gemm::Mat;
use super::super::par::{Stopped, Work, par, poll};
use super::super::scratch::with_scratch;
use super::super::view::View;
use super::product::{Packed, bands, room};
use super::tile::{self, FOLDING, Running, STATE};
use super::{KEYS, Masks, Number, Problem, QUERIES, Stack, column, turned};
use std::ops::Range;

/// Blocks of queries that pass over the keys together, at most.
const MOST_BLOCKS: usize = 4;
/// Items of which threads get enough: no more blocks go together than leave so many.
const ENOUGH_ITEMS: usize = 32;

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
    // Blocks that go together read the keys once.
    let together = (problem.items.saturating_mul(blocks) / ENOUGH_ITEMS).clamp(1, MOST_BLOCKS);
    let parts = blocks.div_ceil(together);
    let work = Work::MulAdds(problem.products().saturating_mul(problem.width + problem.out_width));
    par(problem.items * parts, work, &|at| {
        let (item, first) = (at / parts, at % parts * together);
        let queries = first * QUERIES..problem.queries.min((first + together) * QUERIES);
        // SAFETY: each query has a row of its own in the results. A stop also ends the run, which reports it.
        _ = unsafe { pass(&problem, item, queries, &out, &logs) };
    })
}

/// Passes some blocks of queries over the keys.
///
/// # Safety
/// As for `forward`; there are such queries.
unsafe fn pass<T: Number>(
    problem: &Problem<T>,
    item: usize,
    queries: Range<usize>,
    out: &Stack<T>,
    logs: &Stack<T>,
) -> Result<(), Stopped> {
    let (width, out_width) = (problem.width, problem.out_width);
    let (for_keys, for_values) = (room::<T>(width, KEYS), room::<T>(KEYS, out_width));
    let states = queries.len().div_ceil(QUERIES) * STATE;
    with_scratch(QUERIES * KEYS + FOLDING + states + for_keys + for_values, |scores: *mut T| {
        // SAFETY: the scratch holds a tile, lanes, the state of each block, and packed keys and values; the rest is the
        // caller's promise.
        unsafe {
            let lanes = scores.add(QUERIES * KEYS);
            let first_state = lanes.add(FOLDING);
            let packed = first_state.add(states);
            let blocks = || queries.clone().step_by(QUERIES).enumerate();
            let running = |block: usize| Running::at(first_state.add(block * STATE), lanes);
            blocks().for_each(|(block, _)| running(block).begin());
            let seen = problem.seen(queries.end);
            for key in (0..seen).step_by(KEYS) {
                let cols = KEYS.min(seen - key);
                let keys = Packed::new((width, cols), turned(problem.key.rows(item, key)), packed);
                let values = Packed::new((cols, out_width), problem.value.rows(item, key), packed.add(for_keys));
                for (block, query) in blocks() {
                    let rows = QUERIES.min(queries.end - query);
                    if problem.seen(query + rows) <= key {
                        continue;
                    }
                    poll()?;
                    let tile = problem.tile(item, (query, rows), (key, cols), scores);
                    let out = out.target(item, query);
                    for band in bands(rows) {
                        let queries = problem.query.rows(item, query);
                        keys.times(queries, band.clone(), 0..width, tile.columns(&band), tile.whole(), false);
                    }
                    tile::softmax(&tile, &running(block));
                    if key > 0 {
                        tile::rescale(running(block).correction, rows, out_width, out);
                    }
                    let weights = Mat { ptr: scores.cast_const(), rs: tile.stride as isize, cs: 1 };
                    for band in bands(rows) {
                        values.times(weights, band.clone(), 0..tile.seen(band.end - 1), out_width, out, key > 0);
                    }
                }
            }
            for (block, query) in blocks() {
                let rows = QUERIES.min(queries.end - query);
                tile::finish(&running(block), rows, out_width, out.target(item, query), logs.target(item, query));
            }
        }
        Ok(())
    })
}
