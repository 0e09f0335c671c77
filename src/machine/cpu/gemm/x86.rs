//! The `Simd` backends for AVX2 with FMA and for AVX-512.

use std::arch::x86_64::*;

use super::simd::Simd;

pub struct Avx2<T>(T);
pub struct Avx512<T>(T);

/// What all four backends write alike: one intrinsic for each function.
macro_rules! backend {
    (
        $backend:ident<$t:ty>, $v:ty, $m:ty, $lanes:literal, $splat:ident, $load:ident, $store:ident, $add:ident,
        $fma:ident, $mask:expr, $load_mask:expr, $store_mask:expr, $columns:ident
    ) => {
        impl Simd for $backend<$t> {
            type T = $t;
            type V = $v;
            type M = $m;
            const LANES: usize = $lanes;

            #[inline(always)]
            unsafe fn splat(value: $t) -> $v {
                // SAFETY: the caller has the instruction set.
                unsafe { $splat(value) }
            }

            #[inline(always)]
            unsafe fn load(from: *const $t) -> $v {
                // SAFETY: the caller has the instruction set and grants LANES elements.
                unsafe { $load(from) }
            }

            #[inline(always)]
            unsafe fn store(to: *mut $t, v: $v) {
                // SAFETY: as for `load`.
                unsafe { $store(to, v) }
            }

            #[inline(always)]
            unsafe fn add(a: $v, b: $v) -> $v {
                // SAFETY: the caller has the instruction set.
                unsafe { $add(a, b) }
            }

            #[inline(always)]
            unsafe fn fma(a: $v, b: $v, c: $v) -> $v {
                // SAFETY: the caller has the instruction set.
                unsafe { $fma(a, b, c) }
            }

            #[inline(always)]
            unsafe fn prefetch(at: *const $t) {
                // SAFETY: a prefetch faults on no address.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
            }

            #[inline(always)]
            unsafe fn mask(count: usize) -> $m {
                // SAFETY: the caller has the instruction set.
                unsafe { $mask(count.min($lanes)) }
            }

            #[inline(always)]
            unsafe fn load_mask(from: *const $t, mask: $m) -> $v {
                // SAFETY: the caller has the instruction set and grants the lanes in the mask.
                unsafe { $load_mask(from, mask) }
            }

            #[inline(always)]
            unsafe fn store_mask(to: *mut $t, v: $v, mask: $m) {
                // SAFETY: as for `load_mask`.
                unsafe { $store_mask(to, v, mask) }
            }

            #[inline(always)]
            unsafe fn transpose(from: *const $t, stride: isize, lanes: usize, depth: usize, to: *mut $t, step: usize) {
                // SAFETY: each run read and each vector written is inside what the caller grants.
                unsafe {
                    let mut runs = [from; $lanes];
                    for lane in 1..$lanes {
                        runs[lane] = runs[lane - 1].wrapping_offset(if lane < lanes { stride } else { 0 });
                    }
                    if depth == $lanes {
                        let columns = $columns(&runs);
                        for p in 0..$lanes {
                            Self::store(to.add(p * step), columns[p]);
                        }
                        return;
                    }
                    let mut whole = [[0.0; $lanes]; $lanes];
                    let mask = Self::mask(depth);
                    for lane in 0..$lanes {
                        Self::store(whole[lane].as_mut_ptr(), Self::load_mask(runs[lane], mask));
                        runs[lane] = whole[lane].as_ptr();
                    }
                    let columns = $columns(&runs);
                    for p in 0..depth {
                        Self::store(to.add(p * step), columns[p]);
                    }
                }
            }

            #[inline(always)]
            unsafe fn fold(a: *const $t, a_step: isize, from: *const $t, stride: isize, mut acc: $v) -> $v {
                // SAFETY: the caller has the instruction set and grants runs and factors.
                unsafe {
                    let mut runs = [from; $lanes];
                    for lane in 1..$lanes {
                        runs[lane] = runs[lane - 1].offset(stride);
                    }
                    let columns = $columns(&runs);
                    for p in 0..$lanes {
                        acc = Self::fma(Self::splat(*a.offset(p as isize * a_step)), columns[p], acc);
                    }
                    acc
                }
            }
        }
    };
}

backend!(
    Avx512<f32>,
    __m512,
    __mmask16,
    16,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_add_ps,
    _mm512_fmadd_ps,
    low_bits16,
    |from, mask| _mm512_maskz_loadu_ps(mask, from),
    |to, v, mask| _mm512_mask_storeu_ps(to, mask, v),
    columns_512_f32
);
backend!(
    Avx512<f64>,
    __m512d,
    __mmask8,
    8,
    _mm512_set1_pd,
    _mm512_loadu_pd,
    _mm512_storeu_pd,
    _mm512_add_pd,
    _mm512_fmadd_pd,
    low_bits8,
    |from, mask| _mm512_maskz_loadu_pd(mask, from),
    |to, v, mask| _mm512_mask_storeu_pd(to, mask, v),
    columns_512_f64
);
backend!(
    Avx2<f32>,
    __m256,
    __m256i,
    8,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_add_ps,
    _mm256_fmadd_ps,
    low_lanes32,
    _mm256_maskload_ps,
    |to, v, mask| _mm256_maskstore_ps(to, mask, v),
    columns_256_f32
);
backend!(
    Avx2<f64>,
    __m256d,
    __m256i,
    4,
    _mm256_set1_pd,
    _mm256_loadu_pd,
    _mm256_storeu_pd,
    _mm256_add_pd,
    _mm256_fmadd_pd,
    low_lanes64,
    _mm256_maskload_pd,
    |to, v, mask| _mm256_maskstore_pd(to, mask, v),
    columns_256_f64
);

