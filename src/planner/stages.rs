//! The order of kernels, and which of them threads share out. A kernel too small to be cut over threads is worth it
//! together with its neighbours: in a stage, each thread takes its rows through one kernel after another, or takes whole
//! strands of kernels, and nobody waits before the end. A net of small layers goes forward and back by rows of the
//! batch; the products of its weight gradients, which add up all rows, follow as strands, and so do the updates.
//! Changes no bit: a stage cuts only where kernels may be cut anyway.

use super::commit::Commit;
use super::estimate;
use super::fuse::{Class, Group, Groups, Readers, Rows};
use super::plan::{Instr, Kernel};
use super::tasks::{Origin, Program, Task, TaskKind};
use super::window::{Window, split};
use hashbrown::HashMap;
use std::ops::Range;

/// When sharing pays, in nanoseconds of one thread.
pub struct Rules {
    /// Threads are not woken for a plan below this.
    pub least_plan: u64,
    /// Nor do they meet for a stage below this.
    pub least_stage: u64,
    /// What a stage frees serves again only after it, so it has an end.
    pub most_stage: u64,
    /// A kernel above this is cut over threads by itself.
    pub most_kernel: u64,
    /// Rows that a thread gets at least: products of fewer are slow.
    pub least_rows: usize,
}

pub const RULES: Rules =
    Rules { least_plan: 100_000, least_stage: 20_000, most_stage: 500_000, most_kernel: 100_000, least_rows: 16 };

/// How threads share the kernels of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Each takes some of `rows` rows through all kernels, in at most so many parts.
    Rows { rows: usize, parts: usize },
    /// Each takes whole strands; where they start, and where the last ends.
    Strands(Vec<usize>),
}

/// Neighbours in the order of execution that run as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    pub kernels: Range<usize>,
    pub cut: Cut,
}

impl Stage {
    /// The same for instructions, of which some number comes `before` each position; None if one of them cannot be cut so.
    pub fn of_instructions(&self, before: &[usize], instrs: &[Instr]) -> Option<Stage> {
        let kernels = before[self.kernels.start]..before[self.kernels.end];
        let cut = match &self.cut {
            Cut::Strands(starts) => Cut::Strands(starts.iter().map(|&start| before[start]).collect()),
            rows @ &Cut::Rows { rows: count, .. } => {
                let is_cut = |instr: &Instr| match &instr.kernel {
                    Kernel::Rows(program) => program.keeps_rows(count),
                    _ => true,
                };
                instrs[kernels.clone()].iter().all(is_cut).then(|| rows.clone())?
            }
        };
        Some(Stage { kernels, cut })
    }
}

#[derive(Default)]
pub struct Schedule {
    /// Groups in the order of execution.
    pub order: Vec<u32>,
    /// Positions in the order, one stage after the other.
    pub stages: Vec<Stage>,
    /// The first position of the commit block.
    pub commit: usize,
    /// Too little to do for helpers to pay.
    pub serial: bool,
}

pub fn schedule(program: &Program, groups: &mut Groups, commit: &mut Commit, rules: &Rules) -> Schedule {
    let nanos: Vec<u64> = groups.groups.iter().map(|group| estimate::nanos(program, group)).collect();
    let order = commit.order(groups);
    let at = order.partition_point(|&group| !commit.last[group as usize]);
    if nanos.iter().sum::<u64>() < rules.least_plan {
        return Schedule { order, commit: at, serial: true, stages: Vec::new() };
    }
    let readers = Readers::of(program);
    // Who computes again to save memory does not want it kept to the end of a stage.
    if readers.is_awaited.contains(&true) {
        return Schedule { order, commit: at, serial: false, stages: Vec::new() };
    }
    let (plain, last) = order.split_at(at);
    let mut scheduler = Scheduler {
        readers,
        standings: vec![Standing::Done; program.tasks.len()],
        program,
        groups,
        rules,
        nanos,
        rows: 0,
        shared: Vec::new(),
        waiting: Vec::new(),
        spent: [0; 2],
        schedule: Schedule::default(),
    };
    plain.iter().for_each(|&group| scheduler.add(group));
    scheduler.close();
    scheduler.schedule.commit = scheduler.schedule.order.len();
    let (made, mut last) = (scheduler.made(), last.to_vec());
    // A thread updates what it made the gradients of.
    last.sort_by_key(|&group| made[group as usize]);
    scheduler.strands(&last);
    let schedule = scheduler.schedule;
    commit.last.resize(groups.groups.len(), false);
    commit.guards.resize(groups.groups.len(), false);
    schedule
}

