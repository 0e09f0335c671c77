"""What the numbers were measured on."""

import os
import platform
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


def _cpu(field: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")
