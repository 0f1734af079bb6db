import copy
import os
import pickle
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mibao.codec import frames
from mibao.deid import Pseudonymiser, Vault, pseudonyms
from mibao.deid.pseudonyms import check_symbol, stem_of
from mibao.errors import InputError, IntegrityError, KeyMismatch
from mibao.types import EntityType

FIXED = settings(derandomize=True, deadline=None)

KEY = bytes(range(32))
PERSON = EntityType.PERSON


@FIXED
@given(st.lists(st.tuples(st.sampled_from(EntityType), st.text(st.characters(codec=None), min_size=1)), max_size=30))
def test_distinct_written_forms_never_share_a_placeholder(values: list[tuple[EntityType, str]]) -> None:
    vault = Vault(scope_key=KEY)
    given_out = {value: vault.placeholder_for(*value) for value in values}
    assert len(set(given_out.values())) == len(given_out)
    assert all(vault.written(placeholder) == written for (_, written), placeholder in given_out.items())
    assert all(vault.placeholder_for(*value) == placeholder for value, placeholder in given_out.items())


def test_values_whose_symbols_collide_still_get_placeholders_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def crowded(entity: EntityType, canonical: str, *, scope_key: bytes, attempt: int) -> str:
        symbols = f"{attempt:09d}"  # every value wants the same symbols
        return symbols + check_symbol(symbols)

    monkeypatch.setattr(pseudonyms, "stem", crowded)
    monkeypatch.setattr(pseudonyms, "form", lambda entity, written, *, scope_key, attempt: f"{attempt:04d}")
    vault = Vault(scope_key=KEY)
    written = [f"Name {index}" for index in range(20)] + ["NAME 3", "name 3", "Name  3"]
    placeholders = [vault.placeholder_for(PERSON, each) for each in written]
    assert len(set(placeholders)) == len(written)
    assert [vault.written(each) for each in placeholders] == written
    assert len({stem_of(each) for each in placeholders}) == 20
    assert len({stem_of(placeholders[3]), *(stem_of(each) for each in placeholders[20:])}) == 1


def test_linked_names_share_a_stem_and_are_restored_as_they_stood() -> None:
    vault = Vault(scope_key=KEY)
    vault.link(PERSON, "Lin Xiaoyu", "林晓雨", "LIN XIAOYU")
    vault.link(PERSON, "林晓雨", "小雨")
    tokens = {name: vault.placeholder_for(PERSON, name) for name in ("Lin Xiaoyu", "LIN XIAOYU", "林晓雨", "小雨")}
    assert len({stem_of(token) for token in tokens.values()}) == 1
    assert {name: vault.written(token) for name, token in tokens.items()} == {name: name for name in tokens}


def test_a_name_that_stands_already_cannot_be_linked_to_another() -> None:
    refused = r"^link: expected forms that have no placeholder and no link of their own yet$"
    vault = Vault(scope_key=KEY)
    vault.placeholder_for(PERSON, "Jane Doe")
    vault.link(PERSON, "Lin Xiaoyu", "林晓雨")
    for names in (("John Smith", "Jane Doe"), ("John Smith", "林晓雨"), ("John Smith", "Lin Xiaoyu")):
        with pytest.raises(InputError, match=refused):
            vault.link(PERSON, *names)
    assert stem_of(vault.placeholder_for(PERSON, "林晓雨")) == stem_of(vault.placeholder_for(PERSON, "Lin Xiaoyu"))


def test_a_saved_session_restores_and_goes_on_with_the_same_placeholders(tmp_path: Path) -> None:
    text, path = "Dr. Chen, 13800138000, \ud800 <PERSON_0000000000>", tmp_path / "note.vault"
    session = Pseudonymiser(key=KEY, scope="file")
    session.link(PERSON, "Chen", "陈")
    masked = session.mask(text)
    session.save(path)
    session.save(path)
    again = Pseudonymiser.load(path, key=KEY, scope="file")
    assert again.restore(masked.text) == text
    assert again.mask(text).text == masked.text
    assert stem_of(again.vault.placeholder_for(PERSON, "陈")) == stem_of(again.vault.placeholder_for(PERSON, "Chen"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_shows_nothing_and_two_saves_share_nothing_but_their_header(tmp_path: Path) -> None:
    vault = Vault(scope_key=KEY)
    vault.placeholder_for(PERSON, "Zebulon Zebulon Zebulon Zebulon")
    one, two = tmp_path / "one", tmp_path / "two"
    vault.save(one)
    vault.save(two)
    first, second = one.read_bytes(), two.read_bytes()
    assert b"Zebulon" not in first
    header = frames.HEADER_BYTES + 32
    assert first[:header] == second[:header]
    assert sum(a == b for a, b in zip(first[header:], second[header:], strict=True)) < 16


def test_every_flipped_byte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vault"
    vault = Vault(scope_key=KEY)
    vault.placeholder_for(PERSON, "Chen")
    vault.save(path)
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises((IntegrityError, KeyMismatch)):
            Vault.load(path, scope_key=KEY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-1], r"^frame: truncated"),
        (lambda data: data + b"\0", r"^frame: 1 bytes after the end$"),
        (lambda data: b"MBXX" + data[4:], r"^frame: expected b'MBVT' at its start$"),
        (lambda data: data[:4] + b"\2" + data[5:], r"^frame: expected version 1, got 2$"),
        (lambda data: data[:5] + b"\2" + data[6:], r"^vault: expected a frame of kind 1, got 2$"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), r"^vault: its content was changed$"),
        (lambda data: data[:6] + (79).to_bytes(4, "big") + data[10:89], r"^vault: truncated$"),
    ],
)
def test_a_changed_file_is_refused_by_name(change, message: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "vault"
    Vault(scope_key=KEY).save(path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(IntegrityError, match=message):
        Vault.load(path, scope_key=KEY)


def test_another_key_or_scope_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "vault"
    Pseudonymiser(key=KEY, scope="one").save(path)
    for key, scope in ((bytes(32), "one"), (KEY, "two")):
        with pytest.raises(KeyMismatch, match=r"^vault: sealed for another key or another scope$"):
            Pseudonymiser.load(path, key=key, scope=scope)


def test_a_missing_file_and_an_unwritable_place_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^vault: cannot read .*: No such file or directory$"):
        Vault.load(tmp_path / "none", scope_key=KEY)
    with pytest.raises(InputError, match=r"^vault: cannot write .*: No such file or directory$"):
        Vault(scope_key=KEY).save(tmp_path / "none" / "vault")


def test_a_failed_save_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "vault"
    vault = Vault(scope_key=KEY)
    vault.save(path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match=r"^vault: cannot write .*: No space left on device$"):
        vault.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_vault_is_neither_pickled_nor_copied() -> None:
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            attempt(Vault(scope_key=KEY))


def test_a_scope_key_of_another_length_is_refused() -> None:
    with pytest.raises(InputError, match=r"^vault: expected a scope key of 32 bytes, got 16$"):
        Vault(scope_key=bytes(16))


@pytest.mark.parametrize("name", ["/dev/zero", "fifo"])
def test_what_is_no_regular_file_is_no_vault_and_nothing_waits_for_it(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InputError, match="not a regular file"):
        Vault.load(tmp_path / name, scope_key=KEY)
