"""Small tables with one checksum each: noise floors, and artifacts built here; and the key-value table `meta`."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from sqlalchemy import Connection, Insert, Table, select, update

from edgevit.records.artifact import Artifact
from edgevit.records.measurement import PROTOCOL_VERSION, NoiseFloor
from edgevit.store import partition_checksums, tables
from edgevit_runtime.codec import from_json, to_json


def add_row(connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
    """Add a row to a small table and its checksum; return False if its key is there, which leaves that row as it is."""
    # On PostgreSQL, SQLAlchemy forgets how many rows an INSERT added, unless this option keeps the number.
    statement = _insert_if_absent(connection, table, values).execution_options(preserve_rowcount=True)
    if connection.execute(statement).rowcount != 1:
        return False
    count_row(connection, table, values)
    return True


def count_row(connection: Connection, table: Table, values: Mapping[str, Any]) -> None:
    """Count a row that was added to a small table."""
    checksum = partition_checksums.checksum_of(table, values)
    partition_checksums.add(connection, [partition_checksums.PartitionChecksum(table.name).plus([checksum])])


def insert_built(connection: Connection, artifact: Artifact, digest: str) -> None:
    """Record that an artifact was built here, whose code has this digest."""
    values = {"sha256": digest, "target": artifact.target, "built": artifact.created}
    add_row(connection, tables.built, values)


def insert_noise(connection: Connection, floor: NoiseFloor) -> bool:
    """Add a noise floor and return whether it is new. An old one of this device and moment stays as it is."""
    values = {name: value for name, value in vars(floor).items() if name != "p50s_ns"}
    values["p50s_ns_json"] = to_json(floor.p50s_ns)
    return add_row(connection, tables.noise, values)


def noise_floors(connection: Connection) -> list[NoiseFloor]:
    """Return the noise floors of every protocol, by device and time."""
    floors = []
    for row in partition_checksums.read_table(connection, tables.noise):
        floors.append(NoiseFloor(p50s_ns=from_json(tuple[int, ...], row.pop("p50s_ns_json")), **row))
    return floors


def noise_id(floor: NoiseFloor) -> str:
    """Return what names a noise floor among all records."""
    return f"{floor.device_id} {floor.started}"


def latest_noise(connection: Connection, ignored: Container[str] = ()) -> dict[str, NoiseFloor]:
    """Return the newest noise floor of each device by this protocol. `ignored` are ids of records left out."""
    floors = [
        floor
        for floor in noise_floors(connection)
        if floor.protocol_version == PROTOCOL_VERSION and noise_id(floor) not in ignored
    ]
    return {floor.device_id: floor for floor in sorted(floors, key=lambda floor: floor.started)}


def read_meta(connection: Connection, key: str) -> str | None:
    """Return a value of the `meta` table; None if it was never set."""
    return connection.execute(select(tables.meta.c.value).where(tables.meta.c.key == key)).scalar()


def write_meta(connection: Connection, key: str, value: str) -> None:
    """Set a value of the `meta` table."""
    connection.execute(_insert_if_absent(connection, tables.meta, {"key": key, "value": value}))
    connection.execute(update(tables.meta).where(tables.meta.c.key == key).values(value=value))


def _insert_if_absent(connection: Connection, table: Table, values: Mapping[str, Any]) -> Insert:
    """Return an INSERT that does nothing where a row has the same key."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table).inline().values(values).on_conflict_do_nothing()
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table).inline().values(values).on_conflict_do_nothing()
