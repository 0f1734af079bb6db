"""The encrypted table: what the parts are called, what they are, and their headers byte for byte.

Source: docs/spec/sealed-model.md, section 3.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from mibao.codec import canonical, tensor_table
from mibao.codec.canonical import Value
from mibao.codec.tensor_table import TensorSpec
from mibao.crypto.aead import NONCE_BYTES, TAG_BYTES
from mibao.errors import InputError, IntegrityError
from mibao.sealed.file_keys import FileKeys, table_associated_data
from mibao.sealed.layout import MAX_PARTS, MAX_TABLE_BYTES

MAX_NAME_BYTES = 1024


class Layout(Enum):
    """What was sealed: one file, or a folder of them."""

    FILE = "file"
    FOLDER = "folder"


class PartFormat(Enum):
    """Whether a part's structure is known."""

    SAFETENSORS = "safetensors"
    OPAQUE = "opaque"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartTable:
    """One part: its name in the source, its format, its header's bytes, and the tensors these describe."""

    name: str
    format: PartFormat
    header: bytes
    tensors: tuple[TensorSpec, ...]

    def segment_lengths(self, data_bytes: int) -> list[int]:
        """The lengths of the stretches of data that no chunk crosses."""
        if self.format is PartFormat.OPAQUE:
            return [data_bytes]
        return [tensor.nbytes for tensor in self.tensors]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTable:
    """All parts, in the order of the manifest."""

    layout: Layout
    parts: tuple[PartTable, ...]


def describe(name: str, format_: PartFormat, header: bytes, *, data_bytes: int) -> PartTable:
    """A part's entry, its header read and checked against the length of its data.

    Raises:
        InputError: the name or the header is not a valid one, or the header describes data of another length.
    """
    if not name.isprintable() or not 1 <= len(name.encode("utf-8", "replace")) <= MAX_NAME_BYTES:
        raise InputError(f"file name: expected 1 to {MAX_NAME_BYTES} bytes of printable text")
    if format_ is PartFormat.OPAQUE:
        if header:
            raise InputError("table: an opaque part has no header")
        return PartTable(name=name, format=format_, header=header, tensors=())
    table = tensor_table.parse(header)
    if table.data_bytes != data_bytes:
        raise InputError(f"safetensors: the header describes {table.data_bytes} bytes of data, there are {data_bytes}")
    return PartTable(name=name, format=format_, header=header, tensors=table.tensors)


def encode(table: ModelTable) -> bytes:
    """The plaintext of the table.

    Raises:
        InputError: over the limit, or names that could not be put back into a folder.
    """
    _check_names(table)
    parts: list[Value] = [
        {"name": part.name, "format": part.format.value, "header": part.header} for part in table.parts
    ]
    data = canonical.encode({"layout": table.layout.value, "parts": parts})
    if len(data) + TAG_BYTES > MAX_TABLE_BYTES:
        raise InputError(f"table: expected at most {MAX_TABLE_BYTES} bytes of headers, got {len(data)}")
    return data


def decode(data: bytes, *, data_bytes: Sequence[int]) -> ModelTable:
    """The table in ``data``; ``data_bytes`` are the signed lengths of the parts.

    Raises:
        IntegrityError: not exactly one table of these parts.
    """
    try:
        value = canonical.decode(data, max_bytes=MAX_TABLE_BYTES)
    except IntegrityError as error:
        raise IntegrityError("table: not well formed") from error
    if not isinstance(value, dict) or value.keys() != {"layout", "parts"} or not isinstance(value["parts"], list):
        raise IntegrityError("table: expected exactly a layout and a list of parts")
    if len(value["parts"]) != len(data_bytes):
        raise IntegrityError("table: another number of parts than the manifest's")
    try:
        parts = tuple(_part(each, size) for each, size in zip(value["parts"], data_bytes, strict=True))
        table = ModelTable(layout=Layout(value["layout"]), parts=parts)
        _check_names(table)
    except (InputError, ValueError) as error:
        raise IntegrityError("table: not one that a writer makes") from error
    return table


def encrypt(table: bytes, keys: FileKeys) -> bytes:
    """The table as it stands in the file."""
    return keys.table_cipher().seal(bytes(NONCE_BYTES), table, table_associated_data(keys.file_id))


def decrypt(sealed: bytes, keys: FileKeys) -> bytes:
    """The plaintext of the table. Raises ``IntegrityError`` if it was altered."""
    try:
        return keys.table_cipher().open(bytes(NONCE_BYTES), sealed, table_associated_data(keys.file_id))
    except IntegrityError as error:
        raise IntegrityError("table: was altered") from error


def _part(value: Value, data_bytes: int) -> PartTable:
    if not isinstance(value, dict) or value.keys() != {"name", "format", "header"}:
        raise IntegrityError("table: a part has other fields than name, format and header")
    name, format_, header = value["name"], value["format"], value["header"]
    if not isinstance(name, str) or not isinstance(format_, str) or not isinstance(header, bytes):
        raise IntegrityError("table: a part's field is of another type")
    return describe(name, PartFormat(format_), header, data_bytes=data_bytes)


def _check_names(table: ModelTable) -> None:
    names = [part.name for part in table.parts]
    if len(set(names)) != len(names) or len(names) > MAX_PARTS:
        raise InputError("table: two parts of one name, or too many")
    if table.layout is Layout.FILE and len(names) != 1:
        raise InputError("table: a single file has one part")
    for name in names:
        components = name.split("/")
        if "\\" in name or any(component in ("", ".", "..") for component in components):
            raise InputError("table: a file name leads out of its folder")
        if table.layout is Layout.FILE and len(components) != 1:
            raise InputError("table: a single file has no folder")
