"""Optimizers against their rules written in NumPy; groups, state dicts, schedules."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import wengert as wg
from wengert import nn, optim

Array = np.ndarray[Any, Any]
STEPS = 8


def gradients(seed: int = 0) -> list[Array]:
    return list(np.random.default_rng(seed).normal(size=(STEPS, 5)))


def numpy_sgd(
    p: Array,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
) -> list[Array]:
    path, b = [], None
    for g in gradients():
        g = (-g if maximize else g) + weight_decay * p
        if momentum:
            b = g if b is None else momentum * b + (1 - dampening) * g
            g = g + momentum * b if nesterov else b
        p = p - lr * g
        path.append(p)
    return path


def numpy_rmsprop(
    p: Array,
    lr: float = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    centered: bool = False,
    maximize: bool = False,
) -> list[Array]:
    path, v, m, b = [], np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    for g in gradients():
        g = (-g if maximize else g) + weight_decay * p
        v = alpha * v + (1 - alpha) * g * g
        m = alpha * m + (1 - alpha) * g
        s = np.sqrt(v - m * m if centered else v) + eps
        b = momentum * b + g / s
        p = p - lr * b
        path.append(p)
    return path


def numpy_adam(
    p: Array,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
    maximize: bool = False,
    apart: bool = False,
) -> list[Array]:
    path, m, v, largest = [], np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    for t, g in enumerate(gradients(), start=1):
        g = -g if maximize else g
        if apart:
            p = p - lr * weight_decay * p
        else:
            g = g + weight_decay * p
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        largest = np.maximum(largest, v)
        s = np.sqrt(largest if amsgrad else v) / np.sqrt(1 - betas[1] ** t) + eps
        p = p - lr / (1 - betas[0] ** t) * m / s
        path.append(p)
    return path


CASES: list[tuple[Callable[..., optim.Optimizer], Callable[..., list[Array]], dict[str, Any]]] = [
    (optim.SGD, numpy_sgd, {"lr": 0.1}),
    (optim.SGD, numpy_sgd, {"lr": 0.1, "weight_decay": 0.3, "maximize": True}),
    (optim.SGD, numpy_sgd, {"lr": 0.1, "momentum": 0.9}),
    (optim.SGD, numpy_sgd, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}),
    (optim.SGD, numpy_sgd, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (optim.RMSprop, numpy_rmsprop, {}),
    (optim.RMSprop, numpy_rmsprop, {"momentum": 0.5, "weight_decay": 0.1}),
    (optim.RMSprop, numpy_rmsprop, {"centered": True, "alpha": 0.7, "eps": 1e-3, "maximize": True}),
    (optim.Adam, numpy_adam, {}),
    (optim.Adam, numpy_adam, {"lr": 0.1, "betas": (0.5, 0.8), "eps": 1e-3, "weight_decay": 0.2}),
    (optim.Adam, numpy_adam, {"amsgrad": True, "betas": (0.9, 0.5), "maximize": True}),
    (optim.AdamW, lambda p, **k: numpy_adam(p, apart=True, **{"weight_decay": 1e-2, **k}), {}),
    (optim.AdamW, lambda p, **k: numpy_adam(p, apart=True, **k), {"lr": 0.1, "weight_decay": 0.5, "amsgrad": True}),
]


def start(dtype: str = "float64") -> tuple[Array, nn.Parameter]:
    p0 = np.random.default_rng(9).normal(size=5).astype(dtype)
    return p0, nn.Parameter(wg.tensor(p0))


@pytest.mark.parametrize(("make", "rule", "settings"), CASES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_trajectory(make: Any, rule: Any, settings: dict[str, Any], dtype: str) -> None:
    p0, p = start(dtype)
    optimizer = make([p], **settings)
    rtol = 1e-12 if dtype == "float64" else 1e-4
    for g, want in zip(gradients(), rule(p0.astype("float64"), **settings), strict=True):
        p.grad = wg.tensor(g.astype(dtype))
        optimizer.step()
        np.testing.assert_allclose(p.detach().numpy(), want, rtol=rtol, atol=rtol)


@pytest.mark.parametrize(("make", "rule", "settings"), CASES)
def test_a_restored_optimizer_goes_on(make: Any, rule: Any, settings: dict[str, Any]) -> None:
    p0, p = start()
    optimizer = make([p], **settings)
    for i, (g, want) in enumerate(zip(gradients(), rule(p0, **settings), strict=True)):
        if i in (1, 4):
            state = pickle.loads(pickle.dumps(optimizer.state_dict()))
            p = nn.Parameter(p)
            optimizer = make([p], lr=123.0)
            optimizer.load_state_dict(state)
        if i == 6:
            p, optimizer = copy.deepcopy((p, optimizer))
            assert optimizer.param_groups[0]["params"][0] is p
        p.grad = wg.tensor(g)
        optimizer.step()
        np.testing.assert_allclose(p.detach().numpy(), want, rtol=1e-12)


def test_groups_and_changed_settings() -> None:
    a, b = nn.Parameter(wg.ones((1,))), nn.Parameter(wg.ones((1,)))
    optimizer = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.5}], lr=0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.5]

    def step() -> list[float]:
        optimizer.zero_grad()
        (a + b).sum().backward()
        optimizer.step()
        return [a.item(), b.item()]

    assert step() == [0.75, 0.5]
    optimizer.param_groups[0]["lr"] = 0.0
    assert step() == [0.75, 0.0]
    c = nn.Parameter(wg.ones((1,)))
    optimizer.add_param_group({"params": [c], "momentum": 0.5})
    assert optimizer.param_groups[2] == {**optimizer.defaults, "params": [c], "momentum": 0.5}
    (c * 2.0).sum().backward()
    step()
    assert c.item() == 1.0 - 0.25 * 2.0 or c.grad is None


def test_settings_are_found_anew_at_each_step_wherever_they_come_from() -> None:
    class Halving(optim.SGD):
        rate = 1.0

        def numbers(self, group: Any) -> tuple[float, ...]:
            return (self.rate, *super().numbers(group)[1:])

    p, q = (nn.Parameter(wg.tensor([1.0], dtype=wg.float64)) for _ in range(2))
    own = Halving([p], lr=123.0)
    betas: Any = [0.0, 0.0]
    listed = optim.Adam([q], lr=0.5, betas=betas, eps=1.0)
    moved = []
    for rate, beta in [(1.0, 0.0), (0.5, 0.0), (0.25, 0.5)]:
        p.grad = wg.tensor([1.0], dtype=wg.float64)
        q.grad = wg.tensor([1.0 - beta], dtype=wg.float64)
        before = p.item(), q.item()
        own.rate = rate
        betas[0] = beta
        own.step()
        listed.step()
        moved.append((before[0] - p.item(), before[1] - q.item()))
    assert [a for a, _ in moved] == [1.0, 0.5, 0.25]
    # The last: m = (1 + 1/2) / 2 without bias 6/7, v = 1/4.
    assert [b for _, b in moved] == pytest.approx([0.25, 0.25, 0.5 * 6 / 7 / 1.5])


def test_parameters_without_gradient_stay_and_count_no_step() -> None:
    a, b = nn.Parameter(wg.ones((2,))), nn.Parameter(wg.ones((2,)))
    optimizer = optim.Adam([a, b], lr=0.1, weight_decay=0.5)
    a.sum().backward()
    optimizer.step()
    assert b.tolist() == [1.0, 1.0]
    assert list(optimizer.state_dict()["state"]) == [0]
    assert set(optimizer.state) == {a}
    assert optimizer.state[a]["step"] == 1
    b.sum().backward()
    optimizer.step()
    state = optimizer.state_dict()["state"]
    assert [int(state[i]["step"]) for i in (0, 1)] == [2, 1]


def test_there_is_no_state_before_the_first_step() -> None:
    optimizer = optim.Adam([nn.Parameter(wg.ones((2,)))])
    assert optimizer.state == {}
    assert optimizer.state_dict()["state"] == {}


def test_a_parameter_without_gradient_keeps_nothing_for_a_first_step() -> None:
    a, b, frozen = (nn.Parameter(wg.ones((2,))) for _ in range(3))
    frozen.requires_grad_(False)
    wg.eval(a, b, frozen)
    before = wg.debug.counters()["live_nodes"]
    optimizer = optim.Adam([a, b, frozen])
    assert wg.debug.counters()["live_nodes"] - before == 4
    a.sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    assert wg.debug.counters()["live_nodes"] - before == 2


def test_what_is_ready_for_a_first_step_follows_its_parameter() -> None:
    model = nn.Linear(2, 1)
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    model.to(wg.float64)
    model(wg.ones((1, 2), dtype=wg.float64)).sum().backward()
    optimizer.step()
    assert optimizer.state[model.weight]["exp_avg"].dtype == wg.float64


def test_a_first_step_that_failed_can_be_repeated() -> None:
    def trained(failures: int) -> list[Any]:
        p = nn.Parameter(wg.tensor([1.0, 2.0, 3.0]))
        optimizer = optim.Adam([p], lr=0.1)
        for _ in range(failures):
            (p[wg.tensor([0, 1]) * 5] ** 2).sum().backward()
            with pytest.raises(IndexError):
                optimizer.step()
            optimizer.zero_grad()
        (p**2).sum().backward()
        optimizer.step()
        return [p.tolist(), optimizer.state_dict()["state"][0]["exp_avg_sq"].tolist()]

    assert trained(0) == trained(1) == trained(2)


def test_a_group_that_cannot_be_made_ready_is_not_added() -> None:
    optimizer = optim.Adam([nn.Parameter(wg.ones((2,)))])
    failing = nn.Parameter(wg.ones((3,)))
    with wg.no_grad():
        failing.copy_(wg.ones((3,))[wg.tensor([0, 1, 2]) * 5])
    with pytest.raises(IndexError):
        optimizer.add_param_group({"params": [failing]})
    assert len(optimizer.param_groups) == len(optimizer._updaters) == 1


def test_a_subclass_may_tell_its_numbers_late() -> None:
    class Late(optim.SGD):
        def __init__(self, params: Any) -> None:
            super().__init__(params, lr=1.0)
            self.rate = 0.5

        def numbers(self, group: Any) -> tuple[float, ...]:
            return (self.rate, *super().numbers(group)[1:])

    p = nn.Parameter(wg.tensor([1.0]))
    optimizer = Late([p])
    p.sum().backward()
    optimizer.step()
    assert p.item() == 0.5


def test_state_dict_has_the_known_structure() -> None:
    p = nn.Parameter(wg.ones((2,)))
    optimizer = optim.Adam([p], lr=0.1)
    p.sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    assert set(state) == {"state", "param_groups"}
    assert set(state["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}
    assert state["param_groups"] == [
        {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False, "maximize": False,
         "params": [0]},
    ]  # fmt: skip
    assert state["state"][0]["exp_avg"].tolist() == pytest.approx([0.1, 0.1])


def test_a_state_dict_that_does_not_fit_changes_nothing() -> None:
    p = nn.Parameter(wg.ones((2,)))
    optimizer = optim.Adam([p], lr=0.1)
    p.sum().backward()
    optimizer.step()
    before = optimizer.state_dict()
    two = optim.Adam([nn.Parameter(wg.ones((2,))), nn.Parameter(wg.ones((2,)))]).state_dict()
    with pytest.raises(ValueError, match="2 parameters, not 1"):
        optimizer.load_state_dict(two)
    with pytest.raises(ValueError, match="2 groups, not 1"):
        optimizer.load_state_dict({"state": {}, "param_groups": [*two["param_groups"]] * 2})
    wrong = copy.deepcopy(before)
    wrong["state"][0]["exp_avg"] = wg.zeros((3,))
    with pytest.raises(wg.ShapeError):
        optimizer.load_state_dict(wrong)
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    assert after["state"][0]["exp_avg"].tolist() == before["state"][0]["exp_avg"].tolist()


def test_closure() -> None:
    p = nn.Parameter(wg.tensor([3.0]))
    optimizer = optim.SGD([p], lr=0.5)

    def closure() -> wg.Tensor:
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with wg.no_grad():
        assert optimizer.step(closure).item() == 9.0
    assert p.item() == 0.0
    assert optimizer.step() is None


def test_zero_grad() -> None:
    p = nn.Parameter(wg.ones((2,)))
    optimizer = optim.SGD([p])
    p.sum().backward()
    optimizer.zero_grad(set_to_none=False)
    assert p.grad.tolist() == [0.0, 0.0]
    optimizer.zero_grad()
    assert p.grad is None


def test_what_is_refused() -> None:
    p = nn.Parameter(wg.ones((1,)))
    for settings in ({"lr": -1.0}, {"momentum": -0.1}, {"weight_decay": -1.0}, {"nesterov": True}, {"lr": float("nan")},
                     {"nesterov": True, "momentum": 0.9, "dampening": 0.1}):  # fmt: skip
        with pytest.raises(ValueError, match="SGD"):
            optim.SGD([p], **settings)
    for settings in ({"betas": (1.0, 0.9)}, {"betas": (0.9, -0.1)}, {"eps": -1.0}, {"lr": -1.0}):
        with pytest.raises(ValueError, match="AdamW"):
            optim.AdamW([p], **settings)
    for settings in ({"alpha": -1.0}, {"momentum": -1.0}):
        with pytest.raises(ValueError, match="RMSprop"):
            optim.RMSprop([p], **settings)
    with pytest.raises(ValueError, match="empty"):
        optim.SGD([])
    with pytest.raises(ValueError, match="twice"):
        optim.SGD([p, p])
    with pytest.raises(ValueError, match="twice"):
        optim.SGD([{"params": [p]}, {"params": [p]}])
    with pytest.raises(ValueError, match="not a variable"):
        optim.SGD([p * 2.0])
    for bad in (p, [3.0], [{"params": {p}}]):
        with pytest.raises(TypeError):
            optim.SGD(bad)


def test_repr() -> None:
    text = repr(optim.SGD([nn.Parameter(wg.ones((1,)))], lr=0.5))
    assert text.startswith("SGD (\nParameter Group 0\n    dampening: 0.0\n    lr: 0.5\n")


class TestSchedules:
    def rates(self, make: Callable[[optim.Optimizer], optim.lr_scheduler.LRScheduler], steps: int) -> list[float]:
        optimizer = optim.SGD([nn.Parameter(wg.ones((1,)))], lr=0.8)
        schedule = make(optimizer)
        seen = []
        for _ in range(steps):
            seen.append(optimizer.param_groups[0]["lr"])
            assert schedule.get_last_lr() == [seen[-1]]
            optimizer.step()
            schedule.step()
        return seen

    def test_step(self) -> None:
        got = self.rates(lambda o: optim.lr_scheduler.StepLR(o, 3, 0.5), 8)
        assert got == pytest.approx([0.8] * 3 + [0.4] * 3 + [0.2] * 2)

    def test_cosine_down_and_up_again(self) -> None:
        got = self.rates(lambda o: optim.lr_scheduler.CosineAnnealingLR(o, 5, 0.1), 24)
        assert got == pytest.approx([0.1 + 0.7 * (1 + np.cos(np.pi * t / 5)) / 2 for t in range(24)])

    def test_chained(self) -> None:
        optimizer = optim.SGD([nn.Parameter(wg.ones((1,)))], lr=1.0)
        first = optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        second = optim.lr_scheduler.StepLR(optimizer, 2, 0.1)
        for _ in range(4):
            first.step()
            second.step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5**4 * 0.1**2)

    @pytest.mark.parametrize("name", ["StepLR", "CosineAnnealingLR"])
    def test_going_on_from_a_state_dict(self, name: str) -> None:
        def make(optimizer: optim.Optimizer) -> optim.lr_scheduler.LRScheduler:
            return getattr(optim.lr_scheduler, name)(optimizer, 4)

        straight = self.rates(make, 10)
        p = nn.Parameter(wg.ones((1,)))
        optimizer = optim.SGD([p], lr=0.8)
        schedule = make(optimizer)
        for _ in range(5):
            schedule.step()
        states = pickle.loads(pickle.dumps((optimizer.state_dict(), schedule.state_dict())))
        optimizer = optim.SGD([p], lr=7.0)
        schedule = make(optimizer)
        optimizer.load_state_dict(states[0])
        schedule.load_state_dict(states[1])
        rates = []
        for _ in range(5):
            rates.append(optimizer.param_groups[0]["lr"])
            schedule.step()
        assert rates == pytest.approx(straight[5:])

    def test_going_on_by_last_epoch(self) -> None:
        optimizer = optim.SGD([{"params": nn.Parameter(wg.ones((1,))), "initial_lr": 0.8}], lr=0.8)
        optim.lr_scheduler.CosineAnnealingLR(optimizer, 5, last_epoch=2)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.4 * (1 + np.cos(np.pi * 3 / 5)))
        with pytest.raises(KeyError, match="initial_lr"):
            optim.lr_scheduler.StepLR(optim.SGD([nn.Parameter(wg.ones((1,)))]), 2, last_epoch=3)
        with pytest.raises(TypeError):
            optim.lr_scheduler.StepLR(None, 2)  # type: ignore[arg-type]


def test_a_state_dict_stays_as_it_was() -> None:
    p = nn.Parameter(wg.tensor([1.0, 2.0]))
    optimizer = optim.Adam([p], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (p * p).sum().backward()
        optimizer.step()
    kept = optimizer.state_dict()
    before = {name: float(value.sum()) for name, value in kept["state"][0].items() if isinstance(value, wg.Tensor)}
    optimizer.zero_grad()
    (p * p).sum().backward()
    optimizer.step()
    after = {name: float(value.sum()) for name, value in kept["state"][0].items() if isinstance(value, wg.Tensor)}
    assert before == after
    assert kept["state"][0]["step"] == 2
