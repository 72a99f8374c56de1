"""The statements that LatencyDB runs inside a transaction: find rows, add some, read and write the small tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Insert, RowMapping, Table, UniqueConstraint, select, update

from edgevit.errors import StoreError
from edgevit.store import rows, tables, tally
from edgevit.store.rows import DamagedError, Values
from edgevit.store.seals import as_seal
from edgevit.types import PROTOCOL_VERSION, Artifact, Measurement, NoiseFloor
from edgevit_runtime.record import from_json, to_json

Outcome = bool | StoreError  # of a row that was to be added: new, known already, or why it was not taken


def device_numbers(connection: Connection, device: str | None) -> dict[int, Values]:
    """The lines of the device table by number: of a name, device_id or device_class, or all."""
    lines = tally.read_whole(connection, tables.device)
    names = ("name", "device_id", "device_class")
    wanted = lines if device is None else [line for line in lines if device in [line[name] for name in names]]
    return {line["device_no"]: line for line in wanted}


def listing(connection: Connection, device: str | None, **equal: Any) -> list[Values]:
    """The checked columns of rows, oldest first. Keywords: model, target, precision, threads, status; None: any.

    All rows of the devices asked for are read, and held against the tally, and only then chosen among: a condition
    that SQL looks up in damaged columns would leave rows out, and nobody would know.
    """
    numbers = device_numbers(connection, device)
    query = rows.head()
    if device is not None:
        query = query.where(tables.measurement.c.device_no.in_(numbers))
    asked = [(name, value) for name, value in equal.items() if value is not None]
    found = held_against_tally(connection, connection.execute(query).mappings(), numbers)
    return [values for values in found if all(values[name] == value for name, value in asked)]


def held_against_tally(
    connection: Connection, lines: Iterator[RowMapping] | Any, numbers: Mapping[int, Values]
) -> Iterator[Values]:
    """Checked columns of all rows of these devices. Raises StoreError at the first bad row, or where one is missing."""
    parts = {number: tally.Part(tally.rows_of(number)) for number in numbers}
    count, digest = dict.fromkeys(numbers, 0), dict.fromkeys(numbers, 0)
    for line in lines:
        try:
            values = rows.checked(line)
        except DamagedError as error:
            raise rows.damaged(line["measurement_id"], error) from error
        number = values["device_no"]
        if number not in parts:
            raise tally.broken(f"measurement {values['measurement_id'][:12]} is of a device that is not there")
        count[number] += 1
        digest[number] ^= as_seal(values["row_sha256"])
        yield values
    expected = tally.read_parts(connection, [part.part for part in parts.values()] if len(parts) < 500 else None)
    for number, part in parts.items():
        tally.require(tally.Part(part.part, count[number], digest[number]), expected.get(part.part))


@dataclass(frozen=True)
class Damaged:
    """A row that is not what was written: why, and its columns as JSON, as far as they can be told."""

    error: StoreError
    content: bytes


def fetch(connection: Connection, ids: Sequence[str]) -> list[Measurement]:
    """Whole rows, with samples and snapshots, in the order of `ids`; those the database lacks are left out.

    Raises StoreError for one that is not what was written.
    """
    found = fetch_each(connection, ids).values()
    for row in found:
        if isinstance(row, Damaged):
            raise row.error
    return [row for row in found if isinstance(row, Measurement)]


def fetch_each(connection: Connection, ids: Sequence[str]) -> dict[str, Measurement | Damaged]:
    """As `fetch`, by id, with a Damaged in the place of a row that is."""
    sample = tables.sample
    evidence: dict[str, list[RowMapping]] = {}
    parts = select(sample).where(sample.c.measurement_id.in_(ids)).order_by(sample.c.measurement_id, sample.c.process)
    for part in connection.execute(parts).mappings():
        evidence.setdefault(part["measurement_id"], []).append(part)
    query = rows.head().where(tables.measurement.c.measurement_id.in_(ids))
    found = {row["measurement_id"]: row for row in connection.execute(query).mappings()}
    return {name: _whole(found[name], evidence.get(name, [])) for name in ids if name in found}


def _whole(line: RowMapping, evidence: list[RowMapping]) -> Measurement | Damaged:
    try:
        return rows.read(rows.checked(line), evidence)
    except DamagedError as error:
        found = rows.damaged(line["measurement_id"], error)
    except StoreError as error:
        found = error
    return Damaged(found, json.dumps(dict(line), sort_keys=True, default=str).encode())


def insert(connection: Connection, new: Sequence[Measurement]) -> list[Outcome]:
    """Add validated rows to all their tables, in one go; of each whether it is new, known, or why it is not taken.

    A row with the id of a row kept here that says something else is not taken: one of the two was altered.
    """
    known = _digests(connection, [row.measurement_id for row in new])
    numbers = _Numbers(connection)
    outcomes: list[Outcome] = []
    taken: dict[str, Measurement] = {}
    lines, samples = [], list[Values]()
    changes: dict[str, tuple[list[int], int]] = {}
    for row in new:
        values = rows.measurement_values(row)
        kept = known.get(row.measurement_id)
        if kept is not None:
            same = kept == values["row_sha256"]
            outcomes.append(False if same else _altered(connection, row, taken.get(row.measurement_id)))
            continue
        taken[row.measurement_id] = row
        known[row.measurement_id] = values["row_sha256"]
        values |= numbers.of(row)
        lines.append(values)
        samples += rows.sample_values(row)
        seals, latest = changes.get(tally.rows_of(values["device_no"]), ([], 0))
        changes[tally.rows_of(values["device_no"])] = (
            [*seals, as_seal(values["row_sha256"])],
            max(latest, values["started_unix_us"]),
        )
        outcomes.append(True)
    _execute(connection, tables.measurement, lines)
    _execute(connection, tables.sample, samples)
    if changes:
        tally.add(connection, changes)
    return outcomes


def _execute(connection: Connection, table: Table, lines: Sequence[Values]) -> None:
    if lines:
        connection.execute(table.insert().inline(), lines)


def _digests(connection: Connection, ids: Sequence[str]) -> dict[str, str]:
    kept = tables.measurement.c
    query = select(kept.measurement_id, kept.row_sha256).where(kept.measurement_id.in_(ids))
    return {name: digest for name, digest in connection.execute(query)}  # noqa: C416 (rows are no pairs for mypy)


def _altered(connection: Connection, row: Measurement, kept: Measurement | Damaged | None) -> StoreError:
    """Why a row is not taken whose id another one has, that was taken just now or is kept in the database."""
    kept = kept or fetch_each(connection, [row.measurement_id])[row.measurement_id]
    if isinstance(kept, Damaged):
        return kept.error
    different = [name for name in vars(kept) if getattr(kept, name) != getattr(row, name)]
    why = f"the row kept here has another {', '.join(different)}"
    fix = "one of the two was altered: compare them with their source"
    return StoreError(f"two rows have the id {row.measurement_id[:12]}...", why=why, fix=fix)


class _Numbers:
    """The numbers of what rows refer to. Each line is looked up, and added where there is none, once a transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[tuple[Any, ...], int] = {}

    def of(self, row: Measurement) -> Values:
        """The numbers that a row's line of the measurement table needs."""
        model_no = self._number(tables.model, rows.model_values(row))
        host = row.host and self._number(tables.environment, rows.environment_values(row.host))
        return {
            "artifact_no": self._number(tables.artifact, rows.artifact_values(row, model_no)),
            "device_no": self._number(tables.device, rows.device_values(row)),
            "environment_no": host,
        }

    def _number(self, table: Table, values: Values) -> int:
        key = (table.name, *values.values())
        if key not in self._known:
            self._known[key] = _number(self._connection, table, values)
        return self._known[key]


