import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counts import counts
from mibao.errors import InputError
from mibao.secagg import ring
from mibao.secagg.rlwe_parameters import RING_DEGREE, ParameterSet

SETS = list(ParameterSet)


def integer_product(row: np.ndarray, secret: np.ndarray) -> list[int]:
    """The negacyclic product over the integers, by one multiplication of long numbers (Kronecker's substitution)."""
    width, half = 12, 1 << 95
    offset = sum(half << 8 * width * i for i in range(2 * RING_DEGREE))
    left, right = (
        int.from_bytes(b"".join(int(v + half).to_bytes(width, "little") for v in one.tolist()), "little")
        - offset % (1 << 8 * width * RING_DEGREE)
        for one in (row, secret)
    )
    content = (left * right + offset).to_bytes(2 * width * RING_DEGREE + 1, "little")
    out = [int.from_bytes(content[i * width : i * width + width], "little") - half for i in range(2 * RING_DEGREE)]
    return [out[i] - out[i + RING_DEGREE] for i in range(RING_DEGREE)]


def assert_exact(secret: np.ndarray, parameters: ParameterSet, *, length: int, negative: bool) -> None:
    total = np.zeros(length, dtype=ring.ring_type(parameters))
    ring.add_product(total, matrix_seed=b"m" * 32, secrets=secret[np.newaxis], parameters=parameters, negative=negative)
    rows = ring.matrix_rows(b"m" * 32, 0, -(-length // RING_DEGREE), parameters)
    sign, q = (-1 if negative else 1), 1 << parameters.modulus_bits
    expected = [sign * value % q for row in rows for value in integer_product(row, secret)][:length]
    assert [int(value) % q for value in total] == expected


@pytest.mark.parametrize("parameters", SETS)
@settings(max_examples=counts(short=8, long=200), deadline=None)
@given(seed=st.binary(min_size=32, max_size=32), scale=st.sampled_from([1, 7, 100, 4000]), negative=st.booleans())
def test_a_product_is_the_integers_product(parameters: ParameterSet, seed: bytes, scale: int, negative: bool) -> None:
    secret = scale * ring.small_elements(seed, RING_DEGREE, parameters)
    assert_exact(secret, parameters, length=2048 + 77, negative=negative)


@pytest.mark.parametrize("parameters", SETS)
@pytest.mark.parametrize("largest", [1, 5, 32, 20_000])
def test_a_product_with_an_extreme_secret_is_exact(parameters: ParameterSet, largest: int) -> None:
    assert_exact(np.full(RING_DEGREE, largest), parameters, length=2048, negative=False)


@pytest.mark.parametrize("limb_bits", [32, 16])
def test_extreme_rows_stay_far_within_the_proven_error(limb_bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = np.full(RING_DEGREE, 5 if limb_bits == 32 else 100_000)
    assert ring.product_error(secret, limb_bits=limb_bits) <= 0.4
    low = np.full((1, RING_DEGREE), -(1 << 31), dtype="<i4")
    matrix = ring._Matrix(low, np.empty((0, RING_DEGREE), dtype="<i2"))
    monkeypatch.setattr(ring, "_expand", lambda *_: matrix)
    total = np.zeros(RING_DEGREE, dtype=np.uint64)
    ring.add_product(total, matrix_seed=b"", secrets=secret[np.newaxis], parameters=ParameterSet.RLWE_2048_32)
    assert [int(value) % 2**32 for value in total] == [v % 2**32 for v in integer_product(low[0], secret)]


def test_a_secret_too_long_for_any_limb_is_refused() -> None:
    with pytest.raises(InputError, match="short enough for an exact product"):
        ring.add_product(
            np.zeros(8, dtype=np.uint32),
            matrix_seed=b"m" * 32,
            secrets=np.full((1, RING_DEGREE), 1 << 40),
            parameters=ParameterSet.RLWE_2048_32,
        )


@pytest.mark.parametrize("parameters", SETS)
def test_small_numbers_have_the_mean_and_the_variance_of_the_set(parameters: ParameterSet) -> None:
    count = counts(short=1 << 18, long=1 << 22)
    drawn = ring.small_elements(b"s" * 32, count, parameters)
    assert abs(drawn.mean()) < 5 * (parameters.variance / count) ** 0.5
    assert abs(drawn.var() / parameters.variance - 1) < 5 * (2 / count) ** 0.5
    total = np.zeros(1000, dtype=ring.ring_type(parameters))
    variance = ring.add_error(total, b"s" * 32, parameters)
    assert np.array_equal(total.astype(np.int64), drawn[:1000].astype(total.dtype).astype(np.int64))
    assert variance == pytest.approx(float(np.mean(drawn[:1000] ** 2.0)))


def test_the_second_megaword_of_a_vector_has_its_own_secret() -> None:
    parameters, length = ParameterSet.RLWE_2048_32, (1 << 20) + 5
    assert (ring.secrets_needed(1 << 20), ring.secrets_needed(length)) == (1, 2)
    secrets = np.zeros((2, RING_DEGREE), dtype=np.int64)
    secrets[1, 0] = 1
    total = np.zeros(length, dtype=np.uint32)
    ring.add_product(total, matrix_seed=b"m" * 32, secrets=secrets, parameters=parameters)
    assert not total[: 1 << 20].any()
    row = ring.matrix_rows(b"m" * 32, 1, 1, parameters)[0, :5].astype(np.uint32)
    assert np.array_equal(total[1 << 20 :], row)
