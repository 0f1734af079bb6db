"""The administrative side, on a port of its own: metrics, keys and spend. It never sees a request to a model.

Everything but ``/healthz``, ``/readyz`` and ``/openapi.json`` asks for a key of kind ``admin``, which opens nothing on
the data side (``mibao apikey create --admin``). Keys of that kind are made at the command line only.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

import msgspec
from sqlalchemy import func, select
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mibao.errors import InputError, MibaoError
from mibao.serving import api_keys, metrics, openapi
from mibao.serving.accounts import wall_clock_ms
from mibao.serving.api_keys import MAX_LIMIT, MAX_NAME, Grant, KeyKind, Limits
from mibao.serving.key_directory import KeyDirectory
from mibao.serving.key_text import to_json
from mibao.serving.migrations import USAGE
from mibao.serving.storage import Store

MAX_BODY_BYTES = 64 * 1024
MAX_ROWS = 10_000
MAX_EXPIRY_S = 100 * 365 * 86_400
SAFE_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)
_MILLION = 1_000_000
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
_Limit = Annotated[int, msgspec.Meta(ge=0, le=MAX_LIMIT)]


class NewKey(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The body of ``POST /keys``."""

    tenant: _Name
    label: Annotated[str, msgspec.Meta(max_length=MAX_NAME)] = ""
    policy: _Name | None = None
    routes: Annotated[list[_Name], msgspec.Meta(max_length=100)] | None = None
    models: Annotated[list[_Name], msgspec.Meta(max_length=1000)] | None = None
    requests_per_minute: _Limit | None = None
    tokens_per_day: _Limit | None = None
    spend_per_month: Annotated[float, msgspec.Meta(ge=0, le=MAX_LIMIT / _MILLION)] | None = None
    expires_in_s: Annotated[int, msgspec.Meta(ge=1, le=MAX_EXPIRY_S)] | None = None


def admin_app(store: Store, *, clock_ms: Callable[[], int] = wall_clock_ms) -> Starlette:
    """The application for the administrative port."""
    app = Starlette(
        routes=[
            Route("/healthz", _healthz, methods=["GET"]),
            Route("/readyz", _readyz, methods=["GET"]),
            Route("/openapi.json", _openapi, methods=["GET"]),
            Route("/metrics", _metrics, methods=["GET"]),
            Route("/keys", _list_keys, methods=["GET"]),
            Route("/keys", _create_key, methods=["POST"]),
            Route("/keys/{key_id}", _revoke_key, methods=["DELETE"]),
            Route("/spend", _spend, methods=["GET"]),
        ],
        middleware=[Middleware(SafeHeaders)],
        exception_handlers={HTTPException: _http_error, MibaoError: _mibao_error, Exception: _fault},
    )
    app.router.redirect_slashes = False
    app.state.store, app.state.clock_ms = store, clock_ms
    app.state.directory = KeyDirectory(store)
    return app


