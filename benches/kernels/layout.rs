//! Copies that a layout op needs when its result is stored, and indexed reads and writes: bounded by a plain copy.

use wengert::error::Result;
use wengert::graph::GatherMode;
use wengert::tensor;

use crate::measure::{Bench, Work, floats, indices, value};

pub fn run(bench: &mut Bench) -> Result<()> {
    for n in [256, 2048] {
        let x = floats(&[n, n])?;
        let work = Work::Bytes(8 * n * n);
        bench.entries(&format!("layout transpose {n} x {n}"), work, value(|| tensor::permute(&x, &[1, 0])))?;
        let half = floats(&[n, n / 2])?;
        bench.entries(&format!("layout concat to {n} x {n}"), work, value(|| tensor::concat(&[&half, &half], 1)))?;
        let rows = indices(n, n)?;
        bench.entries(
            &format!("layout take {n} rows of {n}"),
            work,
            value(|| tensor::gather(GatherMode::Take, &x, &rows, 0)),
        )?;
        bench.entries(
            &format!("layout take {n} columns of {n}"),
            work,
            value(|| tensor::gather(GatherMode::Take, &x, &rows, 1)),
        )?;
        let places = tensor::reshape_to(&indices(n * n, n)?, [n, n].into())?;
        bench.entries(
            &format!("layout take_along_axis {n} of each of {n} rows"),
            Work::Bytes(16 * n * n),
            value(|| tensor::gather(GatherMode::Along, &x, &places, 1)),
        )?;
        bench.entries(
            &format!("layout scatter_add {n} rows of {n}"),
            Work::Bytes(12 * n * n),
            value(|| tensor::scatter_add(GatherMode::Take, &x, &rows, &x, 0)),
        )?;
    }
    Ok(())
}
