//! The micro-kernel: one tile of C, at most `rows` × two vectors, kept in registers over one block of K.
//!
//! One generic body serves all; `table!` compiles it for an instruction set and for each tile height, so that rows are
//! cut evenly instead of leaving a weak remainder. Each element is one serial chain of multiply-adds, whatever the tile.

use super::across;
use super::depth;
use super::pack;
use super::simd::{Portable, Simd};
use super::slide;
use super::thin;
#[cfg(target_arch = "x86_64")]
use super::x86::{Avx2, Avx512};

/// One call of a kernel. Strides are in elements.
pub struct Tile<T> {
    /// Steps of K without a break, and how often that many come: between two such runs A skips `a_skip` elements.
    pub depth: usize,
    pub runs: usize,
    pub a_skip: isize,
    pub a: *const T,
    pub a_rs: isize,
    pub a_ks: isize,
    /// Rows of contiguous elements.
    pub b: *const T,
    pub b_ks: isize,
    /// Where [`Rows::Copied`] leaves B, in the layout of a packed panel.
    pub b_packed: *mut T,
    pub c: *mut T,
    pub c_rs: isize,
    /// Columns of C to write.
    pub cols: usize,
    /// Adds the tile to C instead of overwriting it.
    pub add: bool,
    /// For [`Rows::Fetching`] and [`Rows::Copied`].
    pub fetch: Fetch<T>,
}

/// Cache lines that a tile fetches for later ones: two, `pair` elements apart, and after each run the two `step` further.
#[derive(Clone, Copy)]
pub struct Fetch<T> {
    pub at: *const T,
    pub pair: isize,
    pub step: isize,
}

impl<T> Fetch<T> {
    pub const NOTHING: Self = Fetch { at: std::ptr::null(), pair: 0, step: 0 };
}

/// How a kernel reads the rows of B.
#[derive(Clone, Copy)]
pub enum Rows {
    /// Whole vectors.
    Full,
    /// The rows end inside the last vector.
    Masked,
    /// As `Masked`; and copies them, which is cheaper than a pass of its own: the store ports are idle. Fetches too.
    Copied,
    /// As `Full`; and after each run fetches a row of C and two lines for later tiles.
    Fetching,
}

const FULL: usize = Rows::Full as usize;
const MASKED: usize = Rows::Masked as usize;
const COPIED: usize = Rows::Copied as usize;
const FETCHING: usize = Rows::Fetching as usize;
/// Rows of B that a copying kernel fetches ahead: rows far apart are beyond the CPU's own guess.
const AHEAD: isize = 16;

/// Vectors of a tile of one row: with two, as in the others, each multiply-add would wait for the last.
const ROW_VECTORS: usize = 8;

/// Thirds of the tallest tile, 14 rows.
const GROUPS: usize = 5;

pub type Kernel<T> = unsafe fn(&Tile<T>);

/// The kernels of one instruction set and element type.
pub struct Kernels<T: 'static> {
    pub lanes: usize,
    /// By rows − 1, vectors − 1, contiguous columns of A (`a_rs` = 1), and [`Rows`] of B.
    tiles: &'static [[[[Kernel<T>; 4]; 2]; 2]],
    /// Of one row by [`ROW_VECTORS`] vectors, for a B that is read in place.
    row: Kernel<T>,
    pub thin: thin::Thin<T>,
    pub pack: pack::Pack<T>,
    pub gather: pack::Gather<T>,
    pub copy_lines: pack::CopyLines<T>,
    pub merge: depth::Merge<T>,
    /// By places - 1.
    pub crossings: [across::Crossing<T>; across::MOST_PLACES],
    /// By rows - 1.
    pub slides: [slide::Sliding<T>; slide::MOST_ROWS],
}

impl<T> Kernels<T> {
    /// The tallest tile.
    pub fn rows(&self) -> usize {
        self.tiles.len()
    }

    /// The widest tile.
    pub fn cols(&self) -> usize {
        2 * self.lanes
    }

    /// The elements of the whole vectors that hold `n`. Vectors have a power of two of them.
    pub fn padded(&self, n: usize) -> usize {
        (n + self.lanes - 1) & !(self.lanes - 1)
    }

    /// Columns of the tile of one row.
    pub fn row_cols(&self) -> usize {
        ROW_VECTORS * self.lanes
    }

