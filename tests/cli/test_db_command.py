"""Tests of `edgevit db`, on SQLite and PostgreSQL where the answer could differ."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import new_file
from edgevit.cli import main
from edgevit.devices.registry import local_device
from edgevit.errors import StoreError, UsageError
from edgevit.store import LatencyDB
from support.command_line import refused
from support.measured import VENDOR_SUMMARY, failed, measured, published, rated, vendor_row
from support.stored_rows import execute, row_of_day


@pytest.fixture
def db(url: str) -> Iterator[LatencyDB]:
    with LatencyDB.open(url, shipped=False) as database:
        yield database


@pytest.fixture(autouse=True)
def no_shipped_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgevit.store.jsonl.shipped_files", list)


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Run `edgevit db ...`; return its exit code, standard output and standard error."""
    code: Any = 0
    try:
        main(["db", *map(str, words)])
    except SystemExit as end:
        code = end.code or 0
    out = capsys.readouterr()
    return code, out.out, out.err


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    """Run `edgevit db ... --json`; return its output."""
    code, out, error = call(capsys, *words, "--json")
    assert code == 0, error
    return json.loads(out)


# Questions in SQL


def test_a_question_is_answered(db: LatencyDB) -> None:
    db.add(measured())
    columns, lines = db.query("-- how many\n SELECT status, count(*) AS n FROM measurement GROUP BY status")
    assert (columns, lines) == (("status", "n"), [("ok", 1)])
    assert db.query("WITH a AS (SELECT 1 AS x) SELECT x FROM a").rows == [(1,)]
    assert len(db.query("VALUES (1), (2), (3)", limit=2).rows) == 2
    assert db.query("SELECT '%s %d 100%' AS x").rows == [("%s %d 100%",)]


WRITES = [
    "DELETE FROM sample",
    "INSERT INTO meta VALUES ('a', 'b')",
    "UPDATE meta SET value = 'x'",
    "DROP TABLE meta",
    "CREATE TABLE more (x INTEGER)",
    "WITH a AS (SELECT 1) DELETE FROM sample",
    "WITH a AS (SELECT 1) INSERT INTO meta SELECT 'a', 'b'",
    "SELECT 1; DELETE FROM sample",
    "SELECT 1; COMMIT; DELETE FROM sample",
    "EXPLAIN ANALYZE DELETE FROM sample; DELETE FROM sample",
    "COMMIT; DELETE FROM sample",
    "BEGIN; DELETE FROM sample; COMMIT",
    "VACUUM",
    "",
    "   -- nothing",
]
OF_SQLITE = [
    "PRAGMA query_only = OFF",
    "PRAGMA writable_schema = ON",
    "ATTACH '{path}' AS mine; CREATE TABLE mine.x (y)",
    "ATTACH '{path}' AS mine",
    "SELECT load_extension('x')",
    "SELECT writefile('{path}', 'x')",
    "VACUUM INTO '{path}'",
    "REPLACE INTO meta VALUES ('a', 'b')",
    "SELECT * FROM pragma_query_only(0)",
]
OF_POSTGRESQL = [
    "WITH a AS (DELETE FROM sample RETURNING 1) SELECT * FROM a",
    "EXPLAIN ANALYZE DELETE FROM sample",
    "DO $$ BEGIN DELETE FROM sample; END $$",
    "SET default_transaction_read_only = off",
    "SET TRANSACTION READ WRITE",
    "SELECT set_config('transaction_read_only', 'off', true)",
    "COPY meta TO '/tmp/edgevit-copied'",
    "SELECT * INTO more FROM meta",
    "TABLE meta; DELETE FROM sample",
    "SELECT nextval('model_model_no_seq')",
]


@pytest.mark.parametrize("statement", [*WRITES, *OF_SQLITE, *OF_POSTGRESQL])
def test_a_question_cannot_write(db: LatencyDB, url: str, tmp_path: Path, statement: str) -> None:
    db.add(measured())
    before = state(url)
    with pytest.raises(UsageError):
        db.query(statement.format(path=tmp_path / "mine.db"))
    assert state(url) == before and not (tmp_path / "mine.db").exists()
    # The connections still write.
    assert db.add(measured(nonce="after"))


def test_what_a_server_lets_a_question_write_is_taken_back(url: str) -> None:
    """Create a large object: PostgreSQL up to 15 allows it in a transaction that may only read."""
    if url.startswith("postgresql"):
        with LatencyDB.open(url, shipped=False) as db, contextlib.suppress(UsageError):
            db.query("SELECT lo_from_bytea(0, 'x')")
        assert execute(url, "SELECT count(*) FROM pg_largeobject_metadata") == [(0,)]


def state(url: str) -> list[Any]:
    """Return the rows of three tables."""
    return [execute(url, f"SELECT * FROM {table}") for table in ("sample", "meta", "measurement")]


