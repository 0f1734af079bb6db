"""The compute host's side: a bundle and evaluation keys, no secret, requests in and answers out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from jaxtyping import Real
from numpy import ndarray

from mibao.codec.canonical import Value
from mibao.errors import InputError, IntegrityError
from mibao.events import CircuitEvaluated
from mibao.he import envelope
from mibao.he.client import check_binding, check_circuit
from mibao.he.engine import Ciphertext, Engine, Operand, RelinearizationKey
from mibao.he.engine_seal import engine_for
from mibao.he.envelope import Envelope, Kind
from mibao.he.records import checked_records, columns
from mibao.he.spec import MAX_ROWS, CircuitSpec
from mibao.he.weights import Weights
from mibao.types import RandomId

_FEATURES_AT_ONCE = 64


class Server:
    """Evaluates one circuit under one key that it does not have."""

    __slots__ = ("_bundle", "_engine", "_key_id", "_keys", "_operands", "_relinearization", "_spec")

    def __init__(self, *, spec: CircuitSpec, bundle: Envelope, keys: Envelope) -> None:
        self._spec = spec
        self._bundle, self._keys = bundle, keys
        self._key_id = envelope.id_of(keys, "key")
        self._engine = engine_for(spec.parameters)
        self._relinearization = _relinearization_key(spec, keys, self._engine)
        self._operands = _operands(spec, bundle, self._engine)

    @property
    def spec(self) -> CircuitSpec:
        """The circuit."""
        return self._spec

    @classmethod
    def from_bytes(cls, *, bundle: bytes, keys: bytes) -> Server:
        """A server from its two files.

        Raises:
            InputError: one of them is another kind of file, or the bundle holds weights in clear that the circuit wants
                encrypted: the owner's own file, which a host must never get.
            IntegrityError: one of them was altered or truncated.
            KeyMismatch: the keys are of another circuit, or not those the weights are encrypted under.
            MissingExtra: seal-python is not installed.
        """
        opened = envelope.decode(bundle, Kind.CLEAR_BUNDLE, Kind.ENCRYPTED_BUNDLE)
        spec = envelope.spec_of(opened)
        if spec.weights_encrypted is not (opened.kind is Kind.ENCRYPTED_BUNDLE):
            raise InputError(f"bundle: its weights are not as {spec.mode.value} has them; give the host its own bundle")
        envelope.check_fields(opened, *(("spec", "key") if spec.weights_encrypted else ("spec",)))
        server_keys = envelope.decode(keys, Kind.SERVER_KEYS)
        envelope.check_fields(server_keys, "circuit", "key")
        key_id = envelope.id_of(opened, "key") if spec.weights_encrypted else envelope.id_of(server_keys, "key")
        check_binding(server_keys, circuit_id=spec.circuit_id, key_id=key_id)
        return cls(spec=spec, bundle=opened, keys=server_keys)

    def bundle_bytes(self) -> bytes:
        """The host's bundle: weights as the mode has them."""
        return envelope.encode(self._bundle)

    def keys_bytes(self) -> bytes:
        """``server.keys``: public key material only."""
        return envelope.encode(self._keys)

    def evaluate(self, request: bytes) -> bytes:
        """The answer to ``request``: for each batch and output one ciphertext of logits.

        Raises:
            InputError: not a request, or one whose answer would exceed 256 MiB.
            IntegrityError: the request was altered or truncated, or holds what the library refuses.
            KeyMismatch: the request is of another circuit or under another key.
        """
        opened = envelope.decode(request, Kind.REQUEST)
        rows = _rows_of(opened, self._spec, self._key_id)
        self._spec.check_answer(rows)
        inputs = self._encrypted_columns(opened.body, rows) if self._spec.data_encrypted else self._clear(opened, rows)
        body = b"".join(answer for _ in range(self._spec.batches(rows)) for answer in self._batch(inputs))
        header: dict[str, Value] = {"circuit": self._spec.circuit_id.value, "key": self._key_id.value, "rows": rows}
        return envelope.encode(Envelope(kind=Kind.ANSWER, header=header, body=body))

    def _batch(self, inputs: Iterator[Operand]) -> Iterator[bytes]:
        """The next batch's logits. A few features at a time, so that memory does not grow with the circuit's width."""
        totals: list[Ciphertext | None] = [None] * self._spec.outputs
        for start in range(0, self._spec.features, _FEATURES_AT_ONCE):
            chunk = list(islice(inputs, min(_FEATURES_AT_ONCE, self._spec.features - start)))
            for output, total in enumerate(totals):
                products = self._engine.sum_of_products(chunk, self._operands.weights(output, start, len(chunk)))
                if products is not None:
                    totals[output] = products if total is None else self._engine.add(total, products)
        for output, total in enumerate(totals):
            yield self._logit(total, self._operands.bias(output))

    def _logit(self, products: Ciphertext | None, bias: Operand) -> bytes:
        """Sum first, relinearize once, rescale once."""
        total = self._engine.add(products, bias) if products is not None else bias
        if not isinstance(total, Ciphertext):
            raise IntegrityError("bundle: an output has no weights, its answer would be in clear")
        if self._relinearization is not None:
            total = self._engine.relinearize(total, self._relinearization)
        for _ in range(self._spec.parameters.depth):
            total = self._engine.rescale(total)
        return self._engine.store_ciphertext(total)

    def _encrypted_columns(self, body: bytes | memoryview, rows: int) -> Iterator[Operand]:
        each = self._engine.ciphertext_bytes(level=0)
        if len(body) != self._spec.batches(rows) * self._spec.features * each:
            raise IntegrityError("request: its size does not match its rows")
        for start in range(0, len(body), each):
            yield self._engine.load_ciphertext(body[start : start + each], level=0, scale=self._spec.data_scale)

    def _clear(self, opened: Envelope, rows: int) -> Iterator[Operand]:
        if len(opened.body) != rows * self._spec.features * 8:
            raise IntegrityError("request: its size does not match its rows")
        values = np.frombuffer(opened.body, dtype="<f8").reshape(rows, self._spec.features)
        for column in columns(self._spec, checked_records(self._spec, values)):
            yield self._engine.encode(column, scale=self._spec.data_scale)


