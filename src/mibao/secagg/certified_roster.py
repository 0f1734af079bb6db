"""Rosters and committees whose keys an authority signed: who counts, where nobody pins each key by hand.

An authority that all parties pin names one key for one identity, role and task. A server may carry certificates; it
can add nobody, count nobody twice, and put no key of its own under another's number.

Source: ``docs/spec/secagg.md``, section 13.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from mibao.codec import canonical
from mibao.crypto import sign
from mibao.crypto.keys import RecipientPublicKey, RecipientSuite, SignerPrivateKey, SignerPublicKey, SignerSuite
from mibao.errors import InputError, IntegrityError
from mibao.secagg import message_fields as fields
from mibao.secagg.masking import MAX_CLIENT_NUMBER, TASK_HASH_BYTES
from mibao.secagg.masking_rlwe import MAX_RLWE_CLIENTS, Committee, Member
from mibao.secagg.roster import Roster
from mibao.secagg.signed_maps import decode_map

VERSION = 1
MAX_IDENTITY_BYTES = 128
MAX_CERTIFICATE_BYTES = 8192
_PURPOSE = "secagg/certificate"
_MAX_TIME = (1 << 63) - 1

Named = TypeVar("Named", RecipientSuite, SignerSuite)


class Role(Enum):
    """What a certified key may be used as."""

    CLIENT = "client"
    MEMBER = "member"


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What an authority says of one key.

    Attributes:
        role: A client's key, or a member's of the committee.
        task: 32 bytes that name what the key is certified for.
        identity: Whom the authority knows the holder as: one person or institution, 1 to 128 bytes.
        number: The holder's number in rounds of the task.
        signer: Its signing key.
        recipient: What shares are sealed to; of members only.
        not_before_s: Unix time from which it holds.
        not_after_s: Unix time after which it does not.

    Raises:
        InputError: a value is out of range, or the keys are not those of the role.
    """

    role: Role
    task: bytes
    identity: bytes
    number: int
    signer: SignerPublicKey
    recipient: RecipientPublicKey | None = None
    not_before_s: int
    not_after_s: int

    def __post_init__(self) -> None:
        if len(self.task) != TASK_HASH_BYTES or not 1 <= len(self.identity) <= MAX_IDENTITY_BYTES:
            raise InputError(f"certificate: expected 32 bytes for the task and 1 to {MAX_IDENTITY_BYTES} of identity")
        if not 0 <= self.number <= MAX_CLIENT_NUMBER:
            raise InputError(f"certificate: expected a number of 0 to {MAX_CLIENT_NUMBER}, got {self.number}")
        if not 0 <= self.not_before_s <= self.not_after_s <= _MAX_TIME:
            raise InputError("certificate: expected a time from which it holds, no later than the time until which")
        if (self.recipient is not None) is not (self.role is Role.MEMBER):
            raise InputError("certificate: expected a key to seal to of a member, and of no client")


def certify(authority: SignerPrivateKey, certificate: Certificate) -> bytes:
    """The certificate as the authority signs it."""
    body = canonical.encode(
        {
            "identity": certificate.identity,
            "not_after": certificate.not_after_s,
            "not_before": certificate.not_before_s,
            "number": certificate.number,
            "recipient": _written(certificate.recipient),
            "role": certificate.role.value,
            "signer": _written(certificate.signer),
            "task": certificate.task,
            "version": VERSION,
        }
    )
    return canonical.encode({"body": body, "signature": sign.sign(authority, body, purpose=_PURPOSE)})


