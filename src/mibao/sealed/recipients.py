"""Who can open a file: the file key wrapped to each recipient, in a list that a header MAC covers.

Source: docs/spec/sealed-model.md, section 3.3; RFC 9180 for HPKE.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from mibao.codec import canonical
from mibao.codec.canonical import Value
from mibao.crypto import kem
from mibao.crypto.kdf import domain_tag
from mibao.crypto.keys import RecipientPrivateKey, RecipientPublicKey, RecipientSuite
from mibao.errors import InputError, IntegrityError, KeyMismatch
from mibao.sealed.file_keys import FILE_KEY_BYTES, FileKeys
from mibao.sealed.layout import MAX_SLOT_BYTES, PAGE_BYTES
from mibao.types import RandomId

MAX_STANZAS = 512
POST_QUANTUM = frozenset({RecipientSuite.MLKEM768_X25519.value})
NO_STANZA = "recipients: this model is not sealed to this key"
_LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Stanza:
    """The file key, wrapped. ``kind`` says how, ``key_id`` to which key."""

    kind: str
    key_id: RandomId
    body: bytes


def wrap_info(file_id: RandomId, commitment: bytes, signer: RandomId) -> bytes:
    """What every wrapped file key is bound to: one file, one key, one signer."""
    return domain_tag("sealed/stanza", file_id.value, commitment, signer.value)


def wrap(keys: FileKeys, recipient: RecipientPublicKey, *, signer: RandomId) -> Stanza:
    """The stanza that lets ``recipient`` open the file. Draws HPKE's own randomness.

    Raises:
        InputError: the recipient's key is no usable key.
    """
    info = wrap_info(keys.file_id, keys.commitment, signer)
    kind, bound = recipient.suite.value, _associated_data(recipient.suite.value, recipient.key_id)
    body = keys.wrapped_by(lambda key: kem.seal_once(recipient, key, info=info, associated_data=bound))
    return Stanza(kind=kind, key_id=recipient.key_id, body=body)


def unwrap(stanzas: Sequence[Stanza], identity: RecipientPrivateKey, *, file_id: RandomId, info: bytes) -> FileKeys:
    """The keys of the file, from the stanza made for ``identity``; not yet compared with the commitment.

    Raises:
        KeyMismatch: no stanza names this key.
        IntegrityError: the stanza that names it does not open.
    """
    for stanza in stanzas:
        if stanza.key_id == identity.key_id and stanza.kind == identity.suite.value:
            bound = _associated_data(stanza.kind, stanza.key_id)
            try:
                file_key = kem.open_once(identity, stanza.body, info=info, associated_data=bound)
            except (KeyMismatch, IntegrityError) as error:
                raise IntegrityError("recipients: the stanza for this key was altered") from error
            if len(file_key) != FILE_KEY_BYTES:
                raise IntegrityError("recipients: the stanza for this key holds no file key")
            return FileKeys(file_key, file_id)
    raise KeyMismatch(NO_STANZA)


def check_recipients(key_ids: Sequence[RandomId]) -> None:
    """Return if a file can be sealed to these keys.

    Raises:
        InputError: none, more than 512, or one twice.
    """
    if not 1 <= len(key_ids) <= MAX_STANZAS:
        raise InputError(f"recipients: expected 1 to {MAX_STANZAS}, got {len(key_ids)}")
    if len(set(key_ids)) != len(key_ids):
        raise InputError("recipients: the same key is given twice")


def encode_slot(stanzas: Sequence[Stanza], *, slot_bytes: int) -> bytes:
    """The list of stanzas in ``slot_bytes`` bytes, the rest zero.

    Raises:
        InputError: it does not fit.
    """
    data = _encoded(stanzas)
    if len(data) > slot_bytes:
        raise InputError(f"recipients: expected at most {slot_bytes} bytes of stanzas, got {len(data)}")
    return data.ljust(slot_bytes, b"\0")


def slot_size(stanzas: Sequence[Stanza]) -> int:
    """How many bytes of a slot these stanzas take."""
    return len(_encoded(stanzas))


def slot_bytes_for(stanzas: Sequence[Stanza]) -> int:
    """The size of a slot that leaves room for as many stanzas again.

    Raises:
        InputError: the stanzas exceed the limit of a slot.
    """
    needed = slot_size(stanzas)
    if needed > MAX_SLOT_BYTES:
        raise InputError(f"recipients: expected at most {MAX_SLOT_BYTES} bytes of stanzas, got {needed}")
    return min(-(-2 * needed // PAGE_BYTES) * PAGE_BYTES, MAX_SLOT_BYTES)


def decode_slot(slot: bytes) -> tuple[Stanza, ...]:
    """The stanzas in a slot; the header MAC is yet to be checked.

    Raises:
        IntegrityError: not a list of 1 to 512 stanzas of different ids, or the rest of the slot is not zero.
    """
    length = int.from_bytes(slot[:_LENGTH_BYTES], "big")
    end = _LENGTH_BYTES + length
    if end > len(slot):
        raise IntegrityError("recipients: the list is longer than its slot")
    if any(slot[end:]):
        raise IntegrityError("recipients: bytes behind the list are not zero")
    try:
        value = canonical.decode(slot[_LENGTH_BYTES:end], max_bytes=MAX_SLOT_BYTES)
    except IntegrityError as error:
        raise IntegrityError("recipients: the list is not well formed") from error
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_STANZAS:
        raise IntegrityError(f"recipients: expected a list of 1 to {MAX_STANZAS} stanzas")
    stanzas = tuple(_stanza(each) for each in value)
    if len({stanza.key_id for stanza in stanzas}) != len(stanzas):
        raise IntegrityError("recipients: a stanza stands twice")
    return stanzas


def _encoded(stanzas: Sequence[Stanza]) -> bytes:
    value: list[Value] = [{"type": each.kind, "id": each.key_id.value, "body": each.body} for each in stanzas]
    data = canonical.encode(value)
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


def _stanza(value: Value) -> Stanza:
    if not isinstance(value, dict) or value.keys() != {"type", "id", "body"}:
        raise IntegrityError("recipients: a stanza has other fields than type, id and body")
    if (type(value["type"]), type(value["id"]), type(value["body"])) != (str, bytes, bytes):
        raise IntegrityError("recipients: a stanza's field is of another type")
    if len(cast(bytes, value["id"])) != RandomId.size:
        raise IntegrityError("recipients: a stanza's id is not 16 bytes")
    key_id = RandomId(cast(bytes, value["id"]))
    return Stanza(kind=cast(str, value["type"]), key_id=key_id, body=cast(bytes, value["body"]))


def _associated_data(kind: str, key_id: RandomId) -> bytes:
    return domain_tag("sealed/stanza", kind.encode(), key_id.value)
