"""Two kinds of board behind one name: when part of a device's published rows jump by one factor, and the rest do not.

Hosted devices are pools. A second kind of board in the pool takes some of the jobs, and makes all models slower or
faster by about the same factor; a change of software moves some models by factors of their own.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

LEAST_REPEATS = 20  # rows of one moment that repeat earlier ones: fewer have no shares to speak of
LEAST_SHARE = 0.10  # of them
BEYOND = 2.0  # times, or 1/2: what counts as jumped
ALIKE = 1.25  # times: half of those that jumped are as near to their median


def mixed_factor(ratios: Sequence[float]) -> float | None:
    """The factor by which part of the repeats of one moment jumped; None where they did not, or not together.

    `ratios`: of each row of a moment that repeats earlier ones, its time over theirs.
    """
    if len(ratios) < LEAST_REPEATS:
        return None
    for jumped in ([r for r in ratios if r > BEYOND], [r for r in ratios if r < 1 / BEYOND]):
        if len(jumped) < LEAST_SHARE * len(ratios):
            continue
        middle = statistics.median(jumped)
        if statistics.median(max(r / middle, middle / r) for r in jumped) <= ALIKE:
            return middle
    return None


def belongs(ratio: float, factor: float) -> bool:
    """Whether a row's ratio is one of those that `mixed_factor` speaks of."""
    return ratio > BEYOND if factor > 1 else ratio < 1 / BEYOND
