"""`mibao serve`: the privacy gateway in front of a model service."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mibao.cli import listening
from mibao.errors import InputError

if TYPE_CHECKING:
    from mibao.serving.configuration import Configuration
    from mibao.serving.worker import Worker

KEY_BYTES = 32
_KEY_FILE = "gateway.key"


def serve(  # noqa: PLR0917 - typer's options
    config: Annotated[Path | None, typer.Argument(metavar="[CONFIG.toml]", help="For more than one upstream.")] = None,
    upstream: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The model service, up to /v1: OpenAI's API, Anthropic's, or both."),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Where to listen. Default: this machine only.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Default: 8100.")] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Everyone may ask, and their own key goes upstream; for one user.")
    ] = False,
    upstream_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="The environment variable that holds the upstream's key.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="pseudonyms (default), surrogates, a policy of `mibao deid policies`.")
    ] = None,
    report: Annotated[bool, typer.Option("--report", help="Say in a header what was found: types and counts.")] = False,
    certificate: Annotated[Path | None, typer.Option(metavar="PEM", help="Serve TLS with this certificate.")] = None,
    certificate_key: Annotated[Path | None, typer.Option(metavar="PEM", help="The certificate's private key.")] = None,
) -> None:
    """Take personal data out of what is asked of a model service, and put it back into the answers.

    Change one line in your program: `base_url="http://127.0.0.1:8100/v1"`. What is found is replaced by placeholders on
    the way out and restored on the way back; what is not found is not, so nothing here is called anonymous.
    """
    granian = listening.granian("the gateway")
    settings = _configuration(
        config, upstream=upstream, host=host, port=port, no_auth=no_auth, upstream_key_env=upstream_key_env,
        policy=policy, report=report, certificate=certificate, certificate_key=certificate_key,
    )  # fmt: skip
    worker = _worker(settings, Path() if config is None else config.parent)
    worker.check()  # a fault in the configuration is told here, and not by a process that dies
    listen = settings.server
    listening.check_free(listen.host, listen.port, command="serve")
    scheme = "http" if listen.certificate is None else "https"
    who = "everyone may ask" if settings.no_auth else "keys: mibao apikey"
    sys.stderr.write(
        f"mibao serve: {scheme}://{listen.host}:{listen.port}/v1 in front of "
        f"{', '.join(each.url for each in settings.upstreams)} ({who}); Ctrl-C stops\n"
    )
    with _administered(settings):
        _serve(granian, settings, worker)


def _serve(granian: Any, settings: Configuration, worker: Worker) -> None:
    """Answer until asked to end. One worker is this very process, which spares the memory of another."""
    listen = settings.server
    if listen.client_authority is not None:
        _serve_with_certificates(settings, worker)
        return
    options = {
        "address": listen.host,
        "port": listen.port,
        "interface": "asgi",
        "log_enabled": False,
        "websockets": False,
        "ssl_cert": None if listen.certificate is None else Path(listen.certificate),
        "ssl_key": None if listen.certificate_key is None else Path(listen.certificate_key),
    }
    if listen.workers == 1:
        import uvloop

        uvloop.run(_serve_here(worker, options))
    else:
        granian("mibao", workers=listen.workers, respawn_failed_workers=True, workers_kill_timeout=30, **options).serve(
            target_loader=worker
        )


async def _serve_here(worker: Worker, options: dict[str, Any]) -> None:
    from granian.server.embed import Server

    server = Server(worker(), **options)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    await server.serve()


@contextmanager
def _administered(settings: Configuration) -> Iterator[None]:
    """The administrative side, in a process of its own, where the configuration gives it a port."""
    from multiprocessing import get_context

    listen = settings.server
    if listen.admin_port is None:
        yield
        return
    if settings.no_auth:
        raise InputError("serve: expected no admin_port without keys (--no-auth)")
    listening.check_free(listen.host, listen.admin_port, command="serve")
    process = get_context("spawn").Process(
        target=_serve_admin, args=(settings.state.store, listen.host, listen.admin_port), daemon=True
    )
    process.start()
    sys.stderr.write(
        f"metrics, keys and spend: http://{listen.host}:{listen.admin_port} (mibao apikey create --admin)\n"
    )
    try:
        yield
    finally:
        process.terminate()
        process.join(10)


def _serve_admin(place: str, host: str, port: int) -> None:
    import uvicorn

    from mibao.serving.admin import admin_app
    from mibao.serving.storage import Store
    from mibao.serving.worker import end_with_parent

    end_with_parent()
    with Store.open(place) as store:
        app = admin_app(store)
        uvicorn.run(app, host=host, port=port, log_config=None, access_log=False, server_header=False, ws="none")
        app.state.directory.close()


def _configuration(config: Path | None, *, no_auth: bool, **options: Any) -> Configuration:
    from msgspec.structs import replace

    from mibao.serving import configuration as configurations
    from mibao.serving.configuration import Configuration, UpstreamSettings

    if (config is None) == (options["upstream"] is None):
        raise InputError("serve: expected either --upstream URL or a configuration file")
    if config is not None:
        try:
            settings = configurations.parse(config.read_text(encoding="utf-8"), source=str(config))
        except OSError as error:
            raise InputError(f"serve: cannot read {config}: {error.strerror}") from error
        settings = configurations.located(settings, config.parent)
    else:
        one = UpstreamSettings(name="upstream", url=options["upstream"], key_env=options["upstream_key_env"])
        settings = Configuration(upstreams=(one,))
    names = ("host", "port", "certificate", "certificate_key")
    given = {name: options[name] for name in names if options[name] is not None}
    given = {name: str(value.absolute()) if isinstance(value, Path) else value for name, value in given.items()}
    privacy = settings.privacy
    if options["policy"] is not None:
        privacy = replace(privacy, policy=options["policy"])
    if options["report"]:
        privacy = replace(privacy, report_header=True)
    settings = replace(
        settings, server=replace(settings.server, **given), privacy=privacy, no_auth=settings.no_auth or no_auth
    )
    configurations.check(settings, source="serve" if config is None else str(config))
    if (settings.server.certificate is None) != (settings.server.certificate_key is None):
        raise InputError("serve: expected a certificate and its key, or neither")
    if settings.server.client_authority is not None and settings.server.workers > 1:
        raise InputError(f"serve: expected one worker with client_authority, got {settings.server.workers}")
    return settings


def _worker(settings: Configuration, folder: Path) -> Worker:
    from mibao.cli import keys_io
    from mibao.crypto.rng import random_bytes
    from mibao.serving.storage import Store
    from mibao.serving.worker import Worker
    from mibao.serving.worker_state import first_key

    if settings.no_auth:
        return Worker(configuration=settings, gateway_key=random_bytes(KEY_BYTES))
    ledger = settings.state.ledger
    signer = None if ledger is None else keys_io.read_signer_private(Path(f"{ledger}.key"))
    with Store.open(settings.state.store) as store:
        text = first_key(store)
    if text is not None:
        sys.stderr.write(f"first API key, shown once: {text}\n")
    return Worker(configuration=settings, gateway_key=_gateway_key(folder / _KEY_FILE), signer=signer)


def _gateway_key(path: Path) -> bytes:
    """The key of this gateway, made where there is none: 32 bytes in a file of its owner's alone."""
    from mibao.crypto.rng import random_bytes

    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
            raise InputError(f"serve: expected {path} to be readable by its owner only") from None
        key = path.read_bytes()
        if len(key) != KEY_BYTES:
            raise InputError(f"serve: expected {KEY_BYTES} bytes in {path}, got {len(key)}") from None
        return key
    with os.fdopen(descriptor, "wb") as file:
        key = random_bytes(KEY_BYTES)
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    return key


def _serve_with_certificates(settings: Configuration, worker: Worker) -> None:
    import uvicorn

    from mibao.serving.tls import server_config

    listen = settings.server
    if listen.certificate is None or listen.certificate_key is None or listen.client_authority is None:
        raise InputError("serve: certificates of clients need a certificate and its key as well")
    uvicorn.Server(
        server_config(
            worker(),
            host=listen.host,
            port=listen.port,
            certificate=Path(listen.certificate),
            key=Path(listen.certificate_key),
            client_authority=Path(listen.client_authority),
        )
    ).run()
