"""Random programs give NumPy's values, and gradients that differences confirm."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings

import wengert as wg
from programs import PROGRAM, SHAPE, Step, leaves, take_step


@settings(max_examples=200, deadline=None)
@given(PROGRAM, SHAPE)
def test_values(program: list[Step], shape: tuple[int, int]) -> None:
    exact = list(leaves(shape, "float64"))
    ours = [wg.tensor(a) for a in exact]
    with np.errstate(all="ignore"):
        for step in program:
            exact.append(take_step(step, exact, 1))
            ours.append(take_step(step, ours, 0))
    # Numbers that grew out of range say nothing about rounding.
    assume(all(np.isfinite(a).all() and np.abs(a).max(initial=0) < 1e12 for a in exact))
    wg.eval(*ours)
    for mine, theirs in zip(ours, exact, strict=True):
        scale = max(1.0, float(np.abs(theirs).max(initial=0)))
        np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-9, atol=1e-9 * scale)


@settings(max_examples=80, deadline=None)
@given(PROGRAM, SHAPE)
def test_forward_and_reverse_mode_are_adjoint(program: list[Step], shape: tuple[int, int]) -> None:
    def run(x: wg.Tensor, y: wg.Tensor) -> wg.Tensor:
        values = [x, y]
        for step in program:
            values.append(take_step(step, values, 0))
        return values[-1]

    primals = [wg.tensor(a) for a in leaves(shape, "float64")]
    tangents = [wg.tensor(np.random.default_rng(i + 1).normal(size=shape)) for i in range(2)]
    value, along = wg.jvp(run, primals, tangents)
    assume(np.isfinite(along.numpy()).all() and np.abs(along.numpy()).max(initial=0) < 1e9)
    cotangent = wg.tensor(np.random.default_rng(3).normal(size=value.shape))
    _, pullback = wg.vjp(run, *primals)
    forward = along.numpy() * cotangent.numpy()
    reverse = [g.numpy() * t.numpy() for g, t in zip(pullback(cotangent), tangents, strict=True)]
    size = np.abs(forward).sum() + sum(np.abs(r).sum() for r in reverse)
    assert abs(forward.sum() - sum(r.sum() for r in reverse)) <= 1e-11 * max(size, 1.0)
