//! A few rows of A that slide over a field: columns of B are read where they lie, because so few rows do not pay for a
//! packed copy. Each element is the same serial chain of multiply-adds as in a tile.

use super::simd::Simd;

/// Lines of columns against at most [`MOST_ROWS`] rows. Strides are in elements.
pub struct Slide<'a, T> {
    /// The rows of A, side by side for each step of K.
    pub factors: *const T,
    /// For each step of K: element j of a line meets `from[offsets[k] + j]`.
    pub offsets: &'a [isize],
    pub from: *const T,
    pub from_step: usize,
    pub to: *mut T,
    pub to_step: usize,
    /// From row to row of the result.
    pub row_step: usize,
    pub width: usize,
    pub lines: usize,
}

pub type Sliding<T> = unsafe fn(&Slide<T>);

/// Rows that a slide has at most.
pub const MOST_ROWS: usize = 4;

/// Vectors of a line that are worked on together, by rows - 1: as many chains as hide the latency of one.
pub const VECTORS: [usize; MOST_ROWS] = [8, 4, 4, 2];

/// # Safety
/// The CPU has the instruction set of `S`; each element that a column meets is readable, MR rows of each line are
/// writable at `to`, and there are MR factors for each step of K.
#[inline(always)]
pub unsafe fn slide<S: Simd, const MR: usize, const NV: usize>(slide: &Slide<S::T>) {
    let (mut from, mut to) = (slide.from, slide.to);
    let whole = (slide.width.max(1) - 1) / (NV * S::LANES);
    let rest = slide.width - whole * NV * S::LANES;
    let vectors = rest.div_ceil(S::LANES);
    // SAFETY: the caller's promise; blocks cover the elements of a line.
    unsafe {
        let all = S::mask(S::LANES);
        let mask = S::mask(rest - (vectors.max(1) - 1) * S::LANES);
        for _ in 0..slide.lines {
            for block in 0..whole {
                let at = block * NV * S::LANES;
                columns::<S, MR, NV, false>(slide, from.add(at), to.add(at), all);
            }
            let (from_rest, to_rest) = (from.add(whole * NV * S::LANES), to.add(whole * NV * S::LANES));
            macro_rules! rest {
                ($($n:literal)*) => {
                    match vectors {
                        $($n if $n <= NV => columns::<S, MR, $n, true>(slide, from_rest, to_rest, mask),)*
                        _ => {}
                    }
                };
            }
            rest!(1 2 3 4 5 6 7 8);
            (from, to) = (from.wrapping_add(slide.from_step), to.wrapping_add(slide.to_step));
        }
    }
}

/// `NV` vectors of a line; with `MASKED`, of the last one the lanes in the mask.
#[allow(clippy::needless_range_loop, reason = "plain counted loops are unrolled, so that `acc` lives in registers")]
#[inline(always)]
unsafe fn columns<S: Simd, const MR: usize, const NV: usize, const MASKED: bool>(
    slide: &Slide<S::T>,
    from: *const S::T,
    to: *mut S::T,
    mask: S::M,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut acc = [[S::splat(S::T::default()); NV]; MR];
        let mut factors = slide.factors;
        for &offset in slide.offsets {
            let from = from.offset(offset);
            for j in 0..NV {
                let at = from.add(j * S::LANES);
                let column = if MASKED && j == NV - 1 { S::load_mask(at, mask) } else { S::load(at) };
                for i in 0..MR {
                    acc[i][j] = S::fma(S::splat(*factors.add(i)), column, acc[i][j]);
                }
            }
            factors = factors.add(MR);
        }
        for i in 0..MR {
            for j in 0..NV {
                let to = to.add(i * slide.row_step + j * S::LANES);
                if MASKED && j == NV - 1 {
                    S::store_mask(to, acc[i][j], mask);
                } else {
                    S::store(to, acc[i][j]);
                }
            }
        }
    }
}
