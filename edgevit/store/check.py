"""`edgevit db check`: compares everything stored with its checksums, and tests whether it can be true."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection, Engine, text

from edgevit.errors import StoreError
from edgevit.records.measurement import Accuracy
from edgevit.store import (
    epoch_table,
    exchange,
    origins,
    partition_checksums,
    quarantine,
    queries,
    schema,
    small_tables,
)
from edgevit.store.connect import describe, translate_errors
from edgevit.store.content_tables import CONTENT_TABLES
from edgevit.store.sqlite_schema import expected_schema, schema_of
from edgevit.store.validate import validate_measurement, validate_noise


@dataclass(frozen=True)
class CheckReport:
    """Result of a check: how many rows were read with all their samples, and every problem with its location."""

    location: str
    rows: int
    accuracies: int
    quarantined: int
    problems: tuple[str, ...]


def check(engine: Engine) -> CheckReport:
    """Read everything: the structure of the file, checksums, ids against contents, samples against summaries.

    Raises StoreError only where nothing can be read at all. Other problems are in the report.
    """
    run = _CheckRun()
    steps: list[Callable[[Connection], Iterator[str]]] = [run.partitions, run.rows_of_devices, run.small_tables]
    steps.append(origins.without_origin)
    if engine.url.get_backend_name() == "sqlite":
        steps = [_structure_problems, *steps]
    for step in (*steps, run.epochs):
        run.step(engine, step)
    run.all_rows(engine)
    return CheckReport(describe(engine.url), run.rows, run.accuracies, run.quarantined, tuple(run.problems))


def _structure_problems(connection: Connection) -> Iterator[str]:
    """Yield problems that SQLite itself finds: in pages, indexes, constraints, and the text of the schema."""
    messages = connection.execute(text("PRAGMA integrity_check(20)")).scalars().all()
    yield from (f"integrity_check: {message}" for message in messages if message != "ok")
    for table, number, parent, _ in connection.execute(text("PRAGMA foreign_key_check")):
        yield f"{table} {number} refers to a row of {parent} that is not there"
    yield from (f"the schema: {part}" for part in sorted(schema_of(connection) ^ expected_schema(schema.HEAD)))


class _CheckRun:
    """A check under way: its counts and the problems so far."""

    def __init__(self) -> None:
        self.rows = self.accuracies = self.quarantined = 0
        self.problems: list[str] = []

    def step(self, engine: Engine, step: Callable[[Connection], Iterator[str]]) -> None:
        """Run one step in its own transaction. An error ends the step and not the check."""
        try:
            with translate_errors(engine.url), engine.begin() as connection:
                for problem in step(connection):
                    self.problems.append(problem)
        except StoreError as error:
            self.problems.append(f"{error.what}: {error.why}")

    def partitions(self, connection: Connection) -> Iterator[str]:
        """Yield partitions that belong to no device and no table. Reading them checks their own checksums."""
        devices = {partition_checksums.device_partition(number) for number in queries.device_rows(connection, None)}
        expected = devices | {table.name for table in partition_checksums.WHOLE_TABLES}
        yield from (
            f"a partition checksum is of {name!r}, which is not there"
            for name in partition_checksums.read_partitions(connection)
            if name not in expected
        )

    def rows_of_devices(self, connection: Connection) -> Iterator[str]:
        """Compare the columns of all rows with their checksums, and the number of rows with the partitions."""
        exchange.count_measurements(connection)
        numbers = queries.device_rows(connection, None)
        for _ in queries.rows_of_devices(connection, numbers, all_devices=True):
            pass
        yield from ()

    def small_tables(self, connection: Connection) -> Iterator[str]:
        """Compare every small table with its partition checksum, and validate its records."""
        for table in partition_checksums.WHOLE_TABLES:
            partition_checksums.read_table(connection, table)
        self.quarantined = len(quarantine.read(connection))
        for record_type, content in CONTENT_TABLES.items():
            records = content.read(connection)
            self.accuracies += len(records) if record_type is Accuracy else 0
            for record in records:
                content.validate(record)
        for floor in small_tables.noise_floors(connection):
            validate_noise(floor)
        yield from ()

    def epochs(self, connection: Connection) -> Iterator[str]:
        """Compare the epoch table with the epochs that follow from the rows, except for devices that are due."""
        due = epoch_table.due_devices(connection)
        units = {row["device_id"] for row in queries.device_rows(connection, None).values()}
        stored = {epoch for epoch in epoch_table.read(connection) if epoch.device_id not in due}
        if stored != set(epoch_table.compute(connection, units - due)):
            yield "the epochs are not those of the rows: edgevit db epochs --refresh recomputes them"

    def all_rows(self, engine: Engine) -> None:
        """Validate each row with its samples: checksums, key and id, samples against the summary."""
        last = ""
        while True:
            ids: list[str] = []
            self.step(engine, partial(self._batch, last=last, ids=ids))
            if not ids:
                return
            last = ids[-1]

    def _batch(self, connection: Connection, last: str, ids: list[str]) -> Iterator[str]:
        ids += queries.next_ids(connection, last, exchange.BATCH_ROWS)
        for row in queries.fetch_each(connection, ids).values():
            self.rows += 1
            if isinstance(row, queries.DamagedRow):
                yield f"{row.error.what}: {row.error.why}"
                continue
            try:
                validate_measurement(row)
            except StoreError as error:
                yield f"measurement {row.measurement_id[:12]}: {error.what}: {error.why}"
