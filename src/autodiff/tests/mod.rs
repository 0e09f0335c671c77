//! Every derivative against finite differences, against its own adjoint, at second order, and batched against a loop.
//! Runs on float64 through the evaluator next door, so that a rule is tested without any kernel.

pub mod cases;
pub mod evaluate;
pub mod mutation;
mod rules;

use crate::autodiff::{HandKernels, expand_to};
use crate::graph::{BatchSpec, GradientSpec, Graph, JvpSpec, Op, Source, TensorType, Val};
use crate::shape::Shape;
use evaluate::{Value, evaluate};

type Build = dyn Fn(&mut Graph, &[Val]) -> Vec<Val>;

/// A function of leaves, built from one or more ops.
pub struct Case {
    pub name: String,
    pub inputs: Vec<Value>,
    pub build: Box<Build>,
    /// Inputs that have one value for all examples when batched and carry no gradient: starts, seeds, probabilities.
    pub shared: Vec<usize>,
    /// Whether finite differences of the gradient are worth comparing.
    pub smooth: bool,
}

impl Case {
    pub fn new(
        name: impl Into<String>,
        inputs: Vec<Value>,
        build: impl Fn(&mut Graph, &[Val]) -> Vec<Val> + 'static,
    ) -> Case {
        Case { name: name.into(), inputs, build: Box::new(build), shared: Vec::new(), smooth: true }
    }

    pub fn floats(&self) -> Vec<usize> {
        let carries = |i: &usize| self.inputs[*i].ty.dtype.is_float() && !self.shared.contains(i);
        (0..self.inputs.len()).filter(carries).collect()
    }
}

/// A graph under construction with its leaves in order.
pub struct Recording {
    pub graph: Graph,
    pub leaves: Vec<Value>,
}

impl Recording {
    pub fn new() -> Recording {
        Recording { graph: Graph::new(), leaves: Vec::new() }
    }

    pub fn leaf(&mut self, value: &Value) -> Val {
        self.leaves.push(value.clone());
        let slot = self.leaves.len() as u32 - 1;
        self.graph.add_typed(Op::Source(Source::Leaf(slot)), &[], value.ty.clone())
    }

    pub fn marker(&mut self, value: &Value) -> Val {
        let leaf = self.leaf(value);
        self.graph.add(Op::Marker, &[leaf]).unwrap()
    }

    pub fn markers(&mut self, values: &[Value]) -> Vec<Val> {
        values.iter().map(|value| self.marker(value)).collect()
    }

    pub fn gradient(&mut self, targets: &[Val], cotangents: &[Val], wrt: &[Val]) -> Vec<Val> {
        let spec = GradientSpec { targets: targets.len() as u32, wrt: wrt.len() as u32, ones: cotangents.is_empty() };
        self.transform(Op::Gradient(spec), &[targets, cotangents, wrt])
    }

    pub fn jvp(&mut self, targets: &[Val], primals: &[Val], tangents: &[Val]) -> Vec<Val> {
        let spec = JvpSpec { targets: targets.len() as u32, primals: primals.len() as u32 };
        self.transform(Op::Jvp(spec), &[targets, primals, tangents])
    }

    pub fn batch(&mut self, size: usize, targets: &[Val], examples: &[Val], args: &[Val]) -> Vec<Val> {
        let spec = BatchSpec { targets: targets.len() as u32, examples: examples.len() as u32, size };
        self.transform(Op::Batch(spec), &[targets, examples, args])
    }

    fn transform(&mut self, op: Op, inputs: &[&[Val]]) -> Vec<Val> {
        let node = self.graph.push(op, &inputs.concat()).unwrap();
        self.graph.nodes[node as usize].vals(node).to_vec()
    }

    pub fn run(mut self, outputs: &[Val]) -> Vec<Value> {
        self.graph.outputs = outputs.to_vec();
        let expanded = expand_to(&self.graph, &[], HandKernels::Expand)
            .unwrap_or_else(|e| panic!("{}\n{}", e.message(), self.graph));
        evaluate(&expanded, &self.leaves)
    }
}

fn value(case: &Case, inputs: &[Value]) -> Vec<Value> {
    let mut r = Recording::new();
    let markers = r.markers(inputs);
    let outputs = (case.build)(&mut r.graph, &markers);
    r.run(&outputs)
}

