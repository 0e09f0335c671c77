//! What happens to a tile of scores between the products: scale, masks, the running softmax, and its gradient. Rows are
//! worked on in 16 logical lanes, so that every instruction set gives the same bits.

use super::super::dispatch::by_isa;
use super::super::gemm::{Mat, MatMut};
use super::super::isa::isa;
use super::super::math::{exp_between, log};
use super::product::{bands, turn};
use super::{Number, QUERIES};
use std::ops::Range;

pub const LANES: usize = 16;

#[derive(Clone, Copy)]
pub enum Mask<T> {
    None,
    /// Bools: false drops the score.
    Keep {
        ptr: *const u8,
        rs: isize,
        cs: isize,
    },
    /// Floats that are added.
    Add {
        ptr: *const T,
        rs: isize,
        cs: isize,
    },
}

/// A tile: `rows` queries by `cols` keys, rows `stride` elements apart, which are whole lanes.
pub struct Tile<T> {
    pub scores: *mut T,
    pub rows: usize,
    pub cols: usize,
    pub stride: usize,
    pub scale: T,
    pub mask: Mask<T>,
    /// Keys of the tile that row 0 sees, and each further row one more; None: all see all.
    pub diagonal: Option<isize>,
}

impl<T> Tile<T> {
    /// The tile as the result of a product.
    pub fn whole(&self) -> MatMut<T> {
        MatMut { ptr: self.scores, rs: self.stride as isize, cs: 1 }
    }

    /// The first keys that hold all that a band of rows sees, in whole lanes.
    #[inline(always)]
    fn lanes(&self, band: &Range<usize>) -> usize {
        self.seen(band.end - 1).next_multiple_of(LANES)
    }

    /// Of these, those that are there: the scores that a band of rows needs.
    pub fn columns(&self, band: &Range<usize>) -> usize {
        self.cols.min(self.lanes(band))
    }

    /// The first row that sees a key.
    pub fn first(&self, key: usize) -> usize {
        self.diagonal.map_or(0, |first| (key as isize - first + 1).clamp(0, self.rows as isize) as usize)
    }

    /// The keys that a row sees, all at the front.
    #[inline(always)]
    pub fn seen(&self, row: usize) -> usize {
        match self.diagonal {
            None => self.cols,
            Some(first) => (first + row as isize).clamp(0, self.cols as isize) as usize,
        }
    }
}

/// The state of the softmax of each row over the tiles so far.
pub struct Running<T> {
    pub largest: *mut T,
    pub total: *mut T,
    /// What earlier tiles' results are to be multiplied by.
    pub correction: *mut T,
    /// Working memory, in which the lanes of each row are put together.
    pub lanes: *mut T,
}

/// Elements of working memory in which the lanes of each row are put together.
pub const FOLDING: usize = 2 * QUERIES * LANES;

/// Elements of a state, its working memory apart.
pub const STATE: usize = 3 * QUERIES;

impl<T: Number> Running<T> {
    /// The state at this place, with working memory of `FOLDING` elements.
    ///
    /// # Safety
    /// Both are valid.
    pub unsafe fn at(place: *mut T, lanes: *mut T) -> Running<T> {
        // SAFETY: the caller's promise.
        unsafe { Running { largest: place, total: place.add(QUERIES), correction: place.add(2 * QUERIES), lanes } }
    }

    /// Makes it the state before the first tile.
    ///
    /// # Safety
    /// It is valid.
    pub unsafe fn begin(&self) {
        for row in 0..QUERIES {
            // SAFETY: the caller's promise.
            unsafe {
                *self.largest.add(row) = T::NEG_INFINITY;
                *self.total.add(row) = T::ZERO;
            }
        }
    }
}

/// Scores become exp(score - largest so far), zero where a key is not seen.
///
/// # Safety
/// The tile and the states of its rows are valid, the padding of its rows included.
pub unsafe fn softmax<T: Number>(tile: &Tile<T>, running: &Running<T>) {
    let scale = by_isa!(scale_rows<T: Number>(tile: &Tile<T>, lanes: *mut T));
    let advance = by_isa!(advance_rows<T: Number>(running: &Running<T>, lanes: *mut T));
    let weigh = by_isa!(weigh_rows<T: Number>(tile: &Tile<T>, running: &Running<T>));
    let total = by_isa!(total_rows<T: Number>(running: &Running<T>, lanes: *mut T));
    let isa = isa() as usize;
    // SAFETY: the caller's promise.
    unsafe {
        scale[isa](tile, running.lanes);
        advance[isa](running, turned_lanes(tile.rows, running.lanes));
        weigh[isa](tile, running);
        total[isa](running, turned_lanes(tile.rows, running.lanes));
    }
}

