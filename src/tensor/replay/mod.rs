//! A step run again without the code that recorded it: the same plans, on what the same tensors hold now. Owns where
//! values lie between the plans of a step and how results reach the handles. Each barrier is all or nothing, as it is
//! for ordinary code. Nothing is allocated, hashed or locked for a kernel.
//!
//! A call goes in three parts. `begin` finds the tensors under one engine lock, takes the values that will be written
//! over and marks their records as claimed, so that other threads wait; `run_plan` runs without any lock; `finish` puts
//! values back and publishes, under one engine lock.

mod build;
mod claim;
mod device;
mod finish;
mod profile;

pub use profile::{KernelProfile, PlanProfile, Summary};

use super::engine::{Engine, Slot, Value};
use super::evaluate;
use super::handle::{Cell, Tensor};
use super::rng;
use super::trace::{Check, Holder, Log, NameId, Origin, Returned, Same, Source, is_of};
use crate::device_id::DeviceId;
use crate::error::Result;
use crate::exec::{DevicePlan, Prepared};
use crate::graph::TensorType;
use crate::machine::cpu::arena::Lease;
use crate::machine::cpu::view::View;
use crate::machine::storage::{Storage, Ticket};
use crate::scalar::Scalar;
use crate::shape::Strides;
use smallvec::SmallVec;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};

/// A tensor from outside, and what is found of it in a call.
struct NameSpec {
    /// The handle, if it is found by itself.
    tensor: Option<Tensor>,
    holder: Holder,
    /// The one handle that the argument may be.
    bound: Option<Weak<Cell>>,
    variable: bool,
    device: DeviceId,
    /// Type and strides, if a plan reads the value.
    leaf: Option<(TensorType, Strides)>,
    /// A plan writes the new value over the old one.
    in_place: bool,
    /// What it shares with earlier names.
    same: Same,
    /// The record that was seen to fit, and whether its value is all of memory of our own.
    known: Option<(Slot, u64, u32)>,
    is_whole: bool,
    /// In a call: the address of the handle, the record, and its value or the buffer that is held for it.
    cell: usize,
    place: Option<(Slot, u32)>,
    taken: Option<Value>,
    buffer: Option<(Arc<Storage>, usize)>,
}

/// Memory of a result.
struct Block {
    bytes: usize,
    kind: BlockKind,
    /// Results that lie here.
    outputs: u32,
    current: Option<Arc<Storage>>,
}

enum BlockKind {
    /// Ours: only later plans of the step read it.
    Kept,
    /// New at each call.
    Fresh,
    /// The buffer of this gradient, if nobody else holds it.
    Grad(u32),
    /// On a device: each run of the plan gives it anew.
    Device,
}

struct PlanStep {
    runner: Runner,
    nanos: u64,
    /// Each leaf that is read, and its place.
    leaves: Vec<(u32, u32)>,
    /// The place of each result buffer.
    buffers: Vec<u32>,
    /// The cell of each number that is found anew; on a device its slot.
    numbers: Vec<(u32, Origin)>,
}

/// How a plan is run again.
enum Runner {
    Host(Prepared),
    #[cfg_attr(not(feature = "gpu"), expect(dead_code, reason = "all plans are for the host"))]
    Device(DeviceRunner),
}

/// A plan of a device with its numbers, and how many leaves it is given.
struct DeviceRunner {
    plan: DevicePlan,
    numbers: Vec<Scalar>,
    leaves: usize,
    /// The run of the last call.
    ticket: Option<Ticket>,
}

/// A value that a handle takes.
struct Version {
    /// How many plans must have run.
    after: u32,
    /// None: the handle's own buffer, written over.
    place: Option<u32>,
}

struct StateUpdate {
    name: NameId,
    versions: Vec<Version>,
}

struct GradUpdate {
    variable: NameId,
    /// How many plans have run when the step clears it, if it does before it looks at it.
    cleared: Option<usize>,
    /// None: cleared, or a tensor from outside.
    last: Option<Version>,
    /// The tensor from outside that becomes the gradient, itself.
    handle: Option<NameId>,
    /// The buffer of the gradient before may serve.
    reuses: bool,
    /// In a call: that gradient's value, and the record it was taken from.
    taken: Option<(Slot, Value)>,
}

pub struct Replay {
    names: Vec<NameSpec>,
    constants: Vec<(Value, TensorType)>,
    blocks: Vec<Block>,
    first_block: u32,
    plans: Vec<PlanStep>,
    states: Vec<StateUpdate>,
    grads: Vec<GradUpdate>,
    /// Variables that must have a gradient at the start, or must not.
    exists: Vec<(NameId, bool)>,
    returned: Vec<(Returned, TensorType, Option<u32>)>,
    /// Each with the place that it looks at.
    checks: Vec<(u32, Check)>,
    /// In a call: the plans that were begun.
    begun: usize,
    draws: u64,
    working: usize,
    /// The address of each place, in a call.
    addresses: Vec<*mut u8>,
    /// Gradients found while the engine is locked, when none may be dropped.
    held: Vec<Tensor>,
}

// SAFETY: addresses are used only during a call, by the thread that makes it.
unsafe impl Send for Replay {}

/// How a call starts.
pub enum Begun {
    Ready(Call),
    /// Tensors are not as they were: this replay does not fit.
    Mismatch,
    /// These must be evaluated first.
    Pending(Tensor),
    /// An index is out of range. Nothing has happened: ordinary code says where.
    Fails,
}

/// A call under way.
pub struct Call {
    memory: Lease,
    generator: (u64, u64),
}

