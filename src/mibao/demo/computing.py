"""Step 4: the opened model asked on ciphertexts, in a process that stands for the compute host."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from mibao import he
from mibao.demo.model import LinearModel
from mibao.demo.outcome import Computed, Cost
from mibao.demo.surroundings import Surroundings
from mibao.events import Event
from mibao.he import files
from mibao.he.network import Dense, Node
from mibao.types import ComputeMode

ROLES = {
    ComputeMode.ENCRYPTED_DATA: he.Roles(data_owner="hospital", model_owner="vendor", compute_host="vendor"),
    ComputeMode.ENCRYPTED_BOTH: he.Roles(data_owner="hospital", model_owner="hospital", compute_host="cloud"),
}
_PROTECTION = {
    ComputeMode.ENCRYPTED_DATA: "Encrypted data",
    ComputeMode.ENCRYPTED_BOTH: "Encrypted data + weights",
}


def evaluate(
    around: Surroundings,
    model: LinearModel,
    features: Float64[ndarray, "rows features"],
    labels: Bool[ndarray, " rows"],
    *,
    input_bound: float,
    mode: ComputeMode,
) -> tuple[Computed, Cost, Event]:
    """Every row evaluated under encryption, beside the plaintext answer.

    What reaches the compute host lies in ``<mode>/host``; the key and everything in clear stay outside of it.
    ``input_bound`` is the largest magnitude of a scaled feature: public, like the scaling.
    """
    folder = around.folder / mode.value
    host_folder = folder / "host"
    host_folder.mkdir(parents=True)
    started = around.clock_s()
    layer = Dense(weights=model.weights[None, :], bias=np.array([model.bias]))
    bounds = np.full(features.shape[1], input_bound)
    network = he.Network(low=-bounds, high=bounds, nodes=(Node(layer=layer, inputs=(0,)),))
    circuit = he.compile_circuit(network, mode=mode, roles=ROLES[mode], rows=len(features))
    client, server = circuit.keygen()
    files.write_client_key(folder / files.CLIENT_KEY_NAME, client)
    bundle, server_keys = files.write_server(host_folder, server)
    request = client.encrypt(features)
    files.write_bytes(host_folder / "request", request)
    around.compute_host(bundle, server_keys, host_folder / "request", host_folder / "answer")
    answer = files.read_bytes(host_folder / "answer")
    logits = client.decrypt(answer)[:, 0]
    seconds = around.clock_s() - started

    plain_started = around.clock_s()
    expected = model.logits(features)
    plain_seconds = around.clock_s() - plain_started
    report = Computed(
        rows=len(features),
        agreement=float(np.mean((logits > 0) == (expected > 0))),
        max_error=float(np.max(np.abs(logits - expected))),
        seconds=seconds,
        who_could_read=tuple(he.who_could_read(mode, ROLES[mode])),
    )
    cost = Cost(
        protection=_PROTECTION[mode],
        plain_seconds=plain_seconds,
        protected_seconds=seconds,
        plain_bytes=features.nbytes + expected.nbytes,
        protected_bytes=len(request) + len(answer),
        plain_accuracy=float(np.mean((expected > 0) == labels)),
        protected_accuracy=float(np.mean((logits > 0) == labels)),
    )
    return report, cost, he.circuit_evaluated(circuit.spec, request=request, answer=answer)
