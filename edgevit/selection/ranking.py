"""The order of candidates that fit, the front of them, and those that nearly fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from edgevit.records.choice import Candidate, Rejection
from edgevit.selection.constraints import held

_NEAREST = 3
_Item = TypeVar("_Item")


def rank(candidate: Candidate) -> tuple[float | str, ...]:
    """Most accurate first (unknown last), then lower latency, then smaller, then by name."""
    top1, upper, size = candidate.top1_percent, held(candidate), candidate.size_mb
    name = (candidate.model, candidate.target, candidate.precision, candidate.threads, candidate.measurement_id)
    worst = (math.inf if upper is None else upper, math.inf if size is None else size)
    return (math.inf if top1 is None else -top1, *worst, *name)


def ranked(fitting: Iterable[Candidate], floor: float) -> list[Candidate]:
    """Best first: the tiers of accuracy one after the other, and in each of them the faster ones first."""
    tiers = accuracy_tiers(sorted(fitting, key=rank), lambda item: item)
    return [item for tier in tiers for item in _fastest_first(tier, floor)]


def accuracy_tiers(best_first: Iterable[_Item], rating: Callable[[_Item], Candidate]) -> Iterator[list[_Item]]:
    """The most accurate one with all that no evaluation tells from it; then, of those that are left, the same again.

    Tiers and no pairwise ties: those would lead round in circles. rating: whose accuracy is that of an item.
    """
    left = list(best_first)
    while left:
        best = rating(left[0])
        yield [item for item in left if not tells_apart(best, rating(item))]
        left = [item for item in left if tells_apart(best, rating(item))]


def as_accurate(fitting: Iterable[Candidate]) -> list[Candidate]:
    """Those of the first tier, most accurate first."""
    return next(accuracy_tiers(sorted(fitting, key=rank), lambda item: item), [])


def tells_apart(better: Candidate, other: Candidate) -> bool:
    """Whether an accuracy is higher than another one by more than its own error; without an error, whether it is higher
    at all. Any accuracy is more than one that is not known.

    An error is half of a 95% interval. Of two independent evaluations the difference has the root of both squares,
    which is never less. On the same images networks are mostly wrong together, and the difference has less: the error
    of one, where their being wrong correlates by a half. One error is taken always, so that accuracy is rather kept
    than given away; that of the better one, so that what is between two that tie ties, too, and nothing is picked that
    another one beats in accuracy and in latency.
    """
    if other.top1_percent is None or better.top1_percent is None:
        return better.top1_percent is not None and other.top1_percent is None
    return better.top1_percent - other.top1_percent > (better.top1_error_percent or 0.0)


def _fastest_first(tier: Iterable[Candidate], floor: float) -> list[Candidate]:
    """All that the device cannot tell from the fastest come first, smallest first; then the same of the others."""
    left, found = sorted(tier, key=rank_by_speed), list[Candidate]()
    while left:
        alike = sum(_as_fast(left[0], other, floor) for other in left)  # the first ones, as they are sorted
        found += sorted(left[:alike], key=_rank_by_size)
        left = left[alike:]
    return found


def _as_fast(best: Candidate, other: Candidate, floor: float) -> bool:
    fastest, upper = held(best), held(other)
    return upper == fastest if upper is None or fastest is None else upper <= (1 + floor) * fastest


def rank_by_speed(candidate: Candidate) -> tuple[float | str, ...]:
    """Lower latency first (unknown last), then as `rank` has it."""
    upper = held(candidate)
    return (math.inf if upper is None else upper, *rank(candidate))


def _rank_by_size(candidate: Candidate) -> tuple[float | str, ...]:
    return (math.inf if candidate.size_mb is None else candidate.size_mb, *rank(candidate))


def front_of(fitting: Iterable[_Item], point: Callable[[_Item], tuple[float | None, float | None]]) -> list[_Item]:
    """Those that no other beats: none is as accurate and as fast, and better in one of both. Fastest first.

    point: (accuracy, latency) of an item; those of which one is not known are on no front. Equal ones are all on it.
    """
    known = [(latency, -top1, item) for item in fitting for top1, latency in [point(item)] if top1 is not None
             and latency is not None]  # fmt: skip
    known.sort(key=lambda item: item[:2])
    found: list[_Item] = []
    best, at = math.inf, math.inf  # the highest accuracy so far, negated, and the latency it was first reached at
    for latency, negated, item in known:
        if negated < best:
            best, at = negated, latency
        if (negated, latency) == (best, at):
            found.append(item)
    return found


def nearest(rejected: Iterable[Rejection], most: int = _NEAREST) -> tuple[Rejection, ...]:
    """Those that break the limits by the least share."""
    misses = [(rejection.excess, rank(rejection.candidate), rejection) for rejection in rejected]
    found = sorted((excess, key, miss) for excess, key, miss in misses if excess is not None)
    return tuple(miss for _, _, miss in found[:most])
