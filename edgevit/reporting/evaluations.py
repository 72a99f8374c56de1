"""The evaluations of a page: accuracies of classes and confusion matrices, from the database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgevit.records.measurement import Accuracy, Confusion
from edgevit.reporting.page_records import ClassPart, EvaluationPart
from edgevit.selection.wording import describe_assumptions

_MATRIX_CLASSES = 40  # of a matrix that is shown; a page of a thousand classes lists the worst
_CLASSES = 100


def evaluation_parts(
    accuracies: Iterable[Accuracy], confusions: Iterable[Confusion]
) -> dict[str, tuple[EvaluationPart, ...]]:
    """Return the evaluations of each model whose confusion is kept, the newest of each artifact and data set."""
    of_accuracy = {confusion.accuracy_id: confusion for confusion in confusions}
    newest: dict[tuple[str, str], Accuracy] = {}
    for accuracy in sorted(accuracies, key=lambda accuracy: (accuracy.started, accuracy.accuracy_id)):
        if accuracy.accuracy_id in of_accuracy:
            newest[accuracy.artifact_sha256, accuracy.dataset] = accuracy
    parts: dict[str, tuple[EvaluationPart, ...]] = {}
    for accuracy in newest.values():
        part = _part(accuracy, of_accuracy[accuracy.accuracy_id])
        parts[accuracy.model] = (*parts.get(accuracy.model, ()), part)
    return parts


def _part(accuracy: Accuracy, confusion: Confusion) -> EvaluationPart:
    rows: dict[int, dict[int, int]] = {}
    for actual, predicted, images in confusion.counts:
        rows.setdefault(actual, {})[predicted] = images
    classes = sorted(
        (_class(confusion.labels, actual, row) for actual, row in rows.items()),
        key=lambda one: (one.right / one.images, one.label),
    )
    numbers = range(len(confusion.labels))
    is_small = len(confusion.labels) <= _MATRIX_CLASSES
    return EvaluationPart(
        target=accuracy.target,
        precision=accuracy.precision,
        artifact_sha256=accuracy.artifact_sha256,
        weights=accuracy.network.label if accuracy.network else "",
        dataset=accuracy.dataset,
        percent=accuracy.value,
        error_percent=accuracy.error,
        images=accuracy.examples or 0,
        assumed=describe_assumptions(accuracy.assumed),
        measured=accuracy.started,
        labels=confusion.labels if is_small else (),
        matrix=tuple(tuple(rows.get(row, {}).get(column, 0) for column in numbers) for row in numbers)
        if is_small
        else (),
        classes=tuple(classes[:_CLASSES]),
    )


def _class(labels: tuple[str, ...], actual: int, row: Mapping[int, int]) -> ClassPart:
    others = {predicted: images for predicted, images in row.items() if predicted != actual and predicted >= 0}
    other = min(others, key=lambda predicted: (-others[predicted], predicted), default=None)
    taken_for, taken = ("", 0) if other is None else (labels[other], others[other])
    return ClassPart(labels[actual], row.get(actual, 0), sum(row.values()), taken_for, taken)
