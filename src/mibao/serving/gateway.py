"""One request through the gateway: admitted, read, masked, asked, restored, settled. What fails, fails closed."""

from __future__ import annotations

import asyncio
import re
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from mibao.deid import Policy
from mibao.deid.policies import PSEUDONYMS
from mibao.errors import MibaoError
from mibao.serving import conversations, faults
from mibao.serving.admission import Admission, Caller, Outcome, Refused
from mibao.serving.answers import AnswerRestorer
from mibao.serving.bodies import json_mode, tools_of
from mibao.serving.configuration import Configuration
from mibao.serving.conversations import Conversations
from mibao.serving.faults import Dialect, Withheld
from mibao.serving.findings_cache import FindingsCache
from mibao.serving.placeholders import Names
from mibao.serving.requests_walk import RequestMasker
from mibao.serving.restoring import Sent
from mibao.serving.sse import Decoder, Event
from mibao.serving.streams import ChatStream, MessagesStream, ResponsesStream, StreamRestorer
from mibao.serving.tls import client_certificate
from mibao.serving.upstreams import Client, Upstream

CLIENT_GONE = 499
CONVERSATION = "x-mibao-conversation"
REPORT = "x-mibao-findings"
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}")
_RESPONSE = re.compile(r"resp_[A-Za-z0-9]{8,128}")
_LONG_NUMBER = re.compile(r"\d{9,}|\d{3}[-.]\d{2,4}[-.]\d{4}")
_PASSED_ON = {
    "anthropic-version": re.compile(r"[0-9-]{1,20}"),
    "anthropic-beta": re.compile(r"[A-Za-z0-9,. _-]{1,400}"),
    "openai-beta": re.compile(r"[A-Za-z0-9,=. _-]{1,200}"),
}
_QUERIES = frozenset({"", "beta=true"})
_IN_THREAD_CHARS = 20_000


@dataclass(frozen=True, slots=True)
class Api:
    """One path of an API."""

    path: str
    dialect: Dialect
    stream: type[StreamRestorer] | None


APIS = {
    api.path: api
    for api in (
        Api("/v1/chat/completions", Dialect.OPENAI, ChatStream),
        Api("/v1/completions", Dialect.OPENAI, ChatStream),
        Api("/v1/responses", Dialect.OPENAI, ResponsesStream),
        Api("/v1/embeddings", Dialect.OPENAI, None),
        Api("/v1/messages", Dialect.ANTHROPIC, MessagesStream),
        Api("/v1/messages/count_tokens", Dialect.ANTHROPIC, None),
    )
}


def apis(configuration: Configuration) -> dict[str, Api]:
    """Every path that is passed on: :data:`APIS` and what the configuration allows by name."""
    return {**{path: Api(path, Dialect.OPENAI, None) for path in configuration.allow}, **APIS}


