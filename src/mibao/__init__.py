"""mibao (密保): private AI, end to end.

Import the pillar you need: ``mibao.sealed``, ``mibao.he``, ``mibao.secagg``, ``mibao.dp``, ``mibao.deid``,
``mibao.ledger``, ``mibao.federated``. This module imports nothing heavy.
"""

from importlib.metadata import version as _version

from mibao.errors import (
    BudgetExhausted,
    InputError,
    IntegrityError,
    KeyMismatch,
    MibaoError,
    MissingExtra,
    ProtocolError,
)

__version__ = _version("mibao")

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
