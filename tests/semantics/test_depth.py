"""Graphs of any depth on a small stack: nothing recurses over nodes."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

import wengert as wg

STACK = 512 << 10


def on_a_small_stack(program: Callable[[], object]) -> object:
    """Run in a thread of 512 KiB and hand back its result or error."""
    outcome: list[object] = []

    def body() -> None:
        try:
            outcome.append(program())
        except BaseException as error:
            outcome.append(error)

    before = threading.stack_size(STACK)
    try:
        thread = threading.Thread(target=body)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def chain(length: int, start: wg.Tensor) -> wg.Tensor:
    for _ in range(length):
        start = start + 1.0
    return start


def test_recording_and_dropping_a_million() -> None:
    """Under a transform nothing is evaluated on the way, so that the chain really is that long."""

    def program() -> None:
        def f(x: wg.Tensor) -> wg.Tensor:
            chain(1_000_000, x)
            return x

        wg.vmap(f)(wg.zeros((2,)))

    on_a_small_stack(program)


def test_running_a_long_chain() -> None:
    assert on_a_small_stack(lambda: chain(100_000, wg.tensor(0.0)).item()) == 100_000


def test_differentiating_a_long_chain() -> None:
    def program() -> float:
        x = wg.tensor(0.5, dtype=wg.float64).requires_grad_()
        y = x
        for _ in range(100_000):
            y = wg.sin(y)
        y.backward()
        return float(x.grad.item())

    gradient = on_a_small_stack(program)
    assert isinstance(gradient, float)
    assert 0 < gradient < 1e-3


def test_transforming_a_long_chain() -> None:
    def program() -> float:
        def f(x: wg.Tensor) -> wg.Tensor:
            for _ in range(20_000):
                x = x * 0.9999
            return x

        return float(wg.grad(f)(wg.tensor(1.0, dtype=wg.float64)).item())

    assert on_a_small_stack(program) == pytest.approx(0.9999**20_000, rel=1e-9)


def test_history_kept_long() -> None:
    """A recurrence without reads: history survives the evaluations that bound it."""
    x = wg.tensor(1.0, dtype=wg.float64).requires_grad_()
    state = wg.tensor(0.0, dtype=wg.float64)
    for _ in range(20_000):
        state = 0.5 * state + x
    state.backward()
    assert x.grad.item() == pytest.approx(2.0)
