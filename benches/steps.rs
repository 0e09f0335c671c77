//! Where training steps spend their time: each kernel of the plan of a workload, timed alone. The dense workloads are
//! those of `workloads.py`; layers with their gradients stand beside them.
//! Run: cargo bench --bench steps -- [--kernels] [NAME …]

use smallvec::smallvec;
use std::sync::Arc;
use std::time::Instant;
use wengert::dtype::DType;
use wengert::error::Result;
use wengert::exec::{self, Inputs, Leaf, Plan};
use wengert::graph::TensorType;
use wengert::machine::cpu::buffer::Buffer;
use wengert::nn;
use wengert::ops::losses::Reduction;
use wengert::ops::{activation, softmax};
use wengert::optim::{self, Rule, Updater};
use wengert::scalar::Scalar;
use wengert::tensor::{self, BackwardOptions, Tensor};

#[derive(Clone, Copy, PartialEq)]
enum Activation {
    Tanh,
    Relu,
    Gelu,
}

struct Workload {
    name: &'static str,
    sizes: &'static [usize],
    batch: usize,
    activation: Activation,
    classes: bool,
    rule: Rule,
    settings: &'static [f64],
}

const CLASSES: nn::Classes =
    nn::Classes { weight: None, ignore_index: -100, label_smoothing: 0.0, reduction: Reduction::Mean };

const ADAM: &[f64] = &[1e-3, 0.9, 0.999, 1e-8, 0.0, 0.0, 0.0];

const WORKLOADS: &[Workload] = &[
    Workload {
        name: "xor",
        sizes: &[2, 8, 1],
        batch: 4,
        activation: Activation::Tanh,
        classes: false,
        rule: Rule::Sgd,
        settings: &[0.05, 0.9, 0.0, 0.0, 0.0, 0.0],
    },
    Workload {
        name: "tabular",
        sizes: &[32, 64, 64, 1],
        batch: 32,
        activation: Activation::Relu,
        classes: false,
        rule: Rule::Adam,
        settings: ADAM,
    },
    Workload {
        name: "deep",
        sizes: &[64; 21],
        batch: 64,
        activation: Activation::Tanh,
        classes: false,
        rule: Rule::RmsProp,
        settings: &[1e-4, 0.99, 1e-8, 0.0, 0.0, 0.0, 0.0],
    },
    Workload {
        name: "mnist",
        sizes: &[784, 128, 10],
        batch: 64,
        activation: Activation::Relu,
        classes: true,
        rule: Rule::Adam,
        settings: ADAM,
    },
    Workload {
        name: "mnist-wide",
        sizes: &[784, 512, 512, 10],
        batch: 128,
        activation: Activation::Relu,
        classes: true,
        rule: Rule::Adam,
        settings: ADAM,
    },
    Workload {
        name: "gelu",
        sizes: &[1024, 2048, 2048, 2048, 1024],
        batch: 256,
        activation: Activation::Gelu,
        classes: false,
        rule: Rule::Adam,
        settings: ADAM,
    },
];

fn filled(shape: &[usize], scale: f32) -> Result<Tensor> {
    let n: usize = shape.iter().product();
    let bytes = (0..n).flat_map(|i| ((((i * 7919 + 13) % 1000) as f32 / 500.0 - 1.0) * scale).to_ne_bytes());
    Tensor::from_bytes(&bytes.collect::<Vec<u8>>(), TensorType::new(DType::F32, shape))
}

struct Training<'a> {
    workload: &'a Workload,
    x: Tensor,
    target: Tensor,
    params: Vec<Tensor>,
    updater: Updater,
}

