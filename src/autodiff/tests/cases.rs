//! One case for each op and each shape of its arguments that its rule treats differently.

use super::evaluate::Value;
use super::{Case, Numbers};
use crate::dtype::DType;
use crate::graph::{
    Attrs, BinaryDef, CompositeDef, ConvRole, ConvSpec, Divisor, GatherMode, Layout, Op, PoolRole, ReduceDef, SliceDim,
    SliceDims, Sweep, Sweeps, TensorType, UnaryDef,
};
use crate::ops::table::{Definition, TABLE};
use crate::ops::{
    arithmetic, attention, conv, cross_entropy, exponential, losses, matmul, normalization, one_hot, pool, random,
    reduce, softmax, split, statistics,
};
use crate::shape::Shape;
use smallvec::smallvec;

pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for definition in TABLE {
        match definition {
            Definition::Unary(def) => cases.push(unary(def)),
            Definition::Binary(def) => cases.push(binary(def)),
            Definition::Reduce(def) => {
                cases.extend([reduction(def, 0b01), reduction(def, 0b10), reduction(def, 0b111)])
            }
            Definition::Composite(_) | Definition::Random(_) => {}
        }
    }
    cases.extend(layouts());
    cases.extend(indexing());
    cases.extend(products());
    cases.extend(convolutions());
    cases.extend(pools());
    cases.extend(over_axes());
    cases.extend(losses_of_pairs());
    cases.extend(classification());
    cases.extend(activations());
    cases.extend(elementwise());
    cases.extend(normalizations());
    cases.extend(attentions());
    cases
}

/// Cases that draw: their batches are not their loops.
pub fn random() -> Vec<Case> {
    let (seed, stream) = (|| Value::ints([], &[5]), || Value::ints([], &[7]));
    let mut cases = vec![
        composite(&random::DROPOUT, &[], vec![tensor(1, &[3, 4]), Value::number(0.3), seed(), stream()]),
        composite(&random::DROPOUT, &[], vec![tensor(1, &[3, 4]), Value::number(1.0), seed(), stream()]),
    ];
    cases.iter_mut().for_each(|case| case.shared = vec![1, 2, 3]);
    cases
}

/// A case of one op node; its outputs are all of the node's.
pub fn of_op(name: &str, op: Op, inputs: Vec<Value>) -> Case {
    Case::new(name, inputs, move |g, vals| {
        let node = g.push(op.clone(), vals).unwrap_or_else(|e| panic!("{}", e.message()));
        g.nodes[node as usize].vals(node).to_vec()
    })
}

pub fn composite(def: &'static CompositeDef, attrs: &[i64], inputs: Vec<Value>) -> Case {
    of_op(&format!("{}{attrs:?}", def.name), Op::Composite(def, Attrs::from_slice(attrs)), inputs)
}

fn tensor(seed: u64, shape: &[usize]) -> Value {
    Numbers::new(seed).tensor(shape, (-2.0, 2.0))
}

fn unary(def: &'static UnaryDef) -> Case {
    let x = if (def.kernels)(DType::F64).is_some() {
        Numbers::new(3).tensor([2, 3], def.domain)
    } else if (def.kernels)(DType::I64).is_some() {
        Value::ints([2, 3], &[0, 1, -2, 7, 100, -1])
    } else {
        Value::new(DType::Bool, [2, 3], vec![0.0, 1.0, 1.0, 0.0, 0.0, 1.0])
    };
    of_op(def.name, Op::Unary(def), vec![x])
}

fn binary(def: &'static BinaryDef) -> Case {
    let mut numbers = Numbers::new(4);
    let sample = |domain| numbers.tensor([2, 3], domain);
    let mut inputs: Vec<Value> = def.domain.map(sample).to_vec();
    if (def.kernels)(DType::F64).is_none() {
        for input in &mut inputs {
            input.ty.dtype = DType::I64;
            input.data.iter_mut().for_each(|x| *x = x.round());
        }
    }
    of_op(def.name, Op::Binary(def), inputs)
}

fn reduction(def: &'static ReduceDef, axes: u32) -> Case {
    let rank = if axes == 0b111 { 3 } else { 2 };
    let mut x = Numbers::new(6).tensor(&[2, 3, 4][..rank], def.domain);
    if (def.kernels)(DType::F64).is_none() {
        x.ty.dtype = DType::Bool;
        x.data.iter_mut().for_each(|x| *x = x.round());
    }
    of_op(&format!("{}[{axes:b}]", def.name), Op::Reduce(def, axes), vec![x])
}

