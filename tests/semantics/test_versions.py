"""A variable keeps identity and gradient while its value is replaced; uses of an old version stay what they were."""

from __future__ import annotations

import pytest

import wengert as wg
from wengert import nn


def variable(*values: float) -> wg.Tensor:
    return wg.tensor(list(values)).requires_grad_()


def test_a_rebind_under_no_grad_keeps_identity_and_gradient() -> None:
    w = variable(1.0, 2.0)
    (w * w).sum().backward()
    same, gradient = w, w.grad
    with wg.no_grad():
        w -= 0.5 * w.grad
    assert w is same
    assert w.requires_grad
    assert w.is_leaf
    assert w.grad is not None
    assert w.grad.tolist() == gradient.tolist() == [2.0, 4.0]
    assert w.tolist() == [0.0, 0.0]


def test_a_rebind_outside_no_grad_is_refused() -> None:
    w = variable(1.0)
    with pytest.raises(wg.GradError, match="no_grad"):
        w -= 1.0
    with pytest.raises(wg.GradError, match="no_grad"):
        w[0] = 1.0
    assert w.tolist() == [1.0]


def test_a_recorded_use_keeps_the_version_it_saw() -> None:
    w = variable(3.0)
    y = (w * w).sum()
    with wg.no_grad():
        w *= 10.0
    assert y.item() == 9.0
    assert (w * w).sum().item() == 900.0


def test_gradients_of_any_version_go_to_the_variable() -> None:
    w = variable(3.0)
    old = (w * w).sum()
    with wg.no_grad():
        w += 1.0
    new = (w * w).sum()
    old.backward()
    assert w.grad.item() == 6.0
    new.backward()
    assert w.grad.item() == 6.0 + 8.0


def test_both_versions_in_one_loss() -> None:
    w = variable(2.0)
    first = w * w
    with wg.no_grad():
        w += 1.0
    (first * w).sum().backward()
    # d(w1² · w2) by both: 2·w1·w2 + w1².
    assert w.grad.item() == 2 * 2 * 3 + 4


def test_pending_updates_chain() -> None:
    w = variable(1.0)
    with wg.no_grad():
        for _ in range(10):
            w += 1.0
    assert w.tolist() == [11.0]


def test_in_place_on_a_value_rebinds_only_that_handle() -> None:
    x = wg.tensor([1.0, 2.0, 3.0])
    y = x
    part = x[1:]
    kept = x.clone()
    x += 1.0
    assert y is x
    assert x.tolist() == [2.0, 3.0, 4.0]
    assert part.tolist() == [2.0, 3.0]
    assert kept.tolist() == [1.0, 2.0, 3.0]


def test_item_assignment_is_differentiable() -> None:
    w = variable(1.0, 2.0, 3.0)
    out = wg.zeros((3,))
    for i in range(3):
        out[i] = w[i] * (i + 1.0)
    (out * out).sum().backward()
    assert out.tolist() == [1.0, 4.0, 9.0]
    assert w.grad.tolist() == [2.0, 16.0, 54.0]


def test_overwritten_parts_have_no_gradient() -> None:
    w = variable(1.0, 2.0, 3.0)
    out = w * 2.0
    out[1] = 7.0
    out.sum().backward()
    assert out.tolist() == [2.0, 7.0, 6.0]
    assert w.grad.tolist() == [2.0, 0.0, 2.0]


def test_init_and_copy_take_variables_and_refuse_expressions() -> None:
    w = nn.Parameter(wg.zeros((2, 2)))
    nn.init.ones_(w)
    w.copy_(w.detach() + 1.0)
    assert w.tolist() == [[2.0, 2.0], [2.0, 2.0]]
    assert w.requires_grad
    expression = w * 2.0
    for refuse in (lambda: nn.init.zeros_(expression), lambda: expression.copy_(wg.zeros((2, 2)))):
        with pytest.raises(wg.GradError):
            refuse()


def test_what_does_not_exist_names_its_replacement() -> None:
    w = variable(1.0)
    for name, replacement in {"data": "detach", "add_": "no_grad"}.items():
        with pytest.raises(AttributeError, match=replacement):
            getattr(w, name)


def test_a_variable_of_integers_is_refused() -> None:
    with pytest.raises(wg.GradError, match="int64"):
        wg.tensor([1, 2]).requires_grad_()


def test_an_expression_cannot_become_a_variable() -> None:
    w = variable(1.0)
    with pytest.raises(wg.GradError, match="detach"):
        (w * 2.0).requires_grad_()
    assert (w * 2.0).detach().requires_grad_().is_leaf
