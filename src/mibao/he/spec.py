"""What all parties of one circuit agree on: its id, mode, roles, shape, range and parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mibao.codec.canonical import Value
from mibao.errors import InputError, IntegrityError
from mibao.he.levels import LADDER
from mibao.he.parameters import Parameters
from mibao.he.roles import Roles, check_roles
from mibao.types import ComputeMode, RandomId

MAX_FEATURES = 4096
MAX_OUTPUTS = 256
MAX_ROWS = 1 << 20
MAX_ANSWER_BYTES = 1 << 28  # what one request can make a host hold
_WORD_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitSpec:
    """A linear circuit without its weights: safe to show to every party.

    Attributes:
        circuit_id: Binds keys, requests and answers to this circuit.
        features: Width of a record.
        outputs: Logits a record.
        input_bound: Largest magnitude a feature may take.
        parameters: Ring, modulus and the data's scale.
        weight_scale_bits: The weights' scale.
        predicted_error: Error a logit should keep; see :func:`mibao.he.levels.predicted_error`.
    """

    circuit_id: RandomId
    mode: ComputeMode
    roles: Roles
    features: int
    outputs: int
    input_bound: float
    parameters: Parameters
    weight_scale_bits: int
    predicted_error: float

    def __post_init__(self) -> None:
        """Refuse what no circuit can be.

        Raises:
            InputError: a size is out of range, the bound is not positive and finite, the parameters are none of
                :data:`~mibao.he.levels.LADDER`, the scales exceed the modulus, the mode needs key switching that the
                parameters lack, or the roles do not suit the mode.
        """
        if not 1 <= self.features <= MAX_FEATURES or not 1 <= self.outputs <= MAX_OUTPUTS:
            raise InputError(
                f"circuit: expected 1 to {MAX_FEATURES} features and 1 to {MAX_OUTPUTS} outputs, "
                f"got {self.features} and {self.outputs}"
            )
        if not (0 < self.input_bound < math.inf and 0 <= self.predicted_error < math.inf):
            raise InputError("circuit: expected a positive, finite input_bound and a finite predicted error")
        if (self.parameters.ring_degree, self.parameters.modulus_bits) not in LADDER:  # any other may cost gigabytes
            raise InputError("circuit: expected a ring degree and a modulus that compile_linear chooses")
        product_bits = self.parameters.scale_bits + self.weight_scale_bits
        if self.weight_scale_bits < 1 or product_bits >= self.parameters.data_modulus_bits:
            raise InputError("circuit: the scales do not fit the modulus")
        if self.mode is ComputeMode.ENCRYPTED_BOTH and len(self.parameters.modulus_bits) < 2:
            raise InputError("circuit: encrypting both sides takes a special prime")
        check_roles(self.mode, self.roles)

    @property
    def data_scale(self) -> float:
        """Scale of encoded data."""
        return 2.0**self.parameters.scale_bits

    @property
    def weight_scale(self) -> float:
        """Scale of encoded weights."""
        return 2.0**self.weight_scale_bits

    @property
    def bias_scale(self) -> float:
        """Scale of encoded biases: that of a product."""
        return self.data_scale * self.weight_scale

    @property
    def data_encrypted(self) -> bool:
        """Whether the host sees data as ciphertexts only."""
        return self.mode is not ComputeMode.ENCRYPTED_WEIGHTS

    @property
    def weights_encrypted(self) -> bool:
        """Whether the host sees weights as ciphertexts only."""
        return self.mode is not ComputeMode.ENCRYPTED_DATA

    def batches(self, rows: int) -> int:
        """Ciphertexts a feature that ``rows`` records take."""
        return -(-rows // self.parameters.slots)

    def answer_bytes(self, rows: int) -> int:
        """Bytes that answer ``rows`` records: two components of one prime for each batch and output."""
        return self.batches(rows) * self.outputs * 2 * self.parameters.ring_degree * _WORD_BYTES

    def check_answer(self, rows: int) -> None:
        """Refuse ``rows`` records whose answer would pass :data:`MAX_ANSWER_BYTES`. Raises ``InputError``."""
        if self.answer_bytes(rows) > MAX_ANSWER_BYTES:
            raise InputError(f"request: the answer to {rows} rows would exceed 256 MiB; send fewer at a time")

    def to_value(self) -> dict[str, Value]:
        """The canonical map that stands in every header."""
        return {
            "circuit": self.circuit_id.value,
            "mode": self.mode.value,
            "data_owner": str(self.roles.data_owner),
            "model_owner": str(self.roles.model_owner),
            "compute_host": str(self.roles.compute_host),
            "features": self.features,
            "outputs": self.outputs,
            "input_bound": float(self.input_bound),
            "ring_degree": self.parameters.ring_degree,
            "modulus_bits": list(self.parameters.modulus_bits),
            "scale_bits": self.parameters.scale_bits,
            "weight_scale_bits": self.weight_scale_bits,
            "predicted_error": float(self.predicted_error),
        }

    @classmethod
    def from_value(cls, value: Value) -> CircuitSpec:
        """The reverse.

        Raises:
            IntegrityError: a field is missing, surplus, of another type, or describes no possible circuit.
        """
        held = _typed_fields(value)
        modulus_bits = held["modulus_bits"]
        if not all(type(bits) is int for bits in modulus_bits):
            raise IntegrityError("circuit: field modulus_bits is malformed")
        try:
            return cls(
                circuit_id=RandomId(held["circuit"]),
                mode=ComputeMode(held["mode"]),
                roles=Roles(
                    data_owner=held["data_owner"], model_owner=held["model_owner"], compute_host=held["compute_host"]
                ),
                features=held["features"],
                outputs=held["outputs"],
                input_bound=held["input_bound"],
                parameters=Parameters(
                    ring_degree=held["ring_degree"], modulus_bits=tuple(modulus_bits), scale_bits=held["scale_bits"]
                ),
                weight_scale_bits=held["weight_scale_bits"],
                predicted_error=held["predicted_error"],
            )
        except (InputError, ValueError) as error:
            raise IntegrityError(f"circuit: describes no possible circuit ({error})") from error


def _typed_fields(value: Value) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != set(_FIELDS):
        raise IntegrityError(f"circuit: expected the fields {', '.join(_FIELDS)}")
    for name, kind in _FIELDS.items():
        if type(value[name]) is not kind:
            raise IntegrityError(f"circuit: field {name} is malformed")
    return dict(value)


_FIELDS: dict[str, type] = {
    "circuit": bytes,
    "mode": str,
    "data_owner": str,
    "model_owner": str,
    "compute_host": str,
    "features": int,
    "outputs": int,
    "input_bound": float,
    "ring_degree": int,
    "modulus_bits": list,
    "scale_bits": int,
    "weight_scale_bits": int,
    "predicted_error": float,
}
