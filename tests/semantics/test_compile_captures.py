"""Compiled steps whose arguments are captured tensors as well, or stay the same tensor from call to call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import wengert as wg
from wengert import nn, optim

Step = Callable[..., Any]


def full(value: float) -> wg.Tensor:
    made = wg.full((2,), value)
    wg.eval(made)
    return made


@pytest.mark.parametrize("order", ["ccooco", "cocoocc", "ccccoocc", "occocco", "oocco"])
def test_a_captured_tensor_that_is_the_argument(order: str) -> None:
    """c: the captured tensor itself; o: another one, new at each call."""
    captured = full(3.0)

    def function(x: wg.Tensor) -> wg.Tensor:
        return x * 2.0 + captured

    compiled = wg.compile(function)
    for i, which in enumerate(order * 3):
        x = captured if which == "c" else full(float(i))
        assert compiled(x).tolist() == function(x).tolist(), i


def test_a_captured_tensor_that_the_step_changes() -> None:
    trails = []
    for compiled in (False, True):
        state = full(1.0)

        def step(x: wg.Tensor, state: wg.Tensor = state) -> wg.Tensor:
            state += 1.0
            return x * state

        call = wg.compile(step) if compiled else step
        trails.append([call(state if i % 5 < 3 else full(float(i))).tolist() for i in range(20)])
    assert trails[0] == trails[1]


def test_identity_of_a_captured_tensor() -> None:
    """What the function decides by identity is decided anew for another tensor."""
    captured = full(3.0)
    compiled = wg.compile(lambda x: x * 2.0 if x is captured else x + 1.0)
    for _ in range(3):
        assert compiled(captured).tolist() == [6.0, 6.0]
    for i in range(4):
        assert compiled(full(float(i))).tolist() == [i + 1.0] * 2


def test_an_argument_that_stays_for_a_while_is_traced_once_more() -> None:
    traced = []

    def function(x: wg.Tensor, context: wg.Tensor) -> wg.Tensor:
        traced.append(1)
        return x * context

    compiled = wg.compile(function)
    for epoch in range(5):
        context = full(float(epoch))
        for i in range(6):
            assert compiled(full(float(i)), context).tolist() == [float(i * epoch)] * 2
    assert len(traced) == 3
    assert len(compiled.explain().signatures) == 1


def test_a_tensor_that_is_gone_binds_nothing() -> None:
    compiled = wg.compile(lambda x: x * 2.0)
    x = full(1.0)
    for _ in range(3):
        compiled(x)
    del x
    for i in range(6):
        assert compiled(full(float(i))).tolist() == [2.0 * i] * 2


def test_one_part_of_a_tensor_that_was_split() -> None:
    """The other part is another result of the same operation, and no part of the step."""
    x = wg.arange(8).astype(wg.float32)
    given, other = wg.split(x, 2)
    captured, another = wg.split(x * 2.0, 2)
    wg.eval(given, other, captured, another)
    compiled = wg.compile(lambda t: t + captured)
    for _ in range(4):
        assert compiled(given).tolist() == [0.0, 3.0, 6.0, 9.0]
    assert compiled(other).tolist() == [4.0, 7.0, 10.0, 13.0]


def test_one_gradient_of_several() -> None:
    """The gradients of one backward pass are results of one operation."""
    a, b = nn.Parameter(wg.ones((2,))), nn.Parameter(wg.ones((2,)))

    @wg.compile
    def step() -> None:
        assert a.grad is not None
        with wg.no_grad():
            a.copy_(a - 0.25 * a.grad)

    for i in range(4):
        a.grad = b.grad = None
        (a * 2.0 + b).sum().backward()
        step()
        assert a.tolist() == [0.5 - 0.5 * i] * 2
    assert "replayed 2 times" in str(step.explain())


def test_one_batch_and_then_others() -> None:
    trails = []
    for compiled in (False, True):
        w = nn.Parameter(wg.ones((2,)))
        optimizer = optim.Adam([w], lr=0.1)
        first = full(0.5)

        def step(x: wg.Tensor, optimizer: Any = optimizer, w: Any = w, first: Any = first) -> wg.Tensor:
            optimizer.zero_grad()
            loss = ((w * x - first) ** 2).sum()
            loss.backward()
            optimizer.step()
            return loss

        call = wg.compile(step) if compiled else step
        batches = [first] * 4 + [full(float(i)) for i in range(6)] + [first] * 2
        trails.append([(call(x).item(), w.tolist()) for x in batches])
    assert trails[0] == trails[1]
