"""Whether a candidate fits a budget, and which limits it breaks."""

from __future__ import annotations

from collections.abc import Iterable

from edgevit.choose.candidates import Verdict
from edgevit.types import MEAN_ONLY, SUMMARY_ONLY, Budget, Candidate


def verdict_of(candidate: Candidate, budget: Budget) -> Verdict | None:
    """None if the candidate fits, else why not and the largest share by which it breaks a limit (None: a gap)."""
    broken = [*_latency(candidate, budget), *_size(candidate, budget), *_accuracy(candidate, budget)]
    if not broken:
        return None
    shares = [share for _, share in broken if share is not None]
    return "; ".join(reason for reason, _ in broken), max(shares) if len(shares) == len(broken) else None, "budget"


def _latency(candidate: Candidate, budget: Budget) -> Iterable[tuple[str, float | None]]:
    limit, counts, name = budget.max_latency_ms, held(candidate), f"p{budget.percentile}"
    if limit is None:
        return
    if counts is None:
        yield _no_bound(candidate, name), None
    elif counts > limit:
        is_ = "is" if candidate.latency_upper_ms is None else "is up to"
        yield f"{name} {is_} {counts:.6g} ms, above {limit:.6g} ms", counts / limit - 1


def held(candidate: Candidate) -> float | None:
    """What is held against a latency budget, in ms: the bound, or of a published row what its source tells."""
    published = candidate.latency_provenance == "published" and candidate.latency_upper_ms is None
    return candidate.latency_ms if published else candidate.latency_upper_ms


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


def _size(candidate: Candidate, budget: Budget) -> Iterable[tuple[str, float | None]]:
    limit, size = budget.max_size_mb, candidate.size_mb
    if limit is None:
        return
    if size is None:
        yield "size unknown", None
    elif size > limit:
        yield f"size is {size:.6g} MB, above {limit:.6g} MB", size / limit - 1


def _accuracy(candidate: Candidate, budget: Budget) -> Iterable[tuple[str, float | None]]:
    limit, top1 = budget.min_top1_percent, candidate.top1_percent
    if limit is None:
        return
    if top1 is None:
        yield "accuracy unknown", None
    elif top1 < limit:
        yield f"top-1 is {top1:.6g}%, below {limit:.6g}%", 1 - top1 / limit
