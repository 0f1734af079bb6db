"""A compiled model: what its owner holds, what every party may know, and the keys made for it."""

from __future__ import annotations

from mibao.codec.canonical import Value
from mibao.crypto.rng import random_id
from mibao.errors import InputError, IntegrityError, KeyMismatch
from mibao.he import envelope, program_codec
from mibao.he.client import Client, generate_client
from mibao.he.compiler import compile_network
from mibao.he.envelope import Envelope, Kind
from mibao.he.explanation import explain
from mibao.he.network import Network
from mibao.he.normalise import normalise
from mibao.he.program import Program
from mibao.he.public_key import PublicKey
from mibao.he.release_terms import Release
from mibao.he.roles import Roles, check_roles, has_two_owners
from mibao.he.scheduling import schedule
from mibao.he.server import Server, program_of
from mibao.he.spec import CircuitSpec
from mibao.types import ComputeMode, RandomId

DEFAULT_MAX_ERROR = 1e-3


class Circuit:
    """A compiled model; with its weights for who owns them, without for everyone else."""

    __slots__ = ("_program", "_spec")

    def __init__(self, *, spec: CircuitSpec, program: Program | None) -> None:
        self._spec = spec
        self._program = program

    @property
    def spec(self) -> CircuitSpec:
        """What every party may know."""
        return self._spec

    @property
    def program(self) -> Program | None:
        """The instructions with their weights; none in the circuit without them."""
        return self._program

    def generate_client(self, *, account: str | None = None) -> Client:
        """A fresh key, for who has only :meth:`public`. Raises as :func:`mibao.he.generate_client`."""
        return generate_client(self._spec, account=account)

    def keygen(self, *, account: str | None = None) -> tuple[Client, Server]:
        """A fresh key: the client keeps the secret, the server computes and cannot decrypt.

        A data owner who has only :meth:`public` uses :meth:`generate_client` and sends ``client.server_keys()``.

        Raises:
            InputError: the weights are not here, or the account is no name.
            MissingExtra: seal-python is not installed.
        """
        if self._program is None:
            raise InputError("circuit: a server takes the weights, and this is the circuit without them")
        client = self.generate_client(account=account)
        bundle = self.to_bytes()
        if self._spec.weights_publicly:
            bundle = self.encrypt_weights(PublicKey.from_bytes(client.public_key(), spec=self._spec))
        elif self._spec.weights_encrypted:
            bundle = self.encrypt_weights(client)
        return client, Server.from_bytes(bundle=bundle, keys=client.server_keys(), account=account)

    def public(self) -> Circuit:
        """The same circuit without weights: what a model owner gives to a data owner."""
        return Circuit(spec=self._spec, program=None)

    def encrypt_weights(self, key: Client | PublicKey) -> bytes:
        """The bundle for the host, weights and biases encrypted.

        Args:
            key: The key holder's, who owns the weights; or where data and model have different owners, the data
                owner's public key.

        Raises:
            InputError: the weights are not here, the mode leaves them in clear, or it takes the other kind of key.
            KeyMismatch: the key is of another circuit.
        """
        if self._program is None:
            raise InputError("circuit: this is the circuit without its weights")
        if key.spec.circuit_id != self._spec.circuit_id:
            raise KeyMismatch("key: made for another circuit")
        return key.encrypt_weights(self._program)

    def to_bytes(self) -> bytes:
        """The circuit as a file. With weights they stand in it **in clear**: in the modes that encrypt weights it is
        the owner's alone, and the host's bundle is ``server.bundle_bytes()``.
        """
        header: dict[str, Value] = {"spec": self._spec.to_value()}
        if self._program is None:
            return envelope.encode(Envelope(kind=Kind.CIRCUIT, header=header, body=b""))
        header["program"] = program_codec.to_value(self._program)
        body = program_codec.to_body(self._program)
        return envelope.encode(Envelope(kind=Kind.CLEAR_BUNDLE, header=header, body=body))

    @classmethod
    def from_bytes(cls, data: bytes) -> Circuit:
        """The circuit that :meth:`to_bytes` wrote, or the public part of an encrypted bundle.

        Raises:
            InputError: not a circuit or bundle.
            IntegrityError: the bytes were altered or truncated.
        """
        opened = envelope.decode(data, Kind.CIRCUIT, Kind.CLEAR_BUNDLE, Kind.ENCRYPTED_BUNDLE)
        fields = {
            Kind.CIRCUIT: ("spec",),
            Kind.CLEAR_BUNDLE: ("spec", "program"),
            Kind.ENCRYPTED_BUNDLE: ("spec", "program", "key"),
        }
        envelope.check_fields(opened, *fields[opened.kind])
        spec = envelope.spec_of(opened)
        if opened.kind is Kind.CIRCUIT and opened.body:
            raise IntegrityError("circuit: expected no body")
        if opened.kind is not Kind.CLEAR_BUNDLE:
            return cls(spec=spec, program=None)
        program = program_of(spec, opened)
        schedule(spec, program)
        return cls(spec=spec, program=program)

    def explain(self) -> list[str]:
        """Lines for people: mode, who could read what, layers, parameters, keys, sizes, time and expected error."""
        return explain(self._spec, self._program)


def compile_circuit(
    network: Network,
    *,
    mode: ComputeMode,
    roles: Roles,
    rows: int = 1,
    max_error: float = DEFAULT_MAX_ERROR,
    release: Release | None = None,
    circuit_id: RandomId | None = None,
) -> Circuit:
    """The circuit that computes a network.

    Args:
        network: Layers, ranges and head; activations replaced by polynomials.
        mode: What is encrypted.
        roles: The three parties by name, all declared.
        rows: How many rows a request usually carries: the layout is chosen for them. Any number may be sent.
        max_error: Largest error an answer may have, before the head. The cheapest parameters that keep it are chosen.
        release: Where answers are to be handed on: how many, and how little they may tell of the key. The parameters
            then leave room for the noise that hides it, and ``max_error`` is that of released answers.
        circuit_id: Binds keys, requests and answers to this circuit; drawn afresh unless given.

    Raises:
        InputError: roles or layers do not suit, or no parameters keep ``max_error``.
    """
    check_roles(mode, roles)
    if not 0 < max_error < float("inf") or rows < 1:
        raise InputError("circuit: expected a positive, finite max_error and at least one row")
    compiled = compile_network(
        normalise(network),
        mode=mode,
        rows=rows,
        max_error=max_error,
        release=release,
        weights_publicly=has_two_owners(mode, roles),
    )
    spec = CircuitSpec(
        circuit_id=circuit_id or random_id(),
        mode=mode,
        roles=roles,
        low=network.low,
        high=network.high,
        input_shape=network.input_shape,
        head=network.head,
        flat=network.flat,
        classes=network.classes,
        request=compiled.program.request,
        answer=compiled.program.answer,
        parameters=compiled.parameters,
        answer_scale=compiled.answer_scale,
        rotations=compiled.program.rotations(),
        relinearizes=compiled.program.relinearizes(),
        predicted_error=compiled.predicted_error,
        predicted_ms=compiled.predicted_ms,
        release=compiled.release,
    )
    return Circuit(spec=spec, program=compiled.program)
