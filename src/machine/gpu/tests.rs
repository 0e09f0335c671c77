//! On whatever device there is; a machine without one skips with a word on stderr.

use super::*;
use crate::error::ErrorKind;
use crate::machine::cpu::par;
use crate::machine::storage::Fate;
use smallvec::smallvec;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// `b2[i] = a * b1[i] + b`, with a and b in the parameters.
const AFFINE: &str = "// affine
@group(0) @binding(0) var<uniform> p: array<vec4<u32>, 1>;
@group(0) @binding(1) var<storage, read> b1: array<f32>;
@group(0) @binding(2) var<storage, read_write> b2: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
    let i = (group.y * groups.x + group.x) * 64u + thread;
    if i < p[0].y {
        b2[i] = bitcast<f32>(p[0].z) * b1[i] + bitcast<f32>(p[0].w);
    }
}
";

/// `b1[i] += 1`.
const BUMP: &str = "// bump
@group(0) @binding(1) var<storage, read_write> b1: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < arrayLength(&b1) {
        b1[id.x] += 1u;
    }
}
";

/// Keeps each thread busy for `p[0].y` rounds.
const SLOW: &str = "// slow
@group(0) @binding(0) var<uniform> p: array<vec4<u32>, 1>;
@group(0) @binding(1) var<storage, read_write> b1: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    var x = id.x;
    for (var i = 0u; i < p[0].y; i++) {
        x = x * 1664525u + 1013904223u;
    }
    b1[id.x] = x;
}
";

/// Sets the fault as an index kernel does: index -3 at an axis of 5.
/// Notes index -3 of an axis of size 5 for the run p[0].y, whose record begins at p[0].z.
const FAULT: &str = "// fault
@group(0) @binding(0) var<uniform> p: array<vec4<u32>, 1>;
@group(0) @binding(1) var<storage, read_write> fault: array<atomic<u32>>;
@compute @workgroup_size(1)
fn main() {
    let run = p[0].y;
    let record = p[0].z;
    let first = atomicCompareExchangeWeak(&fault[0], 0u, run);
    if atomicCompareExchangeWeak(&fault[record], 0u, run).exchanged {
        atomicStore(&fault[record + 1u], p[0].w);
        atomicStore(&fault[record + 2u], bitcast<u32>(-3i));
        atomicStore(&fault[record + 3u], 0xffffffffu);
        atomicStore(&fault[record + 4u], 5u);
    }
}
";

pub(super) fn device() -> Option<Arc<Context>> {
    if devices().is_empty() {
        eprintln!("skipped: no GPU, real or software");
        return None;
    }
    Some(context(0).unwrap())
}

fn floats(context: &Context, buffer: &Buffer) -> Vec<f32> {
    let mut bytes = vec![0; buffer.len()];
    context.read(buffer, 0, &mut bytes).unwrap();
    bytemuck::pod_collect_to_vec(&bytes)
}

fn affine_block(n: u32, a: f32, b: f32) -> [u32; 64] {
    let mut block = [0; 64];
    block[1..4].copy_from_slice(&[n, a.to_bits(), b.to_bits()]);
    block
}

/// Runs the rest of the test in a process of its own, with this variable set. True in that process.
pub(crate) fn alone(module: &str, test: &str, variable: (&str, &str)) -> bool {
    const MARK: &str = "WENGERT_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let module = module.split_once("::").map_or(module, |(_, path)| path);
    let output = Command::new(std::env::current_exe().unwrap())
        .args([&format!("{module}::{test}"), "--exact", "--nocapture"])
        .env(MARK, "1")
        .env(variable.0, variable.1)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    false
}

#[test]
fn bytes_come_back() {
    let Some(context) = device() else { return };
    for length in [0, 1, 3, 4, 5, 255, 256, 257, 100_001] {
        let bytes: Vec<u8> = (0..length).map(|i| (i * 7 % 251) as u8).collect();
        let buffer = context.upload(&bytes).unwrap();
        assert_eq!(buffer.len(), length);
        for start in [0, 1, 2, 3, 4, 9] {
            let mut part = vec![0; length.saturating_sub(start)];
            context.read(&buffer, start.min(length), &mut part).unwrap();
            assert_eq!(part, bytes[start.min(length)..], "{length} from {start}");
        }
    }
}

