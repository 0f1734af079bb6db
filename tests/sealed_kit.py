"""Small sealed models for tests: fixed keys, small chunks, everything in memory."""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from safetensors.numpy import save

from mibao.codec import tensor_table
from mibao.crypto import kem, keys
from mibao.crypto.kdf import derive, domain_tag
from mibao.crypto.keys import RecipientPrivateKey, RecipientPublicKey, RecipientSuite, SignerPrivateKey, SignerSuite
from mibao.sealed import model_table, opening, reading, recipients
from mibao.sealed.file_keys import FileKeys
from mibao.sealed.model_table import Layout, PartFormat
from mibao.sealed.sealing import SourceModel, SourcePart, seal_to
from mibao.sealed.source import MemorySink, MemorySource
from mibao.types import RandomId

__all__ = ["SignerSuite", "derive"]

CHUNK_BYTES = 4096


def recipient(number: int, suite: RecipientSuite = RecipientSuite.X25519) -> RecipientPrivateKey:
    return keys.generate_recipient(suite, bytes([number]) * 32)


def signer(number: int, suite: SignerSuite = SignerSuite.ED25519) -> SignerPrivateKey:
    return keys.generate_signer(suite, bytes([number]) * keys.SEED_BYTES[suite])


ALICE, BOB, MALLORY = recipient(1), recipient(2), recipient(3)
VENDOR, RIVAL = signer(11), signer(12)


def tensors(fill: int = 7) -> dict[str, np.ndarray]:
    """Two chunks and a bit, one chunk, none, and a scalar."""
    draw = np.random.default_rng(fill)
    return {
        "layer.weight": draw.standard_normal((48, 50)).astype("<f4"),
        "layer.other": draw.standard_normal((48, 50)).astype("<f4"),
        "bias": draw.integers(0, 9, 12),
        "empty": np.zeros((0, 3), "<f4"),
        "scalar": np.array(1.5),
    }


def part(name: str, data: bytes) -> SourcePart:
    if name.endswith(".safetensors"):
        length = tensor_table.header_bytes(data)
        format_ = PartFormat.SAFETENSORS
    else:
        length, format_ = 0, PartFormat.OPAQUE
    table = model_table.describe(name, format_, data[:length], data_bytes=len(data) - length)
    return SourcePart(table=table, source=MemorySource(data), data_at=length, data_bytes=len(data) - length)


def sealed_bytes(
    *shards: tuple[str, bytes],
    side_files: tuple[tuple[str, bytes], ...] = (),
    to: tuple[RecipientPrivateKey, ...] = (ALICE, BOB),
    by: SignerPrivateKey = VENDOR,
    version: int = 3,
    file_id: bytes = b"I" * 16,
    file_key: bytes = b"K" * 32,
    model_id: str = "acme/tiny",
) -> bytes:
    """A sealed file; by default of one small safetensors file."""
    shards = shards or (("model.safetensors", save(tensors())),)
    layout = Layout.FILE if len(shards) == 1 and not side_files else Layout.FOLDER
    model = SourceModel(
        layout=layout,
        shards=tuple(part(*each) for each in shards),
        side_files=tuple(part(*each) for each in side_files),
    )
    sink = MemorySink()
    report = seal_to(
        sink,
        model,
        to=[each.public for each in to],
        signer=by,
        model_id=model_id,
        version=version,
        file_id=RandomId(file_id),
        file_key=file_key,
        chunk_bytes=CHUNK_BYTES,
    )
    assert report.sealed_bytes == len(sink.data)
    return bytes(sink.data)


def opened_parts(
    data: bytes, *, identity: RecipientPrivateKey = ALICE, pinned=VENDOR.public, min_version: int | None = None
) -> list[bytes]:
    """What each part of a sealed file opens to, after a full open."""
    source = MemorySource(data)
    envelope = opening.read_verified(source, signer=pinned, min_version=min_version)
    opened = opening.open_file(source, envelope, identity)
    found = []
    for each in opened.parts:
        body = bytearray(each.chunks.data_bytes)
        reading.decrypt_into(opened, each, range(len(each.chunks)), memoryview(body))
        found.append(each.table.header + bytes(body))
    return found


def verify(data: bytes, *, pinned=VENDOR.public, min_version: int | None = None) -> int:
    """Everything that can be checked without a decryption key; the number of chunks."""
    source = MemorySource(data)
    envelope = opening.read_verified(source, signer=pinned, min_version=min_version)
    opening.read_header(source, envelope.preamble)
    opening.verify_table(source, envelope)
    return reading.verify_chunks(source, envelope)


def wrap_with_info(file_keys: FileKeys, to: RecipientPublicKey, info: bytes) -> recipients.Stanza:
    """A stanza as a malicious sealer makes it: any key, any info."""
    bound = domain_tag("sealed/stanza", to.suite.value.encode(), to.key_id.value)
    body = file_keys.wrapped_by(lambda key: kem.seal_once(to, key, info=info, associated_data=bound))
    return recipients.Stanza(kind=to.suite.value, key_id=to.key_id, body=body)


def times_hash_key(block: bytes, hash_key: bytes) -> bytes:
    """One multiplication in GHASH's field. Source: NIST SP 800-38D, algorithm 1."""
    x, v, product = int.from_bytes(block, "big"), int.from_bytes(hash_key, "big"), 0
    for bit in range(127, -1, -1):
        if x >> bit & 1:
            product ^= v
        v = v >> 1 ^ (0xE1 << 120 if v & 1 else 0)
    return product.to_bytes(16, "big")


def forged_chunk(data: bytes, at: int, length: int, key: bytes) -> bytes:
    """Another ciphertext with the same GCM tag, as a holder of the data key finds it: blocks 0 and 1 differ."""
    aes = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()  # noqa: S305 - GHASH's key is AES of zero
    hash_key = aes.update(bytes(16))
    change = b"\xff" * 16
    correction = times_hash_key(change, hash_key)
    chunk = bytearray(data[at : at + length])
    chunk[:16] = bytes(a ^ b for a, b in zip(chunk[:16], change, strict=True))
    chunk[16:32] = bytes(a ^ b for a, b in zip(chunk[16:32], correction, strict=True))
    return bytes(chunk)


def forged(data: bytes, part: int, counter: int, *, file_id: bytes = b"I" * 16, file_key: bytes = b"K" * 32) -> bytes:
    """A file in which a licensed recipient altered one chunk under its own, unchanged GCM tag."""
    source = MemorySource(data)
    opened = opening.open_file(source, opening.read_verified(source, signer=VENDOR.public), ALICE)
    found = opened.parts[part]
    chunk = found.chunks[counter]
    at = found.data_at + chunk.cipher_begin
    part_key = derive(file_key, purpose="sealed/part-key", context=file_id + part.to_bytes(4, "big"))
    new = forged_chunk(data, at, chunk.cipher_length, part_key)
    old = data[at : at + chunk.cipher_length]
    assert new[-16:] == old[-16:]
    plain = [found.cipher.open(chunk.nonce, each, chunk.associated_data(RandomId(file_id))) for each in (old, new)]
    assert plain[0] != plain[1], "GCM alone lets the forgery through"
    return data[:at] + new + data[at + chunk.cipher_length :]
