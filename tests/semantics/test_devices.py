"""Training where the tensors are: the same steps on the CPU and on a GPU, in ordinary code and compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from tests.compiling import OPTIMIZERS, agree, classifier, data, snapshot

import wengert as wg
from wengert import _core, nn, optim

pytestmark = pytest.mark.skipif(not wg.gpu.is_available(), reason="no GPU with a working driver")

GPU = "gpu"


def on(device: str, i: int) -> tuple[wg.Tensor, ...]:
    return tuple(tensor.to(device) for tensor in data(i))


def trained(device: str, optimizer: Callable[[Any], optim.Optimizer], steps: int = 8) -> tuple[list[float], list[Any]]:
    """The losses and what is left of a small classifier."""
    wg.manual_seed(5)
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 3))
    model.to(device)
    steps_of = optimizer(model.parameters())
    losses = []
    for i in range(steps):
        x, y = on(device, i)
        steps_of.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        steps_of.step()
        losses.append(loss.item())
    return losses, snapshot(model)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_gpu_trains_like_the_cpu(name: str) -> None:
    here, there = trained("cpu", OPTIMIZERS[name]), trained(GPU, OPTIMIZERS[name])
    # Eight steps of rounding in another order, and the state of rmsprop divides by small roots.
    assert there[0] == pytest.approx(here[0], rel=2e-4)


def test_a_gpu_gives_the_same_bits_each_time() -> None:
    assert trained(GPU, OPTIMIZERS["adam"]) == trained(GPU, OPTIMIZERS["adam"])


def test_steps_miss_no_plan_and_keep_nothing() -> None:
    step, x, y = stepper(GPU)
    for _ in range(4):
        step(x, y).item()
    before, plans = _core.counters()["live_nodes"], _core.plan_cache()["misses"]
    for _ in range(20):
        step(x, y).item()
    assert _core.counters()["live_nodes"] == before
    assert _core.plan_cache()["misses"] == plans


def stepper(device: str) -> tuple[Callable[..., wg.Tensor], wg.Tensor, wg.Tensor]:
    wg.manual_seed(1)
    model = classifier().to(device)
    optimizer = optim.Adam(model.parameters(), lr=1e-2)

    def step(x: wg.Tensor, y: wg.Tensor) -> wg.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    x, y = on(device, 0)
    return step, x, y


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(4, 3), (5, 4)),
    "conv": (lambda: nn.Conv2d(2, 3, 3, stride=2, padding=1), (2, 2, 6, 6)),
    "conv, reflected": (lambda: nn.Conv1d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 2, 6)),
    "conv, repeated": (lambda: nn.Conv1d(2, 3, 3, padding=1, padding_mode="replicate"), (2, 2, 6)),
    "conv, around": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (2, 2, 6, 6)),
    "max pool": (lambda: nn.MaxPool2d(2), (2, 2, 6, 6)),
    "average pool": (lambda: nn.AvgPool1d(3, 2), (2, 2, 7)),
    "adaptive pool": (lambda: nn.AdaptiveAvgPool1d(4), (2, 2, 6)),
    "batch norm": (lambda: nn.BatchNorm2d(3), (4, 3, 2, 2)),
    "layer norm": (lambda: nn.LayerNorm(4), (5, 4)),
    "rms norm": (lambda: nn.RMSNorm(4), (5, 4)),
    "activations": (lambda: nn.Sequential(nn.GELU(), nn.SiLU(), nn.ELU(), nn.LogSoftmax(-1)), (5, 4)),
    "dropout": (lambda: nn.Dropout(0.3), (5, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_gives_the_same_on_both_devices(name: str) -> None:
    make, shape = LAYERS[name]
    found = []
    for device in ("cpu", GPU):
        wg.manual_seed(7)
        layer = make().to(device)
        x = wg.randn(shape).to(device).requires_grad_()
        out = layer(x)
        (out * out).sum().backward()
        kept = [out.detach(), *(part.grad for part in (x, *layer.parameters())), *layer.buffers()]
        assert all(part is not None and part.device == x.device for part in kept)
        found.append([part.flatten().tolist() for part in kept if part is not None])
    for here, there in zip(*found, strict=True):
        assert there == pytest.approx(here, rel=1e-4, abs=1e-4)


def test_rows_of_a_table_and_their_gradients_agree() -> None:
    found = []
    for device in ("cpu", GPU):
        wg.manual_seed(7)
        table = nn.Embedding(5, 3, padding_idx=1).to(device)
        table.reset_parameters()
        out = table(wg.tensor([[0, 1], [4, 0]], device=device))
        (out * out).sum().backward()
        assert table.weight.grad is not None
        found.append((out.tolist(), table.weight.grad.tolist()))
    assert found[0][0][0][1] == [0.0, 0.0, 0.0]
    for here, there in zip(*found, strict=True):
        flat = [wg.tensor(part).flatten().tolist() for part in (here, there)]
        assert flat[1] == pytest.approx(flat[0], rel=1e-4, abs=1e-6)


# Reads.


def test_windows_are_read_as_they_are_seen() -> None:
    x = wg.arange(24, dtype=wg.float32).reshape(4, 6)
    there = x.to(GPU)
    windows: list[Callable[[wg.Tensor], wg.Tensor]] = [
        lambda t: t[1:3],
        lambda t: t[:, 2],
        lambda t: t[::-2, 1::3],
        lambda t: t.T[1:, 0],
        lambda t: t[0:0],
        lambda t: t[2][3],
    ]
    for window in windows:
        assert window(there).tolist() == window(x).tolist()
        assert window(there).numpy().tobytes() == window(x).numpy().tobytes()
    assert wg.concat([x > 3.0, x > 4.0]).to(GPU)[:, ::2].tolist() == wg.concat([x > 3.0, x > 4.0])[:, ::2].tolist()


def test_indices_of_the_host_follow_the_tensor() -> None:
    x = wg.arange(12, dtype=wg.float32).reshape(3, 4)
    there = x.to(GPU)
    assert there[[2, 0]].tolist() == x[[2, 0]].tolist()
    assert there[there > 5.0].tolist() == x[x > 5.0].tolist()
    there[1] = [1.0, 2.0, 3.0, 4.0]
    there[0, 0] = 9.0
    there[there > 8.0] = 0.0
    assert there.tolist() == [[0.0, 1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0], [8.0, 0.0, 0.0, 0.0]]
    with pytest.raises(wg.DeviceError, match="operands are on gpu:0 and cpu"):
        there[wg.tensor([0])]


def test_large_tensors_are_printed_by_their_ends() -> None:
    text = repr(wg.zeros((100, 100), device=GPU))
    assert text.count("...") > 3
    assert text.endswith("device='gpu:0')")


# Two devices.


def test_one_barrier_serves_both_devices() -> None:
    here, there = wg.ones((2,)).requires_grad_(), wg.ones((2,), device=GPU).requires_grad_()
    optimizer = optim.SGD([here, there], lr=0.5)
    (here * 2.0).sum().backward()
    (there * 4.0).sum().backward()
    pending = wg.ones((2,), device=GPU) + 1.0
    optimizer.step()
    assert (here.tolist(), there.tolist()) == ([0.0, 0.0], [-1.0, -1.0])
    assert _core.counters()["pending"] == 0
    assert pending.tolist() == [2.0, 2.0]


def test_a_failure_on_one_device_undoes_the_step_on_both() -> None:
    here, there = wg.ones((2,)).requires_grad_(), wg.ones((2,), device=GPU).requires_grad_()
    optimizer = optim.SGD([here, there], lr=0.5, momentum=0.9)
    for fails in (here, there):
        for tensor in (here, there):
            tensor.grad = wg.ones_like(tensor)
        with wg.no_grad():
            fails.grad = _core.testing_op(wg.ones_like(fails), "fail")
        with pytest.raises((wg.WengertError, ValueError)):
            optimizer.step()
        assert (here.tolist(), there.tolist()) == ([1.0, 1.0], [1.0, 1.0])
        assert not optimizer.state
    for tensor in (here, there):
        tensor.grad = wg.ones_like(tensor)
    optimizer.step()
    assert (here.tolist(), there.tolist()) == ([0.5, 0.5], [0.5, 0.5])


def test_optimizer_state_follows_parameters_that_move() -> None:
    runs = []
    for moves in (False, True):
        wg.manual_seed(1)
        model = classifier()
        optimizer = optim.Adam(model.parameters(), lr=1e-2)
        losses = []
        for i in range(9):
            if moves and i in (3, 6):
                model.to(GPU if i == 3 else "cpu")
            x, y = on(str(next(model.parameters()).device), i)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        runs.append(losses)
    assert runs[1] == pytest.approx(runs[0], rel=1e-5)


# Compiled.


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_compiled_step_has_the_bits_of_ordinary_code(name: str) -> None:
    def build() -> tuple[Any, ...]:
        model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
        model.to(GPU)
        optimizer = OPTIMIZERS[name](model.parameters())

        def step(x: wg.Tensor, y: wg.Tensor) -> Any:
            optimizer.zero_grad()
            out = model(x)
            loss = nn.functional.cross_entropy(out, y)
            loss.backward()
            optimizer.step()
            return loss.detach(), {"right": (out.detach() > 0.5).sum(axis=0)}

        return model, step

    agree(build, lambda i: on(GPU, i), steps=8)


def test_a_compiled_step_with_several_plans_agrees() -> None:
    """Gradients of two losses add up, one optimizer steps between, and the other reads what it left."""

    def build() -> tuple[Any, ...]:
        model, head = classifier().to(GPU), nn.Linear(3, 1).to(GPU)
        first, second = optim.SGD(model.parameters(), lr=0.1, momentum=0.5), optim.Adam(head.parameters())

        def step(x: wg.Tensor, y: wg.Tensor, scale: float) -> Any:
            first.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            (loss * scale).backward()
            (model(x) ** 2).mean().backward()
            first.step()
            second.zero_grad()
            other = head(model(x).detach()).square().mean()
            other.backward()
            second.step()
            return loss.detach(), other.detach()

        return nn.ModuleList([model, head]), step

    agree(build, lambda i: (*on(GPU, i), 0.5 + 0.25 * i), steps=8)


def test_a_compiled_step_on_both_devices_agrees() -> None:
    def build() -> tuple[Any, ...]:
        here, there = classifier(), classifier().to(GPU)
        optimizer = optim.Adam([*here.parameters(), *there.parameters()])

        def step(x: wg.Tensor, y: wg.Tensor, z: wg.Tensor, t: wg.Tensor) -> Any:
            optimizer.zero_grad()
            losses = nn.functional.cross_entropy(here(x), y), nn.functional.cross_entropy(there(z), t)
            for loss in losses:
                loss.backward()
            optimizer.step()
            return tuple(loss.detach() for loss in losses)

        return nn.ModuleList([here, there]), step

    agree(build, lambda i: (*data(i), *on(GPU, i + 1)), steps=8)


def test_a_replay_leaves_values_that_others_hold() -> None:
    step, x, y = stepper(GPU)
    model_weight = step.__closure__
    assert model_weight is not None
    compiled = wg.compile(step)
    for _ in range(4):
        compiled(x, y)
    weight = next(cell.cell_contents for cell in model_weight if isinstance(cell.cell_contents, nn.Module))[0].weight
    alias, window = weight.detach(), weight.detach()[0]
    kept = (alias.tolist(), window.tolist())
    compiled(x, y)
    assert (alias.tolist(), window.tolist()) == kept
    assert weight.tolist() != kept[0]


def test_a_module_that_moved_is_compiled_anew() -> None:
    runs = []
    for compiled in (False, True):
        wg.manual_seed(1)
        model = classifier()
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def step(
            x: wg.Tensor, y: wg.Tensor, model: nn.Module = model, optimizer: optim.Optimizer = optimizer
        ) -> wg.Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss.detach()

        call = wg.compile(step) if compiled else step
        losses = []
        for device in ("cpu", GPU, "cpu"):
            model.to(device)
            losses += [call(*on(device, i)).item() for i in range(5)]
        runs.append(losses)
    assert runs[0] == runs[1]


def test_a_compiled_step_takes_host_data_and_refuses_moves() -> None:
    @wg.compile
    def scaled(x: wg.Tensor) -> wg.Tensor:
        return x * wg.tensor([2.0, 3.0], device=GPU) + wg.arange(0.0, 1.0, 0.5, device=GPU)

    for i in range(5):
        assert scaled(wg.full((2,), float(i), device=GPU)).tolist() == [2.0 * i, 3.0 * i + 0.5]

    @wg.compile
    def moved(x: wg.Tensor) -> wg.Tensor:
        return x.to(GPU) + 1.0

    with pytest.raises(wg.CompileError, match="stays on its devices"):
        moved(wg.ones((2,)))


def test_many_compiled_steps_stack_their_results_where_they_are() -> None:
    step, x, y = stepper(GPU)
    steps = 6
    stacked = wg.compile(step).run(wg.stack([x] * steps), wg.stack([y] * steps))
    again, x, y = stepper(GPU)
    assert str(stacked.device) == "gpu:0"
    assert stacked.tolist() == [again(x, y).item() for _ in range(steps)]


# Transforms.


def test_transforms_run_on_the_device() -> None:
    def loss(w: wg.Tensor, x: wg.Tensor) -> wg.Tensor:
        return wg.tanh(x @ w).sum()

    w, x = wg.ones((3,)) * 0.3, wg.arange(6, dtype=wg.float32).reshape(2, 3) * 0.1
    for function in (
        lambda w, x: wg.grad(loss)(w, x),
        lambda w, x: wg.vmap(wg.grad(loss), in_axes=(None, 0))(w, x),
        lambda w, x: wg.hvp(lambda w: loss(w, x), (w,), (w,)),
        lambda w, x: wg.grad(wg.checkpoint(loss))(w, x),
    ):
        here, there = function(w, x), function(w.to(GPU), x.to(GPU))
        here, there = (result[0] if isinstance(result, tuple) else result for result in (here, there))
        assert str(there.device) == "gpu:0"
        assert there.reshape(-1).tolist() == pytest.approx(here.reshape(-1).tolist(), rel=1e-5)


def test_eager_code_runs_on_the_device() -> None:
    with wg.eager():
        step, x, y = stepper(GPU)
        eager = [step(x, y).item() for _ in range(3)]
    step, x, y = stepper(GPU)
    assert eager == pytest.approx([step(x, y).item() for _ in range(3)], rel=1e-5)


# Failure.


def in_a_process(program: str) -> str:
    """What a program says in a process of its own."""
    text = "\n".join(["import os, wengert as wg", "from wengert import _core, nn, optim", program])
    done = subprocess.run(
        [sys.executable, "-P", "-c", text], capture_output=True, text=True, timeout=60, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_the_cpu_alone() -> None:
    program = """
