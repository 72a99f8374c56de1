"""Two kinds of board behind one name: when part of a device's published rows jump by one factor, and the rest do not.

Hosted devices are pools. A second kind of board in the pool takes some of the jobs, and makes all models slower or
faster by about the same factor: there are two heaps, and next to nothing between them. A change of software moves
models by factors of their own, some of them a little.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

LEAST_REPEATS = 20  # rows of one moment that repeat earlier ones: fewer have no shares to speak of
LEAST_SHARE = 0.10  # of them
NOISE = 1.3  # times, or 1/1.3: what has not jumped
BEYOND = 2.0  # times, or 1/2: what has
BETWEEN = 0.25  # of those that jumped: so many may lie between the heaps
ALIKE = 1.25  # times: half of those that jumped are as near to their median


def mixed_factor(ratios: Sequence[float]) -> float | None:
    """The factor by which part of the repeats of one moment jumped; None where they did not, or not together.

    `ratios`: of each row of a moment that repeats earlier ones, its time over theirs.
    """
    if len(ratios) < LEAST_REPEATS:
        return None
    if (factor := _slower(ratios)) is not None:
        return factor
    factor = _slower([1 / ratio for ratio in ratios])
    return None if factor is None else 1 / factor


def _slower(ratios: Sequence[float]) -> float | None:
    jumped = [ratio for ratio in ratios if ratio > BEYOND]
    between = sum(NOISE < ratio <= BEYOND for ratio in ratios)
    if len(jumped) < LEAST_SHARE * len(ratios) or between > BETWEEN * len(jumped):
        return None
    middle = statistics.median(jumped)
    alike = statistics.median(max(ratio / middle, middle / ratio) for ratio in jumped)
    return middle if alike <= ALIKE else None


def belongs(ratio: float, factor: float) -> bool:
    """Whether a row's ratio is one of those that `mixed_factor` speaks of."""
    return ratio > BEYOND if factor > 1 else ratio < 1 / BEYOND
