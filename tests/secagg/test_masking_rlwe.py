import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counts import counts
from mibao.crypto import kdf
from mibao.crypto.keys import RecipientSuite, generate_recipient
from mibao.errors import InputError
from mibao.secagg import masking_rlwe as steps
from mibao.secagg import ring
from mibao.secagg.masking import Trust
from mibao.secagg.masking_rlwe import Committee, MaskedSum, Member
from mibao.secagg.rlwe_parameters import RING_DEGREE, ParameterSet
from secagg.committee_rounds import FIRST_MEMBER, SMALL, CommitteeRound, committee, member_recipient, member_signer

SETS = list(ParameterSet)


def test_the_sum_is_exact_in_random_patterns_of_dropouts() -> None:
    """Clients vanish, members are silent, trust and modulus vary: the sum of whoever is left, bit for bit."""
    for case in range(counts(short=24, long=1000)):
        choice = np.random.default_rng(case)
        clients, silent = int(choice.integers(2, 7)), choice.choice(5, int(choice.integers(0, 2)), replace=False)
        made = CommitteeRound(
            clients,
            trust=Trust(choice.choice([trust.value for trust in Trust])),
            parameters=SETS[int(choice.integers(0, 2))],
            length=int(choice.integers(1, 3000)),
            seed=case,
        )
        gone = tuple(choice.choice(clients, int(choice.integers(0, clients - 1)), replace=False).tolist())
        total = made.finish(made.collect(without=gone), silent=tuple(FIRST_MEMBER + silent))
        assert np.array_equal(total, made.sum_of(tuple(set(range(clients)) - set(gone)))), case


@pytest.mark.parametrize("trust", list(Trust))
def test_with_the_default_committee_ten_members_may_be_silent(trust: Trust) -> None:
    made = CommitteeRound(3, trust=trust, committee=committee(32, corrupt=10, packing=8))
    assert (made.session.committee.sharing.dimension, made.session.committee.quorum) == (18, 22)
    silent = tuple(range(FIRST_MEMBER + 5, FIRST_MEMBER + 15))
    assert np.array_equal(made.finish(made.collect(without=(1,)), silent=silent), made.sum_of((0, 2)))


def test_signed_numbers_sum_to_signed_numbers() -> None:
    made = CommitteeRound(3, length=6)
    modulus = 1 << made.session.modulus_bits
    signed = {n: np.array([-(1 << 15), -1, 0, 1, (1 << 15) - 1, -n]) for n in range(3)}
    made.vectors = {n: (vector % modulus).astype(np.uint64) for n, vector in signed.items()}
    total = made.finish(made.collect()).astype(np.int64)
    assert np.array_equal(np.where(total >= modulus // 2, total - modulus, total), sum(signed.values()))


@pytest.mark.parametrize("parameters", SETS)
@settings(max_examples=counts(short=8, long=200), deadline=None)
@given(clients=st.integers(2, 60), seed=st.integers(0, 1 << 30))
def test_a_sum_of_masked_vectors_unmasks_with_the_sum_of_the_secrets(
    parameters: ParameterSet, clients: int, seed: int
) -> None:
    session = dataclasses.replace(CommitteeRound(60, length=50).session, parameters=parameters)
    summed, secret_sum = MaskedSum(session), np.zeros((1, RING_DEGREE), dtype=np.int64)
    vectors = np.random.default_rng(seed).integers(0, 1 << 16, (clients, 50), dtype=np.uint64)
    for number, vector in enumerate(vectors):
        seeds = kdf.derive(b"%20d" % seed, purpose="test", context=b"%d" % number, length=64)
        secrets = steps.draw_secrets(session, seeds[:32])
        masked = steps.mask(session, vector, secrets=secrets, error_seed=seeds[32:])
        summed.add(memoryview(steps.to_wire(masked, parameters)))
        secret_sum += secrets
    total = summed.total()
    expected = vectors.sum(axis=0) & np.uint64((1 << session.modulus_bits) - 1)
    assert np.array_equal(steps.unmask(session, total, secret_sum), expected)


@pytest.mark.parametrize("parameters", SETS)
def test_wire_and_back(parameters: ParameterSet) -> None:
    session = CommitteeRound(2, parameters=parameters, length=999).session
    values = np.random.default_rng(0).integers(0, 1 << parameters.modulus_bits, (3, 999), dtype=np.uint64)
    summed = MaskedSum(session)
    for row in values:
        data = steps.to_wire(row.astype(ring.ring_type(parameters)), parameters)
        assert len(data) == 999 * parameters.modulus_bits // 8
        summed.add(memoryview(data))
    modulus = np.uint64((1 << parameters.modulus_bits) - 1)
    assert np.array_equal(summed.total().astype(np.uint64) & modulus, values.sum(axis=0) & modulus)


def test_without_the_error_two_rows_give_the_secret_away_and_so_a_broken_generator_is_refused() -> None:
    """The scheme without e is linear algebra; with a generator stuck at a constant it would be that."""
    session = CommitteeRound(2, length=2 * RING_DEGREE).session
    zeros, fresh = bytes(32), kdf.derive(b"f" * 16, purpose="test")
    secrets = steps.draw_secrets(session, fresh)
    bare = np.zeros(RING_DEGREE, dtype=np.uint32)
    ring.add_product(bare, matrix_seed=b"m" * 32, secrets=secrets, parameters=session.parameters)
    # Lowest bits: a linear system over two elements, from public rows, in unknown bits of the secret.
    row = ring.matrix_rows(b"m" * 32, 0, 1, session.parameters)[0]
    system = np.array([np.concatenate([row[k::-1], -row[:k:-1]]) for k in range(RING_DEGREE)]) & 1
    assert np.array_equal(system @ (secrets[0] & 1) & 1, bare & 1)
    stuck = pytest.MonkeyPatch()
    with stuck.context() as patch:
        patch.setattr("mibao.crypto.prg.keystream", lambda _, count: bytes(count))
        with pytest.raises(InputError, match="generator that does not work"):
            steps.draw_secrets(session, zeros)
        vector = np.zeros(session.length, dtype=np.uint64)
        with pytest.raises(InputError, match="generator that does not work"):
            steps.mask(session, vector, secrets=secrets, error_seed=zeros)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"round": -1}, "round of 0 to"),
        ({"min_clients": 1}, "min_clients of 2 to 4, got 1"),
        ({"min_clients": 5}, "min_clients of 2 to 4, got 5"),
        ({"length": 0}, "length of 1 to"),
        ({"input_bits": 40}, "input_bits of 1 to 39, got 40"),
        ({"input_bits": 24}, "4 inputs of 24 bits need 26 bits"),
        ({"clip": float("nan")}, "clip of 0 or more"),
        ({"noise_multiplier": -1.0}, "noise multiplier of 0 or more"),
        ({"task_hash": b""}, "32 bytes each"),
        ({"model_hash": bytes(31)}, "32 bytes each"),
        ({"expires_s": -1}, "expiry of 0 to"),
    ],
)
def test_sessions_that_cannot_be_are_refused(change: dict[str, Any], error: str) -> None:
    with pytest.raises(InputError, match=error):
        dataclasses.replace(CommitteeRound().session, **change)


