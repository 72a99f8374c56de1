"""`edgevit db check`: whether everything that is stored is what was written, and can be true."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection, Engine, text

from edgevit.errors import StoreError
from edgevit.store import (
    accuracies,
    epoch_table,
    exchange,
    graphs,
    partition_checksums,
    quarantine,
    queries,
    schema,
    small_tables,
)
from edgevit.store.connect import describe, storing
from edgevit.store.sqlite_schema import expected_shape, shape_of
from edgevit.store.validate import validate, validate_noise


@dataclass(frozen=True)
class Checked:
    """What a check found: how many rows it read, with all their samples, and what is wrong where."""

    where: str
    rows: int
    accuracies: int
    quarantined: int
    problems: tuple[str, ...]


def check(engine: Engine) -> Checked:
    """Read everything: the file's own structure, digests, ids from what they name, samples against summaries.

    Raises StoreError only where nothing can be read at all; what is wrong otherwise is in the answer.
    """
    found = _Found()
    steps: list[Callable[[Connection], Iterator[str]]] = [found.tallies, found.rows_of_devices, found.small_tables]
    if engine.url.get_backend_name() == "sqlite":
        steps = [_structure, *steps]
    for step in (*steps, found.epochs):
        found.run(engine, step)
    found.every_row(engine)
    return Checked(describe(engine.url), found.rows, found.accuracies, found.quarantined, tuple(found.problems))


def _structure(connection: Connection) -> Iterator[str]:
    """What SQLite itself can tell of the file: pages, indexes, constraints, and the text of the schema."""
    said = connection.execute(text("PRAGMA integrity_check(20)")).scalars().all()
    yield from (f"integrity_check: {line}" for line in said if line != "ok")
    for table, number, parent, _ in connection.execute(text("PRAGMA foreign_key_check")):
        yield f"{table} {number} refers to a line of {parent} that is not there"
    yield from (f"the schema: {part}" for part in sorted(shape_of(connection) ^ expected_shape(schema.HEAD)))


class _Found:
    def __init__(self) -> None:
        self.rows = self.accuracies = self.quarantined = 0
        self.problems: list[str] = []

    def run(self, engine: Engine, step: Callable[[Connection], Iterator[str]]) -> None:
        """One step in a transaction of its own; an error ends the step, and not the check."""
        try:
            with storing(engine.url), engine.begin() as connection:
                for problem in step(connection):
                    self.problems.append(problem)
        except StoreError as error:
            self.problems.append(f"{error.what}: {error.why}")

    def tallies(self, connection: Connection) -> Iterator[str]:
        """The tally itself, and that none of its parts is of a device that is not there."""
        devices = {partition_checksums.rows_of(number) for number in queries.device_numbers(connection, None)}
        known = devices | {table.name for table in partition_checksums.WHOLE}
        yield from (
            f"the tally has a part {name!r}" for name in partition_checksums.read_parts(connection) if name not in known
        )

    def rows_of_devices(self, connection: Connection) -> Iterator[str]:
        """That no row is missing; and the columns of all, against their digests."""
        exchange.present(connection)
        numbers = queries.device_numbers(connection, None)
        for _ in queries.of_devices(connection, numbers, every=True):
            pass
        yield from ()

    def small_tables(self, connection: Connection) -> Iterator[str]:
        """Every small table against its tally, and what it says against what can be true."""
        for table in partition_checksums.WHOLE:
            partition_checksums.read_whole(connection, table)
        self.quarantined = len(quarantine.read(connection))
        for item in accuracies.read(connection):
            self.accuracies += 1
            accuracies.validate_accuracy(item)
        for floor in small_tables.noise_floors(connection):
            validate_noise(floor)
        for graph in graphs.read(connection):
            graphs.validate_graph(graph)
        yield from ()

    def epochs(self, connection: Connection) -> Iterator[str]:
        """The epochs that are written down against those that follow from the rows, but for devices that are due."""
        due = epoch_table.marked(connection)
        units = {line["device_id"] for line in queries.device_numbers(connection, None).values()}
        written = {epoch for epoch in epoch_table.read(connection) if epoch.device_id not in due}
        if written != set(epoch_table.compute(connection, units - due)):
            yield "the epochs are not those of the rows: edgevit db epochs --refresh writes them anew"

    def every_row(self, engine: Engine) -> None:
        """Each row with its evidence: digests, key and id anew, samples against the summary."""
        last = ""
        while True:
            ids: list[str] = []
            self.run(engine, partial(self._batch, last=last, ids=ids))
            if not ids:
                return
            last = ids[-1]

    def _batch(self, connection: Connection, last: str, ids: list[str]) -> Iterator[str]:
        ids += queries.next_ids(connection, last, exchange.BATCH_ROWS)
        for row in queries.fetch_each(connection, ids).values():
            self.rows += 1
            if isinstance(row, queries.Damaged):
                yield f"{row.error.what}: {row.error.why}"
                continue
            try:
                validate(row)
            except StoreError as error:
                yield f"measurement {row.measurement_id[:12]}: {error.what}: {error.why}"
