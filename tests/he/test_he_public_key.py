"""Two owners and a host that is neither: weights under the data owner's public key."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counts import counts
from he_cases import BOTH, DATA, circuit, network_of, records_of, reframed, weights_of
from mibao import he
from mibao.errors import InputError, IntegrityError, KeyMismatch
from mibao.he.bounds import LAPLACE_SIGMAS, Noise
from mibao.he.engine_seal import engine_for
from mibao.he.envelope import Kind
from mibao.he.network import Dense, Square
from mibao.he.noise_bound import NoiseRules, secret_norm_limit
from mibao.he.parameters import Parameters
from mibao.he.public_key import fingerprint
from mibao.he.release_state import ReleaseFile

THREE = he.Roles(data_owner="patient", model_owner="vendor", compute_host="cloud")
RINGS = [
    Parameters(ring_degree=8192, modulus_bits=(50, 40, 60), scale_bits=30),
    Parameters(ring_degree=4096, modulus_bits=(36, 20, 36), scale_bits=20),
]


@cache
def compiled(number=1, **options):
    return circuit(BOTH, roles=THREE, number=number, **options)


def parties(whole):
    """The key, and the host's files, as each party makes them from what it has."""
    client = he.Circuit.from_bytes(whole.public().to_bytes()).generate_client()
    key = he.PublicKey.from_bytes(client.public_key(), spec=whole.spec)
    return client, he.Server.from_bytes(bundle=whole.encrypt_weights(key), keys=client.server_keys())


def test_an_answer_is_that_of_the_model_and_keeps_the_predicted_error():
    whole = compiled()
    client, server = parties(whole)
    records = records_of(rows=1024)
    weights, bias = weights_of()
    off = np.abs(client.decrypt(server.evaluate(client.encrypt(records))) - (records @ weights + bias))
    assert np.max(off) < whole.spec.predicted_error < 1e-3


def test_a_network_with_a_square_keeps_its_predicted_error_too():
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(8, 6)) / 4, rng.normal(size=(3, 8)) / 4
    layers = Dense(weights=first, bias=np.full(8, 0.1)), Square(), Dense(weights=second, bias=np.ones(3))
    whole = he.compile_circuit(network_of(*layers, features=6, bound=2.0), mode=BOTH, roles=THREE)
    client, server = parties(whole)
    records = records_of(rows=2, features=6, bound=2.0)
    plain = (records @ first.T + 0.1) ** 2 @ second.T + 1
    assert np.max(np.abs(client.decrypt(server.evaluate(client.encrypt(records))) - plain)) < whole.spec.predicted_error


def test_one_call_makes_both_sides_to_try_a_circuit():
    client, server = compiled().keygen(account="ward 3")
    weights, bias = weights_of()
    answer = client.decrypt(server.evaluate(client.encrypt(records_of())))
    assert np.max(np.abs(answer - (records_of() @ weights + bias))) < 1e-3


@pytest.mark.parametrize("parameters", RINGS)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=counts(short=3, long=100))
def test_what_is_encrypted_publicly_decrypts_within_the_prediction_and_the_proven_bound(parameters, seed):
    engine, primes = engine_for(parameters), tuple(map(float, parameters.primes()))
    secret = engine.generate_secret_key()
    stored = engine.store_encryption_key(engine.generate_encryption_key(secret))
    key, scale = engine.load_encryption_key(stored), 2.0**20
    values = np.random.default_rng(seed).uniform(-1, 1, size=parameters.slots)
    rules = NoiseRules(
        degree=parameters.ring_degree,
        primes=parameters.primes(),
        special_prime=parameters.special_prime(),
        secret_norm=secret_norm_limit(parameters.ring_degree),
    )
    predicted = Noise(
        ring_degree=parameters.ring_degree,
        primes=primes,
        special=float(parameters.special_prime()),
        data_encrypted=True,
        weights_encrypted=True,
        weights_publicly=True,
    )
    assert engine.store_encryption_key(key) == stored
    for level in range(len(primes)):
        encrypted = engine.encrypt_publicly(key, engine.encode(values, scale=scale, level=level))
        off = np.abs(engine.decrypt(secret, encrypted) - values) * scale
        bound = rules.fresh_publicly(message=1.0, scale=scale, level=level)
        assert np.max(off) < LAPLACE_SIGMAS * np.sqrt(predicted.constant.sum())
        assert np.std(off) > 0.1 * np.sqrt(predicted.constant.sum())
        assert np.max(off) < bound.noise + bound.encoding


