"""All keys of one sealed file, derived from its file key.

Source: docs/spec/sealed-model.md, section 2.1.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import TypeVar

from mibao.crypto.aead import AesGcm
from mibao.crypto.kdf import derive, domain_tag, keyed_hash
from mibao.errors import InputError
from mibao.types import RandomId

FILE_KEY_BYTES = 32
Wrapped = TypeVar("Wrapped")


class FileKeys:
    """The keys of one file. Cannot be printed or pickled."""

    __slots__ = ("_file_key", "_header_key", "commitment", "file_id")
    file_id: RandomId
    commitment: bytes

    def __init__(self, file_key: bytes, file_id: RandomId) -> None:
        if len(file_key) != FILE_KEY_BYTES:
            raise InputError(f"file key: expected {FILE_KEY_BYTES} bytes, got {len(file_key)}")
        self._file_key = file_key
        self.file_id = file_id
        self._header_key = derive(file_key, purpose="sealed/header-key", context=file_id.value)
        self.commitment = derive(file_key, purpose="sealed/commitment", context=file_id.value)

    def __repr__(self) -> str:
        return f"<FileKeys of {self.file_id}>"

    def __reduce__(self) -> str:
        raise TypeError("the keys of a sealed file cannot be pickled or copied")

    def table_cipher(self) -> AesGcm:
        """The cipher of the table: one message, ever."""
        return AesGcm(derive(self._file_key, purpose="sealed/table-key", context=self.file_id.value))

    def part_cipher(self, part: int) -> AesGcm:
        """The cipher of one part's chunks, whose nonces count them."""
        context = self.file_id.value + part.to_bytes(4, "big")
        return AesGcm(derive(self._file_key, purpose="sealed/part-key", context=context))

    def header_mac(self, header: bytes) -> bytes:
        """32 bytes that bind the list of recipients to a holder of the file key."""
        return keyed_hash(self._header_key, purpose="sealed/header", message=header).value

    def matches(self, commitment: bytes) -> bool:
        """Whether this is the one file key that ``commitment`` was made for. Takes constant time."""
        return hmac.compare_digest(self.commitment, commitment)

    def wrapped_by(self, wrap: Callable[[bytes], Wrapped]) -> Wrapped:
        """What ``wrap`` makes of the file key: the one way in which it leaves."""
        return wrap(self._file_key)


def table_associated_data(file_id: RandomId) -> bytes:
    """What the table's encryption is bound to."""
    return domain_tag("sealed/table", file_id.value)
