"""Forgotten sources: their records are deleted, and tombstones keep a later import or merge from bringing them back."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, Delete, Table, delete, or_, select

from edgevit.errors import UnknownNameError, UsageError
from edgevit.store import checked_rows, epoch_table, origins, tables

_BATCH = 500  # of ids in one statement


def forget(connection: Connection, source: str) -> int:
    """Delete the records that came from a source alone, and return their number.

    Records that came from elsewhere too lose this origin and stay. Raises UnknownNameError for a source that no record
    came from, and UsageError for this very installation.
    """
    if source == origins.installation_id():
        why = "these records were measured here"
        raise UsageError("this installation cannot be forgotten", where=source, why=why, fix="edgevit db sources")
    origin, link = tables.origin.c, tables.record_origin.c
    numbers = connection.execute(select(origin.origin_no).where(origin.source == source)).scalars().all()
    if not numbers:
        known = connection.execute(select(origin.source).distinct()).scalars().all()
        raise UnknownNameError("source", source, known or ["none yet"], listing="edgevit db sources")
    elsewhere = select(link.record_id).where(link.origin_no.not_in(numbers))
    alone = select(link.record_id).where(link.origin_no.in_(numbers), link.record_id.not_in(elsewhere)).distinct()
    ids = list(connection.execute(alone).scalars())
    now, who = datetime.now(UTC).isoformat(timespec="seconds"), origins.user(connection)
    connection.execute(delete(tables.record_origin).where(link.origin_no.in_(numbers)))
    if ids:
        stones = [{"record_id": name, "source": source, "since": now, "forgotten_by": who} for name in ids]
        connection.execute(tables.forgotten.insert(), stones)
        _delete(connection, ids)
    return len(ids)


def remember(connection: Connection, source: str) -> int:
    """Remove the tombstones of a source, so that its records can be read again; return their number."""
    table = tables.forgotten
    stones = connection.execute(select(table.c.record_id).where(table.c.source == source)).scalars().all()
    if not stones:
        known = connection.execute(select(table.c.source).distinct()).scalars().all()
        raise UnknownNameError("forgotten source", source, known or ["none yet"], listing="edgevit db sources")
    connection.execute(delete(table).where(table.c.source == source))
    return len(stones)


def forgotten(connection: Connection, ids: Iterable[str]) -> set[str]:
    """Return those of these records that were forgotten."""
    name, wanted = tables.forgotten.c.record_id, list(ids)
    found: set[str] = set()
    for start in range(0, len(wanted), _BATCH):
        found |= set(connection.execute(select(name).where(name.in_(wanted[start : start + _BATCH]))).scalars())
    return found


def _delete(connection: Connection, ids: Collection[str]) -> None:
    """Delete records with all that refers to them, then make the checksums and epochs of what is left."""
    measured = tables.measurement.c
    by_id = measured.measurement_id.in_
    devices: set[str] = set()
    for batch in _batches(ids):
        unit = select(tables.device.c.device_id).join(tables.measurement).where(by_id(batch)).distinct()
        devices |= set(connection.execute(unit).scalars())
        connection.execute(_epochs_of(batch))
        for table in (tables.tag, tables.sweep_row, tables.sample, tables.measurement):
            connection.execute(delete(table).where(table.c.measurement_id.in_(batch)))
        for table, name in origins.NAMES:
            if table is not tables.measurement:
                connection.execute(delete(table).where(name.in_(batch)))
    checked_rows.change(connection, lambda row: {})
    small: list[Table] = [table for table, _ in origins.NAMES if table is not tables.measurement]
    for table in (*small, tables.tag, tables.sweep_row):
        checked_rows.recount(connection, table)
    epoch_table.refresh(connection, devices)


def _epochs_of(ids: Collection[str]) -> Delete:
    epoch = tables.epoch.c
    concerned: ColumnElement[bool] = or_(epoch.measurement_id.in_(ids), epoch.reference_id.in_(ids))
    return delete(tables.epoch).where(concerned)


def _batches(ids: Collection[str]) -> Iterable[list[str]]:
    ordered = sorted(ids)
    return (ordered[start : start + _BATCH] for start in range(0, len(ordered), _BATCH))
