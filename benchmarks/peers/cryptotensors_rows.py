"""cryptotensors 0.2.3, encrypted (AES-256-GCM) and signed (Ed25519): ``seal SOURCE OUT`` or ``open SEALED``.

The keys are fixed: this measures time, and a benchmark's file protects nothing.
"""

import base64
import json
import sys
import time

import cryptotensors
import numpy as np
from cryptotensors.numpy import load_file, save_file
from safetensors.numpy import load_file as load_plain

# RFC 8032, section 7.1, TEST 1: a published key pair.
_SECRET = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"  # noqa: S105
_PUBLIC = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


def _text(key: bytes) -> str:
    return base64.b64encode(key).decode()


_ENCRYPTION = {"kty": "oct", "alg": "aes256gcm", "kid": "bench", "k": _text(bytes(range(32)))}
_VERIFICATION = {"kty": "okp", "alg": "ed25519", "kid": "signer", "x": _text(bytes.fromhex(_PUBLIC))}
_SIGNING = {**_VERIFICATION, "d": _text(bytes.fromhex(_SECRET))}


def seal(source: str, out: str) -> dict[str, float]:
    """Seconds to write the tensors of ``source``, already in memory, to a sealed file."""
    tensors = {name: np.array(tensor) for name, tensor in load_plain(source).items()}
    started = time.perf_counter()
    save_file(tensors, out, config={"enc_key": _ENCRYPTION, "sign_key": _SIGNING})
    return {"seconds": time.perf_counter() - started}


def open_sealed(path: str) -> dict[str, float]:
    """Seconds until every tensor stands in owned memory and the signature is checked."""
    cryptotensors.register_direct_key_provider(keys=[_ENCRYPTION, _VERIFICATION])
    started = time.perf_counter()
    tensors = load_file(path)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "bytes": sum(tensor.nbytes for tensor in tensors.values())}


if __name__ == "__main__":
    action, *paths = sys.argv[1:]
    print(json.dumps(seal(*paths) if action == "seal" else open_sealed(*paths)))
