"""Fork, Ctrl-C, and eight threads at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings

import pytest

import wengert as wg
from wengert import _core, nn, optim


def python(program: str) -> str:
    command = [sys.executable, "-P", "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_child_computes_after_a_fork() -> None:
    out = python(
        """
        import os, wengert as wg
        x = wg.ones((512, 512))
        before = (x @ x).sum().item()          # the pool has threads now
        pending = x * 2.0                      # recorded before, computed in both
        child = os.fork()
        if child == 0:
            ok = pending.sum().item() == 2 * 512 * 512 and (x @ x).sum().item() == before
            os._exit(0 if ok else 1)
        _, status = os.waitpid(child, 0)
        assert pending.sum().item() == 2 * 512 * 512
        print(os.waitstatus_to_exitcode(status))
        """
    )
    assert out.strip() == "0"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_fork_while_other_threads_compute() -> None:
    out = python(
        """
        import os, threading, warnings, wengert as wg
        warnings.simplefilter("ignore")        # Python warns of threads at a fork
        stop = False
        def work():
            while not stop:
                (wg.ones((64, 64)) @ wg.ones((64, 64))).sum().item()
        threads = [threading.Thread(target=work) for _ in range(2)]
        [t.start() for t in threads]
        codes = []
        for _ in range(5):
            child = os.fork()
            if child == 0:
                os._exit(0 if (wg.ones((32, 32)) @ wg.ones((32, 32))).sum().item() == 32.0**3 else 1)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        stop = True
        [t.join() for t in threads]
        print(codes)
        """
    )
    assert out.strip() == "[0, 0, 0, 0, 0]"


@pytest.mark.skipif(sys.platform == "win32", reason="signals are different there")
@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_stops_within_200_ms() -> None:
    delays = []
    for _ in range(3):
        y = _core.testing_op(wg.tensor([1.0]), "sleep", 5.0)
        sent = []

        def interrupt(sent: list[float] = sent) -> None:
            time.sleep(0.15)
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            y.tolist()
        delays.append(time.perf_counter() - sent[0])
        thread.join()
    assert min(delays) < 0.2


@pytest.mark.usefixtures("interruptible")
def test_work_goes_on_after_ctrl_c() -> None:
    w = wg.tensor([1.0]).requires_grad_()
    optimizer = optim.SGD([w], lr=0.5)
    loss = _core.testing_op(w * 1.0, "sleep", 5.0).sum()
    loss.backward()
    thread = threading.Thread(target=lambda: (time.sleep(0.1), os.kill(os.getpid(), signal.SIGINT)))
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        optimizer.step()
    thread.join()
    assert w.tolist() == [1.0]
    del loss
    w.grad = None
    (w * 1.0).sum().backward()
    optimizer.step()
    assert w.tolist() == [0.5]


def test_evaluation_lets_other_threads_run() -> None:
    ticks = 0
    done = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not done.is_set():
            ticks += 1
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    _core.testing_op(wg.tensor([1.0]), "sleep", 0.2).tolist()
    done.set()
    thread.join()
    assert ticks > 20


def in_threads(count: int, body) -> list[object]:  # type: ignore[no-untyped-def]
    results: list[object] = [None] * count

    def run(i: int) -> None:
        try:
            results[i] = body(i)
        except BaseException as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def test_eight_threads_train_alone() -> None:
    def train(i: int) -> list[float]:
        w = wg.tensor([1.0, -1.0]).requires_grad_()
        optimizer = optim.Adam([w], lr=0.1)
        for _ in range(30):
            optimizer.zero_grad()
            (w * w).sum().backward()
            optimizer.step()
        return w.tolist()

    results = in_threads(8, train)
    assert all(result == results[0] for result in results)


def test_eight_threads_read_one_pending_value() -> None:
    for _ in range(10):
        x = wg.ones((64, 64))
        shared = wg.tanh(x @ x * 0.01)
        heads = [shared.sum() * float(i) for i in range(8)]
        values = in_threads(8, lambda i, heads=heads: heads[i].item())
        assert values[1] is not None
        assert [v / max(i, 1) for i, v in enumerate(values)][1:] == pytest.approx([values[1]] * 7, rel=1e-6)  # type: ignore[operator]


def test_eight_threads_call_one_model() -> None:
    model, x = nn.Linear(16, 4), wg.ones((2, 16))
    expected = model(x).tolist()
    assert all(r == expected for r in in_threads(8, lambda i: [model(x).tolist() for _ in range(20)][-1]))


def test_modes_are_per_thread() -> None:
    with wg.no_grad(), wg.eager():
        assert in_threads(1, lambda i: (wg.is_grad_enabled(), wg.is_eager())) == [(True, False)]


def test_a_failure_in_one_thread_reaches_who_waits() -> None:
    bad = _core.testing_op(wg.tensor([1.0]), "fail") + 1.0
    errors = []

    def read(i: int) -> None:
        try:
            bad.tolist()
        except ValueError as error:
            errors.append(str(error))

    in_threads(4, read)
    assert len(errors) == 4


def test_multiprocessing_by_fork() -> None:
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this platform")
    import multiprocessing

    (wg.ones((256, 256)) @ wg.ones((256, 256))).sum().item()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(_double, [1.0, 2.0, 3.0]) == [2.0, 4.0, 6.0]


def _double(value: float) -> float:
    return float((wg.tensor(value) * 2.0).item())
