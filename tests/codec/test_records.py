from dataclasses import dataclass, replace
from enum import Enum
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mibao import events
from mibao.codec import canonical, records
from mibao.errors import InputError, IntegrityError
from mibao.events import Event, ModelSealed, event_kinds, field_types
from mibao.types import KeyedHash, RandomId


def _values_of(kind: type) -> st.SearchStrategy[object]:
    if issubclass(kind, Enum):
        return st.sampled_from(kind)
    if kind in (RandomId, KeyedHash):
        return st.binary(min_size=kind.size, max_size=kind.size).map(kind)
    return {
        int: st.integers(0, 2**63),
        float: st.floats(allow_nan=False, allow_infinity=False),
        bool: st.booleans(),
    }[kind]


def any_event() -> st.SearchStrategy[Event]:
    return st.one_of(
        [
            st.builds(event, **{name: _values_of(kind) for name, kind in field_types(event).items()})
            for event in event_kinds().values()
        ]
    )


@given(event=any_event())
def test_every_event_comes_back_from_its_bytes(event: Event) -> None:
    assert records.decode(records.encode(event)) == event


@given(event=any_event(), at=st.integers(0), to=st.integers(0, 255))
def test_one_changed_byte_gives_another_event_or_a_refusal(event: Event, at: int, to: int) -> None:
    data = bytearray(records.encode(event))
    if data[at % len(data)] == to:
        return
    data[at % len(data)] = to
    try:
        assert records.encode(records.decode(bytes(data))) == bytes(data)
    except IntegrityError:
        return


SEALED = ModelSealed(
    file=RandomId(bytes(16)),
    signer=RandomId(b"s" * 16),
    version=1,
    recipients=2,
    plaintext_bytes=3,
    sealed_bytes=4,
)


def test_no_event_has_a_field_that_could_hold_text_or_a_plain_hash() -> None:
    for event in event_kinds().values():
        for kind in field_types(event).values():
            assert kind in (int, float, bool, RandomId, KeyedHash) or issubclass(kind, Enum)


@pytest.mark.parametrize("kind", [str, bytes, "list[int]", object])
def test_an_event_with_room_for_text_is_refused_when_it_is_defined(kind: object) -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Leaky:
        kind: ClassVar[str] = "leaky"
        note: int

    Leaky.__annotations__["note"] = kind
    with pytest.raises(TypeError, match="an entry holds no free text"):
        events._checked_field_types(Leaky)


def test_every_kind_is_named_once() -> None:
    defined = [thing for thing in vars(events).values() if isinstance(thing, type) and issubclass(thing, Event)]
    assert len({event.kind for event in defined if event is not Event}) == len(defined) - 1 == len(event_kinds())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": "1"}, "version: expected int, got str"),
        ({"version": True}, "version: expected int, got bool"),
        ({"file": b"0" * 16}, "file: expected RandomId, got bytes"),
        ({"version": 2**70}, "at most 64 bits"),
    ],
)
def test_a_field_of_another_type_is_not_recorded(change: dict[str, object], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        records.encode(replace(SEALED, **change))


def altered(**change: canonical.Value) -> bytes:
    value = records.to_value(SEALED)
    fields = dict(value["fields"])
    fields.update(change.pop("fields", {}))
    return canonical.encode({**value, "fields": fields, **change})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (altered(kind="model-eaten"), "unknown kind"),
        (altered(kind=3), "unknown kind"),
        (altered(more=1), "exactly the keys"),
        (altered(fields={"note": "Lin Xiaoyu"}), "expected the fields"),
        (altered(fields={"version": "1"}), "version: expected int, got str"),
        (altered(fields={"version": True}), "version: expected int, got bool"),
        (altered(fields={"file": bytes(15)}), "file: not a RandomId"),
        (canonical.encode([1]), "exactly the keys"),
        (records.encode(SEALED) + b"\0", "not well formed|not in canonical form"),
    ],
)
def test_what_is_not_exactly_an_event_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(IntegrityError, match=reason):
        records.decode(data)


@pytest.mark.parametrize(("kind", "value"), [(RandomId, bytes(15)), (KeyedHash, bytes(31)), (RandomId, "0" * 16)])
def test_ids_have_their_size(kind: type, value: object) -> None:
    with pytest.raises(ValueError, match=f"{kind.__name__} takes"):
        kind(value)
