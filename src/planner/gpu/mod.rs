//! Plans for GPUs: the same passes as for the CPU up to the choice of kernels, then generated shaders over whole pooled
//! buffers. Pure text and numbers: it names no driver, and every shader can be validated without one. Row groups become
//! one shader each; every other task has a generator of its own.

mod attention;
mod contract;
mod conv;
mod ending;
mod memory;
mod moves;
pub mod plan;
mod pool;
mod reduce;
mod rows;
mod scatter;
mod shader;
mod together;

pub use plan::{Binding, Home, Kernel, Limits, Plan, Sources, Word};

use super::Donation;
use super::account::{self, Account};
use super::commit::{self, Commit};
use super::fuse::{self, Group, Groups, Rows};
use super::plan::OutputHome;
use super::tasks::{self, Origin, Program, Task, TaskKind};
use super::window::Window;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{DeviceKernel, Graph};
use crate::shape::Strides;
use rows::Ending;
use std::collections::BTreeMap;

/// Buffers of a kernel that are not values: the words for bad indices, and a scratch buffer.
const OTHER_BUFFERS: usize = 2;

/// The plan of a simplified graph of primitive ops. `leaf_strides` are those of each leaf slot, exactly.
pub fn plan(graph: &Graph, leaf_strides: &[Strides], donations: &[Donation], limits: &Limits) -> Result<Plan> {
    let mut program = tasks::lower(graph, leaf_strides)?;
    let groups = fuse::fuse(&program, &fuse::ON_GPU);
    let groups = fuse::split_wide(&program, groups, limits.buffers - OTHER_BUFFERS);
    let mut groups = ending::choose(&program, groups, donations, limits);
    let mut commit = commit::choose(&program, &groups, donations);
    commit::guard(&mut program, &mut groups, donations, &mut commit);
    let order = commit.order(&groups);
    let memory = memory::assign(&program, &groups, &order, &commit);
    check_sizes(&program, &memory.homes, limits)?;
    let mut scene = Scene {
        program: &program,
        groups: &groups,
        commit: &commit,
        homes: memory.homes,
        slots: memory.slots,
        taken: Vec::new(),
        idle: BTreeMap::new(),
        limits: *limits,
    };
    let mut kernels = Vec::with_capacity(order.len());
    let mut accounts = Vec::with_capacity(order.len());
    let mut commit_from = None;
    // Which groups look at indices.
    let mut looks = vec![false; groups.groups.len()];
    let mut rest = order.as_slice();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(together::count(&scene, rest));
        rest = later;
        let heeds = scene.heeds(now[0]);
        if heeds && commit_from.is_none() {
            commit_from = Some(kernels.len());
        }
        let before = kernels.len();
        lower(&mut scene, now, &mut kernels)?;
        let has_looked = !heeds && kernels[before..].iter().any(|kernel| kernel.fault);
        now.iter().for_each(|&group| looks[group as usize] = has_looked);
        scene.release();
        accounts.resize_with(kernels.len(), Account::default);
        if kernels.len() > before {
            let in_memory = |value: u32| is_stored(scene.homes[value as usize]);
            let each = now.iter().map(|&group| account::account(&program, &groups, group, in_memory));
            accounts[kernels.len() - 1] = each.reduce(Account::and).unwrap_or_default();
        }
    }
    let outputs = program.outputs.iter().map(|&value| match scene.homes[value as usize] {
        Home::Buffer(buffer) => Ok(OutputHome::Buffer(buffer)),
        Home::Leaf(leaf) => Ok(OutputHome::Donated(leaf)),
        home => Err(Error::internal(format!("an output lies at {home:?}"))),
    });
    Ok(Plan {
        sources: sources(&scene, &looks, memory.buffers.len()),
        outputs: outputs.collect::<Result<_>>()?,
        commit: commit_from.unwrap_or(kernels.len()),
        kernels,
        accounts,
        numbers: program.cells.iter().map(|cell| cell.0 as usize + 1).max().unwrap_or(0),
        leaves: leaf_strides.len(),
        slots: scene.slots,
        buffers: memory.buffers,
        cells: program.cells,
        checks: program.checks,
    })
}

/// What each output buffer depends on.
fn sources(scene: &Scene, looks: &[bool], buffers: usize) -> Vec<Sources> {
    let Scene { program, groups, homes, .. } = scene;
    let mut of_values: Vec<Sources> = vec![Sources::default(); program.values.len()];
    for (value, sources) in program.values.iter().zip(&mut of_values) {
        if let Origin::Leaf(leaf) = value.origin {
            sources.add_leaf(leaf);
        }
    }
    let mut of_buffers: Vec<Sources> = vec![Sources::default(); buffers];
    for (task, &(group, _)) in program.tasks.iter().zip(&groups.places) {
        let mut sources = Sources::of_kernels(looks[group as usize]);
        task.inputs.iter().for_each(|window| sources.add(&of_values[window.value as usize]));
        for output in task.outputs() {
            of_values[output as usize] = sources.clone();
            if let Home::Buffer(buffer) = homes[output as usize] {
                let kept = scene.commit.guarded.get(&output).map(|&leaf| &of_values[leaf as usize]);
                of_buffers[buffer as usize].add(kept.unwrap_or(&sources));
            }
        }
    }
    of_buffers
}