#[test]
fn memory_is_reused() {
    let Some(context) = device() else { return };
    // A size that no other test takes.
    let first = context.alloc(777_777).unwrap();
    let id = first.id();
    drop(first);
    let memory = context.counters().memory;
    let second = context.alloc(777_000).unwrap();
    assert_eq!((second.id(), second.len()), (id, 777_000));
    assert!(context.counters().memory >= memory);
    assert_ne!(context.alloc(777_777).unwrap().id(), id);
}

#[test]
fn parameters_at_two_offsets() {
    let Some(context) = device() else { return };
    let x = context.upload(bytemuck::cast_slice(&[1.0_f32, 2.0, 3.0])).unwrap();
    let [y, z] = [context.alloc(12).unwrap(), context.alloc(12).unwrap()];
    let affine = context.pipeline(AFFINE, &[Access::Read, Access::ReadWrite], 4).unwrap();
    let params = [affine_block(3, 2.0, 1.0), affine_block(3, -1.0, 0.5)].concat();
    let dispatches = [
        Dispatch { pipeline: &affine, buffers: smallvec![x.binding(), y.binding()], params: 0, groups: [1, 1, 1] },
        Dispatch { pipeline: &affine, buffers: smallvec![y.binding(), z.binding()], params: 64, groups: [1, 1, 1] },
    ];
    for _ in 0..3 {
        context.run(&params, &dispatches).unwrap();
        assert_eq!(floats(&context, &y), [3.0, 5.0, 7.0]);
        assert_eq!(floats(&context, &z), [-2.5, -4.5, -6.5]);
    }
    assert!(Arc::ptr_eq(&affine, &context.pipeline(AFFINE, &[Access::Read, Access::ReadWrite], 4).unwrap()));
}

#[test]
fn in_place_and_in_order() {
    let Some(context) = device() else { return };
    let counts = context.upload(&[0; 4 * 100]).unwrap();
    let bump = context.pipeline(BUMP, &[Access::ReadWrite], 0).unwrap();
    let dispatches: Vec<Dispatch> = (0..10)
        .map(|_| Dispatch { pipeline: &bump, buffers: smallvec![counts.binding()], params: 0, groups: [2, 1, 1] })
        .collect();
    context.run(&[], &dispatches).unwrap();
    context.run(&[], &dispatches).unwrap();
    let mut bytes = [0; 400];
    context.read(&counts, 0, &mut bytes).unwrap();
    assert_eq!(bytemuck::pod_collect_to_vec::<u8, u32>(&bytes), [20; 100]);
}

#[test]
fn runs_that_nobody_waits_for_do_not_heap_up() {
    let Some(context) = device() else { return };
    let counts = context.upload(&[0; 4]).unwrap();
    let bump = context.pipeline(BUMP, &[Access::ReadWrite], 0).unwrap();
    for _ in 0..500 {
        let buffers = smallvec![counts.binding()];
        context.run(&[], &[Dispatch { pipeline: &bump, buffers, params: 0, groups: [1, 1, 1] }]).unwrap();
    }
    // Each thread of the other tests may add one.
    assert!(context.runs.lock().len() <= 50);
    let mut bytes = [0; 4];
    context.read(&counts, 0, &mut bytes).unwrap();
    assert_eq!(u32::from_le_bytes(bytes), 500);
}

#[test]
fn more_groups_than_an_axis_takes() {
    let Some(context) = device() else { return };
    let n: usize = 65_535 * 64 + 1000;
    let affine = context.pipeline(AFFINE, &[Access::Read, Access::ReadWrite], 4).unwrap();
    let ones: Vec<f32> = vec![1.0; n];
    let (x, y) = (context.upload(bytemuck::cast_slice(&ones)).unwrap(), context.alloc(4 * n).unwrap());
    // Two rows of workgroups, whatever the device takes in one.
    let groups = [65_535, 2, 1];
    assert!(n.div_ceil(64) > 65_535 && context.limits().groups >= 65_535);
    let buffers = smallvec![x.binding(), y.binding()];
    context
        .run(&affine_block(n as u32, 2.0, 1.0), &[Dispatch { pipeline: &affine, buffers, params: 0, groups }])
        .unwrap();
    assert!(floats(&context, &y).iter().all(|y| *y == 3.0));
}

