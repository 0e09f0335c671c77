"""The zero product and the table of subgradients: equal in both modes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import wengert as wg
import wengert.nn.functional as F
from wengert import _core

INF = float("inf")


def t(a: object) -> wg.Tensor:
    return wg.tensor(a, dtype=wg.float64)


def slopes(f: Callable[[wg.Tensor], wg.Tensor], at: float) -> tuple[float, float]:
    """The derivative of a scalar function, reverse and forward."""
    reverse = wg.grad(f)(t(at)).item()
    _, forward = wg.jvp(f, (t(at),), (t(1.0),))
    return reverse, forward.item()


TABLE: dict[str, tuple[Callable[[wg.Tensor], wg.Tensor], float, float]] = {
    "relu at 0": (wg.relu, 0.0, 0.0),
    "leaky_relu at 0": (lambda x: F.leaky_relu(x, 0.25), 0.0, 0.25),
    "abs at 0": (wg.abs, 0.0, 0.0),
    "sign at 2": (wg.sign, 2.0, 0.0),
    "norm at 0": (lambda x: wg.vector_norm(wg.stack([x, x])), 0.0, 0.0),
    "clip at its lower end": (lambda x: wg.clip(x, -1.0, 1.0), -1.0, 1.0),
    "clip at its upper end": (lambda x: wg.clip(x, -1.0, 1.0), 1.0, 1.0),
    "clip outside": (lambda x: wg.clip(x, -1.0, 1.0), 1.5, 0.0),
    "maximum of equals": (lambda x: wg.maximum(x, 2.0 * x - 3.0), 3.0, 0.5 * 1 + 0.5 * 2),
    "minimum of equals": (lambda x: wg.minimum(x, 2.0 * x - 3.0), 3.0, 0.5 * 1 + 0.5 * 2),
    "l1_loss of equals": (lambda x: F.l1_loss(x, t(1.0)), 1.0, 0.0),
}


@pytest.mark.parametrize("name", TABLE)
def test_table(name: str) -> None:
    f, at, expected = TABLE[name]
    assert slopes(f, at) == (expected, expected)


@pytest.mark.parametrize("reduce", [wg.max, wg.min])
def test_extremes_over_axes_split_evenly(reduce: Callable[..., wg.Tensor]) -> None:
    x = t([[1.0, 1.0, 1.0, 1.0], [2.0, 5.0, 2.0, 5.0]])
    gradient = wg.grad(lambda x: reduce(x, axis=1).sum())(x).tolist()
    assert gradient[0] == [0.25] * 4
    assert sorted(gradient[1]) == [0.0, 0.0, 0.5, 0.5]
    _, forward = wg.jvp(lambda x: reduce(x, axis=1), (x,), (t([[4.0, 0.0, 0.0, 0.0], [1.0, 2.0, 1.0, 2.0]]),))
    assert forward.tolist()[0] == 1.0


def test_max_pooling_follows_the_index() -> None:
    """The first of equal elements has the gradient, in both modes and at second order; NaN comes before any number."""
    x = t([[[1.0, 3.0, 2.0, 2.0], [3.0, 0.0, 2.0, 2.0]]])
    values, indices = F.max_pool2d(x, 2, return_indices=True)
    assert (values.tolist(), indices.tolist()) == ([[[3.0, 2.0]]], [[[1, 2]]])
    cubes = wg.grad(lambda x: (F.max_pool2d(x, 2) ** 3).sum())
    assert cubes(x).tolist() == [[[0.0, 27.0, 12.0, 0.0], [0.0] * 4]]
    direction = t([[[1.0, 2.0, 4.0, 8.0], [16.0, 32.0, 64.0, 128.0]]])
    _, along = wg.jvp(lambda x: F.max_pool2d(x, 2), (x,), (direction,))
    assert along.tolist() == [[[2.0, 4.0]]]
    curvature = wg.hvp(lambda x: (F.max_pool2d(x, 2) ** 3).sum(), (x,), (direction,))
    assert curvature.tolist() == [[[0.0, 6 * 3 * 2.0, 6 * 2 * 4.0, 0.0], [0.0] * 4]]
    broken = t([[[1.0, INF], [float("nan"), 2.0]]])
    assert np.isnan(F.max_pool2d(broken, 2).item())
    assert wg.grad(lambda x: F.max_pool2d(x, 2).sum())(broken).tolist() == [[[0.0, 0.0], [1.0, 0.0]]]


MASKED: dict[str, Callable[[wg.Tensor], wg.Tensor]] = {
    "sqrt": lambda x: wg.where(x > 0.0, wg.sqrt(x), 0.0),
    "log": lambda x: wg.where(x > 0.0, wg.log(x), 0.0),
    "reciprocal": lambda x: wg.where(x > 0.0, 1.0 / x, 0.0),
    "power": lambda x: wg.where(x > 0.0, x**0.5, 0.0),
    "division": lambda x: wg.where(x > 0.0, (x + 1.0) / x, 0.0),
    "norm": lambda x: wg.where(x > 0.0, wg.sqrt(x * x), 0.0),
}


@pytest.mark.parametrize("name", MASKED)
@pytest.mark.parametrize("at", [0.0, -0.0, -1.0])
def test_a_masked_branch_gives_zero(name: str, at: float) -> None:
    f = MASKED[name]
    assert slopes(f, at) == (0.0, 0.0)
    second = wg.grad(wg.grad(f))(t(at)).item()
    _, forward = wg.jvp(wg.grad(f), (t(at),), (t(1.0),))
    assert (second, forward.item()) == (0.0, 0.0)


@pytest.mark.parametrize("name", MASKED)
def test_the_other_branch_is_the_function(name: str) -> None:
    f = MASKED[name]
    reverse, forward = slopes(f, 0.7)
    difference = (f(t(0.7 + 1e-6)).item() - f(t(0.7 - 1e-6)).item()) / 2e-6
    np.testing.assert_allclose([reverse, forward], difference, rtol=1e-7)


def test_the_zero_product_itself() -> None:
    x, y = t([0.0, 0.0, -0.0, 2.0, INF, 0.0]), t([INF, np.nan, -INF, 3.0, 0.0, 0.0])
    assert _core.zmul(x, y).tolist() == [0.0, 0.0, 0.0, 6.0, 0.0, 0.0]
    assert np.isnan(_core.zmul(t(1.0), t(np.nan)).item())


def test_an_infinite_slope_stays_infinite_where_it_counts() -> None:
    assert wg.grad(wg.sqrt)(t(0.0)).item() == INF


def test_softmax_of_masked_logits() -> None:
    x = t([1.0, -INF, 2.0])
    y = wg.softmax(x, axis=0)
    np.testing.assert_allclose(y.numpy(), [0.26894142, 0.0, 0.73105858], rtol=1e-7)
    gradient = wg.grad(lambda x: wg.softmax(x, axis=0)[0])(x).numpy()
    assert np.isfinite(gradient).all()
    assert gradient[1] == 0.0


@pytest.mark.parametrize("logit", [1e4, -1e4])
@pytest.mark.parametrize("target", [0.0, 1.0])
def test_stable_losses(logit: float, target: float) -> None:
    x = wg.tensor([logit])
    f = lambda x: F.binary_cross_entropy_with_logits(x, wg.tensor([target]))  # noqa: E731
    right = (logit > 0) == (target == 1)
    assert f(x).item() == (0.0 if right else 1e4)
    assert wg.grad(f)(x).tolist() == [0.0 if right else np.sign(logit)]
    two = wg.tensor([[logit, 0.0]])
    g = lambda x: F.cross_entropy(x, wg.tensor([int(1 - target)]))  # noqa: E731
    assert np.isfinite(g(two).item())
    assert np.isfinite(wg.grad(g)(two).numpy()).all()
