//! Groups tasks into kernels. A row group holds maps, row reductions, their results spread back over the rows, and
//! outer reductions, all over one space of `size` elements cut into rows of `row`; every other task stands alone.
//! Groups are numbered in execution order: a task joins a group only if all it reads is made there or earlier, so no
//! cycle can arise. Decides nothing about memory or blocks.

use super::tasks::{Origin, Program, Task, TaskKind};
use super::window::{Window, split};
use smallvec::SmallVec;

/// Rows up to this long are reduced inside a row group; longer ones by a kernel of their own.
pub const LONGEST_ROW: usize = 8192;
/// Bounds what one interpreter pass keeps in registers and in the L1 cache.
const MOST_TASKS: usize = 96;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Group {
    /// Elementwise work over rows.
    Rows(Rows),
    /// One task with a kernel of its own.
    Alone(u32),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    pub size: usize,
    /// The length of a row, once a reduction has fixed it.
    pub row: Option<usize>,
    /// How many rows an outer reduction adds up, once there is one.
    pub segment: Option<usize>,
    pub tasks: Vec<u32>,
}

/// How the value of a task lies in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// An element for each of the space.
    Tile,
    /// An element for each row.
    Column,
    /// Complete only after the whole group has run.
    Late,
}

pub struct Groups {
    pub groups: Vec<Group>,
    /// The group and class of each task.
    pub places: Vec<(u32, Class)>,
}

pub fn fuse(program: &Program) -> Groups {
    let mut fuser = Fuser {
        program,
        groups: Vec::new(),
        places: Vec::with_capacity(program.tasks.len()),
        readers: vec![NONE; program.values.len()],
    };
    for (index, task) in program.tasks.iter().enumerate() {
        let place = fuser.place(index as u32, task);
        fuser.places.push(place);
        for window in &task.inputs {
            fuser.readers[window.value as usize] = place.0;
        }
    }
    Groups { groups: fuser.groups, places: fuser.places }
}

const NONE: u32 = u32::MAX;

struct Fuser<'a> {
    program: &'a Program,
    groups: Vec<Group>,
    places: Vec<(u32, Class)>,
    /// The last group that read each value.
    readers: Vec<u32>,
}

impl Fuser<'_> {
    fn place(&mut self, index: u32, task: &Task) -> (u32, Class) {
        let size = match task.kind {
            TaskKind::Map { .. } => self.program.values[task.output as usize].size,
            TaskKind::RowReduce { len, .. } if len <= LONGEST_ROW => task.inputs[0].size(),
            TaskKind::OuterReduce { .. } => task.inputs[0].size(),
            _ => {
                self.groups.push(Group::Alone(index));
                return (self.groups.len() as u32 - 1, Class::Late);
            }
        };
        let earliest = task.inputs.iter().filter_map(|window| self.maker(window)).map(|(group, _)| group).max();
        for candidate in self.candidates(task) {
            if earliest.is_none_or(|earliest| earliest <= candidate) && size > 0 {
                if let Some(class) = self.fits(task, size, candidate) {
                    self.join(candidate, index, task, class);
                    return (candidate, class);
                }
            }
        }
        let (row, segment) = demands(task);
        self.groups.push(Group::Rows(Rows { size, row, segment, tasks: vec![index] }));
        (self.groups.len() as u32 - 1, made(task))
    }

    /// The group and class of the task that makes what a window sees.
    fn maker(&self, window: &Window) -> Option<(u32, Class)> {
        match self.program.values[window.value as usize].origin {
            Origin::Task(task) => Some(self.places[task as usize]),
            _ => None,
        }
    }

    /// Groups that make or read an operand of this task, latest first.
    fn candidates(&self, task: &Task) -> SmallVec<[u32; 6]> {
        let mut found: SmallVec<[u32; 6]> = SmallVec::new();
        for window in &task.inputs {
            found.extend(self.maker(window).map(|(group, _)| group));
            if !window.is_scalar() && self.readers[window.value as usize] != NONE {
                found.push(self.readers[window.value as usize]);
            }
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.dedup();
        found
    }

    /// As what the task can join the group, if it can.
    fn fits(&self, task: &Task, size: usize, group: u32) -> Option<Class> {
        let Group::Rows(rows) = &self.groups[group as usize] else { return None };
        if rows.tasks.len() >= MOST_TASKS {
            return None;
        }
        if rows.size == size {
            let (row, segment) = demands(task);
            let agrees = |have: Option<usize>, want: Option<usize>| have.is_none() || want.is_none() || have == want;
            let fits = agrees(rows.row, row)
                && agrees(rows.segment, segment)
                && task.inputs.iter().all(|window| self.readable(window, group, rows, Class::Tile));
            return fits.then(|| made(task));
        }
        let column = matches!(task.kind, TaskKind::Map { .. })
            && rows.row.is_some_and(|row| rows.size == size * row)
            && task.inputs.iter().any(|window| self.maker(window) == Some((group, Class::Column)))
            && task.inputs.iter().all(|window| self.readable(window, group, rows, Class::Column));
        column.then_some(Class::Column)
    }

    /// Whether an instruction of this class in the group can read the window while the group runs.
    fn readable(&self, window: &Window, group: u32, rows: &Rows, reader: Class) -> bool {
        let Some((maker, class)) = self.maker(window) else { return true };
        if maker != group {
            return true;
        }
        let made = self.program.values[window.value as usize].size;
        match (class, reader) {
            (Class::Late, _) | (Class::Tile, Class::Column) | (_, Class::Late) => false,
            (Class::Tile, Class::Tile) | (Class::Column, Class::Column) => window.is_whole(made),
            (Class::Column, Class::Tile) => rows.row.is_some_and(|row| is_column(window, row, made)),
        }
    }

    fn join(&mut self, group: u32, index: u32, task: &Task, class: Class) {
        let Group::Rows(rows) = &mut self.groups[group as usize] else { return };
        if class != Class::Column || !matches!(task.kind, TaskKind::Map { .. }) {
            let (row, segment) = demands(task);
            rows.row = rows.row.or(row);
            rows.segment = rows.segment.or(segment);
        }
        rows.tasks.push(index);
    }
}

/// Whether the window shows element i of a whole column all along row i.
pub fn is_column(window: &Window, row: usize, rows: usize) -> bool {
    let Some((outer, inner)) = split(&window.dims(), row) else { return false };
    let down = matches!(outer.as_slice(), [(n, 1)] if *n == rows) || rows == 1;
    window.offset == 0 && window.starts.is_empty() && down && inner.iter().all(|&(_, stride)| stride == 0)
}

/// The row length and segment that a task needs of its group.
fn demands(task: &Task) -> (Option<usize>, Option<usize>) {
    match task.kind {
        TaskKind::RowReduce { len, .. } => (Some(len), None),
        TaskKind::OuterReduce { len, inner, .. } => (Some(inner), Some(len)),
        _ => (None, None),
    }
}

/// The class of what a task makes in the space of its inputs.
fn made(task: &Task) -> Class {
    match task.kind {
        TaskKind::Map { .. } => Class::Tile,
        TaskKind::RowReduce { .. } => Class::Column,
        _ => Class::Late,
    }
}
