"""A training run written down in TOML: the task, the plan, and where the user's own code is.

A job file runs the Python that it names. Treat it as the program that it is.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from mibao.errors import InputError, MissingExtra
from mibao.federated import robust, strategies
from mibao.federated.compression import Compression
from mibao.federated.models import LinearRegression, LogisticRegression
from mibao.federated.privacy import AdaptiveClipping, NoiseSource, Privacy, Unit
from mibao.federated.records import Records, as_records
from mibao.federated.simulation import Plan
from mibao.federated.task import Task

MAX_JOB_BYTES = 64 * 1024
_TOP = {
    "model",
    "features",
    "loss",
    "data",
    "evaluate",
    "held_out",
    "aggregation",
    "compression",
    "strategy",
    "privacy",
    "run",
}
_LINEAR = {"linear": LinearRegression, "logistic": LogisticRegression}
_STRATEGIES = {
    kind.__name__.lower(): kind
    for kind in (
        strategies.FedSGD, strategies.FedAvg, strategies.FedProx, strategies.FedAvgM, strategies.FedAdam,
        strategies.FedYogi, strategies.Scaffold, strategies.FedBuff,
    )
}  # fmt: skip
_RULES = {
    "krum": robust.Krum,
    "trimmed-mean": robust.TrimmedMean,
    "median": robust.Median,
    "geometric-median": robust.GeometricMedian,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Job:
    """What a job file says.

    Attributes:
        task: What is trained.
        plan: How it is simulated; the arguments of :class:`~mibao.federated.simulation.Plan`.
        evaluate: Records set aside.
    """

    task: Task
    plan: Plan
    evaluate: Records | None


def read_job(path: Path) -> Job:
    """The job in ``path``; its Python files stand beside it.

    Raises:
        InputError: it cannot be read, a setting is unknown, missing or of another type, or the code that it names is
            not there.
        MissingExtra: it needs PyTorch, which is not installed.
    """
    settings = _settings(path)
    unknown = sorted(set(settings) - _TOP)
    if unknown:
        raise InputError(f"{path}: expected the settings {', '.join(sorted(_TOP))}; got '{unknown[0]}'")
    for name in ("model", "data", "strategy", "run"):
        if name not in settings:
            raise InputError(f"{path}: expected '{name}'")
    folder = path.resolve().parent
    task = Task(
        model=_model(settings, folder, path),
        data=_code(settings["data"], folder, f"{path}: data"),
        strategy=_strategy(_table(settings, "strategy", path), path),
        loss=_loss(settings, folder, path),
        privacy=_privacy(_table(settings, "privacy", path), path) if "privacy" in settings else None,
        aggregation=_text(settings.get("aggregation", "secagg"), f"{path}: aggregation"),
        held_out=_code(settings["held_out"], folder, f"{path}: held_out") if "held_out" in settings else None,
        compression=_compression(settings, path),
    )
    plan = _made(Plan, _table(settings, "run", path), f"{path}: run")
    return Job(task=task, plan=plan, evaluate=_evaluated(settings, folder, path))


def _settings(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_JOB_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) > MAX_JOB_BYTES:
        raise InputError(f"{path}: expected at most {MAX_JOB_BYTES} bytes")
    try:
        return tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: not TOML: {error}") from error


def _model(settings: Mapping[str, Any], folder: Path, path: Path) -> Any:
    named = _text(settings["model"], f"{path}: model")
    if named not in _LINEAR:
        if "features" in settings:
            raise InputError(f"{path}: 'features' goes with the models {' and '.join(_LINEAR)}")
        return _code(named, folder, f"{path}: model")
    features = settings.get("features")
    if type(features) is not int or features < 1:
        raise InputError(f"{path}: expected 'features', how many numbers a record of the model '{named}' has")
    return _LINEAR[named](features=features)


def _loss(settings: Mapping[str, Any], folder: Path, path: Path) -> Any:
    if "loss" not in settings:
        return None
    named = _text(settings["loss"], f"{path}: loss")
    if ":" in named:
        return _code(named, folder, f"{path}: loss")
    try:
        functional = importlib.import_module("torch.nn.functional")
    except ImportError as error:
        raise MissingExtra("a loss of PyTorch", extra="torch") from error
    found = getattr(functional, named, None)
    if named.startswith("_") or not callable(found):
        raise InputError(f"{path}: loss: torch.nn.functional has no '{named}'; one of your own is 'file.py:name'")
    return found


def _strategy(table: Mapping[str, Any], path: Path) -> Any:
    given = dict(table)
    name = _text(given.pop("name", ""), f"{path}: strategy.name")
    if name not in _STRATEGIES:
        raise InputError(f"{path}: strategy.name: expected one of {', '.join(_STRATEGIES)}, got '{name}'")
    if "rule" in given:
        rule = dict(_table(given, "rule", path))
        kind = _text(rule.pop("name", ""), f"{path}: strategy.rule.name")
        if kind not in _RULES:
            raise InputError(f"{path}: strategy.rule.name: expected one of {', '.join(_RULES)}, got '{kind}'")
        given["rule"] = _made(_RULES[kind], rule, f"{path}: strategy.rule")
    for listed in ("personal", "local_epochs"):
        if isinstance(given.get(listed), list):
            given[listed] = tuple(given[listed])
    return _made(_STRATEGIES[name], given, f"{path}: strategy")


def _privacy(table: Mapping[str, Any], path: Path) -> Privacy:
    given: dict[str, Any] = dict(table)
    kinds: tuple[tuple[str, type[Enum]], ...] = (("unit", Unit), ("noise", NoiseSource))
    for name, kind in kinds:
        if name in given:
            known = [each.value for each in kind]
            if given[name] not in known:
                raise InputError(f"{path}: privacy.{name}: expected {' or '.join(known)}, got '{given[name]}'")
            given[name] = kind(given[name])
    if "adaptive" in given:
        given["adaptive"] = _made(AdaptiveClipping, _table(given, "adaptive", path), f"{path}: privacy.adaptive")
    made: Privacy = _made(Privacy, given, f"{path}: privacy")
    return made


def _compression(settings: Mapping[str, Any], path: Path) -> Compression | None:
    if "compression" not in settings:
        return None
    made: Compression = _made(Compression, _table(settings, "compression", path), f"{path}: compression")
    return made


def _evaluated(settings: Mapping[str, Any], folder: Path, path: Path) -> Records | None:
    if "evaluate" not in settings:
        return None
    named = _code(settings["evaluate"], folder, f"{path}: evaluate")
    return as_records(named() if callable(named) else named)


def _made(kind: Any, given: Mapping[str, Any], where: str) -> Any:
    """A record of settings, with every setting known and of the type that stands there by default."""
    known = {each.name: each for each in dataclasses.fields(kind) if each.init}
    settings = dict(given)
    for name, value in given.items():
        if name not in known:
            raise InputError(f"{where}: expected the settings {', '.join(known)}; got '{name}'")
        wanted = str(known[name].type)
        fits = {
            bool: "bool" in wanted,
            int: "int" in wanted or "float" in wanted,
            float: "float" in wanted,
            str: "str" in wanted,
        }.get(type(value), not isinstance(value, list | dict))
        if not fits:
            raise InputError(f"{where}.{name}: expected {wanted}, got {type(value).__name__}")
        if type(value) is int and "int" not in wanted:
            settings[name] = float(value)
    missing = [
        name
        for name, each in known.items()
        if name not in given and each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InputError(f"{where}: expected '{missing[0]}'")
    return kind(**settings)


def _table(settings: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    table = settings[name]
    if not isinstance(table, dict):
        raise InputError(f"{path}: expected a table [{name}]")
    return table


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where}: expected text, got {type(value).__name__}")
    return value


def _code(named: object, folder: Path, where: str) -> Any:
    """What ``file.py:name`` or ``package.module:name`` is."""
    place, colon, name = _text(named, where).partition(":")
    if not colon or not name.isidentifier():
        raise InputError(f"{where}: expected 'file.py:name' or 'package.module:name', got '{named}'")
    module = _module_in(folder / place, where) if place.endswith(".py") else _module_named(place, where)
    if not hasattr(module, name):
        raise InputError(f"{where}: {place} has no '{name}'")
    return getattr(module, name)


def _module_in(path: Path, where: str) -> Any:
    key = f"mibao_job_{path.stem}"
    loaded = sys.modules.get(key)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    spec = importlib.util.spec_from_file_location(key, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError(f"{where}: {path.name} is not beside the job")
    module = importlib.util.module_from_spec(spec)
    sys.modules[key] = module
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        raise InputError(f"{where}: {path.name} needs {error.name or 'a module'}, which is not installed") from error
    return module


def _module_named(name: str, where: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"{where}: no module '{name}'") from error
