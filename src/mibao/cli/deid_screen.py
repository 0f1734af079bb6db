"""Tables of types, policies and scores, for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from mibao.deid.evaluation import Agreement


def print_types(*, as_json: bool) -> None:
    """Every kind of personal data that has a form, and what finds the rest."""
    from mibao.deid.kinds import kinds

    if as_json:
        for kind in kinds():
            row = {
                "type": kind.type.value, "name": kind.name, "name_zh": kind.name_zh, "jurisdiction": kind.jurisdiction,
                "hipaa": kind.hipaa_item, "gbt_35273": kind.cn_class, "sensitive": kind.sensitive,
                "presidio": kind.in_presidio, "context": list(kind.context), "example": kind.example,
                "counter_example": kind.counter_example, "rules": [rule.pattern.pattern for rule in kind.rules],
            }  # fmt: skip
            typer.echo(json.dumps(row, ensure_ascii=False))
        return
    from rich.text import Text

    table = _table("type", "what", "where", "HIPAA", "GB/T 35273, PIPL", "example")
    for kind in kinds():
        sensitive = f"{kind.cn_class}{', sensitive' if kind.sensitive else ''}"
        what = Text(f"{kind.name} {kind.name_zh}")
        example = Text(kind.example.replace("\n", "⏎"))
        table.add_row(Text(kind.type.value), what, kind.jurisdiction, kind.hipaa_item, sensitive, example)
    _print(table)
    typer.echo(
        f"{len(kinds())} types with a form, PERSON after and before cue words. ⟦ ⟧ marks what is found.", err=True
    )


def types_page() -> str:
    """The table of types in Markdown, as it stands in the documentation."""
    from mibao.deid.kinds import kinds

    lines = [
        "| type | what | where | HIPAA | GB/T 35273 | example | none |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in kinds():
        name = f"`{kind.type.value}`{' (Presidio)' if kind.in_presidio else ''}"
        china = f"{kind.cn_class}{', sensitive' if kind.sensitive else ''}"
        example, counter = (_in_a_cell(text) for text in (kind.example, kind.counter_example))
        lines.append(
            f"| {name} | {kind.name}, {kind.name_zh} | {kind.jurisdiction} | {kind.hipaa_item} | {china} | {example} | "
            f"{counter} |"
        )
    return "\n".join(lines) + "\n"


def _in_a_cell(text: str) -> str:
    return f"`{' '.join(text.split())}`".replace("|", "\\|")


def print_policies() -> None:
    """The ready policies, and what each does to what."""
    from mibao.deid.policies import READY, ready_policy

    table = _table("policy", "purpose", "otherwise", "does")
    for name in READY:
        policy = ready_policy(name)
        does = ", ".join(
            f"{entity} {type(operation).__name__.lower()}" for entity, operation in sorted(policy.types.items())
        )
        table.add_row(name, policy.purpose, type(policy.otherwise).__name__.lower(), does)
    _print(table)


def print_scores(scores: Mapping[str, Mapping[str, Agreement]], *, as_json: bool) -> None:
    """Precision, recall, F1 and F2 by type; exact beside overlapping."""
    if as_json:
        typer.echo(
            json.dumps({how: {name: _figures(row) for name, row in rows.items()} for how, rows in scores.items()})
        )
        return
    table = _table("type", "gold", "found", *(f"{how} {what}" for how in scores for what in ("P", "R", "F1", "F2")))
    for name, row in scores["exact"].items():
        shown = [
            f"{figure:.3f}"
            for how in scores
            for figure in (
                scores[how][name].precision,
                scores[how][name].recall,
                scores[how][name].f(1),
                scores[how][name].f(2),
            )
        ]
        table.add_row(name, str(row.gold), str(row.found), *shown)
    _print(table)


def print_risk(found: Mapping[str, float], *, as_json: bool) -> None:
    """The measures, each with what it says."""
    if as_json:
        typer.echo(json.dumps(found))
        return
    says = {
        "rows": "rows", "k": "k-anonymity: so many rows at least agree in the quasi-identifiers",
        "l_distinct": "l-diversity: so many values of the sensitive column at least among such rows",
        "l_entropy": "l-diversity by entropy", "t": "t-closeness: so far at most from the whole table, 0 to 1",
        "journalist": "chance of finding somebody, no matter whom, in the population, at worst",
        "prosecutor": "chance of finding a person who is known to be in the table, at worst",
        "alone_in_their_class": "share of rows that no other agrees with",
        "marketer": "share of rows found by guessing, on average",
    }  # fmt: skip
    table = _table("", "", "")
    for name, figure in found.items():
        table.add_row(name, f"{figure:,.4g}", says[name])
    _print(table)


def _figures(row: Agreement) -> dict[str, float]:
    return {
        "gold": row.gold, "found": row.found, "precision": row.precision, "recall": row.recall, "f1": row.f(1),
        "f2": row.f(2),
    }  # fmt: skip


def _table(*columns: str):  # type: ignore[no-untyped-def]
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _print(table: object) -> None:
    import sys

    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 200, highlight=False).print(table)
