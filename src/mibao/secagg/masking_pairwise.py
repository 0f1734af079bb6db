"""Double masking on the complete graph: the cryptographic steps that client and server share.

Every pair of clients agrees on a seed whose stream one adds and the other subtracts; every client adds a mask of
its own besides, so that an upload which comes too late, after its pairwise masks were opened, stays hidden.

Source: Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning", CCS 2017,
section 4 and figure 4 with the steps that figure marks for active adversaries; ``docs/spec/secagg.md``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt64
from numpy import ndarray

from mibao.codec import canonical
from mibao.crypto import agreement, kdf, prg, shamir
from mibao.crypto.aead import NONCE_BYTES, AesGcm
from mibao.crypto.kdf import domain_tag, hmac_sha256
from mibao.errors import IntegrityError
from mibao.secagg.masking import Phase, Session
from mibao.secagg.masking_pairwise_messages import HASH_BYTES, PUBLIC_BYTES, SHARE_BYTES, Kind, MessageFormat, Signed
from mibao.secagg.message_fields import blaming, client_name, expect_fields, octets

# Each key seals exactly one share: a fixed nonce repeats under no key.
_NONCE = bytes(NONCE_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvertisedKeys:
    """One client's two X25519 public keys for one round: to encrypt shares to it, and to agree on masks."""

    share_key: bytes
    mask_key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareContext:
    """What every key and ciphertext of one round is bound to: the session and all advertised keys."""

    binding: bytes
    keys_hash: bytes

    @property
    def both(self) -> bytes:
        """The two as one context for key derivation."""
        return self.binding + self.keys_hash


def client_randomness_bytes(session: Session) -> int:
    """How many random bytes one client consumes in one round: two X25519 secrets, one seed, two polynomials."""
    return 2 * agreement.SECRET_BYTES + prg.SEED_BYTES + 2 * shamir.randomness_bytes(session.secret_threshold)


def share_index(session: Session, number: int) -> int:
    """Where a client's Shamir shares are taken: its place on the roster, from 1."""
    return list(session.roster).index(number) + 1


def read_advertisement(message_format: MessageFormat, data: bytes) -> tuple[int, AdvertisedKeys]:
    """Whose keys a signed advertisement holds, and the keys.

    Raises:
        ProtocolError: not signed by the pinned key of that client for this session and round, or malformed.
    """
    signed = message_format.read_signed(Kind.ADVERTISEMENT, data)
    with blaming(client_name(signed.sender), Phase.ADVERTISE):
        return signed.sender, advertised_keys(signed)


def advertised_keys(signed: Signed) -> AdvertisedKeys:
    """The keys in an advertisement. Raises ``IntegrityError`` when it is malformed."""
    expect_fields(signed.body, "mask_key", "share_key")
    return AdvertisedKeys(
        share_key=octets(signed.body, "share_key", size=PUBLIC_BYTES),
        mask_key=octets(signed.body, "mask_key", size=PUBLIC_BYTES),
    )


def read_confirmation(message_format: MessageFormat, data: bytes, expected: bytes) -> int:
    """Who signed a confirmation of the expected transcript.

    Raises:
        ProtocolError: not signed by that client for this session and round, or of another transcript.
    """
    signed = message_format.read_signed(Kind.CONFIRMATION, data)
    with blaming(client_name(signed.sender), Phase.CONFIRM):
        check_confirmation(signed, expected)
    return signed.sender


def check_confirmation(signed: Signed, expected: bytes) -> None:
    """Raises ``IntegrityError`` unless the confirmation is of this transcript."""
    expect_fields(signed.body, "transcript")
    if octets(signed.body, "transcript", size=HASH_BYTES) != expected:
        raise IntegrityError("confirmed other keys or another set of survivors")


def check_distinct(keys: Mapping[int, AdvertisedKeys]) -> None:
    """Raises ``IntegrityError`` when one public key was advertised twice, by one client or by two."""
    held = [raw for one in keys.values() for raw in (one.share_key, one.mask_key)]
    if len(set(held)) != len(held):
        raise IntegrityError("one public key was advertised twice")


def keys_hash(keys: Mapping[int, AdvertisedKeys]) -> bytes:
    """32 bytes that stand for who advertised which keys."""
    parts = [_number(client) + keys[client].share_key + keys[client].mask_key for client in sorted(keys)]
    return hashlib.sha256(domain_tag("secagg/pairwise/keys", *parts)).digest()


