//! What happens to a tile of scores between the products: scale, masks, the running softmax, and its gradient. Rows are
//! worked on in 16 logical lanes, so that every instruction set gives the same bits.

use super::super::dispatch::by_isa;
use super::super::isa::isa;
use super::super::math::{exp, log};
use super::Number;

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
    /// The keys that a row sees, all at the front.
    #[inline(always)]
    fn seen(&self, row: usize) -> usize {
        match self.diagonal {
            None => self.cols,
            Some(first) => (first + row as isize).clamp(0, self.cols as isize) as usize,
        }
    }
}

/// The state of the softmax of each row over the tiles so far; whole lanes of rows.
pub struct Running<T> {
    pub largest: *mut T,
    pub total: *mut T,
    /// What earlier tiles' results are to be multiplied by.
    pub correction: *mut T,
    /// Working memory.
    pub latest: *mut T,
}

/// Scores become exp(score - largest so far), zero where a key is not seen.
///
/// # Safety
/// The tile and the states of its rows are valid, the padding of its rows included.
pub unsafe fn softmax<T: Number>(tile: &Tile<T>, running: &Running<T>) {
    let kernels = by_isa!(softmax_rows<T: Number>(tile: &Tile<T>, running: &Running<T>));
    // SAFETY: the caller's promise.
    unsafe { kernels[isa() as usize](tile, running) }
}

/// Results are divided by the totals; the logarithm of Σ exp(score) goes to `logs`. A row that sees no key gives zeros.
///
/// # Safety
/// `out` holds `rows` rows of `width`, one after another.
pub unsafe fn finish<T: Number>(running: &Running<T>, rows: usize, width: usize, out: *mut T, logs: *mut T) {
    let kernels = by_isa!(finish_rows<T: Number>(
        running: &Running<T>, rows: usize, width: usize, out: *mut T, logs: *mut T
    ));
    // SAFETY: the caller's promise.
    unsafe { kernels[isa() as usize](running, rows, width, out, logs) }
}

/// Multiplies each row of `out` by its factor.
///
/// # Safety
/// `out` holds `rows` rows of `width`, one after another, and there is a factor for each.
pub unsafe fn rescale<T: Number>(factors: *const T, rows: usize, width: usize, out: *mut T) {
    let kernels = by_isa!(rescale_rows<T: Number>(factors: *const T, rows: usize, width: usize, out: *mut T));
    // SAFETY: the caller's promise.
    unsafe { kernels[isa() as usize](factors, rows, width, out) }
}

/// Scores become softmax p, from their logarithms of totals; `slopes`, g·vᵀ, become scale·p·(slope - shift), the
/// gradient of q·kᵀ.
///
/// # Safety
/// Both tiles are valid, the padding of their rows included; each row has its log and shift.
pub unsafe fn gradient<T: Number>(tile: &Tile<T>, slopes: *mut T, logs: *const T, shifts: *const T) {
    let kernels = by_isa!(gradient_rows<T: Number>(tile: &Tile<T>, slopes: *mut T, logs: *const T, shifts: *const T));
    // SAFETY: the caller's promise.
    unsafe { kernels[isa() as usize](tile, slopes, logs, shifts) }
}

/// Σ x·y over n elements that are xs and ys apart.
///
/// # Safety
/// The elements are valid.
pub unsafe fn dot<T: Number>(n: usize, x: *const T, xs: isize, y: *const T, ys: isize) -> T {
    let mut result = T::ZERO;
    let kernels = by_isa!(dot_row<T: Number>(n: usize, x: *const T, xs: isize, y: *const T, ys: isize, out: &mut T));
    // SAFETY: the caller's promise.
    unsafe { kernels[isa() as usize](n, x, xs, y, ys, &mut result) }
    result
}

/// Scales and masks the scores that a row sees, fills up the last lanes with -inf, and gives how many lanes there are.
#[inline(always)]
unsafe fn prepare<T: Number>(tile: &Tile<T>, row: usize, scores: *mut T) -> usize {
    let seen = tile.seen(row);
    // SAFETY: the caller's promise for tile and mask.
    unsafe {
        for j in 0..seen {
            *scores.add(j) = *scores.add(j) * tile.scale;
        }
        match tile.mask {
            Mask::None => {}
            Mask::Keep { ptr, rs, cs } => {
                let mask = ptr.offset(row as isize * rs);
                for j in 0..seen {
                    let score = *scores.add(j);
                    *scores.add(j) = if *mask.offset(j as isize * cs) != 0 { score } else { T::NEG_INFINITY };
                }
            }
            Mask::Add { ptr, rs, cs } => {
                let mask = ptr.offset(row as isize * rs);
                for j in 0..seen {
                    *scores.add(j) = *scores.add(j) + *mask.offset(j as isize * cs);
                }
            }
        }
        let lanes = seen.next_multiple_of(LANES);
        for j in seen..lanes {
            *scores.add(j) = T::NEG_INFINITY;
        }
        lanes
    }
}

