//! Recording gradients of what was recorded: `backward()`, and gradients with respect to given tensors. The walk over
//! the history happens at once, so that errors are raised on the user's line; the gradient itself is one node.

use super::context;
use super::engine::{self, Engine, Operand, Slot, State};
use super::evaluate;
use super::functions;
use super::handle::{Cell, Tensor, operand_slot};
use super::record::{Recorder, Types};
use crate::error::{Error, Result};
use crate::graph::{GradientSpec, Op};
use crate::ops;
use smallvec::{SmallVec, smallvec};
use std::cell::Cell as StdCell;
use std::sync::Arc;

/// What to keep, and what to complain of.
#[derive(Clone, Copy, Default)]
pub struct BackwardOptions {
    /// Keep the history for another backward pass. None: as `create_graph`.
    pub retain_graph: Option<bool>,
    /// Record the gradient so that it can be differentiated.
    pub create_graph: bool,
    /// Refuse variables that the loss was computed from but that no gradient reaches.
    pub strict: bool,
}

thread_local! {
    /// The gradient that the last backward pass of this thread recorded.
    static LAST: StdCell<Option<(Slot, u64)>> = const { StdCell::new(None) };
}

/// Adds the gradient of `target` to `.grad` of every variable that it reaches.
pub fn backward(target: &Tensor, gradient: Option<&Tensor>, options: BackwardOptions) -> Result<()> {
    evaluate_last()?;
    let ty = target.ty();
    check_target("backward", &ty, gradient)?;
    // Declared before the recorder: dropped after it lets go of the engine.
    let mut variables: Vec<(Arc<Cell>, Tensor)> = Vec::new();
    {
        let mut recorder = Recorder::with_grad(options.create_graph);
        let target = recorder.history_operand(target);
        let root = operand_slot(&target).ok_or_else(|| Error::internal("backward: no record"))?;
        if recorder.engine().get(root).is_example() {
            return Err(Error::grad(
                "backward: this is a value for one example of vmap, or a placeholder cotangent; `.grad` lives outside, so \
                 use wg.grad or wg.vjp inside, or call backward() on what vmap returns",
            ));
        }
        let history = History::walk(recorder.engine(), &[root], &[])?;
        if options.strict {
            history.check_strict(recorder.engine(), root)?;
        }
        if history.markers.is_empty() {
            return Err(Error::grad(format!(
                "backward: no variable reaches this tensor (result of {}); call requires_grad_() on what you train, \
                 and compute the loss outside no_grad",
                recorder.engine().get(root).op.name()
            )));
        }
        let mut operands: SmallVec<[Operand; 3]> = smallvec![target];
        operands.extend(gradient.map(|gradient| recorder.operand(gradient)));
        operands.extend(history.markers.iter().map(|&marker| Operand::Node(marker, 0)));
        let types: Types =
            history.markers.iter().map(|&marker| recorder.engine().get(marker).types[0].clone()).collect();
        let spec = GradientSpec { targets: 1, wrt: history.markers.len() as u32, ones: gradient.is_none() };
        let slot = recorder.push(Op::Gradient(spec), operands, types)?;
        if !options.retain_graph.unwrap_or(options.create_graph) {
            history.consume(recorder.engine(), slot);
        }
        for (position, &marker) in history.markers.iter().enumerate() {
            let owner = recorder.engine().get(marker).variable.as_ref().and_then(|variable| variable.upgrade());
            if let Some(cell) = owner {
                let part = recorder.tensor(slot, position as u32);
                variables.push((cell, part));
            }
        }
        if variables.is_empty() {
            // All variables are gone, and nobody could ask for a gradient.
            recorder.engine().drop_if_unheld(slot);
        } else {
            LAST.set(Some((slot, recorder.engine().get(slot).id)));
        }
    }
    let _mode = context::GradGuard::new(options.create_graph);
    for (cell, part) in &variables {
        let variable = Tensor(Arc::clone(cell));
        let old = variable.grad();
        let total = match &old {
            Some(old) => functions::binary(&ops::arithmetic::ADD, old.into(), part.into())?,
            None => part.clone(),
        };
        let replaced = variable.replace_grad(&mut engine::lock(), Some(total));
        drop(replaced);
    }
    if context::eager() {
        let parts: Vec<&Tensor> = variables.iter().map(|(_, part)| part).collect();
        evaluate::evaluate(&parts)?;
    }
    Ok(())
}

