"""SQL statements that read and add measurements, inside a transaction of LatencyDB."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Table, UniqueConstraint, select

from edgevit.errors import RowRefusedError, StoreError
from edgevit.records.measurement import Measurement
from edgevit.store import partition_checksums, rows, small_tables, tables
from edgevit.store.refusals import RefusalCode
from edgevit.store.row_checksums import shorten
from edgevit.store.rows import DamagedError, Values
from edgevit_runtime.record import Silicon

_BATCH_IDS = 500  # in one statement


@dataclass(frozen=True)
class Conflict:
    """The reason why a record cannot be added beside a stored one."""

    code: RefusalCode
    error: StoreError


# Of a row that was to be added: whether it is new, or why it was refused.
Outcome = bool | Conflict


def device_rows(connection: Connection, device: str | None) -> dict[int, Values]:
    """Return the rows of the device table by number: of a name, device_id or device_class; None: all."""
    device_table = partition_checksums.read_table(connection, tables.device)
    return {row["device_no"]: row for row in device_table if device is None or matches_device(row, device)}


def matches_device(row: Values, device: str) -> bool:
    """Return whether a row of the device table has this name, device_id or device_class."""
    return device in (row["name"], row["device_id"], row["device_class"])


def silicon(connection: Connection, device: str, ignored: Container[str]) -> dict[Silicon, str]:
    """Return what the rows of a device say of their silicon, with the device's class, without those of these ids."""
    numbers = device_rows(connection, device)
    measured, described = tables.measurement.c, tables.environment.c
    query = (
        select(measured.measurement_id, measured.device_no, described.silicon_json)
        .join_from(tables.measurement, tables.environment)
        .where(measured.device_no.in_(numbers), described.silicon_json != "null")
    )
    told = {(number, text) for name, number, text in connection.execute(query) if name not in ignored}
    return {rows.read_silicon(text): numbers[number]["device_class"] for number, text in told}


def rows_per_device(connection: Connection, ids: Iterable[str]) -> Counter[int]:
    """Return how many of these measurements each device has, by its number."""
    measured, wanted, counts = tables.measurement.c, sorted(ids), Counter[int]()
    for start in range(0, len(wanted), _BATCH_IDS):
        batch = wanted[start : start + _BATCH_IDS]
        query = select(measured.device_no).where(measured.measurement_id.in_(batch))
        counts.update(connection.execute(query).scalars())
    return counts


def device_numbers_of_models(connection: Connection, models: Collection[str]) -> set[int]:
    """Return the numbers of the devices that have rows of models with these names."""
    artifacts = select(tables.artifact.c.artifact_no).join(tables.model).where(tables.model.c.name.in_(models))
    measurement = tables.measurement.c
    query = select(measurement.device_no).where(measurement.artifact_no.in_(artifacts)).distinct()
    return set(connection.execute(query).scalars())


def next_ids(connection: Connection, last: str, count: int) -> list[str]:
    """Return the ids of the next measurements after `last`, in their order, at most `count`.

    A damaged index may give ids that do not belong there. They are left out: a caller that goes on from one of them
    would come round again and never end. Callers count the rows, and notice missing ones.
    """
    name = tables.measurement.c.measurement_id
    ids = connection.execute(select(name).where(name > last).order_by(name).limit(count)).scalars()
    return sorted(row_id for row_id in ids if isinstance(row_id, str) and row_id > last)


def rows_of_device(connection: Connection, device: str | None) -> Iterator[Values]:
    """Yield the columns of the rows of a name, device_id or device_class, oldest first; None: of all devices.

    Callers filter the rows themselves. A condition that SQL looks up in damaged columns would leave rows out without
    notice.
    """
    return rows_of_devices(connection, device_rows(connection, device), all_devices=device is None)


