"""One client in one round of the one-shot scheme: a single message, recorded before it leaves.

Source: ``docs/spec/secagg.md``, sections 10 to 12.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NoReturn

import numpy as np
from jaxtyping import UInt64
from numpy import ndarray

from mibao.crypto import kdf, kem
from mibao.crypto.kdf import domain_tag
from mibao.crypto.keys import SignerPrivateKey
from mibao.errors import InputError, ProtocolError
from mibao.secagg import masking_rlwe as steps
from mibao.secagg import packed_sharing
from mibao.secagg.journal import Journal
from mibao.secagg.masking import Phase
from mibao.secagg.masking_rlwe import CommitteeSession
from mibao.secagg.masking_rlwe_messages import SERVER, RlweFormat


class RlweClient:
    """A :class:`~mibao.secagg.masking.MaskingClient` of one message. It cannot be printed open, pickled or copied.

    With a journal that outlives it, a client that is started again for the same round sends the very bytes it sent
    before, whatever vector and randomness it is given now.

    Args:
        session: The round.
        number: This client's place on the roster.
        signer: Its signing key.
        vector: ``session.length`` numbers of ``session.input_bits``, modulo ``2**session.modulus_bits``; copied.
        randomness: 64 fresh random bytes.
        journal: What this client sent before.
        now: The time, in Unix seconds.

    Raises:
        InputError: the number is not on the roster, the key is not the one pinned there, or the vector or the
            randomness is of another length or range.
    """

    def __init__(
        self,
        session: CommitteeSession,
        *,
        number: int,
        signer: SignerPrivateKey,
        vector: UInt64[ndarray, " d"],
        randomness: bytes,
        journal: Journal,
        now: Callable[[], float],
    ) -> None:
        if session.roster.get(number) != signer.public:
            raise InputError(f"client {number}: expected the signing key that the roster pins for it")
        steps.check_vector(session, vector)
        if len(randomness) != steps.CLIENT_RANDOMNESS_BYTES:
            raise InputError(
                f"client {number}: expected {steps.CLIENT_RANDOMNESS_BYTES} random bytes, got {len(randomness)}"
            )
        self._session, self._number, self._signer = session, number, signer
        self._vector, self._randomness = vector.copy(), randomness
        self._journal, self._now = journal, now
        self._format = RlweFormat(session)
        self._phase = Phase.MASK

    def __repr__(self) -> str:
        return f"<RlweClient {self._number}, round {self._session.round}, {self._phase.value}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a client of a secure sum cannot be pickled or copied")

    @property
    def phase(self) -> Phase:
        """``MASK`` before the one message, ``CLOSED`` after it."""
        return self._phase

    def start(self) -> bytes:
        """The one message: masked vector and sealed shares. Once recorded, always the same bytes.

        Raises:
            ProtocolError: called again, or after the round has expired.
            InputError: the random bytes were used before, or come from a generator that does not work.
        """
        if self._phase is not Phase.MASK:
            raise ProtocolError(f"client {self._number}, step mask: started twice")
        self._phase = Phase.CLOSED
        try:
            return self._recorded()
        finally:
            self._vector, self._randomness = np.zeros(0, dtype=np.uint64), b""

    def answer(self, message: bytes) -> NoReturn:
        """Raises ``ProtocolError``: nothing is asked of a client of this scheme."""
        raise ProtocolError(f"{SERVER}, step {self._phase.value}: client {self._number} has nothing to answer")

    def _recorded(self) -> bytes:
        session = self._session
        if self._now() > session.expires_s:
            raise ProtocolError(f"client {self._number}, step mask: the round has expired")
        # By session and round alone: a server that shows another roster or committee gets no second vector.
        place = session.session_id.value + session.round.to_bytes(4, "big") + self._number.to_bytes(4, "big")
        name = domain_tag("secagg/rlwe/sent", place)
        sent = self._journal.find(name)
        if sent is not None:
            return sent
        fingerprint = hashlib.sha256(domain_tag("secagg/rlwe/used", self._randomness)).digest()
        if self._journal.record(domain_tag("secagg/rlwe/used", fingerprint), place) != place:
            raise InputError(f"client {self._number}: expected fresh random bytes, got some that were used before")
        return self._journal.record(name, self._message())

    def _message(self) -> bytes:
        session = self._session
        seed, error_seed = self._randomness[:32], self._randomness[32:]
        short = steps.draw_secrets(session, seed)
        masked = steps.mask(session, self._vector, secrets=short, error_seed=error_seed)
        dealt = packed_sharing.deal(
            short.ravel(),
            packing=session.committee.sharing,
            blinds=steps.DEALER_CHECKS,
            seed=kdf.derive(seed, purpose="secagg/rlwe/dealing"),
        ).astype("<u4")
        sealed = []
        for (number, member), values in zip(session.committee.members.items(), dealt, strict=True):
            label = steps.share_label(session, self._format.binding, client=self._number, member=number)
            sealed.append(kem.seal_once(member.recipient, values.tobytes(), info=label, associated_data=label))
        vector = steps.to_wire(masked, session.parameters)
        return self._format.write_upload(vector, sealed, client=self._number, signer=self._signer)