fn typed(name: &str, op: Op, inputs: Vec<Value>, shape: &[usize]) -> Case {
    let shape = Shape::new(shape);
    Case::new(name, inputs, move |g, vals| {
        let ty = TensorType { dtype: g.dtype(vals[0]), shape: shape.clone() };
        vec![g.add_typed(op.clone(), vals, ty)]
    })
}

fn layouts() -> Vec<Case> {
    let window: SliceDims =
        smallvec![SliceDim { axis: 0, length: 2, step: 2 }, SliceDim { axis: 1, length: 3, step: -1 }];
    let starts = || vec![Value::ints([], &[1]), Value::ints([], &[3])];
    let with_starts = |x: Value| std::iter::once(x).chain(starts()).collect::<Vec<_>>();
    let mut cases = vec![
        typed("broadcast_to", Op::Layout(Layout::Broadcast), vec![tensor(1, &[3, 1])], &[2, 3, 4]),
        typed("broadcast_to scalar", Op::Layout(Layout::Broadcast), vec![tensor(1, &[])], &[2, 3]),
        typed("reshape", Op::Layout(Layout::Reshape), vec![tensor(2, &[2, 6])], &[3, 4]),
        of_op("permute_dims", Op::Layout(Layout::Permute(smallvec![1, 2, 0])), vec![tensor(3, &[2, 3, 4])]),
        of_op("slice", Op::Layout(Layout::Slice(window.clone())), with_starts(tensor(4, &[5, 4]))),
        typed("embed", Op::Embed(window), with_starts(tensor(5, &[2, 3])), &[5, 4]),
        of_op("concat", Op::Concat(1), vec![tensor(6, &[2, 1]), tensor(7, &[2, 3])]),
        composite(&split::SPLIT, &[1, 2, 0, 3], vec![tensor(6, &[2, 5])]),
        of_op("astype", Op::Cast(DType::F64), vec![tensor(8, &[4])]),
    ];
    cases.iter_mut().filter(|case| case.inputs.len() == 3).for_each(|case| case.shared = vec![1, 2]);
    cases
}

fn indexing() -> Vec<Case> {
    let condition = Value::new(DType::Bool, [2, 3], vec![1.0, 0.0, 0.0, 1.0, 1.0, 0.0]);
    let picks = || Value::ints([2, 2], &[0, 2, -1, 2]);
    let along = || Value::ints([2, 2, 2], &[0, 2, 1, 1, -1, 0, 2, 2]);
    vec![
        of_op("where", Op::Select, vec![condition, tensor(1, &[2, 3]), tensor(2, &[2, 3])]),
        of_op("take", Op::Gather(GatherMode::Take, 1), vec![tensor(3, &[2, 3, 2]), picks()]),
        of_op("take first", Op::Gather(GatherMode::Take, 0), vec![tensor(3, &[3, 2]), picks()]),
        of_op("take_along_axis", Op::Gather(GatherMode::Along, 1), vec![tensor(4, &[2, 3, 2]), along()]),
        typed("index_add", Op::Scatter(GatherMode::Take, 1), vec![tensor(5, &[2, 2, 2, 2]), picks()], &[2, 3, 2]),
        typed("scatter_add", Op::Scatter(GatherMode::Along, 1), vec![tensor(6, &[2, 2, 2]), along()], &[2, 3, 2]),
    ]
}

fn products() -> Vec<Case> {
    let shapes: [(&[usize], &[usize]); 10] = [
        (&[2, 3], &[3, 4]),
        (&[3], &[3]),
        (&[3], &[3, 2]),
        (&[2, 3], &[3]),
        (&[2, 2, 3], &[3, 2]),
        (&[2, 2, 3], &[3]),
        (&[2, 3], &[2, 3, 2]),
        (&[3], &[2, 3, 2]),
        (&[2, 1, 2, 3], &[3, 3, 2]),
        (&[2, 2, 3], &[1, 3, 2]),
    ];
    let mut cases: Vec<Case> =
        shapes.iter().map(|(a, b)| composite(&matmul::MATMUL, &[], vec![tensor(1, a), tensor(2, b)])).collect();
    cases.push(of_op("contract", Op::Contract, vec![tensor(1, &[2, 2, 3]), tensor(2, &[2, 3, 2])]));
    let (weight, bias) = (|| tensor(2, &[2, 3]), || tensor(3, &[2]));
    for x in [&[3][..], &[4, 3], &[2, 2, 3]] {
        cases.push(composite(&matmul::LINEAR, &[], vec![tensor(1, x), weight()]));
        cases.push(composite(&matmul::LINEAR, &[], vec![tensor(1, x), weight(), bias()]));
    }
    cases
}

