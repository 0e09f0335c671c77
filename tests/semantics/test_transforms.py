"""The transforms: each alone, nested in any order, mixed with `backward`; and gradients of one's own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import wengert as wg
from wengert import _core

X = np.array([0.3, -0.7, 1.1])


def t(a: object) -> wg.Tensor:
    return wg.tensor(a, dtype=wg.float64)


def f(x: wg.Tensor) -> wg.Tensor:
    return (wg.sin(x) * wg.exp(x)).sum()


def df(x: np.ndarray) -> np.ndarray:
    return np.exp(x) * (np.sin(x) + np.cos(x))


def ddf(x: np.ndarray) -> np.ndarray:
    return 2 * np.exp(x) * np.cos(x)


def test_grad() -> None:
    np.testing.assert_allclose(wg.grad(f)(t(X)).numpy(), df(X), rtol=1e-12)


def test_value_and_grad() -> None:
    value, gradient = wg.value_and_grad(f)(t(X))
    np.testing.assert_allclose(value.item(), (np.sin(X) * np.exp(X)).sum(), rtol=1e-12)
    np.testing.assert_allclose(gradient.numpy(), df(X), rtol=1e-12)


def test_argnums_and_aux() -> None:
    def g(x: wg.Tensor, y: wg.Tensor) -> wg.Tensor:
        return (x * x * y).sum()

    gx, gy = wg.grad(g, (0, 1))(t(3.0), t(5.0))
    assert (gx.item(), gy.item()) == (30.0, 9.0)
    assert wg.grad(g, 1)(t(3.0), t(5.0)).item() == 9.0
    gradient, aux = wg.grad(lambda x: ((x * x).sum(), "aside"), has_aux=True)(t(3.0))
    assert (gradient.item(), aux) == (6.0, "aside")


def test_vjp_gives_a_pullback_that_can_be_called_again() -> None:
    value, pullback = wg.vjp(lambda x, y: (x * y, x + y), t(2.0), t(3.0))
    assert [v.item() for v in value] == [6.0, 5.0]
    for scale in (1.0, 2.0):
        gx, gy = pullback((t(scale), t(0.0)))
        assert (gx.item(), gy.item()) == (3.0 * scale, 2.0 * scale)


def test_jvp() -> None:
    value, along = wg.jvp(f, (t(X),), (t([1.0, 0.0, 2.0]),))
    np.testing.assert_allclose(value.item(), f(t(X)).item())
    np.testing.assert_allclose(along.item(), df(X) @ [1, 0, 2], rtol=1e-12)


def test_hvp() -> None:
    v = np.array([1.0, -1.0, 0.5])
    np.testing.assert_allclose(wg.hvp(f, (t(X),), (t(v),)).numpy(), ddf(X) * v, rtol=1e-12)


def test_a_bare_tensor_is_the_one_primal() -> None:
    x, v = t(np.ones((1, 4))), t([[1.0, 0.0, 2.0, 0.0]])
    product = wg.hvp(lambda x: (x**3).sum(), x, v)
    assert product.tolist() == [[6.0, 0.0, 12.0, 0.0]]
    value, along = wg.jvp(lambda x: x * x, x, v)
    assert value.tolist() == [[1.0] * 4]
    assert along.tolist() == [[2.0, 0.0, 4.0, 0.0]]
    assert wg.hvp(lambda x: x**3, 2.0, 1.0).item() == 12.0
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        wg.jvp(lambda a, b: a * b, t([2.0, 3.0]), t([1.0, 0.0]))


@pytest.mark.parametrize("transform", [wg.jvp, wg.hvp])
def test_tangents_come_as_the_primals_do(transform: Any) -> None:
    name, x = transform.__name__, t([1.0, 2.0])
    for primals, tangents in [(x, (x,)), ([x], x)]:
        with pytest.raises(TypeError, match=rf"{name}: primals are a \w+ and tangents a \w+: both must be"):
            transform(lambda x: (x * x).sum(), primals, tangents)
    with pytest.raises(TypeError, match=f"{name}: primals are a ndarray, they must be a tensor"):
        transform(lambda x, y: x * y, np.ones(2), np.ones(2))
    with pytest.raises(ValueError, match=f"{name}: tangent: 1 given for 2"):
        transform(lambda x, y: (x * y).sum(), (x, x), (x,))
    with pytest.raises(wg.ShapeError, match=rf"{name}: tangent 0: shape \(1,\) was given for \(2,\)"):
        transform(lambda x: (x * x).sum(), x, t([1.0]))


@pytest.mark.parametrize("order", ["reverse-reverse", "forward-reverse", "reverse-forward", "forward-forward"])
def test_second_order_in_each_nesting(order: str) -> None:
    one = t(np.ones(3))

    def forward(g):  # type: ignore[no-untyped-def]
        return lambda x: wg.jvp(g, (x,), (one,))[1]

    def reverse(g):  # type: ignore[no-untyped-def]
        return lambda x: wg.grad(lambda z: g(z).sum())(x)

    kinds = {"reverse": reverse, "forward": forward}
    inner, outer = (kinds[kind] for kind in reversed(order.split("-")))
    got = outer(inner(f))(t(X)).numpy()
    np.testing.assert_allclose(got.sum(), ddf(X).sum(), rtol=1e-12)


def test_third_and_fourth_order() -> None:
    g = wg.sin
    for expected in (math.cos(0.4), -math.sin(0.4), -math.cos(0.4), math.sin(0.4)):
        g = wg.grad(g)
        assert g(t(0.4)).item() == pytest.approx(expected, rel=1e-12)


def test_perturbations_are_not_confused() -> None:
    """The inner derivative must not see the outer argument as its own."""
    assert wg.grad(lambda x: x * wg.grad(lambda y: x + y)(t(1.0)))(t(1.0)).item() == 1.0
    assert wg.grad(lambda x: x * wg.jvp(lambda y: x * y, (t(3.0),), (t(1.0),))[1])(t(2.0)).item() == 4.0


def test_vmap_over_axes() -> None:
    a = np.arange(12.0).reshape(3, 4)
    got = wg.vmap(lambda x, y: (x * y).sum(), in_axes=(0, None))(t(a), t(a[0]))
    np.testing.assert_allclose(got.numpy(), (a * a[0]).sum(1))
    got = wg.vmap(lambda x: x * 2.0, in_axes=1, out_axes=1)(t(a))
    np.testing.assert_allclose(got.numpy(), a * 2)


def test_nested_vmap() -> None:
    a, b = np.arange(3.0), np.arange(4.0)
    table = wg.vmap(lambda x: wg.vmap(lambda y: x * y)(t(b)))(t(a))
    np.testing.assert_allclose(table.numpy(), np.outer(a, b))


def test_vmap_of_grad_and_grad_of_vmap() -> None:
    a = np.random.default_rng(0).normal(size=(5, 3))
    np.testing.assert_allclose(wg.vmap(wg.grad(f))(t(a)).numpy(), df(a), rtol=1e-12)
    np.testing.assert_allclose(wg.grad(lambda x: wg.vmap(f)(x).sum())(t(a)).numpy(), df(a), rtol=1e-12)


def test_jacobian_by_vmap_of_jvp_and_vjp() -> None:
    a = np.random.default_rng(1).normal(size=(2, 3))

    def g(x: wg.Tensor) -> wg.Tensor:
        return wg.tanh(t(a) @ x)

    expected = (1 - np.tanh(a @ X) ** 2)[:, None] * a
    columns = wg.vmap(lambda v: wg.jvp(g, (t(X),), (v,))[1], out_axes=1)(t(np.eye(3)))
    np.testing.assert_allclose(columns.numpy(), expected, rtol=1e-12)
    _, pullback = wg.vjp(g, t(X))
    rows = wg.vmap(lambda c: pullback(c)[0])(t(np.eye(2)))
    np.testing.assert_allclose(rows.numpy(), expected, rtol=1e-12)


def test_reading_a_per_example_value_is_refused() -> None:
    with pytest.raises(wg.GradError, match="vmap"):
        wg.vmap(lambda x: x * x.sum().item())(t(np.ones((2, 3))))


def test_reading_inside_grad_is_allowed() -> None:
    """The argument has a value: a branch on it is a branch of this call."""
    g = wg.grad(lambda x: x * x if x.item() > 0 else -x)
    assert g(t(3.0)).item() == 6.0
    assert g(t(-3.0)).item() == -1.0


def test_random_numbers_differ_between_examples() -> None:
    rows = wg.vmap(lambda x: x + wg.rand((4,)))(wg.zeros((3, 4))).tolist()
    assert len({tuple(row) for row in rows}) == 3


def test_transforms_mix_with_backward() -> None:
    w = t(2.0).requires_grad_()
    slope = wg.grad(lambda x: x * x * w)(t(3.0))
    slope.backward()
    assert slope.item() == 12.0
    assert w.grad.item() == 6.0


def test_a_handle_rebound_inside_a_transform_is_restored() -> None:
    outer = t(1.0)

    def leak(x: wg.Tensor) -> wg.Tensor:
        nonlocal outer
        outer += x
        return x * 2.0

    with pytest.raises(wg.GradError):
        wg.grad(leak)(t(3.0))
    assert outer.item() == 1.0


# Gradients of one's own.


@wg.custom_gradient
def clipped(x: wg.Tensor):  # type: ignore[no-untyped-def]
    """The identity, whose gradient is cut to [-1, 1]."""
    return x * 1.0, lambda cotangent: wg.clip(cotangent, -1.0, 1.0)


def test_custom_gradient_backward_and_grad() -> None:
    x = t([1.0, 2.0]).requires_grad_()
    (clipped(x) * t([5.0, 0.5])).sum().backward()
    assert x.grad.tolist() == [1.0, 0.5]
    assert wg.grad(lambda x: (clipped(x) * -3.0).sum())(t([1.0])).tolist() == [-1.0]


def test_custom_gradient_of_several_arguments() -> None:
    @wg.custom_gradient
    def product(x: wg.Tensor, y: wg.Tensor):  # type: ignore[no-untyped-def]
        return x * y, lambda cotangent: (cotangent * y * 10.0, cotangent * x * 100.0)

    gx, gy = wg.grad(product, (0, 1))(t(2.0), t(3.0))
    assert (gx.item(), gy.item()) == (30.0, 200.0)


def test_custom_gradient_is_differentiated_again_through_its_pullback() -> None:
    @wg.custom_gradient
    def square(x: wg.Tensor):  # type: ignore[no-untyped-def]
        return x * x, lambda cotangent: cotangent * 3.0 * x

    assert wg.grad(square)(t(2.0)).item() == 6.0
    assert wg.grad(wg.grad(square))(t(2.0)).item() == 3.0


def test_custom_gradient_under_vmap() -> None:
    got = wg.vmap(wg.grad(lambda x: (clipped(x) * 2.0).sum()))(t([[1.0], [2.0]]))
    assert got.tolist() == [[1.0], [1.0]]


def test_a_custom_rule_that_reads_values_under_vmap() -> None:
    @wg.custom_gradient
    def custom(x: wg.Tensor):  # type: ignore[no-untyped-def]
        return wg.exp(x), lambda cotangent: cotangent * wg.exp(x)

    x = t([1.0, 2.0])
    want = wg.exp(x).tolist()
    assert wg.vmap(wg.grad(custom))(x).tolist() == pytest.approx(want)
    assert wg.vmap(wg.grad(wg.grad(custom)))(x).tolist() == pytest.approx(want)
    assert wg.vmap(lambda x: wg.vjp(custom, x)[1](wg.ones_like(x))[0])(x).tolist() == pytest.approx(want)


def test_transforms_of_plain_values_leave_no_history() -> None:
    total = t(0.0)
    wg.eval(total)
    counts = []
    for _ in range(3):
        for _ in range(50):
            total = total + wg.grad(wg.grad(wg.tanh))(t(0.5))
        total.item()
        counts.append(_core.counters()["live_nodes"])
    assert not total.requires_grad
    assert counts[2] - counts[1] < 50


def test_reading_the_cotangent_is_refused() -> None:
    @wg.custom_gradient
    def reading(x: wg.Tensor):  # type: ignore[no-untyped-def]
        return x * 1.0, lambda cotangent: cotangent * cotangent.item()

    with pytest.raises(wg.GradError, match=r"custom_gradient|cotangent"):
        wg.grad(reading)(t(1.0))


def test_custom_gradient_calls_python_once_per_recording() -> None:
    calls = []

    @wg.custom_gradient
    def traced(x: wg.Tensor):  # type: ignore[no-untyped-def]
        def pullback(cotangent: wg.Tensor) -> wg.Tensor:
            calls.append(1)
            return cotangent

        return x * 1.0, pullback

    x = t(1.0).requires_grad_()
    y = traced(x)
    before = len(calls)
    y.backward()
    x.grad.item()
    assert before == len(calls) == 1
