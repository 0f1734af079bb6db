"""One request through the gateway: admitted, read, masked, asked, restored, settled. What fails, fails closed."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import aiohttp
import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from mibao.deid import Policy
from mibao.errors import MibaoError
from mibao.serving import bodies, conversations, faults, upstreams
from mibao.serving.admission import CLIENT_GONE, Admission, Caller
from mibao.serving.answers import AnswerRestorer
from mibao.serving.client_gone import ClientGone, while_client_listens
from mibao.serving.configuration import Configuration
from mibao.serving.conversations import Conversations
from mibao.serving.exchange import APIS, MODELS, Api, Exchange
from mibao.serving.faults import Dialect, Withheld
from mibao.serving.findings_cache import FindingsCache
from mibao.serving.models import Choice, Models
from mibao.serving.placeholders import Names
from mibao.serving.relaying import Relay
from mibao.serving.requests_walk import RequestMasker
from mibao.serving.restoring import Sent
from mibao.serving.streams import ResponsesStream, StreamRestorer
from mibao.serving.tls import client_certificate
from mibao.serving.upstreams import Client, Upstream

CONVERSATION = "x-mibao-conversation"
REPORT = "x-mibao-findings"
_RESPONSE = re.compile(r"resp_(?=[0-9]*[A-Za-z])[A-Za-z0-9]{8,128}")
_QUERIES = frozenset({"", "beta=true"})
_IN_THREAD_CHARS = 20_000
_NUMBER_CHARS = 16


def apis(configuration: Configuration) -> dict[str, Api]:
    """Every path that is passed on: :data:`APIS` and what the configuration allows by name."""
    return {**{path: Api(path, Dialect.OPENAI, None) for path in configuration.allow}, **APIS}


class Gateway:
    """The gateway behind its routes.

    Args:
        configuration: What it was told.
        upstreams: By name, with their keys.
        policies: By name.
        admission: Who may ask.
        cache: What finds personal data.
        known: Conversations that may go on.
        client: Connections to the upstreams.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        upstreams: Mapping[str, Upstream],
        policies: Mapping[str, Policy],
        admission: Admission,
        cache: FindingsCache,
        known: Conversations,
        client: Client,
    ) -> None:
        self._privacy, self._limits = configuration.privacy, configuration.limits
        self._policies, self._admission = policies, admission
        self._cache, self._known, self._client = cache, known, client
        self._models = Models(configuration.models, upstreams)
        self._apis = apis(configuration)
        self._places = asyncio.Semaphore(configuration.limits.concurrent)
        self._detecting = asyncio.Lock()

    async def ask(self, request: Request) -> Response:
        """One request to an API of :data:`APIS`."""
        return await self._through(request, self._apis[request.url.path], self._asked)

    async def models(self, request: Request) -> Response:
        """The models that may be asked for: those of the configuration, or what the first upstream says."""
        return await self._through(request, MODELS, self._listed)

    async def _through(self, request: Request, api: Api, answer: _Answer) -> Response:
        """One request from its admission to its end. Once admitted it is settled, whatever becomes of it."""
        began_s = time.monotonic()
        try:
            caller = await self._admit(request, api.path)
        except MibaoError as error:
            return _fault(api.dialect, error)
        exchange = Exchange(api=api, caller=caller, admission=self._admission, began_s=began_s)
        if self._places.locked():
            return await self._withheld(
                exchange, Withheld("too many requests at once", status=503, code="busy", retry_after_s=1.0)
            )
        async with AsyncExitStack() as held:
            await self._places.acquire()
            held.callback(self._places.release)
            try:
                return await answer(request, exchange, held)
            except MibaoError as error:
                return await self._withheld(exchange, error)
            except (ClientDisconnect, ClientGone):
                return await self._withheld(exchange, _GONE)
            except asyncio.CancelledError:
                await asyncio.shield(exchange.settle(status=CLIENT_GONE, withheld="stopped"))
                raise
            except Exception as error:  # noqa: BLE001 - the outer edge: nothing is passed on, and nothing is told
                return await self._withheld(exchange, _own_fault(error))

    async def _admit(self, request: Request, route: str) -> Caller:
        authorization = request.headers.get("authorization")
        if authorization is None and (key := request.headers.get("x-api-key")) is not None:
            authorization = f"Bearer {key}"
        return await self._admission.admit(
            authorization=authorization, client_certificate=client_certificate(request.scope), route=route, model=None
        )

    async def _listed(self, request: Request, exchange: Exchange, held: AsyncExitStack) -> Response:
        told = self._models.listed(exchange.caller.models)
        if told is None:
            upstream = self._models.first
            exchange.upstream = upstream.name
            answer = await held.enter_async_context(
                self._client.ask(
                    upstream,
                    method="GET",
                    path=MODELS.path,
                    query="",
                    headers=upstreams.headers(request.headers, upstream),
                    body=None,
                )
            )
            await self._check_status(answer, upstream)
            told = await upstreams.read_json(answer, limit=self._limits.answer_bytes)
            told = self._models.allowed(told, exchange.caller.models)
        await exchange.settle(status=200, withheld=None)
        return JSONResponse(told)

    async def _asked(self, request: Request, exchange: Exchange, held: AsyncExitStack) -> Response:
        body = await bodies.read(request, self._limits)
        if request.url.query not in _QUERIES:
            raise Withheld("expected no query in the URL", status=400, code="query_not_supported")
        wants_stream = body.get("stream") is True
        if wants_stream and exchange.api.stream is None:
            raise Withheld("this API has no streams", status=400, code="invalid_request")
        choice = self._models.chosen(body.get("model"), exchange.caller.models)
        exchange.model = choice.name
        masked = await self._masked(request, body, exchange)
        async with while_client_listens(request):
            answer, upstream = await self._answer(request, choice, masked, exchange, held)
            await self._check_status(answer, upstream)
            if wants_stream and answer.content_type == "text/event-stream":
                told = None
            elif answer.content_type == "application/json":
                told = await upstreams.read_json(answer, limit=self._limits.answer_bytes)
            else:
                raise Withheld("the upstream answered in an unknown form", status=502, code="upstream_unreadable")
        return self._streamed(answer, exchange, held) if told is None else await self._restored(told, exchange)

    async def _masked(self, request: Request, body: dict[str, Any], exchange: Exchange) -> dict[str, Any]:
        """``body`` as it may leave, without its model."""
        kept = {key: body[key] for key in ("previous_response_id",) if body.get(key) is not None}
        rest = {key: value for key, value in body.items() if key != "model" and key not in kept}
        exchange.json_mode = bodies.json_mode(body)
        exchange.tools = frozenset(bodies.tools_of(body))
        exchange.names = await self._conversation(request, body, rest, exchange)
        if not self._privacy.detection:
            return {**rest, **kept}
        masker = RequestMasker(exchange.names, self._cache, attachments=self._privacy.attachments == "pass")
        masked = await self._looked_at(masker, rest)
        exchange.counts, exchange.sent = masker.counts, Sent(tuple(masker.texts))
        if exchange.kept:
            await self._known.keep(exchange.names)
        return {**masked, **kept}

    async def _conversation(
        self, request: Request, body: dict[str, Any], rest: dict[str, Any], exchange: Exchange
    ) -> Names:
        """The names of the conversation that a request belongs to."""
        policy = self._policy(exchange)
        exchange.kept = exchange.api.stream is ResponsesStream and body.get("store") is not False
        if (name := request.headers.get(CONVERSATION) or conversations.identifier(rest)) is not None:
            exchange.kept = True
            return await self._known.named(exchange.caller, name, policy)
        if (before := body.get("previous_response_id")) is not None:
            known = await self._known.after(exchange.caller, before, policy) if isinstance(before, str) else None
            if known is None and (not isinstance(before, str) or not _RESPONSE.fullmatch(before)):
                raise Withheld("expected the id of a response", status=400, code="invalid_request")
            return known or self._known.continued(exchange.caller, [], policy)
        exchange.history, answered = conversations.turns(rest)
        return self._known.continued(exchange.caller, exchange.history[:answered], policy)

    async def _looked_at(self, masker: RequestMasker, body: dict[str, Any]) -> dict[str, Any]:
        """``body`` masked, in time; long ones beside the event loop. One at a time: an engine serves one thread."""
        try:
            async with asyncio.timeout(self._limits.detect_s):
                await self._detecting.acquire()
                if _long(body):
                    task = asyncio.get_running_loop().run_in_executor(None, masker.mask, body)
                    task.add_done_callback(lambda _: self._detecting.release())
                    return await asyncio.shield(task)
        except TimeoutError:
            raise Withheld("looking for personal data took too long", status=503, code="detection_timeout") from None
        try:
            return masker.mask(body)
        finally:
            self._detecting.release()

    def _policy(self, exchange: Exchange) -> Policy:
        name = exchange.caller.policy or self._privacy.routes.get(exchange.api.path, self._privacy.policy)
        policy = self._policies.get(name)
        if policy is None:
            raise Withheld("the policy of this key is not configured", status=403, code="policy_not_found")
        return policy

    async def _answer(
        self, request: Request, choice: Choice, masked: dict[str, Any], exchange: Exchange, held: AsyncExitStack
    ) -> tuple[aiohttp.ClientResponse, Upstream]:
        """The first answer of those that may be asked which is no failure of the service itself; ``held`` holds it."""
        for number, (model, upstream) in enumerate(choice.places):
            last = number == len(choice.places) - 1
            exchange.upstream = upstream.name
            async with AsyncExitStack() as tried:
                asking = self._client.ask(
                    upstream,
                    method="POST",
                    path=exchange.api.path,
                    query=request.url.query,
                    headers=upstreams.headers(request.headers, upstream),
                    body=msgspec.json.encode({"model": model, **masked}),
                )
                try:
                    answer = await tried.enter_async_context(asking)
                except Withheld:
                    if last:
                        raise
                    continue
                if (answer.status >= 500 or answer.status == 429) and not last:
                    continue
                await held.enter_async_context(tried.pop_all())
                return answer, upstream
        raise Withheld("there is no upstream to ask", status=502, code="upstream_unreachable")

    async def _check_status(self, answer: aiohttp.ClientResponse, upstream: Upstream) -> None:
        if answer.status >= 400:
            raise await upstreams.refusal(answer, upstream, limit=self._limits.answer_bytes)
        if answer.status != 200:
            raise Withheld(f"the upstream {upstream.name} answered {answer.status}", status=502, code="upstream_error")

    def _restorer(self, exchange: Exchange) -> AnswerRestorer:
        listed = self._privacy.tools

        def allowed(tool: str) -> bool:
            return tool in exchange.tools and ("*" in listed or tool in listed)

        return AnswerRestorer(exchange.names, exchange.sent, json_mode=exchange.json_mode, tool_allowed=allowed)

    async def _restored(self, told: Any, exchange: Exchange) -> Response:
        if not isinstance(told, dict):
            raise _unreadable()
        try:
            restorer = self._restorer(exchange)
            restored = await asyncio.to_thread(restorer.whole, told) if _long(told) else restorer.whole(told)
        except ValueError:
            raise _unreadable() from None
        if "model" in restored and exchange.model:
            restored["model"] = exchange.model
        if isinstance(told.get("usage"), dict):
            exchange.usage = told["usage"]
        await self._remember(exchange, conversations.answer_turns(restored), restored.get("id"))
        await exchange.settle(status=200, withheld=None)
        return Response(msgspec.json.encode(restored), media_type="application/json", headers=self._report(exchange))

    def _streamed(self, answer: aiohttp.ClientResponse, exchange: Exchange, held: AsyncExitStack) -> Response:
        kind = exchange.api.stream
        if kind is None:
            raise _unreadable()
        restorer = kind(self._restorer(exchange))
        return Relay(
            answer,
            restorer,
            dialect=exchange.api.dialect,
            limit=self._limits.answer_bytes,
            ended=partial(self._ended, exchange, restorer, held.pop_all()),
            headers={"cache-control": "no-store", **self._report(exchange)},
        )

    async def _ended(
        self, exchange: Exchange, restorer: StreamRestorer, held: AsyncExitStack, status: int, withheld: str | None
    ) -> None:
        """A stream is over."""
        async with held:
            exchange.usage = restorer.usage
            if status == 200:
                await self._remember(exchange, restorer.turns(), restorer.response_id)
            await exchange.settle(status=status, withheld=withheld)

    async def _remember(self, exchange: Exchange, said: list[bytes], response_id: object) -> None:
        if exchange.history and said:
            self._known.remember(exchange.caller, [*exchange.history, *said], exchange.names)
        if exchange.kept and isinstance(response_id, str) and len(exchange.names):
            await self._known.answered(exchange.caller, response_id, exchange.names)

    def _report(self, exchange: Exchange) -> dict[str, str]:
        if not self._privacy.report_header:
            return {}
        return {REPORT: ", ".join(f"{name}={count}" for name, count in sorted(exchange.counts.items())) or "none"}

    async def _withheld(self, exchange: Exchange, error: MibaoError) -> Response:
        answer = _fault(exchange.api.dialect, error)
        try:
            await exchange.settle(status=answer.status_code, withheld=getattr(error, "code", "fault"))
        except MibaoError as unsettled:
            return _fault(exchange.api.dialect, unsettled)
        return answer


