//! Which neighbouring row groups one kernel computes: elementwise work of which no part reads or writes what another one
//! writes. The updates of all parameters are such a run. Each workgroup finds its part by its number.

use super::plan::Home;
use super::shader::THREADS;
use super::{Scene, is_stored};
use crate::planner::fuse::{Group, Rows};
use hashbrown::HashSet;

/// A generated function should stay short: drivers compile it.
const MOST_TASKS: usize = 256;

/// How many groups, from the first of these on, one kernel computes.
pub fn count(scene: &Scene, order: &[u32]) -> usize {
    let mut kernel = Together::default();
    order.iter().take_while(|&&group| kernel.takes(scene, order[0], group)).count().max(1)
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
        let Group::Rows(rows) = &scene.groups.groups[group as usize] else { return false };
        let [reads, writes] = memory(scene, rows);
        let is_apart =
            writes.is_disjoint(&self.writes) && writes.is_disjoint(&self.reads) && reads.is_disjoint(&self.writes);
        self.reads.extend(reads);
        self.writes.extend(writes);
        self.tasks += rows.tasks.len();
        self.workgroups += rows.size.div_ceil(THREADS);
        rows.row.is_none()
            && rows.product.is_none()
            && rows.size > 0
            && is_apart
            && scene.heeds(first) == scene.heeds(group)
            && self.tasks <= MOST_TASKS
            && self.workgroups <= scene.limits.groups
            // The words for bad indices are one more.
            && self.reads.union(&self.writes).count() < scene.limits.buffers
    }
}

/// The buffers that a group reads, and those that it writes.
fn memory(scene: &Scene, rows: &Rows) -> [HashSet<Home>; 2] {
    let tasks = rows.tasks.iter().map(|&task| &scene.program.tasks[task as usize]);
    let home = |value: u32| Some(scene.homes[value as usize]).filter(|&home| is_stored(home));
    let inputs = tasks.clone().flat_map(|task| &task.inputs).map(|window| window.value);
    let kept = tasks.clone().filter_map(|task| scene.commit.guarded.get(&task.output).copied());
    [inputs.chain(kept).filter_map(home).collect(), tasks.filter_map(|task| home(task.output)).collect()]
}
