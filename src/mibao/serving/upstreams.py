"""The model services behind the gateway: where each lies, what it is sent, what is done when it fails."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import aiohttp
import msgspec

from mibao.serving.faults import Dialect, Withheld

LONG_NUMBER = re.compile("[0-9]{9,}|[0-9]{3}[-.][0-9]{2,4}[-.][0-9]{4}")  # somebody's, and no version or date
_PASSED_ON = {
    "anthropic-version": re.compile(r"[0-9-]{1,20}"),
    "anthropic-beta": re.compile(r"[a-z][a-z0-9-]{0,63}(?:, ?[a-z][a-z0-9-]{0,63}){0,15}"),
    "openai-beta": re.compile(r"[a-z]+=v[0-9]{1,3}(?:, ?[a-z]+=v[0-9]{1,3}){0,15}"),
}
_CODE = re.compile(r"[a-z_]{1,64}")
_PARAMETER = re.compile(r"[a-z_.\[\]0-9]{1,40}")
_SECONDS = re.compile(r"[0-9]{1,5}")
STREAM_TIMES = 6
_AGAIN = frozenset({429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """One model service.

    Args:
        name: In the configuration.
        url: Up to and with ``/v1``.
        key: Its API key; None where it needs none, or the client's goes through.
        dialect: Which header the key goes into.
        forward_authorization: Whether the client's own key is sent on.
        timeout_s: For a whole answer from its request to its last byte; of a stream, to its head and between two of
            its pieces. A stream may take :data:`STREAM_TIMES` as long in all.
        retries: How often a request is sent again that was refused before any of its answer came.
    """

    name: str
    url: str
    key: str | None = field(default=None, repr=False)
    dialect: Dialect = Dialect.OPENAI
    forward_authorization: bool = False
    timeout_s: float = 600.0
    retries: int = 1


class Answer(aiohttp.ClientResponse):
    """An answer; where it is no stream, it must be whole by ``until_s`` on the clock of the event loop."""

    until_s: float | None = None


class Client:
    """Connections to all upstreams of one worker."""

    def __init__(self, *, max_connections: int) -> None:
        self._max_connections = max_connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Client:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._max_connections, ttl_dns_cache=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=True,
            max_line_size=64 * 1024,
            max_field_size=64 * 1024,
            response_class=Answer,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def ask(
        self, upstream: Upstream, *, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer of ``upstream``; asked again as often as it allows, where nothing of an answer had come.

        Raises:
            Withheld: it does not answer, or not in time.
        """
        if self._session is None:
            raise RuntimeError("not opened")
        timeout = aiohttp.ClientTimeout(
            total=STREAM_TIMES * upstream.timeout_s, sock_connect=10, sock_read=upstream.timeout_s
        )
        url = upstream.url.rstrip("/") + path.removeprefix("/v1") + (f"?{query}" if query else "")
        for attempt in range(upstream.retries + 1):
            last = attempt == upstream.retries
            until_s = asyncio.get_running_loop().time() + upstream.timeout_s
            try:
                async with asyncio.timeout_at(until_s):
                    response = await self._session.request(
                        method, url, data=body, headers=headers, timeout=timeout, allow_redirects=False
                    )
            except (aiohttp.ClientConnectionError, TimeoutError) as error:
                if last or isinstance(error, TimeoutError):
                    code = "upstream_timeout" if isinstance(error, TimeoutError) else "upstream_unreachable"
                    status = 504 if code == "upstream_timeout" else 502
                    raise Withheld(f"the upstream {upstream.name} does not answer", status=status, code=code) from None
                await asyncio.sleep(0.1 * 2**attempt)
                continue
            except aiohttp.ClientError:
                raise Withheld(
                    f"the upstream {upstream.name} sent no HTTP that can be read",
                    status=502,
                    code="upstream_unreadable",
                ) from None
            if response.status in _AGAIN and not last:
                response.release()
                await asyncio.sleep(0.1 * 2**attempt)
                continue
            if isinstance(response, Answer):
                response.until_s = until_s
            async with response:
                yield response
            return


def headers(client: Mapping[str, str], upstream: Upstream) -> dict[str, str]:
    """What is sent upstream: nothing of the client's but versions, and its key where that was asked for."""
    sent = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "user-agent": "mibao",
    }
    for name, form in _PASSED_ON.items():
        value = client.get(name)
        if value is not None and form.fullmatch(value) and not LONG_NUMBER.search(value):
            sent[name] = value
    if upstream.key is not None:
        if upstream.dialect is Dialect.ANTHROPIC:
            sent["x-api-key"] = upstream.key
        else:
            sent["authorization"] = f"Bearer {upstream.key}"
    elif upstream.forward_authorization:
        sent |= {name: client[name] for name in ("authorization", "x-api-key") if name in client}
    return sent


async def read_json(answer: aiohttp.ClientResponse, *, limit: int) -> Any:
    """The JSON of a whole answer.

    Raises:
        Withheld: it is none, longer than ``limit`` bytes, breaks off, or is not there in time.
    """
    data = bytearray()
    try:
        async with asyncio.timeout_at(answer.until_s if isinstance(answer, Answer) else None):
            async for piece in answer.content.iter_any():
                data += piece
                if len(data) > limit:
                    raise Withheld("the upstream's answer is too long", status=502, code="upstream_too_long")
        return msgspec.json.decode(bytes(data))
    except TimeoutError:
        raise Withheld("the upstream's answer takes too long", status=504, code="upstream_timeout") from None
    except (aiohttp.ClientError, msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise Withheld("the upstream's answer cannot be read", status=502, code="upstream_unreadable") from None


async def refusal(answer: aiohttp.ClientResponse, upstream: Upstream, *, limit: int) -> Withheld:
    """An error of the upstream: its status and its codes, where they are words; not what it says.

    That the gateway's own key is refused is no fault of the client's, so it is not told as one.
    """
    try:
        told = await read_json(answer, limit=limit)
    except Withheld:
        told = None
    error = told.get("error") if isinstance(told, dict) else None
    words = [error.get(name) for name in ("code", "type")] if isinstance(error, dict) else []
    code = next((word for word in words if isinstance(word, str) and _CODE.fullmatch(word)), "upstream_error")
    parameter = error.get("param") if isinstance(error, dict) else None
    about = f" about {parameter}" if isinstance(parameter, str) and _PARAMETER.fullmatch(parameter) else ""
    told_as = 502 if upstream.key is not None and answer.status in (401, 403) else answer.status
    waiting = answer.headers.get("retry-after", "")
    return Withheld(
        f"the upstream {upstream.name} answered {answer.status} ({code}){about}",
        status=told_as,
        code=code,
        retry_after_s=float(waiting) if _SECONDS.fullmatch(waiting) else None,
    )
