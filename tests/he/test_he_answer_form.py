"""Answers in fewer bits: what is lost is a small share of the predicted error, and nothing else changes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counts import counts
from mibao import he
from mibao.errors import IntegrityError
from mibao.he import answer_form, residue_packing
from mibao.he.engine_seal import engine_for
from mibao.he.network import Dense, Node, Square
from mibao.he.ntt import inverse_ntt
from mibao.he.parameters import Parameters

DEGREE = 8192
ENGINE = engine_for(Parameters(ring_degree=DEGREE, modulus_bits=(49, 40, 60), scale_bits=34))
PRIME = ENGINE.primes[0]


@settings(max_examples=counts(short=5, long=100), deadline=None)
@given(dropped=st.integers(1, 24), seed=st.integers(0, 2**32 - 1), edge=st.booleans())
def test_only_low_bits_of_the_first_component_are_lost(dropped, seed, edge):
    chance = np.random.default_rng(seed)
    residues = chance.integers(0, PRIME, (4, 1, DEGREE), dtype=np.uint64)
    if edge:
        residues[0] = PRIME - 1  # the coefficient that would round up to the prime
    stored = residue_packing.pack(residues, primes=[PRIME])
    short = answer_form.shortened(stored, prime=PRIME, degree=DEGREE, dropped=dropped)
    assert len(stored) - len(short) == 2 * dropped * DEGREE // 8
    back = answer_form.lengthened(short, prime=PRIME, degree=DEGREE, dropped=dropped)
    again = residue_packing.unpack(back, primes=[PRIME], components=4, degree=DEGREE)
    assert np.array_equal(again[1::2], residues[1::2])
    for before, after in zip(residues[::2, 0], again[::2, 0], strict=True):
        moved = (inverse_ntt(after, prime=PRIME) - inverse_ntt(before, prime=PRIME)) % PRIME
        assert np.minimum(moved, PRIME - moved).max() < 1 << (dropped + 1)


def test_more_room_drops_more_and_small_rings_nothing():
    def dropped(error, degree=DEGREE):
        return answer_form.dropped_bits(predicted_error=error, answer_scale=2.0**43, degree=degree, prime_bits=49)

    assert [dropped(error) for error in (0.0, 1e-12, 1e-3, float("inf"), float("nan"))] == [0, 0, 20, 0, 0]
    assert dropped(1e6) == answer_form.MAX_DROPPED_BITS
    assert dropped(1e-3, degree=4096) == 0


def test_a_numbers_beyond_the_prime_is_refused():
    short = b"\xff" * ((49 - 8 + 49) * DEGREE // 8)
    with pytest.raises(IntegrityError, match="residues: one is not under its prime"):
        answer_form.lengthened(short, prime=PRIME, degree=DEGREE, dropped=8)


def test_a_circuits_answers_are_shorter_and_as_exact_as_predicted():
    chance = np.random.default_rng(0)
    first, second = chance.normal(size=(8, 8)), chance.normal(size=(3, 8))
    network = he.Network(
        low=-np.ones(8),
        high=np.ones(8),
        nodes=(
            Node(layer=Dense(weights=first, bias=np.zeros(8)), inputs=(0,)),
            Node(layer=Square(), inputs=(1,)),
            Node(layer=Dense(weights=second, bias=np.ones(3)), inputs=(2,)),
        ),
    )
    roles = he.Roles(data_owner="asker", model_owner="host", compute_host="host")
    circuit = he.compile_circuit(network, mode=he.ComputeMode.ENCRYPTED_DATA, roles=roles)
    spec = circuit.spec
    client, server = circuit.keygen()
    records = chance.uniform(-1, 1, (3, 8))
    answer = server.evaluate(client.encrypt(records))
    assert spec.parameters.ring_degree == DEGREE
    assert spec.answer_dropped_bits > 8
    expected = (records @ first.T) ** 2 @ second.T + 1
    assert np.abs(client.decrypt_logits(answer) - expected).max() < spec.predicted_error
    saved = spec.ciphertext_bytes(level=spec.answer_level) * spec.batches(3) - spec.answer_bytes(3)
    assert saved == spec.answer_dropped_bits * DEGREE // 8 * spec.batches(3)
