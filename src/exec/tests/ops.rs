//! Every op, and the gradient of every op, as a plan: its bits against the unfused executor, its numbers against the
//! evaluator of the derivative tests, which shares no kernel with it.

use super::{Case, scalars};
use crate::autodiff::tests::cases;
use crate::autodiff::tests::evaluate::Value;
use crate::autodiff::tests::{self as derivatives, Recording};
use crate::dtype::DType;
use crate::graph::{GradientSpec, Graph, Op, Val};
use crate::machine::storage::Storage;
use crate::scalar::Scalar;
use crate::shape::Shape;

/// The op's outputs, and the gradient of their sum.
fn outputs(case: &derivatives::Case, graph: &mut Graph, inputs: &[Val], floats: &[usize]) -> Vec<Val> {
    let mut outputs = (case.build)(graph, inputs);
    let targets: Vec<Val> = outputs.iter().copied().filter(|&val| graph.dtype(val).is_float()).collect();
    let wrt: Vec<Val> = floats.iter().map(|&i| inputs[i]).collect();
    if !targets.is_empty() && !wrt.is_empty() {
        let spec = GradientSpec { targets: targets.len() as u32, wrt: wrt.len() as u32, ones: true };
        let node = graph.push(Op::Gradient(spec), &[targets, wrt].concat()).unwrap();
        outputs.extend(graph.nodes[node as usize].vals(node));
    }
    outputs
}

/// How leaves lie in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Lay {
    /// Row-major from the start.
    Flat,
    /// The axes in reverse order.
    Turned,
    /// Every other element, after some that are not looked at.
    Gapped,
}

pub fn planned(case: &derivatives::Case, float: DType) -> Case {
    laid(case, float, Lay::Flat)
}

pub fn laid(case: &derivatives::Case, float: DType, lay: Lay) -> Case {
    let mut plan = Case::default();
    let mut inputs = Vec::new();
    for (i, value) in case.inputs.iter().enumerate() {
        let dtype = if value.ty.dtype.is_float() { float } else { value.ty.dtype };
        let val = if case.shared.contains(&i) {
            let x = value.data[0];
            plan.number(if dtype.is_float() { Scalar::F64(x) } else { Scalar::I64(x as i64) }, dtype)
        } else {
            leaf(&mut plan, dtype, value, lay)
        };
        inputs.push(plan.graph.add(Op::Marker, &[val]).unwrap());
    }
    plan.graph.outputs = outputs(case, &mut plan.graph, &inputs, &case.floats());
    plan
}

fn leaf(plan: &mut Case, dtype: DType, value: &Value, lay: Lay) -> Val {
    let shape = &value.ty.shape;
    let mut strides = shape.strides();
    let (mut step, mut offset) = (1, 0);
    match lay {
        Lay::Flat => {}
        Lay::Turned => {
            let back: Vec<usize> = shape.iter().rev().copied().collect();
            strides = Shape::new(&back).strides().into_iter().rev().collect();
        }
        Lay::Gapped => (step, offset) = (2, 3),
    }
    strides.iter_mut().for_each(|stride| *stride *= step);
    let mut data = vec![f64::NAN; shape.size() * step as usize + offset];
    let rows = shape.strides();
    for (i, &x) in value.data.iter().enumerate() {
        let place = |(axis, &row): (usize, &isize)| (i / row.max(1) as usize % shape[axis]) as isize * strides[axis];
        data[offset + rows.iter().enumerate().map(place).sum::<isize>() as usize] = x;
    }
    plan.strided(dtype, shape, strides, offset, &data)
}

pub fn expected(case: &derivatives::Case) -> Vec<Value> {
    let mut r = Recording::new();
    let inputs = r.markers(&case.inputs);
    let outputs = outputs(case, &mut r.graph, &inputs, &case.floats());
    r.run(&outputs)
}

fn numbers(storage: &Storage, dtype: DType, n: usize) -> Vec<f64> {
    scalars(storage, dtype, n).into_iter().map(Scalar::as_f64).collect()
}

/// float32 is compared only where the op computes in the dtype of its inputs.
fn check(case: &derivatives::Case, float: DType, lay: Lay, tolerance: f64) {
    let plan = laid(case, float, lay);
    let made = plan.run(&plan.check()).unwrap();
    let want = expected(case);
    assert_eq!(made.len(), want.len());
    for (at, (buffer, want)) in made.iter().zip(&want).enumerate() {
        let ty = plan.graph.ty(plan.graph.outputs[at]);
        let got = numbers(buffer, ty.dtype, ty.shape.size());
        let scale = want.data.iter().fold(1.0f64, |scale, x| scale.max(x.abs()));
        for (x, y) in got.iter().zip(&want.data) {
            let close = (x - y).abs() <= tolerance * scale || (x.is_nan() && y.is_nan());
            assert!(close, "output {at}: {got:?} instead of {:?}", want.data);
        }
    }
}

#[test]
fn plans_of_every_op_give_its_value_and_gradient() {
    for lay in [Lay::Flat, Lay::Turned, Lay::Gapped] {
        derivatives::for_each_case(cases::all(), |case| check(case, DType::F64, lay, 1e-12));
    }
}

/// The cases that float32 can do.
pub fn single_cases() -> Vec<derivatives::Case> {
    cases::all().into_iter().filter(|case| case.name != "astype").collect()
}

#[test]
fn plans_of_every_op_give_its_value_and_gradient_in_float32() {
    derivatives::for_each_case(single_cases(), |case| check(case, DType::F32, Lay::Flat, 2e-5));
}

#[test]
fn plans_draw_as_the_unfused_executor_draws() {
    for case in cases::random() {
        planned(&case, DType::F32).check();
        planned(&case, DType::F64).check();
    }
}
