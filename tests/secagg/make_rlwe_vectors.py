"""Writes ``tests/vectors/secagg/rlwe.json``. Run once a format version: ``python -m secagg.make_rlwe_vectors``.

The known answers are checked in ``test_masking_rlwe_vectors.py`` by a second computation from the spec. Encapsulation
draws its own randomness, so sealed shares differ from run to run; everything else is a function of what stands here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mibao.crypto.keys import RecipientPrivateKey, SignerPrivateKey, reveal_secret_bytes
from mibao.errors import IntegrityError
from mibao.secagg.masking_rlwe import Committee, CommitteeSession, Member
from mibao.secagg.masking_rlwe_messages import RlweFormat
from mibao.secagg.rlwe_parameters import ParameterSet
from secagg.committee_rounds import FIRST_MEMBER, NOW, CommitteeRound, committee, member_recipient, member_signer
from secagg.rounds import signer

PATH = Path(__file__).parents[1] / "vectors" / "secagg" / "rlwe.json"
SMALLEST = committee(4, corrupt=1, packing=2)
DROPPED = (1,)
CLIENTS = 3


def main() -> None:
    """Write the file anew."""
    made = new_round()
    clients = {n: {"randomness": made.randomness(64), "vector": made.vectors[n]} for n in range(CLIENTS)}
    uploads = {n: made.client(n, randomness=clients[n]["randomness"]).start() for n in clients if n not in DROPPED}
    for message in uploads.values():
        made.server.receive(message)
    announcements = dict(made.server.advance())
    confirmations = made.answers(announcements)
    quorum = made.server.advance()
    releases = made.answers(quorum)
    released = made.server.release()
    header = made.format.read_upload(uploads[0]).header
    content = {
        "about": "One round of the one-shot scheme, docs/spec/secagg.md; client 1 sends nothing.",
        "session": {
            "session_id": made.session.session_id.value.hex(),
            "round": made.session.round,
            "parameters": made.session.parameters.id,
            "trust": made.session.trust.value,
            "min_clients": made.session.min_clients,
            "length": made.session.length,
            "input_bits": made.session.input_bits,
            "expires_s": made.session.expires_s,
            "corrupt": SMALLEST.corrupt,
            "packing": SMALLEST.packing,
        },
        "clients": {
            n: {
                "signer_seed": secret(made.signers[n]),
                "randomness": given["randomness"].hex(),
                "vector": given["vector"].tolist(),
            }
            for n, given in clients.items()
        },
        "committee": {
            n: {"signer_seed": secret(member_signer(n)), "recipient_seed": secret(member_recipient(n))}
            for n in SMALLEST.members
        },
        "server_randomness": new_round().server._randomness.hex(),
        "uploads": hexed(uploads),
        "announcements": {FIRST_MEMBER: announcements[FIRST_MEMBER].hex()},
        "confirmations": hexed(confirmations),
        "quorum": next(iter(quorum.values())).hex(),
        "releases": hexed(releases),
        "survivors": released.survivors,
        "total": released.total.tolist(),
        "must_fail": [must_fail(made, header, *fault) for fault in FAULTS],
    }
    PATH.write_text(json.dumps(content, indent=1) + "\n")


def new_round() -> CommitteeRound:
    """The round of the vectors."""
    return CommitteeRound(CLIENTS, committee=SMALLEST, length=5, seed=2025)


def secret(key: SignerPrivateKey | RecipientPrivateKey) -> str:
    """A private key's seed."""
    return reveal_secret_bytes(key).hex()


def hexed(messages: dict[int, bytes]) -> dict[int, str]:
    """Messages as text."""
    return {number: message.hex() for number, message in messages.items()}


def with_member(**changes: Any) -> Callable[[CommitteeSession], CommitteeSession]:
    """The session with another key of its first member."""

    def change(session: CommitteeSession) -> CommitteeSession:
        members = dict(session.committee.members)
        members[FIRST_MEMBER] = replace(members[FIRST_MEMBER], **changes)
        return replace(session, committee=Committee(members=members, corrupt=1, packing=2))

    return change


def renumbered(session: CommitteeSession) -> CommitteeSession:
    """The session with its first member under another number."""
    members: dict[int, Member] = dict(session.committee.members)
    members[999] = members.pop(FIRST_MEMBER)
    return replace(session, committee=Committee(members=members, corrupt=1, packing=2))


def changed(**changes: Any) -> Callable[[CommitteeSession], CommitteeSession]:
    """The session with other values."""
    return lambda session: replace(session, **changes)


# What the client holds to be true, or what it signed in one field.
Fault = Callable[[CommitteeSession], CommitteeSession] | dict[str, Any]
FAULTS: list[tuple[str, Fault]] = [
    ("version", {"version": 2}),
    ("parameter set", changed(parameters=ParameterSet.RLWE_2048_48)),
    ("parameter set outside the table", {"parameters": "rlwe-1024-32"}),
    ("task", changed(task_hash=b"another task".ljust(32))),
    ("clip", changed(clip=2.0)),
    ("noise", changed(noise_multiplier=1.0)),
    ("min_clients", changed(min_clients=3)),
    ("trust", lambda session: replace(session, trust=type(session.trust)("honest-server"))),
    ("session", lambda session: replace(session, session_id=type(session.session_id)(b"fedcba9876543210"))),
    ("round", changed(round=2)),
    ("input model", changed(model_hash=b"another model".ljust(32))),
    ("member's number", renumbered),
    ("member's KEM key", with_member(recipient=member_recipient(5).public)),
    ("member's signing key", with_member(signer=signer(99).public)),
    ("t", {"corrupt": 2}),
    ("l", {"packing": 4}),
    ("R", {"reconstruct": 2}),
    ("Q", {"quorum": 2}),
    ("roster", lambda session: replace(session, roster={**session.roster, 7: signer(98).public})),
    ("expiry", changed(expires_s=NOW + 3600)),
    ("hash of the vector", {"vector": b"short"}),
    ("hash of a share missing", {"shares": [bytes(32)] * 3}),
    ("field missing", {"quorum": None}),
    ("field too many", {"more": 1}),
    ("boolean for an integer", {"corrupt": True}),
]


def must_fail(made: CommitteeRound, header: bytes, name: str, fault: Fault) -> dict[str, str]:
    """A header with one fault, properly signed by its client, and what a reader says."""
    if isinstance(fault, dict):
        body = {**made.header_body(header), **fault}
        body = {name: value for name, value in body.items() if value is not None}
        forged = sign(RlweFormat(made.session), body, made.signers[0])
    else:
        theirs = RlweFormat(fault(made.session))
        body = {**theirs._agreed, "shares": [bytes(32)] * 4, "vector": bytes(32)}
        forged = sign(theirs, body, made.signers[0])
    try:
        made.format.read_header(forged, client=0)
    except IntegrityError as error:
        return {"name": name, "header": forged.hex(), "error": str(error)}
    raise AssertionError(f"{name}: was not refused")


def sign(form: RlweFormat, body: dict[str, Any], key: SignerPrivateKey) -> bytes:
    """A signed header."""
    from mibao.secagg.masking_rlwe_messages import Kind

    return form.sign_map(Kind.UPLOAD, body, sender=0, signer=key)


if __name__ == "__main__":
    main()
