"""A stream on its way from the upstream to the client, and its end, whoever brings it about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping

import aiohttp
import msgspec
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from mibao.errors import MibaoError
from mibao.serving import faults
from mibao.serving.admission import CLIENT_GONE
from mibao.serving.faults import Dialect, Withheld
from mibao.serving.sse import Decoder, Event
from mibao.serving.streams import StreamRestorer

Ended = Callable[[int, str | None], Coroutine[None, None, None]]


class Relay(StreamingResponse):
    """Events of ``answer``, restored one by one.

    Args:
        answer: The upstream's, open.
        restorer: Of its API.
        dialect: Of what is told when it breaks off.
        limit: Bytes of a whole stream.
        ended: Called once with the status and why it broke off; also where the client was gone before it began.
        headers: What goes before.
    """

    def __init__(
        self,
        answer: aiohttp.ClientResponse,
        restorer: StreamRestorer,
        *,
        dialect: Dialect,
        limit: int,
        ended: Ended,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(self._events(), media_type="text/event-stream", headers=headers)
        self._answer, self._restorer, self._dialect = answer, restorer, dialect
        self._limit, self._ended = limit, ended
        self._status = CLIENT_GONE
        self._withheld: str | None = None
        self._is_told = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. Whatever ends this, ``ended`` is called."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await asyncio.shield(self._end())

    async def _end(self) -> None:
        """Tell that it is over, the first time this is called."""
        if not self._is_told:
            self._is_told = True
            await self._ended(self._status, self._withheld)

    async def _events(self) -> AsyncIterator[bytes]:
        last: list[bytes] = []  # from the upstream's last event on: nobody is told that it is over before it is settled
        try:
            async for sent in self._restored():
                if self._restorer.ended:
                    last.append(sent)
                else:
                    yield sent
            self._status = 200
            await asyncio.shield(self._end())
            yield b"".join(last)
        except (aiohttp.ClientError, TimeoutError):
            yield self._broken(Withheld("the upstream broke off", status=502, code="upstream_broke_off"))
        except MibaoError as error:
            yield self._broken(error)
        except Exception as error:  # noqa: BLE001 - whatever an upstream sends, its reader is told of it
            what = f"the upstream's answer cannot be read ({type(error).__name__})"
            yield self._broken(Withheld(what, status=502, code="upstream_unreadable"))

    async def _restored(self) -> AsyncIterator[bytes]:
        decoder, taken = Decoder(), 0
        async for piece in self._answer.content.iter_any():
            taken += len(piece)
            if taken > self._limit:
                raise Withheld("the upstream's answer is too long", status=502, code="upstream_too_long")
            if sent := b"".join(new.encode() for event in decoder.feed(piece) for new in self._restorer.feed(event)):
                yield sent
        rest = [new for event in decoder.close() for new in self._restorer.feed(event)]
        if rest := [*rest, *self._restorer.close()]:
            yield b"".join(event.encode() for event in rest)

    def _broken(self, error: MibaoError) -> bytes:
        code = getattr(error, "code", "fault")
        self._status, self._withheld = getattr(error, "status", 502), code
        body = faults.body(self._dialect, status=self._status, code=code, message=str(error))
        return Event("error" if self._dialect is Dialect.ANTHROPIC else "", msgspec.json.encode(body).decode()).encode()
