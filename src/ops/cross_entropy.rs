//! Cross-entropy over classes, and the negative log-likelihood. The class axis is 1, or 0 for one example. A class is
//! picked by comparing indices, which fuses with the softmax around it: no one-hot matrix is multiplied (0·-inf) and
//! nothing is scattered.

use super::arithmetic::given_tangent;
use super::build::*;
use super::compare::{AND, GREATER_EQUAL, NOT_EQUAL};
use super::losses::Reduction;
use super::softmax::{LOG_SOFTMAX, SOFTMAX, shifted};
use super::statistics::float_only;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Attrs, CompositeDef, Graph, Op, Reads, Rule, Tangents, TensorType, Val};
use crate::shape::Shape;
use smallvec::{SmallVec, smallvec};

pub static CROSS_ENTROPY: CompositeDef = CompositeDef {
    name: "cross_entropy",
    doc: "-Σⱼ qⱼ·weightⱼ·log softmax(input)ⱼ over the class axis, reduced. q is the target: class indices (integers, \
          one axis fewer than input) or probabilities (floats of input's shape), smoothed to \
          (1 - label_smoothing)·q + label_smoothing / classes. The mean over class indices is weighted by their weight \
          and leaves out ignore_index; an index out of range gives NaN. Inputs: input, target, then label_smoothing \
          (a number) and weight (classes) if present.",
    attrs: &["0 none, 1 mean, 2 sum", "ignore_index", "1 if label_smoothing is given", "1 if weight is given"],
    infer: |attrs, inputs| {
        let (_, weight) = options(attrs, inputs);
        float_only("cross_entropy", inputs[0])?;
        if inputs[1].dtype.is_float() {
            infer_probabilities(attrs, inputs, weight)
        } else {
            infer_indices("cross_entropy", attrs, inputs, weight)
        }
    },
    expand: |g, attrs, inputs| {
        let (smoothing, weight) = options(attrs, inputs);
        let classes = Classes::new(g, inputs[0], inputs[1])?;
        Ok(smallvec![if g.dtype(inputs[1]).is_float() {
            of_probabilities(g, attrs, &classes, smoothing, weight)?
        } else {
            of_indices(g, attrs, &classes, smoothing, weight)?
        }])
    },
    derivative: None,
    transpose: None,
    reads: Reads::ALL_INPUTS,
    kernel: None,
};

pub static NLL_LOSS: CompositeDef = CompositeDef {
    name: "nll_loss",
    doc: "-weight[target]·input[target] over the class axis, reduced; input holds log-probabilities. The mean is \
          weighted and leaves out ignore_index; an index out of range gives NaN. Inputs: input, target, and weight \
          (classes) if present.",
    attrs: &["0 none, 1 mean, 2 sum", "ignore_index", "0", "1 if weight is given"],
    infer: |attrs, inputs| {
        float_only("nll_loss", inputs[0])?;
        infer_indices("nll_loss", attrs, inputs, options(attrs, inputs).1)
    },
    expand: |g, attrs, inputs| {
        let (_, weight) = options(attrs, inputs);
        let classes = Classes::new(g, inputs[0], inputs[1])?;
        let picked = classes.pick(g, inputs[0])?;
        let row = negative(g, picked)?;
        Ok(smallvec![classes.reduce(g, attrs, row, weight, true)?])
    },
    derivative: None,
    transpose: None,
    reads: Reads::ALL_INPUTS,
    kernel: None,
};

/// The loss of each row for a class index in range. Its gradient is softmax(input) less the one-hot target.
static ROW_CROSS_ENTROPY: CompositeDef = CompositeDef {
    name: "row_cross_entropy",
    doc: "-log softmax(input)[target] over the class axis.",
    attrs: &[],
    infer: |_, inputs| {
        let axis = class_axis(&inputs[0].shape);
        Ok(smallvec![TensorType { dtype: inputs[0].dtype, shape: inputs[0].shape.without(1 << axis) }])
    },
    expand: |g, _, inputs| {
        // As log_softmax, but the logarithm of the sum is subtracted from the target's element alone.
        let classes = Classes::new(g, inputs[0], inputs[1])?;
        let shifted = shifted(g, inputs[0], classes.mask())?;
        let exps = exp(g, shifted)?;
        let total = sum(g, exps, classes.mask())?;
        let log = log(g, total)?;
        let picked = classes.pick(g, shifted)?;
        let picked = subtract(g, picked, log)?;
        Ok(smallvec![negative(g, picked)?])
    },
    derivative: Some(row_tangent),
    transpose: None,
    reads: Reads::BOTH,
    kernel: None,
};

