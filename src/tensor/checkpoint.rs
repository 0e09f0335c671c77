//! Checkpoints: what a function recorded becomes one node whose gradient computes it again. The node is a custom gradient:
//! its value is a copy of the recording without history, so no residual is kept, and its pullback differentiates a second
//! copy that sees everything from outside behind the cotangent (`Op::After`), so plans make it late. Knows no plan.

use super::context::{self, GradGuard};
use super::engine::{self, Engine, Operand, Record, Slot};
use super::handle::{Tensor, operand_slot};
use super::lower::cuts;
use super::record::Recorder;
use super::trace;
use super::transform::CustomTrace;
use crate::error::Result;
use crate::graph::{GradientSpec, Op, Source, TensorType};
use hashbrown::HashMap;
use smallvec::{SmallVec, smallvec};

/// A checkpoint whose function is running.
pub struct Checkpoint {
    /// The id that the next record got when it began: what the function records is not older.
    from: u64,
}

impl Checkpoint {
    pub fn begin() -> Checkpoint {
        Checkpoint { from: engine::lock().next_id() }
    }

    /// What the function gave, as the value of one node that keeps only what came from outside.
    pub fn finish(self, value: &Tensor) -> Result<Tensor> {
        if !context::grad_enabled() || value.is_leaf() {
            return Ok(value.clone());
        }
        let plain = {
            let _mode = GradGuard::new(false);
            self.copy(value, None)?.value
        };
        let trace = CustomTrace::begin(&plain)?;
        let again = self.copy(value, Some(trace.cotangent()))?;
        if again.arguments.is_empty() {
            return Ok(value.clone());
        }
        let gradients = again.gradients(trace.cotangent())?;
        let arguments: Vec<&Tensor> = again.arguments.iter().map(|(argument, _)| argument).collect();
        trace.finish(&plain, &arguments, &gradients.iter().collect::<Vec<_>>())
    }

    /// Records again what `value` was recorded from; behind the cotangent if there is one, else without history.
    fn copy(&self, value: &Tensor, cotangent: Option<&Tensor>) -> Result<Copy> {
        let recorder = Recorder::begin();
        let (slot, output) = value.place(recorder.engine_ref());
        let cotangent = cotangent.map(|cotangent| cotangent.place(recorder.engine_ref()).0);
        let mut copier = Copier {
            recorder,
            from: self.from,
            cotangent,
            places: HashMap::new(),
            made: Vec::new(),
            arguments: Vec::new(),
        };
        let root = copier.region(slot).into_iter().try_for_each(|slot| copier.record(slot));
        let root = root.and_then(|()| copier.outside_or_made(slot, output));
        copier.end(root)
    }
}

/// A second recording.
struct Copy {
    value: Tensor,
    /// What came from outside with history, and how the copy sees it.
    arguments: Vec<(Tensor, Tensor)>,
}

impl Copy {
    /// The gradient of Σ value·cotangent with respect to each argument.
    fn gradients(&self, cotangent: &Tensor) -> Result<Vec<Tensor>> {
        let spec = GradientSpec { targets: 1, wrt: self.arguments.len() as u32, ones: false };
        let seen = self.arguments.iter().map(|(_, seen)| seen);
        let mut recorder = Recorder::begin();
        let place = |tensor: &Tensor| {
            let (slot, output) = tensor.place(recorder.engine_ref());
            Operand::Node(slot, output)
        };
        let operands = [&self.value, cotangent].into_iter().chain(seen.clone()).map(place).collect();
        let types = seen.map(|seen| recorder.ty(seen)).collect();
        let slot = recorder.push(Op::Gradient(spec), operands, types)?;
        Ok((0..spec.wrt).map(|output| recorder.tensor(slot, output)).collect())
    }
}

/// How a record stands to the region.
#[derive(PartialEq)]
enum Part {
    Inside,
    /// Made without operands: it may stand in both copies.
    Constant,
    Outside,
}

struct Copier {
    recorder: Recorder,
    from: u64,
    cotangent: Option<Slot>,
    /// What stands for each output: of a record inside, or of one outside that was met.
    places: HashMap<(Slot, u32), Operand>,
    made: Vec<Slot>,
    /// Outputs from outside with history, and what stands for them.
    arguments: Vec<((Slot, u32), Slot)>,
}

impl Copier {
    fn part(&self, record: &Record) -> Part {
        match record.op {
            _ if record.id < self.from || record.variable.is_some() => Part::Outside,
            Op::Source(Source::Leaf(_)) => Part::Outside,
            Op::Source(_) => Part::Constant,
            // Evaluated, and only the value is left.
            _ if record.operands.is_empty() => Part::Outside,
            _ => Part::Inside,
        }
    }

