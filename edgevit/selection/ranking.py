"""The order of candidates that fit, their front, and the candidates that nearly fit."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from edgevit.records.choice import Candidate, Objective, Rejection
from edgevit.selection.constraints import latency_for_budget

_NEAREST = 3
_Entry = TypeVar("_Entry")


def rank(candidate: Candidate) -> tuple[float | str, ...]:
    """Return a sort key: most accurate first (unknown last), then lower latency, then smaller, then by name."""
    top1, upper, size = candidate.top1_percent, latency_for_budget(candidate), candidate.size_mb
    name = (candidate.model, candidate.target, candidate.precision, candidate.threads, candidate.network_id)
    worst = (math.inf if upper is None else upper, math.inf if size is None else size)
    # A row that ran the network comes ahead of one of random weights that stands for it.
    files = (candidate.top1_artifact_sha256, candidate.artifact_sha256, candidate.measurement_id)
    return (math.inf if top1 is None else -top1, *worst, *name, *files)


def ranked(fitting: Iterable[Candidate], noise_share: float, objective: Objective = "accurate") -> list[Candidate]:
    """Return the candidates best first: by tiers of accuracy, and in each tier the faster ones first.

    For another objective the fastest, or the smallest, come first, and of equal ones the most accurate. Those of
    unknown accuracy come after all others.
    """
    if objective == "accurate":
        return list(_best_first(fitting, noise_share))
    candidates = list(fitting)
    rated = [candidate for candidate in candidates if candidate.top1_percent is not None]
    unrated = [candidate for candidate in candidates if candidate.top1_percent is None]
    if objective == "smallest":
        return sorted(rated, key=rank_by_size) + sorted(unrated, key=rank_by_size)
    return [candidate for group in (rated, unrated) for candidate in _fastest_first(group, noise_share, rank)]


class PickStep(NamedTuple):
    """From a latency budget of so many milliseconds on, this candidate is the pick."""

    from_ms: float
    pick: Candidate


def pick_steps(fitting: Iterable[Candidate], noise_share: float) -> list[PickStep]:
    """Return the pick as a step function of the latency budget, lowest budget first.

    fitting: the candidates that fit without a latency limit. noise_share: as of `ranked`. Between two steps the pick
    is the same; below the first step no candidate fits.
    """
    by_latency = [
        (latency, candidate) for candidate in fitting if (latency := latency_for_budget(candidate)) is not None
    ]
    by_latency.sort(key=lambda pair: pair[0])
    largest_error = max((candidate.top1_error_percent or 0.0 for _, candidate in by_latency), default=0.0)
    pool: list[Candidate] = []
    steps: list[PickStep] = []
    leaders: tuple[Candidate, Candidate] | None = None
    for latency_ms, group in itertools.groupby(by_latency, key=lambda pair: pair[0]):
        entering = [candidate for _, candidate in group]
        pool += entering
        if leaders is None or any(_may_change_pick(*leaders, candidate, noise_share) for candidate in entering):
            tier = as_accurate(pool)
            leaders = tier[0], min(tier, key=rank_by_speed)
            # No later best one is less accurate, so that the others will tie with none of them.
            least_certain = dataclasses.replace(tier[0], top1_error_percent=largest_error)
            pool = [candidate for candidate in pool if not tells_apart(least_certain, candidate)]
            pick = next(_fastest_first(tier, noise_share))
            if not steps or steps[-1].pick != pick:
                steps.append(PickStep(latency_ms, pick))
    return steps


def _may_change_pick(best: Candidate, fastest: Candidate, entering: Candidate, noise_share: float) -> bool:
    """Return whether a candidate that is no faster than all before it may change the pick.

    best: the first of those by rank. fastest: the fastest of those that are as accurate as it.
    """
    if rank(entering) < rank(best):
        return True
    return not tells_apart(best, entering) and _as_fast(fastest, entering, noise_share)


def _best_first(fitting: Iterable[Candidate], noise_share: float) -> Iterator[Candidate]:
    for tier in accuracy_tiers(sorted(fitting, key=rank), lambda candidate: candidate):
        yield from _fastest_first(tier, noise_share)


def accuracy_tiers(best_first: Iterable[_Entry], rating: Callable[[_Entry], Candidate]) -> Iterator[list[_Entry]]:
    """Yield the most accurate entry with all that no evaluation tells from it; then the same of the remaining ones.

    Tiers and no pairwise ties: those would lead round in circles. rating: the candidate that rates an entry.
    """
    remaining = list(best_first)
    while remaining:
        best = rating(remaining[0])
        yield [entry for entry in remaining if not tells_apart(best, rating(entry))]
        remaining = [entry for entry in remaining if tells_apart(best, rating(entry))]


def as_accurate(fitting: Iterable[Candidate]) -> list[Candidate]:
    """Return the candidates of the first tier, most accurate first."""
    return next(accuracy_tiers(sorted(fitting, key=rank), lambda candidate: candidate), [])


def tells_apart(better: Candidate, other: Candidate) -> bool:
    """Return whether an accuracy is higher than another one by more than its own error.

    Without an error it is enough to be higher. Any accuracy is more than an unknown one.

    An error is half of a 95% interval. Of two independent evaluations the difference has the root of both squares,
    which is never less. On the same images networks are mostly wrong together, and the difference has less. It has the
    error of one, where their being wrong correlates by a half. One error is taken always, so that accuracy is rather
    kept than given away. It is that of the better one, so that a candidate between two that tie ties, too. No candidate
    is picked that another one beats in accuracy and in latency.
    """
    if other.top1_percent is None or better.top1_percent is None:
        return better.top1_percent is not None and other.top1_percent is None
    return better.top1_percent - other.top1_percent > (better.top1_error_percent or 0.0)


def _fastest_first(
    tier: Iterable[Candidate],
    noise_share: float,
    order: Callable[[Candidate], tuple[float | str, ...]] | None = None,
) -> Iterator[Candidate]:
    """Yield all that the device cannot tell from the fastest, smallest first; then the same of the others.

    order: the order of those that are alike, if it is another one.
    """
    remaining = sorted(tier, key=rank_by_speed)
    while remaining:
        # They are sorted, so that those that are alike come first.
        alike = sum(_as_fast(remaining[0], other, noise_share) for other in remaining)
        yield from sorted(remaining[:alike], key=order or rank_by_size)
        remaining = remaining[alike:]


def _as_fast(best: Candidate, other: Candidate, noise_share: float) -> bool:
    fastest, upper = latency_for_budget(best), latency_for_budget(other)
    return upper == fastest if upper is None or fastest is None else upper <= (1 + noise_share) * fastest


def rank_by_speed(candidate: Candidate) -> tuple[float | str, ...]:
    """Return a sort key: lower latency first (unknown last), then as `rank` has it."""
    upper = latency_for_budget(candidate)
    return (math.inf if upper is None else upper, *rank(candidate))


def rank_by_size(candidate: Candidate) -> tuple[float | str, ...]:
    """Return a sort key: smaller first (unknown last), then as `rank` has it."""
    return (math.inf if candidate.size_mb is None else candidate.size_mb, *rank(candidate))


def front_of(fitting: Iterable[_Entry], point: Callable[[_Entry], tuple[float | None, float | None]]) -> list[_Entry]:
    """Return the entries that no other beats, fastest first; equal ones are all on the front.

    An entry beats another one that is not more accurate and not faster, and worse in one of both. point: accuracy and
    latency of an entry; entries without one of them are on no front.
    """
    points = [(point(entry), entry) for entry in fitting]
    drawn = [(latency, -top1, entry) for (top1, latency), entry in points if top1 is not None and latency is not None]
    drawn.sort(key=lambda entry: entry[:2])
    front: list[_Entry] = []
    # The highest accuracy so far, negated, and the latency that it was first reached at.
    best, best_latency = math.inf, math.inf
    for latency, negated, entry in drawn:
        if negated < best:
            best, best_latency = negated, latency
        if (negated, latency) == (best, best_latency):
            front.append(entry)
    return front


def nearest(rejected: Iterable[Rejection], count: int = _NEAREST) -> tuple[Rejection, ...]:
    """Return the rejections that break the limits by the least share."""
    misses = [(rejection.excess, rank(rejection.candidate), rejection) for rejection in rejected]
    by_excess = sorted(
        ((excess, key, miss) for excess, key, miss in misses if excess is not None), key=lambda entry: entry[:2]
    )
    return tuple(miss for _, _, miss in by_excess[:count])
