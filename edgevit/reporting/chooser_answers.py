"""The chooser's answers for each unit without a latency budget: one per percentile and setting of the filters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from typing import NamedTuple

from edgevit.records.choice import Budget, Choice
from edgevit.records.measurement import Measurement
from edgevit.records.model import ModelCard
from edgevit.records.origin import Origin
from edgevit.reporting.options import ReportOptions
from edgevit.reporting.page_records import PERCENTILES
from edgevit.reporting.units import Unit
from edgevit.selection import CandidateFilter, Evidence, OtherDevices, choose_among, predicted_cells, read_other_devices
from edgevit.selection.accuracy import Ratings
from edgevit.selection.outdated import NO_FILES, NetworkFiles
from edgevit.store import LatencyDB

RowsOfOthers = Callable[[Collection[str]], Sequence[Measurement]]


class ReportContext(NamedTuple):
    """What every unit is judged by beside its own rows."""

    cards: Mapping[str, ModelCard]
    ratings: Ratings
    options: ReportOptions
    files: NetworkFiles = NO_FILES
    origins: Mapping[str, Origin] = {}


class Setting(NamedTuple):
    """A question that options of `edgevit choose` and filters of the page ask alike.

    predicted: predictions are candidates. published: rows that others published are. reconstructed: models are whose
    papers published no weights.
    """

    percentile: int
    predicted: bool
    published: bool
    reconstructed: bool


class UnitAnswers(NamedTuple):
    """The answers for one unit, without a latency budget.

    listed: one for each of PERCENTILES, with every candidate that the page lists, those without a known accuracy
    included. by_setting: the answers of `edgevit choose`.
    """

    listed: tuple[Choice, ...]
    by_setting: Mapping[Setting, Choice]


def answers(
    database: LatencyDB,
    units: Sequence[Unit],
    context: ReportContext,
    on_device: Callable[[str, int], None] | None = None,
) -> Iterator[UnitAnswers]:
    """Yield the answers for each unit. Call `on_device` before each, with its label and the number of units."""
    shared: OtherDevices | None = None
    for unit in units:
        if on_device:
            on_device(unit.label, len(units))
        beside = read_other_devices(database, unit.device_id, context.cards)
        if shared is None:
            shared = OtherDevices(cache(beside.models), beside.rows, cache(beside.graphs), cache(beside.operators))
        shared = shared._replace(rows=_cached(beside.rows))
        yield _unit_answers(unit, context, shared)


def _cached(others: RowsOfOthers) -> RowsOfOthers:
    """Return a function that reads the same rows once: percentiles mostly need the same ones."""
    read = cache(others)
    return lambda models: read(frozenset(models))


def _unit_answers(unit: Unit, context: ReportContext, others: OtherDevices) -> UnitAnswers:
    listed: list[Choice] = []
    by_setting: dict[Setting, Choice] = {}
    for percentile in PERCENTILES:
        evidence = _evidence(unit, percentile, context, others)
        everything = CandidateFilter(published=context.options.published, reconstructed=True, unrated=True)
        listed.append(_choice(unit, percentile, context, everything, evidence))
        by_setting |= _settings(unit, context, listed[-1], evidence)
    return UnitAnswers(tuple(listed), by_setting)


def _evidence(unit: Unit, percentile: int, context: ReportContext, others: OtherDevices) -> Evidence:
    options, evidence = context.options, Evidence(unit.floors, context.ratings, unit.former, files=context.files)
    evidence = evidence._replace(origins=context.origins)
    if not options.predict:
        return evidence
    current = [row for row in unit.rows if row.measurement_id not in unit.former]
    candidate_filter = CandidateFilter(published=options.published)
    predicted = predicted_cells(current, context.cards, candidate_filter, percentile, options.confidence, others)
    return evidence._replace(predicted=predicted)


def _settings(unit: Unit, context: ReportContext, listed: Choice, evidence: Evidence) -> dict[Setting, Choice]:
    """Return the answers at the percentile of `listed`, which is the answer with every candidate.

    Predictions rest on published rows wherever the report has them. A setting that takes nothing away shares its choice
    with the one that does not set it.
    """
    percentile, measured = listed.budget.percentile, evidence._replace(predicted=())
    is_any_predicted = any(candidate.basis for candidate in listed.fitting)
    is_any_rebuilt = any(candidate.top1_provenance == "reconstructed" for candidate in listed.fitting)
    by_setting: dict[Setting, Choice] = {}
    for published, reconstructed in product({False, context.options.published}, (True, False)):
        setting = Setting(percentile, False, published, reconstructed)
        candidate_filter = CandidateFilter(published=published, reconstructed=reconstructed)
        if reconstructed or is_any_rebuilt:
            choice = _choice(unit, percentile, context, candidate_filter, measured)
        else:
            choice = by_setting[setting._replace(reconstructed=True)]
        by_setting[setting] = choice
        if published == context.options.published:
            if is_any_predicted:
                choice = _choice(unit, percentile, context, candidate_filter, evidence)
            by_setting[setting._replace(predicted=True)] = choice
    return by_setting


def _choice(
    unit: Unit, percentile: int, context: ReportContext, candidate_filter: CandidateFilter, evidence: Evidence
) -> Choice:
    return choose_among(
        unit.rows,
        unit.label,
        Budget(percentile=percentile),
        cards=context.cards,
        candidate_filter=candidate_filter,
        evidence=evidence,
    )
