"""Writes ``tests/vectors/secagg/pairwise.json``. Run once a format version: ``python -m secagg.make_vectors``.

The known answers are checked in ``test_masking_pairwise_vectors.py`` by a second computation from the spec.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mibao.crypto.keys import reveal_secret_bytes
from mibao.errors import ProtocolError
from mibao.secagg import Phase, client_randomness_bytes
from mibao.secagg.masking_pairwise_messages import Kind
from secagg.rounds import ORDER, Round, body_of, signer, with_envelope

PATH = Path(__file__).parents[1] / "vectors" / "secagg" / "pairwise.json"
NUMBERS = (3, 5, 8, 21)
DROPPED = {8: Phase.MASK}


def main() -> None:
    """Write the file anew."""
    made = new_round()
    made.play(made.run_to(Phase.REVEAL, dropped=DROPPED), Phase.REVEAL)
    released = made.server.release()
    content = {
        "about": "One round of the pairwise scheme, docs/spec/secagg.md; client 8 vanishes before its vector.",
        "session": {
            "session_id": made.session.session_id.value.hex(),
            "round": made.session.round,
            "threshold": made.session.threshold,
            "min_clients": made.session.min_clients,
            "length": made.session.length,
            "modulus_bits": made.session.modulus_bits,
            "task_hash": made.session.task_hash.hex(),
        },
        "clients": {
            number: {
                "signer_seed": reveal_secret_bytes(made.signers[number]).hex(),
                "randomness": client_randomness(number).hex(),
                "vector": made.vectors[number].tolist(),
            }
            for number in NUMBERS
        },
        "from_clients": {phase.value: {n: m.hex() for n, m in made.sent[phase].items()} for phase in ORDER},
        "from_server": {phase.value: {n: m.hex() for n, m in made.incoming[phase].items()} for phase in ORDER[1:]},
        "survivors": released.survivors,
        "total": released.total.tolist(),
        "must_fail": [vector(*fault) for fault in FAULTS],
    }
    PATH.write_text(json.dumps(content, indent=1) + "\n")


def new_round(round_number: int = 7) -> Round:
    """The round of the vectors."""
    return Round(NUMBERS, threshold=3, min_clients=3, length=6, modulus_bits=32, round_number=round_number, seed=2017)


def client_randomness(number: int) -> bytes:
    """What client ``number`` of :func:`new_round` was given: its clients draw in order."""
    made = new_round()
    made.randomness._drawn = 0
    drawn = [made.randomness(client_randomness_bytes(made.session)) for _ in NUMBERS]
    return drawn[NUMBERS.index(number)]


def vector(name: str, receiver: int | str, phase: Phase, make: Callable[[Round], bytes]) -> dict[str, Any]:
    """One fault: the message, who gets it in place of the true one, and what it says."""
    made = new_round()
    if phase is Phase.ADVERTISE:
        made.sent[phase] = {number: client.start() for number, client in made.clients.items()}
    else:
        made.run_to(phase, dropped=DROPPED)
    if receiver == "server" and phase is not Phase.ADVERTISE:
        taking_part = {n: m for n, m in made.incoming[phase].items() if DROPPED.get(n) is not phase}
        made.sent[phase] = {number: made.clients[number].answer(message) for number, message in taking_part.items()}
    message = make(made)
    try:
        if receiver == "server":
            made.server.receive(message)
        else:
            made.clients[int(receiver)].answer(message)
    except ProtocolError as error:
        return {"name": name, "to": receiver, "phase": phase.value, "message": message.hex(), "error": str(error)}
    raise AssertionError(f"{name}: was accepted")


def keys(made: Round, number: int, advertisement: bytes) -> bytes:
    """The server's list of keys with one advertisement replaced."""
    sent = {**made.sent[Phase.ADVERTISE], number: advertisement}
    return made.format.write_broadcast(Kind.KEYS, {"advertisements": list(sent.values())})


def survivors(alive: list[int], dropped: list[int]) -> Callable[[Round], bytes]:
    """The server's announcement of these lists."""
    return lambda made: made.format.write_broadcast(Kind.SURVIVORS, {"alive": alive, "dropped": dropped})


def altered_share(made: Round) -> bytes:
    """Client 5's share for client 3 with one bit flipped."""
    body = body_of(made.incoming[Phase.MASK][3])
    body["shares"] = [[n, bytes([c[0] ^ 1]) + c[1:] if n == 5 else c] for n, c in body["shares"]]
    return made.format.write_broadcast(Kind.DELIVERY, body)


