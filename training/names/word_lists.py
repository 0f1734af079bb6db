"""Word lists from a text file: a name in brackets on a line, then its entries, a semicolon after each."""

from __future__ import annotations

from pathlib import Path


class WordLists:
    """The lists of one file by name, as attributes: ``words.TITLES``."""

    def __init__(self, path: Path) -> None:
        self._lists: dict[str, list[str]] = {}
        entries = list[str]()
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("[") and line.endswith("]"):
                entries = self._lists[line[1:-1]] = []
            elif not line.startswith("#"):
                entries += [entry.strip() for entry in line.split(";") if entry.strip()]

    def __getattr__(self, name: str) -> list[str]:
        try:
            return self._lists[name]
        except KeyError:
            raise AttributeError(name) from None
