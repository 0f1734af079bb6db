"""Sealed models straight into an existing PyTorch module: no second copy of the weights, and all of them or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from mibao.crypto.keys import SignerPublicKey
from mibao.errors import InputError, IntegrityError
from mibao.sealed import torch_tensors
from mibao.sealed.model import open_model
from mibao.sealed.opening import OpenedFile
from mibao.sealed.recipients import Identity
from mibao.sealed.source_places import ModelPlace
from mibao.sealed.state_file import VersionState
from mibao.sealed.torch_tensors import Place, Slice, Wanted

if TYPE_CHECKING:
    import torch
    from torch import Tensor

HALF_LOADED = "module: a sealed model was not loaded into all of it; it refuses to run"
_SHOWN = 4


def load_into(
    module: torch.nn.Module,
    path: ModelPlace,
    *,
    identity: Identity,
    signer: SignerPublicKey,
    min_version: int | None = None,
    state: VersionState | None = None,
    slices: Mapping[str, Slice] | None = None,
) -> None:
    """Decrypt a sealed model into the parameters and buffers of ``module``, on whichever devices they are.

    Names, shapes and data types must be those of ``module.state_dict()``; of tensors that the module shares under
    several names the file may hold one or all. If this raises, whatever it may be, what was written is wiped and the
    module and all modules in it refuse to run until a later call succeeds.

    Args:
        slices: For parameters that hold ``(dimension, start, stop)`` of the file's tensor.

    Raises:
        InputError: not a sealed model, or one of other names, shapes or data types.
        IntegrityError: names the part of the file that was altered.
        KeyMismatch: not sealed to ``identity``, or not signed by ``signer``.
        MissingExtra: PyTorch is not installed.
    """
    torch = torch_tensors.import_torch()
    with (
        refusing_until_done(module),
        open_model(path, identity=identity, signer=signer, min_version=min_version, state=state) as model,
        torch.no_grad(),
    ):
        _fill(model.opened, module, slices or {})


def _fill(opened: OpenedFile, module: torch.nn.Module, slices: Mapping[str, Slice]) -> None:
    torch = torch_tensors.import_torch()
    wanted = {each.spec.name: each for each in torch_tensors.wanted_tensors(opened, slices)}
    held = {name: each for name, each in module.state_dict(keep_vars=True).items() if isinstance(each, torch.Tensor)}
    _check_names(wanted, held)
    places: list[Place] = []
    direct: dict[int, Tensor] = {}
    copies: list[tuple[Tensor, Tensor]] = []
    repeats: list[tuple[str, Tensor, Tensor]] = []
    for name, each in wanted.items():
        tensor = held[name]
        _check_kind(each, tensor)
        target = _flat_bytes(tensor) if tensor.is_contiguous() else _flat_bytes(torch.empty_like(tensor).contiguous())
        if id(tensor) in direct:
            target = torch.empty_like(target)
            repeats.append((name, direct[id(tensor)], target))
        else:
            direct[id(tensor)] = target
            if not tensor.is_contiguous():
                copies.append((tensor, target))
        places.append((each, target))
    torch_tensors.fill(opened, places)
    try:
        for name, first, second in repeats:
            if not torch.equal(first, second):
                raise InputError(f"tensor {name!r}: the module shares it with another, and the file's two differ")
        for tensor, target in copies:
            tensor.copy_(target.view(tensor.dtype).reshape(tensor.shape))
    except BaseException:
        for _, target in places:
            target.zero_()
        raise


def _check_names(wanted: Mapping[str, Wanted], held: Mapping[str, Tensor]) -> None:
    unknown = [name for name in wanted if name not in held]
    if unknown:
        raise InputError(f"module: has no {_listed(unknown)}")
    present = {id(held[name]) for name in wanted}
    missing = [name for name, tensor in held.items() if id(tensor) not in present]
    if missing:
        raise InputError(f"model: has no {_listed(missing)}, which the module needs")


def _check_kind(wanted: Wanted, tensor: Tensor) -> None:
    name = wanted.spec.name
    if tensor.is_meta:
        raise InputError(f"tensor {name!r}: the module has no memory for it (meta device): call to_empty first")
    if tuple(tensor.shape) != wanted.shape:
        raise InputError(f"tensor {name!r}: expected shape {tuple(tensor.shape)}, the file's is {wanted.shape}")
    if tensor.dtype != torch_tensors.torch_dtype(wanted.spec.dtype):
        raise InputError(f"tensor {name!r}: expected {tensor.dtype}, the file's is {wanted.spec.dtype}")


def _flat_bytes(tensor: Tensor) -> Tensor:
    torch = torch_tensors.import_torch()
    return tensor.detach().reshape(-1).view(torch.uint8)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(name) for name in names[:_SHOWN]) + more


class _Refusal:
    """Stands in for a module's ``forward`` and remembers the one that an instance had of its own."""

    def __init__(self, own: Any) -> None:
        self.own = own

    def __call__(self, *_: object, **__: object) -> NoReturn:
        raise IntegrityError(HALF_LOADED)


@contextmanager
def refusing_until_done(module: torch.nn.Module) -> Iterator[None]:
    """Every module in ``module`` refuses to run from here on, unless the block ends well."""
    each: Any
    for each in module.modules():
        own = vars(each).get("forward")
        if not isinstance(own, _Refusal):
            each.forward = _Refusal(own)
    yield
    for each in module.modules():
        refusal = vars(each)["forward"]
        del each.forward
        if refusal.own is not None:
            each.forward = refusal.own
