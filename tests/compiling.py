"""A step run as ordinary code and compiled, compared bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import wengert as wg
from wengert import nn, optim

Step = Callable[..., Any]

OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "rmsprop": lambda p: optim.RMSprop(p, lr=1e-2, momentum=0.9, centered=True),
    "adam": lambda p: optim.Adam(p, lr=1e-2, amsgrad=True),
    "adamw": lambda p: optim.AdamW(p, lr=1e-2),
}


def snapshot(model: nn.Module) -> list[Any]:
    """Values and gradients of everything in a model."""
    tensors = [*model.parameters(), *model.buffers()]
    return [(t.tolist(), None if t.grad is None else t.grad.tolist()) for t in tensors]


def agree(
    build: Callable[[], tuple[Any, ...]],
    arguments: Callable[[int], tuple[Any, ...]],
    steps: int = 12,
) -> None:
    """Run a step as ordinary code and compiled, from the same start, and compare every bit after each call.

    What is built is a model and its step, perhaps also what happens before each call.
    """
    runs = []
    for compiled in (False, True):
        wg.manual_seed(3)
        model, step, *between = build()
        call = wg.compile(step) if compiled else step
        trail = []
        for i in range(steps):
            for happens in between:
                happens(i)
            result = call(*arguments(i))
            trail.append((read(result), snapshot(model)))
        trail.append((wg.random.get_rng_state(), None))
        if compiled:
            assert any(signature["calls"] for signature in call.explain().signatures)
        runs.append(trail)
    for i, (ordinary, replayed) in enumerate(zip(*runs, strict=True)):
        assert ordinary == replayed, i


def read(result: Any) -> Any:
    if isinstance(result, wg.Tensor):
        return result.tolist()
    if isinstance(result, tuple | list):
        return [read(item) for item in result]
    if isinstance(result, dict):
        return {key: read(item) for key, item in result.items()}
    return result


def data(i: int, batch: int = 8, features: int = 6) -> tuple[wg.Tensor, wg.Tensor]:
    x = wg.arange(batch * features).astype(wg.float32).reshape(batch, features)
    x = wg.sin(x * 0.37 + float(i))
    y = (wg.arange(batch) + i) % 3
    wg.eval(x, y)
    return x, y


def classifier() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
