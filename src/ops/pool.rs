//! Pooling: the largest element or the mean of each window. The largest follows the index that the kernel found: it is
//! picked by it, and its cotangent goes back by it.

use super::arithmetic;
use super::build::*;
use super::conv::LARGEST;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{
    Attrs, CompositeDef, Derivative, Divisor, Graph, Op, PoolRole, Reads, Rule, Sweep, Sweeps, Tangents, TensorType,
    Val,
};
use crate::machine::cpu::isa::isa;
use crate::machine::cpu::par::Stopped;
use crate::machine::cpu::pool::{self, Pool};
use crate::machine::cpu::sweep::three;
use crate::shape::Shape;
use smallvec::{SmallVec, smallvec};

static LINEAR: Derivative = Derivative::Linear { apply: linear_apply, transpose };

pub fn derivative(role: PoolRole) -> &'static Derivative {
    if role == PoolRole::Index { &Derivative::Zero } else { &LINEAR }
}

pub fn reads(role: PoolRole) -> Reads {
    match role {
        PoolRole::Pick | PoolRole::Place => Reads { inputs: 0b10, outputs: 0 },
        PoolRole::Index | PoolRole::Mean(_) | PoolRole::Spread(_) => Reads::NONE,
    }
}

fn transpose(g: &mut Graph, rule: &Rule, cotangents: &[Option<Val>], _: usize) -> Result<Val> {
    let (Op::Pool(sweeps, role), Some(cotangent)) = (rule.op, cotangents[0]) else {
        return Err(Error::internal("pool: no cotangent"));
    };
    let back = match *role {
        PoolRole::Pick => PoolRole::Place,
        PoolRole::Place => PoolRole::Pick,
        PoolRole::Mean(divisor) => PoolRole::Spread(divisor),
        PoolRole::Spread(divisor) => PoolRole::Mean(divisor),
        PoolRole::Index => return Err(Error::internal("pool_index is not linear")),
    };
    let ty = g.ty(rule.inputs[0]).clone();
    let inputs: SmallVec<[Val; 2]> = std::iter::once(cotangent).chain(rule.inputs[1..].iter().copied()).collect();
    Ok(g.add_typed(Op::Pool(sweeps.clone(), back), &inputs, ty))
}

/// The extents of a pooling, from the shape of its first input and of its result.
pub fn extents(sweeps: &[Sweep], role: PoolRole, input: &Shape, out: &Shape) -> Pool {
    let (field, windows) = match role {
        PoolRole::Place | PoolRole::Spread(_) => (out, input),
        PoolRole::Index | PoolRole::Pick | PoolRole::Mean(_) => (input, out),
    };
    let planes = field.rank() - sweeps.len();
    Pool {
        planes: field[..planes].iter().product(),
        field: three(&field[planes..], 1),
        grid: three(&windows[planes..], 1),
        sweeps: three(sweeps, Sweep::NONE),
    }
}

/// The dtype of taps.
fn tap_dtype(sweeps: &[Sweep]) -> DType {
    if sweeps.iter().map(|sweep| sweep.taps).product::<usize>() <= 256 { DType::U8 } else { DType::I32 }
}

/// Runs a role. `float` is the dtype of the values, `taps` of the taps, where there are any.
///
/// # Safety
/// The operands are contiguous and have the extents of the pool; the result overlaps nothing. `b` is read only if the
/// role has a second input.
pub unsafe fn run(
    pool: &Pool,
    role: PoolRole,
    (float, taps): (DType, DType),
    [a, b]: [*mut u8; 2],
    out: *mut u8,
) -> std::result::Result<(), Stopped> {
    macro_rules! typed {
        ($T:ty, $I:ty) => {{
            let (x, y) = (a.cast::<$T>().cast_const(), out.cast::<$T>());
            let index = b.cast::<$I>().cast_const();
            // SAFETY: the caller's promise.
            unsafe {
                match role {
                    PoolRole::Index => pool::index(pool, x, out.cast::<$I>(), isa()),
                    PoolRole::Pick => pool::pick(pool, x, index, y),
                    PoolRole::Place => pool::place(pool, x, index, y),
                    PoolRole::Mean(divisor) => pool::mean(pool, divisor, x, y, isa()),
                    PoolRole::Spread(divisor) => pool::spread(pool, divisor, x, y),
                }
            }
        }};
    }
    match (float, taps) {
        (DType::F32, DType::I32) => typed!(f32, i32),
        (DType::F32, _) => typed!(f32, u8),
        (_, DType::I32) => typed!(f64, i32),
        _ => typed!(f64, u8),
    }
}

