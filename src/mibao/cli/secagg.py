"""`mibao secagg`: see what a secure sum costs, before anybody depends on it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mibao.errors import InputError, ProtocolError

if TYPE_CHECKING:
    from mibao.secagg.rehearsal import Plan, Report

app = typer.Typer(
    name="secagg",
    help="Sums without seeing the addends: rehearse a round.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@app.callback()
def _noun() -> None:
    """Keep `simulate` a command of its own while it is the only one."""


@app.command()
def simulate(
    *,
    clients: Annotated[int, typer.Option(metavar="N", help="Clients that are invited.")] = 100,
    params: Annotated[str, typer.Option(metavar="D", help="Numbers in a vector, for example 1e6.")] = "1e5",
    dropout: Annotated[float, typer.Option(metavar="SHARE", help="Share of clients that vanish: 0 to 1.")] = 0.0,
    scheme: Annotated[
        str, typer.Option(metavar="NAME", help="rlwe (one message), pairwise, or encrypted (needs the extra 'he').")
    ] = "rlwe",
    bits: Annotated[int, typer.Option(metavar="B", help="Bits of one number, its sign among them.")] = 16,
    trust: Annotated[str, typer.Option(metavar="WHAT", help="malicious-server or honest-server.")] = "malicious-server",
    committee: Annotated[int, typer.Option(metavar="C", help="Members of the committee (rlwe).")] = 32,
    corrupt: Annotated[int, typer.Option(metavar="T", help="Members that may be corrupt (rlwe).")] = 10,
    packing: Annotated[int, typer.Option(metavar="L", help="Numbers packed into a polynomial (rlwe).")] = 8,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Draw a picture of the costs as well.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Play a round with made-up vectors: who sends what, how many bytes, how much CPU time. Exit code 0: exact."""
    from mibao.cli import new_file, secagg_picture
    from mibao.crypto.rng import random_bytes
    from mibao.secagg import rehearsal
    from mibao.secagg.masking import Trust

    length = _whole_number(params)
    if not 0.0 <= dropout < 1.0:
        raise InputError(f"--dropout: expected 0 to 1, got {dropout:g}")
    plan = rehearsal.Plan(
        scheme=rehearsal.Scheme(_one_of("--scheme", scheme, [one.value for one in rehearsal.Scheme])),
        clients=clients,
        length=length,
        dropped=int(dropout * clients),
        input_bits=bits,
        trust=Trust(_one_of("--trust", trust, [one.value for one in Trust])),
        members=committee,
        corrupt=corrupt,
        packing=packing,
    )
    if plot is not None and plot.exists():
        raise InputError(f"{plot} exists already and is not overwritten: choose another name or move it away")
    report = _with_progress(plan, random_bytes, quiet=as_json)
    if as_json:
        typer.echo(json.dumps(_as_object(plan, report)))
    else:
        _print(plan, report)
    if plot is not None:
        new_file.write_new(plot, secagg_picture.bars(_title(plan), report.lines))
        if not as_json:
            typer.echo(f"{plot}: written")
    if not report.exact:
        raise ProtocolError("simulation: the sum is not what the clients put in")


def _with_progress(plan: Plan, randomness: Callable[[int], bytes], *, quiet: bool) -> Report:
    from rich.console import Console

    from mibao.secagg import rehearsal

    if quiet:
        return rehearsal.rehearse(plan, randomness=randomness, clock=time.process_time)
    console = Console(stderr=True)
    with console.status("") as status:
        return rehearsal.rehearse(
            plan,
            randomness=randomness,
            clock=time.process_time,
            progress=lambda what, done, of: status.update(f"{what}: {done} of {of}"),
        )


def _print(plan: Plan, report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    from mibao.secagg import rehearsal

    console = Console(highlight=False)
    table = Table(title=_title(plan), title_justify="left", box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("who")
    table.add_column("does")
    for name in ("times", "bytes each", "bytes in all", "ms each", "s in all"):
        table.add_column(name, justify="right")
    for line in report.lines:
        sent = [f"{line.sent_bytes // line.times:,}", f"{line.sent_bytes:,}"] if line.sent_bytes else ["", ""]
        table.add_row(
            line.who,
            line.what,
            f"{line.times:,}",
            *sent,
            f"{1e3 * line.seconds / line.times:,.1f}",
            f"{line.seconds:,.2f}",
        )
    console.print(table)
    for who, (sent_bytes, seconds) in rehearsal.totals(report).items():
        console.print(f"{who}, all together: {sent_bytes:,} bytes sent, {seconds:,.2f} s of CPU")
    console.print(report.terms, soft_wrap=True)
    console.print(f"sum of {report.released.event.survivors} of {plan.clients}: {_verdict(report)}")


def _verdict(report: Report) -> str:
    return "exact, bit for bit" if report.exact else "NOT what the clients put in"


def _title(plan: Plan) -> str:
    return (
        f"{plan.scheme.value}: {plan.clients} clients, {plan.length:,} numbers of {plan.input_bits} bits, "
        f"{plan.dropped} dropping out"
    )


def _as_object(plan: Plan, report: Report) -> dict[str, object]:
    return {
        "scheme": plan.scheme.value,
        "clients": plan.clients,
        "params": plan.length,
        "dropped": plan.dropped,
        "survivors": report.released.event.survivors,
        "exact": report.exact,
        "terms": report.terms,
        "lines": [
            {"who": one.who, "what": one.what, "times": one.times, "bytes": one.sent_bytes, "cpu_s": one.seconds}
            for one in report.lines
        ],
    }


def _whole_number(text: str) -> int:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not (1 <= value < 2**53 and value == int(value)):
        raise InputError(f"--params: expected a whole number such as 100000 or 1e6, got '{text}'")
    return int(value)


def _one_of(option: str, value: str, known: list[str]) -> str:
    if value not in known:
        raise InputError(f"{option}: expected one of {', '.join(known)}, got '{value}'")
    return value
