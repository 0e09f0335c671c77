"""What the numbers were measured on."""

import os
import platform
import time
from pathlib import Path


def describe() -> dict[str, str]:
    """The processor, its cores and widest instruction set, the system and the interpreter."""
    return {
        "cpu": _cpu("model name") or platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "isa": next((name for name in ("avx512f", "avx2", "sse2") if name in _cpu("flags").split()), "unknown"),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def busy(seconds: float = 0.5) -> float:
    """The share of the cores that is in use while this process sleeps; 0 where the system does not say."""
    before = _jiffies()
    time.sleep(seconds)
    idle, total = (after - start for after, start in zip(_jiffies(), before, strict=True))
    return 1 - idle / total if total else 0.0


def _jiffies() -> tuple[int, int]:
    """Idle and all ticks of all cores since the start."""
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except OSError:
        return 0, 0
    return ticks[3] + ticks[4], sum(ticks)


def _cpu(field: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")
