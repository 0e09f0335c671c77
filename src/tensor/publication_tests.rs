//! Nothing is computed twice, and nothing is kept for nothing: counted by ops whose kernels count their runs.

use super::*;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Derivative, Graph, Promote, Reads, Rule, Tangents, TensorType, UnaryDef, Val};
use crate::machine::cpu::dispatch::{Arg as KernelArg, Kernels};
use crate::ops::{self, arithmetic, reduce as reduction};
use std::cell::Cell;
use std::sync::Arc;

thread_local! {
    /// Runs of the counting kernels in this thread: plans this small run in the thread that asks.
    static RUNS: Cell<usize> = const { Cell::new(0) };
}

fn runs() -> usize {
    RUNS.replace(0)
}

/// out = x² in float64, counting one run for each call that holds the first element.
unsafe fn counted_square(n: usize, out: *mut u8, args: &[KernelArg]) {
    RUNS.set(RUNS.get() + 1);
    let (x, out) = (args[0].ptr as *const f64, out as *mut f64);
    for i in 0..n {
        // SAFETY: the executor gives n elements of each; a scalar is read in place 0.
        unsafe {
            let value = *x.add(if args[0].scalar { 0 } else { i });
            *out.add(i) = value * value;
        }
    }
}

static COUNTED: Kernels = [counted_square; 3];

fn tangent(g: &mut Graph, rule: &Rule, t: &[Option<Val>]) -> Result<Tangents> {
    let two = ops::full_like(g, 2.0, rule.inputs[0]);
    let slope = ops::multiply(g, two, rule.inputs[0])?;
    arithmetic::times(g, t[0], slope)
}

static COUNTED_SQUARE: UnaryDef = UnaryDef {
    name: "counted_square",
    doc: "x², counting.",
    domain: (-1.0, 1.0),
    ulp: 0.5,
    promote: Promote::Float,
    kernels: |dtype| (dtype == DType::F64).then_some(&COUNTED),
    wgsl: |_| None,
    gpu_ulp: 0.5,
    reference: |x| x * x,
    derivative: Derivative::Jvp(tangent),
    reads: Reads::INPUT,
};

fn vector(values: &[f64]) -> Tensor {
    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_ne_bytes()).collect();
    Tensor::from_bytes(&bytes, TensorType::new(DType::F64, [values.len()])).unwrap()
}

fn variable(values: &[f64]) -> Tensor {
    let tensor = vector(values);
    tensor.set_requires_grad(true).unwrap();
    tensor
}

fn read(tensor: &Tensor) -> Vec<f64> {
    to_bytes(tensor).unwrap().chunks_exact(8).map(|x| f64::from_ne_bytes(x.try_into().unwrap())).collect()
}

fn square(x: &Tensor) -> Tensor {
    unary(&COUNTED_SQUARE, x.into()).unwrap()
}

fn total(x: &Tensor) -> Tensor {
    reduce(&reduction::SUM, x, None, false).unwrap()
}

fn run_backward(x: &Tensor) {
    backward(x, None, BackwardOptions::default()).unwrap();
}

/// x -= its gradient, at the barrier.
fn descend(x: &Tensor) {
    let rebound = {
        let _mode = GradGuard::new(false);
        let update = binary(&arithmetic::SUBTRACT, x.into(), (&x.grad().unwrap()).into()).unwrap();
        Rebinding::new(x, &update)
    };
    evaluate_all(&[rebound]).unwrap();
}

#[test]
fn a_read_before_backward_costs_nothing() {
    let w = variable(&[1.0, 2.0]);
    // The second square reads its input, the first one's value, which must have been kept.
    let loss = total(&square(&square(&w)));
    runs();
    assert_eq!(item(&loss).unwrap().as_f64(), 17.0);
    assert_eq!(runs(), 2);
    run_backward(&loss);
    assert_eq!(read(&w.grad().unwrap()), [4.0, 32.0]);
    assert_eq!(runs(), 0);
}

#[test]
fn a_read_between_backward_and_step_costs_nothing() {
    let w = variable(&[1.0, 2.0]);
    let loss = total(&square(&square(&w)));
    run_backward(&loss);
    runs();
    item(&loss).unwrap();
    assert_eq!(runs(), 2);
    descend(&w);
    assert_eq!(runs(), 0);
    assert_eq!(read(&w), [-3.0, -30.0]);
}

#[test]
fn what_a_step_replaces_is_kept_for_another_thread() {
    let x = square(&vector(&[1.0, 2.0]));
    x.set_requires_grad(true).unwrap();
    let theirs = std::thread::scope(|scope| scope.spawn(|| square(&x)).join().unwrap());
    run_backward(&total(&square(&x)));
    descend(&x);
    assert_eq!(read(&x), [-1.0, -4.0]);
    assert_eq!(read(&theirs), [1.0, 16.0]);
}

#[test]
fn two_losses_share_their_trunk() {
    let w = variable(&[1.0, 2.0]);
    let trunk = square(&w);
    let (first, second) = (total(&square(&trunk)), total(&trunk));
    drop(trunk);
    runs();
    item(&first).unwrap();
    assert_eq!(runs(), 2);
    item(&second).unwrap();
    assert_eq!(runs(), 0);
    run_backward(&first);
    read(&w.grad().unwrap());
    assert_eq!(runs(), 0);
}

#[test]
fn a_pending_reader_keeps_its_input() {
    let x = vector(&[1.0, 2.0]);
    let y = square(&x);
    let (a, b) = (total(&y), square(&y));
    drop(y);
    runs();
    item(&a).unwrap();
    assert_eq!(runs(), 1);
    read(&b);
    assert_eq!(runs(), 1);
}

#[test]
fn two_backward_passes_over_one_retained_history() {
    let w = variable(&[1.0, 2.0]);
    let loss = total(&square(&square(&w)));
    runs();
    backward(&loss, None, BackwardOptions { retain_graph: Some(true), ..Default::default() }).unwrap();
    read(&w.grad().unwrap());
    run_backward(&loss);
    assert_eq!(read(&w.grad().unwrap()), [8.0, 64.0]);
    assert_eq!(runs(), 2);
}

#[test]
fn nothing_is_kept_without_gradients() {
    let w = variable(&[1.0, 2.0]);
    let _mode = GradGuard::new(false);
    let mut x = square(&w);
    for _ in 0..5 {
        let before = Arc::downgrade(&x.value().unwrap().0.buffer);
        x = square(&x);
        read(&x);
        assert!(before.upgrade().is_none(), "the value before is held");
    }
}

#[test]
fn what_a_backward_pass_used_up_is_freed() {
    let w = variable(&[1.0, 2.0]);
    let trunk = square(&w);
    let kept = Arc::downgrade(&trunk.value().unwrap().0.buffer);
    let loss = total(&square(&trunk));
    drop(trunk);
    item(&loss).unwrap();
    assert!(kept.upgrade().is_some(), "the gradient reads it");
    run_backward(&loss);
    read(&w.grad().unwrap());
    assert!(kept.upgrade().is_none(), "nothing needs it any more");
}

#[test]
fn eager_and_lazy_compute_as_often() {
    let w = variable(&[1.0, 2.0]);
    runs();
    let _eager = EagerGuard::new(true);
    let loss = total(&square(&square(&w)));
    run_backward(&loss);
    assert_eq!(read(&w.grad().unwrap()), [4.0, 32.0]);
    assert_eq!(runs(), 2);
}
