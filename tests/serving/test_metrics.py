"""Counts of many workers as Prometheus reads them, and what is told of a request elsewhere."""

import asyncio
import io
import json
import logging
import socket
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from mibao.errors import InputError
from mibao.serving import metrics
from mibao.serving.admission import Caller, OpenAdmission, Outcome, Refused
from mibao.serving.metrics import ENDED_MS, Metrics, MetricsWriter
from mibao.serving.observed import Observed, OpenTelemetrySpans, log_as_json
from mibao.serving.storage import Store, Unavailable

HOST = socket.gethostname()
OUTCOME = Outcome(
    route="/v1/chat/completions", model="small", upstream="home", status=200, findings={"PERSON": 2}, prompt_tokens=10,
    completion_tokens=5, seconds=0.03, withheld=None,
)  # fmt: skip
WITHHELD = Outcome(
    route="/v1/embeddings", model="", upstream="", status=400, findings={}, prompt_tokens=0, completion_tokens=0,
    seconds=0.5, withheld="detector_failed",
)  # fmt: skip


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What Prometheus' own parser reads."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_prometheus_reads_what_was_counted() -> None:
    counted = Metrics()
    counted.settled(OUTCOME)
    counted.settled(WITHHELD)
    counted.refused(status=429, code="rate_limit_exceeded")
    counted.recorded(0.002)
    counted.not_recorded()
    read = samples(metrics.exposition(counted.counts()))
    labels = {"model": "small", "route": OUTCOME.route, "status": "200", "upstream": "home", "withheld": ""}
    assert read["mibao_requests_total", tuple(labels.items())] == 1
    assert read["mibao_findings_total", (("entity", "PERSON"),)] == 2
    assert read["mibao_tokens_total", (("kind", "prompt"), ("model", "small"))] == 10
    assert read["mibao_refused_total", (("code", "rate_limit_exceeded"), ("status", "429"))] == 1
    assert read["mibao_record_failures_total", ()] == 1
    chat = ("route", OUTCOME.route)
    assert read["mibao_request_seconds_bucket", (("le", "0.025"), chat)] == 0
    assert read["mibao_request_seconds_bucket", (("le", "0.05"), chat)] == 1
    assert read["mibao_request_seconds_bucket", (("le", "+Inf"), chat)] == 1
    assert read["mibao_request_seconds_sum", (chat,)] == pytest.approx(0.03)
    assert read["mibao_record_seconds_count", ()] == 1


@pytest.mark.parametrize("value", ['a"b', "a\\b", "a\nb", "\\n", "名"])
def test_a_label_of_any_text_is_read_back(value: str) -> None:
    counted = Metrics()
    counted.refused(status=401, code=value)
    assert ("mibao_refused_total", (("code", value), ("status", "401"))) in samples(
        metrics.exposition(counted.counts())
    )


def test_the_workers_of_a_host_are_added_and_none_of_another_host_is(store_place: str) -> None:
    now = [1_000]
    with Store.open(store_place) as store:
        for worker in ("one", "two"):
            counted = Metrics()
            counted.settled(OUTCOME)
            writer = MetricsWriter(store, counted, worker=worker, clock_ms=lambda: now[0])
            writer.close()
        text = metrics.of_host(store, host=HOST, now_ms=now[0])
        assert samples(text)["mibao_findings_total", (("entity", "PERSON"),)] == 4
        assert samples(metrics.of_host(store, host="elsewhere", now_ms=now[0])) == {("mibao_ledger_outbox_rows", ()): 0}


