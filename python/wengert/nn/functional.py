"""Layers, activations and losses as functions, named as in `torch.nn.functional`. Each is one call of the core."""

from __future__ import annotations

from wengert import _core
from wengert._core import (
    Tensor,
    UnsupportedError,
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    batch_norm,
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    conv1d,
    conv2d,
    conv3d,
    cross_entropy,
    dropout,
    elu,
    gelu,
    huber_loss,
    l1_loss,
    layer_norm,
    leaky_relu,
    linear,
    max_pool1d,
    max_pool2d,
    max_pool3d,
    mse_loss,
    nll_loss,
    one_hot,
    relu,
    rms_norm,
    scaled_dot_product_attention,
    sigmoid,
    silu,
    smooth_l1_loss,
    softplus,
    tanh,
)

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "conv1d",
    "conv2d",
    "conv3d",
    "cross_entropy",
    "dropout",
    "elu",
    "embedding",
    "gelu",
    "huber_loss",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_softmax",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "mse_loss",
    "nll_loss",
    "one_hot",
    "relu",
    "rms_norm",
    "scaled_dot_product_attention",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "softmax",
    "softplus",
    "tanh",
]


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Return the rows of weight that input names: output[…, :] = weight[input[…], :].

    Args:
        input: indices of any shape, from 0 to rows - 1; negative ones count from the end.
        weight: (rows, width).
        padding_idx: the row that gets no gradient.
        max_norm: not supported.
        norm_type: of max_norm.
        scale_grad_by_freq: not supported.
        sparse: has no effect: gradients are dense.

    Returns:
        (*input.shape, width).

    Raises:
        IndexError: an index names no row.
        UnsupportedError: max_norm or scale_grad_by_freq is given.

    Example:
        >>> import wengert as wg
        >>> import wengert.nn.functional as F
        >>> F.embedding(wg.tensor([1, 0]), wg.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist()
        [[3.0, 4.0], [1.0, 2.0]]
    """
    if max_norm is not None or scale_grad_by_freq:
        raise UnsupportedError("embedding: max_norm and scale_grad_by_freq are not supported; scale weight yourself")
    return _core.embedding(input, weight, padding_idx)


def softmax(input: Tensor, dim: int) -> Tensor:
    """Return positive numbers that sum to 1 along an axis: exp(input) / Σ exp(input).

    Args:
        input: any shape.
        dim: the axis; `wg.softmax` calls it `axis`.

    Returns:
        A tensor of the shape of input.

    Raises:
        AxisError: there is no such axis.

    Example:
        >>> import wengert as wg
        >>> import wengert.nn.functional as F
        >>> F.softmax(wg.zeros((2,)), dim=0).tolist()
        [0.5, 0.5]
    """
    return _core.softmax(input, dim)


def log_softmax(input: Tensor, dim: int) -> Tensor:
    """Return the logarithm of `softmax`: input - log Σ exp(input), exact for inputs of any size.

    Args:
        input: any shape.
        dim: the axis; `wg.log_softmax` calls it `axis`.

    Returns:
        A tensor of the shape of input.

    Raises:
        AxisError: there is no such axis.
    """
    return _core.log_softmax(input, dim)
