//! About how long kernels take on one thread: when helpers pay, when to poll, and what threads share out. Rough, and
//! cheap to ask; changes speed only.

use super::chains::OPS_A_PASS;
use super::fuse::{Group, Rows};
use super::tasks::{Program, Task, TaskKind};
use crate::ops::conv::Convolution;

/// Nanoseconds of a group.
pub fn nanos(program: &Program, group: &Group) -> u64 {
    match group {
        Group::Rows(rows) => of_rows(program, rows),
        Group::Alone(task) => of_task(&program.tasks[*task as usize]),
    }
}

/// Tenths of a nanosecond for each element, as measured for arithmetic and for exponentials.
fn of_rows(program: &Program, rows: &Rows) -> u64 {
    let tasks = rows.tasks.iter().map(|&task| &program.tasks[task as usize]);
    let cost: u64 = tasks
        .map(|task| match task.kind {
            TaskKind::Map { function, .. } if function.is_heavy() => 4,
            _ => 1,
        })
        .sum();
    let saved: usize = rows.chains.iter().map(|chain| chain.tasks.len() - chain.tasks.len().div_ceil(OPS_A_PASS)).sum();
    rows.size as u64 * (cost - saved as u64) / 10
}

fn of_task(task: &Task) -> u64 {
    let size = task.shape.size() as u64;
    let read = |input: usize| task.inputs[input].size() as u64;
    match &task.kind {
        TaskKind::Contract => size * task.inputs[0].shape.last().map_or(1, |&k| k as u64) / 40,
        TaskKind::Conv(spec, role) => {
            let shapes = [&task.inputs[0].shape, &task.inputs[1].shape];
            Convolution::work(spec, *role, shapes, &task.shape) as u64 / 40
        }
        TaskKind::Pool(..) => read(0).max(size) / 2,
        TaskKind::Scatter(..) => size + read(0),
        TaskKind::Hand { nanos, .. } => *nanos,
        _ => size,
    }
}
