"""The limits of a budget, and the reasons against a candidate that breaks them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal, NamedTuple

from edgevit.records.choice import Budget, Candidate, Reason, ReasonCode
from edgevit.records.measurement import MEAN_ONLY, SUMMARY_ONLY
from edgevit.selection.candidates import Exclusion


class BrokenLimit(NamedTuple):
    """A limit that is not met; `reason.subject` names it: p90, size, ...

    excess: the share by which it is broken; None where the number is not known. is_open: a measurement may show that
    it is met.
    """

    reason: Reason
    excess: float | None
    is_open: bool = False


def why_excluded_by_budget(candidate: Candidate, budget: Budget) -> Exclusion | None:
    """Return None if the candidate fits, else each broken limit, and the largest excess (None: a number is missing)."""
    broken = broken_limits(candidate, budget)
    if not broken:
        return None
    shares = [limit.excess for limit in broken if limit.excess is not None]
    excess = max(shares) if len(shares) == len(broken) else None
    reasons = tuple(limit.reason for limit in broken)
    return Exclusion(reasons, excess, "budget", all(limit.is_open for limit in broken))


def why_excluded_by_dataset(candidate: Candidate, budget: Budget, dataset: str | None) -> Exclusion | None:
    """Return the exclusion of a candidate without an accuracy on the data set; None where it is known.

    It is open where the candidate may fit: an evaluation may make it an answer.
    """
    if dataset is None or candidate.top1_percent is not None:
        return None
    others = broken_limits(candidate, replace(budget, min_top1_percent=None))
    is_open = all(limit.is_open for limit in others)
    return Exclusion((Reason("not_evaluated", dataset),), None, "not_asked", is_open)


def broken_limits(candidate: Candidate, budget: Budget) -> list[BrokenLimit]:
    """Return every limit of the budget that a candidate does not meet."""
    return [
        *_latency(candidate, budget),
        *_most("size", candidate.size_mb, budget.max_size_mb, is_needed=budget.objective == "smallest"),
        *_most("peak memory", candidate.memory_mb, budget.max_memory_mb),
        *_most("energy", candidate.energy_mj, budget.max_energy_mj),
        *_accuracy(candidate, budget),
    ]


def excess_of(reason: Reason) -> float | None:
    """Return the share by which a limit is broken; None where a number is missing."""
    if reason.value is None or not reason.limit:
        return None
    share = reason.value / reason.limit
    return 1 - share if reason.code == "accuracy_below" else share - 1


def latency_for_budget(candidate: Candidate) -> float | None:
    """Return the milliseconds that a latency budget is compared with: the upper bound.

    A published row without a bound counts by the percentile that its source reports.
    """
    published = candidate.latency_provenance == "published" and candidate.latency_upper_ms is None
    return candidate.latency_ms if published else candidate.latency_upper_ms


def _latency(candidate: Candidate, budget: Budget) -> Iterable[BrokenLimit]:
    limit, latency, name = budget.max_latency_ms, latency_for_budget(candidate), f"p{budget.percentile}"
    if latency is None:
        # The fastest is among those whose latency is known.
        if limit is not None or budget.objective == "fastest":
            yield BrokenLimit(Reason(_missing_bound(candidate), name), None, is_open=True)
    elif limit is not None and latency > limit:
        basis = candidate.basis
        may_fit = basis is not None and basis.lower_ms is not None and basis.lower_ms <= limit
        reason = Reason(_latency_code(candidate), name, value=latency, limit=limit)
        yield BrokenLimit(reason, excess_of(reason), may_fit)


def _latency_code(candidate: Candidate) -> ReasonCode:
    if candidate.basis:
        return "predicted_latency_above"
    return "published_latency_above" if candidate.latency_upper_ms is None else "latency_bound_above"


def _missing_bound(candidate: Candidate) -> ReasonCode:
    if candidate.latency_provenance == "published":
        return "latency_not_published"
    if candidate.latency_provenance != "measured":
        return "latency_bound_unknown"
    if MEAN_ONLY in candidate.flags:
        return "mean_only"
    return "no_bound_reported" if SUMMARY_ONLY in candidate.flags else "too_few_runs"


_Quantity = Literal["size", "peak memory", "energy"]
_CODES: dict[_Quantity, tuple[ReasonCode, ReasonCode]] = {
    "size": ("size_above", "size_unknown"),
    "peak memory": ("memory_above", "memory_unknown"),
    "energy": ("energy_above", "energy_unknown"),
}


def _most(
    name: _Quantity, value: float | None, limit: float | None, *, is_needed: bool = False
) -> Iterable[BrokenLimit]:
    """Yield the limit if it is broken. is_needed: candidates rank by the value, so that it must be known anyway."""
    above, unknown = _CODES[name]
    if value is None:
        if limit is not None or is_needed:
            yield BrokenLimit(Reason(unknown, name), None, is_open=True)
    elif limit is not None and value > limit:
        reason = Reason(above, name, value=value, limit=limit)
        yield BrokenLimit(reason, excess_of(reason))


def _accuracy(candidate: Candidate, budget: Budget) -> Iterable[BrokenLimit]:
    # An accuracy that is not known is not open: no measurement on the device tells it.
    limit, top1 = budget.min_top1_percent, candidate.top1_percent
    if limit is None:
        return
    if top1 is None:
        yield BrokenLimit(Reason("accuracy_unknown", "top-1"), None)
    elif top1 < limit:
        reason = Reason("accuracy_below", "top-1", value=top1, limit=limit)
        yield BrokenLimit(reason, excess_of(reason))
