"""A PyTorch module as a federated model: the user's own, unchanged.

A cohort is trained in one of three ways that give the same result. Written out: the layers of a group of clients as
batched kernels, forward and backward (:mod:`mibao.federated.written_out`), where every layer has one. Functional: a
group at once through ``torch.func``. Loop: one client after the other, as anyone would write it.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Num
from numpy import ndarray
from torch import nn

from mibao.codec import canonical
from mibao.errors import InputError
from mibao.federated.local_training import LocalTraining, LocalWork, Trained, check_works, in_groups
from mibao.federated.records import Records
from mibao.federated.torch_engines import Functional, Loop, LossFunction
from mibao.federated.written_out import NotWrittenOut, WrittenOut

_GROUP_BYTES = 5 << 20
_MOST_TOGETHER = 64
_EVALUATED_TOGETHER = 1024


class TorchEngine(Enum):
    """How a cohort is trained; AUTO takes the first of the other three that can."""

    AUTO = "auto"
    WRITTEN_OUT = "written-out"
    FUNCTIONAL = "functional"
    LOOP = "loop"


class TorchModel:
    """``module`` with its ``loss``; parameters that need a gradient are trained, the others are everybody's.

    Args:
        module: The module, or what makes one when called (it is called once). It is copied.
        loss: ``loss(outputs, targets)``, the mean over a batch, such as ``torch.nn.functional.cross_entropy``.
        engine: How a cohort is trained.
        device: Where; ``"cpu"`` or a CUDA device.

    Raises:
        InputError: it is no module, nothing in it is trained, its numbers are not 32-bit floats, or it keeps running
            statistics of its batches, which would give records away and have no mean over clients.
    """

    def __init__(
        self, module: Any, *, loss: LossFunction, engine: TorchEngine = TorchEngine.AUTO, device: str = "cpu"
    ) -> None:
        made = copy.deepcopy(module) if isinstance(module, nn.Module) else module()
        if not isinstance(made, nn.Module) or not callable(loss):
            raise InputError(f"task: expected a PyTorch module and a loss, got {type(made).__name__}")
        self._module, self._loss, self._device = made.to(device), loss, device
        self._wanted = engine
        self._named = {name: each for name, each in made.named_parameters() if each.requires_grad}
        _check_module(made, self._named)
        self._size = sum(each.numel() for each in self._named.values())
        self._initial = torch.cat([each.detach().reshape(-1) for each in self._named.values()]).cpu().double().numpy()
        self._tried = False
        self._classes: dict[Any, int | None] = {}
        self._engine = self._choose(engine)

    def __reduce__(self) -> tuple[Any, ...]:
        """Anew from the module: a traced graph does not travel."""
        return _made_anew, (self._module, self._loss, self._wanted, self._device)

    @property
    def size(self) -> int:
        """How many weights are trained."""
        return int(self._size)

    @property
    def engine(self) -> TorchEngine:
        """How a cohort is trained."""
        return {WrittenOut: TorchEngine.WRITTEN_OUT, Functional: TorchEngine.FUNCTIONAL}.get(
            type(self._engine), TorchEngine.LOOP
        )

    def initial(self) -> Float64[ndarray, "weights"]:
        """The module's own weights."""
        return np.array(self._initial)

    def describe(self) -> dict[str, canonical.Value]:
        """The kind and layers of the module, its loss, and the weights that training starts from."""
        layers = [f"{name}:{type(each).__name__}" for name, each in self._module.named_modules()]
        frozen = hashlib.sha256()
        for name, each in sorted(self._module.state_dict().items()):
            frozen.update(name.encode() + str(tuple(each.shape)).encode())
            frozen.update(each.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return {
            "type": type(self._module).__name__,
            "layers": hashlib.sha256("\n".join(layers).encode()).hexdigest(),
            "tensors": frozen.hexdigest(),
            "loss": getattr(self._loss, "__name__", type(self._loss).__name__),
        }

    def check(self, records: Records) -> None:
        """Raises ``InputError`` where the module or the loss cannot take a record of this shape."""
        if records.features.dtype == np.float64:
            raise InputError("expected features as 32-bit floats, or as whole numbers, got 64-bit floats")
        kind = (records.features.shape[1:], records.features.dtype, records.targets.shape[1:], records.targets.dtype)
        if kind not in self._classes:
            self._classes[kind] = self._classes_of(records)
        classes = self._classes[kind]
        # A class out of range would end the whole process in some kernels.
        if classes is not None and not (records.targets.min() >= 0 and records.targets.max() < classes):
            raise InputError(f"expected classes of 0 to {classes - 1}, got another")

    def train(
        self, weights: Float64[ndarray, "weights"], works: Sequence[LocalWork], local: LocalTraining
    ) -> Iterator[Trained]:
        """Local training. Raises ``InputError`` as :meth:`Model.train`."""
        check_works(works)
        self._try_out(weights, works, local)
        together = 1 if isinstance(self._engine, Loop) else self._together()
        for places in in_groups(works, size=together):
            group = [works[place] for place in places]
            with _one_thread():
                moved = self._engine.train(weights.astype(np.float32), group, local)
            yield Trained(places=places, moved=moved)

    def gradients(self, weights: Float64[ndarray, "weights"], records: Records) -> Float64[ndarray, "records weights"]:
        """A record's gradient is how far a client with that record alone goes in one step.

        One record after the other: in batched kernels a record's rounding depends on its place beside others.
        """
        loop = Loop(self._module, self._named, self._loss, device=self._device)
        one_step = LocalTraining(lr=1.0, batch=1)
        start, visit = weights.astype(np.float32), np.zeros((1, 1), dtype=np.int64)
        rows = np.empty((len(records), self.size))
        with _one_thread():
            for place in range(len(records)):
                work = LocalWork(client=place, records=_single(records, place), visits=visit)
                rows[place] = -loop.train(start, [work], one_step)[0]
        return rows

    def evaluate(self, weights: Float64[ndarray, "weights"], records: Records) -> dict[str, float]:
        """``loss`` and, where targets are classes, ``accuracy``, over a module in evaluation mode."""
        module = self._evaluating()
        total, right, count = 0.0, 0, 0
        classes = records.targets.dtype == np.int64
        with _one_thread(), torch.no_grad(), _holding(self._named, self._split(weights)):
            for begin in range(0, len(records), _EVALUATED_TOGETHER):
                part = slice(begin, begin + _EVALUATED_TOGETHER)
                features, targets = self._tensors(records.features[part], records.targets[part])
                outputs = module(features)
                total += float(self._loss(outputs, targets)) * len(features)
                if classes and outputs.ndim == targets.ndim + 1:
                    right += int((outputs.argmax(1) == targets).sum())
                    count += targets.numel()
        found = {"loss": total / len(records)}
        return found | ({"accuracy": right / count} if count else {})

    def tensors(self, weights: Float64[ndarray, "weights"]) -> Mapping[str, Num[ndarray, "..."]]:
        """The trained parameters, as ``state_dict`` names them."""
        return {name: tensor.cpu().numpy() for name, tensor in self._split(weights).items()}

    def export(self, weights: Float64[ndarray, "weights"]) -> object:
        """A copy of the module with these weights, in evaluation mode."""
        made = copy.deepcopy(self._module).cpu().eval()
        with torch.no_grad():
            for name, tensor in self._split(weights).items():
                made.get_parameter(name).copy_(tensor)
        return made

    def _try_out(self, weights: Float64[ndarray, "weights"], works: Sequence[LocalWork], local: LocalTraining) -> None:
        """Before the first cohort: two clients take one step both ways. A module that mixes records shows here."""
        if self._tried or isinstance(self._engine, Loop) or len(works) < 2:
            return
        loop = Loop(self._module, self._named, self._loss, device=self._device)
        start, one_step = weights.astype(np.float32), LocalTraining(lr=local.lr)
        group = [replace(work, visits=work.visits[:1], start=None, correction=None) for work in works[:2]]
        with _one_thread():
            theirs = loop.train(start, group, one_step)
            ours = self._engine.train(start, group, one_step)
        drawn = isinstance(self._engine, Functional) and _draws(self._module)
        if not drawn and not np.allclose(ours, theirs, rtol=1e-2, atol=1e-4 * float(np.abs(theirs).max()) + 1e-9):
            self._engine = loop
        self._tried = True

    def _together(self) -> int:
        """As many clients as fit the cache."""
        activations = self._engine.activation_bytes if isinstance(self._engine, WrittenOut) else 0
        return max(1, min(_MOST_TOGETHER, int(_GROUP_BYTES // (4 * self._size + activations))))

    def _choose(self, wanted: TorchEngine) -> WrittenOut | Functional | Loop:
        if wanted in (TorchEngine.AUTO, TorchEngine.WRITTEN_OUT):
            try:
                return WrittenOut(self._module, self._named, self._loss, device=self._device)
            except NotWrittenOut as error:
                if wanted is TorchEngine.WRITTEN_OUT:
                    raise InputError(f"task: the engine 'written-out' cannot take this module: {error}") from error
        if wanted is TorchEngine.FUNCTIONAL or (wanted is TorchEngine.AUTO and not _draws(self._module)):
            return Functional(self._module, self._named, self._loss, device=self._device)
        return Loop(self._module, self._named, self._loss, device=self._device)

    def _evaluating(self) -> nn.Module:
        return self._module.eval()

    def _split(self, weights: Float64[ndarray, "weights"]) -> dict[str, torch.Tensor]:
        flat = torch.from_numpy(weights.astype(np.float32)).to(self._device)
        sizes = [each.numel() for each in self._named.values()]
        parts = zip(self._named.items(), flat.split(sizes), strict=True)
        return {name: part.view(each.shape) for (name, each), part in parts}

    def _tensors(
        self, features: Num[ndarray, "records ..."], targets: Num[ndarray, "records ..."]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return tuple(torch.from_numpy(np.array(part)).to(self._device) for part in (features, targets))

    def _classes_of(self, records: Records) -> int | None:
        """How many classes the outputs tell apart, where the targets are classes; from one record."""
        features, targets = self._tensors(records.features[:1], records.targets[:1])
        classes = None
        try:
            with _one_thread(), torch.no_grad():
                outputs = self._evaluating()(features)
                if records.targets.dtype == np.int64 and outputs.ndim == targets.ndim + 1:
                    classes = int(outputs.shape[1])
                loss = self._loss(outputs, targets.clamp(0, classes - 1) if classes else targets)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise InputError(
                f"the module cannot take records of shape {records.features.shape[1:]} and type "
                f"{records.features.dtype} with targets of {records.targets.dtype} ({type(error).__name__})"
            ) from error
        if loss.numel() != 1:
            raise InputError("expected a loss that is one number, the mean over a batch")
        return classes


def _made_anew(module: nn.Module, loss: LossFunction, engine: TorchEngine, device: str) -> TorchModel:
    return TorchModel(module, loss=loss, engine=engine, device=device)


def _single(records: Records, place: int) -> Records:
    held = object.__new__(Records)  # a view: the records were checked, and their copies would be slow
    object.__setattr__(held, "features", records.features[place : place + 1])
    object.__setattr__(held, "targets", records.targets[place : place + 1])
    return held


@contextmanager
def _one_thread() -> Iterator[None]:
    """Small models run fastest on one thread; the caller's number comes back."""
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _holding(named: Mapping[str, nn.Parameter], tensors: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """The module's own parameters replaced for a while."""
    before = {name: each.data for name, each in named.items()}
    try:
        for name, each in named.items():
            each.data = tensors[name]
        yield
    finally:
        for name, each in named.items():
            each.data = before[name]


def _draws(module: nn.Module) -> bool:
    """Whether it draws by chance when it trains."""
    return any(isinstance(each, nn.modules.dropout._DropoutNd) and each.p > 0 for each in module.modules())


def _check_module(module: nn.Module, named: Mapping[str, nn.Parameter]) -> None:
    if not named:
        raise InputError("task: expected a module with parameters to train, got one without")
    for name, each in named.items():
        if each.dtype != torch.float32:
            raise InputError(f"task: expected 32-bit floats as parameters, got {each.dtype} in {name}")
    for name, layer in module.named_modules():
        if isinstance(layer, nn.modules.batchnorm._NormBase) and layer.track_running_stats:
            raise InputError(
                f"task: {name} keeps running statistics of its batches; use GroupNorm or LayerNorm, or "
                "track_running_stats=False"
            )
