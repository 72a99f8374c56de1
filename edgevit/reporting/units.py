"""The devices of a report. Each unit is one, by its device_id, because several units may share a name."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from edgevit.devices.registry import LOCAL, describe
from edgevit.errors import StoreError, UsageError
from edgevit.records.choice import Choice
from edgevit.records.measurement import Epoch, Measurement, NoiseFloor
from edgevit.reporting.page_records import DeviceAnswers, DevicePart, Jump
from edgevit.selection import noise_floors
from edgevit.selection.wording import describe as describe_reason
from edgevit.store import LatencyDB


class Unit(NamedTuple):
    """One device with its rows, oldest first, its noise floors and its epochs.

    former: ids of the rows that were measured before the device last changed.
    """

    device_id: str
    label: str
    rows: Sequence[Measurement]
    former: Collection[str]
    floors: Sequence[NoiseFloor]
    epochs: Sequence[Epoch]


def find_units(database: LatencyDB, devices: Collection[str] | None, published: bool) -> list[Unit]:
    """Return the units of these devices, sorted by label. devices: names, ids or classes; None: all.

    Raises StoreError for a database without rows, UsageError where all are published and were not asked for.
    """
    names: Iterable[str | None] = devices if devices is not None else [None]
    histories = [database.history(name) for name in names]
    rows = {row.measurement_id: row for of_device, _ in histories for row in of_device}
    former = frozenset[str]().union(*(past for _, past in histories))
    if not rows:
        if left_out := database.left_out():
            why = ", ".join(f"{count} from {source}" for source, count in sorted(left_out.items()))
            fix = shlex.join(["edgevit", "db", "trust", min(left_out)]) + ", if they are to count"
            raise UsageError("no measurement is of a trusted source", where=database.location, why=why, fix=fix)
        fix = "measure some with edgevit sweep, or bring rows in: edgevit db import FILE"
        raise StoreError("the database holds no measurement", where=database.location, fix=fix)
    of_unit: dict[str, list[Measurement]] = {}
    for row in sorted(rows.values(), key=lambda row: datetime.fromisoformat(row.started)):
        of_unit.setdefault(row.device_id, []).append(row)
    counted = {unit: group for unit, group in of_unit.items() if published or not _all_published(group)}
    if not counted:
        why = f"all {len(rows)} rows were published by others"
        raise UsageError("there is nothing of one's own to report", why=why, fix="take them in with --published")
    labels = _labels(counted)
    return [
        Unit(unit, label, counted[unit], former, noise_floors(database, counted[unit]), database.epochs(unit))
        for label, unit in sorted((label, unit) for unit, label in labels.items())
    ]


def _all_published(rows: Iterable[Measurement]) -> bool:
    return all(row.provenance == "published" for row in rows)


def _labels(units: Mapping[str, Sequence[Measurement]]) -> dict[str, str]:
    """Return the newest name of each device_id.

    `local`, which every machine is to itself, becomes the device class. Names of several units get a part of the id.
    """
    names = {
        unit: rows[-1].device_class if rows[-1].device == LOCAL else rows[-1].device for unit, rows in units.items()
    }
    times = Counter(names.values())
    return {unit: name if times[name] == 1 else f"{name} ({unit[:8]})" for unit, name in names.items()}


def device_part(unit: Unit, choices: Sequence[Choice], answers: DeviceAnswers, published: bool) -> DevicePart:
    """Describe a unit for the page. choices: its answers without limits, one for each percentile."""
    choice, predicted = choices[0], _predicted(choices)
    usable = [candidate for candidate in choice.fitting if candidate.basis is None]
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
        grades=dict(sorted(Counter(candidate.grade for candidate in usable if candidate.grade).items())),
        noise_share=noise.share if noise else None,
        noise_measured=noise.started if noise else "",
        epochs=tuple(Jump(epoch.number, epoch.started, epoch.ratio, epoch.reason) for epoch in unit.epochs),
        usable=len(usable),
        unusable=kinds["unusable"],
        predicted=len(predicted),
        unpredicted=_unpredicted(choices, predicted),
        superseded=kinds["superseded"],
        not_asked=kinds["not_asked"] - left_out,
        published_left_out=left_out,
        unmeasured=choice.unmeasured,
        answers=answers,
    )


def _predicted(choices: Iterable[Choice]) -> set[str]:
    """Return the ids of the candidates that are predicted at one percentile at least."""
    return {candidate.measurement_id for choice in choices for candidate in choice.fitting if candidate.basis}


def _unpredicted(choices: Sequence[Choice], predicted: Collection[str]) -> tuple[tuple[str, int], ...]:
    """Count the other candidates by the reason why they are not predicted.

    Where the reasons of percentiles differ, that of p50 counts, because most rows report it.
    """
    reasons: dict[str, str] = {}
    for choice in sorted(choices, key=lambda choice: -choice.budget.percentile):
        refused = [rejection for rejection in choice.rejected if rejection.kind == "unmeasured"]
        reasons |= {refusal.candidate.measurement_id: describe_reason(refusal.reasons[0]) for refusal in refused}
    counted = Counter(reason for name, reason in sorted(reasons.items()) if name not in predicted)
    return tuple(counted.most_common())


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({value.strip() for value in values} - {""}))
