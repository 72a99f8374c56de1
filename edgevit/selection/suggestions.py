"""The outcome of a question, and the measurements or evaluations that would change its answer most."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from edgevit.records.choice import Budget, Candidate, Outcome, Rejection, Suggestion
from edgevit.records.model import ModelCard
from edgevit.selection.accuracy import image_size
from edgevit.selection.commands import NO_COMMANDS, Commands
from edgevit.selection.constraints import broken_limits, latency_for_budget
from edgevit.selection.ranking import rank, tells_apart
from edgevit.selection.wording import PICK_IS_PREDICTED, WHY_RATE, why_evaluate, why_measure

_COUNT = 3
_GAP_CHANCE = 0.5  # that a row without a bound fits once it has one: there is no evidence
_ANY_GAIN = 1.0  # points that an answer is worth more than none, and the hope for a model that no card rates


class _Scored(NamedTuple):
    """A suggestion before its command is known, and what it is hoped to gain."""

    gain: float
    candidate: Candidate
    does: Literal["measure", "evaluate"]
    why: str


class Goal(NamedTuple):
    """The question: a budget, by accuracies on a data set (None: published ones), and the commands that run here."""

    budget: Budget
    dataset: str | None
    cards: Mapping[str, ModelCard]
    commands: Commands = NO_COMMANDS

    def published_top1(self, candidate: Candidate) -> float | None:
        """Return the published accuracy of a model in percent, which is the hope for an evaluation."""
        card = self.cards.get(candidate.model)
        return card.top1_percent if card else None


def outcome_of(picked: Candidate | None, rejected: Collection[Rejection]) -> Outcome:
    """Return how the question ends: chosen, or whether that is known, not measured yet, or impossible to run.

    A pick of unknown accuracy is not chosen, nor is there an answer where only unknown accuracies are in its way.
    """
    if picked:
        return "no_accuracy" if picked.top1_percent is None else "chosen"
    if any(rejection.is_open for rejection in rejected):
        return "unmeasured"
    if any(map(_lacks_accuracy_alone, rejected)):
        return "no_accuracy"
    in_question = [rejection for rejection in rejected if rejection.kind not in ("not_asked", "superseded")]
    if any(rejection.kind == "budget" for rejection in in_question):
        return "infeasible"
    failed = [any(reason.code == "cannot_run" for reason in rejection.reasons) for rejection in in_question]
    return "unsupported" if failed and all(failed) else "unmeasured"


def _lacks_accuracy_alone(rejection: Rejection) -> bool:
    return all(reason.code == "accuracy_unknown" for reason in rejection.reasons)


def suggest(fitting: Sequence[Candidate], rejected: Collection[Rejection], goal: Goal) -> tuple[Suggestion, ...]:
    """Return up to three suggestions, best first: measure a predicted pick, then candidates that may beat it.

    Those are weighed by what they would gain and the chance that they fit. The chance is taken as even between the ends
    of the interval, in logarithms. An artifact without an accuracy on the data set is to be evaluated; its hoped gain
    is that of the published accuracies. Where no accuracy is known, what fits is to be evaluated. What edgevit cannot
    build is not suggested.
    """
    picked = fitting[0] if fitting else None
    scored: list[_Scored] = []
    if picked and picked.basis:
        scored.append(_Scored(math.inf, picked, "measure", PICK_IS_PREDICTED))
    if outcome_of(picked, rejected) == "no_accuracy":
        unrated = [*fitting, *(one.candidate for one in rejected if _lacks_accuracy_alone(one))]
        scored += [_Scored(_ANY_GAIN, one, "evaluate", WHY_RATE) for one in unrated if one.artifact_sha256]
    if picked and goal.budget.objective == "fastest":
        predicted = (candidate for candidate in fitting[1:] if candidate.basis)
        scored += [suggestion for candidate in predicted for suggestion in _measurement(candidate, picked, goal)]
    for rejection in rejected:
        if rejection.is_open:
            score = _measurement if rejection.kind != "not_asked" else _evaluation
            scored += score(rejection.candidate, picked, goal)
    return tuple(_best(scored, goal.commands))


def _best(scored: Iterable[_Scored], commands: Commands) -> Iterator[Suggestion]:
    """Yield the best suggestions that can be followed, each once: an artifact is evaluated for all thread counts."""
    keys = set[object]()
    for gain, candidate, does, why in sorted(scored, key=lambda one: (-one.gain, rank(one.candidate))):
        identity, size = (candidate.model, candidate.target, candidate.precision), image_size(candidate.input_shape)
        key = (does, *identity, size, candidate.network_id, candidate.threads if does == "measure" else 0)
        if gain <= 0 or key in keys or not commands.can_build(candidate):
            continue
        keys.add(key)
        if does == "measure":
            command, folder = commands.measure(candidate), ""
        else:
            command, folder = "", commands.artifact(candidate)
        network = (candidate.network, candidate.artifact_sha256)
        yield Suggestion(*identity, candidate.threads, why, command, size, does, folder, *network)
        if len(keys) == _COUNT:
            return


def _measurement(candidate: Candidate, picked: Candidate | None, goal: Goal) -> Iterator[_Scored]:
    gain = _gain(candidate, picked, goal.budget)
    if gain is not None:
        why = why_measure(candidate, goal.budget, gain if picked else None)
        yield _Scored(_chance(candidate, goal.budget) * gain, candidate, "measure", why)


def _gain(candidate: Candidate, picked: Candidate | None, budget: Budget) -> float | None:
    """Return the points of accuracy, or percent of the other objective's number, by which a candidate beats the pick.

    None: it would not be picked in its place.
    """
    top1 = candidate.top1_percent
    if picked is None:
        return _ANY_GAIN + (top1 or 0.0)
    if budget.objective == "accurate" or (top1 is None) != (picked.top1_percent is None):
        return (top1 or 0.0) - (picked.top1_percent or 0.0) if tells_apart(candidate, picked) else None
    number: Callable[[Candidate], float | None] = _latency if budget.objective == "fastest" else _size
    hoped, of_pick = number(candidate), number(picked)
    if hoped is None or not of_pick:
        return _ANY_GAIN
    return 100 * (1 - hoped / of_pick) if hoped < of_pick else None


def _latency(candidate: Candidate) -> float | None:
    """Return the latency that a measurement would show, as far as it is known."""
    return candidate.latency_ms if candidate.basis else latency_for_budget(candidate)


def _size(candidate: Candidate) -> float | None:
    return candidate.size_mb


def _evaluation(candidate: Candidate, picked: Candidate | None, goal: Goal) -> Iterator[_Scored]:
    # A model that was never exported has no artifact to be evaluated.
    published = goal.published_top1(candidate)
    of_pick = goal.published_top1(picked) if picked else None
    gain = _ANY_GAIN if published is None or of_pick is None else published - of_pick
    gain = gain if picked else _ANY_GAIN + (published or 0.0)
    if candidate.artifact_sha256 and gain > 0:
        fits = not broken_limits(candidate, replace(goal.budget, min_top1_percent=None))
        why = why_evaluate(goal.dataset or "", published, fits=fits)
        yield _Scored((1.0 if fits else _chance(candidate, goal.budget)) * gain, candidate, "evaluate", why)


def _chance(candidate: Candidate, budget: Budget) -> float:
    basis, limit = candidate.basis, budget.max_latency_ms
    if basis is None or not basis.lower_ms or not basis.upper_ms:
        return _GAP_CHANCE
    if limit is None or basis.upper_ms <= limit:
        return 1.0
    return max(0.0, math.log(limit / basis.lower_ms) / math.log(basis.upper_ms / basis.lower_ms))
