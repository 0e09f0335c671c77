"""`wg.compile` on every kind of training step: the same bits as ordinary code."""

from __future__ import annotations

from typing import Any

import pytest

import wengert as wg
import wengert.nn.functional as F
from compiling import OPTIMIZERS, Step, agree, classifier, data, read, snapshot
from wengert import nn, optim


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer(name: str) -> None:
    def build() -> tuple[nn.Module, Step]:
        model = classifier()
        optimizer = OPTIMIZERS[name](model.parameters())

        def step(x: wg.Tensor, y: wg.Tensor) -> wg.Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return model, step

    agree(build, data)


def test_a_thousand_steps_of_adam() -> None:
    def build() -> tuple[nn.Module, Step]:
        model = classifier()
        optimizer = optim.Adam(model.parameters(), lr=1e-2)

        def step(x: wg.Tensor, y: wg.Tensor) -> wg.Tensor:
            model.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return model, step

    batches = [data(i) for i in range(7)]
    agree(build, lambda i: batches[i % 7], steps=1000)


def interleaved(compiled: bool) -> tuple[Any, Any]:
    """Steps of both kinds in turn, with a state dict loaded between."""
    wg.manual_seed(0)
    model = classifier()
    optimizer = optim.Adam(model.parameters(), lr=1e-2)

    def step(x: wg.Tensor, y: wg.Tensor) -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    call = wg.compile(step) if compiled else step
    for i in range(6):
        call(*data(i))
    for i in range(3):
        step(*data(i))
    for i in range(3):
        call(*data(i))
    optimizer.load_state_dict(optimizer.state_dict())
    for i in range(3):
        call(*data(i))
    return read({key: dict(entry) for key, entry in optimizer.state_dict()["state"].items()}), snapshot(model)


def test_optimizer_states_and_counts_go_on() -> None:
    """What a compiled step leaves, ordinary code takes up, and the other way round."""
    ordinary, compiled = interleaved(False), interleaved(True)
    assert ordinary == compiled
    assert compiled[0][0]["step"] == 15


def test_dropout_and_batch_norm_in_training_and_evaluation() -> None:
    def build() -> tuple[nn.Module, Step]:
        model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
        optimizer = optim.AdamW(model.parameters(), lr=1e-2)

        def train(x: wg.Tensor, y: wg.Tensor) -> wg.Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        def step(x: wg.Tensor, y: wg.Tensor, training: bool) -> wg.Tensor:
            if training:
                return train(x, y)
            with wg.no_grad():
                return wg.argmax(model(x), axis=1)

        return model, step

    def arguments(i: int) -> tuple[Any, ...]:
        return (*data(i), i % 4 != 3)

    agree(build, arguments, steps=24)


def test_accumulation_inside_and_outside() -> None:
    def inside() -> tuple[nn.Module, Step]:
        model = classifier()
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def step(xs: list[wg.Tensor], ys: list[wg.Tensor]) -> wg.Tensor:
            optimizer.zero_grad()
            total = wg.zeros(())
            for x, y in zip(xs, ys, strict=True):
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                total = total + loss.detach()
            optimizer.step()
            return total

        return model, step

    def outside() -> tuple[nn.Module, Step]:
        model = classifier()
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def step(x: wg.Tensor, y: wg.Tensor, last: bool) -> wg.Tensor:
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            if last:
                optimizer.step()
                optimizer.zero_grad()
            return loss

        return model, step

    agree(inside, lambda i: ([data(i)[0], data(i + 1)[0]], [data(i)[1], data(i + 1)[1]]))
    agree(outside, lambda i: (*data(i), i % 3 == 2), steps=30)


def test_clipping() -> None:
    def build() -> tuple[nn.Module, Step]:
        model = classifier()
        optimizer = optim.Adam(model.parameters(), lr=1e-2)

        def step(x: wg.Tensor, y: wg.Tensor) -> tuple[wg.Tensor, wg.Tensor]:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            nn.utils.clip_grad_value_(model.parameters(), 0.05)
            optimizer.step()
            return loss, norm

        return model, step

    agree(build, data)


def test_schedulers_inside() -> None:
    def build() -> tuple[nn.Module, Step]:
        model = classifier()
        optimizer = optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
        schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
        chained = optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.7)

        def step(x: wg.Tensor, y: wg.Tensor) -> wg.Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            schedule.step()
            chained.step()
            return loss

        return model, step

    agree(build, data, steps=16)


