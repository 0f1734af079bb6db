"""Computing on ciphertexts: ask a model without showing the question, or the model.

>>> circuit = he.compile_linear(weights, bias, mode=mode, roles=roles, input_bound=8.0, circuit_id=random_id())
>>> client, server = circuit.keygen()
>>> logits = client.decrypt(server.evaluate(client.encrypt(records)))

Importing this package does not import the library underneath; the first key or request does.
"""

from mibao.he.client import Client, generate_client
from mibao.he.linear import LinearCircuit, compile_linear
from mibao.he.parameters import Parameters
from mibao.he.roles import Roles, key_holder, who_could_read
from mibao.he.server import Server, circuit_evaluated, request_in_clear
from mibao.he.spec import CircuitSpec
from mibao.types import ComputeMode

__all__ = [
    "CircuitSpec",
    "Client",
    "ComputeMode",
    "LinearCircuit",
    "Parameters",
    "Roles",
    "Server",
    "circuit_evaluated",
    "compile_linear",
    "generate_client",
    "key_holder",
    "request_in_clear",
    "who_could_read",
]
