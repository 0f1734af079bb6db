"""`mibao seal`, `open`, `verify`, `inspect`, `rewrap`: models that only named recipients can open."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from mibao.errors import InputError, IntegrityError, KeyMismatch, MissingExtra

if TYPE_CHECKING:
    from rich.console import Console

    from mibao.sealed import Inspection, VersionState
    from mibao.sealed.recipients import Identity, Recipient
    from mibao.sealed.workers import Progress
    from mibao.types import RandomId

PANEL = "Keys and models"
_SLOW_S = 1.0
_NAMED = ("state: ", "source: ", "PKCS#11: ", "KMS: ", "S3: ", "AWS: ", "$")  # what errors name instead of the file

SealedFile = Annotated[
    str, typer.Argument(metavar="FILE", help="A sealed model (.mibao), or its https:// or s3:// address.")
]
_WORDS = "`passphrase`, `env:NAME`, `pkcs11:...`, `kms:KEY`, or another package's `NAME:...`."
_TO_HELP = f"A recipient: a .pub file, the key in it, {_WORDS} Repeatable."
_KEY_HELP = f"a private key's file, {_WORDS}"
_REMOVE_HELP = "A recipient to drop: a .pub file, the key in it, or its id, which `mibao inspect` shows. Repeatable."
Signer = Annotated[
    str, typer.Option("--signer", metavar="PUB", help="The only signer to accept: a .pub file, or the key in it.")
]
MinVersion = Annotated[
    int | None, typer.Option("--min-version", metavar="N", help="Refuse a model of a lower version.", min=1)
]
State = Annotated[
    Path | None,
    typer.Option(
        "--state", metavar="FILE", help="Where the versions opened before are kept. Default: in your state folder."
    ),
]
RequireState = Annotated[
    bool, typer.Option("--require-state", help="Refuse a model of which no version was opened before.")
]
AcceptRollback = Annotated[
    bool,
    typer.Option("--accept-rollback", help="Ask and keep no state: an older version is opened like any other."),
]
Passphrase = Annotated[
    bool,
    typer.Option("--passphrase", help="The key is protected: ask for its passphrase, or take $MIBAO_PASSPHRASE."),
]


def seal(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="A .safetensors file, a checkpoint's folder, or any one file.")
    ],
    *,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="The sealed model, e.g. m.mibao.")],
    to: Annotated[list[str], typer.Option("--to", metavar="PUB", help=_TO_HELP)],
    sign: Annotated[Path, typer.Option("--sign", metavar="KEY", help="The signer's private key.")],
    model_id: Annotated[str, typer.Option("--model-id", metavar="NAME", help="What the model is called; public.")],
    version: Annotated[
        int, typer.Option("--version", metavar="N", help="Raise it with each release, so that older ones show.", min=1)
    ],
    passphrase: Passphrase = False,
) -> None:
    """Seal a model: encrypted to its recipients, signed by you, so that nobody can alter it unnoticed."""
    from mibao import sealed
    from mibao.cli.keys_io import read_signer_private

    _check_absent(output)
    _check_two_passphrases(to, sign, option="--to")
    recipients = [_recipient(each) for each in to]
    signer = read_signer_private(sign, ask=passphrase)
    with _naming(source, output), _progress("sealing", _size(source)) as progress:
        report = sealed.seal(
            source,
            output,
            recipients=recipients,
            signer=signer,
            model_id=model_id,
            version=version,
            progress=progress,
        )
    parts = f"{_count(report.shards, 'shard')}, {_count(report.side_files, 'side file')}"
    chunks, readers = _count(report.chunks, "chunk"), _count(len(recipients), "recipient")
    _console().print(f"sealed  {output}  {report.sealed_bytes:,} bytes, {parts}, {chunks}", markup=False)
    _console().print(f"        {model_id} version {version}, {readers}", markup=False)
    _console().print(f"        file {report.file_id}, signer {report.signer}", style="dim")


def open_(
    file: SealedFile,
    *,
    key: Annotated[str, typer.Option("--key", metavar="KEY", help=f"Who opens: {_KEY_HELP}")],
    signer: Signer,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DST", help="The file or new folder to write.")],
    min_version: MinVersion = None,
    state: State = None,
    require_state: RequireState = False,
    accept_rollback: AcceptRollback = False,
    passphrase: Passphrase = False,
) -> None:
    """Open a sealed model: the exact bytes that were sealed, or an error and nothing written.

    The version is remembered in a file of yours, and an older one refused from then on. Whoever can delete that file
    can bring an older one back.
    """
    from mibao import sealed
    from mibao.cli.keys_io import read_signer_public

    _check_absent(output)
    pinned, kept = read_signer_public(signer), _state(state, required=require_state, without=accept_rollback)
    identity = _identity(key, ask=passphrase)
    with _naming(file, output), _progress("opening", _size(Path(file))) as progress:
        report = sealed.open_sealed(
            file, output, identity=identity, signer=pinned, min_version=min_version, state=kept, progress=progress
        )
    _console().print(f"opened  {output}  {report.plaintext_bytes:,} bytes", markup=False)
    _console().print(f"        {report.model_id} version {report.version}", markup=False)
    _console().print(f"        file {report.file_id}, signer {report.signer}", style="dim")
    if kept is not None:
        _console().print(f"        older versions are refused from now on: {kept.path}", style="dim", markup=False)


def verify(
    file: SealedFile,
    *,
    signer: Signer,
    min_version: MinVersion = None,
    state: State = None,
    require_state: RequireState = False,
    accept_rollback: AcceptRollback = False,
) -> None:
    """Check a sealed model against its signer without a decryption key.

    Exit code 1 when anything was altered, 4 when another signer signed it.

    A version older than one that you opened is refused. Only `mibao open` remembers versions.
    """
    from mibao import sealed
    from mibao.cli.keys_io import read_signer_public

    pinned, kept = read_signer_public(signer), _state(state, required=require_state, without=accept_rollback)
    with _naming(file), _progress("verifying", _size(Path(file))) as progress:
        report = sealed.verify(file, signer=pinned, min_version=min_version, state=kept, progress=progress)
    _console().print(f"verified  {file}  {report.sealed_bytes:,} bytes, {_count(report.chunks, 'chunk')}", markup=False)
    _console().print(f"          {report.model_id} version {report.version}", markup=False)
    _console().print(f"          not checked without a recipient's key: {' and '.join(report.unchecked)}", markup=False)


def inspect(
    file: SealedFile,
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="KEY", help=f"Shows the tensors too: {_KEY_HELP}"),
    ] = None,
    passphrase: Passphrase = False,
) -> None:
    """Show what a sealed model says of itself. No signature is checked: `mibao verify` does that."""
    from mibao import sealed

    if passphrase and key is None:
        raise InputError("--passphrase: expected with --key, whose passphrase it is")
    identity = None if key is None else _identity(key, ask=passphrase)
    with _naming(file):
        found = sealed.inspect(file, identity=identity)
    console = _console()
    for name, value in _facts(found):
        console.print(f"{name:<14}{value}", markup=False)
    for shard, tensors in (found.tensors or {}).items():
        console.print(f"\n{shard}", style="bold", markup=False)
        for tensor in tensors:
            shape = "×".join(map(str, tensor.shape)) or "scalar"
            console.print(f"  {tensor.name}  {tensor.dtype}  {shape}  {tensor.nbytes:,} bytes", markup=False)
    console.print("not verified: `mibao verify` checks the signature", style="dim")


def rewrap(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A sealed model (.mibao) on this machine.")],
    key: Annotated[str, typer.Option("--key", metavar="KEY", help=f"A present recipient: {_KEY_HELP}")],
    add: Annotated[list[str] | None, typer.Option("--add", metavar="PUB", help=_TO_HELP)] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option(
            "--remove",
            metavar="PUB",
            help=_REMOVE_HELP,
        ),
    ] = None,
    passphrase: Passphrase = False,
) -> None:
    """Change who can open a sealed model, in place: only the header is written, crash-safe.

    Dropping a recipient cannot recall a key already held: whoever could open the file may have kept its key or a
    copy. To revoke for good, seal anew.
    """
    from mibao import sealed

    if not add and not remove:
        raise InputError("rewrap: expected --add or --remove")
    _check_two_passphrases(add or [], Path(key), option="--add")
    added = [_recipient(each) for each in add or []]
    removed = [_recipient_id(each) for each in remove or []]
    identity = _identity(key, ask=passphrase)
    with _naming(file):
        left = sealed.rewrap(file, identity=identity, add=added, remove=removed)
    _console().print(f"rewrapped  {file}  {_count(len(left), 'recipient')}", markup=False)
    for each in left:
        _console().print(f"           {each}", style="dim")
    if removed:
        _console().print("           a recipient dropped may have kept the key or a copy: to revoke, seal anew")


def mount(app: typer.Typer) -> None:
    """Put the commands of this file on ``app``."""
    for command in (seal, inspect, verify, rewrap):
        app.command(rich_help_panel=PANEL)(command)
    app.command("open", rich_help_panel=PANEL)(open_)


def _facts(found: Inspection) -> Iterator[tuple[str, str]]:
    yield "model", f"{found.model_id} version {found.version}"
    yield "file", str(found.file_id)
    yield "signer", str(found.signer)
    yield "size", f"{found.sealed_bytes:,} bytes, of them {found.data_bytes:,} of data"
    yield "parts", f"{_count(found.shards, 'shard')}, {_count(found.side_files, 'side file')}"
    yield "chunks", f"{found.chunks} of up to {found.chunk_bytes:,} bytes"
    for kind, key_id in found.recipients:
        yield "recipient", f"{key_id}  {kind}"
    yield "post-quantum", "yes, for every recipient" if found.post_quantum else "no: not every recipient's key is"
    if found.rewrap_interrupted:
        yield "rewrap", "interrupted; the next one clears it up"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _recipient(text: str) -> Recipient:
    """A recipient as ``--to`` names it: ``passphrase``, ``env:``, ``pkcs11:``, ``kms:``, another's name, or a key."""
    from mibao.cli.keys_io import ask_new_passphrase, read_recipient_public
    from mibao.sealed.unlock_named import recipient_named
    from mibao.sealed.unlock_passphrase import Passphrase

    if text == "passphrase":
        return Passphrase(ask_new_passphrase())
    named = recipient_named(text)
    return read_recipient_public(text) if named is None else named


