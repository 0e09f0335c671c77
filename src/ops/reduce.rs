//! Reductions over axes. All dtypes share two trees of additions (see `machine::cpu::reduce`).

use super::build::*;
use super::compare;
use super::layout::narrow;
use super::wgsl::wgsl;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{
    CompositeDef, Derivative, Fold, Graph, HostKernel, Op, Reads, ReduceDef, Rule, RunFn, Tangents, TensorType, Val,
};
use crate::machine::cpu::position::{self, Extreme};
use crate::machine::cpu::reduce;
use smallvec::{SmallVec, smallvec};

pub static SUM: ReduceDef = ReduceDef {
    name: "sum",
    doc: "The sum of the elements over the given axes.",
    domain: (-2.0, 2.0),
    empty: Some(0.0),
    kernels: reduce::sum,
    wgsl: wgsl!(
        F32 => Fold { identity: "0.0", combine: "x + y" },
        I32 => Fold { identity: "0", combine: "x + y" },
        I64 => Fold { identity: "vec2<u32>(0u, 0u)", combine: "add_i64(x, y)" }
    ),
    reference: |x, y| x + y,
    derivative: Derivative::Linear { apply: linear_apply, transpose: |g, rule, ct, _| spread_back(g, rule, ct) },
    reads: Reads::NONE,
};

pub static MAX: ReduceDef = ReduceDef {
    name: "max",
    doc: "The largest element over the given axes; NaN if any is. Equal ones share the gradient.",
    domain: (-2.0, 2.0),
    empty: None,
    kernels: reduce::max,
    wgsl: wgsl!(
        F32 => Fold { identity: "bitcast<f32>(0xff800000u)", combine: "maximum_f32(x, y)" },
        Bool | U8 => Fold { identity: "0u", combine: "max(x, y)" },
        I32 => Fold { identity: "bitcast<i32>(0x80000000u)", combine: "max(x, y)" },
        I64 => Fold { identity: "vec2<u32>(0u, 0x80000000u)", combine: "select(y, x, less_i64(y, x))" }
    ),
    reference: |x, y| if x > y || x.is_nan() { x } else { y },
    derivative: Derivative::Jvp(extreme_tangent),
    reads: Reads::INPUT,
};

pub static MIN: ReduceDef = ReduceDef {
    name: "min",
    doc: "The smallest element over the given axes; NaN if any is. Equal ones share the gradient.",
    domain: (-2.0, 2.0),
    empty: None,
    kernels: reduce::min,
    wgsl: wgsl!(
        F32 => Fold { identity: "bitcast<f32>(0x7f800000u)", combine: "minimum_f32(x, y)" },
        Bool => Fold { identity: "1u", combine: "min(x, y)" },
        U8 => Fold { identity: "255u", combine: "min(x, y)" },
        I32 => Fold { identity: "0x7fffffff", combine: "min(x, y)" },
        I64 => Fold { identity: "vec2<u32>(0xffffffffu, 0x7fffffffu)", combine: "select(y, x, less_i64(x, y))" }
    ),
    reference: |x, y| if x < y || x.is_nan() { x } else { y },
    derivative: Derivative::Jvp(extreme_tangent),
    reads: Reads::INPUT,
};

/// Of bools alone: the largest is whether any is true.
pub static ANY: ReduceDef = ReduceDef {
    name: "any",
    doc: "Whether any element over the given axes is true; false if there are none.",
    domain: (0.0, 1.0),
    empty: Some(0.0),
    kernels: |dtype| if dtype == DType::Bool { reduce::max(dtype) } else { None },
    wgsl: wgsl!(Bool => Fold { identity: "0u", combine: "max(x, y)" }),
    reference: f64::max,
    derivative: Derivative::Zero,
    reads: Reads::NONE,
};

/// Of bools alone: the smallest is whether all are true.
pub static ALL: ReduceDef = ReduceDef {
    name: "all",
    doc: "Whether all elements over the given axes are true; true if there are none.",
    domain: (0.0, 1.0),
    empty: Some(1.0),
    kernels: |dtype| if dtype == DType::Bool { reduce::min(dtype) } else { None },
    wgsl: wgsl!(Bool => Fold { identity: "1u", combine: "min(x, y)" }),
    reference: f64::min,
    derivative: Derivative::Zero,
    reads: Reads::NONE,
};

pub static PROD: CompositeDef = CompositeDef {
    name: "prod",
    doc: "The product of the elements over the given axes; 1 if there are none. Multiplied half by half, so that the \
          gradient is exact where elements are 0.",
    attrs: &["mask of the axes, which are dropped"],
    infer: |attrs, inputs| {
        let ty = inputs[0];
        if ty.dtype == DType::Bool {
            return Err(Error::dtype("prod: bool is not supported; astype an integer first"));
        }
        Ok(smallvec![TensorType { dtype: ty.dtype, shape: ty.shape.without(attrs[0] as u32) }])
    },
    expand: |g, attrs, inputs| Ok(smallvec![product(g, inputs[0], attrs[0] as u32)?]),
    derivative: None,
    transpose: None,
    reads: Reads::INPUT,
    kernel: None,
};

pub static ARGMAX: CompositeDef = CompositeDef {
    name: "argmax",
    doc: "The first index of the largest element along the axis; NaN counts as the largest.",
    attrs: &["axis, which is dropped"],
    infer: |attrs, inputs| infer_position("argmax", attrs[0] as usize, inputs[0]),
    expand: |g, attrs, inputs| Ok(smallvec![position(g, inputs[0], attrs[0] as usize, &MAX)?]),
    derivative: Some(|_, _, _| Ok(smallvec![None])),
    transpose: None,
    reads: Reads::NONE,
    kernel: Some(&LARGEST),
};

