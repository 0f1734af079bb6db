"""Requests, answers and keys: what binds them, what is refused, what nobody else can read."""

import copy
import pickle

import numpy as np
import pytest

from he_cases import BOTH, DATA, WEIGHTS, circuit, records_of, reframed, request, weights_of
from mibao import he
from mibao.errors import InputError, IntegrityError, KeyMismatch
from mibao.he import envelope
from mibao.he.envelope import Kind
from mibao.types import RandomId

MODES = [DATA, WEIGHTS, BOTH]


def test_the_same_row_encrypts_differently_every_time():
    client, _ = circuit().keygen()
    records = records_of()
    first, second = client.encrypt(records), client.encrypt(records)
    assert first != second
    assert _equal_words(first, second) < 8


def test_two_keys_of_one_circuit_have_different_names():
    compiled = circuit()
    assert compiled.keygen()[0].key_id != compiled.keygen()[0].key_id


def test_an_answer_follows_from_the_ciphertexts_so_one_changed_residue_changes_it_everywhere():
    compiled = circuit()
    client, server = compiled.keygen()
    records = records_of()
    sent = client.encrypt(records)
    plain = records @ weights_of()[0] + weights_of()[1]
    changed = reframed(sent, Kind.REQUEST, body=lambda body: _flip(body, 800))
    logits = client.decrypt(server.evaluate(changed))
    assert np.min(np.abs(logits - plain)) > 0.1


def test_the_decryption_under_another_key_is_noise_even_when_the_names_are_forged():
    compiled = circuit()
    (alice, server), (mallory, _) = compiled.keygen(), compiled.keygen()
    records = records_of(rows=200)
    answer = server.evaluate(alice.encrypt(records))
    forged = reframed(answer, Kind.ANSWER, header=lambda header: {**header, "key": mallory.key_id.value})
    plain = records @ weights_of()[0] + weights_of()[1]
    guessed = mallory.decrypt(forged)
    assert np.median(np.abs(guessed - plain)) > 100


@pytest.mark.parametrize("mode", MODES)
def test_the_compute_host_holds_no_secret_key_and_no_part_of_it(mode):
    client, server = circuit(mode).keygen()
    parameters = client.spec.parameters
    size = 8 * parameters.ring_degree * len(parameters.modulus_bits)
    residues = client._engine.store_secret_key(client._secret)[-size:]
    held = server.bundle_bytes() + server.keys_bytes()
    pairs = {residues[start : start + 16] for start in range(0, size - 8, 8)}
    assert len(pairs) >= parameters.ring_degree - 1
    assert client.reveal_secret_bytes().endswith(residues)
    assert not any(held[start : start + 16] in pairs for start in range(len(held) - 15))


@pytest.mark.parametrize("mode", [WEIGHTS, BOTH])
@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16])
def test_where_weights_are_encrypted_the_host_holds_none_of_them_in_any_float_format(mode, kind):
    compiled = circuit(mode, features=8)
    _, server = compiled.keygen()
    held = server.bundle_bytes() + server.keys_bytes()
    run = 8 // np.dtype(kind).itemsize  # eight bytes do not turn up by chance
    for values in (weights_of(features=8)[0].T.ravel(), weights_of(features=8)[0].ravel()):
        for order in "<>":
            stored = values.astype(np.dtype(kind).newbyteorder(order))
            runs = [stored[start : start + run].tobytes() for start in range(len(stored) - run + 1)]
            assert len(runs) > 8
            assert not any(pattern in held for pattern in runs)
    assert np.float64(weights_of(features=8)[0][0, 0]).tobytes() in compiled.to_bytes()


def test_encrypted_records_are_in_no_float_format_in_the_request():
    client, _ = circuit().keygen()
    records = records_of()
    sent = client.encrypt(records)
    for column in records.T:
        assert np.float64(column[0]).tobytes() not in sent
        assert column[:2].astype(np.float32).tobytes() not in sent


