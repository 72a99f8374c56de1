"""Digests for the rows of a database that an older edgevit wrote, before there were any."""

from __future__ import annotations

import json

from sqlalchemy import Connection, delete, func, select, update

from edgevit.errors import StoreError
from edgevit.records.measurement import Measurement
from edgevit.store import epoch_table, partition_checksums, quarantine, queries, rows, tables
from edgevit.store.json_records import Item
from edgevit.store.rows import Values
from edgevit.store.validate import validate

_BATCH_ROWS = 200


def seal_rows(connection: Connection) -> None:
    """Give every row its digest and every part its tally, unless there is a tally already.

    A row that cannot be true, or cannot be read, goes into quarantine: until now nobody could tell.
    """
    if connection.execute(select(func.count()).select_from(tables.tally)).scalar_one():
        return
    partition_checksums.create(connection)
    for table in partition_checksums.WHOLE:
        lines = rows.fetched(connection.execute(select(table)))
        partition_checksums.add(
            connection,
            [partition_checksums.Part(table.name).plus(partition_checksums.seal_of(table, line) for line in lines)],
        )
    last = ""
    while ids := queries.next_ids(connection, last, _BATCH_ROWS):
        _seal(connection, ids)
        last = ids[-1]
    epoch_table.refresh(connection, connection.execute(select(tables.device.c.device_id).distinct()).scalars().all())


def _seal(connection: Connection, ids: list[str]) -> None:
    kept = tables.measurement
    parts = queries.evidence(connection, ids)
    sealed = []
    for line in list(rows.fetched(connection.execute(rows.head().where(kept.c.measurement_id.in_(ids))))):
        name = line["measurement_id"]
        row = _read(line, parts.get(name, []))
        if isinstance(row, StoreError):
            _take_out(connection, line, row)
            continue
        values = rows.measurement_values(row)
        digests = {key: values[key] for key in ("evidence_sha256", "row_sha256", "started_unix_us")}
        connection.execute(update(kept).where(kept.c.measurement_id == name).values(digests))
        sealed.append({**digests, "device_no": line["device_no"]})
    partition_checksums.add(connection, partition_checksums.parts_of(sealed))


def _read(line: Values, parts: list[Values]) -> Measurement | StoreError:
    try:
        row = rows.read(line, parts, sealed=False)
        validate(row)
    except StoreError as error:
        return error
    return row


def _take_out(connection: Connection, line: Values, error: StoreError) -> None:
    name = line["measurement_id"]
    content = json.dumps(line, sort_keys=True, default=str).encode()
    quarantine.put(connection, [Item(f"measurement {name}", None, f"{error.what}: {error.why}", content)])
    for table in (tables.sample, tables.measurement):
        connection.execute(delete(table).where(table.c.measurement_id == name))