/// The numbers of a call.
#[derive(Clone, Copy, Default)]
pub struct Numbers<'a> {
    /// Float arguments, by position.
    pub arguments: &'a [f64],
    /// What each source makes of its settings.
    pub settings: &'a [SmallVec<[f64; 8]>],
}

impl Numbers<'_> {
    /// The number for this call; None if it is what it was.
    fn find(&self, call: &Call, origin: Origin) -> Option<Scalar> {
        Some(match origin {
            Origin::Literal => return None,
            Origin::Argument(position) => Scalar::F64(self.arguments[position as usize]),
            Origin::Seed => Scalar::I64(call.generator.0 as i64),
            Origin::Stream(offset) => Scalar::I64(call.generator.1.wrapping_add(offset) as i64),
            Origin::Setting { source, at } => Scalar::F64(self.settings[source as usize][at as usize]),
        })
    }
}

/// What a call gives back at one place.
pub enum Given {
    /// The argument at this position, itself.
    Argument(u32),
    /// The handle from outside that the step gave back when it was traced.
    Outside,
    Tensor(Tensor),
    /// A gradient that does not exist.
    Nothing,
}

impl Replay {
    pub fn new(log: Log) -> Result<Replay> {
        build::build(log)
    }

    pub fn plans(&self) -> usize {
        self.plans.len()
    }

    /// Whether the step uses this tensor from outside, or may: an argument that is bound to it may be a captured one.
    pub fn captures(&self, tensor: &Tensor) -> bool {
        let is_captured = |name: &NameSpec| match (&name.tensor, &name.bound) {
            (Some(captured), _) => captured.is(tensor),
            (None, bound) => bound.as_ref().is_some_and(|bound| is_of(bound, tensor)),
        };
        self.names.iter().any(is_captured)
    }

    /// About how long a plan runs, on one thread.
    pub fn nanos(&self, plan: usize) -> u64 {
        self.plans[plan].nanos
    }

    /// The last run of the first plans of a call that was on the device where a tensor is.
    pub fn ticket(&self, plans: usize, tensor: &Tensor) -> Option<Ticket> {
        let of_device = |step: &PlanStep| match &step.runner {
            Runner::Device(runner) if runner.plan.device() == tensor.device() => runner.ticket.clone(),
            _ => None,
        };
        self.plans[..plans].iter().rev().find_map(of_device)
    }

    /// The handle of a name that is no gradient.
    fn tensor<'a>(&'a self, name: NameId, arguments: &[&'a Tensor]) -> &'a Tensor {
        let spec = &self.names[name as usize];
        match (spec.holder, &spec.tensor) {
            (Holder::Argument(position), _) => arguments[position as usize],
            (_, Some(tensor)) => tensor,
            (_, None) => unreachable!("a handle is kept for each name that is neither argument nor gradient"),
        }
    }

    /// The handle of any name.
    fn handle(&self, engine: &Engine, name: NameId, arguments: &[&Tensor]) -> Option<Tensor> {
        match self.names[name as usize].holder {
            Holder::Grad(variable) => self.tensor(variable, arguments).held_grad(engine),
            _ => Some(self.tensor(name, arguments).clone()),
        }
    }

    /// Runs the plan of this number, after those before it.
    pub fn run_plan(&mut self, call: &Call, plan: usize, numbers: &Numbers) -> Result<()> {
        self.check(|check| is_made(check) && check.before == plan as u32)?;
        self.begun = plan + 1;
        let run = || match self.plans[plan].runner {
            Runner::Host(_) => self.run_on_host(call, plan, numbers),
            Runner::Device(_) => self.run_on_device(call, plan, numbers),
        };
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(evaluate::panicked(&*panic)))
    }

    fn run_on_host(&mut self, call: &Call, plan: usize, numbers: &Numbers) -> Result<()> {
        let PlanStep { runner: Runner::Host(prepared), leaves, buffers, numbers: cells, .. } = &mut self.plans[plan]
        else {
            return Ok(());
        };
        for &(leaf, place) in leaves.iter() {
            prepared.set_leaf(leaf as usize, self.addresses[place as usize]);
        }
        for (buffer, &place) in buffers.iter().enumerate() {
            prepared.set_buffer(buffer, self.addresses[place as usize]);
        }
        for &(cell, origin) in cells.iter() {
            if let Some(number) = numbers.find(call, origin) {
                prepared.set_cell(cell as usize, number);
            }
        }
        // SAFETY: the lease is as long as the longest plan needs. Leaves are held, results are ours, and what is
        // written over was taken from records that nobody else holds.
        unsafe { prepared.run(call.memory.as_mut_ptr()) }
    }

    /// Makes the checks that are due.
    fn check(&self, is_due: impl Fn(&Check) -> bool) -> Result<()> {
        for (place, Check { ty, check, .. }) in self.checks.iter().filter(|(_, check)| is_due(check)) {
            let strides = match self.names.get(*place as usize).and_then(|name| name.leaf.as_ref()) {
                Some((_, strides)) => strides.clone(),
                None => ty.shape.strides(),
            };
            let ptr = self.addresses[*place as usize];
            if !ptr.is_null() {
                // SAFETY: the value is held during the call.
                unsafe { check.check(&View { ptr, dtype: ty.dtype, shape: ty.shape.clone(), strides })? };
            }
        }
        Ok(())
    }

    /// Gives back the random streams of a call that is made again as ordinary code.
    pub fn forget_draws(&self, call: &Call) {
        rng::give_back(call.generator, self.draws);
    }
}

/// Whether a check looks at what a plan of the step makes.
fn is_made(check: &Check) -> bool {
    matches!(check.source, Source::Output(..))
}
