"""What placeholders stand for: sealed, by scope, for a while."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from counts import counts
from mibao.errors import InputError, IntegrityError
from mibao.serving import vault_store
from mibao.serving.migrations import VAULT
from mibao.serving.storage import Store
from mibao.serving.vault_store import MAX_VALUE_CHARS, StoredVault

KEY, SCOPE, OTHER = bytes(range(32)), b"s" * 32, b"o" * 32


def vault(store: Store, *, key: bytes = KEY, now_ms: list[int] | None = None) -> StoredVault:
    now = now_ms or [1_000]
    return StoredVault(store, key=key, clock_ms=lambda: now[0], ttl_s=60)


@settings(
    max_examples=counts(short=20, long=500),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.dictionaries(st.text(max_size=30), st.text(st.characters(), max_size=50), max_size=8), st.binary(min_size=1))
def test_what_was_put_comes_back_in_its_scope_and_in_no_other(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, str], scope: bytes
) -> None:
    values = {name: value for name, value in values.items() if name.isprintable()}
    with Store.open(tmp_path_factory.mktemp("v") / "gateway.db") as store:
        kept = vault(store)
        kept.put(scope, values)
        assert vault(store).get(scope, [*values, "<UNKNOWN>"]) == values
        assert vault(store).every(scope) == values
        assert kept.get(scope + b"x", values) == {}


def test_another_worker_reads_and_renews_what_one_put(store_place: str) -> None:
    now = [1_000]
    with Store.open(store_place) as store, Store.open(store_place) as other:
        vault(store, now_ms=now).put(SCOPE, {"<A>": "Jane", "<B>": "020"})
        now[0] += 40_000
        vault(other, now_ms=now).put(SCOPE, {"<A>": "Jane"})
        now[0] += 40_000
        assert vault(store, now_ms=now).get(SCOPE, ["<A>", "<B>"]) == {"<A>": "Jane"}
        assert vault(store, now_ms=now).sweep() == 1
        assert vault(store, now_ms=now).forget(SCOPE) == 1
        assert vault(store, now_ms=now).get(SCOPE, ["<A>"]) == {}


def test_a_placeholder_never_changes_what_it_stands_for_while_it_lasts(store_place: str) -> None:
    now = [1_000]
    with Store.open(store_place) as store:
        kept = vault(store, now_ms=now)
        kept.put(SCOPE, {"<A>": "Jane"})
        with pytest.raises(IntegrityError, match="stands for something else already"):
            kept.put(SCOPE, {"<A>": "John", "<C>": "x"})
        assert kept.get(SCOPE, ["<A>", "<C>"]) == {"<A>": "Jane"}
        now[0] += 60_000
        kept.put(SCOPE, {"<A>": "John"})
        assert kept.get(SCOPE, ["<A>"]) == {"<A>": "John"}


def test_neither_value_nor_placeholder_is_in_the_files(tmp_path: Path) -> None:
    with Store.open(tmp_path / "gateway.db") as store:
        vault(store).put(SCOPE, {"<PERSON_ABC>": "Jane Doe"})
        stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert SCOPE in stored
    assert b"Jane Doe" not in stored
    assert b"PERSON_ABC" not in stored


def test_one_value_twice_is_sealed_differently(tmp_path: Path) -> None:
    with Store.open(tmp_path / "gateway.db") as store:
        vault(store).put(SCOPE, {"<A>": "Jane", "<B>": "Jane"})
        with store.reading() as connection:
            assert len(set(connection.execute(select(VAULT.c.sealed)).scalars())) == 2


@pytest.mark.parametrize("fault", ["another scope's", "another placeholder's", "a bit"])
def test_a_row_that_was_moved_or_changed_does_not_open(tmp_path: Path, fault: str) -> None:
    with Store.open(tmp_path / "gateway.db") as store:
        kept = vault(store)
        kept.put(SCOPE, {"<A>": "Jane"})
        (mine,) = _sealed(store)
        kept.put(OTHER if fault == "another scope's" else SCOPE, {"<A>" if fault == "another scope's" else "<B>": "Jo"})
        (theirs,) = _sealed(store) - {mine}
        changed = mine[:-1] + bytes([mine[-1] ^ 1]) if fault == "a bit" else theirs
        with store.writing() as connection:
            connection.execute(update(VAULT).where(VAULT.c.sealed == mine).values(sealed=changed))
        with pytest.raises(IntegrityError, match="changed, moved, or sealed under another key"):
            kept.get(SCOPE, ["<A>"])


def _sealed(store: Store) -> set[bytes]:
    with store.reading() as connection:
        return set(connection.execute(select(VAULT.c.sealed)).scalars())


def test_a_row_that_was_cut_is_named(tmp_path: Path) -> None:
    with Store.open(tmp_path / "gateway.db") as store:
        vault(store).put(SCOPE, {"<A>": "Jane"})
        with store.writing() as connection:
            connection.execute(update(VAULT).values(sealed=b"short"))
        with pytest.raises(IntegrityError, match="a row was cut"):
            vault(store).get(SCOPE, ["<A>"])


def test_under_another_key_nothing_is_found(tmp_path: Path) -> None:
    with Store.open(tmp_path / "gateway.db") as store:
        vault(store).put(SCOPE, {"<A>": "Jane"})
        assert vault(store, key=bytes(32)).get(SCOPE, ["<A>"]) == {}


def test_a_key_of_another_length_and_a_value_too_long_are_refused(tmp_path: Path) -> None:
    with Store.open(tmp_path / "gateway.db") as store:
        with pytest.raises(InputError, match="expected a key of 32 bytes, got 16"):
            vault(store, key=bytes(16))
        with pytest.raises(InputError, match=f"at most {MAX_VALUE_CHARS} characters"):
            vault(store).put(SCOPE, {"<A>": "x" * (MAX_VALUE_CHARS + 1)})


def test_a_scope_with_too_many_values_is_not_read(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(vault_store, "MAX_VALUES", 2)
    with Store.open(tmp_path / "gateway.db") as store:
        kept = vault(store)
        kept.put(SCOPE, {f"<A{number}>": "x" for number in range(3)})
        with pytest.raises(InputError, match="expected at most 2 values in one scope"):
            kept.every(SCOPE)
