"""Known answers, computed a second time from ``docs/spec/secagg.md`` without any code of mibao."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import cbor2
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mibao.crypto.keys import SignerSuite, generate_signer
from mibao.errors import ProtocolError
from mibao.secagg import PairwiseClient, PairwiseServer, Session
from mibao.types import RandomId

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "secagg" / "pairwise.json").read_text())
NUMBERS = [3, 5, 8, 21]
SESSION = VECTORS["session"]
PHASES = ["advertise", "share", "mask", "confirm", "reveal"]
PRIME = 2**256 + 297


def tag(purpose: str, *parts: bytes) -> bytes:
    return b"mibao/v1/" + purpose.encode() + b"\0" + b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def derive(secret: bytes, purpose: str, context: bytes = b"") -> bytes:
    extracted = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(extracted, tag(purpose, context) + b"\x01", "sha256")


def stream(seed: bytes, count: int) -> np.ndarray:
    encryptor = Cipher(algorithms.AES256(seed), modes.CTR(bytes(16))).encryptor()
    return np.frombuffer(encryptor.update(bytes(4 * count)), "<u4").astype(object)


def public(secret: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def agree(secret: bytes, peer: bytes, purpose: str, context: bytes) -> bytes:
    exchanged = X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(peer))
    return derive(exchanged, purpose, tag("agreement", *sorted([public(secret), peer]), context))


def four(number: int) -> bytes:
    return number.to_bytes(4, "big")


@cache
def secrets(number: int) -> tuple[bytes, bytes, bytes, list[int], list[int]]:
    """Share secret, mask secret, self-mask seed, and the two polynomials' upper coefficients."""
    random = bytes.fromhex(VECTORS["clients"][str(number)]["randomness"])
    assert len(random) == 96 + 2 * 2 * 48
    upper = [int.from_bytes(random[start : start + 48], "big") % PRIME for start in range(96, len(random), 48)]
    return random[:32], random[32:64], random[64:96], upper[:2], upper[2:]


def signing_key(number: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(VECTORS["clients"][str(number)]["signer_seed"]))


def binding() -> bytes:
    content = {
        "clients": [[n, "ed25519", signing_key(n).public_key().public_bytes_raw()] for n in NUMBERS],
        "session": bytes.fromhex(SESSION["session_id"]),
        "task": bytes(32),
        **{name: SESSION[name] for name in ("length", "min_clients", "modulus_bits", "round", "threshold")},
    }
    return hashlib.sha256(tag("secagg/pairwise/session", cbor2.dumps(content, canonical=True))).digest()


def keys_hash() -> bytes:
    parts = [four(n) + public(secrets(n)[0]) + public(secrets(n)[1]) for n in NUMBERS]
    return hashlib.sha256(tag("secagg/pairwise/keys", *parts)).digest()


CONTEXT = binding() + keys_hash()


def message(kind: int, envelope: dict[str, Any]) -> bytes:
    payload = cbor2.dumps({**envelope, "session": binding()}, canonical=True)
    return b"mbSA" + bytes([1, kind]) + four(len(payload)) + payload


def signed(kind: int, name: str, number: int, body: dict[str, Any]) -> str:
    content = cbor2.dumps(body, canonical=True)
    covered = binding() + four(number) + hashlib.sha256(content).digest()
    signature = signing_key(number).sign(tag(f"sign/secagg/pairwise/{name}", b"ed25519", covered))
    return message(kind, {"body": content, "sender": number, "signature": signature}).hex()


def share_of(secret: bytes, upper: list[int], receiver: int) -> bytes:
    place = NUMBERS.index(receiver) + 1
    value = (int.from_bytes(secret, "big") + upper[0] * place + upper[1] * place**2) % PRIME
    return value.to_bytes(33, "big")


def key_share(dealer: int, receiver: int) -> bytes:
    return share_of(secrets(dealer)[1], secrets(dealer)[3], receiver)


def seed_share(dealer: int, receiver: int) -> bytes:
    return share_of(secrets(dealer)[2], secrets(dealer)[4], receiver)


def sealed_share(sender: int, receiver: int) -> bytes:
    pair = agree(secrets(sender)[0], public(secrets(receiver)[0]), "secagg/pairwise/shares", CONTEXT)
    key = derive(pair, "secagg/pairwise/share-key", four(sender) + four(receiver))
    label = tag("secagg/pairwise/share", binding(), keys_hash(), four(sender) + four(receiver))
    return AESGCM(key).encrypt(bytes(12), key_share(sender, receiver) + seed_share(sender, receiver), label)


def masked_vector(number: int) -> list[int]:
    _, mask_secret, seed, _, _ = secrets(number)
    total = np.array(VECTORS["clients"][str(number)]["vector"], dtype=object)
    total = total + stream(derive(seed, "secagg/pairwise/self-mask"), 6)
    for peer in NUMBERS:
        if peer != number:
            shared = agree(mask_secret, public(secrets(peer)[1]), "secagg/pairwise/mask", CONTEXT)
            total = total + (1 if number > peer else -1) * stream(shared, 6)
    return [int(element) % 2**32 for element in total]


def transcript() -> bytes:
    sets = cbor2.dumps({"alive": [3, 5, 21], "dropped": [8], "sharers": NUMBERS}, canonical=True)
    return hashlib.sha256(tag("secagg/pairwise/transcript", binding(), keys_hash(), sets)).digest()


