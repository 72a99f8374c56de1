"""Overview of a database: its devices, and the number of rows in its tables."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import get_args

from sqlalchemy import Connection, func, select

from edgevit.store import partition_checksums, queries, rows, tables
from edgevit.store.connect import describe
from edgevit.store.schema import HEAD
from edgevit_runtime.record import Status


@dataclass(frozen=True)
class DeviceSummary:
    """A device with rows: their number, and when it was last measured (ISO 8601, UTC)."""

    name: str
    device_id: str
    device_class: str
    measurements: int
    latest: str


@dataclass(frozen=True)
class DatabaseStats:
    """Contents of a database: rows per table, and measurements per status."""

    location: str
    revision: str
    tables: dict[str, int]
    status: dict[str, int]


def devices(connection: Connection, ignored: Collection[str] = ()) -> list[DeviceSummary]:
    """Return every device with rows, by name. `ignored` are ids of measurements that do not count."""
    left_out = queries.rows_per_device(connection, ignored)
    device_rows = queries.device_rows(connection, None)
    partitions = partition_checksums.read_partitions(connection)
    summaries = []
    for number, row in device_rows.items():
        partition = partitions.get(partition_checksums.device_partition(number))
        count = 0 if partition is None else partition.rows - left_out[number]
        if partition is not None and partition.latest_unix_us is not None and count:
            latest = rows.iso_time(partition.latest_unix_us)
            names = (row["name"], row["device_id"], row["device_class"])
            summaries.append(DeviceSummary(*names, count, latest))
    return sorted(summaries, key=lambda device: (device.name, device.device_id, device.device_class))


def stats(connection: Connection) -> DatabaseStats:
    """Count the rows of each table. Raises StoreError where a table has another number than was written."""
    counts = {
        name: connection.execute(select(func.count()).select_from(table)).scalar_one()
        for name, table in tables.METADATA.tables.items()
        if table is not tables.partition_checksum
    }
    status = tables.measurement.c.status
    by_status = connection.execute(select(status, func.count()).group_by(status)).all()
    _require_counts(connection, counts)
    if unknown := {str(name) for name, _ in by_status} - set(get_args(Status)):
        raise partition_checksums.damage_error(f"rows have the status {', '.join(sorted(unknown))}")
    sorted_status = dict(sorted((str(name), int(count)) for name, count in by_status))
    return DatabaseStats(describe(connection.engine.url), HEAD, counts, sorted_status)


def _require_counts(connection: Connection, counts: dict[str, int]) -> None:
    partitions = partition_checksums.read_partitions(connection)
    of_devices = partition_checksums.device_partition("")
    measurements = sum(partition.rows for name, partition in partitions.items() if name.startswith(of_devices))
    written = {table.name: partitions[table.name].rows for table in partition_checksums.WHOLE_TABLES}
    for name, count in {**written, "measurement": measurements}.items():
        if counts[name] != count:
            raise partition_checksums.damage_error(f"{name}: {counts[name]} rows found, {count} written")
