//! The planner: takes a graph of primitive ops to a plan. Passes in order: simplify (merge equal nodes), tasks (layouts
//! become windows), fuse (tasks become kernels), remake (cheap values are made twice rather than kept), commit (donated
//! buffers last), stages (the order, and what threads share out), chains (ops that share one slice kernel), memory (a place
//! for each value), rows and hosts (kernels with addresses). Each pass is iterative and O(n log n). It knows nothing of
//! gradients or handles and runs nothing.

mod account;
mod chains;
mod commit;
mod estimate;
mod fuse;
pub mod gpu;
mod hosts;
mod kernels;
mod layout;
mod memory;
pub mod plan;
mod remake;
mod rows;
mod simplify;
mod sink;
pub mod stages;
mod tasks;
pub(crate) mod window;

pub use account::Account;
pub use chains::before_fork;
pub use commit::Donation;
pub use kernels::copy as copy_kernels;
pub use plan::{OutputHome, Plan};
pub use rows::MOST_REGS;
pub use simplify::simplify;
pub use tasks::{ReduceStep, reduce_steps};

use crate::error::Result;
use crate::graph::Graph;
use crate::machine::cpu::pace::Pace;
use crate::shape::Strides;
use fuse::{Class, Group, Groups};
use hashbrown::HashMap;
use memory::{Home, Memory};
use plan::{Instr, Kernel, Place, base};
use smallvec::SmallVec;
use tasks::{Origin, Program};
use window::Window;

/// The plan of a simplified graph of primitive ops. `leaf_strides` are those of each leaf slot, exactly.
pub fn plan(graph: &Graph, leaf_strides: &[Strides], donations: &[Donation]) -> Result<Plan> {
    plan_by(&stages::RULES, graph, leaf_strides, donations)
}

/// The plan by other rules for what threads share out.
pub(crate) fn plan_by(
    rules: &stages::Rules,
    graph: &Graph,
    leaf_strides: &[Strides],
    donations: &[Donation],
) -> Result<Plan> {
    let mut program = tasks::lower(graph, leaf_strides)?;
    let mut groups = fuse::fuse(&program, &fuse::ON_CPU);
    remake::remake(&mut program, &mut groups, &fuse::ON_CPU);
    let mut commit = commit::choose(&program, &groups, donations);
    let schedule = stages::schedule(&program, &mut groups, &mut commit, rules);
    chains::find(&program, &mut groups);
    let memory = memory::assign(&program, &groups, &schedule, &commit);
    let scene = Scene::new(&program, &groups, &memory, leaf_strides.len());
    let mut instrs = Vec::with_capacity(schedule.order.len());
    let mut accounts = Vec::with_capacity(schedule.order.len());
    // The number of instructions before each position of the order.
    let mut before = Vec::with_capacity(schedule.order.len() + 1);
    for &group in &schedule.order {
        before.push(instrs.len());
        if let Some(instr) = instr(&scene, group)? {
            instrs.push(instr);
            let is_stored = |value: u32| memory.homes[value as usize] != Home::Register;
            accounts.push(account::account(&program, &groups, group, is_stored));
        }
    }
    before.push(instrs.len());
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
        commit: before[schedule.commit],
        stages: schedule.stages.iter().filter_map(|stage| stage.of_instructions(&before, &instrs)).collect(),
        pace: Pace::default(),
        scratch: instrs.iter().map(scratch).max().unwrap_or(0),
        serial: schedule.serial,
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
    let whole = &scene.groups.groups[group as usize];
    let (task, kernel) = match whole {
        Group::Rows(rows) if rows.size == 0 => return Ok(None),
        Group::Rows(rows) => (rows.tasks[0], Some(Kernel::Rows(rows::lower(scene, group, rows)?))),
        Group::Alone(task) => (*task, hosts::lower(scene, *task, &scene.program.tasks[*task as usize])?),
    };
    let nanos = estimate::nanos(scene.program, whole).min(u64::from(u32::MAX)) as u32;
    Ok(kernel.map(|kernel| Instr { name: scene.program.tasks[task as usize].name, kernel, nanos }))
}