#[test]
fn copies_and_writes() {
    let Some(context) = device() else { return };
    let from = context.upload(&[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    let to = context.upload(&[0; 12]).unwrap();
    context.copy(&from, 4, &to, 8, 4).unwrap();
    context.copy(&from, 0, &to, 0, 0).unwrap();
    context.write(&to, 4, &[9, 9, 9]).unwrap();
    let mut bytes = [1; 12];
    context.read(&to, 0, &mut bytes).unwrap();
    assert_eq!(bytes, [0, 0, 0, 0, 9, 9, 9, 0, 5, 6, 7, 8]);
    assert_eq!(context.copy(&from, 0, &to, 0, 16).unwrap_err().kind(), ErrorKind::Internal);
    assert_eq!(context.write(&to, 8, &[0; 5]).unwrap_err().kind(), ErrorKind::Internal);
}

#[test]
fn bind_groups_are_found_again() {
    let Some(context) = device() else { return };
    let bump = context.pipeline(BUMP, &[Access::ReadWrite], 0).unwrap();
    let buffer = context.alloc(4 * 1234).unwrap();
    let run = || {
        let dispatch = Dispatch { pipeline: &bump, buffers: smallvec![buffer.binding()], params: 0, groups: [1, 1, 1] };
        context.run(&[], &[dispatch]).unwrap();
    };
    let key_count = || context.bind_groups.lock().len();
    run();
    let before = key_count();
    (0..10).for_each(|_| run());
    // Other tests add some of their own.
    assert!(key_count() < before + 10);
}

#[test]
fn wrong_kernels_are_told_by_name() {
    let Some(context) = device() else { return };
    let pipeline = |text: &str, access: &[Access]| context.pipeline(text, access, 0).unwrap_err();
    let error = pipeline("// nonsense\nfn main( {", &[]);
    assert!(error.kind() == ErrorKind::Device && error.message().starts_with("gpu: kernel nonsense: "), "{error}");
    let error = pipeline(&BUMP.replace("bump", "read only"), &[Access::Read]);
    assert!(error.kind() == ErrorKind::Device && error.message().contains("kernel read only"), "{error}");
    let error = pipeline("// many", &[Access::Read; 1000]);
    assert!(error.message().contains("1000 storage buffers"), "{error}");
    let error = context.pipeline("// params", &[], 1 << 30).unwrap_err();
    assert!(error.message().contains("words of parameters"), "{error}");
}

#[test]
fn wrong_runs_are_told_by_name() {
    let Some(context) = device() else { return };
    let buffer = context.alloc(64).unwrap();
    let bump = context.pipeline(BUMP, &[Access::ReadWrite], 0).unwrap();
    let affine = context.pipeline(AFFINE, &[Access::Read, Access::ReadWrite], 4).unwrap();
    let run = |pipeline, buffers, params: u32, groups| {
        context.run(&[0; 64], &[Dispatch { pipeline, buffers, params, groups }]).unwrap_err()
    };
    let one = || smallvec![buffer.binding()];
    let two = || smallvec![buffer.binding(), buffer.binding()];
    for (error, kind, word) in [
        (run(&bump, one(), 0, [65_536, 1, 1]), ErrorKind::Device, "run bump (64 bytes)"),
        (run(&affine, one(), 0, [1, 1, 1]), ErrorKind::Internal, "number of buffers"),
        (run(&affine, two(), 0, [1, 1, 1]), ErrorKind::Device, "run affine (128 bytes)"),
        (run(&affine, two(), 4, [1, 1, 1]), ErrorKind::Internal, "parameters"),
        (run(&affine, two(), 64, [1, 1, 1]), ErrorKind::Internal, "parameters"),
    ] {
        assert!(error.kind() == kind && error.message().contains(word), "{error}");
    }
    // The context is as good as before.
    context.run(&[], &[Dispatch { pipeline: &bump, buffers: one(), params: 0, groups: [0, 1, 1] }]).unwrap();
    context.run(&[], &[]).unwrap();
    assert_eq!(floats(&context, &buffer).len(), 16);
}

#[test]
fn too_much_memory_is_an_error() {
    let Some(context) = device() else { return };
    let most = context.limits().buffer_bytes;
    let error = context.alloc(most + 1).unwrap_err();
    assert!(error.kind() == ErrorKind::Memory && error.message().contains(&most.to_string()), "{error}");
    assert_eq!(context.alloc(usize::MAX).unwrap_err().kind(), ErrorKind::Memory);
}

#[test]
fn an_allocation_fails_when_a_test_wants_it() {
    let Some(context) = device() else { return };
    let buffer = context.alloc(16).unwrap();
    fail_allocation(2).unwrap();
    let kept = context.alloc(16);
    let failed = context.upload(&[0; 16]);
    assert!(kept.is_ok());
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Memory);
    // Reads and runs with parameters allocate too.
    fail_allocation(1).unwrap();
    assert_eq!(context.read(&buffer, 0, &mut [0; 16]).unwrap_err().kind(), ErrorKind::Memory);
    context.read(&buffer, 0, &mut [0; 16]).unwrap();
}

#[test]
fn free_memory_is_bounded_and_given_back() {
    // Other tests take memory of their own.
    if !alone(module_path!(), "free_memory_is_bounded_and_given_back", ("XDG_RUNTIME_DIR", "/tmp")) {
        return;
    }
    let Some(context) = device() else { return };
    let bump = context.pipeline(BUMP, &[Access::ReadWrite], 0).unwrap();
    let run = |buffer: &Buffer| {
        let buffers = smallvec![buffer.binding()];
        context.run(&[], &[Dispatch { pipeline: &bump, buffers, params: 0, groups: [1, 1, 1] }]).unwrap();
    };
    let start = context.counters().memory;
    let bytes = context.limits().buffer_bytes.min(100 << 20);
    let held = || context.counters().memory - start;
    let many: Vec<Buffer> = (0..30).map(|_| context.alloc(bytes).unwrap()).collect();
    // Memory that no kernel touches costs a software device nothing.
    run(&many[0]);
    assert!(held() >= 30 * bytes as u64);
    drop(many);
    assert!(held() <= 2 << 30, "{} bytes are held", held());
    let kept = context.alloc(64).unwrap();
    run(&kept);
    context.trim().unwrap();
    assert_eq!(held(), 256);
    // Bind groups of memory that is gone stay in their cache, where nobody finds them.
    let again = context.alloc(bytes).unwrap();
    [&again, &kept].into_iter().for_each(run);
    context.read(&kept, 0, &mut [0; 64]).unwrap();
}

#[test]
fn errors_of_nobody_and_panics_come_out() {
    if !alone(module_path!(), "errors_of_nobody_and_panics_come_out", ("XDG_RUNTIME_DIR", "/tmp")) {
        return;
    }
    let Some(context) = device() else { return };
    // Without a scope around it.
    let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::STORAGE;
    let _ = context.device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 16,
        usage,
        mapped_at_creation: false,
    });
    let error = context.alloc(4).unwrap_err();
    assert!(error.kind() == ErrorKind::Device && error.message().contains("MAP_READ"), "{error}");
    assert!(context.alloc(4).is_ok());
    let error = context.guarded(String::new, || -> crate::error::Result<()> { panic!("the driver's") }).unwrap_err();
    assert!(error.kind() == ErrorKind::DeviceLost && error.message().contains("the driver's"), "{error}");
    assert_eq!(context.alloc(4).unwrap_err().kind(), ErrorKind::DeviceLost);
    reset().unwrap();
    assert!(super::context(0).unwrap().alloc(4).is_ok());
}