fn convolutions() -> Vec<Case> {
    let sweep = |taps, stride, dilation, low| Sweep { taps, stride, dilation, low };
    let mut cases = Vec::new();
    for (groups, sweeps, x, w, g) in [
        (1, vec![sweep(3, 1, 1, 1), sweep(2, 1, 1, 0)], vec![2, 3, 4, 4], vec![2, 3, 3, 2], vec![2, 2, 4, 3]),
        (2, vec![sweep(2, 2, 1, 1), sweep(3, 3, 2, 1)], vec![2, 2, 5, 8], vec![4, 1, 2, 3], vec![2, 4, 3, 2]),
        (1, vec![sweep(3, 2, 1, 1)], vec![2, 2, 7], vec![3, 2, 3], vec![2, 3, 4]),
        (
            1,
            vec![sweep(1, 1, 1, 0), sweep(2, 1, 1, 0), sweep(2, 2, 1, 1)],
            vec![1, 2, 2, 3, 3],
            vec![2, 2, 1, 2, 2],
            vec![1, 2, 2, 2, 2],
        ),
    ] {
        let spec = ConvSpec { sweeps, groups };
        let role = |role: ConvRole, a: &[usize], b: &[usize], out: &[usize]| {
            let op = Op::Conv(spec.clone(), role);
            typed(op.name(), op, vec![tensor(1, a), tensor(2, b)], out)
        };
        cases.extend([
            role(ConvRole::Output, &x, &w, &g),
            role(ConvRole::Input, &w, &g, &x),
            role(ConvRole::Weight, &x, &g, &w),
        ]);
    }
    let settings = [2, 1, 1, 1, 0, 1, 2, 0, 1, 2];
    for x in [&[3, 4, 5][..], &[2, 3, 4, 5]] {
        let inputs = || vec![tensor(1, x), tensor(2, &[2, 3, 2, 2])];
        cases.push(composite(&conv::CONV, &settings, inputs()));
        cases.push(composite(&conv::CONV, &settings, [inputs(), vec![tensor(3, &[2])]].concat()));
    }
    cases
}

fn pools() -> Vec<Case> {
    let sweeps: Sweeps =
        vec![Sweep { taps: 2, stride: 1, dilation: 1, low: 0 }, Sweep { taps: 3, stride: 2, dilation: 1, low: 1 }];
    let (field, windows) = ([2, 3, 5], [2, 2, 3]);
    let taps = || Value::new(DType::U8, [2, 2, 3], vec![1.0, 3.0, 4.0, 2.0, 5.0, 1.0, 4.0, 0.0, 3.0, 1.0, 5.0, 0.0]);
    let role = |role: PoolRole, inputs: Vec<Value>, out: &[usize]| {
        let op = Op::Pool(sweeps.clone(), role);
        typed(op.name(), op, inputs, out)
    };
    let mut cases = vec![
        role(PoolRole::Pick, vec![tensor(1, &field), taps()], &windows),
        role(PoolRole::Place, vec![tensor(1, &windows), taps()], &field),
    ];
    for divisor in [Divisor::Padded, Divisor::Inside, Divisor::Fixed(5)] {
        cases.push(role(PoolRole::Mean(divisor), vec![tensor(1, &field)], &windows));
        cases.push(role(PoolRole::Spread(divisor), vec![tensor(1, &windows)], &field));
    }
    let settings = [2, 1, 2, 1, 0, 1, 3, 2, 1, 1];
    for positions in [0, 1] {
        let attrs = [&settings[..], &[positions]].concat();
        cases.push(composite(&pool::MAX_POOL, &attrs, vec![tensor(1, &[2, 3, 3, 4])]));
    }
    for (kind, given) in [(0, 0), (1, 0), (2, 3)] {
        cases.push(composite(&pool::AVG_POOL, &[&settings[..], &[kind, given]].concat(), vec![tensor(1, &[2, 3, 4])]));
    }
    cases
}

fn over_axes() -> Vec<Case> {
    let x = || tensor(9, &[2, 3, 2]);
    let correction = |c: f64| c.to_bits() as i64;
    let mut cases = Vec::new();
    for axes in [0b001, 0b010, 0b101, 0b111] {
        cases.push(composite(&statistics::MEAN, &[axes], vec![x()]));
        cases.push(composite(&statistics::VAR, &[axes, correction(0.0)], vec![x()]));
        cases.push(composite(&statistics::VAR, &[axes, correction(1.0)], vec![x()]));
        cases.push(composite(&statistics::NORM, &[axes], vec![x()]));
        cases.push(composite(&softmax::LOGSUMEXP, &[axes], vec![x()]));
    }
    for axis in 0..3 {
        cases.push(composite(&softmax::SOFTMAX, &[axis], vec![x()]));
        cases.push(composite(&softmax::LOG_SOFTMAX, &[axis], vec![x()]));
    }
    cases
}

