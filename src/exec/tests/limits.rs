//! What threads of a device cannot count to the end is refused with the numbers; what they can is right to the last round.

use super::Case;
use super::attention::{Mask, attention_of};
use super::shaders::{LIMITS, check, plan, planned, sweep, validate, whole};
use crate::dtype::DType;
use crate::error::{Error, ErrorKind};
use crate::graph::{Divisor, GatherMode, Op, PoolRole, Sweep, Sweeps, TensorType, Val};
use crate::ops::reduce::{MAX, SUM};
use crate::ops::{broadcast_to, multiply};
use crate::shape::Shape;

/// Whether the case has no plan for the least device.
fn refusal(case: &Case) -> Option<Error> {
    planned(case, &LIMITS).err()
}

fn assert_refused(case: &Case, numbers: [&str; 3]) {
    let error = refusal(case).expect("a refusal");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(numbers.iter().all(|number| error.message().contains(number)), "{error}");
}

/// Runs the largest case that is not refused, between one that is not and one that is.
fn at_the_limit(name: &str, case: impl Fn(usize) -> Case, (mut low, mut high): (usize, usize), tolerance: f64) {
    assert_refused(&case(high), [name, "rounds", "65000"]);
    while high - low > 1 {
        let middle = (low + high) / 2;
        if refusal(&case(middle)).is_none() { low = middle } else { high = middle }
    }
    check(&case(low), tolerance);
}

#[test]
fn attention_over_many_keys() {
    // Sums of so many numbers in order, nearly all of one sign; without the last block of keys, 1e-3 would be missing.
    let tolerance = 1e-4;
    let keys = |keys| attention_of(DType::F32, (1, 1), (3, keys), (16, 16), false, Mask::None);
    at_the_limit("scaled_dot_product_attention", keys, (1000, 60_000), tolerance);
    let queries = |queries| attention_of(DType::F32, (1, 1), (queries, 3), (16, 16), false, Mask::None);
    at_the_limit("attention_gradient", queries, (1000, 60_000), tolerance);
}

/// A pool in one role over a field that its padded windows cover.
fn pool(role: PoolRole, axes: [(Sweep, usize, usize); 2]) -> Case {
    let shape = |of: fn(&(Sweep, usize, usize)) -> usize| [1, of(&axes[0]), of(&axes[1])];
    let (field, grid) = (shape(|axis| axis.1), shape(|axis| axis.2));
    let (from, to) = if matches!(role, PoolRole::Spread(_)) { (grid, field) } else { (field, grid) };
    let sweeps: Sweeps = axes.iter().map(|axis| axis.0).collect();
    let mut case = Case::default();
    let x = case.leaf(DType::F32, &from, whole(1));
    let val = case.graph.add_typed(Op::Pool(sweeps, role), &[x], TensorType::new(DType::F32, to));
    case.graph.outputs.push(val);
    case
}

#[test]
fn pools_over_large_windows() {
    let mean = |taps| {
        let axes = [(sweep(250, 1, 1, 0), 251, 2), (sweep(taps, 1, 1, 0), taps, 1)];
        pool(PoolRole::Mean(Divisor::Padded), axes)
    };
    at_the_limit("pool_mean", mean, (100, 300), 1e-6);
    // All windows are over the one element of the field.
    let spread = |taps| {
        let axes = [(sweep(250, 1, 1, 249), 1, 250), (sweep(taps, 1, 1, taps - 1), 1, taps)];
        pool(PoolRole::Spread(Divisor::Padded), axes)
    };
    at_the_limit("pool_spread", spread, (100, 300), 1e-6);
}

/// One row of updates, seen at each of many indices.
fn scatter(count: usize) -> Case {
    let mut case = Case::default();
    let (update, index) = (case.leaf(DType::F32, &[1], |_| 1.0), case.leaf(DType::I64, &[1], |_| 2.0));
    let inputs = [update, index].map(|val| broadcast_to(&mut case.graph, val, &[count].into()).unwrap());
    let sum = case.graph.add_typed(Op::Scatter(GatherMode::Take, 0), &inputs, TensorType::new(DType::F32, [5]));
    case.graph.outputs.push(sum);
    case
}

#[test]
fn an_index_that_is_met_very_often() {
    check(&scatter((256 << 10) + 1000), 0.0);
    // As many as fit a binding.
    assert!(refusal(&scatter(16 << 20)).is_none());
}

/// The largest product, or the sum of all, of a column and a row.
fn outer(rows: usize, columns: usize, reduced: impl Fn(&mut Case, Val) -> Val) -> Case {
    let mut case = Case::default();
    let (x, y) = (case.leaf(DType::F32, &[rows, 1], whole(1)), case.leaf(DType::F32, &[columns], whole(2)));
    let [x, y] = [x, y].map(|val| broadcast_to(&mut case.graph, val, &[rows, columns].into()).unwrap());
    let product = multiply(&mut case.graph, x, y).unwrap();
    let made = reduced(&mut case, product);
    case.graph.outputs.push(made);
    case
}

#[test]
fn views_with_more_elements_than_memory() {
    let largest = |case: &mut Case, x: Val| case.graph.add(Op::Reduce(&MAX, 0b10), &[x]).unwrap();
    // The products stay in registers.
    check(&outer(9000, 4096, largest), 0.0);
    assert!(refusal(&outer(1 << 20, 4096, largest)).is_none());
    // They are stored where rows are long.
    let error = refusal(&outer(1 << 20, 1 << 14, largest)).unwrap();
    assert_eq!(error.kind(), ErrorKind::Memory, "{error}");
}

#[test]
fn reductions_of_views_with_more_elements_than_32_bits_count() {
    let view = |rows: &[usize], shape: &[usize], axes: u32| {
        let mut case = Case::default();
        let x = case.leaf(DType::F32, rows, whole(1));
        let x = broadcast_to(&mut case.graph, x, &Shape::new(shape)).unwrap();
        let sum = case.graph.add(Op::Reduce(&SUM, axes), &[x]).unwrap();
        case.graph.outputs.push(sum);
        case
    };
    for (rows, axes) in [(vec![65_537], 0b10), (vec![65_536, 1], 0b01), (vec![1, 1], 0b11), (vec![65_537], 0b11)] {
        let plan = plan(&view(&rows, &[65_536, 65_537], axes), &LIMITS);
        plan.kernels().iter().for_each(|kernel| validate(&kernel.wgsl));
    }
    assert_refused(&view(&[1], &[1 << 33], 0b1), ["sum", "8589934592", "4294967295"]);
}
