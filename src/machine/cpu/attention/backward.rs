//! The gradient. Softmax comes back from the scores and the logarithms that the value left, tile by tile.

use super::super::gemm::{Mat, MatMut};
use super::super::par::{Stopped, Work, par, poll, width};
use super::super::scratch::with_scratch;
use super::super::view::View;
use super::product::{Packed, bands, room};
use super::tile::{self, FOLDING, Given, Left, Tile};
use super::{KEYS, Masks, Number, Problem, QUERIES, Stack, column, turned};

/// What the value left, and what reaches it from above.
pub struct Cotangents<'a> {
    /// (…, L, Ev) and (…, L), as `forward` made them.
    pub out: &'a View,
    pub logs: &'a View,
    /// Their cotangents.
    pub to_out: &'a View,
    pub to_logs: &'a View,
}

/// Fills the gradients of query, key and value.
///
/// # Safety
/// As for `forward`; the cotangents are valid and of type T, and rows of the gradients are contiguous.
pub unsafe fn backward<T: Number>(
    operands: [&View; 4],
    masks: Masks,
    cotangents: &Cotangents,
    gradients: [&View; 3],
) -> Result<(), Stopped> {
    // SAFETY: the caller's promise.
    let job = unsafe { Job::<T>::new(operands, masks, cotangents, gradients) };
    let problem = &job.problem;
    let per_score = 3 * problem.width + 2 * problem.out_width;
    let work = Work::MulAdds(problem.products().saturating_mul(per_score));
    let (queries, keys) = (problem.queries.div_ceil(QUERIES), problem.keys.div_ceil(KEYS));
    // With few matrices each block is an item, which computes the scores once more; the bits are the same.
    if problem.items >= 2 * width(work) || queries + keys == 2 {
        return par(problem.items, work, &|item| {
            // SAFETY: each matrix has gradients of its own. A stop also ends the run, which reports it.
            _ = unsafe { (0..keys).try_for_each(|block| job.key_block(item, block * KEYS, true)) };
        });
    }
    par(problem.items * (queries + keys), work, &|at| {
        let (item, block) = (at / (queries + keys), at % (queries + keys));
        // SAFETY: each block has its own rows of the gradients.
        _ = unsafe {
            match block.checked_sub(keys) {
                None => job.key_block(item, block * KEYS, false),
                Some(block) => job.query_block(item, block * QUERIES),
            }
        };
    })
}

struct Job<T> {
    problem: Problem<T>,
    out: Stack<T>,
    logs: Stack<T>,
    to_out: Stack<T>,
    to_logs: Stack<T>,
    /// The gradients of query, key and value.
    gradients: [Stack<T>; 3],
}

/// A pair of tiles: softmax, and the gradient of q·kᵀ.
struct Pair<T> {
    softmax: Tile<T>,
    slopes: *mut T,
}

impl<T: Number> Pair<T> {
    /// One of the tiles as a left operand.
    fn of(&self, from: *mut T) -> Mat<T> {
        Mat { ptr: from.cast_const(), rs: self.softmax.stride as isize, cs: 1 }
    }
}

/// A block of keys and values in the order in which products read them.
struct Keys<T: 'static> {
    at: usize,
    cols: usize,
    turned_keys: Packed<T>,
    turned_values: Packed<T>,
    /// For the gradients of queries.
    keys: Packed<T>,
}

/// Working memory: two tiles, what is left of their rows, packed keys and values, then queries and cotangents.
struct Room<T> {
    tiles: *mut T,
    rows: *mut T,
    keys: *mut T,
    queries: *mut T,
}

impl<T: Number> Job<T> {
    /// # Safety
    /// As for `backward`.
    unsafe fn new(operands: [&View; 4], masks: Masks, given: &Cotangents, gradients: [&View; 3]) -> Job<T> {
        // SAFETY: the caller's promise.
        unsafe {
            Job {
                problem: Problem::new(operands, masks),
                out: Stack::new(given.out),
                logs: Stack::new(&column(given.logs)),
                to_out: Stack::new(given.to_out),
                to_logs: Stack::new(&column(given.to_logs)),
                gradients: gradients.map(|view| Stack::new(view)),
            }
        }
    }

    fn with_room(&self, f: impl FnOnce(Room<T>) -> Result<(), Stopped>) -> Result<(), Stopped> {
        let p = &self.problem;
        let keys = room::<T>(p.width, KEYS) + room::<T>(p.out_width, KEYS) + room::<T>(KEYS, p.width);
        let queries = room::<T>(QUERIES, p.width) + room::<T>(QUERIES, p.out_width);
        with_scratch(2 * QUERIES * (KEYS + 1) + FOLDING + keys + queries, |tiles: *mut T| {
            let rows = tiles.wrapping_add(2 * QUERIES * KEYS);
            let packed = rows.wrapping_add(2 * QUERIES + FOLDING);
            f(Room { tiles, rows, keys: packed, queries: packed.wrapping_add(keys) })
        })
    }