@dataclass(slots=True)
class _Exchange:
    """What is known of one request while it runs."""

    api: Api
    caller: Caller
    began_s: float
    names: Names
    history: list[bytes] = field(default_factory=list)
    sent: Sent = field(default_factory=lambda: Sent(()))
    counts: Counter[str] = field(default_factory=Counter)
    asked_model: str = ""
    named_model: str = ""
    upstream: str = ""
    usage: Mapping[str, Any] = field(default_factory=dict)
    json_mode: bool = False
    tools: frozenset[str] = frozenset()


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
        self._configuration, self._limits = configuration, configuration.limits
        self._upstreams, self._policies, self._admission = upstreams, policies, admission
        self._cache, self._known, self._client = cache, known, client
        self._models = {model.name: model for model in configuration.models}
        self._apis = apis(configuration)
        self._places = asyncio.Semaphore(configuration.limits.concurrent)
        self._detecting = asyncio.Lock()

    async def ask(self, request: Request) -> Response:
        """One request to an API of :data:`APIS`."""
        api = self._apis[request.url.path]
        began_s = time.monotonic()
        try:
            caller = await self._admit(request, api.path)
        except MibaoError as error:
            return _fault(api.dialect, error)
        if self._places.locked():
            busy = Withheld("too many requests at once", status=503, code="busy")
            return await self._withheld(_Exchange(api, caller, began_s, _NOBODY), busy)
        await self._places.acquire()
        exchange = _Exchange(api, caller, began_s, _NOBODY)
        handed_on = False
        try:
            response = await self._asked(request, exchange)
            handed_on = isinstance(response, StreamingResponse)
            return response
        except MibaoError as error:
            return await self._withheld(exchange, error)
        except ClientDisconnect:
            return await self._withheld(
                exchange, Withheld("the client went away", status=CLIENT_GONE, code="client_gone")
            )
        except Exception as error:  # noqa: BLE001 - the outer edge: nothing is passed on, and nothing is told
            return await self._withheld(exchange, _own_fault(error))
        finally:
            if not handed_on:
                self._places.release()

    async def models(self, request: Request) -> Response:
        """The models that may be asked for: those of the configuration, or what the first upstream says."""
        try:
            caller = await self._admit(request, "/v1/models")
            if self._models:
                names = [name for name in self._models if caller.models is None or name in caller.models]
                listed = [{"id": name, "object": "model", "created": 0, "owned_by": "mibao"} for name in names]
                return JSONResponse({"object": "list", "data": listed})
            upstream = next(iter(self._upstreams.values()))
            async with self._client.ask(
                upstream, method="GET", path="/v1/models", query="", headers=self._headers(request, upstream), body=None
            ) as answer:
                told = await self._json(answer)
                if answer.status != 200:
                    raise _upstream_fault(upstream.name, answer.status)
                return JSONResponse(told)
        except MibaoError as error:
            return _fault(Dialect.OPENAI, error)

    async def _admit(self, request: Request, route: str) -> Caller:
        authorization = request.headers.get("authorization")
        if authorization is None and (key := request.headers.get("x-api-key")) is not None:
            authorization = f"Bearer {key}"
        return await self._admission.admit(
            authorization=authorization, client_certificate=client_certificate(request.scope), route=route, model=None
        )

    async def _asked(self, request: Request, exchange: _Exchange) -> Response:
        body = await self._body(request)
        if request.url.query not in _QUERIES:
            raise Withheld("expected no query in the URL", status=400, code="query_not_supported")
        wants_stream = body.get("stream") is True
        if wants_stream and exchange.api.stream is None:
            raise Withheld("this API has no streams", status=400, code="invalid_request")
        candidates = self._candidates(body, exchange)
        masked = await self._masked(request, body, exchange)
        stack = AsyncExitStack()
        try:
            answer, asked = await self._answer(request, stack, candidates, masked, exchange)
            if answer.status >= 400:
                raise await self._refusal(answer, asked)
            if answer.status != 200:
                raise _upstream_fault(asked.name, answer.status)
            kind = answer.content_type
            if wants_stream and kind == "text/event-stream":
                return self._streamed(answer, stack.pop_all(), exchange)
            if kind != "application/json":
                raise Withheld("the upstream answered in an unknown form", status=502, code="upstream_unreadable")
            told = await self._json(answer)
        finally:
            await stack.aclose()
        return await self._restored(told, exchange)

    async def _body(self, request: Request) -> dict[str, Any]:
        """The request's JSON object, within every limit."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Withheld("expected content-type application/json", status=415, code="unsupported_media_type")
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip", "deflate"):
            raise Withheld("expected no content-encoding, gzip or deflate", status=415, code="unsupported_encoding")
        raw = bytearray()
        try:
            async with asyncio.timeout(self._limits.read_s):
                async for piece in request.stream():
                    raw += piece
                    if len(raw) > self._limits.body_bytes:
                        raise _too_large(self._limits.body_bytes)
        except TimeoutError:
            raise Withheld("the request did not arrive in time", status=408, code="request_timeout") from None
        data = bytes(raw) if encoding == "identity" else _unpacked(bytes(raw), self._limits.body_bytes)
        try:
            body = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Withheld("expected a JSON object", status=400, code="invalid_json") from None
        if not isinstance(body, dict):
            raise Withheld("expected a JSON object", status=400, code="invalid_json")
        return body

    def _candidates(self, body: dict[str, Any], exchange: _Exchange) -> list[tuple[str, Upstream]]:
        """The model's names upstream and where to ask for it, in the order of trying."""
        model = body.get("model")
        if not isinstance(model, str) or not _MODEL.fullmatch(model):
            raise Withheld("expected a model's name", status=400, code="invalid_model")
        allowed = exchange.caller.models
        if allowed is not None and model not in allowed:
            raise Withheld("this key may not ask for this model", status=403, code="model_not_allowed")
        exchange.asked_model = model
        if self._models:
            if model not in self._models:
                raise Withheld("there is no such model", status=404, code="model_not_found")
            exchange.named_model = model
            settings = [self._models[name] for name in (model, *self._models[model].fallbacks)]
            return [(each.model or each.name, self._upstreams[each.upstream]) for each in settings]
        if _LONG_NUMBER.search(model):
            raise Withheld("expected a model's name", status=400, code="invalid_model")
        return [(model, next(iter(self._upstreams.values())))]

    async def _masked(self, request: Request, body: dict[str, Any], exchange: _Exchange) -> dict[str, Any]:
        """``body`` as it may leave, without its model."""
        kept = {key: body[key] for key in ("previous_response_id",) if body.get(key) is not None}
        rest = {key: value for key, value in body.items() if key != "model" and key not in kept}
        policy = self._policy(exchange)
        exchange.json_mode = json_mode(body)
        exchange.tools = frozenset(tools_of(body))
        exchange.names = self._conversation(request, body, rest, policy, exchange)
        if not self._configuration.privacy.detection:
            return {**rest, **kept}
        pass_on = self._configuration.privacy.attachments == "pass"
        masker = RequestMasker(exchange.names, self._cache, attachments=pass_on)
        masked = await self._looked_at(masker, rest)
        exchange.counts, exchange.sent = masker.counts, Sent(tuple(masker.texts))
        return {**masked, **kept}

    def _conversation(
        self, request: Request, body: dict[str, Any], rest: dict[str, Any], policy: Policy, exchange: _Exchange
    ) -> Names:
        """The names of the conversation that a request belongs to."""
        said, answered = conversations.turns(rest)
        if (name := request.headers.get(CONVERSATION) or _conversation_of(rest)) is not None:
            return self._known.named(exchange.caller, name, policy)
        if (before := body.get("previous_response_id")) is not None:
            known = self._known.after(exchange.caller, before, policy) if isinstance(before, str) else None
            if known is None and (not isinstance(before, str) or not _RESPONSE.fullmatch(before)):
                raise Withheld("expected the id of a response", status=400, code="invalid_request")
            return known or self._known.continued(exchange.caller, [], policy)
        exchange.history = said
        return self._known.continued(exchange.caller, said[:answered], policy)

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

    def _policy(self, exchange: _Exchange) -> Policy:
        privacy = self._configuration.privacy
        name = exchange.caller.policy or privacy.routes.get(exchange.api.path, privacy.policy)
        policy = self._policies.get(name)
        if policy is None:
            raise Withheld("the policy of this key is not configured", status=403, code="policy_not_found")
        return policy

    async def _answer(
        self,
        request: Request,
        stack: AsyncExitStack,
        candidates: list[tuple[str, Upstream]],
        masked: dict[str, Any],
        exchange: _Exchange,
    ) -> tuple[aiohttp.ClientResponse, Upstream]:
        """The first answer of those that may be asked which is no failure of the service itself."""
        for number, (model, upstream) in enumerate(candidates):
            last = number == len(candidates) - 1
            exchange.upstream = upstream.name
            data = msgspec.json.encode({"model": model, **masked})
            tried = AsyncExitStack()
            try:
                answer = await tried.enter_async_context(
                    self._client.ask(
                        upstream,
                        method="POST",
                        path=exchange.api.path,
                        query=request.url.query,
                        headers=self._headers(request, upstream),
                        body=data,
                    )
                )
            except Withheld:
                if last:
                    raise
                continue
            if (answer.status >= 500 or answer.status == 429) and not last:
                await tried.aclose()
                continue
            await stack.enter_async_context(tried)
            return answer, upstream
        raise Withheld("there is no upstream to ask", status=502, code="upstream_unreachable")

    def _headers(self, request: Request, upstream: Upstream) -> dict[str, str]:
        """What is sent upstream: nothing of the client's but versions, and its key where that was asked for."""
        headers = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "user-agent": "mibao",
        }
        for name, form in _PASSED_ON.items():
            value = request.headers.get(name)
            if value is not None and form.fullmatch(value) and not _LONG_NUMBER.search(value):
                headers[name] = value
        if upstream.key is not None:
            if upstream.dialect is Dialect.ANTHROPIC:
                headers["x-api-key"] = upstream.key
            else:
                headers["authorization"] = f"Bearer {upstream.key}"
        elif upstream.forward_authorization:
            headers |= {
                name: request.headers[name] for name in ("authorization", "x-api-key") if name in request.headers
            }
        return headers

    async def _json(self, answer: aiohttp.ClientResponse) -> Any:
        data = bytearray()
        try:
            async for piece in answer.content.iter_any():
                data += piece
                if len(data) > self._limits.answer_bytes:
                    raise Withheld("the upstream's answer is too long", status=502, code="upstream_too_long")
            return msgspec.json.decode(bytes(data))
        except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            raise Withheld("the upstream's answer cannot be read", status=502, code="upstream_unreadable") from None

    async def _refusal(self, answer: aiohttp.ClientResponse, upstream: Upstream) -> Withheld:
        """An error of the upstream: its status and its codes, where they are words; not what it says."""
        try:
            told = await self._json(answer)
        except Withheld:
            told = None
        error = told.get("error") if isinstance(told, dict) else None
        words = [error.get(name) for name in ("code", "type")] if isinstance(error, dict) else []
        code = next(
            (word for word in words if isinstance(word, str) and re.fullmatch("[a-z_]{1,64}", word)), "upstream_error"
        )
        param = error.get("param") if isinstance(error, dict) else None
        about = f" about {param}" if isinstance(param, str) and re.fullmatch(r"[a-z_.\[\]0-9]{1,40}", param) else ""
        return Withheld(
            f"the upstream {upstream.name} answered {answer.status} ({code}){about}", status=answer.status, code=code
        )

    def _restorer(self, exchange: _Exchange) -> AnswerRestorer:
        listed = self._configuration.privacy.tools

        def allowed(tool: str) -> bool:
            return tool in exchange.tools and ("*" in listed or tool in listed)

        return AnswerRestorer(exchange.names, exchange.sent, json_mode=exchange.json_mode, tool_allowed=allowed)

    async def _restored(self, told: Any, exchange: _Exchange) -> Response:
        if not isinstance(told, dict):
            raise Withheld("the upstream's answer cannot be read", status=502, code="upstream_unreadable")
        try:
            restored = self._restorer(exchange).whole(told)
        except ValueError:
            raise Withheld("the upstream's answer cannot be read", status=502, code="upstream_unreadable") from None
        if "model" in restored and exchange.named_model:
            restored["model"] = exchange.named_model
        if isinstance(told.get("usage"), dict):
            exchange.usage = told["usage"]
        self._remember(exchange, _said(restored), restored.get("id"))
        await self._settle(exchange, status=200, withheld=None)
        return Response(msgspec.json.encode(restored), media_type="application/json", headers=self._report(exchange))

    def _streamed(self, answer: aiohttp.ClientResponse, stack: AsyncExitStack, exchange: _Exchange) -> Response:
        kind = exchange.api.stream
        assert kind is not None  # noqa: S101 - checked before anything was asked
        restorer = kind(self._restorer(exchange))
        return StreamingResponse(
            self._events(answer, stack, restorer, exchange),
            media_type="text/event-stream",
            headers={"cache-control": "no-store", **self._report(exchange)},
        )

    async def _events(
        self, answer: aiohttp.ClientResponse, stack: AsyncExitStack, restorer: StreamRestorer, exchange: _Exchange
    ) -> AsyncIterator[bytes]:
        status, withheld = CLIENT_GONE, None
        try:
            decoder = Decoder()
            try:
                async for piece in answer.content.iter_any():
                    sent = b"".join(new.encode() for event in decoder.feed(piece) for new in restorer.feed(event))
                    if sent:
                        yield sent
                rest = [new for event in decoder.close() for new in restorer.feed(event)]
                if rest := [*rest, *restorer.close()]:
                    yield b"".join(event.encode() for event in rest)
                status = 200
            except (aiohttp.ClientError, TimeoutError):
                fault = Withheld("the upstream broke off", status=502, code="upstream_broke_off")
                status, withheld = fault.status, fault.code
                yield _event_fault(exchange.api.dialect, fault)
            except MibaoError as error:
                status, withheld = 502, getattr(error, "code", "fault")
                yield _event_fault(exchange.api.dialect, error)
        finally:
            self._places.release()
            exchange.usage = restorer.usage
            if status == 200:
                said = conversations.gist("assistant", {"content": "".join(restorer.text)})
                self._remember(exchange, said, restorer.response_id)
            await asyncio.shield(self._ended(stack, exchange, status, withheld))

    async def _ended(self, stack: AsyncExitStack, exchange: _Exchange, status: int, withheld: str | None) -> None:
        await stack.aclose()
        await self._settle(exchange, status=status, withheld=withheld)

    def _remember(self, exchange: _Exchange, said: bytes | None, response_id: Any) -> None:
        if exchange.history and said is not None:
            self._known.remember(exchange.caller, [*exchange.history, said], exchange.names)
        if isinstance(response_id, str) and exchange.api.stream is ResponsesStream:
            self._known.answered(exchange.caller, response_id, exchange.names)

    def _report(self, exchange: _Exchange) -> dict[str, str]:
        if not self._configuration.privacy.report_header:
            return {}
        return {REPORT: ", ".join(f"{name}={count}" for name, count in sorted(exchange.counts.items())) or "none"}

    async def _withheld(self, exchange: _Exchange, error: MibaoError) -> Response:
        answer = _fault(exchange.api.dialect, error)
        try:
            await self._settle(exchange, status=answer.status_code, withheld=getattr(error, "code", "fault"))
        except MibaoError as unsettled:
            return _fault(exchange.api.dialect, unsettled)
        return answer

    async def _settle(self, exchange: _Exchange, *, status: int, withheld: str | None) -> None:
        prompt, completion = _tokens(exchange.usage)
        await self._admission.settle(
            exchange.caller,
            Outcome(
                route=exchange.api.path,
                model=exchange.named_model,
                upstream=exchange.upstream,
                status=status,
                findings=dict(exchange.counts),
                prompt_tokens=prompt,
                completion_tokens=completion,
                seconds=time.monotonic() - exchange.began_s,
                withheld=withheld,
            ),
        )


