"""Counting what the engine does while a test runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from wengert import _core


class Difference:
    """How far each counter moved inside `counting()`."""

    def __init__(self) -> None:
        self.before = _core.counters()

    def __getitem__(self, name: str) -> int:
        return _core.counters()[name] - self.before[name]


@contextmanager
def counting() -> Iterator[Difference]:
    yield Difference()


def pending() -> int:
    """Nodes that this thread recorded and nothing has computed yet."""
    return _core.counters()["pending"]
