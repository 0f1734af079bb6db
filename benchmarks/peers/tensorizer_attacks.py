"""What tensorizer 2.12.1, encrypted, makes of each attack: one JSON object, attack to what came of it (``outcomes``).

It has no signatures: what only a signature can refuse is accepted by design, and left out here where it has no meaning.
"""

import json
import resource
import tempfile
from pathlib import Path
from typing import Any

import torch
from outcomes import outcome, over_flips
from tensorizer import DecryptionParams, EncryptionParams, TensorDeserializer, TensorSerializer
from tensorizer.serialization import CryptographyError
from tensorizer_rows import KEY

FOLDER = Path(tempfile.mkdtemp())
HEADER_BEFORE_NAME = 13
SHAPE = b"<f4\x02\x08\0\0\0\x08\0\0\0"
OWN = (CryptographyError,)  # what it raises where decryption or authentication fails; parsers raise whatever they meet
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


def load(data: bytes) -> dict[str, Any]:
    """Its tensors, each of them loaded."""
    path = FOLDER / "attack.tensors"
    path.write_bytes(data)
    with TensorDeserializer(str(path), device="cpu", encryption=DecryptionParams.from_key(KEY)) as found:
        return {name: tensor.clone() for name, tensor in found.items()}


def tried(*files: bytes) -> str:
    """What comes of loading each of these files."""
    found: str = outcome(lambda: [load(data) for data in files], own=OWN)
    return found


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


def swap_blocks(data: bytes) -> bytes:
    """Two stretches of one tensor's ciphertext change places; it is the last part of the file."""
    return data[:-128] + data[-64:] + data[-128:-64]


def flips(data: bytes) -> str:
    """One bit of each byte in turn, the zeros reserved for metadata left out."""
    genuine = load(data)

    def same(found: Any) -> bool:
        return found.keys() == genuine.keys() and all(
            found[name].dtype == each.dtype and torch.equal(found[name], each) for name, each in genuine.items()
        )

    body = tensor_at(data, b"layer.a") - 8
    places = [*range(data.index(b"layer.b") + 64), *range(body, len(data))]
    found: str = over_flips(data, places, load, own=OWN, same=same)
    return found


def mixed_shards() -> str:
    """A checkpoint of two files, one of each version. There is no loader of checkpoints: each file is loaded alone."""
    one, two = ({name: tensors(fill)[name]} for name, fill in (("layer.a", 1), ("layer.b", 5)))
    return tried(sealed(one), sealed(two))


def main() -> dict[str, str]:
    """Every attack's answer."""
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    new, old = sealed(tensors(1)), sealed(tensors(5))
    edits = {
        "swapped_tensors": swapped_names(new),
        "swapped_chunks": swap_blocks(new),
        "renamed": new.replace(b"layer.a", b"layer.z"),
        "reshaped": new.replace(SHAPE, b"<f4\x02\x04\0\0\0\x10\0\0\0"),
        "retyped": new.replace(b"<f4", b"<i4"),
        "spliced": splice(new, old),
        "absurd_sizes": new.replace(SHAPE, b"<f4\x02" + b"\xff\xff\xff\x7f" * 2),
    }
    if new in edits.values():
        raise SystemExit("an attack changed nothing")
    return {
        "bit_flips": flips(new),
        "truncated": tried(new[:-1]),
        "extended": tried(new + b"\0"),
        "older": tried(old),
        "mixed_shards": mixed_shards(),
        "plaintext": tried(sealed(tensors(9), encrypted=False)),
        "forged": tried(sealed(tensors(9))),  # who can read can write: there is one key
    } | {name: tried(data) for name, data in edits.items()}


if __name__ == "__main__":
    print(json.dumps(main()))
