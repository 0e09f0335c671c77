//! Random numbers by counter: Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
//! 1, 2, 3" (2011). The seed is the key; a counter is the index of a block of four words and the stream.
//!
//! An element is a function of (seed, stream, its index) alone, so neither threads nor the ends of a fill matter.
//! Bits and uniform numbers are equal on every machine; normal numbers on every instruction set with FMA.

use super::dispatch::by_isa;
use super::float::Float;
use super::isa::isa;
use super::math::{log, sin_cos_turns};
use crate::dtype::DType;

/// Fills elements `first..first + n` of the stream `stream` of `seed`.
pub type FillKernel = unsafe fn(seed: u64, stream: u64, first: u64, n: usize, out: *mut u8);

/// Blocks that are computed side by side.
const GROUP: usize = 16;

/// The four words of block `index`.
#[inline(always)]
pub fn block(seed: u64, stream: u64, index: u64) -> [u32; 4] {
    let mut c = [index as u32, (index >> 32) as u32, stream as u32, (stream >> 32) as u32];
    let (mut k0, mut k1) = (seed as u32, (seed >> 32) as u32);
    for _ in 0..10 {
        let a = u64::from(c[0]) * 0xD251_1F53;
        let b = u64::from(c[2]) * 0xCD9E_8D57;
        c = [(b >> 32) as u32 ^ c[1] ^ k0, b as u32, (a >> 32) as u32 ^ c[3] ^ k1, a as u32];
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    c
}

/// How the words of a block become elements: word w of block b is `words[w][b]`.
trait Draw {
    type Element: Copy + Default;
    /// Elements in a block: 4 or 2.
    const PER_BLOCK: usize;
    /// Element e of block b.
    fn elements<const FMA: bool>(words: &[[u32; GROUP]; 4], out: &mut [[Self::Element; GROUP]; 4]);
}

struct Bits32;
struct Uniform32;
struct Uniform64;
struct Normal32;
struct Normal64;

/// The upper 24 bits, in [0, 1).
#[inline(always)]
fn unit_f32(word: u32) -> f32 {
    // Below 2^24, so the conversion of a signed number is exact, and cheaper.
    (word >> 8) as i32 as f32 * (1.0 / (1 << 24) as f32)
}

/// The upper 53 of 64 bits, in [0, 1).
#[inline(always)]
fn unit_f64(low: u32, high: u32) -> f64 {
    let bits = (u64::from(high) << 32 | u64::from(low)) >> 11;
    // 52 bits stand in the significand of a number in [1, 2); the last one is added apart. Both steps are exact.
    let most = f64::from_bits(1f64.to_bits() | bits >> 1) - 1.0;
    let last = if bits & 1 == 1 { 0.5 * f64::EPSILON } else { 0.0 };
    most + last
}

/// Two normal numbers from two uniform ones, by Box and Muller.
#[inline(always)]
fn normals<T: Float, const FMA: bool>(u: T, v: T) -> (T, T) {
    let radius = (log::<T, FMA>(T::ONE - u) * -T::TWO).sqrt();
    let (sin, cos) = sin_cos_turns::<T, FMA>(v);
    (radius * cos, radius * sin)
}

impl Draw for Bits32 {
    type Element = u32;
    const PER_BLOCK: usize = 4;
    #[inline(always)]
    fn elements<const FMA: bool>(words: &[[u32; GROUP]; 4], out: &mut [[u32; GROUP]; 4]) {
        *out = *words;
    }
}

impl Draw for Uniform32 {
    type Element = f32;
    const PER_BLOCK: usize = 4;
    #[inline(always)]
    fn elements<const FMA: bool>(words: &[[u32; GROUP]; 4], out: &mut [[f32; GROUP]; 4]) {
        for (out, words) in out.iter_mut().zip(words) {
            for (out, &word) in out.iter_mut().zip(words) {
                *out = unit_f32(word);
            }
        }
    }
}

impl Draw for Uniform64 {
    type Element = f64;
    const PER_BLOCK: usize = 2;
    #[inline(always)]
    fn elements<const FMA: bool>(words: &[[u32; GROUP]; 4], out: &mut [[f64; GROUP]; 4]) {
        for b in 0..GROUP {
            out[0][b] = unit_f64(words[0][b], words[1][b]);
            out[1][b] = unit_f64(words[2][b], words[3][b]);
        }
    }
}

impl Draw for Normal32 {
    type Element = f32;
    const PER_BLOCK: usize = 4;
    #[inline(always)]
    fn elements<const FMA: bool>(words: &[[u32; GROUP]; 4], out: &mut [[f32; GROUP]; 4]) {
        for e in [0, 2] {
            for b in 0..GROUP {
                (out[e][b], out[e + 1][b]) = normals::<f32, FMA>(unit_f32(words[e][b]), unit_f32(words[e + 1][b]));
            }
        }
    }
}

impl Draw for Normal64 {
    type Element = f64;
    const PER_BLOCK: usize = 2;
    #[inline(always)]
    fn elements<const FMA: bool>(words: &[[u32; GROUP]; 4], out: &mut [[f64; GROUP]; 4]) {
        for b in 0..GROUP {
            let (u, v) = (unit_f64(words[0][b], words[1][b]), unit_f64(words[2][b], words[3][b]));
            (out[0][b], out[1][b]) = normals::<f64, FMA>(u, v);
        }
    }
}

#[allow(clippy::needless_range_loop, reason = "a transposition reads best by its two indices")]
#[inline(always)]
unsafe fn fill<D: Draw, const FMA: bool>(seed: u64, stream: u64, first: u64, n: usize, out: *mut u8) {
    let out = out.cast::<D::Element>();
    let per_block = D::PER_BLOCK as u64;
    let mut index = first / per_block;
    // Elements of the first block that lie before the fill.
    let mut skip = (first % per_block) as usize;
    let mut done = 0;
    while done < n {
        let mut words = [[0u32; GROUP]; 4];
        for b in 0..GROUP {
            let block = block(seed, stream, index.wrapping_add(b as u64));
            for w in 0..4 {
                words[w][b] = block[w];
            }
        }
        let mut elements = [[D::Element::default(); GROUP]; 4];
        D::elements::<FMA>(&words, &mut elements);
        let len = (GROUP * D::PER_BLOCK - skip).min(n - done);
        // SAFETY: `out` has room for n elements, of which `done` are written.
        unsafe {
            let out = out.add(done);
            if len == GROUP * D::PER_BLOCK {
                for b in 0..GROUP {
                    for e in 0..D::PER_BLOCK {
                        *out.add(b * D::PER_BLOCK + e) = elements[e][b];
                    }
                }
            } else {
                for i in 0..len {
                    *out.add(i) = elements[(skip + i) % D::PER_BLOCK][(skip + i) / D::PER_BLOCK];
                }
            }
        }
        done += len;
        index = index.wrapping_add(GROUP as u64);
        skip = 0;
    }
}

const fn kernels<D: Draw>() -> [FillKernel; 3] {
    by_isa!(fill<D: Draw>(seed: u64, stream: u64, first: u64, n: usize, out: *mut u8))
}

/// Element i is word i mod 4 of block i / 4, as u32.
pub static BITS: [FillKernel; 3] = kernels::<Bits32>();
/// In [0, 1): the upper 24 bits of one word.
pub static UNIFORM_F32: [FillKernel; 3] = kernels::<Uniform32>();
/// In [0, 1): the upper 53 bits of two words, the lower word first.
pub static UNIFORM_F64: [FillKernel; 3] = kernels::<Uniform64>();
/// Of mean 0 and variance 1; elements 2i and 2i + 1 come from the uniform elements 2i and 2i + 1.
pub static NORMAL_F32: [FillKernel; 3] = kernels::<Normal32>();
/// As for f32.
pub static NORMAL_F64: [FillKernel; 3] = kernels::<Normal64>();

/// Uniform numbers in [0, 1) of a float dtype.
pub fn uniform(dtype: DType) -> Option<FillKernel> {
    match dtype {
        DType::F32 => Some(UNIFORM_F32[isa() as usize]),
        DType::F64 => Some(UNIFORM_F64[isa() as usize]),
        _ => None,
    }
}

/// Normal numbers of a float dtype.
pub fn normal(dtype: DType) -> Option<FillKernel> {
    match dtype {
        DType::F32 => Some(NORMAL_F32[isa() as usize]),
        DType::F64 => Some(NORMAL_F64[isa() as usize]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::isa::Isa;
    use super::*;

    /// The vectors published with Random123.
    #[test]
    fn known_answers() {
        assert_eq!(block(0, 0, 0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(block(u64::MAX, u64::MAX, u64::MAX), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            block(0x299f_31d0_a409_3822, 0x0370_7344_1319_8a2e, 0x85a3_08d3_243f_6a88),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    fn filled<T: Copy + Default>(kernel: FillKernel, first: u64, n: usize) -> Vec<T> {
        let mut out = vec![T::default(); n];
        // SAFETY: room for n elements.
        unsafe { kernel(42, 7, first, n, out.as_mut_ptr().cast()) };
        out
    }

    fn check<T: Copy + Default + PartialEq + std::fmt::Debug>(kernels: &[FillKernel; 3], is_exact: bool) {
        let mut levels = Isa::ALL.into_iter().filter(|isa| isa.is_supported() && (is_exact || *isa > Isa::Portable));
        let Some(lowest) = levels.next() else { return };
        let whole = filled::<T>(kernels[lowest as usize], 0, 1000);
        for isa in levels {
            assert_eq!(filled::<T>(kernels[isa as usize], 0, 1000), whole, "{}", isa.name());
        }
        for first in [0, 1, 2, 3, 4, 5, 63, 64, 100, 333] {
            for n in [0, 1, 2, 3, 7, 64, 65, 200] {
                let part = filled::<T>(kernels[lowest as usize], first as u64, n);
                assert_eq!(part, whole[first..first + n], "{n} from {first}");
            }
        }
    }

    #[test]
    fn an_element_depends_on_its_index_alone() {
        check::<u32>(&BITS, true);
        check::<f32>(&UNIFORM_F32, true);
        check::<f64>(&UNIFORM_F64, true);
        check::<f32>(&NORMAL_F32, false);
        check::<f64>(&NORMAL_F64, false);
    }

    #[test]
    fn uniform_numbers_are_the_upper_bits() {
        let (words, f32s) = (filled::<u32>(BITS[0], 0, 400), filled::<f32>(UNIFORM_F32[0], 0, 400));
        let f64s = filled::<f64>(UNIFORM_F64[0], 0, 200);
        for (i, &word) in words.iter().enumerate() {
            assert_eq!(f32s[i], (word >> 8) as f32 / 16_777_216.0);
            let wide = u64::from(words[i | 1]) << 32 | u64::from(words[i & !1]);
            assert_eq!(f64s[i / 2], (wide >> 11) as f64 / (1u64 << 53) as f64);
        }
        assert!(f64::from(unit_f32(u32::MAX)) < 1.0 && unit_f64(u32::MAX, u32::MAX) < 1.0);
    }

    #[test]
    fn normal_numbers_follow_their_definition_and_moments() {
        let n = 200_000;
        let (z, u) = (filled::<f64>(normal(DType::F64).unwrap(), 0, n), filled::<f64>(UNIFORM_F64[0], 0, n));
        let z32 = filled::<f32>(normal(DType::F32).unwrap(), 0, n);
        for i in (0..n).step_by(2) {
            let radius = (-2.0 * (1.0 - u[i]).ln()).sqrt();
            let angle = std::f64::consts::TAU * u[i + 1];
            assert!((z[i] - radius * angle.cos()).abs() < 1e-14 && (z[i + 1] - radius * angle.sin()).abs() < 1e-14);
        }
        for z in [z, z32.into_iter().map(f64::from).collect()] {
            let mean = |power: i32| z.iter().map(|z| z.powi(power)).sum::<f64>() / n as f64;
            assert!(mean(1).abs() < 0.01 && (mean(2) - 1.0).abs() < 0.02 && (mean(4) - 3.0).abs() < 0.1);
            assert!(z.iter().all(|z| z.is_finite()));
        }
    }
}
