"""A sealed model in memory: tensors by name, each decrypted when it is asked for, no plaintext on any disk."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from numpy import ndarray

from mibao.codec.tensor_table import TensorSpec
from mibao.crypto.keys import SignerPublicKey
from mibao.errors import InputError
from mibao.events import ModelOpened
from mibao.sealed import opening, reading, store
from mibao.sealed.memory import SecretPages, fresh_memory
from mibao.sealed.numpy_types import numpy_dtype
from mibao.sealed.opening import OpenedFile, OpenedPart
from mibao.sealed.recipients import Identity
from mibao.sealed.source_places import ClosingSource, ModelPlace, open_place
from mibao.sealed.state_file import VersionState
from mibao.types import RandomId


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

    def raw(self) -> memoryview:
        """Its bytes, every chunk checked, in memory that is wiped once the last view of it is gone.

        Raises:
            IntegrityError: a chunk of it was altered.
            InputError: the model is closed.
        """
        return self._model._bytes(self._part, self.spec.begin, self.spec.end)

    def numpy(self) -> ndarray:
        """The tensor, in memory of its own that is wiped once the last view of it is gone.

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
    """The tensors of an open sealed model by name, over all its shards. Close it, or use it in a ``with`` block.

    ``signer`` is the id of the pinned key that signed it, None if nobody's signature was checked.
    """

    def __init__(self, source: ClosingSource, opened: OpenedFile, *, signer: SignerPublicKey | None) -> None:
        self._source: ClosingSource | None = source
        self._opened = opened
        manifest = opened.envelope.manifest
        shards = opened.parts[: len(manifest.shards)]
        self._tensors = {
            spec.name: LazyTensor(spec=spec, _model=self, _part=part) for part in shards for spec in part.table.tensors
        }
        if len(self._tensors) != sum(len(part.table.tensors) for part in shards):
            raise InputError("model: two shards hold a tensor of the same name")
        self._shards = shards
        self._handed_out: weakref.WeakSet[SecretPages] = weakref.WeakSet()
        self._recipient = opened.recipient
        self.signer: RandomId | None = None if signer is None else signer.key_id
        self.model_id = manifest.model_id
        self.version = manifest.version

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
        try:
            self.close()
        except InputError:  # arrays live in the frames of the error on its way, which says more
            if error is None:
                raise

    def __repr__(self) -> str:
        return f"<SealedModel {self.model_id!r} version {self.version}, {len(self)} tensors>"

    @property
    def opened(self) -> OpenedFile:
        """The open file beneath, for loaders into other libraries' tensors. Raises ``InputError`` once it is closed."""
        if self._source is None:
            raise InputError("model: is closed")
        return self._opened

    @property
    def event(self) -> ModelOpened:
        """The record of the opening for a ledger. Raises ``InputError`` if nobody's signature was checked."""
        if self.signer is None:
            raise InputError("model: opened without a signer, so there is no opening to vouch for")
        manifest = self._opened.envelope.manifest
        return ModelOpened(
            file=manifest.file_id, signer=self.signer, recipient=self._recipient, version=manifest.version
        )

    def new_memory(self, count: int) -> memoryview:
        """``count`` zero bytes for tensors of this model: :meth:`close` answers for them."""
        memory = fresh_memory(count)
        if isinstance(memory.obj, SecretPages):
            self._handed_out.add(memory.obj)
        return memory

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
                buffers.append(self.new_memory(part.chunks.data_bytes))
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
        """Give the file back; once this returns, all memory that held decrypted tensors has been wiped.

        Raises:
            InputError: arrays or views of tensors live. The file is closed and they stay as they are; let go of them,
                which wipes them, and close again to be sure.
        """
        if self._source is not None:
            self._source.close()
            self._source = None
        in_use = 0
        for pages in list(self._handed_out):
            try:
                pages.close()
            except InputError:
                in_use += 1
        if in_use:
            raise InputError(
                f"model: {in_use} of its buffers are still in use: let go of every array and view of them (del), "
                "then close it again"
            )

    def _bytes(self, part: OpenedPart, begin: int, end: int) -> memoryview:
        counters = part.chunks.overlapping(begin, end)
        if not counters:
            return fresh_memory(0)
        first, last = part.chunks[counters[0]], part.chunks[counters[-1]]
        whole = self.new_memory(last.begin + last.length - first.begin)
        self._decrypt(part, counters, whole)
        return whole[begin - first.begin : end - first.begin]

    def _decrypt(self, part: OpenedPart, counters: range, out: memoryview) -> None:
        if self._source is None:
            raise InputError("model: is closed")
        reading.decrypt_into(self._opened, part, counters, out)


def open_model(
    path: ModelPlace,
    *,
    identity: Identity,
    signer: SignerPublicKey,
    min_version: int | None = None,
    state: VersionState | None = None,
) -> SealedModel:
    """The tensors of a sealed model, once its signature, key, header, table and index have been checked.

    Args:
        min_version: Refuse a lower version.
        state: Refuse what is older than, or another model than, the version opened before; advanced by this call.
            None keeps and asks no state.

    Raises:
        InputError: ``path`` is not a sealed model, or two of its shards hold a tensor of the same name.
        IntegrityError: names the part of the file that was altered, or a version refused.
        KeyMismatch: not sealed to ``identity``, or not signed by ``signer``.
    """
    source = open_place(path)
    try:
        opened = store.open_file(source, identity=identity, signer=signer, min_version=min_version, state=state)
        model = SealedModel(source, opened, signer=signer)
        store.record(state, opened)
    except BaseException:
        source.close()
        raise
    return model


def open_model_from_anyone(path: ModelPlace, *, identity: Identity) -> SealedModel:
    """The tensors of a sealed model, whoever made it: **its signature is not checked, not even against itself**.

    The file names its signer by an id and does not hold the key that could check the signature; if it did, a forger
    would put in their own. Chunks are checked against the file's own index, so damage shows. Whoever knows the public
    key of ``identity`` can have made all of it, and any recipient of a genuine file can have altered it. The model's
    name and version are claims, no version is refused, and there is no :attr:`SealedModel.event`. For looking at a
    file whose signer's key is lost; to run a model, pin its signer with :func:`open_model`.

    Raises:
        InputError: ``path`` is not a sealed model, or two of its shards hold a tensor of the same name.
        IntegrityError: names the part of the file that does not fit the others.
        KeyMismatch: not sealed to ``identity``.
    """
    source = open_place(path)
    try:
        opened = opening.open_file(source, opening.read_unverified(source), identity)
        return SealedModel(source, opened, signer=None)
    except BaseException:
        source.close()
        raise
