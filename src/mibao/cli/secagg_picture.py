"""The costs of a rehearsed round as a picture: two rows of bars, bytes and CPU seconds, in plain SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Protocol

_WIDTH, _LABEL, _BAR, _GAP, _TOP = 900, 300, 18, 8, 60
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
