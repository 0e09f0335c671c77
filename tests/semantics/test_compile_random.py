"""Steps put together at random from what training steps do: the same bits compiled and as ordinary code.

What happens between the calls is random too: held values, other rates, loaded weights, gradients of other passes.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

import wengert as wg
import wengert.nn.functional as F
from compiling import OPTIMIZERS, data, read, snapshot
from wengert import nn, optim

CALLS = 12


class World:
    """Two models with a common parameter, their optimizers, tensors from outside, and what is held of them."""

    def __init__(self, draw: random.Random) -> None:
        self.a = nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.3), nn.BatchNorm1d(5), nn.Linear(5, 3))
        self.b = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
        self.b[0].bias = self.a[0].bias
        self.table = nn.Embedding(7, 5)
        self.of_a = draw.choice(list(OPTIMIZERS.values()))(self.a.parameters())
        self.of_b = draw.choice(list(OPTIMIZERS.values()))(
            [self.b[0].weight, *self.b[2].parameters(), *self.table.parameters()]
        )
        self.schedule = optim.lr_scheduler.CosineAnnealingLR(self.of_a, 5)
        self.buffers = [wg.zeros((5,)), wg.ones((5,))]
        if draw.random() < 0.3:
            self.buffers[1] = self.buffers[0].detach()
        self.parameters = [self.a[0].weight, self.a[0].bias, self.a[3].weight, self.b[2].bias, self.table.weight]
        self.held: list[wg.Tensor] = []

    def seen(self) -> list[Any]:
        models = [snapshot(model) for model in (self.a, self.b, self.table)]
        rates = [group["lr"] for group in self.of_a.param_groups]
        return [*models, read(self.buffers), read(self.held), rates, wg.random.get_rng_state()]


Part = Callable[[World, wg.Tensor, wg.Tensor], Any]


def loss_of(number: int, w: World, x: wg.Tensor, y: wg.Tensor) -> wg.Tensor:
    match number:
        case 0:
            return F.cross_entropy(w.a(x), y)
        case 1:
            return F.cross_entropy(w.b(x), y)
        case 2:
            return w.table(y).square().sum() + (w.a[0].bias * w.buffers[0]).sum()
        case 3:
            return (w.a[3](wg.randn((4, 5))) * w.buffers[1].sum()).square().mean()
        case _:
            return F.cross_entropy(w.a[3](wg.checkpoint(lambda x: wg.tanh(w.a[1](w.a[0](x))))(x)), y)


def backward(number: int) -> Part:
    def part(w: World, x: wg.Tensor, y: wg.Tensor) -> wg.Tensor:
        loss = loss_of(number, w, x, y)
        loss.backward()
        return loss

    return part


def halve_a_gradient(w: World, x: wg.Tensor, y: wg.Tensor) -> wg.Tensor | None:
    grad = w.parameters[2].grad
    if grad is not None:
        grad *= 0.5
    return grad


def average(w: World, x: wg.Tensor, y: wg.Tensor) -> None:
    with wg.no_grad():
        w.buffers[0].copy_(w.buffers[0] * 0.9 + w.a[0].bias * 0.1)


def swap(w: World, x: wg.Tensor, y: wg.Tensor) -> None:
    first = w.buffers[0].clone()
    w.buffers[0].copy_(w.buffers[1])
    w.buffers[1].copy_(first)


def shrink(w: World, x: wg.Tensor, y: wg.Tensor) -> None:
    with wg.no_grad():
        p = w.parameters[3]
        p *= 0.99


def change_the_argument(w: World, x: wg.Tensor, y: wg.Tensor) -> wg.Tensor:
    x[0] = w.buffers[1].sum()
    return x


PARTS: list[Part] = [
    *(backward(number) for number in range(5)),
    *(backward(number) for number in range(2)),
    lambda w, x, y: w.of_a.zero_grad(),
    lambda w, x, y: w.of_b.zero_grad(set_to_none=False),
    lambda w, x, y: w.of_a.step(),
    lambda w, x, y: w.of_a.step(),
    lambda w, x, y: w.of_b.step(),
    lambda w, x, y: w.schedule.step(),
    lambda w, x, y: nn.utils.clip_grad_norm_(list(w.a.parameters()), 0.5),
    lambda w, x, y: setattr(w.parameters[1], "grad", None),
    lambda w, x, y: [w.parameters[0], w.parameters[1].detach(), w.buffers[0], w.buffers[1] + 0.0, x[1:3]],
    lambda w, x, y: w.parameters[4].grad,
    lambda w, x, y: w.b(x).detach(),
    lambda w, x, y: wg.rand((2,)),
    halve_a_gradient,
    average,
    swap,
    shrink,
    change_the_argument,
]

BETWEEN: list[Callable[[World, int], Any]] = [
    lambda w, i: w.of_a.zero_grad(),
    lambda w, i: w.of_b.step(),
    lambda w, i: w.held.extend(p.detach() for p in w.parameters),
    lambda w, i: w.held.extend(p.grad for p in w.parameters if p.grad is not None),
    lambda w, i: w.held.extend(w.buffers),
    lambda w, i: w.held.append(F.cross_entropy(w.b(data(i)[0]), data(i)[1])),
    lambda w, i: w.held.clear(),
    lambda w, i: w.of_a.param_groups[0].update(lr=0.01 * (i + 1)),
    lambda w, i: w.a.train(i % 2 == 0),
    lambda w, i: w.a.load_state_dict({key: value * 1.0 for key, value in w.a.state_dict().items()}),
    lambda w, i: w.of_a.load_state_dict(w.of_a.state_dict()),
    lambda w, i: wg.manual_seed(i),
    lambda w, i: loss_of(0, w, *data(i)).backward(),
    lambda w, i: w.parameters[2].requires_grad_(not w.parameters[2].requires_grad),
    lambda w, i: w.buffers[0].copy_(w.buffers[1]),
    lambda w, i: setattr(w.parameters[i % 5], "grad", None),
]


def run(seed: int, compiled: bool) -> list[Any]:
    draw = random.Random(seed)
    wg.manual_seed(seed)
    world = World(draw)
    parts = [draw.choice(PARTS) for _ in range(draw.randint(2, 8))]
    between = [[draw.choice(BETWEEN) for _ in range(draw.choice([0, 0, 0, 1, 2]))] for _ in range(CALLS)]
    batches = draw.choice([lambda i: data(i), lambda i: data(0), lambda i: data(i, 5 if i % 4 == 3 else 8)])
    is_watched = draw.random() < 0.5

    def step(x: wg.Tensor, y: wg.Tensor) -> list[Any]:
        return [part(world, x, y) for part in parts]

    call = wg.compile(step) if compiled else step
    trail: list[Any] = []
    for i in range(CALLS):
        for happens in between[i]:
            happens(world, i)
        results = call(*batches(i))
        trail.append([read(results), world.seen()] if is_watched else results)
    if compiled:
        assert any(signature["calls"] for signature in call.explain().signatures)
    return [read(trail), world.seen()]


@pytest.mark.parametrize("seed", range(60))
def test_random_steps(seed: int) -> None:
    assert repr(run(seed, False)) == repr(run(seed, True))
