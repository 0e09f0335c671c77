//! What a step costs besides kernels: recording an op, finding a plan, building one.

use std::hint::black_box;

use wengert::dtype::DType;
use wengert::error::Result;
use wengert::exec;
use wengert::graph::{GradientSpec, Graph, Op, Source, TensorType};
use wengert::ops::{self, activation, arithmetic};
use wengert::tensor;

use crate::measure::{Bench, Work, floats};

pub fn run(bench: &mut Bench) -> Result<()> {
    let x = floats(&[4, 8])?;
    bench.entry("planning record an op", 1, Work::Items(1, "op"), || {
        tensor::binary(&arithmetic::ADD, (&x).into(), (&x).into()).map(drop)
    })?;
    bench.entry("planning record, find the plan, run: one op", 1, Work::Items(1, "op"), || {
        tensor::evaluate(&[&tensor::binary(&arithmetic::ADD, (&x).into(), 1.0.into())?])
    })?;
    let layers = 50;
    let graph = network(layers)?;
    let strides = vec![TensorType::new(DType::F32, [64, 64]).shape.strides(); layers + 1];
    let nodes = wengert::autodiff::expand(&graph, &[])?.nodes.len();
    bench.entry("planning 50 layers and their gradient", 1, Work::Items(nodes, "node"), || {
        exec::build(black_box(&graph), &[], &strides, &[]).map(|plan| black_box(plan.kernels())).map(drop)
    })?;
    Ok(())
}

/// A chain of layers with its gradient.
fn network(count: usize) -> Result<Graph> {
    let mut g = Graph::new();
    let ty = TensorType::new(DType::F32, [64, 64]);
    let x = g.add_typed(Op::Source(Source::Leaf(0)), &[], ty.clone());
    let mut y = x;
    let mut weights = Vec::new();
    for layer in 0..count as u32 {
        let w = g.add_typed(Op::Source(Source::Leaf(layer + 1)), &[], ty.clone());
        let marker = g.add(Op::Marker, &[w])?;
        weights.push(marker);
        let z = g.add(Op::Contract, &[y, marker])?;
        y = ops::unary(&mut g, &activation::TANH, z)?;
    }
    let loss = ops::sum(&mut g, y, 0b11)?;
    let mut inputs = vec![loss];
    inputs.extend(&weights);
    let spec = GradientSpec { targets: 1, wrt: count as u32, ones: true };
    let gradient = g.push(Op::Gradient(spec), &inputs)?;
    g.outputs = g.nodes[gradient as usize].vals(gradient).to_vec();
    g.outputs.push(loss);
    Ok(g)
}
