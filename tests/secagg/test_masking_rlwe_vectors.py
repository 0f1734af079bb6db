"""The round in ``tests/vectors/secagg/rlwe.json``, computed a second time from docs/spec/secagg.md, with integers."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from pathlib import Path
from typing import Any

import blake3
import cbor2
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mibao.crypto import kem
from mibao.errors import IntegrityError
from secagg.committee_rounds import FIRST_MEMBER, member_recipient
from secagg.make_rlwe_vectors import new_round

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "secagg" / "rlwe.json").read_text())
SESSION = VECTORS["session"]
N, P, DELTA_BITS = 2048, 2**31 - 1, 7
ALIVE = (0, 2)
MEMBERS = tuple(range(FIRST_MEMBER, FIRST_MEMBER + 4))


def tag(purpose: str, *parts: bytes) -> bytes:
    return b"mibao/v1/" + purpose.encode() + b"\0" + b"".join(struct.pack(">Q", len(p)) + p for p in parts)


def derive(key: bytes, purpose: str, context: bytes = b"") -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=b"", info=tag(purpose, context)).derive(key)


def stream(key: bytes, count: int) -> bytes:
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(count))


def hashed(purpose: str, *parts: bytes) -> bytes:
    return hashlib.sha256(tag(purpose, *parts)).digest()


def cbor(value: Any) -> bytes:
    return cbor2.dumps(value, canonical=True)


def u32(number: int) -> bytes:
    return struct.pack(">I", number)


def public(seed: str) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed)).public_key().public_bytes_raw()


def roster_root() -> bytes:
    return hashed(
        "secagg/rlwe/roster",
        cbor([[int(n), "ed25519", public(c["signer_seed"])] for n, c in VECTORS["clients"].items()]),
    )


def task_hash() -> bytes:
    content = {name: SESSION[name] for name in ("input_bits", "length", "min_clients", "trust")}
    content |= {
        "clip": 0.0,
        "noise_multiplier": 0.0,
        "session": bytes.fromhex(SESSION["session_id"]),
        "task": bytes(32),
    }
    return hashed("secagg/rlwe/task", cbor(content))


def agreed() -> dict[str, Any]:
    members = [
        [int(n), "ed25519", public(m["signer_seed"]), "mlkem768-x25519", member_recipient(int(n)).public.raw]
        for n, m in VECTORS["committee"].items()
    ]
    return {
        "version": 1,
        "parameters": "rlwe-2048-32",
        "task": task_hash(),
        "round": SESSION["round"],
        "model": bytes(32),
        "committee": hashed("secagg/rlwe/committee", cbor(members)),
        "corrupt": 1,
        "packing": 2,
        "reconstruct": 3,
        "quorum": 3,
        "roster": roster_root(),
        "expiry": SESSION["expires_s"],
    }


def binding() -> bytes:
    return hashed("secagg/rlwe/session", cbor(agreed()))


def signed(name: str, sender: int, body: dict[str, Any], seed: str) -> bytes:
    content = cbor(body)
    message = binding() + u32(sender) + hashlib.sha256(content).digest()
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed))
    signature = key.sign(tag(f"sign/secagg/rlwe/{name}", b"ed25519", message))
    return cbor({"body": content, "sender": sender, "signature": signature})


def frame(kind: int, payload: bytes) -> bytes:
    return b"mbSR\x01" + bytes([kind]) + u32(len(payload)) + payload


def small(seed: bytes, count: int) -> list[int]:
    words = struct.unpack(f"<{count}I", stream(seed, 4 * count))
    return [(word & (2**30 - 1)).bit_count() - 15 for word in words]


def secret_of(client: int) -> list[int]:
    return small(derive(randomness(client)[:32], "secagg/rlwe/secret", u32(0)), N)


def randomness(client: int) -> bytes:
    return bytes.fromhex(VECTORS["clients"][str(client)]["randomness"])


def masked(client: int) -> bytes:
    a = hashed("secagg/rlwe/matrix", b"rlwe-2048-32", task_hash(), u32(SESSION["round"]), roster_root())
    row = struct.unpack(f"<{N}i", stream(derive(a, "secagg/rlwe/matrix-rows", u32(0)), 4 * N))
    secret, vector = secret_of(client), VECTORS["clients"][str(client)]["vector"]
    error = small(derive(randomness(client)[32:], "secagg/rlwe/error", u32(0)), len(vector))
    out = []
    for k, x in enumerate(vector):
        product = sum(row[k - i] * secret[i] * (1 if i <= k else -1) for i in range(N))
        out.append(((x << DELTA_BITS) + product + error[k]) % 2**32)
    return struct.pack(f"<{len(out)}I", *out)


def field_elements(seed: bytes, count: int) -> list[int]:
    words = struct.unpack(f"<{2 * count}I", stream(seed, 8 * count))
    return [word & P for word in words if word & P != P][:count]


def at(points: list[tuple[int, int]], x: int) -> int:
    total = 0
    for i, (xi, yi) in enumerate(points):
        term = yi
        for j, (xj, _) in enumerate(points):
            if i != j:
                term = term * (x - xj) * pow(xi - xj, -1, P) % P
        total += term
    return total % P


def share(client: int, place: int) -> list[int]:
    columns = N // 2
    drawn = field_elements(derive(randomness(client)[:32], "secagg/rlwe/dealing"), 2 * 2 + columns + 2)
    blinds, noise = drawn[:4], drawn[4:]
    secret = secret_of(client)
    rows = [[*(v % P for v in secret[r * columns : (r + 1) * columns]), *blinds[2 * r : 2 * r + 2]] for r in range(2)]
    return [at([(P - 1, rows[0][c]), (P - 2, rows[1][c]), (P - 3, noise[c])], place) for c in range(columns + 2)]


def parts_of(client: int) -> tuple[bytes, list[bytes], bytes]:
    payload = bytes.fromhex(VECTORS["uploads"][str(client)])[10:]
    size = int.from_bytes(payload[:4], "big")
    sealed = 1120 + 16 + 4 * (N // 2 + 2)
    padding = -(10 + 4 + size) % 8
    assert payload[4 + size : 4 + size + padding] == bytes(padding)
    rest = payload[4 + size + padding :]
    return payload[4 : 4 + size], [rest[i * sealed : (i + 1) * sealed] for i in range(4)], rest[4 * sealed :]


@pytest.mark.parametrize("client", ALIVE)
def test_an_upload_is_what_the_spec_computes(client: int) -> None:
    header, sealed, vector = parts_of(client)
    assert vector == masked(client)
    body = agreed() | {
        "shares": [hashlib.sha256(one).digest() for one in sealed],
        "vector": blake3.blake3(vector).digest(),
    }
    seed = VECTORS["clients"][str(client)]["signer_seed"]
    assert header == signed("upload", client, body, seed)
    assert bytes.fromhex(VECTORS["uploads"][str(client)])[:6] == b"mbSR\x01\x01"


@pytest.mark.parametrize("client", ALIVE)
def test_sealed_shares_hold_what_the_spec_deals(client: int) -> None:
    _, sealed, _ = parts_of(client)
    for place, number in enumerate(MEMBERS, start=1):
        label = tag(
            "secagg/rlwe/share",
            b"rlwe-2048-32",
            task_hash(),
            u32(SESSION["round"]),
            u32(client),
            u32(number),
            binding(),
        )
        opened = kem.open_once(member_recipient(number), sealed[place - 1], info=label, associated_data=label)
        values = list(struct.unpack(f"<{N // 2 + 2}I", opened))
        picked = [0, 1, N // 2 - 1, N // 2, N // 2 + 1]
        assert [values[c] for c in picked] == [share(client, place)[c] for c in picked]


def challenge() -> bytes:
    return derive(bytes.fromhex(VECTORS["server_randomness"]), "secagg/rlwe/challenge")


def transcript() -> bytes:
    alive = [[client, hashlib.sha256(parts_of(client)[0]).digest()] for client in ALIVE]
    sets = cbor({"alive": alive, "challenge": challenge(), "dropped": [1]})
    return hashed("secagg/rlwe/transcript", binding(), sets, bytes(32))


def test_the_servers_questions_are_what_the_spec_computes() -> None:
    parts = {client: parts_of(client) for client in ALIVE}
    body = {
        "challenge": challenge(),
        "dropped": [1],
        "headers": [[client, parts[client][0]] for client in ALIVE],
        "previous": bytes(32),
        "receiver": FIRST_MEMBER,
        "shares": [[client, parts[client][1][0]] for client in ALIVE],
    }
    assert VECTORS["announcements"][str(FIRST_MEMBER)] == frame(2, cbor(body)).hex()
    said = [bytes.fromhex(one)[10:] for one in VECTORS["confirmations"].values()]
    whole = [bytes.fromhex(one) for one in VECTORS["confirmations"].values()]
    assert VECTORS["quorum"] == frame(4, cbor({"confirmations": whole})).hex()
    assert said == [
        signed("confirmation", n, {"transcript": transcript()}, VECTORS["committee"][str(n)]["signer_seed"])
        for n in MEMBERS
    ]


def test_a_release_is_what_the_spec_computes() -> None:
    place, number = 2, MEMBERS[1]
    shares = {client: share(client, place) for client in ALIVE}
    columns = N // 2
    weights = field_elements(derive(challenge(), "secagg/rlwe/check"), 2 * columns)
    rows = (weights[:columns], weights[columns:])
    checks = [
        (shares[client][columns + k] + sum(w * v for w, v in zip(rows[k], shares[client], strict=False))) % P
        for client in ALIVE
        for k in range(2)
    ]
    sums = [sum(shares[client][c] for client in ALIVE) % P for c in range(columns)]
    body = {
        "checks": struct.pack(f"<{len(checks)}I", *checks),
        "sums": struct.pack(f"<{columns}I", *sums),
        "transcript": transcript(),
    }
    seed = VECTORS["committee"][str(number)]["signer_seed"]
    assert VECTORS["releases"][str(number)] == frame(5, signed("release", number, body, seed)).hex()


def test_the_total_is_the_plain_sum_of_the_survivors() -> None:
    assert VECTORS["survivors"] == list(ALIVE)
    vectors = [VECTORS["clients"][str(client)]["vector"] for client in ALIVE]
    assert VECTORS["total"] == [sum(column) for column in zip(*vectors, strict=True)]


def test_our_code_takes_the_known_messages_and_releases_the_known_sum() -> None:
    made = new_round()
    for message in VECTORS["uploads"].values():
        made.server.receive(bytes.fromhex(message))
    asked = made.server.advance()
    assert asked[FIRST_MEMBER].hex() == VECTORS["announcements"][str(FIRST_MEMBER)]
    said = {n: made.members[n].answer(message) for n, message in asked.items()}
    assert {str(n): message.hex() for n, message in said.items()} == VECTORS["confirmations"]
    for message in said.values():
        made.server.receive(message)
    quorum = made.server.advance()
    released = {n: made.members[n].answer(message) for n, message in quorum.items()}
    assert {str(n): message.hex() for n, message in released.items()} == VECTORS["releases"]
    for message in released.values():
        made.server.receive(message)
    assert np.array_equal(made.server.release().total, VECTORS["total"])


@pytest.mark.parametrize("fault", VECTORS["must_fail"], ids=lambda fault: fault["name"].replace(" ", "-"))
def test_each_signed_field_with_a_fault_is_refused_with_its_error(fault: dict[str, str]) -> None:
    with pytest.raises(IntegrityError, match=f"^{re.escape(fault['error'])}$"):
        new_round().format.read_header(bytes.fromhex(fault["header"]), client=0)