    /// # Safety
    /// As for `backward`; there is such a block.
    unsafe fn keys(&self, item: usize, at: usize, room_for: &Room<T>) -> Keys<T> {
        let p = &self.problem;
        let cols = KEYS.min(p.keys - at);
        // SAFETY: the caller's promise; the room was made for a whole block.
        unsafe {
            let (keys, values) = (p.key.rows(item, at), p.value.rows(item, at));
            let for_values = room_for.keys.add(room::<T>(p.width, KEYS));
            let for_keys = for_values.add(room::<T>(p.out_width, KEYS));
            Keys {
                at,
                cols,
                turned_keys: Packed::new((p.width, cols), turned(keys), room_for.keys),
                turned_values: Packed::new((p.out_width, cols), turned(values), for_values),
                keys: Packed::new((cols, p.width), keys, for_keys),
            }
        }
    }

    /// The gradients of a block of keys and values, from every query that sees them; and, if asked, what the block adds
    /// to the gradients of those queries.
    ///
    /// # Safety
    /// As for `backward`; blocks of one matrix come in order if queries are asked for.
    unsafe fn key_block(&self, item: usize, key: usize, with_queries: bool) -> Result<(), Stopped> {
        let p = &self.problem;
        self.with_room(|room_for| {
            // SAFETY: the block's rows lie inside the gradients; the rest is the caller's promise.
            unsafe {
                let keys = self.keys(item, key, &room_for);
                let [to_key, to_value] = [1, 2].map(|which: usize| self.gradients[which].target(item, key));
                let mut add = false;
                for query in (0..p.queries).step_by(QUERIES) {
                    // The last block is never left out: then no query sees these keys, and it fills in zeros.
                    if p.seen(query + QUERIES) <= key && (add || query + QUERIES < p.queries) {
                        continue;
                    }
                    poll()?;
                    let pair = self.pair(item, query, &keys, &room_for);
                    let rows = pair.softmax.rows;
                    let (queries, to_out) = (p.query.rows(item, query), self.to_out.rows(item, query));
                    let for_out = room_for.queries.add(room::<T>(QUERIES, p.width));
                    let queries = Packed::new((rows, p.width), queries, room_for.queries);
                    let to_out = Packed::new((rows, p.out_width), to_out, for_out);
                    let (softmax, slopes) = (turned(pair.of(pair.softmax.scores)), turned(pair.of(pair.slopes)));
                    for band in bands(keys.cols) {
                        let steps = pair.softmax.first(band.start)..rows;
                        to_out.times(softmax, band.clone(), steps.clone(), p.out_width, to_value, add);
                        queries.times(slopes, band, steps, p.width, to_key, add);
                    }
                    if with_queries {
                        self.add_to_query(item, query, &keys, &pair);
                    }
                    add = true;
                }
            }
            Ok(())
        })
    }

    /// The gradients of a block of queries.
    ///
    /// # Safety
    /// As for `backward`.
    unsafe fn query_block(&self, item: usize, query: usize) -> Result<(), Stopped> {
        let seen = self.problem.seen(self.problem.queries.min(query + QUERIES));
        self.with_room(|room_for| {
            for key in (0..seen).step_by(KEYS) {
                poll()?;
                // SAFETY: the caller's promise.
                unsafe {
                    let keys = self.keys(item, key, &room_for);
                    let pair = self.pair(item, query, &keys, &room_for);
                    self.add_to_query(item, query, &keys, &pair);
                }
            }
            Ok(())
        })
    }

    /// # Safety
    /// As for `backward`.
    unsafe fn add_to_query(&self, item: usize, query: usize, keys: &Keys<T>, pair: &Pair<T>) {
        // SAFETY: the block's rows lie inside the gradient.
        unsafe {
            let to = self.gradients[0].target(item, query);
            for band in bands(pair.softmax.rows) {
                let seen = pair.softmax.seen(band.end - 1);
                keys.keys.times(pair.of(pair.slopes), band, 0..seen, self.problem.width, to, keys.at > 0);
            }
        }
    }

    /// Computes a pair of tiles.
    ///
    /// # Safety
    /// As for `backward`; there is such a block of queries.
    unsafe fn pair(&self, item: usize, query: usize, keys: &Keys<T>, room_for: &Room<T>) -> Pair<T> {
        let p = &self.problem;
        let rows = QUERIES.min(p.queries - query);
        // SAFETY: the room holds two tiles and what is left of their rows; the rest is the caller's promise.
        unsafe {
            let (scores, slopes) = (room_for.tiles, room_for.tiles.add(QUERIES * KEYS));
            let softmax = p.tile(item, (query, rows), (keys.at, keys.cols), scores);
            let (queries, to_out) = (p.query.rows(item, query), self.to_out.rows(item, query));
            for band in bands(rows) {
                let cols = softmax.columns(&band);
                keys.turned_keys.times(queries, band.clone(), 0..p.width, cols, softmax.whole(), false);
                let to = MatMut { ptr: slopes, ..softmax.whole() };
                keys.turned_values.times(to_out, band, 0..p.out_width, cols, to, false);
            }
            let given = Given {
                out: self.out.rows(item, query),
                logs: self.logs.rows(item, query),
                to_out,
                to_logs: self.to_logs.rows(item, query),
            };
            tile::gradient(&softmax, slopes, &Left::new(&given, rows, p.out_width, room_for.rows));
            Pair { softmax, slopes }
        }
    }
}
