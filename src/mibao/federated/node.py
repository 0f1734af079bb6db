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
from mibao.errors import InputError, ProtocolError
from mibao.federated.records import Records
from mibao.federated.task import MODULUS_BITS, PLAIN_BOUND, Privacy, Task
from mibao.secagg import MaskingClient, PairwiseClient, client_randomness_bytes
from mibao.types import RandomId


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Instruction:
    """What the server sends to every site when a round begins."""

    session_id: RandomId
    round: int
    weights: Float64[ndarray, "weights"]


class Node:
    """One site in one training run. It answers each round once, in ascending order.

    Args:
        task: What is trained; every site must hold the same.
        number: This site's place on the roster.
        roster: Every site's public key, pinned before the run and never learned from the server.
        session_id: Names the run.
        signer: This site's signing key.
        randomness: Gives as many fresh random bytes as asked for; for the noise and the masks.

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
    ) -> None:
        self._task, self._number, self._roster, self._session_id = task, number, dict(roster), session_id
        self._signer, self._randomness = signer, randomness
        self._records = _load(task, number)
        self._last_round = -1

    def __repr__(self) -> str:
        return f"<Node {self._number}>"

    def contribution(self, instruction: Instruction) -> UInt64[ndarray, "upload"]:
        """This site's addend for one round, as ring elements. It is private: only :meth:`mask` takes it further.

        Raises:
            ProtocolError: the instruction is of another run or a round already answered, or its weights are of
                another shape or not finite; names the server and the step.
            InputError: the local result is out of the range of fixed point; names the site.
        """
        self._check(instruction)
        self._last_round = instruction.round
        task, weights = self._task, instruction.weights
        try:
            if task.privacy is not None:
                integers = self._private_sum(task.privacy, weights)
            else:
                upload = task.strategy.upload(task.model, weights, self._records)
                integers = fixed_point.to_integers(upload, scale_bits=task.scale_bits, bound=PLAIN_BOUND)
        except InputError as error:
            raise InputError(f"site {self._number}, round {instruction.round}: {error}") from error
        return fixed_point.to_ring(integers, modulus_bits=MODULUS_BITS)

    def mask(self, instruction: Instruction, contribution: UInt64[ndarray, "upload"]) -> MaskingClient:
        """The client whose messages carry ``contribution`` to the server, masked.

        Raises:
            InputError: the roster or the signing key is not the pinned one.
        """
        session = self._task.session(session_id=self._session_id, roster=self._roster, round_number=instruction.round)
        return PairwiseClient(
            session,
            number=self._number,
            signer=self._signer,
            vector=contribution,
            randomness=self._randomness(client_randomness_bytes(session)),
        )

    def _private_sum(self, privacy: Privacy, weights: Float64[ndarray, "weights"]) -> Int64[ndarray, "weights"]:
        rows = self._task.model.gradients(weights, self._records)
        grid = dp.clip_to_grid(rows, clip=privacy.clip, scale_bits=privacy.scale_bits)
        noise = dp.discrete_gaussian(
            grid.shape[1],
            variance=privacy.share_variance(dimension=grid.shape[1], sites=len(self._roster)),
            randomness=self._randomness,
        )
        total: Int64[ndarray, "weights"] = grid.sum(axis=0) + noise
        return total

    def _check(self, instruction: Instruction) -> None:
        where = f"server, step instruct, round {instruction.round}"
        if instruction.session_id != self._session_id:
            raise ProtocolError(f"{where}: another training run than site {self._number} takes part in")
        if instruction.round <= self._last_round:
            raise ProtocolError(f"{where}: stale, site {self._number} has answered round {self._last_round}")
        if instruction.weights.shape != (self._task.model.size,):
            raise ProtocolError(
                f"{where}: expected {self._task.model.size} weights, got shape {instruction.weights.shape}"
            )
        if not np.all(np.isfinite(instruction.weights)):
            raise ProtocolError(f"{where}: expected finite weights, got a NaN or an infinity")


def _load(task: Task, number: int) -> Records:
    try:
        records = task.data(number)
    except InputError as error:
        raise InputError(f"site {number}: {error}") from error
    if records.features.shape[1] != task.model.features:
        raise InputError(
            f"site {number}: expected records of {task.model.features} features, got {records.features.shape[1]}"
        )
    return records