/// The outputs that can be differentiated, with the inputs that can.
fn recorded(case: &Case, inputs: &[Value]) -> (Recording, Vec<Val>, Vec<Val>) {
    let mut r = Recording::new();
    let markers = r.markers(inputs);
    let outputs = (case.build)(&mut r.graph, &markers);
    let targets = outputs.into_iter().filter(|&val| r.graph.dtype(val).is_float()).collect();
    let wrt = case.floats().iter().map(|&i| markers[i]).collect();
    (r, targets, wrt)
}

fn jvp(case: &Case, inputs: &[Value], tangents: &[Value]) -> Vec<Value> {
    let (mut r, targets, wrt) = recorded(case, inputs);
    let tangents = r.markers(tangents);
    let pushed = r.jvp(&targets, &wrt, &tangents);
    r.run(&pushed)
}

fn gradient(case: &Case, inputs: &[Value], cotangents: &[Value]) -> Vec<Value> {
    let (mut r, targets, wrt) = recorded(case, inputs);
    let cotangents = r.markers(cotangents);
    let pulled = r.gradient(&targets, &cotangents, &wrt);
    r.run(&pulled)
}

/// The gradient of Σ gradient·direction, by two passes of reverse mode or by forward over reverse.
fn second(case: &Case, inputs: &[Value], cotangents: &[Value], directions: &[Value], forward: bool) -> Vec<Value> {
    let (mut r, targets, wrt) = recorded(case, inputs);
    let cotangents = r.markers(cotangents);
    let pulled = r.gradient(&targets, &cotangents, &wrt);
    let directions = r.markers(directions);
    let again = if forward { r.jvp(&pulled, &wrt, &directions) } else { r.gradient(&pulled, &directions, &wrt) };
    r.run(&again)
}

/// Numbers between -1 and 1, the same in every run.
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Numbers {
        Numbers(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    pub fn within(&mut self, domain: (f64, f64)) -> f64 {
        domain.0 + (domain.1 - domain.0) * (self.next() + 1.0) / 2.0
    }

    pub fn like(&mut self, ty: &TensorType) -> Value {
        Value { ty: ty.clone(), data: (0..ty.shape.size()).map(|_| self.next()).collect() }
    }

    pub fn tensor(&mut self, shape: impl Into<Shape>, domain: (f64, f64)) -> Value {
        let shape = shape.into();
        let data: Vec<f64> = (0..shape.size()).map(|_| self.within(domain)).collect();
        Value::floats(shape, &data)
    }
}

fn moved(case: &Case, directions: &[Value], step: f64) -> Vec<Value> {
    let mut inputs = case.inputs.clone();
    for (&i, direction) in case.floats().iter().zip(directions) {
        inputs[i].data.iter_mut().zip(&direction.data).for_each(|(x, d)| *x += step * d);
    }
    inputs
}

/// Central differences of `f` along the directions, with the error of the fourth order.
fn differences(case: &Case, directions: &[Value], f: impl Fn(&[Value]) -> Vec<Value>) -> Vec<Value> {
    let step = 1e-3;
    let at = |k: f64| f(&moved(case, directions, k * step));
    let (p1, m1, p2, m2) = (at(1.0), at(-1.0), at(2.0), at(-2.0));
    let mut result = p1.clone();
    for (i, value) in result.iter_mut().enumerate() {
        for (j, x) in value.data.iter_mut().enumerate() {
            let near = p1[i].data[j] - m1[i].data[j];
            let far = p2[i].data[j] - m2[i].data[j];
            *x = (8.0 * near - far) / (12.0 * step);
        }
    }
    result
}

pub fn assert_close(name: &str, what: &str, got: &[Value], want: &[Value], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{name}: {what}");
    for (got, want) in got.iter().zip(want) {
        assert_eq!(got.ty.shape, want.ty.shape, "{name}: {what}");
        let scale = want.data.iter().fold(1.0f64, |scale, x| scale.max(x.abs()));
        for (x, y) in got.data.iter().zip(&want.data) {
            let close = (x - y).abs() <= tolerance * scale || x == y || (x.is_nan() && y.is_nan());
            assert!(close, "{name}: {what}: got {:?}, expected {:?}", got.data, want.data);
        }
    }
}

fn dot(a: &[Value], b: &[Value]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a.dot(b)).sum()
}

