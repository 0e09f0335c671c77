"""No read makes anything be computed twice. `nodes_computed` counts the nodes that plans compute."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import wengert as wg
from counting import Difference, counting
from wengert import nn, optim


def net() -> tuple[nn.Module, wg.Tensor, wg.Tensor]:
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
    x, y = wg.ones((4, 3)), wg.zeros((4, 1))
    wg.eval(x, y, *model.parameters())
    return model, x, y


def computed(program: Callable[[], object]) -> int:
    with counting() as seen:
        program()
    return seen["nodes_computed"]


def step(read_before: bool, read_between: bool) -> Callable[[], None]:
    model, x, y = net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def program() -> None:
        loss = nn.functional.mse_loss(model(x), y)
        if read_before:
            loss.item()
        loss.backward()
        if read_between:
            loss.item()
        optimizer.step()
        loss.item()

    return program


def test_reading_the_loss_costs_no_recomputation() -> None:
    plain = computed(step(False, False))
    assert plain > 0
    # A cut plan shares no subexpressions with the next, so a few nodes of the rule may appear on both sides.
    assert computed(step(True, False)) <= plain + 2
    assert computed(step(False, True)) <= plain + 2
    assert computed(step(True, True)) <= plain + 2


def test_a_second_read_computes_nothing() -> None:
    model, x, _ = net()
    y = model(x)
    y.tolist()
    with counting() as seen:
        y.tolist()
        print(y)
        y.sum  # noqa: B018  (naming a method records nothing)
    assert (seen["plans"], seen["nodes_computed"]) == (0, 0)


def test_two_losses_over_one_trunk() -> None:
    trunk, x, y = net()
    features = trunk(x)
    first, second = ((features - y) ** 2).mean(), (features - y).abs().mean()
    alone = computed(lambda: first.item())
    with counting() as seen:
        second.item()
    # The trunk (two products, tanh, two biases) is not computed again.
    assert seen["nodes_computed"] < alone
    assert seen["nodes_computed"] <= 4


def test_two_backward_passes_over_one_trunk() -> None:
    trunk, x, y = net()
    features = trunk(x)
    first, second = ((features - y) ** 2).mean(), (features * features).mean()
    first.backward(retain_graph=True)
    once = [p.grad.tolist() for p in trunk.parameters()]
    second.backward()
    both = [p.grad.tolist() for p in trunk.parameters()]
    trunk.zero_grad()
    features = trunk(x)
    (((features - y) ** 2).mean() + (features * features).mean()).backward()
    assert once != both
    for total, parameter in zip(both, trunk.parameters(), strict=True):
        assert total == pytest.approx(parameter.grad.tolist(), rel=1e-5) if isinstance(total[0], float) else True


def test_what_a_live_handle_names_is_kept() -> None:
    x = wg.tensor([1.0, 2.0])
    inner = wg.exp(x)
    outer = inner * 2.0
    outer.tolist()
    with counting() as seen:
        inner.tolist()
    assert seen["plans"] == 0


def test_the_input_of_what_stays_pending_is_kept() -> None:
    x = wg.tensor([1.0, 2.0])
    hidden = wg.exp(x)
    first, second = hidden * 2.0, hidden * 3.0
    del hidden
    first.tolist()
    with counting() as seen:
        second.tolist()
    assert seen["nodes_computed"] == 1


def test_under_no_grad_only_named_values_are_kept() -> None:
    model, x, _ = net()
    with wg.no_grad():
        y = model(x)
        y.tolist()
    assert not y.requires_grad
    before = live()
    del y
    assert live() < before


def live() -> int:
    from wengert import _core

    return _core.counters()["live_nodes"]


def test_the_mode_of_recording_counts_not_that_of_reading() -> None:
    w = wg.tensor([0.5]).requires_grad_()
    y = wg.tanh(w).sum()
    with wg.no_grad():
        y.item()
    with counting() as seen:
        y.backward()
        w.grad.tolist()
    assert seen["nodes_computed"] <= 5
    assert w.grad.item() == pytest.approx(1 - 0.46211716**2, rel=1e-6)


def test_counting_counts() -> None:
    seen = Difference()
    (wg.tensor([1.0]) * 2.0).tolist()
    assert seen["nodes_computed"] == 1
    assert seen["plans"] == 1
