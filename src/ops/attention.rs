//! Attention: softmax(scale·query·keyᵀ + mask)·value. The value, and the gradient of query, key and value, have hand
//! kernels that never hold more than a tile of scores; what stands here in other ops defines them for every other use:
//! tangents, the gradient of a float mask, second order, batches of examples. A query that no key is left for gives
//! zeros, and has no gradient.

use super::build::*;
use super::compare::GREATER_EQUAL;
use super::contract::matmul;
use super::layout::swap_last;
use super::softmax::LOGSUMEXP;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{
    Attrs, CompositeDef, DeviceKernel, Graph, HostKernel, Masking, Op, Reads, Rule, Tangents, TensorType, Val, Vals,
};
use crate::machine::cpu::attention::{Cotangents, Masks, backward, forward};
use crate::machine::cpu::par::Stopped;
use crate::machine::cpu::view::View;
use smallvec::{SmallVec, smallvec};

/// The operands of every composite here: query, key, value, scale, and the mask if there is one.
const OPERANDS: usize = 4;

pub static ATTENTION: CompositeDef = CompositeDef {
    name: "scaled_dot_product_attention",
    doc: "softmax(scale·query·keyᵀ + mask)·value over the last two axes; leading axes are equal. Inputs: query \
          (…, L, E), key (…, S, E), value (…, S, Ev), scale (a number), then mask (…, L, S) if present: bools, true where \
          a key takes part, or floats that are added. Outputs: the result (…, L, Ev), and log Σ exp(score) (…, L) \
          (Dao et al. 2022).",
    attrs: &["1 if query i sees only the keys up to i", "1 if mask is given"],
    infer: infer_value,
    expand: |g, attrs, inputs| {
        let scores = Scores::new(g, attrs, inputs)?;
        Ok(smallvec![matmul(g, scores.softmax, inputs[2])?, scores.logs])
    },
    derivative: Some(tangent),
    transpose: None,
    reads: Reads { inputs: u32::MAX, outputs: 0b11 },
    kernel: Some(&HostKernel {
        takes: is_taken,
        nanos: |_, inputs| nanos(inputs, 1),
        flops: |_, inputs| flops(inputs, 1, 1),
        run: run_forward,
        is_strided: true,
        device: |attrs, inputs| is_narrow(inputs).then(|| DeviceKernel::Attention(masking(attrs))),
    }),
};

/// Recorded only where the weights are dropped out before they meet the values.
pub(crate) static ATTENTION_WEIGHTS: CompositeDef = CompositeDef {
    name: "attention_weights",
    doc: "softmax(scale·query·keyᵀ + mask): the weights of scaled_dot_product_attention, which has the same inputs.",
    attrs: ATTENTION.attrs,
    infer: |attrs, inputs| {
        infer_value(attrs, inputs)?;
        Ok(smallvec![scores_of(inputs[0], inputs[1])])
    },
    expand: |g, attrs, inputs| Ok(smallvec![Scores::new(g, attrs, inputs)?.softmax]),
    derivative: None,
    transpose: None,
    reads: Reads::ALL_INPUTS,
    kernel: None,
};

/// Its inputs behind the operands are the outputs of `ATTENTION` and the tangents of query, key, value and, if the last
/// attribute is 1, of the mask.
static TANGENT: CompositeDef = CompositeDef {
    name: "attention_tangent",
    doc: "The tangents of both results of scaled_dot_product_attention: linear in the tangents of its operands.",
    attrs: &["1 if query i sees only the keys up to i", "1 if mask is given", "1 if the mask has a tangent"],
    infer: |attrs, inputs| {
        let at = OPERANDS + attrs[1] as usize;
        Ok(inputs[at..at + 2].iter().map(|&ty| ty.clone()).collect())
    },
    expand: expand_tangent,
    derivative: None,
    transpose: Some(transpose_tangent),
    reads: Reads::ALL_INPUTS,
    kernel: None,
};

