"""A row that the database refuses costs the others nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgevit.errors import RowRefusedError, StoreError
from edgevit.measurement.runner import Protocol
from edgevit.records.measurement import Measurement
from edgevit.store import LatencyDB
from edgevit.sweeps import recording
from support import toys
from support.measured import measured


def test_a_refused_row_costs_the_others_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        measured(model="first", nonce="1"),
        dataclasses.replace(measured(model="wrong"), p50_ns=-1),
        measured(model="last"),
    ]

    def profile_all(*_: Any, **options: Any) -> Iterator[Measurement]:
        yield from rows

    monkeypatch.setattr(recording, "profile_all", profile_all)
    db = str(tmp_path / "x.db")
    outcome = recording.measure_and_record([], toys.LOCAL, 1, Protocol(), db, labels=recording.RecordLabels(sweep=True))
    assert [row.model for row in outcome.rows] == ["first", "last"]
    [refusal] = outcome.refused
    assert "wrong" in refusal.where and refusal.why
    with LatencyDB.open(db, shipped=False) as database:
        assert {row.model for row in database.measurements()} >= {"first", "last"}
        assert "wrong" not in {row.model for row in database.measurements()}
    with pytest.raises(RowRefusedError, match="wrong"):
        outcome.require_all()


def test_nothing_is_measured_for_a_database_that_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes of measuring would be lost."""
    # With its shipped rows: to add them would be refused, too.
    LatencyDB.open(str(tmp_path / "x.db")).close()

    def profile_all(*_: Any, **options: Any) -> Iterator[Measurement]:
        raise AssertionError("it measures")

    monkeypatch.setattr(recording, "profile_all", profile_all)
    db = f"sqlite:///file:{tmp_path}/x.db?mode=ro&uri=true"
    with pytest.raises(StoreError, match="readonly") as refused:
        recording.measure_and_record([], toys.LOCAL, 1, Protocol(), db)
    assert "chmod u+w" in str(refused.value.fix)
