"""The list of recipients: what an outsider, a recipient and a malicious sealer cannot do to it."""

import sealed_kit as kit
from mibao.errors import IntegrityError, KeyMismatch
from mibao.sealed import recipients
from mibao.sealed.file_keys import FileKeys
from mibao.sealed.layout import PREAMBLE_BYTES, SELECTOR_BYTES
from mibao.sealed.unlock import Binding
from sealed_faults import GOOD, KEYS, PREAMBLE, by_a_recipient, refused, replaced


def with_stanzas(change, *, data: bytes = GOOD) -> bytes:
    slot = data[PREAMBLE.slot_at(0) : PREAMBLE.slot_at(1)]
    stanzas = change(list(recipients.decode_slot(slot)))
    return replaced(PREAMBLE.slot_at(0), recipients.encode_slot(stanzas, slot_bytes=PREAMBLE.slot_bytes), data)


def test_swapped_stanzas_are_refused():
    refused(with_stanzas(lambda stanzas: stanzas[::-1]), IntegrityError, "header: its MAC does not match")


def test_a_duplicated_stanza_is_refused():
    refused(with_stanzas(lambda stanzas: [*stanzas, stanzas[0]]), IntegrityError, "recipients: a stanza stands twice")


def test_a_dropped_stanza_is_refused():
    refused(with_stanzas(lambda stanzas: stanzas[:1]), IntegrityError, "header: its MAC does not match")


def test_a_stanza_of_another_file_is_refused():
    other = kit.sealed_bytes(file_id=b"J" * 16)
    slot = other[PREAMBLE.slot_at(0) : PREAMBLE.slot_at(1)]
    refused(replaced(PREAMBLE.slot_at(0), slot), IntegrityError, "recipients: the stanza for this key was altered")


def test_a_stanza_under_another_recipients_id_is_refused():
    def exchange(stanzas):
        one, two = stanzas
        return [recipients.Stanza(kind=one.kind, key_id=a.key_id, body=b.body) for a, b in ((one, two), (two, one))]

    refused(with_stanzas(exchange), IntegrityError, "recipients: the stanza for this key was altered")


def test_one_file_never_opens_to_two_plaintexts():
    """A malicious sealer hands Bob another file key; the signed commitment has room for one."""
    second = FileKeys(b"L" * 32, KEYS.file_id)
    info_as_signed = Binding(file_id=KEYS.file_id, commitment=KEYS.commitment, signer=kit.VENDOR.key_id).info
    stanza = kit.wrap_with_info(second, kit.BOB.public, info_as_signed)
    data = by_a_recipient(with_stanzas(lambda stanzas: [stanzas[0], stanza]))
    assert kit.opened_parts(data, identity=kit.ALICE)
    refused(
        data,
        IntegrityError,
        "key commitment: the recipient's stanza holds another key than the signed one",
        identity=kit.BOB,
    )


def test_a_stranger_is_told_that_the_model_is_not_for_them():
    refused(GOOD, KeyMismatch, recipients.NO_STANZA, identity=kit.MALLORY)


def test_the_selector_lies_within_one_sector():
    assert PREAMBLE_BYTES + SELECTOR_BYTES <= 512