/// Its inputs behind the operands are the outputs of `ATTENTION` and their cotangents.
static GRADIENT: CompositeDef = CompositeDef {
    name: "attention_gradient",
    doc: "The gradients of query, key and value of scaled_dot_product_attention.",
    attrs: &["1 if query i sees only the keys up to i", "1 if mask is given"],
    infer: |_, inputs| Ok(inputs[..3].iter().map(|&ty| ty.clone()).collect()),
    expand: |g, attrs, inputs| {
        let scores = Scores::new(g, attrs, inputs)?;
        let (to_out, to_logs) = (inputs[inputs.len() - 2], inputs[inputs.len() - 1]);
        let slopes = scores.slopes(g, inputs[2], to_out, to_logs)?;
        let slopes = scaled(g, slopes, inputs[3])?;
        let to_query = matmul(g, slopes, inputs[1])?;
        let turned = swap_last(g, slopes)?;
        let to_key = matmul(g, turned, inputs[0])?;
        let turned = swap_last(g, scores.softmax)?;
        Ok(smallvec![to_query, to_key, matmul(g, turned, to_out)?])
    },
    derivative: None,
    transpose: None,
    reads: Reads::ALL_INPUTS,
    kernel: Some(&HostKernel {
        takes: is_taken,
        nanos: |_, inputs| nanos(inputs, 3),
        flops: |_, inputs| flops(inputs, 3, 2),
        run: run_backward,
        is_strided: true,
        device: |attrs, inputs| is_narrow(inputs).then(|| DeviceKernel::AttentionGradient(masking(attrs))),
    }),
};

fn infer_value(attrs: &Attrs, inputs: &[&TensorType]) -> Result<SmallVec<[TensorType; 1]>> {
    let (query, key, value) = (inputs[0], inputs[1], inputs[2]);
    let rank = query.shape.rank();
    let fail = |what: &str| {
        let (q, k, v) = (&query.shape, &key.shape, &value.shape);
        Err(Error::shape(format!("scaled_dot_product_attention: query {q}, key {k} and value {v}: {what}")))
    };
    if rank < 2 || key.shape.rank() != rank || value.shape.rank() != rank {
        return fail("all have two axes at least, and as many leading ones");
    }
    let lead = &query.shape[..rank - 2];
    if &key.shape[..rank - 2] != lead || &value.shape[..rank - 2] != lead {
        return fail("leading axes differ");
    }
    if query.shape[rank - 1] != key.shape[rank - 1] {
        return fail("query and key must end in the same width");
    }
    if key.shape[rank - 2] != value.shape[rank - 2] {
        return fail("there must be a value for each key");
    }
    super::statistics::one_float("scaled_dot_product_attention", &["query", "key", "value"], &inputs[..3])?;
    if attrs[1] == 1 {
        let mask = inputs[OPERANDS];
        let scores = scores_of(query, key).shape;
        if mask.shape != scores {
            return Err(Error::shape(format!(
                "scaled_dot_product_attention: mask {} does not fit scores {scores}",
                mask.shape
            )));
        }
        if mask.dtype != DType::Bool && mask.dtype != query.dtype {
            return Err(Error::dtype(format!(
                "scaled_dot_product_attention: the mask is {}, it must be bool or {}",
                mask.dtype, query.dtype
            )));
        }
    }
    let mut out = query.clone();
    out.shape.dims_mut()[rank - 1] = value.shape[rank - 1];
    let logs = TensorType { dtype: query.dtype, shape: query.shape.without(1 << (rank - 1)) };
    Ok(smallvec![out, logs])
}

/// The type of query·keyᵀ.
fn scores_of(query: &TensorType, key: &TensorType) -> TensorType {
    let mut ty = query.clone();
    let rank = ty.shape.rank();
    ty.shape.dims_mut()[rank - 1] = key.shape[rank - 2];
    ty
}

/// What the formulas share.
struct Scores {
    softmax: Val,
    /// log Σ exp(score) of each query.
    logs: Val,
    /// The mask of the axis of keys.
    keys: u32,
}

