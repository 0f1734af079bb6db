"""Maps that one party signs for one session: who says what, bound to everything the session is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache

from mibao.codec import canonical
from mibao.crypto import sign
from mibao.crypto.keys import SignerPrivateKey, SignerPublicKey
from mibao.errors import IntegrityError
from mibao.secagg import message_fields as fields
from mibao.secagg.message_fields import Body

MAX_SIGNATURE_BYTES = 3373


class SignedMaps:
    """Signs and verifies maps of one protocol (``secagg/rlwe``) under one session's binding."""

    def __init__(self, protocol: str, binding: bytes) -> None:
        self._protocol, self._binding = protocol, binding

    def write(self, name: str, body: Body, *, sender: int, signer: SignerPrivateKey) -> bytes:
        """The map, its sender's number and a signature over both, for messages of this name."""
        content = canonical.encode(body)
        signature = sign.sign(signer, self._signed_bytes(sender, content), purpose=f"{self._protocol}/{name}")
        return canonical.encode({"body": content, "sender": sender, "signature": signature})

    def read(
        self, name: str, data: bytes, *, sender: int, key: SignerPublicKey, agreed: Mapping[str, object] | None = None
    ) -> Body:
        """The map that this sender signed.

        A sender that holds another session signed another binding: the field of ``agreed`` that differs says more
        than its signature does, and is named first.

        Raises:
            IntegrityError: malformed, from another sender, a field of ``agreed`` differs, or the signature is not
                that key's.
        """
        envelope = _envelope(data)
        fields.expect_fields(envelope, "body", "sender", "signature")
        if fields.integer(envelope, "sender") != sender:
            raise IntegrityError("signed by somebody else")
        content, signature = fields.octets(envelope, "body"), fields.octets(envelope, "signature")
        body = decode_map(content)
        for field, expected in (agreed or {}).items():
            if field in body and (body[field] != expected or type(body[field]) is not type(expected)):
                raise IntegrityError(f"{field}: differs from this session's")
        sign.verify(key, self._signed_bytes(sender, content), signature, purpose=f"{self._protocol}/{name}")
        return body

    def _signed_bytes(self, sender: int, content: bytes) -> bytes:
        return self._binding + sender.to_bytes(4, "big") + hashlib.sha256(content).digest()


@lru_cache(maxsize=4)
def _envelope(data: bytes) -> Body:
    """Whose map it claims to be is asked before it is read: decoded once for both."""
    return decode_map(data)


def sender_of(data: bytes) -> int:
    """Whose signed map it claims to be. Raises ``IntegrityError`` when it is none."""
    sender = fields.integer(_envelope(data), "sender")
    if not 0 <= sender < 1 << 32:
        raise IntegrityError("sender: expected a number below 2**32")
    return sender


def decode_map(data: bytes | memoryview) -> Body:
    """A canonical map. Raises ``IntegrityError`` for anything else."""
    value = canonical.decode(bytes(data), max_bytes=len(data))
    if not isinstance(value, dict):
        raise IntegrityError("expected a map")
    return value
