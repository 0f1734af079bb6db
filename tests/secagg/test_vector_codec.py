import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counts import counts
from mibao.errors import InputError
from mibao.secagg import vector_codec
from mibao.secagg.vector_codec import VectorCodec
from secagg.rounds import Stream

SEED = bytes(range(32))
CODECS = {
    "plain": VectorCodec(50, 2.0),
    "eight bits": VectorCodec(50, 2.0, value_bits=8),
    "rotated": VectorCodec(50, 2.0, seed=SEED, rotated=True),
    "weighted": VectorCodec(50, 2.0, max_weight=1000),
    "rotated and weighted": VectorCodec(50, 2.0, max_weight=7, seed=SEED, rotated=True, value_bits=12),
}


def summed(codec: VectorCodec, vectors: np.ndarray, weights: list[int] | None = None) -> np.ndarray:
    weights = weights or [1] * len(vectors)
    encoded = [
        codec.encode(v, randomness=Stream(n), weight=w) for n, (v, w) in enumerate(zip(vectors, weights, strict=True))
    ]
    for one in encoded:
        assert one.min() >= -(1 << (codec.input_bits - 1))
        assert one.max() < 1 << (codec.input_bits - 1)
    return codec.decode(np.sum(encoded, axis=0))


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=counts(short=20, long=500), deadline=None)
@given(clients=st.integers(1, 8), seed=st.integers(0, 1 << 30), scale=st.sampled_from([0.0, 0.01, 0.25, 30.0]))
def test_a_decoded_sum_is_within_its_bound_of_the_clipped_vectors(
    name: str, clients: int, seed: int, scale: float
) -> None:
    codec = CODECS[name]
    vectors = np.random.default_rng(seed).normal(size=(clients, 50)) * scale
    weights = [1 + (seed >> n) % codec.max_weight for n in range(clients)]
    norms = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-300)
    clipped = vectors * np.minimum(1.0, codec.clip / norms)
    expected = (np.array(weights)[:, np.newaxis] * clipped).sum(axis=0) / (sum(weights) if codec.weighted else 1)
    error = summed(codec, vectors, weights) - expected
    most = codec.step * (1 if codec.weighted else clients)
    if codec.rotated:  # the bound holds before the inverse rotation
        assert np.linalg.norm(error) <= most * math.sqrt(codec.width)
    else:
        assert np.abs(error).max() <= most * (1 + 1e-9)


def test_rounding_is_right_in_the_mean_and_has_the_variance_of_its_bound() -> None:
    draws = counts(short=20_000, long=2_000_000)
    codec = VectorCodec(draws, 0.3 * math.sqrt(draws) + 1e-9, value_bits=12)
    rounded = codec.encode(np.full(draws, 0.3), randomness=Stream(0)) * codec.step
    share = 0.3 / codec.step % 1
    assert abs(rounded.mean() - 0.3) < 5 * codec.step / math.sqrt(draws)
    assert rounded.var() == pytest.approx(share * (1 - share) * codec.step**2, rel=0.05)
    assert rounded.var() <= codec.step**2 / 4


@given(seed=st.integers(0, 1 << 30))
@settings(max_examples=counts(short=30, long=500), deadline=None)
def test_one_clients_integers_have_no_larger_norm_than_the_sensitivity(seed: int) -> None:
    choice = np.random.default_rng(seed)
    codec = VectorCodec(
        int(choice.integers(1, 200)), 1.0, value_bits=int(choice.integers(2, 12)), seed=SEED, rotated=bool(seed % 2)
    )
    encoded = codec.encode(choice.normal(size=codec.length) * 10, randomness=Stream(seed))
    assert int(np.sum(encoded**2)) <= codec.squared_sensitivity


def test_a_rotation_makes_a_peaked_vector_finer() -> None:
    flat = VectorCodec(4096, 1.0, value_bits=8, seed=SEED, rotated=True)
    plain = VectorCodec(4096, 1.0, value_bits=8)
    assert flat.step < plain.step / 4
    peak = np.zeros(4096)
    peak[7] = 1.0
    assert np.linalg.norm(summed(flat, peak[np.newaxis]) - peak) < 0.3


def test_kept_coordinates_give_the_sum_in_the_mean() -> None:
    vector = np.random.default_rng(0).normal(size=64) / 8
    estimates = []
    for n in range(counts(short=400, long=20_000)):
        codec = VectorCodec(64, 2.0, seed=n.to_bytes(32, "big"), rotated=True, kept=16)
        assert codec.upload_length == 16
        estimates.append(summed(codec, vector[np.newaxis]))
    error = np.array(estimates) - vector
    assert np.mean(np.sum(error**2, axis=1)) <= 1.1 * (64 / 16 - 1) * float(vector @ vector)
    assert np.linalg.norm(error.mean(axis=0)) < 4 * np.linalg.norm(vector) * math.sqrt(3 / len(estimates))


def test_every_client_keeps_the_same_coordinates_and_another_seed_others() -> None:
    one, same, other = (VectorCodec(99, 1.0, seed=seed, kept=9) for seed in (SEED, SEED, bytes(32)))
    assert np.array_equal(one._places, same._places)
    assert not np.array_equal(one._places, other._places)


@given(values=st.lists(st.integers(-(1 << 20), (1 << 20) - 1), min_size=1, max_size=9), bits=st.integers(21, 63))
def test_integers_go_through_the_ring_and_back(values: list[int], bits: int) -> None:
    ring = vector_codec.to_ring(np.array(values), modulus_bits=bits)
    assert ring.max() < 1 << bits
    assert vector_codec.from_ring(ring, modulus_bits=bits).tolist() == values


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"length": 0}, "expected a length and a positive clip"),
        ({"clip": math.inf}, "expected a length and a positive clip"),
        ({"value_bits": 1}, "expected 2 to 32 bits"),
        ({"max_weight": 0}, "a weight of 1 to 1048576"),
        ({"rotated": True}, "a public seed of 32 bytes, got 0"),
        ({"kept": 5}, "a public seed of 32 bytes, got 0"),
        ({"kept": 51, "seed": SEED}, "1 to 50 coordinates to keep, got 51"),
    ],
)
def test_codecs_that_cannot_be_are_refused(change: dict[str, Any], error: str) -> None:
    with pytest.raises(InputError, match=error):
        VectorCodec(**{"length": 50, "clip": 1.0, **change})


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(InputError, match="expected 50 finite values"):
        CODECS["plain"].encode(np.full(50, bad), randomness=Stream(0))


def test_weights_lengths_and_generators_that_do_not_fit_are_refused() -> None:
    codec = CODECS["weighted"]
    with pytest.raises(InputError, match="a weight of 1 to 1000, got 1001"):
        codec.encode(np.zeros(50), randomness=Stream(0), weight=1001)
    with pytest.raises(InputError, match="a sum of 51 elements"):
        codec.decode(np.zeros(50, dtype=np.int64))
    with pytest.raises(InputError, match="a positive sum of weights, got 0"):
        codec.decode(np.zeros(51, dtype=np.int64))
    with pytest.raises(InputError, match="expected 400 random bytes, got 0"):
        codec.encode(np.zeros(50), randomness=lambda _: b"")
