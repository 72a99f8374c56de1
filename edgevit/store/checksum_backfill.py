"""Checksums for the rows of a database from before there were checksums."""

from __future__ import annotations

import json
import logging

from sqlalchemy import Connection, delete, func, select, update

from edgevit.errors import StoreError
from edgevit.records.measurement import Measurement
from edgevit.store import epoch_table, partition_checksums, quarantine, queries, rows, tables
from edgevit.store.json_records import ParsedRecord
from edgevit.store.refusals import RefusalReason
from edgevit.store.rows import Values
from edgevit.store.validate import validate_measurement

_BATCH_ROWS = 200
_LOG = logging.getLogger(__name__)


def backfill_checksums(connection: Connection) -> None:
    """Give every row its checksum and every partition its own, unless the database has partitions already.

    A row that cannot be true, or cannot be read, goes into quarantine: without checksums it went unnoticed.
    """
    if connection.execute(select(func.count()).select_from(tables.partition_checksum)).scalar_one():
        return
    partition_checksums.create_all(connection)
    for table in partition_checksums.WHOLE_TABLES:
        checksums = [
            partition_checksums.checksum_of(table, row)
            for row in rows.row_dicts(connection.execute(select(table)))
        ]  # fmt: skip
        partition_checksums.add(connection, [partition_checksums.PartitionChecksum(table.name).plus(checksums)])
    last = ""
    while ids := queries.next_ids(connection, last, _BATCH_ROWS):
        _backfill_batch(connection, ids)
        last = ids[-1]
    epoch_table.refresh(connection, connection.execute(select(tables.device.c.device_id).distinct()).scalars().all())


def _backfill_batch(connection: Connection, ids: list[str]) -> None:
    table = tables.measurement
    samples = queries.sample_rows(connection, ids)
    updated = []
    for columns in list(rows.row_dicts(connection.execute(rows.head_query().where(table.c.measurement_id.in_(ids))))):
        name = columns["measurement_id"]
        row = _read(columns, samples.get(name, []))
        if isinstance(row, StoreError):
            _move_to_quarantine(connection, columns, row)
            continue
        values = rows.measurement_values(row)
        digests = {key: values[key] for key in ("evidence_sha256", "row_sha256", "started_unix_us")}
        connection.execute(update(table).where(table.c.measurement_id == name).values(digests))
        updated.append({**digests, "device_no": columns["device_no"]})
    partition_checksums.add(connection, partition_checksums.partitions_of(updated))
    _LOG.debug("gave checksums to %d rows", len(updated))


def _read(columns: Values, samples: list[Values]) -> Measurement | StoreError:
    try:
        row = rows.read(columns, samples, has_checksum=False)
        validate_measurement(row)
    except StoreError as error:
        return error
    return row


def _move_to_quarantine(connection: Connection, columns: Values, error: StoreError) -> None:
    name = columns["measurement_id"]
    content = json.dumps(columns, sort_keys=True, default=str).encode()
    reason = RefusalReason("impossible", f"{error.what}: {error.why}")
    quarantine.put(connection, [ParsedRecord(f"measurement {name}", None, reason, content)])
    for table in (tables.sample, tables.measurement):
        connection.execute(delete(table).where(table.c.measurement_id == name))
