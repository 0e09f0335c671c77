//! Finds the chains of maps in row groups for which `ops` has one kernel, and brings the tasks of each together. A chain
//! changes no bit, so this pass may take or leave any of them; it looks for each pattern from the last step upwards.

use super::fuse::{Class, Group, Groups, Rows, is_column};
use super::tasks::{Origin, Program, TaskKind};
use super::window::Window;
use crate::dtype::DType;
use crate::graph::Pattern;
use crate::machine::cpu::chain::{ChainKernels, LONG_OF_SHORT_CHAIN};
use crate::machine::cpu::dispatch::Kernels;
use crate::ops::pattern::PATTERNS;
use hashbrown::HashMap;
use smallvec::SmallVec;
use std::ops::Range;
use std::sync::LazyLock;

/// Ops of a chain that take as long as one pass of a load, an operation and a store.
pub const OPS_A_PASS: usize = 3;

/// Tasks of a row group that one kernel computes: those at `tasks` in the group's order.
pub struct Chain {
    pub tasks: Range<usize>,
    pub name: &'static str,
    pub kernels: &'static ChainKernels,
    pub inputs: SmallVec<[Operand; 8]>,
    /// A bit for each input, set if that is a column.
    pub columns: u32,
    /// The values that the kernel stores.
    pub outputs: SmallVec<[u32; 3]>,
}

/// Operand `.1` of the task `.0`.
pub type Operand = (u32, u8);

pub fn find(program: &Program, groups: &mut Groups) {
    let mut finder = Finder { program, uses: uses(program), taken: vec![false; program.tasks.len()] };
    for index in 0..groups.groups.len() {
        let Group::Rows(rows) = &groups.groups[index] else { continue };
        if rows.tasks.len() < 2 || rows.size == 0 {
            continue;
        }
        let (tasks, chains) = finder.group(groups, index as u32, rows);
        if let Group::Rows(rows) = &mut groups.groups[index] {
            rows.tasks = tasks;
            rows.chains = chains;
        }
    }
}

/// How often each value is read or given out.
fn uses(program: &Program) -> Vec<u32> {
    let mut uses = vec![0; program.values.len()];
    let read = program.tasks.iter().flat_map(|task| &task.inputs).map(|window| window.value);
    read.chain(program.outputs.iter().copied()).for_each(|value| uses[value as usize] += 1);
    uses
}

/// Whether whole blocks of a row are computed nearly without doing an element twice: the last may overlap the one before.
fn fills_blocks(row: usize) -> bool {
    const BLOCK: usize = LONG_OF_SHORT_CHAIN;
    row >= BLOCK && row.next_multiple_of(BLOCK) <= row + row / 8
}

/// A pattern for one dtype.
struct Candidate {
    pattern: &'static Pattern,
    kernels: &'static ChainKernels,
    /// The bits of its steps: a group that lacks one does not hold the pattern.
    parts: u64,
}

/// Patterns by the kernels of their last step and the dtype of its last operand.
static BY_LAST: LazyLock<HashMap<(usize, DType), Vec<Candidate>>> = LazyLock::new(|| {
    let mut by_last: HashMap<(usize, DType), Vec<Candidate>> = HashMap::new();
    for (pattern, dtype) in PATTERNS.iter().flat_map(|pattern| DType::ALL.map(|dtype| (pattern, dtype))) {
        let steps: Option<Vec<_>> = pattern.steps.iter().map(|step| (step.kernels)(dtype)).collect();
        let (Some(kernels), Some(steps)) = ((pattern.kernels)(dtype), steps) else { continue };
        if let Some(last) = steps.last() {
            let candidate = Candidate { pattern, kernels, parts: bits(steps.iter().copied()) };
            by_last.entry((address(last), dtype)).or_default().push(candidate);
        }
    }
    by_last
});

/// Makes what the first plan would make, for a child that starts without the thread that was making it.
pub fn before_fork() {
    LazyLock::force(&BY_LAST);
}

/// The patterns whose last step has these kernels, in their order.
fn candidates(last: &'static Kernels, dtype: DType) -> &'static [Candidate] {
    BY_LAST.get(&(address(last), dtype)).map_or(&[], Vec::as_slice)
}

fn address(kernels: &'static Kernels) -> usize {
    std::ptr::from_ref(kernels) as usize
}

/// A bit for each of the kernels; some share one.
fn bits(kernels: impl Iterator<Item = &'static Kernels>) -> u64 {
    let bit = |kernels| 1 << ((address(kernels) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58);
    kernels.fold(0, |bits, kernels| bits | bit(kernels))
}

struct Finder<'a> {
    program: &'a Program,
    uses: Vec<u32>,
    /// Tasks that belong to a chain.
    taken: Vec<bool>,
}

/// A pattern laid over tasks of a group.
struct Match<'a> {
    pattern: &'static Pattern,
    inputs: SmallVec<[Option<Operand>; 16]>,
    steps: SmallVec<[Option<u32>; 16]>,
    group: u32,
    groups: &'a Groups,
    /// The length of a row, if that is settled and kernels may take rows one by one.
    row: Option<usize>,
}

