//! Shaders of convolutions, pools, scatters and long sums over many shapes: each is valid, and a device that has them
//! agrees with the CPU. Numbers are small whole ones wherever sums must be exact.

use super::{Case, fuzz, ops, single};
use crate::autodiff::tests as derivatives;
use crate::autodiff::{HandKernels, expand_to};
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{
    ConvRole, ConvSpec, Divisor, GatherMode, Layout, Op, PoolRole, SliceDim, Sweep, Sweeps, TensorType, Val,
};
use crate::planner;
use crate::planner::gpu::{Limits, Plan};
use crate::shape::{Shape, Strides};
use smallvec::smallvec;

/// The least that a device allows.
pub const LIMITS: Limits = Limits {
    buffers: 8,
    binding_bytes: 128 << 20,
    groups: 65_535,
    group_bytes: 16_384,
    group_threads: 256,
    loop_rounds: 65_000,
};

pub fn validate(wgsl: &str) {
    let module = naga::front::wgsl::parse_str(wgsl).unwrap_or_else(|error| panic!("{}", error.emit_to_string(wgsl)));
    let mut validator =
        naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::empty());
    validator.validate(&module).unwrap_or_else(|error| panic!("{}", error.emit_to_string(wgsl)));
}

pub fn planned(case: &Case, limits: &Limits) -> Result<Plan> {
    let expanded = expand_to(&case.graph, &[], HandKernels::KeepForDevices).unwrap();
    let graph = planner::simplify(expanded).unwrap();
    planner::gpu::plan(&graph, &case.strides, &[], limits)
}

/// The plan of a case for a device with these limits.
pub fn plan(case: &Case, limits: &Limits) -> Plan {
    planned(case, limits).unwrap_or_else(|error| panic!("{error}\n{}", case.graph))
}

#[test]
fn every_shader_of_every_op_and_of_random_graphs_is_valid() {
    let check = |case: &Case| plan(case, &LIMITS).kernels().iter().for_each(|kernel| validate(&kernel.wgsl));
    derivatives::for_each_case(ops::single_cases(), |case| check(&ops::planned(case, DType::F32)));
    (0..60).for_each(|seed| check(&single(fuzz::graph(seed, 5 + seed as usize % 30))));
}

/// Compares the outputs of a case with those of the CPU: they may differ by `tolerance` of the largest.
pub fn check(case: &Case, tolerance: f64) {
    for limits in [LIMITS, Limits { group_bytes: 32_768, ..LIMITS }] {
        plan(case, &limits).kernels().iter().for_each(|kernel| validate(&kernel.wgsl));
    }
    #[cfg(feature = "gpu")]
    super::gpu::check(case, tolerance);
    #[cfg(not(feature = "gpu"))]
    let _ = tolerance;
}

/// Whole numbers from -4 to 4.
pub fn whole(seed: usize) -> impl Fn(usize) -> f64 {
    move |i| ((i + seed) * 7919 % 9) as f64 - 4.0
}

pub const fn sweep(taps: usize, stride: usize, dilation: usize, low: usize) -> Sweep {
    Sweep { taps, stride, dilation, low }
}

