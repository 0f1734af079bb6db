"""What all parties of one forest agree on: its id, roles, the client's map, parameters, head. Nothing of the trees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from mibao.codec.canonical import Value
from mibao.errors import InputError, IntegrityError
from mibao.he import residue_packing
from mibao.he.network import Head
from mibao.he.parameters import Parameters
from mibao.he.roles import Roles, check_roles
from mibao.he.spec import MAX_ANSWER_BYTES, MAX_OUTPUTS, MAX_PRIMES, MAX_REQUEST_BYTES, classes_of
from mibao.he.trees import FeatureScale, TreeCircuit
from mibao.types import ComputeMode, RandomId

MAX_FEATURES = 1 << 12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ForestSpec:
    """A forest without its trees: safe to show to every party.

    Attributes:
        circuit_id: Binds keys, requests and answers to this circuit.
        scale: The client's map from features to ranks; its knots are quantiles of the calibration records.
        parameters: Ring and modulus.
        outputs: Width of an answer, before the head.
        head: What the client applies to decrypted answers.
        flat: Whether answers of one column come back as a vector.
        classes: Labels in the order of the answers' columns, or none.
    """

    circuit_id: RandomId
    roles: Roles
    scale: FeatureScale
    parameters: Parameters
    outputs: int
    head: Head
    flat: bool
    classes: tuple[str, ...] | tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse what no forest can be. Raises ``InputError``."""
        if not 1 <= self.features <= MAX_FEATURES or not 1 <= self.outputs <= MAX_OUTPUTS:
            raise InputError(
                f"forest: expected 1 to {MAX_FEATURES} features and 1 to {MAX_OUTPUTS} outputs, "
                f"got {self.features} and {self.outputs}"
            )
        if not 2 <= len(self.parameters.modulus_bits) <= MAX_PRIMES + 8:
            raise InputError("forest: expected a modulus of several primes")
        check_roles(self.mode, self.roles)

    @property
    def mode(self) -> ComputeMode:
        """Records are encrypted, the trees stand in clear at their owner, who computes."""
        return ComputeMode.ENCRYPTED_DATA

    @property
    def data_encrypted(self) -> bool:
        """Always: the host sees ciphertexts only."""
        return True

    @property
    def weights_encrypted(self) -> bool:
        """Never."""
        return False

    @property
    def features(self) -> int:
        """Width of a record."""
        return len(self.scale.knots)

    @property
    def batch_rows(self) -> int:
        """Rows in one batch."""
        return self.parameters.slots

    @property
    def low(self) -> Float64[ndarray, "features"]:
        """No bound: what lies outside the map goes to its nearer end, which no threshold lies beyond."""
        return np.full(self.features, -np.inf)

    @property
    def high(self) -> Float64[ndarray, "features"]:
        """No bound either."""
        return np.full(self.features, np.inf)

    def batches(self, rows: int) -> int:
        """Batches that ``rows`` records take: each a ciphertext a feature."""
        return -(-rows // self.batch_rows)

    def ciphertext_bytes(self, *, level: int) -> int:
        """Bytes of a ciphertext on the wire."""
        primes = self.parameters.primes()
        left = primes[: len(primes) - level]
        return residue_packing.packed_bytes(left, components=2, degree=self.parameters.ring_degree)

    def request_bytes(self, rows: int) -> int:
        """Bytes of the ciphertexts that carry ``rows`` records."""
        return self.batches(rows) * self.features * self.ciphertext_bytes(level=0)

    def answer_bytes(self, rows: int) -> int:
        """Bytes of the ciphertexts that answer ``rows`` records."""
        return self.batches(rows) * self.outputs * self.ciphertext_bytes(level=self.parameters.depth)

    def check_rows(self, rows: int) -> None:
        """Refuse ``rows`` records whose request or answer would be too large. Raises ``InputError``."""
        if self.request_bytes(rows) > MAX_REQUEST_BYTES or self.answer_bytes(rows) > MAX_ANSWER_BYTES:
            raise InputError(f"request: {rows} rows would exceed 1 GiB, or their answer 256 MiB; send fewer at a time")

    def to_value(self) -> dict[str, Value]:
        """The canonical map that stands in every header; the map's knots are the body's."""
        return {
            "circuit": self.circuit_id.value,
            "data_owner": str(self.roles.data_owner),
            "model_owner": str(self.roles.model_owner),
            "compute_host": str(self.roles.compute_host),
            "features": self.features,
            "rounds": self.scale.rounds,
            "outputs": self.outputs,
            "head": self.head.value,
            "flat": self.flat,
            "classes": list(self.classes),
            "ring_degree": self.parameters.ring_degree,
            "modulus_bits": list(self.parameters.modulus_bits),
            "scale_bits": self.parameters.scale_bits,
        }


def forest_spec(circuit: TreeCircuit, *, circuit_id: RandomId, roles: Roles) -> ForestSpec:
    """The public part of a circuit. Raises ``InputError`` where the roles do not suit."""
    forest = circuit.forest
    return ForestSpec(
        circuit_id=circuit_id,
        roles=roles,
        scale=circuit.scale,
        parameters=circuit.parameters,
        outputs=forest.outputs,
        head=forest.head,
        flat=forest.flat,
        classes=forest.classes,
    )


def features_of(value: Value) -> int:
    """How many features a header names. Raises ``IntegrityError``."""
    features = _fields(value)["features"]
    if not 1 <= features <= MAX_FEATURES:
        raise IntegrityError("forest: field features is malformed")
    return int(features)


def spec_from(value: Value, *, knots: Float64[ndarray, "features knots"]) -> ForestSpec:
    """The reverse of :meth:`ForestSpec.to_value`.

    Raises:
        IntegrityError: a field is missing, surplus, of another type, or describes no possible forest.
    """
    held = _fields(value)
    try:
        return ForestSpec(
            circuit_id=RandomId(held["circuit"]),
            roles=Roles(
                data_owner=held["data_owner"], model_owner=held["model_owner"], compute_host=held["compute_host"]
            ),
            scale=FeatureScale(knots=knots, rounds=held["rounds"]),
            parameters=Parameters(
                ring_degree=held["ring_degree"],
                modulus_bits=tuple(held["modulus_bits"]),
                scale_bits=held["scale_bits"],
            ),
            outputs=held["outputs"],
            head=Head(held["head"]),
            flat=held["flat"],
            classes=classes_of(held["classes"]),
        )
    except (InputError, ValueError) as error:
        raise IntegrityError(f"forest: describes no possible circuit ({error})") from error


_FIELDS: dict[str, type] = {
    "circuit": bytes,
    "data_owner": str,
    "model_owner": str,
    "compute_host": str,
    "features": int,
    "rounds": bool,
    "outputs": int,
    "head": str,
    "flat": bool,
    "classes": list,
    "ring_degree": int,
    "modulus_bits": list,
    "scale_bits": int,
}


def _fields(value: Value) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != set(_FIELDS):
        raise IntegrityError(f"forest: expected the fields {', '.join(_FIELDS)}")
    held: dict[str, Any] = dict(value)
    for name, kind in _FIELDS.items():
        if type(held[name]) is not kind:
            raise IntegrityError(f"forest: field {name} is malformed")
    if not all(type(bits) is int for bits in held["modulus_bits"]):
        raise IntegrityError("forest: field modulus_bits is malformed")
    return held
