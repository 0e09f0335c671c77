"""What a compiled step leaves behind: used-up losses, gradients after errors, copies, settings, disturbed traces."""

from __future__ import annotations

import copy
import pickle
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

import wengert as wg
import wengert.nn.functional as F
from wengert import nn, optim

Step = Callable[..., Any]


@wg.compile
def doubled(x: wg.Tensor) -> wg.Tensor:
    return x * 2.0


class Holder(nn.Module):
    """A model that holds its own compiled step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.call = wg.compile(self.step)

    def step(self, x: wg.Tensor) -> wg.Tensor:
        return self.layer(x).detach()

    @wg.compile
    def method(self, x: wg.Tensor) -> wg.Tensor:
        return self.layer(x).detach() * 2.0


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_model_that_holds_a_compiled_function_is_copied(duplicate: Callable[[Holder], Holder]) -> None:
    model, x = Holder(), wg.ones((3, 2))
    for _ in range(3):
        model.call(x)
    other = duplicate(model)
    assert other.call is not model.call
    assert "not called" in str(other.call.explain())
    with wg.no_grad():
        other.layer.weight.copy_(wg.zeros((1, 2)))
        other.layer.bias.copy_(wg.ones((1,)))
    before = model.call(x).tolist()
    for _ in range(4):
        assert other.call(x).tolist() == [[1.0]] * 3
        assert other.method(x).tolist() == [[2.0]] * 3
    assert model.call(x).tolist() == before


def test_a_compiled_function_is_copied_and_pickled() -> None:
    assert pickle.loads(pickle.dumps(doubled)) is doubled
    assert copy.deepcopy(doubled) is doubled
    factor = wg.full((2,), 3.0)
    local = wg.compile(lambda x: x * factor)
    other = copy.copy(local)
    assert other is not local
    assert other(wg.ones((2,))).tolist() == [3.0, 3.0]
    model = Holder()
    bound = pickle.loads(pickle.dumps(model.method))
    assert bound(wg.ones((1, 2))).tolist() == model.method(wg.ones((1, 2))).tolist()
    assert bound.__self__ is not model


def used(compiled: bool, loss_of: Callable[[wg.Tensor, wg.Tensor], wg.Tensor]) -> list[Any]:
    w = nn.Parameter(wg.tensor([1.0, 2.0]))
    optimizer = optim.SGD([w], lr=0.1)

    def step(x: wg.Tensor) -> tuple[wg.Tensor, wg.Tensor, wg.Tensor]:
        optimizer.zero_grad()
        loss = loss_of(w, x)
        loss.backward()
        optimizer.step()
        return loss, loss.detach(), wg.argmax(w)

    call = wg.compile(step) if compiled else step
    seen = []
    for _ in range(5):
        results = call(wg.tensor([1.0, 3.0]))
        seen.append([(r.requires_grad, r.is_leaf, r.tolist()) for r in results])
        for target in (results[0], results[0] * 2.0 + 1.0):
            with pytest.raises(wg.GradError, match="already used by a backward pass") as caught:
                target.backward()
            seen[-1].append(str(caught.value))
    return seen


@pytest.mark.parametrize(
    "loss_of",
    [
        lambda w, x: (w * w * x).mean(),
        lambda w, x: F.mse_loss(w, x),
        lambda w, x: (w * x).max(),
        lambda w, x: wg.exp((w * x).sum()),
    ],
)
def test_a_returned_loss_requires_grad_and_is_used_up(loss_of: Callable[[wg.Tensor, wg.Tensor], wg.Tensor]) -> None:
    ordinary, compiled = used(False, loss_of), used(True, loss_of)
    assert [rows[:3] for rows in ordinary] == [rows[:3] for rows in compiled]


def test_a_running_sum_of_returned_losses() -> None:
    totals = []
    for compiled in (False, True):
        w = nn.Parameter(wg.tensor([1.0, 2.0]))

        def step(x: wg.Tensor, w: wg.Tensor = w) -> wg.Tensor:
            w.grad = None
            loss = (w * x).square().sum()
            loss.backward()
            return loss

        call = wg.compile(step) if compiled else step
        total: Any = 0.0
        for i in range(6):
            total = total + call(wg.full((2,), float(i)))
        totals.append((total.item(), total.requires_grad))
    assert totals[0] == totals[1]


ORDERS: dict[str, Callable[[Any, Any, wg.Tensor], wg.Tensor]] = {}


def order(function: Callable[[Any, Any, wg.Tensor], wg.Tensor]) -> None:
    ORDERS[function.__name__] = function


@order
def cleared_first(w: Any, optimizer: Any, i: wg.Tensor) -> wg.Tensor:
    optimizer.zero_grad()
    loss = w[i].sum()
    loss.backward()
    optimizer.step()
    return loss


@order
def cleared_after_the_loss(w: Any, optimizer: Any, i: wg.Tensor) -> wg.Tensor:
    loss = w[i].sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


@order
def cleared_last(w: Any, optimizer: Any, i: wg.Tensor) -> wg.Tensor:
    loss = w[i].sum()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss


@order
def never_cleared(w: Any, optimizer: Any, i: wg.Tensor) -> wg.Tensor:
    loss = w[i].sum()
    loss.backward()
    optimizer.step()
    return loss


@order
def two_barriers(w: Any, optimizer: Any, i: wg.Tensor) -> wg.Tensor:
    optimizer.zero_grad()
    (w * w).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    loss = w[i].sum()
    loss.backward()
    optimizer.step()
    return loss


@order
def after_another_backward(w: Any, optimizer: Any, i: wg.Tensor) -> wg.Tensor:
    optimizer.zero_grad()
    (w * wg.rand((4, 2))).sum().backward()
    loss = w[i].sum()
    loss.backward()
    optimizer.step()
    return loss


@order
def seen_by_the_kernel(w: Any, optimizer: Any, i: wg.Tensor) -> wg.Tensor:
    optimizer.zero_grad()
    loss = (w[i + 0] * wg.rand((2,))).sum()
    loss.backward()
    optimizer.step()
    return loss


@order
def caught_by_the_step(w: Any, optimizer: Any, i: wg.Tensor) -> wg.Tensor:
    optimizer.zero_grad()
    try:
        loss = w[i].sum()
    except IndexError:
        loss = w.sum()
    loss.backward()
    optimizer.step()
    return loss


def gradient(w: wg.Tensor) -> Any:
    """The gradient as a list; the error that reading it raises."""
    try:
        return None if w.grad is None else w.grad.tolist()
    except IndexError as error:
        return type(error)


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("name", ORDERS)
def test_after_an_index_error(name: str, held: bool) -> None:
    """Gradients, random streams and the error itself are those of ordinary code."""
    trails = []
    for compiled in (False, True):
        wg.manual_seed(1)
        w = nn.Parameter(wg.ones((4, 2)))
        optimizer = optim.SGD([w], lr=0.1)

        def step(i: wg.Tensor, w: Any = w, optimizer: Any = optimizer) -> wg.Tensor:
            return ORDERS[name](w, optimizer, i)

        call = wg.compile(step) if compiled else step
        trail = []
        for _ in range(2):
            for _ in range(4):
                call(wg.tensor([0, 1]))
            kept = w.grad if held else None
            error = "no error"
            try:
                call(wg.tensor([0, 9]))
            except IndexError as raised:
                error = str(raised)
            trail.append((error, w.tolist(), gradient(w), wg.random.get_rng_state()))
            trail.append(None if kept is None else kept.tolist())
            assert (error == "no error") == (name == "caught_by_the_step")
        trails.append(trail)
    assert trails[0] == trails[1]


def test_errors_of_the_users_own_are_no_signatures() -> None:
    """However many calls end in one."""

    @wg.compile
    def step(x: wg.Tensor, fails: bool) -> wg.Tensor:
        if fails:
            raise ValueError("mine")
        return x * 2.0

    for _ in range(100):
        with pytest.raises(ValueError, match="mine"):
            step(wg.ones((2,)), True)
    for _ in range(4):
        assert step(wg.ones((2,)), False).tolist() == [2.0, 2.0]


def with_a_rate(change: Callable[[Any], None]) -> tuple[Any, Step, nn.Parameter]:
    w = nn.Parameter(wg.ones((2,)))
    optimizer = optim.SGD([w], lr=0.1)

    def step(lr: float) -> None:
        change(optimizer.param_groups[0])
        optimizer.zero_grad()
        w.sum().backward()
        optimizer.step()

    return optimizer, step, w


def change_item(group: Any) -> None:
    group["lr"] = 0.1


def change_update(group: Any) -> None:
    group.update(lr=0.2)


def change_union(group: Any) -> None:
    group |= {"momentum": 0.2}


@pytest.mark.parametrize("change", [change_item, change_update, change_union])
def test_a_setting_that_the_step_sets_is_refused(change: Callable[[Any], None]) -> None:
    """A rate that is a constant of the step too: a replay would not set it."""
    optimizer, step, w = with_a_rate(change)
    before = dict(optimizer.param_groups[0])
    for _ in range(2):
        with pytest.raises(wg.CompileError, match=r"changes the settings of an optimizer.*test_compile_ends.py:\d+\)$"):
            wg.compile(step)(0.5)
        assert dict(optimizer.param_groups[0]) == before
        assert w.tolist() == [1.0, 1.0]
    # Ordinary code may, and a copy of the optimizer is one like it.
    step(0.5)
    twin = copy.deepcopy(optimizer)
    twin.param_groups[0]["lr"] = 0.5
    assert optimizer.param_groups[0]["lr"] != 0.5
    assert pickle.loads(pickle.dumps(optimizer)).param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]


def test_a_step_that_another_thread_disturbs_is_traced_again() -> None:
    """The other thread computes what the step recorded, while it is traced."""
    calls: list[int] = []
    w = nn.Parameter(wg.zeros((8,)))
    optimizer = optim.SGD([w], lr=1.0)
    disturbs = [True]

    def read(value: wg.Tensor) -> None:
        value.tolist()

    @wg.compile
    def step(x: wg.Tensor) -> wg.Tensor:
        calls.append(1)
        optimizer.zero_grad()
        target = x * 2.0
        if disturbs[0]:
            thread = threading.Thread(target=read, args=(target,))
            thread.start()
            thread.join()
        loss = (w * target).sum()
        loss.backward()
        optimizer.step()
        return loss

    def run(times: int) -> None:
        for _ in range(times):
            step(wg.ones((8,)))

    run(3)
    assert w.tolist() == [-6.0] * 8
    assert "another thread computed" in str(step.explain().refused)
    disturbs[0] = False
    run(5)
    assert w.tolist() == [-16.0] * 8
    assert len(calls) == 5


def test_a_step_that_is_always_disturbed_is_called() -> None:
    calls: list[int] = []

    @wg.compile
    def step(x: wg.Tensor, scale: float) -> tuple[wg.Tensor, float]:
        calls.append(1)
        y = x * scale
        thread = threading.Thread(target=y.tolist)
        thread.start()
        thread.join()
        return y + 1.0, scale

    for i in range(40):
        result, scale = step(wg.ones((2,)), float(i))
        assert result.tolist() == [i + 1.0] * 2
        assert (type(scale), scale) == (float, float(i))
    assert len(calls) == 40


def test_a_step_over_what_another_thread_left_pending() -> None:
    calls: list[int] = []
    model = nn.Linear(2, 1)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    model.reset_parameters()

    @wg.compile
    def step(x: wg.Tensor) -> wg.Tensor:
        calls.append(1)
        optimizer.zero_grad()
        loss = model(x).square().sum()
        loss.backward()
        optimizer.step()
        return loss

    losses: list[float] = []
    # The parameters are drawn here, and never read before the other thread needs them.
    thread = threading.Thread(target=lambda: losses.extend(step(wg.ones((1, 2))).item() for _ in range(6)))
    thread.start()
    thread.join()
    assert sorted(losses, reverse=True) == losses
    assert len(losses) == 6
    assert len(calls) == 3


def test_other_threads_read_while_a_step_is_traced() -> None:
    w = nn.Parameter(wg.zeros((4096,)))
    optimizer = optim.SGD([w], lr=1.0)
    stop, errors = threading.Event(), []

    def reader() -> None:
        while not stop.is_set():
            values = set(w.detach().tolist())
            if len(values) != 1:
                errors.append(values)

    thread = threading.Thread(target=reader)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread.start()
    try:
        for i in range(60):

            @wg.compile
            def step() -> None:
                optimizer.zero_grad()
                (-w).sum().backward()
                optimizer.step()

            for _ in range(5):
                step()
            assert set(w.tolist()) == {5.0 * (i + 1)}
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert not errors