def test_a_client_cannot_be_printed_copied_or_pickled():
    client, _ = circuit().keygen()
    assert repr(client) == str(client) == "Client(opaque)"
    assert repr(client._secret) == "SecretKey(opaque)"
    for holder in (client, client._secret):
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="not pickled"):
                attempt(holder)


def test_a_client_survives_its_secret_bytes():
    compiled = circuit()
    client, server = compiled.keygen()
    again = he.Client.from_secret_bytes(client.reveal_secret_bytes())
    records = records_of()
    plain = records @ weights_of()[0] + weights_of()[1]
    assert (again.key_id, again.spec.to_value()) == (client.key_id, client.spec.to_value())
    assert np.max(np.abs(again.decrypt(server.evaluate(client.encrypt(records))) - plain)) < 1e-3
    assert np.max(np.abs(client.decrypt(server.evaluate(again.encrypt(records))) - plain)) < 1e-3


@pytest.mark.parametrize("mode", MODES)
def test_keys_requests_and_answers_of_another_circuit_are_refused(mode):
    here, there = circuit(mode), circuit(mode, number=2)
    (client, server), (stranger, elsewhere) = here.keygen(), there.keygen()
    records = records_of()
    with pytest.raises(KeyMismatch, match="server keys: made for another circuit"):
        he.Server.from_bytes(bundle=server.bundle_bytes(), keys=elsewhere.keys_bytes())
    with pytest.raises(KeyMismatch, match="request: made for another circuit"):
        server.evaluate(request(there.spec, stranger, records))
    with pytest.raises(KeyMismatch, match="answer: made for another circuit"):
        client.decrypt(elsewhere.evaluate(request(there.spec, stranger, records)))


@pytest.mark.parametrize("mode", [DATA, BOTH])
def test_requests_under_another_key_are_refused(mode):
    compiled = circuit(mode)
    (_, server), (stranger, _) = compiled.keygen(), compiled.keygen()
    with pytest.raises(KeyMismatch, match="request: made under another key"):
        server.evaluate(stranger.encrypt(records_of()))


@pytest.mark.parametrize("mode", MODES)
def test_answers_under_another_key_are_refused(mode):
    compiled = circuit(mode)
    (client, server), (stranger, _) = compiled.keygen(), compiled.keygen()
    answer = server.evaluate(request(compiled.spec, client, records_of()))
    with pytest.raises(KeyMismatch, match="answer: made under another key"):
        stranger.decrypt(answer)


@pytest.mark.parametrize("mode", [WEIGHTS, BOTH])
def test_encrypted_weights_and_keys_of_two_key_generations_are_refused(mode):
    compiled = circuit(mode)
    (_, server), (_, other) = compiled.keygen(), compiled.keygen()
    with pytest.raises(KeyMismatch, match="server keys: made under another key"):
        he.Server.from_bytes(bundle=server.bundle_bytes(), keys=other.keys_bytes())


@pytest.mark.parametrize("mode", [WEIGHTS, BOTH])
def test_a_host_refuses_the_bundle_with_weights_in_clear(mode):
    compiled = circuit(mode)
    _, server = compiled.keygen()
    with pytest.raises(InputError, match="its weights are not as encrypted"):
        he.Server.from_bytes(bundle=compiled.to_bytes(), keys=server.keys_bytes())


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (np.zeros((3, 5)), r"expected the shape \(rows, 4\), got \(3, 5\)"),
        (np.zeros(4), r"expected the shape \(rows, 4\), got \(4,\)"),
        (np.zeros((0, 4)), "expected 1 to 1048576 rows, got 0"),
        (np.full((1, 4), np.nan), "expected finite values"),
        (np.full((1, 4), -np.inf), "expected finite values"),
        (np.array([[0.0, 0.0, 4.001, 0.0]]), r"1 values in 1 rows .* calibrated range: row 0, feature 2\."),
    ],
)
def test_records_that_do_not_suit_the_circuit_are_refused_before_encryption(records, message):
    client, _ = circuit().keygen()
    with pytest.raises(InputError, match=message):
        client.encrypt(records)
    with pytest.raises(InputError, match=message):
        he.request_in_clear(circuit(WEIGHTS).spec, records)


