//! Attention over several tiles: its bits on any number of threads and any strides, its numbers against the float64
//! reference, and the memory it takes.

use super::{Case, floats};
use crate::dtype::DType;
use crate::exec::reference;
use crate::graph::{Attrs, GradientSpec, Op, Val};
use crate::machine::cpu::par::set_num_threads;
use crate::ops::attention::ATTENTION;
use crate::ops::split::SPLIT;
use crate::ops::{matmul, permute, reshape};
use crate::shape::{Shape, Strides};
use smallvec::smallvec;

fn noise(seed: usize) -> impl Fn(usize) -> f64 {
    move |i| (((i * 2_654_435_761 + seed * 40_503) % 65_536) as f64 / 32_768.0 - 1.0) * 1.5
}

pub enum Mask {
    None,
    /// Some queries see nothing.
    Bool,
    Float,
}

/// Query, key and value as (batch, length, heads, width) seen as (batch, heads, length, width), the value, and the
/// gradients of its weighted sum.
fn attention(dtype: DType, lengths: (usize, usize), causal: bool, mask: Mask) -> Case {
    attention_of(dtype, (2, 3), lengths, (20, 33), causal, mask)
}

pub fn attention_of(
    dtype: DType,
    (batch, heads): (usize, usize),
    (queries, keys): (usize, usize),
    (width, out): (usize, usize),
    causal: bool,
    mask: Mask,
) -> Case {
    let mut case = Case::default();
    let mut operand = |length: usize, width: usize, seed: usize| -> Val {
        let shape = Shape::from([batch, heads, length, width]);
        let strides = Strides::from_slice(&[length * heads * width, width, heads * width, 1].map(|step| step as isize));
        let data: Vec<f64> = (0..shape.size()).map(noise(seed)).collect();
        let leaf = case.strided(dtype, &shape, strides, 0, &data);
        case.graph.add(Op::Marker, &[leaf]).unwrap()
    };
    let wrt = [operand(queries, width, 1), operand(keys, width, 2), operand(keys, out, 3)];
    let mut inputs = wrt.to_vec();
    inputs.push(case.number(0.4 * (20.0 / width as f64).sqrt(), dtype));
    let shape = Shape::from([batch, heads, queries, keys]);
    let given = match mask {
        Mask::None => None,
        Mask::Bool => {
            Some(case.leaf(DType::Bool, &[queries, keys], |i| f64::from(u8::from(i / keys % 7 != 2 && i * 7 % 5 != 1))))
        }
        Mask::Float => Some(case.leaf(dtype, &[heads, 1, keys], noise(4))),
    };
    if let Some(mask) = given {
        inputs.push(crate::ops::broadcast_to(&mut case.graph, mask, &shape).unwrap());
    }
    let attrs: Attrs = smallvec![i64::from(causal), i64::from(given.is_some())];
    let node = case.graph.push(Op::Composite(&ATTENTION, attrs), &inputs).unwrap();
    let outputs = case.graph.nodes[node as usize].vals(node);
    let weights = case.leaf(dtype, &[batch, heads, queries, out], noise(5));
    let spec = GradientSpec { targets: 1, wrt: 3, ones: false };
    let gradient = case.graph.push(Op::Gradient(spec), &[&[outputs[0], weights], &wrt[..]].concat()).unwrap();
    case.graph.outputs = outputs.into_iter().chain(case.graph.nodes[gradient as usize].vals(gradient)).collect();
    case
}

fn variants() -> Vec<((usize, usize), bool, Mask)> {
    vec![
        ((70, 300), false, Mask::None),
        ((300, 70), true, Mask::None),
        ((200, 260), true, Mask::Float),
        ((65, 129), false, Mask::Bool),
        ((64, 64), true, Mask::None),
        ((1, 500), false, Mask::Float),
    ]
}

#[test]
fn bits_do_not_depend_on_threads_or_strides() {
    for (shape, causal, mask) in variants() {
        let case = attention(DType::F32, shape, causal, mask);
        for threads in 1..=4 {
            set_num_threads(threads);
            case.check();
        }
    }
}

#[test]
fn the_reference_bounds_errors() {
    for dtype in [DType::F32, DType::F64] {
        for (shape, causal, mask) in variants() {
            let case = attention(dtype, shape, causal, mask);
            let made = case.run(&case.plan(&[])).unwrap();
            let exact = reference::run(&case.graph, &[], &case.strides, &case.inputs()).unwrap();
            for (at, (x, y)) in made.iter().zip(&exact).enumerate() {
                let x: Vec<f64> = match dtype {
                    DType::F32 => floats(x).into_iter().map(f64::from).collect(),
                    _ => doubles(x),
                };
                let tolerance = if dtype == DType::F32 { 4e-6 } else { 1e-14 };
                for (i, (x, y)) in x.iter().zip(doubles(y)).enumerate() {
                    let close = (x - y).abs() <= tolerance * y.abs().max(4.0) || *x == y;
                    assert!(close, "{dtype}, {shape:?}, output {at}, element {i}: {x} instead of {y}");
                }
            }
        }
    }
}

fn doubles(storage: &crate::machine::storage::Storage) -> Vec<f64> {
    let buffer = storage.host();
    // SAFETY: the buffer holds this many elements.
    unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast(), buffer.len() / 8) }.to_vec()
}

