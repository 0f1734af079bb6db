"""Writes ``tests/vectors/secagg/encrypted.json``. Run once a version: ``python -m secagg.make_encrypted_vectors``.

SEAL draws keys and noise from the operating system, so the file differs from run to run. Its known answers are checked
in ``test_encrypted_sum_vectors.py`` by a second computation from the spec, with integers and without SEAL.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mibao.codec import canonical
from mibao.crypto.keys import reveal_secret_bytes
from mibao.errors import ProtocolError
from mibao.secagg import engine_bfv
from mibao.secagg.encrypted_sum import HolderFormat, HolderSession, Kind
from mibao.secagg.masking import Phase
from mibao.types import RandomId
from secagg.rounds import signer
from secagg.test_encrypted_sum import AGGREGATOR, HOLDER, NOW, EncryptedRound

PATH = Path(__file__).parents[1] / "vectors" / "secagg" / "encrypted.json"
CLIENTS, DROPPED, LENGTH = 3, (1,), 5


def new_round(**changes: Any) -> EncryptedRound:
    """The round of the vectors; the holder's key is another each time."""
    return EncryptedRound(CLIENTS, length=LENGTH, seed=2025, **changes)


def main() -> None:
    """Write the file anew."""
    made = new_round()
    key = made.holder.key_message()
    uploads = {n: made.client(n).start() for n in range(CLIENTS) if n not in DROPPED}
    for message in uploads.values():
        made.server.receive(message)
    request = made.server.advance()[HOLDER]
    answer = made.holder.answer(request)
    made.server.receive(answer)
    released = made.server.release()
    messages = {"key": key, "upload": uploads[0], "request": request, "answer": answer}
    content = {
        "about": "One round of encrypted_sum, docs/spec/secagg.md; client 1 sends nothing. Messages in base64.",
        "session": {
            "session_id": made.session.session_id.value.hex(),
            "round": made.session.round,
            "min_clients": made.session.min_clients,
            "length": LENGTH,
            "input_bits": made.session.input_bits,
            "expires_s": made.session.expires_s,
            "holder": HOLDER,
            "aggregator": AGGREGATOR,
        },
        "signer_seeds": {n: reveal_secret_bytes(signer(n)).hex() for n in (*range(CLIENTS), HOLDER, AGGREGATOR)},
        "vectors": {n: made.vectors[n].tolist() for n in range(CLIENTS)},
        "prime": made.holder._engine.prime,
        "plain_modulus": made.holder._engine.plain_modulus,
        "secret": "".join("-0+"[value + 1] for value in secret_coefficients(made)),
        "key": coded(key),
        "uploads": {n: coded(message) for n, message in uploads.items()},
        "request": coded(request),
        "answer": coded(answer),
        "survivors": released.survivors,
        "total": released.total.tolist(),
        "must_fail": [must_fail(made, messages, *fault) for fault in faults(made, messages)],
    }
    PATH.write_text(json.dumps(content, indent=1) + "\n")


def coded(message: bytes) -> str:
    """A message as text."""
    return base64.b64encode(message).decode()


