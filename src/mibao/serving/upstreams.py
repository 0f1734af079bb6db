"""The model services behind the gateway: where each lies, under which key it is asked, what is done when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType

import aiohttp

from mibao.serving.faults import Dialect, Withheld

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
        timeout_s: For the whole answer, or between two pieces of a stream.
        retries: How often a request is sent again that was refused before any of its answer came.
    """

    name: str
    url: str
    key: str | None = field(default=None, repr=False)
    dialect: Dialect = Dialect.OPENAI
    forward_authorization: bool = False
    timeout_s: float = 600.0
    retries: int = 1


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
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=upstream.timeout_s)
        url = upstream.url.rstrip("/") + path.removeprefix("/v1") + (f"?{query}" if query else "")
        for attempt in range(upstream.retries + 1):
            last = attempt == upstream.retries
            try:
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
            async with response:
                yield response
            return
