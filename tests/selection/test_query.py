"""Questions to a database: its rows, noise floors and devices, and budgets that make no sense."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgevit.errors import UnknownNameError, UsageError
from edgevit.records.choice import Budget
from edgevit.selection import CandidateFilter, PredictionOptions, ask
from edgevit.store import LatencyDB
from support.candidates import CARDS, MS, noisy, picked, reasons, texts
from support.measured import failed, measured


@pytest.fixture
def db(tmp_path: Path) -> Iterator[LatencyDB]:
    with LatencyDB.open(str(tmp_path / "x.db"), shipped=False) as database:
        database.add(measured([[10 * MS] * 3], model="a"))
        database.add(measured([[30 * MS] * 3], model="c"))
        database.add(failed(model="b"))
        database.add(measured([[1 * MS]], model="c", device="mac", device_id="m-1", device_class="m4"))
        yield database


@pytest.mark.parametrize("device", ["pi5", "pi-0001", "raspberry-pi-5"])
def test_choosing_from_a_database(db: LatencyDB, device: str) -> None:
    choice = ask(db, device, Budget(max_latency_ms=20), cards=CARDS)
    assert picked(choice) == "a" and choice.device == device and choice.unmeasured == ("d",)
    few = "not predicted: 2 row(s) of this engine, precision and thread count; 3 say how fast it is"
    assert reasons(choice) == {
        "b": "cannot run here: crashed: SIGSEGV", "c": "p90 is up to 30 ms, above 20 ms", "d": few,
    }  # fmt: skip
    assert {rejection.kind for rejection in choice.rejected if rejection.reason == few} == {"unmeasured"}


def test_the_noise_floor_that_the_database_keeps_is_used(db: LatencyDB) -> None:
    db.add_noise(noisy(0.9, "m-1"))
    assert ask(db, "pi5", Budget(max_latency_ms=10.3), cards=CARDS).notes == (), "another unit's"
    db.add_noise(noisy(0.05))
    assert "5.0%" in ask(db, "pi5", Budget(max_latency_ms=10.3), cards=CARDS).notes[0].text


def test_options_of_choose(db: LatencyDB) -> None:
    assert picked(ask(db, "pi5", Budget(), cards=CARDS, candidate_filter=CandidateFilter(["onnx"], ["fp32"], 4))) == "c"
    for nothing in (
        CandidateFilter(threads=1),
        CandidateFilter(["coreml"]),
        CandidateFilter(precisions=["int8"]),
        CandidateFilter(engines=["ncnn"]),
    ):
        choice = ask(db, "pi5", Budget(), cards=CARDS, candidate_filter=nothing, prediction=PredictionOptions(False))
        assert choice.picked is None and len(choice.rejected) == 3 and choice.unmeasured == ("d",)


def test_a_device_that_was_never_measured(db: LatencyDB, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="pi5") as caught:
        ask(db, "pi4", Budget(), cards=CARDS)
    assert caught.value.fix == "edgevit devices", "it is no device of this machine"
    with (
        LatencyDB.open(str(tmp_path / "empty.db"), shipped=False) as empty,
        pytest.raises(UnknownNameError, match="none yet"),
    ):
        ask(empty, "pi4", Budget(), cards=CARDS)


def test_a_device_where_nothing_runs(db: LatencyDB) -> None:
    db.add(failed(model="a", device="watch", device_id="w", device_class="watch"))
    choice = ask(db, "watch", Budget(), cards=CARDS)
    assert choice.picked is None and texts(choice) == ("no run on 'watch' succeeded yet",)


@pytest.mark.parametrize(
    "budget",
    [
        Budget(percentile=0),
        Budget(percentile=100),
        Budget(max_latency_ms=0),
        Budget(max_latency_ms=math.nan),
        Budget(max_size_mb=-1),
        Budget(min_top1_percent=math.inf),
    ],
)
def test_budgets_that_make_no_sense(db: LatencyDB, budget: Budget) -> None:
    with pytest.raises(UsageError) as caught:
        ask(db, "pi5", budget, cards=CARDS)
    assert caught.value.exit_code == 2
    assert budget.percentile == 90 or "from 1 to 99" in caught.value.why


def test_choosing_imports_nothing_heavy() -> None:
    code = "import sys, edgevit.selection; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "sqlalchemy", "alembic"} & set(loaded)
