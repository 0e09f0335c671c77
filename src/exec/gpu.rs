//! Runs a plan on a GPU: fills its parameters, takes buffers from the device's pool, and hands all kernels over in one
//! submission. Nothing is read back. What a kernel finds out too late for that, an index out of range, keeps the commit
//! block from writing and is raised by the next read.

use super::cpu::{Inputs, Leaf};
use crate::autodiff::{HandKernels, Known, expand_to};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::Graph;
use crate::graph::verify::verify;
use crate::machine::cpu::par::{self, Work};
use crate::machine::gpu::{Access, Binding, Buffer, Context, Dispatch, Doubt, Pipeline, Turn, context, fault_code};
use crate::machine::lock::Lock;
use crate::machine::storage::Storage;
use crate::planner::gpu::{Home, Kernel, Limits, Plan as Shaders, Word};
use crate::planner::{self, Donation, OutputHome};
use crate::scalar::Scalar;
use crate::shape::Strides;
use hashbrown::HashSet;
use smallvec::SmallVec;
use std::fmt;
use std::sync::Arc;

/// What the parameters of a kernel are aligned to, in words.
const BLOCK: usize = 64;

/// What making a pipeline costs, as multiply-adds: about a millisecond.
const PIPELINE: usize = 32 << 20;

/// A plan for one device.
pub struct Plan {
    shaders: Shaders,
    device: u8,
    /// The first word of each kernel's parameters, and the number of all words.
    blocks: Vec<u32>,
    words: usize,
    /// The leaves that kernels bind.
    reads: Vec<u32>,
    pipelines: Lock<Option<Ready>>,
}

/// The pipelines as the context of this serial number made them.
struct Ready {
    serial: u64,
    pipelines: Arc<[Arc<Pipeline>]>,
}

/// The plan of a graph for a device.
pub fn build(
    graph: &Graph,
    known: &Known,
    leaf_strides: &[Strides],
    donations: &[Donation],
    device: u8,
) -> Result<Plan> {
    let context = context(device)?;
    let expanded = expand_to(graph, known, HandKernels::KeepForDevices)?;
    let simple = planner::simplify(expanded)?;
    verify(&simple, "simplification")?;
    let shaders = planner::gpu::plan(&simple, leaf_strides, donations, &limits(&context))?;
    Ok(Plan::new(shaders, device))
}

pub(super) fn limits(context: &Context) -> Limits {
    let limits = context.limits();
    Limits {
        buffers: limits.storage_buffers,
        binding_bytes: limits.buffer_bytes,
        groups: limits.groups,
        group_bytes: limits.group_bytes,
        group_threads: limits.group_threads,
        loop_rounds: limits.loop_rounds,
    }
}

impl Plan {
    pub(super) fn new(shaders: Shaders, device: u8) -> Plan {
        let mut blocks = Vec::with_capacity(shaders.kernels().len());
        let mut words = 0;
        for kernel in shaders.kernels() {
            blocks.push(words as u32);
            words += kernel.words.len().next_multiple_of(BLOCK);
        }
        let homes = shaders.kernels().iter().flat_map(|kernel| &kernel.bindings).map(|binding| binding.home);
        let mut reads: Vec<u32> =
            homes.filter_map(|home| if let Home::Leaf(leaf) = home { Some(leaf) } else { None }).collect();
        reads.sort_unstable();
        reads.dedup();
        Plan { shaders, device, blocks, words, reads, pipelines: Lock::new(None) }
    }

    pub fn shaders(&self) -> &Shaders {
        &self.shaders
    }

    /// The number of the device that it runs on.
    pub fn device(&self) -> u8 {
        self.device
    }

    fn pipelines(&self, context: &Context) -> Result<Arc<[Arc<Pipeline>]>> {
        if let Some(ready) = self.pipelines.lock().as_ref().filter(|ready| ready.serial == context.serial()) {
            return Ok(Arc::clone(&ready.pipelines));
        }
        let kernels = self.shaders.kernels();
        compile_together(context, kernels)?;
        let made: Result<Vec<Arc<Pipeline>>> = kernels.iter().map(|kernel| compile(context, kernel)).collect();
        let made = made?;
        let made: Arc<[Arc<Pipeline>]> = made.into();
        *self.pipelines.lock() = Some(Ready { serial: context.serial(), pipelines: Arc::clone(&made) });
        Ok(made)
    }

    /// The words of all parameters.
    fn parameters(&self, leaves: &[Leaf], numbers: &[Scalar], turn: &Turn) -> Vec<u32> {
        let mut words = vec![0; self.words];
        let cell = |cell: u32| {
            let (slot, dtype) = self.shaders.cells[cell as usize];
            u64::from_ne_bytes(numbers[slot as usize].to_bytes(dtype))
        };
        for (kernel, &block) in self.shaders.kernels().iter().zip(&self.blocks) {
            for (word, out) in kernel.words.iter().zip(&mut words[block as usize..]) {
                *out = match word {
                    Word::Fixed(word) => *word,
                    Word::Index(name, axis) => fault_code(name, *axis),
                    Word::Run => turn.number() as u32,
                    Word::Record => turn.record(),
                    Word::Cell(number, half) => (cell(*number) >> (32 * u32::from(*half))) as u32,
                    Word::Offset { leaf, fixed, starts } => {
                        let first = leaf.map_or(0, |leaf| leaves[leaf as usize].offset as i64);
                        let moved = |&(number, stride): &(u32, i64)| (cell(number) as i64).wrapping_mul(stride);
                        (first + fixed + starts.iter().map(moved).sum::<i64>()) as u32
                    }
                };
            }
        }
        words
    }

