"""Circuits, keys, requests and answers as files: the edge of this pillar.

A secret goes to a new file of mode 0600; anything else to a file beside its target, which then takes the name.
"""

from __future__ import annotations

import os
from pathlib import Path

from mibao.errors import InputError
from mibao.he.client import Client
from mibao.he.envelope import MAX_BYTES
from mibao.he.linear import LinearCircuit
from mibao.he.server import Server

CLIENT_KEY_NAME = "client.key"
SERVER_KEYS_NAME = "server.keys"
HOST_BUNDLE_NAME = "host.bundle"
_FRAME_BYTES = 64
_SECRET_MODE = 0o600
_PUBLIC_MODE = 0o666  # less the umask


def read_bytes(path: Path) -> bytes:
    """The content of one of this pillar's files.

    Raises:
        InputError: the file is missing, unreadable, no regular file, or larger than any of them may be.
    """
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > max(MAX_BYTES.values()) + _FRAME_BYTES:
                raise InputError(f"{path}: {size} bytes is more than any file of this kind may have")
            return stream.read()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def write_bytes(path: Path, data: bytes) -> None:
    """Write or replace a file that is no secret.

    Raises:
        InputError: the folder is missing or not writable.
    """
    try:
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        _write_new(part, data, mode=_PUBLIC_MODE)
        part.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error


def write_client_key(path: Path, client: Client) -> None:
    """Write the secret with mode 0600. A key that is there already is never replaced.

    Raises:
        InputError: the file exists, or the folder is missing or not writable.
    """
    _write_secret(path, client.reveal_secret_bytes())


def read_client_key(path: Path) -> Client:
    """The client in ``client.key``. Raises as :func:`read_bytes` and :meth:`Client.from_secret_bytes`."""
    return Client.from_secret_bytes(read_bytes(path))


def write_circuit(path: Path, circuit: LinearCircuit) -> None:
    """Write a circuit; with weights in clear, if it has them, so with mode 0600. Raises as :func:`write_client_key`."""
    _write_secret(path, circuit.to_bytes())


def read_circuit(path: Path) -> LinearCircuit:
    """The circuit in a file. Raises as :func:`read_bytes` and :meth:`LinearCircuit.from_bytes`."""
    return LinearCircuit.from_bytes(read_bytes(path))


def write_server(folder: Path, server: Server) -> tuple[Path, Path]:
    """Write ``host.bundle`` and ``server.keys``, all that a compute host needs, and return where they lie.

    Raises:
        InputError: the folder is missing or not writable.
    """
    bundle, keys = folder / HOST_BUNDLE_NAME, folder / SERVER_KEYS_NAME
    write_bytes(bundle, server.bundle_bytes())
    write_bytes(keys, server.keys_bytes())
    return bundle, keys


def read_server(bundle: Path, keys: Path) -> Server:
    """The server from its two files. Raises as :func:`read_bytes` and :meth:`Server.from_bytes`."""
    return Server.from_bytes(bundle=read_bytes(bundle), keys=read_bytes(keys))


def _write_secret(path: Path, data: bytes) -> None:
    try:
        _write_new(path, data, mode=_SECRET_MODE)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error


def _write_new(path: Path, data: bytes, *, mode: int) -> None:
    """A file that was not there before; none at all if writing fails."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
