"""Tags of rows: outside of a row's digest, and kept in this database only."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from sqlalchemy import Connection

from edgevit.store import partition_checksums, small_tables, tables


def add(connection: Connection, measurement_ids: Iterable[str], tag: str) -> int:
    """Give a tag to rows that are stored, and return how many did not have it."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    names = dict.fromkeys(measurement_ids)
    rows = [{"tag": tag, "measurement_id": name, "tagged": now} for name in names]
    return sum([small_tables.add_row(connection, tables.tag, row) for row in rows])


def read(connection: Connection) -> dict[str, frozenset[str]]:
    """Return the ids of the rows of each tag. Raises StoreError where the table was changed."""
    ids: dict[str, set[str]] = {}
    for row in partition_checksums.read_table(connection, tables.tag):
        ids.setdefault(row["tag"], set()).add(row["measurement_id"])
    return {tag: frozenset(names) for tag, names in ids.items()}
