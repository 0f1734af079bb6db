"""Answers that may leave the key holder: decrypted through noise that hides what a result says about the key.

A CKKS result is off by an error that depends on the secret key; whoever gets exact results of known computations
recovers the key. :func:`decrypt_for_release` adds Gaussian noise to the plaintext polynomial before it is decoded, of
standard deviation ``sqrt(12 * limit) * 2**(s / 2)`` times a proven bound of the circuit's error, so that ``limit``
released ciphertexts say no more about the key than ``s`` bits of statistical security allow.

The promise is for ciphertexts that an honest host computed: a ciphertext made to be decrypted (a multiple of the key,
say) is no computation, its error has no bound, and no noise hides it.

Source: Li, Micciancio, "On the Security of Homomorphic Encryption on Approximate Numbers", EUROCRYPT 2021; Li,
Micciancio, Schultz, Sorrell, "Securing Approximate Homomorphic Encryption Using Differential Privacy", CRYPTO 2022,
section 4. Their theorem takes the error's 2-norm, which the canonical norm bounds: a polynomial's coefficients have a
2-norm of at most its largest embedding.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, UInt64
from numpy import ndarray

from mibao.crypto.discrete_gaussian import MAX_WIDE_VARIANCE_BITS, wide_discrete_gaussian
from mibao.crypto.kdf import derive, domain_tag, keyed_hash
from mibao.crypto.prg import keystream
from mibao.errors import InputError
from mibao.he import residue_packing
from mibao.he.engine import Engine, SecretKey
from mibao.he.noise_bound import Bounded, secret_norm_limit
from mibao.he.ntt import embedding, inverse_ntt, ntt
from mibao.he.release_terms import Release

_TAIL_SIGMAS = 12.0  # a coefficient lies further out with a probability under 2**-100


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasePolicy:
    """How much noise each released ciphertext carries, and how many a key may release.

    Attributes:
        answers_limit: Ciphertexts, over the key's whole life.
        statistical_bits: 40 or more.
        known: Bounds of the circuit whose answers are released; see :mod:`mibao.he.noise_bound`.
    """

    answers_limit: int
    statistical_bits: int
    known: Bounded

    def __post_init__(self) -> None:
        """Refuse what promises too little or cannot be sampled.

        Raises:
            InputError: fewer than 40 bits, no answers or too many, a bound that is not positive and finite, or noise
                wider than can be sampled.
        """
        Release(answers_limit=self.answers_limit, statistical_bits=self.statistical_bits)
        if not 0 < self.known.noise < math.inf or self.known.components != 2:
            raise InputError("release: expected a positive, finite bound on the noise of a relinearized answer")
        if self.variance >> MAX_WIDE_VARIANCE_BITS:
            raise InputError(
                f"release: noise of {self.noise_std:.1e} cannot be sampled; lower the limit, the bits or the bound"
            )

    @property
    def variance(self) -> int:
        """Of a coefficient's noise: ``12 * limit * 2**s * bound**2``, rounded up."""
        return math.ceil(12 * self.answers_limit * Fraction(self.known.noise) ** 2 * (1 << self.statistical_bits))

    @property
    def noise_std(self) -> float:
        """Of a coefficient's noise."""
        return math.sqrt(self.variance)

    @property
    def largest_coefficient(self) -> float:
        """Bound on the coefficients of a released plaintext polynomial; twice as much has to fit the modulus."""
        return self.known.message * self.known.scale + self.known.noise + _TAIL_SIGMAS * self.noise_std

    def slot_error_std(self, degree: int) -> float:
        """What the noise does to a decoded slot: standard deviation of its error."""
        return self.noise_std * math.sqrt(degree / 2) / self.known.scale

    def digest(self) -> bytes:
        """Names the policy: a key that has released under one releases under no other."""
        bounds = (self.known.message.hex(), self.known.scale.hex(), self.known.noise.hex())
        text = f"{self.answers_limit} {self.statistical_bits} {self.known.level} {' '.join(bounds)}"
        return hashlib.sha256(domain_tag("he/release-policy", text.encode("ascii"))).digest()


