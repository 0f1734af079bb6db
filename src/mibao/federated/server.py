"""The server's side: it knows the weights and the sums, who takes part, and what has been spent. Nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int64, Num
from numpy import ndarray

from mibao import dp
from mibao.codec import fixed_point
from mibao.crypto.keys import SignerPublicKey
from mibao.crypto.rng import random_bytes
from mibao.errors import ProtocolError
from mibao.events import Event, NoiseAdded, PrivacySpent, RoundTrained
from mibao.federated.masks import OneShot, Round, from_ring, masking_server
from mibao.federated.node import Instruction
from mibao.federated.privacy import NoiseSource, Privacy, Unit
from mibao.federated.strategies import FedBuff, FedSGD, Scaffold, State
from mibao.federated.task import MIN_SITES, Task
from mibao.secagg import MaskingServer, SecureSum
from mibao.types import RandomId

_COUNT_SCALE = 1 << 10  # the noisy count of unclipped clients is in units of a thousandth


class Server:
    """One training run, a round at a time: :meth:`open_round`, then :meth:`close_round` with the secure sum.

    A round that fails is given up with :meth:`abandon_round`; sites never answer the same round twice.

    Args:
        task: What is trained.
        roster: Every site's public key; empty where no secure sums are run (:meth:`close_sum`, :meth:`close_rows`).
        session_id: Names the run.
        cohort_size: How many sites a round has, in the mean; a public constant. Default: the whole roster.
        sampling_rate: The chance with which each site is drawn on its own; 1 where none is left to chance.
        seed: Of the order in which sites visit their records.
        randomness: Of the server's noise.
        one_shot: The committee that opens the sums; by default the sites open them among themselves.
    """

    def __init__(
        self,
        task: Task,
        *,
        roster: Mapping[int, SignerPublicKey],
        session_id: RandomId,
        cohort_size: int | None = None,
        sampling_rate: float = 1.0,
        seed: int = 0,
        randomness: Callable[[int], bytes] = random_bytes,
        one_shot: OneShot | None = None,
    ) -> None:
        self._task, self._roster, self._session_id = task, dict(roster), session_id
        self._cohort_size = cohort_size or len(roster)
        self._rate, self._seed, self._randomness = sampling_rate, seed, randomness
        self._one_shot = one_shot
        self._weights: Float64[ndarray, "weights"] = task.model.initial()
        self._state: State = {}
        self._releases: list[NoiseAdded] = []
        self._cohort: tuple[int, ...] | None = None
        self._privacy = task.privacy
        self._round = 0
        self._charged = 0
        self._epsilon = 0.0

    @property
    def round(self) -> int:
        """The number of the round that is open, or comes next."""
        return self._round

    @property
    def epsilon(self) -> float | None:
        """Spent so far, at the task's delta, against whoever sees the models; ``None`` without privacy."""
        if self._task.privacy is None:
            return None
        if self._charged < len(self._releases):
            self._epsilon = dp.epsilon_spent(self._releases, delta=self._task.privacy.delta)
            self._charged = len(self._releases)
        return self._epsilon

    @property
    def epsilon_against_witness(self) -> float | None:
        """The same against one who also sees who takes part."""
        if self._task.privacy is None:
            return None
        return dp.epsilon_against_witness(self._releases, delta=self._task.privacy.delta)

    @property
    def weights(self) -> Float64[ndarray, "weights"]:
        """The weights to release after the rounds so far."""
        return self._task.strategy.finish(self._weights, self._state)

    @property
    def least(self) -> int:
        """The fewest sites with which the sum of the open round may come out."""
        if self._roster:
            return self._session().least_alive
        sites = self._sites()
        return max(MIN_SITES, min(2 * sites // 3 + 1, sites)) if self._task.secure else 1

    def open_round(self, cohort: Sequence[int] | None = None) -> Instruction:
        """What to send to every site of ``cohort``; by default to all on the roster.

        A round is charged before it begins with the least noise with which its sum could come out.

        Raises:
            BudgetExhausted: that would exceed the budget.
        """
        self._cohort = None if cohort is None else tuple(cohort)
        privacy = self._privacy
        if privacy is not None and privacy.max_epsilon < float("inf"):
            upcoming = self._noise(privacy, contributors=self.least)
            dp.require_affordable(self._releases, upcoming, epsilon=privacy.max_epsilon, delta=privacy.delta)
        return Instruction(
            session_id=self._session_id,
            round=self._round,
            weights=self._weights.copy(),
            cohort=self._cohort,
            shared=self._shared(),
            clip=None if privacy is None or privacy.adaptive is None else privacy.clip,
            seed=self._seed,
        )

    def masking_server(self) -> MaskingServer:
        """The state machine that takes in the sites' masked messages of the round that is open."""
        return masking_server(self._session(), randomness=self._randomness)

    def close_round(self, released: SecureSum) -> tuple[Event, ...]:
        """Update the weights from the sum and account for it. Returns what happened, for the ledger.

        Raises:
            ProtocolError: the sum is of another run or round.
        """
        event = released.event
        if (event.session, event.round) != (self._session_id, self._round):
            raise ProtocolError(f"server, step update: expected the sum of round {self._round}, got another")
        integers = from_ring(released.total, modulus_bits=event.modulus_bits)
        return (event, *self.close_sum(integers, invited=event.invited, survivors=event.survivors))

    def close_sum(
        self, integers: Int64[ndarray, "numbers"], *, invited: int, survivors: int, unclipped: int | None = None
    ) -> tuple[Event, ...]:
        """As :meth:`close_round`, from the sum itself, in units of the grid.

        Args:
            integers: The sum over ``survivors`` sites; central noise is added here.
            unclipped: How many of them were not clipped, where the clip adapts.
        """
        task, privacy = self._task, self._privacy
        happened: list[Event] = []
        if privacy is not None:
            if privacy.noise is NoiseSource.CENTRAL:
                integers = integers + self._central_noise(privacy, len(integers))
            happened += self._charge(privacy, contributors=survivors)
            self._adapt(privacy, unclipped)
        self._step(fixed_point.from_integers(integers, scale_bits=task.scale_bits), survivors=survivors)
        return (*happened, self._trained(invited, survivors))

    def close_mean(self, mean: Float64[ndarray, "upload"], *, invited: int, survivors: int) -> tuple[Event, ...]:
        """As :meth:`close_round`, from a mean that was taken in the clear."""
        self._move(mean, survivors=survivors)
        return (self._trained(invited, survivors),)

    def close_rows(self, rows: Float[ndarray, "clients upload"], *, invited: int) -> tuple[Event, ...]:
        """As :meth:`close_round`, by the strategy's robust rule. Raises ``ProtocolError`` when it has too few rows."""
        rule = self._task.strategy.rule
        if rule is None:
            raise ProtocolError("server, step combine: the strategy has no rule for single uploads")
        return self.close_mean(rule.combine(rows), invited=invited, survivors=len(rows))

    def abandon_round(self) -> tuple[Event, ...]:
        """Give up the round that is open: its number is spent, the weights stay. Returns what was charged for it.

        With differential privacy it is charged like a sum with the fewest sites, although none came out: what the
        sites sent may have been seen by others, and they charge it, too.
        """
        privacy = self._privacy
        charged = [] if privacy is None else self._charge(privacy, contributors=self.least)
        self._round += 1
        return tuple(charged)

    def charge_lost(self, number: int) -> tuple[Event, ...]:
        """Account for a round that was begun and of which, after a crash, nothing is left; its number is spent.

        Returns what was charged, for the ledger.
        """
        self._round = max(self._round, number)
        return self.abandon_round()

    def open_evaluation(self, sites: Sequence[int]) -> Instruction:
        """What to send to the sites that are to measure the model; its number is how many rounds the model has seen."""
        return Instruction(session_id=self._session_id, round=self._round, weights=self.weights, cohort=tuple(sites))

    def evaluation_server(self, instruction: Instruction) -> MaskingServer:
        """The state machine that takes in what sites measured, masked."""
        session = self._task.evaluation_session(
            session_id=self._session_id,
            roster={number: self._roster[number] for number in instruction.cohort or ()},
            round_number=instruction.round,
            weights=instruction.weights,
        )
        return masking_server(session, randomness=self._randomness)

    def spent(self) -> tuple[Event, ...]:
        """The account as it stands, where it was not already stated after every round."""
        privacy = self._privacy
        if privacy is None or not self._stated_late(privacy) or not self._releases:
            return ()
        return (self._spent(privacy),)

    def save(self) -> tuple[dict[str, Num[ndarray, "..."]], dict[str, Any]]:
        """Everything that a round changes here, as arrays and as plain values: for a checkpoint."""
        arrays = {"weights": self._weights, **{f"state.{name}": array for name, array in self._state.items()}}
        releases = [
            [each.round, each.contributors, each.dimension, each.sensitivity, each.noise_multiplier, each.sampling_rate]
            for each in self._releases
        ]
        clip = None if self._privacy is None else self._privacy.clip
        return arrays, {"round": self._round, "releases": releases, "clip": clip}

    def restore(self, arrays: Mapping[str, Num[ndarray, "..."]], values: Mapping[str, Any]) -> None:
        """Go on from what :meth:`save` gave."""
        self._weights = np.array(arrays["weights"], dtype=np.float64)
        self._state = {
            name.removeprefix("state."): np.array(array) for name, array in arrays.items() if name != "weights"
        }
        self._round = int(values["round"])
        if self._privacy is not None:
            self._privacy = replace(self._privacy, clip=float(values["clip"]))
            like = self._noise(self._privacy, contributors=max(1, self._cohort_size))
            names = ("round", "contributors", "dimension", "sensitivity", "noise_multiplier", "sampling_rate")
            self._releases = [replace(like, **dict(zip(names, each, strict=True))) for each in values["releases"]]

    def _shared(self) -> dict[str, Num[ndarray, "..."]]:
        strategy = self._task.strategy
        wanted = "variate" if isinstance(strategy, Scaffold) else "older" if isinstance(strategy, FedBuff) else None
        return {name: array.copy() for name, array in self._state.items() if name == wanted}

    def _step(self, total: Float64[ndarray, "numbers"], *, survivors: int) -> None:
        task = self._task
        if isinstance(task.strategy, FedSGD):
            mean = total
        elif task.privacy is not None:
            mean = total / self._cohort_size
        elif total[-1] > 0.0:
            mean = total[:-1] / total[-1]
        else:
            raise ProtocolError("server, step update: the sites' record counts do not sum to a positive number")
        self._move(mean, survivors=survivors)

    def _move(self, mean: Float64[ndarray, "upload"], *, survivors: int) -> None:
        if isinstance(self._task.strategy, Scaffold):
            self._state["took_part"] = np.array([survivors])
        mean = self._task.expanded(mean, seed=self._seed, round_number=self._round)
        self._weights = np.asarray(self._task.strategy.update(self._weights, mean, self._state))

    def _trained(self, invited: int, survivors: int) -> RoundTrained:
        trained = RoundTrained(
            session=self._session_id,
            strategy=self._task.strategy.name,
            round=self._round,
            invited=invited,
            survivors=survivors,
        )
        self._round += 1
        return trained

    def _session(self) -> Round:
        roster = self._roster if self._cohort is None else {n: self._roster[n] for n in self._cohort}
        return self._task.session(
            session_id=self._session_id,
            roster=roster,
            round_number=self._round,
            weights=self._weights,
            shared=self._shared(),
            one_shot=self._one_shot,
            seed=self._seed,
        )

    def _sites(self) -> int:
        return self._cohort_size if self._cohort is None else len(self._cohort)

    def _central_noise(self, privacy: Privacy, dimension: int) -> Int64[ndarray, "numbers"]:
        std = privacy.update_multiplier() * privacy.squared_sensitivity(dimension=dimension) ** 0.5
        return dp.gaussian_on_grid(dimension, std=std, randomness=self._randomness)

    def _adapt(self, privacy: Privacy, unclipped: int | None) -> None:
        if privacy.adaptive is None or unclipped is None:
            return
        std = privacy.adaptive.count_noise * _COUNT_SCALE
        noise = int(dp.gaussian_on_grid(1, std=std, randomness=self._randomness)[0])
        noisy = (unclipped * _COUNT_SCALE + noise) / _COUNT_SCALE
        self._privacy = privacy.next_clip(noisy, clients=float(self._cohort_size))

    def _charge(self, privacy: Privacy, *, contributors: int) -> list[Event]:
        noise = self._noise(privacy, contributors=contributors)
        self._releases.append(noise)
        return [noise] if self._stated_late(privacy) else [noise, self._spent(privacy)]

    @staticmethod
    def _stated_late(privacy: Privacy) -> bool:
        """Whether the account is stated once, at the end: sampled releases take long to compose."""
        return privacy.noise is NoiseSource.CENTRAL and privacy.max_epsilon == float("inf")

    def _spent(self, privacy: Privacy) -> PrivacySpent:
        return PrivacySpent(
            session=self._session_id, releases=len(self._releases), epsilon=self.epsilon or 0.0, delta=privacy.delta
        )

    def _noise(self, privacy: Privacy, *, contributors: int) -> NoiseAdded:
        return privacy.noise_added(
            session_id=self._session_id,
            round_number=self._round,
            contributors=contributors,
            sites=max(self._sites(), 1),
            dimension=self._task.sum_length,
            sampling_rate=self._rate if privacy.unit is Unit.CLIENT else 1.0,
        )
