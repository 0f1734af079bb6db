"""Keys as one worker sees them: looked up once, remembered for a moment.

A key that is revoked, or changed in any way, is so in every worker within :data:`REMEMBERED_S` seconds. What is
remembered is found by the SHA-256 of what was presented, so that no key's text stays in memory.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mibao.serving import api_keys
from mibao.serving.api_keys import KeyRecord
from mibao.serving.storage import Store, Unavailable

REMEMBERED_S = 5.0
MAX_REMEMBERED = 10_000
MAX_ASKED = 1_000
_THREADS = 2


@dataclass(frozen=True, slots=True)
class _Known:
    record: KeyRecord
    until_s: float


class KeyDirectory:
    """Finds who presents a key or a certificate.

    Args:
        store: Where the keys are.
        monotonic_s: The clock by which memory fades.
    """

    def __init__(self, store: Store, *, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._store, self._monotonic_s = store, monotonic_s
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="mibao-keys")
        self._known: dict[bytes, _Known] = {}
        self._asked: dict[bytes, asyncio.Future[KeyRecord | None]] = {}

    async def of_key(self, text: str) -> KeyRecord | None:
        """The record of the key with this text; None if it is none of ours. Revoked and expired ones are found too.

        Raises:
            Unavailable: the store does not answer.
        """
        parsed = api_keys.parse(text)
        if parsed is None:
            return None
        key_id, secret = parsed
        digest = api_keys.secret_digest(secret)
        mark = digest + key_id.encode()
        known = self._known.get(mark)
        if known is not None and self._monotonic_s() < known.until_s:
            return known.record

        def read() -> KeyRecord | None:
            with self._store.reading() as connection:
                record = api_keys.find(connection, key_id)
            return record if api_keys.opens(record, digest) else None

        return await self._read_once(mark, read)

    async def of_certificate(self, certificate: bytes) -> KeyRecord | None:
        """The record of a client's certificate in DER. Raises as :meth:`of_key`."""
        digest = api_keys.certificate_digest(certificate)
        known = self._known.get(digest)
        if known is not None and self._monotonic_s() < known.until_s:
            return known.record

        def read() -> KeyRecord | None:
            with self._store.reading() as connection:
                record = api_keys.find_certificate(connection, digest)
            return record if api_keys.opens(record, digest) else None

        return await self._read_once(digest, read)

    def close(self) -> None:
        """End its threads."""
        self._threads.shutdown()

    async def _read_once(self, mark: bytes, read: Callable[[], KeyRecord | None]) -> KeyRecord | None:
        """What ``read`` finds; many that ask for one key at once cost one look into the store.

        What is none of ours is not remembered: whoever presents many of those would displace the others.
        """
        asked = self._asked.get(mark)
        if asked is None:
            if len(self._asked) >= MAX_ASKED:
                raise Unavailable("store: too many keys are being looked up")
            began_s = self._monotonic_s()  # before the read: what changes meanwhile is seen in time
            asked = asyncio.get_running_loop().run_in_executor(self._threads, read)
            self._asked[mark] = asked
            asked.add_done_callback(lambda done: self._remember(mark, done, began_s))
        return await asyncio.shield(asked)

    def _remember(self, mark: bytes, done: asyncio.Future[KeyRecord | None], began_s: float) -> None:
        self._asked.pop(mark, None)
        if done.cancelled() or done.exception() is not None or (record := done.result()) is None:
            self._known.pop(mark, None)
            return
        if len(self._known) >= MAX_REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known.pop(mark, None)
        self._known[mark] = _Known(record, began_s + REMEMBERED_S)
