"""What is to be sealed, as it lies on the disk: one file, or a checkpoint's folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mibao.codec import tensor_table
from mibao.errors import InputError
from mibao.sealed import model_table
from mibao.sealed.files import FileSource
from mibao.sealed.model_table import Layout, PartFormat
from mibao.sealed.sealing import SourceModel, SourcePart
from mibao.sealed.source import read

SAFETENSORS_SUFFIX = ".safetensors"
INDEX_SUFFIX = ".safetensors.index.json"
MAX_INDEX_JSON_BYTES = 1 << 26


@contextmanager
def source_model(path: Path) -> Iterator[SourceModel]:
    """What lies at ``path``, open for sealing: a ``.safetensors`` file, any other file, or a checkpoint's folder.

    Of a folder, every ``.safetensors`` file is a shard and every other file a side file, by name; names that begin
    with a dot are left out.

    Raises:
        InputError: nothing is there, a safetensors header is not sound, or a folder's index disagrees with its shards.
    """
    opened: list[FileSource] = []
    try:
        if path.is_dir():
            yield _folder(path, opened)
        else:
            yield SourceModel(layout=Layout.FILE, shards=(_part(path, path.name, opened),))
    finally:
        for each in opened:
            each.close()


def _folder(path: Path, opened: list[FileSource]) -> SourceModel:
    names = sorted(
        "/".join(found.relative_to(path).parts)
        for found in path.rglob("*")
        if found.is_file() and not any(part.startswith(".") for part in found.relative_to(path).parts)
    )
    shards = tuple(_part(path / name, name, opened) for name in names if name.endswith(SAFETENSORS_SUFFIX))
    if not shards:
        raise InputError(f"{path}: expected a folder with at least one {SAFETENSORS_SUFFIX} file")
    sides = tuple(_part(path / name, name, opened) for name in names if not name.endswith(SAFETENSORS_SUFFIX))
    for side in sides:
        if side.table.name.endswith(INDEX_SUFFIX):
            _check_index(side, shards)
    return SourceModel(layout=Layout.FOLDER, shards=shards, side_files=sides)


def _part(path: Path, name: str, opened: list[FileSource]) -> SourcePart:
    source = FileSource(path)
    opened.append(source)
    if not name.endswith(SAFETENSORS_SUFFIX):
        table = model_table.describe(name, PartFormat.OPAQUE, b"", data_bytes=source.size)
        return SourcePart(table=table, source=source, data_at=0, data_bytes=source.size)
    length = tensor_table.header_bytes(read(source, 0, min(source.size, tensor_table.LENGTH_BYTES)))
    if length > source.size:
        raise InputError(f"{path}: expected a safetensors file, got one shorter than its header")
    header = read(source, 0, length)
    data_bytes = source.size - length
    table = model_table.describe(name, PartFormat.SAFETENSORS, header, data_bytes=data_bytes)
    return SourcePart(table=table, source=source, data_at=length, data_bytes=data_bytes)


def _check_index(side: SourcePart, shards: tuple[SourcePart, ...]) -> None:
    """A checkpoint's index must name each tensor's true shard, or a loader would miss tensors after opening."""
    if side.data_bytes > MAX_INDEX_JSON_BYTES:
        raise InputError(f"{side.table.name}: expected at most {MAX_INDEX_JSON_BYTES} bytes")
    try:
        index = json.loads(read(side.source, 0, side.data_bytes))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{side.table.name}: expected JSON") from error
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict):
        raise InputError(f"{side.table.name}: expected a weight_map")
    folder = side.table.name.rpartition("/")[0]
    prefix = f"{folder}/" if folder else ""
    held = {(shard.table.name, tensor.name) for shard in shards for tensor in shard.table.tensors}
    if any((f"{prefix}{file}", tensor) not in held for tensor, file in weight_map.items()):
        raise InputError(f"{side.table.name}: names a tensor that its shard does not hold")
