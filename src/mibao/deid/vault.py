"""What every placeholder of one scope stands for, in memory and sealed in a file.

File: one frame, magic ``MBVT``, payload ``scope (32) || salt (32) || AES-256-GCM ciphertext``. The file key is
derived from the scope key and a fresh salt, used for this one message; associated data binds format and scope.
"""

from __future__ import annotations

import os
import stat
import tempfile
from itertools import count
from pathlib import Path

from mibao.codec import canonical, frames
from mibao.crypto.aead import NONCE_BYTES, TAG_BYTES, AesGcm
from mibao.crypto.kdf import derive, domain_tag, keyed_hash
from mibao.crypto.rng import random_bytes
from mibao.deid import pseudonyms
from mibao.deid.normalisation import canonical_form
from mibao.errors import InputError, IntegrityError, KeyMismatch
from mibao.types import EntityType, KeyedHash

SCOPE_KEY_BYTES = 32
SALT_BYTES = 32
MAX_FILE_BYTES = 1 << 28

_MAGIC, _VERSION, _KIND = b"MBVT", 1, 1
_ENTITIES = {entity.value: entity for entity in EntityType}


class Vault:
    """Written form to placeholder and back, for one scope. Distinct written forms never share a placeholder."""

    __slots__ = ("_linked", "_owners", "_placeholders", "_scope_key", "_written", "scope")

    def __init__(self, *, scope_key: bytes) -> None:
        if len(scope_key) != SCOPE_KEY_BYTES:
            raise InputError(f"vault: expected a scope key of {SCOPE_KEY_BYTES} bytes, got {len(scope_key)}")
        self._scope_key = scope_key
        self.scope = keyed_hash(scope_key, purpose="deid/scope", message=b"")
        self._owners: dict[tuple[EntityType, str], str] = {}  # stem -> the value it names
        self._linked: dict[tuple[EntityType, str], str] = {}  # value -> the value whose stem it shares
        self._placeholders: dict[tuple[EntityType, str], str] = {}  # written form -> placeholder
        self._written: dict[str, str] = {}  # placeholder -> written form

    def __len__(self) -> int:
        return len(self._written)

    def __repr__(self) -> str:
        return f"<Vault of {len(self)} placeholders>"

    def __reduce__(self) -> str:
        raise TypeError("a vault cannot be pickled or copied: save it under its key")

    def placeholder_for(self, entity: EntityType, written: str) -> str:
        """The one placeholder of this written form, made on first sight.

        The same in every vault of the scope, except where two values collide: the later takes its next symbols.
        """
        known = self._placeholders.get((entity, written))
        if known is not None:
            return known
        value = self._value(entity, written)
        head = f"{entity.value}_{self._claim_stem(entity, value)}"
        placeholder = f"<{head}>" if written == value else self._claim_form(head, entity, written)
        self._placeholders[entity, written] = placeholder
        self._written[placeholder] = written
        return placeholder

    def written(self, placeholder: str) -> str | None:
        """What stood where ``placeholder`` stands; None unless grammar, check symbol and scope are all right."""
        return self._written.get(placeholder) if pseudonyms.is_placeholder(placeholder) else None

    def link(self, entity: EntityType, written: str, *others: str) -> None:
        """Let ``others`` share the stem of ``written``: one person's names in two languages.

        Raises:
            InputError: one of ``others`` already has a placeholder or a link of its own.
        """
        primary = self._value(entity, written)
        values = {canonical_form(entity, other) for other in others} - {primary}
        standing = {value for (kind, _), value in (*self._owners.items(), *self._linked.items()) if kind is entity}
        if values & standing or any(self._linked.get((entity, value), primary) != primary for value in values):
            raise InputError("link: expected forms that have no placeholder and no link of their own yet")
        self._linked.update(dict.fromkeys(((entity, value) for value in values), primary))

    def save(self, path: Path) -> None:
        """Seal everything into ``path``, replacing it whole or not at all; readable by its owner only.

        Raises:
            InputError: the file cannot be written, or would pass :data:`MAX_FILE_BYTES`.
        """
        salt = random_bytes(SALT_BYTES)
        sealed = self._file_cipher(salt).seal(bytes(NONCE_BYTES), self._encode(), self._associated_data())
        payload = self.scope.value + salt + sealed
        if len(payload) > MAX_FILE_BYTES:
            raise InputError(f"vault: expected at most {MAX_FILE_BYTES} bytes, got {len(payload)}")
        frame = frames.encode(frames.Frame(magic=_MAGIC, version=_VERSION, kind=_KIND, payload=payload))
        try:
            _replace_file(path, frame)
        except OSError as error:
            raise InputError(f"vault: cannot write {path}: {error.strerror}") from error

    @classmethod
    def load(cls, path: Path, *, scope_key: bytes) -> Vault:
        """The vault that :meth:`save` sealed.

        Raises:
            InputError: the file cannot be read, or is too long to be a vault.
            KeyMismatch: the file belongs to another key or another scope.
            IntegrityError: the file was changed.
        """
        vault = cls(scope_key=scope_key)
        frame = frames.decode(_read_file(path), magic=_MAGIC, version=_VERSION, max_bytes=MAX_FILE_BYTES)
        if frame.kind != _KIND:
            raise IntegrityError(f"vault: expected a frame of kind {_KIND}, got {frame.kind}")
        scope, rest = frame.payload[: KeyedHash.size], frame.payload[KeyedHash.size :]
        salt, sealed = rest[:SALT_BYTES], rest[SALT_BYTES:]
        if len(sealed) < TAG_BYTES:
            raise IntegrityError("vault: truncated")
        if scope != vault.scope.value:
            raise KeyMismatch("vault: sealed for another key or another scope")
        try:
            content = vault._file_cipher(salt).open(bytes(NONCE_BYTES), sealed, vault._associated_data())
        except IntegrityError as error:
            raise IntegrityError("vault: its content was changed") from error
        vault._decode(content)
        return vault

    def _value(self, entity: EntityType, written: str) -> str:
        value = canonical_form(entity, written)
        return self._linked.get((entity, value), value)

    def _claim_stem(self, entity: EntityType, value: str) -> str:
        stems = (pseudonyms.stem(entity, value, scope_key=self._scope_key, attempt=attempt) for attempt in count())
        return next(stem for stem in stems if self._owners.setdefault((entity, stem), value) == value)

    def _claim_form(self, head: str, entity: EntityType, written: str) -> str:
        forms = (pseudonyms.form(entity, written, scope_key=self._scope_key, attempt=attempt) for attempt in count())
        return next(taken for form in forms if (taken := f"<{head}_{form}>") not in self._written)

    def _file_cipher(self, salt: bytes) -> AesGcm:
        return AesGcm(derive(self._scope_key, purpose="deid/vault-file", salt=salt))

    def _associated_data(self) -> bytes:
        return domain_tag("deid/vault-file", _MAGIC, bytes([_VERSION, _KIND]), self.scope.value)

    def _encode(self) -> bytes:
        tables = (self._owners, self._linked, self._placeholders)
        return canonical.encode(
            [
                [[kind.value, pseudonyms.utf8(key), pseudonyms.utf8(held)] for (kind, key), held in table.items()]
                for table in tables
            ]
        )

    def _decode(self, content: bytes) -> None:
        match canonical.decode(content, max_bytes=MAX_FILE_BYTES):
            case [list() as owners, list() as linked, list() as placeholders]:
                self._owners, self._linked, self._placeholders = map(_table, (owners, linked, placeholders))
            case _:
                raise IntegrityError("vault: not three tables")
        self._written = {placeholder: written for (_, written), placeholder in self._placeholders.items()}


def _table(rows: list[canonical.Value]) -> dict[tuple[EntityType, str], str]:
    table = {}
    for row in rows:
        match row:
            case [str() as kind, bytes() as key, bytes() as held] if kind in _ENTITIES:
                table[_ENTITIES[kind], key.decode("utf-8", "surrogatepass")] = held.decode("utf-8", "surrogatepass")
            case _:
                raise IntegrityError("vault: a row is not a type, a key and a value")
    return table


def _read_file(path: Path) -> bytes:
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"vault: cannot read {path}: not a regular file")
            longest = MAX_FILE_BYTES + frames.HEADER_BYTES
            if status.st_size > longest or len(data := file.read(longest + 1)) > longest:
                raise InputError(f"vault: expected at most {MAX_FILE_BYTES} bytes, got more")
            return data
    except OSError as error:
        raise InputError(f"vault: cannot read {path}: {error.strerror}") from error


def _open_at_once(path: str, flags: int) -> int:
    """Open a FIFO without waiting for its writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def _replace_file(path: Path, data: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except OSError:
        Path(name).unlink()
        raise
