//! Whether two traces of a step are the same step. Record order differs from call to call (a parameter is older than
//! the batch, or newer; so is its marker), and with it the order in which a backward pass meets the parameters. So each
//! log is written as words in an order that follows from what the step leaves behind alone: from there down to the
//! operands, left to right; and the gradients of one pass in the order of their variables there.

use super::log::{Holder, LastGrad, Log, Name, NameId, Number, Origin, Returned, Source};
use super::refusal;
use crate::error::Result;
use crate::graph::{Graph, Op, Source as GraphSource, Val};
use crate::scalar::Scalar;
use crate::tensor::transfer::value_bytes;
use hashbrown::HashMap;

/// A step as words that are equal exactly for equal steps, and the numbers in it.
struct Script<'a> {
    words: Vec<u64>,
    /// Where each node begins, its op, and the user's line.
    nodes: Vec<(usize, &'static str, Option<&'a str>)>,
    numbers: Vec<&'a Number>,
}

/// A node of a plan of the step.
type NodeId = (u32, u32);

struct Writer<'a> {
    log: &'a Log,
    script: Script<'a>,
    places: HashMap<NodeId, u64>,
    /// The outputs of each gradient, in the order of its variables.
    gradients: HashMap<NodeId, Vec<u32>>,
}

/// What a pair of words says.
enum Mark {
    State,
    Gradient,
    Unchanged,
    Cleared,
    Given,
    ReturnedName,
    ReturnedGradient,
    Used,
    Name,
    /// The gradient from before of this variable.
    GradientName,
    Constant,
    Computed,
    Output,
    Number,
}

impl<'a> Script<'a> {
    fn of(log: &'a Log) -> Script<'a> {
        let script = Script { words: Vec::new(), nodes: Vec::new(), numbers: Vec::new() };
        let mut writer = Writer { log, script, places: HashMap::new(), gradients: HashMap::new() };
        let mut states: Vec<_> = log.states.iter().collect();
        states.sort_unstable_by_key(|(name, _)| log.order(*name));
        for (name, versions) in states {
            writer.mark(Mark::State, 0);
            writer.name(*name);
            versions.iter().for_each(|&source| writer.source(source));
        }
        let mut grads: Vec<_> = log.grads.iter().collect();
        grads.sort_unstable_by_key(|grad| grad.variable);
        for grad in grads {
            writer.mark(Mark::Gradient, u64::from(grad.variable));
            match grad.last {
                LastGrad::Unchanged => writer.mark(Mark::Unchanged, 0),
                LastGrad::None => writer.mark(Mark::Cleared, 0),
                LastGrad::Handle(name) => writer.mark(Mark::Given, u64::from(name)),
                LastGrad::Value(source) => writer.source(source),
            }
        }
        for (returned, _) in &log.returned {
            match returned {
                Returned::Name(name) => {
                    writer.mark(Mark::ReturnedName, 0);
                    writer.name(*name);
                }
                Returned::Grad(variable) => writer.mark(Mark::ReturnedGradient, u64::from(*variable)),
                Returned::Value(source) => writer.source(*source),
                Returned::Used(source, _) => {
                    writer.mark(Mark::Used, 0);
                    writer.source(*source);
                }
            }
        }
        writer.script
    }
}

impl<'a> Writer<'a> {
    fn mark(&mut self, mark: Mark, value: u64) {
        self.script.words.extend([u64::MAX - mark as u64, value]);
    }

    fn name(&mut self, name: NameId) {
        match self.log.names[name as usize].holder {
            Holder::Grad(variable) => self.mark(Mark::GradientName, u64::from(variable)),
            _ => self.mark(Mark::Name, u64::from(name)),
        }
    }

    /// A value that was written already.
    fn val(&self, plan: u32, val: Val) -> u64 {
        let output = match self.gradients.get(&(plan, val.node)) {
            Some(order) => order.iter().position(|&output| output == val.output).unwrap_or_default() as u64,
            None => u64::from(val.output),
        };
        self.places[&(plan, val.node)] << 32 | output
    }

