"""What secure sums cost as pictures in plain SVG: bars for the steps of a round, curves for how costs grow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Protocol

_WIDTH, _LABEL, _BAR, _GAP, _TOP = 900, 300, 18, 8, 60
_PLOT_HEIGHT = 240
_CURVES = ("#3b6ea5", "#c46a2b", "#5a8f4e")
_COLOURS = {"client": "#3b6ea5", "server": "#c46a2b", "member": "#5a8f4e", "key holder": "#5a8f4e"}


class Cost(Protocol):
    """What a bar shows."""

    who: str
    what: str
    sent_bytes: int
    seconds: float


def bars(title: str, lines: Sequence[Cost]) -> str:
    """An SVG document: for each line a bar of the bytes sent and one of the seconds spent, each to its own scale."""
    parts = [_text(16, 28, title, size=16)]
    top = _TOP
    for name, values, unit in (
        ("bytes sent", [float(line.sent_bytes) for line in lines], _bytes),
        ("CPU time", [line.seconds for line in lines], lambda value: f"{value:.3g} s"),
    ):
        parts.append(_text(16, top, name, size=13))
        top += 12
        largest = max(values) or 1.0
        for line, value in zip(lines, values, strict=True):
            if value:
                parts += _bar(line, value / largest, unit(value), top)
                top += _BAR + _GAP
        top += 30
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{top}" font-family="sans-serif">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>", ""])


def curves(title: str, panels: Mapping[str, Mapping[str, Mapping[int, float]]]) -> str:
    """An SVG document: side by side, each panel's series over the number of clients, both axes logarithmic."""
    parts = [_text(16, 28, title, size=16)]
    for place, (name, series) in enumerate(panels.items()):
        parts += _panel(16 + place * (_WIDTH // 2), name, series)
    height = _TOP + _PLOT_HEIGHT + 60
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" font-family="sans-serif">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>", ""])


def _panel(left: int, name: str, series: Mapping[str, Mapping[int, float]]) -> list[str]:
    points = [point for curve in series.values() for point in curve.items()]
    sizes, values = [float(size) for size, _ in points], [value for _, value in points]
    # Whole powers of ten around what is shown, so that a slope looks the same in every panel.
    low = math.floor(math.log10(min(values)))
    high = max(math.ceil(math.log10(max(values))), low + 1)
    first = math.floor(math.log10(min(sizes)))
    last = max(math.ceil(math.log10(max(sizes))), first + 1)
    left += 44
    width, bottom = _WIDTH // 2 - 90, _TOP + 20 + _PLOT_HEIGHT

    def at(size: float, value: float) -> tuple[float, float]:
        across = (math.log10(size) - first) / (last - first)
        return left + across * width, bottom - (math.log10(value) - low) / (high - low) * _PLOT_HEIGHT

    parts = [_text(left - 44, _TOP, name, size=13)]
    for power in range(low, high + 1):
        y = at(10.0**first, 10.0**power)[1]
        parts += [_line(left, y, left + width, y), _text(left - 44, round(y) + 4, f"{10.0**power:g}")]
    for power in range(first, last + 1):
        x = at(10.0**power, 10.0**low)[0]
        parts += [_line(x, bottom, x, bottom - _PLOT_HEIGHT), _text(round(x) - 10, bottom + 18, f"{10**power:,}")]
    for place, (label, curve) in enumerate(series.items()):
        colour = _CURVES[place % len(_CURVES)]
        drawn = [at(size, value) for size, value in sorted(curve.items())]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in drawn]
        parts.append(f'<rect x="{left + 8}" y="{_TOP + 28 + 18 * place}" width="12" height="4" fill="{colour}"/>')
        parts.append(_text(left + 26, _TOP + 34 + 18 * place, label))
    return parts


def _line(x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke="#dddddd"/>'


def _bar(line: Cost, share: float, shown: str, top: int) -> list[str]:
    width = max(1, round(share * (_WIDTH - _LABEL - 110)))
    colour = _COLOURS.get(line.who, "#777777")
    return [
        _text(16, top + 13, f"{line.who}: {line.what}"),
        f'<rect x="{_LABEL}" y="{top}" width="{width}" height="{_BAR}" fill="{colour}"/>',
        _text(_LABEL + width + 6, top + 13, shown),
    ]


def _text(x: int, y: int, content: str, *, size: int = 12) -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}">{escape(content)}</text>'


def _bytes(value: float) -> str:
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB"
