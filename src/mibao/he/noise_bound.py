"""How far a CKKS result can lie from the right one, at worst: a bound that is proven, never a sample.

A ciphertext decrypts to ``scale * right + encoding + noise``. The encoding's error is what the same circuit makes of
the encoded polynomials: it follows from the inputs, and anyone who knows them can compute it. The noise is the rest:
it comes from encryption, key switching and rounding, and depends on the key. Bounded is the largest value of either at
any embedding (the canonical norm), which products do not exceed: ``|a * b| <= |a| |b|``. Every rule takes the largest
error that the operation can make: error polynomials are drawn with bounded support, roundings are at most 1/2 a
coefficient, and the secret's norm is checked when the key is used. So no computation that keeps to the stated ranges
ever leaves its bound; typical errors lie hundreds of times under it.

The bound holds for what an honest host computes from honest encryptions.

Source: Cheon, Kim, Kim, Song, "Homomorphic Encryption for Arithmetic of Approximate Numbers", ASIACRYPT 2017, lemmas
1-4, with worst cases in place of six standard deviations; key switching: Kim, Papadimitriou, "Improving ... RNS-CKKS
Key Switching", the digits and special prime as in SEAL 4 (evaluator.cpp, ``switch_key_inplace``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mibao.errors import InputError

ERROR_SUPPORT = 21  # SEAL draws errors from a centred binomial over 42 coins
_HALF = 0.5
_SAME_SCALE = 1e-9
_UNIT = 2.0**-53
# Higham, "Accuracy and Stability of Numerical Algorithms", 2002, theorem 24.2: 7 roundings a stage of an FFT.
_FFT_ROUNDINGS = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounded:
    """What is known of a ciphertext: its scale, and bounds on its message and its errors.

    Attributes:
        message: Largest magnitude of a slot.
        scale: What the message is multiplied by.
        noise: Bound on the canonical norm of what depends on the key, in units of the scaled message.
        encoding: Bound on that of what follows from the inputs.
        level: Rescalings and dropped primes so far.
        components: Two, or three between a product and its relinearization; one of an encoded vector in clear.
    """

    message: float
    scale: float
    noise: float
    encoding: float
    level: int
    components: int = 2

    @property
    def slot_error(self) -> float:
        """Bound on the error of a decoded slot."""
        return (self.noise + self.encoding) / self.scale


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseRules:
    """The rules for one ring and one key.

    Attributes:
        degree: N.
        primes: Those that carry data, first to last.
        special_prime: The one for key switching; None where there is none.
        secret_norm: Bound on the secret's canonical norm: :func:`secret_norm_limit` where the key is checked.
    """

    degree: int
    primes: Sequence[int]
    special_prime: int | None
    secret_norm: float

    def fresh(self, *, message: float, scale: float) -> Bounded:
        """A fresh symmetric encryption: one error polynomial, over what encoding rounds."""
        encoding = self.encoding_error(message=message, scale=scale)
        return Bounded(
            message=message, scale=scale, noise=float(self.degree * ERROR_SUPPORT), encoding=encoding, level=0
        )

    def fresh_publicly(self, *, message: float, scale: float, level: int = 0) -> Bounded:
        """A fresh encryption under a public key: ``u * (its error) + (an error) + (an error) * secret`` with one prime
        more, which is then divided out. Nobody checks the norm of the ternary ``u``: it may be N.

        Source: SEAL 4, encryptor.cpp, ``encrypt_zero_internal``.

        Raises:
            InputError: there is no prime to divide out.
        """
        divided = self._primes_at(level - 1)[-1] if level else self.special_prime
        if divided is None:
            raise InputError("noise bound: encryption under a public key takes a special prime")
        before = self.degree * ERROR_SUPPORT * (self.degree + 1 + self.secret_norm)
        noise = before / divided + self._rounding(2)
        encoding = self.encoding_error(message=message, scale=scale)
        return Bounded(message=message, scale=scale, noise=noise, encoding=encoding, level=level)

    def encoded(self, *, message: float, scale: float, level: int = 0) -> Bounded:
        """A vector in clear, encoded."""
        encoding = self.encoding_error(message=message, scale=scale)
        return Bounded(message=message, scale=scale, noise=0.0, encoding=encoding, level=level, components=1)

    def encoded_constant(self, *, message: float, scale: float, level: int = 0) -> Bounded:
        """One number in every slot, or an integer near ``scale`` times that number."""
        encoding = _HALF + message * scale * _UNIT
        return Bounded(message=message, scale=scale, noise=0.0, encoding=encoding, level=level, components=1)

    def add(self, left: Bounded, right: Bounded) -> Bounded:
        """A sum of two values. Raises ``InputError`` when their levels or scales differ."""
        if left.level != right.level or not math.isclose(left.scale, right.scale, rel_tol=_SAME_SCALE):
            raise InputError("noise bound: expected summands of one level and scale")
        return replace(
            left,
            message=left.message + right.message,
            noise=left.noise + right.noise,
            encoding=left.encoding + right.encoding + right.message * abs(left.scale - right.scale),
            components=max(left.components, right.components),
        )

    def add_plain(self, value: Bounded, *, message: float) -> Bounded:
        """A sum with an encoded vector."""
        return self.add(value, self.encoded(message=message, scale=value.scale, level=value.level))

    def multiply_plain(self, value: Bounded, *, message: float, scale: float) -> Bounded:
        """A product with an encoded vector whose slots are at most ``message``."""
        return self.multiply(value, self.encoded(message=message, scale=scale, level=value.level))

    def multiply_constant(self, value: Bounded, *, message: float, scale: float) -> Bounded:
        """A product with one number in every slot."""
        return self.multiply(value, self.encoded_constant(message=message, scale=scale, level=value.level))

    def multiply(self, left: Bounded, right: Bounded) -> Bounded:
        """``(P + n)(Q + m) - PQ``, and the same for the encoded polynomials P and Q around the right values.

        Raises:
            InputError: the levels differ, or a factor wants relinearizing first.
        """
        components = left.components + right.components - 1
        if left.level != right.level or components > 3:
            raise InputError("noise bound: expected factors of one level and two components")
        left_message, right_message = left.message * left.scale, right.message * right.scale
        left_encoded, right_encoded = left_message + left.encoding, right_message + right.encoding
        return Bounded(
            message=left.message * right.message,
            scale=left.scale * right.scale,
            noise=left_encoded * right.noise + right_encoded * left.noise + left.noise * right.noise,
            encoding=left_message * right.encoding + right_message * left.encoding + left.encoding * right.encoding,
            level=left.level,
            components=components,
        )

    def relinearize(self, value: Bounded) -> Bounded:
        """Three components brought back to two."""
        return replace(value, noise=value.noise + self._key_switch(value.level), components=2)

    def rotate(self, value: Bounded) -> Bounded:
        """A rotation or conjugation: it permutes the embeddings, and switches a key."""
        if value.components != 2:
            raise InputError("noise bound: expected a ciphertext of two components to rotate")
        return replace(value, noise=value.noise + self._key_switch(value.level))

    def rescale(self, value: Bounded) -> Bounded:
        """The last prime divided out. Raises ``InputError`` when none is left."""
        prime = self._primes_at(value.level)[-1]
        lower = self.drop(value)
        scale = value.scale / prime
        noise = value.noise / prime + self._rounding(value.components)
        encoding = value.encoding / prime + value.message * scale * 2 * _UNIT  # the scale is a float64
        return replace(lower, scale=scale, noise=noise, encoding=encoding)

    def drop(self, value: Bounded) -> Bounded:
        """The last prime left out; the polynomial stays. Raises ``InputError`` when none is left."""
        if len(self._primes_at(value.level)) < 2:
            raise InputError("noise bound: no prime is left to divide out")
        return replace(value, level=value.level + 1)

    def encoding_error(self, *, message: float, scale: float) -> float:
        """Coefficients rounded to integers, after an inverse FFT in float64 that is off by so much in the 2-norm."""
        stages = math.log2(self.degree)
        return self.degree * _HALF + _FFT_ROUNDINGS * stages * _UNIT * math.sqrt(self.degree) * message * scale

    def _rounding(self, components: int) -> float:
        """Each component rounded to integers, the second times the secret, the third times its square."""
        return self.degree * _HALF * sum(self.secret_norm**power for power in range(components))

    def _key_switch(self, level: int) -> float:
        """Digits in ``[0, q)``, each times an error polynomial, over the special prime, and a rounding."""
        if self.special_prime is None:
            raise InputError("noise bound: switching a key takes a special prime")
        digits = sum(self.degree * prime for prime in self._primes_at(level))
        return digits * self.degree * ERROR_SUPPORT / self.special_prime + self._rounding(2)

    def _primes_at(self, level: int) -> Sequence[int]:
        return self.primes[: len(self.primes) - level]


def secret_norm_limit(degree: int) -> float:
    """The largest canonical norm a key may have here: eight standard deviations of an embedding of a ternary secret.

    A fresh key passes it with a probability under one in a thousand million (Hoeffding); such a key is drawn anew.
    """
    return 8.0 * math.sqrt(2.0 * degree / 3.0)
