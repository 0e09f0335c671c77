//! Layers and losses in one call, random tensors, initial values.

use super::axes::borrowed;
use super::dtype::{PyDType, PyDevice, Target, place};
use super::errors::{record, refuse};
use super::operand::{Dims, choice, number};
use super::tensor::{PyTensor, made};
use crate::dtype::DType;
use crate::error::Error;
use crate::nn::{self, Attention, BatchNorm, Classes, Norm};
use crate::ops::losses::Reduction;
use crate::ops::random;
use crate::tensor::{self, Tensor};
use pyo3::prelude::*;

type Given<'py> = PyRef<'py, PyTensor>;
type Perhaps<'py> = Option<PyRef<'py, PyTensor>>;

fn reduced(reduction: &str) -> PyResult<Reduction> {
    let choices = [("none", Reduction::None), ("mean", Reduction::Mean), ("sum", Reduction::Sum)];
    choice("reduction", reduction, &choices)
}

fn inner<'a>(tensor: &'a Perhaps<'_>) -> Option<&'a Tensor> {
    tensor.as_ref().map(|tensor| &tensor.0)
}

fn float(dtype: Option<PyDType>) -> DType {
    dtype.map_or(DType::F32, |dtype| dtype.0)
}

/// Uniform numbers in [0, 1).
#[pyfunction]
#[pyo3(signature = (shape, *, dtype = None, device = None))]
pub fn rand(shape: Dims, dtype: Option<PyDType>, device: Option<PyDevice>) -> PyResult<PyTensor> {
    let device = place(device)?;
    made(|| tensor::random(&random::UNIFORM, shape.0, float(dtype), device))
}

/// Normal numbers of mean 0 and variance 1.
#[pyfunction]
#[pyo3(signature = (shape, *, dtype = None, device = None))]
pub fn randn(shape: Dims, dtype: Option<PyDType>, device: Option<PyDevice>) -> PyResult<PyTensor> {
    let device = place(device)?;
    made(|| tensor::random(&random::NORMAL, shape.0, float(dtype), device))
}

/// Uniform integers of at least low and less than high.
#[pyfunction]
#[pyo3(signature = (low, high, shape, *, dtype = None, device = None))]
pub fn randint(
    low: i64,
    high: i64,
    shape: Dims,
    dtype: Option<PyDType>,
    device: Option<PyDevice>,
) -> PyResult<PyTensor> {
    let device = place(device)?;
    made(|| {
        let drawn = tensor::randint(low, high, &shape.0, device)?;
        tensor::cast(&drawn, dtype.map_or(DType::I64, |dtype| dtype.0))
    })
}

/// 1 with probability p, else 0, of the shape and dtype of p.
#[pyfunction]
#[pyo3(signature = (p, /))]
pub fn bernoulli(p: Given<'_>) -> PyResult<PyTensor> {
    made(|| tensor::bernoulli(&p.0))
}

/// input·weightᵀ + bias.
///
/// Args:
///     input: (…, in).
///     weight: (out, in).
///     bias: (out), or none.
///
/// Returns:
///     (…, out).
///
/// Example:
///     >>> import wengert as wg
///     >>> wg.nn.functional.linear(wg.ones((1, 3)), wg.ones((2, 3)), wg.ones((2,)))
///     tensor([[4., 4.]])
#[pyfunction]
#[pyo3(signature = (input, weight, bias = None))]
pub fn linear(input: Given<'_>, weight: Given<'_>, bias: Perhaps<'_>) -> PyResult<PyTensor> {
    made(|| nn::linear(&input.0, &weight.0, inner(&bias)))
}

/// In training: input / (1 - p) with probability 1 - p, else 0. Otherwise the input.
///
/// Source: Srivastava et al., Dropout, 2014.
#[pyfunction]
#[pyo3(signature = (input, p = 0.5, training = true))]
pub fn dropout(input: Given<'_>, p: f64, training: bool) -> PyResult<PyTensor> {
    made(|| {
        random::check_probability("dropout", p)?;
        if training && p > 0.0 { tensor::dropout(&input.0, p) } else { Ok(tensor::alias(&input.0)) }
    })
}

