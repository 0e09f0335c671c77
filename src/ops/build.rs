//! Short names for building graphs: what rules and composites are written with.

use super::{arithmetic, compare, exponential, reduce};
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{BinaryDef, Graph, Op, Rule, Source, Tangents, TensorType, UnaryDef, Val, Vals};
use crate::shape::Shape;
use smallvec::smallvec;

pub fn unary(g: &mut Graph, def: &'static UnaryDef, x: Val) -> Result<Val> {
    g.add(Op::Unary(def), &[x])
}

pub fn binary(g: &mut Graph, def: &'static BinaryDef, x: Val, y: Val) -> Result<Val> {
    g.add(Op::Binary(def), &[x, y])
}

pub fn add(g: &mut Graph, x: Val, y: Val) -> Result<Val> {
    binary(g, &arithmetic::ADD, x, y)
}

pub fn subtract(g: &mut Graph, x: Val, y: Val) -> Result<Val> {
    binary(g, &arithmetic::SUBTRACT, x, y)
}

pub fn multiply(g: &mut Graph, x: Val, y: Val) -> Result<Val> {
    binary(g, &arithmetic::MULTIPLY, x, y)
}

pub fn divide(g: &mut Graph, x: Val, y: Val) -> Result<Val> {
    binary(g, &arithmetic::DIVIDE, x, y)
}

/// The product in which zero times anything is zero.
pub fn zmul(g: &mut Graph, x: Val, y: Val) -> Result<Val> {
    binary(g, &arithmetic::ZMUL, x, y)
}

pub fn negative(g: &mut Graph, x: Val) -> Result<Val> {
    unary(g, &arithmetic::NEGATIVE, x)
}

pub fn exp(g: &mut Graph, x: Val) -> Result<Val> {
    unary(g, &exponential::EXP, x)
}

pub fn log(g: &mut Graph, x: Val) -> Result<Val> {
    unary(g, &exponential::LOG, x)
}

pub fn greater(g: &mut Graph, x: Val, y: Val) -> Result<Val> {
    binary(g, &compare::GREATER, x, y)
}

pub fn less(g: &mut Graph, x: Val, y: Val) -> Result<Val> {
    binary(g, &compare::LESS, x, y)
}

pub fn equal(g: &mut Graph, x: Val, y: Val) -> Result<Val> {
    binary(g, &compare::EQUAL, x, y)
}

pub fn select(g: &mut Graph, condition: Val, x: Val, y: Val) -> Result<Val> {
    g.add(Op::Select, &[condition, x, y])
}

pub fn cast(g: &mut Graph, x: Val, dtype: DType) -> Result<Val> {
    if g.dtype(x) == dtype { Ok(x) } else { g.add(Op::Cast(dtype), &[x]) }
}

/// The sum over the axes of the mask, which are dropped.
pub fn sum(g: &mut Graph, x: Val, axes: u32) -> Result<Val> {
    if axes == 0 { Ok(x) } else { g.add(Op::Reduce(&reduce::SUM, axes), &[x]) }
}

/// The largest element over the axes of the mask, which are dropped.
pub fn max(g: &mut Graph, x: Val, axes: u32) -> Result<Val> {
    if axes == 0 { Ok(x) } else { g.add(Op::Reduce(&reduce::MAX, axes), &[x]) }
}

/// A reduced value set against the shape it was reduced from.
pub fn spread(g: &mut Graph, reduced: Val, axes: u32, like: Val) -> Result<Val> {
    let full = g.shape(like).clone();
    let kept = super::reshape(g, reduced, &full.keeping(axes))?;
    super::broadcast_to(g, kept, &full)
}

/// 0, 1, 2, … along one axis of a shape, as int64.
pub fn iota_along(g: &mut Graph, shape: &Shape, axis: usize) -> Result<Val> {
    let iota = g.add_typed(Op::Source(Source::Iota), &[], TensorType::new(DType::I64, [shape[axis]]));
    let column: Shape = (0..shape.rank()).map(|i| if i == axis { shape[i] } else { 1 }).collect();
    let iota = super::reshape(g, iota, &column)?;
    super::broadcast_to(g, iota, shape)
}

/// A constant of the shape and dtype of `like`.
pub fn full_like(g: &mut Graph, value: f64, like: Val) -> Val {
    let ty = g.ty(like).clone();
    g.full(value, ty)
}

/// An operand in the dtype of `like`, repeated to its shape.
pub fn number(g: &mut Graph, value: Val, like: Val) -> Result<Val> {
    let ty = g.ty(like).clone();
    let value = cast(g, value, ty.dtype)?;
    super::broadcast_to(g, value, &ty.shape)
}

pub fn zeros_like(g: &mut Graph, like: Val) -> Val {
    full_like(g, 0.0, like)
}

/// The usual tangent of a linear op: the op itself on the tangents of its float inputs.
pub fn linear_apply(g: &mut Graph, rule: &Rule, tangents: &[Option<Val>]) -> Result<Tangents> {
    let inputs: Vals = rule
        .inputs
        .iter()
        .zip(tangents)
        .map(|(&input, tangent)| match tangent {
            Some(tangent) => *tangent,
            None if g.dtype(input).is_float() && !is_number(g, input) => zeros_like(g, input),
            None => input,
        })
        .collect();
    let types = rule.outputs.iter().map(|&val| g.ty(val).clone()).collect();
    let node = g.push_typed(rule.op.clone(), &inputs, types);
    Ok(g.nodes[node as usize].vals(node).into_iter().map(Some).collect())
}

fn is_number(g: &Graph, val: Val) -> bool {
    matches!(g.node(val).op, Op::Source(Source::Number(_)))
}

/// The tangent of a sum of signed operands: only those that move take part.
pub fn sum_of_tangents(g: &mut Graph, x: Option<Val>, y: Option<Val>) -> Result<Tangents> {
    Ok(smallvec![match (x, y) {
        (Some(x), Some(y)) => Some(add(g, x, y)?),
        (x, y) => x.or(y),
    }])
}
