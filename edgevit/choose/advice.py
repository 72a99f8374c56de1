"""What was found in a word, and which measurements would change the answer most."""

from __future__ import annotations

import math
import shlex
from collections.abc import Collection, Iterable

from edgevit.choose.candidates import CANNOT_RUN
from edgevit.choose.ranking import rank
from edgevit.ratings import NOT_AT_CARD_SIZE
from edgevit.types import Budget, Candidate, Outcome, Rejection, Suggestion

OWN_FILE = ".py:"  # in the name of a model of a person's own file, which has no card that tells its size
_MOST = 3
_GAP_CHANCE = 0.5  # that a row without a bound fits once it has one: nobody knows


def outcome_of(picked: object, rejected: Collection[Rejection]) -> Outcome:
    """Whether something fits; else whether that is known, or only that nobody measured it, or nothing can run."""
    if picked:
        return "chosen"
    asked = [item for item in rejected if item.kind not in ("not_asked", "superseded")]
    if any(item.is_open for item in asked):
        return "unmeasured"
    if any(item.kind == "budget" for item in asked):
        return "infeasible"
    failed = [item.kind == "unusable" and item.reason.startswith(CANNOT_RUN) for item in asked]
    return "unsupported" if failed and all(failed) else "unmeasured"


def measure_next(
    picked: Candidate | None, rejected: Iterable[Rejection], budget: Budget, device: str
) -> tuple[Suggestion, ...]:
    """One to three measurements on a device, best first: the pick, if it is only predicted, then what may beat it.

    What may beat it is weighed by the accuracy it would gain and the chance that it fits, taken as even between the
    ends of its interval, in logarithms.
    """
    found = []
    if picked and picked.basis:
        found.append((math.inf, picked, "it is the pick, and only predicted"))
    for item in rejected:
        candidate, gain = item.candidate, _gain(item.candidate, picked)
        if item.is_open and gain is not None:
            chance = _chance(candidate, budget)
            why = f"{_interval(candidate, budget)}; if it fits it {_says(gain, picked)}"
            found.append((chance * gain, candidate, why))
    best = sorted(found, key=lambda entry: (-entry[0], rank(entry[1])))[:_MOST]
    return tuple(_suggestion(candidate, why, device) for score, candidate, why in best if score > 0)


def _gain(candidate: Candidate, picked: Candidate | None) -> float | None:
    """Points of accuracy more than the pick has; None where it would not be picked in its place.

    Without a pick any answer is worth a point more than none.
    """
    top1 = candidate.top1_percent
    if picked is None:
        return 1.0 + (top1 or 0.0)
    than = picked.top1_percent or 0.0
    return None if top1 is None or top1 <= than else top1 - than


def _says(gain: float, picked: Candidate | None) -> str:
    return f"is {gain:.1f} points more accurate than the pick" if picked else "is an answer"


def _interval(candidate: Candidate, budget: Budget) -> str:
    basis = candidate.basis
    if basis is None or basis.lower_ms is None or basis.upper_ms is None:
        return "a number that the budget needs is missing"
    return f"predicted between {basis.lower_ms:.3g} and {basis.upper_ms:.3g} ms at p{budget.percentile}"


def _chance(candidate: Candidate, budget: Budget) -> float:
    basis, limit = candidate.basis, budget.max_latency_ms
    if basis is None or not basis.lower_ms or not basis.upper_ms:
        return _GAP_CHANCE
    if limit is None or basis.upper_ms <= limit:
        return 1.0
    return max(0.0, math.log(limit / basis.lower_ms) / math.log(basis.upper_ms / basis.lower_ms))


def _suggestion(candidate: Candidate, why: str, device: str) -> Suggestion:
    what = (candidate.model, candidate.target, candidate.precision, candidate.threads)
    words = ["--models", candidate.model, "--targets", candidate.target, "--precision", candidate.precision]
    size = input_size(candidate)
    if size and (OWN_FILE in candidate.model or NOT_AT_CARD_SIZE in candidate.flags):
        words += ["--input-size", "x".join(map(str, size))]
    words += ["--threads", str(candidate.threads)] if candidate.threads else []
    return Suggestion(*what, why, shlex.join(("edgevit", "sweep", *words, "--device", device)), size)


def input_size(candidate: Candidate) -> tuple[int, ...]:
    """Height and width in pixels, of images as (N, C, H, W) or (N, H, W, 3); empty: not known, or no image."""
    shape = candidate.input_shape
    if len(shape) != 4:
        return ()
    channels_last = shape[3] == 3 and shape[1] != 3
    return shape[1:3] if channels_last else shape[2:]
