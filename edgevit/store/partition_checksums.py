"""Row counts and checksums per partition; they reveal deleted rows.

A checksum in a row reveals that the row was changed. It cannot reveal that the row is missing. One bit in a page of
the file is enough to hide it from an index, and an answer from fewer rows would be wrong without notice. A partition
is the rows of one device, or a small table as a whole. Each has its number of rows and the exclusive or of their
checksums, which no order changes. Every reader of a partition compares its rows with both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, reduce
from operator import xor
from typing import Any

from sqlalchemy import Connection, Double, LargeBinary, Table, bindparam, select, update

from edgevit.errors import StoreError
from edgevit.store import tables
from edgevit.store.row_checksums import line_checksum, shorten

# Small tables that are read, and checked, as a whole. Other columns of a row cover the contents of a binary column.
WHOLE_TABLES = (
    tables.device, tables.noise, tables.accuracy, tables.confusion, tables.graph, tables.operator_time, tables.tuning,
    tables.built, tables.sweep, tables.sweep_row, tables.tag, tables.quarantine,
)  # fmt: skip
# Columns of later schemas, with their empty values, as row_checksums.LATER has those of measurements.
_LATER = {"accuracy": {"assumed_json": "[]", "preprocessing_json": "null", "network_json": "null"}}
_NEVER = object()
FIX = "save what is whole into a new database: edgevit db merge THIS --db NEW; edgevit db check says more"


@dataclass(frozen=True)
class PartitionChecksum:
    """A partition's number of rows, the exclusive or of their checksums, and when the latest of them began."""

    name: str
    rows: int = 0
    checksum: int = 0
    latest_unix_us: int | None = None

    def plus(self, checksums: Iterable[int], latest_unix_us: int | None = None) -> PartitionChecksum:
        """Return the partition with more rows."""
        more = list(checksums)
        return self.joined(PartitionChecksum(self.name, len(more), reduce(xor, more, 0), latest_unix_us))

    def joined(self, more: PartitionChecksum) -> PartitionChecksum:
        """Return the partition with the rows of both."""
        times = [time for time in (self.latest_unix_us, more.latest_unix_us) if time is not None]
        latest = max(times, default=None)
        return PartitionChecksum(self.name, self.rows + more.rows, self.checksum ^ more.checksum, latest)

    @property
    def own_checksum(self) -> int:
        """Checksum of this row itself."""
        return line_checksum((self.name, self.rows, self.checksum, self.latest_unix_us))


def device_partition(device_no: int | str) -> str:
    """Return the name of the partition with the measurements of a device."""
    return f"rows of device {device_no}"


def checksum_of(table: Table, row: Mapping[str, Any]) -> int:
    """Compute the checksum of one row of a small table."""
    later = _LATER.get(table.name, {})
    columns = (column for column in _checked_columns(table) if row[column[0]] != later.get(column[0], _NEVER))
    values = ((row[name], is_real) for name, is_real in columns)
    return line_checksum(float(value) if is_real and isinstance(value, int) else value for value, is_real in values)


@cache
def _checked_columns(table: Table) -> tuple[tuple[str, bool], ...]:
    """Return the columns in a checksum, and whether they hold fractions: 30 and 30.0 are one number."""
    columns = (column for column in table.columns if not isinstance(column.type, LargeBinary))
    return tuple((column.name, isinstance(column.type, Double)) for column in columns)


def partitions_of(rows: Iterable[Mapping[str, Any]]) -> list[PartitionChecksum]:
    """Return what rows of the measurement table add to the partitions of their devices."""
    by_device: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_device.setdefault(row["device_no"], []).append(row)
    return [
        PartitionChecksum(device_partition(number)).plus(
            (shorten(row["row_sha256"]) for row in of_device), max(row["started_unix_us"] for row in of_device)
        )
        for number, of_device in by_device.items()
    ]


def read_partitions(connection: Connection, names: Iterable[str] | None = None) -> dict[str, PartitionChecksum]:
    """Return partitions by name; None: all. Those of whole tables are always there.

    Raises StoreError where a row of the partition table was changed, or is missing.
    """
    table = tables.partition_checksum
    query = select(table)
    requested = None if names is None else list(names)
    if requested is not None:
        query = query.where(table.c.part.in_(requested))
    partitions = {}
    for row in connection.execute(query).mappings():
        partition = PartitionChecksum(row["part"], row["lines"], row["digest"], row["latest_unix_us"])
        if partition.own_checksum != row["seal"]:
            raise damage_error(f"the partition checksum of {partition.name!r} was changed")
        partitions[partition.name] = partition
    for name in (whole.name for whole in WHOLE_TABLES):
        if (requested is None or name in requested) and name not in partitions:
            raise damage_error(f"the partition checksum of {name!r} is missing")
    return partitions


def add_table(connection: Connection, table: Table) -> None:
    """Add the partition of a new small table to a database that has partitions. A migration calls this."""
    connection.execute(tables.partition_checksum.insert(), [_columns(PartitionChecksum(table.name))])


def create_all(connection: Connection) -> None:
    """Add the partitions of a database whose tables are new."""
    partitions = [_columns(PartitionChecksum(table.name)) for table in WHOLE_TABLES]
    connection.execute(tables.partition_checksum.insert(), partitions)


def add(connection: Connection, more: Iterable[PartitionChecksum]) -> None:
    """Count rows that were added. The connection must be one that writes alone (connect.WRITE)."""
    table = tables.partition_checksum
    added = {partition.name: partition for partition in more}
    old = read_partitions(connection, added)
    rows = [_columns(old.get(name, PartitionChecksum(name)).joined(partition)) for name, partition in added.items()]
    if new := [row for row in rows if row["part"] not in old]:
        connection.execute(table.insert(), new)
    if changed := [{"name": row["part"], **row} for row in rows if row["part"] in old]:
        connection.execute(update(table).where(table.c.part == bindparam("name")), changed)


def _columns(partition: PartitionChecksum) -> dict[str, Any]:
    return {
        "part": partition.name,
        "lines": partition.rows,
        "digest": partition.checksum,
        "latest_unix_us": partition.latest_unix_us,
        "seal": partition.own_checksum,
    }


def require_equal(actual: PartitionChecksum, expected: PartitionChecksum | None) -> None:
    """Raise StoreError where the rows that were read are not those that were written."""
    expected = expected or PartitionChecksum(actual.name)
    if actual.rows != expected.rows:
        raise damage_error(f"{actual.name!r}: {actual.rows} rows found, {expected.rows} written")
    if actual.checksum != expected.checksum:
        raise damage_error(f"{actual.name!r} was changed")


def read_table(connection: Connection, table: Table) -> list[dict[str, Any]]:
    """Return every row of a small table, by its primary key. Raises StoreError where one was changed or is missing."""
    result = connection.execute(select(table))
    names = tuple(result.keys())
    rows = [dict(zip(names, values, strict=True)) for values in result]
    expected = read_partitions(connection, [table.name])[table.name]
    require_equal(PartitionChecksum(table.name).plus(checksum_of(table, row) for row in rows), expected)
    keys = [column.name for column in table.primary_key]
    # Not in SQL: a server may put texts into another order, and the same records would give another export.
    return sorted(rows, key=lambda row: [row[key] for key in keys])


def damage_error(why: str) -> StoreError:
    """Return the error for a database whose rows are not those that were written."""
    return StoreError("the latency database is not as it was written", why=why, fix=FIX)
