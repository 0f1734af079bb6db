"""One client in one round of the pairwise scheme: five messages, each sent once, then silence.

Source: Bonawitz et al., CCS 2017, figure 4 (users' side); ``docs/spec/secagg.md``, section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np
from jaxtyping import UInt64
from numpy import ndarray

from mibao.crypto import agreement, shamir
from mibao.crypto.keys import SignerPrivateKey
from mibao.errors import InputError, IntegrityError, ProtocolError
from mibao.secagg import masking_pairwise as steps
from mibao.secagg import masking_pairwise_messages as wire
from mibao.secagg import message_fields as fields
from mibao.secagg.masking import Phase, Session, Trust
from mibao.secagg.masking_pairwise import AdvertisedKeys, ShareContext
from mibao.secagg.masking_pairwise_messages import SERVER, Kind
from mibao.secagg.message_fields import Body


@dataclass(slots=True, repr=False, eq=False)
class _Held:
    """What a client keeps to itself, each part until the step that uses it last."""

    share_secret: bytes = b""
    mask_secret: bytes = b""
    self_seed: bytes = b""
    polynomials: bytes = b""
    vector: UInt64[ndarray, " d"] = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    pairs: dict[int, bytes] = field(default_factory=dict)
    mask_seeds: dict[int, bytes] = field(default_factory=dict)
    shares: dict[int, bytes] = field(default_factory=dict)

    @classmethod
    def from_randomness(cls, randomness: bytes, vector: UInt64[ndarray, " d"]) -> _Held:
        share_secret, mask_secret, self_seed = (randomness[start : start + 32] for start in (0, 32, 64))
        return cls(share_secret, mask_secret, self_seed, randomness[96:], vector)

    def public_keys(self) -> AdvertisedKeys:
        return AdvertisedKeys(
            share_key=agreement.public_key(self.share_secret), mask_key=agreement.public_key(self.mask_secret)
        )


class PairwiseClient:
    """A :class:`~mibao.secagg.masking.MaskingClient`. It cannot be printed open, pickled or copied.

    Args:
        session: The round; the caller never uses its number again, restarted or not.
        number: This client's place on the roster.
        signer: Its signing key.
        vector: ``session.length`` elements in ``[0, 2**modulus_bits)``; copied.
        randomness: :func:`~mibao.secagg.masking_pairwise.client_randomness_bytes` fresh random bytes.

    Raises:
        InputError: the number is not on the roster, the key is not the one pinned there, or the vector or the
            randomness is of another length or range.
    """

    def __init__(
        self,
        session: Session,
        *,
        number: int,
        signer: SignerPrivateKey,
        vector: UInt64[ndarray, " d"],
        randomness: bytes,
    ) -> None:
        if session.roster.get(number) != signer.public:
            raise InputError(f"client {number}: expected the signing key that the roster pins for it")
        _check_vector(vector, session)
        expected = steps.client_randomness_bytes(session)
        if len(randomness) != expected:
            raise InputError(f"client {number}: expected {expected} random bytes, got {len(randomness)}")
        self._session, self._number, self._signer = session, number, signer
        self._format = wire.MessageFormat(session)
        self._phase = Phase.ADVERTISE
        self._held = _Held.from_randomness(randomness, vector.copy())
        self._own_keys = self._held.public_keys()
        self._sent = b""
        self._keys: dict[int, AdvertisedKeys] = {}
        self._context = ShareContext(binding=self._format.binding, keys_hash=b"")
        self._neighbours: frozenset[int] = frozenset()
        self._sharers: tuple[int, ...] = ()
        self._alive: tuple[int, ...] = ()
        self._dropped: tuple[int, ...] = ()
        self._transcript = b""
        self._confirmed = False

    def __repr__(self) -> str:
        return f"<PairwiseClient {self._number}, round {self._session.round}, {self._phase.value}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        # A copy could be led to reveal the other half of what this one reveals.
        raise TypeError("a client of a secure sum cannot be pickled or copied")

    @property
    def phase(self) -> Phase:
        """The message this client sends next."""
        return self._phase

    @property
    def survivors(self) -> tuple[int, ...] | None:
        """Whose vectors the sum holds, once at least ``threshold`` clients have signed so; ``None`` before."""
        return self._alive if self._confirmed else None

    def start(self) -> bytes:
        """The signed advertisement of two fresh public keys. Raises ``ProtocolError`` when called again."""
        if self._phase is not Phase.ADVERTISE:
            self._close()
            raise ProtocolError(f"client {self._number}, step advertise: started twice")
        self._phase = Phase.SHARE
        self._sent = self._send(
            Kind.ADVERTISEMENT, {"mask_key": self._own_keys.mask_key, "share_key": self._own_keys.share_key}
        )
        return self._sent

    def answer(self, message: bytes) -> bytes:
        """The reply to the server's message of this phase.

        Raises:
            ProtocolError: the message is not the one due, or breaks a rule; the client closes and forgets.
        """
        if self._phase not in _ANSWERS:
            self._close()
            raise ProtocolError(f"{SERVER}, step {self._phase.value}: client {self._number} has nothing to answer")
        expects, step, following = _ANSWERS[self._phase]
        phase, self._phase = self._phase, Phase.CLOSED
        reply = None
        try:
            body = self._format.read_broadcast(expects, message)
            with fields.blaming(SERVER, phase):
                reply = step(self, body)
        finally:
            last = following is Phase.CLOSED or (phase is Phase.CONFIRM and self._session.trust is Trust.HONEST_SERVER)
            if reply is None or last:
                self._close()
        self._phase = Phase.CLOSED if last else following
        return reply

    def _share(self, body: Body) -> bytes:
        fields.expect_fields(body, "advertisements")
        for data in fields.messages(body, "advertisements", most=len(self._session.roster)):
            if data == self._sent:
                sender, keys = self._number, self._own_keys
            else:
                sender, keys = steps.read_advertisement(self._format, data)
            if self._keys and sender <= max(self._keys):
                raise IntegrityError("advertisements: expected in ascending order, each client once")
            self._keys[sender] = keys
        self._check_enough(len(self._keys), "advertised")
        if self._keys.get(self._number) != self._own_keys:
            raise IntegrityError("advertisements: this client's own keys are missing or swapped")
        steps.check_distinct(self._keys)
        self._context = ShareContext(binding=self._format.binding, keys_hash=steps.keys_hash(self._keys))
        self._neighbours = steps.neighbours(self._session, self._context, self._keys)[self._number]
        shares = self._split()
        sealed = {peer: self._seal_to(peer, shares[peer]) for peer in sorted(self._neighbours)}
        held = self._held
        held.shares = {self._number: shares[self._number]}
        held.share_secret = held.mask_secret = b""
        return self._send(
            Kind.SHARES,
            {
                "commitment": steps.seed_commitment(self._held.self_seed),
                "keys": self._context.keys_hash,
                "shares": fields.pairs(sealed),
            },
        )

    def _split(self) -> dict[int, bytes]:
        """For each advertiser a share of the mask secret, and behind it one of the self-mask seed."""
        held, threshold = self._held, self._session.secret_threshold
        holders = {steps.share_index(self._session, p): p for p in sorted({*self._neighbours, self._number})}
        half = shamir.randomness_bytes(threshold)
        key_shares, seed_shares = (
            shamir.split(secret, threshold=threshold, indices=list(holders), randomness=polynomial)
            for secret, polynomial in (
                (held.mask_secret, held.polynomials[:half]),
                (held.self_seed, held.polynomials[half:]),
            )
        )
        held.polynomials = b""
        return {holders[a.index]: a.value + b.value for a, b in zip(key_shares, seed_shares, strict=True)}

    def _seal_to(self, peer: int, shares: bytes) -> bytes:
        held, keys = self._held, self._keys[peer]
        with fields.blaming(fields.client_name(peer), Phase.ADVERTISE):
            held.pairs[peer] = pair = steps.pair_secret(held.share_secret, keys.share_key, self._context)
            held.mask_seeds[peer] = steps.mask_seed(held.mask_secret, keys.mask_key, self._context)
        return steps.seal_share(pair, shares, self._context, sender=self._number, receiver=peer)

    def _mask(self, body: Body) -> bytes:
        fields.expect_fields(body, "receiver", "shares")
        if fields.integer(body, "receiver") != self._number:
            raise IntegrityError("shares: meant for another client")
        delivered = fields.entries(body, "shares", size=wire.CIPHERTEXT_BYTES)
        if not delivered.keys() <= self._neighbours:
            raise IntegrityError("shares: from a client that advertised no keys")
        self._sharers = tuple(sorted({*delivered, self._number}))
        self._check_sharers()
        for peer, ciphertext in delivered.items():
            with fields.blaming(fields.client_name(peer), Phase.SHARE):
                self._held.shares[peer] = steps.open_share(
                    self._held.pairs[peer], ciphertext, self._context, sender=peer, receiver=self._number
                )
        self._held.pairs = {}
        return self._send(Kind.UPLOAD, {"vector": self._masked_vector()})

    def _masked_vector(self) -> bytes:
        held, bits, masked = self._held, self._session.modulus_bits, self._held.vector
        steps.add_mask(masked, steps.self_mask_seed(held.self_seed), modulus_bits=bits)
        for peer in self._sharers:
            if peer == self._number:
                continue
            apply = steps.add_mask if steps.adds_pair_mask(self._number, peer) else steps.subtract_mask
            apply(masked, held.mask_seeds[peer], modulus_bits=bits)
        held.self_seed, held.mask_seeds = b"", {}
        held.vector = np.zeros(0, dtype=np.uint64)
        return steps.to_wire(masked, modulus_bits=bits)

    def _confirm(self, body: Body) -> bytes:
        fields.expect_fields(body, "alive", "dropped")
        alive, dropped = fields.numbers(body, "alive"), fields.numbers(body, "dropped")
        if not set(alive).isdisjoint(dropped):
            raise IntegrityError("survivors: a client is listed as alive and as dropped")
        if {*alive, *dropped} & {*self._neighbours, self._number} != set(self._sharers):
            raise IntegrityError("survivors: alive and dropped are not together the clients that shared")
        if not {*alive, *dropped} <= self._keys.keys():
            raise IntegrityError("survivors: alive and dropped are not together the clients that shared")
        if self._number not in alive:
            raise IntegrityError("survivors: this client is not among them")
        self._check_enough(len(alive), "alive")
        self._alive, self._dropped = alive, dropped
        if self._session.trust is Trust.HONEST_SERVER:
            return self._send_revelation()
        self._transcript = steps.transcript(
            self._context, sharers=sorted((*alive, *dropped)), alive=alive, dropped=dropped
        )
        self._sent = self._send(Kind.CONFIRMATION, {"transcript": self._transcript})
        return self._sent

    def _reveal(self, body: Body) -> bytes:
        fields.expect_fields(body, "confirmations")
        confirmed: set[int] = set()
        for data in fields.messages(body, "confirmations", most=len(self._alive)):
            if data == self._sent:
                confirmed.add(self._number)
            else:
                confirmed.add(steps.read_confirmation(self._format, data, self._transcript))
        if not confirmed <= set(self._alive):
            raise IntegrityError("confirmations: signed by a client that is not alive")
        if len(confirmed) < self._session.threshold:
            raise IntegrityError(
                f"confirmations: expected {self._session.threshold} clients to have signed, got {len(confirmed)}"
            )
        return self._send_revelation()

    def _send_revelation(self) -> bytes:
        self._confirmed = True
        held, near = self._held.shares, set(self._sharers)
        # For each peer the one half or the other, decided by two sets that were checked to be disjoint.
        return self._send(
            Kind.REVELATION,
            {
                "keys": fields.pairs({peer: held[peer][: wire.SHARE_BYTES] for peer in self._dropped if peer in near}),
                "seeds": fields.pairs({peer: held[peer][wire.SHARE_BYTES :] for peer in self._alive if peer in near}),
            },
        )

    def _check_sharers(self) -> None:
        if self._session.neighbours is None:
            self._check_enough(len(self._sharers), "shared")
        elif len(self._sharers) < self._session.secret_threshold:
            raise IntegrityError(
                f"expected at least {self._session.secret_threshold} clients of the neighbourhood to have shared, "
                f"got {len(self._sharers)}"
            )

    def _check_enough(self, clients: int, did: str) -> None:
        if clients < self._session.least_alive:
            raise IntegrityError(f"expected at least {self._session.least_alive} clients {did}, got {clients}")

    def _send(self, kind: Kind, body: Body) -> bytes:
        return self._format.write_signed(kind, body, sender=self._number, signer=self._signer)

    def _close(self) -> None:
        self._phase = Phase.CLOSED
        self._held = _Held()


_ANSWERS: dict[Phase, tuple[Kind, Callable[[PairwiseClient, Body], bytes], Phase]] = {
    Phase.SHARE: (Kind.KEYS, PairwiseClient._share, Phase.MASK),
    Phase.MASK: (Kind.DELIVERY, PairwiseClient._mask, Phase.CONFIRM),
    Phase.CONFIRM: (Kind.SURVIVORS, PairwiseClient._confirm, Phase.REVEAL),
    Phase.REVEAL: (Kind.CONFIRMATIONS, PairwiseClient._reveal, Phase.CLOSED),
}


def _check_vector(vector: UInt64[ndarray, " d"], session: Session) -> None:
    if vector.shape != (session.length,) or vector.dtype != np.uint64:
        raise InputError(
            f"vector: expected {session.length} elements of type uint64, got {vector.shape}, {vector.dtype}"
        )
    if session.modulus_bits < 64 and int(vector.max()) >> session.modulus_bits:
        raise InputError(f"vector: expected elements below 2**{session.modulus_bits}")
