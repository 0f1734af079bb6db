"""Any admission, watched: metrics, one line of log and one span a request. Of what was asked and answered, nothing.

    >>> app = Gateway(admission=Observed(accounts, metrics=metrics, spans=spans))

Spans bear the names of OpenTelemetry's conventions for generative AI, without the attributes that hold content.

Source: OpenTelemetry, "Semantic Conventions for Generative AI", spans and metrics.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from mibao.errors import MibaoError, MissingExtra
from mibao.serving.admission import CLIENT_GONE, Admission, Caller, Outcome, Refused
from mibao.serving.metrics import Metrics

REQUESTS = logging.getLogger("mibao.serving.requests")
_OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
}


class Observed:
    """``admission``, with everything that passes through it counted and told."""

    def __init__(self, admission: Admission, *, metrics: Metrics, spans: Spans | None = None) -> None:
        self._admission, self._metrics, self._spans = admission, metrics, spans

    async def admit(
        self, *, authorization: str | None, client_certificate: bytes | None, route: str, model: str | None
    ) -> Caller:
        """See :meth:`mibao.serving.admission.Admission.admit`."""
        try:
            return await self._admission.admit(
                authorization=authorization, client_certificate=client_certificate, route=route, model=model
            )
        except Refused as refused:
            self._metrics.refused(status=refused.status, code=refused.code)
            REQUESTS.info("refused", extra={"fields": {"route": route, "status": refused.status, "code": refused.code}})
            raise
        except MibaoError as error:
            self._metrics.refused(status=503, code=type(error).__name__)
            raise

    async def settle(self, caller: Caller, outcome: Outcome) -> None:
        """See :meth:`mibao.serving.admission.Admission.settle`."""
        self._metrics.settled(outcome)
        REQUESTS.info("request", extra={"fields": _fields(caller, outcome)})
        if self._spans is not None:
            self._spans.ended(outcome)
        began_s = time.perf_counter()
        try:
            await self._admission.settle(caller, outcome)
        except MibaoError:
            self._metrics.not_recorded()
            raise
        self._metrics.recorded(time.perf_counter() - began_s)


@runtime_checkable
class Spans(Protocol):
    """Where ended requests are told."""

    def ended(self, outcome: Outcome) -> None:
        """One request is over, now."""
        ...


class OpenTelemetrySpans:
    """Spans for the tracer provider that the process was given: ``OTEL_EXPORTER_OTLP_ENDPOINT`` and its like.

    Args:
        provider: An ``opentelemetry.trace.TracerProvider``; the process's own when left out.

    Raises:
        MissingExtra: OpenTelemetry is not installed.
    """

    def __init__(self, provider: Any = None) -> None:
        try:
            from opentelemetry import trace  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise MissingExtra("OpenTelemetry spans", extra="otel") from error
        self._trace = trace
        self._tracer = trace.get_tracer("mibao.serving", tracer_provider=provider)

    def ended(self, outcome: Outcome) -> None:
        """One span of the request, begun ``outcome.seconds`` ago."""
        end_ns = time.time_ns()
        operation = _OPERATIONS.get(outcome.route, "unknown")
        span = self._tracer.start_span(
            f"{operation} {outcome.model}".strip(),
            kind=self._trace.SpanKind.CLIENT,
            start_time=end_ns - int(outcome.seconds * 1e9),
            attributes=_attributes(operation, outcome),
        )
        if outcome.withheld is not None or outcome.status >= 400:
            span.set_status(self._trace.StatusCode.ERROR)
        span.end(end_ns)


@runtime_checkable
class Lines(Protocol):
    """Where lines of text go."""

    def write(self, text: str, /) -> int:
        """Take some."""
        ...

    def flush(self) -> None:
        """Pass on what was taken."""
        ...


class JsonLines(logging.Handler):
    """Log records as JSON lines: their time, level, name, message, and the fields that mibao gave them.

    Nothing else of a record is written: no traceback, which could quote what was being worked on, only its type.
    """

    def __init__(self, stream: Lines | None = None) -> None:
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            line |= fields
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
        stream = self._stream or sys.stderr
        stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        stream.flush()


def log_as_json(stream: Lines | None = None, *, level: int = logging.INFO) -> None:
    """Send mibao's log to ``stream`` (standard error when left out) as JSON lines."""
    logger = logging.getLogger("mibao")
    logger.handlers[:] = [JsonLines(stream)]
    logger.setLevel(level)
    logger.propagate = False


def _fields(caller: Caller, outcome: Outcome) -> Mapping[str, object]:
    return {
        "key_id": caller.key_id,
        "route": outcome.route,
        "model": outcome.model,
        "upstream": outcome.upstream,
        "status": outcome.status,
        "findings": dict(outcome.findings),
        "prompt_tokens": outcome.prompt_tokens,
        "completion_tokens": outcome.completion_tokens,
        "seconds": round(outcome.seconds, 6),
        "withheld": outcome.withheld,
    }


def _attributes(operation: str, outcome: Outcome) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": outcome.upstream or "none",
        "gen_ai.usage.input_tokens": outcome.prompt_tokens,
        "gen_ai.usage.output_tokens": outcome.completion_tokens,
        "http.route": outcome.route,
        "http.response.status_code": outcome.status,
        "mibao.findings": sum(outcome.findings.values()),
    }
    if outcome.model:
        attributes["gen_ai.request.model"] = outcome.model
    if outcome.withheld is not None:
        attributes["error.type"] = outcome.withheld
    elif outcome.status >= 400:
        attributes["error.type"] = "client_gone" if outcome.status == CLIENT_GONE else str(outcome.status)
    return attributes