def _check_two_passphrases(recipients: list[str], key: Path, *, option: str) -> None:
    """Refuse to take the passphrase of one's own key for the one that a recipient is given."""
    from mibao.cli.keys_io import ENVIRONMENT_VARIABLE, is_protected

    if "passphrase" in recipients and os.environ.get(ENVIRONMENT_VARIABLE) and key.is_file() and is_protected(key):
        raise InputError(
            f"{option} passphrase: ${ENVIRONMENT_VARIABLE} holds the passphrase of {key}, which no recipient should "
            f"know; put the model's into another variable: {option} env:NAME"
        )


def _identity(text: str, *, ask: bool) -> Identity:
    """Who opens, as ``--key`` names them."""
    from mibao.cli.keys_io import ask_passphrase, read_recipient_private
    from mibao.sealed.unlock_named import identity_named
    from mibao.sealed.unlock_passphrase import Passphrase

    if text == "passphrase":
        return Passphrase(ask_passphrase())
    named = identity_named(text)
    return read_recipient_private(Path(text), ask=ask) if named is None else named


def _recipient_id(text: str) -> RandomId:
    from mibao.cli.keys_io import read_recipient_public
    from mibao.types import RandomId

    if len(text) == 2 * RandomId.size and not Path(text).exists():
        try:
            return RandomId(bytes.fromhex(text))
        except ValueError as error:
            raise InputError("--remove: expected a .pub file, a key, or a key's id of 32 hex digits") from error
    return read_recipient_public(text).key_id


