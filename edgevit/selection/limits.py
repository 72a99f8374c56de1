"""Limits of a budget as people write them, and the percentile of a row that is compared with them."""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Mapping
from typing import NamedTuple

from edgevit.errors import UnknownNameError, UsageError
from edgevit.records.choice import Budget, Objective
from edgevit.records.measurement import Measurement
from edgevit.records.origin import OriginPolicy

# A percentile that rows keep -> its column, and the column of its upper bound.
BOUNDS = {
    50: ("p50_ns", "p50_high_ns"),
    90: ("p90_ns", "p90_upper_ns"),
    99: ("p99_ns", "p99_upper_ns"),
}
# The sign for micro has two code points.
_UNITS_MS = {"": 1.0, "ns": 1e-6, "us": 1e-3, "µs": 1e-3, "μs": 1e-3, "ms": 1.0, "s": 1e3}
# Units of a rate: the budget is the time of one frame.
_RATES = ("fps", "hz")
_LATENCY = re.compile(
    r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*(ns|us|µs|μs|ms|s|fps|hz|)\s*", re.ASCII | re.IGNORECASE
)
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
    """Parse a latency into milliseconds: "25ms", "25 ms", "0.025s", "25000us", "40fps", or "25", which means ms.

    A rate means the time of one frame. Raises UsageError for anything that is not a positive, finite latency.
    """
    match = _LATENCY.fullmatch(text)
    latency_ms = _milliseconds(float(match[1]), match[2].lower()) if match else math.nan
    if not 0 < latency_ms < math.inf:
        why = "a latency is a positive number with the unit ns, us, ms, s or fps; without a unit it is ms"
        raise UsageError(f"{text!r} is not a latency", why=why, fix="write for example 25ms, 0.025s or 30fps")
    return latency_ms


def _milliseconds(number: float, unit: str) -> float:
    """Return a latency in milliseconds; infinity for a rate of zero."""
    if unit not in _RATES:
        return number * _UNITS_MS[unit]
    return 1e3 / number if number else math.inf


def origin_named(name: str) -> OriginPolicy:
    """Return a policy of origins. Raises UnknownNameError."""
    names: tuple[OriginPolicy, ...] = typing.get_args(OriginPolicy)
    for policy in names:
        if policy == name:
            return policy
    raise UnknownNameError("origin", name, names, listing="--origin trusted")


def objective_named(name: str) -> Objective:
    """Return the objective of this name. Raises UnknownNameError."""
    names: tuple[Objective, ...] = typing.get_args(Objective)
    for objective in names:
        if objective == name:
            return objective
    raise UnknownNameError("objective", name, names, listing="--objective accurate")


def check_budget(budget: Budget) -> None:
    """Raise UsageError unless the percentile is from 1 to 99 and all limits are positive, finite and in their units."""
    objective_named(budget.objective)
    if not 1 <= budget.percentile <= max(BOUNDS):
        why = "a percentile is a whole number from 1 to 99"
        raise UsageError(f"no budget can be set on p{budget.percentile}", why=why, fix="ask for 50, 90 or 99")
    for name in LIMITS:
        limit = getattr(budget, name)
        if limit is not None and not 0 < limit < math.inf:
            raise UsageError(
                f"{name} is {limit}", why="a limit is positive and finite", fix="leave it out for no limit"
            )
    _check_percent(budget.min_top1_percent)


def _check_percent(top1: float | None) -> None:
    """Raise UsageError for an accuracy that is above 100%, or that looks like a share."""
    if top1 is None or 1 < top1 <= 100:
        return
    if top1 > 100:
        raise UsageError(f"no top-1 accuracy reaches {top1:g}%", why="it is in percent", fix="ask for 100 or less")
    why = f"the lowest top-1 accuracy is in percent, and {top1:g}% excludes nothing"
    percent = f"{100 * top1:.10g}"
    raise UsageError(f"is a top-1 accuracy of {percent}% meant by {top1:g}?", why=why, fix=f"--min-top1 {percent}")


def check_confidence(confidence: float) -> None:
    """Raise UsageError unless the confidence is a share between 0 and 1."""
    if not 0 < confidence < 1:
        raise UsageError(f"the confidence is {confidence}", why="it is a share between 0 and 1", fix="ask for 0.9")
