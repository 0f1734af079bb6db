"""One sealed file, and ways to alter it."""

import re

import pytest

import sealed_kit as kit
from mibao.crypto.aead import TAG_BYTES
from mibao.errors import MibaoError
from mibao.sealed import layout
from mibao.sealed.file_keys import FileKeys
from mibao.sealed.layout import INDEX_ENTRY_BYTES, PREAMBLE_BYTES
from mibao.sealed.sealing import signed_selector
from mibao.types import RandomId

GOOD = kit.sealed_bytes()
PREAMBLE = layout.parse_preamble(GOOD[:PREAMBLE_BYTES], file_bytes=len(GOOD))
CHUNK = kit.CHUNK_BYTES + TAG_BYTES
KEYS = FileKeys(b"K" * 32, RandomId(b"I" * 16))  # what any licensed recipient can unwrap


def refused(data: bytes, error: type[MibaoError], message: str, **more) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}") as caught:
        kit.opened_parts(data, **more)
    assert type(caught.value) is error


def replaced(at: int, new: bytes, data: bytes = GOOD) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def flipped(at: int, data: bytes = GOOD) -> bytes:
    return replaced(at, bytes([data[at] ^ 0x40]), data)


def by_a_recipient(data: bytes) -> bytes:
    """The header MAC made right again, as whoever holds the file key can."""
    preamble = layout.parse_preamble(data[:PREAMBLE_BYTES], file_bytes=len(data))
    slot = data[preamble.slot_at(0) :][: preamble.slot_bytes]
    return replaced(PREAMBLE_BYTES, signed_selector(KEYS, preamble, slot, active=0, rewrapping=False).pack(), data)


def swapped(first: int, second: int, count: int, data: bytes = GOOD) -> bytes:
    one, two = data[first : first + count], data[second : second + count]
    return replaced(second, one, replaced(first, two, data))


def chunk_at(number: int) -> int:
    """Where a chunk of ``GOOD`` lies: bias and scalar, then three chunks each of two tensors."""
    index = GOOD[PREAMBLE.index_at : PREAMBLE.padding_at]
    lengths = [int.from_bytes(index[at : at + 4], "big") for at in range(0, len(index), INDEX_ENTRY_BYTES)]
    return PREAMBLE.data_at + sum(lengths[:number])
