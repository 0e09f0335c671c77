//! Losses, each one recorded node.

use crate::error::Result;
use crate::ops::cross_entropy::{CROSS_ENTROPY, NLL_LOSS};
use crate::ops::losses::{self, Reduction};
use crate::tensor::{self, Arg, Tensor};
use smallvec::{SmallVec, smallvec};

/// (input - target)².
pub fn mse_loss(input: &Tensor, target: &Tensor, reduction: Reduction) -> Result<Tensor> {
    tensor::composite(&losses::MSE_LOSS, smallvec![reduction as i64], &[input.into(), target.into()])
}

/// |input - target|.
pub fn l1_loss(input: &Tensor, target: &Tensor, reduction: Reduction) -> Result<Tensor> {
    tensor::composite(&losses::L1_LOSS, smallvec![reduction as i64], &[input.into(), target.into()])
}

/// Square below delta, linear above.
pub fn huber_loss(input: &Tensor, target: &Tensor, reduction: Reduction, delta: f64) -> Result<Tensor> {
    tensor::composite(&losses::HUBER_LOSS, smallvec![reduction as i64], &[input.into(), target.into(), delta.into()])
}

/// Huber's loss divided by beta.
pub fn smooth_l1_loss(input: &Tensor, target: &Tensor, reduction: Reduction, beta: f64) -> Result<Tensor> {
    if beta == 0.0 {
        return l1_loss(input, target, reduction);
    }
    let args = [input.into(), target.into(), beta.into()];
    tensor::composite(&losses::SMOOTH_L1_LOSS, smallvec![reduction as i64], &args)
}

/// How classes are weighed in a classification loss.
pub struct Classes<'a> {
    pub weight: Option<&'a Tensor>,
    pub ignore_index: i64,
    pub label_smoothing: f64,
    pub reduction: Reduction,
}

/// Cross-entropy of softmax(input) with class indices or probabilities.
pub fn cross_entropy(input: &Tensor, target: &Tensor, classes: &Classes) -> Result<Tensor> {
    let smoothing = Some(classes.label_smoothing).filter(|&smoothing| smoothing != 0.0);
    let attrs = smallvec![
        classes.reduction as i64,
        classes.ignore_index,
        i64::from(smoothing.is_some()),
        i64::from(classes.weight.is_some())
    ];
    let rest = [smoothing.map(Arg::from), classes.weight.map(Arg::from)];
    let checked = checked_target(input, target, classes)?;
    let loss = tensor::composite(&CROSS_ENTROPY, attrs, &args(input, &checked, &rest))?;
    check_target("cross_entropy", input, target, classes)?;
    Ok(loss)
}

/// The negative log-likelihood of class indices.
pub fn nll_loss(input: &Tensor, target: &Tensor, classes: &Classes) -> Result<Tensor> {
    let attrs = smallvec![classes.reduction as i64, classes.ignore_index, 0, i64::from(classes.weight.is_some())];
    let checked = checked_target(input, target, classes)?;
    let loss = tensor::composite(&NLL_LOSS, attrs, &args(input, &checked, &[classes.weight.map(Arg::from)]))?;
    check_target("nll_loss", input, target, classes)?;
    Ok(loss)
}

/// Refuses a target that is known already and is no class; a kernel checks others.
fn check_target(op: &'static str, input: &Tensor, target: &Tensor, classes: &Classes) -> Result<()> {
    tensor::check_classes(op, target, count(input), Some(classes.ignore_index))
}

fn checked_target(input: &Tensor, target: &Tensor, classes: &Classes) -> Result<Tensor> {
    tensor::checked_classes(target, count(input), Some(classes.ignore_index))
}

/// The number of classes that `input` has a score for; none if it has no axis for them.
fn count(input: &Tensor) -> usize {
    let shape = input.shape();
    shape.get(usize::from(shape.rank() > 1)).copied().unwrap_or(0)
}

/// Cross-entropy of a probability with a target.
pub fn binary_cross_entropy(
    input: &Tensor,
    target: &Tensor,
    weight: Option<&Tensor>,
    reduction: Reduction,
) -> Result<Tensor> {
    let args = args(input, target, &[weight.map(Arg::from)]);
    tensor::composite(&losses::BINARY_CROSS_ENTROPY, smallvec![reduction as i64], &args)
}

/// Cross-entropy of sigmoid(input) with a target.
pub fn binary_cross_entropy_with_logits(
    input: &Tensor,
    target: &Tensor,
    weight: Option<&Tensor>,
    pos_weight: Option<&Tensor>,
    reduction: Reduction,
) -> Result<Tensor> {
    let attrs = smallvec![reduction as i64, i64::from(weight.is_some()), i64::from(pos_weight.is_some())];
    let args = args(input, target, &[weight.map(Arg::from), pos_weight.map(Arg::from)]);
    tensor::composite(&losses::BINARY_CROSS_ENTROPY_WITH_LOGITS, attrs, &args)
}

fn args<'a>(input: &'a Tensor, target: &'a Tensor, rest: &[Option<Arg<'a>>]) -> SmallVec<[Arg<'a>; 4]> {
    [input.into(), target.into()].into_iter().chain(rest.iter().copied().flatten()).collect()
}
