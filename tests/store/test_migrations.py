"""Tests of the schema on SQLite and PostgreSQL: the migrations, rows that outlive them, and refused databases."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from edgevit.errors import StoreError
from edgevit.store import LatencyDB, schema, tables
from edgevit.store.connect import WRITE, create, database_url
from edgevit.store.jsonl import write_lines
from edgevit.store.sqlite_schema import expected_schema, schema_of
from support.measured import HOST, NETWORK, SILICON, floor, measured, operators, rated
from support.old_databases import migrate, old_database
from support.stored_rows import SHAPES, execute

OLD = ("0001", "0002", "0003", "0004")


def test_migrations_build_the_tables_of_the_code(empty_url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    LatencyDB.open(empty_url, shipped=False).close()
    engine = create(database_url(empty_url))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, tables.METADATA) == []
    engine.dispose()


def test_migrations_build_the_checks_of_the_code_on_sqlite(tmp_path: Path) -> None:
    """Compare the text of the tables: compare_metadata ignores CHECK constraints and STRICT."""
    fresh = create(database_url(str(tmp_path / "fresh.db")))
    with fresh.execution_options(**WRITE).begin() as connection:
        tables.METADATA.create_all(connection)
    with fresh.connect() as connection:
        assert schema_of(connection) == expected_schema(schema.HEAD)
    fresh.dispose()


def checks(connection: Connection) -> set[tuple[str, str]]:
    constraints = text(
        "SELECT conrelid::regclass::text, conname FROM pg_constraint WHERE connamespace = 'public'::regnamespace"
    )
    return {(table, name) for table, name in connection.execute(constraints) if table != "alembic_version"}


def test_migrations_build_the_checks_of_the_code_on_postgresql(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    from conftest import new_database

    created, migrated = (create(database_url(new_database("postgresql", tmp_path))) for _ in range(2))
    with created.execution_options(**WRITE).begin() as connection:
        tables.METADATA.create_all(connection)
    migrate(migrated, "upgrade", "head")
    both = []
    for engine in (created, migrated):
        with engine.connect() as connection:
            both.append(checks(connection))
        engine.dispose()
    assert both[0] == both[1] and len(both[0]) > 40


def test_the_shape_of_a_table_tells_every_change(tmp_path: Path) -> None:
    engine = create(database_url(str(tmp_path / "x.db")))
    migrate(engine, "upgrade", "head")
    for statement in (
        "ALTER TABLE noise ADD COLUMN more TEXT", "CREATE VIEW spy AS SELECT 1", "DROP INDEX ix_measurement_key",
        "CREATE TRIGGER t AFTER INSERT ON noise BEGIN SELECT 1; END", "ALTER TABLE noise RENAME COLUMN share TO part",
    ):  # fmt: skip
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)
            assert schema_of(connection) != expected_schema(schema.HEAD), statement
            connection.rollback()
    engine.dispose()


def test_head_is_the_newest_migration() -> None:
    from alembic.script import ScriptDirectory

    assert ScriptDirectory.from_config(schema.alembic_config()).get_current_head() == schema.HEAD


@pytest.mark.parametrize("revision", OLD)
def test_rows_of_old_databases_come_along(empty_url: str, revision: str) -> None:
    measurements = [row for row in SHAPES.values() if row.rate_hz is None and row.provenance != "published"]
    measurements = [row for row in measurements if not row.told or revision >= "0003"]
    measurements = [row for row in measurements if row.host is None or row.host.silicon is None]
    engine = old_database(empty_url, revision, measurements)
    with LatencyDB.open(empty_url, shipped=False) as db:
        lost = ("cold_load_ns", "import_ns", "compile_ns") if revision < "0003" else ()
        for number, row in enumerate(measurements, start=1):
            changes: dict[str, Any] = dict.fromkeys((*lost, "network"))
            changes |= {"model": f"{row.model}{number}", "device": f"{row.device}{number}"}
            assert db.get(row.measurement_id) == dataclasses.replace(row, **changes)
        assert db.stats().revision == schema.HEAD and db.check().problems == () and db.quarantine() == []
        assert db.noise("pi-0001") == (floor() if revision >= "0003" else None)
        assert db.add(measured(nonce="new", host=dataclasses.replace(HOST, kernel="7.0")))
    engine.dispose()


def test_rows_of_an_old_database_that_cannot_be_true_go_into_quarantine(empty_url: str) -> None:
    good, bad = measured(), measured(nonce="bad")
    engine = old_database(empty_url, "0003", [good, dataclasses.replace(bad, p50_ns=5_111_000)])
    with LatencyDB.open(empty_url, shipped=False) as db:
        assert [row.measurement_id for row in db.measurements()] == [good.measurement_id]
        [quarantined] = db.quarantine()
        assert bad.measurement_id in quarantined.location and "its samples give 5110000" in quarantined.reason
        assert db.check().problems == ()
    engine.dispose()


def test_a_migration_can_be_taken_back(empty_url: str) -> None:
    with LatencyDB.open(empty_url, shipped=False) as db:
        for row in SHAPES.values():
            db.add(row)
    engine = create(database_url(empty_url))
    migrate(engine, "downgrade", "0002")
    names = set(inspect(engine).get_table_names())
    assert "noise" not in names and "tally" not in names
    assert execute(empty_url, "SELECT count(*) FROM sample")[0][0] > 0
    migrate(engine, "downgrade", "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]
    engine.dispose()


def test_rows_outlive_the_schema_without_networks(empty_url: str) -> None:
    of_network, other = SHAPES["of a checkpoint"], SHAPES["measured"]
    accuracies = [rated(), rated(75.5, network=NETWORK)]
    with LatencyDB.open(empty_url, shipped=False) as db:
        assert db.add(of_network) and db.add(other) and db.add_accuracies(accuracies) == 2
        assert db.get(of_network.measurement_id).network == NETWORK and db.check().problems == ()
        assert NETWORK in [accuracy.network for accuracy in db.accuracies()]
    engine = create(database_url(empty_url))
    migrate(engine, "downgrade", "0006")
    engine.dispose()
    with LatencyDB.open(empty_url, shipped=False) as db:
        assert db.get(of_network.measurement_id) == dataclasses.replace(of_network, network=None)
        assert db.get(other.measurement_id) == other and db.accuracies() == accuracies[:1]
        assert db.check().problems == () and db.quarantine() == []


EPYC = dataclasses.replace(HOST, machine="x86_64", cpu_model="AMD EPYC")


def test_rows_of_unknown_silicon_get_a_class_that_says_so(empty_url: str, tmp_path: Path) -> None:
    """A name that stands for several generations, a board, a product, an emulated processor, a published row."""
    old_class = "x86_64-linux-amd-epyc-2c"
    board = measured(device_id="b", device_class="aarch64-linux-raspberry-pi-5-model-b-rev-1-0-4c")
    rows = [
        measured(host=EPYC, device_id="a", device_class=old_class),
        measured(host=EPYC, device_id="a", device_class=old_class, started="2026-11-22T10:00:00+00:00", nonce="1"),
        board,
        measured(device_id="c", device_class="x86_64-linux-intel-core-i9-10940x-14c"),
        measured(host=EPYC, device_id="d", device_class="aarch64-linux-emulated-by-qemu-2c", flags=("emulated",)),
        SHAPES["published"],
    ]
    expected = [
        f"{old_class}-unknown-silicon", f"{old_class}-unknown-silicon",
        "aarch64-raspberry-pi-5-model-b-rev-1-0-cortex-a76-dotprod-4c", *(row.device_class for row in rows[3:]),
    ]  # fmt: skip
    with LatencyDB.open(empty_url, shipped=False) as db:
        for row in rows:
            db.add(row)
    engine = create(database_url(empty_url))
    migrate(engine, "downgrade", "0007")
    engine.dispose()
    with LatencyDB.open(empty_url, shipped=False) as db:
        assert [db.get(row.measurement_id).device_class for row in rows] == expected
        assert db.check().problems == () and db.quarantine() == []
        db.export_jsonl(tmp_path / "rows.jsonl")
    lines = tmp_path / "old.jsonl"
    write_lines(lines, rows)
    with LatencyDB.open(str(tmp_path / "other.db"), shipped=False) as db:
        assert db.import_jsonl(lines).added == len(rows)
        assert [db.get(row.measurement_id).device_class for row in rows] == expected, "in a file of before"
        assert db.import_jsonl(tmp_path / "rows.jsonl") == (0, len(rows), ())


def test_rows_with_silicon_go_with_its_column(empty_url: str) -> None:
    new, older = measured(host=dataclasses.replace(EPYC, silicon=SILICON), device_id="a"), measured()
    assert new.measurement_key != measured(host=EPYC, device_id="a").measurement_key
    with LatencyDB.open(empty_url, shipped=False) as db:
        assert db.add(new) and db.add(older)
        assert db.get(new.measurement_id) == new and db.silicon("a") == {SILICON: new.device_class}
        assert db.check().problems == ()
    engine = create(database_url(empty_url))
    migrate(engine, "downgrade", "0007")
    engine.dispose()
    with LatencyDB.open(empty_url, shipped=False) as db:
        assert db.get(older.measurement_id) == older and db.check().problems == ()
        with pytest.raises(StoreError, match="no measurement has the id"):
            db.get(new.measurement_id)


def test_rows_outlive_migrations(empty_url: str) -> None:
    with LatencyDB.open(empty_url, shipped=False) as db:
        for row in SHAPES.values():
            db.add(row)
    engine = create(database_url(empty_url))
    migrate(engine, "downgrade", "0002")
    engine.dispose()
    with LatencyDB.open(empty_url, shipped=False) as db:
        for name, row in SHAPES.items():
            new: dict[str, Any] = {"cold_load_ns": None, "import_ns": None, "compile_ns": None, "network": None}
            if row.provenance == "published":
                new |= {"licence": "", "untold": ("host", "licence", "p90_ns", "p99_ns", "samples")}
            if row.rate_hz is None and not row.told and not (row.host and row.host.silicon):
                assert db.get(row.measurement_id) == dataclasses.replace(row, **new), name
            # The old schema cannot distinguish them from others.
            else:
                with pytest.raises(StoreError, match="no measurement has the id"):
                    db.get(row.measurement_id)
        assert db.check().problems == () and db.quarantine() == []


def test_a_database_of_before_there_were_graphs_gets_a_place_for_them(empty_url: str) -> None:
    with LatencyDB.open(empty_url, shipped=False) as db:
        db.add(measured())
    engine = create(database_url(empty_url))
    migrate(engine, "downgrade", "0004")
    with engine.connect() as connection:
        assert "graph" not in inspect(connection).get_table_names()
    engine.dispose()
    with LatencyDB.open(empty_url, shipped=False) as db:
        assert db.graphs() == [] and db.add_graph(operators()) and not db.add_graph(operators())
        assert db.graphs() == [operators()] and db.check().problems == ()


def test_newer_databases_are_refused_untouched(empty_url: str) -> None:
    LatencyDB.open(empty_url, shipped=False).close()
    execute(empty_url, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match=r"9999.*a newer edgevit wrote it") as caught:
        LatencyDB.open(empty_url)
    assert "pip install --upgrade edgevit" in caught.value.fix
    assert execute(empty_url, "SELECT version_num FROM alembic_version") == [("9999",)]


def test_a_migration_is_whole_or_not_at_all(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = old_database(empty_url, "0003", [measured()])

    def broken(connection: Connection) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(schema, "backfill_checksums", broken)
        with pytest.raises(KeyboardInterrupt):
            LatencyDB.open(empty_url, shipped=False)
    assert execute(empty_url, "SELECT version_num FROM alembic_version") == [("0003",)]
    with pytest.raises(DBAPIError):
        execute(empty_url, "SELECT * FROM tally")
    with LatencyDB.open(empty_url, shipped=False) as db:
        assert len(db.measurements()) == 1
    engine.dispose()
