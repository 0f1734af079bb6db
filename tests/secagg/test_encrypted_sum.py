import hashlib
from typing import Any

import numpy as np
import pytest

from counts import counts
from mibao.errors import InputError, IntegrityError, ProtocolError
from mibao.secagg import engine_bfv, run_round
from mibao.secagg.encrypted_sum import HolderSession, Kind
from mibao.secagg.encrypted_sum_parties import EncryptedSumClient, EncryptedSumServer, KeyHolder
from mibao.secagg.journal import MemoryJournal
from mibao.secagg.masking import MaskingClient, MaskingMember, MaskingServer
from mibao.types import MaskingScheme, RandomId
from secagg.rounds import signer

NOW, HOLDER, AGGREGATOR = 1_800_000_000, 500, 600


class EncryptedRound:
    def __init__(self, clients: int = 4, *, seed: int = 1, **changes: Any) -> None:
        self.signers = {number: signer(number) for number in range(clients)}
        given: dict[str, Any] = {
            "session_id": RandomId(b"0123456789abcdef"),
            "round": 3,
            "roster": {number: key.public for number, key in self.signers.items()},
            "holder": (HOLDER, signer(HOLDER).public),
            "aggregator": (AGGREGATOR, signer(AGGREGATOR).public),
            "min_clients": 2,
            "length": 30,
            "input_bits": 16,
            "expires_s": NOW + 60,
        }
        self.session = HolderSession(**{**given, **changes})
        values = np.random.default_rng(seed)
        self.vectors = {n: values.integers(0, 1 << 16, self.session.length, dtype=np.uint64) for n in self.signers}
        self.journal = MemoryJournal()
        self.holder = self.new_holder()
        self.server = EncryptedSumServer(self.session, signer=signer(AGGREGATOR), now=lambda: NOW)

    def new_holder(self) -> KeyHolder:
        return KeyHolder(self.session, signer=signer(HOLDER), journal=self.journal, now=lambda: NOW)

    def client(self, number: int, **changes: Any) -> EncryptedSumClient:
        given: dict[str, Any] = {
            "number": number,
            "signer": self.signers[number],
            "vector": self.vectors[number],
            "key_message": self.holder.key_message(),
            "journal": MemoryJournal(),
            "now": lambda: NOW,
        }
        return EncryptedSumClient(self.session, **{**given, **changes})

    def request(self, *, without: tuple[int, ...] = ()) -> bytes:
        for number in self.signers:
            if number not in without:
                self.server.receive(self.client(number).start())
        return self.server.advance()[HOLDER]


def test_the_sum_is_exact_in_random_patterns_of_dropouts() -> None:
    for case in range(counts(short=10, long=1000)):
        choice = np.random.default_rng(case)
        clients = int(choice.integers(2, 7))
        made = EncryptedRound(clients, length=int(choice.integers(1, 5000)), seed=case)
        alive = sorted(choice.choice(clients, int(choice.integers(2, clients + 1)), replace=False).tolist())
        taking_part = {number: made.client(number) for number in alive}
        released = run_round(made.server, taking_part, committee={HOLDER: made.holder})
        assert released.survivors == tuple(alive)
        modulus = np.uint64((1 << made.session.modulus_bits) - 1)
        assert np.array_equal(released.total, np.sum([made.vectors[n] for n in alive], axis=0) & modulus), case


def test_signed_numbers_sum_to_signed_numbers_and_the_round_leaves_an_event() -> None:
    made = EncryptedRound(3, length=4)
    modulus = 1 << made.session.modulus_bits
    vector = np.array([-(1 << 15), -1, 0, (1 << 15) - 1])
    made.vectors = dict.fromkeys(range(3), (vector % modulus).astype(np.uint64))
    made.server.receive(made.holder.answer(made.request()))
    released = made.server.release()
    assert np.array_equal(released.total, (3 * vector % modulus).astype(np.uint64))
    assert (released.event.scheme, released.event.threshold) == (MaskingScheme.ENCRYPTED, 2)
    assert isinstance(made.server, MaskingServer)
    assert isinstance(made.client(0), MaskingClient)
    assert isinstance(made.holder, MaskingMember)


def test_an_upload_takes_fourteen_bytes_an_element() -> None:
    made = EncryptedRound(2, length=4096)
    assert len(made.client(0).start()) - 14 * 4096 < 1000


def test_the_holder_decrypts_one_sum_in_a_round() -> None:
    made = EncryptedRound()
    first = made.request()
    assert made.holder.answer(first) == made.holder.answer(first)
    other = EncryptedRound()
    other.holder = made.holder
    with pytest.raises(ProtocolError, match=r"^aggregator, step reveal: another sum was decrypted in this round$"):
        made.holder.answer(other.request(without=(3,)))


def test_the_holder_decrypts_nothing_for_fewer_than_min_clients() -> None:
    made, lax = EncryptedRound(min_clients=3), EncryptedRound(min_clients=2)
    with pytest.raises(ProtocolError, match=r"^clients 0, 1, step mask: no message; 2 of 3 came$"):
        made.request(without=(0, 1))
    # An aggregator that goes on regardless: the clients signed min_clients, and so is what the holder counts by.
    lax.holder = made.holder
    with pytest.raises(ProtocolError, match=r"min_clients: differs"):
        lax.request(without=(0, 1))
    made = EncryptedRound(min_clients=3)
    for number in (0, 1, 2):
        made.server.receive(made.client(number).start())
    made.server._headers.pop(2)
    made.server._session = lax.session
    message = made.server.advance()[HOLDER]
    with pytest.raises(ProtocolError, match=r"^aggregator, step reveal: expected at least 3 clients alive, got 2$"):
        made.holder.answer(message)


