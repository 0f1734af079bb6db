"""Circuits, records and weights that the tests of this folder share."""

import numpy as np

from mibao import he
from mibao.he import envelope
from mibao.types import ComputeMode, RandomId

DATA, WEIGHTS, BOTH = ComputeMode.ENCRYPTED_DATA, ComputeMode.ENCRYPTED_WEIGHTS, ComputeMode.ENCRYPTED_BOTH
ROLES = {
    DATA: he.Roles(data_owner="patient", model_owner="hospital", compute_host="hospital"),
    WEIGHTS: he.Roles(data_owner="bank", model_owner="vendor", compute_host="bank"),
    BOTH: he.Roles(data_owner="lab", model_owner="lab", compute_host="cloud"),
}


def circuit(mode=DATA, *, features=4, outputs=2, bound=4.0, seed=0, number=1, **options):
    weights, bias = weights_of(features=features, outputs=outputs, seed=seed)
    return he.compile_linear(
        weights,
        bias,
        mode=mode,
        roles=ROLES[mode],
        input_bound=bound,
        circuit_id=RandomId(bytes([number]) * 16),
        **options,
    )


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
