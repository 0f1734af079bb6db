"""Known answers of everything that follows from a file key, and the tree of RFC 6962."""

import hashlib
import json
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from mibao.sealed import chunks, file_keys, merkle, model_table
from mibao.sealed.file_keys import FileKeys
from mibao.sealed.unlock import Binding
from mibao.types import RandomId

VECTOR = json.loads((Path(__file__).parents[1] / "vectors" / "sealed" / "derivation.json").read_text())
KEYS = FileKeys(bytes.fromhex(VECTOR["file_key"]), RandomId(bytes.fromhex(VECTOR["file_id"])))


def tag(purpose: str, *parts: bytes) -> bytes:
    """Domain separation written a second time, from the specification."""
    return b"mibao/v1/" + purpose.encode() + b"\0" + b"".join(len(each).to_bytes(8, "big") + each for each in parts)


def test_keys_are_those_of_the_vector():
    assert KEYS.commitment.hex() == VECTOR["commitment"]
    assert KEYS.header_mac(b"header").hex() == VECTOR["header_mac_of_header"]
    assert KEYS.part_cipher(1).seal(bytes(12), bytes(16), b"").hex() == VECTOR["part_1_zero_block"]
    assert model_table.encrypt(b"table", KEYS).hex() == VECTOR["table_of_table"]


def test_associated_data_and_nonces_are_those_of_the_vector():
    chunk = chunks.PartChunks(2, [5000, 0, 9000], chunk_bytes=4096)[4]
    assert [chunk.segment, chunk.number, chunk.length] == [1, 2, 808]
    assert chunk.nonce.hex() == VECTOR["chunk"]["nonce"]
    assert chunk.associated_data(KEYS.file_id).hex() == VECTOR["chunk"]["associated_data"]
    assert file_keys.table_associated_data(KEYS.file_id).hex() == VECTOR["table_associated_data"]
    info = Binding(file_id=KEYS.file_id, commitment=KEYS.commitment, signer=RandomId(b"S" * 16)).info
    assert info.hex() == VECTOR["wrap_info_for_signer_S"]


def test_domain_separation_is_as_specified():
    where = bytes.fromhex("0000000200000001000000000000000200000328")
    assert tag("sealed/chunk", KEYS.file_id.value, where).hex() == VECTOR["chunk"]["associated_data"]
    assert tag("sealed/table", KEYS.file_id.value).hex() == VECTOR["table_associated_data"]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 8])
def test_index_and_roots_are_those_of_the_vector(count):
    entries = b"".join(merkle.index_entry(bytes([number]) * (number + 17)) for number in range(count))
    assert merkle.root(entries).hex() == VECTOR["roots"][str(count)]


def recursive_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, as it is written there: split at the largest power of two below the count."""
    if len(leaves) <= 1:
        return blake3(b"".join(leaves), derive_key_context="mibao/v1/sealed/leaf").digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    pair = recursive_root(leaves[:split]) + recursive_root(leaves[split:])
    return blake3(pair, derive_key_context="mibao/v1/sealed/node").digest()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 70))
def test_the_root_is_the_merkle_tree_hash_of_rfc_6962(count):
    leaves = [hashlib.sha512(bytes([number])).digest()[:36] for number in range(count)]
    assert merkle.root(b"".join(leaves)) == recursive_root(leaves)


def test_keys_of_parts_and_uses_differ():
    blocks = {KEYS.part_cipher(part).seal(bytes(12), bytes(16), b"") for part in range(50)}
    blocks.add(KEYS.table_cipher().seal(bytes(12), bytes(16), b""))
    other = FileKeys(bytes.fromhex(VECTOR["file_key"]), RandomId(b"J" * 16))
    blocks.add(other.part_cipher(0).seal(bytes(12), bytes(16), b""))
    assert len(blocks) == 52


def test_the_keys_of_a_file_show_nothing_of_themselves():
    assert VECTOR["file_key"] not in repr(KEYS)
    with pytest.raises(TypeError, match="cannot be pickled"):
        KEYS.__reduce__()