def test_a_request_that_the_aggregator_did_not_sign_or_with_another_sum_is_refused() -> None:
    made = EncryptedRound()
    message = made.request()
    with pytest.raises(ProtocolError, match=r"sum: not the one whose hash was signed"):
        made.holder.answer(message[:-1] + bytes([message[-1] ^ 1]))
    forged = EncryptedRound()
    forged.server._signer = signer(700)
    forged.holder = made.holder
    with pytest.raises(ProtocolError, match=r"signature: not this signer's for these bytes"):
        made.holder.answer(forged.request())
    with pytest.raises(InputError, match=r"^aggregator: expected the signing key that the session pins for it$"):
        EncryptedSumServer(made.session, signer=signer(700), now=lambda: NOW)


def test_overlapping_lists_are_refused() -> None:
    made = EncryptedRound()
    for number in made.signers:
        made.server.receive(made.client(number).start())
    total = engine_bfv.pack(made.server._total)
    headers = [[n, made.server._headers[n]] for n in sorted(made.server._headers)]
    body = {"dropped": [3], "headers": headers, "sum": hashlib.sha256(total).digest()}
    signed = made.server._format.maps.write("request", body, sender=AGGREGATOR, signer=signer(AGGREGATOR))
    message = made.server._format.frame(Kind.REQUEST, len(signed).to_bytes(4, "big") + signed + total)
    with pytest.raises(ProtocolError, match=r"alive and dropped are not disjoint and together the roster"):
        made.holder.answer(message)


def test_a_public_key_that_the_holder_did_not_sign_is_refused() -> None:
    made, other = EncryptedRound(), EncryptedRound(round=4)
    with pytest.raises(ProtocolError, match=r"^key holder, step advertise: round: differs from this session's$"):
        made.client(0, key_message=other.holder.key_message())
    message = made.holder.key_message()
    with pytest.raises(ProtocolError, match=r"^key holder, step advertise: "):
        made.client(0, key_message=message[:-1] + bytes([message[-1] ^ 1]))


def test_vectors_encrypted_to_another_key_of_the_round_are_not_decrypted() -> None:
    made = EncryptedRound()
    message = made.request()
    with pytest.raises(ProtocolError, match=r"^client 0, step reveal: encrypted to another key$"):
        made.new_holder().answer(message)


def test_altered_doubled_and_late_messages_are_refused_and_a_resend_is_not() -> None:
    made, journal = EncryptedRound(), MemoryJournal()
    sent = made.client(0, journal=journal).start()
    assert made.client(0, journal=journal, vector=made.vectors[1]).start() == sent
    with pytest.raises(ProtocolError, match=r"^client 0, step mask: vector: not the one whose hash was signed$"):
        made.server.receive(sent[:-1] + bytes([sent[-1] ^ 1]))
    assert made.server.receive(sent) == made.server.receive(sent) == 0
    with pytest.raises(ProtocolError, match=r"^client 0, step mask: sent a second vector$"):
        made.server.receive(made.client(0).start())
    with pytest.raises(ProtocolError, match=r"no sum to release yet"):
        made.server.release()
    with pytest.raises(ProtocolError, match=r"client 1, step mask: the round has expired"):
        made.client(1, now=lambda: NOW + 61).start()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"holder": (0, signer(HOLDER).public)}, "a key holder and an aggregator that are no clients"),
        ({"holder": (HOLDER, signer(0).public)}, "a key holder and an aggregator that are no clients"),
        ({"holder": (HOLDER, signer(AGGREGATOR).public)}, "a key holder and an aggregator that are no clients"),
        ({"min_clients": 1}, "min_clients of 2 to 4, got 1"),
        ({"input_bits": 38}, "no room for 4 inputs of 38 bits"),
        ({"task_hash": b""}, "a task hash of 32 bytes"),
    ],
)
def test_sessions_that_cannot_be_are_refused(change: dict[str, Any], error: str) -> None:
    with pytest.raises(InputError, match=error):
        EncryptedRound(**change)


def test_there_is_room_for_ten_bits_more_than_a_thousand_clients_need() -> None:
    assert engine_bfv.plain_bits(input_bits=16, clients=1000, blocks=489) == 28
    with pytest.raises(InputError, match=r"no room for 1000 inputs of 30 bits"):
        engine_bfv.plain_bits(input_bits=30, clients=1000, blocks=489)


def test_a_ciphertext_of_nothing_is_refused() -> None:
    made = EncryptedRound()
    made.server._headers = dict.fromkeys(made.signers, b"")
    engine = engine_bfv.engine_for(made.session.plain_bits)
    secret, _ = engine.generate()
    with pytest.raises(IntegrityError, match=r"it encrypts nothing"):
        engine.decrypt(secret, np.zeros((1, 4096), dtype=np.uint64))
    with pytest.raises(IntegrityError, match=r"expected numbers below the prime"):
        engine_bfv.unpack(b"\xff" * engine_bfv.CIPHERTEXT_BYTES, prime=engine.prime)
