//! Plans on the GPU against the CPU: every op with its gradient, and random graphs. Where there is no adapter the tests
//! say so and pass.

use super::ops::Lay;
use super::{Case, dtype, fuzz, ops, scalars, shaders, single};
use crate::autodiff::tests as derivatives;
use crate::autodiff::{HandKernels, expand_to};
use crate::device_id::DeviceId;
use crate::dtype::DType;
use crate::error::{ErrorKind, Result};
use crate::exec::gpu::{self, Plan};
use crate::exec::verify::{Report, verify};
use crate::exec::{Donation, Inputs, Leaf, OutputHome};
use crate::graph::{Op, Source, TensorType, Val};
use crate::machine::gpu::context;
use crate::machine::gpu::tests::alone;
use crate::machine::storage::Storage;
use crate::planner;
use crate::planner::gpu::Limits;
use crate::scalar::Scalar;
use smallvec::smallvec;
use std::sync::Arc;

/// For a test in a process of its own: an index out of range is raised by the next read of the device, whoever reads.
pub const ENV: (&str, &str) = ("XDG_RUNTIME_DIR", "/tmp");

/// Whether there is an adapter.
pub fn is_there() -> bool {
    let found = context(0);
    if let Err(error) = &found {
        assert_eq!(error.kind(), ErrorKind::Device, "{error}");
        println!("not run: {error}");
    }
    found.is_ok()
}

/// The outputs of a case as the device computes them, and the plan.
pub fn run(case: &Case, donations: &[Donation]) -> Result<(Vec<Vec<Scalar>>, Plan)> {
    let plan = gpu::build(&case.graph, &[], &case.strides, donations, 0)?;
    let outputs = run_plan(case, &plan)?;
    Ok((outputs, plan))
}

pub fn run_plan(case: &Case, plan: &Plan) -> Result<Vec<Vec<Scalar>>> {
    let leaves = upload(case)?;
    let made = gpu::run(plan, &Inputs { leaves: &leaves, numbers: &case.numbers })?;
    let read = |((storage, home), &val): ((&Arc<Storage>, &OutputHome), &Val)| {
        let ty = case.graph.ty(val);
        let first = match home {
            OutputHome::Buffer(_) => 0,
            OutputHome::Donated(leaf) => leaves[*leaf as usize].offset,
        };
        let read = storage.download(ty.dtype, first, ty.shape.size())?;
        Ok(scalars(&Storage::Host(read), ty.dtype, ty.shape.size()))
    };
    made.iter().zip(plan.shaders().outputs()).zip(&case.graph.outputs).map(read).collect()
}

/// The leaves of a case on the device.
pub fn upload(case: &Case) -> Result<Vec<Leaf>> {
    let leaf = |(slot, leaf): (usize, &Leaf)| {
        let buffer = leaf.buffer.host();
        // SAFETY: the buffer holds this many bytes.
        let bytes = unsafe { std::slice::from_raw_parts(buffer.as_ptr(), buffer.len()) };
        let storage = Storage::upload(DeviceId::Gpu(0), bytes, dtype(case, slot))?;
        Ok(Leaf { buffer: Arc::new(storage), offset: leaf.offset })
    };
    case.leaves.iter().enumerate().map(leaf).collect()
}

/// Whether two numbers agree: floats within a bound of a scale, others exactly.
fn agree(dtype: DType, x: f64, y: f64, tolerance: f64) -> bool {
    x == y || (x.is_nan() && y.is_nan()) || (dtype.is_float() && (x - y).abs() <= tolerance)
}

/// Compares the outputs of a case with those of the CPU: they may differ by `tolerance` of the largest. Once more with the
/// shaders for the least memory, and with so few workgroups along one axis that many fill a second one.
pub fn check(case: &Case, tolerance: f64) {
    if !is_there() {
        return;
    }
    let want = case.unfused().unwrap();
    let (made, plan) = run(case, &[]).unwrap_or_else(|error| panic!("{error}\n{}", case.graph));
    let narrow = shaders::planned(case, &Limits { groups: 40, ..shaders::LIMITS });
    let least = Plan::new(narrow.unwrap_or_else(|_| shaders::plan(case, &shaders::LIMITS)), 0);
    for (made, plan) in [(made, plan), (run_plan(case, &least).unwrap(), least)] {
        for (at, (got, want)) in made.iter().zip(&want).enumerate() {
            let ty = case.graph.ty(case.graph.outputs[at]);
            let want = scalars(want, ty.dtype, ty.shape.size());
            let finite = want.iter().map(|x| x.as_f64().abs()).filter(|x| x.is_finite());
            let bound = tolerance * finite.fold(1.0, f64::max);
            let wrong = got.iter().zip(&want).position(|(x, y)| !agree(ty.dtype, x.as_f64(), y.as_f64(), bound));
            if let Some(i) = wrong {
                panic!("output {at} ({ty}), element {i}: {:?}, not {:?}\n{}\n{plan}", got[i], want[i], case.graph);
            }
        }
    }
}

