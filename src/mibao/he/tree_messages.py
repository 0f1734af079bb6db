"""Asking a forest: the key holder's and the compute host's side, with requests and answers as bytes.

The records are ciphertexts; the trees stand in clear at the host, which owns them. The client gets
:class:`~mibao.he.forest_spec.ForestSpec`: the map to ranks, the parameters, what to do with answers, and nothing of the
trees. Beside ciphertexts the host sees the number of rows, and could return any answer.
"""

from __future__ import annotations

import hashlib
from typing import NoReturn

import numpy as np
from jaxtyping import Float64, Real
from numpy import ndarray

from mibao.codec.canonical import Value
from mibao.crypto.kdf import domain_tag
from mibao.errors import InputError, IntegrityError
from mibao.he import envelope
from mibao.he.account import account_fields, account_of, check_account, checked_account
from mibao.he.client import check_binding, check_circuit
from mibao.he.engine import Engine, SecretKey
from mibao.he.engine_seal import engine_for
from mibao.he.envelope import Envelope, Kind
from mibao.he.forest_codec import knots_body, read_knots
from mibao.he.forest_spec import ForestSpec, features_of, spec_from
from mibao.he.leveled import Arithmetic, Leveled, level_scales
from mibao.he.reference import finish
from mibao.he.spec import MAX_ROWS
from mibao.he.trees import TreeCircuit
from mibao.types import RandomId


class TreeClient:
    """A secret key bound to one forest. It cannot be printed, copied or pickled."""

    __slots__ = ("_account", "_engine", "_key_id", "_secret", "_spec")

    def __init__(
        self, *, spec: ForestSpec, key_id: RandomId, secret: SecretKey, engine: Engine, account: str | None = None
    ) -> None:
        self._spec, self._key_id, self._secret, self._engine = spec, key_id, secret, engine
        self._account = checked_account(account)

    def __repr__(self) -> str:
        return "TreeClient(opaque)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a client holds a secret key: it is not pickled or copied")

    @property
    def spec(self) -> ForestSpec:
        """The forest this key is for."""
        return self._spec

    @property
    def key_id(self) -> RandomId:
        """The key's name; it stands in requests and answers and says nothing about the key."""
        return self._key_id

    @property
    def account(self) -> str | None:
        """Whose evaluation keys come from it; a host that is asked by anybody else refuses them."""
        return self._account

    def server_keys(self) -> bytes:
        """What the host needs to compute under this key, and nothing secret."""
        body = self._engine.store_relinearization_key(self._engine.generate_relinearization_key(self._secret))
        header: dict[str, Value] = {"circuit": self._spec.circuit_id.value, "key": self._key_id.value}
        header |= account_fields(self._account)
        return envelope.encode(Envelope(kind=Kind.SERVER_KEYS, header=header, body=body))

    def encrypt(self, records: Real[ndarray, "rows features"]) -> bytes:
        """A request: for each batch of N / 2 rows one ciphertext a feature.

        Raises:
            InputError: another width, no rows or too many, a value that is not finite, or a request over 1 GiB.
        """
        if not 1 <= len(records) <= MAX_ROWS:
            raise InputError(f"records: expected 1 to {MAX_ROWS} rows, got {len(records)}")
        self._spec.check_rows(len(records))
        ranks = -self._spec.scale.apply(np.asarray(records, dtype=np.float64))
        scale, slots, parts = level_scales(self._engine)[0], self._spec.batch_rows, []
        for start in range(0, len(ranks), slots):
            encoded = [self._engine.encode(column, scale=scale) for column in ranks[start : start + slots].T]
            held = [self._engine.encrypt(self._secret, plaintext) for plaintext in encoded]
            parts.append(self._engine.store_ciphertexts(held))
        return _message(Kind.REQUEST, self._spec, self._key_id, len(records), b"".join(parts))

    def decrypt(self, answer: bytes) -> Float64[ndarray, "..."]:
        """What the model gives: probabilities where it does. **Never share it**; see :mod:`mibao.he.release`.

        Raises:
            InputError: not an answer.
            IntegrityError: the answer was altered or truncated.
            KeyMismatch: the answer is of another circuit or under another key.
        """
        return finish(self.decrypt_logits(answer), head=self._spec.head, flat=self._spec.flat)

    def decrypt_logits(self, answer: bytes) -> Float64[ndarray, "rows outputs"]:
        """The scores, before the head. As :meth:`decrypt`, and never to be shared either."""
        opened = envelope.decode(answer, Kind.ANSWER)
        rows = _rows_of(opened, self._spec, self._key_id)
        spec, level = self._spec, self._spec.parameters.depth
        if len(opened.body) != spec.answer_bytes(rows):
            raise IntegrityError("answer: its size does not match its rows")
        scale, count = level_scales(self._engine)[level], spec.batches(rows) * spec.outputs
        loaded = self._engine.load_ciphertexts(opened.body, count=count, level=level, scale=scale)
        slots = np.stack([self._engine.decrypt(self._secret, ciphertext) for ciphertext in loaded])
        scores = slots.reshape(spec.batches(rows), spec.outputs, -1).transpose(0, 2, 1).reshape(-1, spec.outputs)
        return np.ascontiguousarray(scores[:rows])

    def reveal_secret_bytes(self) -> bytes:
        """The whole of ``client.key``. Whoever reads it reads every request and answer."""
        header: dict[str, Value] = {"spec": self._spec.to_value(), "key": self._key_id.value}
        header |= account_fields(self._account)
        body = knots_body(self._spec) + self._engine.store_secret_key(self._secret)
        return envelope.encode(Envelope(kind=Kind.FOREST_KEY, header=header, body=body))

    @classmethod
    def from_secret_bytes(cls, data: bytes) -> TreeClient:
        """The client that :meth:`reveal_secret_bytes` wrote.

        Raises:
            InputError: not a forest's client key.
            IntegrityError: the bytes were altered or truncated.
            MissingExtra: seal-python is not installed.
        """
        opened = envelope.decode(data, Kind.FOREST_KEY)
        account = account_of(opened, "spec", "key")
        value = opened.header["spec"]
        knots, rest = read_knots(opened.body, features=features_of(value))
        spec = spec_from(value, knots=knots)
        engine = engine_for(spec.parameters)
        secret = engine.load_secret_key(rest)
        return cls(spec=spec, key_id=envelope.id_of(opened, "key"), secret=secret, engine=engine, account=account)


