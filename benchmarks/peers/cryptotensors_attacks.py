"""What cryptotensors 0.2.3 makes of each attack: one JSON object, attack to what came of it (``outcomes``).

The reader is given the encryption key and the vendor's verification key, as its manual says.
"""

import base64
import json
import sys
import tempfile
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import cryptotensors
import safetensors.torch
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptotensors import SafetensorError
from cryptotensors.torch import load_file, save_file
from cryptotensors_rows import ENCRYPTION, SIGNING, VERIFICATION
from outcomes import ACCEPTED, outcome, over_flips

FOLDER = Path(tempfile.mkdtemp())
Header = dict[str, Any]
OWN = (SafetensorError,)  # the one error that it raises for whatever it checks


def tensors(fill: float) -> dict[str, Any]:
    """Two tensors of one shape."""
    return {name: torch.full((8, 8), float(fill + at)) for at, name in enumerate(("layer.a", "layer.b"))}


def sealed(content: dict[str, Any], **config: Any) -> bytes:
    """The file that the vendor seals."""
    path = FOLDER / "seal.cryptotensors"
    save_file(content, path, config={"enc_key": ENCRYPTION, "sign_key": SIGNING, **config})
    return path.read_bytes()


def load(data: bytes) -> dict[str, Any]:
    """Its tensors, as its manual loads them."""
    path = FOLDER / "attack.cryptotensors"
    path.write_bytes(data)
    found: dict[str, Any] = load_file(path)
    return found


def tried(*files: bytes) -> str:
    """What comes of loading each of these files."""
    found: str = outcome(lambda: [load(data) for data in files], own=OWN)
    return found


def split(data: bytes) -> tuple[Header, bytes]:
    """Header and data."""
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def joined(header: Header, body: bytes) -> bytes:
    """The inverse."""
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


def edited(data: bytes, edit: Callable[[Header], None]) -> bytes:
    """The file with another header."""
    header, body = split(data)
    edit(header)
    return joined(header, body)


def flips(data: bytes) -> str:
    """One bit of each byte in turn."""
    genuine = load(data)

    def same(found: Any) -> bool:
        return found.keys() == genuine.keys() and all(torch.equal(found[name], genuine[name]) for name in genuine)

    found: str = over_flips(data, range(len(data)), load, own=OWN, same=same)
    return found


def swap_tensors(header: Header) -> None:
    """Each name gets the other's place."""
    a, b = header["layer.a"], header["layer.b"]
    a["data_offsets"], b["data_offsets"] = b["data_offsets"], a["data_offsets"]


def swap_blocks(data: bytes) -> bytes:
    """Two stretches of one tensor's ciphertext change places."""
    header, body = split(data)
    begin = header["layer.a"]["data_offsets"][0]
    one, two = body[begin : begin + 64], body[begin + 64 : begin + 128]
    return joined(header, body[:begin] + two + one + body[begin + 128 :])


def rename(header: Header) -> None:
    """Another name, also where its key stands."""
    header["layer.z"] = header.pop("layer.a")
    keys = json.loads(header["__metadata__"]["__encryption__"])
    keys["layer.z"] = keys.pop("layer.a")
    header["__metadata__"]["__encryption__"] = json.dumps(keys)


def splice(new: bytes, old: bytes) -> bytes:
    """One tensor and its key from an older file."""
    (header, body), (old_header, old_body) = split(new), split(old)
    keys, old_keys = (json.loads(each["__metadata__"]["__encryption__"]) for each in (header, old_header))
    keys["layer.a"] = old_keys["layer.a"]
    header["__metadata__"]["__encryption__"] = json.dumps(keys)
    begin, end = header["layer.a"]["data_offsets"]
    return joined(header, body[:begin] + old_body[begin:end] + body[end:])


def block(key: bytes, data: bytes) -> bytes:
    """AES of one block."""
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(data)  # noqa: S305


def times(a: bytes, b: bytes) -> bytes:
    """The product in GCM's field."""
    x, y, total = int.from_bytes(a, "big"), int.from_bytes(b, "big"), 0
    for at in range(128):
        if x >> (127 - at) & 1:
            total ^= y
        y = (y >> 1) ^ (0xE1 << 120 if y & 1 else 0)
    return total.to_bytes(16, "big")