fn magnitude(a: &[Value], b: &[Value]) -> f64 {
    a.iter().zip(b).flat_map(|(a, b)| a.data.iter().zip(&b.data)).map(|(x, y)| (x * y).abs()).sum()
}

fn float_outputs(values: Vec<Value>) -> Vec<Value> {
    values.into_iter().filter(|value| value.ty.dtype.is_float()).collect()
}

fn check_derivatives(case: &Case) {
    let mut numbers = Numbers::new(11);
    let name = &case.name;
    let outputs = float_outputs(value(case, &case.inputs));
    if outputs.is_empty() || case.floats().is_empty() {
        return;
    }
    let directions: Vec<Value> = case.floats().iter().map(|&i| numbers.like(&case.inputs[i].ty)).collect();
    let cotangents: Vec<Value> = outputs.iter().map(|out| numbers.like(&out.ty)).collect();
    let pushed = jvp(case, &case.inputs, &directions);
    let pulled = gradient(case, &case.inputs, &cotangents);
    let expected = differences(case, &directions, |inputs| float_outputs(value(case, inputs)));
    assert_close(name, "forward mode and differences", &pushed, &expected, 1e-8);
    let (left, right) = (dot(&cotangents, &pushed), dot(&pulled, &directions));
    let scale = magnitude(&cotangents, &pushed) + magnitude(&pulled, &directions) + 1.0;
    assert!((left - right).abs() <= 1e-12 * scale, "{name}: <v, Ju> = {left}, <J'v, u> = {right}");

    let reverse = second(case, &case.inputs, &cotangents, &directions, false);
    let forward = second(case, &case.inputs, &cotangents, &directions, true);
    assert_close(name, "second order by reverse and by forward", &reverse, &forward, 1e-11);
    if case.smooth {
        let expected = differences(case, &directions, |inputs| gradient(case, inputs, &cotangents));
        assert_close(name, "second order and differences", &forward, &expected, 1e-7);
    }
}

/// Three examples: the data of each input turned by its number, so that indices stay valid.
fn example(case: &Case, number: usize) -> Vec<Value> {
    let turned = |(i, value): (usize, &Value)| {
        let mut value = value.clone();
        if !case.shared.contains(&i) && !value.data.is_empty() {
            let turn = number % value.data.len();
            value.data.rotate_left(turn);
        }
        value
    };
    case.inputs.iter().enumerate().map(turned).collect()
}

fn stacked(parts: &[Value]) -> Value {
    let mut ty = parts[0].ty.clone();
    ty.shape.insert(0, parts.len());
    Value { ty, data: parts.iter().flat_map(|part| part.data.iter().copied()).collect() }
}

fn stack_all(rows: &[Vec<Value>]) -> Vec<Value> {
    (0..rows[0].len()).map(|i| stacked(&rows.iter().map(|row| row[i].clone()).collect::<Vec<_>>())).collect()
}

const EXAMPLES: usize = 3;

