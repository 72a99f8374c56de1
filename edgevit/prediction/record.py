"""What is said of a model on a column."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Literal, NamedTuple

_LARGEST = math.log(sys.float_info.max)
Level = Literal["measured", "same graph", "transfer", "features", "refused"]


@dataclass(frozen=True)
class Prediction:
    """A latency and how sure it is. Nanoseconds; None where nothing can be said, and `why` says what is missing.

    With the confidence asked for, the latency is between lower_ns and upper_ns; and, with the same, below at_most_ns,
    which is what a budget is held against.
    """

    model: str
    column: str
    level: Level
    confidence: float
    latency_ns: float | None = None
    lower_ns: float | None = None
    upper_ns: float | None = None
    at_most_ns: float | None = None
    anchors: int = 0  # rows of this column that it rests on
    nearest: str = ""  # the other column that explains those rows best; empty where none was used
    why: str = ""


class Margins(NamedTuple):
    """Log units around a prediction, each at least 0 but for at_most."""

    half: float
    at_most: float


class Found(NamedTuple):
    """An answer in natural logarithms of nanoseconds."""

    level: Level
    log: float
    margins: Margins
    anchors: int
    nearest: str = ""


def predicted(model: str, column: str, confidence: float, found: Found) -> Prediction:
    """The same in nanoseconds; refused where an end of the interval is beyond what a number can hold."""
    if found.log + max(found.margins) > _LARGEST:
        why = "rows that are known contradict each other so much that every latency is possible"
        return Prediction(model, column, "refused", confidence, anchors=found.anchors, why=why)
    around = (0.0, -found.margins.half, found.margins.half, found.margins.at_most)
    point, lower, upper, at_most = (math.exp(found.log + margin) for margin in around)
    return Prediction(
        model, column, found.level, confidence, point, lower, upper, at_most, found.anchors, found.nearest
    )
