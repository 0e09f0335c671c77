//! Runs a plan on the CPU: leases the arena, resolves bases to addresses, and runs the instructions in order. Everything
//! that may fail or stop comes before the commit block; from there on nothing does.

use super::{hosts, interpret};
use crate::error::{Error, ErrorKind, Result};
use crate::machine::cpu::arena;
use crate::machine::cpu::buffer::{ALIGN, Buffer};
use crate::machine::cpu::par::{self, Stopped, Work};
use crate::machine::cpu::view::View;
use crate::machine::storage::Storage;
use crate::planner::plan::{Instr, Kernel, Operand, OutputHome, Place, Plan, base};
use crate::planner::stages::{Cut, Stage};
use crate::scalar::Scalar;
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// The memory of one leaf: its first element is `offset` elements into the buffer.
#[derive(Clone)]
pub struct Leaf {
    pub buffer: Arc<Storage>,
    pub offset: usize,
}

/// What a run is given: leaves and numbers, by slot.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    pub leaves: &'a [Leaf],
    pub numbers: &'a [Scalar],
}

/// Time between polls, as far as estimates tell.
const POLL_NANOS: u64 = 200_000;

/// Runs the plan. Gives the buffer of each output, contiguous from its start; a donated output is its leaf's buffer,
/// at the leaf's offset. The caller holds the only use of donated buffers. On an error none of them has been written.
pub fn run(plan: &Plan, inputs: &Inputs) -> Result<Vec<Arc<Storage>>> {
    run_by(plan, inputs, |run, scratch| run.instructions(plan, scratch))
}

/// Runs the plan kernel by kernel and adds the nanoseconds of each to `nanos`.
pub fn run_timed(plan: &Plan, inputs: &Inputs, nanos: &mut [u64]) -> Result<Vec<Arc<Storage>>> {
    let mut before = Instant::now();
    let mut entries = nanos.iter_mut();
    let observe = |is_done: bool| {
        let now = Instant::now();
        if let Some(entry) = is_done.then(|| entries.next()).flatten() {
            *entry += (now - before).as_nanos() as u64;
        }
        before = now;
    };
    run_by(plan, inputs, |run, scratch| run.one_by_one(plan, scratch, observe))
}

/// Runs the plan with its stages, of which each part waits for the one before it, or for the one after it. A part that
/// needs memory as another leaves or finds it goes wrong in one of the two, on every machine. Nothing of an earlier run
/// is in the arena.
#[cfg(test)]
pub fn run_in_turn(plan: &Plan, inputs: &Inputs, backwards: bool) -> Result<Vec<Arc<Storage>>> {
    let forth: Share = |parts, part| {
        (0..parts).for_each(part);
        Ok(())
    };
    let back: Share = |parts, part| {
        (0..parts).rev().for_each(part);
        Ok(())
    };
    let share = if backwards { back } else { forth };
    run_by(plan, inputs, |run, scratch| {
        let arena = Place { base: base::ARENA, offset: 0, starts: SmallVec::new() };
        // SAFETY: the arena has so many bytes, and nobody uses them yet.
        unsafe { run.resolve(&arena).write_bytes(0xff, plan.arena) };
        run.in_stages(plan, share, scratch)
    })
}

/// What runs the parts of a stage.
type Share = fn(usize, &(dyn Fn(usize) + Sync)) -> std::result::Result<(), Stopped>;

fn by_threads(parts: usize, part: &(dyn Fn(usize) + Sync)) -> std::result::Result<(), Stopped> {
    par::par(parts, Work::Stage, part)
}

fn run_by(
    plan: &Plan,
    inputs: &Inputs,
    instructions: impl FnOnce(&Run, *mut u8) -> Result<()>,
) -> Result<Vec<Arc<Storage>>> {
    check_inputs(plan, inputs)?;
    let bases = base::FIRST_LEAF as usize + plan.leaves.len() + plan.buffers.len();
    let table = (bases * size_of::<*mut u8>()).next_multiple_of(ALIGN);
    let cells = (plan.cells.len() * 8).next_multiple_of(ALIGN);
    let lease = arena::lease(table + cells + plan.arena + plan.scratch)?;
    let buffers = plan
        .buffers
        .iter()
        .map(|&bytes| Buffer::new(bytes).map(|buffer| Arc::new(buffer.into())))
        .collect::<Result<SmallVec<[Arc<Storage>; 8]>>>()?;
    let start = lease.as_mut_ptr();
    // SAFETY: the lease is at least as long as the four areas together.
    let (cell_area, arena_area, scratch) =
        unsafe { (start.add(table), start.add(table + cells), start.add(table + cells + plan.arena)) };
    let run = Run { bases: start.cast(), cells: cell_area.cast(), serial: plan.serial };
    let put = |at: u32, address: *mut u8| {
        // SAFETY: the table has an entry for each base.
        unsafe { *run.bases.add(at as usize) = address };
    };
    put(base::SCRATCH, scratch);
    put(base::CONSTANTS, plan.constants.as_ptr().cast_mut().cast());
    put(base::NUMBERS, cell_area);
    put(base::ARENA, arena_area);
    for (at, leaf) in inputs.leaves.iter().enumerate().take(plan.leaves.len()) {
        // SAFETY: the leaf's elements start inside its buffer.
        put(base::FIRST_LEAF + at as u32, unsafe {
            leaf.buffer.host().as_mut_ptr().add(leaf.offset * plan.leaves[at])
        });
    }
    for (at, buffer) in buffers.iter().enumerate() {
        put(base::FIRST_LEAF + (plan.leaves.len() + at) as u32, buffer.host().as_mut_ptr());
    }
    for (at, &(slot, dtype)) in plan.cells.iter().enumerate() {
        // SAFETY: the area has a cell for each.
        unsafe { *run.cells.add(at) = inputs.numbers[slot as usize].to_bytes(dtype) };
    }
    run.check_starts(plan)?;
    par::begin();
    instructions(&run, scratch)?;
    let output = |home: &OutputHome| match home {
        OutputHome::Buffer(buffer) => Arc::clone(&buffers[*buffer as usize]),
        OutputHome::Donated(leaf) => Arc::clone(&inputs.leaves[*leaf as usize].buffer),
    };
    Ok(plan.outputs.iter().map(output).collect())
}