fn losses_of_pairs() -> Vec<Case> {
    let pair = || vec![tensor(1, &[2, 3]), tensor(2, &[2, 3])];
    let with = |mut inputs: Vec<Value>, more: &[Value]| {
        inputs.extend_from_slice(more);
        inputs
    };
    let probabilities = || {
        let mut numbers = Numbers::new(12);
        vec![numbers.tensor([2, 3], (0.1, 0.9)), numbers.tensor([2, 3], (0.1, 0.9))]
    };
    let weight = || Numbers::new(13).tensor([3], (0.5, 2.0));
    let mut cases = Vec::new();
    for reduction in 0..3 {
        cases.push(composite(&losses::MSE_LOSS, &[reduction], pair()));
        cases.push(composite(&losses::L1_LOSS, &[reduction], pair()));
        cases.push(composite(&losses::HUBER_LOSS, &[reduction], with(pair(), &[Value::number(1.1)])));
        cases.push(composite(&losses::SMOOTH_L1_LOSS, &[reduction], with(pair(), &[Value::number(1.1)])));
        cases.push(composite(&losses::BINARY_CROSS_ENTROPY, &[reduction], probabilities()));
        cases.push(composite(&losses::BINARY_CROSS_ENTROPY, &[reduction], with(probabilities(), &[weight()])));
        let logits = &losses::BINARY_CROSS_ENTROPY_WITH_LOGITS;
        cases.push(composite(logits, &[reduction, 0, 0], pair()));
        cases.push(composite(logits, &[reduction, 1, 0], with(pair(), &[weight()])));
        cases.push(composite(logits, &[reduction, 0, 1], with(pair(), &[weight()])));
        cases.push(composite(logits, &[reduction, 1, 1], with(pair(), &[weight(), tensor(5, &[3])])));
    }
    cases
}

fn classification() -> Vec<Case> {
    let weight = || Numbers::new(3).tensor([3], (0.5, 2.0));
    let smoothing = || Value::number(0.1);
    let mut cases = Vec::new();
    for (shape, target) in [
        (&[4, 3][..], Value::ints([4], &[2, 0, 1, 1])),
        (&[3], Value::ints([], &[1])),
        (&[2, 3, 2], Value::ints([2, 2], &[2, 0, 1, 1])),
    ] {
        let x = || tensor(8, shape);
        for reduction in 0..3 {
            // 1 is ignored in the second half.
            for ignored in [-100, 1] {
                if ignored == 1 && shape.len() == 1 {
                    continue;
                }
                let attrs = |s, w| [reduction, ignored, s, w];
                let (indices, nll) = (&cross_entropy::CROSS_ENTROPY, &cross_entropy::NLL_LOSS);
                cases.push(composite(indices, &attrs(0, 0), vec![x(), target.clone()]));
                cases.push(composite(indices, &attrs(0, 1), vec![x(), target.clone(), weight()]));
                cases.push(composite(indices, &attrs(1, 0), vec![x(), target.clone(), smoothing()]));
                cases.push(composite(indices, &attrs(1, 1), vec![x(), target.clone(), smoothing(), weight()]));
                cases.push(composite(nll, &attrs(0, 0), vec![x(), target.clone()]));
                cases.push(composite(nll, &attrs(0, 1), vec![x(), target.clone(), weight()]));
            }
            let probabilities = || Numbers::new(2).tensor(shape, (0.1, 0.9));
            let def = &cross_entropy::CROSS_ENTROPY;
            cases.push(composite(def, &[reduction, -100, 0, 0], vec![x(), probabilities()]));
            cases.push(composite(def, &[reduction, -100, 1, 1], vec![x(), probabilities(), smoothing(), weight()]));
        }
    }
    cases
}

fn activations() -> Vec<Case> {
    use crate::ops::activation::*;
    let x = || tensor(21, &[2, 3]);
    vec![
        composite(&LEAKY_RELU, &[], vec![x(), Value::number(0.1)]),
        composite(&ELU, &[], vec![x(), Value::number(0.7)]),
        composite(&GELU, &[0], vec![x()]),
        composite(&GELU, &[1], vec![x()]),
        composite(&SOFTPLUS, &[], vec![x()]),
        composite(&SILU, &[], vec![x()]),
    ]
}

