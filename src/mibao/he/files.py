"""Circuits, keys, requests and answers as files: the edge of this pillar.

Nothing that is there already is ever replaced. A file is written beside its place and then takes the name.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from jaxtyping import Real
from numpy import ndarray

from mibao.errors import InputError, IntegrityError
from mibao.he import envelope
from mibao.he.arrays import array_of
from mibao.he.circuit import Circuit
from mibao.he.client import Client
from mibao.he.envelope import MAX_BYTES, Kind
from mibao.he.forest_circuit import ForestCircuit, server_of
from mibao.he.server import Server
from mibao.he.tree_messages import TreeClient, TreeServer

CLIENT_KEY_NAME = "client.key"
SERVER_KEYS_NAME = "server.keys"
PUBLIC_KEY_NAME = "public.key"
HOST_BUNDLE_NAME = "host.bundle"
RELEASED_NAME = "client.released"
_FRAME_BYTES = 64
_LONGEST = max(MAX_BYTES.values()) + _FRAME_BYTES
_SECRET_MODE = 0o600
_PUBLIC_MODE = 0o666  # less the umask


def read_bytes(path: Path) -> bytes:
    """The content of one of this pillar's files.

    Raises:
        InputError: the file is missing, unreadable, no regular file, or larger than any of them may be.
    """
    try:
        with open(path, "rb", opener=_open_at_once) as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{path}: cannot be read (not a regular file)")
            data = stream.read(_LONGEST + 1) if status.st_size <= _LONGEST else None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if data is None or len(data) > _LONGEST:
        raise InputError(f"{path}: more than {_LONGEST} bytes is more than any file of this kind may have")
    return data


def read_message(path: Path) -> bytes:
    """The content of a circuit, a key, a request or an answer. Nothing but its first bytes is checked.

    Raises:
        InputError: as :func:`read_bytes`.
        IntegrityError: it is no such file.
    """
    data = read_bytes(path)
    if data[: len(envelope.MAGIC)] != envelope.MAGIC:
        raise IntegrityError(f"{path}: no circuit, key, request or answer (expected {envelope.MAGIC!r} at its start)")
    return data


def read_records(path: Path) -> Real[ndarray, "..."]:
    """The array in an ``.npy`` file. Raises as :func:`read_bytes` and :func:`~mibao.he.arrays.array_of`."""
    return array_of(read_bytes(path), name=str(path))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file that is no secret; it appears whole or not at all.

    Raises:
        InputError: the file exists already, or the folder is missing or not writable.
    """
    _write_new(path, data, mode=_PUBLIC_MODE)


def write_logits(path: Path, data: bytes) -> None:
    """Write decrypted logits, with mode 0600: they speak about the key. Raises as :func:`write_bytes`."""
    _write_new(path, data, mode=_SECRET_MODE)


def write_client_key(path: Path, client: Client | TreeClient) -> None:
    """Write the secret with mode 0600. A key that is there already is never replaced.

    Raises:
        InputError: the file exists, or the folder is missing or not writable.
    """
    _write_new(path, client.reveal_secret_bytes(), mode=_SECRET_MODE)


def read_client_key(path: Path) -> Client | TreeClient:
    """The client in ``client.key``. Raises as :func:`read_message` and :meth:`Client.from_secret_bytes`."""
    data = read_message(path)
    if envelope.is_of(data, Kind.FOREST_KEY):
        return TreeClient.from_secret_bytes(data)
    return Client.from_secret_bytes(data)


def write_circuit(path: Path, circuit: Circuit | ForestCircuit) -> None:
    """Write a circuit; with weights in clear, if it has them, so with mode 0600. Raises as :func:`write_client_key`."""
    _write_new(path, circuit.to_bytes(), mode=_SECRET_MODE)


def read_circuit(path: Path) -> Circuit | ForestCircuit:
    """The circuit in a file. Raises as :func:`read_bytes` and :meth:`Circuit.from_bytes`."""
    data = read_message(path)
    if envelope.is_of(data, Kind.FOREST, Kind.FOREST_BUNDLE):
        return ForestCircuit.from_bytes(data)
    return Circuit.from_bytes(data)


def write_server(folder: Path, server: Server | TreeServer) -> tuple[Path, Path]:
    """Write ``host.bundle`` and ``server.keys``, all that a compute host needs, and return where they lie.

    Raises:
        InputError: the folder is missing or not writable.
    """
    bundle, keys = folder / HOST_BUNDLE_NAME, folder / SERVER_KEYS_NAME
    write_bytes(bundle, server.bundle_bytes())
    write_bytes(keys, server.keys_bytes())
    return bundle, keys


def read_server(bundle: Path, keys: Path, *, account: str | None = None) -> Server | TreeServer:
    """The server from its two files. Raises as :func:`read_bytes` and :meth:`Server.from_bytes`."""
    return server_from(bundle=read_message(bundle), keys=read_message(keys), account=account)


def server_from(*, bundle: bytes, keys: bytes, account: str | None = None) -> Server | TreeServer:
    """The server of a network or of trees, as its bundle says. Raises as :meth:`Server.from_bytes`."""
    if envelope.is_of(bundle, Kind.FOREST_BUNDLE):
        return server_of(bundle=bundle, keys=keys, account=account)
    return Server.from_bytes(bundle=bundle, keys=keys, account=account)


def _open_at_once(path: str, flags: int) -> int:
    """Open a FIFO without waiting for its writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def check_new(*paths: Path) -> None:
    """Return if nothing is there yet. Raises ``InputError`` that names what is."""
    for path in paths:
        if os.path.lexists(path):
            raise InputError(f"{path} exists already and is not overwritten: choose another name or move it away")


def _write_new(path: Path, data: bytes, *, mode: int) -> None:
    check_new(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        _write_part(part, data, mode=mode)
        os.link(part, path)  # unlike a rename, a link never replaces what another process has just written
    except FileExistsError as error:
        raise InputError(f"{path} exists already and is not overwritten") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        part.unlink(missing_ok=True)


def _write_part(path: Path, data: bytes, *, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
