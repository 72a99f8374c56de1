"""Import, merge and export: records into the database and out of it, many at a time.

A merge is a union of sets by content ids. In any order and however often, it ends with the same records. A record that
contradicts a stored one goes into quarantine and never takes its place.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import islice
from operator import attrgetter
from typing import Protocol

from sqlalchemy import Connection, select

from edgevit.errors import StoreError
from edgevit.records.measurement import Epoch, Measurement, NoiseFloor
from edgevit.store import (
    epoch_table,
    forgetting,
    origins,
    partition_checksums,
    quarantine,
    queries,
    rows,
    small_tables,
    tables,
)
from edgevit.store.content_tables import CONTENT_TABLES, table_of
from edgevit.store.json_records import ImportResult, ParsedRecord, PortableRecord, Refusal, checksum_of
from edgevit.store.queries import Conflict
from edgevit.store.refusals import RefusalCode, RefusalReason
from edgevit.store.row_checksums import shorten
from edgevit.store.unknown_silicon import with_known_silicon
from edgevit.store.validate import validate_measurement, validate_noise
from edgevit_runtime.codec import to_data

_LOG = logging.getLogger(__name__)
# Records per transaction: each costs a sync of the disk, and keeps other writers waiting.
BATCH_ROWS = 500
_BATCH_BYTES = 64 * 2**20
# Devices per transaction that stores their epochs, which reads all their rows.
BATCH_DEVICES = 20


class Transaction(Protocol):
    """Opens a transaction of the database; with `write`, one that writes alone."""

    def __call__(self, *, write: bool = False) -> AbstractContextManager[Connection]:
        """Return a context manager that gives the connection."""
        ...


def import_records(
    transaction: Transaction, records: Iterable[ParsedRecord], on_epoch: Callable[[Epoch], None], origin: origins.Writer
) -> ImportResult:
    """Add valid records in batches, put the others into quarantine, then recompute the devices' epochs.

    Records are parsed and validated before the lock is taken. `on_epoch` is called with each epoch that is new.
    """
    added = duplicates = 0
    refusals: list[Refusal] = []
    touched: set[str] = set()
    checked = map(_check, records)
    for batch in _batches(checked):
        with transaction(write=True) as connection:
            known = forgetting.forgotten(connection, (origins.record_id(one.record) for one in batch if one.record))
            origin.forgotten += len(known)
            batch = [one for one in batch if one.record is None or origins.record_id(one.record) not in known]
            outcomes = _insert(connection, batch)
            refused = [outcome for outcome in outcomes if isinstance(outcome, ParsedRecord)]
            quarantine.put(connection, refused)
            origin.record(connection, _accepted_ids(batch, outcomes))
            new = _devices(batch, outcomes)
            epoch_table.mark_due(connection, new)
        added += outcomes.count(True)
        duplicates += outcomes.count(False)
        refusals += [_refusal(record) for record in refused]
        touched |= new
    # Devices may also be due from an import that was killed before it stored their epochs.
    with transaction() as connection:
        touched |= epoch_table.due_devices(connection)
    for epoch in _refresh_epochs(transaction, touched):
        on_epoch(epoch)
    _LOG.debug("imported: %d added, %d duplicates, %d refused", added, duplicates, len(refusals))
    return ImportResult(added, duplicates, tuple(refusals))


def _batches(records: Iterable[ParsedRecord]) -> Iterator[list[ParsedRecord]]:
    """Yield records in batches of so many rows, or of so many bytes: refused lines may be large."""
    batch, size = list[ParsedRecord](), 0
    for record in records:
        batch.append(record)
        size += len(record.content)
        if len(batch) == BATCH_ROWS or size > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _accepted_ids(batch: list[ParsedRecord], outcomes: list[bool | ParsedRecord]) -> list[str]:
    """Return the ids of the records that the database has now, the duplicates among them."""
    pairs = zip(batch, outcomes, strict=True)
    return [origins.record_id(parsed.record) for parsed, outcome in pairs if parsed.record and outcome in (True, False)]


def _refusal(record: ParsedRecord) -> Refusal:
    assert record.refusal is not None  # as for every record that _check or _insert refused
    _LOG.debug("refused: %s: %s", record.location, record.refusal.text)
    return Refusal(record.location, record.refusal.code, record.refusal.text)


def _refresh_epochs(transaction: Transaction, device_ids: Iterable[str]) -> Iterator[Epoch]:
    """Recompute and store the epochs of these devices, a few per transaction; yield the new ones."""
    remaining = iter(sorted(device_ids))
    while batch := list(islice(remaining, BATCH_DEVICES)):
        with transaction(write=True) as connection:
            new = epoch_table.refresh(connection, batch)
        yield from new


def _devices(batch: list[ParsedRecord], outcomes: list[bool | ParsedRecord]) -> set[str]:
    """Return the devices whose epochs the added records may change."""
    pairs = zip(batch, outcomes, strict=True)
    records = [parsed.record for parsed, outcome in pairs if outcome is True]
    return {record.device_id for record in records if isinstance(record, Measurement | NoiseFloor)}


def _check(parsed: ParsedRecord) -> ParsedRecord:
    """Return the record with its columns, or without the record and with the reason why it is refused."""
    record, columns = parsed.record, None
    try:
        match record:
            case None:
                return parsed
            case Measurement():
                validate_measurement(record)
                columns = rows.measurement_values(record)
            case NoiseFloor():
                validate_noise(record)
            case _:
                table_of(record).validate(record)
    except StoreError as error:
        return _refuse(parsed, "impossible", error)
    expected = columns["row_sha256"] if columns else checksum_of(record)
    if parsed.checksum is not None and parsed.checksum != expected:
        mismatch = StoreError("it is not what was written", why="its digest is another")
        return _refuse(parsed, "checksum_mismatch", mismatch)
    if isinstance(record, Measurement) and (known := with_known_silicon(record)) is not record:
        return parsed._replace(record=known, columns=rows.measurement_values(known))
    return parsed._replace(columns=columns)


def _refuse(parsed: ParsedRecord, code: RefusalCode, error: StoreError) -> ParsedRecord:
    """Return the record's location with the reason and the contents: a record of a database has no line of its own."""
    content = parsed.content or json.dumps(to_data(parsed.record), sort_keys=True).encode()
    refusal = RefusalReason(code, f"{error.what}: {error.why}")
    return parsed._replace(record=None, refusal=refusal, content=content)


