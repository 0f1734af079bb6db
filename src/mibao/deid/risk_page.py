"""The risk of re-identification as one page: HTML and SVG, nothing fetched, no script, no value of the table."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from mibao.types import Language

_BUCKETS = ((1, 1), (2, 2), (3, 4), (5, 9), (10, 19), (20, 49), (50, None))
_MARKS = (0.05, 0.09, 0.2, 0.33)  # classes of 20, 11, 5 and 3 rows: limits that data holders use
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 260, 52, 46

_EN = {
    "lang": "en", "title": "Risk of re-identification",
    "of": "{rows:,} rows, {classes:,} classes that agree in {quasi}",
    "prosecutor": "Prosecutor", "prosecutor_is": "finds a person who is known to be in the table: the worst row",
    "journalist": "Journalist", "journalist_is": "finds somebody, no matter whom, in the population: the worst row",
    "journalist_same": "no population was given: as the prosecutor, which it cannot exceed",
    "marketer": "Marketer", "marketer_is": "finds as many as possible by guessing: the average row",
    "sizes": "Rows by the size of their class", "sizes_x": "rows that agree with one another",
    "sizes_is": "A row that agrees with no other stands alone: who knows the quasi-identifiers finds it.",
    "curve": "How many rows are at how much risk", "curve_x": "risk of a row, one divided by the size of its class",
    "curve_y": "share of rows at this risk or more",
    "measure": "Measure", "value": "Value", "says": "What it says",
    "k": "so many rows at least agree in the quasi-identifiers",
    "l_distinct": "so many values of the sensitive column at least among such rows",
    "l_entropy": "the same by entropy", "t": "how far the sensitive column of a class is from the whole table, 0 to 1",
    "alone_in_their_class": "share of rows that no other agrees with",
    "note": "These figures hold for the quasi-identifiers that were named, and for nothing else in the table. They "
            "take for granted that nobody knows more of a person than those. A table that meets them is less risky, "
            "not anonymous: under the GDPR (recital 26) and PIPL (article 73) whether a person can be found is a "
            "question of all means reasonably likely to be used.",
    "marks": "Lines: 5 %, 9 %, 20 % and 33 %, classes of 20, 11, 5 and 3 rows.",
}  # fmt: skip
_ZH = {
    "lang": "zh", "title": "重识别风险报告", "of": "{rows:,} 行，按 {quasi} 分为 {classes:,} 个等价类",
    "prosecutor": "检察官风险", "prosecutor_is": "已知某人在表中时找到其记录的概率：最坏的一行",
    "journalist": "记者风险", "journalist_is": "在总体中任意找到一人的概率：最坏的一行",
    "journalist_same": "未提供总体数据：取检察官风险，它是上界",
    "marketer": "营销者风险", "marketer_is": "靠猜测尽量多地找到人：平均每行的概率",
    "sizes": "各行所在等价类的大小", "sizes_x": "准标识符相同的行数",
    "sizes_is": "没有其他行与之相同的行是孤立的：知道其准标识符的人就能找到它。",
    "curve": "风险的分布", "curve_x": "一行的风险：所在等价类大小的倒数", "curve_y": "风险不低于此值的行所占比例",
    "measure": "指标", "value": "数值", "says": "含义",
    "k": "至少有这么多行的准标识符相同", "l_distinct": "每个等价类中敏感列至少有这么多个不同的值",
    "l_entropy": "同上，按熵计算", "t": "等价类中敏感列的分布与全表相差多远，0 到 1",
    "alone_in_their_class": "没有其他行与之相同的行所占比例",
    "note": "以上数字只针对所列的准标识符，不涉及表中其他内容，并假定无人对某人另有了解。达到这些指标的表风险较低，"
            "但不是匿名的：按照《个人信息保护法》第七十三条与 GDPR 序言第 26 条，能否识别某人，"
            "要看一切合理可能使用的手段。",
    "marks": "虚线：5%、9%、20%、33%，即 20、11、5、3 行的等价类。",
}  # fmt: skip
_TEXTS: Mapping[Language, Mapping[str, str]] = MappingProxyType({Language.ENGLISH: _EN, Language.CHINESE: _ZH})

_STYLE = """
:root { color-scheme: light dark; --ink: #1b2a2f; --soft: #5d7078; --line: #d5dee1; --bar: #00796b; --warn: #b4531a;
  --card: #f5f8f8; --page: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4ecee; --soft: #9fb1b8; --line: #3a484e; --bar: #4db6ac;
  --warn: #f0a36b; --card: #1d272b; --page: #12191c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 3rem; max-width: 60rem; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif; }
h1 { margin: 0; font-size: 1.75rem; } h2 { margin: 2.25rem 0 .25rem; font-size: 1.15rem; }
p { margin: .25rem 0 .75rem; color: var(--soft); } p.note { margin-top: 2rem; font-size: .875rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: 1rem; margin-top: 1.5rem; }
.card { background: var(--card); border-radius: .6rem; padding: 1rem 1.1rem; }
.card b { display: block; font-size: 2.1rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.card span { font-weight: 600; } .card p { margin: .35rem 0 0; font-size: .875rem; }
svg { display: block; width: 100%; height: auto; margin-top: .5rem; font-size: 12px; }
svg text { fill: var(--soft); } svg text.figure { fill: var(--ink); } svg .bar { fill: var(--bar); }
svg .warn { fill: var(--warn); } svg .axis { stroke: var(--line); } svg .mark { stroke: var(--soft);
  stroke-dasharray: 3 4; opacity: .6; } svg .curve { fill: none; stroke: var(--bar); stroke-width: 2.5; }
table { border-collapse: collapse; width: 100%; margin-top: .75rem; }
th, td { text-align: left; padding: .45rem .9rem .45rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td:nth-child(2) { font-variant-numeric: tabular-nums; white-space: nowrap; }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskFigures:
    """What the page shows. ``sizes``: of every class; ``measures``: by the names of ``mibao deid risk``."""

    sizes: Sequence[int]
    quasi: Sequence[str]
    prosecutor: float
    journalist: float | None
    marketer: float
    measures: Mapping[str, float]


def risk_page(figures: RiskFigures, *, language: Language) -> str:
    """The page, as HTML. It names columns and holds counts, and nothing that stands in a row."""
    say = _TEXTS[language]
    rows = sum(figures.sizes)
    quasi = html.escape(", ".join(figures.quasi))
    parts = [
        f"<h1>{say['title']}</h1>",
        f"<p>{say['of'].format(rows=rows, classes=len(figures.sizes), quasi=quasi)}</p>",
        f'<div class="cards">{_cards(figures, say)}</div>',
        f"<h2>{say['sizes']}</h2><p>{say['sizes_is']}</p>{_histogram(figures.sizes, say)}",
        f"<h2>{say['curve']}</h2><p>{say['marks']}</p>{_curve(figures.sizes, say)}",
        _table(figures.measures, say),
        f'<p class="note">{say["note"]}</p>',
    ]
    return (
        f'<!doctype html>\n<html lang="{say["lang"]}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{say['title']}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n" + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )  # fmt: skip


def _cards(figures: RiskFigures, say: Mapping[str, str]) -> str:
    known = figures.journalist is not None
    journalist = figures.journalist if figures.journalist is not None else figures.prosecutor
    shown = (
        (say["prosecutor"], figures.prosecutor, say["prosecutor_is"]),
        (say["journalist"], journalist, say["journalist_is"] if known else say["journalist_same"]),
        (say["marketer"], figures.marketer, say["marketer_is"]),
    )
    return "".join(
        f'<div class="card"><span>{name}</span><b>{_percent(risk)}</b>{_gauge(risk)}<p>{text}</p></div>'
        for name, risk, text in shown
    )


def _gauge(risk: float) -> str:
    marks = "".join(
        f'<line class="mark" x1="{200 * mark:.1f}" x2="{200 * mark:.1f}" y1="0" y2="14"/>' for mark in _MARKS
    )
    kind = "warn" if risk > 0.2 else "bar"
    return (
        f'<svg viewBox="0 0 200 14" role="img" aria-label="{_percent(risk)}"><rect x="0" y="5" width="200" height="4" '
        f'rx="2" fill="var(--line)"/><rect class="{kind}" x="0" y="3" width="{max(2.0, 200 * risk):.1f}" height="8" '
        'rx="3"/>'
        f"{marks}</svg>"
    )


def _histogram(sizes: Sequence[int], say: Mapping[str, str]) -> str:
    rows = sum(sizes)
    shares = [sum(size for size in sizes if low <= size <= (high or size)) / rows for low, high in _BUCKETS]
    top = max(shares)
    step = (_WIDTH - _LEFT - 24) / len(shares)
    bars = []
    for index, ((low, high), share) in enumerate(zip(_BUCKETS, shares, strict=True)):
        height = (_HEIGHT - _BOTTOM - 28) * share / top
        x, y = _LEFT + index * step, _HEIGHT - _BOTTOM - height
        name = f"{low}" if high == low else f"{low}+" if high is None else f"{low}–{high}"
        kind = "warn" if low < 5 else "bar"
        bars.append(
            f'<rect class="{kind}" x="{x + step * 0.15:.1f}" y="{y:.1f}" width="{step * 0.7:.1f}" rx="2" '
            f'height="{height:.1f}"/><text class="figure" x="{x + step / 2:.1f}" y="{y - 6:.1f}" text-anchor="middle">'
            f'{_percent(share)}</text><text x="{x + step / 2:.1f}" y="{_HEIGHT - _BOTTOM + 17}" '
            f'text-anchor="middle">{name}</text>'
        )
    return _framed("".join(bars), say["sizes_x"], label=say["sizes"])


def _curve(sizes: Sequence[int], say: Mapping[str, str]) -> str:
    """The share of rows whose risk is at least so much, as steps."""
    rows = sum(sizes)
    points = [(0.0, 1.0)]
    for size in sorted(set(sizes), reverse=True):
        share = sum(each for each in sizes if each <= size) / rows
        points += [(points[-1][0], share), (1 / size, share)]
    points += [(points[-1][0], 0.0), (1.0, 0.0)]
    width, height = _WIDTH - _LEFT - 24, _HEIGHT - _BOTTOM - 28

    def at(risk: float, share: float) -> str:
        return f"{_LEFT + risk * width:.1f},{_HEIGHT - _BOTTOM - share * height:.1f}"

    marks = "".join(
        f'<line class="mark" x1="{_LEFT + mark * width:.1f}" x2="{_LEFT + mark * width:.1f}" y1="28" '
        f'y2="{_HEIGHT - _BOTTOM}"/>'
        for mark in _MARKS
    )
    ticks = "".join(
        f'<text x="{_LEFT + tick * width:.1f}" y="{_HEIGHT - _BOTTOM + 17}" text-anchor="middle">{tick:.0%}</text>'
        f'<text x="{_LEFT - 8}" y="{_HEIGHT - _BOTTOM - tick * height + 4:.1f}" text-anchor="end">{tick:.0%}</text>'
        for tick in (0, 0.25, 0.5, 0.75, 1)
    )
    line = f'<polyline class="curve" points="{" ".join(at(*point) for point in points)}"/>'
    side = f'<text x="{_LEFT - 40}" y="14">{say["curve_y"]}</text>'
    return _framed(marks + ticks + line + side, say["curve_x"], label=say["curve"])


def _framed(inside: str, x_name: str, *, label: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}"><line class="axis" x1="{_LEFT}" '
        f'x2="{_WIDTH - 24}" y1="{_HEIGHT - _BOTTOM}" y2="{_HEIGHT - _BOTTOM}"/>{inside}'
        f'<text x="{(_WIDTH + _LEFT) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">{x_name}</text></svg>'
    )


def _table(measures: Mapping[str, float], say: Mapping[str, str]) -> str:
    rows = "".join(
        f"<tr><td>{name}</td><td>{figure:,.4g}</td><td>{say[name]}</td></tr>"
        for name, figure in measures.items()
        if name in say and name not in ("prosecutor", "journalist", "marketer")
    )
    head = f"<tr><th>{say['measure']}</th><th>{say['value']}</th><th>{say['says']}</th></tr>"
    return f"<table>{head}{rows}</table>"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share in (0, 1) or share >= 0.1 else f"{share:.1%}" if share >= 0.001 else "<0.1%"