/// The lanes of each row, one after another, so that rows stand side by side.
///
/// # Safety
/// There is working memory at `lanes`, which holds those of so many rows.
unsafe fn turned_lanes<T: Number>(rows: usize, lanes: *mut T) -> *mut T {
    // SAFETY: the caller's promise.
    unsafe {
        let to = lanes.add(QUERIES * LANES);
        turn((rows, LANES), lanes, to, QUERIES);
        to
    }
}

/// Results are divided by the totals; the logarithm of Σ exp(score) goes to `logs`. A row that sees no key gives zeros.
///
/// # Safety
/// `out` holds `rows` rows of `width` contiguous elements, `logs` a number for each.
pub unsafe fn finish<T: Number>(running: &Running<T>, rows: usize, width: usize, out: MatMut<T>, logs: MatMut<T>) {
    let kernels = by_isa!(finish_rows<T: Number>(
        running: &Running<T>, rows: usize, width: usize, out: MatMut<T>, logs: MatMut<T>
    ));
    // SAFETY: the caller's promise.
    unsafe { kernels[isa() as usize](running, rows, width, out, logs) }
}

/// Multiplies each row of `out` by its factor.
///
/// # Safety
/// `out` holds `rows` rows of `width` contiguous elements, and there is a factor for each.
pub unsafe fn rescale<T: Number>(factors: *const T, rows: usize, width: usize, out: MatMut<T>) {
    let kernels = by_isa!(rescale_rows<T: Number>(factors: *const T, rows: usize, width: usize, out: MatMut<T>));
    // SAFETY: the caller's promise.
    unsafe { kernels[isa() as usize](factors, rows, width, out) }
}

/// Some rows of what the value left and of what reaches it from above; logarithms are matrices of one column.
pub struct Given<T> {
    pub out: Mat<T>,
    pub logs: Mat<T>,
    pub to_out: Mat<T>,
    pub to_logs: Mat<T>,
}

/// What the gradient needs of each row.
pub struct Left<T> {
    pub logs: *mut T,
    /// What slopes are shifted by: Σ out·cotangent, less the cotangent of the logarithm.
    pub shifts: *mut T,
    pub lanes: *mut T,
}

impl<T: Number> Left<T> {
    /// Of `rows` rows that are `width` wide, in (2 · QUERIES + FOLDING) elements.
    ///
    /// # Safety
    /// They are valid, and so is what is given.
    pub unsafe fn new(given: &Given<T>, rows: usize, width: usize, at: *mut T) -> Left<T> {
        let weigh = by_isa!(slope_rows<T: Number>(given: &Given<T>, rows: usize, width: usize, lanes: *mut T));
        let shift = by_isa!(shift_rows<T: Number>(given: &Given<T>, rows: usize, left: &Left<T>, lanes: *mut T));
        let isa = isa() as usize;
        // SAFETY: the caller's promise.
        unsafe {
            let left = Left { logs: at, shifts: at.add(QUERIES), lanes: at.add(2 * QUERIES) };
            weigh[isa](given, rows, width, left.lanes);
            shift[isa](given, rows, &left, turned_lanes(rows, left.lanes));
            left
        }
    }
}

/// Scores become softmax p, from their logarithms of totals; `slopes`, g·vᵀ, become scale·p·(slope - shift), the
/// gradient of q·kᵀ.
///
/// # Safety
/// Both tiles are valid, the padding of their rows included, and so is what is left of each row.
pub unsafe fn gradient<T: Number>(tile: &Tile<T>, slopes: *mut T, left: &Left<T>) {
    let kernels = by_isa!(gradient_rows<T: Number>(tile: &Tile<T>, slopes: *mut T, left: &Left<T>));
    // SAFETY: the caller's promise.
    unsafe { kernels[isa() as usize](tile, slopes, left) }
}

/// Masks the scores that a row sees, and gives what they are still to be multiplied by. Those of `lanes` that are not
/// there become numbers.
#[inline(always)]
unsafe fn mask<T: Number>(tile: &Tile<T>, row: usize, scores: *mut T, lanes: usize) -> T {
    let seen = tile.seen(row);
    // SAFETY: the caller's promise for tile and mask.
    unsafe {
        for j in tile.cols..lanes {
            *scores.add(j) = T::ZERO;
        }
        match tile.mask {
            Mask::None => return tile.scale,
            Mask::Keep { ptr, rs, cs } => {
                let mask = ptr.offset(row as isize * rs);
                for j in 0..seen {
                    let score = *scores.add(j) * tile.scale;
                    *scores.add(j) = if *mask.offset(j as isize * cs) != 0 { score } else { T::NEG_INFINITY };
                }
            }
            Mask::Add { ptr, rs, cs } => {
                let mask = ptr.offset(row as isize * rs);
                for j in 0..seen {
                    *scores.add(j) = *scores.add(j) * tile.scale + *mask.offset(j as isize * cs);
                }
            }
        }
    }
    T::ONE
}

