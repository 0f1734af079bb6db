"""Linear models as circuits: ``logits = records @ weights + bias`` in the bulk layout.

One ciphertext a feature carries that feature of up to N / 2 records, one a slot. A logit is then a sum of products
slot by slot: no rotation, hence no rotation keys, and at most one relinearization for each output and batch.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Real
from numpy import ndarray

from mibao.codec.canonical import Value
from mibao.errors import InputError, IntegrityError
from mibao.he import envelope
from mibao.he.client import Client, generate_client
from mibao.he.engine import Engine
from mibao.he.engine_seal import engine_for
from mibao.he.envelope import Envelope, Kind
from mibao.he.levels import choose_levels
from mibao.he.parameters import MAX_MODULUS_BITS, SECURITY_BITS
from mibao.he.roles import Roles, check_roles, who_could_read
from mibao.he.server import Server
from mibao.he.spec import CircuitSpec
from mibao.he.weights import Weights, checked_weights, demand_of
from mibao.types import ComputeMode, RandomId

DEFAULT_MAX_ERROR = 1e-3


class LinearCircuit:
    """A compiled linear model; with its weights for who owns them, without for everyone else."""

    __slots__ = ("_spec", "_weights")

    def __init__(self, *, spec: CircuitSpec, weights: Weights | None) -> None:
        self._spec = spec
        self._weights = weights

    @property
    def spec(self) -> CircuitSpec:
        """What every party may know."""
        return self._spec

    def keygen(self) -> tuple[Client, Server]:
        """A fresh key: the client keeps the secret, the server computes and cannot decrypt.

        A data owner who has only :meth:`public` uses :func:`generate_client` and sends ``client.server_keys()``.

        Raises:
            InputError: the weights are not here.
            MissingExtra: seal-python is not installed.
        """
        if self._weights is None:
            raise InputError("circuit: a server takes the weights, and this is the circuit without them")
        client = generate_client(self._spec)
        bundle = client.encrypt_weights(self._weights) if self._spec.weights_encrypted else self.to_bytes()
        return client, Server.from_bytes(bundle=bundle, keys=client.server_keys())

    def public(self) -> LinearCircuit:
        """The same circuit without weights: what a model owner gives to a data owner."""
        return LinearCircuit(spec=self._spec, weights=None)

    def encrypt_weights(self, client: Client) -> bytes:
        """The bundle for the host, weights and biases encrypted under ``client``'s key.

        Raises:
            InputError: the weights are not here, or the mode leaves them in clear.
        """
        if self._weights is None:
            raise InputError("circuit: this is the circuit without its weights")
        return client.encrypt_weights(self._weights)

    def to_bytes(self) -> bytes:
        """The circuit as a file. With weights they stand in it **in clear**: in the modes that encrypt weights it is
        the owner's alone, and the host's bundle is ``server.bundle_bytes()``.
        """
        header: dict[str, Value] = {"spec": self._spec.to_value()}
        if self._weights is None:
            return envelope.encode(Envelope(kind=Kind.CIRCUIT, header=header, body=b""))
        return envelope.encode(Envelope(kind=Kind.CLEAR_BUNDLE, header=header, body=self._weights.to_body()))

    @classmethod
    def from_bytes(cls, data: bytes) -> LinearCircuit:
        """The circuit that :meth:`to_bytes` wrote, or the public part of an encrypted bundle.

        Raises:
            InputError: not a circuit or bundle.
            IntegrityError: the bytes were altered or truncated.
        """
        opened = envelope.decode(data, Kind.CIRCUIT, Kind.CLEAR_BUNDLE, Kind.ENCRYPTED_BUNDLE)
        encrypted = opened.kind is Kind.ENCRYPTED_BUNDLE
        envelope.check_fields(opened, *(("spec", "key") if encrypted else ("spec",)))
        spec = envelope.spec_of(opened)
        if opened.kind is Kind.CIRCUIT and opened.body:
            raise IntegrityError("circuit: expected no body")
        weights = Weights.from_body(opened.body, spec) if opened.kind is Kind.CLEAR_BUNDLE else None
        return cls(spec=spec, weights=weights)

    def explain(self) -> list[str]:
        """Lines for people: mode, who could read what, layout, parameters, sizes, expected error.

        Raises:
            MissingExtra: seal-python is not installed.
        """
        spec, parameters = self._spec, self._spec.parameters
        engine = engine_for(parameters)
        primes = " + ".join(str(bits) for bits in parameters.modulus_bits)
        return [
            f"mode: {_MODE_TEXT[spec.mode]}",
            *who_could_read(spec.mode, spec.roles),
            "the compute host also sees the number of rows, the width, these parameters and when it is asked; "
            "it could return any answer",
            f"layers: linear, {spec.features} features (within ±{spec.input_bound:g}) to {spec.outputs} outputs",
            f"layout: one ciphertext a feature, {parameters.slots} rows each, depth {parameters.depth}, no rotations",
            f"ring {parameters.ring_degree}, modulus {primes} bits, scales 2^{parameters.scale_bits} for data and "
            f"2^{spec.weight_scale_bits} for weights; {SECURITY_BITS}-bit security allows "
            f"{MAX_MODULUS_BITS[parameters.ring_degree]} bits",
            _size_text(spec, engine),
            f"expected error of a logit: under {spec.predicted_error:.1e}",
        ]


def compile_linear(
    weights: Real[ndarray, "..."],
    bias: Real[ndarray, "..."],
    *,
    mode: ComputeMode,
    roles: Roles,
    input_bound: float,
    circuit_id: RandomId,
    max_error: float = DEFAULT_MAX_ERROR,
) -> LinearCircuit:
    """A circuit that computes ``records @ weights + bias``.

    Args:
        weights: Shape (features, outputs); one output for a binary classifier. scikit-learn's ``coef_.T``.
        bias: Shape (outputs,). scikit-learn's ``intercept_``.
        mode: What is encrypted.
        roles: The three parties by name, all declared.
        input_bound: Largest magnitude any feature may take; the client refuses records outside it.
        circuit_id: Random, from :func:`mibao.crypto.rng.random_id`; binds keys, requests and answers.
        max_error: Largest error a logit may have. The smallest parameters that keep it are chosen.

    Raises:
        InputError: shapes, ranges or roles do not fit, an output has no weight that the scale can hold, or no
            parameters keep ``max_error``.
    """
    check_roles(mode, roles)
    if not (0 < input_bound < math.inf and 0 < max_error < math.inf):
        raise InputError("circuit: expected a positive, finite input_bound and max_error")
    checked = checked_weights(weights, bias)
    levels = choose_levels(demand_of(checked, mode=mode, input_bound=input_bound), max_error=max_error)
    if not np.all(np.any(np.rint(checked.matrix * 2.0**levels.weight_scale_bits) != 0, axis=0)):
        raise InputError("weights: an output has no weight that differs from zero at the chosen scale")
    spec = CircuitSpec(
        circuit_id=circuit_id,
        mode=mode,
        roles=roles,
        features=checked.matrix.shape[0],
        outputs=checked.matrix.shape[1],
        input_bound=float(input_bound),
        parameters=levels.parameters,
        weight_scale_bits=levels.weight_scale_bits,
        predicted_error=levels.predicted_error,
    )
    return LinearCircuit(spec=spec, weights=checked)


_MODE_TEXT = {
    ComputeMode.ENCRYPTED_DATA: "encrypted-data (records as ciphertexts, weights in clear at the host)",
    ComputeMode.ENCRYPTED_WEIGHTS: "encrypted-weights (weights, biases as ciphertexts, records in clear at the host)",
    ComputeMode.ENCRYPTED_BOTH: "encrypted-both (records, weights and biases as ciphertexts)",
}


def _size_text(spec: CircuitSpec, engine: Engine) -> str:
    fresh, last = engine.ciphertext_bytes(level=0), engine.ciphertext_bytes(level=spec.parameters.depth)
    request = spec.features * fresh if spec.data_encrypted else spec.features * spec.parameters.slots * 8
    weights = f", encrypted weights {(spec.features + 1) * spec.outputs * fresh:,}" if spec.weights_encrypted else ""
    return f"bytes for up to {spec.parameters.slots} rows: request {request:,}, answer {spec.outputs * last:,}{weights}"
