"""What `backward` uses up, what it keeps, and how gradients are asked for."""

from __future__ import annotations

import pytest

import wengert as wg


def variable(value: float = 2.0) -> wg.Tensor:
    return wg.tensor(value, dtype=wg.float64).requires_grad_()


def test_backward_adds_to_what_is_there() -> None:
    x = variable()
    (x * x).backward()
    (x * 3.0).backward()
    assert x.grad.item() == 4.0 + 3.0


def test_a_second_backward_names_the_op_and_retain_graph() -> None:
    x = variable()
    y = wg.exp(x)
    y.backward()
    with pytest.raises(wg.GradError, match=r"exp.*retain_graph"):
        y.backward()


def test_using_up_is_seen_at_once_not_when_evaluated() -> None:
    x = variable()
    shared = wg.exp(x)
    (shared * 2.0).backward()
    with pytest.raises(wg.GradError, match="retain_graph"):
        (shared * 3.0).backward()
    assert x.grad.item() == pytest.approx(2 * 7.38905609893065)


def test_linear_history_can_be_walked_again() -> None:
    """Nothing of it needs a value, so nothing is used up."""
    x = variable()
    shared = x + x
    (shared - 1.0).backward()
    (shared + 1.0).backward()
    assert x.grad.item() == 4.0


def test_retain_graph() -> None:
    x = variable()
    y = x * x * x
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.item() == 24.0
    with pytest.raises(wg.GradError):
        y.backward()


def test_retained_history_survives_an_evaluation_between() -> None:
    x = variable()
    y = wg.exp(x)
    y.backward(retain_graph=True)
    first = x.grad.item()
    y.backward()
    assert x.grad.item() == 2 * first


def test_unreached_variables_keep_no_gradient() -> None:
    x, aside = variable(), variable()
    (x * x).backward()
    assert aside.grad is None


def test_strict_lists_the_unreached_with_what_cut_them() -> None:
    x, aside = variable(), variable()
    loss = x * x + aside.detach() * 0.0
    loss.backward()
    loss = x * x + (aside * 2.0).round() if hasattr(wg.Tensor, "round") else x * x + wg.sign(aside)
    with pytest.raises(wg.GradError, match=r"sign|round"):
        loss.backward(strict=True)


def test_only_floats_and_only_scalars_without_a_cotangent() -> None:
    x = wg.tensor([1.0, 2.0]).requires_grad_()
    with pytest.raises(wg.GradError, match=r"\(2,?\)"):
        (x * 2.0).backward()
    (x * 2.0).backward(wg.tensor([1.0, 10.0]))
    assert x.grad.tolist() == [2.0, 20.0]
    with pytest.raises(wg.GradError):
        wg.tensor(1.0).backward()


def test_a_cotangent_of_another_shape_is_refused() -> None:
    x = wg.tensor([1.0, 2.0]).requires_grad_()
    with pytest.raises(wg.WengertError, match="3"):
        (x * 2.0).backward(wg.ones((3,)))


def test_integer_outputs_cut() -> None:
    x = variable()
    y = x.astype(wg.int64)
    assert not y.requires_grad


def test_create_graph() -> None:
    x = variable()
    (x * x * x).backward(create_graph=True)
    first = x.grad
    assert first.requires_grad
    x.grad = None
    first.backward()
    assert x.grad.item() == 12.0


def test_plain_backward_records_no_history() -> None:
    x = variable()
    (x * x).backward()
    assert not x.grad.requires_grad


def test_autograd_grad_leaves_grad_alone() -> None:
    x, y = variable(2.0), variable(3.0)
    gx, gy = wg.autograd.grad(x * x * y, [x, y])
    assert (gx.item(), gy.item()) == (12.0, 4.0)
    assert x.grad is None
    assert y.grad is None


def test_autograd_grad_of_an_inner_value() -> None:
    x = variable(2.0)
    inner = x * x
    (g,) = wg.autograd.grad(wg.exp(inner), [inner])
    assert g.item() == pytest.approx(54.598150033)


def test_autograd_grad_of_several_outputs_with_cotangents() -> None:
    x = wg.tensor([1.0, 2.0], dtype=wg.float64).requires_grad_()
    cotangents = [wg.tensor([1.0, 1.0], dtype=wg.float64), wg.tensor(2.0, dtype=wg.float64)]
    (g,) = wg.autograd.grad([x * x, x.sum()], [x], cotangents)
    assert g.tolist() == [4.0, 6.0]


def test_unused_inputs() -> None:
    x, aside = variable(), variable()
    with pytest.raises(wg.GradError, match="allow_unused"):
        wg.autograd.grad(x * x, [x, aside])
    gx, none = wg.autograd.grad(x * x, [x, aside], allow_unused=True)
    assert gx.item() == 4.0
    assert none is None
    _, zero = wg.autograd.grad(x * x, [x, aside], materialize_grads=True)
    assert zero.item() == 0.0
    with pytest.raises(ValueError, match="materialize_grads"):
        wg.autograd.grad(x * x, [x], allow_unused=False, materialize_grads=True)


def test_autograd_grad_retain_and_create() -> None:
    x = variable()
    y = x * x * x
    (first,) = wg.autograd.grad(y, [x], create_graph=True)
    (second,) = wg.autograd.grad(first, [x], create_graph=True)
    (third,) = wg.autograd.grad(second, [x])
    assert (first.item(), second.item(), third.item()) == (12.0, 12.0, 6.0)


def test_no_grad_and_its_kin() -> None:
    x = variable()
    with wg.no_grad():
        assert not wg.is_grad_enabled()
        assert not (x * x).requires_grad
        with wg.enable_grad():
            assert (x * x).requires_grad
        assert not wg.is_grad_enabled()
    assert wg.is_grad_enabled()

    @wg.no_grad()
    def inference(x: wg.Tensor) -> wg.Tensor:
        return x * x

    assert not inference(x).requires_grad
    with wg.set_grad_enabled(False):
        assert not wg.is_grad_enabled()
    assert wg.is_grad_enabled()
    wg.set_grad_enabled(False)
    try:
        assert not wg.is_grad_enabled()
    finally:
        wg.set_grad_enabled(True)


def test_no_grad_ends_with_an_error() -> None:
    with pytest.raises(ZeroDivisionError), wg.no_grad():
        1 / 0  # noqa: B018
    assert wg.is_grad_enabled()


def test_the_gradient_can_be_set_and_is_checked() -> None:
    x = wg.tensor([1.0, 2.0]).requires_grad_()
    x.grad = wg.ones((2,))
    assert x.grad.tolist() == [1.0, 1.0]
    x.grad = None
    assert x.grad is None
    with pytest.raises(wg.GradError, match="3"):
        x.grad = wg.ones((3,))
