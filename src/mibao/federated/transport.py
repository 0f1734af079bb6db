"""How a round's instruction reaches the sites and their sum comes back: all that another deployment replaces.

:class:`Messages` runs every site's :class:`~mibao.federated.node.Node` and every message of the masking.
:class:`Sums` trains a whole cohort at once and adds up in the ring what the masks would leave: the same integers,
without the masks. It is how a thousand clients are simulated.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, UInt64
from numpy import ndarray

from mibao import dp
from mibao.codec import fixed_point
from mibao.crypto.keys import SEED_BYTES, SignerPrivateKey, SignerSuite, generate_signer
from mibao.errors import InputError, ProtocolError
from mibao.events import Event
from mibao.federated import evaluation
from mibao.federated.committee import Keys, Seat
from mibao.federated.local_training import LocalWork
from mibao.federated.masks import OneShot, from_ring
from mibao.federated.node import Instruction, Node
from mibao.federated.privacy import NoiseSource, Privacy, Unit
from mibao.federated.records import Records
from mibao.federated.server import Server
from mibao.federated.strategies import FedBuff, FedSGD
from mibao.federated.task import MODULUS_BITS, Task, least_sites
from mibao.federated.uploads import Own, Uploads, on_grid, plan_work, private_sum, uploads
from mibao.secagg import Phase, SecureSum, run_round
from mibao.types import RandomId

_KEPT_BYTES = 128 << 20
_NUMBER_BYTES = 8

NO_KEYS: Mapping[int, Keys] = MappingProxyType({})

Works = Callable[[Float64[ndarray, "weights"], Sequence[LocalWork], Mapping[int, Own]], Iterator[Uploads]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A site that a round went on without, and why; the words never hold a record's values."""

    site: int
    round: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one round.

    Attributes:
        events: For the ledger.
        survivors: The sites in the sum.
        refused: The sites that it went on without.
        exact: Whether the sum was what went in, where that was watched.
        upload_bytes: All bytes that sites sent.
        abandoned: Why no sum came out, or nothing.
    """

    events: tuple[Event, ...]
    survivors: tuple[int, ...] = ()
    refused: tuple[Refused, ...] = ()
    exact: bool | None = None
    upload_bytes: int = 0
    abandoned: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What sites measured after a round: means over their records set aside; empty where no sum came out."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    refused: tuple[Refused, ...] = ()
    upload_bytes: int = 0


@runtime_checkable
class Transport(Protocol):
    """Carries rounds."""

    def evaluate(self, server: Server, instruction: Instruction) -> Evaluated:
        """Let the sites of the instruction measure the model on what they set aside, and sum up."""
        ...

    def carry(self, server: Server, instruction: Instruction, *, dropped: Set[int]) -> Outcome:
        """Run one open round, without the sites in ``dropped``, and close or abandon it."""
        ...

    def owns(self) -> dict[int, Own]:
        """What each site keeps for itself, for a checkpoint."""
        ...

    def restore(self, owns: Mapping[int, Own]) -> None:
        """Give every site back what it kept."""
        ...


class Messages:
    """Every site a node of its own, every message of the masking exchanged, the sum watched.

    Args:
        task: What is trained.
        signers: Each site's signing key.
        session_id: Names the run.
        randomness: Of masks and noise.
        one_shot: The committee that opens the sums; by default the sites open them among themselves.
        keys: The committee's keys.
    """

    def __init__(
        self,
        task: Task,
        *,
        signers: Mapping[int, SignerPrivateKey],
        session_id: RandomId,
        randomness: Callable[[int], bytes],
        one_shot: OneShot | None = None,
        keys: Mapping[int, Keys] = NO_KEYS,
    ) -> None:
        self._task, self._signers, self._session_id, self._randomness = task, dict(signers), session_id, randomness
        self._roster = {number: signer.public for number, signer in signers.items()}
        self._one_shot, self._keys = one_shot, dict(keys)
        self._nodes: dict[int, Node] = {}
        self._owns: dict[int, Own] = {}
        self._addends: dict[int, UInt64[ndarray, "upload"]] = {}

    def carry(self, server: Server, instruction: Instruction, *, dropped: Set[int]) -> Outcome:
        """Run one round. Raises ``BudgetExhausted`` when a site's own account ends."""
        cohort = tuple(self._roster) if instruction.cohort is None else instruction.cohort
        clients, refused = {}, []
        self._addends.clear()
        for number in cohort:
            try:
                clients[number] = self._node(number).join(instruction)
            except InputError as error:
                refused.append(Refused(site=number, round=instruction.round, why=str(error)))
        try:
            vanish = dict.fromkeys(dropped & set(clients), Phase.MASK)
            members = {number: seat.join(instruction) for number, seat in self._seats().items()}
            released = run_round(server.masking_server(), clients, dropped=vanish, committee=members)
        except ProtocolError as error:
            why = "; ".join([str(error), *(each.why for each in refused)])
            return Outcome(events=server.abandon_round(), refused=tuple(refused), abandoned=why)
        return Outcome(
            events=server.close_round(released),
            survivors=released.survivors,
            refused=tuple(refused),
            exact=self._is_exact(released),
            upload_bytes=released.upload_bytes,
        )

    def evaluate(self, server: Server, instruction: Instruction) -> Evaluated:
        """One more secure sum, of what the sites measure."""
        clients, refused = {}, []
        for number in instruction.cohort or ():
            try:
                clients[number] = self._node(number).measure(instruction)
            except InputError as error:
                refused.append(Refused(site=number, round=instruction.round, why=str(error)))
        try:
            released = run_round(server.evaluation_server(instruction), clients)
        except ProtocolError:
            return Evaluated(refused=tuple(refused))
        integers = from_ring(released.total, modulus_bits=MODULUS_BITS)
        return Evaluated(
            metrics=evaluation.means(fixed_point.from_integers(integers, scale_bits=self._task.scale_bits)),
            events=(released.event,),
            refused=tuple(refused),
            upload_bytes=released.upload_bytes,
        )

    def owns(self) -> dict[int, Own]:
        """What nodes keep for themselves."""
        return {site: own for site, own in self._owns.items() if own}

    def restore(self, owns: Mapping[int, Own]) -> None:
        """Give nodes back what they kept."""
        self._owns = {site: dict(own) for site, own in owns.items()}

    def _node(self, number: int) -> Node:
        if number not in self._nodes:
            self._nodes[number] = Node(
                self._task,
                number=number,
                roster=self._roster,
                session_id=self._session_id,
                signer=self._signers[number],
                randomness=self._randomness,
                own=self._owns.setdefault(number, {}),
                witness=self._addends.__setitem__,
                one_shot=self._one_shot,
            )
        return self._nodes[number]

    def _seats(self) -> dict[int, Seat]:
        if self._one_shot is None:
            return {}
        return {
            number: Seat(
                self._task,
                number=number,
                keys=keys,
                roster=self._roster,
                session_id=self._session_id,
                one_shot=self._one_shot,
            )
            for number, keys in self._keys.items()
        }

    def _is_exact(self, released: SecureSum) -> bool:
        addends = np.stack([self._addends[number] for number in released.survivors])
        total = np.sum(addends, axis=0, dtype=np.uint64) & np.uint64((1 << released.event.modulus_bits) - 1)
        return bool(np.array_equal(np.asarray(total, dtype=np.uint64), released.total))