pub static MAX_POOL: CompositeDef = CompositeDef {
    name: "max_pool",
    doc: "The largest element of each window over the last axes, NaN if it holds one. Outputs: the elements, their taps \
          in the window, and, if asked for, their int64 positions in the plane.",
    attrs: &[
        "spatial axes",
        "1 to round the number of windows up",
        "for each axis: taps, stride, padding, dilation",
        "1 to give the positions",
    ],
    infer: |attrs, inputs| {
        let call = Call::check("max_pool", attrs, inputs[0])?;
        call.check_windows(inputs[0])?;
        let of = |dtype: DType| TensorType { dtype, shape: call.result.clone() };
        let mut types = smallvec![of(inputs[0].dtype), of(tap_dtype(&call.sweeps))];
        types.extend(gives_positions(attrs).then(|| of(DType::I64)));
        Ok(types)
    },
    expand: |g, attrs, inputs| {
        let x = inputs[0];
        let Call { sweeps, result, .. } = Call::check("max_pool", attrs, g.ty(x))?;
        let of = |dtype: DType| TensorType { dtype, shape: result.clone() };
        let dtype = g.dtype(x);
        let taps = g.add_typed(Op::Pool(sweeps.clone(), PoolRole::Index), &[x], of(tap_dtype(&sweeps)));
        let values = g.add_typed(Op::Pool(sweeps.clone(), PoolRole::Pick), &[x, taps], of(dtype));
        if !gives_positions(attrs) {
            return Ok(smallvec![values, taps]);
        }
        let field = g.shape(x).clone();
        Ok(smallvec![values, taps, positions(g, &sweeps, &field, taps)?])
    },
    derivative: Some(|g, rule, tangents| -> Result<Tangents> {
        let (Op::Composite(_, attrs), Some(tangent)) = (rule.op, tangents[0]) else {
            return Ok(smallvec![None; rule.outputs.len()]);
        };
        let ty = g.ty(rule.outputs[0]).clone();
        let Call { sweeps, .. } = Call::check("max_pool", attrs, g.ty(rule.inputs[0]))?;
        let picked = g.add_typed(Op::Pool(sweeps, PoolRole::Pick), &[tangent, rule.outputs[1]], ty);
        let mut tangents: Tangents = smallvec![None; rule.outputs.len()];
        tangents[0] = Some(picked);
        Ok(tangents)
    }),
    transpose: None,
    reads: Reads { inputs: 0, outputs: 0b10 },
    kernel: None,
};

/// All outputs of a node are computed where its value is kept, so positions that nobody asks for are not among them.
fn gives_positions(attrs: &Attrs) -> bool {
    attrs.last() == Some(&1)
}

/// The index in the plane, in row-major order, of the tap of each window.
fn positions(g: &mut Graph, sweeps: &[Sweep], field: &Shape, taps: Val) -> Result<Val> {
    let shape = g.shape(taps).clone();
    let planes = shape.rank() - sweeps.len();
    let mut rest = cast(g, taps, DType::I64)?;
    let (mut total, mut step) = (zeros_like(g, rest), 1);
    for (axis, sweep) in sweeps.iter().enumerate().rev() {
        let count = full_like(g, sweep.taps as f64, rest);
        let tap = binary(g, &arithmetic::REMAINDER, rest, count)?;
        rest = binary(g, &arithmetic::FLOOR_DIVIDE, rest, count)?;
        let window = iota_along(g, &shape, planes + axis)?;
        for (factor, index) in [(sweep.dilation, tap), (sweep.stride, window)] {
            let factor = full_like(g, (factor * step) as f64, index);
            let part = multiply(g, index, factor)?;
            total = add(g, total, part)?;
        }
        let low = full_like(g, (sweep.low * step) as f64, total);
        total = subtract(g, total, low)?;
        step *= field[planes + axis];
    }
    Ok(total)
}

pub static AVG_POOL: CompositeDef = CompositeDef {
    name: "avg_pool",
    doc: "The mean of each window over the last axes: its sum over the number of its positions, in the padded field, in \
          the field, or a given one.",
    attrs: &[
        "spatial axes",
        "1 to round the number of windows up",
        "for each axis: taps, stride, padding, dilation",
        "0 padded field, 1 field, 2 given",
        "the given divisor",
    ],
    infer: |attrs, inputs| {
        let call = Call::check("avg_pool", attrs, inputs[0])?;
        Ok(smallvec![TensorType { dtype: inputs[0].dtype, shape: call.result }])
    },
    expand: |g, attrs, inputs| {
        let Call { sweeps, result, .. } = Call::check("avg_pool", attrs, g.ty(inputs[0]))?;
        let divisor = match attrs[attrs.len() - 2] {
            0 => Divisor::Padded,
            1 => Divisor::Inside,
            _ => Divisor::Fixed(attrs[attrs.len() - 1]),
        };
        let ty = TensorType { dtype: g.dtype(inputs[0]), shape: result };
        Ok(smallvec![g.add_typed(Op::Pool(sweeps, PoolRole::Mean(divisor)), &[inputs[0]], ty)])
    },
    derivative: None,
    transpose: None,
    reads: Reads::NONE,
    kernel: None,
};

/// A pooling as users call it, found to fit.
struct Call {
    op: String,
    sweeps: Sweeps,
    result: Shape,
}

