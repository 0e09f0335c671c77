//! What the machine can do, measured where it is needed: multiply-adds a second with the instruction set in use, and
//! bytes a second of a plain copy with a working set of the same size.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use wengert::dtype::DType;
use wengert::machine::cpu::isa::{Isa, isa};

const SPELL: Duration = Duration::from_millis(30);
const SPELLS: usize = 5;
/// Multiply-adds a lane in one call of a loop, over all its accumulators.
const ROUNDS: usize = 4096;
const ACCUMULATORS: usize = 14;

/// Peaks already measured.
#[derive(Default)]
pub struct Peaks {
    flops: Vec<(DType, usize, f64)>,
    copies: Vec<(usize, usize, f64)>,
}

impl Peaks {
    /// FLOP/s of independent multiply-adds in registers.
    pub fn flops(&mut self, dtype: DType, threads: usize) -> f64 {
        if let Some(known) = self.flops.iter().find(|known| (known.0, known.1) == (dtype, threads)) {
            return known.2;
        }
        let (lanes, body) = multiply_adds(dtype);
        let work = (2 * lanes * ACCUMULATORS * ROUNDS) as f64;
        let peak = best(threads, |_| move || body(ROUNDS), work);
        println!("{:52}{threads:>3}{:>28}", format!("peak: {} {dtype:?}", isa().name()), giga(peak, "GFLOP/s"));
        self.flops.push((dtype, threads, peak));
        peak
    }

    /// Bytes a second, read and written, of a copy that moves this many in all.
    pub fn copy(&mut self, bytes: usize, threads: usize) -> f64 {
        let bytes = bytes.next_power_of_two().max(4096);
        if let Some(known) = self.copies.iter().find(|known| (known.0, known.1) == (bytes, threads)) {
            return known.2;
        }
        let half = bytes / 2 / threads;
        let copier = |_| {
            let (from, mut to) = (vec![1u8; half], vec![0u8; half]);
            move || to.copy_from_slice(black_box(&from))
        };
        let peak = best(threads, copier, (2 * half) as f64);
        println!("{:52}{threads:>3}{:>28}", format!("peak: copy within {} KiB", bytes >> 10), giga(peak, "GB/s"));
        self.copies.push((bytes, threads, peak));
        peak
    }
}

fn giga(rate: f64, unit: &str) -> String {
    format!("{:.1} {unit}", rate / 1e9)
}

/// The best sum of the threads' rates over a few spells, each thread running what `make` made for it.
fn best<F: FnMut()>(threads: usize, make: impl Fn(usize) -> F + Sync, work: f64) -> f64 {
    let barrier = Barrier::new(threads);
    let rate = |index: usize| {
        let mut f = make(index);
        f();
        (0..SPELLS)
            .map(|_| {
                barrier.wait();
                let (start, mut calls) = (Instant::now(), 0);
                while start.elapsed() < SPELL {
                    // Fewer looks at the clock than calls: a call may take less than 100 ns.
                    (0..16).for_each(|_| f());
                    calls += 16;
                }
                work * calls as f64 / start.elapsed().as_secs_f64()
            })
            .collect::<Vec<f64>>()
    };
    let rates: Vec<Vec<f64>> = std::thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads).map(|index| scope.spawn(move || rate(index))).collect();
        let mut all = vec![rate(0)];
        all.extend(helpers.into_iter().filter_map(|helper| helper.join().ok()));
        all
    });
    (0..SPELLS).map(|spell| rates.iter().map(|rates| rates[spell]).sum()).fold(0.0, f64::max)
}

/// Lanes of a register, and the loop.
fn multiply_adds(dtype: DType) -> (usize, fn(usize)) {
    match (isa(), dtype) {
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, DType::F64) => (8, x86::avx512_f64),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, _) => (16, x86::avx512_f32),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, DType::F64) => (4, x86::avx2_f64),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, _) => (8, x86::avx2_f32),
        (_, DType::F64) => (2, portable::<f64>),
        _ => (4, portable::<f32>),
    }
}

/// Without FMA: one multiplication and one addition a lane.
fn portable<T: Copy + From<f32> + std::ops::Mul<Output = T> + std::ops::Add<Output = T>>(rounds: usize) {
    let factor = black_box(T::from(0.999));
    let mut sums = [[T::from(1.0); 4]; ACCUMULATORS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = sum.map(|lane| lane * factor + factor);
        }
    }
    black_box(sums);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::ACCUMULATORS;

    macro_rules! multiply_adds {
        ($name:ident, $features:literal, $set:ident, $fma:ident) => {
            pub fn $name(rounds: usize) {
                #[target_feature(enable = $features)]
                fn body(rounds: usize) {
                    let factor = black_box($set(0.999));
                    let mut sums = [$set(1.0); ACCUMULATORS];
                    for _ in 0..rounds {
                        for sum in &mut sums {
                            *sum = $fma(*sum, factor, factor);
                        }
                    }
                    black_box(sums);
                }
                // SAFETY: `multiply_adds` above names this loop only for an instruction set that the CPU has.
                unsafe { body(rounds) }
            }
        };
    }

    multiply_adds!(avx512_f32, "avx512f", _mm512_set1_ps, _mm512_fmadd_ps);
    multiply_adds!(avx512_f64, "avx512f", _mm512_set1_pd, _mm512_fmadd_pd);
    multiply_adds!(avx2_f32, "avx2,fma", _mm256_set1_ps, _mm256_fmadd_ps);
    multiply_adds!(avx2_f64, "avx2,fma", _mm256_set1_pd, _mm256_fmadd_pd);
}
