"""Counts of one worker, and of all workers of a host together, as Prometheus reads them.

A worker counts in memory and writes its counts to the store every :data:`WRITE_S`; whoever is asked for the metrics of
a host adds those of its workers. A worker that ended leaves its counts behind, so that none ever falls. No label is
taken from a request: routes, models, upstreams and codes are the configuration's and the gateway's.

Source: Prometheus, "Exposition formats" (text, version 0.0.4).
"""

from __future__ import annotations

import json
import socket
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from mibao.errors import IntegrityError, MibaoError
from mibao.serving.admission import Outcome
from mibao.serving.migrations import OUTBOX, WORKERS
from mibao.serving.storage import Store

WRITE_S = 2.0
ENDED_MS = 300_000
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_ENDED = "ended"
_Key = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True)
class _Family:
    kind: str
    help: str


FAMILIES: Mapping[str, _Family] = {
    "mibao_requests_total": _Family("counter", "Requests that are over, by what became of them."),
    "mibao_refused_total": _Family("counter", "Requests that were not let in."),
    "mibao_findings_total": _Family("counter", "Findings of personal data that were replaced, by type."),
    "mibao_tokens_total": _Family("counter", "Tokens, as the upstreams counted them."),
    "mibao_request_seconds": _Family("histogram", "From a request's first byte to its answer's last."),
    "mibao_record_seconds": _Family("histogram", "From the end of a request to its durable record."),
    "mibao_ledger_outbox_rows": _Family("gauge", "Requests whose record is not in the ledger yet, of all hosts."),
    "mibao_record_failures_total": _Family("counter", "Requests whose record could not be written."),
}


class Metrics:
    """What one worker counts. Its methods are called on the event loop; :meth:`counts` from any thread."""

    def __init__(self) -> None:
        self._counts: defaultdict[_Key, float] = defaultdict(float)
        self._lock = threading.Lock()

    def settled(self, outcome: Outcome) -> None:
        """One request is over."""
        labels = (("route", outcome.route), ("model", outcome.model), ("upstream", outcome.upstream))
        of_request = (*labels, ("status", str(outcome.status)), ("withheld", outcome.withheld or ""))
        with self._lock:
            self._counts["mibao_requests_total", of_request] += 1
            for name, tokens in (("prompt", outcome.prompt_tokens), ("completion", outcome.completion_tokens)):
                if tokens:
                    self._counts["mibao_tokens_total", (("model", outcome.model), ("kind", name))] += tokens
            for entity, count in outcome.findings.items():
                self._counts["mibao_findings_total", (("entity", entity),)] += count
            self._observe("mibao_request_seconds", (("route", outcome.route),), outcome.seconds)

    def refused(self, *, status: int, code: str) -> None:
        """One request was not let in."""
        with self._lock:
            self._counts["mibao_refused_total", (("status", str(status)), ("code", code))] += 1

    def recorded(self, seconds: float) -> None:
        """One record took that long to be durable."""
        with self._lock:
            self._observe("mibao_record_seconds", (), seconds)

    def not_recorded(self) -> None:
        """One record could not be written."""
        with self._lock:
            self._counts["mibao_record_failures_total", ()] += 1

    def counts(self) -> dict[_Key, float]:
        """All counts so far."""
        with self._lock:
            return dict(self._counts)

    def _observe(self, name: str, labels: tuple[tuple[str, str], ...], seconds: float) -> None:
        at = bisect_left(SECONDS, seconds)
        bound = str(SECONDS[at]) if at < len(SECONDS) else "+Inf"
        self._counts[f"{name}_bucket", (*labels, ("le", bound))] += 1  # of this bucket alone until it is written out
        self._counts[f"{name}_sum", labels] += seconds
        self._counts[f"{name}_count", labels] += 1


