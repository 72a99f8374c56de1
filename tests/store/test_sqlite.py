"""Tests of the store on SQLite alone: opening a file, its tables, and paths where no file can be."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from edgevit.errors import EdgevitError, StoreError
from edgevit.store import LatencyDB, connect, exchange, queries, rows, tables
from edgevit.store.connect import journal_mode
from support.measured import measured, vendor_row
from support.stored_rows import variants


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


@pytest.fixture
def db(path: Path) -> Iterator[LatencyDB]:
    with LatencyDB.open(str(path), shipped=False) as database:
        yield database


def sql(path: Path, *statements: str) -> list[Any]:
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        results = [connection.execute(statement).fetchall() for statement in statements]
        connection.commit()
        return results[-1]


def test_listing_one_device_does_not_read_the_others(db: LatencyDB) -> None:
    query = rows.head_query().where(tables.measurement.c.device_no.in_([1, 2]))
    text = str(query.compile(db._engine, compile_kwargs={"literal_binds": True}))
    with db._transaction() as connection:
        plan = [line[3] for line in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")]
    assert any("ix_measurement_device" in step for step in plan) and "SCAN measurement" not in plan


def test_ids_that_an_index_has_in_the_wrong_place_end_the_export(
    db: LatencyDB, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turn the last id of all into the first one of all, in the table or in one of the indexes."""
    for row in variants(9):
        db.add(row)
    records = list(exchange.export_records(db._transaction))
    good, name = path.read_bytes(), max(row.measurement_id for row in variants(9)).encode()
    positions = [start for start in range(len(good)) if good.startswith(name, start)]
    next_ids, batches, ends = queries.next_ids, list(range(40)), []

    def limited_next_ids(connection: Connection, last: str, count: int) -> list[str]:
        """Return the next ids, and fail after 40 batches: an export that comes round again would never end."""
        batches.pop()
        return next_ids(connection, last, count)

    monkeypatch.setattr(queries, "next_ids", limited_next_ids)
    for position in positions:
        path.write_bytes(good[:position] + b"0" + good[position + 1 :])
        with LatencyDB.open(str(path), shipped=False) as damaged:
            assert damaged.check().problems
            try:
                assert list(exchange.export_records(damaged._transaction)) == records
            except StoreError:
                ends.append("detected")
    assert len(positions) == 6 and len(ends) >= 2


def test_sqlite_is_made_safe(db: LatencyDB) -> None:
    with db._transaction() as connection:
        driver = connection.connection.driver_connection
        # The driver sends no BEGIN of its own.
        assert driver is not None and driver.isolation_level is None
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "trusted_schema", "busy_timeout")
        }
    expected = journal_mode().lower()
    assert pragmas == {
        "journal_mode": expected, "synchronous": 2, "foreign_keys": 1, "trusted_schema": 0, "busy_timeout": 120_000,
    }  # fmt: skip


def test_the_write_ahead_log_only_where_it_is_safe() -> None:
    assert [journal_mode(version) for version in ((3, 40, 1), (3, 51, 2), (3, 51, 3), (3, 52, 0))] == [
        "DELETE", "DELETE", "WAL", "WAL",
    ]  # fmt: skip


def test_a_connection_that_writes_takes_the_lock_at_once(db: LatencyDB, path: Path) -> None:
    with (
        db._transaction(write=True),
        closing(sqlite3.connect(path, timeout=0)) as other,
        pytest.raises(sqlite3.OperationalError, match="locked"),
    ):
        other.execute("BEGIN IMMEDIATE")
    with db._transaction(), closing(sqlite3.connect(path, timeout=0)) as other:
        other.execute("BEGIN IMMEDIATE")


def test_a_locked_database_is_named_as_such(db: LatencyDB, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "BUSY_SECONDS", 0)
    with (
        LatencyDB.open(str(path), shipped=False) as waiting,
        db._transaction(write=True),
        pytest.raises(StoreError, match="another program held it"),
    ):
        waiting.add(measured())


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(errno.ENOSPC, "Kein Platz mehr"), "the disk is full"),
        (OSError(errno.EACCES, "Keine Berechtigung"), "folder is missing or not writable"),
        (OSError(errno.EXDEV, "locked, malformed, full"), "locked, malformed, full"),
    ],
)
def test_the_code_of_an_error_decides_and_not_its_text(tmp_path: Path, error: OSError, why: str) -> None:
    url = connect.database_url(str(tmp_path / "x.db"))
    with pytest.raises(StoreError) as caught, connect.translate_errors(url):
        raise error
    assert why in caught.value.why and caught.value.fix