fn check_inputs(plan: &Plan, inputs: &Inputs) -> Result<()> {
    if inputs.leaves.len() < plan.leaves.len() || inputs.numbers.len() < plan.numbers {
        return Err(Error::internal(format!(
            "a plan of {} leaves and {} numbers was given {} and {}",
            plan.leaves.len(),
            plan.numbers,
            inputs.leaves.len(),
            inputs.numbers.len()
        )));
    }
    if plan.donated().any(|leaf| !inputs.leaves[leaf as usize].buffer.is_owned()) {
        return Err(Error::internal("a donated buffer belongs to somebody else"));
    }
    Ok(())
}

/// Addresses of one run.
pub struct Run {
    bases: *mut *mut u8,
    cells: *mut [u8; 8],
    pub serial: bool,
}

// SAFETY: the tables are not written while kernels run; what threads may write is settled by each kernel.
unsafe impl Sync for Run {}

impl Run {
    /// `bases` and `cells` are as long as the plan says and outlive this.
    pub(super) fn new(bases: *mut *mut u8, cells: *mut [u8; 8], serial: bool) -> Run {
        Run { bases, cells, serial }
    }

    #[inline]
    pub fn resolve(&self, place: &Place) -> *mut u8 {
        // SAFETY: the plan names only bases that exist, and offsets inside them; starts have been checked.
        unsafe {
            let mut at = (*self.bases.add(place.base as usize)).offset(place.offset);
            for &(cell, stride) in &place.starts {
                at = at.offset(self.number(cell) as isize * stride);
            }
            at
        }
    }

    /// An int64 cell.
    pub fn number(&self, cell: u32) -> i64 {
        // SAFETY: the plan names only cells that exist.
        i64::from_ne_bytes(unsafe { *self.cells.add(cell as usize) })
    }

    pub fn view(&self, operand: &Operand) -> View {
        View {
            ptr: self.resolve(&operand.place),
            dtype: operand.dtype,
            shape: operand.shape.clone(),
            strides: operand.strides.clone(),
        }
    }

    pub fn stopped(&self, result: std::result::Result<(), Stopped>) -> Result<()> {
        result.map_err(|Stopped| Error::new(ErrorKind::Interrupted, "the run was interrupted"))
    }

    pub(super) fn check_starts(&self, plan: &Plan) -> Result<()> {
        plan.checks.iter().try_for_each(|check| check.hold(self.number(check.cell)))
    }

    pub(super) fn instructions(&self, plan: &Plan, scratch: *mut u8) -> Result<()> {
        if plan.stages.is_empty() || par::width(Work::Stage) == 1 {
            return self.one_by_one(plan, scratch, |_| {});
        }
        let start = Instant::now();
        if plan.pace.shares() {
            self.in_stages(plan, by_threads, scratch)?;
        } else {
            self.one_by_one(plan, scratch, |_| {})?;
        }
        plan.pace.ran(start.elapsed());
        Ok(())
    }

    /// `observe` is called before the first kernel, with false, and after each, with true.
    #[inline]
    pub(super) fn one_by_one(&self, plan: &Plan, scratch: *mut u8, mut observe: impl FnMut(bool)) -> Result<()> {
        observe(false);
        let (before, commit) = plan.instrs.split_at(plan.commit);
        let bad = self.stretch(before, scratch, &mut observe)?;
        self.commit(plan, bad, || self.stretch(commit, scratch, &mut observe))
    }

