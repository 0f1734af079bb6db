"""Sealed models: nobody without a key reads them, nobody but their signer alters them unnoticed.

``docs/spec/sealed-model.md`` is the format; :func:`seal`, :func:`open_sealed`, :func:`verify`, :func:`inspect` and
:func:`rewrap` work on files, :func:`open_model` gives a model's tensors without writing plaintext anywhere.
"""

from mibao.sealed.adapters import adapter_from_sealed
from mibao.sealed.model import LazyTensor, SealedModel, open_model, open_model_from_anyone
from mibao.sealed.refusals import refusal
from mibao.sealed.safe_open import safe_open
from mibao.sealed.sealing import SealReport
from mibao.sealed.state_file import VersionState, default_state_path
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
from mibao.sealed.torch_modules import load_into
from mibao.sealed.torch_tensors import load_torch
from mibao.sealed.transformers_models import from_sealed
from mibao.sealed.unlock_named import identity, recipient, signer
from mibao.sealed.unlock_passphrase import Passphrase

__all__ = [
    "Inspection",
    "LazyTensor",
    "OpenReport",
    "Passphrase",
    "SealReport",
    "SealedModel",
    "VerifyReport",
    "VersionState",
    "adapter_from_sealed",
    "default_state_path",
    "from_sealed",
    "identity",
    "inspect",
    "load_into",
    "load_torch",
    "open_bytes",
    "open_model",
    "open_model_from_anyone",
    "open_sealed",
    "recipient",
    "refusal",
    "rewrap",
    "safe_open",
    "seal",
    "signer",
    "verify",
]
