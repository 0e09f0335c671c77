"""wg.debug.verify: what a step is proved on. The proofs themselves are tested beside the executor."""

from __future__ import annotations

import pytest

import wengert as wg


def test_what_a_step_leaves_pending_is_checked() -> None:
    w = wg.tensor([1.0, 2.0], requires_grad=True)
    found = wg.debug.verify(lambda: wg.exp(w * w).sum().backward(), devices=["cpu"])
    assert "exp" in {entry.op for entry in found.checked}
    assert w.grad is not None


def test_a_step_that_computes_nothing_is_refused() -> None:
    step = wg.compile(lambda x: (x * x).sum())
    x = wg.ones((3,))
    for _ in range(4):
        step(x)
    with pytest.raises(ValueError, match="the step computed nothing"):
        wg.debug.verify(lambda: step(x), devices=["cpu"])