def test_a_public_key_takes_a_prime_to_divide_out():
    rules = NoiseRules(degree=4096, primes=RINGS[1].primes(), special_prime=None, secret_norm=1.0)
    with pytest.raises(InputError, match="under a public key takes a special prime"):
        rules.fresh_publicly(message=1.0, scale=1.0)


def test_the_same_weights_encrypt_differently_every_time_under_one_public_key():
    whole = compiled()
    client = whole.public().generate_client()
    key = he.PublicKey.from_bytes(client.public_key(), spec=whole.spec)
    first, second = whole.encrypt_weights(key), whole.encrypt_weights(key)
    assert len(first) == len(second) and first != second
    assert first[-1000:] != second[-1000:]


def test_explain_says_who_could_read_what_and_until_when():
    lines = compiled().explain()
    assert lines[0].endswith(
        "(records, weights and biases as ciphertexts), the weights under the data owner's public key"
    )
    assert lines[1:5] == he.who_could_read(BOTH, THREE)
    assert lines[1:5] == [
        "data owner (patient) could read: records, answers; is not sent the weights, but answers tell about them; "
        "holds the secret key",
        "model owner (vendor) could read: weights; never records or answers; has no key",
        "compute host (cloud) could read: ciphertexts only; never records or weights or answers; has no key",
        "the weights are hidden from patient only while cloud and patient do not collude: the one has them "
        "encrypted, the other holds the key",
    ]


def test_a_data_owner_who_gets_the_hosts_bundle_reads_the_weights_as_explain_says():
    """What the sentence about collusion means: it would be untrue if the bundle hid them from the key as well."""
    whole = compiled()
    client = whole.public().generate_client()
    bundle = whole.encrypt_weights(he.PublicKey.from_bytes(client.public_key(), spec=whole.spec))
    server = he.Server.from_bytes(bundle=bundle, keys=client.server_keys())
    constants = [held for stack in server._execution._encrypted.values() for held in stack]
    read = np.concatenate([client._engine.decrypt(client._secret, held) for held in constants])
    weights, bias = weights_of()
    assert all(np.min(np.abs(read - value)) < 1e-3 for value in (*weights.ravel(), *bias))


def test_the_key_of_another_circuit_is_refused():
    here, there = compiled(), compiled(number=2)
    stranger = there.public().generate_client()
    with pytest.raises(KeyMismatch, match="public key: made for another circuit"):
        he.PublicKey.from_bytes(stranger.public_key(), spec=here.spec)
    key = he.PublicKey.from_bytes(stranger.public_key(), spec=there.spec)
    with pytest.raises(KeyMismatch, match="key: made for another circuit"):
        here.encrypt_weights(key)


