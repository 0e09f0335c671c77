"""One library on one workload in a process of its own: the child answers lines of JSON, the parent holds its handle."""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workloads import WORKLOADS

# A step that takes longer is timed once, in the check of the losses.
SLOW_SECONDS = 1.0
CHECKED_STEPS = 5
# The threads of NumPy's BLAS look out for work for 0.1 s after its import and after each product, on the cores that the
# next one needs: longer than that until a step is timed.
SETTLE_SECONDS = 0.2
# Warm steps whose memory is measured; of slow ones fewer, for these seconds.
MEMORY_STEPS, MEMORY_SECONDS = 10, 4.0


@dataclass(frozen=True)
class Kind:
    """A column of the table: the module step_<module>.py, and how it is asked to run."""

    label: str
    module: str
    mode: str = ""

    @property
    def ours(self) -> bool:
        """Whether this is the library that is measured, not a peer."""
        return self.module == "wengert"


KINDS = (
    Kind("numpy", "numpy"),
    Kind("jax jit", "jax"),
    Kind("torch", "torch", "eager"),
    Kind("torch compiled", "torch", "compiled"),
    Kind("tinygrad jit", "tinygrad"),
    Kind("ferrotensor", "ferrotensor"),
    Kind("wengert", "wengert", "ordinary"),
    Kind("wengert compiled", "wengert", "compiled"),
    Kind("wengert checkpoint", "wengert", "checkpoint"),
)


def serve(module: str, mode: str, name: str) -> None:
    """The child: make the step, report the first losses, then answer each request until standard input ends."""
    requests = sys.stdin
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not mix with the answers

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    try:
        library = importlib.import_module(f"step_{module}")
        imported = _resident("VmRSS")
        step = library.make(WORKLOADS[name], *([mode] if mode else []))
    except (ImportError, NotImplementedError) as error:
        answer(absent=str(error))
        return
    time.sleep(SETTLE_SECONDS)
    losses, seconds = [], []
    for _ in range(CHECKED_STEPS):
        start = time.perf_counter()
        losses.append(step())
        seconds.append(time.perf_counter() - start)
    answer(version=library.VERSION, losses=losses, first_ms=seconds[0] * 1e3, us=seconds[-1] * 1e6)
    for line in requests:
        request = json.loads(line)
        if "memory" in request:
            answer(**_memory(step, imported, seconds[-1]))
        else:
            answer(us=_time(step, request["seconds"], seconds[-1]))


def _time(step: Any, seconds: float, estimate: float) -> float:
    """Microseconds a step, after some time unmeasured, in which the processes before this one fall asleep."""
    burst = max(1, min(256, int(0.002 / estimate)))
    for limit in (SETTLE_SECONDS, seconds):
        steps, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < limit or not steps:
            for _ in range(burst):
                step()
            steps += burst
    return elapsed / steps * 1e6


def _memory(step: Any, imported: int, estimate: float) -> dict[str, float]:
    """MiB above what the process held after its imports: in all until now, and in some steps once all is warm."""
    whole = _resident("VmHWM")
    try:
        Path("/proc/self/clear_refs").write_text("5")  # starts a new high-water mark
    except OSError:
        return {"peak_mib": (whole - imported) / 1024}
    for _ in range(max(2, min(MEMORY_STEPS, int(MEMORY_SECONDS / estimate)))):
        step()
    steady = _resident("VmHWM")
    return {"peak_mib": (max(whole, steady) - imported) / 1024, "steady_mib": (steady - imported) / 1024}


def _resident(field: str) -> int:
    """A line of the process's status, in KiB; 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


@dataclass
class Peer:
    """The parent's side of one child."""

    kind: Kind
    workload: str
    absent: str = ""
    slow: bool = False
    version: str = ""
    losses: list[float] = field(default_factory=list)
    first_ms: float = 0.0
    times: list[float] = field(default_factory=list)
    memory: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Start the child; `wait` collects its first answer."""
        # These two pin OpenBLAS to another machine's kernel: each library shall choose its own.
        pins = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed by stop)
        self.process = subprocess.Popen(
            [sys.executable, __file__, self.kind.module, self.kind.mode, self.workload],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={key: value for key, value in os.environ.items() if key not in pins},
        )

    def wait(self) -> None:
        """Until the first steps are done."""
        answer = self._read()
        self.absent = answer.get("absent", "")
        if not self.absent:
            self.version, self.losses, self.first_ms = answer["version"], answer["losses"], answer["first_ms"]
            self.slow = answer["us"] > SLOW_SECONDS * 1e6
            self.times = [answer["us"]] if self.slow else []

    def run(self, seconds: float) -> None:
        """Time one batch of steps, unless the peer is absent or too slow for more than its first steps."""
        if not (self.absent or self.slow):
            answer = self._ask(seconds=seconds)
            self.absent = answer.get("absent", "")
            self.times += [answer["us"]] if "us" in answer else []

    def weigh(self) -> None:
        """Measure the memory."""
        if not self.absent:
            answer = self._ask(memory=True)
            self.absent = answer.pop("absent", "")
            self.memory = answer

    def stop(self) -> None:
        """End the child."""
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait()
        self.errors.close()

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        self.errors.seek(0)
        error = self.errors.read().strip().splitlines()
        return {"absent": error[-1] if error else "stopped without a word"}


if __name__ == "__main__":
    serve(*sys.argv[1:])
