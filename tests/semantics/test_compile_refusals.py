"""What `wg.compile` refuses, why, and that nothing of a refused step is left behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import wengert as wg
import wengert.nn.functional as F
from wengert import nn, optim


class Trainer:
    """A model with everything that a step changes."""

    def __init__(self) -> None:
        wg.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
        self.optimizer = optim.Adam(self.model.parameters(), lr=0.1)
        self.schedule = optim.lr_scheduler.StepLR(self.optimizer, step_size=2, gamma=0.5)
        self.calls = 0
        self.x, self.y = wg.sin(wg.arange(12).astype(wg.float32)).reshape(4, 3), wg.arange(4) % 2
        wg.eval(self.x, self.y)

    def train(self) -> wg.Tensor:
        self.calls += 1
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(self.x), self.y)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return loss

    def state(self) -> list[Any]:
        tensors = [*self.model.parameters(), *self.model.buffers()]
        values = [(t.tolist(), None if t.grad is None else t.grad.tolist()) for t in tensors]
        entries = self.optimizer.state_dict()["state"]
        states = {
            i: {k: v.tolist() if isinstance(v, wg.Tensor) else v for k, v in e.items()} for i, e in entries.items()
        }
        rates = [group["lr"] for group in self.optimizer.param_groups]
        return [values, states, rates, self.schedule.last_epoch, wg.random.get_rng_state()]


def read_item(trainer: Trainer) -> Any:
    return trainer.train().item()


def read_numpy(trainer: Trainer) -> Any:
    return float(trainer.train().detach().numpy())


def read_print(trainer: Trainer) -> Any:
    return f"{trainer.train()}"


def read_if(trainer: Trainer) -> Any:
    return 1 if trainer.train() > 0 else 2


def read_float(trainer: Trainer) -> Any:
    return float(trainer.train())


def read_list(trainer: Trainer) -> Any:
    return trainer.train().tolist()


def read_mask(trainer: Trainer) -> Any:
    trainer.train()
    return trainer.x[trainer.x > 0]


def returns_history(trainer: Trainer) -> Any:
    trainer.train()
    return trainer.model(trainer.x)


def returns_an_object(trainer: Trainer) -> Any:
    trainer.train()
    return trainer


def keeps_history(trainer: Trainer) -> Any:
    trainer.train()
    trainer.x += trainer.model(trainer.x).sum()


def swallows(trainer: Trainer) -> Any:
    try:
        return trainer.train().item()
    except wg.CompileError:
        return None


def seeds(trainer: Trainer) -> Any:
    trainer.train()
    wg.manual_seed(1)


def reads_a_running_count(trainer: Trainer) -> Any:
    trainer.train()
    return nn.BatchNorm1d(3, momentum=None)(trainer.x).detach()


REFUSED: list[tuple[Callable[[Trainer], Any], str]] = [
    (read_item, "item: a compiled step reads no values"),
    (read_numpy, "numpy: a compiled step reads no values"),
    (read_print, "reads no values"),
    (read_if, "bool: a compiled step reads no values"),
    (read_float, "float: a compiled step reads no values"),
    (read_list, "tolist: a compiled step reads no values"),
    (read_mask, "mask, whose values decide the shape"),
    (returns_history, "returns the result of linear with its history"),
    (returns_an_object, "gives back a Trainer"),
    (keeps_history, "was given the result of add, with its history"),
    (seeds, "manual_seed: a compiled step draws on"),
    (reads_a_running_count, "item: a compiled step reads no values"),
    (swallows, "item: a compiled step reads no values"),
]


@pytest.mark.parametrize(("function", "message"), REFUSED, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize("steps", [0, 3])
def test_a_refused_step_leaves_nothing_behind(function: Callable[[Trainer], Any], message: str, steps: int) -> None:
    trainer = Trainer()
    for _ in range(steps):
        trainer.train()
    before = trainer.state()
    compiled = wg.compile(lambda: function(trainer))
    for _ in range(2):
        with pytest.raises(wg.CompileError, match=message):
            compiled()
        assert trainer.state() == before
    assert compiled.explain().refused is not None
    # The trainer goes on as one that was never refused anything.
    loss, after = trainer.train().item(), trainer.state()
    other = Trainer()
    for _ in range(steps):
        other.train()
    assert (loss, after) == (other.train().item(), other.state())


def test_the_line_is_named() -> None:
    trainer = Trainer()

    def step() -> float:
        loss = trainer.train()
        return loss.item()

    with pytest.raises(wg.CompileError, match=r"test_compile_refusals.py:\d+\)$"):
        wg.compile(step)()


def test_a_number_that_differs() -> None:
    trainer = Trainer()
    trainer.train()

    def step() -> wg.Tensor:
        return trainer.train().detach() * float(trainer.calls)

    compiled = wg.compile(step)
    compiled()
    before = trainer.state()
    with pytest.raises(
        wg.CompileError, match=r"number was 2 in the first call and 3 in .*multiply, test_compile_ref.*:\d+"
    ):
        compiled()
    assert trainer.state() == before


def test_data_that_differ() -> None:
    trainer = Trainer()
    trainer.train()

    def step() -> wg.Tensor:
        return trainer.train().detach() * wg.tensor(np.array([1.0, trainer.calls], dtype=np.float32))

    compiled = wg.compile(step)
    compiled()
    before = trainer.state()
    with pytest.raises(wg.CompileError, match=r"data that became a tensor.*test_compile_refusals.py:\d+"):
        compiled()
    assert trainer.state() == before


@pytest.mark.parametrize(
    "second",
    [
        lambda loss: loss.exp(),
        lambda loss: loss.tanh() * 2.0,
        lambda loss: loss.reshape(1),
    ],
)
def test_a_choice_that_differs(second: Callable[[wg.Tensor], wg.Tensor]) -> None:
    trainer = Trainer()
    trainer.train()

    def step() -> wg.Tensor:
        loss = trainer.train().detach()
        return loss.tanh() if trainer.calls == 2 else second(loss)

    compiled = wg.compile(step)
    compiled()
    before = trainer.state()
    with pytest.raises(wg.CompileError, match="the second call recorded"):
        compiled()
    assert trainer.state() == before


def test_another_number_of_barriers() -> None:
    trainer = Trainer()
    trainer.train()

    def step() -> None:
        trainer.train()
        if trainer.calls > 2:
            trainer.train()

    compiled = wg.compile(step)
    compiled()
    with pytest.raises(wg.CompileError, match="the second call ran 2 plans and the first one 1"):
        compiled()


def test_another_tensor_from_outside() -> None:
    held = [wg.ones((2,)), wg.ones((2,))]
    calls: list[int] = []

    def step() -> wg.Tensor:
        calls.append(0)
        return held[len(calls) % 2] * 2.0

    compiled = wg.compile(step)
    compiled()
    with pytest.raises(wg.CompileError, match="different tensors from outside"):
        compiled()


@pytest.mark.parametrize(
    "use",
    [
        lambda x, lr: x * (lr * 2),
        lambda x, lr: x if lr > 1 else -x,
        lambda x, lr: x * float(lr),
        lambda x, lr: x**lr,
        lambda x, lr: x * (1 - lr),
        lambda x, lr: x * -lr,
        lambda x, lr: F.dropout(x, lr),
        lambda x, lr: x if lr else -x,
        lambda x, lr: wg.full((2,), lr),
    ],
)
def test_a_float_argument_decides_nothing(use: Callable[[wg.Tensor, float], wg.Tensor]) -> None:
    compiled = wg.compile(use)
    for _ in range(2):
        with pytest.raises(wg.CompileError, match="float argument"):
            compiled(wg.ones((2,)), 0.5)


def test_a_float_argument_is_a_number_afterwards() -> None:
    kept: list[float] = []
    compiled = wg.compile(lambda x, lr: (kept.append(lr), x * lr)[1])
    compiled(wg.ones((2,)), 0.5)
    assert kept[0] + 0.0 == 0.5 if isinstance(kept[0], float) else float(kept[0]) == 0.5


def test_arguments_that_are_none() -> None:
    compiled = wg.compile(lambda x: x)
    with pytest.raises(wg.CompileError, match="an argument of a compiled function is a ndarray"):
        compiled(np.ones(3))
    w = wg.ones((2,)).requires_grad_()
    with pytest.raises(wg.CompileError, match="tensor argument 0 has history"):
        compiled(w * 2.0)


def test_history_from_before() -> None:
    w = wg.ones((2,)).requires_grad_()
    outside = (w * w).sum()
    compiled = wg.compile(lambda: (outside * 2.0).backward())
    with pytest.raises(wg.CompileError, match="from before the step"):
        compiled()
    assert w.grad is None


def test_a_signature_that_is_new_at_each_call() -> None:
    compiled = wg.compile(lambda x, n: x * n)
    for n in range(64):
        compiled(wg.ones((2,)), n)
    with pytest.raises(wg.CompileError, match=r"must be a tensor or a float \(argument 1, now 64\)"):
        compiled(wg.ones((2,)), 64)
    for _ in range(3):
        assert compiled(wg.ones((2,)), 63).tolist() == [63.0, 63.0]
    assert compiled(wg.ones((2,)), 64).tolist() == [64.0, 64.0]


def test_more_signatures_than_are_kept_ready() -> None:
    traced = []

    def function(x: wg.Tensor) -> wg.Tensor:
        traced.append(x.shape)
        return x * 2.0

    compiled = wg.compile(function)
    for _ in range(5):
        for length in range(1, 21):
            assert compiled(wg.ones((length,))).tolist() == [2.0] * length
    assert len(traced) < 90


def test_a_schedule_of_the_users_own() -> None:
    w = nn.Parameter(wg.ones((2,)))
    optimizer = optim.SGD([w], lr=1.0)

    class Own(optim.lr_scheduler.LRScheduler):
        def get_lr(self) -> list[float]:
            return [group["lr"] * 0.5 for group in optimizer.param_groups]

    schedule = Own(optimizer)
    rate = optimizer.param_groups[0]["lr"]

    def step() -> None:
        w.grad = None
        w.sum().backward()
        optimizer.step()
        schedule.step()

    with pytest.raises(wg.CompileError, match=r"Own.step is the user's own Python"):
        wg.compile(step)()
    assert w.tolist() == [1.0, 1.0]
    assert optimizer.param_groups[0]["lr"] == rate


def test_the_users_own_errors_pass() -> None:
    trainer = Trainer()

    def step() -> None:
        trainer.train()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        wg.compile(step)()
    after = trainer.state()
    # As ordinary code would have left it.
    other = Trainer()
    other.train()
    assert after == other.state()