def test_sql_on_the_command_line(db: LatencyDB, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    db.add(measured())
    query = "SELECT samples_zlib, runs FROM sample ORDER BY process LIMIT 1"
    result = answer(capsys, "sql", query, "--db", url)
    assert result["columns"] == ["samples_zlib", "runs"]
    assert bytes.fromhex(result["rows"][0]["samples_zlib"])[:1] == b"x"
    assert "3" in call(capsys, "sql", query, "--db", url)[1]
    code, _, error = call(capsys, "sql", "DELETE FROM sample", "--db", url)
    assert code == 2 and "only statements that read" in error


def test_columns_of_one_name_stay_apart(db: LatencyDB, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = answer(capsys, "sql", "SELECT 1 a, 2 a, 3 b", "--db", url)
    assert result["columns"] == ["a", "a_2", "b"] and result["rows"] == [{"a": 1, "a_2": 2, "b": 3}]
    table = call(capsys, "sql", "SELECT 1 a, 2 a, 3 b", "--db", url)[1].split()
    assert table[:3] == ["a", "a_2", "b"] and table[-3:] == ["1", "2", "3"]
    # A name that a column has itself is not given to another one.
    result = answer(capsys, "sql", "SELECT 1 a, 2 a, 3 a_2, 4 a", "--db", url)
    assert result["rows"] == [{"a": 1, "a_3": 2, "a_2": 3, "a_4": 4}]
    assert ">a" in call(capsys, "sql", 'SELECT 1 AS ">a"', "--db", url)[1]


def test_null_and_an_empty_text_are_told_apart(db: LatencyDB, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    query = "SELECT NULL AS a, '' AS b"
    assert answer(capsys, "sql", query, "--db", url)["rows"] == [{"a": None, "b": ""}]
    assert "NULL" in call(capsys, "sql", query, "--db", url)[1]


# A query, and its values in JSON and in the table.
VALUES_OF_SQLITE = {"9e999": "Infinity", "-9e999": "-Infinity", "x'00ff'": "00ff", "CAST('a' AS TEXT)": "a", "1.5": 1.5}
VALUES_OF_POSTGRESQL = {
    "1.10::numeric": "1.10",
    "12345678901234567890::numeric": "12345678901234567890",
    "'NaN'::numeric": "NaN",
    "'NaN'::float8": "NaN",
    "'-Infinity'::float8": "-Infinity",
    "2.5::float8": 2.5,
    "true": True,
    "date '2026-11-30'": "2026-11-30",
    "date 'infinity'": "infinity",
    "timestamp '4000-01-01 BC'": "4000-01-01 00:00:00 BC",
    "interval '1 month'": "1 mon",
    "time '24:00'": "24:00:00",
    r"'\x00ff'::bytea": "00ff",
    """'{"a": 1e400}'::json""": '{"a": 1e400}',
    "ARRAY[1.5, 'NaN']::numeric[]": ["1.5", "NaN"],
    "ARRAY[date 'infinity', NULL]": ["infinity", None],
    "inet '192.0.2.7'": "192.0.2.7",
}


def test_values_of_every_type_are_shown_and_go_to_json(
    db: LatencyDB, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    values = VALUES_OF_POSTGRESQL if url.startswith("postgresql") else VALUES_OF_SQLITE
    for expression, value in values.items():
        query = f"SELECT {expression} AS x"
        assert answer(capsys, "sql", query, "--db", url)["rows"] == [{"x": value}], expression
        shown = value if isinstance(value, str) else json.dumps(value)
        assert shown in call(capsys, "sql", query, "--db", url)[1], expression


def test_a_result_of_any_size_takes_no_memory(db: LatencyDB, url: str) -> None:
    """Ask for two of ten million rows; at 60 bytes a row they would not be read within the test's time."""
    series = "WITH RECURSIVE s(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM s WHERE x < 1000000000) SELECT x FROM s"
    query = "SELECT x FROM generate_series(1, 10000000) AS s(x)" if url.startswith("postgresql") else series
    assert db.query(query, limit=2) == (("x",), [(1,), (2,)])


def test_a_database_that_fails_is_no_mistake_of_the_question(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = new_file(tmp_path / "damaged.db")
    with LatencyDB.open(path, shipped=False) as db:
        db.add(measured())
        content = bytearray(Path(path).read_bytes())
        (page,) = (
            number for number, name in execute(path, "SELECT rootpage, name FROM sqlite_schema WHERE name='noise'")
        )
        content[(page - 1) * 4096 : page * 4096] = b"\xff" * 4096
        Path(path).write_bytes(content)
        with pytest.raises(StoreError, match="malformed") as caught:
            db.query("SELECT * FROM noise")
    assert "damaged" in caught.value.why and caught.value.fix


# Check, quarantine, epochs, rows


def test_check_says_what_is_wrong(db: LatencyDB, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    for row in (measured(), failed(), published()):
        db.add(row)
    db.add_accuracy(rated())
    code, out, _ = call(capsys, "check", "--db", url)
    assert code == 0 and "all as it was written: 3 rows with their samples, 1 accuracies, 0 in quarantine" in out
    execute(url, "UPDATE measurement SET grade = 'B' WHERE status = 'ok'")
    code, out, _ = call(capsys, "check", "--db", url)
    assert code == 1 and "its columns are not those that were written" in out
    code, out, _ = call(capsys, "check", "--db", url, "--json")
    assert code == 1 and json.loads(out)["problems"]
    code, _, error = call(capsys, "show", "--db", url)
    assert code == 1 and "is damaged" in error and "edgevit db merge" in error


def test_what_is_whole_of_a_damaged_database_is_saved(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with LatencyDB.open(url, shipped=False) as db:
        for row in (measured(), failed(), published()):
            db.add(row)
    execute(url, f"UPDATE measurement SET grade = 'B' WHERE measurement_id = '{measured().measurement_id}'")
    code, out, _ = call(capsys, "merge", url, "--db", tmp_path / "saved.db")
    assert code == 1 and "2 added, 0 known already" in out and "is damaged" in out
    assert call(capsys, "check", "--db", tmp_path / "saved.db")[0] == 0


def test_export_merge_import_and_quarantine(db: LatencyDB, url: str, tmp_path: Path,
                                            capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    db.add(measured())
    db.add_accuracy(rated())
    assert answer(capsys, "export", tmp_path / "x.jsonl", "--db", url)["rows"] == 2
    assert answer(capsys, "import", tmp_path / "x.jsonl", "--db", tmp_path / "a.db")["added"] == 2
    assert answer(capsys, "merge", url, "--db", tmp_path / "a.db") | {"schema_version": 0} == {
        "schema_version": 0, "added": 0, "known": 2, "forgotten": 0, "refused": [], "epochs": [],
    }  # fmt: skip
    (tmp_path / "bad.jsonl").write_text("hello\n")
    code, out, _ = call(capsys, "import", tmp_path / "bad.jsonl", "--db", url)
    assert code == 1 and "0 added, 0 known already, 1 refused" in out and "bad.jsonl, line 1" in out
    assert answer(capsys, "quarantine", "--db", url)["quarantine"][0]["content"] == "hello\n"
    assert "not JSON" in call(capsys, "quarantine", "--db", url)[1]


@pytest.mark.parametrize(("verb", "code"), [("import", 2), ("merge", 1)])
def test_a_file_that_is_not_there_leaves_no_database_behind(verb: str, code: int, tmp_path: Path) -> None:
    told = refused(code, "db", verb, tmp_path / "absent.jsonl", "--db", tmp_path / "new.db")
    assert "there is no" in told and "absent.jsonl" in told
    assert list(tmp_path.iterdir()) == []


def test_epochs_are_listed(db: LatencyDB, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "every device behaves" in call(capsys, "epochs", "--db", url)[1]
    for row in (row_of_day(1, 5_000_000), row_of_day(2, 20_000_000)):
        db.add(row)
    assert answer(capsys, "epochs", "--device", "pi5", "--db", url)["epochs"][0]["number"] == 1
    assert "2026-11-02" in call(capsys, "epochs", "--refresh", "--db", url)[1]
    db.export_jsonl(tmp_path / "x.jsonl")
    out = call(capsys, "import", tmp_path / "x.jsonl", "--db", tmp_path / "b.db")[1]
    assert "new epoch 1 of pi5 since 2026-11-02" in out
    assert len(answer(capsys, "show", "--current-epoch", "--db", url)["measurements"]) == 1


def test_one_row_is_shown(db: LatencyDB, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    row = measured(graph_digest="d" * 64)
    db.add(row)
    fields = answer(capsys, "show", row.measurement_id[:10], "--db", url)["measurement"]
    assert fields["graph_digest"] == "d" * 64 and fields["samples"] == [3, 3]
    assert fields["measurement_id"] == row.measurement_id
    assert fields["told"] == [] and "d" * 64 in call(capsys, "show", row.measurement_id[:10], "--db", url)[1]
    db.add(vendor_row())
    fields = answer(capsys, "show", vendor_row().measurement_id[:10], "--db", url)["measurement"]
    assert (
        fields["samples"] == []
        and [summary["median_ns"] for summary in fields["told"]] == [VENDOR_SUMMARY.median_ns] * 2
    )
    assert call(capsys, "show", "abcdef", "--db", url)[0] == 2


# Names


def test_the_local_of_another_machine_is_not_ours(db: LatencyDB, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = local_device(), ("local", "a" * 64, "pi5")
    for name, unit, kind in ((ours.name, ours.device_id, ours.device_class), theirs):
        db.add(measured(device=name, device_id=unit, device_class=kind))
    table = [line.split() for line in call(capsys, "stats", "--db", url)[1].splitlines()]
    assert [line[:2] for line in table if ours.device_class in line] == [["local", ours.device_class]]
    assert [line[:3] for line in table if "pi5" in line] == [["local", "elsewhere", "pi5"]]
