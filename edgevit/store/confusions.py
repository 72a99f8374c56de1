"""Confusions: the classes that an artifact gave to images, their validation, and their rows of the table."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection

from edgevit.errors import StoreError
from edgevit.records.identity import confusion_id
from edgevit.records.measurement import NO_CLASS, Confusion
from edgevit.store import partition_checksums, small_tables, tables
from edgevit.store.validate import unstorable
from edgevit_runtime.codec import RecordError, from_json, to_json


def validate_confusion(confusion: Confusion) -> None:
    """Check a confusion before it enters the database. Raises StoreError with the first problem."""
    if problem := next(_problems(confusion), ""):
        location = f"confusion of accuracy {str(confusion.accuracy_id)[:12]}"
        raise StoreError("the confusion is refused", where=location, why=problem, fix="evaluate the artifact again")


def _problems(confusion: Confusion) -> Iterator[str]:
    yield from unstorable(confusion, "confusion")
    if len(confusion.accuracy_id) != 64:
        yield f"its accuracy_id is {confusion.accuracy_id!r}, which is no digest"
    classes = len(confusion.labels)
    if not confusion.counts:
        yield "it counts no image"
    for actual, predicted, images in confusion.counts:
        if not 0 <= actual < classes or not NO_CLASS <= predicted < classes or images < 1:
            yield f"{images} images of class {actual} are in class {predicted}, of {classes} classes"
    pairs = [(actual, predicted) for actual, predicted, _ in confusion.counts]
    if pairs != sorted(set(pairs)):
        yield "its counts are not in order, or a pair of classes is there twice"
    if confusion.confusion_id != confusion_id(confusion):
        yield "the confusion_id is not that of its contents: identity.identify_confusion makes it"


def insert(connection: Connection, confusion: Confusion) -> bool:
    """Add a validated confusion and return whether it is new. Its id is the digest of its contents."""
    values = {
        "confusion_id": confusion.confusion_id,
        "accuracy_id": confusion.accuracy_id,
        "labels_json": to_json(confusion.labels),
        "counts_json": to_json(confusion.counts),
    }
    return small_tables.add_row(connection, tables.confusion, values)


def read(connection: Connection) -> list[Confusion]:
    """Return every confusion, by id. Raises StoreError where one was changed or is missing."""
    return [_from_row(row) for row in partition_checksums.read_table(connection, tables.confusion)]


def _from_row(row: dict[str, str]) -> Confusion:
    try:
        labels = from_json(tuple[str, ...], row["labels_json"])
        counts = from_json(tuple[tuple[int, int, int], ...], row["counts_json"])
    except RecordError as error:
        raise partition_checksums.damage_error(f"confusion {row['confusion_id'][:12]}: {error}") from error
    return Confusion(row["confusion_id"], row["accuracy_id"], labels, counts)
