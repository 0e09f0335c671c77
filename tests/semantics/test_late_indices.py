"""An index that only a kernel of a device finds out of range.

A device cannot stop a step. From the bad index on it writes over no old value, until a read has raised the error. What
was computed from the index keeps the error, as on the CPU; all else is as if the steps since then had not been.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.compiling import OPTIMIZERS

import wengert as wg
from wengert import nn, optim

pytestmark = pytest.mark.skipif(not wg.gpu.is_available(), reason="no GPU with a working driver")

GPU = "gpu"
BAD = 77
DEVICES = ["cpu", GPU]


def indices(*numbers: int, device: str = GPU) -> wg.Tensor:
    """Pending, so that even on the CPU a kernel checks them."""
    return wg.tensor(numbers, device=device) + 0


def here() -> int:
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


class Training:
    """A small model with a table, its optimizer, and a step that takes an index."""

    def __init__(
        self, make: Callable[[Any], optim.Optimizer] = OPTIMIZERS["momentum"], device: str = GPU, compiled: bool = False
    ) -> None:
        wg.manual_seed(3)
        self.device = device
        self.model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 3)).to(device)
        self.optimizer = make(self.model.parameters())
        self.call = wg.compile(self.step) if compiled else self.step

    def step(self, index: wg.Tensor) -> wg.Tensor:
        self.optimizer.zero_grad()
        loss = (self.model(index + 0) ** 2).sum()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def __call__(self, last: int) -> wg.Tensor:
        return self.call(wg.tensor([1, 2, last], device=self.device))

    def state(self) -> Any:
        """All that a step changes: parameters, state tensors, step counts."""
        kept = self.optimizer.state_dict()["state"]
        told = {
            key: {name: value.tolist() if isinstance(value, wg.Tensor) else value for name, value in entry.items()}
            for key, entry in kept.items()
        }
        return [parameter.tolist() for parameter in self.model.parameters()], told


# What keeps the error, and what does not.


@pytest.mark.parametrize("device", DEVICES)
def test_what_was_computed_from_a_bad_index_keeps_the_error(device: str) -> None:
    table, norm = nn.Embedding(10, 4).to(device), nn.BatchNorm1d(4).to(device)
    before = table.weight.tolist()
    loss = (norm(table(indices(1, 2, BAD, device=device))) ** 2).sum()
    other = table.weight.sum() * 2.0
    loss.backward()
    later = loss.detach() + 1.0
    assert table.weight.grad is not None
    # The CPU finds it here, a device with the next read.
    with contextlib.suppress(IndexError):
        wg.eval(loss, table.weight.grad)
        table.weight.tolist()
    reads: list[Callable[[], object]] = [
        loss.item,
        loss.item,
        later.item,
        lambda: repr(loss),
        lambda: table.weight.grad is not None and table.weight.grad.numpy(),
        lambda: norm.running_mean is not None and norm.running_mean.tolist(),
        lambda: loss * 2.0,
        lambda: loss.detach().to("cpu"),
        lambda: float(wg.stack([loss.detach(), other.detach()])[1]),
    ]
    for read in reads:
        with pytest.raises(IndexError, match="take: index 77 is out of range for axis 0 of size 10"):
            read()
    assert table.weight.tolist() == before
    assert other.item() == pytest.approx(2.0 * sum(map(sum, before)), abs=1e-4)


def test_each_step_has_its_own_error_and_the_others_have_none() -> None:
    training = Training()
    table = wg.arange(10, device=GPU)
    lasts = [3, BAD, 4, 88, 5]
    losses = [training(last) for last in lasts]
    rows = [(table * 2)[indices(last)] for last in lasts]
    for row in rows:
        wg.eval(row)
    with pytest.raises(IndexError, match="index 77"):
        table.tolist()
    for last, loss, row in zip(lasts, losses, rows, strict=True):
        if last > 10:
            for read in (loss.item, row.item):
                with pytest.raises(IndexError, match=f"index {last}"):
                    read()
        else:
            assert loss.item() > 0.0
            assert row.item() == 2 * last


def test_a_running_sum_is_lost_from_the_bad_step_on() -> None:
    training = Training()
    total = wg.zeros((), device=GPU)
    totals = []
    for last in [3, 4, BAD, 5]:
        total = total + training(last)
        totals.append(total)
    with pytest.raises(IndexError, match="index 77"):
        total.item()
    assert totals[0].item() < totals[1].item()
    for lost in totals[2:]:
        with pytest.raises(IndexError, match="index 77"):
            lost.item()


def test_an_old_error_says_nothing_of_what_is_computed_later() -> None:
    training = Training()
    for _ in range(3):
        training(3).item()
    with pytest.raises(IndexError):
        training(BAD).item()
    kept = [training(4) for _ in range(3)]
    assert all(loss.item() > 0.0 for loss in kept)


# Steps.


@pytest.mark.parametrize("compiled", [False, True], ids=["ordinary", "compiled"])
@pytest.mark.parametrize("after", [0, 1, 3])
@pytest.mark.parametrize("good", [0, 1, 4])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_bad_step_and_those_after_it_have_not_been(name: str, good: int, after: int, compiled: bool) -> None:
    """Neither for parameters nor for state and step counts, and training goes on as if they had not been asked for."""
    training, other = (Training(OPTIMIZERS[name], compiled=compiled) for _ in range(2))
    for last in range(good):
        training(last)
        other(last)
    before = other.state()
    # A traced call knows lines, so it fails at once.
    with pytest.raises(IndexError, match="index 77"):
        [training(last) for last in [BAD, *range(after)]][-1].item()
    assert training.state() == before
    for last in range(5):
        assert training(last).item() == other(last).item()
    assert training.state() == other.state()


@pytest.mark.parametrize("compiled", [False, True], ids=["ordinary", "compiled"])
def test_the_cpu_ends_where_the_device_does(compiled: bool) -> None:
    found = []
    for device in DEVICES:
        training = Training(OPTIMIZERS["adam"], device, compiled)
        for last in [1, BAD, 2, 3, BAD, 4, 5]:
            with pytest.raises(IndexError, match="index 77") if last == BAD else contextlib.nullcontext():
                training(last).item()
        found.append(training.state())
    parameters = [wg.tensor(rows).flatten().tolist() for state, _ in found for rows in state]
    half = len(parameters) // 2
    for ours, theirs in zip(parameters[:half], parameters[half:], strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4, abs=1e-6)
    assert [entry["step"] for entry in found[1][1].values()] == [entry["step"] for entry in found[0][1].values()]


def test_state_is_asked_for_before_anything_is_read() -> None:
    training = Training(OPTIMIZERS["adam"])
    training(1)
    training(BAD)
    with pytest.raises(IndexError, match="index 77"):
        training.optimizer.state_dict()
    assert [entry["step"] for entry in training.optimizer.state_dict()["state"].values()] == [1, 1, 1]


def test_state_that_is_loaded_stays() -> None:
    training = Training(OPTIMIZERS["adam"])
    for last in range(3):
        training(last)
    saved = training.optimizer.state_dict()
    training(BAD)
    training.optimizer.load_state_dict(saved)
    with pytest.raises(IndexError):
        training(1).item()
    assert [entry["step"] for entry in training.optimizer.state_dict()["state"].values()] == [3, 3, 3]


def test_a_step_without_reads_hears_of_it_in_the_end() -> None:
    training = Training(OPTIMIZERS["adam"])
    training(1)
    before = training.state()
    training(BAD)
    seen = 0
    with contextlib.suppress(IndexError):
        while seen < 1000:
            training(2)
            seen += 1
    assert seen < 300
    assert training.state() == before


def test_parameters_that_have_no_value_yet_have_one_afterwards() -> None:
    wg.manual_seed(0)
    counted = wg.arange(40, dtype=wg.float32).reshape(4, 10).to(GPU)
    weight = (counted * 0.5).requires_grad_()
    turned, window = counted.T.requires_grad_(), counted[:, ::2].requires_grad_()
    optimizer = optim.Adam([weight, turned, window])
    for _ in range(2):
        optimizer.zero_grad()
        index = indices(1, BAD)
        ((weight * turned.T)[index].sum() * window[index].sum()).backward()
        optimizer.step()
        with pytest.raises(IndexError):
            weight.sum().item()
        assert not optimizer.state
        assert weight.tolist() == (counted * 0.5).tolist()
        assert turned.tolist() == counted.T.tolist()
        assert window.tolist() == counted[:, ::2].tolist()


@pytest.mark.parametrize("others", [False, True], ids=["alone", "held"])
def test_whoever_else_holds_a_parameter(others: bool) -> None:
    training = Training(OPTIMIZERS["adam"])
    held = [parameter.detach() for parameter in training.model.parameters()] if others else []
    before = training.state()
    training(BAD)
    with pytest.raises(IndexError):
        training.model[1].weight.tolist()
    assert training.state() == before
    assert [parameter.tolist() for parameter in held] == before[0][: len(held)]


def test_a_step_on_two_devices_is_undone_on_both_at_once() -> None:
    here, there = wg.ones((2,)).requires_grad_(), wg.ones((2,), device=GPU).requires_grad_()
    optimizer = optim.Adam([here, there], lr=0.5)
    (here * 2.0).sum().backward()
    (there * wg.ones((10, 2), device=GPU)[indices(1, BAD)]).sum().backward()
    with pytest.raises(IndexError, match="index 77"):
        optimizer.step()
    assert (here.tolist(), there.tolist()) == ([1.0, 1.0], [1.0, 1.0])
    assert not optimizer.state


def test_gradients_that_add_up() -> None:
    training = Training()
    training(1).item()
    before = training.state()
    training.optimizer.zero_grad()
    for last in (2, BAD, 3):
        (training.model(indices(1, last)) ** 2).sum().backward()
    training.optimizer.step()
    with pytest.raises(IndexError, match="index 77"):
        training.model[0].weight.tolist()
    assert training.state() == before
    # The gradient is of the bad index still, and a step with it fails at once now.
    with pytest.raises(IndexError, match="index 77"):
        training.optimizer.step()
    assert training.state() == before
    training.optimizer.zero_grad(set_to_none=False)
    assert training.model[0].weight.grad is not None
    assert not any(map(any, training.model[0].weight.grad.tolist()))


def test_two_optimizers_stop_together() -> None:
    """The second knows nothing of the index, but its steps come after it."""
    first, second = Training(OPTIMIZERS["momentum"]), Training(OPTIMIZERS["adam"])
    first(1)
    second(1)
    before = [first.state(), second.state()]
    losses = [first(BAD), second(2), second(2)]
    with pytest.raises(IndexError, match="index 77"):
        losses[2].item()
    assert [first.state(), second.state()] == before
    assert losses[1].item() == losses[2].item()


def test_a_bad_index_of_an_evaluation_stops_the_steps_after_it() -> None:
    training = Training(OPTIMIZERS["adam"])
    training(1)
    before = training.state()
    with wg.no_grad():
        validation = training.model(indices(BAD)).sum()
        wg.eval(validation)
    losses = [training(2), training(3)]
    with pytest.raises(IndexError, match="index 77"):
        losses[1].item()
    assert training.state() == before
    assert losses[0].item() > 0.0
    with pytest.raises(IndexError, match="index 77"):
        validation.item()


def test_a_schedule_goes_on() -> None:
    """Python has run: what it counts by itself is not undone."""
    training = Training()
    scheduler = optim.lr_scheduler.StepLR(training.optimizer, step_size=1, gamma=0.5)
    training(1)
    before = training.state()
    for last in (BAD, 2):
        training(last)
        scheduler.step()
    with pytest.raises(IndexError):
        training.model[1].weight.tolist()
    assert training.state() == before
    assert training.optimizer.param_groups[0]["lr"] == 0.1 * 0.25


def test_many_compiled_steps_in_one_call() -> None:
    training = Training(OPTIMIZERS["adam"], compiled=True)
    other = Training(OPTIMIZERS["adam"])
    run = wg.compile(training.step).run
    good = wg.tensor([[1, 2, last] for last in range(6)], device=GPU)
    run(good)
    for last in range(6):
        other(last)
    before = other.state()
    bad = run(wg.tensor([[1, 2, last] for last in [3, 4, BAD, 5]], device=GPU))
    with pytest.raises(IndexError, match="index 77"):
        bad.tolist()
    with pytest.raises(IndexError, match="index 77"):
        bad.tolist()
    # The two steps before the bad one have been.
    for last in (3, 4):
        other(last)
    assert training.state() == other.state() != before


def test_a_loop_that_reads_each_loss_stops_at_the_bad_batch() -> None:
    training = Training(OPTIMIZERS["adam"])
    rows = wg.tensor([1, 2, 3, 4, BAD, 5, 6, 7]).to(GPU)
    seen = 0
    with contextlib.suppress(IndexError):
        while seen < 4:
            training.call(rows[2 * seen : 2 * seen + 2]).item()
            seen += 1
    assert seen == 2
    assert [entry["step"] for entry in training.optimizer.state_dict()["state"].values()] == [2, 2, 2]


def test_nothing_is_saved_of_it(tmp_path: Path) -> None:
    training = Training()
    training(1)
    path = tmp_path / "model.safetensors"
    wg.save(training.model.state_dict(), path)
    saved = path.read_bytes()
    training(BAD)
    with pytest.raises(IndexError, match="index 77"):
        wg.save(training.model.state_dict(), path)
    assert path.read_bytes() == saved
    wg.save(training.model.state_dict(), path)
    assert path.read_bytes() == saved


# What the error says.

USES: dict[str, Callable[[wg.Tensor, wg.Tensor], wg.Tensor]] = {
    "rows": lambda x, i: x[i],
    "columns": lambda x, i: x[:, i],
    "both": lambda x, i: x[i % 3, i],
    "the first of both": lambda x, i: x[i, i % 3],
    "take_along_axis": lambda x, i: wg.take_along_axis(x, i[:, None], axis=1),
    "index_add": lambda x, i: wg.index_add(x, i, wg.ones_like(x)),
    "cross_entropy": lambda x, i: nn.functional.cross_entropy(x, i),
    "one_hot": lambda x, i: nn.functional.one_hot(i % 100, 4),
}


@pytest.mark.parametrize("use", USES)
def test_the_error_is_that_of_the_cpu(use: str) -> None:
    said = []
    for device in DEVICES:
        x, index = wg.ones((3, 4), device=device), indices(0, 1, 5, device=device)
        with pytest.raises(IndexError) as caught:
            USES[use](x, index).tolist()
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert "5" in said[0]


@pytest.mark.parametrize("device", DEVICES)
def test_indices_of_several_axes_are_checked_one_by_one(device: str) -> None:
    x = wg.arange(12, device=device).reshape(3, 4)
    rows, columns = indices(0, -1, device=device), indices(1, -4, device=device)
    assert x[rows, columns].tolist() == [1, 8]
    # Element 7 of the matrix exists.
    with pytest.raises(IndexError, match="index 7 is out of range for axis 1 of size 4"):
        x[rows, indices(0, 7, device=device)].tolist()


def test_a_line_is_named_on_request_and_by_the_step_itself() -> None:
    training = Training(OPTIMIZERS["adam"])
    training(1)
    before = training.state()
    with wg.debug.lines():
        training.optimizer.zero_grad()
        line = here() + 1
        rows = training.model[0](indices(1, BAD))
        loss = (rows**2).sum()
    loss.backward()
    with pytest.raises(IndexError, match=rf"index 77 .*\(test_late_indices\.py:{line}\)"):
        training.optimizer.step()
    assert training.state() == before
    with pytest.raises(IndexError, match=rf"index 77 .*\(test_late_indices\.py:{line}\)"):
        rows.tolist()


def test_compiled_steps_name_a_line_on_request() -> None:
    training = Training(OPTIMIZERS["adam"], compiled=True)
    for last in range(5):
        training(last)
    before = training.state()
    with wg.debug.lines(), pytest.raises(IndexError, match=r"index 77 .*\(test_late_indices\.py:\d+\)"):
        training(BAD)
    assert training.state() == before
    assert training(1).item() > 0.0


def test_eager_code_fails_on_its_line() -> None:
    table = nn.Embedding(10, 4).to(GPU)
    with wg.eager():
        index = indices(1, BAD)
        line = here() + 2
        with pytest.raises(IndexError, match=rf"index 77 .*\(test_late_indices\.py:{line}\)"):
            table(index)
