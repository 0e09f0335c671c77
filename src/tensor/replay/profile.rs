//! What a replay does and how long each kernel takes: its plans run on copies of the values, so that nothing changes.

use super::{NameSpec, PlanStep, Replay, Runner};
use crate::error::Result;
use crate::exec::{Account, DevicePlan};
use crate::graph::TensorType;
use crate::machine::cpu::arena;
use crate::machine::cpu::buffer::Buffer;
use crate::tensor::trace::{Holder, Origin};
use std::time::Instant;

/// Runs of a plan, of which the shortest time of each kernel counts.
const RUNS: usize = 20;

/// A kernel as it ran, after the one before it and before the next.
pub struct KernelProfile {
    pub account: Account,
    pub nanos: u64,
    /// Part of the commit block: it writes over parameters and state.
    pub commits: bool,
    /// Kernels of one number are shared out over threads together.
    pub stage: Option<usize>,
}

pub struct PlanProfile {
    pub kernels: Vec<KernelProfile>,
    /// Bytes for values between kernels.
    pub arena: usize,
    /// Whether the kernels have times: those of a device have none.
    pub timed: bool,
}

/// What a replay depends on and leaves behind.
#[derive(Default)]
pub struct Summary {
    /// The tensors from outside that a call changes.
    pub states: Vec<TensorType>,
    /// How many of them are written in place.
    pub in_place: usize,
    /// Gradients that a call leaves.
    pub grads: usize,
    /// Numbers from float arguments, from settings, and of random draws.
    pub arguments: usize,
    pub settings: usize,
    pub random: usize,
    /// The types of host data that became part of the replay.
    pub constants: Vec<TensorType>,
}

impl Replay {
    /// Times every kernel on copies of what the tensors hold now; arguments are zeros. Kernels that do not run take 0.
    pub fn profile(&mut self) -> Result<Vec<PlanProfile>> {
        let mut buffers = Vec::new();
        for at in 0..self.names.len() {
            let (buffer, offset) = copy(&self.names[at])?;
            // SAFETY: the offset lies in the buffer.
            self.addresses[at] = unsafe { buffer.as_mut_ptr().add(offset) };
            buffers.push(buffer);
        }
        let constants = self.constants.iter().enumerate().filter(|(_, (value, _))| value.buffer.device().is_cpu());
        for (at, (value, ty)) in constants {
            self.addresses[self.names.len() + at] = value.view(ty).ptr;
        }
        for (at, block) in self.blocks.iter().enumerate() {
            let buffer = Buffer::new(block.bytes)?;
            self.addresses[self.first_block as usize + at] = buffer.as_mut_ptr();
            buffers.push(buffer);
        }
        let memory = arena::lease(self.working)?;
        let mut profiles = Vec::with_capacity(self.plans.len());
        for PlanStep { runner, leaves, buffers, .. } in &mut self.plans {
            let prepared = match runner {
                Runner::Host(prepared) => prepared,
                Runner::Device(runner) => {
                    profiles.push(unmeasured(&runner.plan));
                    continue;
                }
            };
            for &(leaf, place) in leaves.iter() {
                prepared.set_leaf(leaf as usize, self.addresses[place as usize]);
            }
            for (buffer, &place) in buffers.iter().enumerate() {
                prepared.set_buffer(buffer, self.addresses[place as usize]);
            }
            let kernels = prepared.plan().kernels();
            let mut shortest = vec![u64::MAX; kernels];
            for _ in 0..RUNS {
                let mut before = Instant::now();
                let mut next = 0;
                let mut observe = |is_done: bool| {
                    let now = Instant::now();
                    if is_done && next < kernels {
                        shortest[next] = shortest[next].min((now - before).as_nanos() as u64);
                        next += 1;
                    }
                    before = now;
                };
                // SAFETY: every address is that of a copy made above, which lives until the end.
                let ran = unsafe { prepared.observe(memory.as_mut_ptr(), &mut observe) };
                // Indices made from zeros may be out of range: what did not run has no time.
                if ran.is_err() {
                    break;
                }
            }
            let (accounts, commit) = prepared.plan().accounts();
            let kernels = accounts.iter().zip(&shortest).enumerate().map(|(at, (account, &nanos))| KernelProfile {
                account: account.clone(),
                nanos: if nanos == u64::MAX { 0 } else { nanos },
                commits: at >= commit,
                stage: prepared.plan().stage(at),
            });
            profiles.push(PlanProfile { kernels: kernels.collect(), arena: prepared.plan().arena(), timed: true });
        }
        Ok(profiles)
    }

    pub fn summary(&self) -> Summary {
        let mut summary = Summary {
            in_place: self.names.iter().filter(|name| name.in_place).count(),
            grads: self.grads.iter().filter(|grad| grad.last.is_some()).count(),
            constants: self.constants.iter().map(|(_, ty)| ty.clone()).collect(),
            ..Summary::default()
        };
        let types = self.states.iter().filter_map(|state| self.names[state.name as usize].leaf.as_ref());
        summary.states = types.map(|(ty, _)| ty.clone()).collect();
        for (_, origin) in self.plans.iter().flat_map(|step| &step.numbers) {
            match origin {
                Origin::Argument(_) => summary.arguments += 1,
                Origin::Setting { .. } => summary.settings += 1,
                Origin::Seed | Origin::Stream(_) => summary.random += 1,
                Origin::Literal => {}
            }
        }
        summary
    }
}

/// The kernels of a device's plan, whose times nothing here tells.
fn unmeasured(plan: &DevicePlan) -> PlanProfile {
    let (accounts, commit) = plan.accounts();
    let kernels = accounts.iter().enumerate();
    let kernels = kernels.map(|(at, account)| KernelProfile {
        account: account.clone(),
        nanos: 0,
        commits: at >= commit,
        stage: None,
    });
    PlanProfile { kernels: kernels.collect(), arena: plan.working_bytes(), timed: false }
}

/// Memory that looks like the value of a name, and where its first element lies.
fn copy(name: &NameSpec) -> Result<(Buffer, usize)> {
    let leaf = name.leaf.as_ref().filter(|_| name.device.is_cpu());
    let Some((ty, strides)) = leaf else { return Ok((Buffer::new(0)?, 0)) };
    let known = match (&name.tensor, name.holder) {
        (Some(tensor), Holder::Handle) => tensor.known_value()?,
        _ => None,
    };
    if let Some((value, own)) = known.filter(|(value, own)| own == ty && value.strides == *strides) {
        // SAFETY: the buffer is held and holds as many bytes.
        let bytes = unsafe { std::slice::from_raw_parts(value.buffer.host().as_ptr(), value.buffer.bytes()) };
        return Ok((Buffer::from_bytes(bytes)?, value.offset * own.dtype.size()));
    }
    let span = |sign: isize| -> usize {
        let steps = ty.shape.iter().zip(strides).filter(|(_, stride)| stride.signum() == sign);
        steps.map(|(&dim, &stride)| dim.saturating_sub(1) * stride.unsigned_abs()).sum()
    };
    let size = ty.dtype.size();
    let bytes = (span(1) + span(-1) + 1) * size;
    Ok((Buffer::from_bytes(&vec![0; bytes])?, span(-1) * size))
}
