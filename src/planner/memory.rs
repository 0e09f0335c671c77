//! Where each value lives. Values that only their own group reads stay in its registers; the rest get a place in one
//! arena, best fit, from the group that makes them to the last that reads them, or to the end of its stage. A result takes
//! the place of an operand that dies with the kernel and is read only at the same index. Outputs get buffers of their own.

use super::commit::Commit;
use super::fuse::{Class, Group, Groups, LONGEST_ROW};
use super::stages::Schedule;
use super::tasks::{Origin, Program, TaskKind, Value};
use crate::machine::cpu::buffer::ALIGN;
use crate::machine::cpu::reduce::{BLOCK, CHUNK_ROWS};
use crate::ops::conv::Convolution;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// In a register of the kernel that makes and reads it.
    Register,
    /// At this byte of the arena.
    Arena(usize),
    /// The output buffer of this number.
    Buffer(u32),
    Leaf(u32),
    Number(u32),
    Constant(u32),
}

pub struct Memory {
    pub homes: Vec<Home>,
    /// Bytes of each output buffer.
    pub buffers: Vec<usize>,
    /// The arena place of the partial results of reductions and of the working memory of convolutions, by task.
    pub partials: Vec<(u32, usize)>,
    /// Bytes of the arena.
    pub arena: usize,
}

pub fn assign(program: &Program, groups: &Groups, schedule: &Schedule, commit: &Commit) -> Memory {
    let order = &schedule.order;
    let mut memory =
        Memory { homes: fixed_homes(program, commit), buffers: Vec::new(), partials: Vec::new(), arena: 0 };
    for &value in &program.outputs {
        let home = &mut memory.homes[value as usize];
        if *home == Home::Register {
            *home = Home::Buffer(memory.buffers.len() as u32);
            memory.buffers.push(program.values[value as usize].bytes());
        }
    }
    let lives = Lives::of(program, groups, order);
    let mut free = Free::default();
    let mut stages = schedule.stages.iter().map(|stage| &stage.kernels).peekable();
    // What dies in a stage, where another thread may still read it.
    let mut kept: Vec<(usize, usize)> = Vec::new();
    for (at, &group) in order.iter().enumerate() {
        let stage = stages.peek().filter(|stage| stage.contains(&at)).map(|stage| (*stage).clone());
        let at = at as u32;
        let mut dying = lives.dying(at).to_vec();
        let tasks = groups.tasks(group);
        let alone = matches!(groups.groups[group as usize], Group::Alone(_));
        let mut working = Vec::new();
        let made = tasks.iter().enumerate();
        let made =
            made.flat_map(|(at, &task)| program.tasks[task as usize].outputs().map(move |value| (at, task, value)));
        for (position, task, value) in made {
            if let Some(bytes) = working_bytes(program, task) {
                let place = free.take(bytes);
                memory.partials.push((task, place));
                working.push((place, bytes));
            }
            if memory.homes[value as usize] != Home::Register || !lives.is_stored(value, alone) {
                continue;
            }
            let bytes = program.values[value as usize].bytes();
            let in_place = !alone && groups.places[task as usize].1 == Class::Tile;
            let found = dying.iter().position(|&old| {
                // Within a stage, who makes a value is who reads it.
                let is_mine = stage.as_ref().is_none_or(|stage| lives.born[old as usize] as usize >= stage.start);
                in_place
                    && is_mine
                    && program.values[old as usize].bytes() == bytes
                    && program.values[old as usize].size == program.values[value as usize].size
                    && matches!(memory.homes[old as usize], Home::Arena(_))
                    && is_read_before(program, groups, tasks, position, old)
            });
            let place = match found.map(|found| memory.homes[dying.swap_remove(found) as usize]) {
                Some(Home::Arena(place)) => place,
                _ => free.take(bytes),
            };
            memory.homes[value as usize] = Home::Arena(place);
        }
        let arena = |value: u32| match memory.homes[value as usize] {
            Home::Arena(place) => Some((place, program.values[value as usize].bytes())),
            _ => None,
        };
        kept.extend(dying.into_iter().filter_map(arena).chain(working));
        if stage.is_none_or(|stage| stage.end == at as usize + 1) {
            kept.drain(..).for_each(|(place, bytes)| free.give(place, bytes));
            stages.next_if(|stage| stage.end == at as usize + 1);
        }
    }
    memory.arena = free.end;
    memory
}

fn fixed_homes(program: &Program, commit: &Commit) -> Vec<Home> {
    let home = |(index, value): (usize, &Value)| match value.origin {
        Origin::Leaf(slot) => Home::Leaf(slot),
        Origin::Number(cell) => Home::Number(cell),
        Origin::Constant(at) => Home::Constant(at),
        Origin::Task(_) => commit.donated.get(&(index as u32)).map_or(Home::Register, |&leaf| Home::Leaf(leaf)),
    };
    program.values.iter().enumerate().map(home).collect()
}

/// Bytes for the partial results of a reduction of more than one chunk or block, or for what a convolution asks.
fn working_bytes(program: &Program, task: u32) -> Option<usize> {
    let task = &program.tasks[task as usize];
    let parts = match &task.kind {
        TaskKind::OuterReduce { len, .. } => len.div_ceil(CHUNK_ROWS),
        TaskKind::RowReduce { len, .. } if *len > LONGEST_ROW => len.div_ceil(BLOCK),
        TaskKind::Conv(spec, role) => {
            let shapes = [&task.inputs[0].shape, &task.inputs[1].shape];
            let dtype = program.values[task.output as usize].dtype;
            return Convolution::new(spec, *role, dtype, shapes, &task.shape).ok().map(|conv| conv.workspace());
        }
        _ => return None,
    };
    (parts > 1).then(|| program.values[task.output as usize].bytes() * parts)
}

