"""Why a sealed model was not opened, as a record for a ledger."""

from __future__ import annotations

from mibao.errors import InputError, KeyMismatch, MibaoError
from mibao.events import ModelRefused
from mibao.sealed.manifest import OTHER_SIGNER
from mibao.sealed.opening import OLDER
from mibao.sealed.state import EQUIVOCATION, NEVER_OPENED, ROLLED_BACK
from mibao.types import Refusal

_VERSIONS = {
    OLDER: Refusal.OLDER_VERSION,
    ROLLED_BACK: Refusal.OLDER_VERSION,
    EQUIVOCATION: Refusal.EQUIVOCATION,
    NEVER_OPENED: Refusal.UNKNOWN_VERSION,
}


def refusal(error: MibaoError) -> ModelRefused:
    """The record of an error that an opening function of this package raised."""
    if isinstance(error, KeyMismatch):
        reason = Refusal.WRONG_SIGNER if str(error) == OTHER_SIGNER else Refusal.WRONG_KEY
    elif isinstance(error, InputError):
        reason = Refusal.NOT_SEALED
    else:
        reason = next((known for start, known in _VERSIONS.items() if str(error).startswith(start)), Refusal.ALTERED)
    return ModelRefused(reason=reason)
