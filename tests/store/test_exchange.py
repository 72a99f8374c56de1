"""Tests of import, export and merge: unions of sets in any order, foreign databases, JSON lines and Parquet."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from conftest import DATABASES, new_database, new_file
from edgevit.errors import StoreError
from edgevit.records.measurement import Measurement
from edgevit.store import LatencyDB, jsonl
from edgevit.store.json_records import PortableRecord
from support.measured import failed, floor, measured, published, rated
from support.old_databases import old_database
from support.stored_rows import RECORDS, SHAPES, add_record, execute


@pytest.fixture
def db(url: str) -> Iterator[LatencyDB]:
    with LatencyDB.open(url, shipped=False) as database:
        yield database


def everything(db: LatencyDB, folder: Path) -> tuple[bytes, list[object]]:
    """Return the contents of a database, as an export and as its epochs."""
    db.export_jsonl(folder / "everything.jsonl")
    return (folder / "everything.jsonl").read_bytes(), list(db.epochs())


def test_all_that_travels_comes_out_as_it_went_in(db: LatencyDB, tmp_path: Path) -> None:
    for record in RECORDS:
        add_record(db, record)
    assert db.export_jsonl(tmp_path / "a.jsonl") == len(RECORDS)
    assert [epoch.number for epoch in db.epochs()] == [1]
    with LatencyDB.open(new_file(tmp_path / "b.db"), shipped=False) as other:
        assert other.import_jsonl(tmp_path / "a.jsonl") == (len(RECORDS), 0, ())
        assert other.import_jsonl(tmp_path / "a.jsonl") == (0, len(RECORDS), ())
        assert everything(other, tmp_path) == everything(db, tmp_path)
        assert other.check().problems == ()


def split(noise: random.Random) -> list[list[PortableRecord]]:
    """Distribute the records over two to five sites, each on one or more of them, in any order."""
    sites: list[list[PortableRecord]] = [[] for _ in range(noise.randint(2, 5))]
    for record in noise.sample(RECORDS, len(RECORDS)):
        for site in noise.sample(sites, noise.choice([1, 1, 1, 2])):
            site.append(record)
    return sites


def test_some_splits_and_orders_give_one_database(tmp_path: Path) -> None:
    splits_give_one_database(tmp_path, 5)


@pytest.mark.slow
def test_a_thousand_splits_and_orders_give_one_database(tmp_path: Path) -> None:
    splits_give_one_database(tmp_path, 1000)


def splits_give_one_database(tmp_path: Path, splits: int) -> None:
    """Merge separate sites in any order and tree: A into B and that into C, or all into one."""
    noise = random.Random(4)
    with LatencyDB.open(new_file(tmp_path / "whole.db"), shipped=False) as whole:
        jsonl.write_lines(tmp_path / "whole.jsonl", RECORDS)
        whole.import_jsonl(tmp_path / "whole.jsonl")
        expected = everything(whole, tmp_path)
    for _ in range(splits):
        sites = split(noise)
        with LatencyDB.open(new_file(tmp_path / "merged.db"), shipped=False) as merged:
            # One of them comes twice.
            order = noise.sample(sites, len(sites)) + noise.choices(sites, k=1)
            for site in order:
                jsonl.write_lines(tmp_path / "site.jsonl", site)
                merged.import_jsonl(tmp_path / "site.jsonl")
            assert everything(merged, tmp_path) == expected


@pytest.mark.parametrize("kind", DATABASES)
def test_merging_is_associative(tmp_path: Path, kind: str) -> None:
    noise = random.Random(5)
    contents = []
    for turn in range(2):
        databases: list[str] = []
        for site in split(noise):
            databases.append(new_database(kind if len(databases) % 2 else "sqlite", tmp_path, empty=False))
            jsonl.write_lines(tmp_path / "site.jsonl", site)
            with LatencyDB.open(databases[-1], shipped=False) as db:
                assert db.import_jsonl(tmp_path / "site.jsonl").refused == ()
        # Any two become one.
        while len(databases) > 1:
            one, other = noise.sample(databases, 2)
            with LatencyDB.open(one, shipped=False) as db:
                assert db.merge(other).refused == (), turn
            databases.remove(other)
        with LatencyDB.open(databases[0], shipped=False) as db:
            assert db.check().problems == ()
            contents.append(everything(db, tmp_path))
    assert contents[0] == contents[1]


# Rows that contradict


def test_an_altered_row_never_takes_the_place_of_one_kept(db: LatencyDB, tmp_path: Path) -> None:
    db.add(measured())
    forged = dataclasses.replace(measured(), grade="D", flags=("stolen",))
    jsonl.write_lines(tmp_path / "forged.jsonl", [forged, measured()])
    added, duplicates, [refused] = db.import_jsonl(tmp_path / "forged.jsonl")
    assert (added, duplicates, refused.code) == (0, 1, "contradiction") and "another grade, flags" in refused.text
    assert db.get(measured().measurement_id) == measured() and len(db.quarantine()) == 1


def test_refusals_are_logged(db: LatencyDB, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "bad.jsonl").write_text("hello\n")
    with caplog.at_level("DEBUG", logger="edgevit.store"):
        db.import_jsonl(tmp_path / "bad.jsonl")
    assert any("bad.jsonl, line 1" in message and "not JSON" in message for message in caplog.messages)
    assert "imported: 0 added, 0 duplicates, 1 refused" in caplog.messages


def test_two_rows_of_one_file_with_one_id(db: LatencyDB, tmp_path: Path) -> None:
    jsonl.write_lines(tmp_path / "x.jsonl", [measured(), dataclasses.replace(measured(), grade="D")])
    added, _, [refused] = db.import_jsonl(tmp_path / "x.jsonl")
    assert added == 1 and "two rows" in refused.text and db.check().problems == ()


def test_two_noise_floors_of_one_moment(db: LatencyDB, tmp_path: Path) -> None:
    jsonl.write_lines(tmp_path / "x.jsonl", [floor(), floor(), floor(0.5)])
    added, duplicates, [refused] = db.import_jsonl(tmp_path / "x.jsonl")
    assert (added, duplicates, refused.code) == (1, 1, "contradiction") and "another value" in refused.text
    assert db.noise("pi-0001") == floor()


@pytest.mark.parametrize(
    "record", [measured(), failed(), published(), rated(), floor()], ids=lambda r: type(r).__name__
)
def test_a_line_that_is_not_what_was_written_is_refused(db: LatencyDB, tmp_path: Path, record: PortableRecord) -> None:
    """Change any character: digits become others, names become others, and so does the digest."""
    jsonl.write_lines(tmp_path / "x.jsonl", [record])
    good, lines = (tmp_path / "x.jsonl").read_bytes(), []
    for position in random.Random(0).sample(range(len(good) - 1), min(300, len(good) - 1)):
        bad = bytearray(good)
        bad[position] = ord("7") if chr(bad[position]).isdigit() and bad[position] != ord("7") else bad[position] ^ 1
        lines.append(bytes(bad))
    (tmp_path / "x.jsonl").write_bytes(b"".join(lines))
    came = db.import_jsonl(tmp_path / "x.jsonl")
    # A comma may become the end of a line.
    assert came[:2] == (0, 0) and len(came.refused) >= len(lines)
    assert {refusal.code for refusal in came.refused} <= {"malformed", "impossible", "checksum_mismatch"}


# Foreign databases


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("full") / "full.db"
    with LatencyDB.open(new_file(path), shipped=False) as source:
        for record in RECORDS:
            add_record(source, record)
    return path


@pytest.fixture
def other(full: Path, tmp_path: Path) -> Path:
    """A database of every kind of row, as a file of this test's own."""
    return Path(shutil.copy(full, tmp_path / "other.db"))


