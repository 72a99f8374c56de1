"""Limits of a budget as people write them, and the percentile of a row that is compared with them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from edgevit.errors import UsageError
from edgevit.records.choice import Budget
from edgevit.records.measurement import Measurement

# A percentile that rows keep -> its column, and the column of its upper bound.
BOUNDS = {
    50: ("p50_ns", "p50_high_ns"),
    90: ("p90_ns", "p90_upper_ns"),
    99: ("p99_ns", "p99_upper_ns"),
}
# The sign for micro has two code points.
_UNITS_MS = {"": 1.0, "ns": 1e-6, "us": 1e-3, "µs": 1e-3, "μs": 1e-3, "ms": 1.0, "s": 1e3}
LIMITS = ("max_latency_ms", "min_top1_percent", "max_size_mb", "max_memory_mb", "max_energy_mj")
# A percentile and its upper bound in nanoseconds; None: not known.
PercentileEstimate = tuple[int | None, int | None]


class Percentile(NamedTuple):
    """A percentile, and its estimates from rows.

    estimates: by measurement_id, for percentiles that no column holds.
    """

    number: int
    estimates: Mapping[str, PercentileEstimate] = {}

    def of(self, row: Measurement) -> PercentileEstimate:
        """Return the percentile of a row and its upper bound."""
        if self.number not in BOUNDS:
            return self.estimates.get(row.measurement_id, (None, None))
        value, bound = BOUNDS[self.number]
        return getattr(row, value), getattr(row, bound)


def kept_above(percentile: int) -> int:
    """Return the least percentile of rows that is not below this one: its bound holds for this one, too."""
    return next((number for number in sorted(BOUNDS) if number >= percentile), max(BOUNDS))


def parse_latency(text: str) -> float:
    """Parse a latency into milliseconds: "25ms", "25 ms", "0.025s", "25000us", or "25", which means ms.

    Raises UsageError for anything that is not a positive, finite latency.
    """
    match = re.fullmatch(
        r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*(ns|us|µs|μs|ms|s|)\s*", text, re.ASCII | re.IGNORECASE
    )
    latency_ms = float(match[1]) * _UNITS_MS[match[2].lower()] if match else math.nan
    if not 0 < latency_ms < math.inf:
        why = "a latency is a positive number with the unit ns, us, ms or s; without a unit it is ms"
        raise UsageError(f"{text!r} is not a latency", why=why, fix="write for example 25ms, 0.025s or 25000us")
    return latency_ms


def check_budget(budget: Budget) -> None:
    """Raise UsageError unless the percentile is from 1 to 99 and all limits are positive and finite."""
    if not 1 <= budget.percentile <= max(BOUNDS):
        why = "a percentile is a whole number from 1 to 99"
        raise UsageError(f"no budget can be set on p{budget.percentile}", why=why, fix="ask for 50, 90 or 99")
    for name in LIMITS:
        limit = getattr(budget, name)
        if limit is not None and not 0 < limit < math.inf:
            raise UsageError(
                f"{name} is {limit}", why="a limit is positive and finite", fix="leave it out for no limit"
            )


def check_confidence(confidence: float) -> None:
    """Raise UsageError unless the confidence is a share between 0 and 1."""
    if not 0 < confidence < 1:
        raise UsageError(f"the confidence is {confidence}", why="it is a share between 0 and 1", fix="ask for 0.9")
