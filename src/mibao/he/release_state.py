"""The file in which a key holder keeps what its key has released: an edge of this pillar.

A header of 96 bytes, made with the key, then the digest of each released answer, 32 bytes, in order. Entries are added
under a lock and synced before anything is decrypted, and never taken away, so a process that dies leaves a count that
is right or one too high. A file that is missing is an error, never a fresh count. Whoever can put an older file in its
place can have more answers released than the limit: keep it beside the key, out of backups that are restored.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mibao.crypto.kdf import domain_tag
from mibao.errors import BudgetExhausted, InputError, IntegrityError, KeyMismatch
from mibao.he.files import check_new
from mibao.he.release import ReleasePolicy
from mibao.he.release_terms import MAX_ANSWERS
from mibao.types import RandomId

_MAGIC = b"MBHEREL1"
_HEADER = struct.Struct(">8s16s32sQ")
_DIGEST_BYTES = 32
_SECRET_MODE = 0o600


class ReleaseFile:
    """What one key has released. Processes may share the file."""

    __slots__ = ("_key_id", "_path")

    def __init__(self, path: Path, *, key_id: RandomId) -> None:
        """Nothing is read yet; :meth:`create` makes the file, once in a key's life."""
        self._path = path
        self._key_id = key_id

    def create(self, policy: ReleasePolicy) -> None:
        """Make the file of a key that has released nothing yet.

        Raises:
            InputError: there is one already, or it cannot be written.
        """
        check_new(self._path)
        header = _HEADER.pack(_MAGIC, self._key_id.value, policy.digest(), policy.answers_limit)
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _SECRET_MODE)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(header + _checksum(header))
                stream.flush()
                os.fsync(stream.fileno())
            _sync_folder(self._path.parent)
        except OSError as error:
            raise InputError(f"{self._path}: cannot be written ({error.strerror})") from error

    def released(self) -> int:
        """How many different answers have gone out. Raises as :meth:`take`, but for the budget."""
        with self._locked() as descriptor:
            _, _, held = self._read(descriptor)
        return len(held)

    def take(self, *, policy: bytes, limit: int, answers: Sequence[bytes]) -> None:
        """See :class:`~mibao.he.release.ReleaseCount`.

        Raises:
            BudgetExhausted: with these answers the key would pass its limit; nothing is recorded.
            InputError: the file is missing or cannot be written, or the key releases under another policy.
            IntegrityError: the file is damaged.
            KeyMismatch: it is another key's.
        """
        with self._locked() as descriptor:
            held_policy, held_limit, held = self._read(descriptor)
            if (held_policy, held_limit) != (policy, limit):
                raise InputError("release: this key releases under another policy; a second one takes another key")
            known = set(held)
            new = [answer for answer in dict.fromkeys(answers) if answer not in known]
            if len(held) + len(new) > limit:
                raise BudgetExhausted(
                    f"release: {len(held)} of {limit} answers are out, and {len(new)} more were asked for; "
                    "generate another key"
                )
            end = _HEADER.size + _DIGEST_BYTES + len(held) * _DIGEST_BYTES
            try:
                _write_all(descriptor, b"".join(new), at=end)
                os.fsync(descriptor)
            except OSError as error:
                raise InputError(f"{self._path}: cannot be written ({error.strerror})") from error

    def _read(self, descriptor: int) -> tuple[bytes, int, list[bytes]]:
        data = os.pread(descriptor, _HEADER.size + _DIGEST_BYTES * (2 + MAX_ANSWERS), 0)
        header, checksum = data[: _HEADER.size], data[_HEADER.size : _HEADER.size + _DIGEST_BYTES]
        if len(header) < _HEADER.size or checksum != _checksum(header):
            raise IntegrityError(f"{self._path}: no record of released answers, or a damaged one")
        _, key_id, policy, limit = _HEADER.unpack(header)
        if key_id != self._key_id.value:
            raise KeyMismatch(f"{self._path}: the record of another key")
        body = data[_HEADER.size + _DIGEST_BYTES :]
        # A last entry cut short was never acknowledged: its answers were not decrypted.
        whole = range(0, len(body) - len(body) % _DIGEST_BYTES, _DIGEST_BYTES)
        return policy, limit, [body[start : start + _DIGEST_BYTES] for start in whole]

    @contextmanager
    def _locked(self) -> Iterator[int]:
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise InputError(f"{self._path}: cannot be opened ({error.strerror}); nothing is released") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)


def _checksum(header: bytes) -> bytes:
    return hashlib.sha256(domain_tag("he/release-file", header)).digest()


def _write_all(descriptor: int, data: bytes, *, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, at)
        view, at = view[written:], at + written


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
