"""What the benchmarks of the predictor share: a column held out, a few of its rows given back, and how near it comes.

No leakage: the predictor is given the rows of other columns and those of the anchors. The rest of the column is looked
at only here, after it has answered (tests/prediction/test_benchmarks.py permutes it: no prediction changes).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgevit.prediction import Prediction, Predictor, Row

CONFIDENCE = 0.9
WITHIN = 0.1


def figure(value: float | None) -> float:
    """Return a figure of a prediction; fail where the prediction was refused."""
    if value is None:
        raise ValueError("a refused prediction has no figures")
    return value


@dataclass(frozen=True)
class Trial:
    """One column held out: the predictions of the models that were not anchors, and their true nanoseconds."""

    column: str
    predictions: tuple[Prediction, ...]
    truths: tuple[float, ...]

    @property
    def errors(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Predicted over true, less one."""
        predicted = np.array([figure(p.latency_ns) for p in self.predictions])
        return predicted / np.array(self.truths, np.float64) - 1

    @property
    def within(self) -> float:
        """Share of the models predicted within 10%."""
        return float((np.abs(self.errors) <= WITHIN).mean())

    @property
    def covered(self) -> float:
        """Share of the models inside their interval."""
        pairs = zip(self.predictions, self.truths, strict=True)
        return float(np.mean([figure(p.lower_ns) <= t <= figure(p.upper_ns) for p, t in pairs]))

    @property
    def bounded(self) -> float:
        """Share of the models below their upper bound."""
        return float(np.mean([t <= figure(p.at_most_ns) for p, t in zip(self.predictions, self.truths, strict=True)]))

    @property
    def width(self) -> float:
        """Median of the intervals' upper ends over the predictions, less one."""
        return float(np.median([figure(p.upper_ns) / figure(p.latency_ns) - 1 for p in self.predictions]))


def hold_out(
    known_rows: Iterable[Row], held_out_rows: Sequence[Row], anchors: Iterable[str], **more: Mapping[str, Any] | None
) -> Trial:
    """Predict the rows `held`, all of one column, from the rows `known` and from those of the anchors."""
    chosen = set(anchors)
    anchor_rows = [row for row in held_out_rows if row.model in chosen]
    test_rows = [row for row in held_out_rows if row.model not in chosen]
    column = held_out_rows[0].column
    predictions = Predictor([*known_rows, *anchor_rows], **more).predict(
        column, [row.model for row in test_rows], confidence=CONFIDENCE
    )
    answered = [row for row in test_rows if predictions[row.model].latency_ns is not None]
    return Trial(column, tuple(predictions[row.model] for row in answered), tuple(row.latency_ns for row in answered))


def random_anchors(held_out_rows: Sequence[Row], count: int, seed: int) -> list[str]:
    """So many of the models of these rows, by this seed."""
    names = sorted(row.model for row in held_out_rows)
    return [names[i] for i in np.random.default_rng(seed).permutation(len(names))[:count]]


def summary(trials: Sequence[Trial]) -> dict[str, Any]:
    """Means over the columns (over seeds first), and the worst column of each figure."""
    columns = sorted({trial.column for trial in trials})
    figures: dict[str, Any] = {"columns": len(columns), "trials": len(trials)}
    for name in ("within", "covered", "bounded", "width"):
        each = {c: float(np.mean([getattr(t, name) for t in trials if t.column == c])) for c in columns}
        figures[name] = round(float(np.mean(list(each.values()))), 4)
        if name in ("within", "covered"):
            worst = min(columns, key=each.__getitem__)
            figures[f"worst_{name}"] = {worst: round(each[worst], 4)}
    return figures
