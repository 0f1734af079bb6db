"""`mibao mask FOLDER`: many files of a table, here or on a cluster, with progress, and on from where it stopped."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from mibao.cli import deid_files
from mibao.cli.deid_search import why_no_names
from mibao.errors import InputError

if TYPE_CHECKING:
    from mibao.deid.policies import Policy

_ENGINES = ("local", "ray")


def mask_folder(
    source: Path,
    output: Path | None,
    policy: Policy,
    *,
    types_file: Path | None,
    rules_only: bool,
    key: Path | None,
    vault: Path | None,
    scope: str,
    engine: str,
) -> int:
    """The files of ``source`` masked into the folder ``output``; returns how many were withheld.

    Raises:
        InputError: the engine is none, or an option does not go with a folder.
    """
    from mibao.deid.files_folder import files_in, masked_files, plan

    if engine not in _ENGINES:
        raise InputError(f"--engine: expected one of {', '.join(_ENGINES)}, got {engine}")
    if output is None:
        raise InputError(f"{source}: expected -o FOLDER, where the masked files go")
    if vault is not None:
        raise InputError("--vault: a folder's files share no vault; pseudonyms are the same under one --key")
    if policy.needs_key and key is None:
        raise InputError(f"policy {policy.name}: expected --key FILE, so that all files and a later run agree")
    types = None if types_file is None else (deid_files.small_text(types_file), types_file.name)
    with deid_files.keys_and_vault(None, key, scope=scope, needed=policy.needs_key) as held:
        missing = why_no_names(rules_only=rules_only)
        work = plan(source, output, policy, scope_key=held.scope_key, types=types, names=missing is None)
    for column in work.columns.values():
        if column.entity is not None:
            sys.stderr.write(f"column {column.name}: {column.entity.value} ({column.why})\n")
    others = sum(path.is_file() and path.suffix != ".parquet" for path in source.rglob("*"))
    total, counts, rows, withheld = len(files_in(source)), Counter[str](), 0, []
    started_s = time.monotonic()
    for number, done in enumerate(masked_files(work, engine=engine), 1):
        rows += done.rows
        counts.update(done.found)
        if done.error is not None:
            withheld.append(done.name)
            sys.stderr.write(f"{done.name} withheld: {done.error}\n")
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\033[K{number:,} of {total:,} files, {rows:,} rows")
            sys.stderr.flush()
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    kinds = ", ".join(f"{name} {count:,}" for name, count in counts.most_common())
    sys.stderr.write(
        f"masked by {policy.name}: {total - len(withheld):,} files, {rows:,} rows "
        f"in {time.monotonic() - started_s:,.1f} s, "
        f"{counts.total():,} findings{': ' + kinds if kinds else ''}\n"
    )
    notes = [missing] if missing is not None else []
    notes += [f"left out: {others:,} files that are not .parquet"] if others else []
    if withheld:
        notes.append(f"withheld, not checked: {len(withheld):,} files; the same command tries them again")
    sys.stderr.writelines(f"{note}\n" for note in notes)
    return len(withheld)
