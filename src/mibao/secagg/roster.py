"""The clients of a training run: numbers and keys, checked and hashed once, however many rounds there are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property

from mibao.codec import canonical
from mibao.crypto.kdf import domain_tag
from mibao.crypto.keys import SignerPublicKey
from mibao.errors import InputError
from mibao.secagg.masking import MAX_CLIENT_NUMBER


class Roster(Mapping[int, SignerPublicKey]):
    """Every invited client's number and key, ascending; it never changes.

    Its root is worked out once. Give the same roster to the session of every round, and a client's work in a round
    does not grow with the number of clients.

    Raises:
        InputError: a number is out of range, or one key stands under two.
    """

    def __init__(self, keys: Mapping[int, SignerPublicKey]) -> None:
        for number in keys:
            if not 0 <= number <= MAX_CLIENT_NUMBER:
                raise InputError(f"session: expected client number of 0 to {MAX_CLIENT_NUMBER}, got {number}")
        if len({key.raw for key in keys.values()}) != len(keys):
            raise InputError("session: expected a signing key of its own for every client, got one twice")
        self._keys = dict(sorted(keys.items()))

    def __getitem__(self, number: int) -> SignerPublicKey:
        return self._keys[number]

    def __iter__(self) -> Iterator[int]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"<Roster of {len(self)}>"

    @cached_property
    def root(self) -> bytes:
        """32 bytes that stand for every client's number and key."""
        listed: list[canonical.Value] = [[n, key.suite.value, key.raw] for n, key in self._keys.items()]
        return hashlib.sha256(domain_tag("secagg/rlwe/roster", canonical.encode(listed))).digest()