impl Scores {
    fn new(g: &mut Graph, attrs: &Attrs, inputs: &[Val]) -> Result<Scores> {
        let turned = swap_last(g, inputs[1])?;
        let products = matmul(g, inputs[0], turned)?;
        let mut scores = scaled(g, products, inputs[3])?;
        let nothing = full_like(g, f64::NEG_INFINITY, scores);
        let shape = g.shape(scores).clone();
        let rank = shape.rank();
        if attrs[0] == 1 {
            let (query, key) = (iota_along(g, &shape, rank - 2)?, iota_along(g, &shape, rank - 1)?);
            let seen = binary(g, &GREATER_EQUAL, query, key)?;
            scores = select(g, seen, scores, nothing)?;
        }
        if attrs[1] == 1 {
            let mask = inputs[OPERANDS];
            scores = match g.dtype(mask) {
                DType::Bool => select(g, mask, scores, nothing)?,
                _ => add(g, scores, mask)?,
            };
        }
        let keys = 1 << (rank - 1);
        let logs = match shape[rank - 1] {
            0 => g.full(f64::NEG_INFINITY, TensorType { dtype: g.dtype(scores), shape: shape.without(keys) }),
            _ => g.add(Op::Composite(&LOGSUMEXP, smallvec![i64::from(keys)]), &[scores])?,
        };
        // A query without keys: exp(-inf), not exp(-inf + inf).
        let (zero, empty) = (full_like(g, 0.0, logs), full_like(g, f64::NEG_INFINITY, logs));
        let is_empty = equal(g, logs, empty)?;
        let origin = select(g, is_empty, zero, logs)?;
        let origin = spread(g, origin, keys, scores)?;
        let shifted = subtract(g, scores, origin)?;
        Ok(Scores { softmax: exp(g, shifted)?, logs, keys })
    }

    /// softmax·(tangent - Σ softmax·tangent), and Σ softmax·tangent: the tangents of softmax and of the logarithms.
    fn moved(&self, g: &mut Graph, tangent: Val) -> Result<(Val, Val)> {
        let weighted = zmul(g, self.softmax, tangent)?;
        let total = sum(g, weighted, self.keys)?;
        let mean = spread(g, total, self.keys, weighted)?;
        let back = zmul(g, self.softmax, mean)?;
        Ok((subtract(g, weighted, back)?, total))
    }

    /// The cotangent of the scores.
    fn slopes(&self, g: &mut Graph, value: Val, to_out: Val, to_logs: Val) -> Result<Val> {
        let turned = swap_last(g, value)?;
        let to_softmax = matmul(g, to_out, turned)?;
        let (slopes, _) = self.moved(g, to_softmax)?;
        let share = spread(g, to_logs, self.keys, slopes)?;
        let share = zmul(g, self.softmax, share)?;
        add(g, slopes, share)
    }
}

fn scaled(g: &mut Graph, x: Val, scale: Val) -> Result<Val> {
    let scale = number(g, scale, x)?;
    multiply(g, x, scale)
}

fn attributes<'a>(rule: &Rule<'a>) -> Result<&'a Attrs> {
    match rule.op {
        Op::Composite(_, attrs) => Ok(attrs),
        _ => Err(Error::internal("attention: not a composite")),
    }
}

fn tangent(g: &mut Graph, rule: &Rule, tangents: &[Option<Val>]) -> Result<Tangents> {
    let mut attrs = attributes(rule)?.clone();
    let of_mask = tangents.get(OPERANDS).copied().flatten();
    attrs.push(i64::from(of_mask.is_some()));
    let mut inputs = Vals::from_slice(rule.inputs);
    inputs.extend_from_slice(rule.outputs);
    for (&input, tangent) in rule.inputs[..3].iter().zip(tangents) {
        inputs.push(tangent.unwrap_or_else(|| zeros_like(g, input)));
    }
    inputs.extend(of_mask);
    let node = g.push(Op::Composite(&TANGENT, attrs), &inputs)?;
    Ok(g.nodes[node as usize].vals(node).into_iter().map(Some).collect())
}

fn expand_tangent(g: &mut Graph, attrs: &Attrs, inputs: &[Val]) -> Result<Vals> {
    let (query, key, value) = (inputs[0], inputs[1], inputs[2]);
    let tangents = &inputs[OPERANDS + attrs[1] as usize + 2..];
    let scores = Scores::new(g, attrs, inputs)?;
    let (turned, moved_key) = (swap_last(g, key)?, swap_last(g, tangents[1])?);
    let (by_query, by_key) = (matmul(g, tangents[0], turned)?, matmul(g, query, moved_key)?);
    let products = add(g, by_query, by_key)?;
    let mut moved = scaled(g, products, inputs[3])?;
    if attrs[2] == 1 {
        moved = add(g, moved, tangents[3])?;
    }
    let (softmax, logs) = scores.moved(g, moved)?;
    let (by_softmax, by_value) = (matmul(g, softmax, value)?, matmul(g, scores.softmax, tangents[2])?);
    Ok(smallvec![add(g, by_softmax, by_value)?, logs])
}

