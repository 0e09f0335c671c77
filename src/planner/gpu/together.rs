//! Which neighbouring groups one kernel computes: elementwise work, and reductions in one pass, of which no part reads or
//! writes what another one writes. The updates of all parameters are such a run. Each part has workgroups of its own.

use super::plan::{Home, Kernel};
use super::shader::{Shader, THREADS};
use super::{Scene, is_stored, reduce, rows};
use crate::error::Result;
use crate::planner::fuse::Group;
use hashbrown::HashSet;

/// A generated function should stay short: drivers compile it.
const MOST_TASKS: usize = 128;

/// How many groups, from the first of these on, one kernel computes.
pub fn count(scene: &Scene, order: &[u32]) -> usize {
    let mut kernel = Together::default();
    order.iter().take_while(|&&group| kernel.takes(scene, order[0], group)).count().max(1)
}

/// The kernel of so many groups.
pub fn lower(scene: &Scene, groups: &[u32]) -> Result<Kernel> {
    let program = scene.program;
    let name = program.tasks[scene.groups.tasks(groups[0])[0] as usize].name;
    let mut shader = Shader::new(program, &scene.homes, name);
    if scene.heeds(groups[0]) {
        rows::open_heeding(&mut shader);
    }
    for &group in groups {
        shader = match &scene.groups.groups[group as usize] {
            Group::Rows(rows) => rows::elements(scene, group, rows, shader)?,
            Group::Alone(task) => reduce::whole(scene, &program.tasks[*task as usize], shader)?,
        };
    }
    shader.finish_parts(&scene.limits)
}

/// What the groups of a kernel so far need together.
#[derive(Default)]
struct Together {
    reads: HashSet<Home>,
    writes: HashSet<Home>,
    tasks: usize,
    workgroups: usize,
}

impl Together {
    /// Adds a group if it fits beside the first one and the others.
    fn takes(&mut self, scene: &Scene, first: u32, group: u32) -> bool {
        let workgroups = match &scene.groups.groups[group as usize] {
            Group::Rows(rows) if rows.row.is_none() && rows.product.is_none() => rows.size.div_ceil(THREADS),
            Group::Alone(task) if reduce::is_one_pass(&scene.program.tasks[*task as usize]) => {
                scene.program.tasks[*task as usize].shape.size()
            }
            _ => return false,
        };
        let [reads, writes] = memory(scene, scene.groups.tasks(group));
        let is_apart =
            writes.is_disjoint(&self.writes) && writes.is_disjoint(&self.reads) && reads.is_disjoint(&self.writes);
        self.reads.extend(reads);
        self.writes.extend(writes);
        self.tasks += scene.groups.tasks(group).len();
        self.workgroups += workgroups;
        workgroups > 0
            && is_apart
            && scene.heeds(first) == scene.heeds(group)
            && self.tasks <= MOST_TASKS
            && self.workgroups <= scene.limits.groups
            // The words for bad indices are one more.
            && self.reads.union(&self.writes).count() < scene.limits.buffers
    }
}

/// The buffers that tasks read, and those that they write.
fn memory(scene: &Scene, tasks: &[u32]) -> [HashSet<Home>; 2] {
    let tasks = tasks.iter().map(|&task| &scene.program.tasks[task as usize]);
    let home = |value: u32| Some(scene.homes[value as usize]).filter(|&home| is_stored(home));
    let inputs = tasks.clone().flat_map(|task| &task.inputs).map(|window| window.value);
    let kept = tasks.clone().filter_map(|task| scene.commit.guarded.get(&task.output).copied());
    [inputs.chain(kept).filter_map(home).collect(), tasks.filter_map(|task| home(task.output)).collect()]
}