def secret_coefficients(made: EncryptedRound) -> list[int]:
    """The holder's secret as the ternary polynomial that it is; SEAL stores it transformed, in bit-reversed order."""
    engine, degree = made.holder._engine, engine_bfv.SLOTS
    stored = made.holder._secret.handle.to_string()
    values = [int(value) for value in np.frombuffer(stored[-8 * degree :], dtype="<u8")]
    root = smallest_root(engine.prime, 2 * degree)
    points = [pow(root, 2 * int(f"{at:011b}"[::-1], 2) + 1, engine.prime) for at in range(degree)]
    inverses = [pow(point, -1, engine.prime) for point in points]
    scale, powers, found = pow(degree, -1, engine.prime), [1] * degree, []
    for _ in range(degree):
        value = sum(v * p for v, p in zip(values, powers, strict=True)) * scale % engine.prime
        found.append(value - engine.prime if value > engine.prime // 2 else value)
        powers = [p * i % engine.prime for p, i in zip(powers, inverses, strict=True)]
    assert set(found) <= {-1, 0, 1}
    return found


def smallest_root(prime: int, order: int) -> int:
    """The smallest primitive root of unity of this order, a power of two."""
    root = next(
        candidate
        for candidate in (pow(base, (prime - 1) // order, prime) for base in range(2, 1000))
        if pow(candidate, order // 2, prime) == prime - 1
    )
    square, best, current = root * root % prime, root, root
    for _ in range(order // 2):
        best, current = min(best, current), current * square % prime
    return best


def signed_of(made: EncryptedRound, kind: Kind, message: bytes) -> bytes:
    """The signed map of a message, without what stands beside it."""
    payload = bytes(made.server._format.payload(kind, message, most=1 << 20))
    return payload[4 : 4 + int.from_bytes(payload[:4], "big")] if kind in (Kind.UPLOAD, Kind.REQUEST) else payload


def with_signed(made: EncryptedRound, kind: Kind, message: bytes, signed: bytes) -> bytes:
    """A message with another signed map; what stands beside it stays."""
    if kind not in (Kind.UPLOAD, Kind.REQUEST):
        return made.server._format.frame(kind, signed)
    payload = bytes(made.server._format.payload(kind, message, most=1 << 20))
    rest = payload[4 + int.from_bytes(payload[:4], "big") :]
    return made.server._format.frame(kind, len(signed).to_bytes(4, "big") + signed + rest)


Fault = tuple[str, Kind, bytes]


def faults(made: EncryptedRound, messages: dict[str, bytes]) -> list[Fault]:
    """What must be refused: a name, a kind of message, and its signed map."""
    found: list[Fault] = []
    bodies = {
        kind: body_of(signed_of(made, kind, messages[kind.name.lower()]))
        for kind in (Kind.KEY, Kind.UPLOAD, Kind.REQUEST, Kind.ANSWER)
    }
    senders = {Kind.KEY: HOLDER, Kind.UPLOAD: 0, Kind.REQUEST: AGGREGATOR, Kind.ANSWER: HOLDER}

    def add(
        name: str, kind: Kind, *, session: HolderSession | None = None, by: int | None = None, **changes: Any
    ) -> None:
        """The body with fields replaced or, with ``None``, left out; signed for ``session`` by its sender or ``by``."""
        form = HolderFormat(session or made.session)
        agreed = form.agreed if kind in (Kind.KEY, Kind.UPLOAD) else {}
        body = {name: value for name, value in {**bodies[kind], **agreed, **changes}.items() if value is not None}
        key = signer(senders[kind] if by is None else by)
        found.append((name, kind, form.maps.write(kind.name.lower(), body, sender=senders[kind], signer=key)))

    for name, change in SESSIONS.items():
        add(f"upload: {name}", Kind.UPLOAD, session=change(made.session))
    for kind in Kind:
        add(f"{kind.name.lower()}: signed by another", kind, by=99)
        add(f"{kind.name.lower()}: signed for another session", kind, session=SESSIONS["round"](made.session))
        add(f"{kind.name.lower()}: field too many", kind, more=1)
    add("upload: version", Kind.UPLOAD, version=2)
    add("upload: a boolean for the version", Kind.UPLOAD, version=True)
    add("upload: hash of the vector", Kind.UPLOAD, vector=bytes(32))
    add("upload: hash too short", Kind.UPLOAD, vector=bytes(31))
    add("upload: field missing", Kind.UPLOAD, key=None)
    header = bodies[Kind.REQUEST]["headers"]
    add("request: encrypted to another key", Kind.REQUEST, headers=[[0, rekeyed(made, header[0][1])], header[1]])
    add("request: too few clients", Kind.REQUEST, headers=header[:1], dropped=[1, 2])
    add("request: alive and dropped", Kind.REQUEST, dropped=[1, 2])
    add("request: somebody left out", Kind.REQUEST, dropped=[])
    add("request: somebody who is not invited", Kind.REQUEST, dropped=[1, 7])
    add("request: not ascending", Kind.REQUEST, headers=header[::-1])
    add("request: a header of another client", Kind.REQUEST, headers=[[0, header[1][1]], header[1]])
    add("request: hash of the sum", Kind.REQUEST, sum=bytes(32))
    add("answer: another transcript", Kind.ANSWER, transcript=bytes(32))
    add("answer: a sum of another length", Kind.ANSWER, sum=bodies[Kind.ANSWER]["sum"][:-8])
    return found


def changed(**changes: Any) -> Callable[[HolderSession], HolderSession]:
    """The session with other values."""
    return lambda session: replace(session, **changes)


SESSIONS: dict[str, Callable[[HolderSession], HolderSession]] = {
    "session": changed(session_id=RandomId(b"fedcba9876543210")),
    "round": changed(round=2),
    "roster": lambda session: replace(session, roster={**session.roster, 7: signer(98).public}),
    "holder's number": changed(holder=(501, signer(HOLDER).public)),
    "holder's key": changed(holder=(HOLDER, signer(97).public)),
    "aggregator": changed(aggregator=(AGGREGATOR, signer(97).public)),
    "min_clients": changed(min_clients=3),
    "length": changed(length=LENGTH + 1),
    "input_bits": changed(input_bits=15),
    "expiry": changed(expires_s=NOW + 3600),
    "task": changed(task_hash=b"another task".ljust(32)),
}


def body_of(signed: bytes) -> dict[str, Any]:
    """What a signed map says."""
    envelope: Any = canonical.decode(signed, max_bytes=1 << 20)
    body: Any = canonical.decode(envelope["body"], max_bytes=1 << 20)
    return dict(body)


def rekeyed(made: EncryptedRound, header: bytes) -> bytes:
    """Client 0's header, which says that it encrypted to another key."""
    body = {**body_of(header), "key": bytes(32)}
    return made.server._format.maps.write("upload", body, sender=0, signer=signer(0))


def refuse(made: EncryptedRound, kind: Kind, message: bytes) -> None:
    """Hand a message to whom it is for."""
    if kind is Kind.KEY:
        made.client(0, key_message=message)
    elif kind is Kind.REQUEST:
        made.holder.answer(message)
    else:
        made.server.receive(message)


def with_keys_of(made: EncryptedRound, key_message: bytes) -> EncryptedRound:
    """The round with the public key of this message at its holder, who cannot decrypt with it."""
    made.holder._public = made.holder._format.read_key(key_message)
    return made


def must_fail(made: EncryptedRound, messages: dict[str, bytes], name: str, kind: Kind, signed: bytes) -> dict[str, str]:
    """The fault, and what its reader says."""
    asked = with_keys_of(new_round(), messages["key"])
    if kind is Kind.ANSWER:
        asked.server._phase, asked.server._transcript = Phase.REVEAL, made.server._transcript
    message = with_signed(made, kind, messages[kind.name.lower()], signed)
    try:
        refuse(asked, kind, message)
    except ProtocolError as error:
        return {"name": name, "kind": kind.name.lower(), "signed": coded(signed), "error": str(error)}
    raise AssertionError(f"{name}: was not refused")


if __name__ == "__main__":
    main()
