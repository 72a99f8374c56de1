"""Tests on the real published tables, where present: their numbers change with an importer, the screening or epochs."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgevit.published.importers import Publication, screened
from edgevit.records.measurement import Accuracy, Measurement
from edgevit.store import LatencyDB

DATA = Path(__file__).parents[3] / "shared/data"


def data(name: str) -> Path:
    """Return the path of a table, or skip the test without it."""
    if not (DATA / name).is_file():
        pytest.skip("reference data absent")
    return DATA / name


def test_mlperf() -> None:
    records = list(screened("mlperf", [Publication(data("mlperf_edge_krai.csv"))]).records())
    refused = [parsed for parsed in records if parsed.record is None]
    assert sum(isinstance(parsed.record, Measurement) for parsed in records) + len(refused) == 2758
    assert len(refused) < 0.02 * 2758, "few of them can be wrong"


def models(name: str) -> set[str]:
    """Return the names of the models in a table of timm."""
    records = (parsed.record for parsed in screened("timm", [Publication(data(name))]).records())
    return {record.model for record in records if isinstance(record, Measurement | Accuracy)}


def test_two_tables_of_timm_agree_on_the_names_of_models() -> None:
    measured = models("benchmark-infer-fp32-nchw-pt240-cpu-i7_12700h-dynamo.csv")
    both = measured & models("results-imagenet.csv")
    assert "hiera_tiny" in both
    assert len(both) > 0.5 * len(measured)


def test_aihub_copies_share_a_job() -> None:
    screening = screened("aihub", [Publication(data("aihub_v0.47.0_perf.csv"))])
    rows = (parsed.record for parsed in screening.records() if isinstance(parsed.record, Measurement))
    copied = {row.device for row in rows if "copied" in row.flags}
    assert copied == {"QCS8275 (Proxy)", "SA7255P ADP"}


@pytest.mark.slow
def test_a_board_was_swapped_behind_one_name() -> None:
    pytest.importorskip("pyarrow")
    screening = screened("aihub", [Publication(data("aihub_history.parquet"))])
    with LatencyDB.open(shipped=False) as db:
        came = db.import_records(screening.records(), "a file")
        epochs = db.epochs()
    assert came.added + len(came.refused) == 139_160
    swapped = [epoch for epoch in epochs if epoch.device == "QCS9075 (Proxy)"]
    assert [epoch.started[:7] for epoch in swapped] == ["2025-10"]
    assert 3.5 < swapped[0].ratio < 4.8
