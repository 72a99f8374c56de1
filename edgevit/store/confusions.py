"""Confusions: the classes that an artifact gave to images, their validation, and their table."""

from __future__ import annotations

from collections.abc import Iterator

from edgevit.records.identity import confusion_id
from edgevit.records.measurement import NO_CLASS, Confusion
from edgevit.store import tables
from edgevit.store.content_table import ContentTable


def _problems(confusion: Confusion) -> Iterator[str]:
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


CONFUSIONS = ContentTable(
    tables.confusion,
    "confusion",
    Confusion,
    confusion_id,
    {"labels": tuple[str, ...], "counts": tuple[tuple[int, int, int], ...]},
    _problems,
    location=lambda confusion: f"confusion of accuracy {str(confusion.accuracy_id)[:12]}",
    fix="evaluate the artifact again",
)
