"""Training gives the same bits on any number of threads, run after run, ordinary and compiled."""

from __future__ import annotations

import pytest

from thread_bits import CASES, THREADS, digest


@pytest.mark.parametrize("case", CASES)
def test_parameters_do_not_depend_on_threads(case: str) -> None:
    first = digest(case, steps=12, threads=1, compiled=False)
    for threads in THREADS:
        for compiled in (False, True):
            assert digest(case, steps=12, threads=threads, compiled=compiled) == first, (threads, compiled)


def test_the_hash_sees_the_bits() -> None:
    assert digest("tabular", steps=12, threads=1, compiled=False) != digest(
        "tabular", steps=13, threads=1, compiled=False
    )
