"""The gateway's store, in SQLite and in a real PostgreSQL."""

import os
import sqlite3
import threading
import traceback
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select

from mibao.errors import InputError, IntegrityError
from mibao.serving import api_keys, migrations
from mibao.serving.api_keys import Grant
from mibao.serving.migrations import STEPS, USAGE, VAULT
from mibao.serving.storage import Store, Unavailable

ROW = {"day": 1, "requests": 1, "prompt_tokens": 0, "completion_tokens": 0, "spend": 0, "withheld": 0}


def _rows(store: Store) -> int:
    with store.reading() as connection:
        return connection.execute(select(func.count()).select_from(USAGE)).scalar_one()


def test_what_was_committed_is_there_after_opening_again(store_place: str) -> None:
    with Store.open(store_place) as store, store.writing() as connection:
        connection.execute(insert(USAGE).values(key_id="a", model="m", **ROW))
    with Store.open(store_place) as store:
        assert _rows(store) == 1


def test_a_transaction_that_raises_leaves_nothing(store_place: str) -> None:
    with Store.open(store_place) as store:
        with pytest.raises(KeyError), store.writing() as connection:
            connection.execute(insert(USAGE).values(key_id="a", model="m", **ROW))
            raise KeyError
        assert _rows(store) == 0


@pytest.mark.parametrize("version", range(len(STEPS)))
def test_a_store_of_each_older_version_is_brought_up_to_date_and_keeps_what_it_holds(
    store_place: str, version: int
) -> None:
    # A store as the release with so many steps left it.
    with Store.open(store_place) as store, store.writing() as connection:
        for table in ("api_keys", "usage", "request_slots", "reservations", "ledger_outbox", "ledger_state", "vault",
                      "worker_metrics"):  # fmt: skip
            connection.exec_driver_sql(f"DROP TABLE {table}")
        connection.exec_driver_sql("UPDATE schema_version SET version = 0")
        migrations.upgrade(connection, to=version)
        if version:
            _, made = api_keys.create(connection, Grant(tenant="kept"), now_ms=1)
    with Store.open(store_place) as store, store.writing() as connection:
        assert connection.exec_driver_sql("SELECT version FROM schema_version").scalar_one() == len(STEPS)
        assert api_keys.every(connection) == ([made] if version else [])
        connection.execute(insert(VAULT).values(scope=b"s", placeholder=b"p", sealed=b"x", expires_ms=1))


def test_a_store_of_a_newer_version_is_refused(store_place: str) -> None:
    with Store.open(store_place) as store, store.writing() as connection:
        connection.exec_driver_sql("UPDATE schema_version SET version = 99")
    with pytest.raises(InputError, match=rf"schema version {len(STEPS)} or older, got 99: made by a newer mibao"):
        Store.open(store_place)


def test_many_that_open_a_new_store_at_once_all_find_it_whole(store_place: str) -> None:
    failures: list[Exception] = []

    def open_it() -> None:
        try:
            with Store.open(store_place) as store:
                assert _rows(store) == 0
        except Exception as error:  # noqa: BLE001 - a thread's failure is shown below
            failures.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        with Store.open(tmp_path / "gateway.db") as store, store.writing():
            modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    finally:
        os.umask(previous)
    assert set(modes) == {"gateway.db", "gateway.db-wal", "gateway.db-shm"}
    assert set(modes.values()) == {0o600}


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    Store.open(path).close()
    path.chmod(0o640)
    with pytest.raises(InputError, match="others may read it"):
        Store.open(path)


def test_another_sqlite_file_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mine (x)")
    connection.commit()
    connection.close()
    path.chmod(0o600)
    with pytest.raises(InputError, match="expected a gateway's store, got another SQLite file"):
        Store.open(path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    path.write_bytes(b"not a database at all" * 100)
    path.chmod(0o600)
    with pytest.raises(IntegrityError, match="damaged, or none of mibao's"):
        Store.open(path)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a file"):
        Store.open(tmp_path)


@pytest.mark.parametrize("place", ["mysql://host/x", "http://host/x"])
def test_another_kind_of_database_is_refused(place: str) -> None:
    with pytest.raises(InputError, match="expected a file or a postgresql:// address"):
        Store.open(place)


def test_a_database_that_does_not_answer_is_named_without_its_password() -> None:
    with pytest.raises(Unavailable) as error:
        Store.open("postgresql://someone:hunter2@127.0.0.1:1/mibao")
    assert "store postgresql://127.0.0.1:1/mibao: the database does not answer" in str(error.value)
    assert "hunter2" not in str(error.value) + repr(error.value.__cause__)


def test_an_error_shows_no_value_that_was_being_written(store_place: str) -> None:
    with Store.open(store_place) as store:
        with pytest.raises(Unavailable) as error, store.writing() as connection:
            for _ in range(2):
                connection.execute(insert(USAGE).values(key_id="secret-key-id", model="m", **ROW))
        assert "secret-key-id" not in "".join(traceback.format_exception(error.value))