def scheduled(compiled: bool) -> list[Any]:
    """Steps whose rate is changed from outside, and then another setting, which changes what is recorded."""
    w = nn.Parameter(wg.ones((2,)))
    optimizer = optim.SGD([{"params": [w], "lr": 1.0}], lr=1.0)
    schedule = optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)

    def step() -> None:
        optimizer.zero_grad()
        w.sum().backward()
        optimizer.step()

    call = wg.compile(step) if compiled else step
    trail = []
    for _ in range(9):
        call()
        schedule.step()
        trail.append(w.tolist())
    optimizer.param_groups[0]["weight_decay"] = 0.5
    for _ in range(4):
        call()
        trail.append(w.tolist())
    return trail


def test_a_scheduler_outside_changes_the_rate() -> None:
    assert scheduled(False) == scheduled(True)


def test_two_optimizers() -> None:
    def build() -> tuple[nn.Module, Step]:
        generator = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 6))
        critic = nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
        g_optimizer = optim.Adam(generator.parameters(), lr=1e-2, betas=(0.5, 0.9))
        c_optimizer = optim.RMSprop(critic.parameters(), lr=1e-2)

        def step(real: wg.Tensor, _: wg.Tensor) -> dict[str, wg.Tensor]:
            noise = wg.randn((8, 2))
            fake = generator(noise)
            c_optimizer.zero_grad()
            c_loss = F.softplus(-critic(real)).mean() + F.softplus(critic(fake.detach())).mean()
            c_loss.backward()
            c_optimizer.step()
            g_optimizer.zero_grad()
            g_loss = F.softplus(-critic(fake)).mean()
            g_loss.backward()
            g_optimizer.step()
            return {"critic": c_loss, "generator": g_loss}

        return nn.ModuleList([generator, critic]), step

    agree(build, data, steps=15)


def test_an_optimizer_written_by_hand() -> None:
    def build() -> tuple[nn.Module, Step]:
        model = classifier()
        average = [p.detach().clone() for p in model.parameters()]
        wg.eval(*average)

        def step(x: wg.Tensor, y: wg.Tensor, rate: float) -> tuple[wg.Tensor, list[wg.Tensor]]:
            for p in model.parameters():
                p.grad = None
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            with wg.no_grad():
                for p, mean in zip(model.parameters(), average, strict=True):
                    assert p.grad is not None
                    p -= rate * p.grad
                    mean += 0.1 * (p - mean)
            return loss, average

        return model, step

    agree(build, lambda i: (*data(i), 0.1 / (i + 1)))


def test_copies_between_models() -> None:
    def build() -> tuple[nn.Module, Step]:
        online, target = classifier(), classifier()
        optimizer = optim.SGD(online.parameters(), lr=0.1)

        def step(x: wg.Tensor, y: wg.Tensor) -> wg.Tensor:
            optimizer.zero_grad()
            with wg.no_grad():
                wanted = wg.softmax(target(x), axis=1)
            loss = F.mse_loss(wg.softmax(online(x), axis=1), wanted)
            loss.backward()
            optimizer.step()
            for old, new in zip(target.parameters(), online.parameters(), strict=True):
                old.copy_(new)
            return loss

        return nn.ModuleList([online, target]), step

    agree(build, data)


def test_inference_and_backward_alone() -> None:
    def inference() -> tuple[nn.Module, Step]:
        model = classifier()

        @wg.no_grad()
        def step(x: wg.Tensor, y: wg.Tensor) -> tuple[wg.Tensor, wg.Tensor, int]:
            logits = model(x)
            return wg.argmax(logits, axis=1) == y, logits.max(axis=1), 7

        return model, step

    def backward() -> tuple[nn.Module, Step]:
        model = classifier()

        def step(x: wg.Tensor, y: wg.Tensor) -> wg.Tensor:
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            return loss

        return model, step

    agree(inference, data)
    agree(backward, data)


def test_gradients_filled_with_zeros_and_unused_parameters() -> None:
    def build() -> tuple[nn.Module, Step]:
        model = nn.ModuleList([classifier(), nn.Linear(2, 2)])
        optimizer = optim.Adam(model.parameters(), lr=1e-2)

        def step(x: wg.Tensor, y: wg.Tensor) -> wg.Tensor:
            optimizer.zero_grad(set_to_none=False)
            loss = F.cross_entropy(model[0](x), y)
            loss.backward()
            optimizer.step()
            return loss

        return model, step

    agree(build, data)


