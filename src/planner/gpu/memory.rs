//! Where each value lives on a GPU: in a register of its kernel, in a leaf or an output buffer, or in a working buffer
//! that it shares with values which are gone before or made later. Working buffers are whole, so that a driver sees each
//! conflict.

use super::plan::Home;
use crate::planner::commit::Commit;
use crate::planner::fuse::{Group, Groups};
use crate::planner::memory::Lives;
use crate::planner::tasks::{Origin, Program, Value};
use std::collections::BTreeMap;

pub struct Memory {
    pub homes: Vec<Home>,
    /// Bytes of each working buffer.
    pub slots: Vec<usize>,
    /// Bytes of each output buffer.
    pub buffers: Vec<usize>,
}

pub fn bytes(value: &Value) -> usize {
    value.size * value.dtype.device_size()
}

pub fn assign(program: &Program, groups: &Groups, order: &[u32], commit: &Commit) -> Memory {
    let home = |(index, value): (usize, &Value)| match value.origin {
        Origin::Leaf(slot) => Home::Leaf(slot),
        Origin::Number(cell) => Home::Number(cell),
        Origin::Constant(at) => Home::Constant(at),
        Origin::Task(_) => commit.donated.get(&(index as u32)).map_or(Home::Register, |&leaf| Home::Leaf(leaf)),
    };
    let homes = program.values.iter().enumerate().map(home).collect();
    let mut memory = Memory { homes, slots: Vec::new(), buffers: Vec::new() };
    for &value in &program.outputs {
        let home = &mut memory.homes[value as usize];
        if *home == Home::Register {
            *home = Home::Buffer(memory.buffers.len() as u32);
            memory.buffers.push(bytes(&program.values[value as usize]));
        }
    }
    let lives = Lives::of(program, groups, order);
    // Working buffers that nothing uses, by size.
    let mut free: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    for (at, &group) in order.iter().enumerate() {
        let tasks = groups.tasks(group);
        let alone = matches!(groups.groups[group as usize], Group::Alone(_));
        for value in tasks.iter().flat_map(|&task| program.tasks[task as usize].outputs()) {
            if memory.homes[value as usize] == Home::Register && lives.is_stored(value, alone) {
                let bytes = bytes(&program.values[value as usize]);
                memory.homes[value as usize] = Home::Slot(take(&mut free, &mut memory.slots, bytes));
            }
        }
        for &old in lives.dying(at as u32) {
            if let Home::Slot(slot) = memory.homes[old as usize] {
                free.entry(memory.slots[slot as usize]).or_default().push(slot);
            }
        }
    }
    memory
}

/// The smallest free buffer that is not more than twice too large, or a new one.
pub fn take(free: &mut BTreeMap<usize, Vec<u32>>, slots: &mut Vec<usize>, bytes: usize) -> u32 {
    let found = free.range_mut(bytes..=bytes * 2).find_map(|(_, slots)| slots.pop());
    found.unwrap_or_else(|| {
        slots.push(bytes);
        slots.len() as u32 - 1
    })
}
