//! The gradient. Softmax comes back from the scores and the logarithms that the value left, tile by tile.

use super::super::gemm::{Mat, MatMut, gemm_serial};
use super::super::isa::isa;
use super::super::par::{Stopped, Work, par, width};
use super::super::scratch::with_scratch;
use super::super::view::View;
use super::tile::{self, Tile};
use super::{KEYS, Masks, Number, Problem, QUERIES, Stack, padded};

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
/// As for `forward`; the cotangents are valid and of type T.
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
    /// The gradients of query, key and value, row-major.
    gradients: [*mut T; 3],
}

// SAFETY: threads write separate rows of the gradients and only read the rest.
unsafe impl<T: Number> Sync for Job<T> {}

/// A pair of tiles: softmax, and the gradient of q·kᵀ.
struct Pair<T> {
    softmax: *mut T,
    slopes: *mut T,
    stride: isize,
    rows: usize,
    cols: usize,
}

impl<T: Number> Job<T> {
    /// # Safety
    /// As for `backward`.
    unsafe fn new(operands: [&View; 4], masks: Masks, given: &Cotangents, gradients: [&View; 3]) -> Job<T> {
        // Logarithms have no width: a last axis of one element makes matrices of them.
        let column = |view: &View| {
            let (mut shape, mut strides) = (view.shape.clone(), view.strides.clone());
            shape.push(1);
            strides.push(1);
            View { shape, strides, ..view.clone() }
        };
        // SAFETY: the caller's promise.
        unsafe {
            Job {
                problem: Problem::new(operands, masks),
                out: Stack::new(given.out),
                logs: Stack::new(&column(given.logs)),
                to_out: Stack::new(given.to_out),
                to_logs: Stack::new(&column(given.to_logs)),
                gradients: gradients.map(|view| view.ptr.cast()),
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
        let cols = KEYS.min(p.keys - key);
        let (key_row, value_row) = (p.width as isize, p.out_width as isize);
        // SAFETY: the block's rows lie inside the gradients; the rest is the caller's promise.
        unsafe {
            let to_key = MatMut { ptr: self.gradients[1].add((item * p.keys + key) * p.width), rs: key_row, cs: 1 };
            let to_value =
                MatMut { ptr: self.gradients[2].add((item * p.keys + key) * p.out_width), rs: value_row, cs: 1 };
            let mut add = false;
            for query in (0..p.queries).step_by(QUERIES) {
                let rows = QUERIES.min(p.queries - query);
                if p.seen(query, rows) <= key {
                    continue;
                }
                self.pair(item, (query, rows), (key, cols), |pair| {
                    let turned = |from: *mut T| Mat { ptr: from.cast_const(), rs: 1, cs: pair.stride };
                    let cotangent = self.to_out.rows(item, query);
                    let queries = p.query.rows(item, query);
                    gemm_serial((pair.cols, rows, p.out_width), turned(pair.softmax), cotangent, to_value, add, isa())?;
                    gemm_serial((pair.cols, rows, p.width), turned(pair.slopes), queries, to_key, add, isa())?;
                    if with_queries { self.add_to_query(item, query, key, &pair) } else { Ok(()) }
                })?;
                add = true;
            }
            if !add {
                // No query sees these keys.
                (0..cols * p.width).for_each(|i| *to_key.ptr.add(i) = T::ZERO);
                (0..cols * p.out_width).for_each(|i| *to_value.ptr.add(i) = T::ZERO);
            }
        }
        Ok(())
    }

    /// The gradients of a block of queries.
    ///
    /// # Safety
    /// As for `backward`.
    unsafe fn query_block(&self, item: usize, query: usize) -> Result<(), Stopped> {
        let rows = QUERIES.min(self.problem.queries - query);
        let seen = self.problem.seen(query, rows);
        for key in (0..seen).step_by(KEYS) {
            let cols = KEYS.min(self.problem.keys - key);
            // SAFETY: the caller's promise.
            unsafe {
                self.pair(item, (query, rows), (key, cols), |pair| self.add_to_query(item, query, key, &pair))?;
            }
        }
        Ok(())
    }

    /// # Safety
    /// As for `backward`.
    unsafe fn add_to_query(&self, item: usize, query: usize, key: usize, pair: &Pair<T>) -> Result<(), Stopped> {
        let p = &self.problem;
        // SAFETY: the block's rows lie inside the gradient.
        unsafe {
            let ptr = self.gradients[0].add((item * p.queries + query) * p.width);
            let to = MatMut { ptr, rs: p.width as isize, cs: 1 };
            let slopes = Mat { ptr: pair.slopes.cast_const(), rs: pair.stride, cs: 1 };
            gemm_serial((pair.rows, pair.cols, p.width), slopes, p.key.rows(item, key), to, key > 0, isa())
        }
    }

    /// Computes a pair of tiles and lends it.
    ///
    /// # Safety
    /// The tile lies inside the scores.
    unsafe fn pair(
        &self,
        item: usize,
        (query, rows): (usize, usize),
        (key, cols): (usize, usize),
        use_pair: impl FnOnce(Pair<T>) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        let p = &self.problem;
        let stride = padded(cols);
        with_scratch(2 * QUERIES * (KEYS + 1), |softmax: *mut T| {
            // SAFETY: the scratch holds two tiles and two numbers for each of their rows.
            unsafe {
                let slopes = softmax.add(QUERIES * KEYS);
                let (logs, shifts) = (slopes.add(QUERIES * KEYS), slopes.add(QUERIES * (KEYS + 1)));
                for row in 0..rows {
                    let (out, cotangent) = (self.out.rows(item, query + row), self.to_out.rows(item, query + row));
                    let moved = tile::dot(p.out_width, out.ptr, out.cs, cotangent.ptr, cotangent.cs);
                    *shifts.add(row) = moved - *self.to_logs.rows(item, query + row).ptr;
                    *logs.add(row) = *self.logs.rows(item, query + row).ptr;
                }
                let turned = |from: Mat<T>| Mat { rs: from.cs, cs: from.rs, ..from };
                let to = |ptr: *mut T| MatMut { ptr, rs: stride as isize, cs: 1 };
                let (queries, cotangents) = (p.query.rows(item, query), self.to_out.rows(item, query));
                let (keys, values) = (turned(p.key.rows(item, key)), turned(p.value.rows(item, key)));
                gemm_serial((rows, p.width, cols), queries, keys, to(softmax), false, isa())?;
                gemm_serial((rows, p.out_width, cols), cotangents, values, to(slopes), false, isa())?;
                let tile = Tile {
                    scores: softmax,
                    rows,
                    cols,
                    stride,
                    scale: p.scale,
                    mask: p.mask_at(item, query, key),
                    diagonal: p.causal.then(|| query as isize - key as isize + 1),
                };
                tile::gradient(&tile, slopes, logs, shifts);
                use_pair(Pair { softmax, slopes, stride: stride as isize, rows, cols })
            }
        })
    }
}
