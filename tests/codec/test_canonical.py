import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mibao.codec import canonical
from mibao.errors import InputError, IntegrityError

LEAVES = (
    st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8) | st.binary(max_size=8)
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@given(value=VALUES)
def test_a_value_comes_back_and_has_one_encoding(value: canonical.Value) -> None:
    data = canonical.encode(value)
    assert canonical.encode(canonical.decode(data, max_bytes=len(data))) == data


@given(keys=st.dictionaries(st.text(max_size=6), st.integers(0, 9), max_size=6), data=st.data())
def test_the_order_in_which_a_map_was_built_does_not_show(keys: dict[str, int], data: st.DataObject) -> None:
    shuffled = dict(data.draw(st.permutations(list(keys.items()))))
    assert canonical.encode(dict(keys)) == canonical.encode(shuffled)


def test_rfc_8949_examples() -> None:
    # Appendix A; the map's keys in length-first order (section 4.2.3).
    assert canonical.encode(1000000).hex() == "1a000f4240"
    assert canonical.encode(1.5).hex() == "f93e00"
    assert canonical.encode([1, [2, 3], [4, 5]]).hex() == "8201820203820405".replace("8201", "8301")
    assert canonical.encode({"b": 1, "aa": 2, "a": 3}).hex() == "a36161036162016261610" + "2"


MUST_FAIL = {
    "a longer form of a number": "1801",
    "an indefinite length": "9f01ff",
    "keys out of order": "a2616201616102",
    "a key twice": "a2616101616102",
    "a longer float than needed": "fb3ff8000000000000",
    "not a number": "f97e00",
    "infinity": "f97c00",
    "null": "f6",
    "a tag": "c11a514b67b0",
    "a big number as a tag": "c249010000000000000000",
    "bytes left over": "0101",
    "cut short": "4203",
    "a number as a key": "a10102",
    "text that is not UTF-8": "61ff",
    "nothing": "",
}


@pytest.mark.parametrize("fault", MUST_FAIL)
def test_what_is_not_canonical_is_refused(fault: str) -> None:
    with pytest.raises(IntegrityError, match="canonical record: not"):
        canonical.decode(bytes.fromhex(MUST_FAIL[fault]), max_bytes=64)


def test_length_and_depth_are_bounded() -> None:
    with pytest.raises(IntegrityError, match="at most 2 bytes, got 3"):
        canonical.decode(b"\x82\x01\x02", max_bytes=2)
    for depth in (canonical.MAX_DEPTH + 2, 10_000):
        with pytest.raises(IntegrityError):
            canonical.decode(b"\x81" * depth + b"\x01", max_bytes=1 << 20)
    nested: canonical.Value = 1
    for _ in range(canonical.MAX_DEPTH + 1):
        nested = [nested]
    with pytest.raises(InputError, match="at most 8 levels"):
        canonical.encode(nested)


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 2**64, -(2**64) - 1, None, (1,), {1: 2}, {1.5}, object()]
)
def test_what_has_no_canonical_form_is_not_encoded(value: object) -> None:
    with pytest.raises(InputError, match="canonical record"):
        canonical.encode(value)


@given(data=st.binary(max_size=40))
def test_arbitrary_bytes_either_are_canonical_or_are_refused(data: bytes) -> None:
    try:
        value = canonical.decode(data, max_bytes=40)
    except IntegrityError:
        return
    assert cbor2.dumps(value, canonical=True) == data
