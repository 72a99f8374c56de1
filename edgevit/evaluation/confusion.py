"""Confusion matrix of an evaluation: which classes the images of each class were given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgevit.records.measurement import NO_CLASS

Counts = Mapping[tuple[int, int], int]


@dataclass(frozen=True)
class ClassAccuracy:
    """The right answers on the images of one class. taken_for: the class that most of its other images were given."""

    label: str
    right: int
    images: int
    percent: float
    taken_for: str = ""


def count_answers(pairs: Iterable[tuple[int, int]]) -> Counter[tuple[int, int]]:
    """Return the number of images by (class of the image, class that was given)."""
    return Counter(pairs)


def per_class(counts: Counts, labels: Sequence[str]) -> tuple[ClassAccuracy, ...]:
    """Return the accuracy of each class that has images, in the order of the outputs."""
    rows: dict[int, dict[int, int]] = {}
    for (actual, predicted), images in counts.items():
        rows.setdefault(actual, {})[predicted] = images
    accuracies = []
    for actual, row in sorted(rows.items()):
        right, total = row.get(actual, 0), sum(row.values())
        others = {predicted: images for predicted, images in row.items() if predicted not in (actual, NO_CLASS)}
        other = min(others, key=lambda predicted: (-others[predicted], predicted)) if others else NO_CLASS
        taken_for = "" if other == NO_CLASS else labels[other]
        accuracies.append(ClassAccuracy(labels[actual], right, total, 100 * right / total, taken_for))
    return tuple(accuracies)
