"""How long a report takes: to make, until its tables are read, until its chart is drawn, and until a filter has worked.

python benchmarks/report_page.py [--rows 30 1000 10000] [--loads 5]

First the command on the rows that ship, with predictions and without, each call a new process; in turns. Then pages of
synthetic rows (four devices, five targets), opened in headless Chromium, Debian's, each time in a new one. Milliseconds
of the page are its own clock's, from the start of the navigation.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import report
from playwright.sync_api import Page, sync_playwright

from edgevit.records.choice import Budget, Candidate, Choice
from edgevit.reporting import Report, write
from edgevit.reporting.chooser_answers import Setting, UnitAnswers
from edgevit.reporting.page_answers import device_answers, key_of
from edgevit.reporting.page_records import PERCENTILES, DeviceAnswers, DevicePart, Entry, Latency
from edgevit.store import LatencyDB

DEVICES, TARGETS = 4, ("onnx", "openvino", "ncnn", "litert", "executorch")
# A filter that leaves a target out: from the press until the browser has painted.
FILTER = """() => new Promise((resolve) => {
  const start = performance.now();
  document.querySelector('#facet-target input').click();
  requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - start)));
})"""


def main(counts: list[int], loads: int) -> None:
    figures = {}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        for count in counts:
            path = Path(folder) / f"{count}.html"
            page = synthetic(count)
            start = time.perf_counter()
            size = write(page, path)
            seconds = time.perf_counter() - start
            opened = [opening(playwright, path) for _ in range(loads)]
            times = {name: round(statistics.median(load[name] for load in opened)) for name in opened[0]}
            figures[f"{count} rows"] = {"page_mb": round(size / 1e6, 2), "written_s": round(seconds, 2), **times}
        shipped = command_seconds(Path(folder), loads)
    report("report_page", {"loads": loads, "command_on_shipped_rows": shipped, "medians": figures})


def command_seconds(folder: Path, calls: int) -> dict[str, dict[str, float]]:
    """Medians of `edgevit report` on the rows that ship: seconds until it ended, and of processors."""
    with LatencyDB.open(str(folder / "shipped.db")):
        pass  # a new database takes them in
    command = [sys.executable, "-m", "edgevit.cli", "report", "--db", str(folder / "shipped.db"), "--out"]
    ways = {"with_predictions": [], "measured_only": ["--measured-only"]}
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(calls):
        for name, options in ways.items():
            start, before = time.perf_counter(), processor_seconds()
            subprocess.run([*command, str(folder / "shipped.html"), *options], check=True, capture_output=True)
            took[name].append((time.perf_counter() - start, processor_seconds() - before))
    medians = {}
    for name, figures in took.items():
        wall, processor = zip(*figures, strict=True)
        medians[name] = {"wall_s": middle(wall), "processor_s": middle(processor)}
    return medians


def middle(seconds: Iterable[float]) -> float:
    """Their median, to hundredths."""
    return round(statistics.median(seconds), 2)


def processor_seconds() -> float:
    """What all processes that were started here and have ended took of processors."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def opening(playwright: Any, path: Path) -> dict[str, float]:
    """One browser, one page: milliseconds until the tables are there, the chart is, and a filter has worked."""
    chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"))
    try:
        page: Page = chromium.new_page(viewport={"width": 1440, "height": 900})
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-drawn]", state="attached")
        ready, drawn = page.evaluate("['ready', 'drawn'].map((name) => Number(document.documentElement.dataset[name]))")
        return {"tables_ms": ready, "chart_ms": drawn, "filter_ms": page.evaluate(FILTER)}
    finally:
        chromium.close()


def synthetic(count: int) -> Report:
    """Return a report of so many rows, with the answers of the chooser."""
    dice = random.Random(1)
    entries = tuple(entry(number, dice) for number in range(count))
    devices = tuple(device(number, entries) for number in range(DEVICES))
    head = ("edgevit report", "2026-11-21T00:00:00+00:00", "0", "imagenet-1k val")
    return Report(*head, False, False, 0.99, None, devices, entries, (), False, ())


def entry(number: int, dice: random.Random) -> Entry:
    """One row, measured."""
    p50 = dice.lognormvariate(3, 1)
    bounds = [(p50 * k, p50 * k * 0.98, p50 * k * 1.1) for k in (1, 1.1, 1.3)]
    p50_, p90, p99 = (Latency(ms, low, high, high, high) for ms, low, high in bounds)
    return Entry(
        measurement_id=f"{number:064x}", device=number % DEVICES, model=f"model_{number // 40}", family="family",
        target=TARGETS[number % len(TARGETS)], precision="fp32", threads=1 + number % 2,
        top1_percent=round(60 + 8 * dice.random() + 4 * p50**0.2, 2), top1_error_percent=None,
        top1_provenance="published", top1_assumed=(), latency_provenance="measured", provenance="measured",
        p50=p50_, p90=p90, p99=p99,
        size_mb=10.0, parity_status="passed", grade="A", flags=(), remarks=(), usable=True, reason="",
        engine="engine", engine_version="1.0", provider="CPU",
        measured="2026-11-20T00:00:00+00:00", age_days=1, epoch=0, processes=5, runs=662,
        peak_memory_mb=100.0, source="", origin="", licence="", artifact_sha256=f"{number:064x}",
        network_id="", weights="",
    )  # fmt: skip


def device(number: int, entries: Sequence[Entry]) -> DevicePart:
    """Return one of the devices."""
    own = {place: row for place, row in enumerate(entries) if row.device == number}
    counts = {"usable": len(own), **dict.fromkeys(("unusable", "superseded", "not_asked", "published_left_out"), 0)}
    return DevicePart(
        f"id-{number}", f"device {number}", "class", (), ("cpu",), (), "", "", {}, None, "", (), **counts,
        predicted=0, unpredicted=(), unmeasured=(), answers=answers(own),
    )  # fmt: skip


def answers(own: Mapping[int, Entry]) -> DeviceAnswers:
    """Return what the page looks up for the rows of a device."""
    places = {key_of(candidate(row, row.p50)): place for place, row in own.items()}
    listed, by_setting = [], {}
    for percentile in PERCENTILES:
        fitting = tuple(candidate(row, getattr(row, f"p{percentile}")) for row in own.values())
        choice = Choice("device", Budget(percentile=percentile), None, fitting, (), (), ())
        listed.append(choice)
        for predicted, reconstructed in itertools.product((False, True), repeat=2):
            by_setting[Setting(percentile, predicted, False, reconstructed)] = choice
    return device_answers(UnitAnswers(tuple(listed), by_setting), places, 0.01)


def candidate(row: Entry, latency: Latency) -> Candidate:
    """Return a row as the chooser has it at one percentile."""
    shared = {field.name for field in dataclasses.fields(Entry)} & {
        field.name for field in dataclasses.fields(Candidate)
    }
    facts = {name: getattr(row, name) for name in shared - {"device"}}
    return Candidate(**facts, latency_ms=latency.ms, latency_upper_ms=latency.upper_ms)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[30, 1000, 10_000])
    parser.add_argument("--loads", type=int, default=5)
    arguments_parsed = parser.parse_args()
    main(arguments_parsed.rows, arguments_parsed.loads)
