"""The list of GPUs, loss and forks. Where there is no GPU, real or software, what needs one is skipped."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import wengert as wg
from wengert import _core, debug

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
