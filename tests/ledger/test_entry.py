import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger_samples import START_MS, events
from mibao.codec import canonical
from mibao.codec.canonical import Value
from mibao.errors import InputError, IntegrityError
from mibao.events import ModelRefused, PrivacySpent
from mibao.ledger import entry as entries
from mibao.ledger.entry import Entry
from mibao.types import RandomId, Refusal

REFUSED_EVENT = ModelRefused(reason=Refusal.ALTERED)


def stored(**changes: Value) -> bytes:
    whole: dict[str, Value] = {"v": 1, "time_ms": 5, "kind": "model-refused", "fields": {"reason": "altered"}}
    return canonical.encode({**whole, **changes})


@given(time_ms=st.integers(0, entries.MAX_TIME_MS), pick=st.integers(0, 4), seed=st.integers(0, 1000))
def test_every_entry_is_read_back_as_it_was(time_ms: int, pick: int, seed: int) -> None:
    entry = Entry(time_ms=time_ms, event=events(5, seed=seed)[pick])
    assert entries.decode(entries.encode(entry)) == entry


@given(data=st.binary(max_size=80))
def test_bytes_that_are_no_entry_are_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        entries.decode(data)


def test_the_encoding_is_the_frozen_one() -> None:
    entry = Entry(
        time_ms=1_795_000_000_000, event=PrivacySpent(session=RandomId(bytes(16)), releases=3, epsilon=1.5, delta=0)
    )
    assert entries.encode(entry).hex() == (
        "a4617601646b696e646d707269766163792d7370656e74666669656c6473a46564656c7461f9000067657073696c6f6ef93e00"
        "6773657373696f6e50000000000000000000000000000000006872656c6561736573036774696d655f6d731b000001a1ee565e00"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"v": 2}, "expected version 1"),
        ({"v": True}, "expected version 1"),
        ({"time_ms": -1}, "expected a time in milliseconds"),
        ({"time_ms": 1.0}, "expected a time in milliseconds"),
        ({"time_ms": entries.MAX_TIME_MS + 1}, "expected a time in milliseconds"),
        ({"kind": "model-stolen"}, "unknown kind"),
        ({"fields": {"reason": "because"}}, "not a Refusal"),
        ({"fields": {"reason": "altered", "patient": "Jane Doe"}}, "expected the fields reason"),
        ({"fields": {}}, "expected the fields reason"),
        ({"note": "free text"}, "expected exactly the keys"),
    ],
)
def test_a_stored_entry_with_one_fault_is_refused(changes: dict[str, Value], message: str) -> None:
    entries.decode(stored())
    with pytest.raises(IntegrityError, match=message):
        entries.decode(stored(**changes))


def test_an_entry_in_another_encoding_of_the_same_value_is_refused() -> None:
    data = entries.encode(Entry(time_ms=5, event=REFUSED_EVENT))
    assert data.endswith(b"\x05")
    with pytest.raises(IntegrityError, match="not in canonical form"):
        entries.decode(data[:-1] + b"\x18\x05")


@pytest.mark.parametrize("time_ms", [-1, entries.MAX_TIME_MS + 1])
def test_a_time_outside_its_range_is_refused(time_ms: int) -> None:
    with pytest.raises(InputError, match="expected a time of 0 to"):
        entries.encode(Entry(time_ms=time_ms, event=REFUSED_EVENT))


def test_a_field_that_holds_text_is_refused() -> None:
    smuggled = ModelRefused.__new__(ModelRefused)
    object.__setattr__(smuggled, "reason", "Jane Doe, born 1970")
    with pytest.raises(InputError, match="expected Refusal, got str"):
        entries.encode(Entry(time_ms=5, event=smuggled))


def test_json_shows_ids_in_hexadecimal_and_the_time_in_utc() -> None:
    entry = Entry(
        time_ms=START_MS + 7, event=PrivacySpent(session=RandomId(b"\xab" * 16), releases=3, epsilon=0.5, delta=0.0)
    )
    shown = entries.to_json(entry, index=4)
    assert json.loads(json.dumps(shown)) == {
        "index": 4,
        "time": "2026-11-18T11:06:40.007Z",
        "time_ms": START_MS + 7,
        "kind": "privacy-spent",
        "fields": {"session": "ab" * 16, "releases": 3, "epsilon": 0.5, "delta": 0.0},
    }
    assert entries.time_text(entries.MAX_TIME_MS) == f"{entries.MAX_TIME_MS} ms"
