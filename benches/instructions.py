"""Instructions of the tiny steps, counted by callgrind: a number that the noise of a machine does not move.

Run: python benches/instructions.py [--check] [--write]

Each entry runs in two lengths; the difference, by the steps between them, is what one step takes, Python included.
One thread; AVX2, because valgrind has no AVX-512. --write records the counts in instructions.json, --check holds them
against the file. Counts belong to one Python version and one compiler: --check says when they differ.
"""

import argparse
import gc
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_suffix(".json")
WARM, SHORT, LONG = 40, 100, 1100
REPEATS = 2
TOLERANCE = 0.03


def entries() -> dict[str, Callable[[], Callable[[], Any]]]:
    """What is counted: a name, and what makes its step."""
    return {
        "xor": lambda: _step("xor", "ordinary"),
        "xor compiled": lambda: _step("xor", "compiled"),
        "tabular": lambda: _step("tabular", "ordinary"),
        "tabular compiled": lambda: _step("tabular", "compiled"),
        "record an op": lambda: _add(read=False),
        "record, find the plan, run": lambda: _add(read=True),
        "an empty call": lambda: lambda: None,
    }


def _step(workload: str, mode: str) -> Callable[[], Any]:
    from step_wengert import make
    from workloads import WORKLOADS

    return make(WORKLOADS[workload], mode)


def _add(read: bool) -> Callable[[], Any]:
    import wengert as wg

    x = wg.ones((4, 8))
    wg.eval(x)
    return (lambda: wg.eval(x + 1.0)) if read else (lambda: x + x)


def child(name: str, steps: int) -> None:
    """What callgrind watches. The loop is counted too: "an empty call" says how much that is."""
    step = entries()[name]()
    gc.disable()
    for _ in range(WARM + steps):
        step()


def count(name: str, steps: int) -> int | None:
    """Instructions of a whole child; None if the entry does not exist in this build."""
    # One thread each, and no choice that depends on the process, so that two runs differ by their steps alone.
    fixed = {"WENGERT_NUM_THREADS": "1", "WENGERT_ISA": "avx2", "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, __file__]
    run = subprocess.run(
        ["setarch", "--addr-no-randomize", *command, "--child", name, str(steps)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | fixed,
        check=False,
    )
    if "NotImplementedError" in run.stderr:
        return None
    found = re.search(r"Collected : (\d+)", run.stderr)
    if run.returncode or not found:
        raise SystemExit(f"{name}: callgrind failed: {run.stderr[-2000:]}")
    return int(found[1])


def measure(name: str) -> dict[str, float] | None:
    """The median count of a step over the repeats, and how far they lie apart."""
    found = []
    for _ in range(REPEATS):
        short, long = count(name, SHORT), count(name, LONG)
        if short is None or long is None:
            return None
        found.append((long - short) / (LONG - SHORT))
    found.sort()
    return {"instructions": round(found[len(found) // 2], 1), "spread": round((found[-1] - found[0]) / found[0], 5)}


def setting() -> dict[str, str]:
    """What the counts belong to."""
    import step_wengert
    from machine import describe

    rust = subprocess.run(["rustc", "--version"], stdout=subprocess.PIPE, text=True, check=False).stdout.strip()
    valgrind = subprocess.run(["valgrind", "--version"], stdout=subprocess.PIPE, text=True, check=False).stdout.strip()
    machine = describe()
    return {
        "cpu": machine["cpu"],
        "isa": "avx2",
        "python": platform.python_version(),
        "rust": rust,
        "valgrind": valgrind,
        "wengert": step_wengert.VERSION,
    }


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help=f"fail if a count grew by more than {TOLERANCE:.0%}")
    parser.add_argument("--write", action="store_true", help=f"record the counts in {FILE.name}")
    parser.add_argument("--child", nargs=2, metavar=("NAME", "STEPS"))
    args = parser.parse_args()
    if args.child:
        child(args.child[0], int(args.child[1]))
        return
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        measured = dict(zip(entries(), pool.map(measure, entries()), strict=True))
    known = json.loads(FILE.read_text()) if FILE.exists() else {"setting": {}, "steps": {}}
    here, worse = setting(), []
    for name, result in measured.items():
        if result is None:
            print(f"{name:28} not in this build")
            continue
        before = known["steps"].get(name, {}).get("instructions")
        change = result["instructions"] / before - 1 if before else 0.0
        note = f"{change:+.1%} against {before:,.0f}" if before else "new"
        print(f"{name:28}{result['instructions']:>12,.0f}  spread {result['spread']:.2%}  {note}")
        if change > TOLERANCE:
            worse.append(name)
    if known["setting"] not in ({}, here):
        print(f"recorded with {known['setting']}, counted with {here}")
    if args.write:
        steps = {name: result for name, result in measured.items() if result}
        FILE.write_text(json.dumps({"setting": here, "steps": steps}, indent=1) + "\n")
    if args.check and worse:
        raise SystemExit(f"more instructions than recorded: {', '.join(worse)}")


if __name__ == "__main__":
    main()
