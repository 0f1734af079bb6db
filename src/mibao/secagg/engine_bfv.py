"""Exact encrypted sums with BFV on Microsoft SEAL, through seal-python. Only this module knows the library.

Ring degree 2048 and one prime of 54 bits: the largest modulus for 128 bits there (homomorphic encryption guidelines,
2024), and all that additions need. Nothing is multiplied, so there are no evaluation keys.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NoReturn, TypeVar

import numpy as np
from jaxtyping import Int64, UInt64
from numpy import ndarray

from mibao.errors import InputError, IntegrityError, MissingExtra

SLOTS = 2048
PRIME_BITS = 54
FAILURE_BITS = 64
MAX_PLAIN_BITS = 40
RESIDUE_BYTES = 7
CIPHERTEXT_BYTES = 2 * SLOTS * RESIDUE_BYTES
# seal/serialization.h and ciphertext.cpp: what stands before the residues; see docs/spec/he-bundle.md.
_HEADER = struct.Struct("<HBBBBHQ")
_FIELDS = struct.Struct("<4Q?QQQdQ")
_COUNT = struct.Struct("<Q")
_PREFIX_BYTES = 2 * _HEADER.size + _FIELDS.size + _COUNT.size
# SEAL's errors are sums of 42 coins less their mean: sub-Gaussian with variance 10.5.
_ERROR_VARIANCE = 10.5

_Result = TypeVar("_Result")


def plain_bits(*, input_bits: int, clients: int, blocks: int) -> int:
    """Bits of the plaintext modulus that holds every sum, signed or not.

    Raises:
        InputError: a sum would then decrypt wrongly with probability over ``2**-64``, or has too many bits.

    Fresh noise is ``e u + e1 + e2 s`` with ternary ``u`` and ``s``; given these it is sub-Gaussian of variance at
    most ``10.5 (1 + 2 N)``; a sum of ``n`` decrypts right while it and ``n / 2`` of rounding stay under ``q / 2 t``.
    """
    bits = input_bits + (clients - 1).bit_length() + 2
    room = 2.0 ** (PRIME_BITS - 2 - bits) - clients / 2.0 - 1.0
    variance = clients * _ERROR_VARIANCE * (1 + 2 * SLOTS)
    failure = math.log2(2.0 * SLOTS * blocks) - max(room, 0.0) ** 2 / (2.0 * variance * math.log(2.0))
    if bits > MAX_PLAIN_BITS or failure > -FAILURE_BITS:
        raise InputError(f"encrypted sum: no room for {clients} inputs of {input_bits} bits")
    return bits


class BfvSecretKey:
    """The key holder's key of one round. It cannot be printed, pickled or copied."""

    __slots__ = ("handle",)

    def __init__(self, handle: Any) -> None:
        self.handle = handle

    def __repr__(self) -> str:
        return "<BfvSecretKey>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret key cannot be pickled or copied")


@lru_cache(maxsize=8)
def engine_for(bits: int) -> BfvEngine:
    """The engine with a plaintext modulus of this many bits, made once a process. Raises as :class:`BfvEngine`."""
    return BfvEngine(bits)