_NOBODY = Names(scope_key=bytes(32), policy=PSEUDONYMS)  # of requests that are withheld before they are looked at


def _fault(dialect: Dialect, error: MibaoError) -> Response:
    status = getattr(error, "status", 503)
    code = getattr(error, "code", "unavailable")
    headers = {}
    if isinstance(error, Refused) and error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    body = faults.body(dialect, status=status, code=code, message=str(error))
    return JSONResponse(body, status_code=status, headers=headers)


def _event_fault(dialect: Dialect, error: MibaoError) -> bytes:
    status, code = getattr(error, "status", 502), getattr(error, "code", "fault")
    data = msgspec.json.encode(faults.body(dialect, status=status, code=code, message=str(error))).decode()
    return Event("error" if dialect is Dialect.ANTHROPIC else "", data).encode()


def _own_fault(error: Exception) -> Withheld:
    return Withheld(f"a fault in the gateway ({type(error).__name__}): nothing was passed on", status=500, code="fault")


def _upstream_fault(name: str, status: int) -> Withheld:
    return Withheld(f"the upstream {name} answered {status}", status=502, code="upstream_error")


def _too_large(limit: int) -> Withheld:
    return Withheld(f"expected at most {limit} bytes", status=413, code="too_large")


def _unpacked(data: bytes, limit: int) -> bytes:
    """What gzip or deflate packed, never more than ``limit`` bytes of it."""
    unpacker = zlib.decompressobj(wbits=47)
    try:
        unpacked = unpacker.decompress(data, limit + 1)
    except zlib.error:
        raise Withheld("the body cannot be unpacked", status=400, code="invalid_encoding") from None
    if len(unpacked) > limit or unpacker.unconsumed_tail:
        raise _too_large(limit)
    if not unpacker.eof or unpacker.unused_data:
        raise Withheld("the body cannot be unpacked", status=400, code="invalid_encoding")
    return unpacked


