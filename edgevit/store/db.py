"""LatencyDB: an append-only database of measurements of all devices, on SQLite (the default) or PostgreSQL."""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, exists, select

from edgevit.errors import StoreError
from edgevit.records.measurement import Accuracy, Confusion, Device, Epoch, Measurement, NoiseFloor, SweepRecord
from edgevit.records.model import Graph
from edgevit.records.origin import SHIPPED, OriginKind
from edgevit.records.tag import require_tag
from edgevit.records.tuning import OperatorTime, Tuning
from edgevit.store import (
    epoch_table,
    exchange,
    jsonl,
    origins,
    overview,
    quarantine,
    queries,
    readonly_sql,
    rows,
    small_tables,
    tables,
    tags,
)
from edgevit.store.accuracies import ACCURACIES
from edgevit.store.check import CheckReport, check
from edgevit.store.confusions import CONFUSIONS
from edgevit.store.connect import create, database_url, describe, require_file, translate_errors
from edgevit.store.content_table import ContentTable
from edgevit.store.content_tables import table_of
from edgevit.store.graphs import GRAPHS
from edgevit.store.json_records import ImportResult, ParsedRecord, PortableRecord
from edgevit.store.operator_times import OPERATOR_TIMES, TUNINGS
from edgevit.store.overview import DatabaseStats, DeviceSummary
from edgevit.store.quarantine import QuarantinedRecord
from edgevit.store.schema import ensure_schema
from edgevit.store.sources import SourcedDatabase
from edgevit.store.validate import validate_measurement, validate_noise
from edgevit_runtime.codec import to_json
from edgevit_runtime.record import Silicon, Status

# Key of the meta table: digest of the shipped files that were loaded last.
_SHIPPED = "shipped_sha256"
_PARQUET = ".parquet"