def generate_tree_client(spec: ForestSpec, *, account: str | None = None) -> TreeClient:
    """A fresh key for a forest, named as :func:`~mibao.he.client.generate_client` names its own.

    Raises:
        InputError: the account is no name.
        MissingExtra: seal-python is not installed.
    """
    checked_account(account)
    engine = engine_for(spec.parameters)
    secret = engine.generate_secret_key()
    digest = hashlib.sha256(domain_tag("he/key-id", engine.public_sample(secret))).digest()
    key_id = RandomId(digest[: RandomId.size])
    return TreeClient(spec=spec, key_id=key_id, secret=secret, engine=engine, account=account)


class TreeServer:
    """Evaluates one forest under one key that it does not have."""

    __slots__ = ("_arithmetic", "_bundle", "_circuit", "_engine", "_key_id", "_keys", "_spec")

    def __init__(
        self, circuit: TreeCircuit, *, spec: ForestSpec, bundle: bytes, keys: bytes, account: str | None = None
    ) -> None:
        """A host from its circuit and a client's keys; :func:`mibao.he.forest_circuit.server_of` reads both.

        Raises:
            InputError: another kind of file.
            IntegrityError: the keys were altered or truncated.
            KeyMismatch: they are of another circuit, or of another account than asks.
            MissingExtra: seal-python is not installed.
        """
        self._circuit, self._spec, self._bundle, self._keys = circuit, spec, bundle, keys
        opened = envelope.decode(keys, Kind.SERVER_KEYS)
        check_account(account_of(opened, "circuit", "key"), asking=account)
        check_circuit(opened, spec.circuit_id)
        self._key_id = envelope.id_of(opened, "key")
        self._engine: Engine = engine_for(circuit.parameters)
        key = self._engine.load_relinearization_key(opened.body)
        self._arithmetic = Arithmetic(self._engine, relinearization=key)

    @property
    def spec(self) -> ForestSpec:
        """The forest."""
        return self._spec

    def bundle_bytes(self) -> bytes:
        """The host's bundle: the trees in clear."""
        return self._bundle

    def keys_bytes(self) -> bytes:
        """``server.keys``: public key material only."""
        return self._keys

    def evaluate(self, request: bytes) -> bytes:
        """The answer to ``request``.

        Raises:
            InputError: not a request.
            IntegrityError: the request was altered or truncated, or holds what the library refuses.
            KeyMismatch: the request is of another circuit or under another key.
        """
        opened = envelope.decode(request, Kind.REQUEST)
        rows = _rows_of(opened, self._spec, self._key_id)
        spec, body = self._spec, opened.body
        spec.check_rows(rows)
        if len(body) != spec.request_bytes(rows):
            raise IntegrityError("request: its size does not match its rows")
        each, parts = len(body) // spec.batches(rows), []
        for start in range(0, len(body), each):
            loaded = self._engine.load_ciphertexts(
                body[start : start + each], count=spec.features, level=0, scale=self._arithmetic.scales[0]
            )
            fresh = [Leveled(ciphertext=ciphertext, level=0) for ciphertext in loaded]
            scores = self._circuit.evaluate(fresh, self._arithmetic)
            last = [self._arithmetic.lowered(score, spec.parameters.depth).ciphertext for score in scores]
            parts.append(self._engine.store_ciphertexts(last))
        return _message(Kind.ANSWER, spec, self._key_id, rows, b"".join(parts))


def _message(kind: Kind, spec: ForestSpec, key_id: RandomId, rows: int, body: bytes) -> bytes:
    header: dict[str, Value] = {"circuit": spec.circuit_id.value, "key": key_id.value, "rows": rows}
    return envelope.encode(Envelope(kind=kind, header=header, body=body))


def _rows_of(opened: Envelope, spec: ForestSpec, key_id: RandomId) -> int:
    envelope.check_fields(opened, "circuit", "key", "rows")
    check_binding(opened, circuit_id=spec.circuit_id, key_id=key_id)
    return envelope.count_of(opened, "rows", largest=MAX_ROWS)
