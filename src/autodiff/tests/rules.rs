//! What single numbers show: what a derivative reads, zero against infinity, the subgradients at kinks, and losses at
//! the ends of their range.

use super::cases;
use super::evaluate::{Value, evaluate};
use super::{Recording, value};
use crate::autodiff::expand;
use crate::dtype::DType;
use crate::graph::{Attrs, CompositeDef, Graph, Op, Source, Val};
use crate::ops::{
    self, activation, arithmetic, compare, cross_entropy, exponential, losses, random, reduce, softmax, statistics,
    trigonometric,
};
use std::collections::BTreeMap;

/// Values by name of the op: declared reads, and what was found to be read over all its cases.
#[derive(Default)]
struct Found {
    declared: Option<(u32, u32)>,
    inputs: u32,
    outputs: u32,
    /// Inputs that are numbers of the plan, always at hand.
    numbers: u32,
    count: usize,
}

#[test]
fn reads_are_what_the_gradient_references() {
    let mut table: BTreeMap<&'static str, Found> = BTreeMap::new();
    for case in cases::all().into_iter().chain(cases::random()) {
        let mut r = Recording::new();
        let markers = r.markers(&case.inputs);
        let outputs = (case.build)(&mut r.graph, &markers);
        let targets: Vec<Val> = outputs.iter().copied().filter(|&val| r.graph.dtype(val).is_float()).collect();
        let wrt: Vec<Val> = case.floats().iter().map(|&i| markers[i]).collect();
        if targets.is_empty() || wrt.is_empty() {
            continue;
        }
        let op = r.graph.node(outputs[0]).op.clone();
        let values: Vec<Value> = value(&case, &case.inputs);
        let leaves: Vec<Val> = values.iter().map(|value| r.leaf(value)).collect();
        let known: Vec<(Val, Val)> = outputs.iter().copied().zip(leaves).collect();
        let first_ct = r.leaves.len() as u32;
        let cotangents: Vec<Val> = targets
            .iter()
            .map(|&val| {
                let ty = r.graph.ty(val).clone();
                let data = vec![1.0; ty.shape.size()];
                r.leaf(&Value { ty, data })
            })
            .collect();
        let pulled = r.gradient(&targets, &cotangents, &wrt);
        r.graph.outputs = pulled.into_iter().collect();
        let expanded = expand(&r.graph, &known).unwrap();
        let found = table.entry(op.name()).or_default();
        let declared = ops::reads(&op);
        found.declared = Some((declared.inputs, declared.outputs));
        found.numbers |= case.shared.iter().fold(0, |mask, i| mask | 1 << i);
        found.count = found.count.max(case.inputs.len());
        for node in &expanded.nodes {
            match node.op {
                Op::Source(Source::Leaf(slot)) if case.shared.contains(&(slot as usize)) => {}
                Op::Source(Source::Leaf(slot)) if (slot as usize) < case.inputs.len() => found.inputs |= 1 << slot,
                Op::Source(Source::Leaf(slot)) if slot < first_ct => {
                    found.outputs |= 1 << (slot as usize - case.inputs.len());
                }
                _ => {}
            }
        }
    }
    let mut wrong = Vec::new();
    for (name, found) in &table {
        let Some((inputs, outputs)) = found.declared else { continue };
        let inputs = inputs & ((1u64 << found.count) - 1) as u32 & !found.numbers;
        if (inputs, outputs) != (found.inputs, found.outputs) {
            let text = |inputs: u32, outputs: u32| format!("inputs {inputs:b}, outputs {outputs:b}");
            wrong.push(format!(
                "{name}: declares {}, reads {}",
                text(inputs, outputs),
                text(found.inputs, found.outputs)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(table.len() > 60, "only {} ops were looked at", table.len());
}

type Function = dyn Fn(&mut Graph, &[Val]) -> Val;

/// The elementwise derivative of `f` at the points, by reverse and by forward mode, and the second one.
struct Slopes {
    reverse: Vec<f64>,
    forward: Vec<f64>,
    second: Vec<f64>,
}

fn slopes(x: &[f64], f: &Function) -> Slopes {
    let x = Value::floats([x.len()], x);
    let ones = Value { ty: x.ty.clone(), data: vec![1.0; x.data.len()] };
    let run = |mode: u8| {
        let mut r = Recording::new();
        let marker = r.marker(&x);
        let seed = r.marker(&ones);
        let y = f(&mut r.graph, &[marker]);
        let result = match mode {
            0 => r.gradient(&[y], &[], &[marker]),
            1 => r.jvp(&[y], &[marker], &[seed]),
            _ => {
                let first = r.gradient(&[y], &[], &[marker]);
                r.gradient(&first, &[], &[marker])
            }
        };
        r.run(&result)[0].data.clone()
    };
    Slopes { reverse: run(0), forward: run(1), second: run(2) }
}

fn assert_slopes(x: &[f64], expected: &[f64], f: &Function) {
    let slopes = slopes(x, f);
    assert_eq!(slopes.reverse, expected, "reverse mode at {x:?}");
    assert_eq!(slopes.forward, expected, "forward mode at {x:?}");
}

#[test]
fn a_masked_branch_gives_zero_where_its_slope_is_infinite() {
    type Branch = fn(&mut Graph, Val) -> Val;
    let branches: [(&str, Branch); 11] = [
        ("sqrt", |g, x| ops::unary(g, &exponential::SQRT, x).unwrap()),
        ("log", |g, x| ops::unary(g, &exponential::LOG, x).unwrap()),
        ("rsqrt", |g, x| ops::unary(g, &exponential::RSQRT, x).unwrap()),
        ("reciprocal", |g, x| ops::unary(g, &arithmetic::RECIPROCAL, x).unwrap()),
        ("divide", |g, x| {
            let one = ops::full_like(g, 1.0, x);
            ops::divide(g, one, x).unwrap()
        }),
        ("pow", |g, x| {
            let exponent = ops::full_like(g, 0.3, x);
            ops::binary(g, &arithmetic::POWER, x, exponent).unwrap()
        }),
        ("pow_constant -3/2", |g, x| composite(g, &arithmetic::POW_CONSTANT, &[-3], &[x])),
        ("pow_constant 3/2", |g, x| composite(g, &arithmetic::POW_CONSTANT, &[3], &[x])),
        ("pow_constant 7/2", |g, x| composite(g, &arithmetic::POW_CONSTANT, &[7], &[x])),
        ("acosh", |g, x| {
            let one = ops::full_like(g, 1.0, x);
            let more = ops::add(g, x, one).unwrap();
            ops::unary(g, &trigonometric::ACOSH, more).unwrap()
        }),
        ("vector_norm", |g, x| {
            let row = ops::reshape(g, x, &[g.shape(x)[0], 1].into()).unwrap();
            let log = ops::log(g, row).unwrap();
            composite(g, &statistics::NORM, &[0b10], &[log])
        }),
    ];
    for (name, branch) in branches {
        let slopes = slopes(&[0.0, -1.0, 2.0], &move |g, vals| {
            let zero = ops::zeros_like(g, vals[0]);
            let positive = ops::greater(g, vals[0], zero).unwrap();
            let y = branch(g, vals[0]);
            ops::select(g, positive, y, zero).unwrap()
        });
        for (mode, result) in [("reverse", &slopes.reverse), ("forward", &slopes.forward), ("second", &slopes.second)] {
            assert_eq!(result[..2], [0.0, 0.0], "{name}, {mode}: {result:?}");
            assert!(result[2].is_finite(), "{name}, {mode}: {result:?}");
        }
    }
}

fn composite(g: &mut Graph, def: &'static CompositeDef, attrs: &[i64], inputs: &[Val]) -> Val {
    g.add(Op::Composite(def, Attrs::from_slice(attrs)), inputs).unwrap()
}

#[test]
fn subgradients_are_those_of_the_table() {
    assert_slopes(&[-1.0, 0.0, 2.0], &[0.0, 0.0, 1.0], &|g, v| ops::unary(g, &activation::RELU, v[0]).unwrap());
    assert_slopes(&[-1.0, 0.0, 2.0], &[-1.0, 0.0, 1.0], &|g, v| ops::unary(g, &arithmetic::ABS, v[0]).unwrap());
    let clip: &Function = &|g, v| {
        let low = ops::full_like(g, -1.0, v[0]);
        let high = ops::full_like(g, 1.0, v[0]);
        composite(g, &arithmetic::CLIP, &[3], &[v[0], low, high])
    };
    assert_slopes(&[-2.0, -1.0, 0.0, 1.0, 2.0, f64::NAN], &[0.0, 1.0, 1.0, 1.0, 0.0, 1.0], clip);
    for def in [&arithmetic::MAXIMUM, &arithmetic::MINIMUM] {
        let f: &Function = &|g, v| {
            let zero = ops::zeros_like(g, v[0]);
            ops::binary(g, def, v[0], zero).unwrap()
        };
        let larger = if def.name == "maximum" { 1.0 } else { 0.0 };
        assert_slopes(&[2.0, 0.0, -2.0], &[larger, 0.5, 1.0 - larger], f);
    }
    for def in [&reduce::MAX, &reduce::MIN] {
        let side = if def.name == "max" { 1.0 } else { -1.0 };
        let whole: &Function = &|g, v| g.add(Op::Reduce(def, 1), &[v[0]]).unwrap();
        let x = [side, 0.0, side, side, side];
        assert_eq!(slopes(&x, whole).reverse, [0.25, 0.0, 0.25, 0.25, 0.25]);
        assert_eq!(slopes(&x, whole).forward, [1.0]);
    }
    let norm: &Function = &|g, v| composite(g, &statistics::NORM, &[1], &[v[0]]);
    assert_eq!(slopes(&[0.0, 0.0], norm).reverse, [0.0, 0.0]);
    assert_eq!(slopes(&[0.0, 0.0], norm).forward, [0.0]);
    for def in [&crate::ops::rounding::FLOOR, &crate::ops::rounding::ROUND, &arithmetic::SIGN] {
        assert_slopes(&[-1.5, 0.0, 2.0], &[0.0, 0.0, 0.0], &|g, v| ops::unary(g, def, v[0]).unwrap());
    }
    assert_slopes(&[0.0, 1.0], &[0.0, 0.0], &|g, v| composite(g, &arithmetic::POW_CONSTANT, &[0], v));
    assert_slopes(&[0.0, -3.0], &[1.0, 1.0], &|g, v| composite(g, &arithmetic::POW_CONSTANT, &[2], v));
    assert_slopes(&[0.0, -3.0], &[0.0, 27.0], &|g, v| composite(g, &arithmetic::POW_CONSTANT, &[6], v));
    assert_slopes(&[0.0, -1.0], &[0.5, 0.1], &|g, v| {
        // The gradient of elu at 0 is alpha, that of leaky_relu its slope.
        let alpha = g.full(0.5, crate::graph::TensorType::scalar(DType::F64));
        let slope = g.full(0.1, crate::graph::TensorType::scalar(DType::F64));
        let elu = composite(g, &activation::ELU, &[], &[v[0], alpha]);
        let leaky = composite(g, &activation::LEAKY_RELU, &[], &[v[0], slope]);
        let zero = ops::zeros_like(g, v[0]);
        let at_zero = ops::equal(g, v[0], zero).unwrap();
        ops::select(g, at_zero, elu, leaky).unwrap()
    });
}

/// Value and gradients of a composite, summed over everything.
fn value_and_gradient(def: &'static CompositeDef, attrs: &[i64], inputs: &[Value]) -> (Vec<f64>, Vec<Vec<f64>>) {
    let run = |gradient: bool| {
        let mut r = Recording::new();
        let markers = r.markers(inputs);
        let y = composite(&mut r.graph, def, attrs, &markers);
        let wrt: Vec<Val> = markers.into_iter().filter(|&val| r.graph.dtype(val).is_float()).collect();
        let outputs = if gradient { r.gradient(&[y], &[], &wrt) } else { vec![y] };
        r.run(&outputs).into_iter().map(|value| value.data).collect::<Vec<_>>()
    };
    (run(false).remove(0), run(true))
}

#[test]
fn softmax_survives_the_ends_of_the_range() {
    let inf = f64::INFINITY;
    let large = Value::floats([2, 3], &[1e4, 0.0, -1e4, -inf, 0.0, 0.0]);
    let (y, _) = value_and_gradient(&softmax::SOFTMAX, &[1], std::slice::from_ref(&large));
    assert_eq!(y, [1.0, 0.0, 0.0, 0.0, 0.5, 0.5]);
    let (y, _) = value_and_gradient(&softmax::LOG_SOFTMAX, &[1], std::slice::from_ref(&large));
    assert_eq!(y[..4], [0.0, -1e4, -2e4, -inf]);
    let rows = Value::floats([3, 2], &[-inf, -inf, inf, 0.0, 1e4, 1e4]);
    let (y, gradients) = value_and_gradient(&softmax::LOGSUMEXP, &[0b10], &[rows]);
    assert_eq!(y, [-inf, inf, 1e4 + 2f64.ln()]);
    assert_eq!(gradients[0][..2], [0.0, 0.0]);
    assert_eq!(gradients[0][4..], [0.5, 0.5]);
}

#[test]
fn a_row_without_a_softmax_does_not_spoil_a_masked_gradient() {
    let inf = f64::INFINITY;
    for def in [&softmax::SOFTMAX, &softmax::LOG_SOFTMAX] {
        let mut r = Recording::new();
        let x = r.marker(&Value::floats([2, 2], &[-inf, -inf, 0.5, 0.25]));
        let y = composite(&mut r.graph, def, &[1], &[x]);
        let keep = r.leaf(&Value::new(DType::Bool, [2, 2], vec![0.0, 0.0, 1.0, 0.0]));
        let zero = ops::zeros_like(&mut r.graph, y);
        let kept = ops::select(&mut r.graph, keep, y, zero).unwrap();
        let first = r.gradient(&[kept], &[], &[x]);
        let second = r.gradient(&first, &[], &[x]);
        let values = r.run(&[first[0], second[0]]);
        for value in &values {
            assert!(value.data.iter().all(|x| x.is_finite()) && value.data[..2] == [0.0, 0.0], "{values:?}");
        }
    }
}

#[test]
fn class_indices_out_of_range_give_nan_and_ignored_rows_give_nothing() {
    let x = || Value::floats([4, 3], &[0.5, -1.0, 2.0, 0.1, 0.2, 0.3, 1.0, 1.0, 1.0, -3.0, 0.0, 3.0]);
    let target = Value::ints([4], &[2, 3, -100, -1]);
    for (def, none) in [(&cross_entropy::CROSS_ENTROPY, [0, -100, 0, 0]), (&cross_entropy::NLL_LOSS, [0, -100, 0, 0])] {
        let (rows, gradients) = value_and_gradient(def, &none, &[x(), target.clone()]);
        assert!(rows[0].is_finite() && rows[1].is_nan() && rows[2] == 0.0 && rows[3].is_nan(), "{rows:?}");
        assert_eq!(gradients[0][6..9], [0.0, 0.0, 0.0]);
    }
    // Only rows that are kept count in the mean.
    let kept = Value::ints([4], &[2, -100, -100, 0]);
    let (mean, _) = value_and_gradient(&cross_entropy::CROSS_ENTROPY, &[1, -100, 0, 0], &[x(), kept.clone()]);
    let (rows, _) = value_and_gradient(&cross_entropy::CROSS_ENTROPY, &[0, -100, 0, 0], &[x(), kept]);
    assert!((mean[0] - (rows[0] + rows[3]) / 2.0).abs() < 1e-15);
    let ignored = Value::ints([4], &[-100; 4]);
    let (mean, _) = value_and_gradient(&cross_entropy::CROSS_ENTROPY, &[1, -100, 0, 0], &[x(), ignored]);
    assert!(mean[0].is_nan());
}

#[test]
fn impossible_classes_cost_nothing_unless_they_are_the_target() {
    let inf = f64::INFINITY;
    let x = || Value::floats([1, 3], &[0.0, -inf, 0.0]);
    let (loss, gradients) =
        value_and_gradient(&cross_entropy::CROSS_ENTROPY, &[1, -100, 0, 0], &[x(), Value::ints([1], &[2])]);
    assert_eq!(loss[0], 2f64.ln());
    assert_eq!(gradients[0], [0.5, 0.0, -0.5]);
    let probabilities = Value::floats([1, 3], &[0.0, 0.0, 1.0]);
    let (loss, gradients) = value_and_gradient(&cross_entropy::CROSS_ENTROPY, &[1, -100, 0, 0], &[x(), probabilities]);
    assert_eq!(loss[0], 2f64.ln());
    assert_eq!(gradients[0], [0.5, 0.0, -0.5]);
}

#[test]
fn cross_entropy_agrees_with_its_definition() {
    let x = Value::floats([2, 3], &[0.5, -1.0, 2.0, 0.1, 0.2, 0.3]);
    let weight = Value::floats([3], &[0.5, 1.0, 2.0]);
    let (smoothing, target) = (Value::number(0.3), Value::ints([2], &[2, 0]));
    let logs: Vec<f64> = x
        .data
        .chunks(3)
        .flat_map(|row| {
            let total: f64 = row.iter().map(|x| x.exp()).sum();
            row.iter().map(move |x| x - total.ln()).collect::<Vec<_>>()
        })
        .collect();
    let w = &weight.data;
    let plain = [-2.0 * logs[2], -0.5 * logs[3]];
    let inputs = [x.clone(), target.clone(), weight.clone()];
    let (mean, _) = value_and_gradient(&cross_entropy::CROSS_ENTROPY, &[1, -100, 0, 1], &inputs);
    assert!((mean[0] - (plain[0] + plain[1]) / 2.5).abs() < 1e-14);
    let smooth: f64 = (0..2).map(|row| (0..3).map(|j| -w[j] * logs[3 * row + j]).sum::<f64>()).sum();
    let expected = 0.7 * (plain[0] + plain[1]) / 2.5 + 0.3 / 3.0 * smooth / 2.5;
    let (mean, _) =
        value_and_gradient(&cross_entropy::CROSS_ENTROPY, &[1, -100, 1, 1], &[x, target, smoothing, weight]);
    assert!((mean[0] - expected).abs() < 1e-14, "{} {expected}", mean[0]);
}

#[test]
fn binary_cross_entropy_is_finite_at_the_ends() {
    let logits = Value::floats([4], &[1e4, -1e4, 1e4, -1e4]);
    let target = Value::floats([4], &[1.0, 0.0, 0.0, 1.0]);
    let pos_weight = Value::floats([1], &[3.0]);
    let def = &losses::BINARY_CROSS_ENTROPY_WITH_LOGITS;
    let (loss, gradients) = value_and_gradient(def, &[0, 0, 0], &[logits.clone(), target.clone()]);
    assert_eq!(loss, [0.0, 0.0, 1e4, 1e4]);
    assert_eq!(gradients[0], [0.0, 0.0, 1.0, -1.0]);
    let (loss, gradients) = value_and_gradient(def, &[0, 0, 1], &[logits, target.clone(), pos_weight]);
    assert_eq!(loss, [0.0, 0.0, 1e4, 3e4]);
    assert_eq!(gradients[0], [0.0, 0.0, 1.0, -3.0]);
    let certain = Value::floats([4], &[1.0, 0.0, 1.0, 0.0]);
    let (loss, gradients) = value_and_gradient(&losses::BINARY_CROSS_ENTROPY, &[0], &[certain, target]);
    assert_eq!(loss, [0.0, 0.0, 100.0, 100.0]);
    assert_eq!(gradients[0], [0.0, 0.0, 1e12, -1e12]);
}

#[test]
fn smooth_l1_with_beta_zero_is_l1() {
    let pair = || vec![Value::floats([3], &[1.0, -2.0, 0.5]), Value::floats([3], &[0.0, 0.0, 0.5])];
    let (l1, slopes) = value_and_gradient(&losses::L1_LOSS, &[1], &pair());
    let with_beta = [pair(), vec![Value::number(0.0)]].concat();
    let (smooth, smooth_slopes) = value_and_gradient(&losses::SMOOTH_L1_LOSS, &[1], &with_beta);
    assert_eq!((l1, &slopes[0]), (smooth, &smooth_slopes[0]));
}

#[test]
fn the_limits_of_huber_and_smooth_l1_have_gradients() {
    let inputs = |limit: f64| {
        let pair = [Value::floats([2], &[0.5, -3.0]), Value::floats([2], &[0.0, 0.0])];
        [&pair[..], &[Value::floats([], &[limit])]].concat()
    };
    let (loss, slopes) = value_and_gradient(&losses::HUBER_LOSS, &[2], &inputs(1.0));
    assert_eq!((loss[0], &slopes[2]), (0.125 + 2.5, &vec![2.0]));
    let (loss, slopes) = value_and_gradient(&losses::SMOOTH_L1_LOSS, &[2], &inputs(2.0));
    assert_eq!((loss[0], &slopes[2]), (0.0625 + 2.0, &vec![-0.03125 - 0.5]));
}

#[test]
fn shapes_that_do_not_fit_are_told_in_the_words_of_the_user() {
    let message = |def: &'static CompositeDef, attrs: &[i64], inputs: &[Value]| {
        let mut r = Recording::new();
        let markers = r.markers(inputs);
        match r.graph.add(Op::Composite(def, Attrs::from_slice(attrs)), &markers) {
            Ok(_) => String::from("no error"),
            Err(error) => error.message().to_owned(),
        }
    };
    let zeros = |shape: &[usize]| Value::floats(shape, &vec![0.0; shape.iter().product()]);
    let ids = |shape: &[usize]| Value::ints(shape, &vec![0; shape.iter().product()]);
    use crate::ops::matmul::{LINEAR, MATMUL};
    let table: [(&'static CompositeDef, &[i64], Vec<Value>, &str); 8] = [
        (
            &MATMUL,
            &[],
            vec![zeros(&[2, 3]), zeros(&[4, 5])],
            "matmul: shapes (2, 3) and (4, 5) do not fit: the first ends in 3, the second has 4 rows",
        ),
        (
            &MATMUL,
            &[],
            vec![zeros(&[2, 3, 4]), zeros(&[5, 4, 6])],
            "matmul: shapes (2, 3, 4) and (5, 4, 6) do not fit: leading axes (2,) and (5,) do not broadcast",
        ),
        (
            &LINEAR,
            &[],
            vec![zeros(&[64, 120]), zeros(&[10, 128])],
            "linear: input (64, 120) ends in 120 but weight (10, 128) takes 128",
        ),
        (
            &LINEAR,
            &[],
            vec![zeros(&[64, 128]), zeros(&[10, 128]), zeros(&[1, 10])],
            "linear: bias (1, 10) does not fit weight (10, 128): it must be (10,)",
        ),
        (
            &losses::MSE_LOSS,
            &[1],
            vec![zeros(&[4]), zeros(&[4, 1])],
            "mse_loss: input (4,) and target (4, 1) differ; reshape one of them",
        ),
        (
            &cross_entropy::CROSS_ENTROPY,
            &[1, -100, 0, 0],
            vec![zeros(&[64, 10]), ids(&[32])],
            "cross_entropy: input (64, 10) has its classes on axis 1 and takes a target (64,), got (32,)",
        ),
        (
            &cross_entropy::CROSS_ENTROPY,
            &[1, -100, 0, 0],
            vec![zeros(&[64, 10]), zeros(&[64])],
            "cross_entropy: input (64, 10) and target (64,) differ; float targets are probabilities of input's shape, \
             class indices are integers",
        ),
        (&statistics::MEAN, &[1], vec![ids(&[3])], "mean: int64 is not supported; astype a float dtype first"),
    ];
    for (def, attrs, inputs, expected) in table {
        assert_eq!(message(def, attrs, &inputs), expected);
    }
}

#[test]
fn a_two_dimensional_factor_of_a_batch_is_never_repeated() {
    let mut r = Recording::new();
    let a = r.marker(&Value::floats([2, 2, 3], &[1.0; 12]));
    let b = r.marker(&Value::floats([3, 2], &[1.0; 6]));
    let y = composite(&mut r.graph, &ops::matmul::MATMUL, &[], &[a, b]);
    let pulled = r.gradient(&[y], &[], &[a, b]);
    r.graph.outputs = pulled.iter().copied().chain([y]).collect();
    let expanded = expand(&r.graph, &[]).unwrap();
    let products = expanded.nodes.iter().filter(|node| matches!(node.op, Op::Contract));
    assert!(products.clone().count() == 3 && products.into_iter().all(|node| node.outputs[0].shape.rank() == 2));
    evaluate(&expanded, &r.leaves);
}

#[test]
fn first_positions_win_and_nan_is_found() {
    let run = |def: &'static CompositeDef, data: &[f64]| {
        let mut r = Recording::new();
        let x = r.leaf(&Value::floats([data.len()], data));
        let at = composite(&mut r.graph, def, &[0], &[x]);
        r.run(&[at])[0].data[0]
    };
    assert_eq!(run(&reduce::ARGMAX, &[1.0, 3.0, 3.0]), 1.0);
    assert_eq!(run(&reduce::ARGMIN, &[1.0, 0.0, 0.0]), 1.0);
    assert_eq!(run(&reduce::ARGMAX, &[1.0, f64::NAN, 3.0]), 1.0);
    assert_eq!(run(&reduce::ARGMAX, &[f64::NEG_INFINITY; 2]), 0.0);
}

#[test]
fn properties_and_rounding_follow_ieee() {
    let run = |def: &'static crate::graph::UnaryDef, data: &[f64]| {
        data.iter().map(|&x| (def.reference)(x)).collect::<Vec<_>>()
    };
    let x = [f64::NAN, f64::INFINITY, 1.0];
    assert_eq!(run(&compare::ISNAN, &x), [1.0, 0.0, 0.0]);
    assert_eq!(run(&compare::ISINF, &x), [0.0, 1.0, 0.0]);
    assert_eq!(run(&compare::ISFINITE, &x), [0.0, 0.0, 1.0]);
    assert_eq!(run(&crate::ops::rounding::ROUND, &[0.5, 1.5, -2.5, 2.6]), [0.0, 2.0, -2.0, 3.0]);
}

#[test]
fn random_nodes_differ_between_examples_only_if_told_to() {
    let mut r = Recording::new();
    let x = r.leaf(&Value::floats([2, 8], &[1.0; 16]));
    let p = r.leaf(&Value::number(0.5));
    let (seed, stream) = (r.leaf(&Value::ints([], &[1])), r.leaf(&Value::ints([], &[2])));
    let example = r.graph.placeholder(crate::graph::TensorType::new(DType::F64, [8]));
    let same = composite(&mut r.graph, &random::DROPOUT, &[], &[example, p, seed, stream]);
    let differ = composite(&mut r.graph, &random::DROPOUT, &[], &[example, p, seed, stream, example]);
    let all = r.batch(2, &[same, differ], &[example], &[x]);
    let values = r.run(&all);
    let rows = |value: &Value| (value.data[..8].to_vec(), value.data[8..].to_vec());
    let (first, second) = rows(&values[0]);
    assert_eq!(first, second);
    let (first, second) = rows(&values[1]);
    assert_ne!(first, second);
    assert!(values.iter().flat_map(|value| &value.data).all(|&y| y == 0.0 || y == 2.0));
}

#[test]
fn randint_stays_inside_its_bounds_and_dropout_of_everything_is_zero() {
    let mut r = Recording::new();
    let bounds = [r.leaf(&Value::ints([], &[-3])), r.leaf(&Value::ints([], &[4]))];
    let (seed, stream) = (r.leaf(&Value::ints([], &[1])), r.leaf(&Value::ints([], &[2])));
    let ints = composite(&mut r.graph, &random::RANDINT, &[50, 2], &[bounds[0], bounds[1], seed, stream]);
    let x = r.marker(&Value::floats([2], &[1.0, f64::INFINITY]));
    let p = r.leaf(&Value::number(1.0));
    let dropped = composite(&mut r.graph, &random::DROPOUT, &[], &[x, p, seed, stream]);
    let pulled = r.gradient(&[dropped], &[], &[x]);
    let values = r.run(&[ints, dropped, pulled[0]]);
    assert!((-3..4).all(|i| values[0].data.contains(&f64::from(i))));
    assert!(values[0].data.iter().all(|x| (-3.0..4.0).contains(x)));
    assert_eq!((&values[1].data[..], &values[2].data[..]), (&[0.0, 0.0][..], &[0.0, 0.0][..]));
}
