from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mibao.crypto import shamir
from mibao.errors import InputError, IntegrityError


def shares_of(secret: bytes, threshold: int, count: int, seed: int = 1) -> list[shamir.Share]:
    randomness = bytes((seed * 31 + i * 7) % 256 for i in range(shamir.randomness_bytes(threshold)))
    return shamir.split(secret, threshold=threshold, indices=range(1, count + 1), randomness=randomness)


@given(secret=st.binary(min_size=32, max_size=32), data=st.data())
def test_any_threshold_of_shares_gives_the_secret(secret: bytes, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 8))
    threshold = data.draw(st.integers(1, count))
    randomness = data.draw(st.binary(min_size=(n := shamir.randomness_bytes(threshold)), max_size=n))
    shares = shamir.split(secret, threshold=threshold, indices=range(1, count + 1), randomness=randomness)
    chosen = data.draw(st.permutations(shares))[: data.draw(st.integers(threshold, count))]
    assert shamir.combine(chosen, threshold=threshold) == secret


def test_shares_below_the_threshold_fit_every_secret_equally_well() -> None:
    # For two shares of a 3-of-5 sharing there is, for each candidate secret, a third point that yields it.
    two = shares_of(bytes(range(32)), 3, 5)[:2]
    for candidate in (bytes(32), b"\xff" * 32, bytes(range(32))):
        points = {0: int.from_bytes(candidate, "big")} | {s.index: int.from_bytes(s.value, "big") for s in two}
        at_three = 0
        for i, y in points.items():
            over = under = 1
            for j in points:
                if j != i:
                    over, under = over * (3 - j), under * (i - j)
            at_three += y * over * pow(under, -1, shamir.PRIME)
        third = shamir.Share(index=3, value=(at_three % shamir.PRIME).to_bytes(33, "big"))
        assert shamir.combine([*two, third], threshold=3) == candidate


def test_every_pair_of_a_known_sharing_agrees() -> None:
    # f(x) = 5 + 7x, written out by hand.
    shares = [shamir.Share(index=i, value=(5 + 7 * i).to_bytes(33, "big")) for i in (1, 2, 9, 65535)]
    for pair in combinations(shares, 2):
        assert shamir.combine(pair, threshold=2) == (5).to_bytes(32, "big")


def test_a_wrong_surplus_share_is_found() -> None:
    shares = shares_of(bytes(32), 2, 4)
    altered = shamir.Share(index=4, value=(int.from_bytes(shares[3].value, "big") ^ 1).to_bytes(33, "big"))
    with pytest.raises(IntegrityError, match="one polynomial"):
        shamir.combine([*shares[:3], altered], threshold=2)


def test_a_result_that_is_no_32_byte_secret_is_found() -> None:
    wide = [shamir.Share(index=1, value=(1 << 256).to_bytes(33, "big"))]
    with pytest.raises(IntegrityError, match="32-byte secret"):
        shamir.combine(wide, threshold=1)


def test_a_share_is_not_printed() -> None:
    share = shares_of(b"\x42" * 32, 1, 1)[0]
    assert repr(share) == "Share(index=1)"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"secret": bytes(31)}, "secret of 32 bytes, got 31"),
        ({"threshold": 0}, "threshold of 1 to 3, got 0"),
        ({"threshold": 4}, "threshold of 1 to 3, got 4"),
        ({"indices": [1, 1, 2]}, "every index once"),
        ({"indices": [0, 1, 2]}, "1 to 65535, got 0"),
        ({"randomness": b"short"}, "48 random bytes, got 5"),
    ],
)
def test_bad_sharings_are_refused(change: dict[str, object], reason: str) -> None:
    sound = {"secret": bytes(32), "threshold": 2, "indices": [1, 2, 3], "randomness": bytes(48)}
    arguments = sound | change
    with pytest.raises(InputError, match=reason):
        shamir.split(arguments.pop("secret"), **arguments)


@pytest.mark.parametrize(
    ("pick", "reason"),
    [
        (lambda s: s[:1], "at least 2 shares, got 1"),
        (lambda s: [s[0], s[0]], "every index once"),
        (lambda s: [s[0], shamir.Share(index=2, value=shamir.PRIME.to_bytes(33, "big"))], "share 2 is not a number"),
        (lambda s: [s[0], shamir.Share(index=2, value=bytes(32))], "share 2 is not a number"),
    ],
)
def test_bad_combinations_are_refused(pick, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        shamir.combine(pick(shares_of(bytes(32), 2, 3)), threshold=2)
