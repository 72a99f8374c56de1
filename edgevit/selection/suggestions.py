"""The outcome of a question, and the measurements or evaluations that would change its answer most."""

from __future__ import annotations

import math
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from edgevit.records.choice import Budget, Candidate, Outcome, Rejection, Suggestion
from edgevit.records.model import ModelCard
from edgevit.selection.accuracy import image_size
from edgevit.selection.constraints import broken_limits
from edgevit.selection.ranking import rank, tells_apart
from edgevit.selection.wording import NOT_AT_CARD_SIZE, PICK_IS_PREDICTED, why_evaluate, why_measure

OWN_FILE = ".py:"  # in the name of a model of a person's own file, which has no card that tells its size
_COUNT = 3
_GAP_CHANCE = 0.5  # that a row without a bound fits once it has one: there is no evidence
_ANY_GAIN = 1.0  # points that an answer is worth more than none, and the hope for a model that no card rates


_Scored = tuple[float, Candidate, Suggestion]


class Goal(NamedTuple):
    """The question: a budget on a device, by accuracies on a data set (None: published ones)."""

    budget: Budget
    device: str
    dataset: str | None
    cards: Mapping[str, ModelCard]

    def published_top1(self, candidate: Candidate) -> float | None:
        """Return the published accuracy of a model in percent, which is the hope for an evaluation."""
        card = self.cards.get(candidate.model)
        return card.top1_percent if card else None


def outcome_of(picked: object, rejected: Collection[Rejection]) -> Outcome:
    """Return how the question ends: chosen, or whether that is known, not measured yet, or impossible to run."""
    if picked:
        return "chosen"
    if any(rejection.is_open for rejection in rejected):
        return "unmeasured"
    in_question = [rejection for rejection in rejected if rejection.kind not in ("not_asked", "superseded")]
    if any(rejection.kind == "budget" for rejection in in_question):
        return "infeasible"
    failed = [any(reason.code == "cannot_run" for reason in rejection.reasons) for rejection in in_question]
    return "unsupported" if failed and all(failed) else "unmeasured"


def suggest(picked: Candidate | None, rejected: Iterable[Rejection], goal: Goal) -> tuple[Suggestion, ...]:
    """Return up to three suggestions, best first: measure a predicted pick, then candidates that may beat it.

    Those are weighed by the accuracy they would gain and the chance that they fit. The chance is taken as even between
    the ends of the interval, in logarithms. An artifact without an accuracy on the data set is to be evaluated;
    its hoped gain is that of the published accuracies.
    """
    scored: list[_Scored] = []
    if picked and picked.basis:
        scored.append((math.inf, picked, _measure(picked, PICK_IS_PREDICTED, goal)))
    for rejection in rejected:
        if rejection.is_open:
            score = _measurement if rejection.kind != "not_asked" else _evaluation
            scored += score(rejection.candidate, picked, goal)
    best_first = sorted(scored, key=lambda entry: (-entry[0], rank(entry[1])))
    by_command = dict[str, Suggestion]()
    for gain, _, suggestion in best_first:
        if gain > 0:
            # An artifact is evaluated once for all thread counts.
            by_command.setdefault(suggestion.command, suggestion)
    return tuple(by_command.values())[:_COUNT]


def _measurement(candidate: Candidate, picked: Candidate | None, goal: Goal) -> Iterator[_Scored]:
    gain = _gain(candidate, picked)
    if gain is not None:
        why = why_measure(candidate, goal.budget.percentile, gain if picked else None)
        yield _chance(candidate, goal.budget) * gain, candidate, _measure(candidate, why, goal)


def _gain(candidate: Candidate, picked: Candidate | None) -> float | None:
    """Return the points of accuracy more than the pick has; None where it would not be picked in its place."""
    top1 = candidate.top1_percent
    if picked is None:
        return _ANY_GAIN + (top1 or 0.0)
    return (top1 or 0.0) - (picked.top1_percent or 0.0) if tells_apart(candidate, picked) else None


def _evaluation(candidate: Candidate, picked: Candidate | None, goal: Goal) -> Iterator[_Scored]:
    # A model that was never exported has no artifact to be evaluated.
    published = goal.published_top1(candidate)
    of_pick = goal.published_top1(picked) if picked else None
    gain = _ANY_GAIN if published is None or of_pick is None else published - of_pick
    gain = gain if picked else _ANY_GAIN + (published or 0.0)
    if candidate.artifact_sha256 and gain > 0:
        fits = not broken_limits(candidate, replace(goal.budget, min_top1_percent=None))
        why = why_evaluate(goal.dataset or "", published, fits=fits)
        yield (1.0 if fits else _chance(candidate, goal.budget)) * gain, candidate, _evaluate(candidate, why, goal)


def _chance(candidate: Candidate, budget: Budget) -> float:
    basis, limit = candidate.basis, budget.max_latency_ms
    if basis is None or not basis.lower_ms or not basis.upper_ms:
        return _GAP_CHANCE
    if limit is None or basis.upper_ms <= limit:
        return 1.0
    return max(0.0, math.log(limit / basis.lower_ms) / math.log(basis.upper_ms / basis.lower_ms))


def _measure(candidate: Candidate, why: str, goal: Goal) -> Suggestion:
    words = ["--models", candidate.model, "--targets", candidate.target, "--precision", candidate.precision]
    size = image_size(candidate.input_shape)
    if size and (OWN_FILE in candidate.model or NOT_AT_CARD_SIZE in candidate.flags):
        words += ["--input-size", "x".join(map(str, size))]
    words += ["--threads", str(candidate.threads)] if candidate.threads else []
    command = shlex.join(("edgevit", "sweep", *words, "--device", goal.device))
    return Suggestion(*_identity(candidate), why, command, size)


def _evaluate(candidate: Candidate, why: str, goal: Goal) -> Suggestion:
    # The folder is the one where `edgevit export` puts an artifact by default. The place of the images is not known.
    from edgevit.artifacts.folder import folder_name

    folder = f"artifacts/{folder_name(candidate.model, candidate.target, candidate.precision)}"
    command = shlex.join(("edgevit", "evaluate", folder, "--data", "FOLDER", "--dataset", goal.dataset or ""))
    return Suggestion(*_identity(candidate), why, command, image_size(candidate.input_shape), "evaluate")


def _identity(candidate: Candidate) -> tuple[str, str, str, int]:
    return (candidate.model, candidate.target, candidate.precision, candidate.threads)
