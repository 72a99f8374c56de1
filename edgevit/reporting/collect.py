"""A database into what the page shows. Which rows count, and what is held against a budget, the chooser says.

Each unit has its own part (units.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from edgevit import __version__
from edgevit.measurement.summary import CONFIDENCE
from edgevit.records.choice import Candidate, Choice
from edgevit.records.measurement import Measurement
from edgevit.records.model import IMAGENET, ModelCard
from edgevit.reporting.candidates import origin
from edgevit.reporting.chooser_answers import Asked, answers
from edgevit.reporting.evidence import Found, find_artifacts, model_parts
from edgevit.reporting.page_records import PERCENTILES, DevicePart, Entry, Latency, Report
from edgevit.reporting.units import Unit, device_part, find_units
from edgevit.selection import PredictionOptions
from edgevit.selection.accuracy import TOP1, Ratings
from edgevit.selection.constraints import latency_for_budget
from edgevit.selection.limits import check_confidence
from edgevit.selection.wording import remarks
from edgevit.store import LatencyDB

_SHOWN = "unusable"  # of the kinds of rejection: a row that cannot be chosen is knowledge, too


def collect(
    database: LatencyDB,
    cards: Mapping[str, ModelCard],
    *,
    devices: Collection[str] | None = None,
    dataset: str | None = None,
    published: bool = False,
    predict: bool = True,
    confidence: float = 0.9,
    artifacts: Path | None = None,
    command: str = "edgevit report",
    now: datetime | None = None,
    tell: Callable[[str, int], None] | None = None,
) -> Report:
    """What a report of these devices says: names, ids or classes; None: of all that have rows.

    `dataset`, `published`, `predict` and `confidence` as for edgevit.choose. `artifacts`: a folder of artifacts, whose
    manifests tell more of folding and parity than rows do. `now`: what ages are counted to, UTC; None: the clock.
    `tell`: is told of each device, before it is asked about, with the number of devices: predicting takes its time.
    Raises StoreError for a database without rows, UsageError where all rows are published and were not asked for, and
    for a confidence that is none.
    """
    check_confidence(confidence)
    now = now or datetime.now(UTC)
    units = find_units(database, devices, published)
    ratings = Ratings.of(database.accuracies(metric=TOP1), dataset)
    entries: list[Entry] = []
    parts: list[DevicePart] = []
    asked = Asked(cards, ratings, published, PredictionOptions(predict, confidence))
    for number, choices in enumerate(answers(database, units, asked, tell)):
        entries += _entries(units[number], choices, number, cards, now)
        parts.append(device_part(units[number], choices, published))
    found = find_artifacts(artifacts) if artifacts is not None else Found((), ())
    return Report(
        command=command,
        made=now.isoformat(timespec="seconds"),
        edgevit=__version__,
        dataset=ratings.dataset or IMAGENET,
        published=published,
        confidence=CONFIDENCE,
        predicted_confidence=confidence if predict else None,
        devices=tuple(parts),
        entries=tuple(entries),
        models=model_parts(entries, cards, found.artifacts),
        artifacts_read=artifacts is not None,
        problems=found.problems,
    )


# Rows


def _entries(
    unit: Unit, choices: Sequence[Choice], number: int, cards: Mapping[str, ModelCard], now: datetime
) -> list[Entry]:
    """What may be chosen, best first, then what may not; each with all percentiles that something is known of."""
    of_percentile = [{_name(item): item for item in _shown(choice)} for choice in choices]
    reasons = {_name(item.candidate): item.reason for item in choices[0].rejected if item.kind == _SHOWN}
    rows = {row.measurement_id: row for row in unit.rows}
    found = []
    for name in dict.fromkeys(name for known in of_percentile for name in known):
        items = [known.get(name) for known in of_percentile]
        item = next(filter(None, items))
        row = rows.get(item.measurement_id)
        latencies = [_latency(one, row if q == 50 else None) for one, q in zip(items, PERCENTILES, strict=True)]
        known = row or cards.get(item.model)
        found.append(_entry(unit, number, item, known.family if known else "", latencies, reasons.get(name), row, now))
    return found


def _shown(choice: Choice) -> list[Candidate]:
    return [*choice.fitting, *(item.candidate for item in choice.rejected if item.kind == _SHOWN)]


def _name(item: Candidate) -> tuple[object, ...]:
    return (item.measurement_id, item.model, item.target, item.precision, item.threads)


def _entry(
    unit: Unit,
    number: int,
    item: Candidate,
    family: str,
    latencies: Sequence[Latency],
    reason: str | None,
    row: Measurement | None,
    now: datetime,
) -> Entry:
    dated = bool(item.measured) and not (row and "started" in row.untold)
    p50, p90, p99 = latencies
    return Entry(
        **{name: getattr(item, name) for name in _SAME},
        device=number,
        family=family,
        provenance=origin(item),
        p50=p50,
        p90=p90,
        p99=p99,
        remarks=remarks(item),
        usable=reason is None,
        reason=reason or "",
        provider=row.provider if row else "",
        measured=item.measured if dated else "",
        age_days=(now - datetime.fromisoformat(item.measured)).days if dated else None,
        epoch=_epoch(unit, item) if dated else None,
        processes=row.processes if row else 0,
        runs=row.runs if row else 0,
        peak_memory_mb=row.peak_rss_bytes / 1e6 if row and row.peak_rss_bytes else None,
        source=row.source if row else "",
        licence=row.licence if row else "",
    )


_DIFFERENT = {"measured", "device", "licence"}  # in both, and not the same thing
# What an Entry has under the same name as a Candidate.
_SAME = tuple(
    {field.name for field in dataclasses.fields(Entry)}
    & {field.name for field in dataclasses.fields(Candidate)} - _DIFFERENT
)


def _latency(item: Candidate | None, median_of: Measurement | None) -> Latency:
    if item is None:
        return Latency(None, None, None, None, None)
    low_ns = median_of.p50_low_ns if median_of else None
    low_ms, high_ms = item.latency_ms if low_ns is None else low_ns / 1e6, item.latency_upper_ms
    if item.basis:
        low_ms, high_ms = item.basis.lower_ms, item.basis.upper_ms
    return Latency(item.latency_ms, low_ms, high_ms, item.latency_upper_ms, latency_for_budget(item), item.basis)


def _epoch(unit: Unit, item: Candidate) -> int:
    """How many epochs had been opened when a row was measured."""
    when = datetime.fromisoformat(item.measured)
    return sum(datetime.fromisoformat(epoch.started) <= when for epoch in unit.epochs)
