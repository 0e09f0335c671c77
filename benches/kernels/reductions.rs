//! Reductions over all elements, over rows and over columns: bounded by reading their input once.

use wengert::error::Result;
use wengert::ops::reduce;
use wengert::tensor;

use crate::measure::{Bench, Work, floats, value};

pub fn run(bench: &mut Bench) -> Result<()> {
    for (rows, columns) in [(64, 1024), (4096, 1024)] {
        let x = floats(&[rows, columns])?;
        let work = Work::Bytes(rows * columns * 4);
        let axes: [(&str, Option<&[i64]>); 3] = [("all", None), ("rows", Some(&[1])), ("columns", Some(&[0]))];
        for (which, axes) in axes {
            let of = format!("over {which} of {rows} x {columns}");
            bench.entries(
                &format!("reductions sum {of}"),
                work,
                value(|| tensor::reduce(&reduce::SUM, &x, axes, false)),
            )?;
            bench.entries(
                &format!("reductions max {of}"),
                work,
                value(|| tensor::reduce(&reduce::MAX, &x, axes, false)),
            )?;
        }
        let of = format!("over rows of {rows} x {columns}");
        bench.entries(&format!("reductions var {of}"), work, value(|| tensor::var(&x, Some(&[1]), 0.0, false)))?;
        for (which, axis) in [("rows", 1), ("columns", 0)] {
            let name = format!("reductions argmax over {which} of {rows} x {columns}");
            bench.entries(&name, work, value(|| tensor::argmax(&x, Some(axis), false)))?;
        }
    }
    Ok(())
}