/// Whether the group reads `old` at the same index only, and nowhere after the task at `position`.
fn is_read_before(program: &Program, groups: &Groups, tasks: &[u32], position: usize, old: u32) -> bool {
    let size = program.values[old as usize].size;
    tasks.iter().enumerate().all(|(at, &task)| {
        let column = groups.places[task as usize].1 == Class::Column
            && matches!(program.tasks[task as usize].kind, TaskKind::Map { .. });
        program.tasks[task as usize]
            .inputs
            .iter()
            .filter(|window| window.value == old)
            .all(|window| at <= position && !column && window.is_whole(size))
    })
}

/// When values are needed, in positions of the execution order.
pub struct Lives {
    /// Whether another group than its maker's reads the value.
    escapes: Vec<bool>,
    /// Values sorted by the position of their last reader.
    by_end: Vec<u32>,
    /// The first index in `by_end` for each position.
    starts: Vec<u32>,
    /// The position of each value's maker.
    born: Vec<u32>,
    late: Vec<bool>,
}

impl Lives {
    pub fn of(program: &Program, groups: &Groups, order: &[u32]) -> Lives {
        let mut position = vec![0u32; groups.groups.len()];
        order.iter().enumerate().for_each(|(at, &group)| position[group as usize] = at as u32);
        let mut escapes = vec![false; program.values.len()];
        let mut late = vec![false; program.values.len()];
        let mut end = vec![0u32; program.values.len()];
        let mut born = vec![0u32; program.values.len()];
        for (task, &(group, class)) in program.tasks.iter().zip(&groups.places) {
            let at = position[group as usize];
            for output in task.outputs() {
                late[output as usize] = class == Class::Late;
                born[output as usize] = at;
                end[output as usize] = end[output as usize].max(at);
            }
            for window in &task.inputs {
                let value = window.value as usize;
                end[value] = end[value].max(at);
                if let Origin::Task(maker) = program.values[value].origin {
                    escapes[value] |= groups.places[maker as usize].0 != group;
                }
            }
        }
        let mut by_end: Vec<u32> = (0..program.values.len() as u32)
            .filter(|&v| matches!(program.values[v as usize].origin, Origin::Task(_)))
            .collect();
        by_end.sort_unstable_by_key(|&value| end[value as usize]);
        let mut starts = vec![0u32; order.len() + 1];
        by_end.iter().for_each(|&value| starts[end[value as usize] as usize + 1] += 1);
        (0..order.len()).for_each(|at| starts[at + 1] += starts[at]);
        Lives { escapes, by_end, starts, born, late }
    }

    pub fn dying(&self, at: u32) -> &[u32] {
        &self.by_end[self.starts[at as usize] as usize..self.starts[at as usize + 1] as usize]
    }

    pub fn is_stored(&self, value: u32, alone: bool) -> bool {
        alone || self.escapes[value as usize] || self.late[value as usize]
    }
}

/// Free places of the arena, by size and by address.
#[derive(Default)]
struct Free {
    by_size: BTreeSet<(usize, usize)>,
    by_place: BTreeMap<usize, usize>,
    end: usize,
}

impl Free {
    fn take(&mut self, bytes: usize) -> usize {
        let bytes = bytes.max(1).next_multiple_of(ALIGN);
        if let Some(&(size, place)) = self.by_size.range((bytes, 0)..).next() {
            self.remove(place, size);
            if size > bytes {
                self.insert(place + bytes, size - bytes);
            }
            return place;
        }
        // The last free place grows if it touches the end.
        if let Some((&place, &size)) =
            self.by_place.last_key_value().filter(|(place, size)| **place + **size == self.end)
        {
            self.remove(place, size);
            self.end = place + bytes;
            return place;
        }
        self.end += bytes;
        self.end - bytes
    }

    fn give(&mut self, mut place: usize, bytes: usize) {
        let mut size = bytes.max(1).next_multiple_of(ALIGN);
        if let Some((&before, &length)) = self.by_place.range(..place).next_back().filter(|(p, s)| **p + **s == place) {
            self.remove(before, length);
            (place, size) = (before, size + length);
        }
        if let Some(&length) = self.by_place.get(&(place + size)) {
            self.remove(place + size, length);
            size += length;
        }
        self.insert(place, size);
    }

    fn insert(&mut self, place: usize, size: usize) {
        self.by_place.insert(place, size);
        self.by_size.insert((size, place));
    }

    fn remove(&mut self, place: usize, size: usize) {
        self.by_place.remove(&place);
        self.by_size.remove(&(size, place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_places_merge_and_serve_again() {
        let mut free = Free::default();
        let (a, b, c) = (free.take(100), free.take(64), free.take(64));
        assert_eq!((a, b, c, free.end), (0, 128, 192, 256));
        free.give(a, 100);
        free.give(b, 64);
        assert_eq!(free.take(192), 0);
        free.give(c, 64);
        assert_eq!((free.take(128), free.end), (192, 320));
    }
}