@pytest.mark.parametrize("number", NUMBERS)
def test_advertisement_and_shares_are_what_the_spec_computes(number: int) -> None:
    share_secret, mask_secret, seed, _, _ = secrets(number)
    keys = {"mask_key": public(mask_secret), "share_key": public(share_secret)}
    assert VECTORS["from_clients"]["advertise"][str(number)] == signed(1, "advertisement", number, keys)
    shares = {
        "commitment": derive(seed, "secagg/pairwise/self-commitment"),
        "keys": keys_hash(),
        "shares": [[peer, sealed_share(number, peer)] for peer in NUMBERS if peer != number],
    }
    assert VECTORS["from_clients"]["share"][str(number)] == signed(3, "shares", number, shares)


@pytest.mark.parametrize("number", [3, 5, 21])
def test_upload_confirmation_and_revelation_are_what_the_spec_computes(number: int) -> None:
    vector = np.array(masked_vector(number), dtype="<u4").tobytes()
    assert VECTORS["from_clients"]["mask"][str(number)] == signed(5, "upload", number, {"vector": vector})
    confirmation = signed(7, "confirmation", number, {"transcript": transcript()})
    assert VECTORS["from_clients"]["confirm"][str(number)] == confirmation
    revealed = {
        "keys": [[8, key_share(8, number)]],
        "seeds": [[peer, seed_share(peer, number)] for peer in (3, 5, 21)],
    }
    assert VECTORS["from_clients"]["reveal"][str(number)] == signed(9, "revelation", number, revealed)


def test_the_servers_messages_are_what_the_spec_computes() -> None:
    came = {phase: [bytes.fromhex(one) for one in VECTORS["from_clients"][phase].values()] for phase in PHASES}
    sent = VECTORS["from_server"]
    assert set(sent["share"].values()) == {message(2, {"body": {"advertisements": came["advertise"]}}).hex()}
    for number in NUMBERS:
        shares = [[peer, sealed_share(peer, number)] for peer in NUMBERS if peer != number]
        expected = message(4, {"body": {"receiver": number, "shares": shares}})
        assert sent["mask"][str(number)] == expected.hex()
    assert set(sent["confirm"].values()) == {message(6, {"body": {"alive": [3, 5, 21], "dropped": [8]}}).hex()}
    assert set(sent["reveal"].values()) == {message(8, {"body": {"confirmations": came["confirm"]}}).hex()}


def test_the_total_is_the_plain_sum_of_the_survivors() -> None:
    assert VECTORS["survivors"] == [3, 5, 21]
    vectors = [VECTORS["clients"][str(number)]["vector"] for number in (3, 5, 21)]
    assert VECTORS["total"] == [sum(column) % 2**32 for column in zip(*vectors, strict=True)]


def session() -> Session:
    given = {name: SESSION[name] for name in ("round", "threshold", "min_clients", "length", "modulus_bits")}
    roster = {n: generate_signer(SignerSuite.ED25519, signer_seed(n)).public for n in NUMBERS}
    return Session(session_id=RandomId(bytes.fromhex(SESSION["session_id"])), roster=roster, **given)


def signer_seed(number: int) -> bytes:
    return bytes.fromhex(VECTORS["clients"][str(number)]["signer_seed"])


def client_before(phase: str, number: int) -> PairwiseClient:
    """The client of the vectors, having sent everything up to ``phase``, byte for byte."""
    given = VECTORS["clients"][str(number)]
    client = PairwiseClient(
        session(),
        number=number,
        signer=generate_signer(SignerSuite.ED25519, signer_seed(number)),
        vector=np.array(given["vector"], dtype=np.uint64),
        randomness=bytes.fromhex(given["randomness"]),
    )
    for earlier in PHASES[: PHASES.index(phase)]:
        incoming = VECTORS["from_server"].get(earlier, {}).get(str(number))
        sent = client.start() if incoming is None else client.answer(bytes.fromhex(incoming))
        assert sent.hex() == VECTORS["from_clients"][earlier][str(number)]
    return client


def server_before(phase: str) -> PairwiseServer:
    """The server of the vectors, having taken in everything before ``phase``."""
    server = PairwiseServer(session())
    for earlier, following in itertools.pairwise(PHASES):
        if earlier == phase:
            break
        for sent in VECTORS["from_clients"][earlier].values():
            server.receive(bytes.fromhex(sent))
        outgoing = {str(number): message.hex() for number, message in server.advance().items()}
        assert outgoing == VECTORS["from_server"][following]
    return server


@pytest.mark.parametrize("number", [3, 5, 21])
def test_a_client_sends_the_known_bytes(number: int) -> None:
    last = client_before("reveal", number)
    revealed = last.answer(bytes.fromhex(VECTORS["from_server"]["reveal"][str(number)]))
    assert revealed.hex() == VECTORS["from_clients"]["reveal"][str(number)]


def test_the_server_sends_the_known_bytes_and_releases_the_known_sum() -> None:
    server = server_before("reveal")
    for sent in VECTORS["from_clients"]["reveal"].values():
        server.receive(bytes.fromhex(sent))
    released = server.release()
    assert (released.total.tolist(), list(released.survivors)) == (VECTORS["total"], VECTORS["survivors"])


@pytest.mark.parametrize("fault", VECTORS["must_fail"], ids=lambda fault: fault["name"].replace(" ", "-"))
def test_each_vector_with_one_fault_is_refused_with_its_error(fault: dict[str, Any]) -> None:
    message = bytes.fromhex(fault["message"])
    with pytest.raises(ProtocolError, match=f"^{re.escape(fault['error'])}$"):
        if fault["to"] == "server":
            server_before(fault["phase"]).receive(message)
        else:
            client_before(fault["phase"], fault["to"]).answer(message)
