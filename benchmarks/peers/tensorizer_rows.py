"""tensorizer 2.12.1, encrypted (XSalsa20-Poly1305): ``seal SOURCE OUT`` or ``open SEALED``. Its key is fixed.

It signs nothing: authenticity ends at whoever holds the one symmetric key.
"""

import json
import sys
from collections.abc import Callable

import safetensors.torch
from cost import Cost, warm_memory
from tensorizer import DecryptionParams, EncryptionParams, TensorDeserializer, TensorSerializer

KEY = bytes(range(32))


def seal(source: str, out: str) -> dict[str, float]:
    """What it costs to write the tensors of ``source``, already in memory, to an encrypted file."""
    tensors = {name: tensor.clone() for name, tensor in safetensors.torch.load_file(source).items()}
    warm_memory()
    cost = Cost()
    serializer = TensorSerializer(out, encryption=EncryptionParams(key=KEY))
    serializer.write_state_dict(tensors)
    serializer.close()
    figures: dict[str, float] = cost.figures()
    return figures


def open_sealed(path: str) -> dict[str, float]:
    """What it costs until every tensor stands in owned memory."""
    warm_memory()
    cost = Cost()
    with TensorDeserializer(path, device="cpu", encryption=DecryptionParams.from_key(KEY)) as tensors:
        size = sum(tensor.nbytes for tensor in tensors.values())
        return {**cost.figures(), "bytes": size}


if __name__ == "__main__":
    action, *paths = sys.argv[1:]
    actions: dict[str, Callable[..., dict[str, float]]] = {"seal": seal, "open": open_sealed}
    print(json.dumps(actions[action](*paths)))
