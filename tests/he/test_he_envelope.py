import base64
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from counts import counts
from he_cases import BOTH, DATA, circuit, records_of
from mibao import errors, he
from mibao.errors import InputError, IntegrityError
from mibao.he import envelope
from mibao.he.envelope import Envelope, Kind
from vectors_io import vectors

KNOWN = vectors("he", "files")
HEADERS = st.dictionaries(st.text(max_size=8), st.one_of(st.integers(0, 9), st.binary(max_size=20)), max_size=4)


@given(kind=st.sampled_from(Kind), header=HEADERS, body=st.binary(max_size=200))
def test_an_envelope_survives_its_bytes(kind, header, body):
    opened = envelope.decode(envelope.encode(Envelope(kind=kind, header=header, body=body)), kind)
    assert (opened.kind, opened.header, bytes(opened.body)) == (kind, header, body)


@given(kind=st.sampled_from(Kind), header=HEADERS, body=st.binary(max_size=200), data=st.data())
def test_any_changed_bit_and_any_cut_is_refused(kind, header, body, data):
    stored = envelope.encode(Envelope(kind=kind, header=header, body=body))
    at = data.draw(st.integers(0, len(stored) - 1))
    flipped = stored[:at] + bytes([stored[at] ^ (1 << data.draw(st.integers(0, 7)))]) + stored[at + 1 :]
    for damaged in (flipped, stored[:at], stored + b"\x00"):
        with pytest.raises(IntegrityError):
            envelope.decode(damaged, *Kind)


def test_the_files_of_a_known_circuit_are_the_known_ones():
    known = KNOWN["known_answers"]
    compiled = he.Circuit.from_bytes(bytes.fromhex(known["bundle"]))
    assert compiled.spec.to_value() == circuit(DATA).spec.to_value()
    assert circuit(DATA).to_bytes().hex() == known["bundle"]
    assert compiled.public().to_bytes().hex() == known["circuit"]


def test_a_known_answer_decrypts_under_its_known_key_to_the_known_logits():
    known = KNOWN["known_answers"]
    client = he.Client.from_secret_bytes(_bytes_of(known["client_key"]))
    logits = client.decrypt(_bytes_of(known["answer"]))
    assert np.max(np.abs(logits - np.array(known["logits"]))) < 1e-9
    server = he.Server.from_bytes(bundle=bytes.fromhex(known["bundle"]), keys=bytes.fromhex(known["server_keys"]))
    assert np.max(np.abs(client.decrypt(server.evaluate(client.encrypt(records_of()))) - logits[:3])) < 2e-3


@pytest.mark.parametrize("vector", KNOWN["must_fail"], ids=lambda vector: vector["fault"])
def test_each_single_fault_is_refused_with_its_own_error(vector):
    expected = getattr(errors, vector["error"])
    with pytest.raises(expected) as caught:
        he.Circuit.from_bytes(bytes.fromhex(vector["circuit"]))
    assert type(caught.value) is expected
    assert str(caught.value) == vector["message"]


def test_a_message_over_its_limit_is_not_written():
    with pytest.raises(InputError, match="circuit: expected at most 1048576 bytes"):
        envelope.encode(Envelope(kind=Kind.CIRCUIT, header={}, body=bytes(1 << 20)))


def test_a_message_over_its_limit_is_not_read(monkeypatch):
    stored = envelope.encode(Envelope(kind=Kind.CIRCUIT, header={}, body=bytes(4096)))
    monkeypatch.setitem(envelope.MAX_BYTES, Kind.CIRCUIT, 4096)
    with pytest.raises(IntegrityError, match="circuit: expected at most 4096 bytes"):
        envelope.decode(stored, Kind.CIRCUIT)


@pytest.mark.parametrize("mode", [DATA, BOTH])
def test_mutated_requests_are_all_refused_by_the_digest(mode):
    """In a worker: were one to slip through and bring the library down, the pool would break, not the test run."""
    client, server = circuit(mode).keygen()
    sent = client.encrypt(records_of())
    number = counts(short=50, long=5000)
    with _worker(server, sent) as worker:
        outcomes = list(worker.map(_evaluate_mutated, range(number), chunksize=10))
    assert outcomes == ["IntegrityError"] * number


@pytest.mark.parametrize("mode", [DATA, BOTH])
def test_requests_mutated_under_a_matching_digest_never_bring_the_host_down(mode):
    client, server = circuit(mode).keygen()
    sent = client.encrypt(records_of())
    number = counts(short=50, long=5000)
    with _worker(server, sent) as worker:
        outcomes = set(worker.map(_evaluate_forged, range(number), chunksize=10))
    assert "answered" in outcomes
    assert outcomes <= {"answered", "IntegrityError", "KeyMismatch"}


_HELD: list[tuple[he.Server, bytes]] = []


def _worker(server, sent):
    arguments = (server.bundle_bytes(), server.keys_bytes(), sent)
    return ProcessPoolExecutor(
        max_workers=1, mp_context=get_context("spawn"), initializer=_start_server, initargs=arguments
    )


def _start_server(bundle, keys, sent):
    _HELD.append((he.Server.from_bytes(bundle=bundle, keys=keys), sent))


def _evaluate_mutated(seed):
    sent = _HELD[0][1]
    rng = np.random.default_rng(seed)
    damaged = bytearray(sent)
    near_start = seed % 2 == 0  # the header is a small part: aim at it every other time
    at = int(rng.integers(0, 200 if near_start else len(sent)))
    match seed % 5:
        case 0 | 1:
            damaged[at] ^= int(rng.integers(1, 256))
        case 2:
            del damaged[at:]
        case 3:
            damaged[at:at] = rng.bytes(int(rng.integers(1, 64)))
        case _:
            del damaged[at : at + int(rng.integers(1, 64))]
    return _outcome(bytes(damaged))


def _evaluate_forged(seed):
    sent = _HELD[0][1]
    rng = np.random.default_rng(seed)
    opened = envelope.decode(sent, Kind.REQUEST)
    header, body = dict(opened.header), bytearray(opened.body)
    if seed % 5 == 0:
        header[str(rng.choice(["circuit", "key", "rows"]))] = [3, 2**40, -1, b"", rng.bytes(16)][seed // 5 % 5]
    elif seed % 5 == 1:
        del body[int(rng.integers(0, len(body))) :]
    else:
        at, width = int(rng.integers(0, len(body))), [1, 8, 4096][seed % 3]
        body[at : at + width] = rng.bytes(len(body[at : at + width]))
    return _outcome(envelope.encode(Envelope(kind=Kind.REQUEST, header=header, body=bytes(body))))


def _outcome(request):
    try:
        _HELD[0][0].evaluate(request)
    except errors.MibaoError as error:
        return type(error).__name__
    return "answered"


def _bytes_of(text):
    return base64.b85decode(text)
