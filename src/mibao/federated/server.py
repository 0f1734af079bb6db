"""The server's side: it knows the weights and the sums, who takes part, and what has been spent. Nothing else."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from mibao import dp
from mibao.codec import fixed_point
from mibao.crypto.keys import SignerPublicKey
from mibao.errors import ProtocolError
from mibao.events import Event, NoiseAdded, PrivacySpent, RoundTrained
from mibao.federated.node import Instruction
from mibao.federated.task import MODULUS_BITS, Privacy, Task
from mibao.secagg import MaskingServer, PairwiseServer, SecureSum, Session
from mibao.types import RandomId


class Server:
    """One training run, a round at a time: :meth:`open_round`, then :meth:`close_round` with the secure sum.

    A round that fails is given up with :meth:`abandon_round`; sites never answer the same round twice.

    Args:
        task: What is trained.
        roster: Every site's public key.
        session_id: Names the run.
    """

    def __init__(self, task: Task, *, roster: Mapping[int, SignerPublicKey], session_id: RandomId) -> None:
        self._task, self._roster, self._session_id = task, dict(roster), session_id
        self._iterates: list[Float64[ndarray, "weights"]] = [task.model.initial()]
        self._releases: list[NoiseAdded] = []
        self._round = 0
        self._epsilon = 0.0

    @property
    def epsilon(self) -> float | None:
        """Spent so far, at the task's delta; ``None`` without differential privacy."""
        return None if self._task.privacy is None else self._epsilon

    @property
    def weights(self) -> Float64[ndarray, "weights"]:
        """The weights to release after the rounds so far."""
        return self._task.strategy.finish(self._iterates[1:] or self._iterates)

    def open_round(self) -> Instruction:
        """What to send to every site.

        A round is charged before it begins with the least noise with which its sum could come out.

        Raises:
            BudgetExhausted: that would exceed the budget.
        """
        privacy = self._task.privacy
        if privacy is not None and privacy.max_epsilon < float("inf"):
            upcoming = self._noise(privacy, contributors=self._session().least_alive)
            dp.require_affordable(self._releases, upcoming, epsilon=privacy.max_epsilon, delta=privacy.delta)
        return Instruction(session_id=self._session_id, round=self._round, weights=self._iterates[-1].copy())

    def masking_server(self) -> MaskingServer:
        """The state machine that takes in the sites' masked messages of the round that is open."""
        return PairwiseServer(self._session())

    def close_round(self, released: SecureSum) -> tuple[Event, ...]:
        """Update the weights from the sum and account for it. Returns what happened, for the ledger.

        Raises:
            ProtocolError: the sum is of another run or round.
        """
        event, task = released.event, self._task
        if (event.session, event.round) != (self._session_id, self._round):
            raise ProtocolError(f"server, step update: expected the sum of round {self._round}, got another")
        happened: list[Event] = [event]
        if task.privacy is not None:
            happened += self._charge(task.privacy, contributors=event.survivors)
        integers = fixed_point.from_ring(released.total, modulus_bits=MODULUS_BITS)
        total = fixed_point.from_integers(integers, scale_bits=task.scale_bits)
        self._iterates.append(np.asarray(task.strategy.update(self._iterates[-1], total)))
        happened.append(
            RoundTrained(
                session=self._session_id,
                strategy=task.strategy.name,
                round=self._round,
                invited=event.invited,
                survivors=event.survivors,
            )
        )
        self._round += 1
        return tuple(happened)

    def abandon_round(self) -> tuple[Event, ...]:
        """Give up the round that is open: its number is spent, the weights stay. Returns what was charged for it.

        With differential privacy it is charged like a sum with the fewest sites, although none came out: what the
        sites sent may have been seen by others, and they charge it, too.
        """
        privacy = self._task.privacy
        charged = [] if privacy is None else self._charge(privacy, contributors=self._session().least_alive)
        self._round += 1
        return tuple(charged)

    def _session(self) -> Session:
        return self._task.session(
            session_id=self._session_id,
            roster=self._roster,
            round_number=self._round,
            weights=self._iterates[-1],
        )

    def _charge(self, privacy: Privacy, *, contributors: int) -> list[Event]:
        noise = self._noise(privacy, contributors=contributors)
        self._releases.append(noise)
        self._epsilon = dp.epsilon_spent(self._releases, delta=privacy.delta)
        spent = PrivacySpent(
            session=self._session_id, releases=len(self._releases), epsilon=self._epsilon, delta=privacy.delta
        )
        return [noise, spent]

    def _noise(self, privacy: Privacy, *, contributors: int) -> NoiseAdded:
        return privacy.noise_added(
            session_id=self._session_id,
            round_number=self._round,
            contributors=contributors,
            sites=len(self._roster),
            dimension=self._task.model.size,
        )