/// Puts together the lanes of each row: element i of row r is `lanes[i · QUERIES + r]`.
#[inline(always)]
unsafe fn fold<T: Number>(lanes: *mut T, f: impl Fn(T, T) -> T) {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half * QUERIES {
            // SAFETY: the caller's promise.
            unsafe { *lanes.add(i) = f(*lanes.add(i), *lanes.add(half * QUERIES + i)) };
        }
        half /= 2;
    }
}

/// e^x, and 0 where that would be no normal number: masked scores are many, and the CPU is slow at tiny numbers.
#[inline(always)]
fn weight<T: Number, const FMA: bool>(x: T) -> T {
    let least = T::from_f64(if T::DOUBLE { -708.0 } else { -87.0 });
    let y = exp_between::<T, FMA>(if x < least { least } else { x });
    if x < least { T::ZERO } else { y }
}

#[inline(always)]
fn larger<T: Number>(x: T, y: T) -> T {
    if y > x { y } else { x }
}

/// Scales and masks; leaves the largest score in each lane of a row.
#[inline(always)]
unsafe fn scale_rows<T: Number, const FMA: bool>(tile: &Tile<T>, largest: *mut T) {
    // SAFETY: the caller's promise.
    unsafe {
        for band in bands(tile.rows) {
            let lanes = tile.lanes(&band);
            for row in band {
                let scores = tile.scores.add(row * tile.stride);
                let scale = mask(tile, row, scores, lanes);
                let seen = tile.seen(row) as i32;
                let mut most = [T::NEG_INFINITY; LANES];
                for at in (0..lanes).step_by(LANES) {
                    let block = scores.add(at).cast::<[T; LANES]>();
                    let (mut x, seen) = (block.read(), seen - at as i32);
                    for i in 0..LANES {
                        let score = x[i] * scale;
                        x[i] = if (i as i32) < seen { score } else { T::NEG_INFINITY };
                        most[i] = larger(most[i], x[i]);
                    }
                    block.write(x);
                }
                largest.add(row * LANES).cast::<[T; LANES]>().write(most);
            }
        }
    }
}

/// Moves the state on to the largest scores of a tile.
#[inline(always)]
unsafe fn advance_rows<T: Number, const FMA: bool>(running: &Running<T>, lanes: *mut T) {
    // SAFETY: the caller's promise.
    unsafe {
        fold(lanes, larger);
        for row in 0..QUERIES {
            let before = *running.largest.add(row);
            let now = larger(before, *lanes.add(row));
            let correction = weight::<T, FMA>(before - origin(now));
            *running.correction.add(row) = correction;
            *running.total.add(row) = *running.total.add(row) * correction;
            *running.largest.add(row) = now;
        }
    }
}

/// Takes exponentials; leaves their sums in each lane of a row.
#[inline(always)]
unsafe fn weigh_rows<T: Number, const FMA: bool>(tile: &Tile<T>, running: &Running<T>) {
    // SAFETY: the caller's promise.
    unsafe {
        for band in bands(tile.rows) {
            let lanes = tile.lanes(&band);
            for row in band {
                let scores = tile.scores.add(row * tile.stride);
                let origin = origin(*running.largest.add(row));
                let mut sums = [T::ZERO; LANES];
                for at in (0..lanes).step_by(LANES) {
                    let block = scores.add(at).cast::<[T; LANES]>();
                    let mut p = block.read();
                    for i in 0..LANES {
                        p[i] = weight::<T, FMA>(p[i] - origin);
                        sums[i] += p[i];
                    }
                    block.write(p);
                }
                running.lanes.add(row * LANES).cast::<[T; LANES]>().write(sums);
            }
        }
    }
}

#[inline(always)]
unsafe fn total_rows<T: Number, const FMA: bool>(running: &Running<T>, lanes: *mut T) {
    // SAFETY: the caller's promise.
    unsafe {
        fold(lanes, |x, y| x + y);
        for row in 0..QUERIES {
            *running.total.add(row) += *lanes.add(row);
        }
    }
}

/// What scores are taken from: for a row without keys not its -inf, so that its exponentials are exp(-inf).
#[inline(always)]
fn origin<T: Number>(largest: T) -> T {
    if largest == T::NEG_INFINITY { T::ZERO } else { largest }
}