def test_a_merge_only_reads(db: LatencyDB, other: Path) -> None:
    other.chmod(0o444)
    before, there = other.read_bytes(), set(other.parent.iterdir())
    assert db.merge(str(other)) == (len(RECORDS), 0, ())
    assert db.merge(str(other)) == (0, len(RECORDS), ())
    assert other.read_bytes() == before
    assert {path for path in other.parent.iterdir() if path.name.startswith("other")} <= there


def test_a_database_of_an_older_edgevit_is_merged_and_left_as_it_is(db: LatencyDB, tmp_path: Path) -> None:
    old_database(str(tmp_path / "old.db"), "0002", [measured()]).dispose()
    before = (tmp_path / "old.db").read_bytes()
    assert db.merge(str(tmp_path / "old.db")).added == 1
    assert (tmp_path / "old.db").read_bytes() == before


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE VIEW spy AS SELECT load_extension('x')",
        "CREATE TRIGGER t AFTER INSERT ON noise BEGIN SELECT 1; END",
        "CREATE TABLE more (x)",
        "ALTER TABLE noise ADD COLUMN more TEXT",
        "DROP TABLE noise; CREATE VIEW noise AS SELECT * FROM tally",
    ],
)
def test_tables_that_are_none_of_ours_are_refused(db: LatencyDB, other: Path, statement: str) -> None:
    with closing(sqlite3.connect(other)) as connection:
        connection.executescript(statement)
    with pytest.raises(StoreError, match="not one that edgevit made"):
        db.merge(str(other))
    assert db.stats().tables["measurement"] == 0


