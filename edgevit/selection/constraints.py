"""Whether a candidate fits a budget, and which limits it breaks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from edgevit.records.choice import Budget, Candidate
from edgevit.records.measurement import MEAN_ONLY, SUMMARY_ONLY
from edgevit.selection.candidates import Verdict


class Broken(NamedTuple):
    """A limit that is not met. excess: share by which it is broken, None where the number is not known.

    name: what the limit is of: p90, size... is_open: measuring may show that it is met.
    """

    name: str
    reason: str
    excess: float | None
    is_open: bool = False


def verdict_of(candidate: Candidate, budget: Budget) -> Verdict | None:
    """None if the candidate fits, else why not and the largest share by which it breaks a limit (None: a gap)."""
    broken = broken_limits(candidate, budget)
    if not broken:
        return None
    shares = [item.excess for item in broken if item.excess is not None]
    excess = max(shares) if len(shares) == len(broken) else None
    reasons = "; ".join(item.reason for item in broken)
    return Verdict(reasons, excess, "budget", all(item.is_open for item in broken))


def unevaluated(candidate: Candidate, budget: Budget, dataset: str | None) -> Verdict | None:
    """Why a candidate whose accuracy on the data set asked about is not known is no answer; None where it is known.

    It is open where it may fit: an evaluation may make it one.
    """
    if dataset is None or candidate.top1_percent is not None:
        return None
    others = broken_limits(candidate, replace(budget, min_top1_percent=None))
    return Verdict(f"not evaluated on {dataset!r}", None, "not_asked", all(item.is_open for item in others))


def broken_limits(candidate: Candidate, budget: Budget) -> list[Broken]:
    """Every limit of the budget that a candidate does not meet."""
    return [
        *_latency(candidate, budget),
        *_most("size", candidate.size_mb, budget.max_size_mb, "MB"),
        *_most("peak memory", candidate.memory_mb, budget.max_memory_mb, "MB"),
        *_most("energy", candidate.energy_mj, budget.max_energy_mj, "mJ"),
        *_accuracy(candidate, budget),
    ]


def held(candidate: Candidate) -> float | None:
    """What is held against a latency budget, in ms: the bound, or of a published row what its source tells."""
    published = candidate.latency_provenance == "published" and candidate.latency_upper_ms is None
    return candidate.latency_ms if published else candidate.latency_upper_ms


def _latency(candidate: Candidate, budget: Budget) -> Iterable[Broken]:
    limit, counts, name = budget.max_latency_ms, held(candidate), f"p{budget.percentile}"
    if limit is None:
        return
    if counts is None:
        yield Broken(name, _no_bound(candidate, name), None, is_open=True)
    elif counts > limit:
        basis = candidate.basis
        is_ = "may be up to" if basis else "is" if candidate.latency_upper_ms is None else "is up to"
        said = f"{name} {is_} {counts:.6g} ms, above {limit:.6g} ms"
        may_fit = basis is not None and basis.lower_ms is not None and basis.lower_ms <= limit
        yield Broken(name, said, counts / limit - 1, may_fit)


def _no_bound(candidate: Candidate, name: str) -> str:
    if candidate.latency_provenance == "published":
        return f"its source tells no {name}"
    if candidate.latency_provenance != "measured":
        return f"no bound on {name} is known"
    if MEAN_ONLY in candidate.flags:
        return f"the row tells a mean and no {name}: the program that measured it keeps its samples"
    if SUMMARY_ONLY in candidate.flags:
        return f"the row tells no bound on {name}: the program that measured it keeps its samples"
    return f"too few runs for a bound on {name}"


def _most(name: str, value: float | None, limit: float | None, unit: str) -> Iterable[Broken]:
    if limit is None:
        return
    if value is None:
        yield Broken(name, f"{name} unknown", None, is_open=True)
    elif value > limit:
        yield Broken(name, f"{name} is {value:.6g} {unit}, above {limit:.6g} {unit}", value / limit - 1)


def _accuracy(candidate: Candidate, budget: Budget) -> Iterable[Broken]:
    """What is not known of an accuracy no measurement on the device tells."""
    limit, top1 = budget.min_top1_percent, candidate.top1_percent
    if limit is None:
        return
    if top1 is None:
        yield Broken("top-1", "accuracy unknown", None)
    elif top1 < limit:
        yield Broken("top-1", f"top-1 is {top1:.6g}%, below {limit:.6g}%", 1 - top1 / limit)