def test_counts_of_workers_that_ended_stay(store_place: str) -> None:
    with Store.open(store_place) as store:
        for start in range(0, 3 * ENDED_MS, ENDED_MS):  # each is gone when the next is asked for
            counted = Metrics()
            counted.settled(OUTCOME)
            MetricsWriter(store, counted, worker=f"w{start}", clock_ms=lambda start=start: start).close()
            for later in (0, 2 * ENDED_MS):
                read = samples(metrics.of_host(store, host=HOST, now_ms=start + later))
                assert read["mibao_findings_total", (("entity", "PERSON"),)] == 2 * (1 + start // ENDED_MS)


class Refusing:
    """Lets nobody in, and cannot write."""

    async def admit(
        self, *, authorization: str | None, client_certificate: bytes | None, route: str, model: str | None
    ) -> Caller:
        if authorization is None:
            raise Unavailable("store: gone")
        raise Refused("no", status=401, code="invalid_api_key")

    async def settle(self, caller: Caller, outcome: Outcome) -> None:
        raise InputError("store: gone")


def _told(observed: Observed, outcome: Outcome) -> list[dict[str, object]]:
    stream = io.StringIO()
    logger = logging.getLogger("mibao")
    before = (logger.handlers[:], logger.level, logger.propagate)
    log_as_json(stream)
    try:
        asyncio.run(observed.settle(Caller(tenant="a tenant", key_id="k1"), outcome))
    finally:
        logger.handlers[:], logger.level, logger.propagate = before
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_request_is_one_line_of_log_with_counts_and_without_content() -> None:
    (line,) = _told(Observed(OpenAdmission(), metrics=Metrics()), OUTCOME)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info", "logger": "mibao.serving.requests", "event": "request", "key_id": "k1",
        "route": "/v1/chat/completions", "model": "small", "upstream": "home", "status": 200,
        "findings": {"PERSON": 2}, "prompt_tokens": 10, "completion_tokens": 5, "seconds": 0.03, "withheld": None,
    }  # fmt: skip


def test_a_log_line_of_a_fault_names_its_type_and_not_what_it_says() -> None:
    stream = io.StringIO()
    logger = logging.getLogger("mibao")
    before = (logger.handlers[:], logger.level, logger.propagate)
    log_as_json(stream)
    try:
        raise ValueError("Jane Doe, 020 7946 0018")
    except ValueError:
        logger.exception("a fault")
    finally:
        logger.handlers[:], logger.level, logger.propagate = before
    line = json.loads(stream.getvalue())
    assert (line["event"], line["error"]) == ("a fault", "ValueError")
    assert "Jane" not in stream.getvalue()


@pytest.mark.parametrize(
    ("outcome", "name", "expected"),
    [
        (OUTCOME, "chat small", {
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": "home", "gen_ai.request.model": "small",
            "gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 5, "http.route": OUTCOME.route,
            "http.response.status_code": 200, "mibao.findings": 2,
        }),
        (WITHHELD, "embeddings", {
            "gen_ai.operation.name": "embeddings", "gen_ai.provider.name": "none", "gen_ai.usage.input_tokens": 0,
            "gen_ai.usage.output_tokens": 0, "http.route": WITHHELD.route, "http.response.status_code": 400,
            "mibao.findings": 0, "error.type": "detector_failed",
        }),
    ],
)  # fmt: skip
def test_a_request_is_one_span_with_the_names_of_the_convention(
    outcome: Outcome, name: str, expected: dict[str, object]
) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    observed = Observed(OpenAdmission(), metrics=Metrics(), spans=OpenTelemetrySpans(provider))
    _told(observed, outcome)
    (span,) = exporter.get_finished_spans()
    assert span.name == name
    assert dict(span.attributes) == expected
    assert span.status.is_ok == (outcome.withheld is None)
    assert span.end_time - span.start_time == pytest.approx(outcome.seconds * 1e9, abs=1e6)
    assert not span.events


def test_whoever_is_not_let_in_and_what_cannot_be_written_is_counted() -> None:
    counted = Metrics()
    observed = Observed(Refusing(), metrics=counted)

    async def run() -> None:
        for authorization, expected in (("Bearer x", Refused), (None, Unavailable)):
            with pytest.raises(expected):
                await observed.admit(
                    authorization=authorization, client_certificate=None, route="/v1/models", model=None
                )
        with pytest.raises(InputError):
            await observed.settle(Caller(tenant="t", key_id="k"), OUTCOME)

    asyncio.run(run())
    read = samples(metrics.exposition(counted.counts()))
    assert read["mibao_refused_total", (("code", "invalid_api_key"), ("status", "401"))] == 1
    assert read["mibao_refused_total", (("code", "Unavailable"), ("status", "503"))] == 1
    assert read["mibao_record_failures_total", ()] == 1


def test_a_counter_never_holds_what_was_written_half(tmp_path: Path) -> None:
    with Store.open(tmp_path / "gateway.db") as store:
        writer = MetricsWriter(store, counted := Metrics(), worker="w", clock_ms=lambda: 1)
        counted.settled(OUTCOME)
        writer.write()
        writer.write()  # again: the same counts, not twice
        read = samples(metrics.of_host(store, host=HOST, now_ms=1))
        assert read["mibao_findings_total", (("entity", "PERSON"),)] == 2
        writer.close()