impl Finder<'_> {
    fn kernels(&self, task: u32) -> Option<&'static Kernels> {
        match self.program.tasks[task as usize].kind {
            TaskKind::Map { kernels, .. } => Some(kernels),
            _ => None,
        }
    }

    fn window(&self, (task, input): Operand) -> &Window {
        &self.program.tasks[task as usize].inputs[input as usize]
    }

    /// The tasks of a group in a new order, and its chains.
    fn group(&mut self, groups: &Groups, group: u32, rows: &Rows) -> (Vec<u32>, Vec<Chain>) {
        let mut order = rows.tasks.clone();
        let mut chains: Vec<Chain> = Vec::new();
        let row = rows.row.filter(|&row| fills_blocks(row));
        let parts = bits(rows.tasks.iter().filter_map(|&task| self.kernels(task)));
        // From the end: the root of a long chain comes before those of its parts.
        let mut at = order.len();
        while at > 0 {
            at -= 1;
            let root = order[at];
            let Some(kernels) = self.kernels(root).filter(|_| !self.taken[root as usize]) else { continue };
            let from = self.window((root, self.program.tasks[root as usize].inputs.len() as u8 - 1));
            let dtype = self.program.values[from.value as usize].dtype;
            let mut fitting = candidates(kernels, dtype).iter().filter(|candidate| {
                candidate.parts & parts == candidate.parts && (row.is_some() || candidate.pattern.columns == 0)
            });
            let found = fitting.find_map(|candidate| {
                let found = self.lay(candidate.pattern, root, groups, (group, row), rows)?;
                let tasks = self.gather(&mut order, at, &found)?;
                Some((found, candidate.kernels, tasks))
            });
            let Some((found, kernels, tasks)) = found else { continue };
            order[tasks.clone()].iter().for_each(|&task| self.taken[task as usize] = true);
            let step = |value: &u8| found.steps[*value as usize - found.pattern.inputs];
            let outputs = found.pattern.outputs.iter().filter_map(step);
            let outputs = outputs.map(|task| self.program.tasks[task as usize].output).collect();
            let inputs = found.inputs.iter().copied().flatten().collect();
            at = tasks.start;
            let (name, columns) = (found.pattern.name, found.pattern.columns);
            chains.push(Chain { tasks, name, kernels, inputs, columns, outputs });
        }
        chains.reverse();
        (order, chains)
    }

    fn lay<'a>(
        &self,
        pattern: &'static Pattern,
        root: u32,
        groups: &'a Groups,
        (group, row): (u32, Option<usize>),
        rows: &Rows,
    ) -> Option<Match<'a>> {
        let (inputs, steps) =
            (SmallVec::from_elem(None, pattern.inputs), SmallVec::from_elem(None, pattern.steps.len()));
        let mut found = Match { pattern, inputs, steps, group, groups, row };
        let last = pattern.steps.len() - 1;
        let made = self.step(&mut found, last, root)
            && (0..last).all(|step| found.steps[step].is_some() || self.side_step(&mut found, step, rows));
        (made && self.is_closed(&found)).then_some(found)
    }

    /// Lays a step, and all it reads, over a task.
    fn step(&self, found: &mut Match, step: usize, task: u32) -> bool {
        if let Some(before) = found.steps[step] {
            return before == task;
        }
        let inputs = &self.program.tasks[task as usize].inputs;
        let args = found.pattern.steps[step].args;
        let Some(kernels) = self.kernels(task).filter(|_| !self.taken[task as usize] && args.len() == inputs.len())
        else {
            return false;
        };
        // The dtype of a chain is that of the last operand of each of its ops: a condition comes first.
        let dtype = self.program.values[inputs[args.len() - 1].value as usize].dtype;
        let is_same = (found.pattern.steps[step].kernels)(dtype).is_some_and(|wanted| std::ptr::eq(wanted, kernels));
        let is_laid = found.steps.contains(&Some(task));
        if !is_same || is_laid || found.groups.places[task as usize] != (found.group, Class::Tile) {
            return false;
        }
        found.steps[step] = Some(task);
        (0..args.len()).all(|at| self.operand(found, args[at] as usize, (task, at as u8)))
    }

    fn operand(&self, found: &mut Match, value: usize, operand: Operand) -> bool {
        let Some(step) = value.checked_sub(found.pattern.inputs) else {
            let before = *found.inputs[value].get_or_insert(operand);
            let is_same = before == operand || self.window(before) == self.window(operand);
            return is_same && (found.pattern.columns >> value & 1 == 0 || self.is_column(found, self.window(operand)));
        };
        let window = self.window(operand);
        let value = &self.program.values[window.value as usize];
        match value.origin {
            Origin::Task(task) if window.is_whole(value.size) => self.step(found, step, task),
            _ => false,
        }
    }

    /// Whether a window shows the same element all along each row, and they lie in memory as a column does.
    fn is_column(&self, found: &Match, window: &Window) -> bool {
        let value = &self.program.values[window.value as usize];
        match value.origin {
            Origin::Task(task) if found.groups.places[task as usize].0 == found.group => {
                found.groups.places[task as usize].1 == Class::Column
            }
            _ => found.row.is_some_and(|row| is_column(window, row, value.size)),
        }
    }

    /// Lays a step that the last one does not need over a task that reads what it must.
    fn side_step(&self, found: &mut Match, step: usize, rows: &Rows) -> bool {
        let args = found.pattern.steps[step].args;
        let known = args.iter().find_map(|&value| found.steps[(value as usize).checked_sub(found.pattern.inputs)?]);
        let Some(known) = known.map(|task| self.program.tasks[task as usize].output) else { return false };
        let reads = |task: u32| self.program.tasks[task as usize].inputs.iter().any(|window| window.value == known);
        rows.tasks.iter().any(|&task| {
            let before = (found.inputs.clone(), found.steps.clone());
            let fits = reads(task) && self.step(found, step, task);
            if !fits {
                (found.inputs, found.steps) = before;
            }
            fits
        })
    }

    /// Whether nothing outside reads a value that the kernel does not store, and no operand is made inside.
    fn is_closed(&self, found: &Match) -> bool {
        let is_inside = |operand: &Operand| match self.program.values[self.window(*operand).value as usize].origin {
            Origin::Task(task) => found.steps.contains(&Some(task)),
            _ => false,
        };
        if found.inputs.iter().flatten().any(is_inside) {
            return false;
        }
        let (inputs, steps) = (found.pattern.inputs, &found.steps);
        let mut inside: SmallVec<[u32; 16]> = SmallVec::from_elem(0, steps.len());
        for step in found.pattern.steps {
            let values = step.args.iter().filter_map(|&value| (value as usize).checked_sub(inputs));
            values.for_each(|value| inside[value] += 1);
        }
        steps.iter().enumerate().all(|(step, task)| {
            let Some(task) = task else { return false };
            let value = self.program.tasks[*task as usize].output;
            found.pattern.outputs.contains(&((step + inputs) as u8)) || self.uses[value as usize] == inside[step]
        })
    }

    /// Brings the tasks of a match together, where the last of them stands, and gives their place. What reads them comes
    /// after; None if one of them needs that.
    fn gather(&self, order: &mut [u32], last: usize, found: &Match) -> Option<Range<usize>> {
        let is_member = |task: u32| found.steps.contains(&Some(task));
        let first = order.iter().position(|&task| is_member(task))?;
        let last = last.max(order.iter().rposition(|&task| is_member(task))?);
        let (mut before, mut members, mut after): (Vec<u32>, Vec<u32>, Vec<u32>) = Default::default();
        for &task in &order[first..=last] {
            let reads = |from: &[u32]| {
                let makes = |value: u32| from.iter().any(|&maker| self.program.tasks[maker as usize].output == value);
                self.program.tasks[task as usize].inputs.iter().any(|window| makes(window.value))
            };
            let is_later = reads(&after);
            if is_member(task) {
                if is_later {
                    return None;
                }
                members.push(task);
            } else if is_later || reads(&members) {
                after.push(task);
            } else {
                before.push(task);
            }
        }
        let tasks = first + before.len()..first + before.len() + members.len();
        // A task of another chain does not move out of it.
        if before.iter().chain(&after).any(|&task| self.taken[task as usize]) {
            return None;
        }
        order[first..=last].copy_from_slice(&[before, members, after].concat());
        Some(tasks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pattern_is_found_by_its_last_step_in_order() {
        for (dtype, pattern) in [DType::F32, DType::F64].into_iter().flat_map(|d| PATTERNS.iter().map(move |p| (d, p)))
        {
            let last = (pattern.steps.last().unwrap().kernels)(dtype).unwrap();
            let ends = |other: &&&Pattern| {
                (other.steps.last().unwrap().kernels)(dtype).is_some_and(|kernels| std::ptr::eq(kernels, last))
            };
            let expected: Vec<&str> = PATTERNS.iter().filter(ends).map(|pattern| pattern.name).collect();
            let found: Vec<&str> = candidates(last, dtype).iter().map(|candidate| candidate.pattern.name).collect();
            assert_eq!(found, expected, "{} {}", pattern.name, dtype.name());
        }
    }
}
