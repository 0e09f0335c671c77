"""Layers, activations and losses as functions, named as in `torch.nn.functional`. Each is one call of the core."""

from __future__ import annotations

from wengert import _core
from wengert._core import (
    Tensor,
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
    sigmoid,
    silu,
    smooth_l1_loss,
    softplus,
    tanh,
)

__all__ = [
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
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "softmax",
    "softplus",
    "tanh",
]


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
