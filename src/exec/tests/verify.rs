//! A wrong kernel is found where it stands.

use super::Case;
use crate::device_id::DeviceId;
use crate::dtype::DType;
use crate::exec::verify::{Report, verify};
use crate::graph::{Derivative, Op, UnaryDef};
use crate::ops;
use crate::ops::arithmetic::SQUARE;

/// A square that its definition says is one part in a million larger.
static OFF: UnaryDef = UnaryDef {
    name: "off",
    doc: SQUARE.doc,
    domain: SQUARE.domain,
    ulp: SQUARE.ulp,
    promote: SQUARE.promote,
    kernels: SQUARE.kernels,
    reference: |x| x * x * (1.0 + 1e-6),
    derivative: Derivative::Zero,
    reads: SQUARE.reads,
    wgsl: SQUARE.wgsl,
    gpu_ulp: SQUARE.gpu_ulp,
};

fn check(case: &Case) -> Report {
    let mut report = Report::default();
    verify(&case.graph, &[], &case.strides, &case.inputs(), &devices(), &mut report).unwrap();
    report
}

fn devices() -> Vec<DeviceId> {
    #[cfg(feature = "gpu")]
    if super::gpu::is_there() {
        return vec![DeviceId::Cpu, DeviceId::Gpu(0)];
    }
    vec![DeviceId::Cpu]
}

#[test]
fn sums_products_and_functions_stay_within_their_bounds() {
    let mut case = Case::default();
    let x = case.leaf(DType::F32, &[33, 70], |i| ((i * 37) % 101) as f64 / 7.0 - 6.0);
    let g = &mut case.graph;
    let turned = ops::swap_last(g, x).unwrap();
    let product = ops::matmul(g, x, turned).unwrap();
    let row = ops::sum(g, product, 0b10).unwrap();
    let y = ops::exp(g, x).unwrap();
    case.graph.outputs = vec![row, y];
    let report = check(&case);
    assert!(report.first.is_none(), "{}", report.first.unwrap());
    assert_eq!(report.ops.len(), 4 * devices().len(), "{:?}", report.ops.keys());
    assert!(report.ops.values().all(|checked| checked.times == 1 && checked.worst <= 1.0), "{:?}", report.ops);
}

#[test]
fn the_first_op_that_diverges_is_named_with_its_operands() {
    let mut case = Case::default();
    let x = case.leaf(DType::F32, &[5], |i| 1.5 + i as f64);
    let y = case.graph.add(Op::Unary(&OFF), &[x]).unwrap();
    let z = ops::exp(&mut case.graph, y).unwrap();
    case.graph.outputs = vec![z];
    let report = check(&case);
    let first = report.first.expect("nothing was found");
    assert_eq!((first.op, first.device), ("off", DeviceId::Cpu));
    let text = first.to_string();
    assert!(text.contains("off on cpu") && text.contains("operand float32(5,): [1.5, 2.5"), "{text}");
    assert!(report.ops[&("exp", DeviceId::Cpu)].worst <= 1.0, "{:?}", report.ops);
}
