"""`mibao apikey`: keys of the gateway: made, listed, revoked, in its SQLite file or its PostgreSQL."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mibao.errors import InputError

if TYPE_CHECKING:
    from mibao.serving.api_keys import Grant, KeyRecord

_UNITS_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000, "y": 365 * 86_400_000}
_MILLION = 1_000_000

app = typer.Typer(
    name="apikey",
    help="Keys of the gateway: make, list and revoke them.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

StorePlace = Annotated[
    str,
    typer.Option(
        "--store",
        metavar="STORE",
        envvar="MIBAO_STORE",
        help="The gateway's SQLite file, or postgresql://user@host/database (password: $PGPASSWORD).",
    ),
]
Names = Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this one; may be given again.")]


@app.command()
def create(  # noqa: PLR0917 - typer's options
    store: StorePlace = "gateway.db",
    tenant: Annotated[str, typer.Option(help="Whose key: two tenants share no placeholder.")] = "default",
    label: Annotated[str, typer.Option(help="What you will know it by in the list.")] = "",
    policy: Annotated[str | None, typer.Option(help="The policy of its requests. Default: the gateway's.")] = None,
    route: Names = None,
    model: Names = None,
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="After 30m, 12h, 90d or 1y. Default: never.")
    ] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=0)] = None,
    tokens_per_day: Annotated[int | None, typer.Option(min=0)] = None,
    spend_per_month: Annotated[
        float | None, typer.Option(min=0, help="In the currency of the configuration's prices.")
    ] = None,
    admin: Annotated[bool, typer.Option("--admin", help="For the administrative port, and nothing else.")] = False,
    certificate: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Instead of a new key: a client's certificate, for TLS.")
    ] = None,
) -> None:
    """Make a key and show it, once: only its hash is kept."""
    from mibao.serving.api_keys import Grant, KeyKind, Limits

    now_ms = _now_ms()
    if admin and certificate is not None:
        raise InputError("apikey: expected either --admin or --certificate")
    kind = KeyKind.ADMIN if admin else KeyKind.CERTIFICATE if certificate is not None else KeyKind.CLIENT
    limits = Limits(
        requests_per_minute=requests_per_minute,
        tokens_per_day=tokens_per_day,
        spend_per_month=None if spend_per_month is None else round(spend_per_month * _MILLION),
    )
    grant = Grant(
        tenant=tenant,
        label=label,
        kind=kind,
        policy=policy,
        routes=frozenset(route) if route else None,
        models=frozenset(model) if model else None,
        limits=limits,
        expires_ms=None if expires is None else now_ms + _duration_ms(expires),
    )
    _make(store, grant, certificate=certificate, now_ms=now_ms)


@app.command("list")
def list_(
    store: StorePlace = "gateway.db",
    jsonl: Annotated[bool, typer.Option("--jsonl", help="As JSON lines.")] = False,
) -> None:
    """List the keys: what each may do, and whether it still opens anything."""
    from mibao.serving import api_keys
    from mibao.serving.storage import Store

    with Store.open(_existing(store)) as opened, opened.reading() as connection:
        records = api_keys.every(connection)
    if jsonl:
        import json

        from mibao.serving.key_text import to_json

        for record in records:
            typer.echo(json.dumps(to_json(record, now_ms=_now_ms())))
        return
    _print_table(records)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `mibao apikey list` shows it.")],
    store: StorePlace = "gateway.db",
) -> None:
    """Close a key for good. Every worker knows within five seconds."""
    from mibao.serving import api_keys
    from mibao.serving.storage import Store

    with Store.open(_existing(store)) as opened, opened.writing() as connection:
        closed = api_keys.revoke(connection, key_id, now_ms=_now_ms())
    if not closed:
        raise InputError("apikey: expected the id of a key that is not revoked yet")
    typer.echo(f"{key_id} is revoked")


def _make(store: str, grant: Grant, *, certificate: Path | None, now_ms: int) -> None:
    from mibao.serving import api_keys
    from mibao.serving.storage import Store

    der = None if certificate is None else _der(certificate)
    with Store.open(store) as opened, opened.writing() as connection:
        if der is None:
            text, record = api_keys.create(connection, grant, now_ms=now_ms)
        else:
            text, record = "", api_keys.register_certificate(connection, der, grant, now_ms=now_ms)
    if text:
        typer.echo(text)
        typer.echo(f"id {record.key_id}: shown once, only its hash is kept", err=True)
    else:
        typer.echo(record.key_id)


def _print_table(records: list[KeyRecord]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mibao.serving.key_text import limits_text

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("id", "kind", "tenant", "label", "state", "expires (UTC)", "may"):
        table.add_column(name, overflow="fold")
    now_ms = _now_ms()
    for record in records:
        grant = record.grant
        texts = (
            record.key_id, grant.kind.value, grant.tenant, grant.label, record.refusal(now_ms) or "open",
            _time_text(grant.expires_ms), limits_text(grant),
        )  # fmt: skip
        table.add_row(*map(Text, texts))
    console = Console(highlight=False)
    (console if console.is_terminal else Console(highlight=False, width=160)).print(table)


def _time_text(time_ms: int | None) -> str:
    return "never" if time_ms is None else f"{datetime.fromtimestamp(time_ms / 1000, tz=UTC):%Y-%m-%d %H:%M}"


def _existing(store: str) -> str:
    """A misspelt name is not to become a new, empty store."""
    if "://" not in store and not Path(store).exists():
        raise InputError(f"{store}: no such file; name the gateway's store with --store or $MIBAO_STORE")
    return store


def _der(path: Path) -> bytes:
    import ssl

    try:
        return ssl.PEM_cert_to_DER_cert(path.read_text(encoding="ascii").strip())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{path}: expected one certificate in PEM") from error


def _duration_ms(text: str) -> int:
    number, unit = text[:-1], text[-1:]
    if not number.isascii() or not number.isdigit() or unit not in _UNITS_MS or len(number) > 6:
        raise InputError(f"--expires: expected a time such as 30m, 12h, 90d or 1y, got {text}")
    return int(number) * _UNITS_MS[unit]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
