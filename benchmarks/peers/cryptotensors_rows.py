"""cryptotensors 0.2.3, AES-256-GCM and Ed25519: ``seal SOURCE OUT``, ``open SEALED``, ``rewrap SEALED``.

``plain SOURCE`` is safetensors itself with a copy of every tensor, in the same environment. The keys are fixed: this
measures time, and a benchmark's file protects nothing.
"""

import base64
import json
import sys
from collections.abc import Callable

import cryptotensors
import safetensors.torch
from cost import Cost, warm_memory
from cryptotensors.torch import load_file, save_file

# RFC 8032, section 7.1, TEST 1: a published key pair.
_SECRET = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"  # noqa: S105
_PUBLIC = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


def _text(key: bytes) -> str:
    return base64.b64encode(key).decode()


ENCRYPTION = {"kty": "oct", "alg": "aes256gcm", "kid": "bench", "k": _text(bytes(range(32)))}
VERIFICATION = {"kty": "okp", "alg": "ed25519", "kid": "signer", "x": _text(bytes.fromhex(_PUBLIC))}
SIGNING = {**VERIFICATION, "d": _text(bytes.fromhex(_SECRET))}
_LOCKED = {"enc_key": ENCRYPTION, "sign_key": SIGNING}


def seal(source: str, out: str) -> dict[str, float]:
    """What it costs to write the tensors of ``source``, already in memory, to a sealed file."""
    tensors = {name: tensor.clone() for name, tensor in safetensors.torch.load_file(source).items()}
    warm_memory()
    cost = Cost()
    save_file(tensors, out, config=_LOCKED)
    figures: dict[str, float] = cost.figures()
    return figures


def open_sealed(path: str) -> dict[str, float]:
    """What it costs until every tensor stands in owned memory and the signature is checked."""
    cryptotensors.register_direct_key_provider(keys=[ENCRYPTION, VERIFICATION])
    warm_memory()
    cost = Cost()
    tensors = load_file(path)
    return {**cost.figures(), "bytes": sum(tensor.nbytes for tensor in tensors.values())}


def rewrap(path: str) -> dict[str, float]:
    """What it costs to wrap the file's keys anew, under the same key."""
    cryptotensors.register_direct_key_provider(keys=[ENCRYPTION, VERIFICATION])
    cost = Cost()
    cryptotensors.rewrap_file(path, _LOCKED)
    figures: dict[str, float] = cost.figures()
    return figures


def plain(path: str) -> dict[str, float]:
    """What plaintext costs: safetensors, and a copy of every tensor, as its own memory map is not owned memory."""
    warm_memory()
    cost = Cost()
    tensors = {name: tensor.clone() for name, tensor in safetensors.torch.load_file(path).items()}
    return {**cost.figures(), "bytes": sum(tensor.nbytes for tensor in tensors.values())}


if __name__ == "__main__":
    action, *paths = sys.argv[1:]
    actions: dict[str, Callable[..., dict[str, float]]] = {
        "seal": seal,
        "open": open_sealed,
        "rewrap": rewrap,
        "plain": plain,
    }
    print(json.dumps(actions[action](*paths)))
