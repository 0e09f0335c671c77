"""A parameter or buffer of a module that is replaced by another tensor between the calls of a compiled step."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import wengert as wg
from wengert import nn


class Scale(nn.Module):
    t: wg.Tensor | None
    p: wg.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("t", wg.ones((2,)))
        self.p = nn.Parameter(wg.ones((2,)))

    def forward(self, x: wg.Tensor) -> wg.Tensor:
        return x * self.p if self.t is None else x * self.p + self.t


def assign_parameter(m: Scale) -> None:
    m.p = nn.Parameter(wg.full((2,), 5.0))


def register_parameter(m: Scale) -> None:
    m.register_parameter("p", nn.Parameter(wg.full((2,), 5.0)))


def assign_buffer(m: Scale) -> None:
    m.t = wg.full((2,), 5.0)


def register_buffer(m: Scale) -> None:
    m.register_buffer("t", wg.full((2,), 5.0), persistent=False)


def parameter_for_buffer(m: Scale) -> None:
    m.t = nn.Parameter(wg.full((2,), 5.0))


def buffer_for_parameter(m: Scale) -> None:
    del m.p
    m.register_buffer("p", wg.full((2,), 5.0))


def plain_for_buffer(m: Scale) -> None:
    del m.t
    m.t = wg.full((2,), 5.0)


def take_away(m: Scale) -> None:
    m.t = None


CHANGES = [
    assign_parameter,
    register_parameter,
    assign_buffer,
    register_buffer,
    parameter_for_buffer,
    buffer_for_parameter,
    plain_for_buffer,
    take_away,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("calls", [1, 2, 4])
def test_the_new_tensor_is_used(change: Callable[[Scale], None], calls: int) -> None:
    m, x = Scale(), wg.full((2,), 3.0)

    def function(x: wg.Tensor) -> wg.Tensor:
        return m(x).detach()

    compiled = wg.compile(function)
    for _ in range(calls):
        assert compiled(x).tolist() == [4.0, 4.0]
    change(m)
    for _ in range(4):
        assert compiled(x).tolist() == function(x).tolist() != [4.0, 4.0]
    assert [signature["calls"] for signature in compiled.explain().signatures] == [2]


def test_there_and_back() -> None:
    m, x = Scale(), wg.ones((2,))
    tensors = [wg.full((2,), 1.0), wg.full((2,), 2.0)]
    compiled = wg.compile(lambda x: m(x).detach())
    for i in range(5):
        m.t = tensors[i % 2]
        for _ in range(4):
            assert compiled(x).tolist() == [2.0 + i % 2] * 2
    assert [signature["calls"] for signature in compiled.explain().signatures] == [2]


def test_one_of_two_signatures() -> None:
    m, other = Scale(), Scale()
    compiled = wg.compile(lambda x, which: (m if which else other)(x).detach())
    x = wg.ones((2,))
    for _ in range(4):
        for which in (True, False):
            compiled(x, which)
    m.t = wg.zeros((2,))
    for _ in range(4):
        assert compiled(x, True).tolist() == [1.0, 1.0]
        assert compiled(x, False).tolist() == [2.0, 2.0]
    assert sorted(signature["calls"] for signature in compiled.explain().signatures) == [2, 6]


def test_before_each_call() -> None:
    """Then it is traced each time, and is no new signature."""
    m, x = Scale(), wg.ones((2,))
    compiled = wg.compile(lambda x: m(x).detach())
    for i in range(100):
        m.t = wg.full((2,), float(i))
        assert compiled(x).tolist() == [i + 1.0] * 2


def test_an_argument_that_is_replaced_after_each_call() -> None:
    m, x = Scale(), wg.ones((2,))
    m.t = wg.zeros((2,))
    compiled = wg.compile(lambda x, t: x + t)
    for i in range(10):
        m.t = compiled(x, m.t)
        assert m.t.tolist() == [i + 1.0] * 2
    assert [signature["calls"] for signature in compiled.explain().signatures] == [8]


def test_other_modules_change_nothing() -> None:
    m, x = Scale(), wg.ones((2,))
    traced = []

    def function(x: wg.Tensor) -> wg.Tensor:
        traced.append(x)
        return m(x).detach()

    compiled = wg.compile(function)
    for _ in range(20):
        other = Scale()
        assign_parameter(other)
        take_away(other)
        m.t = m.t  # The same tensor.
        assert m.t is not None
        m.t += 0.0
        assert compiled(x).tolist() == [2.0, 2.0]
    assert len(traced) == 2