    pub fn row(&self) -> Kernel<T> {
        self.row
    }

    pub fn tile(&self, rows: usize, wide: bool, contiguous_a: bool, b: Rows) -> Kernel<T> {
        self.tiles[rows - 1][wide as usize][contiguous_a as usize][b as usize]
    }
}

/// # Safety
/// The CPU has the instruction set of `S`; A and B cover the tile; C covers MR × `cols`, with `cols` in the last of the
/// NV vectors. With `FULL` and `FETCHING`, rows of B reach to the end of that vector; with `COPIED`, `b_packed` has room
/// for `depth` times NV vectors.
#[allow(clippy::needless_range_loop, reason = "plain counted loops are unrolled, so that `acc` lives in registers")]
#[inline(always)]
unsafe fn tile<S: Simd, const MR: usize, const NV: usize, const CONTIGUOUS_A: bool, const B: usize>(t: &Tile<S::T>) {
    // SAFETY: the caller's promise covers each element that is read or written.
    unsafe {
        let full = t.cols == NV * S::LANES;
        let mask = S::mask(t.cols - (NV - 1) * S::LANES);
        let mut acc = [[S::splat(S::T::default()); NV]; MR];
        let (mut b, mut packed) = (t.b, t.b_packed);
        // Every third row of A has a pointer, and x86 reaches the two after it by index: one each would not fit in
        // registers. Hidden from the compiler, which would else chain them into one addition for each row.
        let rs = t.a_rs * size_of::<S::T>() as isize;
        let mut a = [t.a; GROUPS];
        if !CONTIGUOUS_A {
            for group in 1..MR.div_ceil(3) {
                a[group] = std::hint::black_box(a[group - 1].byte_offset(3 * rs));
            }
        }
        for run in 0..t.runs {
            for _ in 0..t.depth {
                let mut row = [S::splat(S::T::default()); NV];
                for j in 0..NV {
                    let from = b.add(j * S::LANES);
                    row[j] = if (B == MASKED || B == COPIED) && j == NV - 1 {
                        S::load_mask(from, mask)
                    } else {
                        S::load(from)
                    };
                    if B == COPIED || NV == ROW_VECTORS {
                        S::prefetch(from.wrapping_offset(AHEAD * t.b_ks));
                    }
                    if B == COPIED {
                        S::store(packed.add(j * S::LANES), row[j]);
                    }
                }
                if B == COPIED {
                    packed = packed.wrapping_add(NV * S::LANES);
                }
                if CONTIGUOUS_A {
                    for i in 0..MR {
                        let factor = S::splat(*a[0].add(i));
                        for j in 0..NV {
                            acc[i][j] = S::fma(factor, row[j], acc[i][j]);
                        }
                    }
                    a[0] = a[0].wrapping_offset(t.a_ks);
                } else {
                    for group in 0..GROUPS {
                        for within in 0..3 {
                            let i = 3 * group + within;
                            if i < MR {
                                let factor = S::splat(*a[group].byte_offset(within as isize * rs));
                                for j in 0..NV {
                                    acc[i][j] = S::fma(factor, row[j], acc[i][j]);
                                }
                            }
                        }
                        a[group] = a[group].wrapping_offset(t.a_ks);
                    }
                }
                b = b.wrapping_offset(t.b_ks);
            }
            for group in 0..MR.div_ceil(3) {
                a[group] = a[group].wrapping_offset(t.a_skip);
            }
            if B == COPIED || B == FETCHING {
                let at = t.fetch.at.wrapping_offset(run as isize * t.fetch.step);
                S::prefetch(at);
                S::prefetch(at.wrapping_offset(t.fetch.pair));
                if run < MR {
                    let c = t.c.wrapping_offset(run as isize * t.c_rs);
                    (0..NV).for_each(|j| S::prefetch(c.wrapping_add(j * S::LANES)));
                }
            }
        }
        for i in 0..MR {
            let c = t.c.offset(i as isize * t.c_rs);
            for j in 0..NV {
                let (to, mut v) = (c.add(j * S::LANES), acc[i][j]);
                if full || j + 1 < NV {
                    if t.add {
                        v = S::add(S::load(to), v);
                    }
                    S::store(to, v);
                } else {
                    if t.add {
                        v = S::add(S::load_mask(to, mask), v);
                    }
                    S::store_mask(to, v, mask);
                }
            }
        }
    }
}

