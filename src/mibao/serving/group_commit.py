"""Many requests' writes in one transaction: what waits while one is being committed goes into the next.

One thread a worker talks to the store, so that no request blocks the event loop and the cost of a commit is shared.
With SQLite and with PostgreSQL alike.

Source: DeWitt et al., "Implementation techniques for main memory database systems", SIGMOD 1984 (group commit).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from mibao.serving.storage import Store, Unavailable

MAX_BATCH = 512
MAX_WAITING = 20_000
GATHER_S = 0.002  # what a busy worker waits for others to join a commit; PostgreSQL calls it commit_delay


class GroupCommit:
    """Hands what is submitted to ``apply``, in order, a batch a transaction.

    Args:
        store: Where it is written.
        apply: Writes a batch and returns as many results. Its transaction is undone when it raises.
        durable: Whether a batch must outlast a power failure.
    """

    def __init__(
        self,
        store: Store,
        apply: Callable[[Connection, Sequence[Any]], Sequence[Any]],
        *,
        durable: Callable[[Sequence[Any]], bool] = lambda batch: True,
    ) -> None:
        self._store, self._apply, self._durable = store, apply, durable
        self._waiting: list[tuple[Any, asyncio.Future[Any]]] = []
        self._wake = threading.Condition()
        self._closing = self._committing = False
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._run, name="mibao-store", daemon=True)
        self._thread.start()

    async def submit(self, operation: Any) -> Any:
        """What ``apply`` made of it, once that is committed.

        Raises:
            Unavailable: the store does not answer, is closed, or :data:`MAX_WAITING` wait already.
        """
        future = asyncio.get_running_loop().create_future()
        with self._wake:
            if self._closing or len(self._waiting) >= MAX_WAITING:
                raise Unavailable("store: closed, or too much waits to be written")
            self._waiting.append((operation, future))
            if len(self._waiting) == 1:
                self._wake.notify()
        # Shielded: a client that goes away does not keep what it did from being written.
        return await asyncio.shield(future)

    def close(self) -> None:
        """Write what waits and end the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        together = 1  # how many the last commit held: where several ask at once, more are about to
        while True:
            with self._wake:
                while not self._waiting and not self._closing:
                    self._wake.wait()
                if together > 1 and not self._closing:
                    self._wake.wait(GATHER_S)
                batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            if not batch:
                self._let_go()
                return
            self._commit(batch)
            together = len(batch)

    def _commit(self, batch: list[tuple[Any, asyncio.Future[Any]]]) -> None:
        try:
            results = self._written([operation for operation, _ in batch])
        except Unavailable as error:
            _deliver(batch, [error] * len(batch))
        except Exception as error:  # noqa: BLE001 - the edge of a thread: a fault reaches whoever waits
            if len(batch) == 1:
                _deliver(batch, [error])
            else:
                for one in batch:  # so that the one at fault is the only one to fail
                    self._commit([one])
        else:
            _deliver(batch, results)

    def _written(self, operations: Sequence[Any]) -> Sequence[Any]:
        """The results, committed; tried again once on a new connection if the old one was lost before the commit."""
        kept = self._connection is not None
        self._committing = False
        try:
            return self._write(operations)
        except Unavailable:
            self._let_go()
            if self._committing or not kept:
                raise
            return self._write(operations)

    def _write(self, operations: Sequence[Any]) -> Sequence[Any]:
        if self._connection is None:
            self._connection = self._store.connection()
        with self._store.writing(durable=self._durable(operations), on=self._connection) as connection:
            results = self._apply(connection, operations)
            self._committing = True  # from here on nobody can tell whether a lost connection took it along
        return results

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(SQLAlchemyError):
                connection.invalidate()
                connection.close()


def _deliver(batch: Sequence[tuple[Any, asyncio.Future[Any]]], results: Sequence[Any]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for (_, future), result in zip(batch, results, strict=True):
        by_loop.setdefault(future.get_loop(), []).append((future, result))
    for loop, resolved in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, resolved)


def _resolve(resolved: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in resolved:
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
            future.exception()  # seen: whoever waited may be gone
        else:
            future.set_result(result)