#[inline(always)]
unsafe fn finish_rows<T: Number, const FMA: bool>(
    running: &Running<T>,
    rows: usize,
    width: usize,
    out: MatMut<T>,
    logs: MatMut<T>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        for row in 0..QUERIES {
            let total = *running.total.add(row);
            *running.correction.add(row) = if total == T::ZERO { T::ZERO } else { T::ONE / total };
            *running.total.add(row) = *running.largest.add(row) + log::<T, FMA>(total);
        }
        for row in 0..rows {
            *logs.ptr.offset(row as isize * logs.rs) = *running.total.add(row);
        }
        rescale_rows::<T, FMA>(running.correction, rows, width, out);
    }
}

#[inline(always)]
unsafe fn rescale_rows<T: Number, const FMA: bool>(factors: *const T, rows: usize, width: usize, out: MatMut<T>) {
    // SAFETY: the caller's promise.
    unsafe {
        for row in 0..rows {
            let (factor, to) = (*factors.add(row), out.ptr.offset(row as isize * out.rs));
            for j in 0..width {
                *to.add(j) = *to.add(j) * factor;
            }
        }
    }
}

/// Leaves Σ out·cotangent in each lane of a row.
#[inline(always)]
unsafe fn slope_rows<T: Number, const FMA: bool>(given: &Given<T>, rows: usize, width: usize, lanes: *mut T) {
    let (xs, ys) = (given.out.cs, given.to_out.cs);
    let whole = if xs == 1 && ys == 1 { width / LANES * LANES } else { 0 };
    // SAFETY: the caller's promise.
    unsafe {
        for row in 0..rows {
            let at = row as isize;
            let (x, y) = (given.out.ptr.offset(at * given.out.rs), given.to_out.ptr.offset(at * given.to_out.rs));
            let mut sums = [T::ZERO; LANES];
            for at in (0..whole).step_by(LANES) {
                let (a, b) = (x.add(at).cast::<[T; LANES]>().read(), y.add(at).cast::<[T; LANES]>().read());
                for i in 0..LANES {
                    sums[i] = a[i].fma::<FMA>(b[i], sums[i]);
                }
            }
            for at in whole..width {
                let lane = &mut sums[at % LANES];
                *lane = (*x.offset(at as isize * xs)).fma::<FMA>(*y.offset(at as isize * ys), *lane);
            }
            lanes.add(row * LANES).cast::<[T; LANES]>().write(sums);
        }
    }
}

#[inline(always)]
unsafe fn shift_rows<T: Number, const FMA: bool>(given: &Given<T>, rows: usize, left: &Left<T>, lanes: *mut T) {
    // SAFETY: the caller's promise.
    unsafe {
        fold(lanes, |x, y| x + y);
        for row in 0..rows {
            let at = row as isize;
            *left.shifts.add(row) = *lanes.add(row) - *given.to_logs.ptr.offset(at * given.to_logs.rs);
            *left.logs.add(row) = origin(*given.logs.ptr.offset(at * given.logs.rs));
        }
    }
}

#[inline(always)]
unsafe fn gradient_rows<T: Number, const FMA: bool>(tile: &Tile<T>, slopes: *mut T, left: &Left<T>) {
    // SAFETY: the caller's promise.
    unsafe {
        for band in bands(tile.rows) {
            let lanes = tile.lanes(&band);
            for row in band {
                let (scores, slopes) = (tile.scores.add(row * tile.stride), slopes.add(row * tile.stride));
                let scale = mask(tile, row, scores, lanes);
                let (log, shift, seen) = (*left.logs.add(row), *left.shifts.add(row), tile.seen(row) as i32);
                for at in (0..lanes).step_by(LANES) {
                    let (block, slope) = (scores.add(at).cast::<[T; LANES]>(), slopes.add(at).cast::<[T; LANES]>());
                    let (mut p, mut ds, seen) = (block.read(), slope.read(), seen - at as i32);
                    for i in 0..LANES {
                        let y = weight::<T, FMA>(p[i] * scale - log);
                        p[i] = if (i as i32) < seen { y } else { T::ZERO };
                        let moved = p[i] * (ds[i] - shift) * tile.scale;
                        ds[i] = if p[i] == T::ZERO { T::ZERO } else { moved };
                    }
                    block.write(p);
                    slope.write(ds);
                }
                // Bands of keys reach so far beyond what a row sees.
                if lanes < tile.cols {
                    scores.add(lanes).cast::<[T; LANES]>().write([T::ZERO; LANES]);
                    slopes.add(lanes).cast::<[T; LANES]>().write([T::ZERO; LANES]);
                }
            }
        }
    }
}
