"""`mibao ledger`: look at a ledger, verify it, prove an entry, take its checkpoint. None of these changes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mibao.cli.new_file import write_new
from mibao.errors import InputError, IntegrityError, KeyMismatch

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from mibao.ledger import Checkpoint, Entry, Verification

MAX_TEXT_FILE_BYTES = 128 * 1024
_PIPE_WIDTH = 100

app = typer.Typer(
    name="ledger",
    help="Look at a ledger, verify it, prove an entry of it, take its checkpoint.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

LedgerFile = Annotated[Path, typer.Argument(metavar="LEDGER", help="The ledger's file.")]
SignerKey = Annotated[str, typer.Option("--key", metavar="PUB", help="The signer's .pub file, or the key in it.")]
OutputFile = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FILE", help="Write it there; an existing file is kept. Default: print it."),
]


@app.command()
def show(
    ledger_file: LedgerFile,
    last: Annotated[int, typer.Option(help="Only so many of the newest entries; 0 shows all.", min=0)] = 40,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="All entries, then the checkpoint, as JSON lines.")] = False,
) -> None:
    """Show the entries of a ledger, unverified."""
    from mibao import ledger

    if jsonl:
        typer.echo(ledger.export(ledger_file), nl=False)
        return
    from rich.table import Table
    from rich.text import Text

    from mibao.ledger.entry import time_text, to_json

    entries = ledger.stored_entries(ledger_file)
    first = max(0, len(entries) - last) if last else 0
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("entry", justify="right", no_wrap=True)
    table.add_column("time (UTC)", no_wrap=True)
    table.add_column("event", no_wrap=True)
    table.add_column("fields", overflow="fold")
    for index, entry in enumerate(entries[first:], start=first):
        fields = _fields_text(to_json(entry, index=index)["fields"])
        table.add_row(str(index), time_text(entry.time_ms).partition(".")[0], entry.event.kind, Text(fields))
    console = _console()
    console.print(table)
    shown = f"entries {first} to {len(entries) - 1} of {len(entries)}" if entries else "no entries"
    console.print(f"{shown}, not verified: `mibao ledger verify` does that", style="dim")


@app.command()
def verify(
    ledger_file: LedgerFile,
    key: SignerKey,
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="SAVED", help="A checkpoint saved earlier: shows that the ledger only grew since."),
    ] = None,
    origin: Annotated[str | None, typer.Option(help="The name the ledger must bear.")] = None,
) -> None:
    """Recompute a ledger from its entries and hold it against its signer's key. Exit code 1 when it fails."""
    from mibao import ledger
    from mibao.cli.keys_io import read_signer_public

    signer = read_signer_public(key)
    saved = None if checkpoint is None else _read_text(checkpoint)
    try:
        found = ledger.verify(ledger_file, signer=signer, saved_checkpoint=saved, origin=origin)
    except (IntegrityError, KeyMismatch):
        _console().print(f"[bold red]NOT VERIFIED[/]  {_escaped(ledger_file)}")
        raise
    _print_verification(ledger_file, found, signer_text=f"{signer.suite.value}, id {signer.key_id}")


@app.command()
def prove(
    ledger_file: LedgerFile,
    index: Annotated[int, typer.Argument(metavar="INDEX", help="The entry's number, from 0.")],
    output: OutputFile = None,
) -> None:
    """Write a proof that one entry is in the ledger; `check-proof` checks it without the ledger."""
    from mibao import ledger

    _deliver(ledger.prove(ledger_file, index), output, what=f"proof of entry {index}")


@app.command("check-proof")
def check_proof(
    proof_file: Annotated[Path, typer.Argument(metavar="PROOF", help="What `prove` wrote.")], key: SignerKey
) -> None:
    """Check a proof that `prove` wrote, and show the entry. Exit code 1 when it fails."""
    from mibao import ledger
    from mibao.cli.keys_io import read_signer_public

    signer = read_signer_public(key)
    text = _read_text(proof_file)
    try:
        proven = ledger.verify_proof(text, signer=signer)
    except (IntegrityError, KeyMismatch):
        _console().print(f"[bold red]NOT PROVEN[/]  {_escaped(proof_file)}")
        raise
    console, table = _console(), _grid()
    _add_entry(table, proven.entry, index=proven.index)
    _add_checkpoint(table, proven.checkpoint)
    table.add_row("signed by", f"{signer.suite.value}, id {signer.key_id}")
    console.print(table)
    console.print(f"[bold green]PROVEN[/]  entry {proven.index} is in the ledger {proven.checkpoint.origin}")


@app.command()
def checkpoint(ledger_file: LedgerFile, output: OutputFile = None) -> None:
    """Print the ledger's signed checkpoint: keep it elsewhere, and give it to `verify --checkpoint` later."""
    from mibao import ledger

    _deliver(ledger.stored_note(ledger_file), output, what="checkpoint")


def _print_verification(ledger_file: Path, found: Verification, *, signer_text: str) -> None:
    console, table = _console(), _grid()
    table.add_row("ledger", _escaped(ledger_file))
    _add_checkpoint(table, found.checkpoint)
    table.add_row("signed by", signer_text)
    if found.saved:
        table.add_row("saved", f"continues the saved checkpoint of {found.saved.size} entries: nothing rolled back")
    console.print(table)
    console.print(f"[bold green]VERIFIED[/]  {found.checkpoint.size} entries, none altered, dropped or reordered")
    if found.caveat:
        console.print(f"[yellow]{found.caveat}[/]")


def _add_checkpoint(table: Table, checkpoint: Checkpoint) -> None:
    table.add_row("origin", checkpoint.origin)
    table.add_row("entries", str(checkpoint.size))
    table.add_row("root", checkpoint.root.hex())


def _add_entry(table: Table, entry: Entry, *, index: int) -> None:
    from rich.text import Text

    from mibao.ledger.entry import to_json

    shown = to_json(entry, index=index)
    table.add_row("entry", f"{index}, {shown['kind']}, {shown['time']}")
    fields = shown["fields"]
    for name, value in fields.items() if isinstance(fields, dict) else ():
        table.add_row("", Text(f"{name} = {value}"))


def _fields_text(fields: object) -> str:
    if not isinstance(fields, dict):
        return ""
    return "  ".join(f"{name}={_short(value)}" for name, value in fields.items())


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if len(text) <= 24 else f"{text[:8]}…"


def _grid() -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _console() -> Console:
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PIPE_WIDTH)


def _escaped(path: Path) -> str:
    from rich.markup import escape

    return escape(str(path))


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEXT_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) > MAX_TEXT_FILE_BYTES:
        raise InputError(f"{path}: expected at most {MAX_TEXT_FILE_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected text") from error


def _deliver(text: str, output: Path | None, *, what: str) -> None:
    if output is None:
        typer.echo(text, nl=False)
        return
    write_new(output, text)
    _console().print(f"{what}: {_escaped(output)}")