#[test]
fn threads_share_a_context() {
    let Some(context) = device() else { return };
    let affine = context.pipeline(AFFINE, &[Access::Read, Access::ReadWrite], 4).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (context, affine) = (&context, &affine);
            scope.spawn(move || {
                for round in 0..20 {
                    let a = (thread * 100 + round) as f32;
                    let x = context.upload(bytemuck::cast_slice(&[a; 1000])).unwrap();
                    let y = context.alloc(4000).unwrap();
                    let buffers = smallvec![x.binding(), y.binding()];
                    let dispatch = Dispatch { pipeline: affine, buffers, params: 0, groups: [16, 1, 1] };
                    context.run(&affine_block(1000, 2.0, a), &[dispatch]).unwrap();
                    assert_eq!(floats(context, &y), [3.0 * a; 1000]);
                }
            });
        }
    });
}

#[test]
fn a_wait_can_be_interrupted() {
    // The hook is the whole process's.
    if !alone(module_path!(), "a_wait_can_be_interrupted", ("XDG_RUNTIME_DIR", "/tmp")) {
        return;
    }
    let Some(context) = device() else { return };
    static STOP: AtomicBool = AtomicBool::new(true);
    par::set_poll(|| STOP.load(Ordering::Relaxed));
    let (groups, rounds) = (100, 60_000);
    let buffer = context.alloc(4 * 64 * groups as usize).unwrap();
    let slow = context.pipeline(SLOW, &[Access::ReadWrite], 4).unwrap();
    let mut block = [0; 64];
    block[1] = rounds;
    let buffers = smallvec![buffer.binding()];
    context.run(&block, &[Dispatch { pipeline: &slow, buffers, params: 0, groups: [groups, 1, 1] }]).unwrap();
    let mut bytes = [0; 4];
    let results = [context.wait(), context.read(&buffer, 0, &mut bytes)];
    // Another device may be through before anybody asks.
    if context.info().kind == Kind::Cpu || results[0].is_err() {
        for result in results {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Interrupted);
        }
    }
    STOP.store(false, Ordering::Relaxed);
    context.read(&buffer, 0, &mut bytes).unwrap();
    let expected = (0..rounds).fold(0_u32, |x, _| x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    assert_eq!(u32::from_le_bytes(bytes), expected);
}