def signers_for(sites: int, *, randomness: Callable[[int], bytes]) -> dict[int, SignerPrivateKey]:
    """A signing key for each site of a simulation."""
    suite = SignerSuite.ED25519
    return {number: generate_signer(suite, randomness(SEED_BYTES[suite])) for number in range(sites)}


@dataclass(slots=True)
class _Gathered:
    """The sum of a round as it grows."""

    survivors: list[int] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    rows: list[Float[ndarray, "clients upload"]] = field(default_factory=list)
    integers: Int64[ndarray, "numbers"] | None = None
    total: Float64[ndarray, "upload"] | None = None
    count: float = 0.0
    unclipped: int = 0
    message_bytes: int = 0


class Sums:
    """A cohort trained at once, its uploads summed as they would be under masks; or in the clear, for ``"plain"``.

    Args:
        task: What is trained.
        randomness: Of the sites' noise.
        works: Where the local work is done; by default here.
    """

    def __init__(
        self,
        task: Task,
        *,
        randomness: Callable[[int], bytes],
        works: Works | None = None,
    ) -> None:
        self._task, self._randomness = task, randomness
        self._owns: dict[int, Own] = {}
        self._works: Works = works or (lambda weights, planned, own: uploads(task, weights, planned, own))
        self._kept: OrderedDict[int, Records] = OrderedDict()
        self._kept_bytes = 0

    def owns(self) -> dict[int, Own]:
        """What sites keep for themselves."""
        return {site: own for site, own in self._owns.items() if own}

    def restore(self, owns: Mapping[int, Own]) -> None:
        """Give sites back what they kept."""
        self._owns = {site: dict(own) for site, own in owns.items()}

    def carry(self, server: Server, instruction: Instruction, *, dropped: Set[int]) -> Outcome:
        """Run one round."""
        task, cohort = self._task, instruction.cohort or ()
        gathered = _Gathered()
        planned = self._plan([site for site in cohort if site not in dropped], instruction, gathered)
        privacy = task.privacy
        if privacy is not None and instruction.clip is not None:
            privacy = privacy.with_clip(instruction.clip)
        if privacy is not None and privacy.unit is Unit.RECORD:
            for work in planned:
                integers = private_sum(task, instruction.weights, work.records)[None]
                self._add_integers(gathered, (work.client,), integers, privacy, sites=len(cohort))
        else:
            for upload in self._works(instruction.weights, planned, self._owns):
                self._gather(gathered, upload, instruction, privacy, sites=len(cohort))
        return self._close(server, gathered, instruction)

    def evaluate(self, server: Server, instruction: Instruction) -> Evaluated:
        """The sum that the masks would leave of what the sites measure."""
        task, sites = self._task, instruction.cohort or ()
        refused, parts = [], []
        for site in sites:
            try:
                records, own = evaluation.held_out(task, site), self._owns.get(site, {})
                part = evaluation.measured(task, instruction.weights, site=site, records=records, own=own)
                parts.append(evaluation.to_grid(task, part, site=site, sites=len(sites)))
            except InputError as error:
                refused.append(Refused(site=site, round=instruction.round, why=str(error)))
        if len(parts) < (least_sites(len(sites)) if task.secure else 1):
            return Evaluated(refused=tuple(refused))
        total = fixed_point.from_integers(np.sum(parts, axis=0), scale_bits=task.scale_bits)
        sent = len(parts) * evaluation.LENGTH * _NUMBER_BYTES
        return Evaluated(metrics=evaluation.means(total), refused=tuple(refused), upload_bytes=sent)

    def _plan(self, sites: Sequence[int], instruction: Instruction, gathered: _Gathered) -> list[LocalWork]:
        task, planned = self._task, []
        for site in sites:
            try:
                records = self._records(site)
            except InputError as error:
                gathered.refused.append(Refused(site=site, round=instruction.round, why=str(error)))
                continue
            planned.append(
                plan_work(
                    task,
                    client=site,
                    records=records,
                    weights=instruction.weights,
                    shared=instruction.shared,
                    own=self._owns.setdefault(site, {}),
                    seed=instruction.seed,
                    round_number=instruction.round,
                    age=self._age(site, instruction),
                )
            )
        return planned

    def _age(self, site: int, instruction: Instruction) -> int:
        if not isinstance(self._task.strategy, FedBuff):
            return 0
        oldest = len(instruction.shared.get("older", ()))
        draws = np.random.default_rng([instruction.seed, instruction.round, site, 1])
        return int(draws.integers(0, min(oldest, self._task.strategy.max_age) + 1))

    def _records(self, site: int) -> Records:
        """A site's records; those used last are kept in some megabytes."""
        if site in self._kept:
            self._kept.move_to_end(site)
            return self._kept[site]
        records = self._task.records(site)
        self._kept[site] = records
        self._kept_bytes += records.nbytes
        while self._kept_bytes > _KEPT_BYTES and len(self._kept) > 1:
            self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
        return records

    def _gather(
        self, gathered: _Gathered, upload: Uploads, instruction: Instruction, privacy: Privacy | None, *, sites: int
    ) -> None:
        task = self._task
        gathered.message_bytes += upload.message_bytes
        if privacy is not None:
            self._gather_clipped(gathered, upload, privacy, sites=sites)
            return
        finite = upload.finite
        if not finite.all():
            upload = self._without(gathered, upload, finite, instruction)
        if task.secure:
            try:
                integers = on_grid(task, upload, sites=sites)
            except InputError:
                bound = task.plain_bound(sites=sites)
                fits = np.abs(upload.rows).max(axis=1) * upload.counts <= bound
                upload = self._without(gathered, upload, np.asarray(fits), instruction)
                integers = on_grid(task, upload, sites=sites)
            self._add_integers(gathered, upload.clients, integers, None, sites=sites)
        elif task.strategy.rule is not None:
            gathered.survivors += upload.clients
            gathered.rows.append(upload.rows)
        else:
            gathered.survivors += upload.clients
            # Not a product of BLAS: its threads cost more than they save on a few rows.
            if len(set(upload.counts.tolist())) == 1:
                weighed = upload.rows.sum(axis=0).astype(np.float64) * upload.counts[0]
            else:
                scaled = upload.rows * upload.counts.astype(upload.rows.dtype)[:, None]
                weighed = scaled.sum(axis=0).astype(np.float64)
            gathered.total = weighed if gathered.total is None else gathered.total + weighed
            gathered.count += float(upload.counts.sum())

    def _gather_clipped(self, gathered: _Gathered, upload: Uploads, privacy: Privacy, *, sites: int) -> None:
        grid = dp.clip_updates(upload.rows, clip=privacy.clip, scale_bits=privacy.scale_bits)
        if privacy.adaptive is not None:
            norms = np.linalg.norm(upload.rows.astype(np.float64), axis=1)
            gathered.unclipped += int(np.sum(norms <= privacy.clip))
        if privacy.noise is NoiseSource.CENTRAL:
            integers = grid.sum(axis=0, keepdims=True).astype(np.int64)
        else:
            integers = grid.astype(np.int64)
        self._add_integers(gathered, upload.clients, integers, privacy, sites=sites)

    def _add_integers(
        self,
        gathered: _Gathered,
        clients: Sequence[int],
        integers: Int64[ndarray, "rows numbers"],
        privacy: Privacy | None,
        *,
        sites: int,
    ) -> None:
        total = integers.sum(axis=0)
        if privacy is not None and privacy.noise is NoiseSource.DISTRIBUTED:
            variance = privacy.share_variance(dimension=len(total), sites=sites)
            for _ in clients:
                total = total + dp.discrete_gaussian(len(total), variance=variance, randomness=self._randomness)
        gathered.integers = total if gathered.integers is None else gathered.integers + total
        gathered.survivors += clients

    @staticmethod
    def _without(
        gathered: _Gathered, upload: Uploads, fine: Bool[ndarray, "clients"], instruction: Instruction
    ) -> Uploads:
        for site, good in zip(upload.clients, fine, strict=True):
            if not good:
                why = f"site {site}: its update is not finite or too large: its training diverged"
                gathered.refused.append(Refused(site=site, round=instruction.round, why=why))
        return Uploads(
            clients=tuple(site for site, good in zip(upload.clients, fine, strict=True) if good),
            rows=upload.rows[fine],
            counts=upload.counts[fine],
        )

    def _close(self, server: Server, gathered: _Gathered, instruction: Instruction) -> Outcome:
        task, survivors, invited = self._task, tuple(sorted(gathered.survivors)), len(instruction.cohort or ())
        least = server.least
        if len(survivors) < least:
            why = f"round {instruction.round}: expected {least} sites or more in the sum, got {len(survivors)}"
            why = "; ".join([why, *(each.why for each in gathered.refused)])
            return Outcome(events=server.abandon_round(), refused=tuple(gathered.refused), abandoned=why)
        try:
            events = self._events(server, gathered, invited=invited)
        except ProtocolError as error:
            return Outcome(events=server.abandon_round(), refused=tuple(gathered.refused), abandoned=str(error))
        whole = task.secure or task.compression is None
        return Outcome(
            events=events,
            survivors=survivors,
            refused=tuple(gathered.refused),
            upload_bytes=len(survivors) * task.sum_length * _NUMBER_BYTES if whole else gathered.message_bytes,
        )

    def _events(self, server: Server, gathered: _Gathered, *, invited: int) -> tuple[Event, ...]:
        survivors = len(gathered.survivors)
        if gathered.rows:
            return server.close_rows(np.concatenate(gathered.rows), invited=invited)
        if gathered.integers is not None:
            return server.close_sum(
                gathered.integers, invited=invited, survivors=survivors, unclipped=gathered.unclipped
            )
        if gathered.total is None:
            raise ProtocolError("server, step update: nothing was summed")
        total = gathered.total if isinstance(self._task.strategy, FedSGD) else gathered.total / gathered.count
        return server.close_mean(total, invited=invited, survivors=survivors)
