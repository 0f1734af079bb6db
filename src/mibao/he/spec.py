"""What all parties of one circuit agree on: its id, mode, roles, ranges, packing and parameters. No weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from mibao.codec.canonical import Value
from mibao.errors import InputError, IntegrityError
from mibao.he import answer_form
from mibao.he.network import Head
from mibao.he.parameters import Parameters
from mibao.he.program import Packing
from mibao.he.release_terms import PRIMES_A_LEVEL, ReleaseTerms
from mibao.he.roles import Roles, check_roles, has_two_owners
from mibao.types import ComputeMode, RandomId

MAX_FEATURES = 1 << 14
MAX_OUTPUTS = 1 << 10
MAX_ROWS = 1 << 20
MAX_ANSWER_BYTES = 1 << 28  # what one request can make a host hold
MAX_REQUEST_BYTES = 1 << 30
MAX_KEY_BYTES = 250 << 20  # of rotations and relinearisation together
MAX_CLASS_CHARACTERS = 256
MAX_PRIMES = 17
_FLOATS, _PLACES = np.dtype("<f8"), np.dtype("<u2")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CircuitSpec:
    """A circuit without its weights: safe to show to every party.

    Attributes:
        circuit_id: Binds keys, requests and answers to this circuit.
        low: Smallest value of each feature that a client may send.
        high: Largest.
        input_shape: A record's shape for who sends it; empty where it is flat.
        head: What the client applies to decrypted answers.
        flat: Whether answers of one column come back as a vector.
        classes: Labels in the order of the answers' columns, or none.
        request: How a batch of records lies in ciphertexts.
        answer: How its answers do.
        parameters: Ring, modulus and the data's scale.
        answer_scale: The answers' scale.
        rotations: Steps that the host needs Galois keys for.
        relinearizes: Whether it needs a relinearisation key.
        predicted_error: Error an answer should keep, before the head; see :mod:`mibao.he.bounds`.
        predicted_ms: Host's time a batch; see :mod:`mibao.he.cost`.
        release: What was compiled to leave room for noise that hides the key, where answers may be handed on.
    """

    circuit_id: RandomId
    mode: ComputeMode
    roles: Roles
    low: Float64[ndarray, "features"]
    high: Float64[ndarray, "features"]
    input_shape: tuple[int, ...]
    head: Head
    flat: bool
    classes: tuple[str, ...] | tuple[int, ...]
    request: Packing
    answer: Packing
    parameters: Parameters
    answer_scale: float
    rotations: tuple[int, ...]
    relinearizes: bool
    predicted_error: float
    predicted_ms: float
    release: ReleaseTerms | None = None

    def __post_init__(self) -> None:
        """Refuse what no circuit can be.

        Raises:
            InputError: a size or a range is out of bounds, the packings do not suit the ring, key switching is needed
                and there is no special prime, keys or one batch would be larger than a host takes, or the roles do
                not suit the mode.
        """
        if not 1 <= self.features <= MAX_FEATURES or not 1 <= self.outputs <= MAX_OUTPUTS:
            raise InputError(
                f"circuit: expected 1 to {MAX_FEATURES} features and 1 to {MAX_OUTPUTS} outputs, "
                f"got {self.features} and {self.outputs}"
            )
        _check_range(self.low, self.high)
        if self.input_shape and int(np.prod(self.input_shape, dtype=object)) != self.features:
            raise InputError(f"circuit: a record of shape {self.input_shape} has no {self.features} features")
        slots = self.parameters.slots
        _check_packing("request", self.request, width=self.features, slots=slots, whole=False)
        _check_packing("answer", self.answer, width=self.outputs, slots=slots, whole=True)
        if self.request.rows != self.answer.rows or self.answer.entry.size != self.outputs:
            raise InputError("circuit: request and answer do not hold the same rows, or an output lies in two places")
        if len(self.parameters.modulus_bits) < 2:
            self._check_lone_prime()
        if list(self.rotations) != sorted(set(self.rotations)) or not all(0 < step < slots for step in self.rotations):
            raise InputError("circuit: expected rotations in ascending order, each less than the slots")
        if len(self.parameters.data_primes) < self.primes_a_level:
            raise InputError("circuit: a release takes answers on two primes")
        if len(self.parameters.modulus_bits) > MAX_PRIMES:
            raise InputError(f"circuit: expected at most {MAX_PRIMES} primes")
        if self.key_bytes > MAX_KEY_BYTES:
            raise InputError(f"circuit: its evaluation keys would exceed {MAX_KEY_BYTES >> 20} MiB")
        if self.request.count * self.ciphertext_bytes(level=0) > MAX_REQUEST_BYTES:
            raise InputError("circuit: one batch would exceed 1 GiB")
        if self.answer_bytes(1) > MAX_ANSWER_BYTES:
            raise InputError("circuit: one batch's answer would exceed 256 MiB")
        if not (1 <= self.answer_scale < 2.0**self.parameters.data_modulus_bits):
            raise InputError("circuit: the scales do not fit the modulus")
        if not (0 <= self.predicted_error < np.inf and 0 <= self.predicted_ms < np.inf):
            raise InputError("circuit: expected a finite predicted error and time")
        check_roles(self.mode, self.roles)

    def _check_lone_prime(self) -> None:
        """Refuse a circuit that takes a special prime and has none. Raises ``InputError``."""
        if self.rotations or self.relinearizes:
            raise InputError("circuit: rotations and products of ciphertexts take a special prime")
        if self.weights_publicly:
            raise InputError("circuit: weights under a public key take a special prime")

    @property
    def features(self) -> int:
        """Width of a record."""
        return int(self.low.shape[0])

    @property
    def outputs(self) -> int:
        """Width of an answer, before the head."""
        return int(self.answer.entry.max()) + 1

    @property
    def data_scale(self) -> float:
        """Scale of encoded data."""
        return 2.0**self.parameters.scale_bits

    @property
    def data_encrypted(self) -> bool:
        """Whether the host sees data as ciphertexts only."""
        return self.mode is not ComputeMode.ENCRYPTED_WEIGHTS

    @property
    def weights_encrypted(self) -> bool:
        """Whether the host sees weights as ciphertexts only."""
        return self.mode is not ComputeMode.ENCRYPTED_DATA

    @property
    def weights_publicly(self) -> bool:
        """Whether the weights' owner has no key, and encrypts them under the key holder's public one."""
        return has_two_owners(self.mode, self.roles)

    @property
    def batch_rows(self) -> int:
        """Rows in one batch."""
        return self.request.rows

    @property
    def primes_a_level(self) -> int:
        """Primes that a rescaling drops, and that answers stand on."""
        return 1 if self.release is None else PRIMES_A_LEVEL

    @property
    def answer_level(self) -> int:
        """Primes that are dropped before an answer is sent."""
        return len(self.parameters.data_primes) - self.primes_a_level

    def batches(self, rows: int) -> int:
        """Batches that ``rows`` records take."""
        return -(-rows // self.batch_rows)

    @property
    def key_bytes(self) -> int:
        """Bytes of the keys for rotations and relinearisation: each a ciphertext a data prime, over all primes."""
        digits = len(self.parameters.data_primes)
        each = 2 * digits * (digits + 1) * self.parameters.ring_degree * 8
        return (len(self.rotations) + self.relinearizes) * each

    def ciphertext_bytes(self, *, level: int) -> int:
        """Bytes of a ciphertext on the wire: each prime's residues at that prime's width."""
        bits = sum(self.parameters.data_primes[: len(self.parameters.data_primes) - level])
        return 2 * bits * self.parameters.ring_degree // 8

    def request_bytes(self, rows: int) -> int:
        """Bytes of the ciphertexts that carry ``rows`` records, or of the records where they stay in clear."""
        if not self.data_encrypted:
            return rows * self.features * _FLOATS.itemsize
        return self.batches(rows) * self.request.count * self.ciphertext_bytes(level=0)

    def answer_bytes(self, rows: int) -> int:
        """Bytes of the ciphertexts that answer ``rows`` records."""
        spared = self.answer_dropped_bits * self.parameters.ring_degree // 8
        each = self.ciphertext_bytes(level=self.answer_level) - spared
        return self.batches(rows) * self.answer.count * each

    @property
    def answer_dropped_bits(self) -> int:
        """Low bits that the first component of an answer is sent without; none where answers are to be released."""
        if self.release is not None:
            return 0
        return answer_form.dropped_bits(
            predicted_error=self.predicted_error,
            answer_scale=self.answer_scale,
            degree=self.parameters.ring_degree,
            prime_bits=self.parameters.data_primes[0],
        )

    def check_answer(self, rows: int) -> None:
        """Refuse ``rows`` records whose answer would pass :data:`MAX_ANSWER_BYTES`. Raises ``InputError``."""
        if self.answer_bytes(rows) > MAX_ANSWER_BYTES:
            raise InputError(f"request: the answer to {rows} rows would exceed 256 MiB; send fewer at a time")

    def to_value(self) -> dict[str, Value]:
        """The canonical map that stands in every header; ``release`` only where the circuit has it."""
        release: dict[str, Value] = {} if self.release is None else {"release": self.release.to_value()}
        return {
            "circuit": self.circuit_id.value,
            "mode": self.mode.value,
            "data_owner": str(self.roles.data_owner),
            "model_owner": str(self.roles.model_owner),
            "compute_host": str(self.roles.compute_host),
            "low": self.low.astype(_FLOATS).tobytes(),
            "high": self.high.astype(_FLOATS).tobytes(),
            "input_shape": list(self.input_shape),
            "head": self.head.value,
            "flat": self.flat,
            "classes": list(self.classes),
            "request": _packing_value(self.request),
            "answer": _packing_value(self.answer),
            "ring_degree": self.parameters.ring_degree,
            "modulus_bits": list(self.parameters.modulus_bits),
            "scale_bits": self.parameters.scale_bits,
            "answer_scale": float(self.answer_scale),
            "rotations": list(self.rotations),
            "relinearizes": self.relinearizes,
            "predicted_error": float(self.predicted_error),
            "predicted_ms": float(self.predicted_ms),
            **release,
        }

    @classmethod
    def from_value(cls, value: Value) -> CircuitSpec:
        """The reverse.

        Raises:
            IntegrityError: a field is missing, surplus, of another type, or describes no possible circuit.
        """
        releases = isinstance(value, dict) and "release" in value
        held = _typed_fields(value, {**_FIELDS, "release": dict} if releases else _FIELDS, "circuit")
        for name in ("modulus_bits", "input_shape", "rotations"):
            if not all(type(entry) is int for entry in held[name]):
                raise IntegrityError(f"circuit: field {name} is malformed")
        try:
            return cls(
                circuit_id=RandomId(held["circuit"]),
                mode=ComputeMode(held["mode"]),
                roles=Roles(
                    data_owner=held["data_owner"], model_owner=held["model_owner"], compute_host=held["compute_host"]
                ),
                low=_floats(held["low"]),
                high=_floats(held["high"]),
                input_shape=tuple(held["input_shape"]),
                head=Head(held["head"]),
                flat=held["flat"],
                classes=classes_of(held["classes"]),
                request=_packing_of(held["request"]),
                answer=_packing_of(held["answer"]),
                parameters=Parameters(
                    ring_degree=held["ring_degree"],
                    modulus_bits=tuple(held["modulus_bits"]),
                    scale_bits=held["scale_bits"],
                ),
                answer_scale=held["answer_scale"],
                rotations=tuple(held["rotations"]),
                relinearizes=held["relinearizes"],
                predicted_error=held["predicted_error"],
                predicted_ms=held["predicted_ms"],
                release=ReleaseTerms.from_value(held["release"]) if releases else None,
            )
        except (InputError, ValueError) as error:
            raise IntegrityError(f"circuit: describes no possible circuit ({error})") from error


def _check_range(low: Float64[ndarray, "features"], high: Float64[ndarray, "features"]) -> None:
    if low.shape != high.shape or not (np.all(np.isfinite(low)) and np.all(np.isfinite(high)) and np.all(low <= high)):
        raise InputError("circuit: expected finite bounds a feature, the lower ones at most the upper ones")


def _check_packing(name: str, packing: Packing, *, width: int, slots: int, whole: bool) -> None:
    """Refuse what is no packing. A request may leave out features that no layer uses. Raises ``InputError``."""
    places, held = packing.entry.size, np.unique(packing.entry)
    sound = (
        places > 0
        and 1 <= packing.rows <= slots
        and 1 <= packing.count <= MAX_FEATURES
        and places == packing.ciphertext.size == packing.place.size
        and int(held[-1]) < width
        and (held.size == width or not whole)
        and int(packing.ciphertext.max()) < packing.count
        and int(packing.place.max()) + packing.rows <= slots
    )
    if not sound:
        raise InputError(f"circuit: its {name} is packed as no {width} entries in ciphertexts of {slots} slots can be")


def _packing_value(packing: Packing) -> dict[str, Value]:
    return {
        "rows": packing.rows,
        "count": packing.count,
        "entry": packing.entry.astype(_PLACES).tobytes(),
        "ciphertext": packing.ciphertext.astype(_PLACES).tobytes(),
        "place": packing.place.astype(_PLACES).tobytes(),
    }


def _packing_of(value: Value) -> Packing:
    held = _typed_fields(value, _PACKING_FIELDS, "circuit")
    entry, ciphertext, place = (_places(held[name]) for name in ("entry", "ciphertext", "place"))
    return Packing(rows=held["rows"], count=held["count"], entry=entry, ciphertext=ciphertext, place=place)


def _places(data: bytes) -> Int64[ndarray, "places"]:
    if not data or len(data) % _PLACES.itemsize:
        raise IntegrityError("circuit: a packing is malformed")
    return np.frombuffer(data, dtype=_PLACES).astype(np.int64)


def _floats(data: bytes) -> Float64[ndarray, "features"]:
    if len(data) % _FLOATS.itemsize:
        raise IntegrityError("circuit: a range is malformed")
    return np.frombuffer(data, dtype=_FLOATS).astype(np.float64)


def classes_of(held: list[Any]) -> tuple[str, ...] | tuple[int, ...]:
    """Labels as they stand in a header. Raises ``IntegrityError`` when they are malformed."""
    if len(held) > 2 * MAX_OUTPUTS:
        raise IntegrityError("circuit: too many classes")
    if all(type(name) is int for name in held):
        return tuple(held)
    if all(type(name) is str and len(name) <= MAX_CLASS_CHARACTERS for name in held):
        return tuple(held)
    raise IntegrityError("circuit: field classes is malformed")


def _typed_fields(value: Value, fields: dict[str, type], part: str) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != set(fields):
        raise IntegrityError(f"{part}: expected the fields {', '.join(fields)}")
    for name, kind in fields.items():
        if type(value[name]) is not kind:
            raise IntegrityError(f"{part}: field {name} is malformed")
    return dict(value)


_PACKING_FIELDS: dict[str, type] = {"rows": int, "count": int, "entry": bytes, "ciphertext": bytes, "place": bytes}
_FIELDS: dict[str, type] = {
    "circuit": bytes,
    "mode": str,
    "data_owner": str,
    "model_owner": str,
    "compute_host": str,
    "low": bytes,
    "high": bytes,
    "input_shape": list,
    "head": str,
    "flat": bool,
    "classes": list,
    "request": dict,
    "answer": dict,
    "ring_degree": int,
    "modulus_bits": list,
    "scale_bits": int,
    "answer_scale": float,
    "rotations": list,
    "relinearizes": bool,
    "predicted_error": float,
    "predicted_ms": float,
}
