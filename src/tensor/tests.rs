//! The rules of the tensor layer, from Rust.

use super::*;
use crate::dtype::DType;
use crate::graph::TensorType;
use crate::ops::{activation, arithmetic, reduce as reduction};

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

fn mul(x: &Tensor, y: &Tensor) -> Tensor {
    binary(&arithmetic::MULTIPLY, x.into(), y.into()).unwrap()
}

fn add(x: &Tensor, y: &Tensor) -> Tensor {
    binary(&arithmetic::ADD, x.into(), y.into()).unwrap()
}

fn scale(x: &Tensor, by: f64) -> Tensor {
    binary(&arithmetic::MULTIPLY, x.into(), by.into()).unwrap()
}

fn total(x: &Tensor) -> Tensor {
    reduce(&reduction::SUM, x, None, false).unwrap()
}

fn run_backward(x: &Tensor) {
    backward(x, None, BackwardOptions::default()).unwrap();
}

#[test]
fn gradients_of_a_square() {
    let w = variable(&[1.0, 2.0, 3.0]);
    run_backward(&total(&mul(&w, &w)));
    assert_eq!(read(&w.grad().unwrap()), [2.0, 4.0, 6.0]);
}

#[test]
fn gradients_add_up() {
    let w = variable(&[1.0, 2.0]);
    run_backward(&total(&mul(&w, &w)));
    run_backward(&total(&scale(&w, 3.0)));
    assert_eq!(read(&w.grad().unwrap()), [5.0, 7.0]);
}

#[test]
fn reading_the_loss_first_changes_nothing() {
    let w = variable(&[0.5, -0.25]);
    let y = unary(&activation::TANH, (&w).into()).unwrap();
    let loss = total(&mul(&y, &y));
    let value = item(&loss).unwrap().as_f64();
    run_backward(&loss);
    let early = read(&w.grad().unwrap());
    w.set_grad(None).unwrap();
    let y = unary(&activation::TANH, (&w).into()).unwrap();
    let loss = total(&mul(&y, &y));
    run_backward(&loss);
    assert_eq!(read(&w.grad().unwrap()), early);
    assert_eq!(item(&loss).unwrap().as_f64(), value);
}

#[test]
fn a_second_backward_needs_the_history() {
    let w = variable(&[1.0, 2.0]);
    let loss = total(&mul(&w, &w));
    run_backward(&loss);
    let error = backward(&loss, None, BackwardOptions::default()).unwrap_err();
    assert!(error.message().contains("retain_graph"), "{error}");
    let w = variable(&[1.0, 2.0]);
    let loss = total(&mul(&w, &w));
    backward(&loss, None, BackwardOptions { retain_graph: Some(true), ..Default::default() }).unwrap();
    run_backward(&loss);
    assert_eq!(read(&w.grad().unwrap()), [4.0, 8.0]);
}

#[test]
fn second_order_by_create_graph() {
    let w = variable(&[1.0, 2.0]);
    let cube = mul(&mul(&w, &w), &w);
    let options = BackwardOptions { create_graph: true, ..Default::default() };
    let first = autograd_grad(&[&total(&cube)], &[&w], None, options, false).unwrap().remove(0).unwrap();
    assert_eq!(read(&first), [3.0, 12.0]);
    run_backward(&total(&first));
    assert_eq!(read(&w.grad().unwrap()), [6.0, 12.0]);
}

/// w -= 0.1·gradient, at the barrier.
fn descend(w: &Tensor) {
    let rebound = {
        let _mode = GradGuard::new(false);
        let update = binary(&arithmetic::SUBTRACT, w.into(), (&scale(&w.grad().unwrap(), 0.1)).into()).unwrap();
        Rebinding::new(w, &update)
    };
    evaluate_all(&[rebound]).unwrap();
}

