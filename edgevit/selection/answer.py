"""The answer from rows and predictions: each of them is in it once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from edgevit.measurement.compare import resolution
from edgevit.records.choice import Budget, Candidate, Choice, Rejection
from edgevit.records.measurement import EMULATED, Measurement, NoiseFloor
from edgevit.records.model import IMAGENET, ModelCard
from edgevit.selection.accuracy import Ratings
from edgevit.selection.candidates import (
    EVERYTHING,
    Predicted,
    Verdict,
    Wanted,
    candidate_of,
    hindrance,
    unasked,
    unwanted,
)
from edgevit.selection.caveats import left_out, nearness, notes_on, on_accuracy, on_prediction
from edgevit.selection.constraints import held, unevaluated, verdict_of
from edgevit.selection.limits import Percentile
from edgevit.selection.ranking import front_of, nearest, rank, ranked
from edgevit.selection.suggestions import Aim, do_next, outcome_of
from edgevit.selection.supersession import overruled
from edgevit.selection.versions import newest_engines

PUBLISHED = Ratings()


class Known(NamedTuple):
    """What an answer is made of, beside the rows. Every part may be absent.

    floors: the noise floors of the rows' devices. ratings: the accuracies to choose by. former: ids of rows from before
    their device changed. predicted: of what the device has no row of. told: readings of percentiles that rows do not
    keep.
    """

    floors: Collection[NoiseFloor] = ()
    ratings: Ratings = PUBLISHED
    former: Collection[str] = ()
    predicted: Sequence[Predicted] = ()
    told: Mapping[str, tuple[int | None, int | None]] = {}


NOTHING = Known()


def choose_among(
    rows: Sequence[Measurement],
    device: str,
    budget: Budget,
    *,
    cards: Mapping[str, ModelCard],
    wanted: Wanted = EVERYTHING,
    known: Known = NOTHING,
) -> Choice:
    """The answer from these rows. Every row and prediction is in it once: `fitting` (best first, the pick leads) or
    `rejected`.
    """
    floor, ratings, percentile = resolution(known.floors), known.ratings, Percentile(budget.percentile, known.told)
    current = [row for row in rows if row.measurement_id not in known.former]
    spoken_for = overruled([row for row in current if EMULATED not in row.flags], percentile)
    newest = newest_engines(rows)
    judged: list[tuple[Candidate, Verdict | None]] = []
    for row in rows:
        card = cards.get(row.model)
        candidate = candidate_of(row, ratings.top1(row, card), percentile.of(row), newest, card)
        hindered = hindrance(row, candidate, wanted, spoken_for, known.former)
        judged.append((candidate, hindered or _held_against(candidate, budget, wanted, ratings)))
    judged += [_judged(item, budget, cards, wanted, ratings) for item in known.predicted]
    fitting = ranked((candidate for candidate, verdict in judged if verdict is None), floor[0])
    rejected = sorted(
        (Rejection(candidate, *verdict) for candidate, verdict in judged if verdict is not None),
        key=lambda rejection: rank(rejection.candidate),
    )
    picked = fitting[0] if fitting else None
    counted = [row for row in rows if wanted.published or row.provenance != "published"]
    return Choice(
        device=device,
        budget=budget,
        picked=picked,
        fitting=tuple(fitting),
        rejected=tuple(rejected),
        nearest_misses=() if picked else nearest(rejected),
        unmeasured=tuple(sorted(set(cards) - {row.model for row in counted})),
        notes=(
            *notes_on(counted, device, picked, newest),
            *on_prediction(picked),
            *on_accuracy(fitting),
            *nearness(fitting, budget, floor),
            *ratings.notes(counted, [candidate for candidate, _ in judged], picked),
            *left_out(rows, counted, rejected),
        ),
        dataset=ratings.dataset or IMAGENET,
        outcome=outcome_of(picked, rejected),
        front=tuple(front_of(fitting, lambda item: (item.top1_percent, held(item)))),
        measure_next=do_next(picked, rejected, Aim(budget, device, ratings.dataset, cards)),
    )


def _judged(
    item: Predicted, budget: Budget, cards: Mapping[str, ModelCard], wanted: Wanted, ratings: Ratings
) -> tuple[Candidate, Verdict | None]:
    """A prediction as a candidate, and why it is not an answer."""
    row, card = item.row, cards.get(item.row.model)
    candidate = candidate_of(row, ratings.top1(row, card), item.reading, {}, card, item.basis)
    if no := unwanted(row, wanted) or unasked(candidate, wanted):
        return candidate, Verdict(no, None, "not_asked")
    if item.why:
        return candidate, Verdict(f"not predicted: {item.why}", None, "unmeasured")
    return candidate, _held_against(candidate, budget, wanted, ratings)


def _held_against(candidate: Candidate, budget: Budget, wanted: Wanted, ratings: Ratings) -> Verdict | None:
    """Why a candidate that can run is not an answer."""
    dataset = None if wanted.unrated else ratings.dataset
    return unevaluated(candidate, budget, dataset) or verdict_of(candidate, budget)
