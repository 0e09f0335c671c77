//! The costs that training steps are made of: recording an op, finding a plan, planning a node, one matrix product,
//! one row program. Run: cargo bench

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use wengert::dtype::DType;
use wengert::exec;
use wengert::graph::{GradientSpec, Graph, Op, Source, TensorType};
use wengert::ops::{self, activation, arithmetic, matmul, softmax};
use wengert::tensor::{self, Tensor};

fn tensor_of(rows: usize, columns: usize) -> Tensor {
    let bytes: Vec<u8> = (0..rows * columns).flat_map(|i| ((i % 17) as f32 * 0.1 - 0.8).to_ne_bytes()).collect();
    match Tensor::from_bytes(&bytes, TensorType::new(DType::F32, [rows, columns])) {
        Ok(tensor) => tensor,
        Err(error) => panic!("{error}"),
    }
}

fn record(c: &mut Criterion) {
    let x = tensor_of(4, 8);
    c.bench_function("record/add", |b| b.iter(|| tensor::binary(&arithmetic::ADD, (&x).into(), (&x).into())));
    c.bench_function("record and run/add of a number, plan found", |b| {
        b.iter(|| {
            let y = tensor::binary(&arithmetic::ADD, (&x).into(), 1.0.into())?;
            tensor::evaluate(&[&y])?;
            Ok::<Tensor, wengert::error::Error>(y)
        })
    });
}

/// A chain of layers with its gradient: what planning sees.
fn layers(count: usize) -> Result<Graph, wengert::error::Error> {
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

fn planning(c: &mut Criterion) {
    let count = 50;
    let graph = match layers(count) {
        Ok(graph) => graph,
        Err(error) => panic!("{error}"),
    };
    let strides = vec![TensorType::new(DType::F32, [64, 64]).shape.strides(); count + 1];
    let nodes = wengert::autodiff::expand(&graph, &[]).map_or(1, |graph| graph.nodes.len());
    let mut group = c.benchmark_group("planning");
    group.throughput(Throughput::Elements(nodes as u64));
    group.bench_function("50 layers and their gradient, by node", |b| {
        b.iter(|| exec::build(black_box(&graph), &[], &strides, &[]).map(|plan| plan.kernels()))
    });
    group.finish();
}

fn kernels(c: &mut Criterion) {
    let (a, b) = (tensor_of(256, 256), tensor_of(256, 256));
    let mut group = c.benchmark_group("kernels");
    group.throughput(Throughput::Elements(2 * 256 * 256 * 256));
    group.bench_function("matmul 256 x 256 x 256 (FLOP)", |bench| {
        bench.iter(|| {
            let y = tensor::composite(&matmul::MATMUL, Default::default(), &[(&a).into(), (&b).into()])?;
            tensor::evaluate(&[&y])
        })
    });
    let x = tensor_of(64, 1000);
    group.throughput(Throughput::Elements(64_000));
    group.bench_function("softmax of 64 rows of 1000 (elements)", |bench| {
        bench.iter(|| {
            let y = tensor::composite(&softmax::SOFTMAX, smallvec::smallvec![1], &[(&x).into()])?;
            tensor::evaluate(&[&y])
        })
    });
    group.finish();
}

criterion_group!(benches, record, planning, kernels);
criterion_main!(benches);
