//! Cutting along an axis into several results, whose gradients are joined in one step.

use super::build::{linear_apply, zeros_like};
use super::layout::narrow;
use crate::error::{Error, Result};
use crate::graph::{CompositeDef, Graph, Op, Reads, Rule, Val, Vals};

pub static SPLIT: CompositeDef = CompositeDef {
    name: "split",
    doc: "Parts of x of these lengths along the axis, which they cover.",
    attrs: &["axis", "length of each part"],
    infer: |attrs, inputs| {
        let part = |&length: &i64| {
            let mut ty = inputs[0].clone();
            ty.shape.dims_mut()[attrs[0] as usize] = length as usize;
            ty
        };
        Ok(attrs[1..].iter().map(part).collect())
    },
    expand: |g, attrs, inputs| {
        let mut start = 0;
        let mut parts = Vals::new();
        for &length in &attrs[1..] {
            parts.push(narrow(g, inputs[0], attrs[0] as usize, start, length as usize)?);
            start += length as usize;
        }
        Ok(parts)
    },
    derivative: Some(linear_apply),
    transpose: Some(join),
    reads: Reads::NONE,
    kernel: None,
};

fn join(g: &mut Graph, rule: &Rule, cotangents: &[Option<Val>], _: usize) -> Result<Val> {
    let Op::Composite(_, attrs) = rule.op else { return Err(Error::internal("split: not a composite")) };
    let parts: Vals = rule
        .outputs
        .iter()
        .zip(cotangents)
        .map(|(&output, cotangent)| cotangent.unwrap_or_else(|| zeros_like(g, output)))
        .collect();
    g.add(Op::Concat(attrs[0] as u8), &parts)
}
