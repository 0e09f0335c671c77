"""`.run`, which makes many steps in one call, and `.explain`."""

from __future__ import annotations

from typing import Any

import pytest

import wengert as wg
import wengert.nn.functional as F
from compiling import classifier, data, snapshot
from wengert import nn, optim


def run(stacked: bool) -> tuple[Any, ...]:
    """Nine steps, one by one or in one call."""
    xs = wg.stack([data(i)[0] for i in range(9)])
    ys = wg.stack([data(i)[1] for i in range(9)])
    wg.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.2), nn.Linear(8, 3))
    optimizer = optim.Adam(model.parameters(), lr=1e-2)

    @wg.compile
    def step(x: wg.Tensor, y: wg.Tensor, scale: float) -> tuple[wg.Tensor, list[wg.Tensor]]:
        optimizer.zero_grad()
        logits = model(x)
        loss = F.cross_entropy(logits, y) * scale
        loss.backward()
        optimizer.step()
        return loss, [logits]

    if stacked:
        loss, [logits] = step.run(xs, ys, 0.5)
        return loss.tolist(), logits.tolist(), snapshot(model)
    results = [step(xs[i], ys[i], 0.5) for i in range(9)]
    return [r[0].tolist() for r in results], [r[1][0].tolist() for r in results], snapshot(model)


def test_run() -> None:
    assert run(False) == run(True)


def test_run_says_what_does_not_fit() -> None:
    compiled = wg.compile(lambda x, y: x + y)
    with pytest.raises(wg.ShapeError, match="run: the arguments hold 3 and 4 steps"):
        compiled.run(wg.ones((3, 2)), wg.ones((4, 2)))
    with pytest.raises(wg.ShapeError, match="0-d"):
        compiled.run(wg.ones(()), 1)
    with pytest.raises(ValueError, match="no tensor argument"):
        compiled.run(1.0, 2.0)


def test_explain() -> None:
    model = classifier()
    optimizer = optim.Adam(model.parameters(), lr=1e-2)

    @wg.compile
    def step(x: wg.Tensor, y: wg.Tensor) -> wg.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    assert "not called" in str(step.explain())
    for i in range(6):
        step(*data(i))
    before = snapshot(model)
    explanation = step.explain()
    assert snapshot(model) == before
    [ready] = [s for s in explanation.signatures if s["plans"]]
    [plan] = ready["plans"]
    ops = [op for kernel in plan["kernels"] for op in kernel["ops"]]
    assert ops.count("matmul") == 5
    products = sum(kernel["flops"] for kernel in plan["kernels"] if "matmul" in kernel["ops"])
    assert products == 2 * 8 * (6 * 16 * 2 + 16 * 3 * 3)
    assert all(kernel["bytes"] > 0 and kernel["nanoseconds"] >= 0 for kernel in plan["kernels"])
    assert any(kernel["commits"] for kernel in plan["kernels"])
    assert len(ready["states"]) == 12
    assert ready["in_place"] == 12
    assert ready["gradients"] == 4
    assert ready["numbers"]["settings"] >= 5
    assert explanation.refused is None
    assert "plan 0" in str(explanation)
    assert "matmul" in repr(explanation)


def test_explain_names_the_kernels_that_threads_share() -> None:
    model = nn.Sequential(*[layer for _ in range(12) for layer in (nn.Linear(64, 64), nn.Tanh())])
    optimizer = optim.SGD(model.parameters(), lr=1e-3)

    @wg.compile
    def step(x: wg.Tensor) -> wg.Tensor:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(3):
        step(wg.ones((64, 64)))
    explanation = step.explain()
    [ready] = [s for s in explanation.signatures if s["plans"]]
    kernels = [kernel for plan in ready["plans"] for kernel in plan["kernels"]]
    shared = [kernel for kernel in kernels if kernel["stage"] is not None]
    products = [kernel for kernel in shared if kernel["ops"] == ["matmul"]]
    assert len(products) > 30
    assert f"threads share {len(shared)} of them" in str(explanation)


def test_explain_counts_the_products_of_attention() -> None:
    model = nn.Linear(8, 3 * 8)

    @wg.compile
    def step(x: wg.Tensor) -> wg.Tensor:
        query, key, value = wg.split(model(x), 3, axis=-1)
        F.scaled_dot_product_attention(query, key, value).sum().backward()
        return model.weight.grad

    x = wg.ones((5, 7, 8))
    for _ in range(3):
        step(x)
    [ready] = [s for s in step.explain().signatures if s["plans"]]
    flops = {kernel["ops"][0]: kernel["flops"] for plan in ready["plans"] for kernel in plan["kernels"]}
    product = 2 * 5 * 7 * 7 * 8
    assert flops["scaled_dot_product_attention"] == 2 * product
    assert flops["attention_gradient"] == 5 * product
