"""Class order: whether the order of the classes that an evaluation assumed can be right.

Folders in another order than the outputs give a wrong accuracy and no error. The confusion matrix shows it: some
permutation of the classes then gives far more right answers than the assumed order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgevit.errors import UsageError
from edgevit.evaluation.confusion import Counts
from edgevit.evaluation.image_folder import CLASSES_FIX, ImageFolder
from edgevit.records.measurement import NO_CLASS
from edgevit.records.proportion import Proportion

_SIGNIFICANT = 2.0  # standard deviations by which the images of a class prefer another class
_SHOWN = 3  # classes in a message
_FIX = f"{CLASSES_FIX}; or edgevit export --labels FILE"


@dataclass(frozen=True)
class BetterOrder:
    """An order of the classes that gives more right answers than the assumed one; percentages of all images.

    moved: pairs of labels: whose images these are, and which output answers to them.
    """

    percent: float
    moved: tuple[tuple[str, str], ...]


def require_plausible(folder: ImageFolder, counts: Counts, top1: Proportion, caveat: str) -> None:
    """Raise UsageError where the order of the classes was assumed, and the answers speak against it.

    caveat: what else was assumed, and may be the reason.
    """
    if not folder.order_is_assumed:
        return
    facts = f"top-1 {top1.percent:.2f}% of {top1.total} images in {folder.classes} classes; {folder.describe_order()}"
    if is_chance(top1, folder.classes):
        problem = "top-1 is no better than chance, and the order of the classes was assumed"
        raise UsageError(problem, where=folder.dataset, why=f"{facts}{caveat}", fix=_FIX)
    if (better := better_order(counts, folder.labels, top1)) is not None:
        shown = better.moved[:_SHOWN]
        moved = "; ".join(f"images of {label} are given the output of {output}" for label, output in shown)
        problem = f"another order of the classes gives {better.percent:.2f}% in place of {top1.percent:.2f}%"
        raise UsageError(problem, where=folder.dataset, why=f"{moved}; {facts}", fix=_FIX)


def is_chance(top1: Proportion, classes: int) -> bool:
    """Return whether the answers are no better than guesses among the classes, within their interval."""
    return top1.interval_percent[0] <= 100 / classes


def better_order(counts: Counts, labels: Sequence[str], top1: Proportion) -> BetterOrder | None:
    """Return the order of the classes that gives the most right answers, where the assumed one is far below it.

    A gain counts only where significantly more images of a class are given the other class than their own, because a
    few confusions are no other order. None: no order is better by more than both 95% intervals.
    """
    from scipy.optimize import linear_sum_assignment

    used = sorted({number for pair in counts for number in pair if number != NO_CLASS})
    place = {number: index for index, number in enumerate(used)}
    matrix = np.zeros((len(used), len(used)), np.int64)
    for (actual, predicted), images in counts.items():
        if predicted != NO_CLASS:
            matrix[place[actual], place[predicted]] = images
    rows, columns = linear_sum_assignment(matrix, maximize=True)
    gains, lost = {}, 0
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        other, own = int(matrix[row, column]), int(matrix[row, row])
        if other - own > _SIGNIFICANT * (other + own) ** 0.5:
            gains[row, column] = other - own
        lost += max(0, own - other)
    best = Proportion(max(0, top1.right + sum(gains.values()) - lost), top1.total)
    if not gains or best.interval_percent[0] <= top1.interval_percent[1]:
        return None
    return BetterOrder(best.percent, tuple((labels[used[row]], labels[used[column]]) for row, column in gains))
