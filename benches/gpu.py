"""Each training step on the GPU beside the CPU: losses, kernels and submissions a step, and time.

python benches/gpu.py [--steps N] [--modes ordinary,compiled] [workload ...]
"""

import argparse
import statistics
import time

from step_wengert import make
from workloads import WORKLOADS

import wengert as wg


def losses(step, count: int) -> tuple[list[float], float]:
    """The losses of so many steps, and the median seconds of those after the first three."""
    made, times = [], []
    for _ in range(count):
        start = time.perf_counter()
        made.append(step())
        times.append(time.perf_counter() - start)
    return made, statistics.median(times[3:] or times)


def main() -> None:
    """Prints one row for each workload and mode."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10, help="steps of each run")
    parser.add_argument("--modes", default="ordinary,compiled", help="ordinary, compiled")
    parser.add_argument("workloads", nargs="*", help=f"of {', '.join(WORKLOADS)}; all of them")
    arguments = parser.parse_args()
    if not wg.gpu.is_available():
        raise SystemExit("no GPU was found")
    print(wg.gpu.devices()[0])
    print("| step | loss, CPU | loss, GPU | largest difference | kernels | submissions | ms, CPU | ms, GPU |")
    print("|---|---|---|---|---|---|---|---|")
    for name in arguments.workloads or WORKLOADS:
        for mode in arguments.modes.split(","):
            row(name, mode, arguments.steps)


def row(name: str, mode: str, steps: int) -> None:
    """One row: the same steps on both."""
    cpu, cpu_time = losses(make(WORKLOADS[name], mode), steps)
    step = make(WORKLOADS[name], mode, "gpu")
    gpu, gpu_time = losses(step, steps)
    before = wg.debug.gpu_counters()
    step()
    after = wg.debug.gpu_counters()
    kernels, submits = (after[key] - before[key] for key in ("dispatches", "submits"))
    apart = max(abs(x - y) / max(abs(x), 1e-6) for x, y in zip(cpu, gpu, strict=True))
    print(
        f"| {name}, {mode} | {cpu[-1]:.6f} | {gpu[-1]:.6f} | {apart:.1e} | {kernels} | {submits} | "
        f"{cpu_time * 1e3:.2f} | {gpu_time * 1e3:.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
