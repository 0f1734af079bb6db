"""Computing on ciphertexts: ask a model without showing the question, or the model.

>>> circuit = he.compile(model, calibration=records, roles=roles)
>>> client, server = circuit.keygen()
>>> answers = client.decrypt(server.evaluate(client.encrypt(records)))

Importing this package does not import the library underneath; the first key or request does.
"""

from mibao.he.circuit import Circuit, compile_circuit
from mibao.he.client import Client, generate_client
from mibao.he.forest_circuit import ForestCircuit
from mibao.he.model_circuit import compile_model as compile  # noqa: A004 - he.compile, as torch.compile
from mibao.he.model_circuit import translate
from mibao.he.network import Network
from mibao.he.parameters import Parameters
from mibao.he.predictor import Predictor
from mibao.he.public_key import PublicKey
from mibao.he.release_terms import Release
from mibao.he.roles import Roles, key_holder, who_could_read
from mibao.he.server import Server, circuit_evaluated, request_in_clear
from mibao.he.spec import CircuitSpec
from mibao.types import ComputeMode

__all__ = [
    "Circuit",
    "CircuitSpec",
    "Client",
    "ComputeMode",
    "ForestCircuit",
    "Network",
    "Parameters",
    "Predictor",
    "PublicKey",
    "Release",
    "Roles",
    "Server",
    "circuit_evaluated",
    "compile",
    "compile_circuit",
    "generate_client",
    "key_holder",
    "request_in_clear",
    "translate",
    "who_could_read",
]
