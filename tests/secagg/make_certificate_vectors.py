"""Writes ``tests/vectors/secagg/certificates.json``: ``python -m secagg.make_certificate_vectors``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from mibao.codec import canonical
from mibao.crypto import sign
from mibao.crypto.keys import SignerSuite, reveal_secret_bytes
from mibao.errors import IntegrityError
from mibao.secagg import Certificate, Role, certified_roster, certify
from secagg.committee_rounds import member_recipient
from secagg.rounds import signer

PATH = Path(__file__).parents[1] / "vectors" / "secagg" / "certificates.json"
AUTHORITY, STRANGER = signer(500), signer(501)
TASK, OTHER_TASK = hashlib.sha256(b"a training").digest(), hashlib.sha256(b"another training").digest()
AT_S = 1_800_000_000


def certificate(number: int, /, **changes: Any) -> Certificate:
    """A client's certificate, valid for a day around ``AT_S``."""
    given: dict[str, Any] = {
        "role": Role.CLIENT,
        "task": TASK,
        "identity": b"hospital %d" % number,
        "number": number,
        "signer": signer(number).public,
        "not_before_s": AT_S - 43_200,
        "not_after_s": AT_S + 43_200,
    }
    given.update(changes)
    return Certificate(**given)


def member(number: int) -> Certificate:
    """A committee member's certificate."""
    return certificate(number, role=Role.MEMBER, recipient=member_recipient(number).public)


def forged(**changes: Any) -> bytes:
    """A certificate of client 1 whose body the authority signed with fields replaced or, with ``None``, left out."""
    envelope: Any = canonical.decode(certify(AUTHORITY, certificate(1)), max_bytes=1 << 14)
    body: Any = {**canonical.decode(envelope["body"], max_bytes=1 << 14), **changes}  # type: ignore[dict-item]
    content = canonical.encode({name: value for name, value in body.items() if value is not None})
    signature = sign.sign(AUTHORITY, content, purpose="secagg/certificate")
    return canonical.encode({"body": content, "signature": signature})


def signed_for_another_purpose() -> bytes:
    """The authority's signature of the same body, made for a round's upload."""
    envelope: Any = canonical.decode(certify(AUTHORITY, certificate(1)), max_bytes=1 << 14)
    body = envelope["body"]
    return canonical.encode({"body": body, "signature": sign.sign(AUTHORITY, body, purpose="secagg/rlwe/upload")})


def flipped(data: bytes) -> bytes:
    """One bit of the body changed."""
    at = data.index(b"hospital")
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def faults() -> list[tuple[str, list[bytes]]]:
    """For each fault the certificates that are shown beside a good one."""
    good, key = certify(AUTHORITY, certificate(0)), signer(1).public
    hybrid = signer(1, SignerSuite.ED25519_MLDSA65).public
    return [
        (name, [good, *shown])
        for name, shown in (
            ("signed by another authority", [certify(STRANGER, certificate(1))]),
            ("signed for another purpose", [signed_for_another_purpose()]),
            ("one bit changed", [flipped(certify(AUTHORITY, certificate(1)))]),
            ("expired", [certify(AUTHORITY, certificate(1, not_after_s=AT_S - 1))]),
            ("not valid yet", [certify(AUTHORITY, certificate(1, not_before_s=AT_S + 1))]),
            ("another task", [certify(AUTHORITY, certificate(1, task=OTHER_TASK))]),
            ("another role", [certify(AUTHORITY, member(1))]),
            ("another version", [forged(version=2)]),
            ("a boolean for the version", [forged(version=True)]),
            ("the same certificate twice", [good]),
            ("the same identity under two numbers", [certify(AUTHORITY, certificate(1, identity=b"hospital 0",
                                                                                    signer=signer(0).public))]),
            ("an identity with two keys", [certify(AUTHORITY, certificate(1, identity=b"hospital 0"))]),
            ("an identity with two keys under one number", [certify(AUTHORITY, certificate(0, signer=key))]),
            ("two identities under one number", [certify(AUTHORITY, certificate(0, identity=b"x", signer=key))]),
            ("two identities with one key", [certify(AUTHORITY, certificate(1, signer=signer(0).public))]),
            ("no identity", [forged(identity=b"")]),
            ("a number too large", [forged(number=1 << 32)]),
            ("a key of an unknown suite", [forged(signer=["rsa", key.raw])]),
            ("a key of the wrong length", [forged(signer=[hybrid.suite.value, key.raw])]),
            ("a key of small order", [forged(signer=[key.suite.value, bytes(32)])]),
            ("a key to seal to of a client", [forged(recipient=["mlkem768-x25519", member_recipient(1).public.raw])]),
            ("field missing", [forged(not_after=None)]),
            ("field too many", [forged(more=1)]),
            ("longer than a certificate may be", [bytes(8193)]),
        )
    ]  # fmt: skip


def read(shown: list[bytes]) -> dict[int, Any]:
    """The roster of these certificates."""
    return certified_roster(shown, authority=AUTHORITY.public, task=TASK, at_s=AT_S)


def main() -> None:
    """Write the file anew."""
    good = [certify(AUTHORITY, certificate(number)) for number in range(3)]
    must_fail = []
    for name, shown in faults():
        try:
            read(shown)
        except IntegrityError as error:
            must_fail.append({"name": name, "certificates": [one.hex() for one in shown], "error": str(error)})
        else:
            raise AssertionError(f"{name}: was not refused")
    content = {
        "about": "Certificates of docs/spec/secagg.md, section 13: a roster, and sets that must be refused.",
        "authority_seed": reveal_secret_bytes(AUTHORITY).hex(),
        "task": TASK.hex(),
        "at_s": AT_S,
        "certificates": [one.hex() for one in good],
        "roster": {number: key.raw.hex() for number, key in read(good).items()},
        "must_fail": must_fail,
    }
    PATH.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
