//! What recording, handles and checks tell an open trace. None of it changes what they do.

use super::log::{Check, Holder, Source};
use super::{FirstGrad, is_open, place_of, tag_index, with};
use crate::tensor::checks::IndexCheck;
use crate::tensor::engine::{self, Engine, Operand, Slot};
use crate::tensor::handle::{Place, Tensor};

/// Notes a node that is about to get this id, and puts numbers in the place of their tags.
pub(in crate::tensor) fn note_record(id: u64, operands: &mut [Operand], line: Option<&String>) {
    with(|trace| {
        for (position, operand) in operands.iter_mut().enumerate() {
            let Operand::Number(number, _) = operand else { continue };
            let tagged = tag_index(*number).and_then(|index| trace.tagged.get(index));
            if let Some(&(value, origin)) = tagged {
                *number = value;
                trace.origins.insert((id, position), origin);
            }
        }
        if let Some(line) = line {
            trace.lines.insert(id, line.clone());
        }
    });
}

/// Notes that a number is about to be recorded again: where it comes from is the same.
pub(in crate::tensor) fn note_copy(from: (u64, usize), to: (u64, usize)) {
    with(|trace| {
        if let Some(origin) = trace.origins.get(&from).copied() {
            trace.origins.insert(to, origin);
        }
    });
}

/// Notes data of the host that became a tensor.
pub(in crate::tensor) fn note_constant(id: u64, line: String) {
    with(|trace| trace.lines.insert(id, line));
}

/// Notes that an operation uses a tensor.
pub(in crate::tensor) fn note_use(engine: &Engine, tensor: &Tensor) {
    with(|trace| trace.name(engine, tensor));
}

/// Notes that a handle is about to name another place.
pub(in crate::tensor) fn note_move(engine: &mut Engine, tensor: &Tensor, to: Place) {
    with(|trace| {
        let Some(name) = trace.name(engine, tensor) else { return };
        if trace.moved.insert(tensor.address()) {
            let (slot, output) = tensor.place(engine);
            let old = Place { slot, output };
            engine.retain(slot);
            trace.undo.push((tensor.clone(), old));
        }
        let (slot, output) = engine.unmarked(to.slot, to.output);
        trace.moves.push((name, (engine.get(slot).id, output)));
    });
}

/// Notes that a value was given a record of its own.
pub(in crate::tensor) fn note_settled(engine: &Engine, from: Place, to: Slot) {
    with(|trace| {
        let source = trace.computed.get(&(engine.get(from.slot).id, from.output)).copied();
        source.map(|source| trace.computed.insert((engine.get(to).id, 0), source));
    });
}

/// Notes that the gradient of a variable is looked at, or cleared, before either happens.
pub(in crate::tensor) fn note_grad(variable: &Tensor, clears: bool) {
    if !is_open() {
        return;
    }
    let engine = engine::lock();
    // Dropped after the engine is free again.
    let initial = variable.0.state(&engine).variable.as_ref().map(|variable| variable.grad.clone());
    with(|trace| {
        // One that is no variable may become one later: that it is none is part of the step.
        let (Some(name), Some(initial)) = (trace.name(&engine, variable), &initial) else { return };
        if trace.grads.contains_key(&name) {
            return;
        }
        // One that is cleared first is not part of the step.
        if let Some(grad) = initial.as_ref().filter(|_| !clears) {
            trace.add(&engine, grad, Holder::Grad(name));
        }
        let exists = (!clears).then_some(initial.is_some());
        let plans = trace.plans.len() as u32;
        trace.grads.insert(name, FirstGrad { initial: initial.clone(), exists, plans });
        trace.grad_order.push(name);
    });
    drop(engine);
}

/// Notes that the step asks whether a tensor is a variable.
pub(in crate::tensor) fn note_question(tensor: &Tensor) {
    if is_open() {
        note_use(&engine::lock(), tensor);
    }
}

/// Notes that a handle is about to become a variable, or to be none any more.
pub(in crate::tensor) fn note_variable(tensor: &Tensor) {
    if !is_open() {
        return;
    }
    let before = tensor.is_variable();
    // What goes with the variable is its gradient.
    note_grad(tensor, true);
    let engine = engine::lock();
    with(|trace| {
        if trace.name(&engine, tensor).is_some() && !trace.variables.iter().any(|(known, _)| known.is(tensor)) {
            trace.variables.push((tensor.clone(), before));
        }
    });
}

/// Notes a check of a tensor's elements.
pub(in crate::tensor) fn note_check(target: &Tensor, check: IndexCheck) {
    if !is_open() {
        return;
    }
    let engine = engine::lock();
    with(|trace| {
        trace.name(&engine, target);
        let (id, output, ty) = place_of(&engine, target);
        let before = trace.plans.len() as u32;
        trace.checks.push(((id, output), Check { before, source: Source::Unread, ty, check }));
    });
}