#[test]
fn a_step_is_a_barrier_and_updates_in_place() {
    let w = variable(&[1.0, 2.0, 3.0]);
    let address = |w: &Tensor| w.value().unwrap().0.buffer.id();
    let first = address(&w);
    for _ in 0..20 {
        w.set_grad(None).unwrap();
        let loss = total(&mul(&w, &w));
        run_backward(&loss);
        descend(&w);
        assert!(w.is_evaluated() && loss.is_evaluated());
        assert_eq!(address(&w), first, "the update was not written over the old value");
    }
    assert!((read(&w)[0] - 0.8f64.powi(20)).abs() < 1e-12);
}

#[test]
fn a_value_that_somebody_holds_is_not_written_over() {
    let w = variable(&[1.0, 2.0, 3.0]);
    let held = detach(&w).unwrap();
    run_backward(&total(&mul(&w, &w)));
    descend(&w);
    assert_eq!(read(&held), [1.0, 2.0, 3.0]);
    assert_eq!(read(&w), [1.0 - 2.0 * 0.1, 2.0 - 4.0 * 0.1, 3.0 - 6.0 * 0.1]);
}

#[test]
fn detached_parts_get_no_gradient() {
    let w = variable(&[2.0]);
    let y = scale(&w, 3.0);
    let z = add(&mul(&y, &detach(&y).unwrap()), &w);
    run_backward(&total(&z));
    assert_eq!(read(&w.grad().unwrap()), [19.0]);
    let w = variable(&[2.0]);
    let y = scale(&w, 2.0);
    let frozen = {
        let _mode = GradGuard::new(false);
        scale(&y, 3.0)
    };
    run_backward(&total(&add(&y, &frozen)));
    assert_eq!(read(&w.grad().unwrap()), [2.0]);
}

#[test]
fn variables_cannot_be_rebound_while_recording() {
    let w = variable(&[1.0]);
    assert!(w.rebind(&vector(&[2.0])).is_err());
    let y = scale(&w, 5.0);
    {
        let _mode = GradGuard::new(false);
        w.rebind(&scale(&w, 2.0)).unwrap();
    }
    run_backward(&total(&add(&mul(&y, &w), &w)));
    // y is 5 of the old version; w is the new version: both add to the one gradient.
    assert_eq!(read(&w.grad().unwrap()), [5.0 * 2.0 + 5.0 + 1.0]);
}

fn gradient_of(f: impl Fn(&Tensor) -> Tensor, x: &Tensor) -> Tensor {
    let frame = Transform::differentiate().unwrap();
    let argument = frame.argument(x).unwrap();
    let value = f(&argument);
    frame.close().unwrap();
    gradient(&[&value], None, &[&argument]).unwrap().remove(0)
}

#[test]
fn gradients_nest() {
    let x = vector(&[2.0]);
    let cube = |x: &Tensor| total(&mul(&mul(x, x), x));
    assert_eq!(read(&gradient_of(cube, &x)), [12.0]);
    let second = |x: &Tensor| total(&gradient_of(cube, x));
    assert_eq!(read(&gradient_of(second, &x)), [12.0]);
    let third = |x: &Tensor| total(&gradient_of(second, x));
    assert_eq!(read(&gradient_of(third, &x)), [6.0]);
}

#[test]
fn a_transform_is_differentiated_by_backward() {
    let w = variable(&[3.0]);
    let cube = |x: &Tensor| total(&mul(&mul(x, x), x));
    let slope = gradient_of(cube, &w);
    run_backward(&total(&slope));
    assert_eq!(read(&w.grad().unwrap()), [18.0]);
}

#[test]
fn vmap_of_a_gradient() {
    let rows = reshape(&vector(&[1.0, 2.0, 3.0, 4.0]), &[2, 2]).unwrap();
    let frame = Transform::batch().unwrap();
    let example = frame.example(&rows).unwrap();
    let slope = gradient_of(|x| total(&mul(&mul(x, x), x)), &example);
    assert!(slope.value().is_err());
    frame.close().unwrap();
    let all = vmap_axis(2, &[&slope], &[&example], &[&rows]).unwrap().remove(0);
    assert_eq!(read(&all), [3.0, 12.0, 27.0, 48.0]);
    assert_eq!(all.shape().to_vec(), [2, 2]);
}