def test_each_mode_takes_its_own_kind_of_request():
    with pytest.raises(InputError, match="use request_in_clear"):
        circuit(WEIGHTS).keygen()[0].encrypt(records_of())
    with pytest.raises(InputError, match="records are encrypted; use the client"):
        he.request_in_clear(circuit(DATA).spec, records_of())


def test_the_host_checks_clear_records_again():
    compiled = circuit(WEIGHTS)
    _, server = compiled.keygen()
    sent = he.request_in_clear(compiled.spec, records_of())
    outside = reframed(sent, Kind.REQUEST, body=lambda body: np.full(len(body) // 8, 9.0).tobytes())
    with pytest.raises(InputError, match="outside the calibrated range: row 0, feature 0; row 0, feature 1"):
        server.evaluate(outside)


def test_messages_given_for_one_another_are_named():
    compiled = circuit()
    client, server = compiled.keygen()
    sent = client.encrypt(records_of())
    answer = server.evaluate(sent)
    with pytest.raises(InputError, match="expected request, got answer"):
        server.evaluate(answer)
    with pytest.raises(InputError, match="expected answer, got request"):
        client.decrypt(sent)
    with pytest.raises(InputError, match="expected client key, got server keys"):
        he.Client.from_secret_bytes(server.keys_bytes())
    with pytest.raises(InputError, match="expected bundle, got client key"):
        he.Server.from_bytes(bundle=client.reveal_secret_bytes(), keys=server.keys_bytes())


def test_a_ciphertext_that_encrypts_nothing_is_refused():
    client, server = circuit().keygen()
    sent = client.encrypt(records_of())
    half = client.spec.ciphertext_bytes(level=0) // 2
    bare = reframed(sent, Kind.REQUEST, body=lambda body: body[:half] + bytes(half) + body[2 * half :])
    with pytest.raises(IntegrityError, match="ciphertext: it encrypts nothing"):
        server.evaluate(bare)


def test_a_residue_past_the_modulus_is_refused():
    client, server = circuit().keygen()
    wide = reframed(client.encrypt(records_of()), Kind.REQUEST, body=lambda body: b"\xff" * 8 + body[8:])
    with pytest.raises(IntegrityError, match="residues: one is not under its prime"):
        server.evaluate(wide)


@pytest.mark.parametrize("rows", [0, -1, 1025, 2**21, True, "3"])
def test_a_number_of_rows_that_does_not_match_is_refused(rows):
    client, server = circuit().keygen()
    lying = reframed(client.encrypt(records_of()), Kind.REQUEST, header=lambda header: {**header, "rows": rows})
    with pytest.raises(IntegrityError, match=r"request: (field rows is malformed|its size does not match its rows)"):
        server.evaluate(lying)


@pytest.mark.parametrize("mode", MODES)
def test_the_event_of_an_evaluation_holds_sizes_and_no_content(mode):
    compiled = circuit(mode)
    client, server = compiled.keygen()
    sent = request(compiled.spec, client, records_of(rows=7))
    answer = server.evaluate(sent)
    event = he.circuit_evaluated(compiled.spec, request=sent, answer=answer)
    parameters = compiled.spec.parameters
    assert (event.circuit, event.mode, event.rows) == (RandomId(bytes([1]) * 16), mode, 7)
    assert (event.ring_degree, event.modulus_bits) == (parameters.ring_degree, sum(parameters.modulus_bits))
    assert (event.request_bytes, event.answer_bytes) == (len(sent), len(answer))


def _flip(body, at):
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


def _equal_words(first, second):
    bodies = [np.frombuffer(envelope.decode(sent, Kind.REQUEST).body, "<u8") for sent in (first, second)]
    return int(np.sum(bodies[0] == bodies[1]))