def test_evaluation_keys_of_another_key_than_the_weights_are_encrypted_under_are_refused():
    whole = compiled()
    alice, mallory = (whole.public().generate_client() for _ in range(2))
    bundle = whole.encrypt_weights(he.PublicKey.from_bytes(alice.public_key(), spec=whole.spec))
    with pytest.raises(KeyMismatch, match="server keys: made under another key"):
        he.Server.from_bytes(bundle=bundle, keys=mallory.server_keys())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda body: bytes(len(body)), "encryption key: it hides nothing"),
        (lambda body: bytes(len(body) // 2) + body[len(body) // 2 :], "encryption key: it hides nothing"),
        (lambda body: body[: len(body) // 2] + bytes(len(body) // 2), "encryption key: it hides nothing"),
        (lambda body: b"\xff" * 8 + body[8:], "residues: one is not under its prime"),
        (lambda body: body[:-1], r"encryption key: expected \d+ bytes, got \d+"),
        (lambda body: body + b"\x00", r"encryption key: expected \d+ bytes, got \d+"),
    ],
)
def test_a_key_that_would_hide_nothing_or_is_none_is_refused_under_a_matching_digest(damage, message):
    whole = compiled()
    forged = reframed(whole.public().generate_client().public_key(), Kind.PUBLIC_KEY, body=damage)
    with pytest.raises(IntegrityError, match=message):
        he.PublicKey.from_bytes(forged, spec=whole.spec)


@pytest.mark.parametrize("at", [0, 9, 60, 200, -1])
def test_a_changed_or_truncated_public_key_is_refused(at):
    whole = compiled()
    stored = whole.public().generate_client().public_key()
    changed = bytearray(stored)
    changed[at] ^= 1
    for damaged in (bytes(changed), stored[:at]):
        with pytest.raises(IntegrityError):
            he.PublicKey.from_bytes(damaged, spec=whole.spec)


def test_a_fingerprint_tells_a_replaced_key_from_the_data_owners():
    whole = compiled()
    first, second = (whole.public().generate_client() for _ in range(2))
    keys = [he.PublicKey.from_bytes(client.public_key(), spec=whole.spec) for client in (first, second, first)]
    assert len({key.fingerprint for key in keys}) == 3  # one for each file, whoever's secret it is
    forged = reframed(second.public_key(), Kind.PUBLIC_KEY, header=lambda held: {**held, "key": first.key_id.value})
    replaced = he.PublicKey.from_bytes(forged, spec=whole.spec)
    assert (replaced.key_id, replaced.fingerprint) != (first.key_id, keys[0].fingerprint)
    assert repr(keys[0]) == f"PublicKey({keys[0].fingerprint})"


def test_each_owner_has_its_own_door():
    whole = compiled()
    client = whole.public().generate_client()
    key = he.PublicKey.from_bytes(client.public_key(), spec=whole.spec)
    with pytest.raises(InputError, match="encrypts them under the data owner's public key"):
        whole.encrypt_weights(client)
    with pytest.raises(InputError, match="the circuit without its weights"):
        whole.public().encrypt_weights(key)
    for mode in (DATA, BOTH):
        with pytest.raises(InputError, match="nobody encrypts but the key holder"):
            circuit(mode).generate_client().public_key()
        with pytest.raises(InputError, match="nobody encrypts but the key holder"):
            he.PublicKey.from_bytes(client.public_key(), spec=circuit(mode).spec)
    with pytest.raises(InputError, match="expected public key, got server keys"):
        he.PublicKey.from_bytes(client.server_keys(), spec=whole.spec)
    with pytest.raises(InputError, match="expected server keys, got public key"):
        he.Server.from_bytes(bundle=whole.encrypt_weights(key), keys=client.public_key())


def test_a_circuit_without_a_special_prime_takes_no_public_key():
    value = compiled().spec.to_value()
    bare = {**value, "modulus_bits": [36], "rotations": [], "relinearizes": False, "ring_degree": 8192}
    with pytest.raises(IntegrityError, match="weights under a public key take a special prime"):
        he.CircuitSpec.from_value(bare)


def test_a_known_file_has_a_known_fingerprint():
    assert fingerprint(b"public.key") == "f29b-9330-9850-6914-9831-70c4-4264-c80a"


def test_a_host_takes_the_place_of_no_owner():
    for host in ("patient", "vendor"):
        with pytest.raises(InputError, match="the compute host owns what is to be hidden from it"):
            circuit(BOTH, roles=he.Roles(data_owner="patient", model_owner="vendor", compute_host=host))


def test_answers_of_two_owners_may_be_released(tmp_path):
    asked = he.Release(answers_limit=4, statistical_bits=40)
    whole = compiled(max_error=1e-2, release=asked)
    one_owner = circuit(BOTH, max_error=1e-2, release=asked)
    client, server = parties(whole)
    assert whole.spec.release.noise > one_owner.spec.release.noise
    count = ReleaseFile(tmp_path / "released", key_id=client.key_id)
    limits = {"answers_limit": 4, "statistical_bits": 40}
    count.create(client.release_policy(**limits))
    answer = server.evaluate(client.encrypt(records_of()))
    shared = client.decrypt_for_release(answer, count=count, **limits)
    weights, bias = weights_of()
    assert np.max(np.abs(shared - (records_of() @ weights + bias))) < 1e-2
