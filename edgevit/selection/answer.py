"""The answer from rows and predictions: each of them is in it once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from edgevit.measurement.compare import resolution
from edgevit.records.choice import Budget, Candidate, Choice, Note, Rejection
from edgevit.records.measurement import EMULATED, Measurement, NoiseFloor
from edgevit.records.model import IMAGENET, ModelCard
from edgevit.records.origin import Origin
from edgevit.selection.accuracy import Ratings
from edgevit.selection.candidates import (
    EVERYTHING,
    CandidateFilter,
    Exclusion,
    PredictedCell,
    measured_candidate,
    predicted_candidate,
    why_excluded_by_filter,
    why_model_excluded,
    why_row_excluded,
    why_task_excluded,
    zoo_in_question,
)
from edgevit.selection.caveats import (
    nearness,
    notes_on_accuracy,
    notes_on_medians,
    notes_on_networks,
    notes_on_omissions,
    notes_on_precision,
    notes_on_prediction,
    notes_on_rows,
)
from edgevit.selection.commands import NO_COMMANDS, Commands
from edgevit.selection.constraints import latency_for_budget, why_excluded_by_budget, why_excluded_by_dataset
from edgevit.selection.limits import Percentile, PercentileEstimate
from edgevit.selection.outdated import NO_FILES, Judged, NetworkFiles, exclude_outdated, notes_on_files
from edgevit.selection.ranking import front_of, nearest, rank, ranked
from edgevit.selection.suggestions import Goal, outcome_of, suggest
from edgevit.selection.supersession import superseded_rows
from edgevit.selection.versions import newest_engines
from edgevit.selection.wording import describe_rejection

PUBLISHED = Ratings()


class Evidence(NamedTuple):
    """The evidence of an answer beside the rows; every part may be absent.

    floors: the noise floors of the rows' devices. ratings: the accuracies to choose by. former: ids of rows from
    epochs that are over. predicted: cells without a row. estimates: by measurement_id, of a percentile that rows do
    not keep. commands: those that run here. files: what is known of the files of networks here.
    origins: by measurement_id, of rows that were not measured here.
    """

    floors: Collection[NoiseFloor] = ()
    ratings: Ratings = PUBLISHED
    former: Collection[str] = ()
    predicted: Sequence[PredictedCell] = ()
    estimates: Mapping[str, PercentileEstimate] = {}
    commands: Commands = NO_COMMANDS
    files: NetworkFiles = NO_FILES
    origins: Mapping[str, Origin] = {}


NOTHING = Evidence()


class _Judge(NamedTuple):
    """The question of one answer. newest: the newest version of each engine on the device."""

    budget: Budget
    cards: Mapping[str, ModelCard]
    candidate_filter: CandidateFilter
    evidence: Evidence
    newest: Mapping[object, str]

    def rows(self, rows: Sequence[Measurement]) -> Iterator[Judged]:
        """Yield each row as a candidate, and its exclusion, if any."""
        former, ratings = self.evidence.former, self.evidence.ratings
        percentile = Percentile(self.budget.percentile, self.evidence.estimates)
        current = [row for row in rows if row.measurement_id not in former and EMULATED not in row.flags]
        superseded = superseded_rows(current, percentile)
        for row in rows:
            card = self.cards.get(row.model)
            candidate = measured_candidate(row, ratings.top1(row, card), percentile.of(row), self.newest, card)
            if origin := self.evidence.origins.get(row.measurement_id):
                candidate = replace(candidate, origin=origin.label)
            excluded = why_row_excluded(row, candidate, self.candidate_filter, superseded, former)
            yield candidate, excluded or self._why_no_answer(candidate)

    def predictions(self) -> Iterator[Judged]:
        """Yield each prediction as a candidate, and its exclusion, if any."""
        for prediction in self.evidence.predicted:
            cell, card = prediction.cell, self.cards.get(prediction.cell.model)
            candidate = predicted_candidate(prediction, self.evidence.ratings.top1(cell, card), card)
            reason = why_excluded_by_filter(cell, self.candidate_filter)
            reason = reason or why_model_excluded(candidate, self.candidate_filter)
            reason = reason or why_task_excluded(candidate, self.candidate_filter, published=cell.published_only)
            if reason:
                yield candidate, Exclusion((reason,), None, "not_asked")
            elif prediction.refusal:
                yield candidate, Exclusion((prediction.refusal,), None, "unmeasured")
            else:
                yield candidate, self._why_no_answer(candidate)

    def _why_no_answer(self, candidate: Candidate) -> Exclusion | None:
        dataset = None if self.candidate_filter.unrated else self.evidence.ratings.dataset
        unrated = why_excluded_by_dataset(candidate, self.budget, dataset)
        return unrated or why_excluded_by_budget(candidate, self.budget)


def choose_among(
    rows: Sequence[Measurement],
    device: str,
    budget: Budget,
    *,
    cards: Mapping[str, ModelCard],
    candidate_filter: CandidateFilter = EVERYTHING,
    evidence: Evidence = NOTHING,
) -> Choice:
    """Return the answer from these rows.

    Every row and prediction is in it once: in `fitting` (best first, the pick leads) or in `rejected`.
    """
    ratings, newest = evidence.ratings, newest_engines(rows)
    judge = _Judge(budget, cards, candidate_filter, evidence, newest)
    judged = [*judge.rows(rows), *judge.predictions()]
    if not candidate_filter.outdated:
        judged = exclude_outdated(judged, evidence.files)
    noise = resolution(evidence.floors)
    fitting = ranked((candidate for candidate, excluded in judged if excluded is None), noise[0], budget.objective)
    rejected = _rejections(judged)
    picked = fitting[0] if fitting else None
    counted = [row for row in rows if candidate_filter.published or row.provenance != "published"]
    current = [row for row in rows if row.measurement_id not in evidence.former and EMULATED not in row.flags]
    zoo = zoo_in_question(current, cards, candidate_filter)
    goal = Goal(budget, ratings.dataset, cards, evidence.commands._replace(zoo=cards.keys()))
    notes: list[Note] = [
        *notes_on_rows(counted, device, picked, newest),
        *notes_on_prediction(picked),
        *notes_on_precision([one for one, excluded in judged if _is_in_question(excluded)]),
        *notes_on_accuracy(fitting, budget.objective),
        *notes_on_networks([one for one, excluded in judged if _is_in_question(excluded)], picked),
        *notes_on_files(picked, evidence.files),
        *nearness(fitting, budget, noise),
        *ratings.notes(counted, [candidate for candidate, _ in judged], picked),
        *notes_on_omissions(len(rows) - len(counted), rejected),
        *notes_on_medians(rows, fitting, rejected, budget),
    ]
    return Choice(
        device=device,
        budget=budget,
        picked=picked,
        fitting=tuple(fitting),
        rejected=tuple(rejected),
        nearest_misses=() if picked else nearest(rejected),
        unmeasured=tuple(sorted(zoo - {row.model for row in counted})),
        notes=tuple(notes),
        dataset=ratings.dataset or IMAGENET,
        outcome=outcome_of(picked, rejected),
        front=tuple(front_of(fitting, lambda candidate: (candidate.top1_percent, latency_for_budget(candidate)))),
        measure_next=suggest(fitting, rejected, goal),
    )


def _is_in_question(excluded: Exclusion | None) -> bool:
    return excluded is None or excluded.is_open or excluded.kind not in ("not_asked", "superseded")


def _rejections(judged: Sequence[Judged]) -> list[Rejection]:
    rejected = [
        Rejection(candidate, excluded.reasons, describe_rejection(excluded.kind, excluded.reasons), *excluded[1:])
        for candidate, excluded in judged
        if excluded is not None
    ]
    return sorted(rejected, key=lambda rejection: rank(rejection.candidate))
