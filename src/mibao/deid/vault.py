"""What every placeholder of one scope stands for: in memory, or in a file that several processes share.

In a file, what was acknowledged is on the disk: a placeholder that was returned outside of :meth:`Vault.batch`, and
everything that was made in a batch that has ended. A process that dies loses nothing of that.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from mibao.crypto.kdf import keyed_hash
from mibao.deid import pseudonyms
from mibao.deid.normalisation import canonical_form
from mibao.deid.pseudonyms import utf8
from mibao.errors import InputError
from mibao.types import AnyType

if TYPE_CHECKING:
    from mibao.deid.vault_sqlite import VaultFile

SCOPE_KEY_BYTES = 32
_STEM, _LINK, _PRIMARY, _PLACEHOLDER = "stem", "link", "primary", "placeholder"


class Vault:
    """Written form to placeholder and back, for one scope. Distinct written forms never share a placeholder.

    ``Vault(scope_key=...)`` remembers in memory; :meth:`open` in a file. Threads may share one.
    """

    def __init__(self, *, scope_key: bytes) -> None:
        if len(scope_key) != SCOPE_KEY_BYTES:
            raise InputError(f"vault: expected a scope key of {SCOPE_KEY_BYTES} bytes, got {len(scope_key)}")
        self._scope_key = scope_key
        self.scope = keyed_hash(scope_key, purpose="deid/scope", message=b"")
        self._file: VaultFile | None = None
        self._lock = threading.RLock()
        self._depth = 0
        self._forget()

    @classmethod
    def open(cls, path: Path, *, scope_key: bytes) -> Vault:
        """The vault in the file ``path``, made where there is none, readable by its owner only.

        Raises:
            InputError: it cannot be read or written, or is no vault.
            KeyMismatch: it belongs to another key or another scope.
            IntegrityError: it was changed.
        """
        from mibao.deid.vault_sqlite import VaultFile  # noqa: PLC0415 - most vaults live in memory

        vault = cls(scope_key=scope_key)
        vault._file = VaultFile.open(path, scope=vault.scope, scope_key=scope_key)
        return vault

    def __len__(self) -> int:
        return len(self._written) if self._file is None else len(self._file)

    def __repr__(self) -> str:
        return f"<Vault of {len(self)} placeholders>"

    def __reduce__(self) -> str:
        raise TypeError("a vault cannot be pickled or copied: open its file under its key")

    def __enter__(self) -> Vault:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file, if there is one. What was acknowledged is safe without this."""
        with self._lock:
            if self._file is not None:
                self._file.close()

    @contextmanager
    def batch(self) -> Iterator[None]:
        """New placeholders of this block are stored together, when it ends; none of them where it fails.

        From the first of them on, other processes wait before they add their own.

        Raises:
            InputError: the file cannot be written.
            IntegrityError: it was changed.
        """
        with self._lock:
            self._depth += 1
            try:
                yield
                if self._depth == 1 and self._file is not None:
                    self._file.commit()
            except BaseException:
                if self._depth == 1 and self._file is not None:
                    self._file.roll_back()
                    self._forget()  # what was not stored was not given out
                raise
            finally:
                self._depth -= 1

    def placeholder_for(self, entity: AnyType, written: str) -> str:
        """The one placeholder of this written form, made on first sight.

        The same in every vault of the scope, except where two values collide: the later takes its next symbols.
        Raises as :meth:`batch`.
        """
        known = self._placeholders.get((entity, written))
        if known is not None:
            return known
        with self.batch():
            self._begin()
            value = self._value(entity, written)
            head = f"{entity.value}_{self._claim_stem(entity, value)}"
            if written == value:
                placeholder = f"<{head}>"
                self._claim(self._written, placeholder, _PLACEHOLDER, utf8(placeholder), says=written)
            else:
                placeholder = self._claim_form(head, entity, written)
            self._placeholders[entity, written] = placeholder
        return placeholder

    def written(self, placeholder: str) -> str | None:
        """What stood where ``placeholder`` stands; None unless grammar, check symbol and scope are all right.

        Raises:
            IntegrityError: what the file holds of it was changed.
        """
        if not pseudonyms.is_placeholder(placeholder):
            return None
        with self._lock:
            return self._look_up(self._written, placeholder, _PLACEHOLDER, utf8(placeholder))

    def link(self, entity: AnyType, written: str, *others: str) -> None:
        """Let ``others`` share the stem of ``written``: one person's names in two languages.

        Raises:
            InputError: one of ``others`` already has a placeholder or a link of its own.
        """
        with self.batch():
            self._begin()
            primary = self._value(entity, written)
            values = {canonical_form(entity, other) for other in others} - {primary}
            if any(self._stands(entity, value) or self._link(entity, value) not in (None, primary) for value in values):
                raise InputError("link: expected forms that have no placeholder and no link of their own yet")
            for value in sorted(values):
                self._claim(self._linked, (entity, value), _LINK, utf8(entity.value), utf8(value), says=primary)
                self._claim(self._primaries, (entity, primary), _PRIMARY, utf8(entity.value), utf8(primary), says="")

    def _stands(self, entity: AnyType, value: str) -> bool:
        """Whether ``value`` has a stem already, or gives its own to others."""
        if self._look_up(self._primaries, (entity, value), _PRIMARY, utf8(entity.value), utf8(value)) is not None:
            return True
        attempt = 0
        while True:
            stem = pseudonyms.stem(entity, value, scope_key=self._scope_key, attempt=attempt)
            owner = self._look_up(self._owners, (entity, stem), _STEM, utf8(entity.value), utf8(stem))
            if owner is None or owner == value:
                return owner == value
            attempt += 1

    def _value(self, entity: AnyType, written: str) -> str:
        value = canonical_form(entity, written)
        linked = self._link(entity, value)
        return value if linked is None else linked

    def _link(self, entity: AnyType, value: str) -> str | None:
        return self._look_up(self._linked, (entity, value), _LINK, utf8(entity.value), utf8(value))

    def _claim_stem(self, entity: AnyType, value: str) -> str:
        stems = (pseudonyms.stem(entity, value, scope_key=self._scope_key, attempt=attempt) for attempt in count())
        kind = utf8(entity.value)
        return next(
            stem for stem in stems if self._claim(self._owners, (entity, stem), _STEM, kind, utf8(stem), says=value)
        )

    def _claim_form(self, head: str, entity: AnyType, written: str) -> str:
        forms = (pseudonyms.form(entity, written, scope_key=self._scope_key, attempt=attempt) for attempt in count())
        return next(
            taken
            for form in forms
            if self._claim(self._written, taken := f"<{head}_{form}>", _PLACEHOLDER, utf8(taken), says=written)
        )

    def _claim(self, table: dict[Any, str], key: object, kind: str, *about: bytes, says: str) -> bool:
        """Whether the row about this says so, now if it said nothing before. Inside of a batch that has begun."""
        held = self._look_up(table, key, kind, *about)
        if held is not None:
            return held == says
        if self._file is not None:
            self._file.put(kind, *about, says=utf8(says))
        table[key] = says
        return True

    def _look_up(self, table: dict[Any, str], key: object, kind: str, *about: bytes) -> str | None:
        known = table.get(key)
        if known is not None or self._file is None:
            return known
        found = self._file.get(kind, *about)
        if found is None:
            return None
        return table.setdefault(key, found.decode("utf-8", "surrogatepass"))

    def _begin(self) -> None:
        if self._file is not None:
            self._file.begin()

    def _forget(self) -> None:
        """Start with what the file holds, and with nothing where there is no file."""
        self._owners: dict[tuple[AnyType, str], str] = {}  # stem -> the value it names
        self._linked: dict[tuple[AnyType, str], str] = {}  # value -> the value whose stem it shares
        self._primaries: dict[tuple[AnyType, str], str] = {}  # values that share their stem with others
        self._placeholders: dict[tuple[AnyType, str], str] = {}  # written form -> placeholder
        self._written: dict[str, str] = {}  # placeholder -> written form
