"""Every error mibao raises, split by who must act.

::

    MibaoError
    ├─ InputError          the caller passed something wrong: says what was expected and what came
    │  └─ MissingExtra     an optional dependency is not installed: says which command installs it
    ├─ IntegrityError      the bytes were changed: names the part, never the content
    ├─ KeyMismatch         not for this key: try the next one
    ├─ ProtocolError       a peer broke the protocol: names the peer and the step
    └─ BudgetExhausted     privacy spent: says spent and promised

No message carries a secret or personal data. ``exit_code`` is what the command line returns.
"""

from typing import ClassVar


class MibaoError(Exception):
    """Any failure that mibao foresaw; its message is one readable line."""

    exit_code: ClassVar[int] = 1


class InputError(MibaoError):
    """The caller passed something wrong; the message says what was expected and what came."""

    exit_code: ClassVar[int] = 2


class MissingExtra(InputError):
    """An optional dependency is absent; the message is the command that installs it."""

    def __init__(self, purpose: str, *, extra: str) -> None:
        super().__init__(f"{purpose} needs the extra '{extra}': in mibao's source folder, pip install '.[{extra}]'")
        self.extra = extra


class IntegrityError(MibaoError):
    """The bytes are not the ones that were protected; the message names the part, never the content.

    ``index`` counts from 0 where the part is one of many (an entry of a ledger), and is None elsewhere.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


class KeyMismatch(MibaoError):
    """The key is sound and is not the one this object was made for."""

    exit_code: ClassVar[int] = 4


class ProtocolError(MibaoError):
    """A peer broke the protocol; the message names the peer and the step."""

    exit_code: ClassVar[int] = 5


class BudgetExhausted(MibaoError):
    """The privacy budget does not allow another release; the message says spent and promised."""

    exit_code: ClassVar[int] = 6
