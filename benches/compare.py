"""Time the training steps of wengert against those of its peers, each in a process of its own, taking turns.

Run: python benches/compare.py [--quick] [--workloads xor,mnist] [--peers numpy,jax] [--memory] [--json FILE]
[--svg FILE] [--markdown FILE]
[--readme README.md]

A step is forward, backward, update and reading the loss as a number. All libraries start from the same parameters, see
the same batch and must agree on the loss after five steps. All may use every core. The peers prepare side by side; then
they take turns, so that noise hits all of them alike, and the median over the rounds counts. The first step of wengert
builds the plan and touches its working memory for the first time; there before it are the values of parameters and data
and the state of the optimizer, which is made with the optimizer.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from chart import svg
from machine import busy, describe
from peer import KINDS, Kind, Peer
from report import Result, absences, complaints, markdown, memory_rows, rows, summarize, text
from workloads import WORKLOADS

# Processes whose first step is timed.
STARTS = 3

# What --readme writes stands between these lines.
MARKS = ("<!-- benches/compare.py -->", "<!-- end of benches/compare.py -->")


def compare(name: str, kinds: list[Kind], rounds: int, seconds: float, memory: bool) -> Result:
    """One workload: the peers compile side by side; then wengert, whose first step is a number of its own, alone."""
    peers = [Peer(kind, name) for kind in kinds if not kind.ours]
    for peer in peers:
        peer.wait()
    for kind in kinds:
        if kind.ours:
            peers.append(_start(kind, name))
    others = [busy()]
    for _ in range(rounds):
        for peer in peers:
            peer.run(seconds)
    others.append(busy())
    for peer in peers:
        if memory:
            peer.weigh()
        peer.stop()
    return summarize(name, peers, max(others))


def _start(kind: Kind, name: str) -> Peer:
    """A process of ours, with the fastest first step of a few processes: other programs hit a single step hard."""
    first = Peer(kind, name)
    first.wait()
    for _ in range(0 if first.absent else STARTS - 1):
        again = Peer(kind, name)
        again.wait()
        again.stop()
        first.first_ms = min(first.first_ms, again.first_ms or first.first_ms)
    return first


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--peers", default="", help="modules: numpy,jax,torch,tinygrad,ferrotensor; all by default")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each library's turn")
    parser.add_argument("--quick", action="store_true", help="three short rounds")
    parser.add_argument("--memory", action="store_true", help="peak resident memory too")
    for output in ("json", "svg", "markdown"):
        parser.add_argument(f"--{output}", type=Path, metavar="FILE")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="put the tables between its marks")
    args = parser.parse_args()
    rounds, seconds = (3, 0.1) if args.quick else (args.rounds, args.seconds)
    wanted = args.peers.split(",") if args.peers else [kind.module for kind in KINDS]
    kinds = [kind for kind in KINDS if kind.ours or kind.module in wanted]

    start = time.perf_counter()
    results: dict[str, Result] = {}
    for name in args.workloads.split(","):
        results[name] = compare(name, kinds, rounds, seconds, args.memory)
        print(f"{name} done after {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    versions = {
        label: peer["version"] for r in results.values() for label, peer in r["peers"].items() if "version" in peer
    }
    machine = describe() | {"versions": versions}
    note = f"{machine['cpu']}, {machine['cores']} cores, {machine['isa']}; " + ", ".join(
        f"{label} {version}" for label, version in versions.items() if " compiled" not in label
    )
    tables = [rows(results)] + ([memory_rows(results)] if args.memory else [])
    print(note, *map(text, tables), *absences(results), *complaints(results), sep="\n")
    if args.json:
        args.json.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")
    if args.svg:
        args.svg.write_text(svg(results, note) + "\n")
    tables_and_note = "\n\n".join([*map(markdown, tables), f"Measured on: {note}."])
    if args.markdown:
        args.markdown.write_text(tables_and_note + "\n")
    if args.readme:
        before, rest = args.readme.read_text().split(MARKS[0])
        _, after = rest.split(MARKS[1])
        args.readme.write_text(f"{before}{MARKS[0]}\n{tables_and_note}\n{MARKS[1]}{after}")


if __name__ == "__main__":
    main()
