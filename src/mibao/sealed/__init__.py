"""Sealed models: nobody without a key reads them, nobody but their signer alters them unnoticed.

``docs/spec/sealed-model.md`` is the format; :func:`seal`, :func:`open_sealed`, :func:`verify`, :func:`inspect` and
:func:`rewrap` work on files, :func:`open_model` gives a model's tensors without writing plaintext anywhere.
"""

from mibao.sealed.model import LazyTensor, SealedModel, open_model
from mibao.sealed.refusals import refusal
from mibao.sealed.sealing import SealReport
from mibao.sealed.store import (
    Inspection,
    OpenReport,
    VerifyReport,
    inspect,
    open_bytes,
    open_sealed,
    rewrap,
    seal,
    verify,
)

__all__ = [
    "Inspection",
    "LazyTensor",
    "OpenReport",
    "SealReport",
    "SealedModel",
    "VerifyReport",
    "inspect",
    "open_bytes",
    "open_model",
    "open_sealed",
    "refusal",
    "rewrap",
    "seal",
    "verify",
]
