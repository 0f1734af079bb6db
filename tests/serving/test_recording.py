"""From the store's outbox into the ledger: everything, once, in a log that verifies."""

from pathlib import Path

import pytest
from sqlalchemy import delete, insert, select

from ledger_samples import signer
from mibao import ledger
from mibao.crypto.rng import random_bytes, random_id
from mibao.errors import InputError, IntegrityError
from mibao.events import PersonalDataWithheld, RequestServed
from mibao.ledger import Log
from mibao.serving import recording
from mibao.serving.admission import Caller, Outcome
from mibao.serving.migrations import LEDGER_STATE, OUTBOX
from mibao.serving.recording import Appender
from mibao.serving.storage import Store
from mibao.types import EntityType, RandomId

ORIGIN = "mibao.test/gateway"
CALLER = recording.caller_hash(Caller(tenant="t", key_id="k"), key=bytes(32))


def outcome(**findings: int) -> Outcome:
    return Outcome(
        route="/v1/chat/completions", model="m", upstream="u", status=200, findings=findings, prompt_tokens=3,
        completion_tokens=4, seconds=0.1, withheld=None,
    )  # fmt: skip


def put(store: Store, *requests: RandomId) -> None:
    rows = [
        {
            "request": request.value,
            "events": recording.encode(recording.events_of(outcome(PERSON=1), request=request, caller=CALLER)),
        }
        for request in requests
    ]
    with store.writing() as connection:
        connection.execute(insert(OUTBOX), rows)


def recorded(path: Path) -> list[RandomId]:
    """The requests in a ledger that verifies."""
    assert ledger.verify(path, signer=signer().public, origin=ORIGIN)
    events = [entry.event for entry in ledger.stored_entries(path)]
    assert all(isinstance(event, PersonalDataWithheld) for event in events[1::2])
    return [event.request for event in events[::2] if isinstance(event, RequestServed)]


def appender(store: Store, path: Path, **changes: object) -> Appender:
    return Appender(store, path, **{"signer": signer(), "origin": ORIGIN, **changes})


def waiting(store: Store) -> int:
    with store.reading() as connection:
        return len(connection.execute(select(OUTBOX.c.position)).all())


def test_events_say_how_many_of_each_type_and_nothing_else() -> None:
    request = random_id()
    served, *found = recording.events_of(outcome(PHONE_NUMBER=2, PERSON=1, EMAIL_ADDRESS=0, house_number=3),
                                         request=request, caller=CALLER)  # fmt: skip
    assert (served.findings, served.status, served.withheld) == (6, 200, False)
    assert {event.entity: event.findings for event in found} == {
        EntityType.PHONE_NUMBER: 2, EntityType.PERSON: 1, EntityType.CUSTOM: 3,
    }  # fmt: skip
    assert recording.decode(recording.encode([served, *found])) == [served, *found]


def test_who_asked_is_hidden_under_a_key_and_tells_keys_apart() -> None:
    callers = [Caller(tenant=tenant, key_id=key) for tenant, key in (("a", "bc"), ("ab", "c"), ("a", "b"))]
    hashes = {recording.caller_hash(caller, key=key).value for caller in callers for key in (bytes(32), b"1" * 32)}
    assert len(hashes) == 6


def test_everything_in_the_outbox_is_recorded_in_order_and_the_outbox_is_empty(
    store_place: str, tmp_path: Path
) -> None:
    requests = [random_id() for _ in range(recording.MAX_ROWS + 5)]
    with Store.open(store_place) as store:
        put(store, *requests)
        appending = appender(store, tmp_path / "ledger.db")
        assert appending.append_waiting() == len(requests)
        put(store, more := random_id())
        assert appending.append_waiting() == 1
        appending.close()
        assert waiting(store) == 0
    assert recorded(tmp_path / "ledger.db") == [*requests, more]


def test_one_worker_at_a_time_appends_and_another_takes_over(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with Store.open(tmp_path / "gateway.db") as store:
        one, two = appender(store, path), appender(store, path)
        put(store, first := random_id())
        assert (one.append_waiting(), two.append_waiting()) == (1, None)
        one.close()
        put(store, second := random_id())
        assert two.append_waiting() == 1
        two.close()
    assert recorded(path) == [first, second]


def test_what_was_appended_and_not_yet_taken_from_the_outbox_is_not_recorded_twice(
    store_place: str, tmp_path: Path
) -> None:
    path, requests = tmp_path / "ledger.db", [random_id() for _ in range(4)]
    with Store.open(store_place) as store:
        appending = appender(store, path)
        assert appending.append_waiting() == 0
        appending.close()
        put(store, *requests)
        # A worker that was killed between its two steps, having seen only some rows.
        with Log.open(path, signer=signer()) as log:
            for request in (requests[2], requests[0]):
                log.append(recording.events_of(outcome(PERSON=1), request=request, caller=CALLER))
        again = appender(store, path)
        again.append_waiting()
        again.close()
        assert waiting(store) == 0
        with store.reading() as connection:
            assert connection.execute(select(LEDGER_STATE.c.entries)).scalar_one() == 8
    assert recorded(path) == [requests[2], requests[0], requests[1], requests[3]]


def test_a_ledger_that_was_rolled_back_is_refused_and_nothing_leaves_the_outbox(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with Store.open(tmp_path / "gateway.db") as store:
        put(store, random_id())
        appending = appender(store, path)
        appending.append_waiting()
        appending.close()
        path.unlink()
        put(store, random_id())
        with pytest.raises(IntegrityError, match="expected at least 2 entries, got 0: rolled back, or another"):
            appender(store, path).append_waiting()
        assert waiting(store) == 1


def test_a_ledger_of_another_name_is_refused(tmp_path: Path) -> None:
    with Store.open(tmp_path / "gateway.db") as store:
        first = appender(store, tmp_path / "ledger.db")
        first.append_waiting()
        first.close()
        other = appender(store, tmp_path / "other.db", origin="mibao.test/other")
        with pytest.raises(InputError, match=r"records into 'mibao.test/gateway', not 'mibao.test/other'"):
            other.append_waiting()


def test_a_row_of_the_outbox_that_is_no_events_stops_the_recording(tmp_path: Path) -> None:
    with Store.open(tmp_path / "gateway.db") as store:
        with store.writing() as connection:
            connection.execute(insert(OUTBOX).values(request=random_bytes(16), events=b"\x01"))
        appending = appender(store, tmp_path / "ledger.db")
        with pytest.raises(IntegrityError, match="a row is not a list of events"):
            appending.append_waiting()
        with store.writing() as connection:
            connection.execute(delete(OUTBOX))
        appending.close()


def test_a_thread_records_without_being_asked(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with Store.open(tmp_path / "gateway.db") as store:
        appending = appender(store, path)
        appending.start()
        put(store, request := random_id())
        appending.close()
    assert recorded(path) == [request]