/// Normalise over all axes but 1. In training, given running statistics are rebound to their new values.
///
/// (input - mean) / √(var + eps) · weight + bias. In training, mean and variance are those of the input, and
/// running = (1 - momentum)·running + momentum·(mean, or variance without bias). Otherwise they are the running ones.
///
/// Args:
///     input: (n, channels, …).
///     running_mean, running_var, weight, bias: (channels), or none.
///
/// Raises:
///     ShapeError: in training, fewer than two values a channel.
///     ValueError: not in training, and running_mean or running_var is missing.
///
/// Source: Ioffe and Szegedy, Batch Normalization, 2015.
#[pyfunction]
#[pyo3(signature = (input, running_mean, running_var, weight = None, bias = None, training = false, momentum = 0.1, eps = 1e-5))]
#[allow(clippy::too_many_arguments, reason = "the signature users call")]
pub fn batch_norm(
    input: Given<'_>,
    running_mean: Perhaps<'_>,
    running_var: Perhaps<'_>,
    weight: Perhaps<'_>,
    bias: Perhaps<'_>,
    training: bool,
    momentum: f64,
    eps: f64,
) -> PyResult<PyTensor> {
    let settings = BatchNorm {
        running_mean: inner(&running_mean),
        running_var: inner(&running_var),
        weight: inner(&weight),
        bias: inner(&bias),
        training,
        momentum,
        eps,
    };
    made(|| nn::batch_norm(&input.0, &settings))
}

/// Normalise over the last axes, which normalized_shape names.
///
/// (input - mean) / √(var + eps) · weight + bias, with mean and variance of each row over those axes.
///
/// Args:
///     input: (…, *normalized_shape).
///     weight, bias: normalized_shape, or none.
///
/// Source: Ba, Kiros and Hinton, Layer Normalization, 2016.
#[pyfunction]
#[pyo3(signature = (input, normalized_shape, weight = None, bias = None, eps = 1e-5))]
pub fn layer_norm(
    input: Given<'_>,
    normalized_shape: Dims,
    weight: Perhaps<'_>,
    bias: Perhaps<'_>,
    eps: f64,
) -> PyResult<PyTensor> {
    made(|| nn::layer_norm(&input.0, &normalized_shape.0, inner(&weight), inner(&bias), eps))
}

/// Normalise over the last axes by the root of the mean square: input / √(mean input² + eps) · weight.
///
/// Args:
///     input: (…, *normalized_shape).
///     weight: normalized_shape, or none.
///     eps: added to the mean square; none: the distance from 1 to the next number of the dtype.
///
/// Returns:
///     A tensor of the shape of input.
///
/// Raises:
///     ShapeError: input does not end in normalized_shape.
///
/// Example:
///     >>> import wengert as wg
///     >>> wg.nn.functional.rms_norm(wg.tensor([3.0, 3.0]), (2,))
///     tensor([1., 1.])
///
/// Source: Zhang and Sennrich, Root Mean Square Layer Normalization, 2019.
#[pyfunction]
#[pyo3(signature = (input, normalized_shape, weight = None, eps = None))]
pub fn rms_norm(input: Given<'_>, normalized_shape: Dims, weight: Perhaps<'_>, eps: Option<f64>) -> PyResult<PyTensor> {
    made(|| nn::rms_norm(&input.0, &normalized_shape.0, inner(&weight), eps))
}

/// The rows of weight that input names; the row at padding_idx gets no gradient.
#[pyfunction]
#[pyo3(signature = (input, weight, padding_idx = None))]
pub fn embedding(input: Given<'_>, weight: Given<'_>, padding_idx: Option<i64>) -> PyResult<PyTensor> {
    made(|| nn::embedding(&input.0, &weight.0, padding_idx))
}

/// softmax(scale·query·keyᵀ + attn_mask)·value over the last two axes.
///
/// No more than a tile of the scores is ever held, forward and backward, so memory is linear in L and S (not with
/// dropout). A query that no key is left for gives zeros.
///
/// Args:
///     query: (…, L, E).
///     key: (…, S, E).
///     value: (…, S, Ev). Leading axes broadcast.
///     attn_mask: broadcasts to (…, L, S); bools, true where a key takes part, or floats that are added to the scores.
///     dropout_p: the probability of a weight to be dropped; there is no training flag.
///     is_causal: query i sees the keys up to i. Not together with a mask.
///     scale: of the scores, 1 / √E by default.
///     enable_gqa: key and value have fewer heads (axis -3) than query, each for a group of query's, in order.
///
/// Returns:
///     (…, L, Ev).
///
/// Raises:
///     ShapeError: shapes that do not fit each other.
///     DTypeError: an operand that is no float, or a mask of integers. Beside float64, float32 is promoted.
///
/// Example:
///     >>> import wengert as wg
///     >>> q, k, v = wg.zeros((1, 4)), wg.zeros((2, 4)), wg.tensor([[1.0], [3.0]])
///     >>> wg.nn.functional.scaled_dot_product_attention(q, k, v)
///     tensor([[2.]])
///
/// Source: Vaswani et al., Attention Is All You Need, 2017; the tiles: Dao et al., FlashAttention, 2022.
#[pyfunction]
#[pyo3(signature = (query, key, value, attn_mask = None, dropout_p = 0.0, is_causal = false, scale = None, enable_gqa = false))]
#[allow(clippy::too_many_arguments, reason = "the signature users call")]
pub fn scaled_dot_product_attention(
    query: Given<'_>,
    key: Given<'_>,
    value: Given<'_>,
    attn_mask: Perhaps<'_>,
    dropout_p: f64,
    is_causal: bool,
    scale: Option<f64>,
    enable_gqa: bool,
) -> PyResult<PyTensor> {
    let mask = inner(&attn_mask);
    let settings = Attention { mask, dropout: dropout_p, causal: is_causal, scale, grouped: enable_gqa };
    made(|| nn::attention(&query.0, &key.0, &value.0, &settings))
}

