import copy
import hmac
import json
import os
import pickle
import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from mibao.deid import Pseudonymiser, Vault, pseudonyms
from mibao.deid.pseudonyms import check_symbol, stem_of
from mibao.deid.vault_sqlite import APPLICATION_ID, SCHEMA
from mibao.errors import InputError, IntegrityError, KeyMismatch
from mibao.types import EntityType, type_named

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


def _vault(path: Path, *names: str) -> list[str]:
    with Vault.open(path, scope_key=KEY) as vault:
        return [vault.placeholder_for(PERSON, name) for name in names]


def _changed(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


@settings(derandomize=True, deadline=None, max_examples=15)
@given(
    sessions=st.lists(
        st.lists(st.tuples(st.sampled_from(EntityType), st.text(st.characters(codec=None), min_size=1))), max_size=4
    )
)
def test_a_file_gives_what_memory_gives_however_often_it_is_opened(
    sessions: list[list[tuple[EntityType, str]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path, memory = tmp_path_factory.mktemp("vault") / "v", Vault(scope_key=KEY)
    for values in sessions:
        with Vault.open(path, scope_key=KEY) as vault, vault.batch():
            assert [vault.placeholder_for(*each) for each in values] == [
                memory.placeholder_for(*each) for each in values
            ]
    with Vault.open(path, scope_key=KEY) as vault:
        assert len(vault) == len(memory)
        for values in sessions:
            assert [vault.written(memory.placeholder_for(*each)) for each in values] == [each[1] for each in values]


def test_several_texts_go_into_one_vault_and_each_session_restores_all(tmp_path: Path) -> None:
    texts, path = ["Dr. Chen, 13800138000", "\ud800 <PERSON_0000000000>, +86 138 0013 8000"], tmp_path / "note.vault"
    session = Pseudonymiser.open(path, key=KEY, scope="file")
    session.link(PERSON, "Chen", "陈")
    masked = [session.mask(texts[0]).text]
    session.close()
    again = Pseudonymiser.open(path, key=KEY, scope="file")
    masked.append(again.mask(texts[1]).text)
    assert [again.restore(each) for each in masked] == texts
    assert again.mask(texts[0]).text == masked[0]
    assert stem_of(again.vault.placeholder_for(PERSON, "陈")) == stem_of(again.vault.placeholder_for(PERSON, "Chen"))
    again.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_values_that_collide_across_sessions_keep_placeholders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        pseudonyms, "stem",
        lambda entity, value, *, scope_key, attempt: f"{attempt:09d}" + check_symbol(f"{attempt:09d}"),
    )  # fmt: skip
    monkeypatch.setattr(pseudonyms, "form", lambda entity, written, *, scope_key, attempt: f"{attempt:04d}")
    names = [f"Name {index}" for index in range(6)] + ["NAME 3", "name 3"]
    given = [_vault(tmp_path / "v", name)[0] for name in names]
    assert len(set(given)) == len(names)
    with Vault.open(tmp_path / "v", scope_key=KEY) as vault:
        assert [vault.written(each) for each in given] == names
    assert _vault(tmp_path / "v", *names) == given


def test_two_open_vaults_see_each_others_rows_and_wait_for_each_others_batches(tmp_path: Path) -> None:
    with Vault.open(tmp_path / "v", scope_key=KEY) as one, Vault.open(tmp_path / "v", scope_key=KEY) as two:
        made = one.placeholder_for(PERSON, "Ann")
        assert two.written(made) == "Ann"
        assert two.placeholder_for(PERSON, "Ann") == made
        order: list[str] = []
        waiting = threading.Thread(target=lambda: order.append(two.placeholder_for(PERSON, "Bob")))
        with one.batch():
            one.placeholder_for(PERSON, "Cid")
            waiting.start()
            waiting.join(timeout=0.2)
            assert order == []
        waiting.join(timeout=30)
        assert one.written(order[0]) == "Bob"
        with Vault.open(tmp_path / "v", scope_key=KEY) as three:
            assert len(three) == 3


def test_what_a_failed_batch_made_is_not_stored_and_not_remembered(tmp_path: Path) -> None:
    with Vault.open(tmp_path / "v", scope_key=KEY) as vault:
        with pytest.raises(ZeroDivisionError), vault.batch():
            made = vault.placeholder_for(PERSON, "Ann")
            raise ZeroDivisionError
        assert vault.written(made) is None
        assert vault.placeholder_for(PERSON, "Ann") == made
        assert vault.written(made) == "Ann"


def test_a_file_shows_no_value_no_type_and_no_placeholder(tmp_path: Path) -> None:
    (made,) = _vault(tmp_path / "v", "Zebulon Zebulon Zebulon")
    data = (tmp_path / "v").read_bytes()
    assert not [part for part in (b"Zebulon", b"PERSON", made.encode()) if part in data]


def test_an_altered_row_is_refused_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "v"
    made = _vault(path, "Ann", "Bob")
    with closing(sqlite3.connect(path)) as connection:
        tags = [row[0] for row in connection.execute("SELECT tag FROM rows")]
    refused = 0
    for tag in tags:
        original = path.read_bytes()
        _changed(path, f"UPDATE rows SET sealed = zeroblob(60) WHERE tag = x'{tag.hex()}'")  # noqa: S608
        with Vault.open(path, scope_key=KEY) as vault:
            for each, name in zip(made, ("Ann", "Bob"), strict=True):
                try:
                    assert vault.written(each) == name
                except IntegrityError as error:
                    assert str(error) == "vault: a row of it was altered"
                    refused += 1
        path.write_bytes(original)
    assert refused == 2


def test_rows_in_each_others_place_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "v"
    made = _vault(path, "Ann", "Bob")
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT tag, sealed FROM rows").fetchall()
    for tag, _ in rows:
        for other, sealed in rows:
            if tag != other:
                _changed(path, f"UPDATE rows SET sealed = x'{sealed.hex()}' WHERE tag = x'{tag.hex()}'")  # noqa: S608
                with Vault.open(path, scope_key=KEY) as vault:
                    for each, name in zip(made, ("Ann", "Bob"), strict=True):
                        try:
                            assert vault.written(each) == name
                        except IntegrityError:
                            continue
        _changed(path, *(f"UPDATE rows SET sealed = x'{s.hex()}' WHERE tag = x'{t.hex()}'" for t, s in rows))  # noqa: S608


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (
            "DELETE FROM rows WHERE tag = (SELECT min(tag) FROM rows)",
            r"^vault: expected 4 rows as its head says, got 3$",
        ),
        ("INSERT INTO rows VALUES (x'00', x'00')", r"^vault: expected 4 rows as its head says, got 5$"),
        ("UPDATE head SET counts = zeroblob(44)", r"^vault: its head was altered$"),
        ("UPDATE head SET salt = zeroblob(32)", r"^vault: its head was altered$"),
        ("UPDATE head SET salt = x'00'", r"^vault: its head is missing or malformed$"),
        ("DELETE FROM head", r"^vault: its head is missing or malformed$"),
        ("CREATE TABLE more (x)", r"^vault: expected the tables head and rows as specified, and nothing else$"),
        ("CREATE TRIGGER t AFTER INSERT ON rows BEGIN DELETE FROM rows; END", r"^vault: expected the tables head and "),
        ("PRAGMA user_version = 9", r"^vault: expected format version 1$"),
    ],
)
def test_a_changed_file_is_refused_by_name(statement: str, message: str, tmp_path: Path) -> None:
    _vault(tmp_path / "v", "Ann", "Bob")
    _changed(tmp_path / "v", statement)
    with pytest.raises(IntegrityError, match=message):
        Vault.open(tmp_path / "v", scope_key=KEY)


def test_an_older_file_in_place_of_the_open_one_is_noticed(tmp_path: Path) -> None:
    with Vault.open(tmp_path / "v", scope_key=KEY) as vault:
        vault.placeholder_for(PERSON, "Ann")
        vault.close()
        older = (tmp_path / "v").read_bytes()
    with Vault.open(tmp_path / "v", scope_key=KEY) as vault:
        vault.placeholder_for(PERSON, "Bob")
        rows = sqlite3.connect(tmp_path / "v")
        old = tmp_path / "old"
        old.write_bytes(older)
        rows.execute(f"ATTACH '{old}' AS old")
        rows.execute("DELETE FROM rows")
        rows.execute("INSERT INTO rows SELECT * FROM old.rows")
        rows.execute("UPDATE head SET counts = (SELECT counts FROM old.head)")
        rows.commit()
        rows.close()
        with pytest.raises(IntegrityError, match=r"^vault: rolled back or replaced while it was open$"):
            vault.placeholder_for(PERSON, "Cid")


def test_another_key_or_scope_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "vault"
    Pseudonymiser.open(path, key=KEY, scope="one").close()
    for key, scope in ((bytes(32), "one"), (KEY, "two")):
        with pytest.raises(KeyMismatch, match=r"^vault: sealed for another key or another scope$"):
            Pseudonymiser.open(path, key=key, scope=scope)


def test_a_vault_that_claims_another_scope_still_opens_nothing(tmp_path: Path) -> None:
    _vault(tmp_path / "v", "Ann")
    other = Vault(scope_key=bytes(32))
    _changed(tmp_path / "v", f"UPDATE head SET scope = x'{other.scope.value.hex()}'")  # noqa: S608
    with pytest.raises(IntegrityError, match=r"^vault: its head was altered$"):
        Vault.open(tmp_path / "v", scope_key=bytes(32))


def test_what_is_no_vault_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a text", encoding="utf-8")
    with pytest.raises(InputError, match=r"text: not a vault of mibao$"):
        Vault.open(tmp_path / "text", scope_key=KEY)
    assert (tmp_path / "text").read_text(encoding="utf-8") == "a text"
    with pytest.raises(InputError, match=r"^vault: cannot write .*: No such file or directory$"):
        Vault.open(tmp_path / "none" / "vault", scope_key=KEY)
    _vault(tmp_path / "v", "Ann")
    (tmp_path / "v-journal").write_bytes(b"")
    with pytest.raises(IntegrityError, match=r"^rollback journal beside the vault: "):
        Vault.open(tmp_path / "v", scope_key=KEY)


def test_the_file_is_the_one_that_the_specification_describes(tmp_path: Path) -> None:
    _vault(tmp_path / "v", "Ann")
    data = (tmp_path / "v").read_bytes()
    assert data[68:72] == APPLICATION_ID.to_bytes(4, "big") == b"mbvt"
    page = (Path(__file__).parents[2] / "docs/spec/vault.md").read_text(encoding="utf-8")
    assert all(statement in " ".join(page.split()) for statement in SCHEMA.values())


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
        Vault.open(tmp_path / name, scope_key=KEY)


COMPAT = Path(__file__).parents[1] / "vectors/compat/deid"


def test_a_vault_of_the_first_format_stays_readable(tmp_path: Path) -> None:
    kept = json.loads((COMPAT / "vault-v1.json").read_text(encoding="utf-8"))
    (tmp_path / "v").write_bytes((COMPAT / "vault-v1.vault").read_bytes())
    with Vault.open(tmp_path / "v", scope_key=bytes.fromhex(kept["scope_key"])) as vault:
        assert len(vault) == len(kept["rows"])
        for row in kept["rows"]:
            assert vault.written(row["placeholder"]) == row["written"]
            assert vault.placeholder_for(type_named(row["type"]), row["written"]) == row["placeholder"]


def test_a_reader_written_from_the_specification_alone_opens_a_vault() -> None:
    """With nothing of ours: HMAC, HKDF and AES-GCM as ``docs/spec/vault.md`` names them."""

    def tag(purpose: str, *parts: bytes) -> bytes:
        return b"mibao/v1/" + purpose.encode() + b"\0" + b"".join(len(each).to_bytes(8, "big") + each for each in parts)

    def derive(secret: bytes, purpose: str, salt: bytes) -> bytes:
        return HKDF(hashes.SHA256(), 32, salt, tag(purpose, b"")).derive(secret)

    def mac(key: bytes, purpose: str, message: bytes) -> bytes:
        return hmac.digest(key, tag(purpose, message), "sha256")

    kept = json.loads((COMPAT / "vault-v1.json").read_text(encoding="utf-8"))
    scope_key = bytes.fromhex(kept["scope_key"])
    with closing(sqlite3.connect(f"file:{COMPAT / 'vault-v1.vault'}?immutable=1", uri=True)) as connection:
        ((scope, salt, counts),) = connection.execute("SELECT scope, salt, counts FROM head")
        rows = dict(connection.execute("SELECT tag, sealed FROM rows").fetchall())
    assert scope == mac(scope_key, "deid/scope", b"")
    cipher = AESGCM(derive(scope_key, "deid/vault-file", salt))
    numbers = cipher.decrypt(counts[:12], counts[12:], tag("deid/vault-head", b"\1", scope))
    assert numbers == len(rows).to_bytes(8, "big") + len(kept["rows"]).to_bytes(8, "big")
    tag_key = derive(scope_key, "deid/vault-tags", salt)
    for row in kept["rows"]:
        about = (b"placeholder", row["placeholder"].encode())
        sealed = rows[mac(tag_key, "deid/vault-tag", tag("deid/vault-tag", *about))]
        plain = cipher.decrypt(sealed[:12], sealed[12:], tag("deid/vault-row", b"\1", scope, *about))
        assert plain == row["written"].encode("utf-8", "surrogatepass")