/// A convolution: batch, groups, channels of a group on both sides, and for each axis its sweep, the field, and the
/// windows.
type Setting = (usize, usize, [usize; 2], &'static [(Sweep, usize, usize)]);

const SETTINGS: &[Setting] = &[
    (2, 1, [3, 5], &[(sweep(3, 1, 1, 1), 7, 7)]),
    (2, 1, [3, 5], &[(sweep(4, 3, 2, 2), 19, 6)]),
    (1, 1, [1, 4], &[(sweep(3, 1, 1, 1), 6, 6), (sweep(3, 1, 1, 1), 5, 5)]),
    (2, 2, [3, 4], &[(sweep(3, 2, 2, 2), 9, 5), (sweep(2, 2, 3, 0), 11, 4)]),
    (1, 2, [5, 4], &[(sweep(5, 4, 6, 3), 40, 6), (sweep(3, 6, 4, 1), 30, 4)]),
    // A group for each channel, with one and with more results.
    (3, 6, [1, 1], &[(sweep(3, 1, 1, 1), 8, 8), (sweep(3, 2, 1, 1), 8, 4)]),
    (2, 4, [1, 2], &[(sweep(3, 2, 1, 1), 9, 5)]),
    (2, 3, [2, 5], &[(sweep(2, 1, 1, 0), 4, 3)]),
    // Patches, and windows with gaps between them.
    (2, 1, [3, 20], &[(sweep(4, 4, 1, 0), 16, 4), (sweep(4, 4, 1, 0), 12, 3)]),
    (2, 1, [4, 4], &[(sweep(1, 2, 1, 0), 9, 5), (sweep(2, 5, 1, 1), 14, 3)]),
    (2, 1, [2, 4], &[(sweep(2, 1, 2, 1), 4, 4), (sweep(1, 1, 1, 0), 3, 3), (sweep(3, 2, 1, 1), 6, 3)]),
    // Several tiles along each side, some of them incomplete.
    (3, 1, [70, 37], &[(sweep(3, 1, 1, 1), 9, 9), (sweep(3, 1, 1, 1), 7, 7)]),
    (1, 1, [130, 66], &[(sweep(1, 1, 1, 0), 5, 5), (sweep(1, 1, 1, 0), 13, 13)]),
    // Long sums over windows.
    (4, 1, [3, 6], &[(sweep(3, 1, 1, 1), 40, 40), (sweep(3, 1, 1, 1), 30, 30)]),
    (5, 4, [1, 1], &[(sweep(3, 1, 1, 1), 40, 40), (sweep(3, 1, 1, 1), 30, 30)]),
    // A single window, however far the next would be; windows past the field; single elements; no images.
    (2, 1, [3, 4], &[(sweep(3, 1000, 1, 0), 3, 1), (sweep(2, 2, 1, 0), 5, 2)]),
    (2, 1, [3, 4], &[(sweep(3, 2, 1, 4), 5, 9)]),
    (1, 1, [1, 1], &[(sweep(1, 1, 1, 0), 1, 1), (sweep(1, 1, 1, 0), 1, 1)]),
    (0, 1, [3, 4], &[(sweep(3, 1, 1, 1), 7, 7)]),
];

#[test]
fn convolutions_in_every_role() {
    for &(batch, groups, [inputs, outputs], axes) in SETTINGS {
        let spec = ConvSpec { sweeps: axes.iter().map(|axis| axis.0).collect(), groups };
        let shape = |front: [usize; 2], axis: fn(&(Sweep, usize, usize)) -> usize| -> Shape {
            front.into_iter().chain(axes.iter().map(axis)).collect()
        };
        let x = shape([batch, groups * inputs], |axis| axis.1);
        let w = shape([groups * outputs, inputs], |axis| axis.0.taps);
        let g = shape([batch, groups * outputs], |axis| axis.2);
        let mut case = Case::default();
        let mut leaf = |shape: &Shape, seed: usize| {
            let data: Vec<f64> = (0..shape.size() + 3).map(whole(seed)).collect();
            case.strided(DType::F32, shape, shape.strides(), seed, &data)
        };
        let [x_val, w_val, g_val] = [leaf(&x, 1), leaf(&w, 2), leaf(&g, 3)];
        let mut role = |role: ConvRole, inputs: [Val; 2], shape: &Shape| {
            let ty = TensorType { dtype: DType::F32, shape: shape.clone() };
            let val = case.graph.add_typed(Op::Conv(spec.clone(), role), &inputs, ty);
            case.graph.outputs.push(val);
        };
        role(ConvRole::Output, [x_val, w_val], &g);
        role(ConvRole::Input, [w_val, g_val], &x);
        role(ConvRole::Weight, [x_val, g_val], &w);
        check(&case, 0.0);
    }
}

/// All roles of a pool; the largest elements have ties, infinities and NaNs among them.
fn pool(planes: usize, axes: &[(Sweep, usize)], round_up: bool) {
    let sweeps: Sweeps = axes.iter().map(|axis| axis.0).collect();
    let windows = |&(sweep, field): &(Sweep, usize)| {
        let padded = field + 2 * sweep.low + if round_up { sweep.stride - 1 } else { 0 };
        (padded - sweep.reach() - 1) / sweep.stride + 1
    };
    let field: Shape = std::iter::once(planes).chain(axes.iter().map(|axis| axis.1)).collect();
    let grid: Shape = std::iter::once(planes).chain(axes.iter().map(windows)).collect();
    let taps = if sweeps.iter().map(|sweep| sweep.taps).product::<usize>() <= 256 { DType::U8 } else { DType::I32 };
    let mut case = Case::default();
    let x = case.leaf(DType::F32, &field, |i| match i * 7919 % 101 {
        0 => f64::NAN,
        1 => f64::NEG_INFINITY,
        k => (k % 7) as f64 - 3.0,
    });
    let (y, g) = (case.leaf(DType::F32, &field, whole(1)), case.leaf(DType::F32, &grid, whole(2)));
    let mut add = |role: PoolRole, inputs: &[Val], dtype: DType, shape: &Shape| -> Val {
        let ty = TensorType { dtype, shape: shape.clone() };
        let val = case.graph.add_typed(Op::Pool(sweeps.clone(), role), inputs, ty);
        case.graph.outputs.push(val);
        val
    };
    let index = add(PoolRole::Index, &[x], taps, &grid);
    add(PoolRole::Pick, &[x, index], DType::F32, &grid);
    add(PoolRole::Pick, &[y, index], DType::F32, &grid);
    add(PoolRole::Place, &[g, index], DType::F32, &field);
    if sweeps.iter().all(|sweep| sweep.dilation == 1) {
        for divisor in [Divisor::Padded, Divisor::Inside, Divisor::Fixed(-3)] {
            add(PoolRole::Mean(divisor), &[y], DType::F32, &grid);
            add(PoolRole::Spread(divisor), &[g], DType::F32, &field);
        }
    }
    check(&case, 1e-6);
}

#[test]
fn pools_in_every_role() {
    pool(3, &[(sweep(3, 2, 1, 1), 9)], false);
    pool(1, &[(sweep(1, 1, 1, 0), 1)], false);
    pool(0, &[(sweep(2, 2, 1, 0), 4)], false);
    pool(2, &[(sweep(2, 2, 1, 0), 8), (sweep(2, 2, 1, 0), 6)], false);
    pool(2, &[(sweep(3, 1, 1, 1), 7), (sweep(5, 1, 1, 2), 13)], false);
    pool(2, &[(sweep(2, 3, 2, 1), 12), (sweep(3, 2, 3, 3), 17)], false);
    pool(2, &[(sweep(3, 2, 1, 0), 8), (sweep(3, 3, 1, 1), 9)], true);
    pool(2, &[(sweep(2, 5, 1, 0), 13), (sweep(1, 2, 1, 0), 6)], false);
    pool(2, &[(sweep(2, 2, 1, 1), 4), (sweep(2, 1, 1, 0), 5), (sweep(3, 2, 1, 1), 6)], false);
    // Too many taps for a byte.
    pool(2, &[(sweep(17, 3, 1, 8), 30), (sweep(16, 16, 1, 0), 40)], false);
}

/// Sums by index along an axis: the updates in a transposed block, the indices every other element of theirs.
fn scatter(mode: GatherMode, axis: usize, dtype: DType, field: &[usize], indices: &[usize]) {
    let mut case = Case::default();
    let extent = field[axis] as i64;
    let strided: Strides = Shape::new(indices).strides().into_iter().map(|stride| 2 * stride).collect();
    let shape = Shape::new(indices);
    // More of some than of others, some counted from the end.
    let at = |i: usize| ((i * 7919 % 1000) * (i * 31 % 1000)) as i64 / 1000 % (2 * extent).max(1) - extent;
    let data: Vec<f64> = (0..2 * shape.size() + 1).map(|i| at(i) as f64).collect();
    let at = case.strided(DType::I64, &shape, strided, 1, &data);
    let picked: Shape = match mode {
        GatherMode::Take => field[..axis].iter().chain(indices).chain(&field[axis + 1..]).copied().collect(),
        GatherMode::Along => shape,
    };
    let back: Vec<usize> = picked.iter().rev().copied().collect();
    let turned: Strides = Shape::new(&back).strides().into_iter().rev().collect();
    let limit = if dtype == DType::Bool { 2 } else { 200 };
    let data: Vec<f64> = (0..picked.size()).map(|i| (i * 7919 % limit) as f64).collect();
    let updates = case.strided(dtype, &picked, turned, 0, &data);
    let op = Op::Scatter(mode, axis as u8);
    let sum = case.graph.add_typed(op, &[updates, at], TensorType { dtype, shape: Shape::new(field) });
    case.graph.outputs.push(sum);
    check(&case, 0.0);
}

#[test]
fn scatters_over_few_and_many_indices() {
    for count in [0, 1, 5, 16, 17, 64, 65, 1000, 1024, 1025, 3000, 5000] {
        scatter(GatherMode::Take, 0, DType::F32, &[7, 3], &[count]);
        scatter(GatherMode::Take, 1, DType::I32, &[2, 300, 2], &[count]);
        scatter(GatherMode::Along, 0, DType::F32, &[50], &[count]);
        scatter(GatherMode::Along, 1, DType::I64, &[3, 40, 2], &[3, count / 2, 2]);
    }
    for dtype in [DType::Bool, DType::U8, DType::I32, DType::I64, DType::F32] {
        scatter(GatherMode::Take, 1, dtype, &[2, 5, 3], &[7, 4]);
        scatter(GatherMode::Take, 1, dtype, &[2, 5, 3], &[7, 40]);
        scatter(GatherMode::Along, 0, dtype, &[4, 3], &[9, 3]);
        scatter(GatherMode::Along, 0, dtype, &[4, 3], &[90, 3]);
    }
    scatter(GatherMode::Take, 0, DType::F32, &[0, 3], &[0]);
    scatter(GatherMode::Take, 1, DType::F32, &[4, 1, 1], &[]);
}

#[test]
fn products_with_long_sums() {
    for dtype in [DType::F32, DType::I32, DType::I64] {
        for (batch, m, k, n) in [(1, 2, 3000, 3), (1, 20, 5000, 30), (3, 1, 1100, 40), (2, 70, 1030, 5), (2, 5, 0, 3)] {
            let mut case = Case::default();
            let a = case.leaf(dtype, &[batch, m, k], whole(1));
            let turned = Strides::from_slice(&[(k * n) as isize, 1, k as isize]);
            let data: Vec<f64> = (0..batch * k * n).map(whole(2)).collect();
            let b = case.strided(dtype, &Shape::from([batch, k, n]), turned, 0, &data);
            let product = case.graph.add(Op::Contract, &[a, b]).unwrap();
            case.graph.outputs.push(product);
            check(&case, 0.0);
        }
    }
}

#[test]
fn what_a_kernel_cannot_bind_is_refused_with_its_size() {
    let mut case = Case::default();
    let (count, limits) = (1000, Limits { binding_bytes: 8000, ..LIMITS });
    let updates = case.leaf(DType::F32, &[count], whole(1));
    let at = case.leaf(DType::I64, &[count], |i| (i % 6) as f64);
    let sum = case.graph.add_typed(Op::Scatter(GatherMode::Take, 0), &[updates, at], TensorType::new(DType::F32, [6]));
    case.graph.outputs.push(sum);
    let error = planner::gpu::plan(&case.graph, &case.strides, &[], &limits).err().unwrap();
    assert_eq!(error.kind(), crate::error::ErrorKind::Memory);
    assert!(error.message().contains("8192") && error.message().contains("8000"), "{error}");
}

#[test]
fn what_a_product_keeps_between_its_kernels_is_lent_to_the_next() {
    let working = |products: usize| {
        let mut case = Case::default();
        for seed in 0..products {
            let (a, b) =
                (case.leaf(DType::F32, &[8, 4000], whole(seed)), case.leaf(DType::F32, &[4000, 8], whole(seed + 1)));
            let product = case.graph.add(Op::Contract, &[a, b]).unwrap();
            case.graph.outputs.push(product);
        }
        check(&case, 0.0);
        plan(&case, &LIMITS).working_bytes()
    };
    assert!(working(1) > 0);
    assert_eq!(working(3), working(1));
}

#[test]
fn operands_that_start_where_a_number_says() {
    let mut case = Case::default();
    let field = case.leaf(DType::F32, &[5, 2, 6, 6], whole(1));
    let start = case.number(2, DType::I64);
    let dims = smallvec![SliceDim { axis: 0, length: 3, step: 1 }];
    let x = case.graph.add(Op::Layout(Layout::Slice(dims)), &[field, start]).unwrap();
    let w = case.leaf(DType::F32, &[4, 2, 3, 3], whole(2));
    let sweeps: Sweeps = vec![sweep(3, 1, 1, 1), sweep(3, 1, 1, 1)];
    let ty = |channels: usize, size: usize| TensorType::new(DType::F32, [3, channels, size, size]);
    let y = case.graph.add_typed(Op::Conv(ConvSpec { sweeps, groups: 1 }, ConvRole::Output), &[x, w], ty(4, 6));
    let sweeps: Sweeps = vec![sweep(2, 2, 1, 0), sweep(2, 2, 1, 0)];
    let mean = case.graph.add_typed(Op::Pool(sweeps, PoolRole::Mean(Divisor::Inside)), &[x], ty(2, 3));
    case.graph.outputs = vec![y, mean];
    check(&case, 1e-6);
}

#[cfg(feature = "gpu")]
#[test]
fn an_index_out_of_range_in_a_scatter_is_raised() {
    use crate::machine::gpu::tests::alone;
    let name = "an_index_out_of_range_in_a_scatter_is_raised";
    if !super::gpu::is_there() || !alone(module_path!(), name, super::gpu::ENV) {
        return;
    }
    for (mode, count) in
        [(GatherMode::Take, 9), (GatherMode::Take, 900), (GatherMode::Along, 9), (GatherMode::Along, 900)]
    {
        let mut case = Case::default();
        let updates = case.leaf(DType::F32, &[count], whole(1));
        let at = case.leaf(DType::I64, &[count], |i| if i == 5 { -7.0 } else { (i % 6) as f64 });
        let sum = case.graph.add_typed(Op::Scatter(mode, 0), &[updates, at], TensorType::new(DType::F32, [6]));
        case.graph.outputs.push(sum);
        let plan = crate::exec::gpu::build(&case.graph, &[], &case.strides, &[], 0).unwrap();
        let leaves = super::gpu::upload(&case).unwrap();
        let made = crate::exec::gpu::run(&plan, &crate::exec::Inputs { leaves: &leaves, numbers: &[] }).unwrap();
        let error = made[0].download(DType::F32, 0, 6).err().expect("an index that is out of range");
        assert_eq!(error.kind(), crate::error::ErrorKind::Index);
        let op = if mode == GatherMode::Take { "index_add" } else { "scatter_add" };
        let message = format!("{op}: index -7 is out of range for axis 0 of size 6");
        assert_eq!(error.message(), message, "of {count}");
        let again = made[0].download(DType::F32, 0, 6).err().expect("the error of the value");
        assert_eq!(again.message(), message, "of {count}");
    }
}