class MetricsWriter:
    """Writes one worker's counts to the store, in a thread, until it is closed."""

    def __init__(self, store: Store, metrics: Metrics, *, worker: str, clock_ms: Callable[[], int]) -> None:
        self._store, self._metrics, self._worker, self._clock_ms = store, metrics, worker, clock_ms
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mibao-metrics", daemon=True)
        self._thread.start()

    def write(self) -> None:
        """Write them now. Raises as :meth:`mibao.serving.storage.Store.writing`."""
        row = {
            "worker": self._worker,
            "host": socket.gethostname(),
            "counts": _encode(self._metrics.counts()),
            "written_ms": self._clock_ms(),
        }
        with self._store.writing(durable=False) as connection:
            _put(connection, row)

    def close(self) -> None:
        """Write the last counts and end the thread."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            ended = self._stop.wait(WRITE_S)
            with suppress(MibaoError):  # the next time holds these as well
                self.write()
            if ended:
                return


def of_host(store: Store, *, host: str, now_ms: int) -> str:
    """The counts of all workers of ``host``, as text for Prometheus; those of ended ones are put together.

    Raises:
        Unavailable: the store does not answer.
    """
    with store.writing(durable=False) as connection:
        rows = connection.execute(select(WORKERS).where(WORKERS.c.host == host)).all()
        total: defaultdict[_Key, float] = defaultdict(float)
        ended: defaultdict[_Key, float] = defaultdict(float)
        gone = []
        for row in rows:
            counts = _decode(bytes(row.counts))
            _add(total, counts)
            if row.worker == f"{_ENDED}@{host}" or row.written_ms < now_ms - ENDED_MS:
                _add(ended, counts)
                gone.append(row.worker)
        waiting = connection.execute(select(func.count()).select_from(OUTBOX)).scalar_one()
        total["mibao_ledger_outbox_rows", ()] = float(waiting)
        if len(gone) > 1:
            connection.execute(delete(WORKERS).where(WORKERS.c.worker.in_(gone)))
            merged = {"worker": f"{_ENDED}@{host}", "host": host, "counts": _encode(ended), "written_ms": now_ms}
            _put(connection, merged)
    return exposition(total)


def exposition(counts: Mapping[_Key, float]) -> str:
    """Counts as Prometheus reads them."""
    lines: list[str] = []
    for name, family in FAMILIES.items():
        lines += [f"# HELP {name} {family.help}", f"# TYPE {name} {family.kind}"]
        if family.kind == "histogram":
            lines += _histogram(name, counts)
        else:
            lines += [_line(name, labels, counts[name, labels]) for labels in _labels(counts, name)]
    return "\n".join(lines) + "\n"


def _histogram(name: str, counts: Mapping[_Key, float]) -> Iterable[str]:
    for labels in _labels(counts, f"{name}_count"):
        running = 0.0
        for bound in (*map(str, SECONDS), "+Inf"):
            marked = (*labels, ("le", bound))
            running += counts.get((f"{name}_bucket", marked), 0)
            yield _line(f"{name}_bucket", marked, running)
        yield _line(f"{name}_sum", labels, counts[f"{name}_sum", labels])
        yield _line(f"{name}_count", labels, counts[f"{name}_count", labels])


def _labels(counts: Mapping[_Key, float], name: str) -> list[tuple[tuple[str, str], ...]]:
    return sorted(labels for found, labels in counts if found == name)


def _line(name: str, labels: tuple[tuple[str, str], ...], count: float) -> str:
    shown = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels)
    number = str(int(count)) if float(count).is_integer() else repr(float(count))
    return f"{name}{{{shown}}} {number}" if shown else f"{name} {number}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _add(total: defaultdict[_Key, float], counts: Mapping[_Key, float]) -> None:
    for key, count in counts.items():
        total[key] += count


def _put(connection: Connection, row: Mapping[str, object]) -> None:
    into = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = into(WORKERS)
    replaced = {name: statement.excluded[name] for name in ("host", "counts", "written_ms")}
    connection.execute(statement.on_conflict_do_update(index_elements=["worker"], set_=replaced), row)


def _encode(counts: Mapping[_Key, float]) -> bytes:
    return json.dumps([[name, list(map(list, labels)), count] for (name, labels), count in counts.items()]).encode()


def _decode(data: bytes) -> dict[_Key, float]:
    try:
        return {
            (str(name), tuple((str(key), str(value)) for key, value in labels)): float(count)
            for name, labels, count in json.loads(data)
        }
    except (ValueError, TypeError) as error:
        raise IntegrityError("metrics: a row of the store is none") from error
