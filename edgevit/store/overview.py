"""What a database holds, in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from sqlalchemy import Connection, func, select

from edgevit.store import partition_checksums, queries, rows, tables
from edgevit.store.connect import describe
from edgevit.store.schema import HEAD
from edgevit_runtime.record import Status


@dataclass(frozen=True)
class DeviceRows:
    """A device with rows: how many, and when it was last measured (ISO 8601, UTC)."""

    name: str
    device_id: str
    device_class: str
    measurements: int
    latest: str


@dataclass(frozen=True)
class Stats:
    """What the database holds: lines per table, measurements per status."""

    where: str
    revision: str
    tables: dict[str, int]
    status: dict[str, int]


def devices(connection: Connection) -> list[DeviceRows]:
    """Every device with rows, by name."""
    lines, parts = queries.device_numbers(connection, None), partition_checksums.read_parts(connection)
    found = []
    for number, line in lines.items():
        part = parts.get(partition_checksums.rows_of(number))
        if part is not None and part.latest_unix_us is not None:
            latest = rows.iso_time(part.latest_unix_us)
            found.append(DeviceRows(line["name"], line["device_id"], line["device_class"], part.lines, latest))
    return sorted(found, key=lambda item: (item.name, item.device_id, item.device_class))


def stats(connection: Connection) -> Stats:
    """What the database holds. Raises StoreError where its tables have not as many lines as were written."""
    lines = {
        name: connection.execute(select(func.count()).select_from(table)).scalar_one()
        for name, table in tables.METADATA.tables.items()
        if table is not tables.tally
    }
    status = tables.measurement.c.status
    found = connection.execute(select(status, func.count()).group_by(status)).all()
    parts = partition_checksums.read_parts(connection)
    of_rows = sum(part.lines for name, part in parts.items() if name.startswith(partition_checksums.rows_of("")))
    written = {table.name: parts[table.name].lines for table in partition_checksums.WHOLE} | {"measurement": of_rows}
    if wrong := [name for name, count in written.items() if lines[name] != count]:
        raise partition_checksums.broken(f"{wrong[0]}: {lines[wrong[0]]} lines found, {written[wrong[0]]} written")
    if strange := {str(name) for name, _ in found} - set(get_args(Status)):
        raise partition_checksums.broken(f"rows have the status {', '.join(sorted(strange))}")
    return Stats(
        describe(connection.engine.url), HEAD, lines, dict(sorted((str(name), int(count)) for name, count in found))
    )
