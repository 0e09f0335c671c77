"""The steps in NumPy, written by hand: forward, backward and optimizer, in place where that helps."""

from collections.abc import Callable
from typing import Any

import numpy as np
from workloads import Workload

_GELU = np.float32(np.sqrt(2 / np.pi))


def _activate(kind: str, z: Any) -> Any:
    if kind == "tanh":
        return np.tanh(z)
    if kind == "relu":
        return np.maximum(z, 0)
    return np.float32(0.5) * z * (1 + np.tanh(_GELU * (z + np.float32(0.044715) * z * z * z)))


def _slope(kind: str, z: Any, y: Any) -> Any:
    if kind == "tanh":
        return 1 - y * y
    if kind == "relu":
        return (z > 0).astype(np.float32)
    t = np.tanh(_GELU * (z + np.float32(0.044715) * z * z * z))
    inner = _GELU * (1 + np.float32(3 * 0.044715) * z * z)
    return np.float32(0.5) * (1 + t) + np.float32(0.5) * z * (1 - t * t) * inner


class _Optimizer:
    def __init__(self, kind: str, lr: float, params: list[Any]) -> None:
        self.kind, self.lr, self.params, self.step = kind, np.float32(lr), params, 0
        self.first = [np.zeros_like(p) for p in params]
        self.second = [np.zeros_like(p) for p in params]

    def apply(self, grads: list[Any]) -> None:
        self.step += 1
        for p, g, m, v in zip(self.params, grads, self.first, self.second, strict=True):
            if self.kind == "sgd":
                m *= np.float32(0.9)
                m += g
                p -= self.lr * m
            elif self.kind == "rmsprop":
                v *= np.float32(0.99)
                v += np.float32(0.01) * g * g
                p -= self.lr * g / (np.sqrt(v) + np.float32(1e-8))
            else:
                m *= np.float32(0.9)
                m += np.float32(0.1) * g
                v *= np.float32(0.999)
                v += np.float32(0.001) * g * g
                rate = np.float32(self.lr / (1 - 0.9**self.step))
                root = np.float32(1 / np.sqrt(1 - 0.999**self.step))
                p -= rate * m / (np.sqrt(v) * root + np.float32(1e-8))


def make(workload: Workload) -> Callable[[], float]:
    """A function that trains one step and returns the loss."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((workload.batch, workload.sizes[0]), dtype=np.float32)
    pairs = list(zip(workload.sizes, workload.sizes[1:], strict=False))
    weights = [(rng.standard_normal((i, o)) / np.sqrt(i)).astype(np.float32) for i, o in pairs]
    biases = [np.zeros(o, np.float32) for _, o in pairs]
    classes = workload.sizes[-1]
    target = (
        rng.integers(0, classes, workload.batch)
        if workload.loss == "cross_entropy"
        else rng.standard_normal((workload.batch, classes), dtype=np.float32)
    )
    rows = np.arange(workload.batch)
    optimizer = _Optimizer(workload.optimizer, workload.lr, [*weights, *biases])
    last = len(weights) - 1

    def step() -> float:
        values, sums = [x], []
        for position, (w, b) in enumerate(zip(weights, biases, strict=True)):
            z = values[-1] @ w
            z += b
            sums.append(z)
            values.append(z if position == last else _activate(workload.activation, z))
        out = values[-1]
        if workload.loss == "mse":
            difference = out - target
            loss = float(np.mean(difference * difference))
            g = difference * np.float32(2 / difference.size)
        else:
            shifted = out - out.max(axis=1, keepdims=True)
            g = np.exp(shifted)
            total = g.sum(axis=1, keepdims=True)
            loss = float(np.mean(np.log(total[:, 0]) - shifted[rows, target]))
            g /= total
            g[rows, target] -= 1
            g /= workload.batch
        grad_w: list[Any] = [None] * len(weights)
        grad_b: list[Any] = [None] * len(weights)
        for position in range(last, -1, -1):
            if position != last:
                g *= _slope(workload.activation, sums[position], values[position + 1])
            grad_w[position] = values[position].T @ g
            grad_b[position] = g.sum(axis=0)
            if position:
                g = g @ weights[position].T
        optimizer.apply([*grad_w, *grad_b])
        return loss

    return step
