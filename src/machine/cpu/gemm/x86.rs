//! The `Simd` backends for AVX2 with FMA and for AVX-512.

use std::arch::x86_64::*;

use super::simd::Simd;

pub struct Avx2<T>(T);
pub struct Avx512<T>(T);

/// What all four backends write alike: one intrinsic for each function.
macro_rules! backend {
    (
        $backend:ident<$t:ty>, $v:ty, $m:ty, $lanes:literal, $splat:ident, $load:ident, $store:ident, $add:ident,
        $fma:ident, $mask:expr, $load_mask:expr, $store_mask:expr, $transpose:expr
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
                    let mask = Self::mask(depth);
                    let mut rows = [Self::splat(0.0); $lanes];
                    for lane in 0..$lanes {
                        let run = from.offset(lane.min(lanes - 1) as isize * stride);
                        rows[lane] = Self::load_mask(run, mask);
                    }
                    let rows = $transpose(rows);
                    for p in 0..$lanes {
                        if p < depth {
                            Self::store(to.add(p * step), rows[p]);
                        }
                    }
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
    transpose_512_f32
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
    transpose_512_f64
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
    transpose_256_f32
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
    transpose_256_f64
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

/// Pairs of rows, then pairs of pairs, then 128-bit quarters twice. The first two stages work inside each quarter.
#[inline(always)]
unsafe fn transpose_512_f32(r: [__m512; 16]) -> [__m512; 16] {
    // SAFETY: the caller has AVX-512.
    unsafe {
        let (mut pairs, mut fours) = (r, r);
        for i in 0..8 {
            pairs[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            pairs[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        for i in 0..4 {
            for half in 0..2 {
                let (a, b) = (_mm512_castps_pd(pairs[4 * i + half]), _mm512_castps_pd(pairs[4 * i + 2 + half]));
                fours[4 * i + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
                fours[4 * i + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
            }
        }
        // fours[4 i + c] holds column c + 4 q of rows 4 i .. 4 i + 4 in its quarter q.
        let mut out = r;
        for c in 0..4 {
            let even_top = _mm512_shuffle_f32x4::<0b10_00_10_00>(fours[c], fours[4 + c]);
            let odd_top = _mm512_shuffle_f32x4::<0b11_01_11_01>(fours[c], fours[4 + c]);
            let even_low = _mm512_shuffle_f32x4::<0b10_00_10_00>(fours[8 + c], fours[12 + c]);
            let odd_low = _mm512_shuffle_f32x4::<0b11_01_11_01>(fours[8 + c], fours[12 + c]);
            out[c] = _mm512_shuffle_f32x4::<0b10_00_10_00>(even_top, even_low);
            out[8 + c] = _mm512_shuffle_f32x4::<0b11_01_11_01>(even_top, even_low);
            out[4 + c] = _mm512_shuffle_f32x4::<0b10_00_10_00>(odd_top, odd_low);
            out[12 + c] = _mm512_shuffle_f32x4::<0b11_01_11_01>(odd_top, odd_low);
        }
        out
    }
}

#[inline(always)]
unsafe fn transpose_512_f64(r: [__m512d; 8]) -> [__m512d; 8] {
    // SAFETY: the caller has AVX-512.
    unsafe {
        let mut pairs = r;
        for i in 0..4 {
            pairs[2 * i] = _mm512_unpacklo_pd(r[2 * i], r[2 * i + 1]);
            pairs[2 * i + 1] = _mm512_unpackhi_pd(r[2 * i], r[2 * i + 1]);
        }
        // pairs[2 i + c] holds column c + 2 q of rows 2 i, 2 i + 1 in its quarter q.
        let mut out = r;
        for c in 0..2 {
            let even_top = _mm512_shuffle_f64x2::<0b10_00_10_00>(pairs[c], pairs[2 + c]);
            let odd_top = _mm512_shuffle_f64x2::<0b11_01_11_01>(pairs[c], pairs[2 + c]);
            let even_low = _mm512_shuffle_f64x2::<0b10_00_10_00>(pairs[4 + c], pairs[6 + c]);
            let odd_low = _mm512_shuffle_f64x2::<0b11_01_11_01>(pairs[4 + c], pairs[6 + c]);
            out[c] = _mm512_shuffle_f64x2::<0b10_00_10_00>(even_top, even_low);
            out[4 + c] = _mm512_shuffle_f64x2::<0b11_01_11_01>(even_top, even_low);
            out[2 + c] = _mm512_shuffle_f64x2::<0b10_00_10_00>(odd_top, odd_low);
            out[6 + c] = _mm512_shuffle_f64x2::<0b11_01_11_01>(odd_top, odd_low);
        }
        out
    }
}

#[inline(always)]
unsafe fn transpose_256_f32(r: [__m256; 8]) -> [__m256; 8] {
    // SAFETY: the caller has AVX2.
    unsafe {
        let (mut pairs, mut fours, mut out) = (r, r, r);
        for i in 0..4 {
            pairs[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            pairs[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        for i in 0..2 {
            for half in 0..2 {
                let (a, b) = (_mm256_castps_pd(pairs[4 * i + half]), _mm256_castps_pd(pairs[4 * i + 2 + half]));
                fours[4 * i + 2 * half] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
                fours[4 * i + 2 * half + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, b));
            }
        }
        for c in 0..4 {
            out[c] = _mm256_permute2f128_ps::<0x20>(fours[c], fours[4 + c]);
            out[4 + c] = _mm256_permute2f128_ps::<0x31>(fours[c], fours[4 + c]);
        }
        out
    }
}

#[inline(always)]
unsafe fn transpose_256_f64(r: [__m256d; 4]) -> [__m256d; 4] {
    // SAFETY: the caller has AVX2.
    unsafe {
        let (low01, high01) = (_mm256_unpacklo_pd(r[0], r[1]), _mm256_unpackhi_pd(r[0], r[1]));
        let (low23, high23) = (_mm256_unpacklo_pd(r[2], r[3]), _mm256_unpackhi_pd(r[2], r[3]));
        [
            _mm256_permute2f128_pd::<0x20>(low01, low23),
            _mm256_permute2f128_pd::<0x20>(high01, high23),
            _mm256_permute2f128_pd::<0x31>(low01, low23),
            _mm256_permute2f128_pd::<0x31>(high01, high23),
        ]
    }
}
