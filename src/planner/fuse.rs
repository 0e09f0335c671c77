//! Groups tasks into kernels. A row group holds maps, row reductions, their results spread back over the rows, and
//! outer reductions, all over one space of `size` elements cut into rows of `row`; every other task stands alone.
//! Groups are numbered in execution order: a task joins a group only if all it reads is made there or earlier, so no
//! cycle can arise. Decides nothing about memory or blocks.

use super::chains::Chain;
use super::sink::sink;
use super::tasks::{Origin, Program, Task, TaskKind};
use super::window::{Window, split};
use hashbrown::{HashMap, HashSet};
use smallvec::SmallVec;

/// Rows up to this long are whole in a tile, so that what they are reduced to can be used in the same group. Longer ones
/// are reduced block by block, and complete only at the end.
pub const LONGEST_ROW: usize = 8192;

/// What a machine can do in one kernel.
pub struct Rules {
    /// Bounds what a kernel keeps at a time.
    pub most_tasks: usize,
    /// Whether reductions over rows, and of rows longer than the longest, join the kernel that makes what they add up.
    sums: bool,
}

/// One interpreter pass keeps its tile in the first-level cache.
pub const ON_CPU: Rules = Rules { most_tasks: 96, sums: true };

/// A generated function should stay short: drivers compile it.
pub const ON_GPU: Rules = Rules { most_tasks: 64, sums: false };

pub enum Group {
    /// Elementwise work over rows.
    Rows(Rows),
    /// One task with a kernel of its own.
    Alone(u32),
}

pub struct Rows {
    pub size: usize,
    /// The length of a row, once a reduction has fixed it.
    pub row: Option<usize>,
    /// How many rows an outer reduction adds up, once there is one.
    pub segment: Option<usize>,
    /// The product among the tasks, each element of which is made before the others see it; on GPUs only.
    pub product: Option<u32>,
    pub tasks: Vec<u32>,
    /// The tasks that one kernel computes together; in order.
    pub chains: Vec<Chain>,
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

impl Groups {
    /// The tasks of a group, in its order.
    pub fn tasks(&self, group: u32) -> &[u32] {
        match &self.groups[group as usize] {
            Group::Rows(rows) => &rows.tasks,
            Group::Alone(task) => std::slice::from_ref(task),
        }
    }

    /// Adds a group of one elementwise task, the program's last.
    pub fn add_map(&mut self, task: u32, size: usize) {
        self.places.push((self.groups.len() as u32, Class::Tile));
        let (tasks, chains) = (vec![task], Vec::new());
        self.groups.push(Group::Rows(Rows { size, row: None, segment: None, product: None, tasks, chains }));
    }

    /// Moves what is complete only after a row group has run to a group of its own and gives its number.
    pub fn part_sums(&mut self, program: &Program, group: u32) -> u32 {
        let new = self.groups.len() as u32;
        if let Group::Rows(rows) = &mut self.groups[group as usize] {
            let is_late = |task: &u32| self.places[*task as usize].1 == Class::Late;
            let (sums, maps) = rows.tasks.iter().partition(|task| is_late(task));
            let sums = Rows { tasks: sums, chains: Vec::new(), ..*rows };
            rows.tasks = maps;
            rows.row = rows.tasks.iter().find_map(|&task| demands(&program.tasks[task as usize]).0);
            rows.segment = None;
            sums.tasks.iter().for_each(|&task| self.places[task as usize].0 = new);
            self.groups.push(Group::Rows(sums));
        }
        new
    }
}

pub fn fuse(program: &Program, rules: &Rules) -> Groups {
    let mut fuser = Fuser {
        program,
        rules,
        groups: Vec::new(),
        places: Vec::with_capacity(program.tasks.len()),
        readers: vec![NONE; program.values.len()],
        latest: HashMap::new(),
        into: Vec::new(),
        outside: Vec::new(),
    };
    for (index, task) in program.tasks.iter().enumerate() {
        let place = fuser.place(index as u32, task);
        fuser.places.push(place);
        for window in &task.inputs {
            fuser.read(window, place.0);
        }
        for window in &task.inputs {
            if let Some((maker, _)) = fuser.maker(window) {
                fuser.merge(maker, fuser.find(place.0));
            }
        }
    }
    let mut groups = fuser.finish();
    sink(program, &mut groups, rules);
    groups
}

const NONE: u32 = u32::MAX;

/// Who reads the values of a group from outside.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outside {
    Nobody,
    One(u32),
    Many,
}

