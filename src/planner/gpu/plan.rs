//! A plan for a GPU: generated shaders with what they bind, and a template of their parameters. It names no driver and
//! holds nothing of the graph. A plan never changes; many threads may run it at once.

use crate::dtype::DType;
use crate::planner::account::Account;
use crate::planner::plan::OutputHome;
use crate::planner::tasks::Check;
use smallvec::SmallVec;
use std::fmt;

/// What a device allows, in plain numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Storage buffers that one kernel can bind.
    pub buffers: usize,
    /// Bytes of one buffer as a kernel sees it.
    pub binding_bytes: usize,
    /// Workgroups along one axis of a dispatch.
    pub groups: usize,
    /// Bytes of workgroup memory.
    pub group_bytes: usize,
    /// Threads of a workgroup.
    pub group_threads: usize,
    /// Rounds of all loops that a thread goes through, summed: past them a device may leave each loop without a word.
    pub loop_rounds: usize,
}

/// Where a value that outlives its kernel lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Home {
    /// In a register of the kernel that makes and reads it.
    Register,
    /// The working buffer of this number, which other values use before and after.
    Slot(u32),
    /// The output buffer of this number.
    Buffer(u32),
    Leaf(u32),
    /// A number of the plan's input.
    Number(u32),
    /// At this byte of the program's constants.
    Constant(u32),
}

/// One word of a kernel's parameters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Word {
    Fixed(u32),
    /// A number that stands for an op, in the words of a fault.
    Name(&'static str),
    /// A word of a number: of the cell `.0`, the low one or (`.1` = 1) the high one of int64.
    Cell(u32, u8),
    /// The first element that a window shows, in elements of its buffer: that of the leaf, if it is one, then a fixed
    /// offset, then so many elements for each step of an int64 cell.
    Offset {
        leaf: Option<u32>,
        fixed: i64,
        starts: SmallVec<[(u32, i64); 1]>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Binding {
    pub home: Home,
    pub writes: bool,
}

/// One dispatch.
pub struct Kernel {
    /// The op, or the first of a row program, for prints and errors.
    pub name: &'static str,
    pub wgsl: String,
    /// In the order of the shader's bindings, after the parameters.
    pub bindings: Vec<Binding>,
    /// Whether the device's fault words follow the bindings.
    pub fault: bool,
    pub words: Vec<Word>,
    pub groups: [u32; 3],
}

pub struct Plan {
    pub kernels: Vec<Kernel>,
    /// What each kernel does; those of a task in several kernels are on the last.
    pub accounts: Vec<Account>,
    /// Kernels from here on are the commit block.
    pub commit: usize,
    pub cells: Vec<(u32, DType)>,
    pub checks: Vec<Check>,
    /// How many leaves and numbers a run is given.
    pub leaves: usize,
    pub numbers: usize,
    /// Bytes of each working buffer.
    pub slots: Vec<usize>,
    /// Bytes of each output buffer.
    pub buffers: Vec<usize>,
    pub outputs: Vec<OutputHome>,
}

impl Plan {
    /// Where each output is found after a run.
    pub fn outputs(&self) -> &[OutputHome] {
        &self.outputs
    }

    pub fn kernels(&self) -> &[Kernel] {
        &self.kernels
    }

    /// What each kernel does, and how many of them come before the commit block.
    pub fn accounts(&self) -> (&[Account], usize) {
        (&self.accounts, self.commit)
    }

    /// Bytes of the memory for values between kernels.
    pub fn working_bytes(&self) -> usize {
        self.slots.iter().sum()
    }

    /// About what the plan itself takes in memory: what the cache counts.
    pub fn bytes(&self) -> usize {
        let kernel = |kernel: &Kernel| {
            size_of::<Kernel>()
                + kernel.wgsl.len()
                + kernel.bindings.len() * size_of::<Binding>()
                + kernel.words.len() * size_of::<Word>()
        };
        size_of::<Plan>()
            + self.kernels.iter().map(kernel).sum::<usize>()
            + (self.cells.len() + self.outputs.len() + self.slots.len() + self.buffers.len()) * 16
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kernels, bytes, outputs) = (self.kernels.len(), self.working_bytes(), self.outputs.len());
        writeln!(f, "{kernels} kernels, {bytes} B between them, {outputs} outputs")?;
        for (at, kernel) in self.kernels.iter().enumerate() {
            if at == self.commit {
                writeln!(f, "commit:")?;
            }
            writeln!(f, "{} {:?}", kernel.name, kernel.groups)?;
        }
        Ok(())
    }
}
