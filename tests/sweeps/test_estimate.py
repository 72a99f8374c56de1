"""forecast: the plan of a sweep with its times. It imports no torch and no engine, and it changes nothing."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgevit.measurement.runner import Protocol
from edgevit.records.artifact import ExportRequest, StageTime
from edgevit.records.measurement import Measurement
from edgevit.store import LatencyDB
from edgevit.sweeps import estimate as room
from edgevit.sweeps.estimate import EXPORT_GUESS_S, MACS_PER_SECOND_GUESS, START_GUESS_S, SweepStep, forecast
from edgevit.sweeps.plan import RowQuery, artifact_folder, still_to_measure
from edgevit.sweeps.run import SweepPlan
from support import toys
from support.measured import measured

DB = "x.db"
RequestFactory = Callable[..., ExportRequest]
PROTOCOL = Protocol()


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the rows that ship. Each forecast would load them into a new one."""
    path = tmp_path_factory.mktemp("shipped") / DB
    LatencyDB.open(str(path)).close()
    return path


@pytest.fixture
def request_of(shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RequestFactory:
    """Factory of requests for an own network. With the seconds of an export, its artifact exists as well."""
    shutil.copy(shipped, tmp_path / DB)
    monkeypatch.chdir(tmp_path)
    from edgevit.sweeps import plan

    # The artifacts of these tests are made by no export.
    monkeypatch.setattr(plan, "is_current_so_far", lambda artifact, request: True)
    monkeypatch.setattr(
        plan, "_engine_version", lambda artifact, engines: (engines or {"onnxruntime": "1.31.1"})["onnxruntime"]
    )

    def make(name: str, seconds: float | None = None) -> ExportRequest:
        request = ExportRequest("onnx", tmp_path / "out", model=f"{name}.py:net")
        if seconds is not None:
            artifact_folder(request).parent.mkdir(exist_ok=True)
            artifact = toys.fake_artifact(artifact_folder(request), f"work{' ' * len(name)}run", request.model)
            from edgevit.artifacts.folder import seal

            seal(dataclasses.replace(artifact, stages=(StageTime("fold", seconds - 1), StageTime("convert", 1.0))))
        return request

    return make


def steps(
    *requests: ExportRequest, counts: Sequence[int] = (1,), protocol: Protocol = PROTOCOL, again: bool = False
) -> list[SweepStep]:
    return forecast(SweepPlan(requests, toys.LOCAL, counts, protocol, again), DB)


def test_unknown_models_have_guessed_times(request_of: RequestFactory) -> None:
    export, measure = steps(request_of("a"))
    assert (export.does, export.seconds, export.source, export.is_guess) == ("export", EXPORT_GUESS_S, "a guess", True)
    run_s = 10**9 / MACS_PER_SECOND_GUESS
    assert measure.seconds == pytest.approx(5 * (START_GUESS_S + max(0.5, 10 * run_s) + max(1.0, 133 * run_s)))
    assert measure.is_guess and measure.source == "a guess"


def test_exports_of_other_models_are_a_better_guess(request_of: RequestFactory) -> None:
    planned = steps(request_of("a", 12.0), request_of("bb", 20.0), request_of("c"))
    assert [(step.does, step.seconds) for step in planned[:1]] == [("export", 16.0)]
    assert planned[0].is_guess and "other models" in planned[0].source
    assert [step.does for step in planned[1:]] == ["measure"] * 3


def row_of(request: ExportRequest, **changes: Any) -> Measurement:
    from edgevit.artifacts.folder import open_artifact
    from edgevit.records.identity import identify

    sha = open_artifact(artifact_folder(request)).sha256
    facts: dict[str, Any] = {
        "model": request.model,
        "artifact_sha256": sha,
        "device_id": "unit",
        "device": "local",
        "threads": 1,
    }
    return identify(dataclasses.replace(measured(), **(facts | changes)))


def keep(*rows: Measurement) -> None:
    with LatencyDB.open(DB) as database:
        for row in rows:
            database.add(row)


def test_earlier_rows_tell(request_of: RequestFactory) -> None:
    request = request_of("a", 9.0)
    # A row of an older engine is measured again, and predicts the same time.
    keep(row_of(request, engine_version="1.0"))
    [step] = steps(request)
    load_s, run_s = (90_000_000 + 20_000_000) / 1e9, (measured().p50_ns or 0) / 1e9
    assert (step.does, step.source, step.is_guess) == ("measure", "an earlier row", False)
    assert step.seconds == pytest.approx(5 * (START_GUESS_S + load_s + 0.5 + max(1.0, 133 * run_s)))
    [paced] = steps(request, protocol=Protocol(rate_hz=10.0))
    assert paced.seconds == pytest.approx(5 * (START_GUESS_S + load_s + 1.0 + 13.3))
    two = steps(request, counts=(1, 2))
    assert [step.is_guess for step in two] == [False, True]


def test_what_is_held_is_not_measured_again(request_of: RequestFactory) -> None:
    request = request_of("a", 9.0)
    keep(row_of(request))
    [step] = steps(request)
    assert (step.does, step.seconds, step.source) == ("nothing", 0.0, "held by the database")
    [step] = steps(request, again=True)
    assert step.does == "measure"


# The changes of a row, and whether that row stands for a measurement of the protocol.
SUFFICIENT: dict[str, tuple[dict[str, Any], bool]] = {
    "whole": ({}, True),
    "a build of the same engine": ({"engine_version": "1.31.1-22982-e213"}, True),
    "another engine": ({"engine_version": "1.31.10"}, False),
    "quick": ({"flags": ("few_processes",)}, False),
    "without the bound": ({"p99_upper_ns": None}, False),
    "crashed": ({"status": "crashed", "error": "SIGSEGV"}, True),
    "throttled": ({"status": "throttled", "error": "hot"}, False),
    "of a camera": ({"rate_hz": 30.0}, False),
    "of a batch": ({"batch": 8}, False),
    "of other threads": ({"threads": 2}, False),
}


@pytest.mark.parametrize("name", SUFFICIENT)
def test_which_rows_stand_for_a_measurement(name: str, request_of: RequestFactory) -> None:
    from edgevit.artifacts.folder import open_artifact

    changes, is_enough = SUFFICIENT[name]
    request = request_of("a", 9.0)
    keep(row_of(request, **changes))
    todo = still_to_measure([open_artifact(artifact_folder(request))], RowQuery(toys.LOCAL, 1, DB, PROTOCOL))
    assert (todo == []) is is_enough


def test_a_quick_row_stands_for_a_quick_one_and_a_camera_for_its_own_rate(request_of: RequestFactory) -> None:
    from edgevit.artifacts.folder import open_artifact

    request = request_of("a", 9.0)
    artifacts = [open_artifact(artifact_folder(request))]
    keep(row_of(request, flags=("few_processes",)), row_of(request, rate_hz=30.0))
    assert still_to_measure(artifacts, RowQuery(toys.LOCAL, 1, DB, Protocol.quick())) == []
    assert still_to_measure(artifacts, RowQuery(toys.LOCAL, 1, DB, Protocol(rate_hz=30.0))) == []
    assert still_to_measure(artifacts, RowQuery(toys.LOCAL, 1, DB, Protocol(rate_hz=60.0))) == artifacts


@pytest.mark.parametrize(("version", "does"), [("1.31.1", "nothing"), ("1.32.0", "measure")])
def test_a_plan_goes_by_the_engine_that_the_device_has(request_of: RequestFactory, version: str, does: str) -> None:
    request = request_of("a", 9.0)
    keep(row_of(request))
    [step] = forecast(SweepPlan([request], toys.LOCAL, (1,), PROTOCOL, engines={"onnxruntime": version}), DB)
    assert step.does == does


def test_speed_of_other_models_is_used_for_one_of_known_size(
    request_of: RequestFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    macs = {"a.py:net": 10**9, "bb.py:net": 2 * 10**9}
    monkeypatch.setattr(room, "_macs", macs.get)
    slow, other = request_of("a", 9.0), request_of("bb", 9.0)
    keep(row_of(slow))
    step = steps(slow, other)[-1]
    run_s = 2 * (measured().p50_ns or 0) / 1e9
    assert (step.source, step.is_guess) == ("other models' speed here", True)
    assert step.seconds == pytest.approx(5 * (START_GUESS_S + 0.5 + max(1.0, 133 * run_s)))


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from edgevit.cli import main; sys.argv = ['edgevit', 'sweep', '--models', 'vanillanet_5', "
        "'--targets', 'onnx', '--dry-run', '--db', 'x.db']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules and 'onnxruntime' not in sys.modules"
    )
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert outcome.returncode == 0, outcome.stderr
    assert "vanillanet_5 onnx fp32" in outcome.stdout and "guessed" in outcome.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["x.db"], "no artifact was made"
