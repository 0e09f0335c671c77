"""The list of GPUs, loss, forks, and what becomes of a model when memory ends or the device is lost.

Where there is no GPU, real or software, what needs one is skipped.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

import wengert as wg
from wengert import _core, debug, nn, optim

needs_gpu = pytest.mark.skipif(not wg.gpu.is_available(), reason="no GPU, real or software")


def in_a_process(program: str, **environment: str) -> str:
    """What a program says in a process of its own."""
    lines = ["import os, wengert as wg", "from wengert import _core", program]
    done = subprocess.run(
        [sys.executable, "-P", "-c", "\n".join(lines)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def training() -> tuple[nn.Module, Callable[[], wg.Tensor]]:
    """A net on the GPU, and a step that gives its loss."""
    wg.random.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1)).to("gpu")
    optimizer = optim.Adam(net.parameters(), lr=0.05)
    x = wg.randn((64, 8)).to("gpu")
    y = wg.sin(x.sum(axis=1, keepdims=True))
    wg.eval(x, y)

    def step() -> wg.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return net, step


def test_the_list_and_the_question_agree() -> None:
    assert wg.gpu.is_available() == bool(wg.gpu.devices())
    assert all(name.endswith(")") for name in wg.gpu.devices())


@pytest.mark.skipif(sys.platform != "linux", reason="how Vulkan finds its drivers")
def test_without_a_driver_there_is_none() -> None:
    said = in_a_process(
        "print(wg.gpu.is_available(), wg.gpu.devices()); wg.gpu.reset()", VK_DRIVER_FILES="/nonexistent"
    )
    assert said == "False []"


@needs_gpu
def test_the_environment_puts_one_first() -> None:
    last = wg.gpu.devices()[-1]
    assert in_a_process("print(wg.gpu.devices()[0])", WENGERT_GPU=last) == last
    assert in_a_process("print(len(wg.gpu.devices()))", WENGERT_GPU="no such name") == str(len(wg.gpu.devices()))


def test_importing_the_package_asks_no_driver() -> None:
    said = in_a_process("print(sorted(name for name in __import__('sys').modules if name == 'wengert.gpu'))")
    assert said == "[]"


@needs_gpu
def test_a_lost_gpu_says_so_until_reset() -> None:
    program = """
_core.testing_gpu("lose", 0)
try:
    _core.testing_gpu("lose", 0)
except wg.DeviceLostError as error:
    assert "wg.gpu.reset()" in str(error)
    print("lost")
wg.gpu.reset()
_core.testing_gpu("lose", 0)
print(wg.gpu.is_available())
"""
    assert in_a_process(program) == "lost\nTrue"


@needs_gpu
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_no_gpu_once_the_parent_had_one() -> None:
    program = """
def child():
    number = os.fork()
    if number == 0:
        try:
            wg.gpu.reset()
            told = 0
        except wg.DeviceError as error:
            told = 1 if "spawn" in str(error) else 2
        os._exit(10 * wg.gpu.is_available() + told)
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])

wg.gpu.devices()
print(child())
try:
    _core.testing_gpu("lose", 0)
finally:
    wg.gpu.reset()
print(child())
"""
    assert in_a_process(program) == "10\n1"


def test_counters_are_numbers() -> None:
    names = ["submits", "dispatches", "reads", "pipelines", "bind_groups", "memory"]
    assert list(debug.gpu_counters()) == names
    assert all(count >= 0 for count in debug.gpu_counters().values())
    with pytest.raises(ValueError, match="behaviour"):
        _core.testing_gpu("explode", 1)  # type: ignore[arg-type]


@needs_gpu
def test_memory_that_ends_leaves_the_model_as_it_was() -> None:
    """Each allocation of a step fails once; the step after it is as if nothing had been."""
    _, expected = training()
    net, step = training()
    assert [step().item() for _ in range(3)] == [expected().item() for _ in range(3)]
    failures = 0
    for n in range(1, 100):
        before = [parameter.tolist() for parameter in net.parameters()]
        _core.testing_gpu("fail_allocation", n)
        try:
            step()
            break
        except MemoryError:
            failures += 1
        finally:
            _core.testing_gpu("fail_allocation", 0)
        assert [parameter.tolist() for parameter in net.parameters()] == before, n
    expected()
    assert failures > 3
    assert [step().item() for _ in range(3)] == [expected().item() for _ in range(3)]


@needs_gpu
def test_training_goes_on_after_a_loss_and_a_reset() -> None:
    program = """
def told(do, what):
    try:
        do()
    except wg.DeviceLostError as error:
        assert what in str(error), error
    else:
        raise AssertionError("nothing was raised")

w = wg.ones((3,)).to("gpu").requires_grad_()
saved = w.detach().to("cpu")
next_one, many = w.detach() + 1.0, wg.zeros((2000,), dtype=wg.int32, device="gpu")
empty = wg.ones((0, 2), device="gpu")
wg.eval(saved, many)
_core.testing_gpu("lose", 0)
for do in (w.tolist, lambda: (w + 1.0).tolist(), lambda: wg.ones((2,), device="gpu").tolist(), lambda: saved.to("gpu")):
    told(do, "wg.gpu.reset()")
shown = [w, f"{next_one}", many, empty]
assert [str(text) for text in shown] == [
    "tensor(lost, shape=(3,), device='gpu:0', requires_grad=True)",
    "tensor(lost, shape=(3,), device='gpu:0')",
    "tensor(lost, shape=(2000,), dtype=int32, device='gpu:0')",
    "tensor(lost, shape=(0, 2), device='gpu:0')",
]
wg.gpu.reset()
assert repr(w) == str(shown[0]) == "tensor(lost, shape=(3,), device='gpu:0', requires_grad=True)"
for do in (w.tolist, lambda: (w + 1.0).tolist(), lambda: w.detach().to("cpu").tolist()):
    told(do, "gone")
w = saved.to("gpu").requires_grad_()
(w * w).sum().backward()
print(w.grad.tolist(), saved.tolist())
"""
    assert in_a_process(program) == "[2.0, 2.0, 2.0] [1.0, 1.0, 1.0]"


@needs_gpu
def test_a_training_loop_holds_what_it_has() -> None:
    _, step = training()
    # Memory of earlier tests that came back in between would be used next.
    gc.collect()
    # Blocks take turns: after some steps they come round.
    for _ in range(20):
        step().item()
    before = debug.gpu_counters()
    for _ in range(50):
        step().item()
    after = debug.gpu_counters()
    assert after["reads"] == before["reads"] + 50
    assert after["dispatches"] > before["dispatches"]
    for name in ["pipelines", "bind_groups", "memory"]:
        assert after[name] == before[name], name


@needs_gpu
def test_threads_train_at_once() -> None:
    _, alone = training()
    expected = [alone().item() for _ in range(20)]
    steps = [training()[1] for _ in range(3)]
    losses: list[list[float]] = [[], [], []]

    def train(number: int) -> None:
        losses[number].extend(steps[number]().item() for _ in range(20))

    threads = [threading.Thread(target=train, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert losses == [expected] * 3


@needs_gpu
def test_memory_that_ends_is_told_by_op() -> None:
    x = wg.ones((4, 4), device="gpu")
    wg.eval(x)
    _core.testing_gpu("fail_allocation", 1)
    try:
        with pytest.raises(MemoryError, match=r"matmul: gpu: cannot allocate \d+ bytes"):
            wg.eval(x @ x)
    finally:
        _core.testing_gpu("fail_allocation", 0)