fn elementwise() -> Vec<Case> {
    let positive = || Numbers::new(15).tensor([2, 3], (0.3, 2.0));
    let x = || tensor(16, &[2, 3]);
    let mut cases: Vec<Case> =
        (-5..=7).map(|twice| composite(&arithmetic::POW_CONSTANT, &[twice], vec![positive()])).collect();
    cases.push(composite(&arithmetic::POW_CONSTANT, &[6], vec![x()]));
    let (low, high) = (|| Value::number(-0.5), || tensor(17, &[3]));
    cases.push(composite(&arithmetic::CLIP, &[1], vec![x(), low()]));
    cases.push(composite(&arithmetic::CLIP, &[2], vec![x(), high()]));
    cases.push(composite(&arithmetic::CLIP, &[3], vec![x(), low(), Value::number(0.6)]));
    cases.push(composite(&exponential::LOGADDEXP, &[], vec![x(), tensor(18, &[2, 3])]));
    for axes in [0b001, 0b010, 0b101, 0b111] {
        cases.push(composite(&reduce::PROD, &[axes], vec![tensor(19, &[2, 5, 3])]));
    }
    let mut with_zeros = tensor(19, &[2, 3]);
    with_zeros.data[1] = 0.0;
    with_zeros.data[2] = 0.0;
    with_zeros.data[4] = 0.0;
    cases.push(composite(&reduce::PROD, &[0b10], vec![with_zeros]));
    for axis in 0..2 {
        cases.push(composite(&reduce::ARGMAX, &[axis], vec![x()]));
        cases.push(composite(&reduce::ARGMIN, &[axis], vec![x()]));
    }
    cases.push(composite(&one_hot::CLASS_INDEX, &[8, 1, -100], vec![Value::ints([2, 2], &[3, -100, 1, 7])]));
    cases.push(composite(&one_hot::ONE_HOT, &[4], vec![Value::ints([2, 2], &[3, 0, 1, 7])]));
    cases
}

fn normalizations() -> Vec<Case> {
    use normalization::*;
    let eps = || Value::number(0.1);
    let (weight, bias) = (|| tensor(2, &[3]), || tensor(3, &[3]));
    let var = || Numbers::new(4).tensor([3], (0.5, 2.0));
    let mut cases = Vec::new();
    for shape in [&[4, 3][..], &[2, 3, 2, 2]] {
        let x = || tensor(1, shape);
        cases.push(composite(&BATCH_NORM, &[0, 0], vec![x(), eps()]));
        cases.push(composite(&BATCH_NORM, &[1, 1], vec![x(), eps(), weight(), bias()]));
        cases.push(composite(&BATCH_NORM_EVAL, &[0, 0], vec![x(), eps(), bias(), var()]));
        cases.push(composite(&BATCH_NORM_EVAL, &[1, 1], vec![x(), eps(), bias(), var(), weight(), bias()]));
    }
    let x = || tensor(1, &[2, 4, 3]);
    cases.push(composite(&LAYER_NORM, &[1, 0, 0], vec![x(), eps()]));
    cases.push(composite(&LAYER_NORM, &[1, 1, 1], vec![x(), eps(), weight(), bias()]));
    cases.push(composite(&LAYER_NORM, &[2, 1, 0], vec![x(), eps(), tensor(5, &[4, 3])]));
    cases.push(composite(&RMS_NORM, &[1, 0], vec![x(), eps()]));
    cases.push(composite(&RMS_NORM, &[2, 1], vec![x(), eps(), tensor(5, &[4, 3])]));
    cases
}

fn attentions() -> Vec<Case> {
    let bools = |shape: &[usize], data: &[f64]| Value::new(DType::Bool, Shape::new(shape), data.to_vec());
    let operands = |more: Option<Value>| {
        let mut inputs = vec![tensor(1, &[2, 3, 2]), tensor(2, &[2, 4, 2]), tensor(3, &[2, 4, 3]), Value::number(0.6)];
        inputs.extend(more);
        inputs
    };
    let keep = || bools(&[2, 3, 4], &[1., 0., 1., 1., 0., 0., 1., 0., 1., 1., 1., 1.].repeat(2));
    let square = || vec![tensor(1, &[4, 3]), tensor(2, &[2, 3]), tensor(3, &[2, 2]), Value::number(-1.1)];
    let def = &attention::ATTENTION;
    let mut cases = vec![
        composite(def, &[0, 0], operands(None)),
        composite(def, &[1, 0], operands(None)),
        composite(def, &[0, 1], operands(Some(keep()))),
        composite(def, &[0, 1], operands(Some(tensor(4, &[2, 3, 4])))),
        composite(def, &[1, 1], operands(Some(tensor(4, &[2, 3, 4])))),
        composite(def, &[1, 0], square()),
    ];
    cases.iter_mut().for_each(|case| case.shared = vec![3]);
    cases
}
