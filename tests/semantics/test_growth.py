"""Loops that run for ever must not grow: nodes, plans and memory stay level."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable

import pytest

import wengert as wg
from wengert import _core, nn, optim


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def training() -> Callable[[], object]:
    net, x, y = model(), wg.ones((8, 4)), wg.zeros((8, 1))
    optimizer = optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)

    def step() -> object:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(net(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def evaluation() -> Callable[[], object]:
    net, x = model(), wg.ones((8, 4))
    return lambda: net(x).tolist()


def recurrence() -> Callable[[], object]:
    cell, state = nn.Linear(4, 4), [wg.zeros((1, 4))]

    def step() -> None:
        with wg.no_grad():
            state[0] = wg.tanh(cell(state[0]))

    return step


def gradients() -> Callable[[], object]:
    net, x = model(), wg.ones((8, 4))

    def step() -> None:
        net.zero_grad()
        net(x).sum().backward()

    return step


def running_sum() -> Callable[[], object]:
    net, x, total = model(), wg.ones((8, 4)), [wg.tensor(0.0)]

    def step() -> None:
        total[0] = total[0] + net(x).sum().detach()

    return step


def resident() -> int:
    """Largest resident memory so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


LOOPS = [training, evaluation, recurrence, gradients, running_sum]


@pytest.mark.parametrize("loop", LOOPS, ids=lambda f: f.__name__)
def test_a_loop_stays_level(loop: Callable[[], Callable[[], object]]) -> None:
    step = loop()

    def level() -> tuple[int, int]:
        for _ in range(20_000):
            step()
        wg.eval()
        return _core.counters()["live_nodes"], resident()

    level()
    level()
    nodes, memory = level()
    later_nodes, later_memory = level()
    # A pending tail may be cut anywhere below the limit of pending nodes.
    assert later_nodes <= nodes + 8_200
    assert later_memory - memory <= 128 << 10


MEMORY = """
import sys
import numpy as np
import wengert as wg
from wengert import nn, optim

# Once a large block has gone, glibc takes blocks of its size from the heap.
del [np.ones(2**22, np.float32)][:]

def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096 / 2**20

before = resident()
sizes = [1024, 2048, 2048, 2048, 1024]
net = nn.Sequential(*[layer for i, o in zip(sizes, sizes[1:]) for layer in (nn.Linear(i, o), nn.GELU())])
optimizer = optim.Adam(net.parameters(), lr=1e-3)
x = wg.ones((128, 1024))

def step():
    optimizer.zero_grad()
    loss = net(x).square().mean()
    loss.backward()
    optimizer.step()
    return loss

if sys.argv[1] == "compiled":
    step = wg.compile(step)
for _ in range(5):
    step().item()
print(resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_compiled_step_gives_back_what_its_traces_held() -> None:
    def measured(mode: str) -> float:
        command = [sys.executable, "-P", "-c", MEMORY, mode]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert measured("compiled") < 1.25 * measured("ordinary")


def test_a_training_loop_holds_no_nodes_between_steps() -> None:
    step = training()
    for _ in range(3):
        step()
    before = _core.counters()["live_nodes"]
    for _ in range(50):
        step()
    assert _core.counters()["live_nodes"] == before


def test_plans_are_bounded_in_bytes() -> None:
    """A new shape each time makes a new plan each time; old ones go."""
    for n in range(1, 3000):
        (wg.ones((n,)) * 2.0).sum().item()
    cache = wg.debug.plan_cache()
    assert cache["bytes"] < 256 << 20