    /// The leaves that may depend on a bad index; an error if one is known to.
    fn doubts(&self, leaves: &[Leaf], turn: &Turn) -> Result<Vec<(u32, Doubt)>> {
        let mut doubts = Vec::new();
        for &leaf in &self.reads {
            let doubt = turn.doubt(leaves[leaf as usize].buffer.gpu()?)?;
            if doubt != Doubt::default() {
                doubts.push((leaf, doubt));
            }
        }
        Ok(doubts)
    }

    fn check(&self, leaves: &[Leaf], numbers: &[Scalar]) -> Result<()> {
        if leaves.len() < self.shaders.leaves || numbers.len() < self.shaders.numbers {
            return Err(Error::internal("a plan was given too few leaves or numbers"));
        }
        for check in &self.shaders.checks {
            let (slot, _) = self.shaders.cells[check.cell as usize];
            check.hold(numbers[slot as usize].as_i64())?;
        }
        Ok(())
    }
}

fn compile(context: &Context, kernel: &Kernel) -> Result<Arc<Pipeline>> {
    let writes = kernel.bindings.iter().map(|binding| binding.writes).chain(kernel.fault.then_some(true));
    let access: Vec<Access> = writes.map(|writes| if writes { Access::ReadWrite } else { Access::Read }).collect();
    context.pipeline(&kernel.wgsl, &access, kernel.words.len().next_multiple_of(4) as u32)
}

impl Plan {
    /// An error about memory, in the name of the first kernel that uses it.
    #[cold]
    fn within_user(&self, home: Home, error: Error) -> Error {
        let uses = |kernel: &&Kernel| kernel.bindings.iter().any(|binding| binding.home == home);
        match self.shaders.kernels().iter().find(uses) {
            Some(kernel) => error.within(kernel.name),
            None => error,
        }
    }
}

/// Makes the pipelines side by side, for each takes milliseconds. Afterwards the context has those that can be made.
fn compile_together(context: &Context, kernels: &[Kernel]) -> Result<()> {
    let mut texts = HashSet::new();
    let kernels: Vec<&Kernel> = kernels.iter().filter(|kernel| texts.insert(kernel.wgsl.as_str())).collect();
    let work = Work::MulAdds(kernels.len() * PIPELINE);
    par::par(kernels.len(), work, &|at| _ = compile(context, kernels[at]))
        .map_err(|par::Stopped| Error::new(ErrorKind::Interrupted, "the run was interrupted"))
}

/// Runs the plan: see `cpu::run`. It is done when something is read, and no sooner.
pub fn run(plan: &Plan, inputs: &Inputs) -> Result<Vec<Arc<Storage>>> {
    let Inputs { leaves, numbers } = *inputs;
    par::begin();
    let context = context(plan.device)?;
    plan.check(leaves, numbers)?;
    let pipelines = plan.pipelines(&context)?;
    let take = |bytes: &[usize], home: fn(u32) -> Home| {
        let alloc = |(at, &bytes): (usize, &usize)| {
            context.alloc(bytes).map_err(|error| plan.within_user(home(at as u32), error))
        };
        bytes.iter().enumerate().map(alloc).collect::<Result<Vec<Buffer>>>()
    };
    let (slots, buffers) = (take(&plan.shaders.slots, Home::Slot)?, take(&plan.shaders.buffers, Home::Buffer)?);
    let fault = context.fault()?;
    let binding = |home: Home| -> Result<Binding<'_>> {
        match home {
            Home::Slot(slot) => Ok(slots[slot as usize].binding()),
            Home::Buffer(buffer) => Ok(buffers[buffer as usize].binding()),
            Home::Leaf(leaf) => Ok(leaves[leaf as usize].buffer.gpu()?.binding()),
            Home::Register | Home::Number(_) | Home::Constant(_) => Err(Error::internal("a binding without memory")),
        }
    };
    let mut dispatches = Vec::with_capacity(pipelines.len());
    for ((kernel, pipeline), &params) in plan.shaders.kernels().iter().zip(pipelines.iter()).zip(&plan.blocks) {
        let bound = kernel.bindings.iter().map(|bound| binding(bound.home));
        let mut bound: SmallVec<[Binding<'_>; 8]> = bound.collect::<Result<_>>()?;
        bound.extend(kernel.fault.then_some(fault));
        dispatches.push(Dispatch { pipeline, buffers: bound, params, groups: kernel.groups });
    }
    let turn = context.turn(plan.words)?;
    let doubts = plan.doubts(leaves, &turn)?;
    let parameters = plan.parameters(leaves, numbers, &turn);
    let number = turn.number();
    turn.run(&parameters, &dispatches)?;
    drop(dispatches);
    for (buffer, sources) in buffers.iter().zip(&plan.shaders.sources) {
        let own = if sources.indices { Doubt::of(number) } else { Doubt::default() };
        let of_leaves = doubts.iter().filter(|(leaf, _)| sources.has_leaf(*leaf)).map(|&(_, doubt)| doubt);
        buffer.set_doubt(of_leaves.fold(own, Doubt::and));
        buffer.set_written(number);
    }
    for home in plan.shaders.outputs() {
        if let OutputHome::Donated(leaf) = home {
            leaves[*leaf as usize].buffer.gpu()?.set_written(number);
        }
    }
    let buffers: Vec<Arc<Storage>> = buffers.into_iter().map(|buffer| Arc::new(Storage::from(buffer))).collect();
    let output = |home: &OutputHome| match home {
        OutputHome::Buffer(buffer) => Arc::clone(&buffers[*buffer as usize]),
        OutputHome::Donated(leaf) => Arc::clone(&leaves[*leaf as usize].buffer),
    };
    Ok(plan.shaders.outputs().iter().map(output).collect())
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shaders.fmt(f)
    }
}
