"""LatencyDB: the measurements of all devices, append-only, on SQLite (the default) or PostgreSQL."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import Connection, Engine, exists, func, select

from edgevit.errors import StoreError
from edgevit.store import jsonl, queries, rows, tables
from edgevit.store.connect import WRITE, create, database_url, describe, storing
from edgevit.store.jsonl import Imported, Refusal
from edgevit.store.schema import HEAD, ensure_schema
from edgevit.store.validate import validate
from edgevit.types import Artifact, Measurement
from edgevit_runtime.record import Status

_SHIPPED = "shipped_sha256"  # key of meta: digest of the shipped files that were loaded last
_BATCH_ROWS = 200  # per transaction of an import: each costs a sync of the disk, and keeps other writers waiting


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


class LatencyDB:
    """The latency database. Use it as a context manager, one per process: an SQLite connection does not survive a fork.

    Every method raises StoreError where the database cannot be read or written, with the reason and what to do. What a
    method has returned is on disk: a crash after it loses nothing, a crash during it leaves whole rows or none.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, url: str | None = None, *, shipped: bool = True) -> LatencyDB:
        """Open a database, create or migrate it where needed, and add the rows that come with edgevit if `shipped`.

        `url` is an SQLAlchemy URL or the path of an SQLite file; default: EDGEVIT_DB, else a file in the user's data
        folder. Raises StoreError for what is no latency database, is damaged, not writable, or of a newer edgevit.
        """
        address = database_url(url)
        with ExitStack() as undo:
            engine = create(address)
            undo.callback(engine.dispose)
            with storing(address):
                ensure_schema(engine)
            database = cls(engine)
            if shipped and (refused := database.load_shipped().refused):
                said = "; ".join(f"{place}: {reason}" for place, reason in refused[:3])
                warnings.warn(f"{len(refused)} rows that come with edgevit were refused: {said}", stacklevel=2)
            undo.pop_all()
        return database

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def where(self) -> str:
        """The file, or the URL without its password."""
        return describe(self._engine.url)

    def add(self, measurement: Measurement) -> bool:
        """Keep a row; True if it is new. Adding it again changes nothing.

        Raises StoreError for a row that cannot be true (see validate), and for one with the id of a row kept here that
        says something else.
        """
        validate(measurement)
        with self._transaction(write=True) as connection:
            return queries.insert(connection, measurement)

    def get(self, measurement_id: str) -> Measurement:
        """One row with its samples and snapshots. Raises StoreError if none has this id."""
        with self._transaction() as connection:
            found = queries.fetch(connection, [measurement_id])
        if not found:
            raise StoreError(f"no measurement has the id {measurement_id!r}", where=self.where)
        return found[0]

    def has(self, measurement_key: str) -> bool:
        """Whether this was measured, or at least tried: rows of runs that failed count."""
        query = select(exists().where(tables.measurement.c.measurement_key == measurement_key))
        with self._transaction() as connection:
            return bool(connection.execute(query).scalar())

    def measurements(
        self,
        *,
        device: str | None = None,
        model: str | None = None,
        target: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
        status: Status | None = None,
    ) -> list[Measurement]:
        """The rows that match all that is asked for, oldest first, without samples and snapshots: get() has those.

        `device` is a name, a device_id or a device_class.
        """
        wanted = queries.conditions(
            device, model=model, target=target, precision=precision, threads=threads, status=status
        )
        with self._transaction() as connection:
            return [rows.read(row) for row in connection.execute(rows.head().where(*wanted)).mappings()]

    def devices(self) -> list[DeviceRows]:
        """Every device with rows, by name."""
        device, started = tables.device.c, tables.measurement.c.started_unix_us
        labels = (device.name, device.device_id, device.device_class)
        query = select(*labels, func.count(), func.max(started)).join_from(tables.device, tables.measurement)
        with self._transaction() as connection:
            found = connection.execute(query.group_by(*labels).order_by(*labels)).all()
        return [DeviceRows(name, unit, kind, count, rows.iso_time(latest)) for name, unit, kind, count, latest in found]

    def stats(self) -> Stats:
        """What the database holds."""
        status = tables.measurement.c.status
        with self._transaction() as connection:
            lines = {
                name: connection.execute(select(func.count()).select_from(table)).scalar_one()
                for name, table in tables.METADATA.tables.items()
            }
            found = connection.execute(select(status, func.count()).group_by(status).order_by(status)).all()
        return Stats(self.where, HEAD, lines, dict(found))

    def record_built(self, artifact: Artifact) -> None:
        """Record that this artifact was built here, so that its code may run. Recording it again changes nothing.

        Such records never leave the database: importing somebody's rows does not make their code run.
        """
        with self._transaction(write=True) as connection:
            queries.insert_built(connection, artifact)

    def built(self) -> frozenset[str]:
        """The digests of the artifacts that were recorded as built here."""
        with self._transaction() as connection:
            return frozenset(connection.execute(select(tables.built.c.sha256)).scalars())

    def export_jsonl(self, path: str | Path) -> int:
        """Write every row, with its samples, as JSON lines sorted by id; returns how many.

        The file appears under its name only when it is complete. Raises StoreError where it cannot be written.
        """
        return jsonl.write_lines(Path(path), self._every_row())

    def import_jsonl(self, path: str | Path) -> Imported:
        """Add the rows of a file of JSON lines. Each is validated on its own: bad ones are refused, good ones kept.

        Raises StoreError where the file cannot be read.
        """
        return self._load(jsonl.parse_lines(Path(path)))

    def load_shipped(self) -> Imported:
        """Add the rows that come with edgevit, unless the same files were loaded before."""
        files = jsonl.shipped_files()
        digest = jsonl.digest_of(files)
        with self._transaction() as connection:
            if not files or queries.read_meta(connection, _SHIPPED) == digest:
                return Imported(0, 0, ())
        results = [self._load(jsonl.parse_lines(file)) for file in files]
        with self._transaction(write=True) as connection:
            queries.write_meta(connection, _SHIPPED, digest)
        refused = tuple(refusal for result in results for refusal in result.refused)
        return Imported(sum(result.added for result in results), sum(result.known for result in results), refused)

    def _load(self, lines: Iterator[tuple[str, Measurement | Refusal]]) -> Imported:
        """Add rows a batch at a time; they are parsed and validated before the lock is taken."""
        results: list[bool | Refusal] = []
        checked = ((place, _check(place, item)) for place, item in lines)
        while batch := list(islice(checked, _BATCH_ROWS)):
            with self._transaction(write=True) as connection:
                results += [_insert(connection, place, item) for place, item in batch]
        refused = tuple(result for result in results if isinstance(result, Refusal))
        return Imported(results.count(True), results.count(False), refused)

    def _every_row(self) -> Iterator[Measurement]:
        """Whole rows by id, a batch per transaction: a reader that takes its time would keep writers out."""
        name = tables.measurement.c.measurement_id
        last = ""
        while True:
            with self._transaction() as connection:
                query = select(name).where(name > last).order_by(name).limit(_BATCH_ROWS)
                ids = connection.execute(query).scalars().all()
                batch = queries.fetch(connection, ids)
            if not ids:
                return
            yield from batch
            last = ids[-1]

    @contextmanager
    def _transaction(self, *, write: bool = False) -> Iterator[Connection]:
        engine = self._engine.execution_options(**WRITE) if write else self._engine
        with storing(self._engine.url), engine.begin() as connection:
            yield connection


def _check(place: str, item: Measurement | Refusal) -> Measurement | Refusal:
    if isinstance(item, Measurement):
        try:
            validate(item)
        except StoreError as error:
            return Refusal(place, f"{error.what}: {error.why}")
    return item


def _insert(connection: Connection, place: str, item: Measurement | Refusal) -> bool | Refusal:
    if isinstance(item, Refusal):
        return item
    try:
        return queries.insert(connection, item)
    except StoreError as error:
        return Refusal(place, f"{error.what}: {error.why}")
