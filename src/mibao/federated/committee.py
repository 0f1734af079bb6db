"""Who opens the sums of a run in which a site sends one message: a committee of parties with keys of their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mibao.crypto.keys import (
    SEED_BYTES,
    RecipientPrivateKey,
    RecipientSuite,
    SignerPrivateKey,
    SignerPublicKey,
    SignerSuite,
    generate_recipient,
    generate_signer,
)
from mibao.errors import InputError
from mibao.federated.masks import OneShot
from mibao.federated.node import Instruction
from mibao.federated.task import Task
from mibao.secagg import Committee, CommitteeMember, CommitteeSession, Journal, Member, MemoryJournal
from mibao.types import RandomId

MEMBERS = range(4, 65)
_LONGEST_RUN_S = 30 * 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Keys:
    """A member's private keys."""

    signer: SignerPrivateKey
    recipient: RecipientPrivateKey = field(repr=False)


class Seat:
    """One member of the committee in one training run: it derives what is summed for itself and answers once a round.

    Args:
        task: What is trained; every party must hold the same.
        number: The member's number in the committee.
        keys: Its private keys.
        roster: Every site's public key, pinned before the run.
        session_id: Names the run.
        one_shot: The committee.
        journal: Where it records what it signs. A member that may be restarted needs one on a disk.
    """

    def __init__(
        self,
        task: Task,
        *,
        number: int,
        keys: Keys,
        roster: Mapping[int, SignerPublicKey],
        session_id: RandomId,
        one_shot: OneShot,
        journal: Journal | None = None,
    ) -> None:
        self._task, self._number, self._keys, self._roster = task, number, keys, dict(roster)
        self._session_id, self._one_shot = session_id, one_shot
        self._journal = journal or MemoryJournal()

    def __repr__(self) -> str:
        return f"<Seat {self._number}>"

    def join(self, instruction: Instruction) -> CommitteeMember:
        """The member's state machine for one round.

        Raises:
            InputError: the cohort is not of the roster, or the keys are not the pinned ones.
        """
        cohort = tuple(self._roster) if instruction.cohort is None else instruction.cohort
        if not set(cohort) <= self._roster.keys():
            raise InputError(f"member {self._number}, round {instruction.round}: expected a cohort of known sites")
        agreed = self._task.session(
            session_id=self._session_id,
            roster={number: self._roster[number] for number in cohort},
            round_number=instruction.round,
            weights=instruction.weights,
            shared=instruction.shared,
            one_shot=self._one_shot,
        )
        if not isinstance(agreed, CommitteeSession):
            raise InputError(f"member {self._number}: expected a round with a committee")
        return CommitteeMember(
            agreed,
            number=self._number,
            signer=self._keys.signer,
            recipient=self._keys.recipient,
            journal=self._journal,
            now=time.time,
        )


def committee_for(members: int, *, first: int, randomness: Callable[[int], bytes]) -> tuple[OneShot, dict[int, Keys]]:
    """A committee of a simulation, numbered from ``first``, of which a third less one may be corrupt; and its keys.

    Raises:
        InputError: not 4 to 64 members.
    """
    if members not in MEMBERS:
        raise InputError(f"simulation: expected a committee of 4 to 64 members, got {members}")
    held = {number: _keys(randomness) for number in range(first, first + members)}
    corrupt = (members - 1) // 3
    packing = 1 << (min(members - 2 * corrupt, 8).bit_length() - 1)
    committee = Committee(
        members={n: Member(signer=k.signer.public, recipient=k.recipient.public) for n, k in held.items()},
        corrupt=corrupt,
        packing=packing,
    )
    return OneShot(committee=committee, expires_s=int(time.time()) + _LONGEST_RUN_S), held


def _keys(randomness: Callable[[int], bytes]) -> Keys:
    suite, kem = SignerSuite.ED25519, RecipientSuite.MLKEM768_X25519
    return Keys(
        signer=generate_signer(suite, randomness(SEED_BYTES[suite])),
        recipient=generate_recipient(kem, randomness(SEED_BYTES[kem])),
    )
