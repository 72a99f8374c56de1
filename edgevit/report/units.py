"""The devices of a report: each unit is one, by device_id, since a name may be that of several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from edgevit.choose import noise_floors
from edgevit.devices import LOCAL, describe
from edgevit.errors import StoreError, UsageError
from edgevit.report.records import DevicePart, Jump
from edgevit.store import LatencyDB
from edgevit.types import Choice, Epoch, Measurement, NoiseFloor


class Unit(NamedTuple):
    """One device with its rows, oldest first, and what else the database has of it."""

    device_id: str
    label: str
    rows: Sequence[Measurement]
    floors: Sequence[NoiseFloor]
    epochs: Sequence[Epoch]


def find_units(database: LatencyDB, devices: Collection[str] | None, published: bool) -> list[Unit]:
    """The units of these devices, by label; devices are names, ids or classes, and None is all.

    Raises StoreError for a database without rows, UsageError where all are published and were not asked for.
    """
    asked: Iterable[str | None] = devices if devices is not None else [None]
    rows = {row.measurement_id: row for name in asked for row in database.measurements(device=name)}
    if not rows:
        fix = "measure some with edgevit sweep, or bring rows in: edgevit db import FILE"
        raise StoreError("the database holds no measurement", where=database.where, fix=fix)
    of_unit: dict[str, list[Measurement]] = {}
    for row in sorted(rows.values(), key=lambda row: datetime.fromisoformat(row.started)):
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


def device_part(unit: Unit, choice: Choice, published: bool) -> DevicePart:
    """What the page says of a unit, of which this is the answer without limits."""
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
