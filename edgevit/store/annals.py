"""The epoch table: written anew for a device whenever rows came that may change its epochs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, or_, select

from edgevit.store import epochs, queries, tables
from edgevit.types import Epoch, Measurement

_DUE = "epochs_due"  # key of meta
_COLUMNS = (  # in the order of the fields of an Epoch
    "device_id", "device", "number", "started", "measurement_id", "reference_id", "ratio", "limit_share", "reason",
)  # fmt: skip


def read(connection: Connection) -> list[Epoch]:
    """Every epoch that is written down, by device and number."""
    query = select(*(tables.epoch.c[name] for name in _COLUMNS))
    return [
        Epoch(*line) for line in connection.execute(query.order_by(tables.epoch.c.device_id, tables.epoch.c.number))
    ]


def compute(connection: Connection, device_id: str) -> list[Epoch]:
    """The epochs of a device from its rows and its noise floor. Raises StoreError where a row is damaged or missing."""
    told = [one for values in queries.listing(connection, device_id) if (one := epochs.seen(values))]
    floor = queries.latest_noise(connection, device_id)
    return epochs.find(device_id, told, None if floor is None else floor.share)


def refresh(connection: Connection, device_id: str) -> list[Epoch]:
    """Write a device's epochs anew; those that were not there before. The connection must be one that writes."""
    old = {epoch.measurement_id for epoch in read(connection) if epoch.device_id == device_id}
    new = compute(connection, device_id)
    connection.execute(delete(tables.epoch).where(tables.epoch.c.device_id == device_id))
    if new:
        connection.execute(
            tables.epoch.insert(), [dict(zip(_COLUMNS, vars(item).values(), strict=True)) for item in new]
        )
    if device_id in (due := marked(connection)):
        queries.write_meta(connection, _DUE, json.dumps(sorted(due - {device_id})))
    return [epoch for epoch in new if epoch.measurement_id not in old]


def mark(connection: Connection, device_ids: Iterable[str]) -> None:
    """Note that these devices' epochs must be found anew: an import that is killed leaves that to the next one."""
    if new := set(device_ids) - (old := marked(connection)):
        queries.write_meta(connection, _DUE, json.dumps(sorted(old | new)))


def marked(connection: Connection) -> set[str]:
    """The devices whose epochs must be found anew."""
    return set(json.loads(queries.read_meta(connection, _DUE) or "[]"))


def may_open(connection: Connection, row: Measurement) -> bool:
    """Whether a row that was just added may change its device's epochs: it repeats others and does not agree.

    A row that is older than others may too, because the epochs after it are told from it.
    """
    if row.status != "ok" or row.p50_ns is None:
        return False
    kept, last = tables.measurement.c, func.max(tables.measurement.c.started_unix_us)
    of_device = kept.device_no.in_(select(tables.device.c.device_no).where(tables.device.c.device_id == row.device_id))
    opened = (
        select(last)
        .select_from(tables.epoch)
        .join(tables.measurement, tables.epoch.c.measurement_id == kept.measurement_id)
    )
    begun = connection.execute(opened.where(tables.epoch.c.device_id == row.device_id)).scalar() or 0
    repeats = (
        kept.started_unix_us >= begun,
        of_device,
        kept.measurement_id != row.measurement_id,
        kept.status == "ok",
        *_same(row),
    )
    numbers = (func.count(), func.min(kept.p50_low_ns), func.max(kept.p50_high_ns))
    joined = tables.measurement.join(tables.artifact)
    count, low, high = connection.execute(select(*numbers).select_from(joined).where(*repeats)).one()
    if not count:
        return False
    newest = connection.execute(select(last).where(of_device)).scalar_one()
    mine = connection.execute(
        select(kept.started_unix_us).where(kept.measurement_id == row.measurement_id)
    ).scalar_one()
    floor = queries.latest_noise(connection, row.device_id)
    room = 1 + epochs.limit_of(None if floor is None else floor.share)
    known = None not in (low, high, row.p50_low_ns, row.p50_high_ns)
    alike = known and row.p50_low_ns <= high * room and row.p50_high_ns >= low / room  # type: ignore[operator]
    return not alike or mine < newest


def _same(row: Measurement) -> list[ColumnElement[bool]]:
    """Conditions that every repeat of a row meets, and some others may: what is the same is told by epochs.seen."""
    kept, artifact = tables.measurement.c, tables.artifact.c
    same: list[ColumnElement[bool]] = [kept.threads == row.threads, kept.engine == row.engine]
    names: list[Any] = []
    if row.graph_digest:
        names.append(artifact.graph_digest == row.graph_digest)
    if row.artifact_sha256:
        names.append(artifact.sha256 == row.artifact_sha256)
    models = select(tables.model.c.model_no).where(tables.model.c.name == row.model)
    names.append(artifact.model_no.in_(models))
    return [*same, kept.precision == row.precision, or_(*names), artifact.target == row.target]
