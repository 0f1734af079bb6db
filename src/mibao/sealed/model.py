"""A sealed model in memory: tensors by name, each decrypted when it is asked for, no plaintext on any disk."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy import ndarray

from mibao.codec.tensor_table import TensorSpec
from mibao.crypto.keys import RecipientPrivateKey, SignerPublicKey
from mibao.errors import InputError
from mibao.events import ModelOpened
from mibao.sealed import opening, reading
from mibao.sealed.files import FileSource
from mibao.sealed.numpy_types import numpy_dtype
from mibao.sealed.opening import OpenedFile, OpenedPart
from mibao.sealed.store import StrPath


@dataclass(frozen=True, slots=True, kw_only=True)
class LazyTensor:
    """A tensor that has not been decrypted: what it is, and :meth:`numpy` to have it."""

    spec: TensorSpec
    _model: SealedModel
    _part: OpenedPart

    @property
    def name(self) -> str:
        """Its name."""
        return self.spec.name

    @property
    def dtype(self) -> str:
        """Its data type, by the name that safetensors has for it."""
        return self.spec.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.spec.shape

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        return self.spec.nbytes

    def raw(self) -> bytearray:
        """Its bytes, every chunk checked."""
        return self._model._bytes(self._part, self.spec.begin, self.spec.end)

    def numpy(self) -> ndarray:
        """The tensor, in memory of its own.

        Raises:
            IntegrityError: a chunk of it was altered.
            InputError: its elements have no NumPy type (less than a byte wide), or the model is closed.
            MissingExtra: its type needs ``ml_dtypes``, which is not installed.
        """
        return np.frombuffer(self.raw(), dtype=numpy_dtype(self.dtype)).reshape(self.shape)

    def rows(self, start: int, stop: int) -> ndarray:
        """``tensor[start:stop]`` for ``0 <= start <= stop <= shape[0]``, decrypting only the chunks it overlaps.

        Raises:
            InputError: the range is not within the tensor, or as :meth:`numpy`.
            IntegrityError: a chunk it overlaps was altered.
        """
        if not self.shape or not 0 <= start <= stop <= self.shape[0]:
            raise InputError(f"rows {start} to {stop}: not within a tensor of shape {self.shape}")
        dtype = numpy_dtype(self.dtype)
        row_bytes = self.nbytes // self.shape[0] if self.shape[0] else 0
        begin = self.spec.begin + start * row_bytes
        data = self._model._bytes(self._part, begin, begin + (stop - start) * row_bytes)
        return np.frombuffer(data, dtype=dtype).reshape(stop - start, *self.shape[1:])


class SealedModel(Mapping[str, LazyTensor]):
    """The tensors of an open sealed model by name, over all its shards. Close it, or use it in a ``with`` block."""

    def __init__(self, source: FileSource, opened: OpenedFile, recipient: RecipientPrivateKey) -> None:
        self._source: FileSource | None = source
        self._opened = opened
        manifest = opened.envelope.manifest
        shards = opened.parts[: len(manifest.shards)]
        self._tensors = {
            spec.name: LazyTensor(spec=spec, _model=self, _part=part) for part in shards for spec in part.table.tensors
        }
        if len(self._tensors) != sum(len(part.table.tensors) for part in shards):
            source.close()
            raise InputError("model: two shards hold a tensor of the same name")
        self._shards = shards
        self.model_id = manifest.model_id
        self.version = manifest.version
        self.event = ModelOpened(
            file=manifest.file_id, signer=manifest.signer, recipient=recipient.key_id, version=manifest.version
        )

    def __getitem__(self, name: str) -> LazyTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __enter__(self) -> SealedModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<SealedModel {self.model_id!r} version {self.version}, {len(self)} tensors>"

    def rows(self, name: str, start: int, stop: int) -> ndarray:
        """:meth:`LazyTensor.rows` of the tensor called ``name``."""
        return self[name].rows(start, stop)

    def load_numpy(self) -> dict[str, ndarray]:
        """All tensors, views of one buffer a shard, every chunk checked before anything is handed out.

        Raises:
            IntegrityError: names the chunk that was altered; what was decrypted is wiped.
            InputError: a tensor's elements have no NumPy type, or the model is closed.
            MissingExtra: a type needs ``ml_dtypes``, which is not installed.
        """
        dtypes = {spec.dtype: numpy_dtype(spec.dtype) for part in self._shards for spec in part.table.tensors}
        buffers: list[memoryview] = []
        try:
            for part in self._shards:
                buffers.append(fresh_memory(part.chunks.data_bytes))
                self._decrypt(part, range(len(part.chunks)), buffers[-1])
        except BaseException:
            for buffer in buffers:
                reading.wipe(buffer)
            raise
        return {
            spec.name: np.frombuffer(buffer[spec.begin : spec.end], dtype=dtypes[spec.dtype]).reshape(spec.shape)
            for part, buffer in zip(self._shards, buffers, strict=True)
            for spec in part.table.tensors
        }

    def close(self) -> None:
        """Give the file back. Tensors already loaded stay."""
        if self._source is not None:
            self._source.close()
            self._source = None

    def _bytes(self, part: OpenedPart, begin: int, end: int) -> bytearray:
        counters = part.chunks.overlapping(begin, end)
        if not counters:
            return bytearray()
        first, last = part.chunks[counters[0]], part.chunks[counters[-1]]
        whole = bytearray(last.begin + last.length - first.begin)
        self._decrypt(part, counters, memoryview(whole))
        del whole[end - first.begin :]
        del whole[: begin - first.begin]
        return whole

    def _decrypt(self, part: OpenedPart, counters: range, out: memoryview) -> None:
        if self._source is None:
            raise InputError("model: is closed")
        reading.decrypt_into(self._opened, part, counters, out)


def open_model(
    path: StrPath, *, identity: RecipientPrivateKey, signer: SignerPublicKey, min_version: int | None = None
) -> SealedModel:
    """The tensors of a sealed model, once its signature, key, header, table and index have been checked.

    Raises:
        InputError: ``path`` is not a sealed model, or two of its shards hold a tensor of the same name.
        IntegrityError: names the part of the file that was altered, or an older version.
        KeyMismatch: not sealed to ``identity``, or not signed by ``signer``.
    """
    source = FileSource(Path(path))
    try:
        envelope = opening.read_verified(source, signer=signer, min_version=min_version)
        opened = opening.open_file(source, envelope, identity)
    except BaseException:
        source.close()
        raise
    return SealedModel(source, opened, identity)


def fresh_memory(count: int) -> memoryview:
    """``count`` zero bytes in pages of their own, in large pages and out of core dumps where the system can."""
    if count == 0:
        return memoryview(bytearray())
    # Private: Python's default is shared memory, which Linux gives out in small pages whatever it is advised.
    pages = mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for advice in (mmap.MADV_DONTDUMP, mmap.MADV_HUGEPAGE):
        with contextlib.suppress(OSError):  # advice: a kernel without large pages is only slower
            pages.madvise(advice)
    return memoryview(pages)
