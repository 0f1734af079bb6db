"""Texts that arrive in pieces, masked and restored: the same as the whole text would be, however it is cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from mibao.deid.findings import Detector, Finding
from mibao.deid.kinds import REACH
from mibao.deid.matching import Engine
from mibao.deid.operations import Operator
from mibao.deid.policies import Keep, Pseudonym
from mibao.deid.pseudonyms import PLACEHOLDER
from mibao.deid.scanning import Part, Scanner, grouped
from mibao.deid.vault import Vault
from mibao.deid.wordlists import WordList
from mibao.errors import InputError
from mibao.types import AnyType, type_named

_LONGEST_PLACEHOLDER = 64
_APART = "\n" * REACH


class Masker:
    """Masks one text that is fed in pieces; holds back at most 64 characters.

    Args:
        operator: What is done to a finding.
        engine: What searches; see :func:`mibao.deid.detection.engine_for`.
        detectors: Others to ask as well; each sees no more than the piece at hand and a little before it.
        explain: Called with each finding (of a long value, each part) and whether it was changed.
    """

    __slots__ = (
        "_detectors", "_engine", "_explain", "_operator", "_scanner", "_written", "changed", "found", "replaced",
    )  # fmt: skip

    def __init__(
        self,
        operator: Operator,
        *,
        engine: Engine,
        detectors: Sequence[Detector] = (),
        explain: Callable[[Finding, bool], None] | None = None,
    ) -> None:
        self._operator, self._explain = operator, explain
        lists = (WordList(type_named(name), words) for name, words in operator.policy.words.items())
        self._engine, self._detectors = engine, (*detectors, *lists)
        self._scanner = Scanner(engine, self._detectors)
        self._written = 0  # offset of the original text that is written out
        self.found: Counter[AnyType] = Counter()
        self.changed = 0
        self.replaced = 0  # findings that the policy's operation could not be carried out on: only their type is left

    def feed(self, text: str) -> str:
        """What may be written after more text has come."""
        with self._operator.batch():
            return "".join(self._write(self._scanner.feed(text)))

    def close(self) -> str:
        """What is left to write at the end of the text."""
        with self._operator.batch():
            return "".join(self._write(self._scanner.close()))

    def _write(self, parts: Iterator[Part]) -> Iterator[str]:
        for part in parts:
            written = self._scanner.text(part.start, part.end)
            yield self._scanner.text(self._written, part.start)
            yield self._changed(part, written)
            self._written = part.end
        yield self._scanner.text(self._written, self._scanner.decided)
        self._written = self._scanner.decided

    def texts(self, texts: Sequence[str]) -> list[tuple[str, Counter[AnyType]]]:
        """Several short texts, each masked as if it stood alone, and what was found in each; faster than one by one.

        They are searched as one text, so far apart that no rule sees two of them.
        """
        return [each for some in grouped(texts) for each in self._together(some)]

    def _together(self, texts: Sequence[str]) -> Iterator[tuple[str, Counter[AnyType]]]:
        scanner = Scanner(self._engine, self._detectors, keep_names=False)
        joined = _APART.join(texts)
        parts = list(scanner.whole(joined))
        place = start = 0
        for text in texts:
            end = start + len(text)
            pieces, kept_from, found = [], start, Counter[AnyType]()
            while place < len(parts) and parts[place].start < end:
                part = parts[place]
                pieces += [joined[kept_from : part.start], self._changed(part, joined[part.start : part.end])]
                found[part.entity] += not part.continues
                kept_from, place = part.end, place + 1
            yield "".join([*pieces, joined[kept_from:end]]), found
            start = end + len(_APART)

    def _changed(self, part: Part, written: str) -> str:
        policy = self._operator.policy
        operation = policy.operation(part.entity)
        self.found[part.entity] += not part.continues
        if part.score < policy.least_score or isinstance(operation, Keep):
            after = written
        else:
            try:
                after = self._operator.changed(part.entity, written)
            except InputError:
                if isinstance(operation, Pseudonym):  # the vault failed: nothing that cannot be restored
                    raise
                after = f"<{part.entity.value}>"
                self.replaced += 1
        self.changed += after != written
        if self._explain is not None:
            self._explain(part.finding(), after != written)
        return after


class Restorer:
    """Restores one masked text that is fed in pieces; holds back no more than an unfinished placeholder."""

    __slots__ = ("_held", "_vault", "restored")

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._held = ""
        self.restored = 0

    def feed(self, text: str) -> str:
        """What may be written after more text has come."""
        held = self._held + text
        opened = held.rfind("<", max(0, len(held) - _LONGEST_PLACEHOLDER))
        cut = len(held) if opened < 0 or ">" in held[opened:] else opened
        self._held = held[cut:]
        return self._restored(held[:cut])

    def close(self) -> str:
        """What is left to write at the end of the text."""
        held, self._held = self._held, ""
        return self._restored(held)

    def _restored(self, text: str) -> str:
        pieces, kept_from = [], 0
        for match in PLACEHOLDER.finditer(text):
            written = self._vault.written(match[0])
            if written is not None:
                pieces += [text[kept_from : match.start()], written]
                kept_from = match.end()
                self.restored += 1
        return "".join([*pieces, text[kept_from:]])
