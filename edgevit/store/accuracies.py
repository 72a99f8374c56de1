"""Accuracies: their validation, and their rows of the `accuracy` table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, get_args

from sqlalchemy import Connection

from edgevit.errors import StoreError
from edgevit.records.identity import accuracy_id
from edgevit.records.measurement import CLASS_ORDER, NOT_OF_MANIFEST, Accuracy
from edgevit.records.model import STATEABLE, Preprocessing, Provenance
from edgevit.records.network import Network
from edgevit.store import closed_lists, partition_checksums, small_tables, tables
from edgevit.store.validate import unstorable
from edgevit_runtime.codec import RecordError, from_json, to_json

_LISTS: dict[str, Any] = {
    "untold": tuple[str, ...],
    "input_size": tuple[int, ...],
    "assumed": tuple[str, ...],
    "preprocessing": Preprocessing | None,
    "network": Network | None,
}
_REALS = ("value", "error")


def validate_accuracy(accuracy: Accuracy) -> None:
    """Check an accuracy before it enters the database. Raises StoreError with the first problem."""
    if problem := next(_problems(accuracy), ""):
        location = f"{accuracy.metric} of {accuracy.model} on {accuracy.dataset}"
        raise StoreError("the accuracy is refused", where=location, why=problem, fix="correct it, or leave it out")


def _problems(accuracy: Accuracy) -> Iterator[str]:
    yield from unstorable(accuracy, "accuracy")
    for name in ("model", "dataset", "metric"):
        if not getattr(accuracy, name):
            yield f"{name} is empty"
    if accuracy.provenance not in get_args(Provenance):
        yield f"the provenance is {accuracy.provenance!r}"
    yield from closed_lists.problems(accuracy)
    yield from _number_problems(accuracy)
    yield from _origin_problems(accuracy)
    if accuracy.accuracy_id != accuracy_id(accuracy):
        yield "the accuracy_id is not that of its contents: identity.identify_accuracy makes it"


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


def insert(connection: Connection, accuracy: Accuracy) -> bool:
    """Add a validated accuracy and return whether it is new. Its id is the digest of its contents."""
    values: dict[str, Any] = {name: value for name, value in vars(accuracy).items() if name not in _LISTS}
    for name in _REALS:
        values[name] = None if values[name] is None else float(values[name])
    values |= {f"{name}_json": to_json(getattr(accuracy, name)) for name in _LISTS}
    return small_tables.add_row(connection, tables.accuracy, values)


def read(connection: Connection) -> list[Accuracy]:
    """Return every accuracy, by id. Raises StoreError where one was changed or is missing."""
    return [_from_row(row) for row in partition_checksums.read_table(connection, tables.accuracy)]


def _from_row(row: dict[str, Any]) -> Accuracy:
    try:
        for name, kind in _LISTS.items():
            row[name] = from_json(kind, row.pop(f"{name}_json"))
    except RecordError as error:
        raise partition_checksums.damage_error(f"accuracy {row['accuracy_id'][:12]}: {error}") from error
    return Accuracy(**row)
