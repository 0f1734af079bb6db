"""The server in one round of the pairwise scheme. It holds no key; what it learns is one sum.

Source: Bonawitz et al., CCS 2017, figure 4 (server's side); ``docs/spec/secagg.md``, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import UInt64
from numpy import ndarray

from mibao.crypto import agreement, shamir
from mibao.crypto.shamir import Share
from mibao.errors import InputError, IntegrityError, ProtocolError
from mibao.events import SecureSumReleased
from mibao.secagg import masking_pairwise as steps
from mibao.secagg import masking_pairwise_messages as wire
from mibao.secagg import message_fields as fields
from mibao.secagg.masking import Phase, SecureSum, Session, Trust
from mibao.secagg.masking_pairwise import AdvertisedKeys, ShareContext
from mibao.secagg.masking_pairwise_messages import Kind, Signed
from mibao.secagg.message_fields import Body
from mibao.types import MaskingScheme


class PairwiseServer:
    """A :class:`~mibao.secagg.masking.MaskingServer` for one session and round."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._format = wire.MessageFormat(session)
        self._phase = Phase.ADVERTISE
        self._due: tuple[int, ...] = tuple(session.roster)
        self._came: dict[int, bytes] = {}
        self._keys: dict[int, AdvertisedKeys] = {}
        self._context = ShareContext(binding=self._format.binding, keys_hash=b"")
        self._commitments: dict[int, bytes] = {}
        self._sealed: dict[int, dict[int, bytes]] = {}
        self._total: UInt64[ndarray, " d"] = np.zeros(session.length, dtype=np.uint64)
        self._neighbours: Mapping[int, frozenset[int]] = {}
        self._sharers: tuple[int, ...] = ()
        self._alive: tuple[int, ...] = ()
        self._dropped: tuple[int, ...] = ()
        self._transcript = b""
        self._key_shares: dict[int, dict[int, bytes]] = {}
        self._seed_shares: dict[int, dict[int, bytes]] = {}
        self._received_bytes = 0

    @property
    def phase(self) -> Phase:
        """The messages this server collects now."""
        return self._phase

    @property
    def awaited(self) -> tuple[int, ...]:
        """Clients whose message of this phase has not come."""
        return tuple(number for number in self._due if number not in self._came)

    def receive(self, message: bytes) -> int:
        """Take in one client's message and return its number.

        Raises:
            ProtocolError: the message breaks a rule; it is not counted and changes nothing.
        """
        if self._phase is Phase.CLOSED:
            raise ProtocolError(f"unknown client, step {self._phase.value}: the session takes no more messages")
        kind, take = _TAKES[self._phase]
        signed = self._format.read_signed(kind, message)
        with fields.blaming(fields.client_name(signed.sender), self._phase):
            if signed.sender not in self._due:
                raise IntegrityError("had dropped out before this step")
            if signed.sender in self._came:
                raise IntegrityError("sent this step's message twice")
            take(self, signed)
        self._came[signed.sender] = message if kind in _FORWARDED else b""
        self._received_bytes += len(message)
        return signed.sender

    def advance(self) -> Mapping[int, bytes]:
        """Close the phase: what to send to whom. Clients whose message has not come count as dropped.

        Raises:
            ProtocolError: too few clients are left; the session closes and no sum comes out.
        """
        if self._phase not in _CLOSES:
            raise ProtocolError(f"server, step {self._phase.value}: no phase to advance to")
        close, following = _CLOSES[self._phase]
        self._check_enough()
        came = tuple(sorted(self._came))
        outgoing = close(self, came)
        if following is Phase.CONFIRM and self._session.trust is Trust.HONEST_SERVER:
            following = Phase.REVEAL
        self._due, self._came, self._phase = tuple(outgoing), {}, following
        return outgoing

    def release(self) -> SecureSum:
        """The sum, once enough clients have revealed; the session closes.

        Raises:
            ProtocolError: too few have, or what they revealed does not fit together.
        """
        if self._phase is not Phase.REVEAL:
            raise ProtocolError(f"server, step {self._phase.value}: no sum to release yet, or no more")
        self._check_enough()
        self._phase = Phase.CLOSED
        self._unmask()
        event = SecureSumReleased(
            session=self._session.session_id,
            scheme=MaskingScheme.PAIRWISE,
            round=self._session.round,
            invited=len(self._session.roster),
            survivors=len(self._alive),
            threshold=self._session.threshold,
            length=self._session.length,
            modulus_bits=self._session.modulus_bits,
            upload_bytes=self._received_bytes,
        )
        return SecureSum(total=self._total, survivors=self._alive, upload_bytes=self._received_bytes, event=event)

    def _check_enough(self) -> None:
        late = self._phase in (Phase.CONFIRM, Phase.REVEAL)
        needed = self._session.threshold if late else self._session.least_alive
        if len(self._came) < needed:
            step, self._phase = self._phase, Phase.CLOSED
            missing = ", ".join(str(number) for number in self.awaited)
            raise ProtocolError(
                f"clients {missing}, step {step.value}: no message; "
                f"{len(self._came)} of {len(self._session.roster)} clients left, {needed} needed"
            )

    def _take_advertisement(self, signed: Signed) -> None:
        keys = steps.advertised_keys(signed)
        steps.check_distinct({**self._keys, signed.sender: keys})
        self._keys[signed.sender] = keys

    def _send_keys(self, came: tuple[int, ...]) -> dict[int, bytes]:
        self._context = ShareContext(binding=self._format.binding, keys_hash=steps.keys_hash(self._keys))
        self._neighbours = steps.neighbours(self._session, self._context, self._keys)
        return self._to_all(came, Kind.KEYS, {"advertisements": [self._came[number] for number in came]})

    def _take_shares(self, signed: Signed) -> None:
        fields.expect_fields(signed.body, "commitment", "keys", "shares")
        if fields.octets(signed.body, "keys", size=wire.HASH_BYTES) != self._context.keys_hash:
            raise IntegrityError("saw other keys than the server collected")
        commitment = fields.octets(signed.body, "commitment", size=wire.HASH_BYTES)
        sealed = fields.entries(signed.body, "shares", size=wire.CIPHERTEXT_BYTES)
        if sealed.keys() != self._neighbours[signed.sender]:
            raise IntegrityError("shares: expected one for every other client that advertised keys")
        self._commitments[signed.sender], self._sealed[signed.sender] = commitment, sealed

    def _deliver(self, came: tuple[int, ...]) -> dict[int, bytes]:
        self._sharers = came
        outgoing = {}
        for receiver in came:
            near = self._neighbours[receiver]
            shares = fields.pairs({sender: self._sealed[sender][receiver] for sender in came if sender in near})
            body: Body = {"receiver": receiver, "shares": shares}
            outgoing[receiver] = self._format.write_broadcast(Kind.DELIVERY, body)
        self._sealed = {}
        return outgoing

    def _take_upload(self, signed: Signed) -> None:
        fields.expect_fields(signed.body, "vector")
        data = fields.octets(signed.body, "vector", size=wire.vector_bytes(self._session))
        np.add(self._total, steps.from_wire(data, modulus_bits=self._session.modulus_bits), out=self._total)

    def _announce(self, came: tuple[int, ...]) -> dict[int, bytes]:
        self._alive = came
        self._dropped = tuple(number for number in self._sharers if number not in came)
        self._transcript = steps.transcript(
            self._context, sharers=self._sharers, alive=self._alive, dropped=self._dropped
        )
        return self._to_all(came, Kind.SURVIVORS, {"alive": [*self._alive], "dropped": [*self._dropped]})

    def _take_confirmation(self, signed: Signed) -> None:
        steps.check_confirmation(signed, self._transcript)

    def _forward_confirmations(self, came: tuple[int, ...]) -> dict[int, bytes]:
        # A client asks for no more than ``threshold`` signatures, and checks every one it is sent.
        confirmations = [self._came[number] for number in came[: self._session.threshold]]
        return self._to_all(came, Kind.CONFIRMATIONS, {"confirmations": confirmations})

    def _take_revelation(self, signed: Signed) -> None:
        fields.expect_fields(signed.body, "keys", "seeds")
        keys = fields.entries(signed.body, "keys", size=wire.SHARE_BYTES)
        seeds = fields.entries(signed.body, "seeds", size=wire.SHARE_BYTES)
        near = {*self._neighbours[signed.sender], signed.sender}
        expected = [tuple(peer for peer in peers if peer in near) for peers in (self._dropped, self._alive)]
        if [tuple(keys), tuple(seeds)] != expected:
            raise IntegrityError("expected key shares of the dropped and seed shares of the alive clients")
        self._key_shares[signed.sender], self._seed_shares[signed.sender] = keys, seeds

    def _unmask(self) -> None:
        bits = self._session.modulus_bits
        for number in self._alive:
            seed = self._rebuild(number, self._seed_shares)
            if steps.seed_commitment(seed) != self._commitments[number]:
                raise _misfit(number, self._seed_shares)
            steps.subtract_mask(self._total, steps.self_mask_seed(seed), modulus_bits=bits)
        for number in self._dropped:
            secret = self._rebuild(number, self._key_shares)
            if agreement.public_key(secret) != self._keys[number].mask_key:
                raise _misfit(number, self._key_shares)
            self._cancel_pair_masks(number, secret)
        self._total &= np.uint64((1 << bits) - 1)

    def _cancel_pair_masks(self, dropped: int, secret: bytes) -> None:
        bits = self._session.modulus_bits
        for peer in self._neighbours[dropped].intersection(self._alive):
            seed = steps.mask_seed(secret, self._keys[peer].mask_key, self._context)
            if steps.adds_pair_mask(peer, dropped):
                steps.subtract_mask(self._total, seed, modulus_bits=bits)
            else:
                steps.add_mask(self._total, seed, modulus_bits=bits)

    def _rebuild(self, number: int, revealed: Mapping[int, Mapping[int, bytes]]) -> bytes:
        threshold = self._session.secret_threshold
        holders = [holder for holder in sorted(revealed) if number in revealed[holder]][:threshold]
        if len(holders) < threshold:
            raise ProtocolError(
                f"client {number}, step reveal: {len(holders)} of its {threshold} neighbours needed are left"
            )
        shares = [
            Share(index=steps.share_index(self._session, holder), value=revealed[holder][number]) for holder in holders
        ]
        try:
            return shamir.combine(shares, threshold=threshold)
        except (InputError, IntegrityError) as error:
            raise _misfit(number, revealed) from error

    def _to_all(self, receivers: tuple[int, ...], kind: Kind, body: Body) -> dict[int, bytes]:
        message = self._format.write_broadcast(kind, body)
        return dict.fromkeys(receivers, message)