impl Training<'_> {
    fn new(workload: &Workload) -> Result<Training<'_>> {
        let mut params = Vec::new();
        for pair in workload.sizes.windows(2) {
            params.push(filled(&[pair[1], pair[0]], 1.0 / (pair[0] as f32).sqrt())?);
            params.push(filled(&[pair[1]], 0.1)?);
        }
        params.iter().try_for_each(|param| param.set_requires_grad(true))?;
        let (first, last) = (workload.sizes[0], workload.sizes[workload.sizes.len() - 1]);
        let target = if workload.classes {
            let bytes: Vec<u8> = (0..workload.batch as i64).flat_map(|i| (i % last as i64).to_ne_bytes()).collect();
            Tensor::from_bytes(&bytes, TensorType::new(DType::I64, [workload.batch]))?
        } else {
            filled(&[workload.batch, last], 1.0)?
        };
        let x = filled(&[workload.batch, first], 1.0)?;
        let updater = Updater::new(workload.rule, params.clone());
        Ok(Training { workload, x, target, params, updater })
    }

    fn step(&mut self) -> Result<()> {
        self.updater.zero_grad(true)?;
        let layers = self.params.len() / 2;
        let mut y = self.x.clone();
        for layer in 0..layers {
            y = nn::linear(&y, &self.params[2 * layer], Some(&self.params[2 * layer + 1]))?;
            if layer + 1 < layers {
                y = match self.workload.activation {
                    Activation::Tanh => tensor::unary(&activation::TANH, (&y).into())?,
                    Activation::Relu => tensor::unary(&activation::RELU, (&y).into())?,
                    Activation::Gelu => tensor::composite(&activation::GELU, smallvec![1], &[(&y).into()])?,
                };
            }
        }
        let loss = if self.workload.classes {
            nn::cross_entropy(&y, &self.target, &CLASSES)?
        } else {
            nn::mse_loss(&y, &self.target, Reduction::Mean)?
        };
        tensor::backward(&loss, None, BackwardOptions::default())?;
        optim::step(&mut [(&mut self.updater, self.workload.settings)])?;
        tensor::item(&loss)?;
        Ok(())
    }
}

/// Leaves of 16 MiB each, which hold any of the workloads', and numbers.
fn inputs(plan: &Plan) -> Result<(Vec<Leaf>, Vec<Scalar>)> {
    let (leaves, numbers) = plan.inputs();
    let leaf = |at: usize| {
        let buffer = Buffer::from_bytes(&vec![0; 17 << 20])?;
        if plan.leaf_bytes(at) == 4 {
            // SAFETY: the buffer holds as many floats.
            let floats = unsafe { std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast::<f32>(), 4 << 20) };
            floats.iter_mut().enumerate().for_each(|(i, x)| *x = ((i * 7919) % 1000) as f32 / 16000.0);
        }
        Ok(Leaf { buffer: Arc::new(buffer.into()), offset: 0 })
    };
    Ok(((0..leaves).map(leaf).collect::<Result<_>>()?, vec![Scalar::F64(0.001); numbers]))
}

const LAYERS: &[&str] =
    &["layer_norm", "rms_norm", "softmax", "log_softmax", "cross_entropy", "batch_norm", "bias_relu"];

/// A layer, weighted, and the gradients of its input and parameters.
fn layer(name: &str, kernels: bool) -> Result<()> {
    let nchw: &[usize] = &[64, 32, 24, 24];
    let is_of_images = matches!(name, "batch_norm" | "bias_relu");
    let (shape, channels): (&[usize], usize) = if is_of_images { (nchw, 32) } else { (&[768, 128], 128) };
    let classes: Vec<u8> = (0..768i64).flat_map(|i| (i % 128).to_ne_bytes()).collect();
    let classes = Tensor::from_bytes(&classes, TensorType::new(DType::I64, [768]))?;
    let row = wengert::shape::Shape::from([128]);
    let (x, w, b) = (filled(shape, 1.0)?, filled(&[channels], 1.0)?, filled(&[channels], 1.0)?);
    let target = filled(shape, 1.0)?;
    let params = [&x, &w, &b];
    params.iter().try_for_each(|param| param.set_requires_grad(true))?;
    for turn in 0..3 {
        if turn == 2 {
            tensor::PLANS.clear();
        }
        params.iter().try_for_each(|param| param.set_grad(None))?;
        let y = match name {
            "layer_norm" => nn::layer_norm(&x, &row, Some(&w), Some(&b), 1e-5)?,
            "rms_norm" => nn::rms_norm(&x, &row, Some(&w), None)?,
            "softmax" => tensor::composite(&softmax::SOFTMAX, smallvec![1], &[(&x).into()])?,
            "log_softmax" => tensor::composite(&softmax::LOG_SOFTMAX, smallvec![1], &[(&x).into()])?,
            "cross_entropy" => nn::cross_entropy(&x, &classes, &CLASSES)?,
            "batch_norm" => nn::batch_norm(
                &x,
                &nn::BatchNorm {
                    running_mean: None,
                    running_var: None,
                    weight: Some(&w),
                    bias: Some(&b),
                    training: true,
                    momentum: 0.1,
                    eps: 1e-5,
                },
            )?,
            _ => {
                let b = tensor::reshape(&b, &[32, 1, 1])?;
                let y = tensor::binary(&wengert::ops::arithmetic::ADD, (&x).into(), (&b).into())?;
                tensor::unary(&activation::RELU, (&y).into())?
            }
        };
        let y = tensor::binary(&wengert::ops::arithmetic::MULTIPLY, (&y).into(), (&target).into())?;
        let loss = tensor::reduce(&wengert::ops::reduce::SUM, &y, None, false)?;
        tensor::backward(&loss, None, BackwardOptions::default())?;
        let grads: Vec<Tensor> = params.iter().filter_map(|param| param.grad()).collect();
        tensor::evaluate(&grads.iter().collect::<Vec<_>>())?;
    }
    print_plan(name, kernels)
}