def neighbours(session: Session, context: ShareContext, clients: Collection[int]) -> Mapping[int, frozenset[int]]:
    """With whom each of these clients shares and masks: everybody, or those next to it on a random circle.

    The order on the circle hangs on every advertised key, so it is fixed only after all are.

    Source: Bell et al., CCS 2020.
    """
    everybody = frozenset(clients)
    if session.neighbours is None or session.neighbours >= len(everybody) - 1:
        return {number: everybody - {number} for number in everybody}
    seed = kdf.derive(context.both, purpose="secagg/pairwise/graph")
    order = sorted(everybody, key=lambda number: hmac_sha256(seed, _number(number)))
    half = session.neighbours // 2
    steps = [*range(-half, 0), *range(1, half + 1)]
    return {
        number: frozenset(order[(place + step) % len(order)] for step in steps) for place, number in enumerate(order)
    }


def transcript(context: ShareContext, *, sharers: Iterable[int], alive: Iterable[int], dropped: Iterable[int]) -> bytes:
    """32 bytes that stand for all a client must know before it reveals: session, keys, and who is in the sum."""
    sets = canonical.encode({"alive": [*alive], "dropped": [*dropped], "sharers": [*sharers]})
    return hashlib.sha256(domain_tag("secagg/pairwise/transcript", context.binding, context.keys_hash, sets)).digest()


def pair_secret(secret: bytes, peer_public: bytes, context: ShareContext) -> bytes:
    """What two clients encrypt shares under; see :func:`seal_share`. Raises ``InputError`` for a bad key."""
    return agreement.shared_secret(secret, peer_public, purpose="secagg/pairwise/shares", context=context.both)


def mask_seed(secret: bytes, peer_public: bytes, context: ShareContext) -> bytes:
    """The seed of the mask that two clients share. Raises ``InputError`` for a key of low order."""
    return agreement.shared_secret(secret, peer_public, purpose="secagg/pairwise/mask", context=context.both)


def self_mask_seed(seed: bytes) -> bytes:
    """The seed of a client's own mask."""
    return kdf.derive(seed, purpose="secagg/pairwise/self-mask")


def seed_commitment(seed: bytes) -> bytes:
    """32 bytes by which the server can tell that the shares it was given rebuild the right seed."""
    return kdf.derive(seed, purpose="secagg/pairwise/self-commitment")


def seal_share(pair: bytes, shares: bytes, context: ShareContext, *, sender: int, receiver: int) -> bytes:
    """Two Shamir shares (66 bytes) encrypted from one client to another, under a key used for nothing else."""
    direction = _number(sender) + _number(receiver)
    key = kdf.derive(pair, purpose="secagg/pairwise/share-key", context=direction)
    return AesGcm(key).seal(_NONCE, shares, _share_label(context, direction))


def open_share(pair: bytes, ciphertext: bytes, context: ShareContext, *, sender: int, receiver: int) -> bytes:
    """What :func:`seal_share` sealed.

    Raises:
        IntegrityError: altered, or made for another session, round, set of keys, sender or receiver.
    """
    direction = _number(sender) + _number(receiver)
    key = kdf.derive(pair, purpose="secagg/pairwise/share-key", context=direction)
    shares = AesGcm(key).open(_NONCE, ciphertext, _share_label(context, direction))
    if len(shares) != 2 * SHARE_BYTES:
        raise IntegrityError("share: not two numbers")
    return shares


def add_mask(total: UInt64[ndarray, " d"], seed: bytes, *, modulus_bits: int) -> None:
    """Add a seed's mask to ``total``, in place, modulo ``2**64``."""
    np.add(total, prg.ring_elements(seed, len(total), modulus_bits=modulus_bits), out=total)


def subtract_mask(total: UInt64[ndarray, " d"], seed: bytes, *, modulus_bits: int) -> None:
    """Take a seed's mask off ``total``, in place, modulo ``2**64``."""
    np.subtract(total, prg.ring_elements(seed, len(total), modulus_bits=modulus_bits), out=total)


def adds_pair_mask(client: int, peer: int) -> bool:
    """Of two clients the one with the higher number adds their mask, the other subtracts it."""
    return client > peer


def to_wire(vector: UInt64[ndarray, " d"], *, modulus_bits: int) -> bytes:
    """``vector`` modulo ``2**modulus_bits``, 4 or 8 bytes an element, little endian."""
    return vector.astype(f"<u{modulus_bits // 8}").tobytes()


def from_wire(data: bytes, *, modulus_bits: int) -> UInt64[ndarray, " d"]:
    """What :func:`to_wire` wrote."""
    return np.frombuffer(data, dtype=f"<u{modulus_bits // 8}").astype(np.uint64)


def _number(client: int) -> bytes:
    return client.to_bytes(4, "big")


def _share_label(context: ShareContext, direction: bytes) -> bytes:
    return domain_tag("secagg/pairwise/share", context.binding, context.keys_hash, direction)