here, there = wg.ones((2,)), wg.tensor([1.0, 2.0], device="gpu")
pending = there + 1.0
del_me = there * 3.0
wg.eval(del_me)
number = os.fork()
if number == 0:
    told = 0
    for use in (there.tolist, pending.tolist, lambda: here.to("gpu"), lambda: wg.zeros((2,), device="gpu")):
        try:
            use()
        except wg.DeviceError:
            told += 1
    del del_me
    told += 10 * int((here + 1.0).tolist() == [2.0, 2.0])
    os._exit(told)
print(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]), pending.tolist())
"""
    assert in_a_process(program) == "14 [2.0, 3.0]"


def test_a_compiled_step_goes_on_after_a_loss() -> None:
    program = """
model = nn.Linear(2, 1)
with wg.no_grad():
    model.weight.copy_(wg.ones((1, 2)))
    model.bias.copy_(wg.ones((1,)))
@wg.compile
def call(x):
    with wg.no_grad():
        return model(x) * wg.tensor([2.0], device="gpu")
state = {name: value.cpu() for name, value in model.state_dict().items()}
wg.eval(*state.values())
model.to("gpu")
for _ in range(3):
    assert call(wg.ones((1, 2), device="gpu")).item() == 6.0
_core.testing_gpu("lose", 0)
for reset in (lambda: None, wg.gpu.reset):
    reset()
    try:
        call(wg.ones((1, 2)).to("gpu"))
    except wg.DeviceLostError:
        print("lost")
