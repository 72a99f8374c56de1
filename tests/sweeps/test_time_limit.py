"""Sweeps with a time limit: remaining work is listed, and nothing is done twice. Rows that are chosen for shipping."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from edgevit.cli import db_exchange
from edgevit.cli.common import parse_duration
from edgevit.devices.registry import local_device
from edgevit.errors import ArtifactError, UsageError
from edgevit.measurement.runner import Protocol
from edgevit.records.artifact import ExportRequest, Source
from edgevit.records.measurement import Device
from edgevit.store import LatencyDB
from edgevit.sweeps import run
from edgevit.sweeps.plan import RowQuery
from edgevit.sweeps.recording import Recorded, RecordLabels
from support.command_line import edgevit, refused
from support.measured import failed, floor, measured, rated


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("30min", 1800), ("1.5h", 5400), (" 2 h ", 7200)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["30", "0s", "-1m", "m", "1d", "1h30m", "inf h", ""])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a duration"):
        parse_duration(text)


@dataclass(frozen=True)
class Made:
    """An artifact as far as a sweep looks at it."""

    label: str
    model: str
    target: str
    precision: str
    source: Source


class Bench:
    """A sweep whose exports and measurements are only noted. Each takes 10 s of a clock that this class winds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, broken: tuple[str, ...] = ()) -> None:
        self.now, self.steps, self.broken = 0.0, list[str](), broken
        self.exported: set[str] = set()
        self.measured: set[tuple[str, int]] = set()
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        monkeypatch.setattr(run, "known_failures", lambda artifacts, query: [])
        for name in ("artifact_for", "still_to_measure", "measure_and_record"):
            monkeypatch.setattr(run, name, getattr(self, name))

    def artifact_for(self, request: ExportRequest, db: str | None) -> Made:
        if request.model in self.broken:
            raise ArtifactError("it cannot be made")
        if request.label not in self.exported:
            self.exported.add(request.label)
            self.steps.append(f"export {request.label}")
            self.now += 10
        source = Source(request.model, "random", 0)
        return Made(request.label, request.model, request.target, request.precision, source)

    def still_to_measure(self, artifacts: list[Made], query: RowQuery) -> list[Made]:
        return [artifact for artifact in artifacts if (artifact.label, query.threads) not in self.measured]

    def measure_and_record(
        self, artifacts: list[Made], device: Device, count: int, *others: Any, labels: RecordLabels, **options: Any
    ) -> Recorded:
        assert labels.sweep
        self.steps.append(f"measure {', '.join(artifact.label for artifact in artifacts)} at {count}")
        self.now += 10 * len(artifacts)
        self.measured |= {(artifact.label, count) for artifact in artifacts}
        return Recorded([measured() for _ in artifacts], [])

    def run(self, seconds: float) -> run.SweepRun:
        requests = [ExportRequest(target, Path("out"), model=model) for model in "ab" for target in ("x", "y")]
        plan = run.SweepPlan(requests, local_device(), [1, 2], Protocol())
        sweep = run.SweepRun(plan, None, self.now + seconds)
        sweep.run(run.by_model(requests))
        return sweep


ALL = [
    "export a x fp32", "export a y fp32", "measure a x fp32, a y fp32 at 1", "measure a x fp32, a y fp32 at 2",
    "export b x fp32", "export b y fp32", "measure b x fp32, b y fp32 at 1", "measure b x fp32, b y fp32 at 2",
]  # fmt: skip


