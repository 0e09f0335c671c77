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
    /// A number that stands for an op and the axis that it has indices for.
    Index(&'static str, u32),
    /// The number of the run, and the first word of its record among those that bad indices are noted in.
    Run,
    Record,
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
    /// Whether the words that bad indices are noted in follow the bindings.
    pub fault: bool,
    pub words: Vec<Word>,
    pub groups: [u32; 3],
}

/// What a value depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// A bit for each leaf.
    leaves: SmallVec<[u64; 2]>,
    /// An index that a kernel of the plan looks at.
    pub indices: bool,
}

impl Sources {
    /// Of what kernels make of no input; they may look at indices.
    pub fn of_kernels(indices: bool) -> Sources {
        Sources { leaves: SmallVec::new(), indices }
    }

    pub fn add_leaf(&mut self, leaf: u32) {
        let word = leaf as usize / 64;
        self.leaves.resize(self.leaves.len().max(word + 1), 0);
        self.leaves[word] |= 1 << (leaf % 64);
    }

    pub fn add(&mut self, other: &Sources) {
        self.leaves.resize(self.leaves.len().max(other.leaves.len()), 0);
        self.leaves.iter_mut().zip(&other.leaves).for_each(|(word, other)| *word |= other);
        self.indices |= other.indices;
    }

    pub fn has_leaf(&self, leaf: u32) -> bool {
        self.leaves.get(leaf as usize / 64).is_some_and(|word| word >> (leaf % 64) & 1 == 1)
    }
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
    /// What each output buffer depends on; of what is written over leaves nobody asks, for it is left when an index is bad.
    pub sources: Vec<Sources>,
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
            + self.sources.iter().map(|sources| size_of_val(sources) + 8 * sources.leaves.len()).sum::<usize>()
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
