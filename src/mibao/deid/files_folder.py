"""A folder of Parquet files masked file by file, here or on a Ray cluster; stopped at any moment, it goes on.

A file appears in the output whole, under its name, or not at all; the journal beside it says which are done. One file
that cannot be checked is withheld, and the rest go on. Under one key the same value has the same pseudonym in every
file, on every machine: placeholders are keyed hashes, and no vault is shared.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from mibao.crypto.kdf import keyed_hash
from mibao.deid.columns import Column
from mibao.deid.custom import CustomTypes, parse_types
from mibao.deid.detection import default_engine, names_are_missing, rules_engine
from mibao.deid.files import batches, masked_batch, sample_of, writer
from mibao.deid.operations import Operator
from mibao.deid.policies import Policy
from mibao.deid.tables import TableMasker
from mibao.errors import InputError, MibaoError, MissingExtra

JOURNAL = "_mibao_mask.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderWork:
    """What masking any of the files needs; it can be sent to another machine, and then holds the key.

    ``types``: the text and the name of the user's file of types. ``columns``: what every file's columns hold.
    ``names``: whether the models of names search too; where they should and cannot, the file is withheld.
    """

    source: Path
    output: Path
    policy: Policy
    scope_key: bytes | None = field(repr=False)
    types: tuple[str, str] | None = field(repr=False)
    columns: Mapping[str, Column]
    names: bool = True

    @property
    def fingerprint(self) -> str:
        """Equal for runs that make the same of every file."""
        key = keyed_hash(self.scope_key, purpose="deid/folder", message=b"").value if self.scope_key else b""
        kinds = sorted((name, column.entity.value if column.entity else "") for name, column in self.columns.items())
        parts = [msgspec.json.encode(self.policy), key, repr((self.types, kinds, self.names)).encode()]
        return sha256(b"\0".join(part.hex().encode() for part in parts)).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDone:
    """What became of one file: counts by type, or why it was withheld."""

    name: str
    bytes: int
    rows: int = 0
    found: dict[str, int] = field(default_factory=dict)
    replaced: int = 0
    error: str | None = None


def plan(
    source: Path,
    output: Path,
    policy: Policy,
    *,
    scope_key: bytes | None,
    types: tuple[str, str] | None,
    names: bool = True,
) -> FolderWork:
    """The work of one folder: columns are inferred from its first file and hold for all.

    Raises:
        InputError: there is no Parquet file in ``source``, or the first cannot be read.
    """
    files = files_in(source)
    if not files:
        raise InputError(f"{source}: expected a folder of .parquet files")
    own = _own(types)
    first = next(iter(batches(source / files[0])), None)
    if first is None:
        raise InputError(f"{source / files[0]}: expected rows, by which the columns' types are inferred")
    masker = _masker(policy, scope_key, own, sample_of(first), names=names)
    return FolderWork(
        source=source, output=output, policy=policy, scope_key=scope_key, types=types, columns=masker.columns,
        names=names,
    )  # fmt: skip


def files_in(source: Path) -> list[str]:
    """The Parquet files in a folder and its folders, by their names under it, in order."""
    return sorted(path.relative_to(source).as_posix() for path in source.rglob("*.parquet") if path.is_file())


def masked_files(work: FolderWork, *, engine: str) -> Iterator[FileDone]:
    """Mask what is not done yet; each file as it is done, those done before first.

    Args:
        engine: ``local``, one after another, or ``ray``, on all processors of a cluster.

    Raises:
        InputError: the output folder holds what another run made.
        MissingExtra: Ray is not installed.
    """
    journal = _Journal(work)
    names = files_in(work.source)
    waiting = []
    for name in names:
        size = (work.source / name).stat().st_size
        known = journal.done.get(name)
        if known is not None and known.bytes == size and (work.output / name).is_file():
            yield known
        else:
            waiting.append(name)
    for done in _by_ray(work, waiting) if engine == "ray" else (mask_file(work, name) for name in waiting):
        if done.error is None:
            journal.add(done)
        yield done


def mask_file(work: FolderWork, name: str) -> FileDone:
    """Mask one file into the output folder; what goes wrong is told, and leaves no file."""
    source, output = work.source / name, work.output / name
    part = output.with_name(f".{output.name}.part")
    try:
        size = source.stat().st_size
        output.parent.mkdir(parents=True, exist_ok=True)
        masker = _masker(work.policy, work.scope_key, _own(work.types), {}, names=work.names)
        masker.columns = dict(work.columns)
        rows = 0
        with writer(part, ".parquet") as write:
            for batch in batches(source):
                if batch.schema.names != [*work.columns]:
                    raise InputError("its columns are not those of the first file")
                write(masked_batch(masker, batch))
                rows += batch.num_rows
        if rows:
            part.replace(output)
        found = {entity.value: count for entity, count in masker.changes.found.items() if count}
        return FileDone(name=name, bytes=size, rows=rows, found=found, replaced=masker.changes.replaced)
    except Exception as error:  # noqa: BLE001 - a reader or a detector may raise anything: the file is withheld, not passed on
        reason = str(error) if isinstance(error, MibaoError) else f"it could not be masked ({type(error).__name__})"
        return FileDone(name=name, bytes=0, error=reason)
    finally:
        part.unlink(missing_ok=True)


class _Journal:
    """Which files are done, in a file of lines; a line that was cut short counts for nothing."""

    def __init__(self, work: FolderWork) -> None:
        work.output.mkdir(parents=True, exist_ok=True)
        self._path = work.output / JOURNAL
        self.done: dict[str, FileDone] = {}
        head = json.dumps({"mibao": "mask", "work": work.fingerprint})
        if not self._path.exists():
            if any(work.output.iterdir()):
                raise InputError(f"{work.output}: expected an empty folder, or one that an earlier run began")
            self._path.write_text(f"{head}\n", encoding="utf-8")
            return
        text = self._path.read_text(encoding="utf-8")
        if not text.endswith("\n"):
            self._path.write_text(text + "\n", encoding="utf-8")
        lines = text.splitlines()
        if lines[:1] != [head]:
            raise InputError(
                f"{work.output}: was begun with another policy, key, types or table: choose another folder"
            )
        for line in lines[1:]:
            try:
                done = FileDone(**json.loads(line))
            except (ValueError, TypeError):
                continue
            self.done[done.name] = done

    def add(self, done: FileDone) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(done)) + "\n")


def _by_ray(work: FolderWork, names: Sequence[str]) -> Iterator[FileDone]:
    ray = _import_ray()
    started = not ray.is_initialized()
    if started:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        shared, remote = ray.put(work), ray.remote(num_cpus=1)(mask_file)
        waiting = {remote.remote(shared, name): name for name in names}
        while waiting:
            (first,), _ = ray.wait([*waiting], num_returns=1)
            name = waiting.pop(first)
            try:
                yield ray.get(first)
            except ray.exceptions.RayError as error:  # a worker that died
                yield FileDone(name=name, bytes=0, error=f"its worker failed ({type(error).__name__})")
    finally:
        if started:
            ray.shutdown()


def _import_ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise MissingExtra("the engine 'ray'", extra="ray") from error


@lru_cache(maxsize=4)
def _own(types: tuple[str, str] | None) -> CustomTypes | None:
    return None if types is None else parse_types(types[0], source=types[1])


def _masker(
    policy: Policy,
    scope_key: bytes | None,
    own: CustomTypes | None,
    sample: Mapping[str, Sequence[str]],
    *,
    names: bool,
) -> TableMasker:
    if names and (missing := names_are_missing()):
        raise InputError(f"expected the models of names here too: {missing}")
    if own is None:
        engine = default_engine() if names else rules_engine()
    else:
        engine = own.engine if names else own.rules_engine
    detectors = own.detectors if own else ()
    return TableMasker(Operator(policy, scope_key=scope_key), sample, engine=engine, detectors=detectors)