/// The kernels of one height, width and layout of A, by [`Rows`].
macro_rules! kinds {
    ($mr:literal, $nv:literal, $contiguous:literal) => {
        [
            entry::<$mr, $nv, $contiguous, FULL>,
            entry::<$mr, $nv, $contiguous, MASKED>,
            entry::<$mr, $nv, $contiguous, COPIED>,
            entry::<$mr, $nv, $contiguous, FETCHING>,
        ]
    };
}

macro_rules! table {
    ($name:ident, $simd:ty, [$($mr:literal)*] $(, $feature:literal)?) => {
        pub static $name: Kernels<<$simd as Simd>::T> = {
            type T = <$simd as Simd>::T;

            $(#[target_feature(enable = $feature)])?
            unsafe fn entry<const MR: usize, const NV: usize, const CONTIGUOUS_A: bool, const B: usize>(
                t: &Tile<T>,
            ) {
                // SAFETY: the caller's promise.
                unsafe { tile::<$simd, MR, NV, CONTIGUOUS_A, B>(t) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn thin(columns: &thin::Columns<T>) {
                // SAFETY: the caller's promise.
                unsafe { thin::thin::<$simd>(columns) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn pack(panel: &pack::Panel<T>, to: *mut T) {
                // SAFETY: the caller's promise.
                unsafe { pack::pack::<$simd>(panel, to) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn gather(columns: &pack::Columns<T>, to: *mut T) {
                // SAFETY: the caller's promise.
                unsafe { pack::gather::<$simd>(columns, to) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn copy_lines(lines: &pack::Lines<T>, to: *mut T) {
                // SAFETY: the caller's promise.
                unsafe { pack::copy_lines::<$simd>(lines, to) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn merge(to: *mut T, from: *mut T, n: usize) {
                // SAFETY: the caller's promise.
                unsafe { depth::merge::<$simd>(to, from, n) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn slide<const MR: usize, const NV: usize>(slide: &slide::Slide<T>) {
                // SAFETY: the caller's promise.
                unsafe { slide::slide::<$simd, MR, NV>(slide) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn cross<const N: usize>(across: &across::Across<T>) {
                // SAFETY: the caller's promise.
                unsafe { across::across::<$simd, N>(across) }
            }

            Kernels {
                lanes: <$simd as Simd>::LANES,
                tiles: &[$([
                    [kinds!($mr, 1, false), kinds!($mr, 1, true)],
                    [kinds!($mr, 2, false), kinds!($mr, 2, true)],
                ]),*],
                row: entry::<1, ROW_VECTORS, false, 0>,
                thin,
                pack,
                gather,
                copy_lines,
                merge,
                crossings: [
                    cross::<1>,
                    cross::<2>,
                    cross::<3>,
                    cross::<4>,
                    cross::<5>,
                    cross::<6>,
                    cross::<7>,
                    cross::<8>,
                    cross::<9>,
                ],
                slides: [
                    slide::<1, { slide::VECTORS[0] }>,
                    slide::<2, { slide::VECTORS[1] }>,
                    slide::<3, { slide::VECTORS[2] }>,
                    slide::<4, { slide::VECTORS[3] }>,
                ],
            }
        };
    };
}

table!(PORTABLE_F32, Portable<f32>, [1 2 3 4 5 6]);
table!(PORTABLE_F64, Portable<f64>, [1 2 3 4 5 6]);

#[cfg(target_arch = "x86_64")]
mod x86_tables {
    use super::*;
    table!(AVX2_F32, Avx2<f32>, [1 2 3 4 5 6], "avx2,fma,bmi2");
    table!(AVX2_F64, Avx2<f64>, [1 2 3 4 5 6], "avx2,fma,bmi2");
    table!(AVX512_F32, Avx512<f32>, [1 2 3 4 5 6 7 8 9 10 11 12 13 14], "avx512f,avx512vl,avx512dq,avx512bw,avx512cd,fma,bmi2");
    table!(AVX512_F64, Avx512<f64>, [1 2 3 4 5 6 7 8 9 10 11 12 13 14], "avx512f,avx512vl,avx512dq,avx512bw,avx512cd,fma,bmi2");
}
#[cfg(target_arch = "x86_64")]
pub use x86_tables::*;
