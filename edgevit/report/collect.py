"""A database into what the page shows. Which rows count, and what is held against a budget, the chooser says.

Each unit has its own part, by device_id: names may be shared by several. A point has the weakest provenance of what
it is made of: predicted, then published, then reconstructed, then measured; the accuracy of published weights, which
nearly all have, weakens nothing.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from edgevit import __version__
from edgevit.choose import Wanted, choose_among, noise_floors
from edgevit.devices import LOCAL, describe
from edgevit.errors import StoreError, UsageError
from edgevit.ratings import TOP1, Ratings
from edgevit.report.evidence import Found, find_artifacts, model_parts
from edgevit.report.records import PERCENTILES, DevicePart, Entry, Jump, Latency, Report
from edgevit.statistics import CONFIDENCE
from edgevit.store import LatencyDB
from edgevit.types import (
    IMAGENET,
    Budget,
    Candidate,
    Choice,
    Epoch,
    Measurement,
    ModelCard,
    NoiseFloor,
    Provenance,
)

_SHOWN = "unusable"  # of the kinds of rejection: a row that cannot be chosen is knowledge, too


class Unit(NamedTuple):
    """One device with its rows, oldest first, and what else the database has of it."""

    device_id: str
    label: str
    rows: Sequence[Measurement]
    floors: Sequence[NoiseFloor]
    epochs: Sequence[Epoch]


def collect(
    database: LatencyDB,
    cards: Mapping[str, ModelCard],
    *,
    devices: Collection[str] | None = None,
    dataset: str | None = None,
    published: bool = False,
    artifacts: Path | None = None,
    command: str = "edgevit report",
    now: datetime | None = None,
) -> Report:
    """What a report of these devices says: names, ids or classes; None: of all that have rows.

    `dataset` and `published` as for edgevit.choose.choose. `artifacts`: a folder of artifacts, whose manifests tell
    more of folding and parity than rows do. `now`: what ages are counted to, UTC; None: the clock.
    Raises StoreError for a database without rows, UsageError where all rows are published and were not asked for.
    """
    now = now or datetime.now(UTC)
    units = _units(database, devices, published)
    ratings = Ratings.of(database.accuracies(metric=TOP1), dataset)
    entries: list[Entry] = []
    parts: list[DevicePart] = []
    for number, unit in enumerate(units):
        choices = [_choice(unit, percentile, cards, published, ratings) for percentile in PERCENTILES]
        entries += _entries(unit, choices, number, now)
        parts.append(_device(unit, choices[0], published))
    found = find_artifacts(artifacts) if artifacts is not None else Found((), ())
    return Report(
        command=command,
        made=now.isoformat(timespec="seconds"),
        edgevit=__version__,
        dataset=ratings.dataset or IMAGENET,
        published=published,
        confidence=CONFIDENCE,
        devices=tuple(parts),
        entries=tuple(entries),
        models=model_parts(entries, cards, found.artifacts),
        artifacts_read=artifacts is not None,
        problems=found.problems,
    )


# Devices


def _units(database: LatencyDB, devices: Collection[str] | None, published: bool) -> list[Unit]:
    asked: Iterable[str | None] = devices if devices is not None else [None]
    rows = {row.measurement_id: row for name in asked for row in database.measurements(device=name)}
    if not rows:
        fix = "measure some with edgevit sweep, or bring rows in: edgevit db import FILE"
        raise StoreError("the database holds no measurement", where=database.where, fix=fix)
    of_unit: dict[str, list[Measurement]] = {}
    for row in rows.values():
        of_unit.setdefault(row.device_id, []).append(row)
    counted = {unit: group for unit, group in of_unit.items() if published or not _all_published(group)}
    if not counted:
        why = f"all {len(rows)} rows were published by others"
        raise UsageError("there is nothing of one's own to report", why=why, fix="take them in with --published")
    labels = _labels(counted)
    return [
        Unit(unit, label, counted[unit], noise_floors(database, counted[unit]), database.epochs(unit))
        for label, unit in sorted((label, unit) for unit, label in labels.items())
    ]


def _all_published(rows: Iterable[Measurement]) -> bool:
    return all(row.provenance == "published" for row in rows)


def _labels(units: Mapping[str, Sequence[Measurement]]) -> dict[str, str]:
    """device_id -> its newest name; `local`, which every machine is to itself, becomes its class; doubles get an id."""
    names = {
        unit: rows[-1].device_class if rows[-1].device == LOCAL else rows[-1].device for unit, rows in units.items()
    }
    times = Counter(names.values())
    return {unit: name if times[name] == 1 else f"{name} ({unit[:8]})" for unit, name in names.items()}


def _device(unit: Unit, choice: Choice, published: bool) -> DevicePart:
    kinds = Counter(rejection.kind for rejection in choice.rejected)
    left_out = 0 if published else sum(row.provenance == "published" for row in unit.rows)
    hosts = dict.fromkeys(describe(row.host) for row in reversed(unit.rows) if row.host is not None)
    dated = [row.started for row in unit.rows if "started" not in row.untold]
    noise = max(unit.floors, key=lambda floor: floor.started, default=None)
    return DevicePart(
        device_id=unit.device_id,
        label=unit.label,
        device_class=unit.rows[-1].device_class,
        hosts=tuple(hosts),
        compute_units=_distinct(row.compute_unit for row in unit.rows),
        engines=_distinct(f"{row.engine} {row.engine_version}" for row in unit.rows),
        first=min(dated, key=datetime.fromisoformat, default=""),
        last=max(dated, key=datetime.fromisoformat, default=""),
        grades=dict(sorted(Counter(item.grade for item in choice.fitting if item.grade).items())),
        noise_share=noise.share if noise else None,
        noise_measured=noise.started if noise else "",
        epochs=tuple(Jump(epoch.number, epoch.started, epoch.ratio, epoch.reason) for epoch in unit.epochs),
        usable=len(choice.fitting),
        unusable=kinds["unusable"],
        superseded=kinds["superseded"],
        not_asked=kinds["not_asked"] - left_out,
        published_left_out=left_out,
        unmeasured=choice.unmeasured,
    )


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({value.strip() for value in values} - {""}))


# Rows


def _choice(unit: Unit, percentile: int, cards: Mapping[str, ModelCard], published: bool, ratings: Ratings) -> Choice:
    budget, wanted = Budget(percentile=percentile), Wanted(published=published)
    return choose_among(unit.rows, unit.label, budget, cards=cards, wanted=wanted, floors=unit.floors, ratings=ratings)


def _entries(unit: Unit, choices: Sequence[Choice], number: int, now: datetime) -> list[Entry]:
    """What may be chosen, best first, then what may not; each with all percentiles."""
    of_percentile = [{_name(item): item for item in _shown(choice)} for choice in choices]
    reasons = {_name(item.candidate): item.reason for item in choices[0].rejected if item.kind == _SHOWN}
    rows = {row.measurement_id: row for row in unit.rows}
    return [
        _entry(
            unit,
            number,
            [known[name] for known in of_percentile],
            reasons.get(name),
            rows.get(item.measurement_id),
            now,
        )
        for name, item in of_percentile[0].items()
    ]


def _shown(choice: Choice) -> list[Candidate]:
    return [*choice.fitting, *(item.candidate for item in choice.rejected if item.kind == _SHOWN)]


def _name(item: Candidate) -> tuple[object, ...]:
    return (item.measurement_id, item.model, item.target, item.precision, item.threads)


def _entry(
    unit: Unit,
    number: int,
    items: Sequence[Candidate],
    reason: str | None,
    row: Measurement | None,
    now: datetime,
) -> Entry:
    item = items[0]
    dated = bool(item.measured) and not (row and "started" in row.untold)
    p50, p90, p99 = (
        _latency(one, row if percentile == 50 else None) for one, percentile in zip(items, PERCENTILES, strict=True)
    )
    return Entry(
        **{name: getattr(item, name) for name in _SAME},
        device=number,
        family=row.family if row else "",
        provenance=_weakest(item),
        p50=p50,
        p90=p90,
        p99=p99,
        usable=reason is None,
        reason=reason or "",
        engine=row.engine if row else "",
        provider=row.provider if row else "",
        measured=item.measured if dated else "",
        age_days=(now - datetime.fromisoformat(item.measured)).days if dated else None,
        epoch=_epoch(unit, item) if dated else None,
        processes=row.processes if row else 0,
        runs=row.runs if row else 0,
        peak_memory_mb=row.peak_rss_bytes / 1e6 if row and row.peak_rss_bytes else None,
        source=row.source if row else "",
        licence=row.licence if row else "",
        artifact_sha256=row.artifact_sha256 if row else "",
    )


# What an Entry has under the same name as a Candidate.
_SAME = tuple(
    {field.name for field in dataclasses.fields(Entry)}
    & {field.name for field in dataclasses.fields(Candidate)} - {"measured"}
)


def _latency(item: Candidate, median_of: Measurement | None) -> Latency:
    low_ns = median_of.p50_low_ns if median_of else None
    bare = item.latency_provenance == "published" and item.latency_upper_ms is None
    return Latency(
        ms=item.latency_ms,
        low_ms=item.latency_ms if low_ns is None else low_ns / 1e6,
        upper_ms=item.latency_upper_ms,
        held_ms=item.latency_ms if bare else item.latency_upper_ms,
    )


def _weakest(item: Candidate) -> Provenance:
    if item.latency_provenance != "measured":
        return item.latency_provenance
    return "reconstructed" if item.top1_provenance == "reconstructed" else "measured"


def _epoch(unit: Unit, item: Candidate) -> int:
    """How many epochs had been opened when a row was measured."""
    when = datetime.fromisoformat(item.measured)
    return sum(datetime.fromisoformat(epoch.started) <= when for epoch in unit.epochs)
