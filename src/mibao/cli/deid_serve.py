"""`mibao deid serve`: Presidio's HTTP calls over our engine, on this machine unless told otherwise."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mibao.cli import deid_files, listening
from mibao.cli.deid_search import why_no_names
from mibao.errors import InputError

if TYPE_CHECKING:
    from starlette.applications import Starlette


def serve(host: str, port: int, types_file: Path | None, key: Path | None, *, scope: str) -> None:
    """Answer until interrupted.

    Raises:
        InputError: the file of types or of the key is none, or the port is taken.
        MissingExtra: the extra ``serving`` is not installed.
    """
    granian = listening.granian("the HTTP service")
    types = None if types_file is None else (deid_files.small_text(types_file), str(types_file))
    with deid_files.keys_and_vault(None, key, scope=scope, needed=True) as held:
        if held.scope_key is None:
            raise InputError("deid serve: expected a key")
        loader = partial(load, types=types, key=held.scope_key)
    listening.check_free(host, port, command="deid serve")
    loader("")  # a fault in the types is told here, and not by a process that dies
    if missing := why_no_names(rules_only=False):
        sys.stderr.write(f"{missing}\n")
    sys.stderr.write(f"listening on http://{host}:{port}; POST /analyze /anonymize /deanonymize; Ctrl-C stops\n")
    granian("mibao", address=host, port=port, interface="asgi", workers=1, log_enabled=False).serve(
        target_loader=loader
    )


def load(_target: str, *, types: tuple[str, str] | None, key: bytes) -> Starlette:
    """The application, in the process that serves it."""
    from mibao.deid.custom import parse_types
    from mibao.deid.presidio import AnalyzerEngine, AnonymizerEngine
    from mibao.deid.presidio_http import application

    own = None if types is None else parse_types(types[0], source=types[1])
    analyzer = AnalyzerEngine(types=own)
    analyzer.analyze(text="", language="en")
    return application(analyzer=analyzer, anonymizer=AnonymizerEngine(key=key))
