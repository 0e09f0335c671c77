//! The plan: a flat list of kernels, all addresses resolved to a base and an offset. It holds what running needs and
//! nothing of the graph. But for its pace a plan never changes; many threads may run it at once.

use super::account::Account;
use super::stages::{Cut, Stage};
use super::tasks::Check;
use super::window::{Dims, Window};
use crate::dtype::DType;
use crate::graph::def::{FillFn, RunFn};
use crate::graph::{Attrs, GatherMode, PoolRole};
use crate::machine::cpu::chain::ChainKernel;
use crate::machine::cpu::dispatch::SliceKernel;
use crate::machine::cpu::pace::Pace;
use crate::machine::cpu::par::Work;
use crate::machine::cpu::pool::Pool;
use crate::machine::cpu::reduce::{ReduceKernels, RowsKernel};
use crate::ops::conv::Convolution;
use crate::shape::{Shape, Strides};
use smallvec::SmallVec;
use std::fmt;

/// Bases of addresses: the running thread's scratch, the plan's constants, the cells of numbers, the arena; then the
/// leaves, then the output buffers.
pub mod base {
    pub const SCRATCH: u32 = 0;
    pub const CONSTANTS: u32 = 1;
    pub const NUMBERS: u32 = 2;
    pub const ARENA: u32 = 3;
    pub const FIRST_LEAF: u32 = 4;
}

/// An address: bytes from a base, and further bytes for each step of a number known at run time.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    pub base: u32,
    pub offset: isize,
    pub starts: SmallVec<[(u32, isize); 1]>,
}

/// A strided operand of a kernel outside the row interpreter.
#[derive(Clone, Debug)]
pub struct Operand {
    pub place: Place,
    pub dtype: DType,
    pub shape: Shape,
    pub strides: Strides,
}

/// A register of a row program: where its elements of a tile lie, as bytes to skip for each row and for each element
/// of a row.
#[derive(Clone, Debug)]
pub struct Reg {
    pub place: Place,
    pub row_step: isize,
    pub col_step: isize,
    /// One element for the whole tile.
    pub scalar: bool,
}

/// One instruction of a row program, for one tile. Operands are registers.
#[derive(Clone)]
pub enum Step {
    /// `column`: one element for each row of the tile instead of one for each element.
    Map { kernel: SliceKernel, out: u16, args: SmallVec<[u16; 3]>, column: bool },
    /// Several ops in one.
    Chain { kernel: ChainKernel, outs: SmallVec<[u16; 3]>, args: SmallVec<[u16; 8]> },
    /// Each row of the tile to one element of a column.
    Reduce { kernel: RowsKernel, from: u16, out: u16 },
    /// Strided elements to contiguous ones.
    Load { from: u16, out: u16, dims: Dims, bytes: u8, column: bool },
    /// Each element of a column along its row.
    Spread { from: u16, out: u16, bytes: u8 },
    /// One row again for each row of the tile.
    Repeat { from: u16, out: u16, bytes: u8 },
    /// Adds the rows of the tile to the chunk's partial result.
    Sum { sum: u16 },
    /// Reduces the tile, a block of a long row, to the block's partial result.
    Block { sum: u16 },
}

/// A reduction that is complete only when the row program is: of rows to one, or of a long row.
#[derive(Clone)]
pub struct Sum {
    pub kernels: &'static ReduceKernels,
    pub from: u16,
    /// The partial results of all parts, result by result; the result itself if there is one part.
    pub partials: Place,
    pub out: Place,
    /// Chunks of rows, or blocks of a row.
    pub parts: usize,
    /// Elements of one result: a row, or 1 for the reduction of a long row.
    pub len: usize,
    /// How many results there are.
    pub results: usize,
    pub bytes: usize,
}

/// Elementwise work over `rows` rows of `len` elements, tile by tile.
pub struct RowProgram {
    pub rows: usize,
    pub len: usize,
    /// Rows that one outer reduction adds up; all of them if there is none.
    pub segment: usize,
    /// Rows of a tile; more than one only if a tile holds whole rows.
    pub tile_rows: usize,
    /// Elements of a row in a tile.
    pub piece: usize,
    /// Pieces of work in order: whole tiles, or whole chunks where rows are added up, for each piece of a row.
    pub units: usize,
    pub regs: Vec<Reg>,
    /// Steps that need to run only once, before the first tile.
    pub prologue: Vec<Step>,
    pub steps: Vec<Step>,
    pub sums: Vec<Sum>,
    /// The ops of the steps, in order.
    pub names: Vec<&'static str>,
    /// Bytes of scratch that one thread needs.
    pub scratch: usize,
    pub work: Work,
}

