//! How an entry is timed and printed: the median over batches, and its share of the peak that bounds it.

use std::time::{Duration, Instant};

use wengert::dtype::DType;
use wengert::error::Result;
use wengert::graph::TensorType;
use wengert::machine::cpu::par;
use wengert::tensor::{self, Tensor};

use crate::peaks::Peaks;

/// What an entry does, for its rate and the peak it is held against.
#[derive(Clone, Copy)]
pub enum Work {
    /// Multiply-adds in a dtype, two FLOP each: against the measured FLOP/s.
    MulAdds(usize, DType),
    /// Bytes that must be read and written at least: against a plain copy that moves as many.
    Bytes(usize),
    /// Things that have no peak.
    Items(usize, &'static str),
}

const BATCH: Duration = Duration::from_millis(8);
const BATCHES: usize = 9;

/// Seconds a call: the median over batches of at least 8 ms.
pub fn seconds(mut f: impl FnMut() -> Result<()>) -> Result<f64> {
    f()?;
    let start = Instant::now();
    f()?;
    let calls = (BATCH.as_secs_f64() / start.elapsed().as_secs_f64().max(1e-9)).ceil().max(1.0) as usize;
    let batches = if calls == 1 { BATCHES / 2 } else { BATCHES };
    let mut times = Vec::with_capacity(batches);
    for _ in 0..batches {
        let start = Instant::now();
        for _ in 0..calls {
            f()?;
        }
        times.push(start.elapsed().as_secs_f64() / calls as f64);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[batches / 2])
}

/// The entries wanted, and the peaks they are held against.
pub struct Bench {
    names: Vec<String>,
    peaks: Peaks,
}

impl Bench {
    pub fn new(names: Vec<String>) -> Bench {
        println!("{:52}{:>3}{:>13}{:>15}{:>10}", "", "thr", "median", "rate", "of peak");
        Bench { names, peaks: Peaks::default() }
    }

    fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|part| name.contains(part))
    }

    /// Times `f` on this many threads and prints its line. The seconds, if the entry is wanted.
    pub fn entry(
        &mut self,
        name: &str,
        threads: usize,
        work: Work,
        f: impl FnMut() -> Result<()>,
    ) -> Result<Option<f64>> {
        if !self.wants(name) {
            return Ok(None);
        }
        par::set_num_threads(threads);
        let seconds = seconds(f)?;
        let (rate, share) = match work {
            Work::MulAdds(count, dtype) => {
                let rate = 2.0 * count as f64 / seconds;
                (format!("{:.1} GFLOP/s", rate / 1e9), Some(rate / self.peaks.flops(dtype, threads)))
            }
            Work::Bytes(bytes) => {
                let rate = bytes as f64 / seconds;
                (format!("{:.1} GB/s", rate / 1e9), Some(rate / self.peaks.copy(bytes, threads)))
            }
            Work::Items(count, unit) => (format!("{:.1} ns/{unit}", seconds * 1e9 / count as f64), None),
        };
        let share = share.map_or(String::new(), |share| format!("{:.0} %", share * 100.0));
        println!("{name:52}{threads:>3}{:>10.2} µs{rate:>15}{share:>10}", seconds * 1e6);
        Ok(Some(seconds))
    }

    /// The same on one thread and on all.
    pub fn entries(&mut self, name: &str, work: Work, mut f: impl FnMut() -> Result<()>) -> Result<()> {
        for threads in thread_counts() {
            self.entry(name, threads, work, &mut f)?;
        }
        Ok(())
    }
}

/// One, and all that the system grants.
pub fn thread_counts() -> Vec<usize> {
    let all = std::thread::available_parallelism().map_or(1, Into::into);
    if all == 1 { vec![1] } else { vec![1, all] }
}

/// Float32 numbers between -0.8 and 0.8.
pub fn floats(shape: &[usize]) -> Result<Tensor> {
    let count: usize = shape.iter().product();
    let bytes: Vec<u8> = (0..count).flat_map(|i| ((i * 7 % 17) as f32 * 0.1 - 0.8).to_ne_bytes()).collect();
    Tensor::from_bytes(&bytes, TensorType::new(DType::F32, shape))
}

/// Integers below `limit`.
pub fn indices(count: usize, limit: usize) -> Result<Tensor> {
    let bytes: Vec<u8> = (0..count).flat_map(|i| ((i * 7919 % limit) as i64).to_ne_bytes()).collect();
    Tensor::from_bytes(&bytes, TensorType::new(DType::I64, [count]))
}

/// Computes what `f` records.
pub fn value(f: impl Fn() -> Result<Tensor>) -> impl FnMut() -> Result<()> {
    move || tensor::evaluate(&[&f()?])
}