/// Runs `FAULT` twice; gives the number of the run.
fn run_fault(context: &Context) -> u64 {
    let fault = context.pipeline(FAULT, &[Access::ReadWrite], 4).unwrap();
    let turn = context.turn(64).unwrap();
    let (run, mut block) = (turn.number(), [0; 64]);
    block[1..4].copy_from_slice(&[run as u32, turn.record(), fault_code("pick", 2)]);
    let buffers = || smallvec![context.fault().unwrap()];
    let dispatch = || Dispatch { pipeline: &fault, buffers: buffers(), params: 0, groups: [1, 1, 1] };
    turn.run(&block, &[dispatch(), dispatch()]).unwrap();
    run
}

#[test]
fn a_fault_is_raised_by_the_next_read_and_cleared() {
    // Any read of the process would raise it.
    if !alone(module_path!(), "a_fault_is_raised_by_the_next_read_and_cleared", ("XDG_RUNTIME_DIR", "/tmp")) {
        return;
    }
    let Some(context) = device() else { return };
    let buffer = context.upload(&[7; 8]).unwrap();
    let bump = context.pipeline(BUMP, &[Access::ReadWrite], 0).unwrap();
    run_fault(&context);
    let bumped = Dispatch { pipeline: &bump, buffers: smallvec![buffer.binding()], params: 0, groups: [1, 1, 1] };
    context.run(&[], &[bumped]).unwrap();
    context.wait().unwrap();
    let mut bytes = [0; 8];
    let error = context.read(&buffer, 0, &mut bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Index);
    assert_eq!(error.message(), "pick: index -3 is out of range for axis 2 of size 5");
    context.read(&buffer, 0, &mut bytes).unwrap();
    assert_eq!(bytes, [8, 7, 7, 7, 8, 7, 7, 7]);
    // A read of nothing brings the fault too, and so does a question.
    run_fault(&context);
    let nothing = context.alloc(0).unwrap();
    assert_eq!(context.read(&nothing, 0, &mut []).unwrap_err().kind(), ErrorKind::Index);
    context.judge().unwrap();
    run_fault(&context);
    assert_eq!(context.judge().unwrap_err().kind(), ErrorKind::Index);
    context.read(&buffer, 0, &mut bytes).unwrap();
}