#[test]
fn every_op_gives_its_value_and_gradient_on_the_gpu() {
    if !is_there() {
        return;
    }
    for lay in [Lay::Flat, Lay::Turned, Lay::Gapped] {
        derivatives::for_each_case(ops::single_cases(), |case| {
            let plan = ops::laid(case, DType::F32, lay);
            let (made, text) = run(&plan, &[]).unwrap_or_else(|error| panic!("{error}\n{}", plan.graph));
            for (at, (got, want)) in made.iter().zip(&ops::expected(case)).enumerate() {
                let dtype = plan.graph.dtype(plan.graph.outputs[at]);
                let scale = want.data.iter().filter(|x| x.is_finite()).fold(1.0f64, |scale, x| scale.max(x.abs()));
                for (x, &y) in got.iter().zip(&want.data) {
                    let close = agree(dtype, x.as_f64(), y, 2e-5 * scale);
                    assert!(close, "output {at}: {got:?} instead of {:?}\n{}\n{text}", want.data, plan.graph);
                }
            }
        });
    }
}

#[test]
fn every_op_stays_within_its_bound_on_the_gpu() {
    if !is_there() {
        return;
    }
    derivatives::for_each_case(ops::single_cases(), |case| {
        let plan = ops::planned(case, DType::F32);
        let mut report = Report::default();
        verify(&plan.graph, &[], &plan.strides, &plan.inputs(), &[DeviceId::Gpu(0)], &mut report).unwrap();
        assert!(report.first.is_none(), "{}", report.first.unwrap());
    });
}

#[test]
fn random_graphs_agree_on_the_gpu() {
    if !is_there() {
        return;
    }
    for seed in 0..80 {
        let case = single(fuzz::graph(seed, 3 + seed as usize % 30));
        let donations = fuzz::donations(&case, seed);
        let expected = case.unfused().unwrap();
        let (made, plan) = match run(&case, &donations) {
            Err(error) if error.kind() == ErrorKind::Unsupported => continue,
            made => made.unwrap_or_else(|error| panic!("seed {seed}: {error}\n{}", case.graph)),
        };
        for (at, (got, want)) in made.iter().zip(&expected).enumerate() {
            let ty = case.graph.ty(case.graph.outputs[at]);
            let want = scalars(want, ty.dtype, ty.shape.size());
            let finite = want.iter().map(|x| x.as_f64().abs()).filter(|x| x.is_finite());
            let tolerance = 1e-4 * finite.fold(1.0, f64::max);
            let wrong = got.iter().zip(&want).position(|(x, y)| !agree(ty.dtype, x.as_f64(), y.as_f64(), tolerance));
            if let Some(i) = wrong {
                panic!(
                    "seed {seed}, output {at}, element {i}: {:?}, not {:?}\n{}\n{plan}",
                    got[i], want[i], case.graph
                );
            }
        }
    }
}

#[test]
fn the_same_plan_gives_the_same_bits() {
    if !is_there() {
        return;
    }
    for seed in 0..10 {
        let case = single(fuzz::graph(seed, 20));
        let Ok((first, plan)) = run(&case, &[]) else { continue };
        let bits = |outputs: &[Vec<Scalar>]| -> Vec<u64> { outputs.iter().flatten().map(|x| x.to_word()).collect() };
        for _ in 0..10 {
            assert_eq!(bits(&run_plan(&case, &plan).unwrap()), bits(&first), "seed {seed}");
        }
    }
}

#[test]
fn an_index_out_of_range_is_raised_by_the_next_read_and_nothing_is_written() {
    if !is_there()
        || !alone(module_path!(), "an_index_out_of_range_is_raised_by_the_next_read_and_nothing_is_written", ENV)
    {
        return;
    }
    let mut case = Case::default();
    let x = case.leaf(DType::F32, &[4], |i| i as f64);
    let indices = case.leaf(DType::I64, &[4], |i| if i == 2 { 9.0 } else { 0.0 });
    let picked = case.graph.add(Op::Gather(crate::graph::GatherMode::Take, 0), &[x, indices]).unwrap();
    let moved = crate::ops::add(&mut case.graph, x, picked).unwrap();
    case.graph.outputs.push(moved);
    let plan = gpu::build(&case.graph, &[], &case.strides, &[Donation { output: 0, leaf: 0 }], 0).unwrap();
    let leaves = upload(&case).unwrap();
    gpu::run(&plan, &Inputs { leaves: &leaves, numbers: &[] }).unwrap();
    assert_eq!(plan.shaders().outputs(), [OutputHome::Donated(0)], "{plan}");
    let error = leaves[0].buffer.download(DType::F32, 0, 4).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Index);
    assert_eq!(error.message(), "take: index 9 is out of range for axis 0 of size 4");
    let kept = Storage::Host(leaves[0].buffer.download(DType::F32, 0, 4).unwrap());
    assert_eq!(super::floats(&kept), [0.0, 1.0, 2.0, 3.0]);
}