/// Gradients of Σ output·cotangent with respect to each input; None where no path leads (if `allow_unused`).
pub fn autograd_grad(
    outputs: &[&Tensor],
    inputs: &[&Tensor],
    cotangents: Option<&[&Tensor]>,
    options: BackwardOptions,
    allow_unused: bool,
) -> Result<Vec<Option<Tensor>>> {
    for (position, output) in outputs.iter().enumerate() {
        check_target("grad", &output.ty(), cotangents.map(|cotangents| cotangents[position]))?;
    }
    let mut recorder = Recorder::with_grad(options.create_graph);
    let mut operands: SmallVec<[Operand; 3]> = outputs.iter().map(|output| recorder.history_operand(output)).collect();
    let roots: Vec<Slot> = operands.iter().filter_map(operand_slot).collect();
    let stops: Vec<Slot> = inputs.iter().filter_map(|input| recorder.expression(input)).collect();
    let history = History::walk(recorder.engine(), &roots, &stops)?;
    let wrt: Vec<Vec<Operand>> = inputs.iter().map(|input| history.versions(&mut recorder, input)).collect();
    if let Some(position) = wrt.iter().position(Vec::is_empty).filter(|_| !allow_unused) {
        return Err(Error::grad(format!(
            "grad: input {position} is not used by the outputs (or no gradient passes); pass allow_unused=True to get None for it"
        )));
    }
    if wrt.iter().all(Vec::is_empty) {
        return Ok(vec![None; inputs.len()]);
    }
    if let Some(cotangents) = cotangents {
        operands.extend(cotangents.iter().map(|cotangent| recorder.operand(cotangent)));
    }
    operands.extend(wrt.iter().flatten().copied());
    let types: Types =
        inputs.iter().zip(&wrt).flat_map(|(input, versions)| vec![recorder.ty(input); versions.len()]).collect();
    let count = types.len() as u32;
    let spec = GradientSpec { targets: outputs.len() as u32, wrt: count, ones: cotangents.is_none() };
    let slot = recorder.push(Op::Gradient(spec), operands, types)?;
    if !options.retain_graph.unwrap_or(options.create_graph) {
        history.consume(recorder.engine(), slot);
    }
    let made: Vec<Tensor> = (0..count).map(|output| recorder.tensor(slot, output)).collect();
    recorder.end(&made.iter().collect::<Vec<_>>())?;
    let _mode = context::GradGuard::new(options.create_graph);
    let mut parts = made.into_iter();
    wrt.iter()
        .map(|versions| {
            let own: Vec<Tensor> = parts.by_ref().take(versions.len()).collect();
            let mut own = own.into_iter();
            let Some(first) = own.next() else { return Ok(None) };
            own.try_fold(first, |sum, part| functions::binary(&ops::arithmetic::ADD, (&sum).into(), (&part).into()))
                .map(Some)
        })
        .collect()
}

/// Evaluates what an earlier backward pass of this thread left pending, so that its residuals can go.
fn evaluate_last() -> Result<()> {
    let Some((slot, id)) = LAST.take() else { return Ok(()) };
    let pending = {
        let mut engine = engine::lock();
        let found =
            engine.find(slot, id).is_some_and(|record| matches!(record.state, State::Pending) && !record.is_example());
        found.then(|| Tensor::on(&mut engine, slot, 0))
    };
    pending.map_or(Ok(()), |gradient| evaluate::evaluate(&[&gradient]))
}