#[inline(always)]
unsafe fn low_bits16(count: usize) -> __mmask16 {
    ((1u32 << count) - 1) as __mmask16
}

#[inline(always)]
unsafe fn low_bits8(count: usize) -> __mmask8 {
    ((1u32 << count) - 1) as __mmask8
}

#[inline(always)]
unsafe fn low_lanes32(count: usize) -> __m256i {
    // SAFETY: the caller has AVX2.
    unsafe { _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)) }
}

#[inline(always)]
unsafe fn low_lanes64(count: usize) -> __m256i {
    // SAFETY: the caller has AVX2.
    unsafe { _mm256_cmpgt_epi64(_mm256_set1_epi64x(count as i64), _mm256_setr_epi64x(0, 1, 2, 3)) }
}

// Transposes. A vector takes the same 16 bytes of the runs i, i + s, i + 2 s …, one run for each of its 128-bit quarters:
// inserting from memory does not burden the one port that shuffles. What is left is a transpose inside each quarter.

#[inline(always)]
unsafe fn columns_512_f32(runs: &[*const f32; 16]) -> [__m512; 16] {
    // SAFETY: the caller has AVX-512, and each run has 16 elements.
    unsafe {
        // The parts of a run in turn: runs that are far apart push each other out of the cache.
        let mut rows = [[_mm512_setzero_ps(); 4]; 4];
        for i in 0..4 {
            for (part, rows) in rows.iter_mut().enumerate() {
                let quarter = |q: usize| _mm_loadu_ps(runs[i + 4 * q].add(4 * part));
                let v = _mm512_broadcast_f32x4(quarter(0));
                let v = _mm512_mask_broadcast_f32x4(v, 0x00f0, quarter(1));
                let v = _mm512_mask_broadcast_f32x4(v, 0x0f00, quarter(2));
                rows[i] = _mm512_mask_broadcast_f32x4(v, 0xf000, quarter(3));
            }
        }
        let mut out = [_mm512_setzero_ps(); 16];
        for (part, rows) in rows.iter().enumerate() {
            let low01 = _mm512_castps_pd(_mm512_unpacklo_ps(rows[0], rows[1]));
            let high01 = _mm512_castps_pd(_mm512_unpackhi_ps(rows[0], rows[1]));
            let low23 = _mm512_castps_pd(_mm512_unpacklo_ps(rows[2], rows[3]));
            let high23 = _mm512_castps_pd(_mm512_unpackhi_ps(rows[2], rows[3]));
            out[4 * part] = _mm512_castpd_ps(_mm512_unpacklo_pd(low01, low23));
            out[4 * part + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low01, low23));
            out[4 * part + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high01, high23));
            out[4 * part + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high01, high23));
        }
        out
    }
}

#[inline(always)]
unsafe fn columns_512_f64(runs: &[*const f64; 8]) -> [__m512d; 8] {
    // SAFETY: the caller has AVX-512, and each run has 8 elements.
    unsafe {
        let mut out = [_mm512_setzero_pd(); 8];
        for part in 0..4 {
            let mut rows = [out[0]; 2];
            for i in 0..2 {
                let quarter = |q: usize| _mm_loadu_pd(runs[i + 2 * q].add(2 * part));
                let v = _mm512_broadcast_f64x2(quarter(0));
                let v = _mm512_mask_broadcast_f64x2(v, 0x0c, quarter(1));
                let v = _mm512_mask_broadcast_f64x2(v, 0x30, quarter(2));
                rows[i] = _mm512_mask_broadcast_f64x2(v, 0xc0, quarter(3));
            }
            out[2 * part] = _mm512_unpacklo_pd(rows[0], rows[1]);
            out[2 * part + 1] = _mm512_unpackhi_pd(rows[0], rows[1]);
        }
        out
    }
}

#[inline(always)]
unsafe fn columns_256_f32(runs: &[*const f32; 8]) -> [__m256; 8] {
    // SAFETY: the caller has AVX2, and each run has 8 elements.
    unsafe {
        let mut out = [_mm256_setzero_ps(); 8];
        for part in 0..2 {
            let mut rows = [out[0]; 4];
            for i in 0..4 {
                let half = |h: usize| _mm_loadu_ps(runs[i + 4 * h].add(4 * part));
                rows[i] = _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(half(0)), half(1));
            }
            let low01 = _mm256_castps_pd(_mm256_unpacklo_ps(rows[0], rows[1]));
            let high01 = _mm256_castps_pd(_mm256_unpackhi_ps(rows[0], rows[1]));
            let low23 = _mm256_castps_pd(_mm256_unpacklo_ps(rows[2], rows[3]));
            let high23 = _mm256_castps_pd(_mm256_unpackhi_ps(rows[2], rows[3]));
            out[4 * part] = _mm256_castpd_ps(_mm256_unpacklo_pd(low01, low23));
            out[4 * part + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(low01, low23));
            out[4 * part + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(high01, high23));
            out[4 * part + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(high01, high23));
        }
        out
    }
}

#[inline(always)]
unsafe fn columns_256_f64(runs: &[*const f64; 4]) -> [__m256d; 4] {
    // SAFETY: the caller has AVX2, and each run has 4 elements.
    unsafe {
        let mut out = [_mm256_setzero_pd(); 4];
        for part in 0..2 {
            let mut rows = [out[0]; 2];
            for i in 0..2 {
                let half = |h: usize| _mm_loadu_pd(runs[i + 2 * h].add(2 * part));
                rows[i] = _mm256_insertf128_pd::<1>(_mm256_castpd128_pd256(half(0)), half(1));
            }
            out[2 * part] = _mm256_unpacklo_pd(rows[0], rows[1]);
            out[2 * part + 1] = _mm256_unpackhi_pd(rows[0], rows[1]);
        }
        out
    }
}
