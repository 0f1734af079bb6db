"""Sealed models as PyTorch tensors: views of one buffer, on any device, whole or in slices.

PyTorch is imported when it is needed, so that importing this module stays cheap.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from mibao.codec.tensor_table import TensorSpec
from mibao.crypto.keys import SignerPublicKey
from mibao.errors import InputError, MissingExtra
from mibao.sealed import reading
from mibao.sealed.memory import fresh_memory
from mibao.sealed.model import open_model
from mibao.sealed.opening import OpenedFile, OpenedPart
from mibao.sealed.reading import Piece
from mibao.sealed.recipients import Identity
from mibao.sealed.source_places import ModelPlace
from mibao.sealed.state_file import VersionState

if TYPE_CHECKING:
    import torch

ALIGNMENT = 64
"""Where a tensor may begin in its buffer, in bytes; PyTorch's own allocator gives the same."""
STAGING_BYTES = 1 << 26
SCRATCH_BYTES = 1 << 24

Slice: TypeAlias = tuple[int, int, int]
"""``(dimension, start, stop)``: the part of a tensor that one rank of a tensor-parallel group holds."""

_TORCH: Mapping[str, str] = MappingProxyType(
    {
        "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "U16": "uint16", "F16": "float16",
        "BF16": "bfloat16", "I32": "int32", "U32": "uint32", "F32": "float32", "I64": "int64", "U64": "uint64",
        "F64": "float64", "C64": "complex64", "F8_E5M2": "float8_e5m2", "F8_E4M3": "float8_e4m3fn",
        "F8_E8M0": "float8_e8m0fnu", "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A tensor to be loaded, or the slice of it that is wanted; ``shape`` is what comes out."""

    part: OpenedPart
    spec: TensorSpec
    cut: Slice | None
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of what comes out."""
        whole = math.prod(self.spec.shape)
        return self.spec.nbytes * math.prod(self.shape) // whole if whole else 0

    @property
    def contiguous(self) -> bool:
        """Whether its bytes stand next to one another in the part."""
        return self.cut is None or self.cut[0] == 0

    @property
    def begin(self) -> int:
        """Where its bytes begin in the part, if they are contiguous."""
        if self.cut is None or not self.spec.nbytes:
            return self.spec.begin
        return self.spec.begin + self.cut[1] * (self.spec.nbytes // self.spec.shape[0])


Place: TypeAlias = "tuple[Wanted, torch.Tensor]"
"""What is wanted, and the flat ``uint8`` tensor of as many bytes that takes it."""


def load_torch(
    path: ModelPlace,
    *,
    identity: Identity,
    signer: SignerPublicKey,
    min_version: int | None = None,
    state: VersionState | None = None,
    device: str = "cpu",
    slices: Mapping[str, Slice] | None = None,
) -> dict[str, torch.Tensor]:
    """All tensors of a sealed model, views of one buffer on ``device``, every chunk checked before any is handed out.

    On the CPU chunks are decrypted into the buffer itself; elsewhere they go by way of two pinned buffers, which are
    wiped. Tensors begin at multiples of 64 bytes. The buffer lives as long as any of them.

    Args:
        slices: For tensors of which only ``(dimension, start, stop)`` is wanted. Along dimension 0 only the chunks
            that the slice overlaps are read and decrypted.

    Raises:
        InputError: not a sealed model, a slice that does not fit, or a data type that PyTorch has not.
        IntegrityError: names the part of the file that was altered; what was decrypted is wiped.
        KeyMismatch: not sealed to ``identity``, or not signed by ``signer``.
        MissingExtra: PyTorch is not installed.
    """
    import_torch()
    with open_model(path, identity=identity, signer=signer, min_version=min_version, state=state) as model:
        return tensors(model.opened, device=device, slices=slices)


def tensors(opened: OpenedFile, *, device: str, slices: Mapping[str, Slice] | None = None) -> dict[str, torch.Tensor]:
    """:func:`load_torch` of a file that is open."""
    wanted = wanted_tensors(opened, slices or {})
    found = load_wanted(opened, wanted, device=device)
    return {each.spec.name: tensor for each, tensor in zip(wanted, found, strict=True)}


def load_wanted(opened: OpenedFile, wanted: Sequence[Wanted], *, device: str) -> list[torch.Tensor]:
    """Views of one buffer on ``device`` with what is wanted. Raises as :func:`load_torch`."""
    torch = import_torch()
    if torch.device(device).type == "meta":
        raise InputError("device: expected one with memory, got meta")
    dtypes = [torch_dtype(each.spec.dtype) for each in wanted]
    begins, total = [], 0
    for each in wanted:
        begins.append(total)
        total += -(-each.nbytes // ALIGNMENT) * ALIGNMENT
    base = _buffer(total, device)
    targets = [base[begin : begin + each.nbytes] for begin, each in zip(begins, wanted, strict=True)]
    fill(opened, list(zip(wanted, targets, strict=True)))
    return [target.view(dtype).reshape(each.shape) for each, target, dtype in zip(wanted, targets, dtypes, strict=True)]


def wanted_tensors(opened: OpenedFile, slices: Mapping[str, Slice]) -> list[Wanted]:
    """Every tensor of the shards in file order, those named in ``slices`` cut. Raises ``InputError`` if one cannot."""
    shards = opened.parts[: len(opened.envelope.manifest.shards)]
    found = [cut(part, spec, slices.get(spec.name)) for part in shards for spec in part.table.tensors]
    unknown = slices.keys() - {each.spec.name for each in found}
    if unknown:
        raise InputError(f"slices: the model has no tensor {min(unknown)!r}")
    return found


def cut(part: OpenedPart, spec: TensorSpec, wanted: Slice | None) -> Wanted:
    """A tensor, or the slice of it. Raises ``InputError`` if the slice is not within the tensor."""
    if wanted is None:
        return Wanted(part=part, spec=spec, cut=None, shape=spec.shape)
    dimension, start, stop = wanted
    if not 0 <= dimension < len(spec.shape) or not 0 <= start <= stop <= spec.shape[dimension]:
        raise InputError(f"slice {wanted} of {spec.name!r}: not within a tensor of shape {spec.shape}")
    shape = (*spec.shape[:dimension], stop - start, *spec.shape[dimension + 1 :])
    return Wanted(part=part, spec=spec, cut=wanted, shape=shape)


def torch_dtype(dtype: str) -> torch.dtype:
    """PyTorch's type with the same bytes. Raises ``InputError`` if it has none."""
    if dtype not in _TORCH:
        raise InputError(
            f"PyTorch has no type for {dtype}, whose elements are narrower than a byte: take its raw bytes"
        )
    found = getattr(import_torch(), _TORCH[dtype], None)
    if found is None:
        raise InputError(f"{dtype}: this PyTorch is too old to have {_TORCH[dtype]}")
    return found


def import_torch() -> Any:
    """PyTorch. Raises ``MissingExtra`` if it is not installed."""
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise MissingExtra("loading into PyTorch", extra="torch") from error


def fill(opened: OpenedFile, places: Sequence[Place]) -> None:
    """Decrypt each tensor into its place.

    Raises:
        IntegrityError: names the first chunk that failed; all places are wiped.
    """
    try:
        whole = [place for place in places if place[0].contiguous and place[0].nbytes]
        near = [place for place in whole if place[1].device.type == "cpu"]
        for part, group in groupby(near, key=lambda place: place[0].part):
            reading.decrypt_pieces(opened, part, [piece for place in group for piece in _pieces(*place)])
        far = [place for place in whole if place[1].device.type != "cpu"]
        if far:
            fill_staged(opened, far, staging_bytes=STAGING_BYTES)
        for wanted, target in places:
            if not wanted.contiguous and wanted.nbytes:
                _fill_columns(opened, wanted, target)
    except BaseException:
        for _, target in places:
            target.zero_()
        raise


def fill_staged(opened: OpenedFile, places: Sequence[Place], *, staging_bytes: int) -> None:
    """Decrypt into one of two staging buffers while the other is copied to the device; both are wiped at the end."""
    torch = import_torch()
    cuda = places[0][1].device.type == "cuda"
    size = max(min(staging_bytes, sum(place[0].nbytes for place in places)), opened.envelope.manifest.chunk_bytes)
    halves = [torch.empty(size, dtype=torch.uint8, pin_memory=cuda) for _ in range(2)]
    streams = [torch.cuda.current_stream(places[0][1].device) if cuda else None] * 2
    copied = [torch.cuda.Event() if cuda else None for _ in range(2)]
    try:
        for number, batch in enumerate(_batches(places, size)):
            half, event = halves[number % 2], copied[number % 2]
            if event is not None:
                event.synchronize()
            view = memoryview(half.numpy())
            for part, group in groupby(batch, key=lambda step: step[0]):
                pieces = [Piece(counter, skip, view[at : at + out.numel()]) for _, counter, skip, out, at in group]
                reading.decrypt_pieces(opened, part, pieces)
            for _, _, _, out, at in batch:
                out.copy_(half[at : at + out.numel()], non_blocking=True)
            if event is not None:
                event.record(streams[number % 2])
    finally:
        for half, event in zip(halves, copied, strict=True):
            if event is not None:
                event.synchronize()
            half.zero_()


_Step: TypeAlias = "tuple[OpenedPart, int, int, torch.Tensor, int]"


def _batches(places: Iterable[Place], size: int) -> Iterator[list[_Step]]:
    """Runs of chunks that fit in ``size`` bytes: part, chunk, skip, where it goes on the device, where in the run."""
    batch: list[_Step] = []
    used = 0
    for wanted, target in places:
        for counter, skip, begin, end in _overlaps(wanted):
            if used + end - begin > size:
                yield batch
                batch, used = [], 0
            batch.append((wanted.part, counter, skip, target[begin:end], used))
            used += end - begin
    if batch:
        yield batch


def _overlaps(wanted: Wanted) -> Iterator[tuple[int, int, int, int]]:
    return reading.overlaps(wanted.part, wanted.begin, wanted.begin + wanted.nbytes)


def _pieces(wanted: Wanted, target: torch.Tensor) -> Iterator[Piece]:
    view = memoryview(target.numpy())
    for counter, skip, begin, end in _overlaps(wanted):
        yield Piece(counter, skip, view[begin:end])


def _fill_columns(opened: OpenedFile, wanted: Wanted, target: torch.Tensor) -> None:
    """A slice along a later dimension: rows are decrypted whole, some at a time, and the wanted columns kept."""
    if wanted.cut is None:
        raise AssertionError("a whole tensor has no columns to choose")
    torch = import_torch()
    dimension, start, stop = wanted.cut
    rows = math.prod(wanted.spec.shape[:dimension])
    row_bytes = wanted.spec.nbytes // rows
    column_bytes = row_bytes // wanted.spec.shape[dimension]
    step = max(1, SCRATCH_BYTES // row_bytes)
    scratch = memoryview(bytearray(min(step, rows) * row_bytes))
    columns = target.view(rows, (stop - start) * column_bytes)
    try:
        for first in range(0, rows, step):
            count = min(step, rows - first)
            block = scratch[: count * row_bytes]
            begin = wanted.spec.begin + first * row_bytes
            reading.decrypt_range(opened, wanted.part, begin, block)
            kept = np.frombuffer(block, dtype=np.uint8).reshape(count, row_bytes)
            kept = kept[:, start * column_bytes : stop * column_bytes]
            columns[first : first + count].copy_(torch.from_numpy(np.ascontiguousarray(kept)))
    finally:
        reading.wipe(scratch)


def _buffer(count: int, device: str) -> torch.Tensor:
    torch = import_torch()
    if torch.device(device).type == "cpu" and count:
        return torch.frombuffer(fresh_memory(count), dtype=torch.uint8)  # large pages, out of core dumps
    return torch.empty(count, dtype=torch.uint8, device=device)
