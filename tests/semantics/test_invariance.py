"""The bits of a result depend on its op, attributes, shapes and dtypes: not on cuts, fusion, strides or threads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wengert as wg
from programs import PROGRAM, SHAPE, Step, leaves, take_step
from wengert import nn, optim


def run(program: list[Step], shape: tuple[int, int], *, cuts: list[int], gradients: bool = True) -> list[bytes]:
    """Run a program of small steps on two leaves; at each cut one of the values so far is computed."""
    variables = [wg.tensor(a).requires_grad_(gradients) for a in leaves(shape)]
    values = list(variables)
    for position, step in enumerate(program):
        values.append(take_step(step, values, 0))
        if position in cuts:
            wg.eval(values[step[2] % len(values)])
    total = values[-1].mean()
    results = [*values, total]
    if gradients and total.requires_grad:
        total.backward()
        results += [variable.grad for variable in variables if variable.grad is not None]
    if -1 in cuts:
        results = results[::-1]
        out = [value.numpy().tobytes() for value in results][::-1]
    else:
        wg.eval(*results)
        out = [value.numpy().tobytes() for value in results]
    return out


@settings(max_examples=150, deadline=None)
@given(PROGRAM, SHAPE, st.lists(st.integers(-1, 11), max_size=5))
def test_cuts_do_not_change_bits(program: list[Step], shape: tuple[int, int], cuts: list[int]) -> None:
    assert run(program, shape, cuts=cuts) == run(program, shape, cuts=[])


@settings(max_examples=60, deadline=None)
@given(PROGRAM, SHAPE)
def test_eager_gives_the_same_bits(program: list[Step], shape: tuple[int, int]) -> None:
    lazy = run(program, shape, cuts=[])
    with wg.eager():
        assert run(program, shape, cuts=[]) == lazy


@settings(max_examples=40, deadline=None)
@given(PROGRAM, SHAPE)
def test_forward_values_do_not_depend_on_gradients(program: list[Step], shape: tuple[int, int]) -> None:
    count = len(program) + 3
    assert run(program, shape, cuts=[])[:count] == run(program, shape, cuts=[], gradients=False)[:count]


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_threads_do_not_change_bits(threads: int) -> None:
    rng = np.random.default_rng(3)
    x = wg.tensor(rng.normal(size=(300, 257)).astype("float32"))
    w = wg.tensor(rng.normal(size=(257, 301)).astype("float32"))
    long = wg.tensor(rng.normal(size=700_000).astype("float32"))

    def work() -> list[bytes]:
        product = wg.tanh(x @ w)
        results = [product, product.sum(axis=0), product.mean(), long.sum(), wg.exp(long), wg.softmax(product)]
        wg.eval(*results)
        return [r.numpy().tobytes() for r in results]

    before = wg.get_num_threads()
    try:
        wg.set_num_threads(1)
        alone = work()
        wg.set_num_threads(threads)
        assert work() == alone
    finally:
        wg.set_num_threads(before)


def test_strides_do_not_change_bits() -> None:
    a = np.random.default_rng(4).normal(size=(70, 300)).astype("float32")
    straight, turned = wg.tensor(a), wg.tensor(np.ascontiguousarray(a.T)).T
    for f in (lambda x: x.sum(), lambda x: x.sum(axis=0), lambda x: x.sum(axis=1), lambda x: wg.softmax(x, axis=0)):
        assert f(straight).numpy().tobytes() == f(turned).numpy().tobytes()
    b = wg.ones((300, 20)) * 0.1
    assert (straight @ b).numpy().tobytes() == (turned @ b).numpy().tobytes()


def test_size_one_axes_do_not_change_bits() -> None:
    a = np.random.default_rng(5).normal(size=5000).astype("float32")
    flat = wg.tensor(a)
    assert flat.sum().item() == wg.tensor(a.reshape(1, 5000, 1)).sum().item()
    assert flat.sum().item() == wg.tensor(a.reshape(50, 100)).sum().item()


def test_training_is_repeatable() -> None:
    def train() -> list[bytes]:
        wg.manual_seed(7)
        model = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
        optimizer = optim.Adam(model.parameters(), lr=1e-2)
        x, y = wg.randn((20, 5)), wg.randint(0, 3, (20,))
        for _ in range(5):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        return [p.detach().numpy().tobytes() for p in model.parameters()]

    assert train() == train()
