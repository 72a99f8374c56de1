"""Records into the database and out of it, many at a time: what import, merge and export have in common.

A merge is a union of sets by content ids. Whatever the order and however often, the same records are there at the end;
a record that contradicts one that is kept here stays out, in quarantine, and never takes its place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import islice
from operator import attrgetter
from typing import Protocol

from sqlalchemy import Connection, select

from edgevit.errors import StoreError
from edgevit.records.measurement import Accuracy, Epoch, Measurement, NoiseFloor
from edgevit.records.model import Graph
from edgevit.store import (
    accuracies,
    epoch_table,
    graphs,
    partition_checksums,
    quarantine,
    queries,
    rows,
    small_tables,
    tables,
)
from edgevit.store.json_records import Imported, Item, Refusal, Travelling, digest_of
from edgevit.store.row_checksums import as_seal
from edgevit.store.validate import validate, validate_noise
from edgevit_runtime.codec import to_data

BATCH_ROWS = 500  # per transaction: each costs a sync of the disk, and keeps other writers waiting
BATCH_DEVICES = 20  # per transaction that writes their epochs, which reads all their rows


class Transaction(Protocol):
    """Opens a transaction of the database; `write` for one that writes, alone."""

    def __call__(self, *, write: bool = False) -> AbstractContextManager[Connection]:
        """The connection that is in it."""
        ...


def load(transaction: Transaction, items: Iterable[Item], on_epoch: Callable[[Epoch], None]) -> Imported:
    """Add what is sound, a batch at a time, and put the rest into quarantine; then write the devices' epochs anew.

    Records are parsed and validated before the lock is taken.
    """
    added = known = 0
    refused: list[Refusal] = []
    touched: set[str] = set()
    checked = map(_check, items)
    while batch := list(islice(checked, BATCH_ROWS)):
        with transaction(write=True) as connection:
            outcomes = _insert(connection, batch)
            bad = [item for item in outcomes if isinstance(item, Item)]
            quarantine.put(connection, bad)
            new = _devices(batch, outcomes)
            epoch_table.mark(connection, new)
        added += outcomes.count(True)
        known += outcomes.count(False)
        refused += [Refusal(item.place, item.reason) for item in bad]
        touched |= new
    with transaction() as connection:
        touched |= epoch_table.marked(connection)  # by an import that was killed before it came to this
    for opened in _finish_epochs(transaction, touched):
        on_epoch(opened)
    return Imported(added, known, tuple(refused))


def _finish_epochs(transaction: Transaction, device_ids: Iterable[str]) -> Iterator[Epoch]:
    """Write the epochs of these devices anew, a few devices per transaction; those that were not there before."""
    rest = iter(sorted(device_ids))
    while some := list(islice(rest, BATCH_DEVICES)):
        with transaction(write=True) as connection:
            opened = epoch_table.refresh(connection, some)
        yield from opened


def _devices(batch: list[Item], outcomes: list[bool | Item]) -> set[str]:
    """The devices whose epochs what was added may change."""
    pairs = zip(batch, outcomes, strict=True)
    records = [item.record for item, outcome in pairs if outcome is True]
    return {record.device_id for record in records if isinstance(record, Measurement | NoiseFloor)}


def _check(item: Item) -> Item:
    """The item, with its columns; or without its record, and why that cannot be taken."""
    record, columns = item.record, None
    try:
        match record:
            case None:
                return item
            case Measurement():
                validate(record)
                columns = rows.measurement_values(record)
            case Accuracy():
                accuracies.validate_accuracy(record)
            case NoiseFloor():
                validate_noise(record)
            case Graph():
                graphs.validate_graph(record)
    except StoreError as error:
        return _refused(item, error)
    if item.digest is not None and item.digest != (columns["row_sha256"] if columns else digest_of(record)):
        return _refused(item, StoreError("it is not what was written", why="its digest is another"))
    return item._replace(columns=columns)


def _refused(item: Item, error: StoreError) -> Item:
    """The item without its record, with the reason and with what it says: one of a database has no line of its own."""
    content = item.content or json.dumps(to_data(item.record), sort_keys=True).encode()
    return item._replace(record=None, reason=f"{error.what}: {error.why}", content=content)


def _insert(connection: Connection, batch: list[Item]) -> list[bool | Item]:
    """Of each whether it is new, known, or the item with the reason why it is not taken."""
    new = [(item.record, item.columns) for item in batch if isinstance(item.record, Measurement) and item.columns]
    of_rows = iter(queries.insert(connection, new))
    outcomes: list[bool | Item] = []
    for item in batch:
        outcome: bool | StoreError
        match item.record:
            case None:
                outcomes.append(item)
                continue
            case Measurement():
                outcome = next(of_rows)
            case Accuracy():
                outcome = accuracies.insert(connection, item.record)
            case NoiseFloor():
                outcome = _insert_noise(connection, item.record)
            case Graph():
                outcome = graphs.insert(connection, item.record)
        outcomes.append(_refused(item, outcome) if isinstance(outcome, StoreError) else outcome)
    return outcomes


def _insert_noise(connection: Connection, floor: NoiseFloor) -> bool | StoreError:
    if small_tables.insert_noise(connection, floor):
        return True
    kept = [item for item in small_tables.noise_floors(connection) if _moment(item) == _moment(floor)]
    if kept and kept[0] != floor:
        return StoreError("a noise floor of this device and moment is kept here", why="it says something else")
    return False


_moment = attrgetter("device_id", "started")


def every_record(transaction: Transaction) -> Iterator[Travelling]:
    """All that travels: measurements by id, then accuracies, noise floors and graphs.

    Rows come a batch per transaction, because a reader that takes its time would keep writers out. Raises StoreError
    where a record is damaged, or where fewer rows come than were there.
    """
    with transaction() as connection:
        expected = present(connection)
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
        raise partition_checksums.broken(f"{count} measurements found, {expected} written")
    with transaction() as connection:
        yield from accuracies.read(connection)
        yield from small_tables.noise_floors(connection)
        yield from graphs.read(connection)


def present(connection: Connection) -> int:
    """How many measurements there are, by their digests alone. Raises StoreError where that is not what was written."""
    found: dict[int, list[int]] = {number: [0, 0] for number in queries.device_numbers(connection, None)}
    for number, digest in connection.execute(select(tables.measurement.c.device_no, tables.measurement.c.row_sha256)):
        if number not in found:
            raise partition_checksums.broken(f"measurements of device {number}, which is not there")
        found[number][0] += 1
        try:
            found[number][1] ^= as_seal(digest)
        except (TypeError, ValueError) as error:
            raise partition_checksums.broken(f"a digest of a row of device {number} was changed") from error
    parts = partition_checksums.read_parts(connection)
    for number, (lines, digest) in found.items():
        name = partition_checksums.rows_of(number)
        partition_checksums.require(partition_checksums.Part(name, lines, digest), parts.get(name))
    return sum(lines for lines, _ in found.values())
