"""The engine on Microsoft SEAL, through seal-python. Only this module knows the library."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float64, UInt64
from numpy import ndarray

from mibao.errors import InputError, IntegrityError, MissingExtra
from mibao.he import residue_packing
from mibao.he.engine import (
    Ciphertext,
    EncryptionKey,
    Engine,
    GaloisKeys,
    Matrix,
    Operand,
    Plaintext,
    RelinearizationKey,
    SecretKey,
)
from mibao.he.parameters import Parameters
from mibao.he.residue_product import ResidueMatrix

# seal/serialization.h: magic, header size, major and minor version, compression, reserved, total size.
_SEAL_HEADER = struct.Struct("<HBBBBHQ")
_SEAL_MAGIC = 0xA15E
_UNCOMPRESSED = 0
# seal/ciphertext.cpp: parms_id, NTT flag, components, degree, primes, scale, correction factor; then the residues
# as an array with a header and a count of its own.
_CIPHERTEXT_FIELDS = struct.Struct("<4Q?QQQdQ")
_COUNT = struct.Struct("<Q")
_PREFIX_BYTES = 2 * _SEAL_HEADER.size + _CIPHERTEXT_FIELDS.size + _COUNT.size
_WORD_BYTES = 8
_WORD = np.dtype("<u8")
_MOST_WEIGHT_BITS = 60
_FEW = 64  # residues, of a ciphertext whose second component is hardly ever zero in all of them
_ROTATION = 3  # seal/util/galois.h: a rotation to the left by s is the automorphism that raises X to 3**s

_Result = TypeVar("_Result")


@dataclass(slots=True, repr=False, eq=False)
class _Residues:
    """A ciphertext that the library has not been given: part ``index`` of a stack that was read or computed at once.

    Most of a large request goes from the wire through a matrix, and never needs the library's own form.
    """

    stack: UInt64[ndarray, "count components primes degree"]
    index: int
    level: int
    scale: float
    loaded: Any = None


@lru_cache(maxsize=4)  # at the largest ring one takes a third of a gigabyte
def engine_for(parameters: Parameters) -> Engine:
    """The engine for ``parameters``, made once a process.

    Raises:
        IntegrityError: the library refuses the parameters.
        MissingExtra: seal-python is not installed.
    """
    return SealEngine(parameters)


class SealEngine:
    """CKKS on SEAL at ``tc128``; SEAL draws keys and noise itself, from the operating system."""

    def __init__(self, parameters: Parameters) -> None:
        try:
            import seal  # noqa: PLC0415  (an optional dependency, and 15 ms that only computing should pay)
        except ImportError as error:
            raise MissingExtra("encrypted compute", extra="he") from error
        self.parameters = parameters
        self._seal = seal
        primes = _guard(
            "parameters", lambda: seal.CoeffModulus.Create(parameters.ring_degree, list(parameters.modulus_bits))
        )
        chosen = seal.EncryptionParameters(seal.scheme_type.ckks)
        chosen.set_poly_modulus_degree(parameters.ring_degree)
        chosen.set_coeff_modulus(primes)
        self._version = _SEAL_HEADER.unpack_from(chosen.to_bytes())[2:4]
        self._context = seal.SEALContext(chosen, True, seal.sec_level_type.tc128)
        self.primes = tuple(prime.value() for prime in primes)[: len(parameters.data_primes)]
        self._all_primes = tuple(prime.value() for prime in primes)
        self._parms_ids = self._chain()
        self._secret_bytes = len(primes) * parameters.ring_degree * _WORD_BYTES
        self._encoder = seal.CKKSEncoder(self._context)
        self._evaluator = seal.Evaluator(self._context)

    def _chain(self) -> list[list[int]]:
        data = self._context.first_context_data()
        chain = []
        for _ in self.parameters.data_primes:
            chain.append(list(data.parms_id()))
            data = data.next_context_data()
        return chain

    def generate_secret_key(self) -> SecretKey:
        """See :class:`~mibao.he.engine.Engine`."""
        return SecretKey(self._seal.KeyGenerator(self._context).secret_key())

    def generate_relinearization_key(self, secret: SecretKey) -> RelinearizationKey:
        """See :class:`~mibao.he.engine.Engine`."""
        return RelinearizationKey(self._seal.KeyGenerator(self._context, secret.handle).create_relin_keys())

    def generate_galois_keys(self, secret: SecretKey, steps: Sequence[int]) -> GaloisKeys:
        """See :class:`~mibao.he.engine.Engine`."""
        keys = self._seal.GaloisKeys()
        self._seal.KeyGenerator(self._context, secret.handle).create_galois_keys(list(steps), keys)
        return GaloisKeys(keys)

    def generate_encryption_key(self, secret: SecretKey) -> EncryptionKey:
        """See :class:`~mibao.he.engine.Engine`."""
        return EncryptionKey(self._seal.KeyGenerator(self._context, secret.handle).create_public_key())

    def public_sample(self, secret: SecretKey) -> bytes:
        """See :class:`~mibao.he.engine.Engine`."""
        return self.store_ciphertexts([self.encrypt(secret, self.encode_constant(0.0, scale=1.0))])

    def encode(self, values: Float64[ndarray, "count"], *, scale: float, level: int = 0) -> Plaintext:
        """See :class:`~mibao.he.engine.Engine`."""
        return self._encoded(np.ascontiguousarray(values), scale, level)

    def encode_constant(self, value: float, *, scale: float, level: int = 0) -> Plaintext:
        """See :class:`~mibao.he.engine.Engine`."""
        return self._encoded(float(value), scale, level)

    def _encoded(self, values: Any, scale: float, level: int) -> Plaintext:
        plain = _guard("plaintext", lambda: self._encoder.encode(values, scale))
        if level:
            self._evaluator.mod_switch_to_inplace(plain, self._parms_ids[level])
        return Plaintext(plain)

    def encode_matrix(self, weights: Float64[ndarray, "out in"], *, scale: float, level: int) -> Matrix:
        """See :class:`~mibao.he.engine.Engine`."""
        scaled = np.rint(weights * scale)
        if not np.all(np.abs(scaled) < 2.0**_MOST_WEIGHT_BITS):
            raise IntegrityError("plaintext: refused by the library")
        # SEAL refuses a sum without weights, which anyone could read: one rounding step keeps it encrypted.
        empty = np.flatnonzero(~np.any(scaled, axis=1))
        scaled[empty, np.argmax(np.abs(weights[empty]), axis=1)] = 1.0
        primes = self.primes[: len(self.primes) - level]
        return Matrix(ResidueMatrix(scaled.astype(np.int64), primes=primes), scale)

    def encrypt(self, secret: SecretKey, plaintext: Plaintext) -> Ciphertext:
        """See :class:`~mibao.he.engine.Engine`."""
        return Ciphertext(self._seal.Encryptor(self._context, secret.handle).encrypt_symmetric(plaintext.handle))

    def encrypt_publicly(self, key: EncryptionKey, plaintext: Plaintext) -> Ciphertext:
        """See :class:`~mibao.he.engine.Engine`."""
        encryptor = self._seal.Encryptor(self._context, key.handle)
        return Ciphertext(_guard("encryption key", lambda: encryptor.encrypt(plaintext.handle)))

    def decrypt(self, secret: SecretKey, ciphertext: Ciphertext) -> Float64[ndarray, "slots"]:
        """See :class:`~mibao.he.engine.Engine`."""
        plain = self._seal.Decryptor(self._context, secret.handle).decrypt(self._native(ciphertext))
        return np.asarray(self._encoder.decode(plain), dtype=np.float64)

    def sum_of_products(self, left: Sequence[Operand], right: Sequence[Operand]) -> Ciphertext | None:
        """See :class:`~mibao.he.engine.Engine`.

        SEAL refuses to multiply by zero, since the product would be readable by anyone; such pairs add nothing.
        """
        pairs = [pair for pair in map(_ciphertext_first, left, right) if not self._is_zero(pair[1])]
        if not pairs:
            return None
        return Ciphertext(_guard("sum of products", lambda: self._sum(pairs)))

    def _sum(self, pairs: Sequence[tuple[Ciphertext, Operand]]) -> Any:
        total = self._product(*pairs[0])
        for pair in pairs[1:]:
            self._evaluator.add_inplace(total, self._product(*pair))
        return total

    def _product(self, ciphertext: Ciphertext, factor: Operand) -> Any:
        if isinstance(factor, Plaintext):
            return self._evaluator.multiply_plain(self._native(ciphertext), factor.handle)
        return self._evaluator.multiply(self._native(ciphertext), self._native(factor))

    def _is_zero(self, factor: Operand) -> bool:
        return isinstance(factor, Plaintext) and bool(factor.handle.is_zero())

    def multiply_matrix(self, matrix: Matrix, stack: Sequence[Ciphertext]) -> list[Ciphertext]:
        """See :class:`~mibao.he.engine.Engine`."""
        level, scale = self._standing(stack[0])
        try:
            products = matrix.handle.product(self._stacked(stack))
        except InputError as error:
            raise IntegrityError("matrix: refused by the library") from error
        return self._from_residues(products, level=level, scale=scale * matrix.scale)

    def square(self, ciphertext: Ciphertext) -> Ciphertext:
        """See :class:`~mibao.he.engine.Engine`."""
        return Ciphertext(_guard("product", lambda: self._evaluator.square(self._native(ciphertext))))

    def rotate(self, ciphertext: Ciphertext, steps: int, keys: GaloisKeys) -> Ciphertext:
        """See :class:`~mibao.he.engine.Engine`."""
        held = self._native(ciphertext)
        return Ciphertext(_guard("rotation", lambda: self._evaluator.rotate_vector(held, steps, keys.handle)))

    def lower(self, ciphertext: Ciphertext, level: int) -> Ciphertext:
        """See :class:`~mibao.he.engine.Engine`."""
        held = self._native(ciphertext)
        return Ciphertext(_guard("ciphertext", lambda: self._evaluator.mod_switch_to(held, self._parms_ids[level])))

    def add(self, ciphertext: Ciphertext, addend: Ciphertext | Plaintext) -> Ciphertext:
        """See :class:`~mibao.he.engine.Engine`."""
        held = self._native(ciphertext)
        if isinstance(addend, Plaintext):
            return Ciphertext(_guard("sum", lambda: self._evaluator.add_plain(held, addend.handle)))
        other = self._native(addend)
        return Ciphertext(_guard("sum", lambda: self._evaluator.add(held, other)))

    def relinearize(self, ciphertext: Ciphertext, key: RelinearizationKey) -> Ciphertext:
        """See :class:`~mibao.he.engine.Engine`."""
        return Ciphertext(_guard("product", lambda: self._evaluator.relinearize(self._native(ciphertext), key.handle)))

    def rescale(self, ciphertext: Ciphertext) -> Ciphertext:
        """See :class:`~mibao.he.engine.Engine`."""
        return Ciphertext(_guard("product", lambda: self._evaluator.rescale_to_next(self._native(ciphertext))))

    def ciphertext_bytes(self, *, level: int) -> int:
        """See :class:`~mibao.he.engine.Engine`."""
        primes = self.primes[: len(self.primes) - level]
        return residue_packing.packed_bytes(primes, components=2, degree=self.parameters.ring_degree)

    def store_ciphertexts(self, stack: Sequence[Ciphertext]) -> bytes:
        """See :class:`~mibao.he.engine.Engine`."""
        stacked = self._stacked(stack)
        return residue_packing.pack(stacked.reshape(-1, *stacked.shape[2:]), primes=self.primes[: stacked.shape[2]])

    def load_ciphertexts(self, data: bytes | memoryview, *, count: int, level: int, scale: float) -> list[Ciphertext]:
        """See :class:`~mibao.he.engine.Engine`.

        SEAL's own header is written here, never read from outside: what arrives can only be residues.
        """
        expected = count * self.ciphertext_bytes(level=level)
        if len(data) != expected:
            raise IntegrityError(f"ciphertext: expected {expected} bytes, got {len(data)}")
        primes = self.primes[: len(self.primes) - level]
        residues = residue_packing.unpack(data, primes=primes, components=2 * count, degree=self.parameters.ring_degree)
        return self._from_residues(residues.reshape(count, 2, *residues.shape[1:]), level=level, scale=scale)

    def _from_residues(
        self, stack: UInt64[ndarray, "count components primes degree"], *, level: int, scale: float
    ) -> list[Ciphertext]:
        """Handles of residues that are under their primes. Raises ``IntegrityError`` when one encrypts nothing."""
        for held in stack:
            if not held[1, 0, :_FEW].any() and not held[1:].any():
                raise IntegrityError("ciphertext: it encrypts nothing")
        return [Ciphertext(_Residues(stack, index, level, scale)) for index in range(len(stack))]

    def _standing(self, ciphertext: Ciphertext) -> tuple[int, float]:
        """Level and scale."""
        held = ciphertext.handle
        if isinstance(held, _Residues):
            return held.level, held.scale
        return len(self.primes) - held.coeff_modulus_size(), held.scale()

    def _stacked(self, stack: Sequence[Ciphertext]) -> UInt64[ndarray, "count components primes degree"]:
        """The residues of ciphertexts of one level; without a copy where they are a whole stack already."""
        first = stack[0].handle
        if isinstance(first, _Residues) and len(stack) == len(first.stack):
            handles = [ciphertext.handle for ciphertext in stack]
            if all(
                isinstance(held, _Residues) and held.stack is first.stack and held.index == index
                for index, held in enumerate(handles)
            ):
                return first.stack
        return np.stack([self._residues(ciphertext) for ciphertext in stack])

    def _residues(self, ciphertext: Ciphertext) -> UInt64[ndarray, "components primes degree"]:
        held = ciphertext.handle
        if isinstance(held, _Residues):
            residues: UInt64[ndarray, "components primes degree"] = held.stack[held.index]
            return residues
        stored: bytes = held.to_string()
        shape = (held.size(), held.coeff_modulus_size(), self.parameters.ring_degree)
        return np.frombuffer(stored, dtype=_WORD, offset=_PREFIX_BYTES).reshape(shape)

    def _native(self, ciphertext: Ciphertext) -> Any:
        """The library's own form, made when it is first asked for. Raises ``IntegrityError`` when it is refused."""
        held = ciphertext.handle
        if not isinstance(held, _Residues):
            return held
        if held.loaded is None:
            loaded, words = self._seal.Ciphertext(), np.ascontiguousarray(held.stack[held.index], dtype=_WORD)
            stored = b"".join((self._prefix(held.level, held.scale, words.nbytes, components=len(words)), words.data))
            _guard("ciphertext", lambda: loaded.load_bytes(self._context, stored))
            held.loaded = loaded
        return held.loaded

    def _prefix(self, level: int, scale: float, residue_bytes: int, *, components: int = 2) -> bytes:
        degree, primes = self.parameters.ring_degree, len(self.primes) - level
        return self._framed(
            _CIPHERTEXT_FIELDS.pack(*self._parms_ids[level], True, components, degree, primes, scale, 1), residue_bytes
        )

    def _framed(self, fields: bytes, residue_bytes: int) -> bytes:
        array_bytes = _SEAL_HEADER.size + _COUNT.size + residue_bytes
        whole = self._header(_SEAL_HEADER.size + _CIPHERTEXT_FIELDS.size + array_bytes)
        return whole + fields + self._header(array_bytes) + _COUNT.pack(residue_bytes // _WORD_BYTES)

    def _header(self, total_bytes: int) -> bytes:
        return _SEAL_HEADER.pack(_SEAL_MAGIC, _SEAL_HEADER.size, *self._version, _UNCOMPRESSED, 0, total_bytes)

    def store_secret_key(self, secret: SecretKey) -> bytes:
        """See :class:`~mibao.he.engine.Engine`."""
        stored: bytes = secret.handle.to_string()
        return stored[-self._secret_bytes :]

    def load_secret_key(self, data: bytes | memoryview) -> SecretKey:
        """See :class:`~mibao.he.engine.Engine`."""
        if len(data) != self._secret_bytes:
            raise IntegrityError(f"secret key: expected {self._secret_bytes} bytes, got {len(data)}")
        example: bytes = self._seal.KeyGenerator(self._context).secret_key().to_string()
        stored = b"".join((example[: -self._secret_bytes], data))
        return SecretKey(_guard("secret key", lambda: self._context.from_secret_str(stored)))

    def store_encryption_key(self, key: EncryptionKey) -> bytes:
        """See :class:`~mibao.he.engine.Engine`."""
        stored: bytes = key.handle.to_string()
        shape = (2, len(self._all_primes), self.parameters.ring_degree)
        residues = np.frombuffer(stored, dtype=_WORD, offset=_PREFIX_BYTES).reshape(shape)
        return residue_packing.pack(residues, primes=self._all_primes)

    def load_encryption_key(self, data: bytes | memoryview) -> EncryptionKey:
        """See :class:`~mibao.he.engine.Engine`. As with ciphertexts, what arrives can only be residues."""
        primes, degree = self._all_primes, self.parameters.ring_degree
        expected = residue_packing.packed_bytes(primes, components=2, degree=degree)
        if len(data) != expected:
            raise IntegrityError(f"encryption key: expected {expected} bytes, got {len(data)}")
        words = residue_packing.unpack(data, primes=primes, components=2, degree=degree)
        if not words.any(axis=2).all():
            raise IntegrityError("encryption key: it hides nothing")
        words = np.ascontiguousarray(words, dtype=_WORD)
        parms_id = self._context.key_context_data().parms_id()
        prefix = self._framed(
            _CIPHERTEXT_FIELDS.pack(*parms_id, True, len(words), degree, len(primes), 1.0, 1), words.nbytes
        )
        stored = b"".join((prefix, words.data))
        return EncryptionKey(_guard("encryption key", lambda: self._context.from_public_str(stored)))

    def store_relinearization_key(self, key: RelinearizationKey) -> bytes:
        """See :class:`~mibao.he.engine.Engine`."""
        stored: bytes = key.handle.to_string()
        return stored

    def load_relinearization_key(self, data: bytes | memoryview) -> RelinearizationKey:
        """See :class:`~mibao.he.engine.Engine`."""
        self._check_header("relinearization key", data)
        return RelinearizationKey(_guard("relinearization key", lambda: self._context.from_relin_str(bytes(data))))

    def store_galois_keys(self, keys: GaloisKeys) -> bytes:
        """See :class:`~mibao.he.engine.Engine`."""
        stored: bytes = keys.handle.to_string()
        return stored

    def load_galois_keys(self, data: bytes | memoryview, *, steps: Sequence[int]) -> GaloisKeys:
        """See :class:`~mibao.he.engine.Engine`."""
        self._check_header("Galois keys", data)
        keys = _guard("Galois keys", lambda: self._context.from_galois_str(bytes(data)))
        order = 2 * self.parameters.ring_degree
        if keys.size() != len(steps) or not all(keys.has_key(pow(_ROTATION, step, order)) for step in steps):
            raise IntegrityError("Galois keys: expected those of the circuit's rotations and no others")
        return GaloisKeys(keys)

    def switching_key_bytes(self) -> int:
        """See :class:`~mibao.he.engine.Engine`."""
        digits = len(self.primes)
        return 2 * digits * (digits + 1) * self.parameters.ring_degree * _WORD_BYTES

    def _check_header(self, part: str, data: bytes | memoryview) -> None:
        """Only what this version of SEAL wrote, uncompressed and of the stated size, reaches its parser."""
        if data[: _SEAL_HEADER.size] != self._header(len(data)):
            raise IntegrityError(f"{part}: not written by this version of the library")


def _ciphertext_first(left: Operand, right: Operand) -> tuple[Ciphertext, Operand]:
    if isinstance(left, Ciphertext):
        return left, right
    if isinstance(right, Ciphertext):
        return right, left
    raise TypeError("a product takes at least one ciphertext")


def _guard(part: str, call: Callable[[], _Result]) -> _Result:
    try:
        return call()
    except (ValueError, RuntimeError, IndexError) as error:  # what the binding makes of SEAL's exceptions
        raise IntegrityError(f"{part}: refused by the library") from error
