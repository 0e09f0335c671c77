//! Counter-based random numbers: bounded by writing them.

use wengert::dtype::DType;
use wengert::error::Result;
use wengert::ops::random;
use wengert::shape::Shape;
use wengert::tensor;

use crate::measure::{Bench, Work, floats, value};

pub fn run(bench: &mut Bench) -> Result<()> {
    let (n, shape) = (1 << 20, Shape::new(&[1 << 20]));
    for (name, def) in [("uniform", &random::UNIFORM), ("normal", &random::NORMAL)] {
        bench.entries(
            &format!("random {name}, 1 M"),
            Work::Bytes(4 * n),
            value(|| tensor::random(def, shape.clone(), DType::F32, Default::default())),
        )?;
    }
    let x = floats(&[n])?;
    bench.entries("random dropout, 1 M", Work::Bytes(8 * n), value(|| tensor::dropout(&x, 0.5)))
}
