import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counts import counts
from mibao.errors import InputError, IntegrityError
from mibao.secagg import packed_sharing
from mibao.secagg.packed_sharing import PRIME, Packing, deal, field_elements, reconstruct, wrong_holders

PACKING = Packing(holders=32, corrupt=10, packed=8)
EVERYBODY = tuple(range(1, 33))
WEIGHTS = field_elements(b"w" * 32, 4)
VALUES = np.arange(-16, 16)


def dealt(values: np.ndarray = VALUES, seed: bytes = b"d" * 32) -> np.ndarray:
    return deal(values, packing=PACKING, blinds=0, seed=seed)


def rows(shares: np.ndarray, holders: tuple[int, ...]) -> np.ndarray:
    return shares[[holder - 1 for holder in holders]]


@settings(max_examples=counts(short=20, long=1000), deadline=None)
@given(
    values=st.lists(st.integers(-(1 << 24), 1 << 24), min_size=32, max_size=32),
    holders=st.sets(st.sampled_from(EVERYBODY), min_size=18).map(sorted).map(tuple),
)
def test_any_18_of_32_shares_of_a_sum_give_the_sum(values: list[int], holders: tuple[int, ...]) -> None:
    total = dealt(np.array(values))
    packed_sharing.add_modulo(total, dealt(seed=b"e" * 32))
    assert reconstruct(rows(total, holders), holders, packing=PACKING).tolist() == [
        a + b for a, b in zip(values, VALUES.tolist(), strict=True)
    ]


def test_ten_shares_fit_any_values() -> None:
    """For each choice of the secrets there is noise that gives the same ten shares: they say nothing."""
    corrupt = EVERYBODY[3:13]
    inner = packed_sharing._inner_points(PACKING)
    to_corrupt = packed_sharing._interpolation(inner, corrupt)
    noise_part = [[int(v) for v in row[PACKING.packed :]] for row in to_corrupt]
    solution = packed_sharing._solve([[*row, 1] for row in noise_part], 10)
    assert all(sum(a * b for a, b in zip(row, solution, strict=True)) % PRIME == 1 for row in noise_part)


@settings(max_examples=counts(short=20, long=1000), deadline=None)
@given(wrong=st.sets(st.sampled_from(EVERYBODY), max_size=7), column=st.integers(0, 3))
def test_up_to_seven_wrong_holders_are_found(wrong: set[int], column: int) -> None:
    shares = dealt()
    for holder in wrong:
        shares[holder - 1, column] = (shares[holder - 1, column] + np.uint64(holder)) % np.uint64(PRIME)
    assert wrong_holders(shares, EVERYBODY, packing=PACKING, weights=WEIGHTS) == wrong


@settings(max_examples=counts(short=20, long=1000), deadline=None)
@given(wrong=st.sets(st.sampled_from(EVERYBODY), min_size=8, max_size=14))
def test_eight_to_fourteen_wrong_holders_are_noticed(wrong: set[int]) -> None:
    shares = dealt()
    for holder in wrong:
        shares[holder - 1] ^= np.uint64(holder)
    with pytest.raises(IntegrityError, match="more shares are wrong than can be corrected"):
        wrong_holders(shares, EVERYBODY, packing=PACKING, weights=WEIGHTS)


def test_with_twenty_answers_one_wrong_one_is_found() -> None:
    shares = rows(dealt(), EVERYBODY[:20])
    shares[4] ^= np.uint64(1)
    assert wrong_holders(shares, EVERYBODY[:20], packing=PACKING, weights=WEIGHTS) == {5}


def test_a_wrong_share_stops_a_plain_reconstruction() -> None:
    shares = dealt()
    shares[20, 2] ^= np.uint64(1)
    with pytest.raises(IntegrityError, match="do not lie on one polynomial"):
        reconstruct(shares, EVERYBODY, packing=PACKING)


def test_seventeen_shares_are_refused() -> None:
    with pytest.raises(InputError, match="expected at least 18 shares, got 17"):
        reconstruct(dealt()[:17], EVERYBODY[:17], packing=PACKING)


def test_a_random_combination_of_columns_commutes_with_sharing() -> None:
    shares, weights = dealt(), np.stack([WEIGHTS, WEIGHTS + np.uint64(1)])
    combined = packed_sharing.combine_columns(shares, weights)
    assert packed_sharing.lie_on_polynomials(combined, EVERYBODY, packing=PACKING).all()
    shares[3, 1] ^= np.uint64(1)
    combined = packed_sharing.combine_columns(shares, weights)
    assert not packed_sharing.lie_on_polynomials(combined, EVERYBODY, packing=PACKING).any()


def test_field_elements_are_below_the_prime_and_skip_all_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    words = itertools.cycle([b"\xff\xff\xff\x7f", b"\x01\x00\x00\x80"])
    stream = b"".join(itertools.islice(words, 512))
    monkeypatch.setattr("mibao.crypto.prg.keystream", lambda _, count: stream[:count])
    assert field_elements(b"", 80).tolist() == [1] * 80


@pytest.mark.parametrize(("corrupt", "packed"), [(0, 8), (10, 6), (10, 32), (25, 8)])
def test_packings_that_cannot_be_are_refused(corrupt: int, packed: int) -> None:
    with pytest.raises(InputError, match="packed sharing: expected"):
        Packing(holders=32, corrupt=corrupt, packed=packed)


def test_values_that_do_not_fill_the_columns_are_refused() -> None:
    with pytest.raises(InputError, match="expected a multiple of 8 values, got 9"):
        deal(np.arange(9), packing=PACKING, blinds=0, seed=b"d" * 32)
