//! Which device a record belongs to. No device is opened: a recorded node computes nothing.

use super::*;
use crate::device_id::DeviceId;
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{GatherMode, TensorType};
use crate::ops::{arithmetic, compare, matmul as products, random as randoms, reduce as reductions};
use crate::scalar::Scalar;
use smallvec::SmallVec;

const GPU: DeviceId = DeviceId::Gpu(0);

fn ones(device: DeviceId) -> Tensor {
    full([2, 2].into(), Scalar::F64(1.0), DType::F32, device).unwrap()
}

fn mixed(result: Result<Tensor>) -> Error {
    let error = result.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Device);
    assert!(error.message().contains("cpu") && error.message().contains("gpu:0"), "{error}");
    error
}

#[test]
fn results_are_where_their_operands_are() {
    for device in [DeviceId::Cpu, GPU] {
        let x = ones(device);
        let results = [
            binary(&arithmetic::ADD, (&x).into(), 2.0.into()),
            binary(&compare::LESS, (&x).into(), (&x).into()),
            matmul(&x, &x),
            reduce(&reductions::SUM, &x, None, false),
            cast(&x, DType::I64),
            reshape(&x, &[4]),
            with_slice(&x, &[SliceArg { axis: 0, start: 0, length: 1, step: 1 }], &[1, 2].into(), 3.0.into()),
            logaddexp((&x).into(), 1.0.into()),
            dropout(&x, 0.5),
            Ok(alias(&x)),
            detach(&x),
        ];
        for result in results {
            assert_eq!(result.unwrap().device(), device);
        }
    }
}

#[test]
fn what_has_no_operands_is_where_it_was_asked_for() {
    let made = [
        filled([2].into(), Scalar::F64(1.0), DType::F32, GPU),
        iota(3, GPU),
        random(&randoms::UNIFORM, [2].into(), DType::F32, GPU),
        randint(0, 5, &[2].into(), GPU),
        arange(0.into(), 5.into(), 1.into(), None, GPU),
    ];
    for tensor in made {
        assert_eq!(tensor.unwrap().device(), GPU);
    }
}

#[test]
fn variables_markers_gradients_and_placeholders_are_where_their_tensor_is() {
    let w = ones(GPU);
    w.set_requires_grad(true).unwrap();
    let loss = reduce(&reductions::SUM, &matmul(&w, &w).unwrap(), None, false).unwrap();
    backward(&loss, None, BackwardOptions::default()).unwrap();
    assert_eq!((loss.device(), w.grad().unwrap().device()), (GPU, GPU));
    let frame = Transform::batch().unwrap();
    let example = frame.example(&detach(&w).unwrap()).unwrap();
    assert_eq!(example.device(), GPU);
    let loss = binary(&arithmetic::ADD, (&example).into(), 1.0.into()).unwrap();
    mixed(binary(&arithmetic::ADD, (&example).into(), (&ones(DeviceId::Cpu)).into()));
    frame.close().unwrap();
    assert_eq!(loss.device(), GPU);
    // Nothing of this was computed, and no later barrier should try.
    drop((w, loss));
}

#[test]
fn operands_on_two_devices_are_refused_and_leave_nothing_behind() {
    let (x, y) = (ones(DeviceId::Cpu), ones(GPU));
    let half = full([2].into(), Scalar::I64(1), DType::I64, DeviceId::Cpu).unwrap();
    let before = pending_nodes();
    let error = mixed(binary(&arithmetic::ADD, (&x).into(), (&y).into()));
    assert!(error.message().starts_with("add: ") && error.message().contains("x.to(\"gpu\")"), "{error}");
    mixed(binary(&arithmetic::ADD, (&y).into(), (&x).into()));
    mixed(composite(&products::MATMUL, SmallVec::new(), &[(&x).into(), (&y).into()]));
    // The cast of the other operand goes too.
    mixed(binary(&arithmetic::ADD, (&y).into(), (&half).into()));
    mixed(binary(&arithmetic::ADD, (&half).into(), (&y).into()));
    mixed(concat(&[&x, &y], 0));
    mixed(gather(GatherMode::Take, &y, &half, 0));
    assert_eq!(pending_nodes(), before);
}

#[test]
fn float64_is_refused_where_it_does_not_exist() {
    let refused = |result: Result<Tensor>, op: &str| {
        let error = result.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let names = ["float64", "gpu:0"];
        assert!(error.message().starts_with(op) && names.iter().all(|name| error.message().contains(name)), "{error}");
    };
    let x = ones(GPU);
    let before = pending_nodes();
    refused(cast(&x, DType::F64), "astype: ");
    refused(full([2].into(), Scalar::F64(1.0), DType::F64, GPU), "full: ");
    refused(random(&randoms::NORMAL, [2].into(), DType::F64, GPU), "normal: ");
    refused(Tensor::from_bytes_on(GPU, &[0; 8], TensorType::scalar(DType::F64)), "tensor: ");
    refused(to_device(&full([1].into(), Scalar::F64(1.0), DType::F64, DeviceId::Cpu).unwrap(), GPU), "to: ");
    assert_eq!(pending_nodes(), before);
}

#[test]
fn a_variable_takes_nothing_from_another_device() {
    let w = ones(DeviceId::Cpu);
    w.set_requires_grad(true).unwrap();
    assert_eq!(w.set_grad(Some(ones(GPU))).err().map(|error| error.kind()), Some(ErrorKind::Device));
    let _mode = GradGuard::new(false);
    assert_eq!(w.rebind(&ones(GPU)).err().map(|error| error.kind()), Some(ErrorKind::Device));
    // A tensor that is no variable is rebound as always.
    let x = ones(DeviceId::Cpu);
    x.rebind(&ones(GPU)).unwrap();
    assert_eq!(x.device(), GPU);
}

#[test]
fn a_move_of_what_requires_a_gradient_is_refused() {
    let w = ones(DeviceId::Cpu);
    w.set_requires_grad(true).unwrap();
    let y = binary(&arithmetic::ADD, (&w).into(), 1.0.into()).unwrap();
    for tensor in [&w, &y] {
        let error = to_device(tensor, GPU).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Grad);
        assert!(error.message().contains("x.detach().to(\"gpu\")"), "{error}");
    }
    assert!(to_device(&w, DeviceId::Cpu).unwrap().requires_grad());
}