def rows_of_devices(
    connection: Connection, numbers: Mapping[int, Values], *, all_devices: bool = False
) -> Iterator[Values]:
    """Yield the columns of all rows of the devices with these numbers, oldest first.

    `all_devices` says that there are no others. Raises StoreError at the first row that was changed, or at the end
    where one is missing.
    """
    query = rows.head_query()
    if not all_devices:
        query = query.where(tables.measurement.c.device_no.in_(numbers))
    counts, checksums = dict.fromkeys(numbers, 0), dict.fromkeys(numbers, 0)
    for values in rows.row_dicts(connection.execute(query)):
        try:
            rows.require_checksum(values)
        except DamagedError as error:
            raise rows.damage_error(values["measurement_id"], error) from error
        number = values["device_no"]
        if number not in counts:
            raise partition_checksums.damage_error(
                f"measurement {values['measurement_id'][:12]} is of a device that is not there"
            )
        counts[number] += 1
        checksums[number] ^= shorten(values["row_sha256"])
        yield values
    names = {number: partition_checksums.device_partition(number) for number in numbers}
    expected = partition_checksums.read_partitions(connection, None if all_devices else names.values())
    for number, name in names.items():
        actual = partition_checksums.PartitionChecksum(name, counts[number], checksums[number])
        partition_checksums.require_equal(actual, expected.get(name))


@dataclass(frozen=True)
class DamagedRow:
    """A row that was changed: the error, and its columns as JSON, as far as they can be read."""

    error: StoreError
    content: bytes


def fetch(connection: Connection, ids: Sequence[str]) -> list[Measurement]:
    """Return whole rows, with samples and snapshots, in the order of `ids`; absent ones are left out.

    Raises StoreError for a row that was changed.
    """
    fetched = []
    for row in fetch_each(connection, ids).values():
        if isinstance(row, DamagedRow):
            raise row.error
        fetched.append(row)
    return fetched


def fetch_each(connection: Connection, ids: Sequence[str]) -> dict[str, Measurement | DamagedRow]:
    """Return whole rows by id, with a DamagedRow in place of each that was changed."""
    samples = sample_rows(connection, ids)
    query = rows.head_query().where(tables.measurement.c.measurement_id.in_(ids))
    columns = {values["measurement_id"]: values for values in rows.row_dicts(connection.execute(query))}
    return {name: _whole_row(columns[name], samples.get(name, [])) for name in ids if name in columns}


def sample_rows(connection: Connection, ids: Sequence[str]) -> dict[str, list[Values]]:
    """Return the rows of the sample table by measurement, in the order of processes."""
    sample = tables.sample
    query = select(sample).where(sample.c.measurement_id.in_(ids)).order_by(sample.c.measurement_id, sample.c.process)
    by_measurement: dict[str, list[Values]] = {}
    for row in rows.row_dicts(connection.execute(query)):
        by_measurement.setdefault(row["measurement_id"], []).append(row)
    return by_measurement


def _whole_row(values: Values, samples: list[Values]) -> Measurement | DamagedRow:
    try:
        rows.require_checksum(values)
        return rows.read(values, samples)
    except DamagedError as error:
        damage = rows.damage_error(values["measurement_id"], error)
    except StoreError as error:
        damage = error
    return DamagedRow(damage, json.dumps(values, sort_keys=True, default=str).encode())


def insert(connection: Connection, new: Sequence[tuple[Measurement, Values]]) -> list[Outcome]:
    """Add validated rows, each with its columns (rows.measurement_values), to all their tables at once.

    Returns an outcome for each. A row with the id of a stored row and other contents is refused, because one of the
    two was altered.
    """
    stored = _row_digests(connection, [row.measurement_id for row, _ in new])
    outcomes: list[Outcome] = []
    accepted: dict[str, tuple[Measurement, Values]] = {}
    for row, columns in new:
        name, digest = row.measurement_id, columns["row_sha256"]
        if name not in stored:
            stored[name], accepted[name] = digest, (row, columns)
            outcomes.append(True)
        elif stored[name] == digest:
            outcomes.append(False)
        else:
            rival = accepted[name][0] if name in accepted else None
            outcomes.append(_conflict(connection, row, rival))
    _add(connection, list(accepted.values()))
    return outcomes


