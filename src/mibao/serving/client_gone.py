"""Work that is given up when the client goes away: nobody waits for the answer, and it would cost all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request


class ClientGone(Exception):
    """The client closed its connection before it was answered."""


@asynccontextmanager
async def while_client_listens(request: Request) -> AsyncIterator[None]:
    """Cancel what runs inside when the client goes away; its body must have been read before.

    Raises:
        ClientGone: it did.
    """
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("expected to run in a task")
    gone = False

    def leave(heard: asyncio.Task[None]) -> None:
        nonlocal gone
        if not heard.cancelled() and heard.exception() is None:
            gone = True
            task.cancel()

    heard = asyncio.create_task(_disconnected(request))
    heard.add_done_callback(leave)
    try:
        yield
    except asyncio.CancelledError:
        if gone and task.uncancel() == 0:
            raise ClientGone from None
        raise
    finally:
        heard.remove_done_callback(leave)
        heard.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
