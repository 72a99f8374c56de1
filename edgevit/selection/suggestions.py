"""What was found in a word, and what to measure or to evaluate next because it would change the answer most."""

from __future__ import annotations

import math
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from edgevit.records.choice import Budget, Candidate, Outcome, Rejection, Suggestion
from edgevit.records.model import ModelCard
from edgevit.selection.accuracy import NOT_AT_CARD_SIZE, image_size
from edgevit.selection.candidates import CANNOT_RUN
from edgevit.selection.constraints import broken_limits
from edgevit.selection.ranking import rank, tells_apart

OWN_FILE = ".py:"  # in the name of a model of a person's own file, which has no card that tells its size
_MOST = 3
_GAP_CHANCE = 0.5  # that a row without a bound fits once it has one: nobody knows
_ANY_GAIN = 1.0  # points that an answer is worth more than none, and what is hoped for of a model that no card rates


_Scored = tuple[float, Candidate, Suggestion]


class Aim(NamedTuple):
    """What an answer is for: a budget on a device, by accuracies on a data set (None: published ones)."""

    budget: Budget
    device: str
    dataset: str | None
    cards: Mapping[str, ModelCard]

    def hoped(self, candidate: Candidate) -> float | None:
        """The published accuracy of a model, in percent: what else is there to hope by?"""
        card = self.cards.get(candidate.model)
        return card.top1_percent if card else None


def outcome_of(picked: object, rejected: Collection[Rejection]) -> Outcome:
    """Whether something fits; else whether that is known, or only that nobody measured it, or nothing can run."""
    if picked:
        return "chosen"
    if any(item.is_open for item in rejected):
        return "unmeasured"
    asked = [item for item in rejected if item.kind not in ("not_asked", "superseded")]
    if any(item.kind == "budget" for item in asked):
        return "infeasible"
    failed = [item.kind == "unusable" and item.reason.startswith(CANNOT_RUN) for item in asked]
    return "unsupported" if failed and all(failed) else "unmeasured"


def do_next(picked: Candidate | None, rejected: Iterable[Rejection], aim: Aim) -> tuple[Suggestion, ...]:
    """One to three things to do, best first: measure the pick, if it is only predicted, then what may beat it.

    What may beat it is weighed by the accuracy it would gain and the chance that it fits, taken as even between the
    ends of its interval, in logarithms. An artifact whose accuracy on the data set is not known is to be evaluated; the
    gain that is hoped for is that of the published accuracies.
    """
    found: list[_Scored] = []
    if picked and picked.basis:
        found.append((math.inf, picked, _measure(picked, "it is the pick, and only predicted", aim)))
    for item in rejected:
        if item.is_open:
            found += _measurement(item, picked, aim) if item.kind != "not_asked" else _evaluation(item, picked, aim)
    best = sorted(found, key=lambda entry: (-entry[0], rank(entry[1])))
    deeds = dict[object, Suggestion]()
    for score, _, suggestion in best:
        if score > 0:
            deeds.setdefault(suggestion.command, suggestion)  # an artifact is evaluated once for all thread counts
    return tuple(deeds.values())[:_MOST]


def _measurement(item: Rejection, picked: Candidate | None, aim: Aim) -> Iterator[_Scored]:
    candidate = item.candidate
    gain = _gain(candidate, picked)
    if gain is not None:
        would = f"is {gain:.1f} points more accurate than the pick" if picked else "is an answer"
        why = f"{_interval(candidate, aim.budget)}; if it fits it {would}"
        yield _chance(candidate, aim.budget) * gain, candidate, _measure(candidate, why, aim)


def _gain(candidate: Candidate, picked: Candidate | None) -> float | None:
    """Points of accuracy more than the pick has; None where it would not be picked in its place."""
    top1 = candidate.top1_percent
    if picked is None:
        return _ANY_GAIN + (top1 or 0.0)
    return (top1 or 0.0) - (picked.top1_percent or 0.0) if tells_apart(candidate, picked) else None


def _evaluation(item: Rejection, picked: Candidate | None, aim: Aim) -> Iterator[_Scored]:
    """Of an artifact that somebody made: a model that was never exported has nothing to be evaluated."""
    candidate, hoped = item.candidate, aim.hoped(item.candidate)
    than = aim.hoped(picked) if picked else None
    gain = _ANY_GAIN if hoped is None or than is None else hoped - than
    gain = gain if picked else _ANY_GAIN + (hoped or 0.0)
    if candidate.artifact_sha256 and gain > 0:
        fits = not broken_limits(candidate, replace(aim.budget, min_top1_percent=None))
        rated = "nothing is published of it" if hoped is None else f"{hoped:.6g}% are published of it"
        why = f"{'it fits' if fits else 'it may fit'}, and was not evaluated on {aim.dataset!r}; {rated}"
        yield (1.0 if fits else _chance(candidate, aim.budget)) * gain, candidate, _evaluate(candidate, why, aim)


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


def _measure(candidate: Candidate, why: str, aim: Aim) -> Suggestion:
    what = (candidate.model, candidate.target, candidate.precision, candidate.threads)
    words = ["--models", candidate.model, "--targets", candidate.target, "--precision", candidate.precision]
    size = image_size(candidate.input_shape)
    if size and (OWN_FILE in candidate.model or NOT_AT_CARD_SIZE in candidate.flags):
        words += ["--input-size", "x".join(map(str, size))]
    words += ["--threads", str(candidate.threads)] if candidate.threads else []
    return Suggestion(*what, why, shlex.join(("edgevit", "sweep", *words, "--device", aim.device)), size)


def _evaluate(candidate: Candidate, why: str, aim: Aim) -> Suggestion:
    """Where `edgevit export` puts an artifact unless it is told otherwise; where the images are nobody knows."""
    from edgevit.artifacts.folder import folder_name

    folder = f"artifacts/{folder_name(candidate.model, candidate.target, candidate.precision)}"
    command = shlex.join(("edgevit", "evaluate", folder, "--data", "FOLDER", "--dataset", aim.dataset or ""))
    what = (candidate.model, candidate.target, candidate.precision, candidate.threads)
    return Suggestion(*what, why, command, image_size(candidate.input_shape), "evaluate")