#[test]
fn it_is_known_of_each_run_whether_it_met_a_fault() {
    if !alone(module_path!(), "it_is_known_of_each_run_whether_it_met_a_fault", ("XDG_RUNTIME_DIR", "/tmp")) {
        return;
    }
    let Some(context) = device() else { return };
    let made: Vec<Buffer> = (0..5).map(|_| context.upload(&[0; 4]).unwrap()).collect();
    let runs: Vec<u64> = (0..5)
        .map(|at| match at {
            1 | 3 => run_fault(&context),
            _ => {
                let turn = context.turn(0).unwrap();
                let run = turn.number();
                turn.run(&[], &[]).unwrap();
                run
            }
        })
        .collect();
    for (buffer, &run) in made.iter().zip(&runs) {
        buffer.set_doubt(Doubt::of(run));
        buffer.set_written(run);
    }
    let fates = || made.iter().map(|buffer| buffer.written().fate()).collect::<Vec<_>>();
    assert_eq!(fates(), [Fate::Unknown; 5]);
    let read = |buffer: &Buffer| context.read(buffer, 0, &mut [0; 4]);
    // The first read raises the first one, whatever it reads.
    assert!(read(&made[0]).is_err());
    assert_eq!(fates(), [Fate::Done, Fate::Void, Fate::Void, Fate::Void, Fate::Void]);
    for _ in 0..2 {
        assert_eq!(
            made.iter().map(|buffer| read(buffer).is_ok()).collect::<Vec<_>>(),
            [true, false, true, false, true]
        );
    }
    // What is copied, or depends on several runs, has the error of any of them.
    let (copy, sum) = (context.upload(&[0; 4]).unwrap(), context.upload(&[0; 4]).unwrap());
    context.copy(&made[3], 0, &copy, 0, 4).unwrap();
    sum.set_doubt(made[2].doubt().and(made[4].doubt()));
    assert!(read(&copy).is_err() && read(&sum).is_err());
    assert!(context.turn(0).unwrap().doubt(&copy).is_err());
    assert_eq!(context.turn(0).unwrap().doubt(&made[4]).unwrap(), Doubt::default());
}

#[test]
fn runs_that_share_a_record_share_its_error() {
    if !alone(module_path!(), "runs_that_share_a_record_share_its_error", ("XDG_RUNTIME_DIR", "/tmp")) {
        return;
    }
    let Some(context) = device() else { return };
    let made: Vec<Buffer> = (0..130).map(|_| context.upload(&[0; 4]).unwrap()).collect();
    let bad = [5, 70, 71];
    for (at, buffer) in made.iter().enumerate() {
        let run = match bad.contains(&at) {
            true => run_fault(&context),
            false => {
                let turn = context.turn(0).unwrap();
                let run = turn.number();
                turn.run(&[], &[]).unwrap();
                run
            }
        };
        buffer.set_doubt(Doubt::of(run));
    }
    assert!(context.judge().is_err());
    let lost: Vec<usize> = (0..130).filter(|&at| made[at].error().is_some()).collect();
    // 5, 70 and 71 for sure; 69 and 133 share the record of 5, of which the second is not there.
    assert_eq!(lost, [5, 69, 70, 71]);
}

