"""What operations mean, written with NumPy in float64 and as plainly as possible: the reference of `cases.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def reduced(loss: Array, reduction: str) -> Array:
    return {"none": lambda: loss, "mean": loss.mean, "sum": loss.sum}[reduction]()


def relu(x: Array) -> Array:
    return np.where(x > 0, x, np.where(np.isnan(x), x, 0.0))


def leaky_relu(x: Array, slope: float) -> Array:
    return np.where(x > 0, x, slope * x)


def elu(x: Array, alpha: float) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def gelu_tanh(x: Array) -> Array:
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def softplus(x: Array) -> Array:
    return np.logaddexp(0, x)


def zmul(x: Array, y: Array) -> Array:
    return np.where((x == 0) | (y == 0), 0.0, x * y)


def take_along(x: Array, indices: Array, axis: int) -> Array:
    return np.take_along_axis(x, indices, axis)


def scatter_add(x: Array, indices: Array, updates: Array, axis: int) -> Array:
    result = x.copy()
    place = list(np.indices(indices.shape))
    place[axis] = indices
    np.add.at(result, tuple(place), updates)
    return result


def index_add(x: Array, indices: Array, updates: Array, axis: int) -> Array:
    result = np.moveaxis(x, axis, 0).copy()
    np.add.at(result, indices, np.moveaxis(updates, axis, 0))
    return np.moveaxis(result, 0, axis)


def one_hot(indices: Array, classes: int) -> Array:
    return (indices[..., None] == np.arange(classes)).astype(np.int64)


def log_softmax(x: Array, axis: int) -> Array:
    shifted = x - x.max(axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))


def huber(x: Array, y: Array, delta: float) -> Array:
    d = np.abs(x - y)
    return np.where(d <= delta, d * d / 2, delta * (d - delta / 2))


def smooth_l1(x: Array, y: Array, beta: float) -> Array:
    d = np.abs(x - y)
    return np.where(d < beta, d * d / (2 * beta), d - beta / 2)


def bce(p: Array, y: Array, weight: Array | None = None) -> Array:
    with np.errstate(divide="ignore"):
        loss = -(y * np.maximum(np.log(p), -100) + (1 - y) * np.maximum(np.log1p(-p), -100))
    return loss if weight is None else loss * weight


def bce_logits(x: Array, y: Array, weight: Array | None = None, pos_weight: Array | None = None) -> Array:
    hit = y if pos_weight is None else y * pos_weight
    loss = (1 - y) * softplus(x) + hit * softplus(-x)
    return loss if weight is None else loss * weight


def nll(
    logs: Array, target: Array, weight: Array | None = None, ignore_index: int = -100, reduction: str = "mean"
) -> Array:
    """Class axis 1."""
    kept = target != ignore_index
    safe = np.where(kept, target, 0)
    weights = np.where(kept, (np.ones(logs.shape[1]) if weight is None else weight)[safe], 0.0)
    picked = np.take_along_axis(logs, np.expand_dims(safe, 1), 1).squeeze(1)
    loss = np.where(kept, -weights * picked, 0.0)
    return loss.sum() / weights.sum() if reduction == "mean" else reduced(loss, reduction)


def cross_entropy(
    x: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Array:
    """Class axis 1; the target is class indices or probabilities."""
    logs = log_softmax(x, 1)
    classes = x.shape[1]
    w = np.ones(classes) if weight is None else weight
    spread = w.reshape((1, classes) + (1,) * (x.ndim - 2))
    if target.dtype.kind == "f":
        q = target * (1 - label_smoothing) + label_smoothing / classes
        loss = -(q * spread * logs).sum(1)
        return loss.sum() / loss.size if reduction == "mean" else reduced(loss, reduction)
    kept = target != ignore_index
    hard = nll(logs, target, w, ignore_index, "none")
    smooth = np.where(kept, -(spread * logs).sum(1) / classes, 0.0)
    loss = (1 - label_smoothing) * hard + label_smoothing * smooth
    if reduction == "mean":
        return loss.sum() / np.where(kept, w[np.where(kept, target, 0)], 0.0).sum()
    return reduced(loss, reduction)


def batch_norm(x: Array, mean: Array, var: Array, weight: Array, bias: Array, eps: float) -> Array:
    shape = (1, -1) + (1,) * (x.ndim - 2)
    mean, var, weight, bias = (a.reshape(shape) for a in (mean, var, weight, bias))
    return (x - mean) / np.sqrt(var + eps) * weight + bias


def batch_norm_training(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    axes = (0, *range(2, x.ndim))
    return batch_norm(x, x.mean(axes), x.var(axes), weight, bias, eps)


def layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    """Over the last axis."""
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * weight + bias


def conv(
    x: Array,
    w: Array,
    bias: Array | None = None,
    stride: tuple[int, ...] = (1, 1),
    padding: tuple[int, ...] = (0, 0),
    dilation: tuple[int, ...] = (1, 1),
    groups: int = 1,
) -> Array:
    """Tap by tap: each is a product of channels with the positions that it meets."""
    x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
    taps = w.shape[2:]
    counts = [(n - d * (k - 1) - 1) // s + 1 for n, d, k, s in zip(x.shape[2:], dilation, taps, stride, strict=True)]
    x = x.reshape(x.shape[0], groups, -1, *x.shape[2:])
    w = w.reshape(groups, -1, *w.shape[1:])
    result = np.zeros((x.shape[0], groups, w.shape[1], *counts))
    for tap in np.ndindex(*taps):
        met = tuple(slice(t * d, t * d + s * n, s) for t, d, s, n in zip(tap, dilation, stride, counts, strict=True))
        result += np.einsum("ngc...,goc->ngo...", x[(..., *met)], w[(..., *tap)])
    result = result.reshape(x.shape[0], -1, *counts)
    return result if bias is None else result + bias.reshape(-1, *[1] * len(taps))


def windows(x: Array, size: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], fill: float) -> Array:
    """The elements of each window, along the last axis."""
    planes = x.ndim - len(size)
    x = np.pad(x, [(0, 0)] * planes + [(p, p) for p in padding], constant_values=fill)
    axes = tuple(range(planes, x.ndim))
    cut = np.lib.stride_tricks.sliding_window_view(x, size, axes)
    cut = cut[(slice(None),) * planes + tuple(slice(None, None, s) for s in stride)]
    return cut.reshape(*cut.shape[: x.ndim], -1)


def mean_pool(x: Array, size: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]) -> Array:
    """The mean of each window, with zeros as padding."""
    return windows(x, size, stride, padding, 0.0).mean(-1)


def attention(
    query: Array, key: Array, value: Array, mask: Any = 0.0, causal: bool = False, scale: float | None = None
) -> Array:
    """softmax(scale·query·keyᵀ + mask)·value; zeros where a query sees no key."""
    scale = 1 / np.sqrt(query.shape[-1]) if scale is None else scale
    scores = scale * query @ np.swapaxes(key, -1, -2) + mask
    if causal:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -np.inf)
    largest = scores.max(-1, keepdims=True)
    weights = np.exp(scores - np.where(np.isfinite(largest), largest, 0.0))
    total = weights.sum(-1, keepdims=True)
    return weights / np.where(total == 0, 1.0, total) @ value