class BfvEngine:
    """Encrypts, adds and decrypts vectors of 2048 numbers; SEAL draws keys and noise from the operating system.

    Raises:
        MissingExtra: seal-python is not installed.
    """

    def __init__(self, bits: int) -> None:
        try:
            import seal  # noqa: PLC0415  (an optional dependency)
        except ImportError as error:
            raise MissingExtra("encrypted sums", extra="he") from error
        self._seal = seal
        chosen = seal.EncryptionParameters(seal.scheme_type.bfv)
        chosen.set_poly_modulus_degree(SLOTS)
        primes = seal.CoeffModulus.Create(SLOTS, [PRIME_BITS])
        plain = seal.PlainModulus.Batching(SLOTS, bits)
        chosen.set_coeff_modulus(primes)
        chosen.set_plain_modulus(plain)
        self._version = _HEADER.unpack_from(chosen.to_bytes())[2:4]
        self._context = seal.SEALContext(chosen, True, seal.sec_level_type.tc128)
        self._encoder = seal.BatchEncoder(self._context)
        self.prime, self.plain_modulus = int(primes[0].value()), int(plain.value())
        self._parms_id = list(self._context.first_context_data().parms_id())

    def generate(self) -> tuple[BfvSecretKey, bytes]:
        """A secret key, and the public key that clients encrypt with."""
        generator = self._seal.KeyGenerator(self._context)
        return BfvSecretKey(generator.secret_key()), generator.create_public_key().to_string()

    def encrypt(self, public_key: bytes, values: Int64[ndarray, "blocks 2048"]) -> bytes:
        """Every block's ciphertext, one after the other.

        Raises:
            IntegrityError: the public key is not one of this engine.
        """
        if public_key[: _HEADER.size] != self._header(len(public_key)):
            raise IntegrityError("public key: not written by this version of the library")
        key = _guard("public key", lambda: self._context.from_public_str(public_key))
        encryptor = _guard("public key", lambda: self._seal.Encryptor(self._context, key))
        reduced = (values % self.plain_modulus).astype(np.uint64)
        blocks = [encryptor.encrypt(self._encoder.encode(np.ascontiguousarray(block))) for block in reduced]
        return b"".join(_pack(np.frombuffer(one.to_string()[_PREFIX_BYTES:], dtype="<u8")) for one in blocks)

    def decrypt(self, secret: BfvSecretKey, residues: UInt64[ndarray, "blocks 4096"]) -> Int64[ndarray, "blocks 2048"]:
        """The numbers behind each ciphertext, from 0 to the plaintext modulus.

        Raises:
            IntegrityError: a ciphertext holds no encryption.
        """
        decryptor = self._seal.Decryptor(self._context, secret.handle)
        blocks = []
        for block in residues:
            loaded = self._load(block)
            plain = _guard("ciphertext", lambda loaded=loaded: decryptor.decrypt(loaded))  # type: ignore[misc]
            blocks.append(np.asarray(self._encoder.decode_uint64(plain)).astype(np.int64))
        return np.stack(blocks)

    def _load(self, residues: UInt64[ndarray, " 4096"]) -> Any:
        content = residues.astype("<u8").tobytes()
        array_bytes = _HEADER.size + _COUNT.size + len(content)
        stored = (
            self._header(_HEADER.size + _FIELDS.size + array_bytes)
            + _FIELDS.pack(*self._parms_id, False, 2, SLOTS, 1, 1.0, 1)
            + self._header(array_bytes)
            + _COUNT.pack(len(content) // 8)
            + content
        )
        loaded = self._seal.Ciphertext()
        _guard("ciphertext", lambda: loaded.load_bytes(self._context, stored))
        if loaded.is_transparent():
            raise IntegrityError("ciphertext: it encrypts nothing")
        return loaded

    def _header(self, total_bytes: int) -> bytes:
        return _HEADER.pack(0xA15E, _HEADER.size, *self._version, 0, 0, total_bytes)


def unpack(data: bytes | memoryview, *, prime: int) -> UInt64[ndarray, "blocks 4096"]:
    """The residues of packed ciphertexts.

    Raises:
        IntegrityError: a residue is not below the prime.
    """
    octets = np.frombuffer(data, dtype=np.uint8).reshape(-1, RESIDUE_BYTES)
    wide = np.zeros((len(octets), 8), dtype=np.uint8)
    wide[:, :RESIDUE_BYTES] = octets
    residues: UInt64[ndarray, "blocks 4096"] = wide.view("<u8").astype(np.uint64).reshape(-1, 2 * SLOTS)
    if int(residues.max()) >= prime:
        raise IntegrityError("ciphertext: expected numbers below the prime")
    return residues


def pack(residues: UInt64[ndarray, "blocks 4096"]) -> bytes:
    """Residues as 7 bytes each, little endian."""
    return _pack(residues.ravel())


def _pack(residues: UInt64[ndarray, " n"]) -> bytes:
    return residues.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :RESIDUE_BYTES].tobytes()


def _guard(part: str, call: Callable[[], _Result]) -> _Result:
    try:
        return call()
    except (ValueError, RuntimeError, IndexError) as error:  # what the binding makes of SEAL's exceptions
        raise IntegrityError(f"{part}: refused by the library") from error
