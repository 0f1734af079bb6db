"""The ASGI application: the gateway's routes and its health. A server of sealed models will stand beside them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mibao.crypto.rng import random_bytes
from mibao.serving import configuration as configurations
from mibao.serving import faults, openapi_gateway
from mibao.serving.admin import SafeHeaders
from mibao.serving.admission import Admission
from mibao.serving.configuration import Configuration
from mibao.serving.conversations import Conversations
from mibao.serving.exchange import MODELS
from mibao.serving.faults import Dialect
from mibao.serving.findings_cache import FindingsCache
from mibao.serving.gateway import Gateway, apis
from mibao.serving.upstreams import Client
from mibao.serving.vault_store import StoredVault

READY_S = 2.0


@dataclass(frozen=True, slots=True)
class Kept:
    """What a worker opens when it starts and closes when it ends."""

    admission: Admission
    close: Callable[[], None] = lambda: None
    vault: StoredVault | None = None
    ready: Callable[[], object] | None = None  # raises where what is kept cannot be used; may block


class Probe:
    """Whether what a worker keeps can be used: asked in a thread, by one at a time however many want to know."""

    def __init__(self, ready: Callable[[], object] | None) -> None:
        self._ready = ready
        self._asking: asyncio.Task[bool] | None = None

    async def is_ready(self) -> bool:
        """Also False where there is no answer within :data:`READY_S`."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        done, _ = await asyncio.wait({self._asking}, timeout=READY_S)
        return bool(done) and self._asking.result()

    async def _ask(self) -> bool:
        if self._ready is None:
            return True
        try:
            await asyncio.to_thread(self._ready)
        except Exception:  # noqa: BLE001 - whatever it is, nothing can be kept
            return False
        return True


def gateway_app(configuration: Configuration, *, gateway_key: bytes, keep: Callable[[], Kept]) -> Starlette:
    """The application of one worker.

    Args:
        configuration: What it was told.
        gateway_key: 32 bytes; what conversations are told apart under.
        keep: Opens who is admitted; called in the worker, once.

    Raises:
        InputError: a policy or an upstream's key cannot be had.
    """
    upstreams = configurations.upstreams(configuration)
    policies = configurations.policies(configuration)
    ready = asyncio.Event()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        kept = await asyncio.to_thread(keep)
        cache = FindingsCache(salt=random_bytes(32))
        await asyncio.to_thread(cache.of, ["Anna Smith wrote to 张伟明."])  # loads what finds, before the first request
        async with Client(max_connections=configuration.limits.concurrent) as client:
            app.state.gateway = Gateway(
                configuration,
                upstreams=upstreams,
                policies=policies,
                admission=kept.admission,
                cache=cache,
                known=Conversations(
                    key=gateway_key,
                    clock_s=time.monotonic,
                    ttl_s=configuration.privacy.conversation_s,
                    vault=kept.vault,
                ),
                client=client,
            )
            app.state.probe = Probe(kept.ready)
            ready.set()
            yield
            ready.clear()
        await asyncio.to_thread(kept.close)

    async def ask(request: Request) -> Response:
        gateway: Gateway = request.app.state.gateway
        return await gateway.ask(request)

    async def models(request: Request) -> Response:
        gateway: Gateway = request.app.state.gateway
        return await gateway.models(request)

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(request: Request) -> Response:
        if not ready.is_set():
            return JSONResponse({"status": "starting"}, status_code=503)
        if not await request.app.state.probe.is_ready():
            return JSONResponse({"status": "the store does not answer"}, status_code=503)
        return JSONResponse({"status": "ready"})

    described = openapi_gateway.document(apis(configuration).values())

    async def openapi(_: Request) -> Response:
        return JSONResponse(described)

    app = Starlette(
        routes=[
            Route("/healthz", healthz, methods=["GET"]),
            Route("/readyz", readyz, methods=["GET"]),
            Route("/openapi.json", openapi, methods=["GET"]),
            Route(MODELS.path, models, methods=["GET"]),
            *(Route(path, ask, methods=["POST"]) for path in apis(configuration)),
        ],
        middleware=[Middleware(SafeHeaders)],
        exception_handlers={HTTPException: _http_error},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - the handler of that very class
    dialect = Dialect.ANTHROPIC if request.url.path.startswith("/v1/messages") else Dialect.OPENAI
    code = {404: "route_not_allowed", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    body = faults.body(dialect, status=error.status_code, code=code, message="the gateway does not pass this on")
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)