def _number(connection: Connection, table: Table, values: Mapping[str, Any]) -> int:
    """The number of the line with these values; it is added where there is none."""
    (unique,) = (item for item in table.constraints if isinstance(item, UniqueConstraint))
    (key,) = table.primary_key
    query = select(key).where(*(column == values[column.name] for column in unique.columns))
    found = connection.execute(query).scalar()
    if found is None:
        connection.execute(_insert_unless_there(connection, table, values))
        found = connection.execute(query).scalar_one()
        if table in tally.WHOLE:
            tally.add(connection, {table.name: ([tally.seal_of(table, {**values, key.name: found})], None)})
    return int(found)


def add_line(connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
    """Add a line to a small table and its tally; False if its key is there already, and then it stays as it is."""
    # SQLAlchemy forgets how many lines an INSERT added, on PostgreSQL, unless it is told to keep the number.
    statement = _insert_unless_there(connection, table, values).execution_options(preserve_rowcount=True)
    if connection.execute(statement).rowcount != 1:
        return False
    tally.add(connection, {table.name: ([tally.seal_of(table, values)], None)})
    return True


def insert_built(connection: Connection, artifact: Artifact) -> None:
    """Record that an artifact was built here."""
    add_line(
        connection, tables.built, {"sha256": artifact.sha256, "target": artifact.target, "built": artifact.created}
    )


def insert_noise(connection: Connection, floor: NoiseFloor) -> bool:
    """Add a noise floor; one of this device and moment that is there already stays as it is."""
    values = {name: value for name, value in vars(floor).items() if name != "p50s_ns"}
    values["p50s_ns_json"] = to_json(floor.p50s_ns)
    return add_line(connection, tables.noise, values)


def noise_floors(connection: Connection) -> list[NoiseFloor]:
    """Noise floors of every protocol, by device and time."""
    floors = []
    for line in tally.read_whole(connection, tables.noise):
        floors.append(NoiseFloor(p50s_ns=from_json(tuple[int, ...], line.pop("p50s_ns_json")), **line))
    return floors


def noise_shares(connection: Connection) -> dict[str, float]:
    """The newest noise floor of each device by this protocol, as a share."""
    floors = [item for item in noise_floors(connection) if item.protocol_version == PROTOCOL_VERSION]
    return {item.device_id: item.share for item in sorted(floors, key=lambda item: item.started)}


def latest_noise(connection: Connection, device_id: str) -> NoiseFloor | None:
    """The newest noise floor of a device by this protocol."""
    known = (device_id, PROTOCOL_VERSION)
    floors = [item for item in noise_floors(connection) if (item.device_id, item.protocol_version) == known]
    return max(floors, key=lambda floor: floor.started, default=None)


def read_meta(connection: Connection, key: str) -> str | None:
    """A value of the `meta` table; None if it was never set."""
    return connection.execute(select(tables.meta.c.value).where(tables.meta.c.key == key)).scalar()


def write_meta(connection: Connection, key: str, value: str) -> None:
    """Set a value of the `meta` table."""
    connection.execute(_insert_unless_there(connection, tables.meta, {"key": key, "value": value}))
    connection.execute(update(tables.meta).where(tables.meta.c.key == key).values(value=value))


def _insert_unless_there(connection: Connection, table: Table, values: Mapping[str, Any]) -> Insert:
    """An insert that a line with the same key turns into nothing."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table).inline().values(values).on_conflict_do_nothing()
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table).inline().values(values).on_conflict_do_nothing()
