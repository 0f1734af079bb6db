"""Answers of compiled circuits that may be shared: room at compile time, noise as promised, one door."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kstest

from he_cases import DATA, ROLES, WEIGHTS, linear_circuit, network_of, records_of, request, weights_of
from mibao import he
from mibao.errors import BudgetExhausted, InputError, IntegrityError, KeyMismatch
from mibao.he.network import Dense, Square
from mibao.he.reference import evaluate
from mibao.he.release_state import ReleaseFile
from mibao.he.spec import CircuitSpec
from mibao.types import RandomId

ASKED = he.Release(answers_limit=4, statistical_bits=40)
LIMITS = {"answers_limit": 4, "statistical_bits": 40}
WEIGHTS_OF, BIAS = weights_of()
NEVER = ReleaseFile(Path("absent"), key_id=RandomId(bytes(16)))


@pytest.fixture(scope="module", params=[DATA, WEIGHTS], ids=lambda mode: mode.value)
def compiled(request):
    circuit = linear_circuit(WEIGHTS_OF, BIAS, mode=request.param, rows=1, release=ASKED, max_error=0.02)
    return circuit, *circuit.keygen()


def counted(client, folder):
    count = ReleaseFile(folder / "client.released", key_id=client.key_id)
    count.create(client.release_policy(**LIMITS))
    return count


def test_a_released_answer_is_off_by_its_noise_and_within_the_error_that_was_asked_for(compiled, tmp_path):
    circuit, client, server = compiled
    count = counted(client, tmp_path)
    errors = []
    policy = client.release_policy(**LIMITS)
    std = policy.slot_error_std(circuit.spec.parameters.ring_degree)
    rows = min(circuit.spec.batch_rows, 200)
    records = records_of(rows=rows)
    answer = server.evaluate(request(circuit.spec, client, records))
    released = client.decrypt_for_release(answer, count=count, **LIMITS)
    errors = (released - (records @ WEIGHTS_OF + BIAS)).ravel()
    assert np.max(np.abs(errors)) < circuit.spec.predicted_error <= 0.02
    assert np.max(np.abs(client.decrypt(answer) - (records @ WEIGHTS_OF + BIAS))) < std
    if errors.size > 100:
        assert kstest(errors / std, "norm").pvalue > 1e-4
    assert count.released() == circuit.spec.answer.count


def test_the_noise_is_that_of_the_theorem_over_the_proven_bound(compiled):
    circuit, client, _ = compiled
    policy = client.release_policy(**LIMITS)
    assert policy.known.noise == circuit.spec.release.noise
    assert policy.noise_std >= np.sqrt(12 * 4) * 2**20 * circuit.spec.release.noise * (1 - 1e-12)
    assert circuit.spec.answer_level == len(circuit.spec.parameters.data_primes) - 2


def test_a_repeated_answer_gets_the_same_noise_and_the_key_is_retired_at_its_limit(compiled, tmp_path):
    circuit, client, server = compiled
    count = counted(client, tmp_path)
    each = circuit.spec.answer.count
    answers = [
        server.evaluate(request(circuit.spec, client, records_of(rows=1, seed=seed))) for seed in range(4 // each + 1)
    ]
    first = client.decrypt_for_release(answers[0], count=count, **LIMITS)
    assert np.array_equal(client.decrypt_for_release(answers[0], count=count, **LIMITS), first)
    for answer in answers[1:-1]:
        client.decrypt_for_release(answer, count=count, **LIMITS)
    with pytest.raises(BudgetExhausted, match=r"release: .* of 4 answers are out"):
        client.decrypt_for_release(answers[-1], count=count, **LIMITS)


def test_a_circuit_survives_its_bytes_with_its_terms(compiled):
    circuit, client, _ = compiled
    again = he.Circuit.from_bytes(circuit.to_bytes()).spec
    assert again.release == circuit.spec.release and again.to_value() == circuit.spec.to_value()
    assert he.Client.from_secret_bytes(client.reveal_secret_bytes()).release_policy(**LIMITS) == client.release_policy(
        **LIMITS
    )
    assert any("up to 4 ciphertexts of a key may be released" in line for line in circuit.explain())


def test_a_circuit_with_a_square_is_released_within_its_error(tmp_path):
    rng = np.random.default_rng(0)
    network = network_of(
        Dense(weights=rng.normal(size=(3, 4)) / 4, bias=rng.normal(size=3)),
        Square(),
        Dense(weights=rng.normal(size=(2, 3)), bias=rng.normal(size=2)),
        features=4,
        bound=1.0,
    )
    circuit = he.compile_circuit(network, mode=DATA, roles=ROLES[DATA], rows=1, release=ASKED, max_error=0.05)
    client, server = circuit.keygen()
    records = records_of(rows=1, bound=1.0)
    released = client.decrypt_for_release(
        server.evaluate(client.encrypt(records)), count=counted(client, tmp_path), **LIMITS
    )
    assert np.max(np.abs(released - evaluate(network, records))) < circuit.spec.predicted_error <= 0.05


@pytest.fixture(scope="module")
def four_squares():
    rng = np.random.default_rng(0)
    first = Dense(weights=rng.normal(size=(2, 4)) / 4, bias=np.ones(2) / 4)
    others = [Dense(weights=rng.normal(size=(2, 2)) / 4, bias=np.ones(2) / 4) for _ in range(4)]
    network = network_of(first, *(layer for dense in others for layer in (Square(), dense)))
    return network, he.compile_circuit(network, mode=DATA, roles=ROLES[DATA], release=ASKED, max_error=0.02)


def test_four_squares_are_compiled_for_the_largest_ring_where_few_primes_are_small(four_squares):
    spec = four_squares[1].spec
    assert spec.predicted_error <= 0.02 and spec.parameters.ring_degree == 32768
    assert min(spec.parameters.modulus_bits) == 22  # a level takes two primes, and there is one of 20 bits


@pytest.mark.long
def test_four_squares_are_released_within_their_error(four_squares, tmp_path):
    network, circuit = four_squares
    client, server = circuit.keygen()
    answer = server.evaluate(client.encrypt(records_of()))
    released = client.decrypt_for_release(answer, count=counted(client, tmp_path), **LIMITS)
    assert np.max(np.abs(released - evaluate(network, records_of()))) < circuit.spec.predicted_error


# One door, and it is shut unless the circuit was made for it.


def test_a_circuit_compiled_without_a_release_says_what_to_compile_with():
    client, _ = linear_circuit(WEIGHTS_OF, BIAS).keygen()
    with pytest.raises(
        InputError,
        match=r"this circuit leaves no room for noise; compile it with release=he\.Release\(answers_limit=4, statis",
    ):
        client.decrypt_for_release(b"", count=NEVER, **LIMITS)


@pytest.mark.parametrize(("limit", "bits"), [(5, 40), (4, 41), (100, 64)])
def test_more_than_was_compiled_for_is_refused(compiled, limit, bits):
    _, client, _ = compiled
    with pytest.raises(InputError, match=f"compile it with he.Release.answers_limit={limit}, statistical_bits={bits}"):
        client.decrypt_for_release(b"", count=NEVER, answers_limit=limit, statistical_bits=bits)


def test_fewer_than_forty_bits_are_refused(compiled):
    with pytest.raises(InputError, match="release: expected 40 to 128 statistical bits, got 39"):
        compiled[1].decrypt_for_release(b"", count=NEVER, answers_limit=1, statistical_bits=39)
    with pytest.raises(InputError, match="release: expected a limit of 1 to 16777216 answers, got 0"):
        he.Release(answers_limit=0)


def test_answers_of_another_key_and_altered_ones_are_refused_and_not_counted(compiled, tmp_path):
    circuit, client, server = compiled
    count = counted(client, tmp_path)
    answer = server.evaluate(request(circuit.spec, client, records_of(rows=1)))
    altered = answer[:-1] + bytes([answer[-1] ^ 1])
    with pytest.raises(IntegrityError):
        client.decrypt_for_release(altered, count=count, **LIMITS)
    stranger, _ = circuit.keygen()
    with pytest.raises(KeyMismatch, match="answer: made under another key"):
        stranger.decrypt_for_release(answer, count=count, **LIMITS)
    assert count.released() == 0


def test_an_error_smaller_than_the_noise_can_be_is_refused():
    with pytest.raises(InputError, match=r"levels: no parameters keep the error under 1\.0e-09"):
        linear_circuit(WEIGHTS_OF, BIAS, rows=1, release=he.Release(answers_limit=1 << 20), max_error=1e-9)


@pytest.mark.parametrize(
    "change", [{"noise": 0.0}, {"noise": float("inf")}, {"statistical_bits": 39}, {"answers_limit": "4"}, {"more": 1}]
)
def test_terms_that_promise_nothing_are_refused_when_read(compiled, change):
    value = compiled[0].spec.to_value()
    with pytest.raises(IntegrityError, match="release"):
        CircuitSpec.from_value({**value, "release": {**value["release"], **change}})


def test_terms_need_answers_on_two_primes(compiled):
    plain = linear_circuit(WEIGHTS_OF, BIAS).spec
    if len(plain.parameters.data_primes) == 1:
        with pytest.raises(InputError, match="circuit: a release takes answers on two primes"):
            replace(plain, release=compiled[0].spec.release)
