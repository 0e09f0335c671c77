//! On whatever device there is; a machine without one skips with a word on stderr.

use super::*;
use crate::error::ErrorKind;
use smallvec::smallvec;
use std::process::Command;
use std::sync::Arc;

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

/// Sets the fault as an index kernel does: index -3 at an axis of 5.
const FAULT: &str = "// fault
@group(0) @binding(1) var<storage, read_write> fault: array<atomic<u32>>;
@compute @workgroup_size(1)
fn main() {
    if atomicCompareExchangeWeak(&fault[0], 0u, 1u).exchanged {
        atomicStore(&fault[1], bitcast<u32>(-3i));
        atomicStore(&fault[2], 0xffffffffu);
        atomicStore(&fault[3], 5u);
    }
}
";

fn device() -> Option<Arc<Context>> {
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
fn alone(test: &str, variable: (&str, &str)) -> bool {
    const MARK: &str = "WENGERT_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([&format!("machine::gpu::tests::{test}"), "--exact", "--nocapture"])
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