/// Self-attention as nets write it: query, key and value are the last `packed` parts of one array (batch, length, …), or
/// arrays of their own; heads come forward by `perm`, go back the same way, and what was attended to meets a weight. The
/// outputs are the product and its gradients; `shown` adds the attended values before they are put in order again.
fn of_heads(dtype: DType, length: usize, packed: usize, perm: [usize; 4], shown: bool) -> Case {
    let (batch, heads, width) = (2, 3, 20);
    let mut case = Case::default();
    let mut wrt = Vec::new();
    let mut leaf = |case: &mut Case, shape: &[usize]| {
        let leaf = case.leaf(dtype, shape, noise(wrt.len() + 1));
        wrt.push(case.graph.add(Op::Marker, &[leaf]).unwrap());
        wrt[wrt.len() - 1]
    };
    let mut parts: Vec<Val> = (packed..3).map(|_| leaf(&mut case, &[batch, length, heads * width])).collect();
    if packed > 0 {
        let joined = leaf(&mut case, &[batch, length, packed * heads * width]);
        let mut attrs: Attrs = smallvec![2];
        attrs.extend((0..packed).map(|_| (heads * width) as i64));
        let node = case.graph.push(Op::Composite(&SPLIT, attrs), &[joined]).unwrap();
        parts.extend(case.graph.nodes[node as usize].vals(node));
    }
    let weight = leaf(&mut case, &[heads * width, 7]);
    let g = &mut case.graph;
    for part in &mut parts {
        let by_head = reshape(g, *part, &Shape::from([batch, length, heads, width])).unwrap();
        *part = permute(g, by_head, &perm).unwrap();
    }
    parts.push(case.number(0.3, dtype));
    let node = case.graph.push(Op::Composite(&ATTENTION, smallvec![1, 0]), &parts).unwrap();
    let g = &mut case.graph;
    let attended = Val { node, output: 0 };
    let back: Vec<usize> = (0..4).map(|axis| perm.iter().position(|&from| from == axis).unwrap()).collect();
    let in_order = permute(g, attended, &back).unwrap();
    let in_order = reshape(g, in_order, &Shape::from([batch * length, heads * width])).unwrap();
    let product = matmul(g, in_order, weight).unwrap();
    let cotangent = case.leaf(dtype, &[batch * length, 7], noise(9));
    let spec = GradientSpec { targets: 1, wrt: wrt.len() as u32, ones: false };
    let gradient = case.graph.push(Op::Gradient(spec), &[&[product, cotangent], &wrt[..]].concat()).unwrap();
    case.graph.outputs = [product].into_iter().chain(case.graph.nodes[gradient as usize].vals(gradient)).collect();
    case.graph.outputs.extend(shown.then_some(attended));
    case
}

const FORWARD: [usize; 4] = [0, 2, 1, 3];

fn count(text: &str, kernel: &str) -> usize {
    text.lines().filter(|line| *line == kernel).count()
}

/// How many kernels of a plan only move elements.
fn moves(plan: &str) -> (usize, usize) {
    let copies = plan.lines().filter(|line| line.contains("(copy)") || *line == "copy").count();
    (copies, count(plan, "concat"))
}

#[test]
fn results_lie_as_they_are_read() {
    for (dtype, length) in [(DType::F32, 40), (DType::F32, 200), (DType::F64, 33)] {
        for packed in [3, 2, 0] {
            let plan = of_heads(dtype, length, packed, FORWARD, false).check().to_string();
            assert_eq!(moves(&plan), (0, 0), "{packed} parts\n{plan}");
            assert_eq!(count(&plan, "attention_gradient"), 1, "{plan}");
        }
    }
}

#[test]
fn results_that_others_read_too_lie_in_row_major_order() {
    for packed in [3, 0] {
        let plan = of_heads(DType::F32, 40, packed, FORWARD, true).check().to_string();
        assert_eq!(moves(&plan), (1, 0), "{plan}");
    }
}

#[test]
fn rows_of_results_stay_in_one_piece() {
    // Queries and widths change places: the elements of a row would lie apart.
    for perm in [[0, 3, 1, 2], [2, 0, 3, 1], [3, 2, 0, 1]] {
        of_heads(DType::F32, 24, 3, perm, false).check();
    }
    of_heads(DType::F32, 24, 3, [2, 1, 0, 3], false).check();
}

#[test]
fn devices_lay_results_out_as_they_are_read() {
    for (packed, shown) in [(3, false), (2, false), (3, true)] {
        super::shaders::check(&of_heads(DType::F32, 70, packed, FORWARD, shown), 4e-6);
    }
    let plan = super::shaders::plan(&of_heads(DType::F32, 70, 3, FORWARD, false), &super::shaders::LIMITS);
    let (accounts, _) = plan.accounts();
    assert!(
        accounts.iter().all(|account| !account.ops.contains(&"concat") && !account.ops.contains(&"copy")),
        "{plan}"
    );
}

#[test]
fn the_plan_holds_no_scores() {
    let length = 2000;
    let plan = attention(DType::F32, (length, length), true, Mask::None).plan(&[]);
    assert!(plan.arena < length * 1000, "{} bytes of arena\n{plan}", plan.arena);
}

#[test]
fn devices_agree_with_the_cpu() {
    for (shape, causal, mask) in [((70, 300), false, Mask::None), ((140, 200), true, Mask::Float)] {
        super::shaders::check(&attention(DType::F32, shape, causal, mask), 4e-6);
    }
    // Too wide for large tiles, wider than any, and single elements.
    for (lengths, widths) in [((70, 40), (16, 130)), ((9, 10), (257, 3)), ((1, 1), (1, 1))] {
        super::shaders::check(&attention_of(DType::F32, (2, 3), lengths, widths, true, Mask::Bool), 4e-6);
    }
}

#[test]
fn the_plan_of_a_device_holds_no_scores() {
    let length = 2000;
    let case = attention(DType::F32, (length, length), true, Mask::None);
    let plan = super::shaders::plan(&case, &super::shaders::LIMITS);
    assert!(plan.working_bytes() < length * 1000, "{plan}");
}