@pytest.mark.parametrize("content", [b"", b"model,latency\n" * 900])
def test_files_that_are_no_latency_database(db: LatencyDB, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.db").write_bytes(content)
    with pytest.raises(StoreError, match=r"no SQLite database|not a latency database"):
        db.merge(str(tmp_path / "x.db"))
    assert (tmp_path / "x.db").read_bytes() == content


def test_a_database_that_is_not_there_is_not_made(db: LatencyDB, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such database"):
        db.merge(str(tmp_path / "missing.db"))
    assert not (tmp_path / "missing.db").exists()


def test_a_newer_database_is_refused(db: LatencyDB, other: Path) -> None:
    execute(str(other), "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match="a newer edgevit wrote it"):
        db.merge(str(other))


def test_doubtful_rows_of_a_database_go_into_quarantine(db: LatencyDB, other: Path) -> None:
    bad = measured().measurement_id
    with LatencyDB.open(str(other), shipped=False) as source:
        source.add(measured())
    execute(str(other), f"UPDATE measurement SET grade = 'B' WHERE measurement_id = '{bad}'")
    came = db.merge(str(other))
    assert came.added == len(RECORDS) - (measured() in RECORDS)
    assert {refusal.code for refusal in came.refused} == {"damaged"}
    assert any(bad[:12] in one.location and b'"grade": "B"' in one.content for one in db.quarantine())
    assert bad not in {row.measurement_id for row in db.measurements()}


def test_a_row_of_a_database_that_contradicts_is_kept_as_it_says(db: LatencyDB, tmp_path: Path) -> None:
    db.add(measured())
    with LatencyDB.open(new_file(tmp_path / "forged.db"), shipped=False) as forged:
        forged.add(dataclasses.replace(measured(), grade="D"))
    [refused] = db.merge(str(tmp_path / "forged.db")).refused
    [quarantined] = db.quarantine()
    assert "another grade" in refused.text and json.loads(quarantined.content)["grade"] == "D"
    assert db.get(measured().measurement_id) == measured()


def test_rows_that_are_missing_are_said(db: LatencyDB, other: Path) -> None:
    name = SHAPES["large"].measurement_id
    for table in ("sample", "measurement"):
        execute(str(other), f"DELETE FROM {table} WHERE measurement_id = '{name}'")
    came = db.merge(str(other))
    assert came.added == len(RECORDS) - 1 and any(
        refusal.code == "missing_rows" and "rows found" in refusal.text for refusal in came.refused
    )


# Parquet


def test_parquet_holds_the_same(db: LatencyDB, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    for record in RECORDS:
        add_record(db, record)
    assert db.export_file(tmp_path / "a.parquet") == len(RECORDS)
    with LatencyDB.open(new_file(tmp_path / "b.db"), shipped=False) as copy:
        assert copy.import_file(tmp_path / "a.parquet") == (len(RECORDS), 0, ())
        assert everything(copy, tmp_path) == everything(db, tmp_path)


def test_parquet_without_the_newest_column_is_taken(db: LatencyDB, tmp_path: Path) -> None:
    """A file of an earlier edgevit has no networks; where one was cut out of a row, its digest tells."""
    parquet = pytest.importorskip("pyarrow.parquet")
    for record in RECORDS:
        add_record(db, record)
    db.export_file(tmp_path / "a.parquet")
    tally = parquet.read_metadata(tmp_path / "a.parquet").metadata[b"edgevit_tally"]
    table = parquet.read_table(tmp_path / "a.parquet").drop_columns(["network_json"])
    table = table.replace_schema_metadata({"edgevit_tally": tally})
    parquet.write_table(table, tmp_path / "old.parquet", write_page_checksum=True)
    with_network = [one for one in RECORDS if isinstance(one, Measurement) and one.network is not None]
    assert with_network
    with LatencyDB.open(new_file(tmp_path / "copy.db"), shipped=False) as copy:
        outcome = copy.import_file(tmp_path / "old.parquet")
        assert outcome[0] == len(RECORDS) - len(with_network)
        assert [refusal.code for refusal in outcome[2]] == ["checksum_mismatch"] * len(with_network)
        for record in RECORDS:
            if isinstance(record, Measurement) and record.network is None:
                assert copy.get(record.measurement_id) == record


def test_parquet_of_others_is_refused(db: LatencyDB, tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"model": ["a"], "latency": [1.0]}), tmp_path / "x.parquet")
    with pytest.raises(StoreError, match="columns are not ours"):
        db.import_file(tmp_path / "x.parquet")
    (tmp_path / "y.parquet").write_bytes(b"PAR1" * 10)
    with pytest.raises(StoreError, match="cannot be read"):
        db.import_file(tmp_path / "y.parquet")


def test_without_pyarrow_it_says_what_to_install(
    db: LatencyDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(StoreError) as caught:
        db.export_file(tmp_path / "a.parquet")
    assert "edgevit[parquet]" in caught.value.fix and not list(tmp_path.glob("*.parquet"))
