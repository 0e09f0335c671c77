//! Which kernels may write into buffers that the caller gives up. A donated buffer is written only in the commit block,
//! the kernels that run last, so that any failure before it leaves every old value whole. A donation that would let a
//! kernel read a new value for an old one is refused here and gets a fresh buffer instead. On a device, where an index out
//! of range is found too late for a failure, that buffer then takes the old value.

use super::fuse::{Class, Group, Groups};
use super::tasks::{Origin, Program, Value};
use hashbrown::HashMap;

/// The output at this position may take the buffer of this leaf. The caller promises that no other leaf of the run
/// shares the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Donation {
    pub output: u32,
    pub leaf: u32,
}

pub struct Commit {
    /// The leaf that each donated value is written to.
    pub donated: HashMap<u32, u32>,
    /// Which groups belong to the commit block.
    pub last: Vec<bool>,
    /// Values with memory of their own that take this leaf value, the old one, if an index was out of range.
    pub guarded: HashMap<u32, u32>,
    /// Which groups make those: they come just before the commit block.
    pub guards: Vec<bool>,
}

impl Commit {
    /// Groups in the order of execution: as numbered, the commit block last.
    pub fn order(&self, groups: &Groups) -> Vec<u32> {
        let mut order: Vec<u32> = (0..groups.groups.len() as u32).collect();
        order.sort_by_key(|&group| (self.last[group as usize], self.guards[group as usize]));
        order
    }
}

pub fn choose(program: &Program, groups: &Groups, donations: &[Donation]) -> Commit {
    let no_group = vec![false; groups.groups.len()];
    let mut commit =
        Commit { donated: HashMap::new(), last: no_group.clone(), guarded: HashMap::new(), guards: no_group };
    if donations.is_empty() {
        return commit;
    }
    let facts = Facts::gather(program, groups);
    // Which group rewrites each leaf so far.
    let mut writers: HashMap<u32, u32> = HashMap::new();
    for &Donation { output, leaf: slot } in donations {
        let Some((value, leaf, group)) = facts.candidate(program, groups, output, slot) else { continue };
        let free = !writers.contains_key(&leaf) && !commit.donated.contains_key(&value);
        // No other kernel of the commit block reads what this one overwrites, and this one reads nothing overwritten.
        let unread = facts.readers[&leaf].iter().all(|&reader| reader == group || !commit.last[reader as usize]);
        let reads_old = facts.leaves[group as usize].iter().all(|read| writers.get(read).is_none_or(|&w| w == group));
        if free && unread && reads_old {
            writers.insert(leaf, group);
            commit.donated.insert(value, slot);
            commit.last[group as usize] = true;
        }
    }
    commit
}

/// For a device, which learns of an index out of range too late to fail: what was not donated takes the old value then. Its
/// kernel sees to that if it can run just before the commit block, else a kernel that copies it.
pub fn guard(program: &mut Program, groups: &mut Groups, donations: &[Donation], commit: &mut Commit) {
    let is_refused = |donation: &&Donation| {
        program.outputs.get(donation.output as usize).is_some_and(|value| !commit.donated.contains_key(value))
    };
    let refused: Vec<Donation> = donations.iter().filter(is_refused).copied().collect();
    if refused.is_empty() {
        return;
    }
    let facts = Facts::gather(program, groups);
    for Donation { output, leaf: slot } in refused {
        let new = program.outputs[output as usize];
        let Some(&old) = facts.by_slot.get(&slot).filter(|_| program.flat_leaves.contains(&slot)) else { continue };
        let (Value { dtype, size, origin }, leaf) = (program.values[new as usize], program.values[old as usize]);
        let Origin::Task(task) = origin else { continue };
        if (dtype, size) != (leaf.dtype, leaf.size) || size == 0 {
            continue;
        }
        let group = groups.places[task as usize].0 as usize;
        let can_wait =
            matches!(&groups.groups[group], Group::Rows(rows) if rows.product.is_none()) && facts.sink[group];
        if can_wait && facts.leaves[group].contains(&old) && !commit.guarded.contains_key(&new) {
            commit.guards[group] = !commit.last[group];
            commit.guarded.insert(new, old);
            continue;
        }
        let copy = program.copy_value(new);
        program.outputs[output as usize] = copy;
        groups.add_map(program.tasks.len() as u32 - 1, size);
        commit.last.push(false);
        commit.guards.push(true);
        commit.guarded.insert(copy, old);
    }
}

/// What the rules ask of a program, gathered in one walk.
struct Facts {
    /// Groups none of whose values another group reads.
    sink: Vec<bool>,
    /// The leaf values that each group reads.
    leaves: Vec<Vec<u32>>,
    /// The groups that read each leaf value.
    readers: HashMap<u32, Vec<u32>>,
    /// Leaf values that some group reads in another order than its own.
    scattered: HashMap<(u32, u32), ()>,
    by_slot: HashMap<u32, u32>,
    times_output: HashMap<u32, u32>,
}

impl Facts {
    fn gather(program: &Program, groups: &Groups) -> Facts {
        let mut facts = Facts {
            sink: vec![true; groups.groups.len()],
            leaves: vec![Vec::new(); groups.groups.len()],
            readers: HashMap::new(),
            scattered: HashMap::new(),
            by_slot: HashMap::new(),
            times_output: HashMap::new(),
        };
        for (index, value) in program.values.iter().enumerate() {
            if let Origin::Leaf(slot) = value.origin {
                facts.by_slot.insert(slot, index as u32);
                facts.readers.insert(index as u32, Vec::new());
            }
        }
        program.outputs.iter().for_each(|&value| *facts.times_output.entry(value).or_default() += 1);
        for (task, &(group, class)) in program.tasks.iter().zip(&groups.places) {
            for window in &task.inputs {
                let value = &program.values[window.value as usize];
                match value.origin {
                    Origin::Task(maker) => {
                        let maker = groups.places[maker as usize].0;
                        facts.sink[maker as usize] &= maker == group;
                    }
                    Origin::Leaf(_) => {
                        facts.leaves[group as usize].push(window.value);
                        facts.readers.entry(window.value).or_default().push(group);
                        if class == Class::Column || !window.is_whole(value.size) {
                            facts.scattered.insert((group, window.value), ());
                        }
                    }
                    Origin::Number(_) | Origin::Constant(_) => {}
                }
            }
        }
        facts
    }

    /// The value, the leaf's value and the group of a donation that could be honoured.
    fn candidate(&self, program: &Program, groups: &Groups, output: u32, slot: u32) -> Option<(u32, u32, u32)> {
        let &value = program.outputs.get(output as usize)?;
        let &leaf = self.by_slot.get(&slot)?;
        let (new, old) = (&program.values[value as usize], &program.values[leaf as usize]);
        let Origin::Task(task) = new.origin else { return None };
        let (group, class) = groups.places[task as usize];
        let Group::Rows(rows) = &groups.groups[group as usize] else { return None };
        let fits = class == Class::Tile
            && (new.dtype, new.size) == (old.dtype, old.size)
            && rows.size == new.size
            && new.size > 0
            && self.times_output[&value] == 1
            && self.sink[group as usize]
            && !self.scattered.contains_key(&(group, leaf))
            && program.flat_leaves.contains(&slot);
        fits.then_some((value, leaf, group))
    }
}