#[test]
fn a_lost_device_says_so_until_it_is_reset() {
    if !alone(module_path!(), "a_lost_device_says_so_until_it_is_reset", ("XDG_RUNTIME_DIR", "/tmp")) {
        return;
    }
    let Some(old) = device() else { return };
    let buffer = old.upload(&[1, 2, 3, 4]).unwrap();
    let bump = old.pipeline(BUMP, &[Access::ReadWrite], 0).unwrap();
    lose(0).unwrap();
    let mut bytes = [0; 4];
    let run = || Dispatch { pipeline: &bump, buffers: smallvec![buffer.binding()], params: 0, groups: [1, 1, 1] };
    let failures = |context: &Arc<Context>| {
        [
            context.alloc(4).map(|_| ()),
            context.upload(&[0; 4]).map(|_| ()),
            context.read(&buffer, 0, &mut [0; 4]),
            context.run(&[], &[run()]),
            context.copy(&buffer, 0, &buffer, 0, 4),
            context.pipeline(BUMP, &[Access::ReadWrite], 0).map(|_| ()),
            context.wait(),
        ]
    };
    for result in failures(&old) {
        let error = result.unwrap_err();
        assert!(error.kind() == ErrorKind::DeviceLost && error.message().contains("a test wants it"), "{error}");
    }
    assert_eq!(context(0).unwrap_err().kind(), ErrorKind::DeviceLost);
    reset().unwrap();
    let new = context(0).unwrap();
    assert!(new.serial() != old.serial() && !devices().is_empty());
    let fresh = new.upload(&[5, 6, 7, 8]).unwrap();
    new.read(&fresh, 0, &mut bytes).unwrap();
    assert_eq!(bytes, [5, 6, 7, 8]);
    assert_eq!(new.read(&buffer, 0, &mut bytes).unwrap_err().kind(), ErrorKind::DeviceLost);
    assert_eq!(new.run(&[], &[run()]).unwrap_err().kind(), ErrorKind::DeviceLost);
    for result in failures(&old) {
        let error = result.unwrap_err();
        assert!(error.kind() == ErrorKind::DeviceLost && error.message().ends_with("make it again"), "{error}");
    }
    drop((buffer, bump, old));
    // A reset of a device that works takes it away too.
    reset().unwrap();
    assert_eq!(new.read(&fresh, 0, &mut bytes).unwrap_err().kind(), ErrorKind::DeviceLost);
    assert!(context(0).is_ok());
}

#[test]
fn a_number_that_does_not_exist_is_an_error() {
    if device().is_none() {
        return;
    }
    let error = context(200).unwrap_err();
    assert!(error.kind() == ErrorKind::Device && error.message().starts_with("gpu:200 does not exist"), "{error}");
    assert!(error.message().contains(&devices()[0].to_string()), "{error}");
}

#[test]
fn without_a_driver_there_is_no_device() {
    if !alone(module_path!(), "without_a_driver_there_is_no_device", ("VK_DRIVER_FILES", "/nonexistent")) {
        return;
    }
    if !cfg!(target_os = "linux") {
        return;
    }
    assert_eq!(devices(), []);
    let error = context(0).unwrap_err();
    assert!(error.kind() == ErrorKind::Device && error.message().contains("no device"), "{error}");
    assert!(reset().is_ok() && devices().is_empty());
}

#[cfg(unix)]
#[test]
fn a_forked_child_is_told_at_once() {
    let Some(context) = device() else { return };
    let buffer = context.upload(&[1, 2, 3, 4]).unwrap();
    before_fork();
    // SAFETY: the child touches no lock but the one held here, and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    // SAFETY: `before_fork` ran in this thread.
    unsafe { after_fork() };
    if child == 0 {
        let device = |result: crate::error::Result<()>| result.is_err_and(|error| error.kind() == ErrorKind::Device);
        let told = [
            device(super::context(0).map(|_| ())),
            device(context.read(&buffer, 0, &mut [0; 4])),
            device(context.alloc(4).map(|_| ())),
            device(reset()),
            devices().is_empty(),
        ];
        drop(buffer);
        let code = i32::from(told.contains(&false));
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { libc::_exit(code) };
    }
    let mut status = -1;
    // SAFETY: waits for the child made above.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0);
    let mut bytes = [0; 4];
    context.read(&buffer, 0, &mut bytes).unwrap();
    assert_eq!(bytes, [1, 2, 3, 4]);
}
