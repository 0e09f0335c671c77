"""Time the training steps of wengert against those of its peers, each in a process of its own, taking turns.

Run: python benches/compare.py [--workloads xor,mnist] [--rounds 5] [--seconds 0.4] [--json FILE]

Prints the median time of a step for each library and its ratio to NumPy written by hand in the same run. One process a
library stays alive for the whole run and is asked in turn for a batch of steps, so that noise hits all of them alike.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from workloads import WORKLOADS

PEERS = ("numpy", "wengert")


def serve(peer: str, name: str) -> None:
    """Answer each line "SECONDS" on standard input with the time of one step in microseconds."""
    step = importlib.import_module(f"step_{peer}").make(WORKLOADS[name])
    first = time.perf_counter()
    loss = step()
    first = time.perf_counter() - first
    if loss != loss:
        raise SystemExit(f"{peer}: the loss of {name} is NaN")
    print(json.dumps({"first_ms": first * 1e3}), flush=True)
    for line in sys.stdin:
        seconds, steps = float(line), 0
        start = time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds:
            for _ in range(8):
                step()
            steps += 8
        print(json.dumps({"us": elapsed / steps * 1e6}), flush=True)


class Peer:
    """One library on one workload, in its own process."""

    def __init__(self, peer: str, name: str) -> None:
        command = [sys.executable, __file__, "--serve", peer, name]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent, env=os.environ
        )
        self.first_ms: float = self.read()["first_ms"]
        self.times: list[float] = []

    def read(self) -> dict[str, float]:
        """The next answer."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a peer stopped without an answer")
        answer: dict[str, float] = json.loads(line)
        return answer

    def run(self, seconds: float) -> None:
        """Time one batch of steps."""
        assert self.process.stdin is not None
        print(seconds, file=self.process.stdin, flush=True)
        self.times.append(self.read()["us"])

    def stop(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def compare(name: str, rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """Medians of each peer on one workload."""
    peers = {peer: Peer(peer, name) for peer in PEERS}
    for _ in range(rounds):
        for peer in peers.values():
            peer.run(seconds)
    for peer in peers.values():
        peer.stop()
    base = statistics.median(peers["numpy"].times)
    return {
        label: {
            "us": statistics.median(peer.times),
            "ratio": statistics.median(peer.times) / base,
            "first_ms": peer.first_ms,
        }
        for label, peer in peers.items()
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.4)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", nargs=2, metavar=("PEER", "WORKLOAD"))
    args = parser.parse_args()
    if args.serve:
        serve(*args.serve)
        return
    results = {}
    print(f"{'workload':12}{'numpy us':>12}{'wengert us':>12}{'ratio':>8}{'first step ms':>16}")
    for name in args.workloads.split(","):
        result = compare(name, args.rounds, args.seconds)
        results[name] = result
        ours, base = result["wengert"], result["numpy"]
        print(f"{name:12}{base['us']:12.1f}{ours['us']:12.1f}{ours['ratio']:8.2f}{ours['first_ms']:16.2f}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
