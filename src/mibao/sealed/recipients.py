"""Who can open a file: the file key wrapped to each recipient, in a list that a header MAC covers.

Source: docs/spec/sealed-model.md, section 3.3; RFC 9180 for HPKE.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias, cast

from mibao.codec import canonical
from mibao.codec.canonical import Value
from mibao.crypto import kem
from mibao.crypto.keys import RecipientPrivateKey, RecipientPublicKey, RecipientSuite
from mibao.errors import InputError, IntegrityError, KeyMismatch
from mibao.sealed import token_stanza
from mibao.sealed.file_keys import FILE_KEY_BYTES, FileKeys
from mibao.sealed.layout import MAX_SLOT_BYTES, PAGE_BYTES
from mibao.sealed.unlock import (
    AWS_KMS,
    OTHERS_PREFIX,
    PKCS11,
    SCRYPT,
    Binding,
    KeyUnwrapper,
    KeyWrapper,
    Stanza,
    stanza_data,
)
from mibao.types import RandomId

Recipient: TypeAlias = RecipientPublicKey | KeyWrapper
Identity: TypeAlias = RecipientPrivateKey | KeyUnwrapper

MAX_STANZAS = 512
MAX_TRIES = 8  # of one type whose stanzas do not name their key: each may cost a second or a call
NO_STANZA = "recipients: this model is not sealed to this key"
_LENGTH_BYTES = 4


def wrap(keys: FileKeys, recipient: Recipient, *, signer: RandomId) -> Stanza:
    """The stanza that lets ``recipient`` open the file. Draws HPKE's own randomness.

    Raises:
        InputError: the recipient's key is no usable key.
    """
    binding = Binding(file_id=keys.file_id, commitment=keys.commitment, signer=signer)
    if isinstance(recipient, RecipientPublicKey):
        kind, bound = recipient.suite.value, stanza_data(recipient.suite.value, recipient.key_id)
        public, info = recipient, binding.info
        body = keys.wrapped_by(lambda key: kem.seal_once(public, key, info=info, associated_data=bound))
        return Stanza(kind=kind, key_id=recipient.key_id, body=body)
    wrapper = recipient
    stanza = keys.wrapped_by(lambda file_key: wrapper.wrap(file_key, binding))
    if stanza.kind not in (SCRYPT, PKCS11, AWS_KMS) and not stanza.kind.startswith(OTHERS_PREFIX):
        raise InputError(f"recipients: expected a type that begins with {OTHERS_PREFIX}, got {stanza.kind}")
    return stanza


def unwrap(stanzas: Sequence[Stanza], identity: Identity, binding: Binding) -> tuple[RandomId, FileKeys]:
    """The id of the stanza made for ``identity``, and the keys of the file; not yet compared with the commitment.

    Raises:
        KeyMismatch: no stanza is for this key.
        IntegrityError: the stanza that names it does not open.
        InputError: the key cannot be used, or the file asks for too much work.
    """
    open_ = _open_hpke if isinstance(identity, RecipientPrivateKey) else _open_other
    key_id, file_key = open_(stanzas, identity, binding)
    if len(file_key) != FILE_KEY_BYTES:
        raise IntegrityError("recipients: the stanza for this key holds no file key")
    return key_id, FileKeys(file_key, binding.file_id)


def is_post_quantum(stanza: Stanza) -> bool:
    """Whether a copy of the stanza taken today stays closed to a quantum computer later."""
    if stanza.kind == PKCS11:
        return token_stanza.is_symmetric(stanza.body)
    return stanza.kind in (RecipientSuite.MLKEM768_X25519.value, SCRYPT)


def check_recipients(stanzas: Sequence[Stanza]) -> None:
    """Return if a file can be sealed with this list.

    Raises:
        InputError: none, more than 512, more than 8 of a type whose stanzas do not name their key, or one twice.
    """
    if not 1 <= len(stanzas) <= MAX_STANZAS:
        raise InputError(f"recipients: expected 1 to {MAX_STANZAS}, got {len(stanzas)}")
    if len({each.key_id for each in stanzas}) != len(stanzas):
        raise InputError("recipients: the same key is given twice")
    named = {suite.value for suite in RecipientSuite}
    for kind, number in Counter(each.kind for each in stanzas).items():
        if kind not in named and number > MAX_TRIES:
            raise InputError(f"recipients: expected at most {MAX_TRIES} of type {kind}, got {number}")


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


def _open_hpke(stanzas: Sequence[Stanza], identity: Identity, binding: Binding) -> tuple[RandomId, bytes]:
    key = cast(RecipientPrivateKey, identity)
    for stanza in stanzas:
        if stanza.key_id == key.key_id and stanza.kind == key.suite.value:
            bound = stanza_data(stanza.kind, stanza.key_id)
            try:
                return stanza.key_id, kem.open_once(key, stanza.body, info=binding.info, associated_data=bound)
            except (KeyMismatch, IntegrityError) as error:
                raise IntegrityError("recipients: the stanza for this key was altered") from error
    raise KeyMismatch(NO_STANZA)


def _open_other(stanzas: Sequence[Stanza], identity: Identity, binding: Binding) -> tuple[RandomId, bytes]:
    unwrapper = cast(KeyUnwrapper, identity)
    mine = [each for each in stanzas if each.kind == unwrapper.kind]
    if len(mine) > MAX_TRIES:
        raise InputError(f"recipients: expected at most {MAX_TRIES} of type {unwrapper.kind}, got {len(mine)}")
    mismatch = KeyMismatch(NO_STANZA)
    for stanza in mine:
        try:
            return stanza.key_id, unwrapper.unwrap(stanza, binding)
        except KeyMismatch as error:
            mismatch = error
    raise mismatch
