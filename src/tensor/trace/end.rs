//! The end of a trace: the states, gradients and results that the step leaves behind.

use super::log::{Check, GradLog, Holder, LastGrad, Log, Name, NameId, Returned, Source, Spent, sames};
use super::{Trace, place_of, refusal};
use crate::error::{Error, Result};
use crate::graph::TensorType;
use crate::tensor::engine::{Engine, State};
use crate::tensor::handle::Tensor;
use hashbrown::HashMap;

impl Trace {
    pub(super) fn log(
        &mut self,
        engine: &Engine,
        grads: &[(NameId, Option<Tensor>)],
        returned: &[Tensor],
        next_stream: u64,
    ) -> Result<Log> {
        if self.variables.iter().any(|(tensor, before)| tensor.is_variable_in(engine) != *before) {
            return Err(refusal(
                "requires_grad of a tensor from outside is another one after the step; change it before the call",
            ));
        }
        let states = self.states(engine)?;
        let last_grads = self.last_grads(engine, grads)?;
        let returned =
            returned.iter().map(|tensor| self.returned(engine, grads, tensor)).collect::<Result<Vec<_>>>()?;
        let checks = std::mem::take(&mut self.checks);
        let checks = checks
            .into_iter()
            .filter_map(|(place, check)| {
                let named = self.by_record.get(&place).map(|names| Source::Name(names[0]));
                let source = named.or_else(|| self.computed.get(&place).copied())?;
                Some(Check { source, ..check })
            })
            .collect();
        let cell = |name: &Name| name.tensor.as_ref().map_or(0, Tensor::address);
        Ok(Log {
            same: sames(self.names.iter().map(|name| (name.first, cell(name)))),
            plans: std::mem::take(&mut self.plans),
            states,
            grads: last_grads,
            returned,
            constants: std::mem::take(&mut self.constants),
            checks,
            draws: next_stream.wrapping_sub(self.generator.1),
            names: self.names.iter().map(Name::kept).collect(),
        })
    }

    /// Whether a tensor is older than the step and has no history.
    fn is_outside(&self, engine: &Engine, tensor: &Tensor) -> bool {
        let history = || engine.get(tensor.place(engine).0).history;
        tensor.0.born < self.start && (tensor.is_variable_in(engine) || !history())
    }

    /// The values that each rebound handle took.
    fn states(&mut self, engine: &Engine) -> Result<Vec<(NameId, Vec<Source>)>> {
        let mut states: Vec<(NameId, Vec<Source>)> = Vec::new();
        let mut taken: HashMap<NameId, Vec<Source>> = HashMap::new();
        for (name, place) in &self.moves {
            if let Some(&source) = self.computed.get(place) {
                taken.entry(*name).or_default().push(source);
            }
        }
        let moved: Vec<NameId> =
            self.undo.iter().filter_map(|(tensor, _)| self.by_cell.get(&tensor.address()).copied()).collect();
        for name in moved {
            let Name { tensor: Some(tensor), first, .. } = self.names[name as usize].clone() else { continue };
            let (slot, output) = tensor.place(engine);
            let (slot, output) = engine.unmarked(slot, output);
            let record = engine.get(slot);
            if (record.id, output) == first {
                continue;
            }
            if record.history {
                return Err(refusal(format!(
                    "a tensor from outside was given the result of {}, with its history; use detach() or wg.no_grad()",
                    record.op.name()
                )));
            }
            if let State::Failed(error) = &record.state {
                return Err(error.clone());
            }
            let last = self.source(engine, slot, output)?;
            let mut versions = taken.remove(&name).unwrap_or_default();
            versions.dedup();
            if versions.last() != Some(&last) {
                versions.push(last);
            }
            states.push((name, versions));
        }
        Ok(states)
    }

    /// The gradient that each variable has now, if the step touched it.
    pub(super) fn current_grads(&self, engine: &Engine) -> Vec<(NameId, Option<Tensor>)> {
        let grad = |variable: NameId| self.names[variable as usize].tensor.as_ref()?.held_grad(engine);
        let current = |&variable: &NameId| (variable, grad(variable));
        self.grad_order.iter().map(current).collect()
    }

    fn last_grads(&mut self, engine: &Engine, current: &[(NameId, Option<Tensor>)]) -> Result<Vec<GradLog>> {
        let mut logs = Vec::with_capacity(current.len());
        for (variable, now) in current {
            let first = &self.grads[variable];
            let (exists, plans, initial) = (first.exists, first.plans, first.initial.clone());
            let last = match now {
                None => LastGrad::None,
                // Rebound, perhaps: then it is a state. One that was set without a look at it came from outside.
                Some(grad) if exists.is_some() && initial.as_ref().is_some_and(|initial| initial.is(grad)) => {
                    LastGrad::Unchanged
                }
                Some(grad) if self.is_outside(engine, grad) => match self.name(engine, grad) {
                    Some(name) if matches!(self.names[name as usize].holder, Holder::Grad(_)) => {
                        return Err(refusal(
                            "the gradient of one variable from before the step is given to another one; give it a clone()",
                        ));
                    }
                    Some(name) => LastGrad::Handle(name),
                    None => return Err(Error::internal("a tensor from outside has no name")),
                },
                Some(grad) => {
                    let (slot, output) = grad.place(engine);
                    if engine.get(slot).history {
                        return Err(refusal(
                            "a gradient is left with its history (create_graph=True); clear it before the step ends",
                        ));
                    }
                    LastGrad::Value(self.source(engine, slot, output)?)
                }
            };
            logs.push(GradLog { variable: *variable, exists, plans, last });
        }
        Ok(logs)
    }

    fn returned(
        &mut self,
        engine: &Engine,
        current: &[(NameId, Option<Tensor>)],
        tensor: &Tensor,
    ) -> Result<(Returned, TensorType)> {
        let (_, _, ty) = place_of(engine, tensor);
        if let Some(&name) = self.by_cell.get(&tensor.address()) {
            let returned = match self.names[name as usize].holder {
                Holder::Grad(variable)
                    if current
                        .iter()
                        .any(|(of, now)| *of == variable && now.as_ref().is_some_and(|now| now.is(tensor))) =>
                {
                    Returned::Grad(variable)
                }
                _ => Returned::Name(name),
            };
            return Ok((returned, ty));
        }
        for (variable, grad) in current {
            if grad.as_ref().is_some_and(|grad| grad.is(tensor)) {
                return Ok((Returned::Grad(*variable), ty));
            }
        }
        if self.is_outside(engine, tensor)
            && let Some(name) = self.name(engine, tensor)
        {
            return Ok((Returned::Name(name), ty));
        }
        if tensor.is_variable_in(engine) {
            return Err(refusal(
                "the step returns a tensor that it made and that requires a gradient; return it after detach(), and its \
                 gradient beside it",
            ));
        }
        let (slot, output) = tensor.place(engine);
        let record = engine.get(slot);
        if record.history && record.consumed.is_none() {
            return Err(refusal(format!(
                "the step returns the result of {} with its history, which ends here; call backward() inside and \
                 without retain_graph, or return it under wg.no_grad() or after detach()",
                record.op.name()
            )));
        }
        let source = self.source(engine, slot, output)?;
        let returned = match record.history {
            true => Returned::Used(source, Spent { op: record.op.clone(), types: record.types.clone(), output }),
            false => Returned::Value(source),
        };
        Ok((returned, ty))
    }
}