struct Fuser<'a> {
    program: &'a Program,
    rules: &'a Rules,
    groups: Vec<Group>,
    places: Vec<(u32, Class)>,
    /// The last group that read each value.
    readers: Vec<u32>,
    /// The last group of each size.
    latest: HashMap<usize, u32>,
    /// The group that each group was merged into; itself if it stands.
    into: Vec<u32>,
    outside: Vec<Outside>,
}

impl Fuser<'_> {
    /// What has become of a group.
    fn find(&self, mut group: u32) -> u32 {
        while self.into[group as usize] != group {
            group = self.into[group as usize];
        }
        group
    }

    fn open(&mut self, group: Group) -> u32 {
        let index = self.groups.len() as u32;
        self.groups.push(group);
        self.into.push(index);
        self.outside.push(Outside::Nobody);
        index
    }

    fn read(&mut self, window: &Window, reader: u32) {
        self.readers[window.value as usize] = reader;
        let Some((maker, _)) = self.maker(window).filter(|&(maker, _)| maker != reader) else { return };
        let before = self.outside[maker as usize];
        self.outside[maker as usize] = match before {
            Outside::Nobody => Outside::One(reader),
            Outside::One(one) if self.find(one) == reader => before,
            _ => Outside::Many,
        };
    }

    /// Moves the tasks of an earlier group into a later one that alone reads its values, if they fit.
    fn merge(&mut self, earlier: u32, later: u32) {
        let Outside::One(reader) = self.outside[earlier as usize] else { return };
        let (Group::Rows(old), Group::Rows(new)) = (&self.groups[earlier as usize], &self.groups[later as usize])
        else {
            return;
        };
        let agrees = |a: Option<usize>, b: Option<usize>| a.is_none() || b.is_none() || a == b;
        let fits = earlier < later
            && self.find(reader) == later
            && old.size == new.size
            && old.size > 0
            && agrees(old.row, new.row)
            && agrees(old.segment, new.segment)
            && old.tasks.len() + new.tasks.len() <= self.rules.most_tasks;
        if !fits {
            return;
        }
        let row = old.row.or(new.row);
        let readable = new.tasks.iter().all(|&task| {
            let reader = space(&self.program.tasks[task as usize], self.places[task as usize].1);
            let inputs = &self.program.tasks[task as usize].inputs;
            inputs.iter().all(|window| self.readable(window, earlier, row, reader))
        });
        if !readable {
            return;
        }
        let segment = old.segment.or(new.segment);
        let mut tasks = [old.tasks.as_slice(), new.tasks.as_slice()].concat();
        tasks.sort_unstable();
        let size = old.size;
        self.groups[later as usize] =
            Group::Rows(Rows { size, row, segment, product: None, tasks, chains: Vec::new() });
        self.groups[earlier as usize] = Group::Alone(NONE);
        self.into[earlier as usize] = later;
    }

    /// Numbers the groups that stand.
    fn finish(self) -> Groups {
        let stands: Vec<usize> = (0..self.groups.len()).filter(|&index| self.into[index] == index as u32).collect();
        let mut numbers = vec![NONE; self.groups.len()];
        stands.iter().enumerate().for_each(|(number, &index)| numbers[index] = number as u32);
        let places = self.places.iter().map(|&(group, class)| (numbers[self.find(group) as usize], class)).collect();
        let groups = self.groups.into_iter().zip(numbers).filter(|(_, number)| *number != NONE).map(|(group, _)| group);
        Groups { groups: groups.collect(), places }
    }

    fn place(&mut self, index: u32, task: &Task) -> (u32, Class) {
        let size = match task.kind {
            TaskKind::Map { .. } => self.program.values[task.output as usize].size,
            TaskKind::RowReduce { len, .. } if self.rules.sums || len <= LONGEST_ROW => task.inputs[0].size(),
            TaskKind::OuterReduce { .. } if self.rules.sums => task.inputs[0].size(),
            _ => {
                return (self.open(Group::Alone(index)), Class::Late);
            }
        };
        let awaited = task.inputs.iter().filter_map(|window| self.made_at(window.after?));
        let earliest = task.inputs.iter().filter_map(|window| self.made_at(window.value)).chain(awaited).max();
        for candidate in self.candidates(task, size) {
            let fits = (size > 0 && earliest.is_none_or(|earliest| earliest <= candidate))
                .then(|| self.fits(task, size, candidate))
                .flatten();
            if let Some(class) = fits {
                self.join(candidate, index, task, class);
                return (candidate, class);
            }
        }
        let (row, segment) = demands(task);
        let (tasks, chains) = (vec![index], Vec::new());
        let group = self.open(Group::Rows(Rows { size, row, segment, product: None, tasks, chains }));
        self.latest.insert(size, group);
        (group, made(task))
    }

    /// The group and class of the task that makes what a window sees.
    fn maker(&self, window: &Window) -> Option<(u32, Class)> {
        match self.program.values[window.value as usize].origin {
            Origin::Task(task) => {
                let (group, class) = self.places[task as usize];
                Some((self.find(group), class))
            }
            _ => None,
        }
    }

    /// The group of the task that makes a value.
    fn made_at(&self, value: u32) -> Option<u32> {
        match self.program.values[value as usize].origin {
            Origin::Task(task) => Some(self.find(self.places[task as usize].0)),
            _ => None,
        }
    }

    /// Groups that make or read an operand of this task, latest first. A task that reads no operand of the full size
    /// (a mask of indices, say) is cheap wherever it stands, so it may join the last group of its size.
    fn candidates(&self, task: &Task, size: usize) -> SmallVec<[u32; 6]> {
        let mut found: SmallVec<[u32; 6]> = SmallVec::new();
        let mut cheap = true;
        for window in &task.inputs {
            let value = &self.program.values[window.value as usize];
            found.extend(self.maker(window).map(|(group, _)| group));
            let shared = matches!(value.origin, Origin::Leaf(_) | Origin::Task(_))
                && (!window.is_scalar() || value.size == size)
                && self.readers[window.value as usize] != NONE;
            if shared {
                found.push(self.find(self.readers[window.value as usize]));
            }
            cheap &= value.size < size;
        }
        if cheap {
            found.extend(self.latest.get(&size).map(|&group| self.find(group)));
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.dedup();
        found
    }

    /// As what the task can join the group, if it can.
    fn fits(&self, task: &Task, size: usize, group: u32) -> Option<Class> {
        let Group::Rows(rows) = &self.groups[group as usize] else { return None };
        if rows.tasks.len() >= self.rules.most_tasks {
            return None;
        }
        if rows.size == size {
            let (row, segment) = demands(task);
            let agrees = |have: Option<usize>, want: Option<usize>| have.is_none() || want.is_none() || have == want;
            let fits = agrees(rows.row, row)
                && agrees(rows.segment, segment)
                && task.inputs.iter().all(|window| self.readable(window, group, rows.row, Class::Tile));
            return fits.then(|| made(task));
        }
        let column = matches!(task.kind, TaskKind::Map { .. })
            && rows.row.is_some_and(|row| rows.size == size * row)
            && task.inputs.iter().any(|window| self.maker(window) == Some((group, Class::Column)))
            && task.inputs.iter().all(|window| self.readable(window, group, rows.row, Class::Column));
        column.then_some(Class::Column)
    }

    /// Whether an instruction in this space of the group can read the window while the group runs.
    fn readable(&self, window: &Window, group: u32, row: Option<usize>, reader: Class) -> bool {
        let Some((maker, class)) = self.maker(window) else { return true };
        if maker != group {
            return true;
        }
        let made = self.program.values[window.value as usize].size;
        match (class, reader) {
            (Class::Late, _) | (Class::Tile, Class::Column) | (_, Class::Late) => false,
            (Class::Tile, Class::Tile) | (Class::Column, Class::Column) => window.is_whole(made),
            (Class::Column, Class::Tile) => row.is_some_and(|row| is_column(window, row, made)),
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

/// Cuts row groups until each reads and leaves at most so many values in memory. A cut keeps the order of tasks, so all
/// that a part reads is made in it or earlier.
pub fn split_wide(program: &Program, groups: Groups, most_values: usize) -> Groups {
    let readers = Readers::of(program);
    let Groups { groups: whole, mut places } = groups;
    let mut parts: Vec<Group> = Vec::with_capacity(whole.len());
    for group in whole {
        let Group::Rows(rows) = group else {
            parts.push(group);
            continue;
        };
        let mut rest = rows.tasks.clone();
        while !rest.is_empty() {
            let mut part = rest.clone();
            while part.len() > 1 && readers.values(program, &part) > most_values {
                part.truncate(part.len().div_ceil(2));
            }
            rest.drain(..part.len());
            parts.push(Group::Rows(Rows { tasks: part, chains: Vec::new(), ..rows }));
        }
    }
    for (number, group) in parts.iter().enumerate() {
        match group {
            Group::Rows(rows) => rows.tasks.iter().for_each(|&task| places[task as usize].0 = number as u32),
            Group::Alone(task) => places[*task as usize].0 = number as u32,
        }
    }
    Groups { groups: parts, places }
}

/// Which tasks read each value.
pub struct Readers {
    pub tasks: Vec<SmallVec<[u32; 4]>>,
    pub is_output: Vec<bool>,
    /// Whether some task must not be computed before the value.
    pub is_awaited: Vec<bool>,
}

impl Readers {
    pub fn of(program: &Program) -> Readers {
        let mut readers = Readers {
            tasks: std::iter::repeat_with(SmallVec::new).take(program.values.len()).collect(),
            is_output: vec![false; program.values.len()],
            is_awaited: vec![false; program.values.len()],
        };
        for (index, task) in program.tasks.iter().enumerate() {
            for window in &task.inputs {
                readers.tasks[window.value as usize].push(index as u32);
                window.after.iter().for_each(|&value| readers.is_awaited[value as usize] = true);
            }
        }
        program.outputs.iter().for_each(|&value| readers.is_output[value as usize] = true);
        readers
    }

    /// Whether a value that this group makes lies in memory for others.
    pub fn is_stored(&self, groups: &Groups, value: u32, maker: u32) -> bool {
        let is_outside = |&task: &u32| groups.places[task as usize].0 != maker;
        self.is_output[value as usize] || self.tasks[value as usize].iter().any(is_outside)
    }

    /// The group that alone reads a value, given that of each task.
    pub fn only(&self, value: u32, group: impl Fn(u32) -> u32) -> Option<u32> {
        let mut groups = self.tasks[value as usize].iter().map(|&task| group(task));
        let first = groups.next()?;
        (!self.is_output[value as usize] && groups.all(|other| other == first)).then_some(first)
    }

    /// How many values a kernel of these tasks, in order, reads from memory and leaves there.
    pub fn values(&self, program: &Program, tasks: &[u32]) -> usize {
        let is_inside = |task: &u32| tasks.binary_search(task).is_ok();
        let mut outside: HashSet<u32> = HashSet::new();
        for window in tasks.iter().flat_map(|&task| &program.tasks[task as usize].inputs) {
            match program.values[window.value as usize].origin {
                Origin::Task(maker) if is_inside(&maker) => {}
                Origin::Task(_) | Origin::Leaf(_) => _ = outside.insert(window.value),
                Origin::Number(_) | Origin::Constant(_) => {}
            }
        }
        let leaves = |task: &&u32| {
            let value = program.tasks[**task as usize].output as usize;
            self.is_output[value] || !self.tasks[value].iter().all(is_inside)
        };
        outside.len() + tasks.iter().filter(leaves).count()
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
        TaskKind::RowReduce { len, .. } if len <= LONGEST_ROW => Class::Column,
        _ => Class::Late,
    }
}

/// The space in which a task reads, from the class of what it makes.
pub fn space(task: &Task, class: Class) -> Class {
    match (&task.kind, class) {
        (TaskKind::Map { .. }, Class::Column) => Class::Column,
        _ => Class::Tile,
    }
}
