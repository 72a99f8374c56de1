"""Tests of single flipped bits in a database or an export: each is detected, or changes no answer."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from conftest import DATABASES, new_database
from edgevit.errors import StoreError
from edgevit.store import LatencyDB
from support import postgres
from support.stored_rows import RECORDS, add_record, execute

FLIPS = 1000
SOME = 20


def answers(path: Path) -> Iterator[object]:
    """Yield every kind of answer of a database, in the order in which a user asks for them."""
    with LatencyDB.open(str(path), shipped=False) as db:
        yield db.measurements(device="pi5")
        yield db.measurements(device="raspberry-pi-5", model="net_s", current_epoch=True)
        yield db.measurements(status="ok", threads=4)
        yield db.measurements()
        yield db.devices()
        yield {**vars(db.stats()), "location": ""}
        yield db.accuracies(), db.noise("pi-0001"), db.epochs(), db.built(), len(db.quarantine())
        yield [db.get(row.measurement_id) for row in db.measurements()]
        db.export_jsonl(path.with_suffix(".jsonl"))
        yield path.with_suffix(".jsonl").read_bytes()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "x.db"
    with LatencyDB.open(str(path), shipped=False) as db:
        for record in RECORDS:
            add_record(db, record)
        (path.parent / "bad.jsonl").write_text('{"model": "net_s"}\n')
        db.import_jsonl(path.parent / "bad.jsonl")
        db.export_file(path.parent / "all.jsonl")
    return path


def flip(content: bytes, noise: random.Random) -> bytes:
    bad, position = bytearray(content), noise.randrange(len(content))
    bad[position] ^= 1 << noise.randrange(8)
    return bytes(bad)


def flips_of_a_database(good: Path, folder: Path, count: int) -> Counter[str]:
    """Count flips that were detected, by the reader or by `db check` alone, and flips that changed nothing."""
    expected, content, noise = list(answers(good)), good.read_bytes(), random.Random(count)
    ends: Counter[str] = Counter()
    for number in range(count):
        path = folder / "flipped.db"
        path.write_bytes(flip(content, noise))
        equal = []
        try:
            for answer, expected_answer in zip(answers(path), expected, strict=True):
                equal.append(answer == expected_answer)
            end = "harmless"
        except StoreError:
            end = "detected"
        assert all(equal), f"flip {number}: answer {equal.index(False)} is silently another"
        ends[end if end == "detected" or not problems(path) else "detected by check alone"] += 1
        if end == "detected":
            assert problems(path), f"flip {number}: read with an error, and db check finds nothing"
    return ends


def problems(path: Path) -> tuple[str, ...]:
    try:
        with LatencyDB.open(str(path), shipped=False) as db:
            return db.check().problems
    except StoreError as error:
        return (str(error),)


def test_some_flips_of_a_database(good: Path, tmp_path: Path) -> None:
    ends = flips_of_a_database(good, tmp_path, SOME)
    assert ends.total() == SOME and ends["detected"] > SOME / 10


@pytest.mark.slow
def test_a_thousand_flips_of_a_database(good: Path, tmp_path: Path) -> None:
    ends = flips_of_a_database(good, tmp_path, FLIPS)
    print(dict(ends))
    assert ends.total() == FLIPS and ends["detected"] > FLIPS / 10


def flips_of_a_file(good: Path, folder: Path, suffix: str, count: int) -> Counter[str]:
    expected, noise = list(answers(good))[-1], random.Random(count)
    with LatencyDB.open(str(good), shipped=False) as db:
        db.export_file(folder / f"good{suffix}")
    content, ends = (folder / f"good{suffix}").read_bytes(), Counter[str]()
    for number in range(count):
        (folder / f"x{suffix}").write_bytes(flip(content, noise))
        with LatencyDB.open(new_database("sqlite", folder, empty=False), shipped=False) as db:
            try:
                refused = db.import_file(folder / f"x{suffix}").refused
            except StoreError:
                ends["detected"] += 1
                continue
            db.export_jsonl(folder / "again.jsonl")
        same = (folder / "again.jsonl").read_bytes() == expected
        assert refused or same, f"flip {number} is silently another"
        ends["detected" if refused else "harmless"] += 1
    return ends


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_some_flips_of_an_export(good: Path, tmp_path: Path, suffix: str) -> None:
    # Parquet has statistics and names that no reader needs.
    assert flips_of_a_file(good, tmp_path, suffix, SOME)["detected"] > SOME / 4


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_thousand_flips_of_an_export(good: Path, tmp_path: Path, suffix: str) -> None:
    ends = flips_of_a_file(good, tmp_path, suffix, FLIPS)
    print(dict(ends))
    assert ends["detected"] > FLIPS / 2


# What a check alone would miss


CHANGES = {
    "a time within its samples": "UPDATE measurement SET p90_ns = p90_ns - 1 WHERE p50_ns = 5110000",
    "a grade": "UPDATE measurement SET grade = 'B'",
    "the order of rows": "UPDATE measurement SET started_unix_us = started_unix_us + 1",
    "the name of a model": "UPDATE model SET name = 'net_x' WHERE name = 'net_s'",
    "the name of a device": "UPDATE device SET name = 'pi4'",
    "a host": "UPDATE environment SET cores = 5",
    "the size of an artifact": "UPDATE artifact SET size_bytes = size_bytes + 1",
    "a noise floor": "UPDATE noise SET share = 0.5",
    "an accuracy": "UPDATE accuracy SET value = 76.0",
    "a noise floor is gone": "DELETE FROM noise",
    "an accuracy is gone": "DELETE FROM accuracy",
    "a row is gone": "DELETE FROM sample; DELETE FROM epoch; DELETE FROM measurement WHERE p50_ns = 5110000",
    "a partition checksum": "UPDATE tally SET lines = lines + 1",
    "a partition checksum is gone": "DELETE FROM tally WHERE part = 'accuracy'",
    "a refused record": "UPDATE quarantine SET reason = 'none'",
    "an artifact built here": "DELETE FROM built",
    "evidence": "UPDATE sample SET snapshots_json = '[]'",
    "a summary of a vendor": "UPDATE sample SET told_json = replace(told_json, '5600000', '5600001')",
}


class Built(NamedTuple):
    """The fields of an artifact that record_built reads."""

    sha256: str
    target: str = "onnx"
    created: str = "2026-11-21T10:00:00+00:00"


@pytest.fixture(scope="module", params=DATABASES)
def full(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database of every kind of row, in which a check finds nothing."""
    folder = tmp_path_factory.mktemp("full")
    url = new_database(request.param, folder, empty=False)
    with LatencyDB.open(url, shipped=False) as db:
        for record in RECORDS:
            add_record(db, record)
        (folder / "bad.jsonl").write_text('{"model": "net_s"}\n')
        db.import_jsonl(folder / "bad.jsonl")
        db.record_built(Built("b" * 64))  # type: ignore[arg-type]
        assert db.check().problems == ()
    return url


@pytest.mark.parametrize("name", CHANGES)
def test_changes_by_hand_are_noticed(full: str, tmp_path: Path, name: str) -> None:
    url = postgres.server().copy(full) if "://" in full else str(shutil.copy(full, tmp_path))
    execute(url, *CHANGES[name].split(";"))
    with LatencyDB.open(url, shipped=False) as db:
        assert db.check().problems