#[test]
fn forward_mode() {
    let x = vector(&[0.5, 1.0]);
    let frame = Transform::differentiate().unwrap();
    let argument = frame.argument(&x).unwrap();
    let value = mul(&argument, &argument);
    frame.close().unwrap();
    let tangent = jvp(&[&value], &[&argument], &[&vector(&[1.0, 10.0])]).unwrap().remove(0);
    assert_eq!(read(&tangent), [1.0, 20.0]);
}

#[test]
fn a_custom_gradient_is_used_in_both_modes_and_at_second_order() {
    // x² with the gradient 10·x.
    let f = |x: &Tensor| {
        let value = mul(x, x);
        let trace = CustomTrace::begin(&value).unwrap();
        let slope = scale(&mul(trace.cotangent(), x), 10.0);
        assert!(trace.cotangent().value().is_err());
        trace.finish(&value, &[x], &[&slope]).unwrap()
    };
    let w = variable(&[3.0]);
    let y = f(&w);
    assert_eq!(read(&y), [9.0]);
    run_backward(&total(&y));
    assert_eq!(read(&w.grad().unwrap()), [30.0]);
    let x = vector(&[3.0]);
    let second = |x: &Tensor| total(&gradient_of(|x| total(&f(x)), x));
    assert_eq!(read(&gradient_of(second, &x)), [10.0]);
    let frame = Transform::differentiate().unwrap();
    let argument = frame.argument(&x).unwrap();
    let value = f(&argument);
    frame.close().unwrap();
    let tangent = jvp(&[&value], &[&argument], &[&vector(&[2.0])]).unwrap().remove(0);
    assert_eq!(read(&tangent), [60.0]);
}

#[test]
fn numbers_are_plan_inputs() {
    let x = vector(&[1.0, 2.0]);
    read(&scale(&x, 1.5));
    let before = PLANS.counters().hits;
    assert_eq!(read(&scale(&x, 2.5)), [2.5, 5.0]);
    assert!(PLANS.counters().hits > before);
}