def confirmations(*numbers: int, again: int | None = None) -> Callable[[Round], bytes]:
    """The signatures of these clients, forwarded; that of ``again`` is over another survivor set."""

    def make(made: Round) -> bytes:
        sent = dict(made.sent[Phase.CONFIRM])
        if again is not None:
            sent[again] = made.forge(Kind.CONFIRMATION, {"transcript": bytes(32)}, sender=again)
        return made.format.write_broadcast(Kind.CONFIRMATIONS, {"confirmations": [sent[n] for n in numbers]})

    return make


def unsigned_key(made: Round) -> bytes:
    """The list of keys with client 5's signature zeroed."""
    return keys(made, 5, with_envelope(made.sent[Phase.ADVERTISE][5], signature=bytes(64)))


def swapped_key(made: Round) -> bytes:
    """The list of keys with keys of the server's own under client 5's name."""
    own = {"mask_key": bytes([9]) * 32, "share_key": bytes([8]) * 32}
    return keys(made, 5, made.forge(Kind.ADVERTISEMENT, own, sender=5, key=signer(404)))


def one_of_another_round(phase: Phase) -> Callable[[Round], bytes]:
    """Client 5's message of round 6."""

    def make(made: Round) -> bytes:
        other = new_round(round_number=6)
        other.play(other.run_to(Phase.REVEAL, dropped=DROPPED), Phase.REVEAL)
        return other.sent[phase][5]

    return make


def of_client_5(kind: Kind, **changes: Any) -> Callable[[Round], bytes]:
    """Client 5's own message with fields changed, properly signed."""

    def make(made: Round) -> bytes:
        phase = list(made.sent)[-1]
        return made.forge(kind, {**body_of(made.sent[phase][5]), **changes}, sender=5)

    return make


FAULTS: tuple[tuple[str, int | str, Phase, Callable[[Round], bytes]], ...] = (
    ("unsigned key", 3, Phase.SHARE, unsigned_key),
    ("swapped key", 3, Phase.SHARE, swapped_key),
    ("key of another round", 3, Phase.SHARE, lambda m: keys(m, 5, one_of_another_round(Phase.ADVERTISE)(m))),
    ("truncated message", 3, Phase.SHARE, lambda m: m.incoming[Phase.SHARE][3][:-1]),
    ("altered share", 3, Phase.MASK, altered_share),
    ("delivery of another client", 3, Phase.MASK, lambda m: m.incoming[Phase.MASK][5]),
    ("overlapping alive and dropped", 3, Phase.CONFIRM, survivors([3, 5, 8, 21], [8])),
    ("a sharer in neither list", 3, Phase.CONFIRM, survivors([3, 5, 21], [])),
    ("too few alive", 3, Phase.CONFIRM, survivors([3, 5], [8, 21])),
    ("the receiver declared dropped", 3, Phase.CONFIRM, survivors([5, 8, 21], [3])),
    ("too few confirmations", 3, Phase.REVEAL, confirmations(3, 5)),
    ("one confirmation twice", 3, Phase.REVEAL, confirmations(3, 5, 5)),
    ("a confirmation of another set", 3, Phase.REVEAL, confirmations(3, 5, 21, again=21)),
    ("a second announcement in place of confirmations", 3, Phase.REVEAL, survivors([3, 5, 8, 21], [])),
    ("advertisement of another round", "server", Phase.ADVERTISE, one_of_another_round(Phase.ADVERTISE)),
    ("upload of another round", "server", Phase.MASK, one_of_another_round(Phase.MASK)),
    ("short vector", "server", Phase.MASK, of_client_5(Kind.UPLOAD, vector=bytes(20))),
    ("vector for the other modulus", "server", Phase.MASK, of_client_5(Kind.UPLOAD, vector=bytes(48))),
    ("missing share", "server", Phase.SHARE, of_client_5(Kind.SHARES, shares=[])),
    ("confirmation of another set", "server", Phase.CONFIRM, of_client_5(Kind.CONFIRMATION, transcript=bytes(32))),
    ("no seed shares", "server", Phase.REVEAL, of_client_5(Kind.REVELATION, seeds=[])),
)

if __name__ == "__main__":
    main()