/// -log softmax(input)[target], weighted and reduced; or with probabilities q as target, -Σ q·log softmax(input).
///
/// Args:
///     input: (n, classes, …) or (classes), unnormalised.
///     target: class indices (n, …), or probabilities of the shape of input.
///     weight: (classes), a factor for each class.
///     ignore_index: rows with this index count for nothing.
///     reduction: "none", "mean" (weighted, over what is not ignored) or "sum".
///     label_smoothing: the part of the probability that goes to all classes alike.
///
/// Raises:
///     ShapeError: a target that does not fit the input.
///
/// Example:
///     >>> import wengert as wg
///     >>> wg.nn.functional.cross_entropy(wg.tensor([[0.0, 0.0]]), wg.tensor([1]))
///     tensor(0.6931)
#[pyfunction]
#[pyo3(
    signature = (input, target, weight = None, *, ignore_index = -100, reduction = "mean", label_smoothing = 0.0),
    text_signature = "(input, target, weight=None, *, ignore_index=-100, reduction='mean', label_smoothing=0.0)"
)]
pub fn cross_entropy(
    input: Given<'_>,
    target: Given<'_>,
    weight: Perhaps<'_>,
    ignore_index: i64,
    reduction: &str,
    label_smoothing: f64,
) -> PyResult<PyTensor> {
    let reduction = reduced(reduction)?;
    let classes = Classes { weight: inner(&weight), ignore_index, label_smoothing, reduction };
    made(|| nn::cross_entropy(&input.0, &target.0, &classes))
}

/// -input[target], weighted and reduced; input holds log-probabilities.
#[pyfunction]
#[pyo3(
    signature = (input, target, weight = None, *, ignore_index = -100, reduction = "mean"),
    text_signature = "(input, target, weight=None, *, ignore_index=-100, reduction='mean')"
)]
pub fn nll_loss(
    input: Given<'_>,
    target: Given<'_>,
    weight: Perhaps<'_>,
    ignore_index: i64,
    reduction: &str,
) -> PyResult<PyTensor> {
    let reduction = reduced(reduction)?;
    let classes = Classes { weight: inner(&weight), ignore_index, label_smoothing: 0.0, reduction };
    made(|| nn::nll_loss(&input.0, &target.0, &classes))
}

/// (input - target)², reduced; the shapes must be equal.
#[pyfunction]
#[pyo3(signature = (input, target, *, reduction = "mean"))]
pub fn mse_loss(input: Given<'_>, target: Given<'_>, reduction: &str) -> PyResult<PyTensor> {
    let reduction = reduced(reduction)?;
    made(|| nn::mse_loss(&input.0, &target.0, reduction))
}

/// |input - target|, reduced; the shapes must be equal.
#[pyfunction]
#[pyo3(signature = (input, target, *, reduction = "mean"))]
pub fn l1_loss(input: Given<'_>, target: Given<'_>, reduction: &str) -> PyResult<PyTensor> {
    let reduction = reduced(reduction)?;
    made(|| nn::l1_loss(&input.0, &target.0, reduction))
}

/// With d = input - target: d²/2 where |d| ≤ delta, else delta·(|d| - delta/2), reduced.
#[pyfunction]
#[pyo3(signature = (input, target, *, reduction = "mean", delta = 1.0))]
pub fn huber_loss(input: Given<'_>, target: Given<'_>, reduction: &str, delta: f64) -> PyResult<PyTensor> {
    let reduction = reduced(reduction)?;
    if delta.is_nan() || delta <= 0.0 {
        return Err(refuse(Error::value(format!("huber_loss: delta is positive, not {delta}"))));
    }
    made(|| nn::huber_loss(&input.0, &target.0, reduction, delta))
}

