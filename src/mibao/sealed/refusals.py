"""Why a sealed model was not opened, as a record for a ledger."""

from __future__ import annotations

import re

from mibao.errors import InputError, IntegrityError, KeyMismatch, MibaoError, MissingExtra, ProtocolError
from mibao.events import ModelRefused
from mibao.sealed.manifest import OTHER_SIGNER
from mibao.sealed.opening import OLDER
from mibao.sealed.state import DAMAGED, EQUIVOCATION, NEVER_OPENED, ROLLED_BACK
from mibao.types import Refusal

_VERSIONS = {
    OLDER: Refusal.OLDER_VERSION,
    ROLLED_BACK: Refusal.OLDER_VERSION,
    EQUIVOCATION: Refusal.EQUIVOCATION,
    NEVER_OPENED: Refusal.UNKNOWN_VERSION,
    DAMAGED: Refusal.UNREACHABLE,  # the reader's own memory, not the model
}
# What the file itself brings: no magic, another format, or more of something than a reader takes.
_NOT_SEALED = re.compile(
    r"expected a sealed model|sealed model: |preamble: |passphrase: the file asks |recipients: expected at most "
    r"|(recipients' slot|manifest|signature|table|index): expected \d+ to |.*: expected a file$"
)
# Where the file, the reader's key or its memory of versions lies.
_PLACES = re.compile(r"(PKCS#11|KMS|S3|AWS|state|source|\$\w+): |[^ ]+: read: the server answers ")


def refusal(error: MibaoError) -> ModelRefused:
    """The record of an error that a function of this package raised instead of opening a model.

    An error that is the caller's own, such as an option that there is not, has the reason ``WRONG_USE``.
    """
    return ModelRefused(reason=_reason(error, str(error)))


def _reason(error: MibaoError, message: str) -> Refusal:
    if isinstance(error, KeyMismatch):
        return Refusal.WRONG_SIGNER if message == OTHER_SIGNER else Refusal.WRONG_KEY
    if isinstance(error, IntegrityError):
        return next((known for start, known in _VERSIONS.items() if message.startswith(start)), Refusal.ALTERED)
    if isinstance(error, ProtocolError):
        return Refusal.UNREACHABLE
    if isinstance(error, InputError) and not isinstance(error, MissingExtra):
        if _NOT_SEALED.match(message):
            return Refusal.NOT_SEALED
        if _PLACES.match(message) or isinstance(error.__cause__, OSError):
            return Refusal.UNREACHABLE
    return Refusal.WRONG_USE
