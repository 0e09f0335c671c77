"""Compiled steps: one handle in two roles, threads at the same tensors, settings set within the step, `run`."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

import wengert as wg
from wengert import nn, optim


def python(code: str) -> None:
    """Run a program of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def test_two_steps_of_one_optimizer_in_a_step() -> None:
    """Each with its own step count."""

    def trail(compiled: bool) -> list[Any]:
        w = nn.Parameter(wg.ones((2,)))
        optimizer = optim.Adam([w], lr=0.1)

        def step(x: wg.Tensor) -> None:
            for _ in range(2):
                optimizer.zero_grad()
                (w * w * x).sum().backward()
                optimizer.step()

        call = wg.compile(step) if compiled else step
        rows = []
        for i in range(6):
            call(wg.tensor([1.0, 2.0 + i]))
            rows.append(w.tolist())
        return rows

    assert trail(True) == trail(False)


def changed(function: Any, x: wg.Tensor, y: wg.Tensor) -> list[float]:
    result: list[float] = function(x, y).tolist()
    return result


def test_one_tensor_as_two_arguments() -> None:
    """Not one in the trace, one now."""

    def function(x: wg.Tensor, y: wg.Tensor) -> wg.Tensor:
        x += 1.0
        return y * 2.0

    compiled = wg.compile(function)
    for i in range(3):
        a, b = wg.tensor([1.0] * 4), wg.tensor([10.0 + i] * 4)
        compiled(a, b)
    a = wg.tensor([3.0] * 4)
    assert changed(compiled, a, a) == [8.0] * 4


def test_an_argument_that_is_a_captured_tensor() -> None:
    w = wg.ones((4,))
    wg.eval(w)

    @wg.compile
    def step(x: wg.Tensor) -> wg.Tensor:
        w.copy_(w + 1.0)
        return x * 2.0

    for _ in range(3):
        step(wg.full((4,), 5.0))
    assert step(w).tolist() == [10.0] * 4  # w was 4, is 5


def test_an_argument_that_is_a_gradient() -> None:
    w = nn.Parameter(wg.ones((4,)))

    @wg.compile
    def step(g: wg.Tensor) -> wg.Tensor:
        w.grad *= 2.0
        return g * 3.0

    for i in range(5):
        w.grad = wg.full((4,), 1.0)
        result = step(w.grad if i > 3 else wg.full((4,), 5.0))
    assert result.tolist() == [6.0] * 4


@pytest.mark.parametrize("seed", [1, 2])
def test_the_gradient_from_before_is_returned(seed: int) -> None:
    """What comes back is the gradient at the end: a new one, or None."""
    w = nn.Parameter(wg.ones((2,)))

    @wg.compile
    def step(x: wg.Tensor) -> wg.Tensor | None:
        old = w.grad
        w.grad = None
        if seed == 2:
            (w * x).sum().backward()
        return old

    for i in range(5):
        w.grad = wg.full((2,), float(i))
        old = step(wg.ones((2,)))
        assert old is not None
        assert old.tolist() == [float(i)] * 2


def test_another_thread_rebinds_what_a_replay_writes() -> None:
    """A record that is claimed is held, whatever becomes of its handle."""
    python("""
import threading, wengert as wg
from wengert import nn, optim
model = nn.Linear(256, 256)
optimizer = optim.Adam(model.parameters(), lr=0.01)
def step(x):
    optimizer.zero_grad()
    loss = model(x).sum()
    loss.backward()
    optimizer.step()
    return loss
compiled = wg.compile(step)
x = wg.ones((64, 256))
for _ in range(4):
    compiled(x)
saved = {key: value.detach().clone() for key, value in model.state_dict().items()}
wg.eval(*saved.values())
stop = []
def write():
    while not stop:
        model.load_state_dict(saved)
thread = threading.Thread(target=write)
thread.start()
try:
    for _ in range(1500):
        compiled(x)
finally:
    stop.append(1)
    thread.join()
""")


def test_a_state_dict_is_read_while_another_thread_steps() -> None:
    """In ordinary code: whoever reads the state must not keep the interpreter while it waits for the step."""
    python("""
import faulthandler, threading, wengert as wg
from wengert import nn, optim
faulthandler.dump_traceback_later(30, exit=True)
model = nn.Linear(256, 256)
optimizer = optim.Adam(model.parameters(), lr=0.01)
x = wg.ones((64, 256))
stop = []
def read():
    while not stop:
        optimizer.state_dict()
thread = threading.Thread(target=read)
thread.start()
for _ in range(300):
    optimizer.zero_grad()
    model(x).sum().backward()
    optimizer.step()
stop.append(1)
thread.join()
""")


