"""The files sealed beside the weights, read into memory: configuration, tokenizer, templates."""

from __future__ import annotations

import json
from typing import Any

from mibao.errors import InputError
from mibao.sealed import reading
from mibao.sealed.opening import OpenedFile


def read_side_file(opened: OpenedFile, name: str) -> bytes | None:
    """The bytes of the file that was sealed under ``name``, every chunk checked; None if there is none.

    Raises:
        IntegrityError: it was altered.
    """
    for part in opened.parts[len(opened.envelope.manifest.shards) :]:
        if part.table.name == name:
            whole = bytearray(part.chunks.data_bytes)
            reading.decrypt_into(opened, part, range(len(part.chunks)), memoryview(whole))
            return bytes(whole)
    return None


def read_json(opened: OpenedFile, name: str) -> dict[str, Any] | None:
    """The JSON object that was sealed under ``name``; None if there is none.

    Raises:
        InputError: it is not a JSON object.
        IntegrityError: it was altered.
    """
    data = read_side_file(opened, name)
    if data is None:
        return None
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: expected JSON") from error
    if not isinstance(found, dict):
        raise InputError(f"{name}: expected a JSON object")
    return found
