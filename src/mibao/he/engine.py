"""What a circuit needs of a library that computes on ciphertexts, and nothing that names one.

Ciphertexts cross this interface as handles. On the wire they are residues: component by component, prime by prime,
coefficient by coefficient, 64-bit little-endian words in the NTT domain. A level counts the rescalings done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, TypeAlias, runtime_checkable

from jaxtyping import Float64
from numpy import ndarray

from mibao.he.parameters import Parameters


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Ciphertext:
    """An encrypted vector, opaque outside its engine."""

    handle: Any


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Plaintext:
    """An encoded vector, ready to be added or multiplied."""

    handle: Any


Operand: TypeAlias = Ciphertext | Plaintext


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class RelinearizationKey:
    """Public key material that brings a product of two ciphertexts back to two components."""

    handle: Any


class SecretKey:
    """The key that decrypts. It cannot be printed, copied or pickled."""

    __slots__ = ("handle",)

    def __init__(self, handle: Any) -> None:
        self.handle = handle

    def __repr__(self) -> str:
        return "SecretKey(opaque)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret key is not pickled or copied")


@runtime_checkable
class Engine(Protocol):
    """CKKS over one set of parameters."""

    parameters: Parameters

    def generate_secret_key(self) -> SecretKey:
        """A fresh secret, drawn by the library from the operating system."""
        ...

    def generate_relinearization_key(self, secret: SecretKey) -> RelinearizationKey:
        """The public key that products of two ciphertexts need."""
        ...

    def public_sample(self, secret: SecretKey) -> bytes:
        """Fresh random bytes that are safe to publish (an encryption of zero), to name the key by."""
        ...

    def encode(self, values: Float64[ndarray, "count"], *, scale: float) -> Plaintext:
        """At most N / 2 numbers, zeros behind them, for a fresh ciphertext's level.

        Raises:
            IntegrityError: a number does not fit the modulus at ``scale``.
        """
        ...

    def encode_constant(self, value: float, *, scale: float) -> Plaintext:
        """One number in every slot. Raises ``IntegrityError`` when it does not fit the modulus at ``scale``."""
        ...

    def encrypt(self, secret: SecretKey, plaintext: Plaintext) -> Ciphertext:
        """A fresh encryption: two of the same plaintext differ."""
        ...

    def decrypt(self, secret: SecretKey, ciphertext: Ciphertext) -> Float64[ndarray, "slots"]:
        """All slots. Never share them: their noise speaks about the key (Li, Micciancio 2021)."""
        ...

    def sum_of_products(self, left: Sequence[Operand], right: Sequence[Operand]) -> Ciphertext | None:
        """``sum(l * r)``, each pair with at least one ciphertext; ``None`` when every pair holds a plaintext of zero.

        Products of two ciphertexts keep three components until :meth:`relinearize`.

        Raises:
            IntegrityError: the library refuses the operands; honest ones it never does.
        """
        ...

    def add(self, ciphertext: Ciphertext, addend: Ciphertext | Plaintext) -> Ciphertext:
        """Their sum; both at one level and scale. Raises ``IntegrityError`` when the library refuses them."""
        ...

    def relinearize(self, ciphertext: Ciphertext, key: RelinearizationKey) -> Ciphertext:
        """The same value in two components."""
        ...

    def rescale(self, ciphertext: Ciphertext) -> Ciphertext:
        """The same value one level down: the last prime and its part of the scale are divided out."""
        ...

    def ciphertext_bytes(self, *, level: int) -> int:
        """Bytes of one stored ciphertext of two components."""
        ...

    def product_scale(self, *, scale: float, rescalings: int) -> float:
        """``scale`` after dividing by the last ``rescalings`` primes that carry data."""
        ...

    def store_ciphertext(self, ciphertext: Ciphertext) -> bytes:
        """The residues."""
        ...

    def load_ciphertext(self, data: bytes | memoryview, *, level: int, scale: float) -> Ciphertext:
        """Two components from residues. Raises ``IntegrityError`` on a wrong length or a residue out of range."""
        ...

    def store_secret_key(self, secret: SecretKey) -> bytes:
        """The secret's residues modulo every prime, the special one included."""
        ...

    def load_secret_key(self, data: bytes | memoryview) -> SecretKey:
        """The reverse. Raises ``IntegrityError`` when the bytes are no key for these parameters."""
        ...

    def store_relinearization_key(self, key: RelinearizationKey) -> bytes:
        """The public key, in the library's own form."""
        ...

    def load_relinearization_key(self, data: bytes | memoryview) -> RelinearizationKey:
        """The reverse. Raises ``IntegrityError`` when the bytes are no key for these parameters."""
        ...
