"""Asking a forest: the key holder's and the compute host's side, with requests and answers as bytes.

The records are ciphertexts; the trees stand in clear at the host, which owns them. The client gets
:class:`PublicForest`: the map to ranks, the parameters, what to do with answers, and nothing of the trees. Beside
ciphertexts the host sees the number of rows, and could return any answer.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from jaxtyping import Float64, Real
from numpy import ndarray

from mibao.codec.canonical import Value
from mibao.crypto.kdf import domain_tag
from mibao.errors import InputError, IntegrityError
from mibao.he import envelope, residue_packing
from mibao.he.client import check_binding, check_circuit
from mibao.he.engine import Engine, SecretKey
from mibao.he.engine_seal import engine_for
from mibao.he.envelope import Envelope, Kind
from mibao.he.leveled import Arithmetic, Leveled, level_scales
from mibao.he.network import Head
from mibao.he.parameters import Parameters
from mibao.he.reference import finish
from mibao.he.spec import MAX_ROWS
from mibao.he.trees import FeatureScale, TreeCircuit
from mibao.types import RandomId


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PublicForest:
    """What every party may know of a :class:`~mibao.he.trees.TreeCircuit`."""

    circuit_id: RandomId
    scale: FeatureScale
    parameters: Parameters
    outputs: int
    head: Head
    flat: bool
    classes: tuple[str, ...] | tuple[int, ...]

    @property
    def features(self) -> int:
        """Width of a record."""
        return len(self.scale.knots)

    def batches(self, rows: int) -> int:
        """Ciphertexts a feature that so many rows take."""
        return -(-rows // self.parameters.slots)

    def body_bytes(self, *, ciphertexts: int, level: int, rows: int) -> int:
        """Bytes of so many ciphertexts a batch."""
        primes = self.parameters.primes()
        left = primes[: len(primes) - level]
        each = residue_packing.packed_bytes(left, components=2, degree=self.parameters.ring_degree)
        return self.batches(rows) * ciphertexts * each


def public_forest(circuit: TreeCircuit, *, circuit_id: RandomId) -> PublicForest:
    """The public part of a circuit, under an id that binds keys, requests and answers to it."""
    forest = circuit.forest
    return PublicForest(
        circuit_id=circuit_id,
        scale=circuit.scale,
        parameters=circuit.parameters,
        outputs=forest.outputs,
        head=forest.head,
        flat=forest.flat,
        classes=forest.classes,
    )


class TreeClient:
    """A secret key bound to one forest. It cannot be printed, copied or pickled."""

    __slots__ = ("_engine", "_key_id", "_public", "_secret")

    def __init__(self, public: PublicForest) -> None:
        """Draw a fresh key. Raises ``MissingExtra`` when seal-python is not installed."""
        self._public, self._engine = public, engine_for(public.parameters)
        self._secret: SecretKey = self._engine.generate_secret_key()
        digest = hashlib.sha256(domain_tag("he/key-id", self._engine.public_sample(self._secret))).digest()
        self._key_id = RandomId(digest[: RandomId.size])

    def __repr__(self) -> str:
        return "TreeClient(opaque)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a client holds a secret key: it is not pickled or copied")

    def server_keys(self) -> bytes:
        """What the host needs to compute under this key, and nothing secret."""
        body = self._engine.store_relinearization_key(self._engine.generate_relinearization_key(self._secret))
        header: dict[str, Value] = {"circuit": self._public.circuit_id.value, "key": self._key_id.value}
        return envelope.encode(Envelope(kind=Kind.SERVER_KEYS, header=header, body=body))

    def encrypt(self, records: Real[ndarray, "rows features"]) -> bytes:
        """A request: for each batch of N / 2 rows one ciphertext a feature.

        Raises:
            InputError: another width, no rows or too many, a value that is not finite, or a request over 1 GiB.
        """
        if not 1 <= len(records) <= MAX_ROWS:
            raise InputError(f"records: expected 1 to {MAX_ROWS} rows, got {len(records)}")
        ranks = -self._public.scale.apply(np.asarray(records, dtype=np.float64))
        scale, slots, parts = level_scales(self._engine)[0], self._public.parameters.slots, []
        for start in range(0, len(ranks), slots):
            encoded = [self._engine.encode(column, scale=scale) for column in ranks[start : start + slots].T]
            held = [self._engine.encrypt(self._secret, plaintext) for plaintext in encoded]
            parts.append(self._engine.store_ciphertexts(held))
        return _message(Kind.REQUEST, self._public, self._key_id, len(records), b"".join(parts))

    def decrypt(self, answer: bytes) -> Float64[ndarray, "..."]:
        """What the model gives: probabilities where it does. **Never share it**; see :mod:`mibao.he.release`.

        Raises:
            InputError: not an answer.
            IntegrityError: the answer was altered or truncated.
            KeyMismatch: the answer is of another circuit or under another key.
        """
        opened = envelope.decode(answer, Kind.ANSWER)
        rows = _rows_of(opened, self._public, self._key_id)
        public, level = self._public, self._public.parameters.depth
        if len(opened.body) != public.body_bytes(ciphertexts=public.outputs, level=level, rows=rows):
            raise IntegrityError("answer: its size does not match its rows")
        scale, count = level_scales(self._engine)[level], public.batches(rows) * public.outputs
        loaded = self._engine.load_ciphertexts(opened.body, count=count, level=level, scale=scale)
        slots = np.stack([self._engine.decrypt(self._secret, ciphertext) for ciphertext in loaded])
        scores = slots.reshape(public.batches(rows), public.outputs, -1).transpose(0, 2, 1).reshape(-1, public.outputs)
        return finish(scores[:rows], head=public.head, flat=public.flat)


class TreeServer:
    """Evaluates one forest under one key that it does not have."""

    __slots__ = ("_arithmetic", "_circuit", "_engine", "_key_id", "_public")

    def __init__(self, circuit: TreeCircuit, *, circuit_id: RandomId, keys: bytes) -> None:
        """A host from its circuit and a client's keys.

        Raises:
            InputError: another kind of file.
            IntegrityError: the keys were altered or truncated.
            KeyMismatch: they are of another circuit.
            MissingExtra: seal-python is not installed.
        """
        self._circuit, self._public = circuit, public_forest(circuit, circuit_id=circuit_id)
        opened = envelope.decode(keys, Kind.SERVER_KEYS)
        envelope.check_fields(opened, "circuit", "key")
        check_circuit(opened, circuit_id)
        self._key_id = envelope.id_of(opened, "key")
        self._engine: Engine = engine_for(circuit.parameters)
        key = self._engine.load_relinearization_key(opened.body)
        self._arithmetic = Arithmetic(self._engine, relinearization=key)

    def evaluate(self, request: bytes) -> bytes:
        """The answer to ``request``.

        Raises:
            InputError: not a request.
            IntegrityError: the request was altered or truncated, or holds what the library refuses.
            KeyMismatch: the request is of another circuit or under another key.
        """
        opened = envelope.decode(request, Kind.REQUEST)
        rows = _rows_of(opened, self._public, self._key_id)
        public, body = self._public, opened.body
        if len(body) != public.body_bytes(ciphertexts=public.features, level=0, rows=rows):
            raise IntegrityError("request: its size does not match its rows")
        each, parts = len(body) // public.batches(rows), []
        for start in range(0, len(body), each):
            loaded = self._engine.load_ciphertexts(
                body[start : start + each], count=public.features, level=0, scale=self._arithmetic.scales[0]
            )
            fresh = [Leveled(ciphertext=ciphertext, level=0) for ciphertext in loaded]
            scores = self._circuit.evaluate(fresh, self._arithmetic)
            last = [self._arithmetic.lowered(score, public.parameters.depth).ciphertext for score in scores]
            parts.append(self._engine.store_ciphertexts(last))
        return _message(Kind.ANSWER, public, self._key_id, rows, b"".join(parts))


def _message(kind: Kind, public: PublicForest, key_id: RandomId, rows: int, body: bytes) -> bytes:
    header: dict[str, Value] = {"circuit": public.circuit_id.value, "key": key_id.value, "rows": rows}
    return envelope.encode(Envelope(kind=kind, header=header, body=body))


def _rows_of(opened: Envelope, public: PublicForest, key_id: RandomId) -> int:
    envelope.check_fields(opened, "circuit", "key", "rows")
    check_binding(opened, circuit_id=public.circuit_id, key_id=key_id)
    return envelope.count_of(opened, "rows", largest=MAX_ROWS)