@runtime_checkable
class ReleaseCount(Protocol):
    """Where it is kept, durably, what a key has released."""

    def take(self, *, policy: bytes, limit: int, answers: Sequence[bytes]) -> None:
        """Return once it is recorded that these answers (their digests) go out; known ones count once.

        Raises:
            BudgetExhausted: with them more than ``limit`` different answers would have gone out; nothing is recorded.
            InputError: the key has released under another policy.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Releasing:
    """All that a release takes but the answers: engine, secret, policy, and the count."""

    engine: Engine
    secret: SecretKey
    policy: ReleasePolicy
    count: ReleaseCount


def decrypt_for_release(
    answers: Sequence[bytes | memoryview], releasing: Releasing
) -> Float64[ndarray, "answers slots"]:
    """The slots of each answer, noise added: the only decryption whose result may be shown to others.

    The noise of an answer follows from the secret and the answer's bytes, so a repeated answer gets the same noise and
    says nothing new. The count is taken before anything is decrypted. Release what was asked for, and nothing beside:
    the other slots are for nobody.

    Args:
        answers: Stored ciphertexts: packed residues of two components modulo the primes left at the policy's level.

    Raises:
        BudgetExhausted: the key is at its limit and retired.
        InputError: the policy's noise does not fit the modulus, the key released under another policy, or its secret's
            norm is over the limit that the bound rests on: draw another key.
        IntegrityError: an answer has another length, or residues that are not under their primes.
    """
    policy, degree = releasing.policy, releasing.engine.parameters.ring_degree
    all_primes = releasing.engine.primes
    primes = all_primes[: len(all_primes) - policy.known.level]
    stored_secret = releasing.engine.store_secret_key(releasing.secret)
    check_secret(stored_secret, prime=all_primes[0], degree=degree)
    _check_room(policy, primes)
    held = [residue_packing.unpack(answer, primes=primes, components=2, degree=degree) for answer in answers]
    digests = [
        hashlib.sha256(domain_tag("he/released-answer", policy.digest(), answer.tobytes())).digest() for answer in held
    ]
    releasing.count.take(policy=policy.digest(), limit=policy.answers_limit, answers=digests)
    key = derive(stored_secret, purpose="he/release-noise")
    released = []
    for answer, digest in zip(held, digests, strict=True):
        seed = keyed_hash(key, purpose="he/release-noise", message=digest).value
        noise = flooding_noise(seed, degree=degree, variance=policy.variance)
        released.append(_decrypted(flooded(answer, noise, primes=primes), primes, releasing))
    return np.stack(released) if released else np.empty((0, degree // 2))


def flooding_noise(seed: bytes, *, degree: int, variance: int) -> list[int]:
    """One polynomial's noise: independent discrete Gaussians from the generator that ``seed`` starts."""
    return wide_discrete_gaussian(degree, variance=variance, randomness=_Stream(seed).take)


def flooded(
    answer: UInt64[ndarray, "2 primes degree"], noise: Sequence[int], *, primes: Sequence[int]
) -> UInt64[ndarray, "2 primes degree"]:
    """The ciphertext whose plaintext polynomial is the answer's plus ``noise``."""
    sums = answer.copy()
    for index, prime in enumerate(primes):
        residues = np.array([coefficient % prime for coefficient in noise], dtype=np.int64)
        total = sums[0, index] + ntt(residues, prime=prime)
        sums[0, index] = np.minimum(total, total - np.uint64(prime))  # below the prime the difference wraps around
    return sums


def check_secret(stored_secret: bytes, *, prime: int, degree: int) -> None:
    """Return if the secret is as small as the bounds take it to be. Raises ``InputError``: draw another key."""
    residues = np.frombuffer(stored_secret[: 8 * degree], dtype="<u8")
    norm = np.max(np.abs(embedding(inverse_ntt(residues, prime=prime).astype(np.float64))))
    if norm > secret_norm_limit(degree):
        raise InputError("release: this key's secret is larger than the noise's bound allows; generate another")


def _check_room(policy: ReleasePolicy, primes: Sequence[int]) -> None:
    if not policy.largest_coefficient < math.prod(primes) / 2:
        raise InputError(
            f"release: the noise, of {math.log2(policy.noise_std):.0f} bits, does not fit the modulus of "
            f"{math.log2(math.prod(primes)):.0f} bits left in an answer; compile for release with a larger ring"
        )


def _decrypted(
    residues: UInt64[ndarray, "2 primes degree"], primes: Sequence[int], releasing: Releasing
) -> Float64[ndarray, "slots"]:
    known, stored = releasing.policy.known, residue_packing.pack(residues, primes=primes)
    (loaded,) = releasing.engine.load_ciphertexts(stored, count=1, level=known.level, scale=known.scale)
    return releasing.engine.decrypt(releasing.secret, loaded)


class _Stream:
    """A pseudo-random stream that is read piece by piece; each piece is a stream of its own."""

    __slots__ = ("_pieces", "_seed")

    def __init__(self, seed: bytes) -> None:
        self._seed, self._pieces = seed, 0

    def take(self, count: int) -> bytes:
        piece = keyed_hash(self._seed, purpose="he/release-piece", message=self._pieces.to_bytes(8, "big")).value
        self._pieces += 1
        return keystream(piece, count)