    /// Writes a value and everything below it.
    fn source(&mut self, source: Source) {
        match source {
            Source::Name(name) => self.name(name),
            Source::Constant(constant) => self.mark(Mark::Constant, u64::from(constant)),
            Source::Unread => {}
            Source::Output(plan, output) => {
                let val = self.graph(plan).outputs[output as usize];
                self.node((plan, val.node));
                self.mark(Mark::Computed, self.val(plan, val));
            }
        }
    }

    fn graph(&self, plan: u32) -> &'a Graph {
        &self.log.plans[plan as usize].lowered.graph
    }

    fn node(&mut self, root: NodeId) {
        let mut stack = vec![(root, false)];
        while let Some((id, is_open)) = stack.pop() {
            if self.places.contains_key(&id) {
                continue;
            }
            if is_open {
                self.write(id);
                continue;
            }
            stack.push((id, true));
            let below = self.below(id);
            stack.extend(below.into_iter().rev().map(|(plan, val)| ((plan, val.node), false)));
        }
    }

    /// What a node is made from: its inputs, the leaves of what is known of it, or for a leaf the output that it is.
    fn below(&self, (plan, node): NodeId) -> Vec<(u32, Val)> {
        let traced = &self.log.plans[plan as usize];
        let graph = &traced.lowered.graph;
        if let Op::Source(GraphSource::Leaf(slot)) = graph.nodes[node as usize].op {
            return match traced.leaves[slot as usize].0 {
                Source::Output(made_by, output) => vec![(made_by, self.graph(made_by).outputs[output as usize])],
                _ => Vec::new(),
            };
        }
        let known = traced.lowered.known.iter().filter(|(val, _)| val.node == node).map(|(_, leaf)| *leaf);
        graph.nodes[node as usize].inputs.iter().copied().chain(known).map(|val| (plan, val)).collect()
    }

    fn write(&mut self, id: NodeId) {
        let (plan, node) = id;
        let place = self.places.len() as u64;
        let mut below = self.below(id);
        let traced = &self.log.plans[plan as usize];
        let written = &traced.lowered.graph.nodes[node as usize];
        let rank = traced.lowered.ends.partition_point(|&end| end <= node);
        let line = traced.lines.get(rank).and_then(Option::as_deref);
        self.script.nodes.push((self.script.words.len(), written.op.name(), line));
        match written.op {
            Op::Source(GraphSource::Leaf(slot)) => {
                let strides = &traced.lowered.strides[slot as usize];
                match traced.leaves[slot as usize].0 {
                    Source::Name(name) => self.name(name),
                    Source::Constant(constant) => self.mark(Mark::Constant, u64::from(constant)),
                    Source::Output(..) | Source::Unread => self.mark(Mark::Output, 0),
                }
                self.script.words.extend(strides.iter().map(|&stride| stride as u64));
            }
            Op::Source(GraphSource::Number(slot)) => {
                self.mark(Mark::Number, 0);
                self.script.numbers.push(&traced.numbers[slot as usize]);
            }
            _ => written.op.words(&mut self.script.words),
        }
        // Which plan computes it is part of the step: what a plan commits depends on it.
        self.script.words.extend([u64::from(plan), traced.device.number(), written.outputs.len() as u64]);
        let mut outputs: Vec<u32> = (0..written.outputs.len() as u32).collect();
        if let Op::Gradient(spec) = written.op {
            let first = written.inputs.len() - spec.wrt as usize;
            outputs.sort_by_key(|&output| self.val(plan, written.inputs[first + output as usize]));
            let wrt: Vec<_> = outputs.iter().map(|&output| below[first + output as usize]).collect();
            below.splice(first..first + wrt.len(), wrt);
            self.gradients.insert(id, outputs.clone());
        }
        for ty in outputs.iter().map(|&output| &written.outputs[output as usize]) {
            self.script.words.push(ty.dtype as u64 | (ty.shape.rank() as u64) << 8);
            self.script.words.extend(ty.shape.iter().map(|&dim| dim as u64));
        }
        for (plan, val) in below {
            self.script.words.push(self.val(plan, val));
        }
        self.places.insert(id, place);
    }
}

