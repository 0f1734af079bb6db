"""The model owner's side where another party owns the data and the key: weights encrypted under its public key."""

from __future__ import annotations

import hashlib

from mibao.crypto.kdf import domain_tag
from mibao.errors import InputError
from mibao.he import envelope
from mibao.he.client import check_circuit
from mibao.he.encrypted_weights import encrypted_bundle
from mibao.he.engine import EncryptionKey, Engine
from mibao.he.engine_seal import engine_for
from mibao.he.envelope import Kind
from mibao.he.program import Program
from mibao.he.spec import CircuitSpec
from mibao.types import RandomId

_FINGERPRINT_BYTES = 16
_GROUP = 4


class PublicKey:
    """A data owner's public key, bound to one circuit. It encrypts weights and decrypts nothing.

    Whoever holds its secret reads the weights in a bundle made with it. A key that somebody put in the data owner's
    place gives them to that somebody: compare :attr:`fingerprint` with the data owner, not through the host.
    """

    __slots__ = ("_engine", "_fingerprint", "_key", "_key_id", "_spec")

    def __init__(
        self, *, spec: CircuitSpec, key_id: RandomId, key: EncryptionKey, engine: Engine, fingerprint: str
    ) -> None:
        self._spec, self._key_id, self._key, self._engine = spec, key_id, key, engine
        self._fingerprint = fingerprint

    def __repr__(self) -> str:
        return f"PublicKey({self._fingerprint})"

    @property
    def spec(self) -> CircuitSpec:
        """The circuit this key is for."""
        return self._spec

    @property
    def key_id(self) -> RandomId:
        """The name of the key that decrypts."""
        return self._key_id

    @property
    def fingerprint(self) -> str:
        """128 bits of a hash of the whole file, as groups of hexadecimal digits."""
        return self._fingerprint

    def encrypt_weights(self, program: Program) -> bytes:
        """As :meth:`mibao.he.Client.encrypt_weights`, by who cannot decrypt. Raises ``InputError`` over 1 GiB."""
        return encrypted_bundle(
            self._spec,
            program,
            key_id=self._key_id,
            engine=self._engine,
            encrypt=lambda plaintext: self._engine.encrypt_publicly(self._key, plaintext),
        )

    @classmethod
    def from_bytes(cls, data: bytes, *, spec: CircuitSpec) -> PublicKey:
        """The key that :meth:`mibao.he.Client.public_key` wrote, for the circuit of ``spec``.

        The library's own parser sees only residues under their primes, behind a header that is written here.

        Raises:
            InputError: not a public key, or a circuit whose weights nobody encrypts under one.
            IntegrityError: the bytes were altered or truncated, or hold a key that hides nothing.
            KeyMismatch: the key is of another circuit.
            MissingExtra: seal-python is not installed.
        """
        opened = envelope.decode(data, Kind.PUBLIC_KEY)
        if not spec.weights_publicly:
            raise InputError(f"public key: in this circuit, of {spec.mode.value}, nobody encrypts but the key holder")
        envelope.check_fields(opened, "circuit", "key")
        check_circuit(opened, spec.circuit_id)
        key_id, engine = envelope.id_of(opened, "key"), engine_for(spec.parameters)
        key = engine.load_encryption_key(opened.body)
        return cls(spec=spec, key_id=key_id, key=key, engine=engine, fingerprint=fingerprint(data))


def fingerprint(data: bytes) -> str:
    """What two parties compare to know that they have the same ``public.key``: 32 hexadecimal digits in groups."""
    digest = hashlib.sha256(domain_tag("he/public-key", data)).digest()[:_FINGERPRINT_BYTES].hex()
    return "-".join(digest[start : start + _GROUP] for start in range(0, len(digest), _GROUP))