def forge(data: bytes) -> bytes:
    """Other weights under the same tag and signature, by someone who has the encryption key and no signing key."""
    header, body = split(data)
    facts = json.loads(header["__metadata__"]["__encryption__"])["layer.a"]
    wrapped, nonce = (base64.b64decode(facts[name]) for name in ("wrapped_key", "key_iv"))
    pad = b"".join(block(base64.b64decode(ENCRYPTION["k"]), nonce + at.to_bytes(4, "big")) for at in (2, 3))
    data_key = bytes(x ^ y for x, y in zip(wrapped, pad, strict=True))
    change = b"\x01" * 16
    both = change + times(change, block(data_key, bytes(16)))
    begin = header["layer.a"]["data_offsets"][0]
    forged = bytes(x ^ y for x, y in zip(body[begin : begin + 32], both, strict=True))
    return joined(header, body[:begin] + forged + body[begin + 32 :])


def rival_key(name: str) -> dict[str, str]:
    """Another signer's key."""
    key = Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32)
    public, secret = (
        base64.b64encode(part).decode() for part in (key.public_key().public_bytes_raw(), key.private_bytes_raw())
    )
    return {"kty": "okp", "alg": "ed25519", "kid": name, "x": public, "d": secret}


def named_by_the_file() -> str:
    """A rival's file that says where its verification key lies: on a server, or on the reader's own disk."""
    rival = rival_key("fetched")
    public = {name: value for name, value in rival.items() if name != "d"}
    answer = json.dumps({"keys": [public, ENCRYPTION]}).encode()

    class Keys(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Keys)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stored = FOLDER / "keys.json"
    stored.write_bytes(answer)
    urls = {"http": f"http://127.0.0.1:{server.server_port}/keys.json", "file": f"file://{stored}"}
    found = {kind: tried(sealed(tensors(9), sign_key={**rival, "jku": url})) for kind, url in urls.items()}
    taken = [kind for kind, answer in found.items() if answer == ACCEPTED]
    return f"{ACCEPTED} from {' and '.join(f'{kind}://' for kind in taken)}" if taken else found["http"]


def mixed_shards() -> str:
    """A checkpoint of two files, one of each version. There is no loader of checkpoints: each file is loaded alone."""
    one, two = ({name: tensors(fill)[name]} for name, fill in (("layer.a", 1), ("layer.b", 5)))
    return tried(sealed(one), sealed(two))


def plain_beside() -> str:
    """A tensor that was left out of the encryption, altered."""
    data = sealed(tensors(1), tensors=["layer.a"])
    header, body = split(data)
    begin, end = header["layer.b"]["data_offsets"]
    return tried(joined(header, body[:begin] + bytes(end - begin) + body[end:]))


def main() -> dict[str, str]:
    """Every attack's answer."""
    cryptotensors.register_direct_key_provider(keys=[ENCRYPTION, VERIFICATION])
    new, old = sealed(tensors(1)), sealed(tensors(5))
    stripped = edited(new, lambda header: header.pop("__metadata__"))
    header_edits: dict[str, Callable[[Header], Any]] = {
        "swapped_tensors": swap_tensors,
        "renamed": rename,
        "reshaped": lambda header: header["layer.a"].update(shape=[4, 16]),
        "retyped": lambda header: header["layer.a"].update(dtype="I32"),
    }
    found = {"bit_flips": flips(new)} | {name: tried(edited(new, edit)) for name, edit in header_edits.items()}
    found |= {
        "truncated": tried(new[:-1]),
        "extended": tried(new + b"\0"),
        "swapped_chunks": tried(swap_blocks(new)),
        "spliced": tried(splice(new, old)),
        "older": tried(old),
        "mixed_shards": mixed_shards(),
        "stripped": tried(stripped),
        "plaintext": tried(safetensors.torch.save(tensors(9))),
        "named_keys": named_by_the_file(),
        "left_plain": plain_beside(),
        "forged": tried(forge(new)),
        "absurd_sizes": tried((1 << 62).to_bytes(8, "little") + new[8:]),
    }
    rival = rival_key("rival")
    cryptotensors.register_direct_key_provider(keys=[ENCRYPTION, VERIFICATION, rival])  # trusted for its own models
    found["other_signer"] = tried(sealed(tensors(9), sign_key=rival))
    cryptotensors.register_direct_key_provider(keys=[ENCRYPTION, VERIFICATION])
    return found


if __name__ == "__main__":
    print(json.dumps(main()))
    sys.stdout.flush()
