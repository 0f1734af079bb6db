"""A circuit in words: who could read what, what it computes and how, what it costs, how exact it is."""

from __future__ import annotations

from mibao.he.parameters import MAX_MODULUS_BITS, SECURITY_BITS
from mibao.he.program import Fold, Program, Rotate, Square, Weigh
from mibao.he.roles import who_could_read
from mibao.he.spec import CircuitSpec
from mibao.types import ComputeMode

_MODE_TEXT = {
    ComputeMode.ENCRYPTED_DATA: "encrypted-data (records as ciphertexts, weights in clear at the host)",
    ComputeMode.ENCRYPTED_WEIGHTS: "encrypted-weights (weights, biases as ciphertexts, records in clear at the host)",
    ComputeMode.ENCRYPTED_BOTH: "encrypted-both (records, weights and biases as ciphertexts)",
}
_PUBLICLY_TEXT = ", the weights under the data owner's public key"


def explain(spec: CircuitSpec, program: Program | None) -> list[str]:
    """Lines for people; those about layers only where the program is at hand."""
    parameters = spec.parameters
    primes = " + ".join(str(bits) for bits in parameters.modulus_bits)
    return [
        f"mode: {_MODE_TEXT[spec.mode]}{_PUBLICLY_TEXT if spec.weights_publicly else ''}",
        *who_could_read(spec.mode, spec.roles),
        "the compute host also sees the number of rows, the width, the layers' shapes, these parameters and when it is "
        "asked; it could return any answer",
        f"input: {spec.features} features, from {spec.low.min():g} to {spec.high.max():g}; "
        f"output: {spec.outputs} columns, then {spec.head.value}",
        *([] if program is None else [_layers_text(program)]),
        _layout_text(spec),
        f"ring {parameters.ring_degree}, modulus {primes} bits, depth {parameters.depth}, data at the scale "
        f"2^{parameters.scale_bits}; {SECURITY_BITS}-bit security allows {MAX_MODULUS_BITS[parameters.ring_degree]}",
        _keys_text(spec),
        _size_text(spec),
        _release_text(spec),
        f"expected time at the host: {spec.predicted_ms:.1f} ms of one core a request of {spec.request.rows} rows",
        f"expected error of an answer, before its head: under {spec.predicted_error:.1e}",
    ]


def _layers_text(program: Program) -> str:
    parts = []
    for instruction in program.instructions:
        if isinstance(instruction, Weigh):
            terms = instruction.weights.shape[0] * instruction.weights.shape[1]
            parts.append("matrix" if instruction.weights.ndim == 2 else f"matrix ({terms} slot-wise products)")
        elif isinstance(instruction, Square):
            parts.append("square")
        elif isinstance(instruction, Rotate | Fold):
            steps = sum(step != 0 for step in instruction.steps)
            parts.append(f"{steps} rotations")
    return "layers: " + ", ".join(parts)


def _layout_text(spec: CircuitSpec) -> str:
    rows, count = spec.request.rows, spec.request.count
    if rows == spec.parameters.slots and count == spec.features:
        return f"layout: one ciphertext a feature, {rows} rows each"
    shared = "one row" if rows == 1 else f"{rows} rows interleaved"
    return f"layout: {shared} in {count} ciphertext{'s' if count > 1 else ''} of {spec.parameters.slots} slots"


def _keys_text(spec: CircuitSpec) -> str:
    primes = len(spec.parameters.data_primes)
    each = 2 * primes * (primes + 1) * spec.parameters.ring_degree * 8
    number = len(spec.rotations) + int(spec.relinearizes)
    relinearization = ", one for products" if spec.relinearizes else ""
    return f"evaluation keys: {len(spec.rotations)} for rotations{relinearization}; about {number * each:,} bytes"


def _release_text(spec: CircuitSpec) -> str:
    if spec.release is None:
        return "answers: for the key holder only, never to be shared; those of a circuit compiled for release may be"
    asked = spec.release.release
    return (
        f"answers: up to {asked.answers_limit:,} ciphertexts of a key may be released, at {asked.statistical_bits} "
        "statistical bits; plain ones are never to be shared"
    )


def _size_text(spec: CircuitSpec) -> str:
    rows = spec.request.rows
    return f"bytes for up to {rows} rows: request {spec.request_bytes(rows):,}, answer {spec.answer_bytes(rows):,}"