pub static ARGMIN: CompositeDef = CompositeDef {
    name: "argmin",
    doc: "The first index of the smallest element along the axis; NaN counts as the smallest.",
    attrs: &["axis, which is dropped"],
    infer: |attrs, inputs| infer_position("argmin", attrs[0] as usize, inputs[0]),
    expand: |g, attrs, inputs| Ok(smallvec![position(g, inputs[0], attrs[0] as usize, &MIN)?]),
    derivative: Some(|_, _, _| Ok(smallvec![None])),
    transpose: None,
    reads: Reads::NONE,
    kernel: Some(&SMALLEST),
};

const fn position_kernel(run: RunFn) -> HostKernel {
    HostKernel {
        takes: |attrs, inputs| inputs[0].shape.size() > 0 && position::reaches(inputs[0].shape[attrs[0] as usize]),
        nanos: |_, inputs| inputs[0].shape.size() as u64 / 8,
        flops: |_, _| 0,
        run,
        is_strided: false,
        device: |_, _| None,
    }
}

static LARGEST: HostKernel = position_kernel(|attrs, inputs, outputs| {
    // SAFETY: the caller's promise.
    unsafe { position::position(Extreme::Largest, attrs[0] as usize, &inputs[0], &outputs[0]) }
});
static SMALLEST: HostKernel = position_kernel(|attrs, inputs, outputs| {
    // SAFETY: the caller's promise.
    unsafe { position::position(Extreme::Smallest, attrs[0] as usize, &inputs[0], &outputs[0]) }
});

fn infer_position(op: &str, axis: usize, x: &TensorType) -> Result<SmallVec<[TensorType; 1]>> {
    if x.shape[axis] == 0 {
        return Err(Error::value(format!("{op}: axis {axis} of shape {} is empty", x.shape)));
    }
    Ok(smallvec![TensorType { dtype: DType::I64, shape: x.shape.without(1 << axis) }])
}

/// The first index along the axis of an element equal to the extreme one, or of a NaN.
fn position(g: &mut Graph, x: Val, axis: usize, extreme: &'static ReduceDef) -> Result<Val> {
    let shape = g.shape(x).clone();
    let best = g.add(Op::Reduce(extreme, 1 << axis), &[x])?;
    let best = spread(g, best, 1 << axis, x)?;
    let mut hit = equal(g, x, best)?;
    if g.dtype(x).is_float() {
        let nan = binary(g, &compare::NOT_EQUAL, x, x)?;
        hit = binary(g, &compare::OR, hit, nan)?;
    }
    let indices = iota_along(g, &shape, axis)?;
    let end = full_like(g, shape[axis] as f64, indices);
    let candidates = select(g, hit, indices, end)?;
    g.add(Op::Reduce(&MIN, 1 << axis), &[candidates])
}

fn product(g: &mut Graph, x: Val, axes: u32) -> Result<Val> {
    let mut x = x;
    for axis in (0..g.shape(x).rank()).filter(|axis| axes >> axis & 1 == 1) {
        let mut length = g.shape(x)[axis];
        if length == 0 {
            let ty = TensorType { dtype: g.dtype(x), shape: g.shape(x).keeping(1 << axis) };
            x = g.full(1.0, ty);
        }
        while length > 1 {
            let half = length / 2;
            let (first, second) = (narrow(g, x, axis, 0, half)?, narrow(g, x, axis, half, half)?);
            let mut next = multiply(g, first, second)?;
            if length % 2 == 1 {
                let last = narrow(g, x, axis, length - 1, 1)?;
                next = g.add(Op::Concat(axis as u8), &[next, last])?;
            }
            x = next;
            length -= half;
        }
    }
    let shape = g.shape(x).without(axes);
    super::reshape(g, x, &shape)
}

fn axes_of(op: &Op) -> u32 {
    match op {
        Op::Reduce(_, axes) => *axes,
        _ => 0,
    }
}

fn spread_back(g: &mut Graph, rule: &Rule, ct: &[Option<Val>]) -> Result<Val> {
    let ct = super::arithmetic::given(ct)?;
    spread(g, ct, axes_of(rule.op), rule.inputs[0])
}

/// The mean of the tangents of the elements that equal the extreme. The extreme is computed again from the same input,
/// so that it and the comparison come from one execution.
fn extreme_tangent(g: &mut Graph, rule: &Rule, t: &[Option<Val>]) -> Result<Tangents> {
    let Some(tangent) = t[0] else { return Ok(smallvec![None]) };
    let (x, axes) = (rule.inputs[0], axes_of(rule.op));
    let extreme = g.add(rule.op.clone(), &[x])?;
    let against = spread(g, extreme, axes, x)?;
    let chosen = equal(g, x, against)?;
    let (one, zero) = (full_like(g, 1.0, x), full_like(g, 0.0, x));
    let ones = select(g, chosen, one, zero)?;
    let count = sum(g, ones, axes)?;
    let unit = full_like(g, 1.0, count);
    let share = divide(g, unit, count)?;
    let kept = select(g, chosen, tangent, zero)?;
    let total = sum(g, kept, axes)?;
    Ok(smallvec![Some(zmul(g, total, share)?)])
}
