//! The planner: takes a graph of primitive ops to a plan. Passes in order: simplify (merge equal nodes), tasks (layouts
//! become windows), fuse (tasks become kernels), remake (cheap values are made twice rather than kept), chains (ops that
//! share one slice kernel), commit (donated buffers last), memory (a place for each value), rows and hosts (kernels with
//! addresses). Each pass is iterative and O(n log n). It knows nothing of gradients or handles and runs nothing.

mod account;
mod chains;
mod commit;
mod fuse;
pub mod gpu;
mod hosts;
mod kernels;
mod memory;
pub mod plan;
mod remake;
mod rows;
mod simplify;
mod sink;
mod tasks;
pub(crate) mod window;

pub use account::Account;
pub use commit::Donation;
pub use kernels::copy as copy_kernels;
pub use plan::{OutputHome, Plan};
pub use rows::MOST_REGS;
pub use simplify::simplify;
pub use tasks::{ReduceStep, reduce_steps};

use crate::error::Result;
use crate::graph::Graph;
use crate::shape::Strides;
use commit::Commit;
use fuse::{Class, Group, Groups};
use hashbrown::HashMap;
use memory::{Home, Memory};
use plan::{Instr, Kernel, Place, base};
use smallvec::SmallVec;
use tasks::{Origin, Program, TaskKind};
use window::Window;

/// Waking helpers pays from this much work in a plan.
const SERIAL_BELOW_NANOS: u64 = 100_000;

/// The plan of a simplified graph of primitive ops. `leaf_strides` are those of each leaf slot, exactly.
pub fn plan(graph: &Graph, leaf_strides: &[Strides], donations: &[Donation]) -> Result<Plan> {
    let mut program = tasks::lower(graph, leaf_strides)?;
    let mut groups = fuse::fuse(&program, &fuse::ON_CPU);
    remake::remake(&mut program, &mut groups, &fuse::ON_CPU);
    chains::find(&program, &mut groups);
    let commit = commit::choose(&program, &groups, donations);
    let order = order(&groups, &commit);
    let memory = memory::assign(&program, &groups, &order, &commit);
    let scene = Scene::new(&program, &groups, &memory, leaf_strides.len());
    let mut instrs = Vec::with_capacity(order.len());
    let mut accounts = Vec::with_capacity(order.len());
    let mut commit_from = None;
    for &group in &order {
        if commit.last[group as usize] && commit_from.is_none() {
            commit_from = Some(instrs.len());
        }
        if let Some(instr) = instr(&scene, group)? {
            instrs.push(instr);
            let is_stored = |value: u32| memory.homes[value as usize] != Home::Register;
            accounts.push(account::account(&program, &groups, group, is_stored));
        }
    }
    let outputs = program.outputs.iter().map(|&value| match memory.homes[value as usize] {
        Home::Buffer(buffer) => Ok(OutputHome::Buffer(buffer)),
        Home::Leaf(leaf) => Ok(OutputHome::Donated(leaf)),
        home => Err(crate::error::Error::internal(format!("an output lies at {home:?}"))),
    });
    let outputs = outputs.collect::<Result<_>>()?;
    let scratch = |instr: &Instr| match &instr.kernel {
        Kernel::Rows(rows) => rows.scratch,
        _ => 0,
    };
    let mut leaves = vec![1; leaf_strides.len()];
    for value in &program.values {
        if let Origin::Leaf(slot) = value.origin {
            leaves[slot as usize] = value.dtype.size();
        }
    }
    Ok(Plan {
        commit: commit_from.unwrap_or(instrs.len()),
        scratch: instrs.iter().map(scratch).max().unwrap_or(0),
        serial: instrs.iter().map(|instr| u64::from(instr.nanos)).sum::<u64>() < SERIAL_BELOW_NANOS,
        instrs,
        accounts,
        constants: program.constants.chunks(8).map(word).collect(),
        numbers: program.cells.iter().map(|cell| cell.0 as usize + 1).max().unwrap_or(0),
        cells: program.cells,
        checks: program.checks,
        leaves,
        buffers: memory.buffers,
        outputs,
        arena: memory.arena,
    })
}

fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_ne_bytes(word)
}

/// Groups in the order of execution: as numbered, the commit block last.
fn order(groups: &Groups, commit: &Commit) -> Vec<u32> {
    let mut order: Vec<u32> = (0..groups.groups.len() as u32).collect();
    order.sort_by_key(|&group| (commit.last[group as usize], commit.guards[group as usize]));
    order
}

/// What lowering a group to a kernel needs to know of the rest.
struct Scene<'a> {
    program: &'a Program,
    groups: &'a Groups,
    homes: &'a [Home],
    /// Places of chunk partials and of other working memory, by task.
    partials: HashMap<u32, usize>,
    leaves: usize,
}

impl<'a> Scene<'a> {
    fn new(program: &'a Program, groups: &'a Groups, memory: &'a Memory, leaves: usize) -> Scene<'a> {
        let partials = memory.partials.iter().copied().collect();
        Scene { program, groups, homes: &memory.homes, partials, leaves }
    }

    fn maker(&self, window: &Window) -> Option<(u32, Class)> {
        match self.program.values[window.value as usize].origin {
            Origin::Task(task) => Some(self.groups.places[task as usize]),
            _ => None,
        }
    }

    fn whole(&self, value: u32) -> Window {
        Window::whole(value, &[self.program.values[value as usize].size].into())
    }

    /// The address of a window's first element. Values in registers have none.
    fn place(&self, window: &Window) -> Place {
        let (base, at) = match self.homes[window.value as usize] {
            Home::Register => (base::SCRATCH, 0),
            Home::Arena(at) => (base::ARENA, at),
            Home::Buffer(buffer) => (base::FIRST_LEAF + self.leaves as u32 + buffer, 0),
            Home::Leaf(slot) => (base::FIRST_LEAF + slot, 0),
            Home::Number(cell) => (base::NUMBERS, cell as usize * 8),
            Home::Constant(at) => (base::CONSTANTS, at as usize),
        };
        let bytes = self.program.values[window.value as usize].dtype.size() as isize;
        let starts: SmallVec<_> = window.starts.iter().map(|&(cell, stride)| (cell, stride * bytes)).collect();
        Place { base, offset: at as isize + window.offset * bytes, starts }
    }
}

/// The kernel of a group; None if it has nothing to compute.
fn instr(scene: &Scene, group: u32) -> Result<Option<Instr>> {
    match &scene.groups.groups[group as usize] {
        Group::Rows(rows) if rows.size == 0 => Ok(None),
        Group::Rows(rows) => {
            let program = rows::lower(scene, group, rows)?;
            let tasks = rows.tasks.iter().map(|&task| &scene.program.tasks[task as usize]);
            // Tenths of a nanosecond for each element, as measured for arithmetic and for exponentials.
            let cost: u64 = tasks
                .map(|task| match task.kind {
                    TaskKind::Map { function, .. } if function.is_heavy() => 4,
                    _ => 1,
                })
                .sum();
            let saved: usize =
                rows.chains.iter().map(|chain| chain.tasks.len() - chain.tasks.len().div_ceil(rows::OPS_A_PASS)).sum();
            let cost = cost - saved as u64;
            let nanos = (rows.size as u64 * cost / 10).min(u64::from(u32::MAX)) as u32;
            let name = scene.program.tasks[rows.tasks[0] as usize].name;
            Ok(Some(Instr { name, kernel: Kernel::Rows(program), nanos }))
        }
        Group::Alone(task) => hosts::lower(scene, *task, &scene.program.tasks[*task as usize]),
    }
}
