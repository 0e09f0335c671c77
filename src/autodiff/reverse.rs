//! Reverse mode: forward mode with symbolic tangents, transposed. Each tangent node is linear in the tangents, so its
//! cotangents follow from the same rule; the tangent nodes themselves are dead afterwards and pruned.

use super::expand::substitute;
use super::forward::{Mode, push_forward};
use crate::error::{Error, Result};
use crate::graph::{Derivative, Graph, Node, Op, Rule, Val, Vals};
use crate::ops;
use hashbrown::HashMap;
use smallvec::SmallVec;

/// Cotangents that reach a value, from the last user to the first.
type Contributions = HashMap<Val, SmallVec<[Val; 2]>>;

/// The gradient of Σ target·cotangent with respect to each of `wrt`.
pub(super) fn gradient(graph: &mut Graph, targets: &[Val], cotangents: &[Val], wrt: &[Val]) -> Result<Vals> {
    let first = graph.nodes.len();
    let seeds: Vec<(Val, Val)> = wrt
        .iter()
        .map(|&val| {
            let ty = graph.ty(val).clone();
            (val, graph.placeholder(ty))
        })
        .collect();
    let tangents = push_forward(graph, &seeds, targets, Mode::Linearize)?;
    let last = graph.nodes.len();
    let linear = linear_nodes(graph, first, seeds.len(), last);
    let mut contributions = Contributions::new();
    for (target, &cotangent) in targets.iter().zip(cotangents) {
        if let Some(&tangent) = tangents.get(target) {
            contributions.entry(tangent).or_default().push(cotangent);
        }
    }
    for index in (first + seeds.len()..last).rev() {
        if linear[index - first] {
            transpose(graph, index as u32, &mut contributions, |val| {
                val.node as usize >= first && linear[val.node as usize - first]
            })?;
        }
    }
    wrt.iter()
        .zip(&seeds)
        .map(|(&val, (_, seed))| match total(graph, &mut contributions, *seed)? {
            Some(gradient) => Ok(gradient),
            None => Ok(ops::zeros_like(graph, val)),
        })
        .collect()
}

/// Which of the nodes `first..last` depend on the first `seeds` of them.
fn linear_nodes(graph: &Graph, first: usize, seeds: usize, last: usize) -> Vec<bool> {
    let mut linear = vec![false; last - first];
    for index in first..last {
        linear[index - first] = index < first + seeds
            || graph.nodes[index]
                .inputs
                .iter()
                .any(|val| val.node as usize >= first && linear[val.node as usize - first]);
    }
    linear
}

/// Passes the cotangents of one linear node on to its linear inputs.
fn transpose(
    graph: &mut Graph,
    index: u32,
    contributions: &mut Contributions,
    is_linear: impl Fn(Val) -> bool,
) -> Result<()> {
    let node = graph.nodes[index as usize].clone();
    let outputs = node.vals(index);
    let mut cotangents: SmallVec<[Option<Val>; 2]> = SmallVec::new();
    for &output in &outputs {
        cotangents.push(total(graph, contributions, output)?);
    }
    if cotangents.iter().all(Option::is_none) {
        return Ok(());
    }
    if let (Op::Pullback(n), Some(cotangent)) = (&node.op, cotangents[0]) {
        let n = *n as usize;
        let gradients = substitute(graph, node.inputs[n], cotangent, &node.inputs[n + 1..]);
        for (&input, gradient) in node.inputs[..n].iter().zip(gradients).filter(|(input, _)| is_linear(**input)) {
            contributions.entry(input).or_default().push(gradient);
        }
        return Ok(());
    }
    let rule = Rule { op: &node.op, inputs: &node.inputs, outputs: &outputs };
    // Back to front: contributions are kept from the last user to the first.
    for which in (0..node.inputs.len()).rev().filter(|&which| is_linear(node.inputs[which])) {
        let cotangent = transpose_input(graph, &node, &rule, &cotangents, which)?;
        #[cfg(test)]
        let cotangent = super::tests::mutation::cotangent(graph, node.op.name(), cotangent);
        contributions.entry(node.inputs[which]).or_default().push(cotangent);
    }
    Ok(())
}

fn transpose_input(
    graph: &mut Graph,
    node: &Node,
    rule: &Rule,
    cotangents: &[Option<Val>],
    which: usize,
) -> Result<Val> {
    if let Op::Composite(def, _) = node.op
        && let Some(transpose) = def.transpose
    {
        return transpose(graph, rule, cotangents, which);
    }
    match ops::derivative(&node.op) {
        Derivative::Linear { transpose, .. } => transpose(graph, rule, cotangents, which),
        Derivative::Bilinear(transposes) if which < 2 => transposes[which](graph, rule, cotangents, which),
        _ => Err(Error::internal(format!("{} stands on a tangent but is not linear in it", node.op.name()))),
    }
}

/// The sum of what reached `val`, in the order of its users.
fn total(graph: &mut Graph, contributions: &mut Contributions, val: Val) -> Result<Option<Val>> {
    let Some(parts) = contributions.remove(&val) else { return Ok(None) };
    let mut parts = parts.into_iter().rev();
    let Some(mut sum) = parts.next() else { return Ok(None) };
    for part in parts {
        sum = ops::add(graph, sum, part)?;
    }
    Ok(Some(sum))
}
