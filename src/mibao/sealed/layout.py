"""Where each region of a sealed file lies, and the limits that hold before anything is reserved.

Source: docs/spec/sealed-model.md, sections 3 and 4.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from mibao.errors import InputError, IntegrityError

MAGIC = b"\x89MIBAO\n\x1a"
EXTENSION = ".mibao"
FORMAT = 1
SUITE = 1
PREAMBLE_BYTES = 64
SELECTOR_BYTES = 64
SELECTOR_OPEN_BYTES = 32  # the part before the header MAC
PAGE_BYTES = 4096
INDEX_ENTRY_BYTES = 36
MIN_CHUNK_BYTES = 4096
MAX_CHUNK_BYTES = 1 << 22
MAX_CHUNKS = 1 << 26
MAX_SLOT_BYTES = 1 << 20
MAX_MANIFEST_BYTES = 1 << 20
MAX_SIGNATURE_BYTES = 1 << 13
MAX_TABLE_BYTES = 1 << 28
MAX_PARTS = 4096
MAX_PART_BYTES = 1 << 48

_PREAMBLE = struct.Struct(">8sHHIIIQQ24x")
_SELECTOR = struct.Struct(">BB30x32s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preamble:
    """The lengths of all regions before the data. Offsets follow from them."""

    slot_bytes: int
    manifest_bytes: int
    signature_bytes: int
    table_bytes: int
    index_bytes: int

    @property
    def manifest_at(self) -> int:
        """Where the manifest begins."""
        return PREAMBLE_BYTES + SELECTOR_BYTES

    @property
    def signature_at(self) -> int:
        """Where the signature begins."""
        return self.manifest_at + self.manifest_bytes

    def slot_at(self, slot: int) -> int:
        """Where slot 0 or 1 begins."""
        return self.signature_at + self.signature_bytes + slot * self.slot_bytes

    @property
    def table_at(self) -> int:
        """Where the encrypted table begins."""
        return self.slot_at(2)

    @property
    def index_at(self) -> int:
        """Where the index begins."""
        return self.table_at + self.table_bytes

    @property
    def padding_at(self) -> int:
        """Where the padding begins."""
        return self.index_at + self.index_bytes

    @property
    def data_at(self) -> int:
        """Where the data begins, a multiple of :data:`PAGE_BYTES`."""
        return -(-self.padding_at // PAGE_BYTES) * PAGE_BYTES

    def pack(self) -> bytes:
        """The 64 bytes at the start of a file."""
        return _PREAMBLE.pack(
            MAGIC,
            FORMAT,
            SUITE,
            self.slot_bytes,
            self.manifest_bytes,
            self.signature_bytes,
            self.table_bytes,
            self.index_bytes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Which slot holds the recipients, whether a rewrap is under way, and the header MAC."""

    active: int
    rewrapping: bool
    mac: bytes

    def pack(self) -> bytes:
        """The 64 bytes behind the preamble."""
        return _SELECTOR.pack(self.active, self.rewrapping, self.mac)


def parse_preamble(data: bytes, *, file_bytes: int) -> Preamble:
    """The preamble in ``data``, checked against the limits and the size of the file.

    Raises:
        InputError: not a sealed model, of a later format, or beyond a limit.
        IntegrityError: reserved bytes are not zero, or the file ends before its regions do.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise InputError(f"expected a sealed model ({EXTENSION} file), got something else")
    if len(data) != PREAMBLE_BYTES:
        raise IntegrityError("preamble: the file is truncated")
    _, version, suite, slot_bytes, manifest_bytes, signature_bytes, table_bytes, index_bytes = _PREAMBLE.unpack(data)
    if (version, suite) != (FORMAT, SUITE):
        raise InputError(f"sealed model: expected format {FORMAT} suite {SUITE}, got format {version} suite {suite}")
    preamble = Preamble(
        slot_bytes=slot_bytes,
        manifest_bytes=manifest_bytes,
        signature_bytes=signature_bytes,
        table_bytes=table_bytes,
        index_bytes=index_bytes,
    )
    _check_limits(preamble)
    if preamble.pack() != data:
        raise IntegrityError("preamble: reserved bytes are not zero")
    if preamble.data_at > file_bytes:
        raise IntegrityError("file: shorter than its header says")
    return preamble


def parse_selector(data: bytes) -> Selector:
    """The selector in ``data``; its MAC is not yet checked.

    Raises:
        IntegrityError: not one of the two slots or states, or reserved bytes are not zero.
    """
    if len(data) != SELECTOR_BYTES:
        raise IntegrityError("selector: the file is truncated")
    active, state, mac = _SELECTOR.unpack(data)
    selector = Selector(active=active, rewrapping=state == 1, mac=mac)
    if active > 1 or state > 1 or selector.pack() != data:
        raise IntegrityError("selector: not one that a writer makes")
    return selector


def _check_limits(preamble: Preamble) -> None:
    limits = {
        "recipients' slot": (preamble.slot_bytes, PAGE_BYTES, MAX_SLOT_BYTES),
        "manifest": (preamble.manifest_bytes, 1, MAX_MANIFEST_BYTES),
        "signature": (preamble.signature_bytes, 1, MAX_SIGNATURE_BYTES),
        "table": (preamble.table_bytes, 1, MAX_TABLE_BYTES),
        "index": (preamble.index_bytes, 0, MAX_CHUNKS * INDEX_ENTRY_BYTES),
    }
    for region, (found, lowest, highest) in limits.items():
        if not lowest <= found <= highest:
            raise InputError(f"{region}: expected {lowest} to {highest} bytes, got {found}")
    if preamble.slot_bytes % PAGE_BYTES or preamble.index_bytes % INDEX_ENTRY_BYTES:
        raise InputError("preamble: a region's length is not a multiple of its unit")