def test_one_client_key_under_two_numbers_is_refused() -> None:
    session = CommitteeRound().session
    with pytest.raises(InputError, match="one twice"):
        dataclasses.replace(session, roster={**session.roster, 9: session.roster[0]})


@pytest.mark.parametrize(
    ("size", "corrupt", "packing", "error"),
    [(3, 1, 1, "members of the committee of 4"), (32, 11, 8, "quorum is 22 of 32"), (8, 4, 2, "quorum is 7 of 8")],
)
def test_committees_that_promise_too_much_are_refused(size: int, corrupt: int, packing: int, error: str) -> None:
    with pytest.raises(InputError, match=error):
        committee(size, corrupt=corrupt, packing=packing)


def test_a_committee_without_post_quantum_keys_or_with_one_key_twice_is_refused() -> None:
    classical = generate_recipient(RecipientSuite.X25519, bytes(32)).public
    weak = Member(signer=member_signer(1000).public, recipient=classical)
    with pytest.raises(InputError, match="hybrid key"):
        Committee(members={**SMALL.members, 1000: weak}, corrupt=1, packing=2)
    twice = Member(signer=member_signer(77).public, recipient=member_recipient(1001).public)
    with pytest.raises(InputError, match="one twice"):
        Committee(members={**SMALL.members, 1000: twice}, corrupt=1, packing=2)


@pytest.mark.parametrize("value", [1 << 16, 1 << 20, -(1 << 15) - 1])
def test_a_number_of_more_bits_than_agreed_is_refused(value: int) -> None:
    made = CommitteeRound()
    vector = made.vectors[0].copy()
    vector[3] = value % (1 << made.session.modulus_bits)
    with pytest.raises(InputError, match=r"numbers of 16 bits, modulo 2\*\*"):
        made.client(0, vector=vector)


def test_the_matrix_depends_on_everything_that_clients_agree_on() -> None:
    session = CommitteeRound().session
    seeds = {steps.matrix_seed(session)}
    changes: list[dict[str, Any]] = [
        {"round": 4},
        {"min_clients": 3},
        {"clip": 1.0},
        {"noise_multiplier": 1.0},
        {"task_hash": b"t" * 32},
        {"parameters": ParameterSet.RLWE_2048_48},
        {"roster": {**session.roster, 9: member_signer(9).public}},
    ]
    for change in changes:
        seeds.add(steps.matrix_seed(dataclasses.replace(session, **change)))
    assert len(seeds) == 1 + len(changes)
