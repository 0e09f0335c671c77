"""What the measurements say: ratios, verdicts against the targets, and the table as text and as Markdown."""

import statistics
from typing import Any

from peer import KINDS
from workloads import TARGETS

# Losses after the same steps differ by rounding alone; another rule or another loss differs by far more.
LOSS_TOLERANCE = 1e-4
# Of the cores, used by other programs: from here on ratios mean little, for libraries bear a lack of cores differently.
BUSY_TOLERANCE = 0.1

Result = dict[str, Any]


def summarize(name: str, peers: list[Any], busy: float) -> Result:
    """One workload: medians, losses and verdicts. A peer without times says why."""
    columns: dict[str, Result] = {}
    for peer in peers:
        if peer.absent or not peer.times:
            columns[peer.kind.label] = {"absent": peer.absent or "no time"}
            continue
        columns[peer.kind.label] = {
            "us": statistics.median(peer.times),
            "times_us": peer.times,
            "first_ms": peer.first_ms,
            "losses": peer.losses,
            "version": peer.version,
            **peer.memory,
        }
    present = {label: column for label, column in columns.items() if "us" in column}
    losses = [column["losses"][-1] for column in present.values()]
    spread = max(losses) / min(losses) - 1 if losses and all(loss > 0 for loss in losses) else float("nan")
    rivals = {kind.label for kind in KINDS if not kind.ours} & set(present)
    best = min(rivals, key=lambda label: present[label]["us"], default=None)
    result: Result = {"peers": columns, "best": best, "loss_spread": spread, "busy": busy, "verdicts": {}}
    target = TARGETS[name]
    base = "numpy" if target.against == "numpy" else best
    for label, limit in (("wengert", target.ordinary), ("wengert compiled", target.compiled)):
        if label in present and base in present:
            ratio = present[label]["us"] / present[base]["us"]
            result["verdicts"][label] = {"against": base, "ratio": ratio, "target": limit, "met": ratio <= limit}
    return result


def rows(results: dict[str, Result]) -> list[list[str]]:
    """The table: one row a workload, a column a library, then ratios beside their targets."""
    out = [
        ["step, µs", *(kind.label for kind in KINDS), "best peer", "ordinary", "compiled", "÷ numpy", "first step, ms"]
    ]
    for name, result in results.items():
        times = [result["peers"].get(kind.label, {}).get("us") for kind in KINDS]
        verdicts = [_verdict(result["verdicts"].get(label)) for label in ("wengert", "wengert compiled")]
        ours, base = (result["peers"].get(label, {}).get("us") for label in ("wengert", "numpy"))
        ratio = f"{ours / base:.2f}" if ours and base else "-"
        first = _first(name, result["peers"].get("wengert", {}).get("first_ms"))
        out.append([name, *map(_time, times), result["best"] or "-", *verdicts, ratio, first])
    return out


def memory_rows(results: dict[str, Result]) -> list[list[str]]:
    """Peak resident MiB above the imports: in ten warm steps, and with the preparation in brackets."""
    out = [["memory, MiB", *(kind.label for kind in KINDS)]]
    for name, result in results.items():
        cells = []
        for kind in KINDS:
            peer = result["peers"].get(kind.label, {})
            steady, peak = peer.get("steady_mib"), peer.get("peak_mib")
            cells.append("-" if peak is None else f"{peak if steady is None else steady:.0f} ({peak:.0f})")
        out.append([name, *cells])
    return out


def text(table: list[list[str]]) -> str:
    """Columns padded to their widths."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    pad = [str.ljust, *[str.rjust] * (len(widths) - 1)]
    return "\n".join(
        "  ".join(f(cell, width) for f, cell, width in zip(pad, row, widths, strict=True)) for row in table
    )


def markdown(table: list[list[str]]) -> str:
    """The same as a Markdown table."""
    rule = ["---", *["---:"] * (len(table[0]) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [table[0], rule, *table[1:]])


def complaints(results: dict[str, Result]) -> list[str]:
    """Everything that is not as it should be, one line each."""
    out = []
    for name, result in results.items():
        if not result["loss_spread"] <= LOSS_TOLERANCE:
            losses = {label: peer["losses"][-1] for label, peer in result["peers"].items() if "losses" in peer}
            out.append(f"{name}: the losses differ by {result['loss_spread']:.1e} (at most {LOSS_TOLERANCE}): {losses}")
        if result["busy"] > BUSY_TOLERANCE:
            out.append(f"{name}: other programs used {result['busy']:.0%} of the cores: measure again")
        first, limit = result["peers"].get("wengert", {}).get("first_ms", 0.0), TARGETS[name].first_ms
        if limit and first > limit:
            out.append(f"{name}: the first step takes {first:.1f} ms, target {limit}")
        for label, verdict in result["verdicts"].items():
            if not verdict["met"]:
                out.append(
                    f"{name}: {label} takes {verdict['ratio']:.2f} of {verdict['against']}, target {verdict['target']}"
                )
    return out


def absences(results: dict[str, Result]) -> list[str]:
    """Which library did not run which workload, and why."""
    out: dict[tuple[str, str], list[str]] = {}
    for name, result in results.items():
        for label, peer in result["peers"].items():
            if "absent" in peer:
                out.setdefault((label, peer["absent"]), []).append(name)
    return [f"{label}: not run ({reason}): {', '.join(names)}" for (label, reason), names in out.items()]


def _time(us: float | None) -> str:
    if us is None:
        return "-"
    return f"{us:.1f}" if us < 100 else f"{us:,.0f}"


def _first(name: str, ms: float | None) -> str:
    limit = TARGETS[name].first_ms
    if ms is None or limit is None:
        return "-" if ms is None else f"{ms:.1f}"
    return f"{ms:.1f} ≤ {limit} {'met' if ms <= limit else 'MISSED'}"


def _verdict(verdict: Result | None) -> str:
    if verdict is None:
        return "-"
    return f"{verdict['ratio']:.2f} ≤ {verdict['target']} {'met' if verdict['met'] else 'MISSED'}"