def test_two_arguments_that_were_one_tensor() -> None:
    """One in the trace, two handles of one value now: the second keeps its own."""

    def function(x: wg.Tensor, y: wg.Tensor) -> wg.Tensor:
        x += 1.0
        return y * 2.0

    compiled = wg.compile(function)
    for _ in range(3):
        a = wg.tensor([3.0] * 4)
        assert changed(compiled, a, a) == [8.0] * 4
    a = wg.tensor([3.0] * 4)
    assert changed(compiled, a, a.detach()) == [6.0] * 4


class WarmUp(optim.SGD):
    """Sets its own rate."""

    count = 0

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        self.count += 1
        self.param_groups[0]["lr"] = 1.0 / self.count
        return super().step(closure)


class Counted(optim.SGD):
    """Makes its rate from a count of its own."""

    count = 0

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        self.count += 1
        return super().step(closure)

    def numbers(self, group: Any) -> tuple[float, ...]:
        _, *others = super().numbers(group)
        return (1.0 / max(self.count, 1), *others)


def test_a_rate_from_a_count_of_the_optimizers_own() -> None:
    w = nn.Parameter(wg.ones((2,)))
    optimizer = Counted([w], lr=0.1)

    @wg.compile
    def step() -> None:
        optimizer.zero_grad()
        w.sum().backward()
        optimizer.step()

    step()
    with pytest.raises(wg.CompileError, match=r"changes the settings of Counted, such as lr"):
        step()


@pytest.mark.parametrize("where", ["before", "after", "inside"])
def test_a_rate_that_the_step_sets_is_refused(where: str) -> None:
    w = nn.Parameter(wg.ones((2,)))
    optimizer = (WarmUp if where == "inside" else optim.SGD)([w], lr=0.1)
    count = [0]

    @wg.compile
    def step() -> None:
        count[0] += 1
        if where == "before":
            optimizer.param_groups[0]["lr"] = 1.0 / count[0]
        optimizer.zero_grad()
        w.sum().backward()
        optimizer.step()
        if where == "after":
            optimizer.param_groups[0]["lr"] *= 0.5

    for _ in range(2):
        with pytest.raises(wg.CompileError, match=r"changes the settings of .*lr"):
            step()
        assert (w.tolist(), optimizer.param_groups[0]["lr"]) == ([1.0, 1.0], 0.1)


def test_a_rate_that_is_set_between_the_steps() -> None:
    def trail(compiled: bool) -> list[Any]:
        w = nn.Parameter(wg.ones((2,)))
        optimizer = optim.SGD([w], lr=0.1)

        def step() -> None:
            optimizer.zero_grad()
            w.sum().backward()
            optimizer.step()

        call = wg.compile(step) if compiled else step
        rows = []
        for i in range(6):
            optimizer.param_groups[0]["lr"] = 1.0 / (i + 1)
            call()
            rows.append(w.tolist())
        return rows

    assert trail(True) == trail(False)


def test_another_thread_computes_a_pending_value() -> None:
    """Its plan is in no trace: the value is no data of the host."""
    w = nn.Parameter(wg.ones((4,)))

    @wg.compile
    def step(x: wg.Tensor) -> wg.Tensor:
        w.grad = None
        (w * x).sum().backward()
        thread = threading.Thread(target=lambda: w.grad.numpy())
        thread.start()
        thread.join()
        return w.grad * 2.0

    for i in range(4):
        assert step(wg.full((4,), float(i))).tolist() == [2.0 * i] * 4
    assert "another thread" in str(step.explain().refused)


def test_run_under_grad() -> None:
    """The function is simply called, on recorded parts of the stack."""
    compiled = wg.compile(lambda x: x * 2.0)
    assert wg.grad(lambda x: compiled.run(x).sum())(wg.ones((3, 2))).tolist() == [[2.0, 2.0]] * 3


def test_run_with_history() -> None:
    """Refused as in a call."""
    w = nn.Parameter(wg.ones((3, 2)))
    compiled = wg.compile(lambda x: x * 2.0)
    with pytest.raises(wg.CompileError, match="history"):
        compiled.run(w * 2.0)


def test_run_inside_another_compiled_step() -> None:
    inner = wg.compile(lambda x: x * 2.0)
    outer = wg.compile(lambda x: inner.run(x) + 1.0)
    for i in range(4):
        assert outer(wg.full((3, 2), float(i))).tolist() == [[2.0 * i + 1.0] * 2] * 3
