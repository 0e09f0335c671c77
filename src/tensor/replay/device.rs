//! Plans of a device in a replay: what they work on are blocks with an offset, not addresses, and each run gives the
//! blocks of its results anew, from the device's own pool. Nothing is waited for.

use super::{Call, DeviceRunner, Numbers, PlanStep, Replay, Runner};
use crate::error::{Error, Result};
use crate::exec::{Inputs, Leaf, OutputHome};
use crate::machine::cpu::buffer::Buffer;
use crate::machine::storage;
use crate::tensor::context;
use crate::tensor::engine::Value;
use std::sync::Arc;

impl Replay {
    pub(super) fn run_on_device(&mut self, call: &Call, plan: usize, numbers: &Numbers) -> Result<()> {
        let leaves = self.leaves(plan)?;
        let PlanStep { runner: Runner::Device(runner), buffers, numbers: slots, .. } = &mut self.plans[plan] else {
            return Ok(());
        };
        for &(slot, origin) in slots.iter() {
            if let Some(number) = numbers.find(call, origin) {
                runner.numbers[slot as usize] = number;
            }
        }
        let made = runner.plan.run(&Inputs { leaves: &leaves, numbers: &runner.numbers })?;
        runner.ticket = made.first().and_then(|block| block.written());
        if context::lines() {
            storage::judge(runner.plan.device())?;
        }
        for (home, block) in runner.plan.outputs().iter().zip(made) {
            if let OutputHome::Buffer(buffer) = *home {
                let place = buffers[buffer as usize] - self.first_block;
                self.blocks[place as usize].current = Some(block);
            }
        }
        Ok(())
    }

    /// What a plan is given; a leaf that it does not read is an empty one.
    fn leaves(&self, plan: usize) -> Result<Vec<Leaf>> {
        let PlanStep { runner: Runner::Device(DeviceRunner { leaves: count, .. }), leaves: read, .. } =
            &self.plans[plan]
        else {
            return Ok(Vec::new());
        };
        let none = Leaf { buffer: Arc::new(Buffer::new(0)?.into()), offset: 0 };
        let mut leaves = vec![none; *count];
        for &(leaf, place) in read {
            let found = self.leaf(place);
            leaves[leaf as usize] = found.ok_or_else(|| Error::internal("a value that a plan reads is nowhere"))?;
        }
        Ok(leaves)
    }

    /// The memory at a place, during a call.
    fn leaf(&self, place: u32) -> Option<Leaf> {
        let of_value = |value: &Value| Leaf { buffer: Arc::clone(&value.buffer), offset: value.offset };
        if let Some(block) = place.checked_sub(self.first_block) {
            let buffer = self.blocks[block as usize].current.clone()?;
            return Some(Leaf { buffer, offset: 0 });
        }
        if let Some(constant) = (place as usize).checked_sub(self.names.len()) {
            return Some(of_value(&self.constants[constant].0));
        }
        let spec = &self.names[place as usize];
        match (&spec.taken, &spec.buffer) {
            (Some(value), _) => Some(of_value(value)),
            (None, Some((buffer, offset))) => Some(Leaf { buffer: Arc::clone(buffer), offset: *offset }),
            (None, None) => None,
        }
    }
}