/// With d = input - target: d²/(2·beta) where |d| < beta, else |d| - beta/2, reduced. `beta=0` is `l1_loss`.
#[pyfunction]
#[pyo3(signature = (input, target, *, reduction = "mean", beta = 1.0))]
pub fn smooth_l1_loss(input: Given<'_>, target: Given<'_>, reduction: &str, beta: f64) -> PyResult<PyTensor> {
    let reduction = reduced(reduction)?;
    made(|| nn::smooth_l1_loss(&input.0, &target.0, reduction, beta))
}

/// -(target·log input + (1 - target)·log(1 - input)), logarithms at least -100, times weight, reduced.
#[pyfunction]
#[pyo3(signature = (input, target, weight = None, *, reduction = "mean"))]
pub fn binary_cross_entropy(
    input: Given<'_>,
    target: Given<'_>,
    weight: Perhaps<'_>,
    reduction: &str,
) -> PyResult<PyTensor> {
    let reduction = reduced(reduction)?;
    made(|| nn::binary_cross_entropy(&input.0, &target.0, inner(&weight), reduction))
}

/// Binary cross-entropy of sigmoid(input), finite for any input; pos_weight multiplies the loss of target 1.
#[pyfunction]
#[pyo3(signature = (input, target, weight = None, *, reduction = "mean", pos_weight = None))]
pub fn binary_cross_entropy_with_logits(
    input: Given<'_>,
    target: Given<'_>,
    weight: Perhaps<'_>,
    reduction: &str,
    pos_weight: Perhaps<'_>,
) -> PyResult<PyTensor> {
    let reduction = reduced(reduction)?;
    made(|| nn::binary_cross_entropy_with_logits(&input.0, &target.0, inner(&weight), inner(&pos_weight), reduction))
}

/// Fill with uniform numbers in [low, high).
#[pyfunction]
#[pyo3(signature = (tensor, low = 0.0, high = 1.0))]
pub fn uniform_<'py>(tensor: &Bound<'py, PyTensor>, low: f64, high: f64) -> PyResult<Bound<'py, PyTensor>> {
    record(|| nn::uniform(&tensor.get().0, low, high))?;
    Ok(tensor.clone())
}

/// Fill with normal numbers of this mean and standard deviation.
#[pyfunction]
#[pyo3(signature = (tensor, mean = 0.0, std = 1.0))]
pub fn normal_<'py>(tensor: &Bound<'py, PyTensor>, mean: f64, std: f64) -> PyResult<Bound<'py, PyTensor>> {
    record(|| nn::normal(&tensor.get().0, mean, std))?;
    Ok(tensor.clone())
}

/// Fill with one number.
#[pyfunction]
#[pyo3(signature = (tensor, value))]
pub fn fill_<'py>(tensor: &Bound<'py, PyTensor>, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTensor>> {
    let value = number(value.as_borrowed())?;
    record(|| nn::fill(&tensor.get().0, value))?;
    Ok(tensor.clone())
}

/// Change device or dtype, or both, in place: the handle stays the same variable; its gradient is converted too.
#[pyfunction]
#[pyo3(signature = (tensor, target, dtype = None, /))]
pub fn convert_<'py>(
    tensor: &Bound<'py, PyTensor>,
    target: &Bound<'py, PyAny>,
    dtype: Option<PyDType>,
) -> PyResult<Bound<'py, PyTensor>> {
    let Target { device, dtype } = Target::of(target, dtype)?;
    record(|| nn::convert(&tensor.get().0, device, dtype))?;
    Ok(tensor.clone())
}

/// Scale the gradients so that their norm is at most max_norm; returns the norm before, unevaluated.
///
/// The scale is min(1, max_norm / (norm + 1e-6)).
///
/// Args:
///     params: tensors; those without a gradient are passed over.
///     max_norm: the bound.
///     norm_type: 1, 2 or inf.
#[pyfunction]
#[pyo3(signature = (params, max_norm, norm_type = 2.0))]
pub fn clip_grad_norm(params: Vec<Given<'_>>, max_norm: f64, norm_type: f64) -> PyResult<PyTensor> {
    let norm = Norm::of_order(norm_type).map_err(refuse)?;
    if max_norm.is_nan() {
        return Err(refuse(Error::value("clip_grad_norm: max_norm is NaN")));
    }
    made(|| nn::clip_grad_norm(&borrowed(&params), max_norm, norm))
}