model.load_state_dict(state)
for _ in range(4):
    assert call(wg.ones((1, 2), device="gpu")).item() == 6.0
print("on")
"""
    assert in_a_process(program) == "lost\nlost\non"


def test_a_lost_device_leaves_the_cpu_as_it_was() -> None:
    program = """
model = nn.Linear(2, 1)
optimizer = optim.SGD(model.parameters(), lr=0.1)
there, x = nn.Linear(2, 1).to("gpu"), wg.ones((4, 2))
pending = there(x.to("gpu"))
_core.testing_gpu("lose", 0)
said = []
for use in (pending.tolist, there.weight.tolist, lambda: there.cpu(), lambda: wg.ones((2,)).to("gpu")):
    try:
        use()
    except wg.DeviceLostError as error:
        said.append("reset" in str(error))
model(x).sum().backward()
optimizer.step()
wg.gpu.reset()
print(said, model(x).shape, model.to("gpu")(x.to("gpu")).shape, str(model.weight.device))
try:
    there.weight.tolist()
except wg.DeviceLostError:
    print("gone")
"""
    assert in_a_process(program) == "[True, True, True, True] (4, 1) (4, 1) gpu:0\ngone"


def test_a_module_that_a_device_refuses_has_not_moved() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1).double())
    with pytest.raises(wg.UnsupportedError, match="float64"):
        model.to(GPU)
    assert {str(parameter.device) for parameter in model.parameters()} == {"cpu"}
