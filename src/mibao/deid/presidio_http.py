"""Presidio's HTTP calls over our engine, as an ASGI application: ``mibao deid serve``. Needs the extra ``serving``.

``POST /analyze``, ``POST /anonymize``, ``POST /deanonymize``, ``GET /supportedentities``, ``GET /health``: requests and
answers are Presidio's, an error is ``{"error": "..."}``. What cannot be checked is an error, never an empty answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from mibao.deid.presidio import (
    AnalyzerEngine,
    AnonymizerEngine,
    DeanonymizeEngine,
    OperatorConfig,
    OperatorResult,
    RecognizerResult,
)  # fmt: skip
from mibao.errors import InputError, KeyMismatch, MibaoError, MissingExtra

try:
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route
except ImportError as error:
    raise MissingExtra("the HTTP service", extra="serving") from error

MAX_BODY_BYTES = 32 << 20
MAX_TEXTS = 10_000


def application(*, analyzer: AnalyzerEngine, anonymizer: AnonymizerEngine) -> Starlette:
    """The service over two engines."""

    async def health(request: Request) -> Response:
        return PlainTextResponse("mibao de-identification service is up")

    async def supported_entities(request: Request) -> Response:
        return await _answered(lambda: analyzer.get_supported_entities(request.query_params.get("language")))

    async def analyze(request: Request) -> Response:
        return await _posted(request, lambda body: _analyze(body, analyzer))

    async def anonymize(request: Request) -> Response:
        return await _posted(request, lambda body: _anonymize(body, anonymizer))

    async def deanonymize(request: Request) -> Response:
        return await _posted(request, _deanonymize)

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/supportedentities", supported_entities),
            Route("/analyze", analyze, methods=["POST"]),
            Route("/anonymize", anonymize, methods=["POST"]),
            Route("/deanonymize", deanonymize, methods=["POST"]),
        ]
    )


def _analyze(body: Mapping[str, Any], analyzer: AnalyzerEngine) -> object:
    text = body.get("text")
    if isinstance(text, list) and len(text) <= MAX_TEXTS and all(isinstance(each, str) for each in text):
        return [_analyze({**body, "text": each}, analyzer) for each in text]
    if not isinstance(text, str):
        raise InputError('analyze: expected "text", a string or a list of strings')
    if body.get("allow_list_match", "exact") != "exact":
        raise InputError('analyze: expected allow_list_match "exact"')
    results = analyzer.analyze(
        text=text,
        language=_given(body, "language", str, "en"),
        entities=_strings(body, "entities"),
        score_threshold=_given(body, "score_threshold", (int, float), None),
        return_decision_process=bool(body.get("return_decision_process", False)),
        ad_hoc_recognizers=_given(body, "ad_hoc_recognizers", list, None),
        allow_list=_strings(body, "allow_list"),
    )
    return [each.to_dict() for each in results]


def _anonymize(body: Mapping[str, Any], anonymizer: AnonymizerEngine) -> object:
    text = _text(body)
    results = [RecognizerResult.from_json(each) for each in _given(body, "analyzer_results", list, [])]
    done = anonymizer.anonymize(text, results, _operators(body, "anonymizers"))
    return asdict(done)


def _deanonymize(body: Mapping[str, Any]) -> object:
    found = [RecognizerResult.from_json(each) for each in _given(body, "anonymizer_results", list, [])]
    entities = [OperatorResult(each.start, each.end, each.entity_type) for each in found]
    return asdict(DeanonymizeEngine().deanonymize(_text(body), entities, _operators(body, "deanonymizers")))


def _operators(body: Mapping[str, Any], name: str) -> dict[str, OperatorConfig]:
    made = {}
    for kind, given in _given(body, name, dict, {}).items():
        if not isinstance(given, dict) or not isinstance(given.get("type"), str):
            raise InputError(f'{name}: expected for each type an object with "type", the operator')
        made[kind] = OperatorConfig(given["type"], {key: value for key, value in given.items() if key != "type"})
    return made


def _text(body: Mapping[str, Any]) -> str:
    text = body.get("text")
    if not isinstance(text, str):
        raise InputError('expected "text", a string')
    return text


def _strings(body: Mapping[str, Any], name: str) -> list[str] | None:
    found = _given(body, name, list, None)
    if found is not None and not all(isinstance(each, str) for each in found):
        raise InputError(f"{name}: expected strings")
    return found or None


def _given(body: Mapping[str, Any], name: str, kind: Any, otherwise: Any) -> Any:
    value = body.get(name)
    if value is None:
        return otherwise
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{name}: got {type(value).__name__}, which it cannot be")
    return value


async def _posted(request: Request, work: Callable[[Mapping[str, Any]], object]) -> Response:
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > MAX_BODY_BYTES:
            return JSONResponse({"error": f"expected at most {MAX_BODY_BYTES} bytes"}, status_code=413)
    try:
        body = json.loads(bytes(data))
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        return JSONResponse({"error": "expected a JSON object"}, status_code=400)
    return await _answered(lambda: work(body))


async def _answered(work: Callable[[], object]) -> Response:
    """What ``work`` returns, as JSON; every failure is an error, and says nothing of the text."""
    try:
        return JSONResponse(await run_in_threadpool(work))
    except KeyMismatch as error:
        return JSONResponse({"error": str(error)}, status_code=422)
    except MibaoError as error:
        return JSONResponse({"error": str(error)}, status_code=400)
    except Exception as error:  # noqa: BLE001 - the server's outer edge: a recogniser of the user's may raise anything, and the text must not pass
        return JSONResponse({"error": f"the text could not be checked ({type(error).__name__})"}, status_code=500)