fn row_tangent(g: &mut Graph, rule: &Rule, t: &[Option<Val>]) -> Result<Tangents> {
    let classes = Classes::new(g, rule.inputs[0], rule.inputs[1])?;
    let tangent = given_tangent(t)?;
    let softmax = g.add(Op::Composite(&SOFTMAX, smallvec![classes.axis as i64]), &[classes.input])?;
    let (one, zero) = (full_like(g, 1.0, softmax), full_like(g, 0.0, softmax));
    let hit = classes.hit(g)?;
    let target = select(g, hit, one, zero)?;
    let slope = subtract(g, softmax, target)?;
    let moved = zmul(g, tangent, slope)?;
    Ok(smallvec![Some(sum(g, moved, classes.mask())?)])
}

fn class_axis(shape: &Shape) -> usize {
    usize::from(shape.rank() > 1)
}

/// label_smoothing and weight, as the attributes announce them.
fn options<T: Copy>(attrs: &Attrs, inputs: &[T]) -> (Option<T>, Option<T>) {
    let mut rest = inputs[2..].iter().copied();
    let smoothing = if attrs[2] == 1 { rest.next() } else { None };
    let weight = if attrs[3] == 1 { rest.next() } else { None };
    (smoothing, weight)
}

fn infer_indices(
    op: &str,
    attrs: &Attrs,
    inputs: &[&TensorType],
    weight: Option<&TensorType>,
) -> Result<SmallVec<[TensorType; 1]>> {
    let (input, target) = (inputs[0], inputs[1]);
    if input.shape.rank() == 0 {
        return Err(Error::shape(format!("{op}: input () has no class axis")));
    }
    if !target.dtype.is_integer() {
        return Err(Error::dtype(format!("{op}: target is {}; class indices are integers", target.dtype)));
    }
    let axis = class_axis(&input.shape);
    let rows = input.shape.without(1 << axis);
    if target.shape != rows {
        return Err(Error::shape(format!(
            "{op}: input {} has its classes on axis {axis} and takes a target {rows}, got {}",
            input.shape, target.shape
        )));
    }
    weight_fits(op, input, axis, weight)?;
    Ok(smallvec![TensorType { dtype: input.dtype, shape: Reduction::of(attrs[0]).shape(rows) }])
}

fn infer_probabilities(
    attrs: &Attrs,
    inputs: &[&TensorType],
    weight: Option<&TensorType>,
) -> Result<SmallVec<[TensorType; 1]>> {
    let (input, target) = (inputs[0], inputs[1]);
    if input.shape != target.shape || input.shape.rank() == 0 {
        return Err(Error::shape(format!(
            "cross_entropy: input {} and target {} differ; float targets are probabilities of input's shape, \
             class indices are integers",
            input.shape, target.shape
        )));
    }
    if input.dtype != target.dtype {
        return Err(Error::dtype(format!(
            "cross_entropy: input is {} and target is {}; astype one of them",
            input.dtype, target.dtype
        )));
    }
    let axis = class_axis(&input.shape);
    weight_fits("cross_entropy", input, axis, weight)?;
    let rows = input.shape.without(1 << axis);
    Ok(smallvec![TensorType { dtype: input.dtype, shape: Reduction::of(attrs[0]).shape(rows) }])
}

fn weight_fits(op: &str, input: &TensorType, axis: usize, weight: Option<&TensorType>) -> Result<()> {
    let classes = input.shape[axis];
    match weight {
        Some(weight) if *weight.shape != [classes] => Err(Error::shape(format!(
            "{op}: weight {} must have one element for each of the {classes} classes of input {}",
            weight.shape, input.shape
        ))),
        Some(weight) if weight.dtype != input.dtype => {
            Err(Error::dtype(format!("{op}: input is {} and weight is {}", input.dtype, weight.dtype)))
        }
        _ => Ok(()),
    }
}

/// Scores and their target, with the class axis.
struct Classes {
    input: Val,
    target: Val,
    axis: usize,
    count: usize,
}

impl Classes {
    fn new(g: &mut Graph, input: Val, target: Val) -> Result<Classes> {
        let axis = class_axis(g.shape(input));
        let count = g.shape(input)[axis];
        let target = if g.dtype(target).is_float() { target } else { cast(g, target, DType::I64)? };
        Ok(Classes { input, target, axis, count })
    }

    fn mask(&self) -> u32 {
        1 << self.axis
    }

    fn log_softmax(&self, g: &mut Graph) -> Result<Val> {
        g.add(Op::Composite(&LOG_SOFTMAX, smallvec![self.axis as i64]), &[self.input])
    }

    /// A value for each class, along the class axis of the input's shape.
    fn across(&self, g: &mut Graph, values: Val) -> Result<Val> {
        let full = g.shape(self.input).clone();
        let mut shape: Shape = std::iter::repeat_n(1, full.rank()).collect();
        shape.dims_mut()[self.axis] = self.count;
        let values = super::reshape(g, values, &shape)?;
        super::broadcast_to(g, values, &full)
    }

