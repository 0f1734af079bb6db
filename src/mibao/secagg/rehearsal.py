"""A round with made-up vectors, each party's messages and work on record: what a scheme will cost, before it is used.

All parties play in one process through the real messages. Time is an argument: the caller's clock says what it counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from jaxtyping import UInt64
from numpy import ndarray

from mibao.crypto.keys import (
    SEED_BYTES,
    RecipientPrivateKey,
    RecipientSuite,
    SignerPrivateKey,
    SignerSuite,
    generate_recipient,
    generate_signer,
)
from mibao.errors import InputError
from mibao.secagg import masking_rlwe, planning
from mibao.secagg.encrypted_sum import HolderSession
from mibao.secagg.encrypted_sum_parties import EncryptedSumClient, EncryptedSumServer, KeyHolder
from mibao.secagg.journal import MemoryJournal
from mibao.secagg.masking import MaskingServer, Phase, SecureSum, Session, Trust
from mibao.secagg.masking_pairwise import client_randomness_bytes
from mibao.secagg.masking_pairwise_client import PairwiseClient
from mibao.secagg.masking_pairwise_server import PairwiseServer
from mibao.secagg.masking_rlwe import Committee, CommitteeSession, Member
from mibao.secagg.masking_rlwe_client import RlweClient
from mibao.secagg.masking_rlwe_member import CommitteeMember
from mibao.secagg.masking_rlwe_server import SERVER_RANDOMNESS_BYTES, RlweServer
from mibao.secagg.rlwe_parameters import smallest_set
from mibao.types import RandomId

_EXPIRES_S = 1 << 40
_PAIRWISE_MODULUS_BITS = 32
_CORRUPT_SHARE = 0.1
_NAMES = {
    Phase.ADVERTISE: "keys",
    Phase.SHARE: "shares of secrets",
    Phase.MASK: "masked vector",
    Phase.CONFIRM: "confirmation",
    Phase.REVEAL: "shares of others' secrets",
}


class Scheme(Enum):
    """The three ways to a sum."""

    RLWE = "rlwe"
    PAIRWISE = "pairwise"
    ENCRYPTED = "encrypted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to rehearse.

    Raises:
        InputError: a number is out of range.
    """

    scheme: Scheme
    clients: int
    length: int
    dropped: int = 0
    input_bits: int = 16
    trust: Trust = Trust.MALICIOUS_SERVER
    members: int = 32
    corrupt: int = 10
    packing: int = 8

    def __post_init__(self) -> None:
        if self.clients < 2 or self.length < 1 or not 0 <= self.dropped <= self.clients - 2:
            raise InputError(
                "rehearsal: expected 2 clients or more, a length, and 2 clients left, "
                f"got {self.clients}, {self.length} and {self.dropped} dropping out"
            )
        if not 1 <= self.input_bits <= 32:
            raise InputError(f"rehearsal: expected 1 to 32 bits, got {self.input_bits}")

    @property
    def alive(self) -> tuple[int, ...]:
        """Who sends a vector: the others are spread evenly."""
        gone = {place * self.clients // self.dropped for place in range(self.dropped)} if self.dropped else set()
        return tuple(number for number in range(self.clients) if number not in gone)


@dataclass(slots=True)
class Line:
    """What one kind of party did in one step: how often, bytes it sent, and seconds, all together."""

    who: str
    what: str
    times: int = 0
    sent_bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Report:
    """A finished rehearsal.

    Attributes:
        lines: In the order of first use.
        released: The sum.
        exact: Whether it is, bit for bit, the sum of what the clients put in.
        terms: What was chosen for the scheme, in one line.
    """

    lines: tuple[Line, ...]
    released: SecureSum
    exact: bool
    terms: str

    def seconds(self, who: str) -> float:
        """Of all parties of one kind."""
        return sum(line.seconds for line in self.lines if line.who == who)


@dataclass(slots=True)
class _Ledger:
    clock: Callable[[], float]
    lines: dict[tuple[str, str], Line] = field(default_factory=dict)

    @contextmanager
    def step(self, who: str, what: str) -> Iterator[Line]:
        line = self.lines.setdefault((who, what), Line(who, what))
        started = self.clock()
        yield line
        line.seconds += self.clock() - started
        line.times += 1


class _Vectors:
    """Made-up vectors, one at a time, and their plain sum."""

    def __init__(self, plan: Plan, randomness: Callable[[int], bytes]) -> None:
        self._plan, self._randomness = plan, randomness
        self.total: UInt64[ndarray, " d"] = np.zeros(plan.length, dtype=np.uint64)

    def next(self) -> UInt64[ndarray, " d"]:
        words = np.frombuffer(self._randomness(4 * self._plan.length), dtype="<u4")
        vector: UInt64[ndarray, " d"] = words.astype(np.uint64) & np.uint64((1 << self._plan.input_bits) - 1)
        self.total += vector
        return vector


def rehearse(
    plan: Plan,
    *,
    randomness: Callable[[int], bytes],
    clock: Callable[[], float],
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Report:
    """The round's costs, by ``clock`` in seconds; ``progress`` hears what is done, of how many.

    Raises:
        InputError: the plan does not fit the scheme.
        ProtocolError: so many dropped out that no sum comes out.
        MissingExtra: ``encrypted`` without seal-python.
    """
    ledger, vectors = _Ledger(clock), _Vectors(plan, randomness)
    play = {Scheme.RLWE: _rlwe, Scheme.PAIRWISE: _pairwise, Scheme.ENCRYPTED: _encrypted}[plan.scheme]
    released, terms = play(plan, ledger, vectors, randomness, progress)
    modulus = np.uint64((1 << released.event.modulus_bits) - 1)
    exact = bool(np.array_equal(released.total, vectors.total & modulus))
    return Report(lines=tuple(ledger.lines.values()), released=released, exact=exact, terms=terms)


_Progress = Callable[[str, int, int], None]
_Played = tuple[SecureSum, str]


def _signers(count: int, randomness: Callable[[int], bytes], *, first: int = 0) -> dict[int, SignerPrivateKey]:
    suite = SignerSuite.ED25519
    return {first + n: generate_signer(suite, randomness(SEED_BYTES[suite])) for n in range(count)}


def _rlwe(
    plan: Plan, ledger: _Ledger, vectors: _Vectors, randomness: Callable[[int], bytes], progress: _Progress
) -> _Played:
    signers = _signers(plan.clients, randomness)
    keys = _signers(plan.members, randomness, first=plan.clients)
    suite = RecipientSuite.MLKEM768_X25519
    opened: dict[int, RecipientPrivateKey] = {n: generate_recipient(suite, randomness(32)) for n in keys}
    members = {n: Member(signer=key.public, recipient=opened[n].public) for n, key in keys.items()}
    session = CommitteeSession(
        session_id=RandomId(randomness(RandomId.size)),
        round=0,
        roster={number: key.public for number, key in signers.items()},
        committee=Committee(members=members, corrupt=plan.corrupt, packing=plan.packing),
        parameters=smallest_set(clients=plan.clients, length=plan.length, input_bits=plan.input_bits),
        trust=plan.trust,
        min_clients=len(plan.alive),
        length=plan.length,
        input_bits=plan.input_bits,
        expires_s=_EXPIRES_S,
    )
    server = RlweServer(session, randomness=randomness(SERVER_RANDOMNESS_BYTES), now=lambda: 0.0)
    for done, number in enumerate(plan.alive):
        progress("clients", done, len(plan.alive))
        vector, drawn = vectors.next(), randomness(masking_rlwe.CLIENT_RANDOMNESS_BYTES)
        with ledger.step("client", "masked vector and shares") as line:
            client = RlweClient(
                session,
                number=number,
                signer=signers[number],
                vector=vector,
                randomness=drawn,
                journal=MemoryJournal(),
                now=lambda: 0.0,
            )
            message = client.start()
        line.sent_bytes += len(message)
        with ledger.step("server", "take in and add"):
            server.receive(message)
    committee = {
        n: CommitteeMember(
            session, number=n, signer=keys[n], recipient=opened[n], journal=MemoryJournal(), now=lambda: 0.0
        )
        for n in keys
    }
    last = False
    while not last:
        with ledger.step("server", "ask the committee") as line:
            asked = server.advance()
        line.sent_bytes += sum(map(len, asked.values()))
        last = server.phase is Phase.REVEAL
        for done, (number, question) in enumerate(asked.items()):
            progress("committee", done, len(asked))
            with ledger.step("member", "sum of shares" if last else "confirmation") as line:
                answer = committee[number].answer(question)
            line.sent_bytes += len(answer)
            with ledger.step("server", "take in answers"):
                server.receive(answer)
    parts = session.committee
    terms = (
        f"{session.parameters.id}, Delta 2^{session.delta_bits}, sums modulo 2^{session.modulus_bits}; committee of "
        f"{len(parts.members)}, {parts.corrupt} may be corrupt, {parts.sharing.dimension} reconstruct, "
        f"{parts.quorum} confirm; {plan.trust.value}"
    )
    return _release(server, ledger), terms


def _pairwise(
    plan: Plan, ledger: _Ledger, vectors: _Vectors, randomness: Callable[[int], bytes], progress: _Progress
) -> _Played:
    graph = planning.plan_graph(
        clients=plan.clients, corrupt_share=_CORRUPT_SHARE, dropout_share=plan.dropped / plan.clients
    )
    sparse = plan.trust is Trust.HONEST_SERVER and not graph.complete
    threshold = plan.clients // 2 + 1 if sparse else max(plan.clients // 2 + 1, min(graph.threshold, len(plan.alive)))
    signers = _signers(plan.clients, randomness)
    session = Session(
        session_id=RandomId(randomness(RandomId.size)),
        round=0,
        roster={number: key.public for number, key in signers.items()},
        threshold=threshold,
        min_clients=2,
        length=plan.length,
        modulus_bits=_PAIRWISE_MODULUS_BITS,
        trust=plan.trust,
        neighbours=graph.neighbours if sparse else None,
        share_threshold=graph.threshold if sparse else None,
    )
    alive = set(plan.alive)
    server = PairwiseServer(session)
    clients = {}
    for number, signer in signers.items():
        vector = vectors.next() if number in alive else np.zeros(plan.length, dtype=np.uint64)
        drawn = randomness(client_randomness_bytes(session))
        with ledger.step("client", _NAMES[Phase.ADVERTISE]) as line:
            clients[number] = PairwiseClient(session, number=number, signer=signer, vector=vector, randomness=drawn)
            message = clients[number].start()
        line.sent_bytes += len(message)
        with ledger.step("server", "take in messages"):
            server.receive(message)
    last = False
    while not last:
        with ledger.step("server", "forward") as line:
            incoming = server.advance()
        line.sent_bytes += sum(map(len, incoming.values()))
        phase = server.phase
        last = phase is Phase.REVEAL
        for done, (number, question) in enumerate(incoming.items()):
            progress(_NAMES[phase], done, len(incoming))
            if number not in alive and phase is Phase.MASK:
                continue
            with ledger.step("client", _NAMES[phase]) as line:
                answer = clients[number].answer(question)
            line.sent_bytes += len(answer)
            with ledger.step("server", "take in messages"):
                server.receive(answer)
    terms = str(graph) if sparse else f"complete graph, threshold {threshold} of {plan.clients}; {plan.trust.value}"
    return _release(server, ledger), terms


def _encrypted(
    plan: Plan, ledger: _Ledger, vectors: _Vectors, randomness: Callable[[int], bytes], progress: _Progress
) -> _Played:
    signers = _signers(plan.clients, randomness)
    (holder_number, holder_key), (number, key) = _signers(2, randomness, first=plan.clients).items()
    session = HolderSession(
        session_id=RandomId(randomness(RandomId.size)),
        round=0,
        roster={n: signer.public for n, signer in signers.items()},
        holder=(holder_number, holder_key.public),
        aggregator=(number, key.public),
        min_clients=len(plan.alive),
        length=plan.length,
        input_bits=plan.input_bits,
        expires_s=_EXPIRES_S,
    )
    with ledger.step("key holder", "public key") as line:
        holder = KeyHolder(session, signer=holder_key, journal=MemoryJournal(), now=lambda: 0.0)
        public = holder.key_message()
    line.sent_bytes += len(public) * plan.clients
    server = EncryptedSumServer(session, signer=key, now=lambda: 0.0)
    for done, client_number in enumerate(plan.alive):
        progress("clients", done, len(plan.alive))
        vector = vectors.next()
        with ledger.step("client", "encrypted vector") as line:
            message = EncryptedSumClient(
                session,
                number=client_number,
                signer=signers[client_number],
                vector=vector,
                key_message=public,
                journal=MemoryJournal(),
                now=lambda: 0.0,
            ).start()
        line.sent_bytes += len(message)
        with ledger.step("server", "take in and add"):
            server.receive(message)
    with ledger.step("server", "ask the key holder") as line:
        (question,) = server.advance().values()
    line.sent_bytes += len(question)
    with ledger.step("key holder", "decrypted sum") as line:
        answer = holder.answer(question)
    line.sent_bytes += len(answer)
    with ledger.step("server", "take in answers"):
        server.receive(answer)
    terms = f"BFV, degree 2048, 54 bits, plaintexts of {session.plain_bits} bits; the aggregator is trusted"
    return _release(server, ledger), terms


def _release(server: MaskingServer, ledger: _Ledger) -> SecureSum:
    with ledger.step("server", "take the mask off"):
        return server.release()


def totals(report: Report) -> Mapping[str, tuple[int, float]]:
    """For each kind of party the bytes it sent and its seconds, all steps together."""
    found: dict[str, tuple[int, float]] = {}
    for line in report.lines:
        sent, seconds = found.get(line.who, (0, 0.0))
        found[line.who] = (sent + line.sent_bytes, seconds + line.seconds)
    return found
