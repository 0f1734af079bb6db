"""The bundle for a host that is not to read the weights: each constant of the program a ciphertext."""

from __future__ import annotations

from collections.abc import Callable

from mibao.codec.canonical import Value
from mibao.errors import InputError
from mibao.he import envelope
from mibao.he.engine import Ciphertext, Engine, Plaintext
from mibao.he.envelope import Envelope, Kind
from mibao.he.execution import encoded_constants
from mibao.he.program import Constant, Program
from mibao.he.program_codec import to_value
from mibao.he.scheduling import schedule
from mibao.he.spec import CircuitSpec
from mibao.types import RandomId

_ROOM = envelope.MAX_BYTES[Kind.ENCRYPTED_BUNDLE] - 2 * envelope.MAX_HEADER_BYTES


def encrypted_bundle(
    spec: CircuitSpec,
    program: Program,
    *,
    key_id: RandomId,
    engine: Engine,
    encrypt: Callable[[Plaintext], Ciphertext],
) -> bytes:
    """A bundle with every constant of ``program``, biases included, through ``encrypt``.

    Args:
        spec: The circuit; its program's shapes, and nothing of its weights, stand beside the ciphertexts.
        program: With its weights.
        key_id: The name of the key that decrypts them.
        engine: The library.
        encrypt: Under that key, or under its public one.

    Raises:
        InputError: the mode leaves weights in clear, or the bundle would exceed 1 GiB.
    """
    if not spec.weights_encrypted:
        raise InputError(f"{spec.mode.value}: weights stay in clear at the host")
    standing = schedule(spec, program)
    stored: list[bytes] = []
    for index, instruction in enumerate(program.instructions):
        if isinstance(instruction, Constant):
            level = standing.registers[instruction.source].level
            scale = standing.constants[index]
            encoded = encoded_constants(instruction, engine=engine, scale=scale, level=level)
            stored += [engine.store_ciphertexts([encrypt(plaintext)]) for plaintext in encoded]
            if sum(map(len, stored)) > _ROOM:
                raise InputError("bundle: encrypted weights would exceed 1 GiB")
    header: dict[str, Value] = {"spec": spec.to_value(), "program": to_value(program), "key": key_id.value}
    return envelope.encode(Envelope(kind=Kind.ENCRYPTED_BUNDLE, header=header, body=b"".join(stored)))
