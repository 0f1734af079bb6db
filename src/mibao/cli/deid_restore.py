"""Values put back into JSON lines, CSV and FHIR resources, as values and not as text: the file keeps its form."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mibao.cli.deid_files import Held, Place, read_resource
from mibao.cli.deid_work import Progress
from mibao.errors import InputError

if TYPE_CHECKING:
    from mibao.deid.vault import Vault

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_LINES = (".jsonl", ".ndjson")
_LONGEST_CELL = 1 << 30


def is_structured(source: str) -> bool:
    """Whether ``source`` holds values in a form of its own, which `mibao mask` masked one by one."""
    suffix = "" if source == "-" else Path(source).suffix.lower()
    return suffix in _DELIMITERS or suffix in _LINES or (suffix == ".json" and read_resource(source) is not None)


def unmask_cells(place: Place, out: IO[str], held: Held, source: str) -> None:
    """The values of ``source`` restored, in its own form."""
    if held.vault is None:
        raise InputError("unmask: expected a vault")
    restorer, progress = _Values(held.vault), Progress(place)
    match Path(source).suffix.lower():
        case ".csv" | ".tsv" as suffix:
            rows = _rows(place, _DELIMITERS[suffix])
            writer = csv.writer(out, delimiter=_DELIMITERS[suffix], lineterminator="\n")
            for row in rows:
                writer.writerow([restorer.restored(cell) for cell in row])
                progress.tick()
        case ".json":
            place.read = place.size or 0
            restored = restorer.everywhere(read_resource(source))
            out.write(json.dumps(restored, ensure_ascii=False, indent=2) + "\n")
        case _:
            for line in _decoded(place):
                out.write(_line(line, restorer))
                progress.tick()
    sys.stderr.write(f"restored: {restorer.count:,} placeholders\n")


class _Values:
    """Restores strings, and counts the placeholders in them."""

    def __init__(self, vault: Vault) -> None:
        self._vault, self.count = vault, 0

    def restored(self, text: str) -> str:
        from mibao.deid.masking import restore

        found = restore(text, vault=self._vault)
        self.count += found.event.placeholders
        return found.text

    def everywhere(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.restored(value)
        if isinstance(value, dict):
            return {key: self.everywhere(each) for key, each in value.items()}
        return [self.everywhere(each) for each in value] if isinstance(value, list) else value


def _line(line: str, restorer: _Values) -> str:
    """A line of JSON restored; one that is none, as text."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return restorer.restored(line)  # an empty line, or what another program put there
    return json.dumps(restorer.everywhere(record), ensure_ascii=False) + "\n"


def _rows(place: Place, delimiter: str) -> Iterator[list[str]]:
    csv.field_size_limit(_LONGEST_CELL)
    yield from csv.reader(_decoded(place), delimiter=delimiter)


def _decoded(place: Place) -> Iterator[str]:
    """The lines with their ends, which a cell may hold."""
    for line in place.file:
        place.read += len(line)
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            raise InputError(f"{place.name}: expected UTF-8 text, got other bytes near byte {place.read}") from error
