"""One site's side: local work on its own records, clipping and noise there, and a mask before anything leaves.

A transport carries :class:`Instruction` in and the masking client's messages out; nothing else crosses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, UInt64
from numpy import ndarray

from mibao import dp
from mibao.codec import fixed_point
from mibao.crypto.keys import SignerPrivateKey, SignerPublicKey
from mibao.errors import BudgetExhausted, InputError, ProtocolError
from mibao.events import NoiseAdded
from mibao.federated.records import Records
from mibao.federated.task import MODULUS_BITS, Privacy, Task, plain_bound
from mibao.secagg import MaskingClient, PairwiseClient, Session, client_randomness_bytes
from mibao.secagg.masking import MAX_ROUND
from mibao.types import RandomId

MAX_WEIGHT = 2.0**100  # far beyond any that training reaches; public, hence no answer about a record


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Instruction:
    """What the server sends to every site when a round begins."""

    session_id: RandomId
    round: int
    weights: Float64[ndarray, "weights"]


class Node:
    """One site in one training run. It answers each round once, in ascending order,
    and with differential privacy keeps its own account of what that spends.

    Args:
        task: What is trained; every site must hold the same.
        number: This site's place on the roster.
        roster: Every site's public key, pinned before the run and never learned from the server.
        session_id: Names the run.
        signer: This site's signing key.
        randomness: Gives as many fresh random bytes as asked for; for the noise and the masks.
        witness: Sees each contribution unmasked, with this site's number: a simulation's way to check the sum. A site
            gives none.

    Raises:
        InputError: the site has no records, or of another shape than the model's; names the site.
    """

    def __init__(
        self,
        task: Task,
        *,
        number: int,
        roster: Mapping[int, SignerPublicKey],
        session_id: RandomId,
        signer: SignerPrivateKey,
        randomness: Callable[[int], bytes],
        witness: Callable[[int, UInt64[ndarray, "upload"]], None] | None = None,
    ) -> None:
        self._task, self._number, self._roster, self._session_id = task, number, dict(roster), session_id
        self._signer, self._randomness, self._witness = signer, randomness, witness
        self._records = _load(task, number)
        self._last_round = -1
        self._client: PairwiseClient | None = None
        self._releases: list[NoiseAdded] = []

    def __repr__(self) -> str:
        return f"<Node {self._number}>"

    def join(self, instruction: Instruction) -> MaskingClient:
        """The client whose messages carry this site's contribution to one round, masked. There is no second one.

        With differential privacy nothing about the records decides whether a site answers: a refusal has no noise.

        Raises:
            ProtocolError: the instruction is of another run or a round already answered, its round is no whole
                number in range, or its weights are of another shape, not finite or over ``MAX_WEIGHT``; names the
                server and the step. The round stays free.
            BudgetExhausted: with the fewest sites the round would exceed this site's own account.
            InputError: without differential privacy, the local result is out of the range of fixed point; names the
                site. The signing key is not the pinned one.
        """
        weights = np.array(instruction.weights)  # the caller's may change
        self._check(instruction, weights)
        session = self._task.session(
            session_id=self._session_id, roster=self._roster, round_number=instruction.round, weights=weights
        )
        if self._task.privacy is not None:
            self._charge(self._task.privacy, session)
        self._last_round = instruction.round
        contribution = self._contribution(weights, round_number=instruction.round)
        if self._witness is not None:
            self._witness(self._number, contribution)
        self._client = PairwiseClient(
            session,
            number=self._number,
            signer=self._signer,
            vector=contribution,
            randomness=self._randomness(client_randomness_bytes(session)),
        )
        return self._client

    def _charge(self, privacy: Privacy, session: Session) -> None:
        """Account for a round before it begins; until its survivors are signed for, as if they were the fewest."""

        def noise(number: int, contributors: int) -> NoiseAdded:
            return privacy.noise_added(
                session_id=self._session_id,
                round_number=number,
                contributors=contributors,
                sites=len(self._roster),
                dimension=self._task.model.size,
            )

        if privacy.max_epsilon == float("inf"):
            return
        if self._client is not None and self._client.survivors is not None:
            self._releases[-1] = noise(self._last_round, len(self._client.survivors))
        upcoming = noise(session.round, session.least_alive)
        try:
            dp.require_affordable(self._releases, upcoming, epsilon=privacy.max_epsilon, delta=privacy.delta)
        except BudgetExhausted as error:
            raise BudgetExhausted(f"site {self._number}, round {session.round}: {error}") from error
        # Whatever fails from here on, the round is charged.
        self._client = None
        self._releases.append(upcoming)

    def _contribution(self, weights: Float64[ndarray, "weights"], *, round_number: int) -> UInt64[ndarray, "upload"]:
        task = self._task
        if task.privacy is not None:
            return fixed_point.to_ring(self._private_sum(task.privacy, weights), modulus_bits=MODULUS_BITS)
        try:
            upload = task.strategy.upload(task.model, weights, self._records)
            bound = plain_bound(sites=len(self._roster))
            integers = fixed_point.to_integers(upload, scale_bits=task.scale_bits, bound=bound)
        except InputError as error:
            raise InputError(f"site {self._number}, round {round_number}: {error}") from error
        return fixed_point.to_ring(integers, modulus_bits=MODULUS_BITS)

    def _private_sum(self, privacy: Privacy, weights: Float64[ndarray, "weights"]) -> Int64[ndarray, "weights"]:
        with np.errstate(all="ignore"):
            rows = self._task.model.gradients(weights, self._records)
            # A record whose gradient overflows counts as zero: a refusal would give it away.
            rows = np.where(np.all(np.isfinite(rows), axis=1, keepdims=True), rows, 0.0)
            grid = dp.clip_to_grid(rows, clip=privacy.clip, scale_bits=privacy.scale_bits)
        noise = dp.discrete_gaussian(
            grid.shape[1],
            variance=privacy.share_variance(dimension=grid.shape[1], sites=len(self._roster)),
            randomness=self._randomness,
        )
        total: Int64[ndarray, "weights"] = grid.sum(axis=0) + noise
        return total

    def _check(self, instruction: Instruction, weights: Float64[ndarray, "weights"]) -> None:
        where = f"server, step instruct, round {instruction.round}"
        # A NaN is smaller than nothing and larger than nothing, and True is 1.
        if type(instruction.round) is not int or not 0 <= instruction.round <= MAX_ROUND:
            raise ProtocolError(f"{where}: expected a whole number in 0..{MAX_ROUND}")
        if instruction.session_id != self._session_id:
            raise ProtocolError(f"{where}: another training run than site {self._number} takes part in")
        if instruction.round <= self._last_round:
            raise ProtocolError(f"{where}: stale, site {self._number} has answered round {self._last_round}")
        if weights.shape != (self._task.model.size,):
            raise ProtocolError(f"{where}: expected {self._task.model.size} weights, got shape {weights.shape}")
        if not np.all(np.abs(weights) <= MAX_WEIGHT):
            raise ProtocolError(f"{where}: expected finite weights of at most {MAX_WEIGHT:g} in magnitude")


def _load(task: Task, number: int) -> Records:
    try:
        records = task.data(number)
        task.model.check(records)
    except InputError as error:
        raise InputError(f"site {number}: {error}") from error
    return records
