"""One site's side: local work on its own records, clipping and noise there, and a mask before anything leaves.

A transport carries :class:`Instruction` in and the masking client's messages out; nothing else crosses.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from jaxtyping import Float64, Int64, UInt64
from numpy import ndarray

from mibao import dp
from mibao.crypto.keys import SignerPrivateKey, SignerPublicKey
from mibao.errors import BudgetExhausted, InputError, ProtocolError
from mibao.events import NoiseAdded
from mibao.federated import evaluation
from mibao.federated.masks import OneShot, Round, bounded, masking_client, to_ring
from mibao.federated.privacy import NoiseSource, Privacy, Unit
from mibao.federated.task import Task
from mibao.federated.uploads import Own, Shared, on_grid, plan_work, private_sum, uploads
from mibao.secagg import Journal, MaskingClient, MemoryJournal, PairwiseClient
from mibao.secagg.masking import MAX_ROUND
from mibao.types import RandomId

Ring: TypeAlias = UInt64[ndarray, "numbers"]

MAX_WEIGHT = 2.0**100  # far beyond any that training reaches; public, hence no answer about a record


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Instruction:
    """What the server sends to every site of a round when it begins.

    Attributes:
        session_id: Names the run.
        round: Its number.
        weights: What the round begins with.
        cohort: The sites that take part; ``None``: all on the roster.
        shared: What else the strategy shares.
        clip: The clip of this round, where it adapts.
        seed: Of the order in which sites visit their records.
    """

    session_id: RandomId
    round: int
    weights: Float64[ndarray, "weights"]
    cohort: tuple[int, ...] | None = None
    shared: Shared = field(default_factory=dict, repr=False)
    clip: float | None = None
    seed: int = 0


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
        own: What the site kept from rounds before, and keeps: its control variate, its personal parameters.
        witness: Sees each contribution unmasked, with this site's number: a simulation's way to check the sum. A site
            gives none.
        one_shot: The committee that opens the sums; by default the sites open them among themselves.
        journal: Where a site with a committee records its message before it leaves. One that may be restarted in the
            middle of a round needs a journal on a disk.

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
        own: Own | None = None,
        witness: Callable[[int, UInt64[ndarray, "upload"]], None] | None = None,
        one_shot: OneShot | None = None,
        journal: Journal | None = None,
    ) -> None:
        self._task, self._number, self._roster, self._session_id = task, number, dict(roster), session_id
        self._signer, self._randomness, self._witness = signer, randomness, witness
        self._one_shot, self._journal = one_shot, journal
        self._records = task.records(number)
        self._own: Own = {} if own is None else own
        self._last_round = self._last_measured = -1
        self._client: MaskingClient | None = None
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
        self._check(instruction, weights, last=self._last_round)
        session = self._task.session(
            session_id=self._session_id,
            roster=self._of_cohort(instruction),
            round_number=instruction.round,
            weights=weights,
            shared=instruction.shared,
            one_shot=self._one_shot,
            seed=instruction.seed,
        )
        if self._task.privacy is not None:
            self._charge(self._task.privacy, session)
        self._last_round = instruction.round
        contribution = self._contribution(instruction, weights, session)
        if self._witness is not None:
            self._witness(self._number, contribution)
        self._client = masking_client(
            session,
            number=self._number,
            signer=self._signer,
            vector=contribution,
            randomness=self._randomness,
            journal=self._journal or MemoryJournal(),
            now=time.time,
        )
        return self._client

    def measure(self, instruction: Instruction) -> MaskingClient:
        """The client whose messages carry what this site measures of the model on its records set aside, masked.

        Once a round, like :meth:`join`.

        Raises:
            ProtocolError: as :meth:`join`, for a round already measured.
            InputError: the records set aside do not fit, or the loss on them is not finite; names the site.
        """
        weights = np.array(instruction.weights)
        self._check(instruction, weights, last=self._last_measured)
        session = self._task.evaluation_session(
            session_id=self._session_id,
            roster=self._of_cohort(instruction),
            round_number=instruction.round,
            weights=weights,
        )
        records = evaluation.held_out(self._task, self._number)
        part = evaluation.measured(self._task, weights, site=self._number, records=records, own=self._own)
        integers = evaluation.to_grid(self._task, part, site=self._number, sites=len(session.roster))
        self._last_measured = instruction.round
        return masking_client(
            session,
            number=self._number,
            signer=self._signer,
            vector=to_ring(integers, session, private=False),
            randomness=self._randomness,
            journal=self._journal or MemoryJournal(),
            now=time.time,
        )

    def _charge(self, privacy: Privacy, session: Round) -> None:
        """Account for a round before it begins; until its survivors are signed for, as if they were the fewest."""

        def noise(number: int, contributors: int) -> NoiseAdded:
            return privacy.noise_added(
                session_id=self._session_id,
                round_number=number,
                contributors=contributors,
                sites=len(session.roster),
                dimension=self._task.sum_length,
            )

        if privacy.max_epsilon == float("inf"):
            return
        if isinstance(self._client, PairwiseClient) and self._client.survivors is not None:
            self._releases[-1] = noise(self._last_round, len(self._client.survivors))
        upcoming = noise(session.round, session.least_alive)
        try:
            dp.require_affordable(self._releases, upcoming, epsilon=privacy.max_epsilon, delta=privacy.delta)
        except BudgetExhausted as error:
            raise BudgetExhausted(f"site {self._number}, round {session.round}: {error}") from error
        # Whatever fails from here on, the round is charged.
        self._client = None
        self._releases.append(upcoming)

    def _contribution(self, instruction: Instruction, weights: Float64[ndarray, "weights"], session: Round) -> Ring:
        sites = len(session.roster)
        task, where = self._task, f"site {self._number}, round {instruction.round}"
        privacy = task.privacy
        if privacy is not None and instruction.clip is not None:
            privacy = privacy.with_clip(instruction.clip)
        try:
            if privacy is not None and privacy.unit is Unit.RECORD:
                integers = private_sum(task, weights, self._records)
            else:
                integers = self._update(instruction, weights, privacy, sites=sites)
            if privacy is None:
                return to_ring(integers, session, private=False)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        integers = bounded(integers, session)
        if privacy.noise is NoiseSource.DISTRIBUTED:
            variance = privacy.share_variance(dimension=len(integers), sites=sites)
            integers = integers + dp.discrete_gaussian(len(integers), variance=variance, randomness=self._randomness)
        return to_ring(integers, session, private=True)

    def _update(
        self, instruction: Instruction, weights: Float64[ndarray, "weights"], privacy: Privacy | None, *, sites: int
    ) -> Int64[ndarray, "numbers"]:
        work = plan_work(
            self._task,
            client=self._number,
            records=self._records,
            weights=weights,
            shared=instruction.shared,
            own=self._own,
            seed=instruction.seed,
            round_number=instruction.round,
        )
        (upload,) = uploads(self._task, weights, [work], {self._number: self._own})
        if privacy is None:
            return np.asarray(on_grid(self._task, upload, sites=sites)[0])
        grid = dp.clip_updates(upload.rows, clip=privacy.clip, scale_bits=privacy.scale_bits)
        return np.asarray(grid[0].astype(np.int64))

    def _of_cohort(self, instruction: Instruction) -> dict[int, SignerPublicKey]:
        if instruction.cohort is None:
            return self._roster
        if self._number not in instruction.cohort or not set(instruction.cohort) <= set(self._roster):
            raise ProtocolError(
                f"server, step instruct, round {instruction.round}: expected a cohort of known sites with site "
                f"{self._number} among them"
            )
        return {number: self._roster[number] for number in instruction.cohort}

    def _check(self, instruction: Instruction, weights: Float64[ndarray, "weights"], *, last: int) -> None:
        where = f"server, step instruct, round {instruction.round}"
        # A NaN is smaller than nothing and larger than nothing, and True is 1.
        if type(instruction.round) is not int or not 0 <= instruction.round <= MAX_ROUND:
            raise ProtocolError(f"{where}: expected a whole number in 0..{MAX_ROUND}")
        if instruction.session_id != self._session_id:
            raise ProtocolError(f"{where}: another training run than site {self._number} takes part in")
        if instruction.round <= last:
            raise ProtocolError(f"{where}: stale, site {self._number} has answered round {last}")
        if weights.shape != (self._task.model.size,):
            raise ProtocolError(f"{where}: expected {self._task.model.size} weights, got shape {weights.shape}")
        self._check_rest(instruction, where)
        if not np.all(np.abs(weights) <= MAX_WEIGHT):
            raise ProtocolError(f"{where}: expected finite weights of at most {MAX_WEIGHT:g} in magnitude")

    def _check_rest(self, instruction: Instruction, where: str) -> None:
        adaptive = self._task.privacy is not None and self._task.privacy.adaptive is not None
        if (instruction.clip is not None) is not adaptive:
            raise ProtocolError(f"{where}: expected a clip exactly where the task lets the clip adapt")
        if instruction.clip is not None and not 0.0 < instruction.clip <= MAX_WEIGHT:
            raise ProtocolError(f"{where}: expected a positive clip")
        if type(instruction.seed) is not int or not 0 <= instruction.seed < 1 << 63:
            raise ProtocolError(f"{where}: expected a seed of 0 or more")
        for name, array in instruction.shared.items():
            if array.ndim == 0 or array.shape[-1] != self._task.model.size or not np.all(np.abs(array) <= MAX_WEIGHT):
                raise ProtocolError(f"{where}: expected {self._task.model.size} finite numbers in '{name}'")
