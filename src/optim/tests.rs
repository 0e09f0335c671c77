use super::*;
use crate::dtype::DType;
use crate::graph::TensorType;
use crate::ops::arithmetic::ADD;
use crate::tensor::{self, Tensor};

const START: [f64; 3] = [1.0, -2.0, 0.5];

fn tensor(values: &[f64]) -> Tensor {
    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_ne_bytes()).collect();
    Tensor::from_bytes(&bytes, TensorType::new(DType::F64, [values.len()])).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    let bytes = tensor::to_bytes(tensor).unwrap();
    bytes.chunks_exact(8).map(|chunk| f64::from_ne_bytes(chunk.try_into().unwrap())).collect()
}

/// The gradient at step t: fixed numbers that change sign and size.
fn gradient(t: usize) -> Vec<f64> {
    START.iter().enumerate().map(|(i, _)| ((t * 3 + i) as f64 * 0.7).sin() * 2.0).collect()
}

/// Five steps of a rule on the core, and the same in plain loops.
fn compare(rule: Rule, settings: &[f64], mut expected: impl FnMut(usize, &mut f64, f64, usize)) {
    let param = tensor(&START);
    param.set_requires_grad(true).unwrap();
    let mut updater = Updater::new(rule, vec![param.clone()]);
    let mut plain = START;
    for t in 1..=5 {
        let grad = gradient(t);
        param.set_grad(Some(tensor(&grad))).unwrap();
        step(&mut [(&mut updater, settings)]).unwrap();
        plain.iter_mut().zip(&grad).enumerate().for_each(|(i, (p, g))| expected(i, p, *g, t));
        for (got, want) in values(&param).iter().zip(&plain) {
            assert!((got - want).abs() <= 1e-12 * want.abs().max(1.0), "{rule:?} step {t}: {got} against {want}");
        }
    }
    assert_eq!(updater.state(0).unwrap().step, 5);
}

#[test]
fn sgd_follows_its_formula() {
    compare(Rule::Sgd, &[0.1, 0.0, 0.0, 0.0, 0.0, 0.0], |_, p, g, _| *p -= 0.1 * g);
    for (nesterov, dampening) in [(0.0, 0.3), (1.0, 0.0)] {
        let mut buffer = [0.0; 3];
        compare(Rule::Sgd, &[0.1, 0.9, dampening, 0.01, nesterov, 1.0], move |i, p, g, t| {
            let g = -g + 0.01 * *p;
            buffer[i] = if t == 1 { g } else { 0.9 * buffer[i] + (1.0 - dampening) * g };
            *p -= 0.1 * if nesterov == 1.0 { g + 0.9 * buffer[i] } else { buffer[i] };
        });
    }
}

#[test]
fn rmsprop_follows_its_formula() {
    for (momentum, centered) in [(0.0, 0.0), (0.9, 0.0), (0.0, 1.0), (0.9, 1.0)] {
        let (mut square, mut buffer, mut mean) = ([0.0; 3], [0.0; 3], [0.0; 3]);
        compare(Rule::RmsProp, &[0.01, 0.99, 1e-8, 0.1, momentum, centered, 0.0], move |i, p, g, _| {
            let g = g + 0.1 * *p;
            square[i] = 0.99 * square[i] + (1.0 - 0.99) * g * g;
            mean[i] += (1.0 - 0.99) * (g - mean[i]);
            let under = if centered == 1.0 { square[i] - mean[i] * mean[i] } else { square[i] };
            buffer[i] = momentum * buffer[i] + g / (under.sqrt() + 1e-8);
            *p -= 0.01 * buffer[i];
        });
    }
}

#[test]
fn adam_and_adamw_follow_their_formulas() {
    for (rule, amsgrad) in [(Rule::Adam, 0.0), (Rule::Adam, 1.0), (Rule::AdamW, 0.0), (Rule::AdamW, 1.0)] {
        let (mut mean, mut square, mut largest) = ([0.0; 3], [0.0; 3], [0.0f64; 3]);
        compare(rule, &[0.05, 0.9, 0.99, 1e-8, 0.2, amsgrad, 0.0], move |i, p, g, t| {
            let g = if rule == Rule::Adam { g + 0.2 * *p } else { g };
            if rule == Rule::AdamW {
                *p *= 1.0 - 0.05 * 0.2;
            }
            mean[i] = 0.9 * mean[i] + (1.0 - 0.9) * g;
            square[i] = 0.99 * square[i] + (1.0 - 0.99) * g * g;
            largest[i] = largest[i].max(square[i]);
            let second = if amsgrad == 1.0 { largest[i] } else { square[i] };
            let (first, second) = (mean[i] / (1.0 - 0.9f64.powi(t as i32)), second / (1.0 - 0.99f64.powi(t as i32)));
            *p -= 0.05 * first / (second.sqrt() + 1e-8);
        });
    }
}

#[test]
fn a_parameter_without_a_gradient_is_left_alone() {
    let (moved, still) = (tensor(&[1.0]), tensor(&[1.0]));
    moved.set_requires_grad(true).unwrap();
    still.set_requires_grad(true).unwrap();
    moved.set_grad(Some(tensor(&[1.0]))).unwrap();
    let mut updater = Updater::new(Rule::Adam, vec![moved.clone(), still.clone()]);
    step(&mut [(&mut updater, &[0.1, 0.9, 0.999, 1e-8, 0.0, 0.0, 0.0])]).unwrap();
    assert!(values(&moved)[0] < 1.0 && values(&still)[0] == 1.0);
    assert!(updater.state(1).unwrap().step == 0 && updater.state(1).unwrap().tensors[0].is_none());
}

