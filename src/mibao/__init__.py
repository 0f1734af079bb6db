"""mibao (密保): private AI, end to end.

Import the pillar you need: ``mibao.sealed``, ``mibao.he``, ``mibao.secagg``, ``mibao.dp``, ``mibao.deid``,
``mibao.ledger``, ``mibao.federated``. This module imports nothing heavy.
"""

import importlib

from mibao.errors import (
    BudgetExhausted,
    InputError,
    IntegrityError,
    KeyMismatch,
    MibaoError,
    MissingExtra,
    ProtocolError,
)

__all__ = [
    "BudgetExhausted",
    "InputError",
    "IntegrityError",
    "KeyMismatch",
    "MibaoError",
    "MissingExtra",
    "ProtocolError",
    "__version__",
]


def __getattr__(name: str) -> str:
    """``__version__``, looked up when asked for: the machinery for it takes longer to import than this package."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: str = importlib.import_module("importlib.metadata").version("mibao")
    return found
