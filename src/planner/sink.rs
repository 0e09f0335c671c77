//! Moves work to the kernel that reads it. The fuser puts a task beside what makes its operands; where those stay in
//! memory anyway and one later kernel alone reads the result, that kernel computes it, and the result needs no memory:
//! 1 - y² for a tanh could be made forward, but is read backward, where y still is. Changes no bit.

use super::fuse::{Class, Group, Groups, Readers, Rows, Rules, space};
use super::tasks::{Origin, Program, TaskKind};
use super::window::Window;
use smallvec::{SmallVec, smallvec};

pub fn sink(program: &Program, groups: &mut Groups, rules: &Rules) {
    let readers = Readers::of(program);
    // Readers stand behind what they read, so they have moved before.
    for task in (0..program.tasks.len() as u32).rev() {
        let sinker = Sinker { program, groups, readers: &readers };
        let Some((set, into)) = sinker.reader(task).and_then(|into| Some((sinker.set(task, into, rules)?, into)))
        else {
            continue;
        };
        let from = groups.places[task as usize].0;
        if let Group::Rows(rows) = &mut groups.groups[from as usize] {
            rows.tasks.retain(|task| !set.contains(task));
        }
        if let Group::Rows(rows) = &mut groups.groups[into as usize] {
            rows.tasks.extend(&set);
            rows.tasks.sort_unstable();
        }
        set.iter().for_each(|&task| groups.places[task as usize].0 = into);
    }
}

struct Sinker<'a> {
    program: &'a Program,
    groups: &'a Groups,
    readers: &'a Readers,
}

impl Sinker<'_> {
    fn rows(&self, group: u32) -> Option<&Rows> {
        match &self.groups.groups[group as usize] {
            Group::Rows(rows) => Some(rows),
            Group::Alone(_) => None,
        }
    }

    /// Whether the task makes one element of the group's space from others, and nobody minds when.
    fn is_free(&self, task: u32) -> bool {
        let (_, class) = self.groups.places[task as usize];
        let task = &self.program.tasks[task as usize];
        matches!(task.kind, TaskKind::Map { .. })
            && class == Class::Tile
            && !self.readers.is_awaited[task.output as usize]
    }

    /// The one later row group that reads the result, element by element.
    fn reader(&self, task: u32) -> Option<u32> {
        let value = self.program.tasks[task as usize].output;
        let size = self.program.values[value as usize].size;
        let into = self.readers.only(value, |reader| self.groups.places[reader as usize].0)?;
        let fits = self.is_free(task)
            && into != self.groups.places[task as usize].0
            && self.rows(into).is_some_and(|rows| rows.size == size)
            && self.readers.tasks[value as usize].iter().all(|&reader| {
                let (_, class) = self.groups.places[reader as usize];
                let task = &self.program.tasks[reader as usize];
                let whole = |window: &Window| window.value != value || window.is_whole(size);
                space(task, class) == Class::Tile && task.inputs.iter().all(whole)
            });
        fits.then_some(into)
    }

    /// The task and those that serve it alone, if moving them into the group saves memory and reads no more of it.
    fn set(&self, task: u32, into: u32, rules: &Rules) -> Option<SmallVec<[u32; 4]>> {
        let from = self.groups.places[task as usize].0;
        let mut set: SmallVec<[u32; 4]> = smallvec![task];
        let mut stored: SmallVec<[u32; 4]> = SmallVec::new();
        let mut at = 0;
        while at < set.len() {
            for window in &self.program.tasks[set[at] as usize].inputs {
                match self.program.values[window.value as usize].origin {
                    Origin::Number(_) | Origin::Constant(_) => {}
                    // The commit block may write it.
                    Origin::Leaf(_) => return None,
                    Origin::Task(_) if window.after.is_some() => return None,
                    Origin::Task(maker) if set.contains(&maker) => {}
                    Origin::Task(maker)
                        if self.readers.is_stored(self.groups, window.value, self.groups.places[maker as usize].0) =>
                    {
                        if !stored.contains(&window.value) {
                            stored.push(window.value);
                        }
                    }
                    Origin::Task(maker) => {
                        let serves =
                            self.readers.tasks[window.value as usize].iter().all(|reader| set.contains(reader));
                        let joins = serves && self.is_free(maker) && self.groups.places[maker as usize].0 == from;
                        joins.then(|| set.push(maker))?;
                    }
                }
            }
            at += 1;
        }
        let is_read = |value: u32| {
            self.readers.tasks[value as usize].iter().any(|&reader| self.groups.places[reader as usize].0 == into)
        };
        let bytes = |value: u32| self.program.values[value as usize].bytes();
        let more: usize = stored.iter().filter(|&&value| !is_read(value)).map(|&value| bytes(value)).sum();
        let fits = more <= bytes(self.program.tasks[task as usize].output)
            && self.rows(from)?.tasks.len() > set.len()
            && self.rows(into)?.tasks.len() + set.len() <= rules.most_tasks;
        fits.then_some(set)
    }
}