def _state(path: Path | None, *, required: bool, without: bool) -> VersionState | None:
    from mibao.sealed import VersionState

    if not without:
        return VersionState(path, require_known=required)
    if path is not None or required:
        raise InputError("--accept-rollback: asks no state, so neither --state nor --require-state goes with it")
    return None


@contextmanager
def _naming(file: Path | str, *others: Path) -> Iterator[None]:
    """Errors of the block begin with the file's name, or an address's host, unless they begin with another thing's."""
    shown = str(file)
    if shown.startswith("https://"):
        shown = urlsplit(shown).hostname or "https://"
    try:
        yield
    except (InputError, IntegrityError, KeyMismatch) as error:
        if not isinstance(error, MissingExtra) and not str(error).startswith((shown, *map(str, others), *_NAMED)):
            error.args = (f"{shown}: {error}",)
        raise


def _check_absent(output: Path) -> None:
    if output.exists():
        raise InputError(f"{output}: exists already and is not overwritten")
    if not output.parent.is_dir():
        raise InputError(f"{output.parent}: expected a folder, and there is none")


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    return path.stat().st_size if path.exists() else 0


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True)


@contextmanager
def _progress(title: str, total: int) -> Iterator[Progress]:
    """A bar on standard error, once the work has taken a second."""
    import time

    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(*columns, console=_console(stderr=True), transient=True)
    task = bar.add_task(title, total=total or None)  # the size of what lies behind an address is not known
    started = time.monotonic()

    def advance(done_bytes: int) -> None:
        bar.advance(task, done_bytes)
        if not bar.live.is_started and time.monotonic() - started > _SLOW_S:
            bar.start()

    try:
        yield advance
    finally:
        if bar.live.is_started:
            bar.stop()
