"""Predictions: a latency of a model on a column, with its interval and its evidence."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Literal, NamedTuple

from edgevit.records.choice import RefusalCode

LEAST_ANCHORS = 3  # rows of a column below which nothing is said of it: two tell how fast it is, not how sure that is
_LARGEST = math.log(sys.float_info.max)
_REFUSALS: dict[RefusalCode, str] = {
    "measured_nowhere": "it was measured nowhere, and nothing is known of its structure",
    "few_rows": "{column} has {rows} rows; {least} say how fast it is",
    "unseen_family": "its family has no row of {column}, and rows of {least} families say how far others are off",
    "unlinked": "no {least} rows of {column} are of models that share a column or features with it",
    "contradictory_rows": "rows that are known contradict each other so much that every latency is possible",
}
Level = Literal["measured", "same graph", "transfer", "features", "refused"]


@dataclass(frozen=True)
class Prediction:
    """A latency and its uncertainty in nanoseconds; None where the prediction is refused.

    With the requested confidence, the latency is between lower_ns and upper_ns; and, with the same, below at_most_ns,
    which is compared with a budget. `anchors` counts the rows of this column that it rests on. `nearest` is the other
    column that explains those rows best; it is empty where no other column was used.
    """

    model: str
    column: str
    level: Level
    confidence: float
    latency_ns: float | None = None
    lower_ns: float | None = None
    upper_ns: float | None = None
    at_most_ns: float | None = None
    anchors: int = 0
    nearest: str = ""
    refusal: RefusalCode | None = None

    @property
    def why(self) -> str:
        """The English of the refusal; empty for a prediction."""
        return refusal_text(self.refusal, self.column, self.anchors) if self.refusal else ""


def refusal_text(code: RefusalCode, column: str, rows: int) -> str:
    """Return the English of a refusal for a column with so many rows."""
    return _REFUSALS[code].format(column=column, rows=rows, least=LEAST_ANCHORS)


class Margins(NamedTuple):
    """Log units around a prediction, each at least 0 but for at_most."""

    half: float
    at_most: float


class LogEstimate(NamedTuple):
    """A prediction in natural logarithms of nanoseconds."""

    level: Level
    log: float
    margins: Margins
    anchors: int
    nearest: str = ""


def predicted(model: str, column: str, confidence: float, estimate: LogEstimate) -> Prediction:
    """Return the estimate in nanoseconds; refused where an end of the interval is beyond what a float can hold."""
    level, log, margins, anchors, nearest = estimate
    if log + max(margins) > _LARGEST:
        return Prediction(model, column, "refused", confidence, anchors=anchors, refusal="contradictory_rows")
    around = (0.0, -margins.half, margins.half, margins.at_most)
    point, lower, upper, at_most = (math.exp(log + margin) for margin in around)
    return Prediction(model, column, level, confidence, point, lower, upper, at_most, anchors, nearest)
