"""The real tables, where they are: numbers that would change if an importer, the screening or epochs did."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgevit.published.importers import Publication, screened
from edgevit.records.measurement import Measurement
from edgevit.store import LatencyDB

DATA = Path(__file__).parents[3] / "shared/data"


def data(name: str) -> Path:
    if not (DATA / name).is_file():
        pytest.skip("reference data absent")
    return DATA / name


def test_mlperf():
    items = list(screened("mlperf", [Publication(data("mlperf_edge_krai.csv"))]).items())
    refused = [item for item in items if item.record is None]
    assert sum(isinstance(item.record, Measurement) for item in items) + len(refused) == 2758
    assert len(refused) < 0.02 * 2758, "few of them can be wrong"


def test_two_tables_of_timm_agree_on_what_is_one_model():
    rows, known = (
        {item.record.model for item in screened("timm", [Publication(data(name))]).items() if item.record is not None}
        for name in ("benchmark-infer-fp32-nchw-pt240-cpu-i7_12700h-dynamo.csv", "results-imagenet.csv")
    )
    assert "hiera_tiny" in rows & known
    assert len(rows & known) > 0.5 * len(rows)


def test_aihub_copies_share_a_job():
    found = screened("aihub", [Publication(data("aihub_v0.47.0_perf.csv"))])
    copied = {item.record.device for item in found.items() if item.record and "copied" in item.record.flags}
    assert copied == {"QCS8275 (Proxy)", "SA7255P ADP"}


@pytest.mark.slow
def test_a_board_was_swapped_behind_one_name():
    pytest.importorskip("pyarrow")
    found = screened("aihub", [Publication(data("aihub_history.parquet"))])
    with LatencyDB.open(shipped=False) as db:
        came = db.import_items(found.items())
        epochs = db.epochs()
    assert came.added + len(came.refused) == 139_160
    swapped = [item for item in epochs if item.device == "QCS9075 (Proxy)"]
    assert [item.started[:7] for item in swapped] == ["2025-10"]
    assert 3.5 < swapped[0].ratio < 4.8