fn check_target(op: &str, ty: &crate::graph::TensorType, gradient: Option<&Tensor>) -> Result<()> {
    match gradient.map(Tensor::ty) {
        None if ty.shape.size() != 1 => Err(Error::grad(format!(
            "{op}: the result has shape {}, a gradient starts from one number; reduce it (x.sum(), x.mean()) or give \
             the gradient of the result",
            ty.shape
        ))),
        Some(given) if given.shape != ty.shape => {
            Err(Error::shape(format!("{op}: the result has shape {}, the given gradient {}", ty.shape, given.shape)))
        }
        _ => Ok(()),
    }
}

/// The recorded nodes that a backward pass goes through.
struct History {
    walk: u64,
    nodes: Vec<Slot>,
    /// Markers of variables, in record order.
    markers: Vec<Slot>,
}

impl History {
    fn walk(engine: &mut Engine, roots: &[Slot], stops: &[Slot]) -> Result<History> {
        let walk = engine.next_walk();
        let mut nodes = Vec::new();
        let mut markers = Vec::new();
        let mut stack: Vec<Slot> = roots.to_vec();
        while let Some(slot) = stack.pop() {
            let record = engine.get_mut(slot);
            if record.visit.walk == walk || !record.history {
                continue;
            }
            record.visit.walk = walk;
            if record.variable.is_some() {
                markers.push((record.id, slot));
                continue;
            }
            if stops.contains(&slot) {
                continue;
            }
            // What is linear reads nothing, but where it led is gone if it was cut off.
            let is_cut = record.operands.is_empty() || !ops::reads(&record.op).is_none();
            if record.consumed.is_some() && is_cut {
                return Err(Error::grad(format!(
                    "backward: {} was already used by a backward pass, and what its derivative reads is gone; pass \
                     retain_graph=True to the first one",
                    record.op.name()
                )));
            }
            if !matches!(record.op, Op::Marker) {
                nodes.push(slot);
            }
            let through = match record.op {
                Op::CustomGradient(n) => 2..2 + n as usize,
                _ => 0..record.operands.len(),
            };
            stack.extend(record.operands[through].iter().filter_map(operand_slot));
        }
        markers.sort_unstable();
        Ok(History { walk, nodes, markers: markers.into_iter().map(|(_, slot)| slot).collect() })
    }

    /// What the walk reached of an input: the markers of a variable's versions, or the place of an expression.
    fn versions(&self, recorder: &mut Recorder, input: &Tensor) -> Vec<Operand> {
        match recorder.expression(input) {
            Some(slot) => {
                let record = recorder.engine().get(slot);
                let reached = record.history && record.visit.walk == self.walk;
                if reached { vec![recorder.history_operand(input)] } else { Vec::new() }
            }
            None => {
                let engine: &Engine = recorder.engine();
                let own = |slot: &Slot| {
                    let variable = engine.get(*slot).variable.as_ref();
                    variable.is_some_and(|variable| variable.as_ptr() == Arc::as_ptr(&input.0))
                };
                self.markers.iter().copied().filter(own).map(|slot| Operand::Node(slot, 0)).collect()
            }
        }
    }

    fn consume(&self, engine: &mut Engine, gradient: Slot) {
        let id = engine.get(gradient).id;
        for &slot in &self.nodes {
            engine.get_mut(slot).consumed = Some((gradient, id));
        }
    }

    /// Complains of variables that the pending graph uses but that the walk did not reach.
    fn check_strict(&self, engine: &mut Engine, root: Slot) -> Result<()> {
        let walk = engine.next_walk();
        let mut cut = Vec::new();
        let mut stack = vec![(root, "")];
        while let Some((slot, by)) = stack.pop() {
            let record = engine.get_mut(slot);
            if record.visit.walk == walk {
                continue;
            }
            record.visit.walk = walk;
            if record.variable.is_some() && !self.markers.contains(&slot) {
                cut.push(format!("a variable of {} (cut by {by})", record.types[0]));
            }
            let by = if record.history { by } else { record.op.name() };
            stack.extend(record.operands.iter().filter_map(operand_slot).map(|slot| (slot, by)));
        }
        if cut.is_empty() {
            return Ok(());
        }
        Err(Error::grad(format!("backward(strict=True): no gradient reaches {}", cut.join(", "))))
    }
}