class SafeHeaders:
    """Headers that keep a browser from making anything of an answer, on every answer of ``app``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message["headers"]}
                added = [(name, value) for name, value in SAFE_HEADERS if name not in there]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


def _guarded(
    endpoint: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """``endpoint`` for who shows a key of kind ``admin``."""

    async def checked(request: Request) -> Response:
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        record = await request.app.state.directory.of_key(text.strip()) if scheme.lower() == "bearer" else None
        now_ms = request.app.state.clock_ms()
        if record is None or record.grant.kind is not KeyKind.ADMIN or record.refusal(now_ms) is not None:
            return _error(401, "invalid_api_key", "expected a key of kind admin", {"www-authenticate": "Bearer"})
        return await endpoint(request)

    return checked


async def _healthz(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _readyz(request: Request) -> Response:
    def asked() -> None:
        with request.app.state.store.reading() as connection:
            connection.exec_driver_sql("SELECT version FROM schema_version").scalar_one()

    await asyncio.to_thread(asked)
    return JSONResponse({"status": "ready"})


async def _openapi(request: Request) -> Response:
    return JSONResponse(openapi.document())


@_guarded
async def _metrics(request: Request) -> Response:
    state = request.app.state
    text = await asyncio.to_thread(metrics.of_host, state.store, host=socket.gethostname(), now_ms=state.clock_ms())
    return Response(text, media_type=metrics.CONTENT_TYPE)


@_guarded
async def _list_keys(request: Request) -> Response:
    def read() -> list[api_keys.KeyRecord]:
        with request.app.state.store.reading() as connection:
            return api_keys.every(connection)

    now_ms = request.app.state.clock_ms()
    return JSONResponse({"keys": [to_json(record, now_ms=now_ms) for record in await asyncio.to_thread(read)]})


@_guarded
async def _create_key(request: Request) -> Response:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return _error(415, "unsupported_media_type", "expected application/json")
    body = await _body(request)
    if body is None:
        return _error(413, "too_large", f"expected at most {MAX_BODY_BYTES} bytes")
    now_ms = request.app.state.clock_ms()
    try:
        grant = _grant(_new_key(body), now_ms=now_ms)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return _error(400, "invalid_request", f"expected the fields of a new key ({type(error).__name__})")

    def make() -> tuple[str, api_keys.KeyRecord]:
        with request.app.state.store.writing() as connection:
            return api_keys.create(connection, grant, now_ms=now_ms)

    text, record = await asyncio.to_thread(make)
    return JSONResponse({"key": text, **to_json(record, now_ms=now_ms)}, status_code=201)


@_guarded
async def _revoke_key(request: Request) -> Response:
    key_id = request.path_params["key_id"]

    def close() -> bool:
        with request.app.state.store.writing() as connection:
            return api_keys.revoke(connection, key_id, now_ms=request.app.state.clock_ms())

    if "\0" in key_id or not await asyncio.to_thread(close):
        return _error(404, "not_found", "there is no such key that is not revoked yet")
    return Response(status_code=204)


@_guarded
async def _spend(request: Request) -> Response:
    today = datetime.fromtimestamp(request.app.state.clock_ms() / 1000, tz=UTC).date()
    try:
        first = _day(request.query_params.get("from"), today.replace(day=1))
        last = _day(request.query_params.get("to"), today)
    except ValueError:
        return _error(400, "invalid_request", "expected days such as 2026-01-31")
    columns = [USAGE.c.requests, USAGE.c.prompt_tokens, USAGE.c.completion_tokens, USAGE.c.spend, USAGE.c.withheld]
    query = (
        select(USAGE.c.key_id, USAGE.c.model, *(func.sum(column).label(column.name) for column in columns))
        .where(USAGE.c.day >= first, USAGE.c.day <= last)
        .group_by(USAGE.c.key_id, USAGE.c.model)
        .order_by(USAGE.c.key_id, USAGE.c.model)
        .limit(MAX_ROWS)
    )

    def read() -> list[dict[str, object]]:
        with request.app.state.store.reading() as connection:
            return [
                {
                    "key_id": row.key_id, "model": row.model, "requests": int(row.requests),
                    "prompt_tokens": int(row.prompt_tokens), "completion_tokens": int(row.completion_tokens),
                    "spend": int(row.spend) / _MILLION, "withheld": int(row.withheld),
                }
                for row in connection.execute(query)
            ]  # fmt: skip

    return JSONResponse({"from": _shown(first), "to": _shown(last), "usage": await asyncio.to_thread(read)})


async def _body(request: Request) -> bytes | None:
    """The body; None when it is longer than may be."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            return None
    return body


def _new_key(body: bytes) -> NewKey:
    """The fields in ``body``; 60.0 is an integer to JSON. Raises msgspec's own errors."""
    given = msgspec.json.decode(body)
    if isinstance(given, dict):
        whole = {name: int(held) for name, held in given.items() if isinstance(held, float) and held.is_integer()}
        given |= whole
    return msgspec.convert(given, NewKey)


def _grant(new: NewKey, *, now_ms: int) -> Grant:
    limits = Limits(
        requests_per_minute=new.requests_per_minute,
        tokens_per_day=new.tokens_per_day,
        spend_per_month=None if new.spend_per_month is None else round(new.spend_per_month * _MILLION),
    )
    return Grant(
        tenant=new.tenant,
        label=new.label,
        policy=new.policy,
        routes=None if new.routes is None else frozenset(new.routes),
        models=None if new.models is None else frozenset(new.models),
        limits=limits,
        expires_ms=None if new.expires_in_s is None else now_ms + 1000 * new.expires_in_s,
    )


def _day(text: str | None, otherwise: date) -> int:
    """Days since 1970-01-01. Raises ``ValueError`` for what is no day."""
    chosen = otherwise if text is None else date.fromisoformat(text)
    return (chosen - date(1970, 1, 1)).days


def _shown(day: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": {"code": code, "message": message}}, status_code=status, headers=headers)


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    return _error(status, {404: "not_found", 405: "method_not_allowed"}.get(status, "error"), "no such thing", headers)


async def _mibao_error(request: Request, error: Exception) -> Response:
    if isinstance(error, InputError) and type(error) is InputError:
        return _error(400, "invalid_request", str(error))
    return _error(503, "unavailable", "the gateway's store does not answer")


async def _fault(request: Request, error: Exception) -> Response:
    return _error(500, "fault", "a fault in mibao itself")
