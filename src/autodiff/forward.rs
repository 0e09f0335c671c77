//! Forward mode: tangents pushed through a graph by each op's rule. Reverse mode starts here too.

use super::expand::{at_once, between};
use super::reverse;
use crate::error::{Error, Result};
use crate::graph::{Derivative, Graph, Op, Rule, Tangents, Val, Vals};
use crate::ops;
use hashbrown::HashMap;
use smallvec::{SmallVec, smallvec};

/// What the tangents are for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// They are the result.
    Forward,
    /// They will be transposed at once, so a custom pullback stays one node.
    Linearize,
}

/// The tangents of `targets` when the `primals` move by `tangents`.
pub(super) fn jvp(graph: &mut Graph, targets: &[Val], primals: &[Val], tangents: &[Val]) -> Result<Vals> {
    let seeds: Vec<(Val, Val)> = primals.iter().copied().zip(tangents.iter().copied()).collect();
    let pushed = push_forward(graph, &seeds, targets, Mode::Forward)?;
    Ok(targets
        .iter()
        .map(|target| pushed.get(target).copied().unwrap_or_else(|| ops::zeros_like(graph, *target)))
        .collect())
}

/// Tangents of every value on the way from the seeds (value, its tangent) to the targets.
pub(super) fn push_forward(
    graph: &mut Graph,
    seeds: &[(Val, Val)],
    targets: &[Val],
    mode: Mode,
) -> Result<HashMap<Val, Val>> {
    let from: Vals = seeds.iter().map(|seed| seed.0).collect();
    let (range, on_way) = between(graph, &from, targets);
    let mut tangents: HashMap<Val, Val> = seeds.iter().copied().collect();
    for index in range.clone() {
        if on_way[index - range.start] {
            push_node(graph, index as u32, &mut tangents, mode)?;
        }
    }
    Ok(tangents)
}

fn push_node(graph: &mut Graph, index: u32, tangents: &mut HashMap<Val, Val>, mode: Mode) -> Result<()> {
    let node = graph.nodes[index as usize].clone();
    let inputs: SmallVec<[Option<Val>; 4]> = node.inputs.iter().map(|val| tangents.get(val).copied()).collect();
    if inputs.iter().all(Option::is_none) {
        return Ok(());
    }
    let outputs = node.vals(index);
    let rule = Rule { op: &node.op, inputs: &node.inputs, outputs: &outputs };
    let made = tangents_of(graph, &rule, &inputs, mode)?;
    #[cfg(test)]
    let made = super::tests::mutation::tangents(graph, node.op.name(), made);
    for (val, tangent) in outputs.iter().zip(made) {
        if let Some(tangent) = tangent.filter(|_| graph.dtype(*val).is_float()) {
            tangents.insert(*val, tangent);
        }
    }
    Ok(())
}

fn tangents_of(graph: &mut Graph, rule: &Rule, tangents: &[Option<Val>], mode: Mode) -> Result<Tangents> {
    match rule.op {
        Op::Marker | Op::After => Ok(smallvec![tangents[0]]),
        Op::Composite(def, attrs) => match def.derivative {
            Some(jvp) => jvp(graph, rule, tangents),
            None => {
                let start = graph.nodes.len() as u32;
                let results = (def.expand)(graph, attrs, rule.inputs)?;
                let end = graph.nodes.len() as u32;
                let mut pushed: HashMap<Val, Val> =
                    rule.inputs.iter().zip(tangents).filter_map(|(val, tangent)| Some((*val, (*tangent)?))).collect();
                for index in start..end {
                    push_node(graph, index, &mut pushed, mode)?;
                }
                Ok(results.iter().map(|val| pushed.get(val).copied()).collect())
            }
        },
        Op::CustomGradient(n) => {
            custom(graph, rule, *n as usize, tangents, mode).map(|tangent| smallvec![Some(tangent)])
        }
        Op::Gradient(_) | Op::Jvp(_) | Op::Batch(_) | Op::Pullback(_) => {
            Err(Error::internal(format!("{} inside a region that is differentiated", rule.op.name())))
        }
        op => match ops::derivative(op) {
            Derivative::Zero => Ok(smallvec![None; rule.outputs.len()]),
            Derivative::Jvp(jvp) | Derivative::Linear { apply: jvp, .. } => jvp(graph, rule, tangents),
            Derivative::Bilinear(_) => {
                let mut sum = None;
                for which in 0..2 {
                    if let Some(tangent) = tangents[which] {
                        let mut inputs = Vals::from_slice(rule.inputs);
                        inputs[which] = tangent;
                        let ty = graph.ty(rule.outputs[0]).clone();
                        let part = graph.add_typed(op.clone(), &inputs, ty);
                        sum = Some(match sum {
                            None => part,
                            Some(sum) => ops::add(graph, sum, part)?,
                        });
                    }
                }
                Ok(smallvec![sum])
            }
        },
    }
}

/// The tangent of a value with the user's own pullback: the pullback, transposed.
fn custom(graph: &mut Graph, rule: &Rule, n: usize, tangents: &[Option<Val>], mode: Mode) -> Result<Val> {
    let placeholder = rule.inputs[1];
    let (arguments, gradients) = rule.inputs[2..].split_at(n);
    let tangents: Vals = tangents[2..2 + n]
        .iter()
        .zip(arguments)
        .map(|(tangent, arg)| tangent.unwrap_or_else(|| ops::zeros_like(graph, *arg)))
        .collect();
    match mode {
        // Nothing is made again later here: value and tangent go forward together.
        Mode::Forward => {
            let gradients = at_once(graph, placeholder, gradients);
            Graph::single(&reverse::gradient(graph, &gradients, &tangents, &[placeholder])?)
        }
        Mode::Linearize => {
            let mut inputs = tangents;
            inputs.push(placeholder);
            inputs.extend_from_slice(gradients);
            graph.add(Op::Pullback(n as u32), &inputs)
        }
    }
}