def read_certificate(data: bytes, *, authority: SignerPublicKey, role: Role, task: bytes, at_s: int) -> Certificate:
    """What this authority signed for this role and task, valid at ``at_s``.

    Raises:
        IntegrityError: malformed, signed by another, for another role or task, expired or not valid yet.
    """
    if len(data) > MAX_CERTIFICATE_BYTES:
        raise IntegrityError(f"certificate: expected at most {MAX_CERTIFICATE_BYTES} bytes, got {len(data)}")
    envelope = decode_map(data)
    fields.expect_fields(envelope, "body", "signature")
    content = fields.octets(envelope, "body")
    sign.verify(authority, content, fields.octets(envelope, "signature"), purpose=_PURPOSE)
    body = decode_map(content)
    fields.expect_fields(
        body, "identity", "not_after", "not_before", "number", "recipient", "role", "signer", "task", "version"
    )
    for name, expected in (("version", VERSION), ("role", role.value), ("task", task)):
        if body[name] != expected or type(body[name]) is not type(expected):
            raise IntegrityError(f"certificate: {name}: another than expected here")
    try:
        found = Certificate(
            role=role,
            task=task,
            identity=fields.octets(body, "identity"),
            number=fields.integer(body, "number"),
            signer=_signer(body["signer"]),
            recipient=_recipient(body["recipient"]),
            not_before_s=fields.integer(body, "not_before"),
            not_after_s=fields.integer(body, "not_after"),
        )
    except InputError as error:
        raise IntegrityError(str(error)) from error
    if not found.not_before_s <= at_s <= found.not_after_s:
        raise IntegrityError("certificate: expired, or not valid yet")
    return found


def certified_roster(certificates: Iterable[bytes], *, authority: SignerPublicKey, task: bytes, at_s: int) -> Roster:
    """The roster of a session: each number's key, one number and one key an identity.

    ``min_clients`` of a session over it counts certified identities.

    Args:
        certificates: One a client, in any order and from anybody.
        authority: Who signed them, pinned.
        task: What they must be for.
        at_s: When they must be valid; take the session's expiry.

    Raises:
        IntegrityError: one does not hold, or two share an identity, a number or a key; names the numbers.
    """
    held = _held(certificates, authority=authority, role=Role.CLIENT, task=task, at_s=at_s)
    return Roster({number: certificate.signer for number, certificate in held.items()})


def certified_committee(
    certificates: Iterable[bytes], *, authority: SignerPublicKey, task: bytes, at_s: int, corrupt: int, packing: int
) -> Committee:
    """The committee whose members' keys an authority signed, each an identity of its own.

    Raises:
        IntegrityError: as :func:`certified_roster`.
        InputError: as :class:`~mibao.secagg.masking_rlwe.Committee`.
    """
    held = _held(certificates, authority=authority, role=Role.MEMBER, task=task, at_s=at_s)
    members = {
        number: Member(signer=certificate.signer, recipient=certificate.recipient)
        for number, certificate in held.items()
        if certificate.recipient is not None
    }
    return Committee(members=members, corrupt=corrupt, packing=packing)


def _held(
    certificates: Iterable[bytes], *, authority: SignerPublicKey, role: Role, task: bytes, at_s: int
) -> Mapping[int, Certificate]:
    held: dict[int, Certificate] = {}
    identities: dict[bytes, Certificate] = {}
    keys: dict[bytes, Certificate] = {}
    for data in certificates:
        one = read_certificate(data, authority=authority, role=role, task=task, at_s=at_s)
        twin = identities.setdefault(one.identity, one)
        if twin is not one:
            what = "the same identity twice" if twin.signer == one.signer else "an identity with two keys"
            raise IntegrityError(f"roster: {what}, numbers {twin.number} and {one.number}")
        if held.setdefault(one.number, one) is not one:
            raise IntegrityError(f"roster: two identities under the number {one.number}")
        other = keys.setdefault(one.signer.raw, one)
        if other is not one:
            raise IntegrityError(f"roster: two identities with one key, numbers {other.number} and {one.number}")
        if len(held) > MAX_RLWE_CLIENTS:
            raise IntegrityError(f"roster: expected at most {MAX_RLWE_CLIENTS} certificates")
    return dict(sorted(held.items()))


def _written(key: SignerPublicKey | RecipientPublicKey | None) -> list[canonical.Value]:
    return [] if key is None else [key.suite.value, key.raw]


def _signer(value: object) -> SignerPublicKey:
    return SignerPublicKey(*_suite_and_raw(value, SignerSuite))


def _recipient(value: object) -> RecipientPublicKey | None:
    return None if value == [] else RecipientPublicKey(*_suite_and_raw(value, RecipientSuite))


def _suite_and_raw(value: object, suites: Callable[[str], Named]) -> tuple[Named, bytes]:
    match value:
        case [str(name), bytes(raw)]:
            try:
                return suites(name), raw
            except ValueError as error:
                raise IntegrityError("certificate: a key of an unknown suite") from error
    raise IntegrityError("certificate: expected a suite and a raw key")
