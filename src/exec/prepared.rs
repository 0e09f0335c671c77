//! A plan with its tables kept, to be run many times: nothing is allocated, hashed or locked in a run. Whoever owns it
//! says where leaves and results lie and what the numbers are before each run, and lends the working memory.

use super::cpu::Run;
use crate::error::Result;
use crate::machine::cpu::par;
use crate::planner::Plan;
use crate::planner::plan::base;
use crate::scalar::Scalar;

pub struct Prepared {
    plan: Plan,
    /// An address for each base.
    bases: Box<[*mut u8]>,
    cells: Box<[[u8; 8]]>,
}

// SAFETY: the addresses are used only in `run`, whose caller answers for them.
unsafe impl Send for Prepared {}

impl Prepared {
    pub fn new(plan: Plan) -> Prepared {
        let bases = base::FIRST_LEAF as usize + plan.leaves.len() + plan.buffers.len();
        let bases = vec![std::ptr::null_mut(); bases].into_boxed_slice();
        let cells = vec![[0; 8]; plan.cells.len()].into_boxed_slice();
        let mut prepared = Prepared { plan, bases, cells };
        prepared.bases[base::CONSTANTS as usize] = prepared.plan.constants.as_ptr().cast_mut().cast();
        prepared.bases[base::NUMBERS as usize] = prepared.cells.as_mut_ptr().cast();
        prepared
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// About how long a run takes on one thread.
    pub fn nanos(&self) -> u64 {
        self.plan.instrs.iter().map(|instr| u64::from(instr.nanos)).sum()
    }

    /// Bytes of the memory that a run works in.
    pub fn working_bytes(&self) -> usize {
        self.plan.arena + self.plan.scratch
    }

    /// Bytes of each result that has a buffer of its own.
    pub fn buffers(&self) -> &[usize] {
        &self.plan.buffers
    }

    /// The slot of the number in each cell.
    pub fn cells(&self) -> impl Iterator<Item = u32> + '_ {
        self.plan.cells.iter().map(|&(slot, _)| slot)
    }

    pub fn set_cell(&mut self, cell: usize, number: Scalar) {
        self.cells[cell] = number.to_bytes(self.plan.cells[cell].1);
    }

    pub fn set_leaf(&mut self, leaf: usize, address: *mut u8) {
        self.bases[base::FIRST_LEAF as usize + leaf] = address;
    }

    pub fn set_buffer(&mut self, buffer: usize, address: *mut u8) {
        self.bases[base::FIRST_LEAF as usize + self.plan.leaves.len() + buffer] = address;
    }

    fn work_in(&mut self, memory: *mut u8) -> (Run, *mut u8) {
        // SAFETY: the caller's memory holds arena and scratch.
        let scratch = unsafe { memory.add(self.plan.arena) };
        self.bases[base::ARENA as usize] = memory;
        self.bases[base::SCRATCH as usize] = scratch;
        (Run::new(self.bases.as_mut_ptr(), self.cells.as_mut_ptr(), self.plan.serial), scratch)
    }

    /// Runs the plan. On an error no donated leaf has been written.
    ///
    /// # Safety
    /// `memory` is aligned and holds `working_bytes`; leaves and buffers have been set to memory that is valid for what
    /// the plan does with it, and nobody else uses what it writes.
    pub unsafe fn run(&mut self, memory: *mut u8) -> Result<()> {
        let (run, scratch) = self.work_in(memory);
        run.check_starts(&self.plan)?;
        par::begin();
        run.instructions(&self.plan, scratch)
    }

    /// Runs the plan kernel by kernel; `observe` is called before the first one, with false, and after each, with true.
    ///
    /// # Safety
    /// As for `run`.
    pub unsafe fn observe(&mut self, memory: *mut u8, observe: impl FnMut(bool)) -> Result<()> {
        let (run, scratch) = self.work_in(memory);
        run.check_starts(&self.plan)?;
        par::begin();
        run.one_by_one(&self.plan, scratch, observe)
    }
}
