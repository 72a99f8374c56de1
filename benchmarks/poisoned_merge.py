"""Wrong rows among sound ones: 5% of the MLPerf table made wrong in one way at a time, and what the import takes.

python benchmarks/poisoned_merge.py [--data ../shared/data] [--share 0.05] [--seeds 5]

caught: share of the wrong rows that went into quarantine. false_alarms: share of the other rows that did. The table
itself has rows that neighbours contradict; `as_published` counts those, and which of them are wrong is unknown.
The last kind goes through timm's table, which tells what its models cost; a time there is a hundredth of what it was.
"""

from __future__ import annotations

import argparse
import csv
import random
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import report

from edgevit.published.importers import Publication, screened
from edgevit.published.screening.residual import COMMON, NEAREST, SAME
from edgevit.published.screening.screen import DOUBTFUL, UNITS
from edgevit.store import LatencyDB

DATA = Path(__file__).parents[2] / "shared/data"
MLPERF, TIMM = "mlperf_edge_krai.csv", "benchmark-infer-fp32-nchw-pt240-cpu-i9_10940x-dynamo.csv"
TIMES = ("p90_headline", "min", "max", "mean", "p50", "p90", "p95", "p97", "p99", "p99_9")
Line = dict[str, str]


def scaled(line: Line, factor: float) -> Line:
    return line | {name: repr(float(line[name]) * factor) for name in TIMES}


def too_fast(line: Line) -> Line:
    time_ms, rate = float(line["infer_step_time"]), float(line["infer_samples_per_sec"])
    return line | {"infer_step_time": repr(time_ms / 100), "infer_samples_per_sec": repr(rate * 100)}


KINDS: dict[str, tuple[str, Callable[[Line], Line]]] = {
    "nan": (MLPERF, lambda line: line | {"p50": "nan"}),
    "negative": (MLPERF, lambda line: scaled(line, -1)),
    "p50_above_p90": (MLPERF, lambda line: line | {"p50": repr(float(line["p90"]) * 1.01)}),
    "us_for_ns": (MLPERF, lambda line: scaled(line, 1e-3)),
    "ps_for_ns": (MLPERF, lambda line: scaled(line, 1e3)),
    "times_2": (MLPERF, lambda line: scaled(line, 2)),
    "half": (MLPERF, lambda line: scaled(line, 0.5)),
    "faster_than_possible": (TIMM, too_fast),
}


def main(data: Path, share: float, seeds: int) -> None:
    limits = {
        "doubtful_beyond": DOUBTFUL,
        "other_unit_beyond": UNITS,
        "nearest": NEAREST,
        "common": COMMON,
        "same": SAME,
    }
    if not (data / MLPERF).is_file() or not (data / TIMM).is_file():
        report("poisoned_merge", {"limits": limits, "result": "reference data absent"})
        return
    result: dict[str, Any] = {"limits": limits, "share": share, "seeds": seeds}
    result["as_published"] = {name: as_published(data / name) for name in (MLPERF, TIMM)}
    for kind, (name, spoil) in KINDS.items():
        runs = [poisoned(data / name, spoil, share, seed) for seed in range(seeds)]
        caught = [len(hit & bad) / len(bad) for bad, hit, _ in runs]
        alarms = [len(hit - bad) / (count - len(bad)) for bad, hit, count in runs]
        result[kind] = {
            "wrong_rows": [len(bad) for bad, _, _ in runs],
            "caught": round(statistics.fmean(caught), 4),
            "caught_least": round(min(caught), 4),
            "false_alarms": round(statistics.fmean(alarms), 4),
            "false_alarms_most": round(max(alarms), 4),
        }
    report("poisoned_merge", result)


def as_published(path: Path) -> dict[str, Any]:
    _, hit, count = poisoned(path, lambda line: line, 0, 0)
    return {"rows": count, "quarantined": len(hit), "share": round(len(hit) / count, 4)}


def poisoned(path: Path, spoil: Callable[[Line], Line], share: float, seed: int) -> tuple[set[int], set[int], int]:
    """Numbers of the rows that were spoiled, of those the import refused, and how many rows there are."""
    draw = random.Random(seed)
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    bad = {number for number in range(len(lines)) if draw.random() < share}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        with copy.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(lines[0]))
            writer.writeheader()
            writer.writerows(spoil(line) if number in bad else line for number, line in enumerate(lines))
        form = "mlperf" if path.name == MLPERF else "timm"
        with LatencyDB.open(f"{folder}/latency.db", shipped=False) as db:
            came = db.import_records(screened(form, [Publication(copy)]).records(), str(copy))
    return bad, {int(refusal.location.rpartition(" ")[2]) - 2 for refusal in came.refused}, len(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    main(arguments.data, arguments.share, arguments.seeds)
