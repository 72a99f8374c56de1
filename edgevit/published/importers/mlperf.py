"""MLPerf Inference, SingleStream results as a table: one line for each system and model, times in nanoseconds.

The columns are those of LoadGen's summary (mlperf_log_summary.txt) and of the system description beside it. Only
SingleStream is a latency of one image after the other, and only VALID runs met LoadGen's own rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from edgevit.published.importers import Publication
from edgevit.published.importers.reading.names import NOT_STATED, target_of
from edgevit.published.importers.reading.tables import Line, claims, csv_head, csv_lines
from edgevit.published.importers.reading.units import ns_from_ns, number, whole
from edgevit.published.screening import Claim, ClaimError
from edgevit.records.identity import identify_accuracy
from edgevit.records.measurement import Accuracy

FORM = "MLPerf Inference results (csv: round, org, system, model, scenario, p50, p90, p99 in ns...)"
LICENCE = "Apache-2.0"
FILE = ""
_COLUMNS = frozenset(
    ("round", "division", "org", "system", "model", "scenario", "valid", "p90_headline", "min", "max", "mean", "p50",
     "p90", "p99", "accuracy", "good", "total", "system_name", "accelerator", "framework")
)  # fmt: skip
_UNTOLD = ("batch", "precision", "processes", "runs")  # LoadGen asks for a number of runs at least, and tells no count
_FRAMEWORK = re.compile(r"(?P<name>.+?) v(?P<version>[0-9][\w.]*)\s*(?P<rest>.*)")
_IMAGENET = 50_000  # images of the validation set of ImageNet-1k


def recognises(path: Path) -> bool:
    """Whether the head of the file has the columns of such a table."""
    return set(csv_head(path)) >= _COLUMNS


def read(publication: Publication) -> Iterator[Claim]:
    """Every line. Raises StoreError where the file cannot be read."""
    return claims(csv_lines(publication.path), partial(_claim, publication))


def _claim(publication: Publication, line: Line) -> Claim:
    row = _row(line.values, publication)
    return line.claim(row, accuracies=_accuracies(line.values, row))


def _row(told: dict[str, Any], publication: Publication) -> dict[str, Any]:
    if told["scenario"] != "SingleStream" or told["valid"] != "VALID":
        raise ClaimError(f"no valid latency: {told['scenario']}, {told['valid']}")
    times = {f"{name}_ns": ns_from_ns(told[name], name) for name in ("min", "mean", "p50", "p90", "p99")}
    order = [times[f"{name}_ns"] for name in ("min", "p50", "p90", "p99")] + [ns_from_ns(told["max"], "max")]
    if order != sorted(order) or not order[0] <= times["mean_ns"] <= order[-1]:
        raise ClaimError(f"out of order: min, p50, p90, p99 and max are {order}, the mean {times['mean_ns']}")
    if ns_from_ns(told["p90_headline"], "p90_headline") != times["p90_ns"]:
        raise ClaimError(f"contradicts itself: p90 is {told['p90']}, and its headline {told['p90_headline']}")
    framework = _FRAMEWORK.fullmatch(told["framework"])
    engine = framework["name"] if framework else told["framework"]
    project = f"github.com/mlcommons/inference_results_{told['round']}"
    return {
        "source": f"{publication.named(project)}, {told['division']}/{told['org']}/{told['system']}",
        "licence": LICENCE,
        "model": told["model"],
        "device": told["system_name"],
        "device_id": f"mlperf/{told['system_name']}",
        "target": target_of(engine),
        "precision": NOT_STATED,
        "engine": engine,
        "engine_version": framework["version"] if framework else "",
        "provider": framework["rest"].strip("()") if framework else "",
        "compute_unit": "cpu" if told["accelerator"] == "-" else told["accelerator"],
        "started": publication.published,
        "untold": (*_UNTOLD, "started"),
        **times,
    }


def _accuracies(told: dict[str, Any], row: dict[str, Any]) -> tuple[Accuracy, ...]:
    """Top-1 where it is of ImageNet's 50,000 images. Of other benchmarks the table does not name the metric."""
    if not told["total"] or whole(told["total"], "total") != _IMAGENET:
        return ()
    value = number(told["accuracy"], "accuracy")
    if abs(100 * whole(told["good"], "good") / _IMAGENET - value) > 0.001:
        raise ClaimError(f"contradicts itself: accuracy is {value}, and {told['good']} of {_IMAGENET} are right")
    names = ("source", "licence", "model", "target", "engine", "engine_version", "precision")
    same = {name: row[name] for name in names}
    accuracy = Accuracy(
        "", "published", family="", dataset="imagenet-1k val", metric="top1_percent", value=value, error=None,
        examples=_IMAGENET, untold=("error", "precision"), note=f"on {told['system_name']}", **same,
    )  # fmt: skip
    return (identify_accuracy(accuracy),)
