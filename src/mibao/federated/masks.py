"""How uploads are masked: between pairs of sites, or in one message a site, with a committee that opens their sum.

Source: ``docs/spec/secagg.md``; both schemes stand behind one interface.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Int64, UInt64
from numpy import ndarray

from mibao.crypto.keys import SignerPrivateKey, SignerPublicKey
from mibao.errors import InputError
from mibao.secagg import (
    Committee,
    CommitteeSession,
    Journal,
    MaskingClient,
    MaskingServer,
    PairwiseClient,
    PairwiseServer,
    ParameterSet,
    RlweClient,
    RlweServer,
    Session,
    Trust,
    client_randomness_bytes,
)
from mibao.secagg.masking_rlwe import CLIENT_RANDOMNESS_BYTES, MAX_INPUT_BITS
from mibao.secagg.masking_rlwe_server import SERVER_RANDOMNESS_BYTES
from mibao.secagg.rlwe_parameters import message_bits
from mibao.types import RandomId

Round: TypeAlias = Session | CommitteeSession

_PARAMETERS = ParameterSet.RLWE_2048_48
# Noise this many standard deviations out has a probability under 2**-180.
_NOISE_STDS = 16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OneShot:
    """One message a site: its mask's secret is dealt to a committee, which opens the sum of the secrets alone.

    Attributes:
        committee: Who they are, pinned before the run like the roster.
        expires_s: Unix time after which nobody takes part in a round of the run.
    """

    committee: Committee
    expires_s: int

    def session(
        self,
        *,
        session_id: RandomId,
        roster: Mapping[int, SignerPublicKey],
        round_number: int,
        least: int,
        length: int,
        task_hash: bytes,
        noise_std: float,
    ) -> CommitteeSession:
        """The secure sum of one round, with as many bits for an upload as the modulus has room for.

        Raises:
            InputError: there is no room, or not for noise of this standard deviation.
        """
        room = message_bits(_PARAMETERS, clients=len(roster), length=length)
        agreed = CommitteeSession(
            session_id=session_id,
            round=round_number,
            roster=roster,
            committee=self.committee,
            parameters=_PARAMETERS,
            trust=Trust.MALICIOUS_SERVER,
            min_clients=least,
            length=length,
            input_bits=min(MAX_INPUT_BITS, room - (len(roster) - 1).bit_length()),
            expires_s=self.expires_s,
            task_hash=task_hash,
        )
        if _NOISE_STDS * noise_std > _largest(agreed):
            raise InputError(f"task: noise of {noise_std:.3g} grid units leaves no room in {agreed.input_bits} bits")
        return agreed


def to_ring(integers: Int64[ndarray, "numbers"], agreed: Round, *, private: bool) -> UInt64[ndarray, "numbers"]:
    """A site's numbers as its mask takes them, modulo ``2**agreed.modulus_bits``.

    Raises:
        InputError: a number is too large and the upload not ``private``; a private one was bounded before its noise.
    """
    if isinstance(agreed, CommitteeSession) and not private and np.any(np.abs(integers) > 2 * _largest(agreed)):
        raise InputError(f"fixed point: a number does not fit the {agreed.input_bits} bits of an upload")
    ring: UInt64[ndarray, "numbers"] = integers.astype(np.uint64) & np.uint64((1 << agreed.modulus_bits) - 1)
    return ring


def bounded(integers: Int64[ndarray, "numbers"], agreed: Round) -> Int64[ndarray, "numbers"]:
    """A private upload before its noise, no number so large that it would leave the ring with it.

    To refuse would tell something of the records. No two sums move apart by being bounded: the sensitivity stays.
    """
    if not isinstance(agreed, CommitteeSession):
        return integers
    limited: Int64[ndarray, "numbers"] = np.clip(integers, -_largest(agreed), _largest(agreed))
    return limited


def from_ring(total: UInt64[ndarray, "numbers"], *, modulus_bits: int) -> Int64[ndarray, "numbers"]:
    """A sum as the signed integers nearest to zero."""
    spare = np.uint64(64 - modulus_bits)
    return (total << spare).astype(np.int64) >> np.int64(spare)


def masking_client(
    agreed: Round,
    *,
    number: int,
    signer: SignerPrivateKey,
    vector: UInt64[ndarray, "numbers"],
    randomness: Callable[[int], bytes],
    journal: Journal,
    now: Callable[[], float],
) -> MaskingClient:
    """One site in one round of either scheme. Raises ``InputError`` as the scheme's client does."""
    if isinstance(agreed, Session):
        return PairwiseClient(
            agreed,
            number=number,
            signer=signer,
            vector=vector,
            randomness=randomness(client_randomness_bytes(agreed)),
        )
    return RlweClient(
        agreed,
        number=number,
        signer=signer,
        vector=vector,
        randomness=randomness(CLIENT_RANDOMNESS_BYTES),
        journal=journal,
        now=now,
    )


def masking_server(agreed: Round, *, randomness: Callable[[int], bytes]) -> MaskingServer:
    """The server of one round of either scheme.

    Rounds are not chained by transcripts: the weights that a round begins with, which are bound into it, say what
    came before, and a round that came to nothing must not keep the committee from the next.
    """
    if isinstance(agreed, Session):
        return PairwiseServer(agreed)
    return RlweServer(agreed, randomness=randomness(SERVER_RANDOMNESS_BYTES), now=time.time)


def _largest(agreed: CommitteeSession) -> int:
    """Half of what fits: the other half is for the noise."""
    return (1 << (agreed.input_bits - 2)) - 1