    /// Where the class is the target.
    fn hit(&self, g: &mut Graph) -> Result<Val> {
        let shape = g.shape(self.input).clone();
        let classes = iota_along(g, &shape, self.axis)?;
        let target = spread(g, self.target, self.mask(), self.input)?;
        equal(g, classes, target)
    }

    /// The value of the target class in each row; 0 if there is no such class.
    fn pick(&self, g: &mut Graph, values: Val) -> Result<Val> {
        let hit = self.hit(g)?;
        let zero = zeros_like(g, values);
        let picked = select(g, hit, values, zero)?;
        sum(g, picked, self.mask())
    }

    /// Rows to a loss: NaN where the class does not exist, 0 where it is ignored; times the weight of the target's
    /// class if `weigh`; the mean divides by the weights that took part.
    fn reduce(&self, g: &mut Graph, attrs: &Attrs, row: Val, weight: Option<Val>, weigh: bool) -> Result<Val> {
        let reduction = Reduction::of(attrs[0]);
        let (zero, nan) = (zeros_like(g, row), full_like(g, f64::NAN, row));
        let first = full_like(g, 0.0, self.target);
        let end = g.full(self.count as i64, g.ty(self.target).clone());
        let ignored = g.full(attrs[1], g.ty(self.target).clone());
        let above = binary(g, &GREATER_EQUAL, self.target, first)?;
        let below = less(g, self.target, end)?;
        let exists = binary(g, &AND, above, below)?;
        let kept = binary(g, &NOT_EQUAL, self.target, ignored)?;
        let mut weights = None;
        if let Some(weight) = weight.filter(|_| weigh || reduction == Reduction::Mean) {
            let across = self.across(g, weight)?;
            weights = Some(self.pick(g, across)?);
        }
        let mut row = row;
        if let Some(weights) = weights.filter(|_| weigh) {
            row = multiply(g, weights, row)?;
        }
        let row = select(g, exists, row, nan)?;
        let row = select(g, kept, row, zero)?;
        if reduction != Reduction::Mean {
            return reduction.apply(g, row);
        }
        let weights = weights.unwrap_or_else(|| full_like(g, 1.0, row));
        let counted = select(g, kept, weights, zero)?;
        let divisor = Reduction::Sum.apply(g, counted)?;
        let total = Reduction::Sum.apply(g, row)?;
        divide(g, total, divisor)
    }
}

fn of_indices(
    g: &mut Graph,
    attrs: &Attrs,
    classes: &Classes,
    smoothing: Option<Val>,
    weight: Option<Val>,
) -> Result<Val> {
    let Some(smoothing) = smoothing else {
        let inputs = [classes.input, classes.target];
        let row = g.add(Op::Composite(&ROW_CROSS_ENTROPY, Attrs::new()), &inputs)?;
        return classes.reduce(g, attrs, row, weight, true);
    };
    let hit = classes.hit(g)?;
    let (one, zero) = (full_like(g, 1.0, classes.input), full_like(g, 0.0, classes.input));
    let target = select(g, hit, one, zero)?;
    let row = expected(g, classes, target, Some(smoothing), weight)?;
    classes.reduce(g, attrs, row, weight, false)
}

fn of_probabilities(
    g: &mut Graph,
    attrs: &Attrs,
    classes: &Classes,
    smoothing: Option<Val>,
    weight: Option<Val>,
) -> Result<Val> {
    let row = expected(g, classes, classes.target, smoothing, weight)?;
    Reduction::of(attrs[0]).apply(g, row)
}

/// -Σ q·weight·log softmax(input) over the classes; a q of 0 counts nothing, even against -inf.
fn expected(g: &mut Graph, classes: &Classes, target: Val, smoothing: Option<Val>, weight: Option<Val>) -> Result<Val> {
    let mut target = target;
    if let Some(smoothing) = smoothing {
        let smoothing = number(g, smoothing, target)?;
        let one = full_like(g, 1.0, target);
        let share = full_like(g, 1.0 / classes.count as f64, target);
        let rest = subtract(g, one, smoothing)?;
        let sharp = multiply(g, rest, target)?;
        let flat = multiply(g, smoothing, share)?;
        target = add(g, sharp, flat)?;
    }
    if let Some(weight) = weight {
        let weight = classes.across(g, weight)?;
        target = multiply(g, target, weight)?;
    }
    let logs = classes.log_softmax(g)?;
    let terms = zmul(g, target, logs)?;
    let total = sum(g, terms, classes.mask())?;
    negative(g, total)
}