def _long(value: Any) -> bool:
    """Whether there is so much text that looking at it would hold up everybody else."""
    left, waiting = _IN_THREAD_CHARS, [value]
    while waiting and left > 0:
        each = waiting.pop()
        if isinstance(each, str):
            left -= len(each)
        elif isinstance(each, dict):
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
            left -= len(each)
    return left <= 0


def _conversation_of(body: dict[str, Any]) -> str | None:
    """The identifier of a conversation that the upstream keeps."""
    conversation = body.get("conversation")
    if isinstance(conversation, dict):
        conversation = conversation.get("id")
    return conversation if isinstance(conversation, str) else None


def _said(answer: dict[str, Any]) -> bytes | None:
    """The turn that the client will send back of an answer."""
    if isinstance(choices := answer.get("choices"), list) and choices and isinstance(choices[0], dict):
        message = choices[0].get("message")
        return conversations.gist("assistant", message) if isinstance(message, dict) else None
    if isinstance(content := answer.get("content"), list):
        return conversations.gist("assistant", {"content": content})
    return None


def _tokens(usage: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens asked and answered, as either dialect names them."""

    def count(*names: str) -> int:
        return next((value for name in names if isinstance(value := usage.get(name), int) and 0 <= value < 1 << 40), 0)

    return count("prompt_tokens", "input_tokens"), count("completion_tokens", "output_tokens")
