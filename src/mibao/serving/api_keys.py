"""API keys: random, shown once, kept as hashes; with what each may do, until when, and how much.

``sk-mibao-<id>-<secret>``, both parts in lower-case base32: 8 random bytes that name the key, and 32 that prove it.
A secret of 256 random bits cannot be guessed from its hash, so one SHA-256 is enough and a slow hash would only be
a way to keep the server busy. A client's certificate stands in the same table, by its own SHA-256.

Source: NIST SP 800-63B-4, section 3.1.3.2 (look-up secrets with enough entropy need no salt).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError as DuplicateRow

from mibao.crypto.kdf import domain_tag
from mibao.crypto.rng import random_bytes
from mibao.errors import InputError
from mibao.serving.migrations import KEYS

PREFIX = "sk-mibao-"
MAX_NAME = 200
# No control characters, and none that change how a list of keys reads: spaces of no width, reversals of direction.
NAME_PATTERN = r"^[^\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]*$"
MAX_LIMIT = 10**15
_ID_BYTES, _SECRET_BYTES = 8, 32
_TEXT = re.compile(r"sk-mibao-([a-z2-7]{13})-([a-z2-7]{52})")


class KeyKind(Enum):
    """What a key opens."""

    CLIENT = "client"  # the data path
    CERTIFICATE = "certificate"  # the data path, for who holds a certificate's private key
    ADMIN = "admin"  # the administrative path, and nothing else


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one key may use; None is no limit.

    Args:
        requests_per_minute: In any 60 seconds.
        tokens_per_day: Prompts and answers together, by the day in UTC.
        spend_per_month: In millionths of the currency of the prices, by the month in UTC.
    """

    requests_per_minute: int | None = None
    tokens_per_day: int | None = None
    spend_per_month: int | None = None

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "tokens_per_day", "spend_per_month"):
            limit = getattr(self, name)
            if limit is not None and not 0 <= limit <= MAX_LIMIT:
                raise InputError(f"{name}: expected 0 to {MAX_LIMIT}, got {limit}")

    @property
    def are_none(self) -> bool:
        """Whether nothing is limited."""
        return self.requests_per_minute is None and self.tokens_per_day is None and self.spend_per_month is None


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a key is made for. ``routes`` and ``models`` are None for all; ``expires_ms`` is None for never."""

    tenant: str
    label: str = ""
    kind: KeyKind = KeyKind.CLIENT
    policy: str | None = None
    routes: frozenset[str] | None = None
    models: frozenset[str] | None = None
    limits: Limits = NO_LIMITS
    expires_ms: int | None = None

    def __post_init__(self) -> None:
        names = (self.tenant, self.label, self.policy or "", *(self.routes or ()), *(self.models or ()))
        if not self.tenant:
            raise InputError("API key: expected a tenant")
        if any(len(name) > MAX_NAME or not re.fullmatch(NAME_PATTERN, name) for name in names):
            raise InputError(
                f"API key: expected names of at most {MAX_NAME} characters, none of them a control character"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """A key as it is kept: everything but its secret."""

    key_id: str
    digest: bytes
    grant: Grant
    created_ms: int
    revoked_ms: int | None

    def __repr__(self) -> str:
        return f"<KeyRecord {self.key_id}>"

    def refusal(self, now_ms: int) -> str | None:
        """Why it opens nothing now, ``revoked`` or ``expired``; None if it does."""
        if self.revoked_ms is not None:
            return "revoked"
        return "expired" if self.grant.expires_ms is not None and self.grant.expires_ms <= now_ms else None


def secret_digest(secret: str) -> bytes:
    """What is kept of a secret."""
    return hashlib.sha256(domain_tag("serving/api-key", secret.encode())).digest()


def certificate_digest(certificate: bytes) -> bytes:
    """What is kept of a certificate in DER: the SHA-256 that ``openssl x509 -fingerprint -sha256`` prints."""
    return hashlib.sha256(certificate).digest()


def parse(text: str) -> tuple[str, str] | None:
    """The id and the secret in the text of a key; None if it is not one."""
    found = _TEXT.fullmatch(text)
    return (found[1], found[2]) if found else None


def opens(record: KeyRecord | None, digest: bytes) -> bool:
    """Whether ``digest`` is the record's, in a time that does not tell how much of it is right, or if there is one."""
    return hmac.compare_digest(record.digest if record else bytes(32), digest) and record is not None


