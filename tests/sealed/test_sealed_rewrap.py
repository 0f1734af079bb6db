"""Changing the recipients: header only, safe against crashes, and no stranger can do it."""

import hashlib

import pytest

import sealed_kit as kit
from mibao import sealed
from mibao.crypto.keys import RecipientSuite
from mibao.errors import InputError, IntegrityError, KeyMismatch
from mibao.sealed import layout, opening, rewrapping
from mibao.sealed.source import MemorySource

CAROL = kit.recipient(4, RecipientSuite.MLKEM768_X25519)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "m.mibao"
    path.write_bytes(kit.sealed_bytes())
    return path


def region_hash(data: bytes) -> bytes:
    preamble = layout.parse_preamble(data[:64], file_bytes=len(data))
    signed = data[preamble.manifest_at : preamble.slot_at(0)]
    return hashlib.sha256(signed + data[preamble.table_at : preamble.padding_at] + data[preamble.data_at :]).digest()


def opens(data: bytes, identity) -> bool:
    try:
        return bool(kit.opened_parts(data, identity=identity))
    except KeyMismatch:
        return False


def test_a_recipient_added_opens_and_one_removed_does_not(path):
    before = path.read_bytes()
    left = sealed.rewrap(path, identity=kit.ALICE, add=[CAROL.public], remove=[kit.BOB.key_id])
    after = path.read_bytes()
    assert left == (kit.ALICE.key_id, CAROL.key_id)
    assert [opens(after, each) for each in (kit.ALICE, kit.BOB, CAROL)] == [True, False, True]
    assert region_hash(after) == region_hash(before)
    assert len(after) == len(before)
    assert kit.BOB.key_id.value not in after, "nothing of the old list stays behind"


def test_rewraps_alternate_between_the_slots(path):
    for _ in range(3):
        sealed.rewrap(path, identity=kit.ALICE, add=[CAROL.public])
        sealed.rewrap(path, identity=CAROL, remove=[CAROL.key_id])
    assert kit.opened_parts(path.read_bytes()) == kit.opened_parts(kit.sealed_bytes())


def test_more_recipients_than_fit_move_the_data_behind_larger_slots(path):
    before = path.read_bytes()
    many = [kit.recipient(number, RecipientSuite.MLKEM768_X25519) for number in range(20, 26)]
    sealed.rewrap(path, identity=kit.ALICE, add=[each.public for each in many])
    after = path.read_bytes()
    assert all(opens(after, each) for each in (kit.ALICE, kit.BOB, *many))
    assert region_hash(after) == region_hash(before)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def crash_states(before: bytes, change: rewrapping.Rewrap):
    """The file after every prefix of the writes, the last of them torn at each sector."""
    data = bytearray(before)
    for offset, written in rewrapping.steps(change):
        for torn in range(0, len(written), 512):
            yield bytes(data[:offset]) + written[:torn] + bytes(data[offset + torn :])
        data[offset : offset + len(written)] = written
        yield bytes(data)


def test_a_crash_at_any_point_leaves_the_old_list_or_the_new_one():
    before = kit.sealed_bytes()
    change = rewrapping.plan(MemorySource(before), kit.ALICE, add=[CAROL.public], remove=[kit.BOB.key_id])
    outcomes = [(opens(each, kit.BOB), opens(each, CAROL)) for each in crash_states(before, change)]
    assert outcomes[0] == (True, False)
    assert outcomes[-1] == (False, True)
    assert set(outcomes) == {(True, False), (False, True)}
    assert outcomes == sorted(outcomes, reverse=True), "the list changes once"


def test_the_next_rewrap_clears_up_after_any_crash(path):
    before = path.read_bytes()
    change = rewrapping.plan(MemorySource(before), kit.ALICE, add=[CAROL.public], remove=[kit.BOB.key_id])
    for state in list(crash_states(before, change))[::5]:
        path.write_bytes(state)
        sealed.rewrap(path, identity=kit.ALICE, add=[kit.MALLORY.public])
        after = path.read_bytes()
        assert opens(after, kit.MALLORY)
        assert not sealed.inspect(path).rewrap_interrupted
        if not opens(after, kit.BOB):
            assert kit.BOB.key_id.value not in after


def test_an_interrupted_rewrap_shows_in_inspect(path):
    change = rewrapping.plan(MemorySource(path.read_bytes()), kit.ALICE, add=[CAROL.public], remove=[])
    offset, written = next(iter(rewrapping.steps(change)))
    data = bytearray(path.read_bytes())
    data[offset : offset + len(written)] = written
    path.write_bytes(data)
    assert sealed.inspect(path).rewrap_interrupted


def test_a_stranger_cannot_claim_that_a_rewrap_was_interrupted(path):
    """Else bytes nobody accounts for could hide in the other slot."""
    data = bytearray(path.read_bytes())
    data[65] = 1
    with pytest.raises(IntegrityError, match=r"^header: its MAC does not match"):
        kit.opened_parts(bytes(data))


def test_an_old_list_put_back_gives_its_recipients_what_they_could_open_before(path):
    before = path.read_bytes()
    sealed.rewrap(path, identity=kit.ALICE, remove=[kit.BOB.key_id])
    after = path.read_bytes()
    preamble = layout.parse_preamble(after[:64], file_bytes=len(after))
    restored = before[: preamble.table_at] + after[preamble.table_at :]
    assert opens(restored, kit.BOB)
    assert not opens(restored, kit.MALLORY)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"remove": [kit.ALICE.key_id, kit.BOB.key_id]}, InputError, "expected 1 to 512, got 0"),
        ({"remove": [kit.MALLORY.key_id]}, InputError, "not on this file's list"),
        ({"add": [kit.BOB.public]}, InputError, "the same key is given twice"),
        ({"identity": kit.MALLORY, "add": [CAROL.public]}, KeyMismatch, "not sealed to this key"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused_and_nothing_written(path, change, error, message):
    before = path.read_bytes()
    with pytest.raises(error, match=message):
        sealed.rewrap(path, **({"identity": kit.ALICE} | change))
    assert path.read_bytes() == before


def test_a_recipient_cannot_rewrap_a_file_whose_header_was_altered(path):
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"^header: its MAC does not match"):
        sealed.rewrap(path, identity=kit.ALICE, add=[CAROL.public])


class RewrappedMeanwhile(MemorySource):
    """A file that somebody rewraps between the reads of its selector and its slots."""

    def __init__(self, before: bytes, after: bytes) -> None:
        super().__init__(before)
        self.after = after

    def read_into(self, offset: int, out: memoryview) -> None:
        super().read_into(offset, out)
        if offset == layout.PREAMBLE_BYTES:
            self._data = memoryview(self.after)


def test_a_reader_that_meets_a_rewrap_reads_the_list_again(path):
    before = path.read_bytes()
    sealed.rewrap(path, identity=kit.ALICE, add=[CAROL.public])
    source = RewrappedMeanwhile(before, path.read_bytes())
    envelope = opening.read_verified(source, signer=kit.VENDOR.public)
    assert len(opening.unlock(source, envelope, kit.ALICE)[0].stanzas) == 3