def _insert(connection: Connection, batch: list[ParsedRecord]) -> list[bool | ParsedRecord]:
    """Add a batch; return for each record whether it is new, or the record with the reason why it is refused."""
    new = [
        (parsed.record, parsed.columns) for parsed in batch if isinstance(parsed.record, Measurement) and parsed.columns
    ]
    of_measurements = iter(queries.insert(connection, new))
    outcomes: list[bool | ParsedRecord] = []
    for parsed in batch:
        outcome: bool | Conflict
        match parsed.record:
            case None:
                outcomes.append(parsed)
                continue
            case Measurement():
                outcome = next(of_measurements)
            case NoiseFloor():
                outcome = _insert_noise(connection, parsed.record)
            case record:
                outcome = table_of(record).insert(connection, record)
        outcomes.append(_refuse(parsed, outcome.code, outcome.error) if isinstance(outcome, Conflict) else outcome)
    return outcomes


def _insert_noise(connection: Connection, floor: NoiseFloor) -> bool | Conflict:
    if small_tables.insert_noise(connection, floor):
        return True
    stored = [other for other in small_tables.noise_floors(connection) if _moment(other) == _moment(floor)]
    if stored and stored[0] != floor:
        error = StoreError("a noise floor of this device and moment is kept here", why="it has another value")
        return Conflict("contradiction", error)
    return False


_moment = attrgetter("device_id", "started")


def export_records(transaction: Transaction) -> Iterator[PortableRecord]:
    """Yield all portable records: measurements by id, then noise floors, accuracies and what else is small.

    Each batch of rows has its own transaction, because a slow reader would keep writers out. Raises StoreError where a
    record is damaged, or where rows are missing.
    """
    with transaction() as connection:
        expected = count_measurements(connection)
    count, last = 0, ""
    while True:
        with transaction() as connection:
            ids = queries.next_ids(connection, last, BATCH_ROWS)
            batch = queries.fetch(connection, ids)
        if not ids:
            break
        yield from batch
        count, last = count + len(batch), ids[-1]
    if count < expected:
        raise partition_checksums.damage_error(f"{count} measurements found, {expected} written")
    with transaction() as connection:
        yield from small_tables.noise_floors(connection)
        for table in CONTENT_TABLES.values():
            yield from table.read(connection)


def count_measurements(connection: Connection) -> int:
    """Return the number of measurements, from their checksums alone. Raises StoreError where rows were changed."""
    totals: dict[int, list[int]] = {number: [0, 0] for number in queries.device_rows(connection, None)}
    columns = select(tables.measurement.c.device_no, tables.measurement.c.row_sha256)
    for number, row_sha256 in connection.execute(columns):
        if number not in totals:
            raise partition_checksums.damage_error(f"measurements of device {number}, which is not there")
        totals[number][0] += 1
        try:
            totals[number][1] ^= shorten(row_sha256)
        except (TypeError, ValueError) as error:
            raise partition_checksums.damage_error(f"a digest of a row of device {number} was changed") from error
    partitions = partition_checksums.read_partitions(connection)
    for number, (count, checksum) in totals.items():
        name = partition_checksums.device_partition(number)
        actual = partition_checksums.PartitionChecksum(name, count, checksum)
        partition_checksums.require_equal(actual, partitions.get(name))
    return sum(count for count, _ in totals.values())