_TAKES: dict[Phase, tuple[Kind, Callable[[PairwiseServer, Signed], None]]] = {
    Phase.ADVERTISE: (Kind.ADVERTISEMENT, PairwiseServer._take_advertisement),
    Phase.SHARE: (Kind.SHARES, PairwiseServer._take_shares),
    Phase.MASK: (Kind.UPLOAD, PairwiseServer._take_upload),
    Phase.CONFIRM: (Kind.CONFIRMATION, PairwiseServer._take_confirmation),
    Phase.REVEAL: (Kind.REVELATION, PairwiseServer._take_revelation),
}
_CLOSES: dict[Phase, tuple[Callable[[PairwiseServer, tuple[int, ...]], dict[int, bytes]], Phase]] = {
    Phase.ADVERTISE: (PairwiseServer._send_keys, Phase.SHARE),
    Phase.SHARE: (PairwiseServer._deliver, Phase.MASK),
    Phase.MASK: (PairwiseServer._announce, Phase.CONFIRM),
    Phase.CONFIRM: (PairwiseServer._forward_confirmations, Phase.REVEAL),
}
_FORWARDED = (Kind.ADVERTISEMENT, Kind.CONFIRMATION)


def _misfit(number: int, revealed: Mapping[int, object]) -> ProtocolError:
    holders = ", ".join(str(holder) for holder in sorted(revealed))
    return ProtocolError(
        f"clients {holders}, step reveal: their shares of client {number}'s secret do not rebuild it "
        "(one of them, or that client when it dealt them, was false)"
    )