    #[inline(never)]
    fn in_stages(&self, plan: &Plan, share: Share, scratch: *mut u8) -> Result<()> {
        let (before, commit) =
            plan.stages.split_at(plan.stages.partition_point(|stage| stage.kernels.start < plan.commit));
        let bad = self.stages(plan, (before, share), 0..plan.commit, scratch)?;
        self.commit(plan, bad, || self.stages(plan, (commit, share), plan.commit..plan.instrs.len(), scratch))
    }

    /// Runs the commit block, unless an index before it was out of range.
    #[inline(always)]
    fn commit(&self, plan: &Plan, bad: Option<Error>, block: impl FnOnce() -> Result<Option<Error>>) -> Result<()> {
        if let Some(error) = bad {
            return Err(error);
        }
        // The last moment at which nothing has happened. A serial plan is over before anybody could ask twice.
        if !self.serial {
            self.stopped(par::poll())?;
        }
        if plan.commit == plan.instrs.len() {
            return Ok(());
        }
        par::without_polls(block).map(|_| ())
    }

    /// Runs a span of kernels and the stages in it.
    fn stages(
        &self,
        plan: &Plan,
        (stages, share): (&[Stage], Share),
        span: Range<usize>,
        scratch: *mut u8,
    ) -> Result<Option<Error>> {
        let (mut at, mut bad) = (span.start, None);
        for stage in stages {
            let found = self.stretch(&plan.instrs[at..stage.kernels.start], scratch, &mut |_| {})?;
            bad = bad.or(found);
            self.stopped(par::poll())?;
            self.stage(plan, stage, share)?;
            at = stage.kernels.end;
        }
        let found = self.stretch(&plan.instrs[at..span.end], scratch, &mut |_| {})?;
        Ok(bad.or(found))
    }

    /// Runs kernels one after another; gives the first error of an index out of range, which does not stop them.
    #[inline(always)]
    fn stretch(&self, instrs: &[Instr], scratch: *mut u8, observe: &mut impl FnMut(bool)) -> Result<Option<Error>> {
        let (mut bad, mut nanos) = (None, 0);
        for instr in instrs {
            nanos += u64::from(instr.nanos);
            if nanos >= POLL_NANOS {
                self.stopped(par::poll())?;
                nanos = 0;
            }
            let found = self.instruction(instr, scratch)?;
            observe(true);
            bad = bad.or(found);
        }
        Ok(bad)
    }

    /// Runs the kernels of a stage on as many threads as there are.
    fn stage(&self, plan: &Plan, stage: &Stage, share: Share) -> Result<()> {
        let failed = Mutex::new(None);
        let keep = |result: Result<()>| {
            result.unwrap_or_else(|error| _ = failed.lock().get_or_insert(error));
        };
        let result = match &stage.cut {
            Cut::Rows { rows, parts } => {
                let parts = par::width(Work::Stage).min(*parts);
                share(parts, &|part| {
                    let mine = par::share(part, parts, *rows);
                    let mut kernels = plan.instrs[stage.kernels.clone()].iter();
                    keep(kernels.try_for_each(|instr| self.some_rows(instr, mine.clone(), *rows)));
                })
            }
            Cut::Strands(starts) => share(starts.len() - 1, &|strand| {
                let mut kernels = plan.instrs[starts[strand]..starts[strand + 1]].iter();
                keep(kernels.try_for_each(|instr| self.all_rows(instr)));
            }),
        };
        self.stopped(result)?;
        failed.into_inner().map_or(Ok(()), Err)
    }

    /// Runs a kernel of a stage for some of `rows` rows, on this thread.
    #[inline(never)]
    fn some_rows(&self, instr: &Instr, mine: Range<usize>, rows: usize) -> Result<()> {
        match &instr.kernel {
            Kernel::Rows(program) => {
                // SAFETY: this run belongs to the instruction's plan, which cuts the kernel so.
                unsafe { interpret::some_rows(program, self, mine, rows) };
                Ok(())
            }
            Kernel::Contract(product) => {
                let each = product.shape.0 / rows;
                hosts::contract(product, self, mine.start * each..mine.end * each)
            }
            _ => Err(Error::internal(format!("{} is cut by rows", instr.name))),
        }
    }

    /// Runs a whole kernel of a stage on this thread.
    #[inline(never)]
    fn all_rows(&self, instr: &Instr) -> Result<()> {
        let scratch = match &instr.kernel {
            Kernel::Rows(program) => program.scratch,
            _ => 0,
        };
        interpret::with_scratch(scratch, |scratch| self.instruction(instr, scratch)).map(|_| ())
    }

    /// Runs one kernel; gives the error of an index out of range, which does not stop the kernels after it.
    #[inline(always)]
    fn instruction(&self, instr: &Instr, scratch: *mut u8) -> Result<Option<Error>> {
        match &instr.kernel {
            Kernel::Rows(program) => {
                // SAFETY: this run belongs to the instruction's plan.
                unsafe { interpret::rows(program, self, scratch)? };
                Ok(None)
            }
            _ => hosts::run(instr, self),
        }
    }
}