#[test]
fn what_cannot_be_written_in_place_takes_the_old_value() {
    if !is_there() || !alone(module_path!(), "what_cannot_be_written_in_place_takes_the_old_value", ENV) {
        return;
    }
    for last in [1.0, 9.0] {
        let mut case = Case::default();
        let x = case.leaf(DType::F32, &[2, 2], |i| i as f64);
        let y = case.leaf(DType::F32, &[2, 2], |i| 10.0 * i as f64);
        let indices = case.leaf(DType::I64, &[2], |i| if i == 1 { last } else { 0.0 });
        let picked = case.graph.add(Op::Gather(crate::graph::GatherMode::Take, 0), &[x, indices]).unwrap();
        // Each new value needs the other's old one.
        let turned = case.graph.add(Op::Layout(crate::graph::Layout::Permute(smallvec![1, 0])), &[y]).unwrap();
        for (old, other) in [(x, turned), (y, x)] {
            let moved = crate::ops::add(&mut case.graph, old, other).unwrap();
            let moved = crate::ops::add(&mut case.graph, moved, picked).unwrap();
            case.graph.outputs.push(moved);
        }
        let donations = [Donation { output: 0, leaf: 0 }, Donation { output: 1, leaf: 1 }];
        let plan = gpu::build(&case.graph, &[], &case.strides, &donations, 0).unwrap();
        assert!(matches!(plan.shaders().outputs(), [_, OutputHome::Buffer(_)] | [OutputHome::Buffer(_), _]), "{plan}");
        let leaves = upload(&case).unwrap();
        let made = gpu::run(&plan, &Inputs { leaves: &leaves, numbers: &[] }).unwrap();
        let read =
            |storage: &Storage| storage.download(DType::F32, 0, 4).map(|read| super::floats(&Storage::Host(read)));
        if last < 2.0 {
            assert_eq!(read(&made[0]).unwrap(), [0.0, 22.0, 14.0, 36.0]);
            assert_eq!(read(&made[1]).unwrap(), [0.0, 12.0, 24.0, 36.0]);
            continue;
        }
        assert_eq!(read(&made[0]).unwrap_err().kind(), ErrorKind::Index);
        assert_eq!(read(&made[0]).unwrap(), [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(read(&made[1]).unwrap(), [0.0, 10.0, 20.0, 30.0]);
    }
}

#[test]
fn dispatches_wider_than_one_axis_are_split() {
    if !is_there() {
        return;
    }
    let context = context(0).unwrap();
    for seed in 0..10 {
        let case = single(fuzz::graph(seed, 15));
        let few = Limits { groups: 3 + seed as usize, ..gpu::limits(&context) };
        let expanded = expand_to(&case.graph, &[], HandKernels::KeepForDevices).unwrap();
        let graph = planner::simplify(expanded).unwrap();
        let Ok(shaders) = planner::gpu::plan(&graph, &case.strides, &[], &few) else { continue };
        let split = Plan::new(shaders, 0);
        let (whole, _) = run(&case, &[]).unwrap();
        assert_eq!(run_plan(&case, &split).unwrap(), whole, "seed {seed}\n{}\n{split}", case.graph);
    }
}

#[test]
fn sizes_at_the_limits_of_dispatches_and_bindings_are_exact_or_refused() {
    if !is_there() {
        return;
    }
    let limits = *context(0).unwrap().limits();
    // A thread an element, 256 to a workgroup, one more than fits one axis.
    check_count(limits.groups * 256 + 1).unwrap();
    // A device with large bindings would need more memory than a test may take.
    if limits.buffer_bytes <= 256 << 20 {
        check_count(limits.buffer_bytes / 4).unwrap();
        let error = check_count(limits.buffer_bytes / 4 + 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Memory);
        assert!(error.message().contains(&limits.buffer_bytes.to_string()), "{error}");
    }
}

/// Counts to n on the device, and looks at all that it gave.
fn check_count(n: usize) -> Result<()> {
    let mut case = Case::default();
    let counting = case.graph.add_typed(Op::Source(Source::Iota), &[], TensorType::new(DType::I32, [n]));
    let one = case.number(1i64, DType::I32);
    let one = crate::ops::broadcast_to(&mut case.graph, one, &[n].into())?;
    let next = crate::ops::add(&mut case.graph, counting, one)?;
    case.graph.outputs.push(next);
    let plan = gpu::build(&case.graph, &[], &case.strides, &[], 0)?;
    let made = gpu::run(&plan, &case.inputs())?;
    let read = made[0].download(DType::I32, 0, n)?;
    // SAFETY: the buffer holds n numbers.
    let numbers = unsafe { std::slice::from_raw_parts(read.as_ptr().cast::<i32>(), n) };
    assert!(numbers.iter().zip(1..).all(|(&x, i)| x == i), "{n} elements");
    Ok(())
}