impl RowProgram {
    /// Whether each of so many rows of its operands is some whole rows of its own, or part of its only one.
    pub fn keeps_rows(&self, rows: usize) -> bool {
        self.rows == 1 || self.rows.is_multiple_of(rows)
    }
}

/// Whether some reduction adds rows, so that work is cut at chunks of them.
pub fn adds_rows(sums: &[Sum]) -> bool {
    sums.iter().any(|sum| sum.len > 1)
}

/// Matrix products: [m, k] times [k, n], `batch` of them for each index of `outer`. Steps count elements.
#[derive(Clone, Debug)]
pub struct Product {
    pub dtype: DType,
    pub a: Place,
    pub b: Place,
    pub out: Place,
    pub shape: (usize, usize, usize),
    /// Row and column steps of a and of b; the result is row-major.
    pub a_steps: (isize, isize),
    pub b_steps: (isize, isize),
    pub batch: Batch,
    pub outer: SmallVec<[Batch; 1]>,
}

/// One batch axis: its extent, and the steps of a, b and the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    pub extent: usize,
    pub steps: [isize; 3],
}

pub enum Kernel {
    Rows(RowProgram),
    Contract(Product),
    Conv {
        conv: Box<Convolution>,
        inputs: [Place; 2],
        out: Place,
        workspace: Place,
    },
    /// The dtypes are those of the values and of the taps; an input that the role lacks is the first again.
    Pool {
        pool: Box<Pool>,
        role: PoolRole,
        dtypes: (DType, DType),
        inputs: [Place; 2],
        out: Place,
    },
    Gather {
        mode: GatherMode,
        axis: usize,
        from: Operand,
        indices: Operand,
        out: Operand,
    },
    Scatter {
        mode: GatherMode,
        axis: usize,
        updates: Operand,
        indices: Operand,
        out: Operand,
    },
    /// `window` is where the operand stands in `out`; the rest is zero.
    Embed {
        from: Operand,
        window: Operand,
        out: Operand,
    },
    /// Each operand and where it stands in the result.
    Concat {
        parts: Vec<(Operand, Operand)>,
    },
    Random {
        fill: FillFn,
        seed: Place,
        stream: Place,
        out: Place,
        size: usize,
        dtype: DType,
    },
    /// A composite by its hand kernel.
    Hand {
        run: RunFn,
        attrs: Attrs,
        inputs: Vec<Operand>,
        outputs: Vec<Operand>,
    },
}

pub struct Instr {
    /// The op, or the ops of a row program, for prints and errors.
    pub name: &'static str,
    pub kernel: Kernel,
    /// About how long it runs on one thread.
    pub nanos: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputHome {
    Buffer(u32),
    /// Written over the old value of this leaf.
    Donated(u32),
}

pub struct Plan {
    pub(crate) instrs: Vec<Instr>,
    /// Instructions that run as one, in order; none reaches into the commit block from outside.
    pub(crate) stages: Vec<Stage>,
    pub(crate) pace: Pace,
    /// What each instruction does.
    pub(crate) accounts: Vec<Account>,
    /// Instructions from here on are the commit block: nothing may fail or stop between them.
    pub(crate) commit: usize,
    pub(crate) constants: Vec<u64>,
    pub(crate) cells: Vec<(u32, DType)>,
    pub(crate) checks: Vec<Check>,
    /// Bytes of an element of each leaf.
    pub(crate) leaves: Vec<usize>,
    pub(crate) numbers: usize,
    pub(crate) buffers: Vec<usize>,
    pub(crate) outputs: Vec<OutputHome>,
    pub(crate) arena: usize,
    pub(crate) scratch: usize,
    /// Too little to do for helpers to pay.
    pub(crate) serial: bool,
}

impl Plan {
    /// Where each output is found after a run.
    pub fn outputs(&self) -> &[OutputHome] {
        &self.outputs
    }

