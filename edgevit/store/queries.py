"""The statements that LatencyDB runs inside a transaction: find rows, add one, read and write the `meta` table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Insert, RowMapping, Table, UniqueConstraint, or_, select, update

from edgevit.errors import StoreError
from edgevit.store import rows, tables
from edgevit.types import Artifact, Measurement


def conditions(device: str | None, **equal: Any) -> list[ColumnElement[bool]]:
    """What a listing asks for; None asks for nothing. Keywords: model, target, precision, threads, status."""
    found: list[ColumnElement[bool]] = []
    if device is not None:
        names = tables.device.c
        known_as = or_(names.name == device, names.device_id == device, names.device_class == device)
        # As a condition on the join this reads every row of every device; so it reads those of the index alone.
        found.append(tables.measurement.c.device_no.in_(select(names.device_no).where(known_as)))
    columns: dict[str, ColumnElement[Any]] = {"model": tables.model.c.name, "target": tables.artifact.c.target}
    for name, value in equal.items():
        if value is not None:
            found.append(columns.get(name, tables.measurement.c.get(name)) == value)
    return found


def fetch(connection: Connection, ids: Sequence[str]) -> list[Measurement]:
    """Whole rows, with samples and snapshots, in the order of `ids`; those the database lacks are left out."""
    sample = tables.sample
    evidence: dict[str, list[RowMapping]] = {}
    parts = select(sample).where(sample.c.measurement_id.in_(ids)).order_by(sample.c.measurement_id, sample.c.process)
    for part in connection.execute(parts).mappings():
        evidence.setdefault(part["measurement_id"], []).append(part)
    query = rows.head().where(tables.measurement.c.measurement_id.in_(ids))
    found = {row["measurement_id"]: row for row in connection.execute(query).mappings()}
    return [rows.read(found[name], evidence.get(name, ())) for name in ids if name in found]


def insert(connection: Connection, row: Measurement) -> bool:
    """Add a validated row to all its tables; False if the database has it.

    Raises StoreError if the database has another row with this id: one of the two was altered.
    """
    name = tables.measurement.c.measurement_id
    if connection.execute(select(name).where(name == row.measurement_id)).first():
        _refuse_altered(fetch(connection, [row.measurement_id])[0], row)
        return False
    model_no = _number(connection, tables.model, rows.model_values(row))
    values = rows.measurement_values(row)
    values["artifact_no"] = _number(connection, tables.artifact, rows.artifact_values(row, model_no))
    values["device_no"] = _number(connection, tables.device, rows.device_values(row))
    if row.host is not None:
        values["environment_no"] = _number(connection, tables.environment, rows.environment_values(row.host))
    new = connection.execute(_insert_unless_there(connection, tables.measurement, values)).rowcount == 1
    if new and (samples := rows.sample_values(row)):
        connection.execute(tables.sample.insert(), samples)
    return new


def insert_built(connection: Connection, artifact: Artifact) -> None:
    """Record that an artifact was built here."""
    values = {"sha256": artifact.sha256, "target": artifact.target, "built": artifact.created}
    connection.execute(_insert_unless_there(connection, tables.built, values))


def read_meta(connection: Connection, key: str) -> str | None:
    """A value of the `meta` table; None if it was never set."""
    return connection.execute(select(tables.meta.c.value).where(tables.meta.c.key == key)).scalar()


def write_meta(connection: Connection, key: str, value: str) -> None:
    """Set a value of the `meta` table."""
    connection.execute(_insert_unless_there(connection, tables.meta, {"key": key, "value": value}))
    connection.execute(update(tables.meta).where(tables.meta.c.key == key).values(value=value))


def _refuse_altered(kept: Measurement, row: Measurement) -> None:
    if different := [name for name in vars(kept) if getattr(kept, name) != getattr(row, name)]:
        why = f"the row kept here has another {', '.join(different)}"
        fix = "one of the two was altered: compare them with their source"
        raise StoreError(f"two rows have the id {row.measurement_id[:12]}...", why=why, fix=fix)


def _number(connection: Connection, table: Table, values: Mapping[str, Any]) -> int:
    """The number of the line with these values; it is added where there is none."""
    (unique,) = (item for item in table.constraints if isinstance(item, UniqueConstraint))
    (key,) = table.primary_key
    query = select(key).where(*(column == values[column.name] for column in unique.columns))
    found = connection.execute(query).scalar()
    if found is None:
        connection.execute(_insert_unless_there(connection, table, values))
        found = connection.execute(query).scalar_one()
    return int(found)


def _insert_unless_there(connection: Connection, table: Table, values: Mapping[str, Any]) -> Insert:
    """An insert that a line with the same key turns into nothing: on PostgreSQL two processes may add it at once."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table).inline().values(values).on_conflict_do_nothing()
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table).inline().values(values).on_conflict_do_nothing()