fn measure(workload: &Workload, kernels: bool) -> Result<()> {
    let mut training = Training::new(workload)?;
    // The first steps make the state, so their plans are others.
    for _ in 0..2 {
        training.step()?;
    }
    tensor::PLANS.clear();
    training.step()?;
    let (mut best, end) = (f64::MAX, Instant::now());
    while end.elapsed().as_secs_f64() < 1.0 {
        let start = Instant::now();
        for _ in 0..4 {
            training.step()?;
        }
        best = best.min(start.elapsed().as_secs_f64() / 4.0);
    }
    print!("step {:10.2} us, ", best * 1e6);
    print_plan(workload.name, kernels)
}

/// Times the largest plan that is kept, and its kernels.
fn print_plan(name: &str, kernels: bool) -> Result<()> {
    let plans = tensor::PLANS.plans();
    let plan = plans.iter().filter_map(|plan| plan.on_cpu()).max_by_key(|plan| plan.kernels());
    let Some(plan) = plan else { return Ok(()) };
    let (leaves, numbers) = inputs(plan)?;
    let inputs = Inputs { leaves: &leaves, numbers: &numbers };
    let mut least = vec![u64::MAX; plan.kernels()];
    let (mut alone, end) = (f64::MAX, Instant::now());
    let mut runs = 0;
    while end.elapsed().as_secs_f64() < 1.0 || runs < 5 {
        let start = Instant::now();
        drop(exec::run(plan, &inputs)?);
        alone = alone.min(start.elapsed().as_secs_f64());
        let mut nanos = vec![0; plan.kernels()];
        drop(exec::run_timed(plan, &inputs, &mut nanos)?);
        least.iter_mut().zip(&nanos).for_each(|(least, &nanos)| *least = nanos.min(*least));
        runs += 1;
    }
    println!(
        "{name}: plan {:10.2} us, its {} kernels {:10.2} us",
        alone * 1e6,
        least.len(),
        least.iter().sum::<u64>() as f64 / 1e3
    );
    if kernels {
        let text = plan.to_string();
        let mut lines = text.lines().filter(|line| *line != "commit:");
        println!("  {}", lines.next().unwrap_or_default());
        for (line, nanos) in lines.zip(&least) {
            println!("  {:9.2} us  {line}", *nanos as f64 / 1e3);
        }
    }
    Ok(())
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let kernels = args.iter().any(|arg| arg == "--kernels");
    let names: Vec<&String> = args.iter().filter(|arg| !arg.starts_with("--")).collect();
    let wants = |name: &str| names.is_empty() || names.iter().any(|wanted| *wanted == name);
    for name in LAYERS.iter().filter(|name| wants(name)) {
        if let Err(error) = layer(name, kernels) {
            panic!("{name}: {error}");
        }
    }
    for workload in WORKLOADS.iter().filter(|workload| wants(workload.name)) {
        if let Err(error) = measure(workload, kernels) {
            panic!("{}: {error}", workload.name);
        }
    }
}