#[test]
fn long_chains_fit_a_small_stack() {
    std::thread::Builder::new()
        .stack_size(512 << 10)
        .spawn(|| {
            let w = variable(&[1.0]);
            let mut x = scale(&w, 1.0);
            for _ in 0..20_000 {
                x = add(&x, &w);
            }
            run_backward(&total(&x));
            assert_eq!(read(&w.grad().unwrap()), [20_001.0]);
        })
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn the_argument_of_a_transform_has_a_value() {
    let x = vector(&[3.0]);
    let frame = Transform::differentiate().unwrap();
    let argument = frame.argument(&x).unwrap();
    assert_eq!(read(&argument), [3.0]);
    frame.close().unwrap();
    let pending = scale(&x, 2.0);
    let frame = Transform::differentiate().unwrap();
    let argument = frame.argument(&pending).unwrap();
    assert_eq!(read(&argument), [6.0]);
    frame.close().unwrap();
}

#[test]
fn linear_history_is_not_used_up() {
    let w = variable(&[2.0]);
    let sum = add(&w, &w);
    run_backward(&total(&scale(&sum, 1.0)));
    run_backward(&total(&scale(&sum, 10.0)));
    assert_eq!(read(&w.grad().unwrap()), [22.0]);
}

#[test]
fn an_outer_handle_does_not_leave_a_transform_changed() {
    let outer = vector(&[1.0]);
    let frame = Transform::differentiate().unwrap();
    let argument = frame.argument(&vector(&[2.0])).unwrap();
    let inner = scale(&argument, 1.0);
    inner.rebind(&add(&inner, &argument)).unwrap();
    outer.rebind(&add(&outer, &argument)).unwrap();
    assert!(frame.close().unwrap_err().message().contains("outside"));
    assert_eq!(read(&outer), [1.0]);
    assert_eq!(read(&inner), [4.0]);
}

/// x², with the gradient that its rule computes from a value that it captured.
fn captured_square(x: &Tensor) -> Tensor {
    let value = mul(x, x);
    let twice = scale(x, 2.0);
    let trace = CustomTrace::begin(&value).unwrap();
    let slope = mul(trace.cotangent(), &twice);
    trace.finish(&value, &[x], &[&slope]).unwrap()
}

#[test]
fn vmap_of_the_gradient_of_a_custom_rule() {
    let rows = vector(&[1.0, 2.0]);
    for twice in [false, true] {
        let frame = Transform::batch().unwrap();
        let example = frame.example(&rows).unwrap();
        let first = |x: &Tensor| gradient_of(captured_square, x);
        let slope = if twice { gradient_of(first, &example) } else { first(&example) };
        frame.close().unwrap();
        let all = vmap_axis(2, &[&slope], &[&example], &[&rows]).unwrap().remove(0);
        assert_eq!(read(&all), if twice { [2.0, 2.0] } else { [2.0, 4.0] });
    }
}

#[test]
fn a_captured_draw_is_drawn_again_for_the_gradient() {
    let w = variable(&[2.0]);
    let draw = random(&crate::ops::random::UNIFORM, w.shape(), DType::F64, Default::default()).unwrap();
    let value = mul(&w, &draw);
    let trace = CustomTrace::begin(&value).unwrap();
    let slope = mul(trace.cotangent(), &draw);
    let y = trace.finish(&value, &[&w], &[&slope]).unwrap();
    drop((draw, value, slope));
    let factor = read(&y)[0] / 2.0;
    run_backward(&total(&y));
    assert_eq!(read(&w.grad().unwrap()), [factor]);
}

#[test]
fn gradients_of_nested_transforms_have_no_history() {
    let cube = |x: &Tensor| total(&mul(&mul(x, x), x));
    let second = gradient_of(|x| total(&gradient_of(cube, x)), &vector(&[2.0]));
    assert!(result(&second, &[]).is_ok_and(|second| !second.requires_grad()));
    let w = variable(&[2.0]);
    let slope = gradient_of(|x| total(&mul(x, &w)), &vector(&[3.0]));
    assert!(result(&slope, &[]).is_ok_and(|slope| slope.requires_grad()));
}

#[test]
fn gradients_with_respect_to_a_variable_cover_its_versions() {
    let w = variable(&[1.0]);
    let y = mul(&w, &w);
    {
        let _mode = GradGuard::new(false);
        w.rebind(&scale(&w, 3.0)).unwrap();
    }
    let z = total(&add(&y, &scale(&w, 10.0)));
    let found = autograd_grad(&[&z], &[&w], None, BackwardOptions::default(), false).unwrap().remove(0).unwrap();
    assert_eq!(read(&found), [12.0]);
}

#[test]
fn a_backward_pass_inside_a_batch_leaves_variables_alone() {
    let w = variable(&[2.0]);
    let frame = Transform::batch().unwrap();
    let example = frame.example(&reshape(&vector(&[1.0, 2.0]), &[2, 1]).unwrap()).unwrap();
    let error = backward(&total(&mul(&w, &example)), None, BackwardOptions::default()).unwrap_err();
    assert!(error.message().contains("vmap"), "{error}");
    frame.close().unwrap();
    assert!(w.grad().is_none());
}

#[test]
fn a_value_is_read_while_another_thread_rebinds_the_handle() {
    let shared = vector(&[1.0]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..2_000 {
                shared.rebind(&scale(&shared, 1.0)).unwrap();
            }
        });
        for _ in 0..2_000 {
            assert_eq!(read(&shared), [1.0]);
        }
    });
}
