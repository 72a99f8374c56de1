"""Mixed hardware: two kinds of board behind one device name, seen when part of its published rows jump by one factor.

Hosted devices are pools. A second kind of board in the pool takes some of the jobs, and makes all models slower or
faster by about the same factor. The ratios then form two heaps, with next to nothing between them. A change of
software moves models by factors of their own, some of them a little.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

# Fewer rows of one moment that repeat earlier ones have no shares to speak of.
MIN_REPEATS = 20
# Share of the repeats that must have jumped.
MIN_SHARE = 0.10
# Ratio up to which, and down to whose inverse, a row has not jumped.
NOISE = 1.3
# Ratio beyond which, and below whose inverse, a row has jumped.
BEYOND = 2.0
# Share, of the rows that jumped, that may lie between the two heaps.
MAX_BETWEEN = 0.25
# Ratio to their median within which half of the rows that jumped must lie.
ALIKE = 1.25


def mixed_factor(ratios: Sequence[float]) -> float | None:
    """Return the factor by which part of the repeats of one moment jumped; None: they did not, or not together.

    `ratios` has, for each row of a moment that repeats earlier ones, its time over theirs.
    """
    if len(ratios) < MIN_REPEATS:
        return None
    if (factor := _slower_factor(ratios)) is not None:
        return factor
    factor = _slower_factor([1 / ratio for ratio in ratios])
    return None if factor is None else 1 / factor


def _slower_factor(ratios: Sequence[float]) -> float | None:
    jumped = [ratio for ratio in ratios if ratio > BEYOND]
    between = sum(NOISE < ratio <= BEYOND for ratio in ratios)
    if len(jumped) < MIN_SHARE * len(ratios) or between > MAX_BETWEEN * len(jumped):
        return None
    middle = statistics.median(jumped)
    alike = statistics.median(max(ratio / middle, middle / ratio) for ratio in jumped)
    return middle if alike <= ALIKE else None


def has_jumped(ratio: float, factor: float) -> bool:
    """Return whether a row of this ratio is among those that jumped by the factor of `mixed_factor`."""
    return ratio > BEYOND if factor > 1 else ratio < 1 / BEYOND
