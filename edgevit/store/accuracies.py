"""Accuracies: their validation, and their table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import get_args

from edgevit.records.identity import accuracy_id
from edgevit.records.measurement import CLASS_ORDER, NOT_OF_MANIFEST, Accuracy
from edgevit.records.model import STATEABLE, Preprocessing, Provenance
from edgevit.records.network import Network
from edgevit.store import closed_lists, tables
from edgevit.store.content_table import ContentTable


def _problems(accuracy: Accuracy) -> Iterator[str]:
    for name in ("model", "dataset", "metric"):
        if not getattr(accuracy, name):
            yield f"{name} is empty"
    if accuracy.provenance not in get_args(Provenance):
        yield f"the provenance is {accuracy.provenance!r}"
    yield from closed_lists.problems(accuracy)
    yield from _number_problems(accuracy)
    yield from _origin_problems(accuracy)


def _number_problems(accuracy: Accuracy) -> Iterator[str]:
    if not 0 <= accuracy.value < math.inf or (accuracy.metric.endswith("_percent") and accuracy.value > 100):
        yield f"{accuracy.metric} is {accuracy.value}"
    if accuracy.error is not None and not 0 <= accuracy.error < math.inf:
        yield f"the error is {accuracy.error}"
    if accuracy.examples is not None and accuracy.examples < 1:
        yield f"it was computed from {accuracy.examples} examples"
    for name in ("artifact_sha256", "graph_digest", "weights_sha256", "dataset_sha256"):
        if len(getattr(accuracy, name)) not in (0, 64):
            yield f"{name} is {getattr(accuracy, name)!r}, which is no digest"


def _origin_problems(accuracy: Accuracy) -> Iterator[str]:
    if accuracy.provenance == "published":
        if not accuracy.source:
            yield "the provenance is published and no source is named"
        if not accuracy.licence and "licence" not in accuracy.untold:
            yield "the licence is empty, and `untold` does not say that the source names none"
        if accuracy.error is None and "error" not in accuracy.untold:
            yield "the error is missing, and `untold` does not say so"
    if unknown := set(accuracy.assumed) - {*STATEABLE, CLASS_ORDER, NOT_OF_MANIFEST}:
        yield f"it says that {sorted(unknown)[0]!r} was assumed, which it cannot rest on"
    if accuracy.provenance == "measured" and (
        accuracy.examples is None or accuracy.error is None or not accuracy.started
    ):
        yield "the accuracy is measured, and examples, error or started is missing"
    if accuracy.started:
        try:
            if datetime.fromisoformat(accuracy.started).utcoffset() != timedelta(0):
                yield f"started is {accuracy.started!r}, which is not in UTC"
        except ValueError:
            yield f"started is {accuracy.started!r}, which is not an ISO 8601 time"


def _real(value: float | None) -> float | None:
    return None if value is None else float(value)


ACCURACIES = ContentTable(
    tables.accuracy,
    "accuracy",
    Accuracy,
    accuracy_id,
    {
        "untold": tuple[str, ...],
        "input_size": tuple[int, ...],
        "assumed": tuple[str, ...],
        "preprocessing": Preprocessing | None,
        "network": Network | None,
    },
    _problems,
    location=lambda accuracy: f"{accuracy.metric} of {accuracy.model} on {accuracy.dataset}",
    fix="correct it, or leave it out",
    pack={"value": _real, "error": _real},
)
