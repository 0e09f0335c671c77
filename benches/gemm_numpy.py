"""Our matrix products beside those of NumPy's OpenBLAS, in one run, against the bars.

Run: python benches/gemm_numpy.py [--json FILE]

Four processes take turns: each library on one thread and on two. For a layer (batch, from, to) the three products are
the forward one (nn), the gradient of the input (nt) and that of the weight (tn); transposed operands are views. The
least time of all turns counts. NumPy's time holds its call from Python, about 0.5 us.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Layer = tuple[int, int, int, int]  # products in a batch, then batch, from, to of the layer
SQUARES: list[Layer] = [(1, n, n, n) for n in (64, 128, 256, 512, 1024, 2048)]
LAYERS: list[Layer] = [
    *[(1, *layer) for layer in ((32, 32, 64), (32, 64, 64), (64, 784, 128), (128, 784, 512), (128, 512, 512))],
    (1, 256, 2048, 2048),
    (48, 64, 32, 64),
]
FORMS = ("nn", "nt", "tn")
THREADS = (1, 2)


def bar(dtype: str, layer: Layer, form: str) -> float:
    """The least ratio of our speed to NumPy's on one thread; 0 where none is set."""
    count, rows, inner, _ = layer
    if dtype == "f64":
        return 0.0 if layer not in SQUARES else 0.93 if rows <= 256 else 0.85
    if count > 1:
        return 1.3 if form == "nt" else 0.9
    if layer in SQUARES:
        return (1.2 if form == "nt" else 1.05) if rows <= 128 else 0.95 if rows <= 512 else 0.9
    if rows == 32:
        return 1.6 if form == "nt" else 1.2
    return 0.9 if inner == 2048 else 1.1 if form == "nt" else 1.0


def scaling_bar(layer: Layer) -> float:
    """The least ratio of our speed on two threads to that on one."""
    smallest = min(layer[1:])
    return 0.95 if layer not in SQUARES or smallest < 256 else 1.4 if smallest == 256 else 1.6


def sizes(layer: Layer, form: str) -> tuple[int, int, int, int]:
    """(products, m, k, n)."""
    count, rows, inner, columns = layer
    shapes = {"nn": (rows, inner, columns), "nt": (rows, columns, inner), "tn": (inner, rows, columns)}
    return (count, *shapes[form])


def serve() -> None:
    """NumPy's side: answer each line `DTYPE FORM BATCH M K N SECONDS` with the least seconds of a product."""
    import numpy as np

    def operand(count: int, rows: int, columns: int, dtype: str, transposed: bool) -> Any:
        shape = (count, columns, rows) if transposed else (count, rows, columns)
        x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
        x = x.swapaxes(1, 2) if transposed else x
        return x if count > 1 else x[0]

    for line in sys.stdin:
        dtype, form, *numbers, seconds = line.split()
        count, m, k, n = map(int, numbers)
        kind = "float32" if dtype == "f32" else "float64"
        a, b = operand(count, m, k, kind, form == "tn"), operand(count, k, n, kind, form == "nt")
        c = a @ b

        def product(a: Any = a, b: Any = b, c: Any = c) -> None:
            np.matmul(a, b, out=c)

        print(least(product, float(seconds)), flush=True)


def least(product: Callable[[], None], seconds: float) -> float:
    """The least time over bursts of at least 0.2 ms."""
    product()
    start = time.perf_counter()
    product()
    calls = max(1, math.ceil(200e-6 / max(time.perf_counter() - start, 1e-9)))
    begin, best = time.perf_counter(), math.inf
    while best == math.inf or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        for _ in range(calls):
            product()
        best = min(best, (time.perf_counter() - start) / calls)
    return best


class Side:
    """One library with a number of threads, in a process of its own."""

    def __init__(self, command: list[str], threads: int) -> None:
        pins = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
        env = {key: value for key, value in os.environ.items() if key not in pins}
        env |= {"OPENBLAS_NUM_THREADS": str(threads), "WENGERT_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, bufsize=1
        )

    def time(self, request: str) -> float:
        """The least seconds of a product."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(request, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


def kernels() -> str:
    """Builds the Rust benches and returns the path of the program."""
    command = ["cargo", "bench", "--locked", "--bench", "kernels", "--no-run", "--message-format=json"]
    built = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parent)
    paths = [json.loads(line).get("executable") for line in built.stdout.splitlines()]
    program: str = next(path for path in reversed(paths) if path)
    return program


def compare(rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Every product on both sides."""
    program = kernels()
    ours = {threads: Side([program, "serve"], threads) for threads in THREADS}
    theirs = {threads: Side([sys.executable, __file__, "--serve"], threads) for threads in THREADS}
    out = []
    for dtype, layers in (("f32", SQUARES + LAYERS), ("f64", SQUARES[:5] + LAYERS)):
        for layer in layers:
            for form in FORMS:
                count, m, k, n = sizes(layer, form)
                request = f"{dtype} {form} {count} {m} {k} {n} {seconds}"
                times: dict[Any, float] = {}
                for _ in range(rounds):
                    for name, sides in (("ours", ours), ("numpy", theirs)):
                        for threads, side in sides.items():
                            key = name, threads
                            times[key] = min(times.get(key, math.inf), side.time(request))
                flops = 2e-9 * count * m * k * n
                out.append(
                    {
                        "product": f"{dtype} {form} {count} x ({m}, {k}, {n})",
                        "gflops": {f"{name} {threads}": flops / s for (name, threads), s in times.items()},
                        "ratio": times["numpy", 1] / times["ours", 1],
                        "bar": bar(dtype, layer, form),
                        "ratio_2": times["numpy", 2] / times["ours", 2],
                        "scaling": times["ours", 1] / times["ours", 2],
                        "scaling_bar": scaling_bar(layer),
                    }
                )
                show(out[-1])
    return out


def show(row: dict[str, Any]) -> None:
    """One line of the table."""
    speeds = "".join(f"{row['gflops'][key]:9.1f}" for key in ("ours 1", "numpy 1", "ours 2", "numpy 2"))
    met = row["ratio"] >= row["bar"]
    wanted = f"{row['bar']:.2f} {'met' if met else 'MISSED'}" if row["bar"] else "-"
    scaled = "met" if row["scaling"] >= row["scaling_bar"] else "MISSED"
    print(
        f"{row['product']:32}{speeds}{row['ratio']:8.2f} {wanted:12}{row['ratio_2']:7.2f}"
        f"{row['scaling']:9.2f} {row['scaling_bar']:.2f} {scaled}",
        flush=True,
    )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.02, help="of each turn")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", action="store_true", help="NumPy's side")
    args = parser.parse_args()
    if args.serve:
        serve()
        return
    print(
        f"{'GFLOP/s':32}{'ours 1':>9}{'numpy 1':>9}{'ours 2':>9}{'numpy 2':>9}{'ratio 1':>8} {'bar':12}"
        f"{'ratio 2':>7}{'ours 2/1':>9} bar"
    )
    rows = compare(args.rounds, args.seconds)
    missed = [row for row in rows if row["ratio"] < row["bar"] or row["scaling"] < row["scaling_bar"]]
    print(f"{len(missed)} of {len(rows)} products miss a bar")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