/// What has become of a task.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It comes before the stage that is open.
    Done,
    /// It belongs to the open stage.
    Shared,
    /// It comes after the open stage.
    Waiting,
}

/// A group, or of a row group what is complete before or only after it has run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Member {
    Whole(u32),
    Maps(u32),
    Sums(u32),
}

enum Fate {
    Joins,
    /// All but its sums, which wait.
    JoinsInPart,
    Waits,
    /// The open stage must end first.
    Closes,
}

struct Scheduler<'a> {
    program: &'a Program,
    groups: &'a mut Groups,
    rules: &'a Rules,
    readers: Readers,
    nanos: Vec<u64>,
    standings: Vec<Standing>,
    /// Rows of the open stage; 0 while there is none.
    rows: usize,
    shared: Vec<Member>,
    waiting: Vec<Member>,
    /// Time of what is shared and of what waits.
    spent: [u64; 2],
    schedule: Schedule,
}

impl Scheduler<'_> {
    fn add(&mut self, group: u32) {
        let is_full = self.spent.iter().any(|&nanos| nanos > self.rules.most_stage);
        let mut fate = self.fate(group);
        if is_full || matches!(fate, Fate::Closes) {
            self.close();
            fate = Fate::Waits;
        }
        if self.rows == 0
            && let Some(rows) = self.opens(group)
        {
            self.close();
            self.rows = rows;
            fate = Fate::Joins;
        }
        let (shared, waits) = match fate {
            Fate::Joins => (Some(Member::Whole(group)), None),
            Fate::JoinsInPart => (Some(Member::Maps(group)), Some(Member::Sums(group))),
            Fate::Waits | Fate::Closes => (None, Some(Member::Whole(group))),
        };
        self.shared.extend(shared);
        self.waiting.extend(waits);
        self.spent[usize::from(shared.is_none())] += self.nanos[group as usize];
        for &task in self.groups.tasks(group) {
            let is_late = self.groups.places[task as usize].1 == Class::Late;
            let joins = shared.is_some() && (waits.is_none() || !is_late);
            self.standings[task as usize] = if joins { Standing::Shared } else { Standing::Waiting };
        }
    }

    /// The rows of a stage that may begin with this group: a small product whose rows are those of its first operand.
    fn opens(&self, group: u32) -> Option<usize> {
        let (task, rows) = self.product(group)?;
        let is_flat = self.program.tasks[task as usize].inputs[0].is_flat();
        (is_flat && self.is_small(group) && rows >= 2 * self.rules.least_rows).then_some(rows)
    }

    /// The task and the rows of one product.
    fn product(&self, group: u32) -> Option<(u32, usize)> {
        let Group::Alone(task) = self.groups.groups[group as usize] else { return None };
        let Task { kind, shape, .. } = &self.program.tasks[task as usize];
        let (outer, inner) = shape.split_at(shape.rank().saturating_sub(2));
        let is_one = matches!(kind, TaskKind::Contract) && outer.iter().all(|&extent| extent == 1);
        is_one.then(|| (task, inner[0]))
    }

    fn is_small(&self, group: u32) -> bool {
        self.nanos[group as usize] <= self.rules.most_kernel
    }

    fn standing(&self, value: u32) -> Standing {
        match self.program.values[value as usize].origin {
            Origin::Task(task) => self.standings[task as usize],
            _ => Standing::Done,
        }
    }

    fn waits(&self, window: &Window) -> bool {
        self.standing(window.value) == Standing::Waiting
    }

    fn fate(&self, group: u32) -> Fate {
        if self.rows == 0 {
            return Fate::Waits;
        }
        match (&self.groups.groups[group as usize], self.product(group)) {
            (_, Some((task, rows))) => self.fate_of_product(group, task, rows),
            (Group::Rows(rows), None) if self.is_small(group) => self.fate_of_rows(group, rows),
            _ => Fate::Waits,
        }
    }

    fn fate_of_product(&self, group: u32, task: u32, rows: usize) -> Fate {
        let [a, b] = self.program.tasks[task as usize].inputs.as_slice() else { return Fate::Waits };
        if !a.is_flat() {
            return Fate::Waits;
        }
        let waits = self.waits(a) || self.waits(b);
        let reads_shared = [a, b].map(|window| self.standing(window.value) == Standing::Shared);
        let fits = rows.is_multiple_of(self.rows) && self.is_small(group) && self.keeps_rows(a) && !reads_shared[1];
        match (fits && !waits, waits || reads_shared.contains(&true)) {
            (true, _) => Fate::Joins,
            (false, true) => Fate::Closes,
            (false, false) => Fate::Waits,
        }
    }

    fn fate_of_rows(&self, group: u32, rows: &Rows) -> Fate {
        let is_late = |task: u32| self.groups.places[task as usize].1 == Class::Late;
        let joins = |task: u32| {
            let inputs = &self.program.tasks[task as usize].inputs;
            inputs.iter().all(|window| !self.waits(window) && self.keeps_rows(window))
        };
        let mut maps = rows.tasks.iter().filter(|&&task| !is_late(task)).peekable();
        let is_cut = rows.size > 0 && (rows.size / rows.row.unwrap_or(1)).is_multiple_of(self.rows);
        if !is_cut || maps.peek().is_none() || !maps.all(|&task| joins(task)) {
            return Fate::Waits;
        }
        let mut sums = rows.tasks.iter().filter(|&&task| is_late(task)).peekable();
        if sums.peek().is_none() {
            return Fate::Joins;
        }
        let reads_memory = |task: u32| self.is_stored(self.program.tasks[task as usize].inputs[0].value, group);
        if sums.all(|&task| reads_memory(task)) { Fate::JoinsInPart } else { Fate::Waits }
    }

    /// Whether a row of the open stage reads only its own part of a value that the stage makes.
    fn keeps_rows(&self, window: &Window) -> bool {
        if self.standing(window.value) != Standing::Shared {
            return true;
        }
        let size = self.program.values[window.value as usize].size;
        let each = size / self.rows;
        if window.offset < 0 || !window.starts.is_empty() || each * self.rows != size {
            return false;
        }
        let Some((outer, inner)) = split(&window.dims(), window.size() / self.rows) else { return false };
        let farthest: isize = inner.iter().map(|&(extent, stride)| (extent as isize - 1) * stride).sum();
        outer.as_slice() == [(self.rows, each as isize)]
            && inner.iter().all(|&(_, stride)| stride >= 0)
            && window.offset + farthest < each as isize
    }

    /// Whether a value that the group reads lies in memory once it has run.
    fn is_stored(&self, value: u32, group: u32) -> bool {
        let Origin::Task(maker) = self.program.values[value as usize].origin else { return true };
        self.groups.places[maker as usize].0 != group || self.readers.is_stored(self.groups, value, group)
    }

    /// Ends the open stage, if there is one, and lets what waits follow.
    fn close(&mut self) {
        let (shared, waiting) = (std::mem::take(&mut self.shared), std::mem::take(&mut self.waiting));
        for member in shared.iter().chain(&waiting) {
            let tasks = self.groups.tasks(member.group());
            tasks.iter().for_each(|&task| self.standings[task as usize] = Standing::Done);
        }
        let (rows, [spent, _]) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.spent));
        let pays = shared.len() > 1 && spent >= self.rules.least_stage;
        if !pays {
            // As if nothing had been tried: in the old order, each group once.
            let mut all: Vec<u32> = shared.iter().chain(&waiting).map(|member| member.group()).collect();
            all.sort_unstable();
            all.dedup();
            return self.strands(&all);
        }
        let from = self.schedule.order.len();
        self.schedule.order.extend(shared.iter().map(|member| member.group()));
        self.schedule.stages.push(Stage {
            kernels: from..self.schedule.order.len(),
            cut: Cut::Rows { rows, parts: rows / self.rules.least_rows },
        });
        let rest: Vec<u32> = waiting.into_iter().map(|member| self.part(member)).collect();
        self.strands(&rest);
    }

    /// The group of what waits: sums that were left behind get one of their own.
    fn part(&mut self, member: Member) -> u32 {
        let Member::Sums(group) = member else { return member.group() };
        let new = self.groups.part_sums(self.program, group);
        self.nanos.push(estimate::nanos(self.program, &self.groups.groups[new as usize]));
        new
    }

    /// Appends groups that come in an order in which they can run: strands of them where that pays.
    fn strands(&mut self, groups: &[u32]) {
        let mut strands = Strands::default();
        for &group in groups {
            let is_product = self.product(group).is_some();
            if !self.is_small(group) || !(is_product || matches!(self.groups.groups[group as usize], Group::Rows(_))) {
                self.append(std::mem::take(&mut strands));
                self.schedule.order.push(group);
                continue;
            }
            let mut strand = strands.of(self.program, self.groups.tasks(group));
            if strand.is_none() || strands.total > self.rules.most_stage {
                self.append(std::mem::take(&mut strands));
                strand = Some(0);
            }
            strands.push(strand.unwrap_or_default(), group, self.groups.tasks(group), self.nanos[group as usize]);
        }
        self.append(strands);
    }

    fn append(&mut self, strands: Strands) {
        let (all, longest) = (strands.total, strands.spent.iter().max().copied());
        if all < self.rules.least_stage || longest.is_none_or(|longest| 2 * longest > all) {
            return self.schedule.order.extend(strands.groups);
        }
        let from = self.schedule.order.len();
        let mut starts = vec![from];
        for strand in &strands.strands {
            self.schedule.order.extend(strand);
            starts.push(self.schedule.order.len());
        }
        self.schedule.stages.push(Stage { kernels: from..self.schedule.order.len(), cut: Cut::Strands(starts) });
    }

    /// For each group, when the last of what it reads is made.
    fn made(&self) -> Vec<usize> {
        let mut position = vec![0; self.groups.groups.len()];
        self.schedule.order.iter().enumerate().for_each(|(at, &group)| position[group as usize] = at);
        let reads = |group: u32| {
            let inputs = self.groups.tasks(group).iter().flat_map(|&task| &self.program.tasks[task as usize].inputs);
            inputs.filter_map(|window| match self.program.values[window.value as usize].origin {
                Origin::Task(maker) => Some(position[self.groups.places[maker as usize].0 as usize]),
                _ => None,
            })
        };
        (0..self.groups.groups.len() as u32).map(|group| reads(group).max().unwrap_or(0)).collect()
    }
}

