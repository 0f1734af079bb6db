"""Findings of texts that were looked at before: a conversation sends its whole history with every turn."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

from mibao.deid import Finding
from mibao.deid.detection import default_engine, detect_each
from mibao.deid.matching import Engine

MAX_TEXTS = 20_000


class FindingsCache:
    """What :func:`mibao.deid.detection.detect_each` finds, remembered by hash: no text is kept.

    Args:
        engine: What searches; by default with the models of names.
        salt: Random bytes, so that nobody can make two texts share a place.
    """

    def __init__(self, *, salt: bytes, engine: Engine | None = None) -> None:
        self._engine = engine or default_engine()
        self._salt = salt
        self._known: OrderedDict[bytes, tuple[Finding, ...]] = OrderedDict()

    def of(self, texts: Sequence[str]) -> list[tuple[Finding, ...]]:
        """The findings of each of ``texts``. Raises what the engine raises: then nothing may pass."""
        hashes = [hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=self._salt).digest() for text in texts]
        new = {digest: text for digest, text in zip(hashes, texts, strict=True) if digest not in self._known}
        found = dict(zip(new, detect_each(list(new.values()), engine=self._engine), strict=True)) if new else {}
        answers = []
        for digest in hashes:
            if digest in found:
                self._known[digest] = found[digest]
            self._known.move_to_end(digest)
            answers.append(self._known[digest])
        while len(self._known) > MAX_TEXTS:
            self._known.popitem(last=False)
        return answers
