"""Where de-identification reads and writes: texts in pieces, outputs whole or not at all, keys and vaults."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mibao.errors import InputError

if TYPE_CHECKING:
    from mibao.deid.custom import CustomTypes
    from mibao.deid.policies import Policy
    from mibao.deid.vault import Vault

CHUNK_BYTES = 1 << 16  # four times as much takes 30 to 100 MB more memory, and no less time
MAX_POLICY_BYTES = 1 << 20
_KEY_BYTES = 32
# What text cannot be taken from in this version. A name says more than "not UTF-8", and none is ever passed on.
_REFUSED = {
    ".doc": "old Word", ".xlsx": "Excel", ".xls": "Excel", ".pptx": "PowerPoint",
    ".dcm": "DICOM", ".png": "images", ".jpg": "images", ".jpeg": "images", ".tif": "images", ".tiff": "images",
    ".gif": "images", ".bmp": "images", ".rtf": "RTF", ".odt": "OpenDocument", ".zip": "archives", ".gz": "archives",
    ".avro": "Avro", ".orc": "ORC", ".feather": "Feather", ".sqlite": "databases", ".db": "databases", ".eml": "e-mail",
    ".msg": "e-mail", ".jp2": "images", ".heic": "images",
    ".webp": "images", ".svg": "images", ".mp3": "sound", ".wav": "sound", ".mp4": "film", ".nii": "scans",
}  # fmt: skip
DOCUMENTS = (".pdf", ".docx", ".html", ".htm")
MAX_DOCUMENT_BYTES = 1 << 28
TABLES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")


@dataclass(slots=True)
class Place:
    """An open input and what is known of it."""

    file: IO[bytes]
    name: str
    size: int | None
    read: int = field(default=0)

    def texts(self) -> Iterator[str]:
        """The text, in pieces.

        Raises:
            InputError: it is not UTF-8, or holds what no text does.
        """
        if Path(self.name).suffix.lower() in DOCUMENTS:
            yield from self._of_document()
            return
        decoder = codecs.getincrementaldecoder("utf-8")("strict")
        while chunk := self.file.read(CHUNK_BYTES):
            self.read += len(chunk)
            yield self._decoded(decoder, chunk, final=False)
        yield self._decoded(decoder, b"", final=True)

    def lines(self) -> Iterator[bytes]:
        """The lines, without their ends.

        Raises:
            InputError: it is a document, which has none.
        """
        if Path(self.name).suffix.lower() in DOCUMENTS:
            raise InputError(f"{self.name}: expected JSON lines, got a document")
        for line in self.file:
            self.read += len(line)
            yield line.removesuffix(b"\n").removesuffix(b"\r")

    def _of_document(self) -> Iterator[str]:
        from mibao.deid.documents import READERS

        data = self.file.read(MAX_DOCUMENT_BYTES + 1)
        if len(data) > MAX_DOCUMENT_BYTES:
            raise InputError(f"{self.name}: expected a document of at most {MAX_DOCUMENT_BYTES >> 20} MiB")
        self.read += len(data)
        try:
            yield from READERS[Path(self.name).suffix.lower()](data)
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from error

    def _decoded(self, decoder: codecs.IncrementalDecoder, chunk: bytes, *, final: bool) -> str:
        if b"\0" in chunk:
            raise InputError(f"{self.name}: expected text, got something with zero bytes in it")
        try:
            return decoder.decode(chunk, final)
        except UnicodeDecodeError as error:
            raise InputError(f"{self.name}: expected UTF-8 text, got other bytes near byte {self.read}") from error


@contextmanager
def opened(source: str) -> Iterator[Place]:
    """The input ``source``; ``-`` is standard input.

    Raises:
        InputError: there is no such file, or text is not taken from files of its kind.
    """
    if source == "-":
        yield Place(file=sys.stdin.buffer, name="standard input", size=None)
        return
    path = Path(source)
    if kind := _REFUSED.get(path.suffix.lower()):
        raise InputError(f"{path}: text is not taken from {kind} by this version: give it the text itself")
    if not path.is_file():
        raise InputError(f"{path}: expected a file, got {'a folder' if path.is_dir() else 'nothing there'}")
    with path.open("rb") as file:
        yield Place(file=file, name=str(path), size=path.stat().st_size)


@contextmanager
def written(output: Path | None) -> Iterator[IO[str]]:
    """Where to write; a file appears under its name only when all is done, and never in place of another."""
    if output is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    with new_file(output) as part, part.open("w", encoding="utf-8", errors="surrogatepass", newline="") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def new_file(output: Path) -> Iterator[Path]:
    """The name of a file beside ``output`` that takes its name when all is done.

    Raises:
        InputError: ``output`` exists already, or cannot be written.
    """
    if output.exists():
        raise InputError(f"{output} exists already and is not overwritten: choose another name or move it away")
    if not output.absolute().parent.is_dir():
        raise InputError(f"{output}: cannot be written (no such folder)")
    part = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        part.touch(mode=0o600)
        yield part
        os.link(part, output)
    except FileExistsError as error:
        raise InputError(f"{output} exists already and is not overwritten: choose another name") from error
    finally:
        part.unlink(missing_ok=True)


@dataclass(slots=True)
class Held:
    """The key of a scope and its vault, where there are such."""

    scope_key: bytes | None = field(repr=False)
    vault: Vault | None
    path: Path | None


@contextmanager
def keys_and_vault(vault: Path | None, key: Path | None, *, scope: str, needed: bool) -> Iterator[Held]:
    """The key in its file, made where there is none, and the vault that it opens.

    Raises:
        InputError: a file is no key, or a vault is there and its key is not.
        KeyMismatch: the vault is of another key or scope.
    """
    from mibao.crypto.rng import random_bytes
    from mibao.deid.masking import scope_key
    from mibao.deid.vault import Vault

    if key is None and vault is not None:
        key = vault.with_name(f"{vault.name}.key")
    if key is None:
        secret = random_bytes(_KEY_BYTES) if needed else None
    elif key.exists():
        secret = _read_key(key)
    elif vault is not None and vault.exists():
        raise InputError(f"{key}: expected the key of {vault}, got nothing there; name it with --key")
    else:
        from mibao.cli.new_file import write_new

        secret = random_bytes(_KEY_BYTES)
        write_new(key, f"{secret.hex()}\n", mode=0o600)
    own = None if secret is None else scope_key(secret, scope)
    if vault is None or own is None:
        yield Held(scope_key=own, vault=None, path=None)
        return
    with Vault.open(vault, scope_key=own) as kept:
        yield Held(scope_key=own, vault=kept, path=vault)


def is_table(source: str) -> bool:
    """Whether ``source`` is the name of a table."""
    return source != "-" and Path(source).suffix.lower() in TABLES


def read_resource(source: str) -> dict[str, Any] | None:
    """The FHIR resource in the file ``source``; None where it is another file.

    Raises:
        InputError: a file lies in the resource, which cannot be read.
    """
    path = Path(source)
    if source == "-" or path.suffix.lower() != ".json" or not path.is_file():
        return None
    if path.stat().st_size > MAX_DOCUMENT_BYTES:
        return None
    from mibao.deid.fhir import parse_resource

    try:
        return parse_resource(path.read_bytes())
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def read_policy(name: str, types: Iterable[str] = ()) -> Policy:
    """The policy in the file ``name``, or the ready one of that name; it may speak of ``types`` too.

    Raises:
        InputError: neither is there, or it is no policy.
    """
    from mibao.deid.policies import parse_policy, ready_policy

    path = Path(name)
    if path.suffix != ".toml" and not path.is_file():
        return ready_policy(name)
    if not path.is_file():
        raise InputError(f"{path}: expected a policy's file, got nothing there")
    return parse_policy(small_text(path), source=str(path), types=types)


def read_types(path: Path | None) -> CustomTypes | None:
    """The user's own types in a file; none where no file is named.

    Raises:
        InputError: there is no such file, or it describes no types.
    """
    if path is None:
        return None
    from mibao.deid.custom import parse_types

    if not path.is_file():
        raise InputError(f"{path}: expected a file of types, got nothing there")
    return parse_types(small_text(path), source=str(path))


def small_text(path: Path) -> str:
    """The text of a small file. Raises ``InputError`` where it is longer, or no UTF-8."""
    with path.open("rb") as file:
        content = file.read(MAX_POLICY_BYTES + 1)
    if len(content) > MAX_POLICY_BYTES:
        raise InputError(f"{path}: expected at most {MAX_POLICY_BYTES} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected UTF-8 text") from error


def _read_key(path: Path) -> bytes:
    with path.open("rb") as file:
        text = file.read(1024).strip()
    try:
        secret = bytes.fromhex(text.decode("ascii"))
    except ValueError as error:
        raise InputError(f"{path}: expected 64 hexadecimal digits, the key") from error
    if len(secret) != _KEY_BYTES:
        raise InputError(f"{path}: expected a key of {_KEY_BYTES} bytes, got {len(secret)}")
    return secret
