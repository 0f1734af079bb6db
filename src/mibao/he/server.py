"""The compute host's side: a bundle and evaluation keys, no secret, requests in and answers out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float64, Real
from numpy import ndarray

from mibao.codec.canonical import Value
from mibao.errors import InputError, IntegrityError
from mibao.events import CircuitEvaluated
from mibao.he import answer_form, envelope
from mibao.he.account import account_of, check_account
from mibao.he.client import check_binding, check_circuit
from mibao.he.engine import Ciphertext, Engine
from mibao.he.engine_seal import engine_for
from mibao.he.envelope import Envelope, Kind
from mibao.he.execution import Execution, Keys
from mibao.he.levels import Schedule
from mibao.he.program import Constant, Program, ciphertexts
from mibao.he.program_codec import from_value
from mibao.he.records import batches, checked_records
from mibao.he.scheduling import schedule
from mibao.he.spec import MAX_ROWS, CircuitSpec
from mibao.types import RandomId

_Batch = Sequence[Ciphertext] | Float64[ndarray, "count slots"]


class Server:
    """Evaluates one circuit under one key that it does not have."""

    __slots__ = ("_bundle", "_engine", "_execution", "_key_id", "_keys", "_spec")

    def __init__(self, *, spec: CircuitSpec, bundle: Envelope, keys: Envelope) -> None:
        self._spec = spec
        self._bundle, self._keys = bundle, keys
        self._key_id = envelope.id_of(keys, "key")
        program = program_of(spec, bundle)
        standing = schedule(spec, program)  # refuses what a host could not bear, before the library reserves anything
        self._engine = engine_for(spec.parameters)
        self._execution = Execution(
            program,
            schedule=standing,
            engine=self._engine,
            keys=_evaluation_keys(spec, keys, self._engine),
            encrypted=_encrypted_constants(spec, program, standing, bundle.body, self._engine)
            if spec.weights_encrypted
            else None,
        )

    @property
    def spec(self) -> CircuitSpec:
        """The circuit."""
        return self._spec

    @classmethod
    def from_bytes(cls, *, bundle: bytes, keys: bytes, account: str | None = None) -> Server:
        """A server from its two files.

        Args:
            bundle: The host's.
            keys: The key holder's ``server.keys``.
            account: Who asks, as the host knows it: the keys must be of that account, or of none where none asks.

        Raises:
            InputError: one of them is another kind of file, or the bundle holds weights in clear that the circuit wants
                encrypted: the owner's own file, which a host must never get.
            IntegrityError: one of them was altered or truncated.
            KeyMismatch: the keys are of another circuit, of another account, or not those the weights are encrypted
                under.
            MissingExtra: seal-python is not installed.
        """
        opened = envelope.decode(bundle, Kind.CLEAR_BUNDLE, Kind.ENCRYPTED_BUNDLE)
        spec = envelope.spec_of(opened)
        if spec.weights_encrypted is not (opened.kind is Kind.ENCRYPTED_BUNDLE):
            raise InputError(f"bundle: its weights are not as {spec.mode.value} has them; give the host its own bundle")
        envelope.check_fields(opened, *(("spec", "program", "key") if spec.weights_encrypted else ("spec", "program")))
        server_keys = envelope.decode(keys, Kind.SERVER_KEYS)
        check_account(account_of(server_keys, "circuit", "key", "relinearization_bytes"), asking=account)
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
        """The answer to ``request``.

        Raises:
            InputError: not a request, or one whose answer would exceed 256 MiB.
            IntegrityError: the request was altered or truncated, or holds what the library refuses.
            KeyMismatch: the request is of another circuit or under another key.
        """
        opened = envelope.decode(request, Kind.REQUEST)
        rows = _rows_of(opened, self._spec, self._key_id)
        self._spec.check_answer(rows)
        if len(opened.body) != self._spec.request_bytes(rows):
            raise IntegrityError("request: its size does not match its rows")
        held = self._encrypted(opened.body) if self._spec.data_encrypted else self._clear(opened.body)
        body = b"".join(self._stored(self._execution.run(batch)) for batch in held)
        header: dict[str, Value] = {"circuit": self._spec.circuit_id.value, "key": self._key_id.value, "rows": rows}
        return envelope.encode(Envelope(kind=Kind.ANSWER, header=header, body=body))

    def _stored(self, answer: Sequence[Ciphertext]) -> bytes:
        stored = self._engine.store_ciphertexts(answer)
        if not (dropped := self._spec.answer_dropped_bits):
            return stored
        prime, degree = self._engine.primes[0], self._spec.parameters.ring_degree
        return answer_form.shortened(stored, prime=prime, degree=degree, dropped=dropped)

    def _encrypted(self, body: bytes | memoryview) -> Iterator[_Batch]:
        count = self._spec.request.count
        each = count * self._spec.ciphertext_bytes(level=0)
        for start in range(0, len(body), each):
            yield self._engine.load_ciphertexts(
                body[start : start + each], count=count, level=0, scale=self._spec.data_scale
            )

    def _clear(self, body: bytes | memoryview) -> Iterator[_Batch]:
        values = np.frombuffer(body, dtype="<f8").reshape(-1, self._spec.features)
        yield from batches(self._spec, checked_records(self._spec, values))


def program_of(spec: CircuitSpec, bundle: Envelope) -> Program:
    """The program in a bundle, with its constants where they stand in clear.

    Raises:
        IntegrityError: it is malformed, or does not suit the circuit.
    """
    body = bundle.body if bundle.kind is Kind.CLEAR_BUNDLE else None
    return from_value(
        bundle.header["program"],
        body,
        slots=spec.parameters.slots,
        request=spec.request,
        answer=spec.answer,
    )


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


def _evaluation_keys(spec: CircuitSpec, keys: Envelope, engine: Engine) -> Keys:
    """Exactly the keys that the circuit needs. Raises ``IntegrityError`` when others came, or fewer."""
    split = keys.header["relinearization_bytes"]
    if type(split) is not int or not 0 <= split <= len(keys.body):
        raise IntegrityError("server keys: field relinearization_bytes is malformed")
    relinearization, galois = keys.body[:split], keys.body[split:]
    if bool(relinearization) is not spec.relinearizes or bool(galois) is not bool(spec.rotations):
        raise IntegrityError("server keys: expected the keys that this circuit needs and no others")
    return Keys(
        relinearization=engine.load_relinearization_key(relinearization) if relinearization else None,
        galois=engine.load_galois_keys(galois, steps=spec.rotations) if galois else None,
    )


def _encrypted_constants(
    spec: CircuitSpec, program: Program, standing: Schedule, body: bytes | memoryview, engine: Engine
) -> dict[int, Sequence[Ciphertext]]:
    """Each instruction's encrypted constants. Raises ``IntegrityError`` when the body does not hold just them."""
    sizes = []
    for index, instruction in enumerate(program.instructions):
        if isinstance(instruction, Constant):
            level = standing.registers[instruction.source].level
            sizes.append((index, ciphertexts(instruction), level, spec.ciphertext_bytes(level=level)))
    if len(body) != sum(count * each for _, count, _, each in sizes):
        raise IntegrityError("bundle: its size does not match its circuit")
    found: dict[int, Sequence[Ciphertext]] = {}
    start = 0
    for index, count, level, each in sizes:
        scale = standing.constants[index]
        end = start + count * each
        found[index] = engine.load_ciphertexts(body[start:end], count=count, level=level, scale=scale)
        start = end
    return found
