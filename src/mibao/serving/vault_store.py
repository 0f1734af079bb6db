"""What placeholders stand for, shared by all workers: in the store, sealed under a key that is not in it.

A placeholder and its value are sealed by AES-256-GCM under a key derived for them alone from the gateway's key, a fresh
salt, their scope and a keyed hash of the placeholder, by which the row is found: so no nonce is drawn, and a row that
is moved to another scope or placeholder does not open. After its time a row is no longer read, and is deleted by the
next sweep.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from mibao.crypto.aead import NONCE_BYTES, TAG_BYTES, AesGcm
from mibao.crypto.kdf import derive, domain_tag, keyed_hash
from mibao.crypto.rng import random_bytes
from mibao.errors import InputError, IntegrityError
from mibao.serving.migrations import VAULT
from mibao.serving.storage import Store

KEY_BYTES = 32
SALT_BYTES = 16
MAX_VALUE_CHARS = 100_000
MAX_VALUES = 10_000
MAX_SCOPES = 10_000
TTL_S = 30 * 86_400


class StoredVault:
    """The values behind placeholders, by scope.

    Args:
        store: Where they lie.
        key: 32 bytes derived from the gateway's key; without it nothing here can be read.
        clock_ms: The time in UTC.
        ttl_s: How long a value is kept after it was last put.
    """

    def __init__(self, store: Store, *, key: bytes, clock_ms: Callable[[], int], ttl_s: int = TTL_S) -> None:
        if len(key) != KEY_BYTES:
            raise InputError(f"vault: expected a key of {KEY_BYTES} bytes, got {len(key)}")
        self._store, self._clock_ms, self._ttl_ms = store, clock_ms, 1000 * ttl_s
        self._seal_key = derive(key, purpose="serving/vault-seal")
        self._name_key = derive(key, purpose="serving/vault-name")

    def __repr__(self) -> str:
        return "<StoredVault>"

    def put(self, scope: bytes, values: Mapping[str, str]) -> None:
        """Keep what each placeholder of one scope stands for; one that is there keeps its value and its time anew.

        Raises:
            InputError: a value is longer than :data:`MAX_VALUE_CHARS`.
            IntegrityError: a placeholder is there and stands for something else.
            Unavailable: the store does not answer.
        """
        if any(len(value) > MAX_VALUE_CHARS for value in values.values()):
            raise InputError(f"vault: expected values of at most {MAX_VALUE_CHARS} characters")
        expires_ms = self._clock_ms() + self._ttl_ms
        rows = [
            {
                "scope": scope,
                "placeholder": name,
                "sealed": self._seal(scope, name, placeholder, value),
                "expires_ms": expires_ms,
            }
            for placeholder, value in sorted(values.items())
            for name in (self._name(scope, placeholder),)
        ]
        if not rows:
            return
        names = [row["placeholder"] for row in rows]
        with self._store.writing() as connection:
            connection.execute(
                delete(VAULT).where(
                    VAULT.c.scope == scope, VAULT.c.placeholder.in_(names), VAULT.c.expires_ms <= self._clock_ms()
                )
            )
            into = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
            statement = into(VAULT)
            renewed = {"expires_ms": statement.excluded["expires_ms"]}
            connection.execute(
                statement.on_conflict_do_update(index_elements=["scope", "placeholder"], set_=renewed), rows
            )
            # Read after it was written: whoever else wrote the same row at the same time was first, or is me.
            if self._read(connection, scope, values) != dict(values):
                raise IntegrityError("vault: a placeholder stands for something else already")

    def get(self, scope: bytes, placeholders: Iterable[str]) -> dict[str, str]:
        """What those of ``placeholders`` that are known in this scope stand for.

        Raises:
            IntegrityError: a row was changed, moved, or sealed under another key.
            Unavailable: the store does not answer.
        """
        with self._store.reading() as connection:
            return self._read(connection, scope, placeholders)

    def every(self, scope: bytes) -> dict[str, str]:
        """What all placeholders of one scope stand for.

        Raises:
            InputError: there are more than :data:`MAX_VALUES`.
            IntegrityError: as :meth:`get`.
            Unavailable: as :meth:`get`.
        """
        query = select(VAULT.c.placeholder, VAULT.c.sealed).where(
            VAULT.c.scope == scope, VAULT.c.expires_ms > self._clock_ms()
        )
        with self._store.reading() as connection:
            rows = connection.execute(query.limit(MAX_VALUES + 1)).all()
        if len(rows) > MAX_VALUES:
            raise InputError(f"vault: expected at most {MAX_VALUES} values in one scope")
        return dict(self._open(scope, bytes(row.placeholder), bytes(row.sealed)) for row in rows)

    def sweep(self) -> int:
        """Delete what has had its time; the number of rows."""
        with self._store.writing() as connection:
            return connection.execute(delete(VAULT).where(VAULT.c.expires_ms <= self._clock_ms())).rowcount

    def forget(self, scope: bytes) -> int:
        """Delete everything of one scope; the number of rows."""
        with self._store.writing() as connection:
            return connection.execute(delete(VAULT).where(VAULT.c.scope == scope)).rowcount

    def _read(self, connection: Connection, scope: bytes, placeholders: Iterable[str]) -> dict[str, str]:
        names = [self._name(scope, placeholder) for placeholder in placeholders]
        query = select(VAULT.c.placeholder, VAULT.c.sealed).where(
            VAULT.c.scope == scope, VAULT.c.placeholder.in_(names), VAULT.c.expires_ms > self._clock_ms()
        )
        rows = connection.execute(query).all()
        return dict(self._open(scope, bytes(row.placeholder), bytes(row.sealed)) for row in rows)

    def _name(self, scope: bytes, placeholder: str) -> bytes:
        tag = domain_tag("vault-name", scope, placeholder.encode("utf-8", "surrogatepass"))
        return keyed_hash(self._name_key, purpose="serving/vault-name", message=tag).value

    def _cipher(self, scope: bytes, name: bytes, salt: bytes) -> tuple[AesGcm, bytes]:
        bound = domain_tag("serving/vault-value", scope, name)
        return AesGcm(derive(self._seal_key, purpose="serving/vault-value", context=bound, salt=salt)), bound

    def _seal(self, scope: bytes, name: bytes, placeholder: str, value: str) -> bytes:
        salt = random_bytes(SALT_BYTES)
        cipher, bound = self._cipher(scope, name, salt)
        first, second = (text.encode("utf-8", "surrogatepass") for text in (placeholder, value))
        return salt + cipher.seal(bytes(NONCE_BYTES), len(first).to_bytes(4, "big") + first + second, bound)

    def _open(self, scope: bytes, name: bytes, sealed: bytes) -> tuple[str, str]:
        if len(sealed) < SALT_BYTES + TAG_BYTES:
            raise IntegrityError("vault: a row was cut")
        cipher, bound = self._cipher(scope, name, sealed[:SALT_BYTES])
        try:
            both = cipher.open(bytes(NONCE_BYTES), sealed[SALT_BYTES:], bound)
        except IntegrityError as error:
            raise IntegrityError("vault: a row was changed, moved, or sealed under another key") from error
        end = 4 + int.from_bytes(both[:4], "big")
        return both[4:end].decode("utf-8", "surrogatepass"), both[end:].decode("utf-8", "surrogatepass")


class MemoryVault:
    """The same in the memory of one process, for a gateway that keeps nothing: values by scope, for a while.

    Args:
        clock_s: Seconds of a clock that only goes forward.
        ttl_s: How long a scope is kept after it was last put to.
    """

    def __init__(self, *, clock_s: Callable[[], float], ttl_s: float) -> None:
        self._clock_s, self._ttl_s = clock_s, ttl_s
        self._scopes: OrderedDict[bytes, tuple[float, dict[str, str]]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, scope: bytes, values: Mapping[str, str]) -> None:
        """As :meth:`StoredVault.put`."""
        with self._lock:
            known = self._known(scope)
            if any(known.get(placeholder, value) != value for placeholder, value in values.items()):
                raise IntegrityError("vault: a placeholder stands for something else already")
            self._scopes[scope] = (self._clock_s(), {**known, **values})
            self._scopes.move_to_end(scope)
            while len(self._scopes) > MAX_SCOPES:
                self._scopes.popitem(last=False)

    def get(self, scope: bytes, placeholders: Iterable[str]) -> dict[str, str]:
        """As :meth:`StoredVault.get`."""
        known = self.every(scope)
        return {placeholder: known[placeholder] for placeholder in placeholders if placeholder in known}

    def every(self, scope: bytes) -> dict[str, str]:
        """As :meth:`StoredVault.every`."""
        with self._lock:
            return dict(self._known(scope))

    def _known(self, scope: bytes) -> dict[str, str]:
        put_s, values = self._scopes.get(scope, (0.0, {}))
        return values if put_s + self._ttl_s >= self._clock_s() else {}
