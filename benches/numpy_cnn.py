"""The convolutional network in NumPy by hand, on NHWC pictures: a window matrix and one product a convolution."""

from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy_parts import cross_entropy, relu_slope
from workloads import Array, Cnn

Params = dict[str, Array]


def _windows(x: Array) -> Array:
    """(batch, side, side, channels) to (batch * out * out, channels * 9)."""
    windows = sliding_window_view(x, (3, 3), axis=(1, 2))
    return windows.reshape(-1, x.shape[3] * 9)


def _scatter(columns: Array, shape: tuple[int, ...]) -> Array:
    """The transpose of _windows: adds each window back to where it came from."""
    batch, side, _, channels = shape
    out = side - 2
    parts = columns.reshape(batch, out, out, channels, 3, 3)
    x = np.zeros(shape, np.float32)
    for i in range(3):
        for j in range(3):
            x[:, i : i + out, j : j + out] += parts[..., i, j]
    return x


def gradient(workload: Cnn, p: Params, x: Array, target: Array) -> Callable[[], tuple[float, Params]]:
    """A function that returns the loss and the gradients; convolution weights are (in * 9, out)."""
    batch, side = workload.batch, workload.side
    _, b, c = workload.channels
    first, half = side - 2, workload.pooled

    def run() -> tuple[float, Params]:
        columns1 = _windows(x)
        y1 = columns1 @ p["conv1.weight"]
        y1 += p["conv1.bias"]
        np.maximum(y1, 0, out=y1)
        columns2 = _windows(y1.reshape(batch, first, first, b))
        y2 = columns2 @ p["conv2.weight"]
        y2 += p["conv2.bias"]
        np.maximum(y2, 0, out=y2)
        quads = y2.reshape(batch, half, 2, half, 2, c).transpose(0, 1, 3, 5, 2, 4).reshape(-1, 4)
        best = quads.argmax(axis=1)
        rows = np.arange(len(best))
        flat = quads[rows, best].reshape(batch, -1)
        hidden = flat @ p["fc1.weight"]
        hidden += p["fc1.bias"]
        np.maximum(hidden, 0, out=hidden)
        logits = hidden @ p["fc2.weight"]
        logits += p["fc2.bias"]
        loss, g = cross_entropy(logits, target)

        grads = {"fc2.weight": hidden.T @ g, "fc2.bias": g.sum(axis=0)}
        g = g @ p["fc2.weight"].T
        g *= relu_slope(hidden)
        grads["fc1.weight"], grads["fc1.bias"] = flat.T @ g, g.sum(axis=0)
        spread = np.zeros_like(quads)
        spread[rows, best] = (g @ p["fc1.weight"].T).ravel()
        g = spread.reshape(batch, half, half, c, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(y2.shape)
        g *= relu_slope(y2)
        grads["conv2.weight"], grads["conv2.bias"] = columns2.T @ g, g.sum(axis=0)
        g = _scatter(g @ p["conv2.weight"].T, (batch, first, first, b)).reshape(y1.shape)
        g *= relu_slope(y1)
        grads["conv1.weight"], grads["conv1.bias"] = columns1.T @ g, g.sum(axis=0)
        return loss, grads

    return run
