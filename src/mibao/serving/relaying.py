"""A stream on its way from the upstream to the client, and its end, whoever brings it about."""

from __future__ import annotations

import asyncio
import re
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
from mibao.serving.streams import ChatStream, StreamRestorer

Ended = Callable[[int, str | None], Coroutine[None, None, None]]
LINGER_S = 1.0  # what an upstream may take to end its answer after the last event of its stream
_FINISHED = re.compile(r'"finish_reason"\s*:\s*"')  # within a text these quotes would be escaped
_SPEAKING = re.compile(r'"choices"\s*:\s*\[\s*\{')


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
        self._is_finished = False
        self._linger_until: float | None = None

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
            yield self._broken(_broke_off())
        except MibaoError as error:
            yield self._broken(error)
        except Exception as error:  # noqa: BLE001 - whatever an upstream sends, its reader is told of it
            what = f"the upstream's answer cannot be read ({type(error).__name__})"
            yield self._broken(Withheld(what, status=502, code="upstream_unreadable"))

    async def _restored(self) -> AsyncIterator[bytes]:
        decoder, taken = Decoder(), 0
        while piece := await self._piece():
            taken += len(piece)
            if taken > self._limit:
                raise Withheld("the upstream's answer is too long", status=502, code="upstream_too_long")
            if sent := self._fed(decoder.feed(piece)):
                yield sent
        rest = self._fed(decoder.close()) + b"".join(event.encode() for event in self._restorer.close())
        if rest:
            yield rest
        if not (self._restorer.ended or self._is_finished):
            raise _broke_off()

    async def _piece(self) -> bytes:
        """What comes next, empty at the end. Once the stream is over its connection is not waited for, however bad."""
        if not self._restorer.ended:
            return await self._answer.content.readany()
        clock = asyncio.get_running_loop().time
        self._linger_until = self._linger_until or clock() + LINGER_S
        try:
            async with asyncio.timeout_at(self._linger_until):
                return await self._answer.content.readany()
        except (aiohttp.ClientError, TimeoutError):
            return b""

    def _fed(self, events: list[Event]) -> bytes:
        for event in events:
            self._look_for_the_finish(event.data)
        return b"".join(new.encode() for event in events for new in self._restorer.feed(event))

    def _look_for_the_finish(self, data: str) -> None:
        """Some services end a chat without ``[DONE]``: then the last that spoke must have said why it finished."""
        if isinstance(self._restorer, ChatStream) and _SPEAKING.search(data):
            self._is_finished = _FINISHED.search(data) is not None

    def _broken(self, error: MibaoError) -> bytes:
        code = getattr(error, "code", "unavailable")
        self._status, self._withheld = getattr(error, "status", 503), code
        body = faults.body(self._dialect, status=self._status, code=code, message=str(error))
        return Event("error" if self._dialect is Dialect.ANTHROPIC else "", msgspec.json.encode(body).decode()).encode()


def _broke_off() -> Withheld:
    return Withheld("the upstream broke off", status=502, code="upstream_broke_off")