/// Query, key and value get theirs from one node, the same for all three; a mask from the formula.
fn transpose_tangent(g: &mut Graph, rule: &Rule, cotangents: &[Option<Val>], which: usize) -> Result<Val> {
    let attrs = attributes(rule)?;
    let operands = OPERANDS + attrs[1] as usize;
    let outputs = &rule.inputs[operands..operands + 2];
    let mut inputs = Vals::from_slice(&rule.inputs[..operands + 2]);
    for (&output, cotangent) in outputs.iter().zip(cotangents) {
        inputs.push(cotangent.unwrap_or_else(|| zeros_like(g, output)));
    }
    let kept: Attrs = attrs[..2].iter().copied().collect();
    let output = (which - operands - 2) as u32;
    if output == 3 {
        let scores = Scores::new(g, &kept, &inputs)?;
        return scores.slopes(g, inputs[2], inputs[operands + 2], inputs[operands + 3]);
    }
    let node = g.push(Op::Composite(&GRADIENT, kept), &inputs)?;
    Ok(Val { node, output })
}

/// Whether the hand kernels take these operands.
fn is_taken(_: &Attrs, inputs: &[&TensorType]) -> bool {
    let supported = matches!(inputs[0].dtype, DType::F32 | DType::F64);
    supported && inputs[..3].iter().all(|ty| ty.shape.size() > 0)
}

/// Whether a thread of a GPU has registers enough for its part of the results.
fn is_narrow(inputs: &[&TensorType]) -> bool {
    let width = |ty: &TensorType| ty.shape.last().copied().unwrap_or(0);
    inputs[0].dtype == DType::F32 && width(inputs[0]).max(width(inputs[2])) <= 256
}

fn masking(attrs: &Attrs) -> Masking {
    Masking { is_causal: attrs[0] == 1, is_masked: attrs[1] == 1 }
}

/// `factor` times what two products of scores cost.
fn nanos(inputs: &[&TensorType], factor: u64) -> u64 {
    let (scores, rank) = (scores_of(inputs[0], inputs[1]).shape.size(), inputs[0].shape.rank());
    let width = inputs[0].shape[rank - 1] + inputs[2].shape[rank - 1];
    factor * scores as u64 * (width as u64 + 40) / 40
}

/// Of so many products of scores with the width of the keys, and with that of the values.
fn flops(inputs: &[&TensorType], by_key: u64, by_value: u64) -> u64 {
    let (scores, rank) = (scores_of(inputs[0], inputs[1]).shape.size() as u64, inputs[0].shape.rank());
    2 * scores * (by_key * inputs[0].shape[rank - 1] as u64 + by_value * inputs[2].shape[rank - 1] as u64)
}

fn masks<'a>(attrs: &Attrs, inputs: &'a [View]) -> Masks<'a> {
    Masks { causal: attrs[0] == 1, mask: (attrs[1] == 1).then(|| &inputs[OPERANDS]) }
}

unsafe fn run_forward(attrs: &Attrs, inputs: &[View], outputs: &[View]) -> std::result::Result<(), Stopped> {
    let operands = [&inputs[0], &inputs[1], &inputs[2], &inputs[3]];
    let masks = masks(attrs, inputs);
    // SAFETY: the caller's promise.
    unsafe {
        match inputs[0].dtype {
            DType::F64 => forward::<f64>(operands, masks, &outputs[0], &outputs[1]),
            _ => forward::<f32>(operands, masks, &outputs[0], &outputs[1]),
        }
    }
}

unsafe fn run_backward(attrs: &Attrs, inputs: &[View], outputs: &[View]) -> std::result::Result<(), Stopped> {
    let operands = [&inputs[0], &inputs[1], &inputs[2], &inputs[3]];
    let masks = masks(attrs, inputs);
    let rest = &inputs[OPERANDS + attrs[1] as usize..];
    let given = Cotangents { out: &rest[0], logs: &rest[1], to_out: &rest[2], to_logs: &rest[3] };
    let gradients = [&outputs[0], &outputs[1], &outputs[2]];
    // SAFETY: the caller's promise.
    unsafe {
        match inputs[0].dtype {
            DType::F64 => backward::<f64>(operands, masks, &given, gradients),
            _ => backward::<f32>(operands, masks, &given, gradients),
        }
    }
}
