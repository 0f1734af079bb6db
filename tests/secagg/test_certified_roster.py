"""Rosters by certificate, against ``tests/vectors/secagg/certificates.json`` and in a round."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from mibao.errors import InputError, IntegrityError, ProtocolError
from mibao.secagg import Committee, certified_committee, certified_roster, certify
from secagg.committee_rounds import CommitteeRound, member_recipient
from secagg.make_certificate_vectors import AT_S, AUTHORITY, OTHER_TASK, STRANGER, TASK, certificate, member
from secagg.rounds import signer

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "secagg" / "certificates.json").read_text())


def roster_of(certificates: list[str]) -> dict[int, Any]:
    read = [bytes.fromhex(one) for one in certificates]
    return certified_roster(read, authority=AUTHORITY.public, task=TASK, at_s=VECTORS["at_s"])


@given(numbers=st.lists(st.integers(0, 2**32 - 1), unique=True, max_size=5), data=st.data())
def test_a_roster_is_what_was_certified_in_any_order(numbers: list[int], data: st.DataObject) -> None:
    shown = data.draw(st.permutations([certify(AUTHORITY, certificate(number)) for number in numbers]))
    found = certified_roster(shown, authority=AUTHORITY.public, task=TASK, at_s=AT_S)
    assert found == {number: signer(number).public for number in sorted(numbers)}
    assert list(found) == sorted(numbers)


def test_a_certificate_is_a_signed_map_of_the_fields_in_the_spec() -> None:
    authority = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(VECTORS["authority_seed"]))
    for number, data in enumerate(VECTORS["certificates"]):
        body = {
            "identity": b"hospital %d" % number,
            "not_after": AT_S + 43_200,
            "not_before": AT_S - 43_200,
            "number": number,
            "recipient": [],
            "role": "client",
            "signer": ["ed25519", bytes.fromhex(VECTORS["roster"][str(number)])],
            "task": bytes.fromhex(VECTORS["task"]),
            "version": 1,
        }
        content = cbor2.dumps(body, canonical=True)
        parts = b"ed25519", content
        framed = b"mibao/v1/sign/secagg/certificate\0" + b"".join(len(p).to_bytes(8, "big") + p for p in parts)
        assert cbor2.loads(bytes.fromhex(data)) == {"body": content, "signature": authority.sign(framed)}


def test_the_certificates_of_the_vectors_are_their_roster() -> None:
    assert {str(n): key.raw.hex() for n, key in roster_of(VECTORS["certificates"]).items()} == VECTORS["roster"]


@pytest.mark.parametrize("fault", VECTORS["must_fail"], ids=lambda fault: fault["name"].replace(" ", "-"))
def test_certificates_with_one_fault_are_refused_with_its_error(fault: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError, match=f"^{re.escape(fault['error'])}$"):
        roster_of(fault["certificates"])


def test_a_committee_by_certificate_is_the_pinned_one() -> None:
    shown = [certify(AUTHORITY, member(number)) for number in range(5)]
    found = certified_committee(shown, authority=AUTHORITY.public, task=TASK, at_s=AT_S, corrupt=1, packing=2)
    assert isinstance(found, Committee)
    assert {n: (m.signer, m.recipient) for n, m in found.members.items()} == {
        n: (signer(n).public, member_recipient(n).public) for n in range(5)
    }


def test_a_clients_certificate_makes_no_member() -> None:
    shown = [certify(AUTHORITY, certificate(number)) for number in range(5)]
    with pytest.raises(IntegrityError, match=r"^certificate: role: another than expected here$"):
        certified_committee(shown, authority=AUTHORITY.public, task=TASK, at_s=AT_S, corrupt=1, packing=2)


def test_an_error_about_certificates_names_nobody() -> None:
    for fault in VECTORS["must_fail"]:
        assert "hospital" not in fault["error"]


def test_a_server_that_shows_one_client_another_roster_gets_no_sum_of_both() -> None:
    honest = CommitteeRound(4)
    fewer = certified_roster(
        [certify(AUTHORITY, certificate(n)) for n in (0, 1)], authority=AUTHORITY.public, task=TASK, at_s=AT_S
    )
    shown = honest.client(0, session=replace(honest.session, roster=fewer)).start()
    with pytest.raises(ProtocolError, match=r"^client 0, step mask: roster: differs from this session's$"):
        honest.server.receive(shown)


def test_min_clients_counts_certified_identities() -> None:
    shown = [certify(AUTHORITY, certificate(n)) for n in range(3)]
    roster = certified_roster(shown, authority=AUTHORITY.public, task=TASK, at_s=AT_S)
    with pytest.raises(InputError, match="expected min_clients of 2 to 3, got 4"):
        replace(CommitteeRound(4).session, roster=roster, min_clients=4)
    padded = [*shown, certify(AUTHORITY, certificate(3, identity=b"hospital 2"))]
    with pytest.raises(IntegrityError, match=r"^roster: an identity with two keys, numbers 2 and 3$"):
        certified_roster(padded, authority=AUTHORITY.public, task=TASK, at_s=AT_S)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"task": b"short"}, "expected 32 bytes for the task"),
        ({"identity": bytes(129)}, "expected 32 bytes for the task and 1 to 128 of identity"),
        ({"number": -1}, "expected a number of 0 to 4294967295, got -1"),
        ({"not_after_s": 0}, "expected a time from which it holds"),
        ({"recipient": member_recipient(0).public}, "of a member, and of no client"),
    ],
)
def test_a_certificate_that_nobody_could_use_is_not_made(change: dict[str, Any], error: str) -> None:
    with pytest.raises(InputError, match=error):
        certificate(0, **change)


def test_neither_another_task_nor_another_authority_reads_a_roster() -> None:
    shown = [certify(AUTHORITY, certificate(0))]
    with pytest.raises(IntegrityError, match=r"^certificate: task: another than expected here$"):
        certified_roster(shown, authority=AUTHORITY.public, task=OTHER_TASK, at_s=AT_S)
    with pytest.raises(IntegrityError, match=r"^signature: not this signer's for these bytes$"):
        certified_roster(shown, authority=STRANGER.public, task=TASK, at_s=AT_S)