class LatencyDB(SourcedDatabase):
    """The latency database. Use it as a context manager, one per process: an SQLite connection does not survive a fork.

    Every method raises StoreError where the database cannot be read or written, or was changed, with the reason and
    the remedy. When a method returns, its rows are on disk: a crash after it loses nothing, a crash during it leaves
    whole rows or none. `opened_epochs` are the epochs of devices that rows added through this object have opened.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.opened_epochs: list[Epoch] = []
        self.left_forgotten = 0  # records of imports that were not added, because their source was forgotten here
        self._measured = origins.Writer("measured")

    @classmethod
    def open(cls, url: str | None = None, *, shipped: bool = True, create_file: bool = True) -> LatencyDB:
        """Open a database, create or migrate it where needed, and add the rows that ship with edgevit if `shipped`.

        `url` is an SQLAlchemy URL or the path of an SQLite file; default: EDGEVIT_DB, else a file in the user's data
        folder. Without `create_file` a file that `url` names must exist. Raises StoreError for a file that is no
        latency database, is damaged, not writable, or of a newer edgevit.
        """
        address = database_url(url)
        if url and not create_file:
            require_file(address)
        with ExitStack() as undo:
            engine = create(address)
            undo.callback(engine.dispose)
            with translate_errors(address):
                ensure_schema(engine)
            database = cls(engine)
            if shipped and (refused := database.load_shipped().refused):
                examples = "; ".join(f"{refusal.location}: {refusal.text}" for refusal in refused[:3])
                warnings.warn(f"{len(refused)} rows that come with edgevit were refused: {examples}", stacklevel=2)
            undo.pop_all()
        return database

    def add(self, measurement: Measurement, *, sweep_id: str | None = None, tag: str = "") -> bool:
        """Store a row and return whether it is new. Adding it again changes nothing.

        `sweep_id` names the sweep that measured it, and `tag` is a name for the row; empty: none. Raises StoreError for
        a row that cannot be true (see validate), and for one with the id of a stored row and other contents.
        """
        tag = tag and require_tag(tag)
        validate_measurement(measurement)
        columns = rows.measurement_values(measurement)
        with self._transaction(write=True) as connection:
            [outcome] = queries.insert(connection, [(measurement, columns)])
            if isinstance(outcome, queries.Conflict):
                raise outcome.error
            self._measured.record(connection, [measurement.measurement_id])
            if sweep_id is not None:
                values = {"sweep_id": sweep_id, "measurement_id": measurement.measurement_id}
                small_tables.add_row(connection, tables.sweep_row, values)
            if tag:
                tags.add(connection, [measurement.measurement_id], tag)
            if outcome and epoch_table.may_open_epoch(connection, measurement):
                self.opened_epochs += epoch_table.refresh(connection, [measurement.device_id])
        return outcome

    def get(self, measurement_id: str) -> Measurement:
        """Return one row with its samples and snapshots. Raises StoreError if no row has this id."""
        with self._transaction() as connection:
            fetched = queries.fetch(connection, [measurement_id])
        if not fetched:
            raise StoreError(f"no measurement has the id {measurement_id!r}", where=self.location)
        return fetched[0]

    def has(self, measurement_key: str) -> bool:
        """Return whether this was measured, or at least tried: rows of failed runs count."""
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
        """Return the rows that match every filter, oldest first, without samples and snapshots: get() has those.

        `device` is a name, a device_id or a device_class. `current_epoch` selects rows since the device last changed.
        Every row of the devices is compared with its checksum, and their number with that of the partition.
        """
        columns = {"model": model, "target": target, "precision": precision, "threads": threads, "status": status}
        filters = [(name, value) for name, value in columns.items() if value is not None]
        with self._transaction() as connection:
            ignored = origins.undecided(connection, self._policy)
            # One row at a time: the columns of a million would fill the memory.
            if current_epoch:
                stored = epoch_table.current_rows(connection, device, ignored)
            else:
                stored = queries.rows_of_device(connection, device)
            return [
                rows.read(values)
                for values in stored
                if all(values[name] == value for name, value in filters) and values["measurement_id"] not in ignored
            ]

    def history(self, device: str | None) -> tuple[list[Measurement], frozenset[str]]:
        """Return all rows of a device as measurements() does, and the ids of those from before it last changed.

        None: of all devices.
        """
        with self._transaction() as connection:
            ignored = origins.undecided(connection, self._policy)
            columns, former_ids = epoch_table.rows_and_former_ids(connection, device, ignored)
        return [rows.read(values) for values in columns], frozenset(former_ids)

    def rows_of_other_devices(self, device: str, models: Collection[str], limit: int) -> list[Measurement]:
        """Return at most `limit` rows of other devices that have rows of these models; a device counts wholly or not.

        Devices of the same class come first, then the largest. Rows are without samples and snapshots, and of each
        device since it last changed.
        """
        with self._transaction() as connection:
            ignored = origins.undecided(connection, self._policy)
            columns = epoch_table.rows_of_other_devices(connection, device, models, limit, ignored)
        return [rows.read(values) for values in columns]

    def models(self) -> frozenset[str]:
        """Return the names of all models that have rows."""
        with self._transaction() as connection:
            return frozenset(connection.execute(select(tables.model.c.name)).scalars())

    def devices(self) -> list[DeviceSummary]:
        """Return every device with rows, by name."""
        with self._transaction() as connection:
            return overview.devices(connection, origins.undecided(connection, self._policy))

    def silicon(self, device: str) -> dict[Silicon, str]:
        """Return what the measured rows of a name, device_id or device_class say of their silicon, and the class."""
        with self._transaction() as connection:
            return queries.silicon(connection, device, origins.undecided(connection, self._policy))

    def stats(self) -> DatabaseStats:
        """Count the rows of the tables. Raises StoreError where a table has another number than was written."""
        with self._transaction() as connection:
            return overview.stats(connection)

    def add_accuracy(self, accuracy: Accuracy) -> bool:
        """Store an accuracy and return whether it is new. Raises StoreError for one that cannot be true.

        identity.identify_accuracy gives it its id.
        """
        return self.add_accuracies([accuracy]) == 1

    def add_accuracies(self, together: Sequence[Accuracy]) -> int:
        """Store all of these accuracies, or none where one cannot be true. Return how many are new."""
        for accuracy in together:
            ACCURACIES.validate(accuracy)
        with self._transaction(write=True) as connection:
            return self._insert_accuracies(connection, together)

    def accuracies(
        self,
        *,
        model: str | None = None,
        dataset: str | None = None,
        metric: str | None = None,
        artifact_sha256: str | None = None,
        provenance: str | None = None,
    ) -> list[Accuracy]:
        """Return the accuracies that match every filter, by model, data set, metric and when they began."""
        fields = {"model": model, "dataset": dataset, "metric": metric, "artifact_sha256": artifact_sha256}
        filters = {name: value for name, value in {**fields, "provenance": provenance}.items() if value is not None}
        with self._transaction() as connection:
            stored, ignored = ACCURACIES.read(connection), origins.undecided(connection, self._policy)
        matching = [one for one in stored if all(getattr(one, name) == value for name, value in filters.items())]
        matching = [one for one in matching if one.accuracy_id not in ignored]
        return sorted(matching, key=attrgetter("model", "dataset", "metric", "started", "accuracy_id"))

    def add_evaluation(self, together: Sequence[Accuracy], confusion: Confusion) -> int:
        """Store the accuracies of one evaluation and its confusion, or nothing. Return how many accuracies are new."""
        for accuracy in together:
            ACCURACIES.validate(accuracy)
        CONFUSIONS.validate(confusion)
        with self._transaction(write=True) as connection:
            CONFUSIONS.insert(connection, confusion)
            self._measured.record(connection, [confusion.confusion_id])
            return self._insert_accuracies(connection, together)

    def _insert_accuracies(self, connection: Connection, together: Sequence[Accuracy]) -> int:
        self._measured.record(connection, [accuracy.accuracy_id for accuracy in together])
        return sum([ACCURACIES.insert(connection, accuracy) for accuracy in together])

    def confusions(self) -> list[Confusion]:
        """Return every confusion, by id."""
        with self._transaction() as connection:
            return CONFUSIONS.read(connection)

    def add_graph(self, graph: Graph) -> bool:
        """Store a network's operators and return whether they are new. Raises StoreError if they cannot be true.

        identity.identify_graph gives it its id.
        """
        GRAPHS.validate(graph)
        with self._transaction(write=True) as connection:
            self._measured.record(connection, [graph.graph_id])
            return GRAPHS.insert(connection, graph)

    def graphs(self) -> list[Graph]:
        """Return every network's operators, by id."""
        with self._transaction() as connection:
            return GRAPHS.read(connection)

    def add_operator_times(self, times: Sequence[OperatorTime]) -> int:
        """Store times of operators, and return how many are new. Raises StoreError if one cannot be true."""
        return self._add_content(times)

    def add_tuning(self, tuning: Tuning) -> bool:
        """Store what a search for forms found, and return whether it is new. Raises StoreError if it cannot be true."""
        return bool(self._add_content([tuning]))

    def _add_content(self, records: Sequence[OperatorTime] | Sequence[Tuning]) -> int:
        for record in records:
            table_of(record).validate(record)
        with self._transaction(write=True) as connection:
            self._measured.record(connection, [origins.record_id(record) for record in records])
            return sum([table_of(record).insert(connection, record) for record in records])

    def operator_times(self, target: str | None = None, device: str | None = None) -> list[OperatorTime]:
        """Return the times of operators, by when they were measured. device: a device_id or device_class."""
        return self._decided(OPERATOR_TIMES, target, device)

    def tunings(self, target: str | None = None, device: str | None = None) -> list[Tuning]:
        """Return the tunings, the oldest first. device: a device_id or device_class."""
        return self._decided(TUNINGS, target, device)

    def _decided(self, table: ContentTable[Any], target: str | None, device: str | None) -> list[Any]:
        """Return the records of a table that were measured, of sources that are not distrusted."""
        with self._transaction() as connection:
            stored, ignored = table.read(connection), origins.undecided(connection, self._policy)
        of_target = (one for one in stored if target in (None, one.target))
        matching = [one for one in of_target if device is None or device in (one.device_id, one.device_class)]
        decided = [one for one in matching if origins.record_id(one) not in ignored]
        return sorted(decided, key=lambda one: (one.started, origins.record_id(one)))

    def epochs(self, device: str | None = None) -> list[Epoch]:
        """Return the epochs of a name, device_id or device_class; None: of all devices.

        They are computed from the rows. The epoch table is for SQL, and is not read.
        """
        with self._transaction() as connection:
            return epoch_table.compute(connection, self._units(connection, device))

    def refresh_epochs(self) -> list[Epoch]:
        """Recompute and store the epochs of all devices, and return the new ones."""
        with self._transaction(write=True) as connection:
            return epoch_table.refresh(connection, self._units(connection))

    def _units(self, connection: Connection, device: str | None = None) -> set[str]:
        return {row["device_id"] for row in queries.device_rows(connection, device).values()}

    def begin_sweep(self, device: Device, threads: int, requests: Sequence[str]) -> SweepRecord:
        """Record the requests of a sweep. `add` takes its id with each row that it measures."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        record = SweepRecord(secrets.token_hex(16), now, device.device_id, device.name, threads, tuple(requests))
        values = {name: value for name, value in vars(record).items() if name != "asked"}
        with self._transaction(write=True) as connection:
            small_tables.add_row(connection, tables.sweep, {**values, "asked_json": to_json(record.asked)})
        return record

    def add_tag(self, measurement_ids: Iterable[str], tag: str) -> int:
        """Give a tag to stored rows and return how many did not have it. Raises StoreError for an id of no row."""
        name = require_tag(tag)
        with self._transaction(write=True) as connection:
            return tags.add(connection, measurement_ids, name)

    def tags(self) -> dict[str, frozenset[str]]:
        """Return the ids of the rows of each tag. Tags are never exported: they are names of this database."""
        with self._transaction() as connection:
            return tags.read(connection)

    def quarantine(self) -> list[QuarantinedRecord]:
        """Return the records that imports and merges refused, with the reasons."""
        with self._transaction() as connection:
            return quarantine.read(connection)

    def check(self) -> CheckReport:
        """Compare everything stored with its checksums, ids and summaries; see store/check.py."""
        return check(self._engine)

    def query(self, sql: str, limit: int = 1000) -> readonly_sql.QueryResult:
        """Return the first `limit` rows of one SQL statement. Raises UsageError for one that writes, or is wrong."""
        return readonly_sql.run_query(self._engine, sql, limit)

    def add_noise(self, floor: NoiseFloor) -> None:
        """Store a device's noise floor; the newest one counts. Raises StoreError for one that is no share."""
        validate_noise(floor)
        with self._transaction(write=True) as connection:
            small_tables.insert_noise(connection, floor)
            self._measured.record(connection, [origins.record_id(floor)])
            epoch_table.refresh(connection, [floor.device_id])

    def noise(self, device_id: str) -> NoiseFloor | None:
        """Return the newest noise floor of a unit by this protocol; None if it was never measured."""
        with self._transaction() as connection:
            ignored = origins.undecided(connection, self._policy)
            return small_tables.latest_noise(connection, ignored).get(device_id)

    def find(self, prefix: str) -> list[str]:
        """Return the ids of measurements that begin with this, at most two: two mean that the prefix is ambiguous."""
        name = tables.measurement.c.measurement_id
        # A range, which the index answers at once: LIKE reads a million rows. "g" comes after every digit of an id.
        query = select(name).where(name >= prefix, name < f"{prefix}g").order_by(name).limit(2)
        with self._transaction() as connection:
            return list(connection.execute(query).scalars())

    def export_jsonl(self, path: str | Path, keep: Callable[[PortableRecord], bool] | None = None) -> int:
        """Write portable records as JSON lines and return their number: rows with samples, by id, then the others.

        `keep` selects among them; None: all. The file appears under its name only when it is complete. Raises
        StoreError where it cannot be written.
        """
        return jsonl.write_lines(Path(path), filter(keep, exchange.export_records(self._transaction)))

    def import_jsonl(self, path: str | Path) -> ImportResult:
        """Add the records of a file of JSON lines. Each is validated on its own: refused ones go into quarantine.

        Raises StoreError where the file cannot be read.
        """
        return self._import("imported", str(Path(path).absolute()), jsonl.parse_lines(Path(path)))

    def export_file(self, path: str | Path, keep: Callable[[PortableRecord], bool] | None = None) -> int:
        """Write portable records as export_jsonl does, or as Parquet for a name in .parquet, which needs pyarrow."""
        if Path(path).suffix != _PARQUET:
            return self.export_jsonl(path, keep)
        from edgevit.store import parquet

        return parquet.write(Path(path), filter(keep, exchange.export_records(self._transaction)))

    def import_file(self, path: str | Path) -> ImportResult:
        """Add the records of a file as import_jsonl does, or of Parquet for a name in .parquet, which needs pyarrow."""
        if Path(path).suffix != _PARQUET:
            return self.import_jsonl(path)
        from edgevit.store import parquet

        return self._import("imported", str(Path(path).absolute()), parquet.parse(Path(path)))

    def import_records(self, records: Iterable[ParsedRecord], source: str) -> ImportResult:
        """Add records of importers (edgevit.published.importers.screened); refused ones go into quarantine.

        `source` names where they were read.
        """
        return self._import("published", source, records)

    def _import(self, kind: OriginKind, source: str, records: Iterable[ParsedRecord]) -> ImportResult:
        origin = origins.Writer(kind, source)
        result = exchange.import_records(self._transaction, records, self.opened_epochs.append, origin)
        self.left_forgotten += origin.forgotten
        return result

    def merge(self, source: str) -> ImportResult:
        """Add the records of another database, given as the path of an SQLite file or a URL. It is only read.

        Each record is validated on its own. Damaged records and those that cannot be true go into quarantine. Raises
        StoreError for a file that is no latency database, or has tables of others.
        """
        from edgevit.store import foreign_database

        with foreign_database.open_foreign(source) as engine:
            records = foreign_database.parse_records(engine)
            return self._import("merged", describe(database_url(source)), records)

    def load_shipped(self) -> ImportResult:
        """Add the rows that ship with edgevit, unless the same files were loaded before."""
        files = jsonl.shipped_files()
        digest = jsonl.digest_of(files)
        with self._transaction() as connection:
            if not files or small_tables.read_meta(connection, _SHIPPED) == digest:
                return ImportResult(0, 0, ())
        results = [self._import("shipped", SHIPPED, jsonl.parse_lines(file)) for file in files]
        with self._transaction(write=True) as connection:
            small_tables.write_meta(connection, _SHIPPED, digest)
        refused = tuple(refusal for result in results for refusal in result.refused)
        added, duplicates = sum(result.added for result in results), sum(result.duplicates for result in results)
        return ImportResult(added, duplicates, refused)
