"""The round in ``tests/vectors/secagg/encrypted.json``, computed again from docs/spec/secagg.md, without SEAL."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
from pathlib import Path
from typing import Any

import cbor2
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mibao.errors import ProtocolError
from mibao.secagg.encrypted_sum import Kind
from mibao.secagg.masking import Phase
from secagg.make_encrypted_vectors import new_round, refuse, smallest_root, with_keys_of, with_signed
from secagg.test_encrypted_sum import EncryptedRound

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "secagg" / "encrypted.json").read_text())
SESSION = VECTORS["session"]
N, Q, T = 2048, VECTORS["prime"], VECTORS["plain_modulus"]
ALIVE = (0, 2)


def tag(purpose: str, *parts: bytes) -> bytes:
    return b"mibao/v1/" + purpose.encode() + b"\0" + b"".join(struct.pack(">Q", len(p)) + p for p in parts)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def public(number: int) -> bytes:
    seed = bytes.fromhex(VECTORS["signer_seeds"][str(number)])
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def message(name: str, number: int | None = None) -> bytes:
    return base64.b64decode(VECTORS[name] if number is None else VECTORS[name][str(number)])


def payload(kind: int, data: bytes) -> bytes:
    assert data[:6] == b"mbSE\x01" + bytes([kind])
    assert len(data) == 10 + int.from_bytes(data[6:10], "big")
    return data[10:]


def split(kind: int, data: bytes) -> tuple[bytes, bytes]:
    """The signed map and the ciphertexts."""
    content = payload(kind, data)
    size = int.from_bytes(content[:4], "big")
    return content[4 : 4 + size], content[4 + size :]


def agreed() -> dict[str, Any]:
    holder, aggregator = SESSION["holder"], SESSION["aggregator"]
    roster = cbor2.dumps([[n, "ed25519", public(n)] for n in range(3)], canonical=True)
    return {
        "aggregator": [aggregator, "ed25519", public(aggregator)],
        "expiry": SESSION["expires_s"],
        "holder": [holder, "ed25519", public(holder)],
        "input_bits": SESSION["input_bits"],
        "length": SESSION["length"],
        "min_clients": SESSION["min_clients"],
        "roster": sha256(tag("secagg/encrypted/roster", roster)),
        "round": SESSION["round"],
        "session": bytes.fromhex(SESSION["session_id"]),
        "task": bytes(32),
        "version": 1,
    }


def binding() -> bytes:
    return sha256(tag("secagg/encrypted/session", cbor2.dumps(agreed(), canonical=True)))


def check_signed(name: str, signed: bytes, sender: int) -> dict[str, Any]:
    """The body, once sender and signature are the ones of the spec."""
    envelope = cbor2.loads(signed)
    body: dict[str, Any] = cbor2.loads(envelope["body"])
    assert envelope["body"] == cbor2.dumps(body, canonical=True)
    assert envelope["sender"] == sender
    what = binding() + struct.pack(">I", sender) + sha256(envelope["body"])
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(VECTORS["signer_seeds"][str(sender)]))
    assert envelope["signature"] == key.sign(tag(f"sign/secagg/encrypted/{name}", b"ed25519", what))
    return body


def residues(data: bytes) -> np.ndarray:
    """Both halves of the one ciphertext, as integers."""
    assert len(data) == 7 * 2 * N
    found = [int.from_bytes(data[at : at + 7], "little") for at in range(0, len(data), 7)]
    assert max(found) < Q
    return np.array(found, dtype=object).reshape(2, N)


def decrypt(ciphertext: np.ndarray) -> list[int]:
    """``round(t/q (c0 + c1 s))`` at the slots' points: what stands in the first slots."""
    first, second = ciphertext
    phase = first.copy()
    for place, sign in enumerate(VECTORS["secret"]):
        if sign != "0":
            shifted = np.concatenate([-second[N - place :], second[: N - place]])
            phase = phase + shifted if sign == "+" else phase - shifted
    plain = [((int(value) % Q) * T * 2 + Q) // (2 * Q) % T for value in phase]
    root = smallest_root(T, 2 * N)
    points = [pow(root, pow(3, slot, 2 * N), T) for slot in range(SESSION["length"])]
    found = []
    for point in points:
        value = 0
        for coefficient in reversed(plain):
            value = (value * point + coefficient) % T
        found.append(value)
    return found


def test_every_message_is_the_signed_map_of_the_spec() -> None:
    key = check_signed("key", payload(1, message("key")), SESSION["holder"])
    assert {name: value for name, value in key.items() if name != "key"} == agreed()
    headers = {}
    for client in ALIVE:
        headers[client], vector = split(2, message("uploads", client))
        body = check_signed("upload", headers[client], client)
        assert body == {**agreed(), "key": sha256(key["key"]), "vector": sha256(vector)}
    signed, total = split(3, message("request"))
    asked = check_signed("request", signed, SESSION["aggregator"])
    assert asked == {"dropped": [1], "headers": [[n, headers[n]] for n in ALIVE], "sum": sha256(total)}
    alive = [[n, sha256(headers[n])] for n in ALIVE]
    content = cbor2.dumps({"alive": alive, "dropped": [1], "sum": sha256(total)}, canonical=True)
    answer = check_signed("answer", payload(4, message("answer")), SESSION["holder"])
    assert answer["transcript"] == sha256(tag("secagg/encrypted/transcript", binding(), content))
    assert answer["sum"] == struct.pack("<5Q", *VECTORS["total"])


def test_ciphertexts_open_to_the_vectors_and_add_up_to_the_sum() -> None:
    opened = {client: residues(split(2, message("uploads", client))[1]) for client in ALIVE}
    bits = SESSION["input_bits"]
    for client, ciphertext in opened.items():
        # Numbers are taken from -2**(b - 1) on; below the modulus of the sum, all stand for themselves here.
        assert decrypt(ciphertext) == [int(value) % T for value in VECTORS["vectors"][str(client)]]
        assert max(VECTORS["vectors"][str(client)]) < 1 << bits
    total = residues(split(3, message("request"))[1])
    assert (total == sum(opened.values()) % Q).all()
    expected = [sum(VECTORS["vectors"][str(n)][at] for n in ALIVE) for at in range(SESSION["length"])]
    assert decrypt(total) == expected == VECTORS["total"]
    assert VECTORS["survivors"] == list(ALIVE)


def reader(kind: Kind) -> EncryptedRound:
    """Who reads this kind of message in the round of the vectors."""
    made = with_keys_of(new_round(), message("key"))
    if kind is Kind.ANSWER:
        made.server._phase = Phase.REVEAL
        body = cbor2.loads(cbor2.loads(payload(4, message("answer")))["body"])
        made.server._transcript = body["transcript"]
    return made


def test_the_parties_take_the_messages_of_the_vectors() -> None:
    made = reader(Kind.UPLOAD)
    for client in ALIVE:
        made.server.receive(message("uploads", client))
    (asked,) = made.server.advance().values()
    assert asked == message("request")
    made.server.receive(message("answer"))
    assert made.server.release().total.tolist() == VECTORS["total"]
    assert made.client(0, key_message=message("key")).start()[:6] == b"mbSE\x01\x02"


@pytest.mark.parametrize("fault", VECTORS["must_fail"], ids=lambda fault: fault["name"].replace(" ", "-"))
def test_each_message_with_a_fault_is_refused_with_its_error(fault: dict[str, str]) -> None:
    kind = Kind[fault["kind"].upper()]
    made = reader(kind)
    good = message("uploads", 0) if kind is Kind.UPLOAD else message(fault["kind"])
    bad = with_signed(made, kind, good, base64.b64decode(fault["signed"]))
    with pytest.raises(ProtocolError, match=rf"^{re.escape(fault['error'])}$"):
        refuse(made, kind, bad)
