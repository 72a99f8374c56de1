"""LatencyDB: the measurements of all devices, append-only, on SQLite (the default) or PostgreSQL."""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import Connection, Engine, exists, select

from edgevit.errors import StoreError
from edgevit.records.artifact import Artifact
from edgevit.records.measurement import Accuracy, Device, Epoch, Measurement, NoiseFloor, SweepRecord
from edgevit.records.model import Graph
from edgevit.store import (
    accuracies,
    epoch_table,
    exchange,
    graphs,
    jsonl,
    overview,
    quarantine,
    queries,
    readonly_sql,
    rows,
    small_tables,
    tables,
)
from edgevit.store.check import Checked, check
from edgevit.store.connect import WRITE, create, database_url, describe, storing
from edgevit.store.json_records import Imported, Item, Travelling
from edgevit.store.overview import DeviceRows, Stats
from edgevit.store.quarantine import Quarantined
from edgevit.store.schema import ensure_schema
from edgevit.store.validate import validate, validate_noise
from edgevit_runtime.codec import to_json
from edgevit_runtime.record import Status

_SHIPPED = "shipped_sha256"  # key of meta: digest of the shipped files that were loaded last
_PARQUET = ".parquet"


class LatencyDB:
    """The latency database. Use it as a context manager, one per process: an SQLite connection does not survive a fork.

    Every method raises StoreError where the database cannot be read or written, or is not what was written, with the
    reason and what to do. What a method has returned is on disk: a crash after it loses nothing, a crash during it
    leaves whole rows or none. `opened` are the epochs of devices that rows added through this object have opened.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.opened: list[Epoch] = []

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

    def add(self, measurement: Measurement, *, sweep_id: str | None = None) -> bool:
        """Keep a row; True if it is new. Adding it again changes nothing. `sweep_id`: of the sweep it came of.

        Raises StoreError for a row that cannot be true (see validate), and for one with the id of a row kept here that
        says something else.
        """
        validate(measurement)
        columns = rows.measurement_values(measurement)
        with self._transaction(write=True) as connection:
            [outcome] = queries.insert(connection, [(measurement, columns)])
            if isinstance(outcome, StoreError):
                raise outcome
            if sweep_id is not None:
                values = {"sweep_id": sweep_id, "measurement_id": measurement.measurement_id}
                small_tables.add_line(connection, tables.sweep_row, values)
            if outcome and epoch_table.may_open(connection, measurement):
                self.opened += epoch_table.refresh(connection, [measurement.device_id])
        return outcome

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
        current_epoch: bool = False,
    ) -> list[Measurement]:
        """The rows that match all that is asked for, oldest first, without samples and snapshots: get() has those.

        `device` is a name, a device_id or a device_class. `current_epoch`: only rows since the device last changed.
        Every row of the devices is read and held against its digest, and their number against the tally.
        """
        asked = {"model": model, "target": target, "precision": precision, "threads": threads, "status": status}
        given = [(name, value) for name, value in asked.items() if value is not None]
        listing = epoch_table.current_rows if current_epoch else queries.listing
        with self._transaction() as connection:
            found = listing(connection, device)  # a row at a time: the columns of a million would fill the memory
            return [rows.read(values) for values in found if all(values[name] == value for name, value in given)]

    def history(self, device: str | None) -> tuple[list[Measurement], frozenset[str]]:
        """All rows of a device (None: of all) as measurements() gives them, and the ids of those from before it last
        changed.
        """
        with self._transaction() as connection:
            found, former = epoch_table.rows_and_former(connection, device)
        return [rows.read(values) for values in found], frozenset(former)

    def others(self, device: str, models: Collection[str], most: int) -> list[Measurement]:
        """At most so many rows of other devices than this one that have rows of these models, of whole devices.

        Those of the same class come first, then the largest. Without samples and snapshots, and of each device since it
        last changed.
        """
        with self._transaction() as connection:
            return [rows.read(values) for values in epoch_table.rows_of_others(connection, device, models, most)]

    def models(self) -> frozenset[str]:
        """The names of all models that have rows."""
        with self._transaction() as connection:
            return frozenset(connection.execute(select(tables.model.c.name)).scalars())

    def devices(self) -> list[DeviceRows]:
        """Every device with rows, by name."""
        with self._transaction() as connection:
            return overview.devices(connection)

    def stats(self) -> Stats:
        """What the database holds. Raises StoreError where its tables have not as many lines as were written."""
        with self._transaction() as connection:
            return overview.stats(connection)

    def add_accuracy(self, accuracy: Accuracy) -> bool:
        """Keep an accuracy; True if it is new. Raises StoreError for one that cannot be true.

        identity.identify_accuracy gives it its id.
        """
        return self.add_accuracies([accuracy]) == 1

    def add_accuracies(self, every: Sequence[Accuracy]) -> int:
        """Keep accuracies that belong together: all of them, or none where one cannot be true. How many are new."""
        for accuracy in every:
            accuracies.validate_accuracy(accuracy)
        with self._transaction(write=True) as connection:
            return sum([accuracies.insert(connection, accuracy) for accuracy in every])

    def accuracies(
        self,
        *,
        model: str | None = None,
        dataset: str | None = None,
        metric: str | None = None,
        artifact_sha256: str | None = None,
        provenance: str | None = None,
    ) -> list[Accuracy]:
        """The accuracies that match all that is asked for, by model, data set, metric and when they began."""
        asked = {"model": model, "dataset": dataset, "metric": metric, "artifact_sha256": artifact_sha256}
        wanted = {name: value for name, value in {**asked, "provenance": provenance}.items() if value is not None}
        with self._transaction() as connection:
            every = accuracies.read(connection)
        found = [item for item in every if all(getattr(item, name) == value for name, value in wanted.items())]
        return sorted(found, key=lambda item: (item.model, item.dataset, item.metric, item.started, item.accuracy_id))

    def add_graph(self, graph: Graph) -> bool:
        """Keep a network's operators; True if they are new. Raises StoreError for what cannot be true.

        identity.identify_graph gives it its id.
        """
        graphs.validate_graph(graph)
        with self._transaction(write=True) as connection:
            return graphs.insert(connection, graph)

    def graphs(self) -> list[Graph]:
        """Every network's operators, by id."""
        with self._transaction() as connection:
            return graphs.read(connection)

    def epochs(self, device: str | None = None) -> list[Epoch]:
        """Where devices began to behave otherwise: of a name, device_id or device_class, or of all.

        VendorSummary from their rows; the epoch table, which is for SQL, is not believed.
        """
        with self._transaction() as connection:
            return epoch_table.compute(connection, self._units(connection, device))

    def refresh_epochs(self) -> list[Epoch]:
        """Write the epochs of all devices anew; those that were not there before."""
        with self._transaction(write=True) as connection:
            return epoch_table.refresh(connection, self._units(connection))

    def _units(self, connection: Connection, device: str | None = None) -> set[str]:
        return {line["device_id"] for line in queries.device_numbers(connection, device).values()}

    def begin_sweep(self, device: Device, threads: int, asked: Sequence[str]) -> SweepRecord:
        """Record what a sweep was asked for. `add` takes its id with each row that comes of it."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        record = SweepRecord(secrets.token_hex(16), now, device.device_id, device.name, threads, tuple(asked))
        values = {name: value for name, value in vars(record).items() if name != "asked"}
        with self._transaction(write=True) as connection:
            small_tables.add_line(connection, tables.sweep, {**values, "asked_json": to_json(record.asked)})
        return record

    def quarantine(self) -> list[Quarantined]:
        """What imports and merges did not take in, and why."""
        with self._transaction() as connection:
            return quarantine.read(connection)

    def check(self) -> Checked:
        """Read everything and hold it against digests, ids, tallies and summaries; see store/check.py."""
        return check(self._engine)

    def ask(self, sql: str, limit: int = 1000) -> readonly_sql.Answer:
        """The first `limit` lines of one SQL statement. Raises UsageError for one that would write, or is wrong."""
        return readonly_sql.ask(self._engine, sql, limit)

    def record_built(self, artifact: Artifact) -> None:
        """Record that this artifact was built here, so that its code may run. Recording it again changes nothing.

        Such records never leave the database: importing somebody's rows does not make their code run.
        """
        with self._transaction(write=True) as connection:
            small_tables.insert_built(connection, artifact)

    def built(self) -> frozenset[str]:
        """The digests of the artifacts that were recorded as built here."""
        with self._transaction() as connection:
            return frozenset(connection.execute(select(tables.built.c.sha256)).scalars())

    def add_noise(self, floor: NoiseFloor) -> None:
        """Keep a device's noise floor; the newest one counts. Raises StoreError for one that is no share."""
        validate_noise(floor)
        with self._transaction(write=True) as connection:
            small_tables.insert_noise(connection, floor)
            epoch_table.refresh(connection, [floor.device_id])

    def noise(self, device_id: str) -> NoiseFloor | None:
        """The newest noise floor of a unit by this protocol; None if it was never measured."""
        with self._transaction() as connection:
            return small_tables.latest_noise(connection).get(device_id)

    def find(self, prefix: str) -> list[str]:
        """The ids of measurements that begin with this, at most two: one names a row, two are one too many."""
        name = tables.measurement.c.measurement_id
        # A range, which the index answers at once: LIKE reads a million rows. "g" comes after every digit of an id.
        query = select(name).where(name >= prefix, name < f"{prefix}g").order_by(name).limit(2)
        with self._transaction() as connection:
            return list(connection.execute(query).scalars())

    def export_jsonl(self, path: str | Path, keep: Callable[[Travelling], bool] | None = None) -> int:
        """Write all that travels as JSON lines: rows with their samples, by id, accuracies, noise floors; how many.

        `keep`: which of them; None: all. The file appears under its name only when it is complete. Raises StoreError
        where it cannot be written.
        """
        return jsonl.write_lines(Path(path), filter(keep, exchange.every_record(self._transaction)))

    def import_jsonl(self, path: str | Path) -> Imported:
        """Add what a file of JSON lines holds. Each line is validated on its own: bad ones go into quarantine.

        Raises StoreError where the file cannot be read.
        """
        return exchange.load(self._transaction, jsonl.parse_lines(Path(path)), self.opened.append)

    def export_file(self, path: str | Path, keep: Callable[[Travelling], bool] | None = None) -> int:
        """As export_jsonl; a name that ends in .parquet gives a Parquet file, which needs pyarrow."""
        if Path(path).suffix != _PARQUET:
            return self.export_jsonl(path, keep)
        from edgevit.store import parquet

        return parquet.write(Path(path), filter(keep, exchange.every_record(self._transaction)))

    def import_file(self, path: str | Path) -> Imported:
        """As import_jsonl; a name that ends in .parquet is read as a Parquet file, which needs pyarrow."""
        if Path(path).suffix != _PARQUET:
            return self.import_jsonl(path)
        from edgevit.store import parquet

        return exchange.load(self._transaction, parquet.parse(Path(path)), self.opened.append)

    def import_items(self, items: Iterable[Item]) -> Imported:
        """Add what importers read (edgevit.published.importers.screened); what it refused goes into quarantine."""
        return exchange.load(self._transaction, items, self.opened.append)

    def merge(self, source: str) -> Imported:
        """Add what another database holds, the path of an SQLite file or a URL. Nothing is written there.

        Each record is validated on its own, and what is damaged or cannot be true goes into quarantine. Raises
        StoreError for what is no latency database, or has tables that are none of ours.
        """
        from edgevit.store import foreign_database

        with foreign_database.opened(source) as engine:
            return exchange.load(self._transaction, foreign_database.every_item(engine), self.opened.append)

    def load_shipped(self) -> Imported:
        """Add the rows that come with edgevit, unless the same files were loaded before."""
        files = jsonl.shipped_files()
        digest = jsonl.digest_of(files)
        with self._transaction() as connection:
            if not files or small_tables.read_meta(connection, _SHIPPED) == digest:
                return Imported(0, 0, ())
        results = [exchange.load(self._transaction, jsonl.parse_lines(file), self.opened.append) for file in files]
        with self._transaction(write=True) as connection:
            small_tables.write_meta(connection, _SHIPPED, digest)
        refused = tuple(refusal for result in results for refusal in result.refused)
        return Imported(sum(result.added for result in results), sum(result.known for result in results), refused)

    @contextmanager
    def _transaction(self, *, write: bool = False) -> Iterator[Connection]:
        engine = self._engine.execution_options(**WRITE) if write else self._engine
        with storing(self._engine.url), engine.begin() as connection:
            yield connection
