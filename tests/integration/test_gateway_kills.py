"""Real workers and a real database, killed in the middle: nothing acknowledged is lost, no limit is passed."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import postgres
from counts import counts
from ledger_samples import signer
from mibao import ledger
from mibao.events import RequestServed
from mibao.serving import api_keys
from mibao.serving.api_keys import Grant, Limits
from mibao.serving.recording import Appender
from mibao.serving.storage import Store

TESTS = Path(__file__).parents[1]
WORKER = TESTS / "integration" / "gateway_worker.py"
ORIGIN = "mibao.test/gateway"


@dataclass
class Worker:
    """One process; what it prints goes to a file."""

    process: subprocess.Popen[bytes]
    output: Path

    def said(self, word: str) -> set[str]:
        text = self.output.read_text()
        lines = text[: text.rfind("\n") + 1].splitlines()
        return {line.partition(" ")[2] for line in lines if line.startswith(word)}

    def wait_for(self, word: str, count: int, *, more_than: int = 0) -> None:
        until = time.monotonic() + 60
        while len(self.said(word)) < more_than + count:
            assert self.process.poll() is None and time.monotonic() < until, self.output.read_text()[-1000:]
            time.sleep(0.01)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=30)


@contextmanager
def workers(place: str, path: Path, key: str, *, names: str) -> Iterator[list[Worker]]:
    started = []
    try:
        for name in names:
            output = path.with_name(f"output-{name}")
            with output.open("wb") as file:
                command = [sys.executable, str(WORKER), place, str(path), key]
                process = subprocess.Popen(command, stdout=file, env={**os.environ, "PYTHONPATH": str(TESTS)})
            started.append(Worker(process, output))
        yield started
    finally:
        for worker in started:
            worker.kill()


def new_key(place: str, limits: Limits) -> str:
    with Store.open(place) as store, store.writing() as connection:
        text, _ = api_keys.create(connection, Grant(tenant="t", limits=limits), now_ms=0)
    return text


def recorded(place: str, path: Path) -> list[str]:
    """The requests in the ledger, once what is left has been moved there and all of it verified."""
    with Store.open(place) as store:
        appender = Appender(store, path, signer=signer(), origin=ORIGIN)
        assert appender.append_waiting() is not None
        appender.close()
    ledger.verify(path, signer=signer().public, origin=ORIGIN)
    events = [entry.event for entry in ledger.stored_entries(path)]
    return [str(event.request) for event in events if isinstance(event, RequestServed)]


def test_workers_killed_in_the_middle_lose_nothing_acknowledged_and_double_nothing(
    store_place: str, tmp_path: Path
) -> None:
    path, key = tmp_path / "ledger.db", new_key(store_place, Limits())
    draw = random.Random(3)  # noqa: S311 - the same moments in every run, as far as a clock allows
    settled, admitted = set(), set()
    for trial in range(counts(short=2, long=12)):
        with workers(store_place, path, key, names=f"{trial:x}xy"[:2]) as started:
            for worker in started:
                worker.wait_for("settled", 5)
            time.sleep(draw.uniform(0.1, 0.6))
            for worker in started:
                worker.kill()
            settled |= {request for worker in started for request in worker.said("settled")}
            admitted |= {request for worker in started for request in worker.said("admitted")}
    found = recorded(store_place, path)
    assert len(found) == len(set(found))
    assert settled <= set(found) <= admitted
    assert settled


def test_a_database_killed_in_the_middle_loses_nothing_acknowledged_and_its_workers_go_on(
    postgres_cluster: postgres.Cluster, tmp_path: Path
) -> None:
    place = postgres_cluster.database()
    path, key = tmp_path / "ledger.db", new_key(place, Limits(requests_per_minute=10**9))
    with workers(place, path, key, names="ab") as started:
        for _ in range(counts(short=1, long=5)):
            for worker in started:
                worker.wait_for("settled", 20, more_than=len(worker.said("settled")))
            postgres_cluster.kill()
            postgres_cluster.start()
        for worker in started:
            worker.wait_for("settled", 20, more_than=len(worker.said("settled")))
    settled = {request for worker in started for request in worker.said("settled")}
    admitted = {request for worker in started for request in worker.said("admitted")}
    found = recorded(place, path)
    assert len(found) == len(set(found))
    assert settled <= set(found) <= admitted


def test_workers_together_admit_exactly_the_limit(store_place: str, tmp_path: Path) -> None:
    path, key = tmp_path / "ledger.db", new_key(store_place, Limits(requests_per_minute=100))
    with workers(store_place, path, key, names="ab") as started:
        until = time.monotonic() + 30
        while sum(len(worker.said("admitted")) for worker in started) < 100 and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.5)
        assert sum(len(worker.said("admitted")) for worker in started) == 100


def test_nothing_that_was_found_and_no_key_is_left_in_any_file_after_a_kill(tmp_path: Path) -> None:
    place, path = str(tmp_path / "gateway.db"), tmp_path / "ledger.db"
    key = new_key(place, Limits())
    with workers(place, path, key, names="a") as (worker,):
        worker.wait_for("settled", 5)
        while not path.exists():
            worker.wait_for("settled", 1, more_than=len(worker.said("settled")))
        worker.kill()
    secret = key.rpartition("-")[2].encode()
    files = [file for file in tmp_path.iterdir() if not file.name.startswith("output")]
    assert {"gateway.db", "ledger.db"} <= {file.name for file in files}
    assert not any(secret in file.read_bytes() for file in files)
