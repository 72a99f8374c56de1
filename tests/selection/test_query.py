"""Questions to a database: its rows, noise floors and devices, and budgets that make no sense."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgevit.errors import UnknownNameError, UsageError
from edgevit.records.choice import Budget
from edgevit.records.measurement import Measurement
from edgevit.selection import CandidateFilter, PredictionOptions, ask
from edgevit.selection.api import Question, answers
from edgevit.selection.candidates import EVERYTHING
from edgevit.selection.query import USUAL
from edgevit.store import LatencyDB
from support.candidates import CARDS, MS, noisy, picked, reasons, texts
from support.measured import HOST, SILICON, failed, measured


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


AVX2, AVX512 = ("avx", "avx2"), ("avx", "avx2", "avx512f")


def of_silicon(model: str, sets: tuple[str, ...] | None, **changes: Any) -> Measurement:
    silicon = None if sets is None else dataclasses.replace(SILICON, instruction_sets=sets)
    return measured(
        model=model, device="local", device_class="x86_64-zen3-avx2-2c", **changes,
        host=dataclasses.replace(HOST, machine="x86_64", cpu_model="AMD EPYC", silicon=silicon),
    )  # fmt: skip


def test_rows_of_other_silicon_are_not_given_without_saying_so(db: LatencyDB, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine is another: it lacks a set that the rows' processor has, or has one more."""
    db.add(of_silicon("a", AVX2, device_id="x"))
    here = dataclasses.replace(HOST, machine="x86_64", silicon=dataclasses.replace(SILICON, instruction_sets=AVX512))
    monkeypatch.setattr("edgevit_runtime.environment.host", lambda root=None: here)
    name = "x86_64-zen3-avx2-2c"
    [choice] = answers(db, Question((name,), Budget(), EVERYTHING, USUAL, None))
    assert [note.kind for note in choice.notes][:2] == ["not_your_device", "other_silicon"]
    assert "+avx512f" in choice.notes[1].text and name in choice.notes[1].text
    with pytest.raises(UnknownNameError):
        answers(db, Question(("local",), Budget(), EVERYTHING, USUAL, None))
    same = dataclasses.replace(here, silicon=dataclasses.replace(SILICON, instruction_sets=AVX2))
    monkeypatch.setattr("edgevit_runtime.environment.host", lambda root=None: same)
    [choice] = answers(db, Question((name,), Budget(), EVERYTHING, USUAL, None))
    assert "other_silicon" not in [note.kind for note in choice.notes]


def test_rows_of_several_kinds_of_silicon_are_named(db: LatencyDB) -> None:
    db.add(of_silicon("a", AVX2, device_id="x"))
    assert "mixed_silicon" not in [note.kind for note in ask(db, "x86_64-zen3-avx2-2c", Budget(), cards=CARDS).notes]
    db.add(of_silicon("c", AVX512, device_id="y"))
    assert "mixed_silicon" in [note.kind for note in ask(db, "x86_64-zen3-avx2-2c", Budget(), cards=CARDS).notes]


def test_rows_of_unknown_silicon_say_so(db: LatencyDB) -> None:
    name = "x86_64-linux-amd-epyc-2c-unknown-silicon"
    db.add(dataclasses.replace(of_silicon("a", None, device_id="x"), device_class=name))
    [said] = [note for note in ask(db, name, Budget(), cards=CARDS).notes if note.kind == "unknown_silicon"]
    assert name in said.text and not said.about_pick


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