def test_without_an_end_all_is_done_model_by_model(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    work = bench.run(math.inf)
    assert bench.steps == ALL and len(work.rows) == 8 and not work.remaining and work.already_measured == 0


@pytest.mark.parametrize("seconds", [5, 15, 25, 45, 65, 75, 95, 105])
def test_called_again_and_again_it_does_each_step_once(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    bench, calls = Bench(monkeypatch), 0
    while True:
        before = bench.now
        work = bench.run(seconds)
        calls += 1
        assert bench.now - before < seconds + 20, "one step was begun before the end and may outlast it"
        if not work.remaining:
            break
    assert len(bench.steps) == len(set(bench.steps)), "nothing is done twice"
    assert bench.measured == {
        (f"{model} {target} fp32", count) for model in "ab" for target in "xy" for count in (1, 2)
    }
    assert calls >= 120 / (seconds + 20)


def test_remaining_work_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Bench(monkeypatch).run(25)
    assert len(work.rows) == 2, "the running group was finished"
    assert work.remaining == [
        "a x fp32, 2 thread(s)", "a y fp32, 2 thread(s)", "b x fp32", "b y fp32",
    ]  # fmt: skip


def test_a_failure_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Bench(monkeypatch, broken=("a",)).run(math.inf)
    assert [failure.request.label for failure in work.failures] == ["a x fp32", "a y fp32"] and len(work.rows) == 4


@pytest.mark.parametrize(("waited_s", "measured_here", "remaining"), [(0, 7, 0), (1000, 0, 3 + 2)])
def test_after_waiting_for_the_device_a_sweep_looks_again(
    monkeypatch: pytest.MonkeyPatch, waited_s: float, measured_here: int, remaining: int
) -> None:
    """Meanwhile another sweep has measured one of the keys, and the time may have ended."""
    bench = Bench(monkeypatch)

    @contextmanager
    def wait(device: Device, on_wait: Callable[[str], None]) -> Iterator[None]:
        bench.measured.add(("a x fp32", 1))
        bench.now += waited_s
        yield

    monkeypatch.setattr(run, "locked_device", wait)
    work = bench.run(900)
    assert (len(work.rows), work.already_measured, len(work.remaining)) == (measured_here, 1, remaining)


def test_the_command_lists_the_remaining_work(tmp_path: Path) -> None:
    sweep = ("sweep", "--models", "mobilevig_*", "--targets", "onnx", "--threads", "1,2", "--out", tmp_path / "out")
    outcome = edgevit(*sweep, "--db", tmp_path / "a.db", "--max-time", "0.000001s", "--json")
    assert outcome.returncode == 6, "nothing was measured"
    report = json.loads(outcome.stdout)
    assert report["remaining"] == [f"mobilevig_{size} onnx fp32" for size in ("ti", "s", "m", "b")]
    assert not (tmp_path / "out").exists()
    assert "the time is over; left: mobilevig_ti" in edgevit(*sweep, "--max-time", "0.000001s").stdout
    assert "is not a duration" in refused(2, *sweep, "--max-time", "soon")


# Rows for shipping


def test_an_export_can_be_of_one_device_and_of_rows_that_repeat_themselves(tmp_path: Path) -> None:
    database, file = str(tmp_path / "a.db"), tmp_path / "rows.jsonl"
    other: dict[str, Any] = {"device": "pi4", "device_id": "pi-0009", "device_class": "raspberry-pi-4"}
    rows = [measured(grade=grade, nonce=grade) for grade in "ABCD"] + [measured(**other), failed("crashed")]
    with LatencyDB.open(database, shipped=False) as db:
        for row in rows:
            db.add(row)
        db.add_accuracy(rated())
        db.add_noise(floor())
        db.add_noise(replace(floor(), device_id="pi-0009", device="pi4"))

    def exported(device: str | None, grade: str | None = None) -> list[str]:
        with LatencyDB.open(database, shipped=False) as db:
            db.export_file(file, db_exchange._selection(db, device, grade))
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        rows = [f"{line['device']} {line['grade'] or line['status']}" for line in lines if "device" in line]
        return sorted([*rows, *(next(iter(line)) for line in lines if "device" not in line)])

    of_pi5 = ["noise_floor", "pi5 A", "pi5 B", "pi5 C", "pi5 D", "pi5 crashed"]
    for name in ("pi5", "pi-0001", "raspberry-pi-5"):
        assert exported(name) == of_pi5
    assert exported("pi5", "C") == [line for line in of_pi5 if line != "pi5 D"]
    assert exported("pi4", "A") == ["noise_floor", "pi4 A"]
    assert "pi5 D" not in exported(None, "B") and "accuracy" in exported(None, "B")
    outcome = edgevit("db", "export", file, "--db", database, "--device", "pi5", "--grade", "C")
    assert outcome.stdout == f"5 rows -> {file}\n"
    assert "no measured device is called" in refused(2, "db", "export", file, "--db", database, "--device", "pi6")
    assert "is not a grade" in refused(2, "db", "export", file, "--db", database, "--grade", "E")


def test_rows_of_another_unit_are_labelled(tmp_path: Path) -> None:
    database = str(tmp_path / "a.db")
    with LatencyDB.open(database, shipped=False) as db:
        db.add(measured(model="mobilevig_ti"))
        db.add(measured(model="mobilevig_ti", device="local", device_id=local_device().device_id))
    note = "not measured on a device of yours, but on 1 other unit(s) of raspberry-pi-5: yours may differ"
    assert note in edgevit("choose", "-d", "pi5", "--db", database).stdout
    assert "not measured on a device of yours" not in edgevit("choose", "--db", database).stdout


def test_a_fresh_install_answers_for_the_devices_whose_rows_ship() -> None:
    choose = ("choose", "--device", "x86_64-zen5-avx512bf16-2c", "--max-latency", "25ms")
    outcome = edgevit(*choose)
    first, second, *_ = outcome.stdout.splitlines()
    assert outcome.returncode == 0 and first.startswith("hiera_tiny, openvino fp32, 2 thread(s)")
    assert "(measured), grade C" in second, "nothing is predicted in its place"
    unsteady = edgevit("choose", "--device", "x86_64-zen5-avx512bf16-2c", "--target", "litert", "--precision", "fp32",
                       "--models", "mobilevig_ti", "--threads", "2")  # fmt: skip
    assert "(measured), grade D" in unsteady.stdout, "what is unsteady ships too"
    assert "did not agree within 10% (grade D)" in unsteady.stdout
