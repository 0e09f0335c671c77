//! What a kernel does, for whoever asks where time goes: its ops, the floating-point operations of their definitions,
//! and the bytes that it must move. Decides nothing.

use super::fuse::Groups;
use super::tasks::{Origin, Program, Task, TaskKind};
use crate::ops::conv::Convolution;
use smallvec::SmallVec;

/// The account of one kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// The ops in the order of the kernel.
    pub ops: Vec<&'static str>,
    /// One for each element of an elementwise op, whatever it costs; two for each product in a sum.
    pub flops: u64,
    /// Of operands that other kernels made and of results that leave this one, each once.
    pub bytes: u64,
}

impl Account {
    /// What a kernel does that does both.
    pub fn and(mut self, other: Account) -> Account {
        self.ops.extend(other.ops);
        Account { ops: self.ops, flops: self.flops + other.flops, bytes: self.bytes + other.bytes }
    }
}

pub fn account(program: &Program, groups: &Groups, group: u32, is_stored: impl Fn(u32) -> bool) -> Account {
    let tasks = groups.tasks(group);
    let mut account = Account { ops: Vec::with_capacity(tasks.len()), ..Account::default() };
    let mut seen: SmallVec<[u32; 16]> = SmallVec::new();
    for &task in tasks {
        let task = &program.tasks[task as usize];
        account.ops.push(task.name);
        account.flops += flops(task);
        for window in &task.inputs {
            let value = &program.values[window.value as usize];
            let inside = matches!(value.origin, Origin::Task(maker) if groups.places[maker as usize].0 == group);
            if !inside && !seen.contains(&window.value) {
                seen.push(window.value);
                account.bytes += (window.size().min(value.size) * value.dtype.size()) as u64;
            }
        }
        if is_stored(task.output) {
            account.bytes += program.values[task.output as usize].bytes() as u64;
        }
    }
    account
}

fn flops(task: &Task) -> u64 {
    let (made, read) = (task.shape.size() as u64, task.inputs.first().map_or(0, |input| input.size() as u64));
    match &task.kind {
        TaskKind::Map { .. } => made,
        TaskKind::RowReduce { .. } | TaskKind::OuterReduce { .. } => read,
        TaskKind::Contract => 2 * made * task.inputs[0].shape.last().map_or(1, |&k| k as u64),
        TaskKind::Conv(spec, role) => {
            let shapes = [&task.inputs[0].shape, &task.inputs[1].shape];
            2 * Convolution::work(spec, *role, shapes, &task.shape) as u64
        }
        TaskKind::Hand { flops, .. } => *flops,
        TaskKind::Scatter(..) | TaskKind::Pool(..) => read.max(made),
        // What only moves elements.
        _ => 0,
    }
}