def _add(connection: Connection, new: Sequence[tuple[Measurement, Values]]) -> None:
    if not new:
        return
    measurements = [row for row, _ in new]
    numbers = _reference_numbers(connection, measurements)
    values = [{**columns, **references} for (_, columns), references in zip(new, numbers, strict=True)]
    connection.execute(tables.measurement.insert().inline(), values)
    if samples := [sample for row in measurements for sample in rows.sample_values(row)]:
        connection.execute(tables.sample.insert().inline(), samples)
    partition_checksums.add(connection, partition_checksums.partitions_of(values))


def _row_digests(connection: Connection, ids: Sequence[str]) -> dict[str, str]:
    measurement = tables.measurement.c
    query = select(measurement.measurement_id, measurement.row_sha256).where(measurement.measurement_id.in_(ids))
    return {name: digest for name, digest in connection.execute(query)}  # noqa: C416 (rows are no pairs for mypy)


def _conflict(connection: Connection, row: Measurement, rival: Measurement | None) -> Conflict:
    """Return the conflict of a row with another one of its id: of the same batch, or stored."""
    other = rival or fetch_each(connection, [row.measurement_id])[row.measurement_id]
    if isinstance(other, DamagedRow):
        return Conflict("damaged", other.error)
    different = [name for name in vars(other) if getattr(other, name) != getattr(row, name)]
    why = f"the row kept here has another {', '.join(different)}"
    fix = "one of the two was altered: compare them with their source"
    refusal = RowRefusedError(f"two rows have the id {row.measurement_id[:12]}...", why=why, fix=fix)
    return Conflict("contradiction", refusal)


def _reference_numbers(connection: Connection, new: Sequence[Measurement]) -> list[Values]:
    """Return, for each row, the numbers of the rows it refers to. Missing ones are added."""
    models = _look_up(connection, tables.model, [rows.model_values(row) for row in new])
    artifact_values = [rows.artifact_values(row, number) for row, number in zip(new, models, strict=True)]
    artifacts = _look_up(connection, tables.artifact, artifact_values)
    devices = _look_up(connection, tables.device, [rows.device_values(row) for row in new])
    hosts = list({row.host for row in new if row.host is not None})
    host_numbers = _look_up(connection, tables.environment, [rows.environment_values(host) for host in hosts])
    environments = dict(zip(hosts, host_numbers, strict=True))
    return [
        {"artifact_no": artifact, "device_no": device, "environment_no": row.host and environments[row.host]}
        for row, artifact, device in zip(new, artifacts, devices, strict=True)
    ]


def _look_up(connection: Connection, table: Table, rows_of_table: Sequence[Values]) -> list[int]:
    """Return the numbers of the rows with these values. Missing ones are added."""
    (unique,) = (constraint for constraint in table.constraints if isinstance(constraint, UniqueConstraint))
    (key,) = table.primary_key
    names = [tuple(row[column.name] for column in unique.columns) for row in rows_of_table]
    if not names:
        return []
    candidates = zip(unique.columns, zip(*names, strict=True), strict=True)
    query = select(key, *unique.columns).where(*(column.in_(set(values)) for column, values in candidates))
    numbers = {tuple(values): number for number, *values in connection.execute(query)}
    for name, row in zip(names, rows_of_table, strict=True):
        if name not in numbers:
            numbers[name] = _add_numbered(connection, table, row)
    return [numbers[name] for name in names]


def _add_numbered(connection: Connection, table: Table, row: Values) -> int:
    (key,) = table.primary_key
    added = connection.execute(table.insert().values(row)).inserted_primary_key
    assert added is not None  # as for every table with a number for its key
    if table in partition_checksums.WHOLE_TABLES:
        small_tables.count_row(connection, table, {**row, key.name: added[0]})
    return int(added[0])
