"""The bar chart: one panel a workload, one bar a library, on a log scale. Plain SVG, readable on light and dark."""

import math
from html import escape
from typing import Any

from peer import KINDS

_PANEL, _BAR, _LABEL, _COLUMNS = 430, 16, 120, 2
_INK, _QUIET, _OURS, _PEER = "#808080", "#80808040", "#e4572e", "#4c86b8"


def svg(results: dict[str, Any], note: str) -> str:
    """The whole drawing. Bars start at a tenth of the fastest time, so each decade has one length in a panel."""
    panels = [(name, _present(result)) for name, result in results.items()]
    panels = [(name, times) for name, times in panels if times]
    height = 40 + _BAR * len(KINDS)
    rows = math.ceil(len(panels) / _COLUMNS)
    width, total = _PANEL * _COLUMNS, 50 + height * rows
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {total}" font-family="sans-serif" '
        f'font-size="11" fill="{_INK}">',
        '<text x="10" y="20" font-size="14">Time of one training step, log scale, shorter is better</text>',
        f'<text x="10" y="36">{escape(note)}</text>',
    ]
    for place, (name, times) in enumerate(panels):
        x, y = place % _COLUMNS * _PANEL, 50 + place // _COLUMNS * height
        parts += _panel(x, y, name, times)
    return "\n".join([*parts, "</svg>"])


def _present(result: Any) -> dict[str, float]:
    return {label: peer["us"] for label, peer in result["peers"].items() if "us" in peer}


def _panel(x: int, y: int, name: str, times: dict[str, float]) -> list[str]:
    origin, room = x + _LABEL, _PANEL - _LABEL - 80
    low, high = math.log10(min(times.values())) - 1, math.log10(max(times.values()))
    scale = room / (high - low)
    out = [f'<text x="{x + 10}" y="{y + 14}" font-weight="bold">{escape(name)}</text>']
    for decade in range(math.ceil(low), math.floor(high) + 1):
        at = origin + (decade - low) * scale
        bottom = y + 20 + _BAR * len(times)
        out.append(f'<line x1="{at:.1f}" y1="{y + 18}" x2="{at:.1f}" y2="{bottom}" stroke="{_QUIET}"/>')
    for i, (label, us) in enumerate(sorted(times.items(), key=lambda item: item[1])):
        top, length = y + 20 + i * _BAR, (math.log10(us) - low) * scale
        colour = _OURS if label.startswith("wengert") else _PEER
        text = top + _BAR - 5
        out.append(f'<text x="{origin - 6}" y="{text}" text-anchor="end">{escape(label)}</text>')
        out.append(f'<rect x="{origin}" y="{top + 1}" width="{length:.1f}" height="{_BAR - 3}" fill="{colour}"/>')
        out.append(f'<text x="{origin + length + 5:.1f}" y="{text}">{_unit(us)}</text>')
    return out


def _unit(us: float) -> str:
    if us < 1000:
        return f"{us:.3g} µs"
    return f"{us / 1e3:.3g} ms" if us < 1e6 else f"{us / 1e6:.3g} s"
