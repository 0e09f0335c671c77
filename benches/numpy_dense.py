"""Dense networks in NumPy by hand: the loss and the gradient of each parameter, in place where that helps."""

from collections.abc import Callable

import numpy as np
from numpy_parts import cross_entropy, gelu, gelu_slope, relu_slope
from workloads import Activation, Array, Dense

Params = dict[str, Array]


def _activate(kind: Activation, z: Array) -> tuple[Array, Array]:
    """The value, and what the slope is made from: tanh(...) for gelu, else nothing more than the value."""
    if kind == "tanh":
        y = np.tanh(z)
        return y, y
    if kind == "relu":
        y = np.maximum(z, 0)
        return y, y
    return gelu(z)


def _slope(kind: Activation, z: Array, kept: Array) -> Array:
    if kind == "tanh":
        return 1 - kept * kept
    if kind == "relu":
        return relu_slope(kept)
    return gelu_slope(z, kept)


def gradient(workload: Dense, p: Params, x: Array, target: Array) -> Callable[[], tuple[float, Params]]:
    """A function that returns the loss and the gradients; weights are (in, out)."""
    last = len(workload.sizes) - 2
    kind = workload.activation

    def run() -> tuple[float, Params]:
        values, sums, kept = [x], [], []
        for i in range(last + 1):
            z = values[i] @ p[f"{2 * i}.weight"]
            z += p[f"{2 * i}.bias"]
            if i < last:
                y, part = _activate(kind, z)
                values.append(y)
                sums.append(z)
                kept.append(part)
        if workload.loss == "mse":
            difference = z - target
            loss = float(np.vdot(difference, difference)) / difference.size
            g = difference * np.float32(2 / difference.size)
        else:
            loss, g = cross_entropy(z, target)
        grads: Params = {}
        for i in range(last, -1, -1):
            grads[f"{2 * i}.weight"] = values[i].T @ g
            grads[f"{2 * i}.bias"] = g.sum(axis=0)
            if i:
                g = g @ p[f"{2 * i}.weight"].T
                g *= _slope(kind, sums[i - 1], kept[i - 1])
        return loss, grads

    return run