/// The address of a tensor's buffer.
fn address(tensor: &Tensor) -> usize {
    tensor.value().unwrap().0.buffer.id()
}

#[test]
fn steps_write_parameters_and_state_in_place() {
    for (rule, settings) in [
        (Rule::Sgd, vec![0.1, 0.0, 0.0, 0.0, 0.0, 0.0]),
        (Rule::Sgd, vec![0.1, 0.9, 0.0, 0.0, 0.0, 0.0]),
        (Rule::RmsProp, vec![0.01, 0.99, 1e-8, 0.0, 0.9, 1.0, 0.0]),
        (Rule::Adam, vec![0.01, 0.9, 0.999, 1e-8, 0.0, 1.0, 0.0]),
    ] {
        let params = [tensor(&START), tensor(&[0.25; 7])];
        let mut updater = Updater::new(rule, params.to_vec());
        let mut addresses = |t: usize| {
            for param in &params {
                param.set_requires_grad(true).unwrap();
                let grad = vec![0.5 + t as f64; param.shape().size()];
                param.set_grad(Some(tensor(&grad))).unwrap();
            }
            step(&mut [(&mut updater, &settings)]).unwrap();
            let states = (0..params.len()).flat_map(|at| updater.state(at).unwrap().tensors.clone()).flatten();
            params.iter().cloned().chain(states).map(|tensor| address(&tensor)).collect::<Vec<_>>()
        };
        let first = addresses(0);
        assert!((1..4).all(|t| addresses(t) == first), "{rule:?}");
    }
}

#[test]
fn an_old_value_that_somebody_holds_is_left_alone() {
    let (param, other) = (tensor(&START), tensor(&START));
    let mut updater = Updater::new(Rule::Sgd, vec![param.clone(), other.clone()]);
    let settings = [0.1, 0.9, 0.0, 0.0, 0.0, 0.0];
    for param in updater.params() {
        param.set_requires_grad(true).unwrap();
        param.set_grad(Some(tensor(&[1.0, 1.0, 1.0]))).unwrap();
    }
    step(&mut [(&mut updater, &settings)]).unwrap();
    let (kept, places) = (tensor::detach(&param).unwrap(), [address(&param), address(&other)]);
    let before = values(&kept);
    step(&mut [(&mut updater, &settings)]).unwrap();
    assert_eq!(values(&kept), before);
    assert_eq!(address(&kept), places[0]);
    assert_ne!(address(&param), places[0]);
    assert_eq!(address(&other), places[1]);
}

#[test]
fn a_first_step_keeps_nothing_that_it_replaces() {
    // No other test has a plan with this many elements.
    const SIZE: usize = 1237;
    let half = tensor(&[0.25; SIZE]);
    let param = tensor::binary(&ADD, (&half).into(), (&half).into()).unwrap();
    param.set_requires_grad(true).unwrap();
    param.set_grad(Some(tensor(&[1.0; SIZE]))).unwrap();
    let mut updater = Updater::new(Rule::Adam, vec![param.clone()]);
    step(&mut [(&mut updater, &[0.1, 0.9, 0.999, 0.0, 0.0, 0.0, 0.0])]).unwrap();
    assert!(values(&param).iter().all(|p| (p - 0.4).abs() < 1e-12));
    let sizes = tensor::PLANS.plans().into_iter().map(|plan| plan.buffers().to_vec());
    let ours: Vec<_> = sizes.filter(|sizes| sizes.contains(&(SIZE * 8))).collect();
    assert_eq!(ours, [[SIZE * 8; 3]], "the parameter and its two states, not what they were before");
}

#[test]
fn parameters_of_two_dtypes_and_more_than_one_node_holds_keep_theirs() {
    let single = |x: f32| Tensor::from_bytes(&x.to_ne_bytes(), TensorType::new(DType::F32, [1])).unwrap();
    let mut params: Vec<Tensor> = (0..40).map(|i| tensor(&[f64::from(i), 1.0])).collect();
    params.insert(7, single(0.5));
    for param in &params {
        param.set_requires_grad(true).unwrap();
        let grad = if param.dtype() == DType::F32 { single(1.0) } else { tensor(&[1.0, -1.0]) };
        param.set_grad(Some(grad)).unwrap();
    }
    let mut updater = Updater::new(Rule::Adam, params.clone());
    step(&mut [(&mut updater, &[0.5, 0.9, 0.999, 0.0, 0.0, 0.0, 0.0])]).unwrap();
    assert_eq!(params[7].dtype(), DType::F32);
    assert_eq!(tensor::to_bytes(&params[7]).unwrap(), 0.0f32.to_ne_bytes());
    for (at, param) in params.iter().enumerate().filter(|(at, _)| *at != 7) {
        let start = (at - usize::from(at > 7)) as f64;
        let [first, second] = values(param)[..] else { panic!("two elements") };
        assert!((first - (start - 0.5)).abs() < 1e-12 && (second - 1.5).abs() < 1e-12, "{at}: {first} {second}");
    }
}