impl Log {
    /// Whether this step and an earlier one did the same, with other data; the error says what differs.
    pub fn compare(&self, before: &Log) -> Result<()> {
        if self.plans.len() != before.plans.len() {
            return Err(refusal(format!(
                "the second call ran {} plans and the first one {}; a compiled step does the same at each call, so a \
                 choice made in Python belongs into an argument",
                self.plans.len(),
                before.plans.len()
            )));
        }
        let (now, then) = (Script::of(self), Script::of(before));
        now.compare(&then)?;
        let (names, then) = (self.ordered_names(), before.ordered_names());
        if names.len() != then.len() || !names.into_iter().zip(then).all(same_name) {
            return Err(refusal(
                "the first two calls used different tensors from outside; a compiled step uses the same ones at each \
                 call, and takes others as arguments",
            ));
        }
        for ((now, ty, line), (then, _, _)) in self.constants.iter().zip(&before.constants) {
            if value_bytes(now, ty)? != value_bytes(then, ty)? {
                return Err(refusal(format!(
                    "data that became a tensor inside the step differ between the first two calls; give the tensor as \
                     an argument{}",
                    if line.is_empty() { String::new() } else { format!(" ({line})") }
                )));
            }
        }
        Ok(())
    }
}

impl Log {
    /// Where a name stands that is compared: the order of gradients is that of their variables.
    fn order(&self, name: NameId) -> (bool, NameId) {
        match self.names[name as usize].holder {
            Holder::Grad(variable) => (true, variable),
            _ => (false, name),
        }
    }

    fn ordered_names(&self) -> Vec<&Name> {
        let mut names: Vec<NameId> = (0..self.names.len() as NameId).collect();
        names.sort_by_key(|&name| self.order(name));
        names.into_iter().map(|name| &self.names[name as usize]).collect()
    }
}

fn same_name((now, then): (&Name, &Name)) -> bool {
    let same_handle = match (&now.tensor, &then.tensor) {
        (Some(now), Some(then)) => now.is(then),
        (now, then) => now.is_none() && then.is_none(),
    };
    now.holder == then.holder && (now.holder != Holder::Handle || same_handle)
}

impl Script<'_> {
    fn compare(&self, before: &Script) -> Result<()> {
        if let Some(at) =
            (0..self.words.len().max(before.words.len())).find(|&at| self.words.get(at) != before.words.get(at))
        {
            let node = |script: &Script<'_>| {
                let next = script.nodes.partition_point(|(start, ..)| *start <= at);
                next.checked_sub(1).map_or(("nothing", String::new()), |node| {
                    let (_, op, line) = script.nodes[node];
                    (op, line.map(|line| format!(" ({line})")).unwrap_or_default())
                })
            };
            let ((now, line), (then, _)) = (node(self), node(before));
            let what = match now == then {
                true => format!("{now} in another way than the first one"),
                false => format!("{now} where the first one recorded {then}"),
            };
            return Err(refusal(format!(
                "the second call recorded {what}; a compiled step does the same at each call, so a choice made in Python \
                 belongs into an argument{line}"
            )));
        }
        for (now, then) in self.numbers.iter().zip(&before.numbers) {
            let differs = now.origin == Origin::Literal && now.value != then.value;
            if differs || now.origin != then.origin {
                return Err(refusal(format!(
                    "a number was {} in the first call and {} in the second; one that changes must be a float argument \
                     of the function, or a tensor ({})",
                    show(then.value),
                    show(now.value),
                    now.place
                )));
            }
        }
        Ok(())
    }
}

fn show(number: Scalar) -> String {
    match number {
        Scalar::Bool(x) => x.to_string(),
        Scalar::I64(x) => x.to_string(),
        Scalar::F64(x) => x.to_string(),
    }
}
