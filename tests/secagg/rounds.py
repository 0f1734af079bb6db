"""One deterministic round of the pairwise scheme, opened at any step, for tests that play a bad server or client."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mibao.codec import canonical, frames
from mibao.crypto import prg
from mibao.crypto.keys import SEED_BYTES, SignerPrivateKey, SignerSuite, generate_signer
from mibao.secagg import (
    PairwiseClient,
    PairwiseServer,
    Phase,
    Session,
    Trust,
    client_randomness_bytes,
    default_threshold,
)
from mibao.secagg.masking_pairwise_messages import MAGIC, VERSION, Kind, MessageFormat
from mibao.types import RandomId

ORDER = (Phase.ADVERTISE, Phase.SHARE, Phase.MASK, Phase.CONFIRM, Phase.REVEAL)


def signer(number: int, suite: SignerSuite = SignerSuite.ED25519) -> SignerPrivateKey:
    return generate_signer(suite, prg.keystream(hashlib.sha256(b"signer %d" % number).digest(), SEED_BYTES[suite]))


class Stream:
    """Reproducible bytes, in place of the operating system's."""

    def __init__(self, seed: int) -> None:
        self._seed, self._drawn = seed, 0

    def __call__(self, count: int) -> bytes:
        self._drawn += 1
        return prg.keystream(hashlib.sha256(b"%d %d" % (self._seed, self._drawn)).digest(), count)


class Round:
    """``clients`` clients (or these numbers), their keys and vectors, and the server."""

    def __init__(
        self,
        clients: int | tuple[int, ...] = 5,
        *,
        threshold: int | None = None,
        min_clients: int = 2,
        length: int = 8,
        modulus_bits: int = 32,
        round_number: int = 7,
        seed: int = 1,
        suite: SignerSuite = SignerSuite.ED25519,
        vectors: Mapping[int, np.ndarray] | None = None,
        trust: Trust = Trust.MALICIOUS_SERVER,
        neighbours: int | None = None,
        share_threshold: int | None = None,
    ) -> None:
        numbers = tuple(range(clients)) if isinstance(clients, int) else clients
        self.signers = {number: signer(number, suite) for number in numbers}
        self.session = Session(
            session_id=RandomId(b"0123456789abcdef"),
            round=round_number,
            roster={number: key.public for number, key in self.signers.items()},
            threshold=threshold or default_threshold(len(numbers)),
            min_clients=min_clients,
            length=length,
            modulus_bits=modulus_bits,
            trust=trust,
            neighbours=neighbours,
            share_threshold=share_threshold,
        )
        values = np.random.default_rng(seed)
        self.vectors = vectors or {
            number: values.integers(0, 1 << modulus_bits, length, dtype=np.uint64) for number in numbers
        }
        self.randomness = Stream(seed)
        self.format = MessageFormat(self.session)
        self.clients = {number: self.client(number) for number in numbers}
        self.server = PairwiseServer(self.session)
        self.sent: dict[Phase, dict[int, bytes]] = {}
        self.incoming: dict[Phase, dict[int, bytes]] = {}

    def client(self, number: int) -> PairwiseClient:
        return PairwiseClient(
            self.session,
            number=number,
            signer=self.signers[number],
            vector=self.vectors[number],
            randomness=self.randomness(client_randomness_bytes(self.session)),
        )

    def play(self, incoming: Mapping[int, bytes], phase: Phase, *, without: tuple[int, ...] = ()) -> dict[int, bytes]:
        """Have the clients answer and the server take it in; what they sent."""
        sent = {n: self.clients[n].answer(message) for n, message in incoming.items() if n not in without}
        for message in sent.values():
            self.server.receive(message)
        self.sent[phase] = sent
        return sent

    def run_to(self, phase: Phase, *, dropped: Mapping[int, Phase] | None = None) -> dict[int, bytes]:
        """Play honestly up to ``phase`` and return what the server sends out for it, not yet delivered."""
        dropped = dropped or {}
        gone = {number for number, at in dropped.items() if at is Phase.ADVERTISE}
        self.sent[Phase.ADVERTISE] = {n: client.start() for n, client in self.clients.items() if n not in gone}
        for message in self.sent[Phase.ADVERTISE].values():
            self.server.receive(message)
        incoming: dict[int, bytes] = {}
        for current in ORDER[1:]:
            incoming = self.incoming[current] = dict(self.server.advance())
            if current is phase:
                break
            gone |= {number for number, at in dropped.items() if at is current}
            self.play(incoming, current, without=tuple(gone))
        return incoming

    def sum_of(self, numbers: tuple[int, ...]) -> np.ndarray:
        total = np.zeros(self.session.length, dtype=np.uint64)
        for number in numbers:
            total += self.vectors[number]
        return total & np.uint64((1 << self.session.modulus_bits) - 1)

    def forge(self, kind: Kind, body: dict[str, Any], *, sender: int, key: SignerPrivateKey | None = None) -> bytes:
        """A client's message with any body, signed by that client's key or another."""
        return self.format.write_signed(kind, body, sender=sender, signer=key or self.signers[sender])


def body_of(message: bytes) -> dict[str, Any]:
    """The body of any message, unverified."""
    frame = frames.decode(message, magic=MAGIC, version=VERSION, max_bytes=1 << 24)
    envelope: Any = canonical.decode(frame.payload, max_bytes=1 << 24)
    body: Any = envelope["body"]
    return canonical.decode(body, max_bytes=1 << 24) if isinstance(body, bytes) else body  # type: ignore[return-value]


def with_envelope(message: bytes, **changes: Any) -> bytes:
    """The same message with fields of its envelope replaced, and its signature left as it was."""
    frame = frames.decode(message, magic=MAGIC, version=VERSION, max_bytes=1 << 24)
    envelope: Any = canonical.decode(frame.payload, max_bytes=1 << 24)
    payload = canonical.encode({**envelope, **changes})
    return frames.encode(frames.Frame(magic=MAGIC, version=VERSION, kind=frame.kind, payload=payload))
