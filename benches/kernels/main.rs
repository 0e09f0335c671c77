//! Each kernel family beside what the machine can do: the peaks are measured first, in this process, and each entry
//! prints its share of one. Run: cargo bench --bench kernels -- [NAME …]; names are parts of entries.
//!
//! `serve` instead of names answers products asked for on standard input, for `gemm_numpy.py`.

mod attention;
mod chains;
mod gemm;
mod layout;
mod measure;
mod peaks;
mod planning;
mod random;
mod reductions;
mod rows;
mod windows;

use measure::Bench;
use wengert::error::Result;

fn main() -> Result<()> {
    // cargo passes --bench.
    let names: Vec<String> = std::env::args().skip(1).filter(|name| !name.starts_with("--")).collect();
    if names.first().is_some_and(|name| name == "serve") {
        return gemm::serve();
    }
    let mut bench = Bench::new(names);
    gemm::run(&mut bench)?;
    windows::run(&mut bench)?;
    rows::run(&mut bench)?;
    chains::run(&mut bench)?;
    reductions::run(&mut bench)?;
    layout::run(&mut bench)?;
    attention::run(&mut bench)?;
    random::run(&mut bench)?;
    planning::run(&mut bench)
}
