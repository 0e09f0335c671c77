"""Compiled steps beside threads, forks and signals; the same bits on any number of threads; no growth; failures."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import wengert as wg
import wengert.nn.functional as F
from wengert import _core, nn, optim

EXAMPLES = Path(__file__).parents[2] / "examples"
Step = Callable[..., Any]


def trainer(width: int = 16, batch: int = 8) -> tuple[nn.Module, Step]:
    """A model with everything that goes on from step to step, and its step."""
    wg.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, width), nn.BatchNorm1d(width), nn.Tanh(), nn.Dropout(0.1), nn.Linear(width, 3))
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    x = wg.sin(wg.arange(batch * 6).astype(wg.float32)).reshape(batch, 6)
    y = wg.arange(batch) % 3
    wg.eval(x, y)

    def step() -> wg.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    return model, step


def digest(model: nn.Module) -> str:
    """SHA-256 of all parameters and buffers."""
    total = hashlib.sha256()
    for tensor in [*model.parameters(), *model.buffers()]:
        total.update(tensor.detach().numpy().tobytes())
    return total.hexdigest()


def train(threads: int, compiled: bool) -> str:
    wg.set_num_threads(threads)
    model, step = trainer(width=512, batch=130)
    call = wg.compile(step) if compiled else step
    for _ in range(200):
        call()
    return digest(model)


def test_the_same_bits_on_any_number_of_threads() -> None:
    before = wg.get_num_threads()
    try:
        digests = {train(threads, True) for threads in (1, 2, 3, 4, 8, 8)}
        digests |= {train(threads, False) for threads in (1, 2, 8)}
    finally:
        wg.set_num_threads(before)
    assert len(digests) == 1


def resident() -> int:
    """Largest resident memory so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def test_a_compiled_loop_stays_level() -> None:
    call = wg.compile(trainer()[1])

    def level() -> tuple[int, int]:
        for _ in range(20_000):
            call().item()
        return _core.counters()["live_nodes"], resident()

    nodes, memory = level()
    later_nodes, later_memory = level()
    assert later_nodes == nodes
    assert later_memory - memory <= 128 << 10


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_the_traces_goes_back() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    wg.debug.clear_plan_cache()
    model = nn.Linear(2048, 2048)
    optimizer = optim.Adam(model.parameters())
    x = wg.ones((256, 2048))

    def step() -> wg.Tensor:
        optimizer.zero_grad()
        loss = (model(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(3):
        step().item()
    ordinary = resident()
    compiled = wg.compile(step)
    for _ in range(4):
        compiled().item()
    replayed = resident()
    assert "replayed 2 times" in str(compiled.explain())
    assert replayed < ordinary + model.weight.nbytes


def test_a_replay_records_nothing_and_looks_nothing_up() -> None:
    call = wg.compile(trainer()[1])
    for _ in range(5):
        call()
    before = _core.counters()
    for _ in range(100):
        call()
    after = _core.counters()
    assert (after["hits"], after["misses"], after["plans"]) == (before["hits"], before["misses"], before["plans"])


def test_other_threads_read_while_steps_run() -> None:
    """What a reader sees of a parameter is what some whole step left."""
    w = nn.Parameter(wg.zeros((4096,)))
    optimizer = optim.SGD([w], lr=1.0)

    @wg.compile
    def step() -> None:
        optimizer.zero_grad()
        (-w).sum().backward()
        optimizer.step()

    stop, seen, errors = threading.Event(), [0.0], []

    def reader() -> None:
        while not stop.is_set():
            values = set(w.detach().tolist())
            if len(values) != 1 or max(values) < seen[-1]:
                errors.append(values)
            seen.append(max(values))

    # A trace is refused if another thread computes a part of it.
    for _ in range(3):
        step()
    threads = [threading.Thread(target=reader)]
    [thread.start() for thread in threads]
    for _ in range(397):
        step()
    stop.set()
    [thread.join() for thread in threads]
    assert not errors
    assert len(seen) > 1
    assert set(w.tolist()) == {400.0}


def test_two_threads_call_one_compiled_function() -> None:
    compiled = wg.compile(lambda x: (x @ x).sum(axis=0))
    wrong = []

    def work(value: float) -> None:
        x = wg.full((64, 64), value)
        for _ in range(200):
            if set(compiled(x).tolist()) != {value * value * 64 * 64}:
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(float(i),)) for i in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not wrong


def in_child(work: Callable[[], int]) -> int:
    """Run in a forked child; what it returned, 254 if it raised, -14 if it hung."""
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            os._exit(work())
        finally:
            os._exit(254)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_between_steps() -> None:
    model, step = trainer()
    call = wg.compile(step)
    for _ in range(5):
        call()
    state = wg.random.get_rng_state()

    def go_on() -> int:
        for _ in range(5):
            call()
        return int(digest(model), 16) % 251

    code = in_child(go_on)
    assert wg.random.get_rng_state() == state
    assert go_on() == code


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_while_a_thread_steps() -> None:
    """The child may find parameters that were being written, but it never hangs, and other work goes on."""
    _, step = trainer()
    call = wg.compile(step)
    for _ in range(4):
        call()
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            call()

    thread = threading.Thread(target=work)
    thread.start()

    def go_on() -> int:
        with contextlib.suppress(wg.InternalError):
            call().item()
        return 0 if (wg.ones((8,)) * 2.0).sum().item() == 16.0 else 1

    codes = [in_child(go_on) for _ in range(10)]
    stop.set()
    thread.join()
    assert codes == [0] * 10


def forever(call: Step) -> None:
    while True:
        call()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers on this platform")
def test_ctrl_c_between_and_within_steps() -> None:
    """However the loop is stopped, parameters and states are those of some whole number of steps."""
    model, step = trainer(width=256, batch=512)
    call = wg.compile(step)
    for _ in range(4):
        call()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for i in range(6):
            signal.setitimer(signal.ITIMER_REAL, 0.002 + 0.005 * i)
            with pytest.raises(KeyboardInterrupt):
                forever(call)
            signal.setitimer(signal.ITIMER_REAL, 0)
            # Every parameter is whole: the next step runs on what is there.
            assert all(wg.all(wg.isfinite(p)).item() for p in model.parameters())
            call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_in_run_keeps_whole_steps() -> None:
    counts = wg.zeros(())

    @wg.compile
    def step(x: wg.Tensor) -> wg.Tensor:
        nonlocal counts
        counts += 1.0
        return (x @ x).sum()

    xs = wg.ones((400, 256, 256))
    step.run(xs[:3])
    thread = threading.Thread(target=lambda: (time.sleep(0.1), os.kill(os.getpid(), signal.SIGINT)))
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            forever(lambda: step.run(xs))
    finally:
        thread.join()
    done = counts.item()
    assert done == int(done) >= 1
    step(xs[0])
    assert counts.item() == done + 1


def test_a_failing_replay_leaves_everything() -> None:
    """Classes out of range fail before anything is written."""
    wg.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = optim.Adam(model.parameters(), lr=0.1)

    @wg.compile
    def step(x: wg.Tensor, y: wg.Tensor) -> wg.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    x, good, bad = wg.ones((2, 4)), wg.tensor([0, 2]), wg.tensor([0, 3])
    for _ in range(5):
        step(x, good)
    before = ([p.tolist() for p in model.parameters()], optimizer.state_dict()["state"][0]["step"])
    with pytest.raises(IndexError, match="3 is no class"):
        step(x, bad)
    assert before == ([p.tolist() for p in model.parameters()], optimizer.state_dict()["state"][0]["step"])
    step(x, good)
    assert optimizer.state_dict()["state"][0]["step"] == 6


def test_a_kernel_that_fails_in_the_second_plan() -> None:
    """The first barrier stands, the second one did not happen: as in ordinary code."""
    results = []
    for compiled in (False, True):
        a, b = nn.Parameter(wg.zeros((3,))), nn.Parameter(wg.zeros((3,)))
        first, second = optim.SGD([a], lr=1.0), optim.SGD([b], lr=1.0)
        step = two_barriers(a, b, first, second)
        call = wg.compile(step) if compiled else step
        for _ in range(5):
            call(wg.tensor([0, 1]))
        with pytest.raises(IndexError):
            call(wg.tensor([0, 7]))
        results.append((a.tolist(), b.tolist()))
        call(wg.tensor([0, 1]))
        results[-1] += (a.tolist(), b.tolist())
    assert results[0] == results[1]
    assert results[0][0] == [-6.0] * 3
    assert results[0][1] == [-5.0, -5.0, 0.0]


def two_barriers(a: wg.Tensor, b: wg.Tensor, first: optim.Optimizer, second: optim.Optimizer) -> Step:
    def step(indices: wg.Tensor) -> None:
        first.zero_grad()
        a.sum().backward()
        first.step()
        second.zero_grad()
        wg.take(b, indices, axis=0).sum().backward()
        second.step()

    return step


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def loop_of_a_classifier(name: str, optimizer_of: Callable[[Any], optim.Optimizer]) -> Callable[[bool], str]:
    """The training loop of an example on digits, one epoch of it."""

    def loop(compiled: bool) -> str:
        module = example(name)
        wg.manual_seed(0)
        train_x, train_y, _, _ = module.load_digits()
        shape = getattr(module, "pictures", lambda x: x)
        model = module.build()
        optimizer = optimizer_of(model.parameters())

        def step(rows: wg.Tensor) -> wg.Tensor:
            x, y = shape(wg.take(train_x, rows, axis=0)), wg.take(train_y, rows, axis=0)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        call = wg.compile(step) if compiled else step
        for first in range(0, 1400, module.BATCH):
            call(wg.arange(first, first + module.BATCH))
        return digest(model)

    return loop


def loop_of_xor(compiled: bool) -> str:
    module = example("xor")
    wg.manual_seed(0)
    x = wg.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    y = wg.tensor([[0.0], [1.0], [1.0], [0.0]])
    net = module.Net()
    optimizer = optim.SGD(net.parameters(), lr=0.5, momentum=0.9)

    def step() -> wg.Tensor:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    call = wg.compile(step) if compiled else step
    for _ in range(301):
        call()
    return digest(net)


def loop_of_custom_gradient(compiled: bool) -> str:
    module = example("custom_gradient")
    inputs, wanted = wg.tensor([0.1, 0.4, 0.7, 0.9]), wg.tensor([0.0, 0.0, 1.0, 1.0])
    threshold = nn.Parameter(wg.tensor(-0.5))

    def step() -> wg.Tensor:
        loss = ((module.step(inputs - threshold) - wanted) ** 2).mean()
        threshold.grad = None
        loss.backward()
        assert threshold.grad is not None
        with wg.no_grad():
            threshold.copy_(threshold - 0.1 * threshold.grad)
        return loss

    call = wg.compile(step) if compiled else step
    trail = [call().item() for _ in range(50)]
    return f"{trail} {threshold.item()}"


def loop_of_gpt(compiled: bool) -> str:
    """The example trains as it is read: its definitions alone, then its loop."""
    names: dict[str, Any] = {}
    definitions, _, _ = (EXAMPLES / "gpt.py").read_text().partition("wg.manual_seed(0)")
    exec(compile(definitions, "gpt.py", "exec"), names)
    letters, tokens, block = names["letters"], names["tokens"], names["BLOCK"]
    wg.manual_seed(0)
    model = names["GPT"]()
    optimizer = optim.AdamW(model.parameters(), lr=3e-3)

    def step() -> wg.Tensor:
        places = wg.randint(0, len(names["TEXT"]) - block - 1, (16, 1)) + wg.arange(block + 1)
        batch = wg.take(tokens, places)
        loss = F.cross_entropy(model(batch[:, :-1]).reshape((-1, len(letters))), batch[:, 1:].reshape((-1,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    call = wg.compile(step) if compiled else step
    for _ in range(30):
        call()
    return digest(model)


LOOPS = {
    "gpt": loop_of_gpt,
    "xor": loop_of_xor,
    "custom_gradient": loop_of_custom_gradient,
    "digits": loop_of_a_classifier("digits", lambda p: optim.AdamW(p, lr=2e-3)),
    "convolution": loop_of_a_classifier("convolution", lambda p: optim.Adam(p, lr=3e-3)),
}


@pytest.mark.parametrize("name", LOOPS)
def test_the_loops_of_the_examples(name: str) -> None:
    assert LOOPS[name](True) == LOOPS[name](False)


def test_every_example_that_trains_is_among_them() -> None:
    training = {path.stem for path in EXAMPLES.glob("*.py") if "backward()" in path.read_text()}
    assert training - {"second_order"} <= set(LOOPS)
