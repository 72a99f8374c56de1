"""Tests of the store under many writers and under kill -9: acknowledged rows stay, and no row is half there."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from edgevit.store import LatencyDB, jsonl
from support.measured import measured
from support.speed import seconds
from support.writers import IMPORT, script, write_and_kill, write_at_once


def test_writers_at_once(empty_url: str) -> None:
    # They race for the creation of the tables as well.
    assert write_at_once(empty_url, 4, 10) == [("", 0)] * 4
    require_rows(empty_url, 4 * 10, models=10)


@pytest.mark.slow
def test_sixteen_writers_at_once(empty_url: str) -> None:
    assert write_at_once(empty_url, 16, 200) == [("", 0)] * 16
    require_rows(empty_url, 16 * 200, models=50)


def require_rows(url: str, count: int, models: int) -> None:
    with LatencyDB.open(url, shipped=False) as db:
        assert len(db.measurements()) == count
        assert (db.stats().tables["model"], db.stats().tables["sample"]) == (models, count)
        assert db.check().problems == ()


def test_a_killed_writer_loses_nothing_it_acknowledged(empty_url: str) -> None:
    require_whole(empty_url, write_and_kill(empty_url, 3, random.Random(0)), at_least=2)


@pytest.mark.slow
def test_two_hundred_kills_lose_nothing_that_was_acknowledged(empty_url: str) -> None:
    require_whole(empty_url, write_and_kill(empty_url, 200, random.Random(1)), at_least=199)


def require_whole(url: str, acknowledged: set[str], at_least: int) -> None:
    with LatencyDB.open(url, shipped=False) as db:
        stored = {row.measurement_id for row in db.measurements()}
        assert len(acknowledged) >= at_least and acknowledged <= stored
        # The check reads every row with its samples: its id is their digest, and no table has rows too many.
        report = db.check()
        assert report.problems == () and report.rows == len(stored)


@pytest.mark.parametrize("seed", range(2))
def test_a_killed_import_leaves_whole_batches(url: str, tmp_path: Path, seed: int) -> None:
    count, batch = 400, 100
    rows = [measured([[1000 + i] * 50], nonce=str(i)) for i in range(count)]
    jsonl.write_lines(tmp_path / "rows.jsonl", rows)
    LatencyDB.open(url, shipped=False).close()
    with script(IMPORT, url, tmp_path / "rows.jsonl", batch) as importer:
        assert importer.stdout and importer.stdout.readline() == "begun\n"
        time.sleep(seconds(random.Random(seed).uniform(0.05, 0.2)))
        importer.kill()
        # It has ended when nobody can write there any more.
        importer.stdout.read()
    with LatencyDB.open(url, shipped=False) as db:
        there = len(db.measurements())
        assert db.check().problems == () and there % batch == 0
        came = db.import_jsonl(tmp_path / "rows.jsonl")
        assert came == (count - there, there, ()) and db.check().problems == ()


def test_opening_costs_neither_torch_nor_alembic(empty_url: str) -> None:
    LatencyDB.open(empty_url, shipped=False).close()
    body = "db.measurements(); db.close(); print(*{name.split('.')[0] for name in sys.modules})"
    out, error = script(body, empty_url, fresh=True).communicate(timeout=seconds(60))
    assert error == "" and "sqlalchemy" in out.split()
    assert not {"torch", "alembic", "onnxruntime", "numpy", "pyarrow"} & set(out.split())