/// What generating a group's shaders needs to know of the rest.
struct Scene<'a> {
    program: &'a Program,
    groups: &'a Groups,
    commit: &'a Commit,
    homes: Vec<Home>,
    /// Bytes of each working buffer.
    slots: Vec<usize>,
    /// Those that the task at hand keeps something in between its kernels, and those of tasks before, by size.
    taken: Vec<u32>,
    idle: BTreeMap<usize, Vec<u32>>,
    limits: Limits,
}

impl Scene<'_> {
    /// Whether the kernel of a group leaves old values as they are once an index was out of range.
    fn heeds(&self, group: u32) -> bool {
        self.commit.last[group as usize] || self.commit.guards[group as usize]
    }

    /// The task of this group that makes what a window sees, if one does.
    fn maker_in(&self, window: &Window, group: u32) -> Option<u32> {
        match self.program.values[window.value as usize].origin {
            Origin::Task(task) if self.groups.places[task as usize].0 == group => Some(task),
            _ => None,
        }
    }

    /// A working buffer for what a task keeps between its kernels.
    fn scratch(&mut self, name: &str, bytes: usize) -> Result<u32> {
        check_bytes(name, bytes, &self.limits)?;
        let slot = memory::take(&mut self.idle, &mut self.slots, bytes);
        self.taken.push(slot);
        Ok(slot)
    }

    /// Lets the next task have what this one kept.
    fn release(&mut self) {
        for slot in self.taken.drain(..) {
            self.idle.entry(self.slots[slot as usize]).or_default().push(slot);
        }
    }
}

/// Whether what lies at this home is in memory that kernels write.
fn is_stored(home: Home) -> bool {
    matches!(home, Home::Slot(_) | Home::Buffer(_) | Home::Leaf(_))
}

/// Generates the shaders of a group, or one of several; none if there is nothing to compute.
fn lower(scene: &mut Scene, together: &[u32], kernels: &mut Vec<Kernel>) -> Result<()> {
    let groups = scene.groups;
    match &groups.groups[together[0] as usize] {
        _ if together.len() > 1 => {
            kernels.push(together::lower(scene, together)?);
            Ok(())
        }
        Group::Rows(rows) if rows.size == 0 => Ok(()),
        Group::Rows(rows @ Rows { product: Some(task), .. }) => {
            let ending = Some(Ending { group: together[0], rows, product: *task });
            alone(scene, &scene.program.tasks[*task as usize], ending, kernels)
        }
        Group::Rows(rows) => {
            kernels.push(match rows.row {
                None => together::lower(scene, together)?,
                Some(len) => rows::lower(scene, together[0], rows, len)?,
            });
            Ok(())
        }
        Group::Alone(task) => alone(scene, &scene.program.tasks[*task as usize], None, kernels),
    }
}

/// Generates the shaders of a task with a kernel of its own; a product may have an ending.
fn alone(scene: &mut Scene, task: &Task, ending: Option<Ending>, kernels: &mut Vec<Kernel>) -> Result<()> {
    if task.shape.size() == 0 {
        return Ok(());
    }
    match &task.kind {
        TaskKind::RowReduce { def, len, .. } => reduce::lower(scene, task, def, *len, 1, kernels),
        TaskKind::OuterReduce { def, len, inner, .. } => reduce::lower(scene, task, def, *len, *inner, kernels),
        TaskKind::Contract => contract::lower(scene, task, ending, kernels),
        TaskKind::Gather(mode, axis) => moves::gather(scene, task, *mode, *axis as usize, kernels),
        TaskKind::Embed(dims) => moves::embed(scene, task, dims, kernels),
        TaskKind::Concat(axis) => moves::concat(scene, task, *axis as usize, kernels),
        TaskKind::Random(def) => moves::random(scene, task, def, kernels),
        TaskKind::Conv(spec, role) => conv::lower(scene, task, (spec, *role), ending, kernels),
        TaskKind::Pool(sweeps, role) => pool::lower(scene, task, sweeps, *role, kernels),
        TaskKind::Scatter(mode, axis) => scatter::lower(scene, task, *mode, *axis as usize, kernels),
        TaskKind::Hand { device: Some(DeviceKernel::Attention(masking)), .. } => {
            attention::value(scene, task, *masking, kernels)
        }
        TaskKind::Hand { device: Some(DeviceKernel::AttentionGradient(masking)), .. } => {
            attention::gradient(scene, task, *masking, kernels)
        }
        TaskKind::Map { .. } | TaskKind::Hand { .. } => {
            Err(Error::internal(format!("{} has no kernel of its own on the GPU", task.name)))
        }
    }
}

/// A value in memory must fit one binding, and its elements a 32-bit index.
fn check_sizes(program: &Program, homes: &[Home], limits: &Limits) -> Result<()> {
    let made = program.tasks.iter().flat_map(|task| task.outputs().map(move |output| (task, output as usize)));
    for (task, output) in made.filter(|&(_, output)| is_stored(homes[output])) {
        check_bytes(task.name, memory::bytes(&program.values[output]), limits)?;
    }
    Ok(())
}

fn check_bytes(name: &str, bytes: usize, limits: &Limits) -> Result<()> {
    // Elements have four bytes at least.
    let most = limits.binding_bytes.min(u32::MAX as usize * 4);
    if bytes <= most {
        return Ok(());
    }
    let text =
        format!("{name}: {bytes} bytes in one piece are more than the {most} that a kernel of this device can bind");
    Err(Error::new(ErrorKind::Memory, text))
}
