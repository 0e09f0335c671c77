//! `Simd`: the few vector operations that the matrix kernels are written in, and the portable backend.
//!
//! A backend is a zero-sized type for one element type and instruction set. Its functions are `inline(always)`, so that
//! they take the instruction set of the function they end up in: call them only below an entry point that enables it.

use super::Element;

/// # Safety
/// For all functions: the CPU has the backend's instruction set, and the memory named by pointers and counts is valid.
pub trait Simd {
    type T: Element;
    type V: Copy;
    type M: Copy;
    const LANES: usize;

    unsafe fn splat(value: Self::T) -> Self::V;
    unsafe fn load(from: *const Self::T) -> Self::V;
    unsafe fn store(to: *mut Self::T, v: Self::V);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    /// a · b + c, rounded once where the instruction set can.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;

    /// Fetches a cache line for a read to come. Any address will do.
    unsafe fn prefetch(at: *const Self::T);

    /// The first `count` lanes, at most all.
    unsafe fn mask(count: usize) -> Self::M;
    /// Lanes outside the mask are zero, and their memory is not touched.
    unsafe fn load_mask(from: *const Self::T, mask: Self::M) -> Self::V;
    unsafe fn store_mask(to: *mut Self::T, v: Self::V, mask: Self::M);

    /// Reads `lanes` runs of `depth` consecutive elements, `stride` apart, and writes `depth` vectors, `step` apart.
    /// Both counts are in 1..=LANES. Lanes past `lanes` repeat the last run.
    unsafe fn transpose(from: *const Self::T, stride: isize, lanes: usize, depth: usize, to: *mut Self::T, step: usize);

    /// LANES multiply-adds in order: `acc` + a\[p\] · column p of LANES runs of as many elements, `stride` apart. The
    /// factors are `a_step` apart.
    unsafe fn fold(a: *const Self::T, a_step: isize, from: *const Self::T, stride: isize, acc: Self::V) -> Self::V;
}

/// Vectors of 16 bytes that any compiler target has; no FMA.
pub struct Portable<T>(T);

macro_rules! portable {
    ($t:ty, $lanes:literal) => {
        impl Simd for Portable<$t> {
            type T = $t;
            type V = [$t; $lanes];
            type M = usize;
            const LANES: usize = $lanes;

            #[inline(always)]
            unsafe fn splat(value: $t) -> Self::V {
                [value; $lanes]
            }

            #[inline(always)]
            unsafe fn load(from: *const $t) -> Self::V {
                // SAFETY: the caller grants LANES elements.
                unsafe { from.cast::<Self::V>().read_unaligned() }
            }

            #[inline(always)]
            unsafe fn store(to: *mut $t, v: Self::V) {
                // SAFETY: the caller grants LANES elements.
                unsafe { to.cast::<Self::V>().write_unaligned(v) }
            }

            #[inline(always)]
            unsafe fn add(mut a: Self::V, b: Self::V) -> Self::V {
                for lane in 0..$lanes {
                    a[lane] += b[lane];
                }
                a
            }

            #[inline(always)]
            unsafe fn fma(a: Self::V, b: Self::V, mut c: Self::V) -> Self::V {
                for lane in 0..$lanes {
                    c[lane] += a[lane] * b[lane];
                }
                c
            }

            #[inline(always)]
            unsafe fn prefetch(_: *const $t) {}

            #[inline(always)]
            unsafe fn mask(count: usize) -> usize {
                count.min($lanes)
            }

            #[inline(always)]
            unsafe fn load_mask(from: *const $t, mask: usize) -> Self::V {
                let mut v = [0.0; $lanes];
                for lane in 0..mask {
                    // SAFETY: the caller grants the lanes in the mask.
                    v[lane] = unsafe { *from.add(lane) };
                }
                v
            }

            #[inline(always)]
            unsafe fn store_mask(to: *mut $t, v: Self::V, mask: usize) {
                for lane in 0..mask {
                    // SAFETY: the caller grants the lanes in the mask.
                    unsafe { *to.add(lane) = v[lane] };
                }
            }

            #[inline(always)]
            unsafe fn transpose(from: *const $t, stride: isize, lanes: usize, depth: usize, to: *mut $t, step: usize) {
                for lane in 0..$lanes {
                    for p in 0..depth {
                        // SAFETY: the run and the element are inside what the caller grants.
                        unsafe {
                            let run = from.offset(lane.min(lanes - 1) as isize * stride);
                            *to.add(p * step + lane) = *run.add(p);
                        }
                    }
                }
            }

            #[inline(always)]
            unsafe fn fold(a: *const $t, a_step: isize, from: *const $t, stride: isize, mut acc: Self::V) -> Self::V {
                for p in 0..$lanes {
                    for lane in 0..$lanes {
                        // SAFETY: the factor is inside what the caller grants.
                        let factor = unsafe { *a.offset(p as isize * a_step) };
                        // SAFETY: so is the element.
                        let element = unsafe { *from.offset(lane as isize * stride).add(p) };
                        acc[lane] += factor * element;
                    }
                }
                acc
            }
        }
    };
}

portable!(f32, 4);
portable!(f64, 2);