_Answer = Callable[[Request, Exchange, AsyncExitStack], Awaitable[Response]]
_GONE = Withheld("the client went away", status=CLIENT_GONE, code="client_gone")


def _fault(dialect: Dialect, error: MibaoError) -> Response:
    status = getattr(error, "status", 503)
    code = getattr(error, "code", "unavailable")
    headers = {}
    if (waiting := getattr(error, "retry_after_s", None)) is not None:
        headers["retry-after"] = str(max(1, round(waiting)))
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    body = faults.body(dialect, status=status, code=code, message=str(error))
    return JSONResponse(body, status_code=status, headers=headers)


def _own_fault(error: Exception) -> Withheld:
    return Withheld(f"a fault in the gateway ({type(error).__name__}): nothing was passed on", status=500, code="fault")


def _unreadable() -> Withheld:
    return Withheld("the upstream's answer cannot be read", status=502, code="upstream_unreadable")


def _long(value: Any) -> bool:
    """Whether there is so much text, keys and numbers included, that looking at it would hold up everybody else."""
    left, waiting = _IN_THREAD_CHARS, [value]
    while waiting and left > 0:
        each = waiting.pop()
        if isinstance(each, str):
            left -= len(each)
        elif isinstance(each, dict):
            waiting += each.values()
            left -= sum(map(len, each))
        elif isinstance(each, list):
            waiting += each
            left -= len(each)
        elif isinstance(each, int | float) and not isinstance(each, bool):
            left -= _NUMBER_CHARS
    return left <= 0
