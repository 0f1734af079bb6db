"""The header of a safetensors file, read strictly: which tensor lies where, and how it reads.

A file is ``length (8, little endian) || JSON of that length || data``. The bytes of the header are never written
back from what was parsed: whoever needs the file again keeps them.

Source: the safetensors format, https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mibao.errors import InputError

MAX_HEADER_BYTES = 100_000_000
MAX_TENSORS = 1 << 20
MAX_DIMENSIONS = 64
MAX_DATA_BYTES = 1 << 48
LENGTH_BYTES = 8
METADATA_KEY = "__metadata__"

DTYPE_BITS: Mapping[str, int] = MappingProxyType(
    {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
    | dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8)
    | dict.fromkeys(("I16", "U16", "F16", "BF16"), 16)
    | dict.fromkeys(("I32", "U32", "F32"), 32)
    | dict.fromkeys(("I64", "U64", "F64", "C64"), 64)
)
"""Width of one element of each data type, in bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One tensor: its name, data type, shape, and its bytes ``[begin, end)`` of the data behind the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        """How many bytes of data it has."""
        return self.end - self.begin


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorTable:
    """All tensors in the order of their bytes, those of equal place by name; and the file's own metadata."""

    tensors: tuple[TensorSpec, ...]
    metadata: Mapping[str, str]
    data_bytes: int


def header_bytes(prefix: bytes) -> int:
    """How long the whole header is, its 8-byte length included, read from the first 8 bytes of a file.

    Raises:
        InputError: fewer than 8 bytes, or a length over :data:`MAX_HEADER_BYTES`.
    """
    if len(prefix) < LENGTH_BYTES:
        raise InputError("safetensors: expected at least 8 bytes")
    length = int.from_bytes(prefix[:LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        raise InputError(f"safetensors: expected a header of at most {MAX_HEADER_BYTES} bytes, got {length}")
    return LENGTH_BYTES + length


def parse(header: bytes) -> TensorTable:
    """The tensors that ``header`` (its 8-byte length included) describes.

    Raises:
        InputError: not a safetensors header, a data type unknown, a name twice, or tensors whose lengths disagree
            with their shapes or that leave gaps or overlap.
    """
    if header_bytes(header) != len(header):
        raise InputError("safetensors: the header has another length than it says")
    entries = _entries(header[LENGTH_BYTES:])
    metadata = _metadata(entries.pop(METADATA_KEY, {}))
    if len(entries) > MAX_TENSORS:
        raise InputError(f"safetensors: expected at most {MAX_TENSORS} tensors, got {len(entries)}")
    tensors = sorted(
        (_tensor(name, entry) for name, entry in entries.items()), key=lambda each: (each.begin, each.end, each.name)
    )
    place = 0
    for tensor in tensors:
        if tensor.begin != place:
            raise InputError("safetensors: tensors leave a gap or overlap")
        place = tensor.end
    return TensorTable(tensors=tuple(tensors), metadata=MappingProxyType(metadata), data_bytes=place)


def _entries(text: bytes) -> dict[str, object]:
    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise InputError("safetensors: the header is not JSON") from error
    if not isinstance(entries, dict):
        raise InputError("safetensors: expected a JSON object as the header")
    return entries


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise InputError("safetensors: a name stands twice in the header")
    return entries


def _metadata(entry: object) -> dict[str, str]:
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise InputError("safetensors: expected texts as metadata")
    return entry


def _tensor(name: str, entry: object) -> TensorSpec:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise InputError("safetensors: expected dtype, shape and data_offsets for each tensor")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise InputError(f"safetensors: expected a data type out of {', '.join(DTYPE_BITS)}")
    if not _lengths(shape) or len(shape) > MAX_DIMENSIONS or not _lengths(offsets) or len(offsets) != 2:
        raise InputError("safetensors: expected lists of sizes as shape and data_offsets")
    begin, end = offsets
    bits = math.prod(shape) * DTYPE_BITS[dtype]
    if not begin <= end <= MAX_DATA_BYTES or bits != 8 * (end - begin):
        raise InputError("safetensors: a tensor's length disagrees with its shape and data type")
    return TensorSpec(name=name, dtype=dtype, shape=tuple(shape), begin=begin, end=end)


def _lengths(value: object) -> bool:
    return isinstance(value, list) and all(type(each) is int and each >= 0 for each in value)
