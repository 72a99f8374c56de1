"""The order of candidates that fit, the front of them, and those that nearly fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TypeVar

from edgevit.choose.verdicts import held
from edgevit.types import Candidate, Rejection

_NEAREST = 3
_Item = TypeVar("_Item")


def rank(candidate: Candidate) -> tuple[float | str, ...]:
    """Most accurate first (unknown last), then lower latency, then smaller, then by name."""
    top1, upper, size = candidate.top1_percent, held(candidate), candidate.size_mb
    name = (candidate.model, candidate.target, candidate.precision, candidate.threads, candidate.measurement_id)
    worst = (math.inf if upper is None else upper, math.inf if size is None else size)
    return (math.inf if top1 is None else -top1, *worst, *name)


def ranked(fitting: Iterable[Candidate], floor: float) -> list[Candidate]:
    """Best first. Of equally accurate ones all that the device cannot tell from the fastest come first, smallest first;
    then, of those that are left, the same again. Tiers and no pairwise ties: those would lead round in circles.
    """
    left, found = sorted(fitting, key=rank), list[Candidate]()
    while left:
        alike = sum(_alike_in_rank(left[0], other, floor) for other in left)  # the first ones, as they are sorted
        found += sorted(left[:alike], key=_rank_of_alike)
        left = left[alike:]
    return found


def _alike_in_rank(best: Candidate, other: Candidate, floor: float) -> bool:
    fastest, upper = held(best), held(other)
    as_fast = upper == fastest if upper is None or fastest is None else upper <= (1 + floor) * fastest
    return as_fast and best.top1_percent == other.top1_percent


def _rank_of_alike(candidate: Candidate) -> tuple[float | str, ...]:
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


def nearest(rejected: Iterable[Rejection]) -> tuple[Rejection, ...]:
    """Those that break the limits by the least share."""
    misses = [(rejection.excess, rank(rejection.candidate), rejection) for rejection in rejected]
    found = sorted((excess, key, miss) for excess, key, miss in misses if excess is not None)
    return tuple(miss for _, _, miss in found[:_NEAREST])
