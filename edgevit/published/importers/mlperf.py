"""MLPerf Inference: SingleStream results as a table, with one line per system and model, times in nanoseconds.

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
from edgevit.published.importers.reading.tasks import task_flags
from edgevit.published.importers.reading.units import ns_from_ns, number, whole
from edgevit.published.screening import Claim, ClaimError
from edgevit.records.identity import identify_accuracy
from edgevit.records.measurement import Accuracy
from edgevit.store import PublishedValues

FORM = "MLPerf Inference results (csv: round, org, system, model, scenario, p50, p90, p99 in ns...)"
LICENCE = "Apache-2.0"
FILE = ""
_COLUMNS = frozenset(
    ("round", "division", "org", "system", "model", "scenario", "valid", "p90_headline", "min", "max", "mean", "p50",
     "p90", "p99", "accuracy", "good", "total", "system_name", "accelerator", "framework")
)  # fmt: skip
# LoadGen sets a minimum number of runs, and reports no count.
_UNTOLD = ("batch", "precision", "processes", "runs")
_FRAMEWORK = re.compile(r"(?P<name>.+?) v(?P<version>[0-9][\w.]*)\s*(?P<provider>.*)")
# How names of its benchmarks begin, but for classifiers: those are known by their accuracy on ImageNet.
_TASKS = {
    "3d-unet": "semantic segmentation",
    "bert-": "question answering",
    "dlrm": "recommendation",
    "gptj": "text generation",
    "llama": "text generation",
    "retinanet": "object detection",
    "rnnt": "speech recognition",
    "ssd-": "object detection",
    "stable-diffusion": "image generation",
}
# Images of the validation set of ImageNet-1k.
_IMAGENET = 50_000


def recognises(path: Path) -> bool:
    """Return whether the head of the file has the columns of such a table."""
    return set(csv_head(path)) >= _COLUMNS


def read(publication: Publication) -> Iterator[Claim]:
    """Yield every line as a claim. Raises StoreError where the file cannot be read."""
    return claims(csv_lines(publication.path), partial(_claim, publication))


def _claim(publication: Publication, line: Line) -> Claim:
    row = _row(line.values, publication)
    return line.claim(row, accuracies=_accuracies(line.values, row))


def _row(values: dict[str, Any], publication: Publication) -> PublishedValues:
    if values["scenario"] != "SingleStream" or values["valid"] != "VALID":
        raise ClaimError("no_valid_latency", f"{values['scenario']}, {values['valid']}")
    times = _times(values)
    framework = _FRAMEWORK.fullmatch(values["framework"])
    engine = framework["name"] if framework else values["framework"]
    project = f"github.com/mlcommons/inference_results_{values['round']}"
    return PublishedValues(
        source=f"{publication.named(project)}, {values['division']}/{values['org']}/{values['system']}",
        licence=LICENCE,
        model=values["model"],
        device=values["system_name"],
        device_id=f"mlperf/{values['system_name']}",
        target=target_of(engine),
        precision=NOT_STATED,
        engine=engine,
        engine_version=framework["version"] if framework else "",
        provider=framework["provider"].strip("()") if framework else "",
        compute_unit="cpu" if values["accelerator"] == "-" else values["accelerator"],
        started=publication.published,
        flags=task_flags(next((task for start, task in _TASKS.items() if values["model"].startswith(start)), "")),
        untold=(*_UNTOLD, "started"),
        **times,
    )


def _times(values: dict[str, Any]) -> dict[str, Any]:
    """Return the times of a line by the names of fields. Raises ClaimError where they contradict each other."""
    times = {f"{name}_ns": ns_from_ns(values[name], name) for name in ("min", "mean", "p50", "p90", "p99")}
    order = [times[f"{name}_ns"] for name in ("min", "p50", "p90", "p99")] + [ns_from_ns(values["max"], "max")]
    if order != sorted(order) or not order[0] <= times["mean_ns"] <= order[-1]:
        why = f"min, p50, p90, p99 and max are {order}, the mean {times['mean_ns']}"
        raise ClaimError("out_of_order", why)
    if ns_from_ns(values["p90_headline"], "p90_headline") != times["p90_ns"]:
        raise ClaimError("contradicts_itself", f"p90 is {values['p90']}, and its headline {values['p90_headline']}")
    return times


def _accuracies(values: dict[str, Any], row: PublishedValues) -> tuple[Accuracy, ...]:
    """Return the top-1 where it is of ImageNet's 50,000 images; the table does not name other metrics."""
    if not values["total"] or whole(values["total"], "total") != _IMAGENET:
        return ()
    value = number(values["accuracy"], "accuracy")
    if abs(100 * whole(values["good"], "good") / _IMAGENET - value) > 0.001:
        why = f"accuracy is {value}, and {values['good']} of {_IMAGENET} are right"
        raise ClaimError("contradicts_itself", why)
    names = ("source", "licence", "model", "target", "engine", "engine_version", "precision")
    same = {name: getattr(row, name) for name in names}
    accuracy = Accuracy(
        "", "published", family="", dataset="imagenet-1k val", metric="top1_percent", value=value, error=None,
        examples=_IMAGENET, untold=("error", "precision"), note=f"on {values['system_name']}", **same,
    )  # fmt: skip
    return (identify_accuracy(accuracy),)
