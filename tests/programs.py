"""Random programs of a few operations: one generator for values against NumPy and for equality of bits.

A program is a list of steps `(operation, first, second)`; each step works on two of the values so far.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special
from hypothesis import strategies as st

import references as ref
import wengert as wg

Step = tuple[int, int, int]
Pair = tuple[Callable[..., Any], Callable[..., Any]]


def both(f: Callable[..., Any]) -> Pair:
    """Written in what tensors and arrays share."""
    return f, f


UNARY: list[Pair] = [
    (wg.exp, np.exp),
    (wg.tanh, np.tanh),
    (wg.sigmoid, scipy.special.expit),
    (wg.relu, ref.relu),
    (wg.abs, np.abs),
    (wg.square, np.square),
    (wg.sin, np.sin),
    both(lambda x: x * 0.37 - 1.2),
    both(lambda x: -x),
    both(lambda x: x.sum(axis=-1)),
    (lambda x: x - x.mean(axis=-1, keepdims=True), lambda x: x - x.mean(-1, keepdims=True)),
    (lambda x: x / (x.abs().sum(axis=0, keepdims=True) + 1.0), lambda x: x / (np.abs(x).sum(0, keepdims=True) + 1.0)),
    (lambda x: wg.softmax(x, axis=-1), lambda x: scipy.special.softmax(x, -1)),
    both(lambda x: x.T if x.ndim == 2 else x),
    both(lambda x: x + x.max(axis=0)),
    both(lambda x: x[::-1]),
    both(lambda x: x[..., : max(1, x.shape[-1] // 2)]),
    (lambda x: wg.where(x > 0.1, x, -0.5 * x), lambda x: np.where(x > 0.1, x, -0.5 * x)),
    (lambda x: wg.clip(x, -0.5, 2.0), lambda x: np.clip(x, -0.5, 2.0)),
    (lambda x: x.reshape(-1), lambda x: x.reshape(-1)),
]


def _fit(x: Any, y: Any) -> bool:
    try:
        np.broadcast_shapes(x.shape, y.shape)
    except ValueError:
        return False
    return True


BINARY: list[Pair] = [
    both(lambda x, y: x + y if _fit(x, y) else x),
    both(lambda x, y: x * y if _fit(x, y) else y),
    both(lambda x, y: x - y if _fit(x, y) else x - 1.0),
    both(lambda x, y: x @ y if x.ndim == y.ndim == 2 and x.shape[1] == y.shape[0] else x * 0.5),
    both(lambda x, y: x @ y.T if x.ndim == y.ndim == 2 and x.shape[1] == y.shape[1] else y * 0.5),
    (
        lambda x, y: wg.maximum(x, y) if _fit(x, y) else x,
        lambda x, y: np.maximum(x, y) if _fit(x, y) else x,
    ),
    (
        lambda x, y: wg.concat([x, y], 0) if x.shape[1:] == y.shape[1:] and x.shape[0] + y.shape[0] < 50 else x,
        lambda x, y: np.concatenate([x, y], 0) if x.shape[1:] == y.shape[1:] and x.shape[0] + y.shape[0] < 50 else x,
    ),
]

OPERATIONS = len(UNARY) + len(BINARY)
PROGRAM = st.lists(st.tuples(st.integers(0, OPERATIONS - 1), st.integers(0, 9), st.integers(0, 9)), max_size=12)
SHAPE = st.tuples(st.integers(1, 9), st.integers(1, 40))


def leaves(shape: tuple[int, int], dtype: str = "float32") -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(dtype) for _ in range(2)]


def take_step(step: Step, values: list[Any], side: int) -> Any:
    """Apply one step to the values so far, here (side 0) or in NumPy (side 1)."""
    op, first, second = step
    a, b = values[first % len(values)], values[second % len(values)]
    if a.ndim == 0:
        return a * 1.5
    return UNARY[op][side](a) if op < len(UNARY) else BINARY[op - len(UNARY)][side](a, b if b.ndim else a)