impl Member {
    fn group(self) -> u32 {
        let (Member::Whole(group) | Member::Maps(group) | Member::Sums(group)) = self;
        group
    }
}

/// Chains of groups, none of which needs another.
#[derive(Default)]
struct Strands {
    /// In the order in which they came.
    groups: Vec<u32>,
    strands: Vec<Vec<u32>>,
    /// Time of each, and of all.
    spent: Vec<u64>,
    total: u64,
    /// The strand of each task.
    places: HashMap<u32, usize>,
}

impl Strands {
    /// The strand that tasks with these operands go on, or a new one; None if they need several.
    fn of(&self, program: &Program, tasks: &[u32]) -> Option<usize> {
        let mut found = None;
        for window in tasks.iter().flat_map(|&task| &program.tasks[task as usize].inputs) {
            let Origin::Task(maker) = program.values[window.value as usize].origin else { continue };
            let Some(&strand) = self.places.get(&maker) else { continue };
            if *found.get_or_insert(strand) != strand {
                return None;
            }
        }
        found.or(Some(self.strands.len()))
    }

    fn push(&mut self, strand: usize, group: u32, tasks: &[u32], nanos: u64) {
        if strand == self.strands.len() {
            self.strands.push(Vec::new());
            self.spent.push(0);
        }
        self.groups.push(group);
        self.strands[strand].push(group);
        self.spent[strand] += nanos;
        self.total += nanos;
        self.places.extend(tasks.iter().map(|&task| (task, strand)));
    }
}
