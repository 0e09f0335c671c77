//! Products of many small groups, a lane each: for the gradient of a weight that has one channel or a few in a group.
//! Each element is the same serial chain of multiply-adds as in a tile.

use super::simd::Simd;

/// Sums over windows of field · g, for some places of the field beside a window. Elements are vectors of one lane a
/// group; steps are in vectors.
pub struct Across<'a, T> {
    /// From a window to the places of the field, at most [`MOST_PLACES`].
    pub offsets: &'a [usize],
    pub field: *const T,
    pub g: *const T,
    /// Adjacent windows, and how often that many come: between two of them the field skips `skip`.
    pub width: usize,
    pub runs: usize,
    pub skip: usize,
    /// A vector for each place.
    pub to: *mut T,
    /// Adds to what is there instead of overwriting it.
    pub add: bool,
}

pub type Crossing<T> = unsafe fn(&Across<T>);

/// Sums that are kept in registers together.
pub const MOST_PLACES: usize = 9;

/// # Safety
/// The CPU has the instruction set of `S`; there are N offsets, and field, g and result cover what they name.
#[allow(clippy::needless_range_loop, reason = "plain counted loops are unrolled, so that `acc` lives in registers")]
#[inline(always)]
pub unsafe fn across<S: Simd, const N: usize>(across: &Across<S::T>) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut acc = [S::splat(S::T::default()); N];
        let mut fields = [across.field; N];
        for i in 0..N {
            fields[i] = across.field.add(across.offsets[i] * S::LANES);
        }
        let (mut g, mut at) = (across.g, 0);
        for _ in 0..across.runs {
            for _ in 0..across.width {
                let row = S::load(g);
                for i in 0..N {
                    acc[i] = S::fma(S::load(fields[i].add(at)), row, acc[i]);
                }
                (g, at) = (g.add(S::LANES), at + S::LANES);
            }
            at += across.skip * S::LANES;
        }
        for i in 0..N {
            let to = across.to.add(i * S::LANES);
            S::store(to, if across.add { S::add(S::load(to), acc[i]) } else { acc[i] });
        }
    }
}
