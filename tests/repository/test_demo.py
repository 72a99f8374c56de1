"""Budget of `make demo`: it lies between two measurements, so that one model fits and another does not."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import edgevit
from edgevit.store import LatencyDB
from support.measured import failed, measured
from support.speed import seconds

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "examples" / "middle_budget.py"


def run(database: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(database), "pi5"]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds(60), check=False)


def test_some_measured_models_fit_the_budget_and_some_do_not(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    times = {"mobilevig_ti": 20_000_000, "mobilevig_s": 31_000_000, "affnet_et": 17_000_000}
    with LatencyDB.open(str(path), shipped=False) as database:
        for model, time_ns in times.items():
            database.add(measured([[time_ns + run * 1000 for run in range(140)]] * 5, model=model, family=""))
        database.add(failed("throttled", model="vanillanet_5", family=""))
    outcome = run(path)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout == "24.14ms\n"
    choice = edgevit.choose("pi5", max_latency=outcome.stdout.strip(), db=str(path), predict=False)
    assert choice.picked is not None and choice.picked.model == "mobilevig_ti"
    assert {candidate.model for candidate in choice.fitting} == {"mobilevig_ti", "affnet_et"}


def test_without_a_measurement_there_is_no_budget(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with LatencyDB.open(str(path), shipped=False) as database:
        database.add(failed("throttled", model="mobilevig_ti", family=""))
    outcome = run(path)
    assert outcome.returncode == 1
    assert outcome.stderr.startswith("no model was measured on pi5")


def test_the_demo_asks_for_that_budget_and_names_its_page() -> None:
    outcome = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--max-latency $budget" in outcome.stdout
    assert f"echo 'the page, for any browser: file://{ROOT}/demo/report.html'" in outcome.stdout


def test_the_demo_installs_what_its_verbs_need() -> None:
    """The tests have every extra, and a fresh machine has that of the demo alone."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    commands = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    needed = extras.keys() & set(re.findall(r"bin/edgevit (\w+)", commands))
    assert "report" in needed
    for extra in needed:
        assert extra in extras["demo"][0].partition("[")[2].rstrip("]").split(",")