def test_every_table_is_strict(db: LatencyDB, path: Path) -> None:
    strict = {name: is_strict for _, name, _, _, _, is_strict in sql(path, "PRAGMA table_list")}
    assert all(strict[name] for name in tables.METADATA.tables)


def test_newer_databases_are_refused_untouched(db: LatencyDB, path: Path) -> None:
    sql(path, "UPDATE alembic_version SET version_num = '9999'")
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"9999.*a newer edgevit wrote it") as caught:
        LatencyDB.open(str(path))
    assert "pip install --upgrade edgevit" in caught.value.fix
    assert path.read_bytes() == before


def test_other_peoples_databases_are_refused_untouched(path: Path) -> None:
    sql(path, "CREATE TABLE bookmarks (x)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="bookmarks"):
        LatencyDB.open(str(path))
    assert path.read_bytes() == before


# What cannot be opened


def test_a_file_that_is_no_database(path: Path) -> None:
    path.write_text("model,latency\nnet_s,5.1\n" * 100)
    with pytest.raises(StoreError, match="no SQLite database") as caught:
        LatencyDB.open(str(path))
    assert caught.value.where == str(path) and "--db" in caught.value.fix


@pytest.mark.parametrize("name", ["file/x.db", "missing/x.db", "."])
def test_places_where_no_database_can_be(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="folder is missing or not writable"):
        LatencyDB.open(str(tmp_path / name))


def test_a_data_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("EDGEVIT_DB", raising=False)
    monkeypatch.setattr("platformdirs.user_data_path", lambda *_, **__: tmp_path / "file" / "edgevit")
    with pytest.raises(StoreError) as caught:
        LatencyDB.open()
    assert caught.value.where == str(tmp_path / "file" / "edgevit") and caught.value.fix


def test_a_damaged_database(path: Path) -> None:
    with LatencyDB.open(str(path), shipped=False) as db:
        for row in variants(60):
            db.add(row)
    content = bytearray(path.read_bytes())
    # The first page has the schema, and survives.
    for page in range(1, len(content) // 4096):
        content[page * 4096 : page * 4096 + 200] = b"\xa5" * 200
    path.write_bytes(content)
    with (
        pytest.raises(StoreError, match="the database is damaged") as caught,
        LatencyDB.open(str(path), shipped=False) as db,
    ):
        db.measurements()
    assert caught.value.fix


@pytest.mark.parametrize("column", ["samples_zlib = x'00'", "snapshots_json = '{'", "runs = runs + 1", "runs = 1"])
def test_damaged_evidence(db: LatencyDB, path: Path, column: str) -> None:
    db.add(measured())
    sql(path, f"UPDATE sample SET {column}")
    with pytest.raises(StoreError, match="is damaged"):
        db.get(measured().measurement_id)


def test_what_was_told_is_held_against_its_digest(db: LatencyDB, path: Path) -> None:
    db.add(vendor_row())
    sql(path, "UPDATE sample SET told_json = replace(told_json, '5600000', '5600001')")
    with pytest.raises(StoreError, match="not those that were written"):
        db.get(vendor_row().measurement_id)


@pytest.mark.parametrize(
    "url", ["nosuch://host/x", "postgresql+psycopg2://user:secret@host/x", "x://u:secret@h:port/x", "://"]
)
def test_urls_that_lead_nowhere(url: str) -> None:
    with pytest.raises(StoreError) as caught:
        LatencyDB.open(url)
    assert caught.value.fix and "secret" not in str(caught.value)


def test_which_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_data_path", lambda *_, **__: tmp_path / "data" / "edgevit")
    monkeypatch.setenv("EDGEVIT_DB", str(tmp_path / "env.db"))
    for argument in (str(tmp_path / "argument.db"), f"sqlite:///{tmp_path}/url.db", None):
        LatencyDB.open(argument, shipped=False).close()
    monkeypatch.delenv("EDGEVIT_DB")
    LatencyDB.open(shipped=False).close()
    created = sorted(file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.db"))
    assert created == ["argument.db", "data/edgevit/latency.db", "env.db", "url.db"]


def test_errors_are_of_the_error_tree() -> None:
    assert issubclass(StoreError, EdgevitError)
