"""Small tables, that are read and sealed as a whole: noise floors, what was built here; and the notes in `meta`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Insert, Table, select, update

from edgevit.records.artifact import Artifact
from edgevit.records.measurement import PROTOCOL_VERSION, NoiseFloor
from edgevit.store import partition_checksums, tables
from edgevit_runtime.codec import from_json, to_json


def add_line(connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
    """Add a line to a small table and its tally; False if its key is there already, and then it stays as it is."""
    # SQLAlchemy forgets how many lines an INSERT added, on PostgreSQL, unless it is told to keep the number.
    statement = _insert_unless_there(connection, table, values).execution_options(preserve_rowcount=True)
    if connection.execute(statement).rowcount != 1:
        return False
    count(connection, table, values)
    return True


def count(connection: Connection, table: Table, values: Mapping[str, Any]) -> None:
    """Count a line that was added to a small table."""
    partition_checksums.add(
        connection, [partition_checksums.Part(table.name).plus([partition_checksums.seal_of(table, values)])]
    )


def insert_built(connection: Connection, artifact: Artifact) -> None:
    """Record that an artifact was built here."""
    values = {"sha256": artifact.sha256, "target": artifact.target, "built": artifact.created}
    add_line(connection, tables.built, values)


def insert_noise(connection: Connection, floor: NoiseFloor) -> bool:
    """Add a noise floor; one of this device and moment that is there already stays as it is."""
    values = {name: value for name, value in vars(floor).items() if name != "p50s_ns"}
    values["p50s_ns_json"] = to_json(floor.p50s_ns)
    return add_line(connection, tables.noise, values)


def noise_floors(connection: Connection) -> list[NoiseFloor]:
    """Noise floors of every protocol, by device and time."""
    floors = []
    for line in partition_checksums.read_whole(connection, tables.noise):
        floors.append(NoiseFloor(p50s_ns=from_json(tuple[int, ...], line.pop("p50s_ns_json")), **line))
    return floors


def latest_noise(connection: Connection) -> dict[str, NoiseFloor]:
    """The newest noise floor of each device by this protocol."""
    floors = [item for item in noise_floors(connection) if item.protocol_version == PROTOCOL_VERSION]
    return {item.device_id: item for item in sorted(floors, key=lambda item: item.started)}


def read_meta(connection: Connection, key: str) -> str | None:
    """A value of the `meta` table; None if it was never set."""
    return connection.execute(select(tables.meta.c.value).where(tables.meta.c.key == key)).scalar()


def write_meta(connection: Connection, key: str, value: str) -> None:
    """Set a value of the `meta` table."""
    connection.execute(_insert_unless_there(connection, tables.meta, {"key": key, "value": value}))
    connection.execute(update(tables.meta).where(tables.meta.c.key == key).values(value=value))


def _insert_unless_there(connection: Connection, table: Table, values: Mapping[str, Any]) -> Insert:
    """An insert that a line with the same key turns into nothing."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table).inline().values(values).on_conflict_do_nothing()
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table).inline().values(values).on_conflict_do_nothing()
