"""What every command that serves does first."""

from __future__ import annotations

import socket
from typing import Any

from mibao.errors import InputError, MissingExtra


def granian(what: str) -> Any:
    """The web server. Raises MissingExtra where it is not installed, for the sake of ``what``."""
    try:
        from granian import Granian
    except ImportError as error:
        raise MissingExtra(what, extra="serving") from error
    return Granian


def check_free(host: str, port: int, *, command: str) -> None:
    """Raises InputError where ``command`` cannot listen: two servers may share a port, and each would answer some."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise InputError(f"{command}: cannot listen on {host}:{port} ({error.strerror})") from error