#[inline(always)]
fn fold<T: Number>(mut lanes: [T; LANES], f: impl Fn(T, T) -> T) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = f(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// e^x, and 0 where that would be no normal number: masked scores are many, and the CPU is slow at tiny numbers.
#[inline(always)]
fn weight<T: Number, const FMA: bool>(x: T) -> T {
    let least = T::from_f64(if T::DOUBLE { -708.0 } else { -87.0 });
    let y = exp::<T, FMA>(if x < least { least } else { x });
    if x < least { T::ZERO } else { y }
}

#[inline(always)]
unsafe fn softmax_rows<T: Number, const FMA: bool>(tile: &Tile<T>, running: &Running<T>) {
    let larger = |x: T, y: T| if y > x { y } else { x };
    // SAFETY: the caller's promise; the states are whole lanes.
    unsafe {
        for row in 0..tile.rows {
            let scores = tile.scores.add(row * tile.stride);
            let lanes = prepare(tile, row, scores);
            let mut most = [T::NEG_INFINITY; LANES];
            for at in (0..lanes).step_by(LANES) {
                let block = scores.add(at).cast::<[T; LANES]>().read();
                for i in 0..LANES {
                    most[i] = larger(most[i], block[i]);
                }
            }
            *running.latest.add(row) = fold(most, larger);
        }
        for at in (0..tile.rows).step_by(LANES) {
            let (largest, total) = (running.largest.add(at), running.total.add(at));
            let (latest, correction) = (running.latest.add(at), running.correction.add(at));
            for i in 0..LANES {
                let before = *largest.add(i);
                let now = larger(before, *latest.add(i));
                *correction.add(i) = weight::<T, FMA>(before - origin(now));
                *total.add(i) = *total.add(i) * *correction.add(i);
                *largest.add(i) = now;
            }
        }
        for row in 0..tile.rows {
            let scores = tile.scores.add(row * tile.stride);
            let origin = origin(*running.largest.add(row));
            let lanes = tile.seen(row).next_multiple_of(LANES);
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
            for j in lanes..tile.cols {
                *scores.add(j) = T::ZERO;
            }
            *running.total.add(row) += fold(sums, |x, y| x + y);
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
    out: *mut T,
    logs: *mut T,
) {
    // SAFETY: the caller's promise.
    unsafe {
        for row in 0..rows {
            let total = *running.total.add(row);
            let share = if total == T::ZERO { T::ZERO } else { T::ONE / total };
            let out = out.add(row * width);
            for j in 0..width {
                *out.add(j) = *out.add(j) * share;
            }
            *logs.add(row) = *running.largest.add(row) + log::<T, FMA>(total);
        }
    }
}

#[inline(always)]
unsafe fn rescale_rows<T: Number, const FMA: bool>(factors: *const T, rows: usize, width: usize, out: *mut T) {
    // SAFETY: the caller's promise.
    unsafe {
        for row in 0..rows {
            let (factor, out) = (*factors.add(row), out.add(row * width));
            for j in 0..width {
                *out.add(j) = *out.add(j) * factor;
            }
        }
    }
}

#[inline(always)]
unsafe fn gradient_rows<T: Number, const FMA: bool>(tile: &Tile<T>, slopes: *mut T, logs: *const T, shifts: *const T) {
    // SAFETY: the caller's promise.
    unsafe {
        for row in 0..tile.rows {
            let (scores, slopes) = (tile.scores.add(row * tile.stride), slopes.add(row * tile.stride));
            let lanes = prepare(tile, row, scores);
            let (log, shift) = (*logs.add(row), *shifts.add(row));
            let log = origin(log);
            for at in (0..lanes).step_by(LANES) {
                let (block, slope) = (scores.add(at).cast::<[T; LANES]>(), slopes.add(at).cast::<[T; LANES]>());
                let (mut p, mut ds) = (block.read(), slope.read());
                for i in 0..LANES {
                    p[i] = weight::<T, FMA>(p[i] - log);
                    let moved = p[i] * (ds[i] - shift) * tile.scale;
                    ds[i] = if p[i] == T::ZERO { T::ZERO } else { moved };
                }
                block.write(p);
                slope.write(ds);
            }
            for j in lanes..tile.cols {
                *scores.add(j) = T::ZERO;
                *slopes.add(j) = T::ZERO;
            }
        }
    }
}

#[inline(always)]
unsafe fn dot_row<T: Number, const FMA: bool>(n: usize, x: *const T, xs: isize, y: *const T, ys: isize, out: &mut T) {
    let mut sums = [T::ZERO; LANES];
    // SAFETY: the caller's promise.
    unsafe {
        let whole = if xs == 1 && ys == 1 { n / LANES * LANES } else { 0 };
        for at in (0..whole).step_by(LANES) {
            let (a, b) = (x.add(at).cast::<[T; LANES]>().read(), y.add(at).cast::<[T; LANES]>().read());
            for i in 0..LANES {
                sums[i] = a[i].fma::<FMA>(b[i], sums[i]);
            }
        }
        for at in whole..n {
            let lane = &mut sums[at % LANES];
            *lane = (*x.offset(at as isize * xs)).fma::<FMA>(*y.offset(at as isize * ys), *lane);
        }
    }
    *out = fold(sums, |a, b| a + b);
}