    /// The operands of a record that its copy needs: without history, a custom gradient is its value.
    fn needed<'a>(&self, record: &'a Record) -> &'a [Operand] {
        match record.op {
            Op::CustomGradient(_) if self.cotangent.is_none() => &record.operands[..1],
            _ => &record.operands,
        }
    }

    /// The records inside that `root` was recorded from, in record order.
    fn region(&mut self, root: Slot) -> Vec<Slot> {
        let walk = self.recorder.engine().next_walk();
        let (mut found, mut stack) = (Vec::new(), vec![root]);
        while let Some(slot) = stack.pop() {
            let record = self.recorder.engine().get_mut(slot);
            if std::mem::replace(&mut record.visit.walk, walk) == walk {
                continue;
            }
            let record = self.recorder.engine_ref().get(slot);
            if self.part(record) == Part::Inside {
                found.push((record.id, slot));
                stack.extend(self.needed(record).iter().filter_map(operand_slot));
            }
        }
        found.sort_unstable();
        found.into_iter().map(|(_, slot)| slot).collect()
    }

    fn record(&mut self, slot: Slot) -> Result<()> {
        let record = self.recorder.engine_ref().get(slot);
        let (id, op, types, history) = (record.id, record.op.clone(), record.types.clone(), record.history);
        let needed: SmallVec<[Operand; 3]> = self.needed(record).into();
        let mut operands: SmallVec<[Operand; 3]> = SmallVec::with_capacity(needed.len());
        for (position, operand) in needed.iter().enumerate() {
            operands.push(self.operand(slot, position, *operand)?);
        }
        if self.cotangent.is_none() && matches!(op, Op::CustomGradient(_)) {
            self.places.insert((slot, 0), operands[0]);
            return Ok(());
        }
        if let (Some(cotangent), Operand::Number(_, dtype)) = (self.cotangent, operands[0])
            && operands.iter().all(|operand| matches!(operand, Operand::Number(..)))
        {
            // Nothing else would tell this draw, or this constant, from the one that the value was made from.
            let ty = TensorType::scalar(dtype);
            trace::note_copy((id, 0), (self.recorder.engine_ref().next_id(), 0));
            let behind = self.push(Op::After, smallvec![operands[0], Operand::Node(cotangent, 0)], ty)?;
            operands[0] = Operand::Node(behind, 0);
        }
        let next = self.recorder.engine_ref().next_id();
        (0..operands.len()).for_each(|position| trace::note_copy((id, position), (next, position)));
        let outputs = types.len() as u32;
        let copy = self.recorder.push(op, operands, types)?;
        self.made.push(copy);
        if self.cotangent.is_some() {
            self.recorder.engine().get_mut(copy).history = history;
        }
        self.places.extend((0..outputs).map(|output| ((slot, output), Operand::Node(copy, output))));
        Ok(())
    }

    /// The operand of a copy. Without history, where the recording cut it is said by a node.
    fn operand(&mut self, user: Slot, position: usize, operand: Operand) -> Result<Operand> {
        let Operand::Node(slot, output) = operand else { return Ok(operand) };
        let place = self.outside_or_made(slot, output)?;
        let engine = self.recorder.engine_ref();
        let input = engine.get(slot);
        let cut =
            self.cotangent.is_none() && self.part(input) == Part::Inside && cuts(engine.get(user), position, input);
        if !cut {
            return Ok(place);
        }
        let ty = input.types[output as usize].clone();
        Ok(Operand::Node(self.push(Op::Detach, smallvec![place], ty)?, 0))
    }

    fn outside_or_made(&mut self, slot: Slot, output: u32) -> Result<Operand> {
        if let Some(&place) = self.places.get(&(slot, output)) {
            return Ok(place);
        }
        let record = self.recorder.engine_ref().get(slot);
        let place = match self.cotangent {
            Some(cotangent) if self.part(record) == Part::Outside => {
                let (ty, history) = (record.types[output as usize].clone(), record.history);
                let given = Operand::Node(slot, output);
                let behind = self.push(Op::After, smallvec![given, Operand::Node(cotangent, 0)], ty)?;
                if history && self.recorder.engine_ref().get(behind).history {
                    self.arguments.push(((slot, output), behind));
                }
                Operand::Node(behind, 0)
            }
            _ => Operand::Node(slot, output),
        };
        self.places.insert((slot, output), place);
        Ok(place)
    }

    fn push(&mut self, op: Op, operands: SmallVec<[Operand; 3]>, ty: TensorType) -> Result<Slot> {
        let slot = self.recorder.push(op, operands, smallvec![ty])?;
        self.made.push(slot);
        Ok(slot)
    }

    /// Names what was made, and lets go of what nothing needs.
    fn end(mut self, root: Result<Operand>) -> Result<Copy> {
        let engine: &mut Engine = self.recorder.engine();
        let made = root.map(|root| match root {
            Operand::Node(slot, output) => Ok(Copy {
                value: Tensor::on(engine, slot, output),
                arguments: self
                    .arguments
                    .iter()
                    .map(|&((slot, output), seen)| (Tensor::on(engine, slot, output), Tensor::on(engine, seen, 0)))
                    .collect(),
            }),
            Operand::Number(..) => Err(crate::error::Error::internal("checkpoint: the value has no record")),
        });
        self.made.iter().rev().for_each(|&slot| engine.drop_if_unheld(slot));
        made?
    }
}
