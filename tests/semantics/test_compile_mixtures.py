"""Training programs with more in them than one model and one optimizer: the same bits compiled and as ordinary code."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

import wengert as wg
import wengert.nn.functional as F
from compiling import Step, agree, classifier, data
from wengert import nn, optim

Built = tuple[nn.Module, Step, Callable[[int], None]]


def nothing(_: int) -> None:
    """Happens between the calls."""


def train(model: nn.Module, optimizer: optim.Optimizer, x: wg.Tensor, y: wg.Tensor) -> wg.Tensor:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss


def all_of(*models: nn.Module) -> nn.Module:
    return nn.ModuleList(models)


def adversaries() -> Built:
    """Two optimizers, noise, a detached input, and a loss that reaches both models."""
    maker = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 6))
    judge = nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
    makes, judges = optim.Adam(maker.parameters(), lr=0.02), optim.Adam(judge.parameters(), lr=0.02)

    def step(x: wg.Tensor, _: wg.Tensor) -> tuple[wg.Tensor, wg.Tensor]:
        made = maker(wg.randn((x.shape[0], 4)))
        judges.zero_grad()
        judged = F.softplus(-judge(x)).mean() + F.softplus(judge(made.detach())).mean()
        judged.backward()
        judges.step()
        makes.zero_grad()
        fooled = F.softplus(-judge(made)).mean()
        fooled.backward()
        makes.step()
        return judged, fooled

    return all_of(maker, judge), step, nothing


def only_the_trunk() -> Built:
    """The head keeps its values: the markers of its parameters are older than those of the trunk from then on."""
    model = classifier()
    optimizer = optim.SGD(model[0].parameters(), lr=0.1)

    def step(x: wg.Tensor, y: wg.Tensor) -> wg.Tensor:
        model[2].zero_grad()
        return train(model, optimizer, x, y)

    return model, step, nothing


def loaded_between_the_traces() -> Built:
    """A backward pass meets the loaded parameters last, whatever their place in the model."""
    model = classifier()
    optimizer = optim.Adam(model.parameters(), lr=0.01)

    def load(i: int) -> None:
        if i in (1, 5):
            model[0].load_state_dict({key: value * 0.5 for key, value in model[0].state_dict().items()})

    return model, lambda x, y: train(model, optimizer, x, y), load


def another_optimizer_outside() -> Built:
    """The step accumulates gradients that are used outside."""
    model = classifier()
    inside = optim.SGD(model[0].parameters(), lr=0.1, momentum=0.5)
    outside = optim.Adam(model[2].parameters(), lr=0.02)

    def step(x: wg.Tensor, y: wg.Tensor) -> wg.Tensor:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        inside.step()
        inside.zero_grad()
        return loss

    def use(i: int) -> None:
        if i % 3 == 1:
            outside.step()
            outside.zero_grad(set_to_none=i % 2 == 0)

    return model, step, use


def thawed() -> Built:
    """A layer that is frozen when the step is traced, and trained later."""
    model = classifier()
    model[0].requires_grad_(False)
    optimizer = optim.Adam(model.parameters(), lr=0.02)

    def thaw(i: int) -> None:
        if i in (4, 9):
            model[0].requires_grad_(True)
            model[0].weight.grad = wg.ones((16, 6))
        if i == 7:
            model[0].requires_grad_(False)

    return model, lambda x, y: train(model, optimizer, x, y), thaw


def asked_whether_it_is_trained() -> Built:
    """The step asks each parameter, and uses those alone that are variables."""
    model = classifier()
    model[2].requires_grad_(False)

    def step(x: wg.Tensor, y: wg.Tensor) -> wg.Tensor:
        for p in model.parameters():
            if p.requires_grad:
                p.grad = p.detach() * 2.0
        return model(x).detach().sum()

    def thaw(i: int) -> None:
        if i == 4:
            model[2].requires_grad_(True)

    return model, step, thaw


def ascent_before_descent() -> Built:
    """Parameters move twice in a step, once by hand, and the gradients of the first pass are used after the second."""
    model = classifier()
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    def step(x: wg.Tensor, y: wg.Tensor) -> wg.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        climbs = [p.grad * 0.05 for p in model.parameters() if p.grad is not None]
        with wg.no_grad():
            for p, climb in zip(model.parameters(), climbs, strict=True):
                p.copy_(p + climb)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        with wg.no_grad():
            for p, climb in zip(model.parameters(), climbs, strict=True):
                p.copy_(p - climb)
        optimizer.step()
        return loss

    return model, step, nothing


def averaged_and_pulled_back() -> Built:
    """Slow copies of the weights that the step changes now and then, and an average that it always changes."""
    model = classifier()
    slow, average = copy.deepcopy(model), copy.deepcopy(model)
    optimizer = optim.RMSprop(model.parameters(), lr=0.01)
    turn = wg.zeros((), dtype=wg.int64)

    def step(x: wg.Tensor, y: wg.Tensor) -> wg.Tensor:
        loss = train(model, optimizer, x, y)
        turn.copy_((turn + 1) % 3)
        with wg.no_grad():
            for p, s, a in zip(model.parameters(), slow.parameters(), average.parameters(), strict=True):
                s.copy_(wg.where(turn == 0, s + 0.5 * (p - s), s))
                p.copy_(wg.where(turn == 0, s, p))
                a *= 0.9
                a += p * 0.1
        return loss

    return all_of(model, slow, average), step, nothing


def scaled_loss() -> Built:
    """Gradients are replaced, and a scale follows from whether they are finite."""
    model = classifier()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    scale = wg.tensor(2.0**120)

    def step(x: wg.Tensor, y: wg.Tensor) -> tuple[wg.Tensor, wg.Tensor]:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        (loss * scale).backward()
        finite = wg.ones((), dtype=wg.bool)
        for p in model.parameters():
            assert p.grad is not None
            finite = wg.logical_and(finite, wg.isfinite(p.grad).all())
            p.grad = wg.where(wg.isfinite(p.grad), p.grad / scale, 0.0)
        optimizer.step()
        scale.copy_(wg.where(finite, scale * 2.0, scale * 0.25))
        return loss, scale.clone()

    return model, step, nothing


def replayed_experience() -> Built:
    """A store that the step fills in turn and draws from."""
    model = classifier()
    optimizer = optim.Adam(model.parameters(), lr=0.02)
    store, turn = wg.zeros((16, 6)), wg.zeros((), dtype=wg.int64)

    def step(x: wg.Tensor, y: wg.Tensor) -> tuple[wg.Tensor, wg.Tensor]:
        with wg.no_grad():
            store.copy_(wg.where((wg.arange(16) == turn).reshape(16, 1), x[0], store))
            turn.copy_((turn + 1) % 16)
        drawn = wg.randint(0, 16, (y.shape[0],))
        return train(model, optimizer, store[drawn], y), drawn

    return model, step, nothing


def reseeded() -> Built:
    model = nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.3), nn.BatchNorm1d(16), nn.Linear(16, 3))
    optimizer = optim.AdamW(model.parameters(), lr=0.01)

    def happens(i: int) -> None:
        if i % 3 == 0:
            wg.manual_seed(i)
        wg.rand((i % 3,))
        model.train(i % 4 != 3)

    return model, lambda x, y: train(model, optimizer, x, y), happens


MIXTURES: list[Callable[[], Built]] = [
    adversaries,
    only_the_trunk,
    loaded_between_the_traces,
    another_optimizer_outside,
    thawed,
    asked_whether_it_is_trained,
    ascent_before_descent,
    averaged_and_pulled_back,
    scaled_loss,
    replayed_experience,
    reseeded,
]


@pytest.mark.parametrize("batch", [lambda i: 8, lambda i: 5 if i % 4 == 3 else 8], ids=["equal", "last smaller"])
@pytest.mark.parametrize("build", MIXTURES, ids=lambda build: build.__name__)
def test_mixtures(build: Callable[[], Built], batch: Callable[[int], int]) -> None:
    agree(build, lambda i: data(i, batch(i)), steps=16)


def test_attention_and_two_embeddings() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.place = nn.Embedding(12, 8), nn.Embedding(5, 8)
            self.norm, self.scale, self.drop = nn.LayerNorm(8), nn.RMSNorm(8), nn.Dropout(0.1)
            self.parts, self.out = nn.Linear(8, 24), nn.Linear(8, 12, bias=False)
            self.out.weight = self.token.weight

        def forward(self, tokens: wg.Tensor) -> wg.Tensor:
            n, length = tokens.shape
            h = self.token(tokens) + self.place(wg.arange(length))
            heads = [
                part.reshape(n, length, 2, 4).permute_dims((0, 2, 1, 3))
                for part in wg.split(self.parts(self.norm(h)), 3, axis=2)
            ]
            mixed = F.scaled_dot_product_attention(*heads, is_causal=True).permute_dims((0, 2, 1, 3))
            return self.out(self.scale(h + self.drop(mixed.reshape(n, length, 8))))

    def build() -> tuple[nn.Module, Step]:
        model = Reader()
        optimizer = optim.AdamW(model.parameters(), lr=0.01)

        def step(tokens: wg.Tensor, next_tokens: wg.Tensor) -> tuple[wg.Tensor, wg.Tensor]:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(tokens).reshape(-1, 12), next_tokens.reshape(-1))
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            return loss, norm

        return model, step

    def text(i: int) -> tuple[wg.Tensor, wg.Tensor]:
        tokens = (wg.arange(10).reshape(2, 5) * (i + 1)) % 12
        return tokens, (tokens + 1) % 12

    agree(build, text)


def test_parts_of_a_batch_are_arguments() -> None:
    """Both halves of one split, in turn: each is one of several results of an operation."""

    def build() -> tuple[nn.Module, Step]:
        model = classifier()
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        return model, lambda x, y: train(model, optimizer, x, y)

    kept: list[Any] = []

    def half(i: int) -> tuple[wg.Tensor, wg.Tensor]:
        x, y = data(i // 2, 16)
        kept.append([wg.split(x, 2), wg.split(y, 2)])
        return tuple(parts[i % 2] for parts in kept[-1])

    agree(build, half)
