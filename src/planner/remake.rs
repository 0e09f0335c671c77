//! Makes a cheap value again in the later kernels that read it, where those read its operands anyway: then it needs no
//! memory until they run. The backward pass of a layer norm reads what is centred and its scale, so it multiplies the
//! two once more. Changes no bit; moves nothing and joins no groups.

use super::fuse::{Class, Group, Groups, Readers, Rules, space};
use super::tasks::{Origin, Program, TaskKind, Value};
use super::window::Window;
use smallvec::SmallVec;

pub fn remake(program: &mut Program, groups: &mut Groups, rules: &Rules) {
    let readers = Readers::of(program);
    // What is made from another value first: its copies still read that.
    for task in (0..program.tasks.len() as u32).rev() {
        let remaker = Remaker { program, groups, readers: &readers };
        for group in remaker.kernels(task, rules).unwrap_or_default() {
            copy(program, groups, task, group);
        }
    }
}

struct Remaker<'a> {
    program: &'a Program,
    groups: &'a Groups,
    readers: &'a Readers,
}

impl Remaker<'_> {
    /// The kernels that read the result of a task later, if each can make it from what it reads anyway.
    fn kernels(&self, task: u32, rules: &Rules) -> Option<SmallVec<[u32; 2]>> {
        let (home, class) = self.groups.places[task as usize];
        let made = &self.program.tasks[task as usize];
        let TaskKind::Map { function, .. } = made.kind else { return None };
        let value = made.output as usize;
        if class != Class::Tile
            || function.is_heavy()
            || self.readers.is_output[value]
            || self.readers.is_awaited[value]
            || made.inputs.iter().any(|window| window.after.is_some())
        {
            return None;
        }
        let readers = self.readers.tasks[value].iter().map(|&reader| self.groups.places[reader as usize].0);
        let mut into: SmallVec<[u32; 2]> = readers.collect();
        into.sort_unstable();
        into.dedup();
        // What nobody reads at home is for `sink`.
        into.remove(into.iter().position(|&reader| reader == home)?);
        into.iter().all(|&group| self.can_make(task, group, rules)).then_some(into)
    }

    fn can_make(&self, task: u32, group: u32, rules: &Rules) -> bool {
        let Group::Rows(rows) = &self.groups.groups[group as usize] else { return false };
        let made = &self.program.tasks[task as usize];
        let size = self.program.values[made.output as usize].size;
        let reads_whole = |&reader: &u32| {
            let (_, class) = self.groups.places[reader as usize];
            let task = &self.program.tasks[reader as usize];
            let mut windows = task.inputs.iter().filter(|window| window.value == made.output);
            windows.all(|window| space(task, class) == Class::Tile && window.is_whole(size))
        };
        rows.size == size
            && rows.tasks.len() < rules.most_tasks
            && rows.tasks.iter().all(reads_whole)
            && made.inputs.iter().all(|window| self.is_read(window, group))
    }

    /// Whether the kernel has the operand at hand: a number, or what one of its tasks reads from memory in the same way.
    fn is_read(&self, window: &Window, group: u32) -> bool {
        match self.program.values[window.value as usize].origin {
            Origin::Number(_) | Origin::Constant(_) => window.is_scalar(),
            // The commit block may write it.
            Origin::Leaf(_) => false,
            Origin::Task(_) => self.groups.tasks(group).iter().any(|&task| {
                let (_, class) = self.groups.places[task as usize];
                let task = &self.program.tasks[task as usize];
                space(task, class) == Class::Tile && task.inputs.iter().any(|other| other.sees_as(window))
            }),
        }
    }
}

/// Puts a copy of a task into a row group, before the first task there that reads its result; all there read the copy's.
fn copy(program: &mut Program, groups: &mut Groups, task: u32, group: u32) {
    let Group::Rows(rows) = &mut groups.groups[group as usize] else { return };
    let (made, value) = (program.tasks.len() as u32, program.values.len() as u32);
    let mut again = program.tasks[task as usize].clone();
    let before = std::mem::replace(&mut again.output, value);
    let mut first = None;
    for (at, &reader) in rows.tasks.iter().enumerate() {
        for window in program.tasks[reader as usize].inputs.iter_mut().filter(|window| window.value == before) {
            window.value = value;
            first.get_or_insert(at);
        }
    }
    let Some(first) = first else { return };
    rows.tasks.insert(first, made);
    program.values.push(Value { origin: Origin::Task(made), ..program.values[before as usize] });
    program.tasks.push(again);
    groups.places.push((group, Class::Tile));
}
