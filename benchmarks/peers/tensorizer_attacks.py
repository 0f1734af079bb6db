"""What tensorizer 2.12.1, encrypted, makes of each attack: one JSON object, attack to "refused" or "ACCEPTED ...".

It has no signatures: what only a signature can refuse is accepted by design, and left out here where it has no meaning.
"""

import json
import resource
import tempfile
from pathlib import Path
from typing import Any

import torch
from tensorizer import DecryptionParams, EncryptionParams, TensorDeserializer, TensorSerializer
from tensorizer_rows import KEY

FOLDER = Path(tempfile.mkdtemp())
HEADER_BEFORE_NAME = 13
SHAPE = b"<f4\x02\x08\0\0\0\x08\0\0\0"
ANSWERS = {True: "ACCEPTED", False: "refused"}
Tensors = dict[str, Any]


def tensors(fill: float) -> Tensors:
    """Two tensors of one shape."""
    return {name: torch.full((8, 8), float(fill + at)) for at, name in enumerate(("layer.a", "layer.b"))}


def sealed(content: Tensors, *, encrypted: bool = True) -> bytes:
    """The file that the vendor makes."""
    path = FOLDER / "seal.tensors"
    serializer = TensorSerializer(str(path), encryption=EncryptionParams(key=KEY) if encrypted else None)
    serializer.write_state_dict(content)
    serializer.close()
    return path.read_bytes()


def accepts(data: bytes) -> bool:
    """Whether it loads, every tensor with it."""
    path = FOLDER / "attack.tensors"
    path.write_bytes(data)
    try:
        with TensorDeserializer(str(path), device="cpu", encryption=DecryptionParams.from_key(KEY)) as found:
            for tensor in found.values():
                tensor.sum()
            return len(list(found.keys())) > 0
    except BaseException:  # noqa: BLE001  any refusal counts, whatever it is
        return False


def tensor_at(data: bytes, name: bytes) -> int:
    """Where the tensor's own header begins: behind the table that names it first."""
    return data.rindex(name) - HEADER_BEFORE_NAME


def swapped_names(data: bytes) -> bytes:
    """Each tensor under the other's name, in the table and in its own header."""
    return data.replace(b"layer.a", b"layer.x").replace(b"layer.b", b"layer.a").replace(b"layer.x", b"layer.b")


def splice(new: bytes, old: bytes) -> bytes:
    """One tensor from an older file, with its header."""
    begin, end = tensor_at(new, b"layer.a"), tensor_at(new, b"layer.b")
    return new[:begin] + old[begin:end] + new[end:]


def flips(data: bytes) -> str:
    """One bit of each byte in turn, the zeros reserved for metadata left out."""
    body = tensor_at(data, b"layer.a") - 8
    places = [*range(data.index(b"layer.b") + 64), *range(body, len(data))]
    taken = sum(accepts(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]) for at in places)
    return f"ACCEPTED at {taken} of {len(places)} bytes" if taken else "refused"


def main() -> dict[str, str]:
    """Every attack's answer."""
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    new, old = sealed(tensors(1)), sealed(tensors(5))
    if not accepts(new):
        raise SystemExit("the genuine file does not load")
    edits = {
        "swapped_tensors": swapped_names(new),
        "renamed": new.replace(b"layer.a", b"layer.z"),
        "reshaped": new.replace(SHAPE, b"<f4\x02\x04\0\0\0\x10\0\0\0"),
        "retyped": new.replace(b"<f4", b"<i4"),
        "spliced": splice(new, old),
        "absurd_sizes": new.replace(SHAPE, b"<f4\x02" + b"\xff\xff\xff\x7f" * 2),
    }
    if new in edits.values():
        raise SystemExit("an attack changed nothing")
    taken = {
        "truncated": accepts(new[:-1]),
        "extended": accepts(new + b"\0"),
        "older": accepts(old),
        "mixed_shards": accepts(new) and accepts(old),
        "plaintext": accepts(sealed(tensors(9), encrypted=False)),
        "forged": accepts(sealed(tensors(9))),  # who can read can write: there is one key
    } | {name: accepts(data) for name, data in edits.items()}
    return {"bit_flips": flips(new)} | {name: ANSWERS[each] for name, each in taken.items()}


if __name__ == "__main__":
    print(json.dumps(main()))
