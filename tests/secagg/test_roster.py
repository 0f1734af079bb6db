"""Rosters: checked and hashed once for all rounds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mibao.codec import canonical
from mibao.crypto.kdf import domain_tag
from mibao.errors import InputError
from mibao.secagg import Roster
from secagg.committee_rounds import CommitteeRound
from secagg.rounds import signer


def test_a_roster_is_the_mapping_it_was_made_of_in_ascending_order() -> None:
    keys = {number: signer(number).public for number in (7, 2, 5)}
    roster = Roster(keys)
    assert roster == keys
    assert list(roster) == [2, 5, 7]
    assert repr(roster) == "<Roster of 3>"
    keys[9] = signer(9).public
    assert 9 not in roster


def test_the_rounds_of_a_run_hash_their_roster_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[object] = []
    encode: Callable[[Any], bytes] = canonical.encode

    def counted(value: Any) -> bytes:
        if isinstance(value, list) and len(value) == 4 and len(value[0]) == 3:
            hashed.append(value)
        return encode(value)

    monkeypatch.setattr(canonical, "encode", counted)
    first = CommitteeRound(4).session
    rounds = [replace(first, round=number) for number in range(5)]
    assert len({one.roster_root for one in rounds}) == 1
    assert all(one.roster is first.roster for one in rounds)
    assert len(hashed) == 1


def test_the_root_is_the_hash_in_the_spec() -> None:
    roster = Roster({number: signer(number).public for number in range(3)})
    listed: list[canonical.Value] = [[n, "ed25519", signer(n).public.raw] for n in range(3)]
    tag = domain_tag("secagg/rlwe/roster", canonical.encode(listed))
    assert roster.root == hashlib.sha256(tag).digest()


def test_numbers_out_of_range_and_one_key_under_two_numbers_are_refused() -> None:
    with pytest.raises(InputError, match=r"^session: expected client number of 0 to 4294967295, got -1$"):
        Roster({-1: signer(1).public})
    with pytest.raises(
        InputError, match=r"^session: expected a signing key of its own for every client, got one twice$"
    ):
        Roster({1: signer(1).public, 2: signer(1).public})