impl Call {
    fn check(name: &str, attrs: &Attrs, x: &TensorType) -> Result<Call> {
        let axes = attrs[0] as usize;
        let op = format!("{name}{axes}d");
        super::statistics::float_only(&op, x)?;
        let shape = &x.shape;
        if shape.rank() != axes + 1 && shape.rank() != axes + 2 {
            let rank = axes + 2;
            return Err(Error::shape(format!(
                "{op}: input {shape} must have {rank} axes, or {} without a batch",
                rank - 1
            )));
        }
        let planes = shape.rank() - axes;
        if shape[planes - 1] == 0 {
            return Err(Error::shape(format!("{op}: input {shape} has no channels; only the batch may be empty")));
        }
        let mut sweeps = Sweeps::new();
        let mut result = Shape::new(&shape[..planes]);
        for (axis, settings) in attrs[2..2 + 4 * axes].chunks_exact(4).enumerate() {
            let &[taps, stride, low, dilation] = settings else { return Err(Error::internal("four settings an axis")) };
            if taps < 1 || stride < 1 || dilation < 1 || low < 0 || settings.iter().any(|&n| n > LARGEST) {
                return Err(Error::value(format!(
                    "{op}: kernel {taps}, stride {stride}, padding {low} and dilation {dilation}: padding is at least 0, \
                     the others at least 1, all below 2^31"
                )));
            }
            let [taps, stride, low, dilation] = [taps, stride, low, dilation].map(|n| n as usize);
            let sweep = Sweep { taps, stride, dilation, low };
            if low > sweep.reach().div_ceil(2) {
                return Err(Error::value(format!(
                    "{op}: padding {low} must be at most half of what the kernel covers, {}",
                    sweep.reach() + 1
                )));
            }
            let extent = shape[planes + axis];
            let padded = extent + 2 * low;
            // Rounded up, one more window for what is left over, if it starts inside the field or the padding before it.
            let more = if attrs[1] == 1 { stride - 1 } else { 0 };
            let mut windows = (padded + more).checked_sub(sweep.reach() + 1).map_or(0, |last| last / stride + 1);
            if windows > 0 && (windows - 1) * stride >= extent + low {
                windows -= 1;
            }
            if extent == 0 || windows == 0 {
                return Err(Error::shape(format!(
                    "{op}: the kernel covers {} along axis {} of input {shape}, which has {padded} with its padding",
                    sweep.reach() + 1,
                    planes + axis
                )));
            }
            sweeps.push(sweep);
            result.push(windows);
        }
        Ok(Call { result: result.checked(&op)?, op, sweeps })
    }

    /// Refuses windows that hold padding only: they have no largest element.
    fn check_windows(&self, x: &TensorType) -> Result<()> {
        let planes = x.shape.rank() - self.sweeps.len();
        for (axis, sweep) in self.sweeps.iter().enumerate() {
            let extent = x.shape[planes + axis];
            let is_empty = |window: usize| (0..sweep.taps).all(|tap| sweep.position(window, tap, extent).is_none());
            // Only windows at the ends reach into padding.
            let count = self.result[planes + axis];
            let ends = (0..count.min(sweep.low + 1)).chain(count.saturating_sub(sweep.reach() + 2)..count);
            if let Some(window) = ends.into_iter().find(|&window| is_empty(window)) {
                return Err(Error::shape(format!(
                    "{}: window {window} along axis {} of input {} holds padding only",
                    self.op,
                    planes + axis,
                    x.shape
                )));
            }
        }
        Ok(())
    }
}

/// A pooling by its definition, in float64; taps are numbers too.
pub fn reference(pool: &Pool, role: PoolRole, a: &[f64], taps: &[f64], out: &mut [f64]) {
    out.fill(0.0);
    pool.terms(|plane, window, at, inside| {
        let field = |offset: usize| plane + offset;
        match role {
            PoolRole::Index => {
                let larger = |best: (usize, usize), tap: (usize, usize)| {
                    let (x, y) = (a[field(best.1)], a[field(tap.1)]);
                    if y > x || y.is_nan() { tap } else { best }
                };
                out[window] = inside.iter().copied().reduce(larger).map_or(0.0, |best| best.0 as f64);
            }
            PoolRole::Pick | PoolRole::Place => {
                let Some(&(_, offset)) = inside.iter().find(|tap| tap.0 as f64 == taps[window]) else { return };
                match role {
                    PoolRole::Pick => out[window] = a[field(offset)],
                    _ => out[field(offset)] += a[window],
                }
            }
            PoolRole::Mean(divisor) => {
                out[window] = inside.iter().map(|tap| a[field(tap.1)]).sum::<f64>() / pool.divisor::<f64>(divisor, at);
            }
            PoolRole::Spread(divisor) => {
                let part = a[window] / pool.divisor::<f64>(divisor, at);
                inside.iter().for_each(|tap| out[field(tap.1)] += part);
            }
        }
    });
}