/// Batched value, gradient of the batch, and batch of the gradient, each against one example after another. With
/// `only`, one input alone differs between the examples.
fn check_batch(case: &Case, only: Option<usize>) {
    let name = &case.name;
    let varies = |i: usize| only.is_none_or(|only| only == i) && !case.shared.contains(&i);
    let rows: Vec<Vec<Value>> = (0..EXAMPLES)
        .map(|n| {
            let example = example(case, n);
            (0..case.inputs.len())
                .map(|i| if varies(i) { example[i].clone() } else { case.inputs[i].clone() })
                .collect()
        })
        .collect();
    let all = stack_all(&rows);
    let batched: Vec<usize> = (0..case.inputs.len()).filter(|&i| varies(i)).collect();

    // The values.
    let mut r = Recording::new();
    let (args, examples, inner) = arguments(&mut r, case, &all, &batched);
    let outputs = (case.build)(&mut r.graph, &inner);
    let batch = r.batch(EXAMPLES, &outputs, &examples, &args);
    let got = r.run(&batch);
    let expected = stack_all(&rows.iter().map(|row| value(case, row)).collect::<Vec<_>>());
    assert_close(name, "batched values", &got, &expected, 1e-13);

    let floats: Vec<usize> = case.floats().into_iter().filter(|&i| varies(i)).collect();
    let kept: Vec<usize> = (0..outputs.len()).filter(|&i| expected[i].ty.dtype.is_float()).collect();
    if floats.is_empty() || kept.is_empty() {
        return;
    }
    let mut numbers = Numbers::new(5);
    let cotangents: Vec<Vec<Value>> = rows
        .iter()
        .map(|row| float_outputs(value(case, row)).iter().map(|out| numbers.like(&out.ty)).collect())
        .collect();
    let at: Vec<usize> = floats.iter().map(|i| case.floats().iter().position(|j| i == j).unwrap()).collect();
    let looped: Vec<Vec<Value>> = rows
        .iter()
        .zip(&cotangents)
        .map(|(row, ct)| {
            let all = gradient(case, row, ct);
            at.iter().map(|&i| all[i].clone()).collect()
        })
        .collect();
    let expected = stack_all(&looped);
    let cotangents = stack_all(&cotangents);

    // The gradient of the batch.
    let mut r = Recording::new();
    let (args, examples, inner) = arguments(&mut r, case, &all, &batched);
    let outputs = (case.build)(&mut r.graph, &inner);
    let targets: Vec<Val> = kept.iter().map(|&i| outputs[i]).collect();
    let batch = r.batch(EXAMPLES, &targets, &examples, &args);
    let ct = r.markers(&cotangents);
    let wrt: Vec<Val> = floats.iter().map(|i| args[batched.iter().position(|j| i == j).unwrap()]).collect();
    let pulled = r.gradient(&batch, &ct, &wrt);
    assert_close(name, "gradient of the batch", &r.run(&pulled), &expected, 1e-12);

    // The batch of the gradient.
    let mut r = Recording::new();
    let (mut args, mut examples, inner) = arguments(&mut r, case, &all, &batched);
    let outputs = (case.build)(&mut r.graph, &inner);
    let targets: Vec<Val> = kept.iter().map(|&i| outputs[i]).collect();
    let ct: Vec<Val> = targets.iter().map(|&val| r.graph.placeholder(r.graph.ty(val).clone())).collect();
    let wrt: Vec<Val> = floats.iter().map(|&i| inner[i]).collect();
    let pulled = r.gradient(&targets, &ct, &wrt);
    examples.extend(ct);
    args.extend(cotangents.iter().map(|value| r.leaf(value)).collect::<Vec<_>>());
    let batch = r.batch(EXAMPLES, &pulled, &examples, &args);
    assert_close(name, "batch of the gradient", &r.run(&batch), &expected, 1e-12);
}

/// Stacked arguments, the placeholders of one example, and what the function of one example is given.
fn arguments(r: &mut Recording, case: &Case, all: &[Value], batched: &[usize]) -> (Vec<Val>, Vec<Val>, Vec<Val>) {
    let args: Vec<Val> = batched.iter().map(|&i| r.marker(&all[i])).collect();
    let mut examples = Vec::new();
    let mut inner = Vec::new();
    for (i, value) in case.inputs.iter().enumerate() {
        if batched.contains(&i) {
            let placeholder = r.graph.placeholder(value.ty.clone());
            examples.push(placeholder);
            inner.push(r.graph.add(Op::Marker, &[placeholder]).unwrap());
        } else {
            inner.push(r.marker(value));
        }
    }
    (args, examples, inner)
}

/// Runs a check on every case and names all that fail.
pub fn for_each_case(cases: Vec<Case>, check: impl Fn(&Case)) {
    let mut failed = Vec::new();
    for case in cases {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&case)));
        if outcome.is_err() {
            failed.push(case.name);
        }
    }
    assert!(failed.is_empty(), "{} cases fail: {failed:?}", failed.len());
}

#[test]
fn derivatives_agree_with_differences_and_adjoints() {
    for_each_case(cases::all(), check_derivatives);
    for_each_case(cases::random(), check_derivatives);
}

#[test]
fn batches_agree_with_loops() {
    for_each_case(cases::all(), |case| {
        check_batch(case, None);
        for i in (0..case.inputs.len()).filter(|i| !case.shared.contains(i)) {
            check_batch(case, Some(i));
        }
    });
}
