"""The predictor on phones and boards of Qualcomm AI Hub: one device held out, per runtime and precision.

python benchmarks/predict_aihub.py [SEEDS]   random anchors are drawn so often (default 3)

Data: aihub_v0.47.0_perf.csv of qualcomm/ai-hub-models (BSD-3-Clause), jobs that passed. A column is a device with one
runtime and precision; a model is a model and its component. Split: one column held out; known are the columns of other
devices with the same runtime and precision, and no row of the device itself but the anchors. Columns with at least 40
models that another device ran are tested.

Some jobs were run once and listed under two devices. `no_copies` drops, from what is known, each row whose job is also
listed under the device held out. Repeats of one job differ by more than 10% in 4 to 9% of rows: no predictor gets
beyond 96%.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any, NamedTuple

from common import reference_file, report
from predict_common import Trial, hold_out, random_anchors, summary

from edgevit.prediction import Predictor, Row, choose_anchors

LEAST_MODELS = 40


class Job(NamedTuple):
    """One row of the file."""

    model: str
    device: str
    setting: str  # runtime and precision
    job_id: str
    latency_ns: float


def read(file: Path) -> list[Job]:
    collected = []
    with file.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            if row["status"] == "Passed" and float(row["latency_ms"] or 0) > 0:
                model, setting = f"{row['model']}/{row['component']}", f"{row['runtime']} {row['precision']}"
                collected.append(Job(model, row["device"], setting, row["job_id"], 1e6 * float(row["latency_ms"])))
    return collected


def row(job: Job) -> Row:
    return Row(job.model, f"{job.device}, {job.setting}", job.latency_ns)


def columns(jobs: list[Job]) -> list[tuple[list[Job], list[Job]]]:
    """Each column that is tested: its jobs, and those of other devices in its setting."""
    collected = []
    for setting in sorted({job.setting for job in jobs}):
        same = [job for job in jobs if job.setting == setting]
        for device in sorted({job.device for job in same}):
            others = [job for job in same if job.device != device]
            elsewhere = {job.model for job in others}
            mine = [job for job in same if job.device == device and job.model in elsewhere]
            if len(mine) >= LEAST_MODELS:
                collected.append((mine, others))
    return collected


def test(mine: list[Job], others: list[Job], count: int, seeds: int | None) -> list[Trial]:
    """One column with spread anchors, or once per seed with random ones."""
    known_rows, held_out_rows = [row(job) for job in others], [row(job) for job in mine]
    if seeds is None:
        models = [row_held_out.model for row_held_out in held_out_rows]
        picks = [list(choose_anchors(Predictor(known_rows), held_out_rows[0].column, count=count, candidates=models))]
    else:
        picks = [random_anchors(held_out_rows, count, seed) for seed in range(seeds)]
    return [hold_out(known_rows, held_out_rows, anchors) for anchors in picks]


def without_copies(mine: list[Job], others: list[Job]) -> tuple[list[Job], list[Job]]:
    """No job of this column is known under another device's name."""
    own_jobs = {job.job_id for job in mine}
    distinct = [job for job in others if job.job_id not in own_jobs]
    elsewhere = {job.model for job in distinct}
    return [job for job in mine if job.model in elsewhere], distinct


def by_device(trials: list[Trial]) -> dict[str, float]:
    devices: dict[str, list[float]] = {}
    for trial in trials:
        devices.setdefault(trial.column.split(",")[0], []).append(trial.within)
    return {device: round(sum(each) / len(each), 3) for device, each in sorted(devices.items())}


def main(seeds: int = 3) -> None:
    file = reference_file("aihub_v0.47.0_perf.csv")
    if file is None:
        return report("predict_aihub", {"skipped": "reference data absent"})
    tested = columns(read(file))
    clean = [pair for pair in (without_copies(*pair) for pair in tested) if len(pair[0]) >= LEAST_MODELS]
    collected: dict[str, Any] = {"split": "leave one device out, per runtime and precision", "confidence": 0.9}
    for count in (10, 20):
        for name, pairs, draws in (
            ("spread", tested, None),
            ("random", tested, seeds),
            ("spread_no_copies", clean, None),
            ("random_no_copies", clean, seeds),
        ):
            trials = [trial for pair in pairs for trial in test(*pair, count, draws)]
            collected[f"k{count}_{name}"] = {**summary(trials), "by_device": by_device(trials)}
            print(count, name, collected[f"k{count}_{name}"], file=sys.stderr)
    return report("predict_aihub", {"seeds": seeds, **collected})


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