def create(connection: Connection, grant: Grant, *, now_ms: int) -> tuple[str, KeyRecord]:
    """A new key: its text, which is kept nowhere, and its record.

    Raises:
        InputError: it is of a certificate's kind; :func:`register_certificate` makes those.
    """
    if grant.kind is KeyKind.CERTIFICATE:
        raise InputError("API key: a certificate is registered, not made")
    key_id, secret = _base32(random_bytes(_ID_BYTES)), _base32(random_bytes(_SECRET_BYTES))
    record = KeyRecord(key_id=key_id, digest=secret_digest(secret), grant=grant, created_ms=now_ms, revoked_ms=None)
    _insert(connection, record)
    return f"{PREFIX}{key_id}-{secret}", record


def register_certificate(connection: Connection, certificate: bytes, grant: Grant, *, now_ms: int) -> KeyRecord:
    """A record for the holder of a certificate (DER) that the server's authority vouches for.

    Raises:
        InputError: that certificate is registered already.
    """
    record = KeyRecord(
        key_id=_base32(random_bytes(_ID_BYTES)),
        digest=certificate_digest(certificate),
        grant=grant,
        created_ms=now_ms,
        revoked_ms=None,
    )
    try:
        _insert(connection, record)
    except DuplicateRow:
        raise InputError("API key: that certificate is registered already") from None
    return record


def revoke(connection: Connection, key_id: str, *, now_ms: int) -> bool:
    """Close a key for good; whether there was one that was not closed yet."""
    changed = connection.execute(
        update(KEYS).where(KEYS.c.key_id == key_id, KEYS.c.revoked_ms.is_(None)).values(revoked_ms=now_ms)
    )
    return changed.rowcount == 1


def find(connection: Connection, key_id: str) -> KeyRecord | None:
    """The record of that id."""
    row = connection.execute(select(KEYS).where(KEYS.c.key_id == key_id)).first()
    return None if row is None else _record(row._mapping)


def find_certificate(connection: Connection, digest: bytes) -> KeyRecord | None:
    """The record of the certificate with that digest."""
    query = select(KEYS).where(KEYS.c.digest == digest, KEYS.c.kind == KeyKind.CERTIFICATE.value)
    row = connection.execute(query).first()
    return None if row is None else _record(row._mapping)


def every(connection: Connection) -> list[KeyRecord]:
    """All records, the oldest first."""
    rows = connection.execute(select(KEYS).order_by(KEYS.c.created_ms, KEYS.c.key_id)).all()
    return [_record(row._mapping) for row in rows]


def _insert(connection: Connection, record: KeyRecord) -> None:
    grant, limits = record.grant, record.grant.limits
    connection.execute(
        insert(KEYS).values(
            key_id=record.key_id,
            kind=grant.kind.value,
            digest=record.digest,
            tenant=grant.tenant,
            label=grant.label,
            policy=grant.policy,
            routes=_names_text(grant.routes),
            models=_names_text(grant.models),
            requests_per_minute=limits.requests_per_minute,
            tokens_per_day=limits.tokens_per_day,
            spend_per_month=limits.spend_per_month,
            created_ms=record.created_ms,
            expires_ms=grant.expires_ms,
        )
    )


def _record(row: Mapping[Any, Any]) -> KeyRecord:
    limits = Limits(
        requests_per_minute=row["requests_per_minute"],
        tokens_per_day=row["tokens_per_day"],
        spend_per_month=row["spend_per_month"],
    )
    grant = Grant(
        tenant=row["tenant"],
        label=row["label"],
        kind=KeyKind(row["kind"]),
        policy=row["policy"],
        routes=_names(row["routes"]),
        models=_names(row["models"]),
        limits=limits,
        expires_ms=row["expires_ms"],
    )
    return KeyRecord(
        key_id=row["key_id"],
        digest=bytes(row["digest"]),
        grant=grant,
        created_ms=row["created_ms"],
        revoked_ms=row["revoked_ms"],
    )


def _names_text(names: frozenset[str] | None) -> str | None:
    return None if names is None else json.dumps(sorted(names))


def _names(text: str | None) -> frozenset[str] | None:
    return None if text is None else frozenset(json.loads(text))


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()