    /// The leaves whose buffers a run overwrites.
    pub fn donated(&self) -> impl Iterator<Item = u32> + '_ {
        self.outputs.iter().filter_map(|home| match home {
            OutputHome::Donated(leaf) => Some(*leaf),
            OutputHome::Buffer(_) => None,
        })
    }

    /// How many leaves and numbers a run is given.
    pub fn inputs(&self) -> (usize, usize) {
        (self.leaves.len(), self.numbers)
    }

    /// Bytes of an element of a leaf.
    pub fn leaf_bytes(&self, leaf: usize) -> usize {
        self.leaves[leaf]
    }

    pub fn kernels(&self) -> usize {
        self.instrs.len()
    }

    /// What each kernel does, and how many of them come before the commit block.
    pub fn accounts(&self) -> (&[Account], usize) {
        (&self.accounts, self.commit)
    }

    /// The stage that a kernel belongs to, if any.
    pub fn stage(&self, kernel: usize) -> Option<usize> {
        self.stages.iter().position(|stage| stage.kernels.contains(&kernel))
    }

    /// Bytes of the memory for values between kernels.
    pub fn arena(&self) -> usize {
        self.arena
    }

    /// About what the plan itself takes in memory: what the cache counts.
    pub fn bytes(&self) -> usize {
        let instr = |instr: &Instr| match &instr.kernel {
            Kernel::Rows(rows) => {
                rows.regs.len() * size_of::<Reg>()
                    + (rows.steps.len() + rows.prologue.len()) * size_of::<Step>()
                    + rows.sums.len() * size_of::<Sum>()
            }
            Kernel::Concat { parts } => parts.len() * size_of::<(Operand, Operand)>(),
            Kernel::Hand { inputs, outputs, .. } => (inputs.len() + outputs.len()) * size_of::<Operand>(),
            _ => 0,
        };
        size_of::<Plan>()
            + self.instrs.iter().map(instr).sum::<usize>()
            + self.instrs.capacity() * size_of::<Instr>()
            + self.constants.len() * 8
            + (self.cells.len() + self.outputs.len() + self.leaves.len()) * 16
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} kernels, arena {} B, {} outputs", self.instrs.len(), self.arena, self.outputs.len())?;
        for (at, instr) in self.instrs.iter().enumerate() {
            if at == self.commit {
                writeln!(f, "commit:")?;
            }
            if let Some(stage) = self.stages.iter().find(|stage| stage.kernels.start == at) {
                writeln!(f, "{stage}")?;
            }
            match &instr.kernel {
                Kernel::Rows(p) => {
                    write!(f, "rows {}x{} tile {}x{}:", p.rows, p.len, p.tile_rows, p.piece)?;
                    p.prologue.iter().chain(&p.steps).try_for_each(|step| write!(f, " {step}"))?;
                    writeln!(f, " ({})", p.names.join(" "))?;
                }
                Kernel::Contract(p) => writeln!(f, "matmul {:?} batch {:?} {:?}", p.shape, p.batch.extent, p.outer)?,
                _ => writeln!(f, "{}", instr.name)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "together {}", self.kernels.len())?;
        match &self.cut {
            Cut::Rows { rows, parts } => write!(f, ", {rows} rows in {parts} parts:"),
            Cut::Strands(starts) => write!(f, " in {} strands:", starts.len() - 1),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Map { out, args, column, .. } => {
                write!(f, "{}{out}={args:?}", if *column { "col" } else { "r" })
            }
            Step::Chain { outs, args, .. } => write!(f, "c{outs:?}={args:?}"),
            Step::Reduce { from, out, .. } => write!(f, "reduce{out}=[{from}]"),
            Step::Load { from, out, dims, .. } => write!(f, "load{out}=[{from}]{dims:?}"),
            Step::Spread { from, out, .. } => write!(f, "spread{out}=[{from}]"),
            Step::Repeat { from, out, .. } => write!(f, "repeat{out}=[{from}]"),
            Step::Sum { sum } => write!(f, "sum#{sum}"),
            Step::Block { sum } => write!(f, "block#{sum}"),
        }
    }
}

/// The operand that a window on a placed value is.
pub(super) fn operand(window: &Window, place: Place, dtype: DType) -> Operand {
    Operand { place, dtype, shape: window.shape.clone(), strides: window.strides.clone() }
}
