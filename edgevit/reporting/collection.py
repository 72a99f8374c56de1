"""Collects a report from a database. The chooser decides which rows count, what is picked, and what is on the front.

Each unit has its own part (units.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from edgevit import __version__
from edgevit.artifacts.source_files import SourceFiles
from edgevit.measurement.compare import resolution
from edgevit.measurement.summary import CONFIDENCE
from edgevit.records.choice import Candidate, Choice
from edgevit.records.measurement import Measurement
from edgevit.records.model import IMAGENET, ModelCard
from edgevit.records.network import describe_network, network_labels
from edgevit.reporting.candidates import origin
from edgevit.reporting.chooser_answers import ReportContext, answers
from edgevit.reporting.evaluations import evaluation_parts
from edgevit.reporting.evidence import ArtifactScan, find_artifacts, model_parts
from edgevit.reporting.options import DEFAULTS, ReportOptions
from edgevit.reporting.page_answers import CandidateKey, device_answers, key_of
from edgevit.reporting.page_records import PERCENTILES, DevicePart, Entry, Latency, Report
from edgevit.reporting.units import Unit, device_part, find_units
from edgevit.selection.accuracy import TOP1, Ratings
from edgevit.selection.constraints import latency_for_budget
from edgevit.selection.limits import check_confidence
from edgevit.selection.wording import remarks
from edgevit.store import LatencyDB

# The kind of rejection that the page lists: that a row cannot be chosen is knowledge as well.
_SHOWN: Final = "unusable"


def collect(
    database: LatencyDB,
    cards: Mapping[str, ModelCard],
    options: ReportOptions = DEFAULTS,
    *,
    command: str = "edgevit report",
    choose_options: Sequence[str] = (),
    now: datetime | None = None,
    on_device: Callable[[str, int], None] | None = None,
) -> Report:
    """Collect what a report shows.

    command: what the page says made it. choose_options: see Report. now: the time to which ages are counted, UTC; None:
    the clock's. on_device: called before each device is asked about, with its label and the number of devices, because
    predicting takes its time.

    Raises StoreError for a database without rows, UsageError where all rows are published and were not asked for, and
    for a confidence outside 0 to 1.
    """
    check_confidence(options.confidence)
    now = now or datetime.now(UTC)
    units = find_units(database, options.devices, options.published)
    accuracies = database.accuracies(metric=TOP1)
    ratings = Ratings.of(accuracies, options.dataset)
    entries: list[Entry] = []
    parts: list[DevicePart] = []
    context = ReportContext(cards, ratings, options, SourceFiles(), database.foreign_origins())
    for number, unit_answers in enumerate(answers(database, units, context, on_device)):
        unit, listed = units[number], unit_answers.listed
        of_unit = _entries(unit, listed, number, cards, now)
        entry_places = {key: len(entries) + number_in_unit for number_in_unit, key in enumerate(of_unit)}
        page_answers = device_answers(unit_answers, entry_places, resolution(unit.floors)[0])
        parts.append(device_part(unit, listed, page_answers, options.published))
        entries += of_unit.values()
    folder = options.artifacts
    artifacts = find_artifacts(folder) if folder is not None else ArtifactScan((), ())
    return Report(
        command=command,
        created=now.isoformat(timespec="seconds"),
        edgevit=__version__,
        dataset=ratings.dataset or IMAGENET,
        evaluated=ratings.dataset is not None,
        published=options.published,
        confidence=CONFIDENCE,
        predicted_confidence=options.confidence if options.predict else None,
        devices=tuple(parts),
        entries=tuple(entries),
        models=model_parts(entries, cards, artifacts.artifacts, evaluation_parts(accuracies, database.confusions())),
        artifacts_read=folder is not None,
        problems=artifacts.problems,
        choose_options=tuple(choose_options),
    )


# Rows


def _entries(
    unit: Unit, choices: Sequence[Choice], number: int, cards: Mapping[str, ModelCard], now: datetime
) -> dict[CandidateKey, Entry]:
    """Make an entry of each candidate, with all percentiles of it that are known.

    What may be chosen comes first, best first, then what may not.
    """
    by_percentile = [{key_of(candidate): candidate for candidate in _shown(choice)} for choice in choices]
    reasons = {
        key_of(rejection.candidate): rejection.reason for rejection in choices[0].rejected if rejection.kind == _SHOWN
    }
    rows = {row.measurement_id: row for row in unit.rows}
    labels = network_labels(candidate for candidates in by_percentile for candidate in candidates.values())
    entries: dict[CandidateKey, Entry] = {}
    for key in dict.fromkeys(key for candidates in by_percentile for key in candidates):
        at_each = [candidates.get(key) for candidates in by_percentile]
        candidate = next(filter(None, at_each))
        row = rows.get(candidate.measurement_id)
        latencies = [_latency(one, row if q == 50 else None) for one, q in zip(at_each, PERCENTILES, strict=True)]
        source = row or cards.get(candidate.model)
        family = source.family if source else ""
        entry = _entry(unit, number, candidate, family, latencies, reasons.get(key), row, now)
        entries[key] = dataclasses.replace(entry, weights=labels.get((entry.model, entry.network_id), entry.weights))
    return entries


def _shown(choice: Choice) -> list[Candidate]:
    return [*choice.fitting, *(rejection.candidate for rejection in choice.rejected if rejection.kind == _SHOWN)]


def _entry(
    unit: Unit,
    number: int,
    candidate: Candidate,
    family: str,
    latencies: Sequence[Latency],
    reason: str | None,
    row: Measurement | None,
    now: datetime,
) -> Entry:
    dated = bool(candidate.measured) and not (row and "started" in row.untold)
    p50, p90, p99 = latencies
    return Entry(
        **{name: getattr(candidate, name) for name in _SAME},
        device=number,
        family=family,
        provenance=origin(candidate),
        p50=p50,
        p90=p90,
        p99=p99,
        remarks=remarks(candidate),
        usable=reason is None,
        reason=reason or "",
        provider=row.provider if row else "",
        measured=candidate.measured if dated else "",
        age_days=(now - datetime.fromisoformat(candidate.measured)).days if dated else None,
        epoch=_epoch(unit, candidate) if dated else None,
        processes=row.processes if row else 0,
        runs=row.runs if row else 0,
        peak_memory_mb=row.peak_rss_bytes / 1e6 if row and row.peak_rss_bytes else None,
        source=row.source if row else "",
        licence=row.licence if row else "",
        weights=describe_network(candidate) if candidate.network is not None and candidate.network_id else "",
    )


# Fields of both records that do not hold the same thing.
_DIFFERENT = {"measured", "device", "licence"}
# Fields that an Entry takes from a Candidate.
_SAME = tuple(
    {field.name for field in dataclasses.fields(Entry)}
    & {field.name for field in dataclasses.fields(Candidate)} - _DIFFERENT
)


def _latency(candidate: Candidate | None, median_of: Measurement | None) -> Latency:
    if candidate is None:
        return Latency(None, None, None, None, None)
    low_ns = median_of.p50_low_ns if median_of else None
    low_ms, high_ms = candidate.latency_ms if low_ns is None else low_ns / 1e6, candidate.latency_upper_ms
    if candidate.basis:
        low_ms, high_ms = candidate.basis.lower_ms, candidate.basis.upper_ms
    held_ms = latency_for_budget(candidate)
    return Latency(candidate.latency_ms, low_ms, high_ms, candidate.latency_upper_ms, held_ms, candidate.basis)


def _epoch(unit: Unit, candidate: Candidate) -> int:
    """Count the epochs that had been opened when a row was measured."""
    when = datetime.fromisoformat(candidate.measured)
    return sum(datetime.fromisoformat(epoch.started) <= when for epoch in unit.epochs)