class Disturbed:
    """A step before which gradients are replaced, cleared or kept in turn."""

    def __init__(self, step: Step, model: nn.Module) -> None:
        self.step = step
        self.model = model
        self.calls = 0

    def __call__(self, *args: Any) -> Any:
        self.calls += 1
        for p in self.model.parameters():
            if not p.requires_grad:
                continue
            if self.calls % 4 == 1:
                p.grad = None
            elif self.calls % 4 == 2:
                p.grad = wg.full(p.shape, float(self.calls))
        return self.step(*args)


def test_gradients_change_between_calls() -> None:
    trails = []
    for compiled in (False, True):
        wg.manual_seed(3)
        model = classifier()

        def step(x: wg.Tensor, y: wg.Tensor, model: nn.Module = model) -> wg.Tensor:
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            return loss

        disturbed = Disturbed(wg.compile(step) if compiled else step, model)
        first = next(model.parameters())
        trail = []
        for i in range(24):
            first.requires_grad_(i % 12 < 8)
            trail.append((disturbed(*data(i)).tolist(), snapshot(model)))
        trails.append(trail)
    assert trails[0] == trails[1]


def test_tied_weights_and_a_gradient_penalty() -> None:
    def build() -> tuple[nn.Module, Step]:
        model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 1))
        model[2].weight = model[0].weight
        optimizer = optim.RMSprop(model.parameters(), lr=1e-2)

        def step(x: wg.Tensor, _: wg.Tensor) -> tuple[wg.Tensor, wg.Tensor]:
            optimizer.zero_grad()
            point = x.detach().requires_grad_()
            out = model(point).sum()
            [slope] = wg.autograd.grad(out, [point], create_graph=True)
            penalty = ((slope * slope).sum(axis=1) - 1.0).square().mean()
            (out + penalty).backward()
            optimizer.step()
            return out, penalty

        return model, step

    agree(build, data)


def test_two_steps_in_one_and_a_second_backward() -> None:
    def build() -> tuple[nn.Module, Step]:
        model = classifier().double()
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.5)

        def step(x: wg.Tensor, y: wg.Tensor) -> wg.Tensor:
            total = wg.zeros((), dtype=wg.float64)
            for _ in range(2):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x.astype(wg.float64)), y)
                loss.backward(retain_graph=True)
                (loss * 0.5).backward()
                optimizer.step()
                total = total + loss.detach()
            return total

        return model, step

    agree(build, data)


def test_a_state_that_is_carried() -> None:
    def build() -> tuple[nn.Module, Step]:
        cell = nn.Linear(12, 6)
        optimizer = optim.Adam(cell.parameters(), lr=1e-2)
        hidden = wg.zeros((8, 6))

        def step(x: wg.Tensor, _: wg.Tensor) -> tuple[wg.Tensor, wg.Tensor]:
            new = wg.tanh(cell(wg.concat([x, hidden], axis=1)))
            optimizer.zero_grad()
            loss = (new - x).square().mean()
            loss.backward()
            optimizer.step()
            hidden.copy_(new.detach())
            return loss, hidden

        return cell, step

    agree(build, data)


def shared(compiled: bool) -> tuple[list[Any], list[int]]:
    """Training and evaluation of one model, each of which sets the mode itself."""
    wg.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    traced = []

    def train(x: wg.Tensor, y: wg.Tensor) -> wg.Tensor:
        traced.append(0)
        model.train()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    @wg.no_grad()
    def evaluate(x: wg.Tensor) -> Any:
        traced.append(1)
        model.eval()
        return model(x)

    one, two = (wg.compile(train), wg.compile(evaluate)) if compiled else (train, evaluate)
    trail = []
    for i in range(40):
        x, y = data(i)
        trail.append((read(one(x, y)), model.training, read(two(x)), model.training, snapshot(model)))
    return trail, traced


def test_training_and_evaluation_share_a_model() -> None:
    ordinary, (replayed, traced) = shared(False)[0], shared(True)
    assert ordinary == replayed
    assert len(traced) == 5
