"""Circuits, records and weights that the tests of this folder share."""

import numpy as np

from mibao import he
from mibao.he import envelope
from mibao.he.network import Dense, Node
from mibao.types import ComputeMode, RandomId

DATA, WEIGHTS, BOTH = ComputeMode.ENCRYPTED_DATA, ComputeMode.ENCRYPTED_WEIGHTS, ComputeMode.ENCRYPTED_BOTH
ROLES = {
    DATA: he.Roles(data_owner="patient", model_owner="hospital", compute_host="hospital"),
    WEIGHTS: he.Roles(data_owner="bank", model_owner="vendor", compute_host="bank"),
    BOTH: he.Roles(data_owner="lab", model_owner="lab", compute_host="cloud"),
}
MANY = 1024  # rows: one ciphertext a feature


def circuit(mode=DATA, *, features=4, outputs=2, bound=4.0, seed=0, number=1, rows=MANY, **options):
    weights, bias = weights_of(features=features, outputs=outputs, seed=seed)
    return linear_circuit(weights, bias, mode=mode, bound=bound, number=number, rows=rows, **options)


def linear_circuit(weights, bias, *, mode=DATA, bound=4.0, number=1, rows=MANY, roles=None, **options):
    return he.compile_circuit(
        network_of(Dense(weights=weights.T, bias=bias), bound=bound),
        mode=mode,
        roles=roles or ROLES[mode],
        circuit_id=RandomId(bytes([number]) * 16),
        rows=rows,
        **options,
    )


def network_of(*layers, features=None, bound=4.0, **fields):
    """Layers one behind the other, on records within ``bound``."""
    bounds = np.full(layers[0].weights.shape[1] if features is None else features, bound)
    nodes = tuple(Node(layer=layer, inputs=(index,)) for index, layer in enumerate(layers))
    return he.Network(low=-bounds, high=bounds, nodes=nodes, **fields)


def weights_of(*, features=4, outputs=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(features, outputs)), rng.normal(size=outputs)


def records_of(*, rows=3, features=4, bound=4.0, seed=1):
    return np.random.default_rng(seed).uniform(-bound, bound, size=(rows, features))


def request(spec, client, records):
    return client.encrypt(records) if spec.data_encrypted else he.request_in_clear(spec, records)


def reframed(data, kind, *, header=None, body=None):
    """The same message with a part replaced and its digest made to match: what only a dishonest sender would do."""
    opened = envelope.decode(data, kind)
    changed = envelope.Envelope(
        kind=kind,
        header=opened.header if header is None else header(dict(opened.header)),
        body=bytes(opened.body) if body is None else body(bytes(opened.body)),
    )
    return envelope.encode(changed)
