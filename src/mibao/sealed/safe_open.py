"""Sealed models behind the interface of ``safetensors.safe_open``: for code that reads checkpoints tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np

from mibao.codec import tensor_table
from mibao.codec.tensor_table import TensorSpec
from mibao.crypto.keys import SignerPublicKey
from mibao.errors import InputError
from mibao.sealed import reading, torch_tensors
from mibao.sealed.memory import fresh_memory
from mibao.sealed.model import open_model
from mibao.sealed.numpy_types import numpy_dtype
from mibao.sealed.opening import OpenedFile, OpenedPart
from mibao.sealed.recipients import Identity
from mibao.sealed.source_places import ModelPlace
from mibao.sealed.state_file import VersionState

_FRAMEWORKS = {"pt": "pt", "torch": "pt", "pytorch": "pt", "np": "np", "numpy": "np"}

Rows: TypeAlias = tuple[int, int] | None
"""The rows wanted, from one to before another; None for the whole tensor."""


class safe_open:  # noqa: N801  # the name that is replaced
    """A sealed model's tensors by name, each decrypted when it is asked for, in memory of its own.

    Takes what ``safetensors.safe_open`` takes and the keys besides. All shards of a checkpoint are one model here.

    Raises:
        InputError: not a sealed model, or a framework or device that there is not.
        IntegrityError: names the part of the file that was altered; tensors raise it when theirs was.
        KeyMismatch: not sealed to ``identity``, or not signed by ``signer``.
        MissingExtra: the framework is not installed.

    Source: the safetensors library, https://huggingface.co/docs/safetensors.
    """

    def __init__(
        self,
        filename: ModelPlace,
        framework: str,
        device: str | int = "cpu",
        *,
        identity: Identity,
        signer: SignerPublicKey,
        min_version: int | None = None,
        state: VersionState | None = None,
    ) -> None:
        if framework not in _FRAMEWORKS:
            raise InputError(f"framework: expected one of {', '.join(_FRAMEWORKS)}, got {framework!r}")
        self._framework = _FRAMEWORKS[framework]
        if self._framework == "pt":
            torch_tensors.import_torch()
        elif device != "cpu":
            raise InputError(f"device: NumPy has only cpu, got {device!r}")
        self._device = f"cuda:{device}" if isinstance(device, int) else device
        self._model = open_model(filename, identity=identity, signer=signer, min_version=min_version, state=state)
        shards = self._model.opened.parts[: len(self._model.opened.envelope.manifest.shards)]
        self._shards = shards
        self._places: Mapping[str, tuple[OpenedPart, TensorSpec]] = {
            spec.name: (part, spec) for part in shards for spec in part.table.tensors
        }

    def __enter__(self) -> safe_open:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._model.close()

    def keys(self) -> list[str]:
        """The tensors' names, sorted."""
        return sorted(self._places)

    def offset_keys(self) -> list[str]:
        """The tensors' names in the order of their bytes, shard after shard."""
        return list(self._places)

    def metadata(self) -> dict[str, str] | None:
        """The shards' own metadata, a later shard's over an earlier one's; None if they have none."""
        found: dict[str, str] = {}
        for part in self._shards:
            if part.table.header:
                found |= tensor_table.parse(part.table.header).metadata
        return found or None

    def get_tensor(self, name: str) -> Any:
        """The tensor called ``name``, every chunk of it checked. Raises ``InputError`` if there is none."""
        part, spec = self._place(name)
        return _load(self._model.opened, part, spec, None, framework=self._framework, device=self._device)

    def get_tensors(self) -> dict[str, Any]:
        """Every tensor by name."""
        return {name: self.get_tensor(name) for name in self._places}

    def get_slice(self, name: str) -> SealedSlice:
        """The tensor called ``name`` to be indexed: of rows that follow one another, only their chunks are decrypted.

        Raises:
            InputError: there is no such tensor.
        """
        part, spec = self._place(name)
        return SealedSlice(self._model.opened, part, spec, self._framework, self._device)

    def _place(self, name: str) -> tuple[OpenedPart, TensorSpec]:
        if name not in self._places:
            raise InputError(f"model: has no tensor {name!r}")
        return self._places[name]


class SealedSlice:
    """A tensor that is decrypted as far as it is indexed."""

    def __init__(self, opened: OpenedFile, part: OpenedPart, spec: TensorSpec, framework: str, device: str) -> None:
        self._opened, self._part, self._spec = opened, part, spec
        self._framework, self._device = framework, device

    def get_shape(self) -> list[int]:
        """Its shape."""
        return list(self._spec.shape)

    def get_dtype(self) -> str:
        """Its data type, by the name that safetensors has for it."""
        return self._spec.dtype

    def __getitem__(self, index: Any) -> Any:
        first, rest = (index[0], index[1:]) if isinstance(index, tuple) and index else (index, ())
        rows, kept = _rows(first, self._spec.shape)
        found = _load(self._opened, self._part, self._spec, rows, framework=self._framework, device=self._device)
        indexed = found[(kept, *rest)]
        return indexed if self._framework == "pt" else np.asarray(indexed)


def _rows(index: Any, shape: tuple[int, ...]) -> tuple[Rows, Any]:
    """Which rows an index along the first dimension needs, and what to take of them; None for all rows."""
    if shape and isinstance(index, slice):
        start, stop, step = index.indices(shape[0])
        if step > 0:
            return (start, max(start, stop)), slice(None, None, step)
    if shape and isinstance(index, int) and not isinstance(index, bool) and -shape[0] <= index < shape[0]:
        row = index % shape[0]
        return (row, row + 1), 0
    return None, index


def _load(opened: OpenedFile, part: OpenedPart, spec: TensorSpec, rows: Rows, *, framework: str, device: str) -> Any:
    wanted = torch_tensors.cut(part, spec, None if rows is None else (0, *rows))
    if framework == "pt":
        return torch_tensors.load_wanted(opened, [wanted], device=device)[0]
    dtype = numpy_dtype(spec.dtype)
    memory = fresh_memory(wanted.nbytes)
    reading.decrypt_range(opened, part, wanted.begin, memory)
    return np.frombuffer(memory, dtype=dtype).reshape(wanted.shape)