def request_in_clear(spec: CircuitSpec, records: Real[ndarray, "..."]) -> bytes:
    """A request of the mode that encrypts weights only: the records **in clear**, for a host that may read them.

    Raises:
        InputError: the circuit takes encrypted records, the records do not suit it, or its answer
            would exceed 256 MiB.
    """
    if spec.data_encrypted:
        raise InputError(f"{spec.mode.value}: records are encrypted; use the client")
    values = checked_records(spec, records)
    spec.check_answer(values.shape[0])
    header: dict[str, Value] = {"circuit": spec.circuit_id.value, "rows": values.shape[0]}
    return envelope.encode(Envelope(kind=Kind.REQUEST, header=header, body=values.astype("<f8").tobytes()))


def circuit_evaluated(spec: CircuitSpec, *, request: bytes, answer: bytes) -> CircuitEvaluated:
    """The event of one evaluation, as anyone who holds request and answer can state it.

    Raises:
        InputError: ``answer`` is not an answer.
        IntegrityError: it was altered or truncated.
        KeyMismatch: it is of another circuit.
    """
    opened = envelope.decode(answer, Kind.ANSWER)
    check_circuit(opened, spec.circuit_id)
    return CircuitEvaluated(
        circuit=spec.circuit_id,
        mode=spec.mode,
        rows=envelope.count_of(opened, "rows", largest=MAX_ROWS),
        ring_degree=spec.parameters.ring_degree,
        modulus_bits=sum(spec.parameters.modulus_bits),
        request_bytes=len(request),
        answer_bytes=len(answer),
    )


def _rows_of(opened: Envelope, spec: CircuitSpec, key_id: RandomId) -> int:
    if spec.data_encrypted:
        envelope.check_fields(opened, "circuit", "key", "rows")
        check_binding(opened, circuit_id=spec.circuit_id, key_id=key_id)
    else:
        envelope.check_fields(opened, "circuit", "rows")
        check_circuit(opened, spec.circuit_id)
    return envelope.count_of(opened, "rows", largest=MAX_ROWS)


def _relinearization_key(spec: CircuitSpec, keys: Envelope, engine: Engine) -> RelinearizationKey | None:
    if spec.weights_encrypted and spec.data_encrypted:
        return engine.load_relinearization_key(keys.body)
    if keys.body:
        raise IntegrityError("server keys: this circuit takes none, and there are some")
    return None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class _ClearOperands:
    """Weights in clear, encoded when they are needed: encoded ones take 16,000 times their room."""

    spec: CircuitSpec
    held: Weights
    engine: Engine

    def weights(self, output: int, start: int, count: int) -> Sequence[Operand]:
        column = self.held.matrix[start : start + count, output]
        return [self.engine.encode_constant(float(weight), scale=self.spec.weight_scale) for weight in column]

    def bias(self, output: int) -> Operand:
        return self.engine.encode_constant(float(self.held.bias[output]), scale=self.spec.bias_scale)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class _EncryptedOperands:
    """Encrypted weights, output by output, each output's bias behind them."""

    spec: CircuitSpec
    loaded: list[Ciphertext]

    def weights(self, output: int, start: int, count: int) -> Sequence[Operand]:
        first = output * (self.spec.features + 1) + start
        return self.loaded[first : first + count]

    def bias(self, output: int) -> Operand:
        return self.loaded[output * (self.spec.features + 1) + self.spec.features]


def _operands(spec: CircuitSpec, bundle: Envelope, engine: Engine) -> _ClearOperands | _EncryptedOperands:
    if not spec.weights_encrypted:
        return _ClearOperands(spec=spec, held=Weights.from_body(bundle.body, spec), engine=engine)
    each = engine.ciphertext_bytes(level=0)
    if len(bundle.body) != spec.outputs * (spec.features + 1) * each:
        raise IntegrityError("bundle: its size does not match its circuit")
    scales = ([spec.weight_scale] * spec.features + [spec.bias_scale]) * spec.outputs
    loaded = [
        engine.load_ciphertext(bundle.body[index * each : (index + 1) * each], level=0, scale=scale)
        for index, scale in enumerate(scales)
    ]
    return _EncryptedOperands(spec=spec, loaded=loaded)
