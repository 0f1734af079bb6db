"""What a run needs to go on after a crash: one checkpoint a round, and a mark of the round that is under way.

A folder ``checkpoint/`` holds ``state.safetensors``, replaced whole after each round, and ``opened.json``, written
before a round begins. Whatever is killed when, the state is that of a whole round, and a round that was begun after
it is known by its number: with differential privacy it is charged, because what it sent may have been seen.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Num
from numpy import ndarray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mibao.errors import InputError, IntegrityError
from mibao.federated.uploads import Own

STATE, OPENED = "state.safetensors", "opened.json"
_VALUES = "values"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Saved:
    """A checkpoint: the server's arrays and values, and what each site kept."""

    arrays: Mapping[str, Num[ndarray, "..."]]
    values: Mapping[str, Any]
    owns: Mapping[int, Own]


class Journal:
    """The checkpoint of one run in ``folder``, made if it is not there.

    Args:
        folder: Where it lies.
        binding: What a run that goes on must have in common with the one that wrote the checkpoint.
    """

    def __init__(self, folder: Path, *, binding: Mapping[str, Any]) -> None:
        self._folder, self._binding = folder, dict(binding)
        folder.mkdir(parents=True, exist_ok=True)

    def opened(self, number: int) -> None:
        """Write down, durably, that a round begins."""
        self._replace(OPENED, json.dumps({"opened": [*self._opened(), number]}).encode())

    def closed(
        self,
        arrays: Mapping[str, Num[ndarray, "..."]],
        values: Mapping[str, Any],
        *,
        owns: Mapping[int, Own],
    ) -> None:
        """Write down, durably, what is left after a round."""
        tensors = {f"server.{name}": np.ascontiguousarray(array) for name, array in arrays.items()}
        for site, own in owns.items():
            tensors |= {f"site.{site}.{name}": np.ascontiguousarray(array) for name, array in own.items()}
        metadata = {_VALUES: json.dumps({**values, "binding": self._binding})}
        self._replace(STATE, save(tensors, metadata=metadata))
        self._replace(OPENED, json.dumps({"opened": []}).encode())

    def load(self) -> Saved | None:
        """The last checkpoint; ``None`` before the first.

        Raises:
            IntegrityError: it cannot be read.
            InputError: it is of another task or plan.
        """
        path = self._folder / STATE
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="np") as file:
                values = json.loads((file.metadata() or {})[_VALUES])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        except (SafetensorError, KeyError, ValueError) as error:
            raise IntegrityError(f"{path}: not a checkpoint of a training run") from error
        if values.pop("binding", None) != self._binding:
            raise InputError(f"{path}: the checkpoint is of another task or plan; choose another folder")
        arrays: dict[str, Num[ndarray, "..."]] = {}
        owns: dict[int, Own] = {}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "server":
                arrays[rest] = tensor
            else:
                site, _, rest = rest.partition(".")
                owns.setdefault(int(site), {})[rest] = tensor
        return Saved(arrays=arrays, values=values, owns=owns)

    def lost_rounds(self, *, since: int) -> list[int]:
        """Rounds from number ``since`` on that were begun and of which no checkpoint was written."""
        return [number for number in self._opened() if number >= since]

    def _opened(self) -> list[int]:
        path = self._folder / OPENED
        if not path.exists():
            return []
        try:
            return [int(number) for number in json.loads(path.read_bytes())["opened"]]
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError(f"{path}: not the mark of a training run") from error

    def _replace(self, name: str, data: bytes) -> None:
        """Either the old file or the new one is there, whenever the power goes."""
        path, new = self._folder / name, self._folder / f".{name}.new"
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
