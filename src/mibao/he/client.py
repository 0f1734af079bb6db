"""The key holder's side: the secret key, requests out, answers in."""

from __future__ import annotations

import hashlib
from typing import NoReturn

import numpy as np
from jaxtyping import Float64, Real
from numpy import ndarray

from mibao.codec.canonical import Value
from mibao.crypto.kdf import domain_tag
from mibao.errors import InputError, IntegrityError, KeyMismatch
from mibao.he import envelope
from mibao.he.engine import Engine, SecretKey
from mibao.he.engine_seal import engine_for
from mibao.he.envelope import Envelope, Kind
from mibao.he.records import checked_records, columns
from mibao.he.spec import MAX_ROWS, CircuitSpec
from mibao.he.weights import Weights
from mibao.types import RandomId

_ROOM = envelope.MAX_BYTES[Kind.REQUEST] - 2 * envelope.MAX_HEADER_BYTES  # for ciphertexts in one message


class Client:
    """A secret key bound to one circuit. It cannot be printed, copied or pickled."""

    __slots__ = ("_engine", "_key_id", "_secret", "_spec")

    def __init__(self, *, spec: CircuitSpec, key_id: RandomId, secret: SecretKey, engine: Engine) -> None:
        self._spec = spec
        self._key_id = key_id
        self._secret = secret
        self._engine = engine

    def __repr__(self) -> str:
        return "Client(opaque)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a client holds a secret key: it is not pickled or copied")

    @property
    def spec(self) -> CircuitSpec:
        """The circuit this key is for."""
        return self._spec

    @property
    def key_id(self) -> RandomId:
        """The key's name; it stands in requests and answers and says nothing about the key."""
        return self._key_id

    def encrypt(self, records: Real[ndarray, "..."]) -> bytes:
        """A request that carries ``records`` encrypted: one ciphertext a feature for each N / 2 rows.

        Args:
            records: Shape (rows, features), at most 2**20 rows.

        Raises:
            InputError: the records do not suit the circuit, the request would exceed 1 GiB or its answer 256 MiB, or
                this circuit takes records in clear (:func:`mibao.he.request_in_clear`).
        """
        if not self._spec.data_encrypted:
            raise InputError(f"{self._spec.mode.value}: data stay in clear at the host; use request_in_clear")
        values = checked_records(self._spec, records)
        rows = values.shape[0]
        self._spec.check_answer(rows)
        each = self._engine.ciphertext_bytes(level=0)
        if self._spec.batches(rows) * self._spec.features * each > _ROOM:
            raise InputError(f"request: {rows} rows would exceed 1 GiB; send fewer at a time")
        body = b"".join(
            self._engine.store_ciphertext(
                self._engine.encrypt(self._secret, self._engine.encode(column, scale=self._spec.data_scale))
            )
            for column in columns(self._spec, values)
        )
        header: dict[str, Value] = {"circuit": self._spec.circuit_id.value, "key": self._key_id.value, "rows": rows}
        return envelope.encode(Envelope(kind=Kind.REQUEST, header=header, body=body))

    def decrypt(self, answer: bytes) -> Float64[ndarray, "rows outputs"]:
        """Logits, one row a record. **Never share them** with anyone who could relate them to ciphertexts.

        A CKKS result carries noise that depends on the secret key: whoever gets exact results of chosen ciphertexts
        recovers the key (Li, Micciancio, EUROCRYPT 2021). They are for the key holder's eyes.

        Raises:
            InputError: not an answer.
            IntegrityError: the answer was altered or truncated.
            KeyMismatch: the answer is of another circuit or under another key.
        """
        opened = envelope.decode(answer, Kind.ANSWER)
        envelope.check_fields(opened, "circuit", "key", "rows")
        check_binding(opened, circuit_id=self._spec.circuit_id, key_id=self._key_id)
        rows = envelope.count_of(opened, "rows", largest=MAX_ROWS)
        level = self._spec.parameters.depth
        scale = self._engine.product_scale(scale=self._spec.bias_scale, rescalings=level)
        each = self._engine.ciphertext_bytes(level=level)
        if len(opened.body) != self._spec.batches(rows) * self._spec.outputs * each:
            raise IntegrityError("answer: its size does not match its rows")
        batches = []
        for batch in range(self._spec.batches(rows)):
            starts = [(batch * self._spec.outputs + output) * each for output in range(self._spec.outputs)]
            loaded = [
                self._engine.load_ciphertext(opened.body[start : start + each], level=level, scale=scale)
                for start in starts
            ]
            batches.append(np.stack([self._engine.decrypt(self._secret, ciphertext) for ciphertext in loaded], axis=1))
        return np.concatenate(batches)[:rows]

    def encrypt_weights(self, weights: Weights) -> bytes:
        """A bundle for the compute host with weights and biases encrypted: for each output its weights, then its bias.

        Raises:
            InputError: the mode leaves weights in clear, another shape, or a bundle over 1 GiB.
        """
        spec, engine = self._spec, self._engine
        if not spec.weights_encrypted:
            raise InputError(f"{spec.mode.value}: weights stay in clear at the host")
        if weights.matrix.shape != (spec.features, spec.outputs):
            raise InputError(f"weights: expected ({spec.features}, {spec.outputs}), got {weights.matrix.shape}")
        if (spec.features + 1) * spec.outputs * engine.ciphertext_bytes(level=0) > _ROOM:
            raise InputError("bundle: encrypted weights would exceed 1 GiB")
        plaintexts = []
        for column, bias in zip(weights.matrix.T, weights.bias, strict=True):
            plaintexts += [engine.encode_constant(float(weight), scale=spec.weight_scale) for weight in column]
            plaintexts.append(engine.encode_constant(float(bias), scale=spec.bias_scale))
        stored = [engine.store_ciphertext(engine.encrypt(self._secret, plaintext)) for plaintext in plaintexts]
        header: dict[str, Value] = {"spec": spec.to_value(), "key": self._key_id.value}
        return envelope.encode(Envelope(kind=Kind.ENCRYPTED_BUNDLE, header=header, body=b"".join(stored)))

    def server_keys(self) -> bytes:
        """``server.keys``: what the host needs to compute under this key, and nothing secret."""
        both = self._spec.data_encrypted and self._spec.weights_encrypted
        body = (
            self._engine.store_relinearization_key(self._engine.generate_relinearization_key(self._secret))
            if both
            else b""
        )
        header: dict[str, Value] = {"circuit": self._spec.circuit_id.value, "key": self._key_id.value}
        return envelope.encode(Envelope(kind=Kind.SERVER_KEYS, header=header, body=body))

    def reveal_secret_bytes(self) -> bytes:
        """The whole of ``client.key``. Whoever reads it reads every request and answer."""
        header: dict[str, Value] = {"spec": self._spec.to_value(), "key": self._key_id.value}
        body = self._engine.store_secret_key(self._secret)
        return envelope.encode(Envelope(kind=Kind.CLIENT_KEY, header=header, body=body))

    @classmethod
    def from_secret_bytes(cls, data: bytes) -> Client:
        """The client that :meth:`reveal_secret_bytes` wrote.

        Raises:
            InputError: not a client key.
            IntegrityError: the bytes were altered or truncated.
            MissingExtra: seal-python is not installed.
        """
        opened = envelope.decode(data, Kind.CLIENT_KEY)
        envelope.check_fields(opened, "spec", "key")
        spec = envelope.spec_of(opened)
        engine = engine_for(spec.parameters)
        secret = engine.load_secret_key(opened.body)
        return cls(spec=spec, key_id=envelope.id_of(opened, "key"), secret=secret, engine=engine)


def generate_client(spec: CircuitSpec) -> Client:
    """A fresh key for a circuit. The library draws it from the operating system.

    The key's name is a hash of a fresh encryption of zero: random, and no function of the key alone.

    Raises:
        MissingExtra: seal-python is not installed.
    """
    engine = engine_for(spec.parameters)
    secret = engine.generate_secret_key()
    digest = hashlib.sha256(domain_tag("he/key-id", engine.public_sample(secret))).digest()
    return Client(spec=spec, key_id=RandomId(digest[: RandomId.size]), secret=secret, engine=engine)


def check_circuit(opened: Envelope, circuit_id: RandomId) -> None:
    """Refuse a message of another circuit. Raises ``KeyMismatch``."""
    if envelope.id_of(opened, "circuit") != circuit_id:
        raise KeyMismatch(f"{envelope.NAMES[opened.kind]}: made for another circuit")


def check_binding(opened: Envelope, *, circuit_id: RandomId, key_id: RandomId) -> None:
    """Refuse a message of another circuit or another key. Raises ``KeyMismatch``."""
    check_circuit(opened, circuit_id)
    if envelope.id_of(opened, "key") != key_id:
        raise KeyMismatch(f"{envelope.NAMES[opened.kind]}: made under another key")
