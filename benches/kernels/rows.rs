//! Row programs: elementwise chains, softmax, normalisation, losses with their gradients, optimizer updates. Each entry
//! records its ops, finds its plan and runs it, as user code does.

use smallvec::smallvec;
use wengert::error::Result;
use wengert::nn;
use wengert::ops::losses::Reduction;
use wengert::ops::{activation, arithmetic, normalization, softmax};
use wengert::optim::{self, Rule, Updater};
use wengert::tensor::{self, Arg, BackwardOptions, EagerGuard, Tensor};

use crate::measure::{Bench, Work, floats, indices, value};

const SIZES: [(&str, usize); 2] = [("64 k", 64 << 10), ("4 M", 4 << 20)];

pub fn run(bench: &mut Bench) -> Result<()> {
    for (label, n) in SIZES {
        elementwise(bench, label, n)?;
        chain(bench, label, n)?;
        update(bench, label, n)?;
        losses(bench, label, n)?;
    }
    for (rows, columns) in [(64, 1000), (4096, 1000)] {
        let (x, bytes) = (floats(&[rows, columns])?, rows * columns * 4);
        let of = format!("{rows} rows of {columns}");
        bench.entries(
            &format!("rows softmax, {of}"),
            Work::Bytes(2 * bytes),
            value(|| tensor::composite(&softmax::SOFTMAX, smallvec![1], &[(&x).into()])),
        )?;
        cross_entropy(bench, &of, &x, rows, columns)?;
    }
    let (x, weight, bias) = (floats(&[768, 128])?, floats(&[128])?, floats(&[128])?);
    let args = [Arg::from(&x), 1e-5.into(), (&weight).into(), (&bias).into()];
    bench.entries(
        "rows layer_norm, 768 rows of 128",
        Work::Bytes(2 * 768 * 128 * 4),
        value(|| tensor::composite(&normalization::LAYER_NORM, smallvec![1, 1, 1], &args)),
    )
}

fn elementwise(bench: &mut Bench, label: &str, n: usize) -> Result<()> {
    let (x, y) = (floats(&[n])?, floats(&[n])?);
    bench.entries(
        &format!("rows add, {label}"),
        Work::Bytes(12 * n),
        value(|| tensor::binary(&arithmetic::ADD, (&x).into(), (&y).into())),
    )?;
    for (name, def) in [("tanh", &activation::TANH), ("relu", &activation::RELU)] {
        bench.entries(
            &format!("rows {name}, {label}"),
            Work::Bytes(8 * n),
            value(|| tensor::unary(def, (&x).into())),
        )?;
    }
    bench.entries(&format!("rows gelu, {label}"), Work::Bytes(8 * n), value(|| tensor::gelu(&x, true)))
}

/// Six ops of a layer and its gradient, fused; beside them the same ops in passes of their own, and how much longer
/// those take.
fn chain(bench: &mut Bench, label: &str, n: usize) -> Result<()> {
    let (x, b, g) = (floats(&[n])?, floats(&[n])?, floats(&[n])?);
    let ops = || {
        let y = tensor::unary(&activation::TANH, (&binary(&arithmetic::ADD, &x, (&b).into())?).into())?;
        let slope = tensor::binary(
            &arithmetic::SUBTRACT,
            1.0.into(),
            (&binary(&arithmetic::MULTIPLY, &y, (&y).into())?).into(),
        )?;
        binary(&arithmetic::ADD, &binary(&arithmetic::MULTIPLY, &slope, (&g).into())?, (&x).into())
    };
    for threads in crate::measure::thread_counts() {
        let fused =
            bench.entry(&format!("rows chain of six ops, {label}"), threads, Work::Bytes(16 * n), value(ops))?;
        let name = format!("rows chain of six ops, each a pass, {label}");
        let passes = bench.entry(&name, threads, Work::Bytes(16 * n), || {
            let _eager = EagerGuard::new(true);
            tensor::evaluate(&[&ops()?])
        })?;
        if let (Some(fused), Some(passes)) = (fused, passes) {
            let bar = if n >= 4 << 20 { 1.8 } else { 1.3 };
            println!("{:55}passes / fused: {:.2}, at least {bar} wanted", "", passes / fused);
        }
    }
    Ok(())
}

fn binary(def: &'static wengert::graph::BinaryDef, x: &Tensor, y: Arg) -> Result<Tensor> {
    tensor::binary(def, x.into(), y)
}

/// Reads parameter, gradient and two states; writes all but the gradient.
fn update(bench: &mut Bench, label: &str, n: usize) -> Result<()> {
    let settings: &[f64] = &[1e-3, 0.9, 0.999, 1e-8, 0.0, 0.0, 0.0];
    let (param, grad) = (floats(&[n])?, floats(&[n])?);
    param.set_requires_grad(true)?;
    let mut updater = Updater::new(Rule::Adam, vec![param.clone()]);
    bench.entries(&format!("rows adam, {label}"), Work::Bytes(28 * n), || {
        param.set_grad(Some(grad.clone()))?;
        optim::step(&mut [(&mut updater, settings)]).map(drop)
    })
}

/// Losses of equal shapes and their gradients.
fn losses(bench: &mut Bench, label: &str, n: usize) -> Result<()> {
    let (x, target) = (floats(&[n])?, tensor::unary(&arithmetic::SQUARE, (&floats(&[n])?).into())?);
    tensor::evaluate(&[&target])?;
    let name = |loss: &str| format!("rows {loss} and gradient, {label}");
    let work = Work::Bytes(12 * n);
    with_gradient(bench, &name("mse_loss"), work, &x, |x| nn::mse_loss(x, &target, Reduction::Mean))?;
    with_gradient(bench, &name("huber_loss"), work, &x, |x| nn::huber_loss(x, &target, Reduction::Mean, 1.0))?;
    with_gradient(bench, &name("smooth_l1_loss"), work, &x, |x| nn::smooth_l1_loss(x, &target, Reduction::Mean, 1.0))
}

fn cross_entropy(bench: &mut Bench, of: &str, x: &Tensor, rows: usize, columns: usize) -> Result<()> {
    let target = indices(rows, columns)?;
    let classes = nn::Classes { weight: None, ignore_index: -100, label_smoothing: 0.0, reduction: Reduction::Mean };
    let name = format!("rows cross_entropy and gradient, {of}");
    with_gradient(bench, &name, Work::Bytes(8 * rows * columns), x, |x| nn::cross_entropy(x, &target, &classes))
}

/// The loss and its gradient.
fn with_gradient(
    bench: &mut Bench,
    name: &str,
    work: Work,
    x: &Tensor,
    loss: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<()> {
    let x = tensor::detach(x)?;
    x.set_requires_grad(true)?;
    bench.entries(name, work, || {
        x.set_grad(None)?;
        let loss = loss(&x)?;
        tensor::backward(&loss, None, BackwardOptions::default())?;
        let grad = x.grad();
        tensor::evaluate(&grad.iter().chain([&loss]).collect::<Vec<_>>())
    })
}
