"""Tests of the store on a real PostgreSQL server: connections, and the errors without a server."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from conftest import new_database
from edgevit.errors import StoreError, UsageError
from edgevit.store import LatencyDB
from edgevit.store.connect import database_url
from support.measured import measured
from support.postgres import server
from support.stored_rows import execute


@pytest.fixture
def url(tmp_path: Path) -> str:
    return new_database("postgresql", tmp_path)


def test_any_spelling_is_the_driver_that_is_tested() -> None:
    for text in ("postgresql://host/x", "postgres://host/x", "postgresql+psycopg://host/x"):
        assert database_url(text).drivername == "postgresql+psycopg"
    assert database_url("postgresql+pg8000://host/x").drivername == "postgresql+pg8000"


def test_without_the_driver_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError) as caught:
        LatencyDB.open("postgresql://user:secret@host/x")
    assert "edgevit[postgres]" in caught.value.fix and "secret" not in str(caught.value)


def test_servers_that_cannot_be_used(url: str, tmp_path: Path) -> None:
    home = server().home
    for wrong, why in {
        f"postgresql://edgevit@/x?host={tmp_path}": "cannot be reached",
        "postgresql://edgevit@127.0.0.1:1/x": "cannot be reached",
        f"postgresql://edgevit@/missing?host={home}": "no such database",
        f"postgresql://nobody_we_know@/postgres?host={home}": "no such user",
    }.items():
        with pytest.raises(StoreError) as caught:
            LatencyDB.open(wrong, shipped=False)
        assert why in caught.value.why and caught.value.fix, wrong


def test_a_server_that_is_lost_during_a_query_is_named(url: str) -> None:
    LatencyDB.open(url, shipped=False).close()
    name = url.partition("@/")[2].partition("?")[0]
    server().execute(f"CREATE ROLE r{name} LOGIN")
    execute(url, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO r{name}")
    with LatencyDB.open(url.replace("edgevit@", f"r{name}@"), shipped=False) as db:
        with pytest.raises(StoreError, match="lost during the query") as caught:
            db.query("SELECT pg_terminate_backend(pg_backend_pid())")
        assert "terminat" in caught.value.why and name in caught.value.where and caught.value.fix
        # The next query has a connection of its own.
        assert db.query("SELECT 1 AS x").rows == [(1,)]


def test_a_query_has_the_rights_of_a_role_that_only_reads(url: str) -> None:
    with LatencyDB.open(url, shipped=False) as db:
        db.add(measured())
        assert db.query("SELECT current_user, (SELECT count(*) FROM measurement)").rows == [("pg_read_all_data", 1)]
        with pytest.raises(UsageError, match="permission denied") as caught:
            db.query("SELECT pg_read_file('/etc/hostname')")
        assert "pg_read_file" in caught.value.why and "rights of pg_read_all_data" in caught.value.why
        # What the query had is no one's afterwards.
        assert db.add(measured(nonce="after"))


def test_the_role_that_a_guide_shows_is_preferred(url: str) -> None:
    LatencyDB.open(url, shipped=False).close()
    name = url.partition("@/")[2].partition("?")[0]
    for statement in ("CREATE ROLE edgevit_reader", f"CREATE ROLE o{name} LOGIN IN ROLE edgevit_reader"):
        server().execute(statement)
    try:
        execute(url, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO edgevit_reader")
        for user in ("edgevit", f"o{name}"):
            with LatencyDB.open(url.replace("edgevit@", f"{user}@"), shipped=False) as db:
                assert db.query("SELECT current_user AS x, (SELECT count(*) FROM meta)").rows[0][0] == "edgevit_reader"
    finally:
        execute(url, "DROP OWNED BY edgevit_reader")
        server().execute("DROP ROLE edgevit_reader")


def test_a_user_who_may_only_read_is_told(url: str) -> None:
    LatencyDB.open(url, shipped=False).close()
    name = url.partition("@/")[2].partition("?")[0]
    server().execute(f"CREATE ROLE r{name} LOGIN")
    execute(url, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO r{name}")
    with LatencyDB.open(url.replace("edgevit@", f"r{name}@"), shipped=False) as db:
        assert db.measurements() == []
        with pytest.raises(StoreError, match="may not do that"):
            db.add(measured())


def test_a_database_shared_with_other_tables_is_taken(url: str) -> None:
    execute(url, "CREATE TABLE bookmarks (x INTEGER)")
    with LatencyDB.open(url, shipped=False) as db:
        assert db.add(measured()) and db.check().problems == ()


def test_writers_take_turns_and_readers_do_not_wait(url: str) -> None:
    with LatencyDB.open(url, shipped=False) as db, LatencyDB.open(url, shipped=False) as other:
        added = threading.Event()

        def write() -> None:
            other.add(measured())
            added.set()

        writer = threading.Thread(target=write)
        with db._transaction(write=True):
            writer.start()
            assert db.measurements() == []
            assert not added.wait(0.5)
        writer.join(20)
        assert added.is_set() and len(db.measurements()) == 1


def test_a_reader_sees_one_moment(url: str) -> None:
    with LatencyDB.open(url, shipped=False) as db, LatencyDB.open(url, shipped=False) as other:
        db.add(measured())
        with db._transaction() as connection:
            before = connection.exec_driver_sql("SELECT count(*) FROM measurement").scalar()
            other.add(measured(nonce="other"))
            assert connection.exec_driver_sql("SELECT lines FROM tally WHERE part LIKE 'rows%%'").scalar() == before
