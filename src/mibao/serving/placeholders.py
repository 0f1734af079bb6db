"""The names of one conversation: placeholders, minted by the vault and known again however a model writes them.

A model drops brackets, changes case, escapes underscores for Markdown or angles for JSON and HTML. All of that is
grammar; the symbols themselves must be right to the last one, and must have been minted in this very conversation.
Nothing is matched by likeness, so that one person's data cannot come back as another's. Where the policy asks for
values of the same form, surrogates stand beside them: :mod:`mibao.serving.surrogates`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from mibao.deid import Operator, Policy, Vault
from mibao.deid.policies import Fake
from mibao.deid.pseudonyms import FORM_SYMBOLS, STEM_SYMBOLS, is_placeholder
from mibao.serving.surrogates import Surrogates
from mibao.types import AnyType

LONGEST = 128  # characters of a placeholder with every escape
_OPEN = r"\\{0,2}<|＜|&lt;|\\{1,2}u003c"
_CLOSE = r"\\{0,2}>|＞|&gt;|\\{1,2}u003e"
_SYMBOL = "[0-9A-HJKMNP-TV-Z]"
_SCORE = r"\\{0,2}_"
_BEGUN = re.compile(
    rf"(?:(?:{_OPEN})|(?<![A-Za-z0-9]))(?P<core>[A-Za-z][A-Za-z0-9_\\]*?)"
    r"(?P<close>\\{1,2}(?:u(?:0(?:0(?:3e?)?)?)?)?|&(?:g(?:t;?)?)?)?\Z"
    r"|(?:\\{0,2}<|＜|\\{1,2}(?:u(?:0(?:0(?:3c?)?)?)?)?|&(?:l(?:t;?)?)?)\Z",
    re.IGNORECASE,
)

_MAY_GO_ON = re.compile(r"[A-Za-z0-9_\\<＜&;]\Z")


@dataclass(frozen=True, slots=True)
class Placed:
    """A known name at ``text[start:end]``, as it is sent, and what it stands for."""

    start: int
    end: int
    sent: str
    written: str


class Names:
    """What stands for what in one conversation."""

    __slots__ = ("_cores", "_operator", "_types", "scope_key", "surrogates", "vault")

    def __init__(self, *, scope_key: bytes, policy: Policy) -> None:
        self.scope_key = scope_key
        self.vault = Vault(scope_key=scope_key)
        self._operator = Operator(policy, scope_key=scope_key, vault=self.vault)
        self.surrogates = Surrogates(key=scope_key)
        self._cores: dict[str, str] = {}
        self._types: set[str] = set()

    def __len__(self) -> int:
        return len(self._cores) + len(self.surrogates)

    def __repr__(self) -> str:
        return f"<Names of {len(self)} values>"

    @property
    def policy(self) -> Policy:
        """What is done to each type in this conversation."""
        return self._operator.policy

    @property
    def values(self) -> dict[str, str]:
        """What each name stands for: placeholders without brackets, surrogates behind a sign of equality."""
        return {**self._cores, **{f"={surrogate}": true for surrogate, true in self.surrogates.values.items()}}

    def changed(self, entity: AnyType, written: str, taken: str = "") -> str:
        """What stands for ``written`` on the way out.

        Args:
            taken: The text in which no surrogate may stand.

        Raises:
            InputError: as :meth:`mibao.deid.Operator.changed`.
        """
        policy = self._operator.policy
        if isinstance(policy.operation(entity), Fake) and written not in policy.allow:
            made = self.surrogates.surrogate_for(entity, written, taken)
            return made if made is not None else f"<{self.pseudonym(entity, written)}>"
        after = self._operator.changed(entity, written)
        if is_placeholder(after):
            self.know(after[1:-1], written)
        return after

    def pseudonym(self, entity: AnyType, written: str) -> str:
        """A placeholder without brackets, whatever the policy says: for names that an API keeps to letters."""
        core = self.vault.placeholder_for(entity, written)[1:-1]
        self.know(core, written)
        return core

    def know(self, core: str, written: str) -> None:
        """Let ``core`` stand for ``written``: it was minted in this conversation, by this process or by another."""
        if core.startswith("="):
            self.surrogates.know(core[1:], written)
            return
        self._cores[core] = written
        head = core.split("_")
        tail = 2 if len(head[-1]) == FORM_SYMBOLS and len(head[-2]) == STEM_SYMBOLS + 1 else 1
        self._types.add("_".join(head[:-tail]))

    def may_be_in(self, text: str) -> bool:
        """Whether looking for names in ``text`` may find any."""
        return ("_" in text and len(self._cores) > 0) or len(self.surrogates) > 0  # every placeholder holds one

    def find(self, text: str, start: int = 0) -> list[Placed]:
        """Every name of this conversation in ``text[start:]``, in order."""
        true = self.surrogates.values
        found = [Placed(at, end, text[at:end], true[text[at:end]]) for at, end in self.surrogates.find(text, start)]
        for match in _pattern(frozenset(self._types)).finditer(text, start) if self._cores else ():
            core = match["core"].replace("\\", "").upper()
            written = self._cores.get(core)
            if written is None:
                continue
            whole = match["open"] is not None and match["close"] is not None
            begin, end = match.span() if whole else match.span("core")
            found.append(Placed(begin, end, f"<{core}>", written))
        return sorted(found, key=lambda placed: placed.start) if true else found

    def undecided(self, text: str) -> int:
        """From where on ``text`` may be a name that has not ended; ``len(text)`` where it cannot."""
        until = self.surrogates.undecided(text) if len(self.surrogates) else len(text)
        if not self._cores or not _MAY_GO_ON.search(text):
            return until
        at = max(0, len(text) - LONGEST)
        while (match := _BEGUN.search(text, at)) is not None:
            if self._may_become(match):
                return min(until, match.start())
            at = match.start() + 1
        return until

    def _may_become(self, begun: re.Match[str]) -> bool:
        """Whether more text could make a placeholder of this conversation out of the end of one."""
        if begun["core"] is None:  # an opening bracket, or a part of one
            return True
        part = begun["core"].replace("\\", "").upper()
        if begun["close"] and part in self._cores:
            return True
        escape = set(begun["close"] or "\\") == {"\\"}  # within the symbols, or the first of a closing bracket
        return escape and any(known.startswith(part) for known in self._cores)


@lru_cache(maxsize=256)
def _pattern(types: frozenset[str]) -> re.Pattern[str]:
    named = "|".join(re.escape(name).replace("_", _SCORE) for name in sorted(types, key=len, reverse=True))
    return re.compile(
        rf"(?:(?P<open>{_OPEN})|(?<![A-Za-z0-9]))(?P<core>(?:{named}){_SCORE}{_SYMBOL}{{{STEM_SYMBOLS + 1}}}"
        rf"(?:{_SCORE}{_SYMBOL}{{{FORM_SYMBOLS}}})?)(?![A-Za-z0-9])(?P<close>{_CLOSE})?",
        re.IGNORECASE,
    )
