"""A compiled forest: what its owner holds, what every party may know, and the keys made for it."""

from __future__ import annotations

from typing import Any

from mibao.codec.canonical import Value
from mibao.crypto.rng import random_id
from mibao.errors import InputError, IntegrityError
from mibao.he import envelope
from mibao.he.envelope import Envelope, Kind
from mibao.he.forest_codec import knots_body, read_knots, read_trees, trees_body, trees_value
from mibao.he.forest_spec import ForestSpec, features_of, forest_spec, spec_from
from mibao.he.forests import Forest
from mibao.he.models import records_of
from mibao.he.parameters import MAX_MODULUS_BITS, SECURITY_BITS
from mibao.he.roles import Roles, who_could_read
from mibao.he.tree_messages import TreeClient, TreeServer, generate_tree_client
from mibao.he.trees import DEFAULT_AGREEMENT, TreeCircuit, compile_trees
from mibao.types import ComputeMode, RandomId


class ForestCircuit:
    """Compiled trees; with them for who owns them, without for everyone else. As :class:`mibao.he.Circuit`."""

    __slots__ = ("_spec", "_trees")

    def __init__(self, *, spec: ForestSpec, trees: TreeCircuit | None) -> None:
        self._spec, self._trees = spec, trees

    @property
    def spec(self) -> ForestSpec:
        """What every party may know."""
        return self._spec

    @property
    def trees(self) -> TreeCircuit | None:
        """The trees; none in the circuit without them."""
        return self._trees

    def generate_client(self, *, account: str | None = None) -> TreeClient:
        """A fresh key. Raises ``MissingExtra`` when seal-python is not installed."""
        return generate_tree_client(self._spec, account=account)

    def keygen(self, *, account: str | None = None) -> tuple[TreeClient, TreeServer]:
        """A fresh key: the client keeps the secret, the server computes and cannot decrypt.

        Raises:
            InputError: the trees are not here, or the account is no name.
            MissingExtra: seal-python is not installed.
        """
        if self._trees is None:
            raise InputError("circuit: a server takes the trees, and this is the circuit without them")
        client = self.generate_client(account=account)
        return client, server_of(bundle=self.to_bytes(), keys=client.server_keys(), account=account)

    def public(self) -> ForestCircuit:
        """The same circuit without its trees: what a model owner gives to a data owner."""
        return ForestCircuit(spec=self._spec, trees=None)

    def to_bytes(self) -> bytes:
        """The circuit as a file; with its trees they stand in it **in clear**."""
        header: dict[str, Value] = {"spec": self._spec.to_value()}
        body = knots_body(self._spec)
        if self._trees is None:
            return envelope.encode(Envelope(kind=Kind.FOREST, header=header, body=body))
        header["trees"] = trees_value(self._trees)
        body += trees_body(self._trees)
        return envelope.encode(Envelope(kind=Kind.FOREST_BUNDLE, header=header, body=body))

    @classmethod
    def from_bytes(cls, data: bytes) -> ForestCircuit:
        """The circuit that :meth:`to_bytes` wrote.

        Raises:
            InputError: not a forest's circuit.
            IntegrityError: the bytes were altered or truncated.
        """
        return opened_forest(envelope.decode(data, Kind.FOREST, Kind.FOREST_BUNDLE))

    def explain(self) -> list[str]:
        """Lines for people: mode, who could read what, the trees, parameters, keys and sizes."""
        spec, parameters = self._spec, self._spec.parameters
        primes = " + ".join(str(bits) for bits in parameters.modulus_bits)
        rows = spec.batch_rows
        return [
            "mode: encrypted-data (records as ciphertexts, trees in clear at the host)",
            *who_could_read(spec.mode, spec.roles),
            "the compute host also sees the number of rows, the width, these parameters and when it is asked; it could "
            "return any answer",
            f"input: {spec.features} features, mapped by the client to ranks among the calibration records, whose "
            f"quantiles are public; output: {spec.outputs} columns, then {spec.head.value}",
            *([] if self._trees is None else self._trees.explain()[:-1]),
            f"layout: one ciphertext a feature, {rows} rows each",
            f"ring {parameters.ring_degree}, modulus {primes} bits, depth {parameters.depth}; {SECURITY_BITS}-bit "
            f"security allows {MAX_MODULUS_BITS[parameters.ring_degree]}",
            f"bytes for up to {rows} rows: request {spec.request_bytes(rows):,}, answer {spec.answer_bytes(rows):,}",
        ]


def opened_forest(opened: Envelope) -> ForestCircuit:
    """The circuit in an envelope of its kind. Raises ``IntegrityError`` when it is malformed."""
    whole = opened.kind is Kind.FOREST_BUNDLE
    envelope.check_fields(opened, *(("spec", "trees") if whole else ("spec",)))
    value = opened.header["spec"]
    knots, rest = read_knots(opened.body, features=features_of(value))
    spec = spec_from(value, knots=knots)
    if not whole:
        if len(rest):
            raise IntegrityError("circuit: expected nothing behind the map")
        return ForestCircuit(spec=spec, trees=None)
    return ForestCircuit(spec=spec, trees=read_trees(opened.header["trees"], rest, spec))


def server_of(*, bundle: bytes, keys: bytes, account: str | None = None) -> TreeServer:
    """A host from its two files, for the account that asks.

    Raises:
        InputError: one of them is another kind of file.
        IntegrityError: one of them was altered or truncated.
        KeyMismatch: the keys are of another circuit, or of another account than ``account``.
        MissingExtra: seal-python is not installed.
    """
    opened = envelope.decode(bundle, Kind.FOREST_BUNDLE)
    circuit = opened_forest(opened)
    if circuit.trees is None:
        raise InputError("bundle: expected the circuit with its trees")
    return TreeServer(circuit.trees, spec=circuit.spec, bundle=bundle, keys=keys, account=account)


def compile_forest(
    forest: Forest,
    *,
    calibration: Any,
    roles: Roles,
    mode: ComputeMode = ComputeMode.ENCRYPTED_DATA,
    agreement: float = DEFAULT_AGREEMENT,
    circuit_id: RandomId | None = None,
) -> ForestCircuit:
    """Trees as a circuit: many rows at once, one ciphertext a feature.

    Raises:
        InputError: another mode, roles that do not suit, or as :func:`mibao.he.trees.compile_trees`.
    """
    if mode is not ComputeMode.ENCRYPTED_DATA:
        raise InputError(
            f"trees: expected {ComputeMode.ENCRYPTED_DATA.value}, got {mode.value}; trees stay in clear at their owner"
        )
    made = compile_trees(forest, records_of(calibration), agreement=agreement)
    return ForestCircuit(spec=forest_spec(made, circuit_id=circuit_id or random_id(), roles=roles), trees=made)
