"""`wg.compile`: the same bits as ordinary code on every kind of step, and what is found anew at each call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import wengert as wg
import wengert.nn.functional as F
from wengert import nn, optim

Step = Callable[..., Any]


def snapshot(model: nn.Module) -> list[Any]:
    """Values and gradients of everything in a model."""
    tensors = [*model.parameters(), *model.buffers()]
    return [(t.tolist(), None if t.grad is None else t.grad.tolist()) for t in tensors]


def agree(
    build: Callable[[], tuple[nn.Module, Step]],
    arguments: Callable[[int], tuple[Any, ...]],
    steps: int = 12,
) -> None:
    """Run a step as ordinary code and compiled, from the same start, and compare every bit after each call."""
    runs = []
    for compiled in (False, True):
        wg.manual_seed(3)
        model, step = build()
        call = wg.compile(step) if compiled else step
        trail = []
        for i in range(steps):
            result = call(*arguments(i))
            trail.append((read(result), snapshot(model)))
        trail.append((wg.random.get_rng_state(), None))
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


OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "rmsprop": lambda p: optim.RMSprop(p, lr=1e-2, momentum=0.9, centered=True),
    "adam": lambda p: optim.Adam(p, lr=1e-2, amsgrad=True),
    "adamw": lambda p: optim.AdamW(p, lr=1e-2),
}


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


def test_modes_are_guards() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5))
    forward = wg.compile(lambda x: model(x).detach())
    x, _ = data(0)
    trained = [forward(x).tolist() for _ in range(4)]
    assert len({str(rows) for rows in trained}) == 4
    model.eval()
    evaluated = [forward(x).tolist() for _ in range(4)]
    assert all(rows == model(x).tolist() for rows in evaluated)
    model.train()
    assert forward(x).tolist() != evaluated[0]


def test_the_generator_goes_on() -> None:
    draws = []
    for compiled in (False, True):
        wg.manual_seed(5)

        def function(x):
            return x + wg.randn((3,)) * wg.rand((3,))

        call = wg.compile(function) if compiled else function
        trail = [call(wg.ones((3,))).tolist() for _ in range(6)]
        wg.manual_seed(9)
        trail += [call(wg.ones((3,))).tolist() for _ in range(2)]
        draws.append(trail)
    assert draws[0] == draws[1]


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


def test_transforms_inside() -> None:
    def loss(w: wg.Tensor, x: wg.Tensor) -> wg.Tensor:
        return (wg.tanh(x @ w) ** 2).sum()

    def step(w: wg.Tensor, x: wg.Tensor) -> tuple[wg.Tensor, wg.Tensor]:
        value, gradient = wg.value_and_grad(loss)(w, x)
        each = wg.vmap(wg.grad(loss), in_axes=(None, 0))(w, x)
        return w - 0.1 * gradient, value + each.sum()

    compiled = wg.compile(step)
    w, v = wg.ones((6, 2)), wg.ones((6, 2))
    for i in range(6):
        x, _ = data(i)
        w, value = step(w, x)
        v, replayed = compiled(v, x)
        assert (w.tolist(), value.tolist()) == (v.tolist(), replayed.tolist())


def test_under_a_transform_it_is_called() -> None:
    compiled = wg.compile(lambda x: (x * x).sum())
    for _ in range(4):
        assert wg.grad(compiled)(wg.tensor([1.0, 2.0])).tolist() == [2.0, 4.0]


def test_eager_mode_calls_the_function() -> None:
    calls = []
    compiled = wg.compile(lambda x: (calls.append(1), x + 1.0)[1])
    for _ in range(5):
        compiled(wg.ones((2,)))
    assert len(calls) == 2
    with wg.eager():
        compiled(wg.ones((2,)))
    assert len(calls) == 3


def test_inside_another_it_is_part_of_it() -> None:
    inner = wg.compile(lambda x: x * 2.0)
    outer = wg.compile(lambda x: inner(x) + 1.0)
    for i in range(5):
        assert outer(wg.full((2,), float(i))).tolist() == [2.0 * i + 1] * 2


def test_float_arguments_change() -> None:
    def function(x: wg.Tensor, lr: float, n: int) -> tuple[Any, ...]:
        return lr * x - n, x / lr, wg.maximum(x, lr), lr

    compiled = wg.compile(function)
    for i in range(6):
        x, lr = wg.tensor([1.0, 2.0]), 0.5 + i
        assert read(compiled(x, lr, 3)) == read(function(x, lr, 3))
    [signature] = compiled.explain().signatures
    assert signature["numbers"]["arguments"] == 3


def test_other_values_make_signatures() -> None:
    calls = []

    @wg.compile
    def scaled(x: wg.Tensor, n: int, *, name: str = "a", parts: tuple[Any, ...] = ()) -> wg.Tensor:
        """Scale."""
        calls.append(n)
        for part in parts:
            x = x + part
        return x * n if name == "a" else x

    x = wg.ones((2,))
    for n in (2, 3, 2, 3, 2, 3, 2, 3):
        assert scaled(x, n).tolist() == [float(n)] * 2
    assert calls == [2, 3, 2, 3]
    for _ in range(4):
        assert scaled(x, 2, name="b", parts=(x, 1.0)).tolist() == [3.0, 3.0]
    assert len(calls) == 6
    assert scaled.__name__ == "scaled"
    assert scaled.__doc__ == "Scale."


def test_shapes_and_dtypes_make_signatures() -> None:
    compiled = wg.compile(lambda x: x.sum(axis=0))
    for shape in ((3, 2), (4, 2)) * 4:
        assert compiled(wg.ones(shape)).tolist() == [shape[0], shape[0]]
    for _ in range(4):
        assert compiled(wg.ones((3, 2), dtype=wg.int32)).dtype == wg.int64
        assert compiled(wg.arange(6).reshape(2, 3).T).tolist() == [3, 12]
    assert len(compiled.explain().signatures) == 4


def test_a_method_can_be_compiled() -> None:
    class Trainer:
        def __init__(self, scale: float) -> None:
            self.scale = wg.tensor(scale)

        @wg.compile
        def step(self, x: wg.Tensor) -> wg.Tensor:
            return x * self.scale

    one, two = Trainer(1.0), Trainer(2.0)
    for _ in range(4):
        assert one.step(wg.ones((2,))).tolist() == [1.0, 1.0]
        assert two.step(wg.ones((2,))).tolist() == [2.0, 2.0]


def test_arguments_that_are_pending() -> None:
    compiled = wg.compile(lambda x: x + 1.0)
    for i in range(5):
        assert compiled(wg.ones((2,)) * float(i)).tolist() == [i + 1.0] * 2


def test_arguments_and_captured_tensors_come_back_themselves() -> None:
    kept = wg.ones((2,))
    compiled = wg.compile(lambda x: (x, kept, x + kept))
    for _ in range(4):
        x = wg.ones((2,))
        first, second, _ = compiled(x)
        assert first is x
        assert second is kept


def test_slices_of_arguments() -> None:
    compiled = wg.compile(lambda x: (x[1:3] * 2.0, x[0], x.detach()[2]))
    for i in range(5):
        x = wg.arange(4).astype(wg.float32) + float(i)
        assert read(compiled(x)) == [[2.0 * (i + 1), 2.0 * (i + 2)], float(i), float(i + 2)]


def test_an_argument_changed_in_place() -> None:
    def step(x: wg.Tensor) -> wg.Tensor:
        x += 1.0
        return x * 2.0

    compiled = wg.compile(step)
    for _ in range(5):
        x = wg.zeros((2,))
        assert compiled(x).tolist() == [2.0, 2.0]
        assert x.tolist() == [1.0, 1.0]


def test_results_are_fresh() -> None:
    compiled = wg.compile(lambda x: x * 2.0)
    results = [compiled(wg.full((2,), float(i))) for i in range(6)]
    assert [r.tolist() for r in results] == [[2.0 * i] * 2 for i in range(6)]


def test_values_that_others_hold_stay() -> None:
    """An alias or a NumPy view of a parameter keeps the old value, as in ordinary code."""
    w = nn.Parameter(wg.ones((2,)))
    optimizer = optim.SGD([w], lr=1.0)

    @wg.compile
    def step() -> None:
        optimizer.zero_grad()
        w.sum().backward()
        optimizer.step()

    for _ in range(4):
        step()
    alias, view, grad = w.detach(), w.detach().numpy(), w.grad
    pending = w.detach() * 2.0
    step()
    step()
    assert alias.tolist() == [-3.0, -3.0]
    assert view.tolist() == [-3.0, -3.0]
    assert pending.tolist() == [-6.0, -6.0]
    assert w.tolist() == [-5.0, -5.0]
    assert grad is not None
    assert grad.tolist() == [1.0, 1.0]


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


def test_arguments_that_are_the_parameter() -> None:
    w = nn.Parameter(wg.ones((3,)))
    optimizer = optim.SGD([w], lr=1.0)

    @wg.compile
    def step(x: wg.Tensor) -> wg.Tensor:
        optimizer.zero_grad()
        (w * x).sum().backward()
        optimizer.step()
        return x * 2.0

    u = wg.ones((3,))
    for i in range(8):
        # Sometimes the argument is a name for the value that the step writes over.
        x = w.detach() if i % 2 else wg.full((3,), 0.25)
        expected, before = u - (u if i % 2 else 0.25), u * 2.0 if i % 2 else wg.full((3,), 0.5)
        assert step(x).tolist() == before.tolist()
        assert w.tolist() == expected.tolist()
        u = expected


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
