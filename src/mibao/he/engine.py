"""What a circuit needs of a library that computes on ciphertexts, and nothing that names one.

Ciphertexts cross this interface as handles. On the wire they are residues: component by component, prime by prime,
coefficient by coefficient, in the NTT domain, packed to the width of each prime. A level counts the rescalings done.
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


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Matrix:
    """One number for each of many products, ready to be multiplied with a stack of ciphertexts."""

    handle: Any
    scale: float


Operand: TypeAlias = Ciphertext | Plaintext


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class RelinearizationKey:
    """Public key material that brings a product of two ciphertexts back to two components."""

    handle: Any


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class GaloisKeys:
    """Public key material that rotates slots by a few declared steps."""

    handle: Any


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class EncryptionKey:
    """Public key material that encrypts, for parties who have no secret."""

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
    primes: tuple[int, ...]

    def generate_secret_key(self) -> SecretKey:
        """A fresh secret, drawn by the library from the operating system."""
        ...

    def generate_relinearization_key(self, secret: SecretKey) -> RelinearizationKey:
        """The public key that products of two ciphertexts need."""
        ...

    def generate_galois_keys(self, secret: SecretKey, steps: Sequence[int]) -> GaloisKeys:
        """Public keys for rotations to the left by ``steps``, and for no others."""
        ...

    def generate_encryption_key(self, secret: SecretKey) -> EncryptionKey:
        """A public key for parties who encrypt and cannot decrypt."""
        ...

    def public_sample(self, secret: SecretKey) -> bytes:
        """Fresh random bytes that are safe to publish (an encryption of zero), to name the key by."""
        ...

    def encode(self, values: Float64[ndarray, "count"], *, scale: float, level: int = 0) -> Plaintext:
        """At most N / 2 numbers, zeros behind them.

        Raises:
            IntegrityError: a number does not fit the modulus at ``scale``.
        """
        ...

    def encode_constant(self, value: float, *, scale: float, level: int = 0) -> Plaintext:
        """One number in every slot. Raises ``IntegrityError`` when it does not fit the modulus at ``scale``."""
        ...

    def encode_matrix(self, weights: Float64[ndarray, "out in"], *, scale: float, level: int) -> Matrix:
        """Numbers for :meth:`multiply_matrix`. Raises ``IntegrityError`` when one does not fit at ``scale``."""
        ...

    def encrypt(self, secret: SecretKey, plaintext: Plaintext) -> Ciphertext:
        """A fresh encryption at the plaintext's level: two of the same plaintext differ."""
        ...

    def encrypt_publicly(self, key: EncryptionKey, plaintext: Plaintext) -> Ciphertext:
        """The same without the secret. Its noise is that of a rescaling, some times wider than of :meth:`encrypt`."""
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

    def multiply_matrix(self, matrix: Matrix, stack: Sequence[Ciphertext]) -> list[Ciphertext]:
        """``out[g] = sum_k weights[g, k] * stack[k]``, at the product of the scales.

        Raises:
            IntegrityError: an output has no weights, so that it would be readable by anyone.
        """
        ...

    def square(self, ciphertext: Ciphertext) -> Ciphertext:
        """The value times itself, in three components."""
        ...

    def add(self, ciphertext: Ciphertext, addend: Ciphertext | Plaintext) -> Ciphertext:
        """Their sum; both at one level and scale. Raises ``IntegrityError`` when the library refuses them."""
        ...

    def rotate(self, ciphertext: Ciphertext, steps: int, keys: GaloisKeys) -> Ciphertext:
        """Slots moved to the left by ``steps``. Raises ``IntegrityError`` without a key for them."""
        ...

    def relinearize(self, ciphertext: Ciphertext, key: RelinearizationKey) -> Ciphertext:
        """The same value in two components."""
        ...

    def rescale(self, ciphertext: Ciphertext) -> Ciphertext:
        """The same value one level down: the last prime and its part of the scale are divided out."""
        ...

    def lower(self, ciphertext: Ciphertext, level: int) -> Ciphertext:
        """The same value and scale with fewer primes."""
        ...

    def ciphertext_bytes(self, *, level: int) -> int:
        """Bytes of one stored ciphertext of two components."""
        ...

    def store_ciphertexts(self, stack: Sequence[Ciphertext]) -> bytes:
        """The residues of ciphertexts of two components at one level, one after another."""
        ...

    def load_ciphertexts(self, data: bytes | memoryview, *, count: int, level: int, scale: float) -> list[Ciphertext]:
        """``count`` ciphertexts of two components from residues.

        Raises:
            IntegrityError: a wrong length, a residue out of range, or a ciphertext that anyone could read.
        """
        ...

    def store_secret_key(self, secret: SecretKey) -> bytes:
        """The secret's residues modulo every prime, the special one included."""
        ...

    def load_secret_key(self, data: bytes | memoryview) -> SecretKey:
        """The reverse. Raises ``IntegrityError`` when the bytes are no key for these parameters."""
        ...

    def store_encryption_key(self, key: EncryptionKey) -> bytes:
        """The residues of both components modulo every prime, the special one included."""
        ...

    def load_encryption_key(self, data: bytes | memoryview) -> EncryptionKey:
        """The reverse.

        Raises:
            IntegrityError: a wrong length, a residue out of range, or a key under which anyone could read.
        """
        ...

    def store_relinearization_key(self, key: RelinearizationKey) -> bytes:
        """The public key, in the library's own form."""
        ...

    def load_relinearization_key(self, data: bytes | memoryview) -> RelinearizationKey:
        """The reverse. Raises ``IntegrityError`` when the bytes are no key for these parameters."""
        ...

    def store_galois_keys(self, keys: GaloisKeys) -> bytes:
        """The public keys, in the library's own form."""
        ...

    def load_galois_keys(self, data: bytes | memoryview, *, steps: Sequence[int]) -> GaloisKeys:
        """The reverse. Raises ``IntegrityError`` when the bytes are no keys for these parameters and these steps."""
        ...

    def switching_key_bytes(self) -> int:
        """About how many bytes a relinearisation key, or a Galois key for one step, takes."""
        ...
