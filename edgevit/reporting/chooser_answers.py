"""What the chooser says of each unit when nothing is limited, once for each percentile: what the page is made of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from edgevit.records.choice import Budget, Choice
from edgevit.records.measurement import Measurement
from edgevit.records.model import ModelCard
from edgevit.reporting.page_records import PERCENTILES
from edgevit.reporting.units import Unit
from edgevit.selection import (
    CandidateFilter,
    Evidence,
    OtherDevices,
    PredictionOptions,
    choose_among,
    other_devices,
    predictions,
)
from edgevit.selection.accuracy import Ratings
from edgevit.store import LatencyDB

Others = Callable[[Collection[str]], Sequence[Measurement]]


class Asked(NamedTuple):
    """What is asked of every unit. published: rows of others count, too; how: whether and how sure to predict."""

    cards: Mapping[str, ModelCard]
    ratings: Ratings
    published: bool
    how: PredictionOptions

    @property
    def wanted(self) -> CandidateFilter:
        """Reconstructed models are in question: the page has them, and a filter that leaves them out at first."""
        return CandidateFilter(published=self.published, reconstructed=True, unrated=True)


def answers(
    database: LatencyDB, units: Sequence[Unit], asked: Asked, tell: Callable[[str, int], None] | None = None
) -> Iterator[list[Choice]]:
    """For each unit its answers, in the order of PERCENTILES: those of `edgevit choose` for its device_id.

    `tell` is told of each, before it is asked about, and how many there are.
    """
    shared: OtherDevices | None = None
    for unit in units:
        if tell:
            tell(unit.label, len(units))
        than = other_devices(database, unit.device_id, asked.cards)
        if shared is None:
            shared = OtherDevices(cache(than.models), than.rows, cache(than.graphs), cache(than.operators))
        shared = shared._replace(rows=_kept(than.rows))
        yield [_answer(unit, percentile, asked, shared) for percentile in PERCENTILES]


def _kept(others: Others) -> Others:
    """The same, which reads the same rows once: percentiles mostly need the same ones."""
    read = cache(others)
    return lambda models: read(frozenset(models))


def _answer(unit: Unit, percentile: int, asked: Asked, elsewhere: OtherDevices) -> Choice:
    known = Evidence(unit.floors, asked.ratings, unit.former)
    if asked.how.enabled:
        current = [row for row in unit.rows if row.measurement_id not in unit.former]
        confidence = asked.how.confidence
        found = predictions(current, asked.cards, asked.wanted, percentile, confidence, elsewhere)
        known = known._replace(predicted=found)
    budget = Budget(percentile=percentile)
    return choose_among(unit.rows, unit.label, budget, cards=asked.cards, candidate_filter=asked.wanted, evidence=known)
