//! A plan as it is written down: before it runs, while its records are whole, and kept once it ran.

use super::log::{Number, Origin, Source, TracedPlan};
use super::{Trace, refusal, with};
use crate::device_id::DeviceId;
use crate::error::Result;
use crate::graph::{Op, TensorType};
use crate::tensor::engine::{Engine, Operand, Record};
use crate::tensor::lower::Lowered;
use crate::tensor::publish::Output;
use crate::tensor::walk::{Edge, Node, Role, Walk};
use hashbrown::HashSet;

/// What is written down of a plan before it runs.
pub(in crate::tensor) struct Draft {
    device: DeviceId,
    lines: Vec<Option<String>>,
    leaves: Vec<(Source, TensorType)>,
    numbers: Vec<Number>,
    outputs: Vec<(u64, u32, TensorType)>,
}

/// Writes down a plan that is about to run, while its records are whole. Leaves and numbers stand in the order of the
/// plan's key.
pub(in crate::tensor) fn draft(engine: &Engine, walk: &Walk, outputs: &[Output]) -> Option<Draft> {
    with(|trace| {
        let made = trace.draft(engine, walk, outputs);
        match made {
            Ok(draft) => Some(draft),
            Err(error) => {
                // After a gap everything else is missed too.
                if trace.disturbed.is_none() {
                    trace.refused.get_or_insert(error);
                }
                None
            }
        }
    })
    .flatten()
}

/// Keeps a plan that ran.
pub(in crate::tensor) fn keep(draft: Draft, lowered: Lowered) {
    with(|trace| {
        let plan = trace.plans.len() as u32;
        for (position, (id, output, _)) in draft.outputs.iter().enumerate() {
            trace.computed.insert((*id, *output), Source::Output(plan, position as u32));
        }
        trace.plans.push(TracedPlan {
            device: draft.device,
            lowered,
            leaves: draft.leaves,
            numbers: draft.numbers,
            lines: draft.lines,
            types: draft.outputs.into_iter().map(|(_, _, ty)| ty).collect(),
        });
    });
}

impl Trace {
    fn draft(&mut self, engine: &Engine, walk: &Walk, outputs: &[Output]) -> Result<Draft> {
        let lines = walk.nodes.iter().map(|node| self.lines.get(&engine.get(node.slot).id).cloned());
        let made = outputs.iter().map(|output| {
            let record = engine.get(walk.nodes[output.rank as usize].slot);
            (record.id, output.output, record.types[output.output as usize].clone())
        });
        let mut draft = Draft {
            device: walk.device(engine),
            lines: lines.collect(),
            leaves: Vec::new(),
            numbers: Vec::new(),
            outputs: made.collect(),
        };
        let has_operands = |role: Role| matches!(role, Role::Open | Role::Example | Role::Known);
        let users = (0..walk.len()).filter(|&rank| has_operands(walk.nodes[rank].role));
        let read: HashSet<u64> = users.flat_map(|rank| walk.edges(rank)).map(|edge| edge.word()).collect();
        for (rank, &Node { slot, role, .. }) in walk.nodes.iter().enumerate() {
            let record = engine.get(slot);
            if record.id < self.start && role == Role::Open && !matches!(record.op, Op::Marker) {
                let error = refusal(format!(
                    "another thread recorded {} before the step and never computed it; call wg.eval on it first",
                    record.op.name()
                ));
                return Err(self.disturbed.get_or_insert(error).clone());
            }
            if has_operands(role) {
                draft.numbers.extend(self.numbers(record));
            }
            if matches!(role, Role::Open | Role::Example) {
                continue;
            }
            let outputs = record.values.iter().zip(&record.types).enumerate();
            for (output, (_, ty)) in outputs.filter(|(_, (value, _))| value.is_some()) {
                let is_read = role == Role::Known || read.contains(&Edge::to(rank, output as u32).word());
                let source = if is_read { self.source(engine, slot, output as u32)? } else { Source::Unread };
                draft.leaves.push((source, ty.clone()));
            }
        }
        Ok(draft)
    }

    /// The numbers among the operands of a record.
    fn numbers<'a>(&'a self, record: &'a Record) -> impl Iterator<Item = Number> + 'a {
        record.operands.iter().enumerate().filter_map(|(position, operand)| {
            let Operand::Number(value, _) = *operand else { return None };
            let origin = self.origins.get(&(record.id, position)).copied().unwrap_or(Origin::Literal);
            let line = self.lines.get(&record.id).map(|line| format!(", {line}")).unwrap_or_default();
            Some(Number { value, origin, place: format!("{}{line}", record.op.name()) })
        })
    }
}
