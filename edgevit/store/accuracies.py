"""Accuracies: what one must be to enter the database, and how it is kept."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, get_args

from sqlalchemy import Connection

from edgevit.errors import StoreError
from edgevit.records.identity import accuracy_id
from edgevit.records.measurement import Accuracy
from edgevit.records.model import Provenance
from edgevit.store import partition_checksums, small_tables, tables
from edgevit.store.validate import unstorable
from edgevit_runtime.codec import RecordError, from_json, to_json

_LISTS: dict[str, Any] = {"untold": tuple[str, ...], "input_size": tuple[int, ...]}
_REALS = ("value", "error")


def validate_accuracy(accuracy: Accuracy) -> None:
    """Check an accuracy before it enters the database. Raises StoreError with the first thing wrong."""
    if problem := next(_problems(accuracy), ""):
        where = f"{accuracy.metric} of {accuracy.model} on {accuracy.dataset}"
        raise StoreError("the accuracy is refused", where=where, why=problem, fix="correct it, or leave it out")


def _problems(item: Accuracy) -> Iterator[str]:
    yield from unstorable(item, "accuracy")
    for name in ("model", "dataset", "metric"):
        if not getattr(item, name):
            yield f"{name} is empty"
    if item.provenance not in get_args(Provenance):
        yield f"the provenance is {item.provenance!r}"
    yield from _numbers(item)
    yield from _origin(item)
    if item.accuracy_id != accuracy_id(item):
        yield "the accuracy_id is not that of what it says: identity.identify_accuracy makes it"


def _numbers(item: Accuracy) -> Iterator[str]:
    if not 0 <= item.value < math.inf or (item.metric.endswith("_percent") and item.value > 100):
        yield f"{item.metric} is {item.value}"
    if item.error is not None and not 0 <= item.error < math.inf:
        yield f"the error is {item.error}"
    if item.examples is not None and item.examples < 1:
        yield f"it was computed from {item.examples} examples"
    for name in ("artifact_sha256", "graph_digest", "weights_sha256", "dataset_sha256"):
        if len(getattr(item, name)) not in (0, 64):
            yield f"{name} is {getattr(item, name)!r}, no digest"


def _origin(item: Accuracy) -> Iterator[str]:
    if item.provenance == "published":
        if not item.source:
            yield "the provenance is published and no source is named"
        if not item.licence and "licence" not in item.untold:
            yield "the licence is empty, and `untold` does not say that the source names none"
        if item.error is None and "error" not in item.untold:
            yield "the error is missing, and `untold` does not say so"
    if item.provenance == "measured" and (item.examples is None or item.error is None or not item.started):
        yield "the accuracy is measured, and examples, error or started is missing"
    if item.started:
        try:
            if datetime.fromisoformat(item.started).utcoffset() != timedelta(0):
                yield f"started is {item.started!r}, which does not say UTC"
        except ValueError:
            yield f"started is {item.started!r}, not an ISO 8601 time"


def insert(connection: Connection, accuracy: Accuracy) -> bool:
    """Add a validated accuracy; False if it is there already: its id is the digest of all it says."""
    values: dict[str, Any] = {name: value for name, value in vars(accuracy).items() if name not in _LISTS}
    for name in _REALS:
        values[name] = None if values[name] is None else float(values[name])
    values |= {f"{name}_json": to_json(getattr(accuracy, name)) for name in _LISTS}
    return small_tables.add_line(connection, tables.accuracy, values)


def read(connection: Connection) -> list[Accuracy]:
    """Every accuracy, by id. Raises StoreError where one is not what was written, or is missing."""
    return [_read(line) for line in partition_checksums.read_whole(connection, tables.accuracy)]


def _read(line: dict[str, Any]) -> Accuracy:
    try:
        for name, kind in _LISTS.items():
            line[name] = from_json(kind, line.pop(f"{name}_json"))
    except RecordError as error:
        raise partition_checksums.broken(f"accuracy {line['accuracy_id'][:12]}: {error}") from error
    return Accuracy(**line)
