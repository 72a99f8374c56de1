"""The statements that find measurements and add some, inside a transaction of LatencyDB."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Table, UniqueConstraint, select

from edgevit.errors import StoreError
from edgevit.records.measurement import Measurement
from edgevit.store import partition_checksums, rows, small_tables, tables
from edgevit.store.row_checksums import as_seal
from edgevit.store.rows import DamagedError, Values

Outcome = bool | StoreError  # of a row that was to be added: new, known already, or why it was not taken


def device_numbers(connection: Connection, device: str | None) -> dict[int, Values]:
    """The lines of the device table by number: of a name, device_id or device_class, or all."""
    lines = partition_checksums.read_whole(connection, tables.device)
    return {line["device_no"]: line for line in lines if device is None or answers_to(line, device)}


def answers_to(line: Values, device: str) -> bool:
    """Whether a line of the device table is of this name, device_id or device_class."""
    return device in (line["name"], line["device_id"], line["device_class"])


def holders(connection: Connection, models: Collection[str]) -> set[int]:
    """The numbers of the devices that have rows of models with these names."""
    named = select(tables.artifact.c.artifact_no).join(tables.model).where(tables.model.c.name.in_(models))
    kept = tables.measurement.c
    return set(connection.execute(select(kept.device_no).where(kept.artifact_no.in_(named)).distinct()).scalars())


def next_ids(connection: Connection, last: str, count: int) -> list[str]:
    """The ids of the next measurements after `last`, in their order, at most `count`.

    A damaged index may give ids that do not belong there. They are left out, because whoever goes on from one of them
    would come round again and never end; that rows are missing is noticed by whoever counts them.
    """
    name = tables.measurement.c.measurement_id
    found = connection.execute(select(name).where(name > last).order_by(name).limit(count)).scalars()
    return sorted(item for item in found if isinstance(item, str) and item > last)


def listing(connection: Connection, device: str | None) -> Iterator[Values]:
    """The columns of the rows (rows.head) of a name, device_id or device_class, or of all devices, oldest first.

    Whoever wants fewer chooses among them: a condition that SQL looks up in damaged columns would leave rows out, and
    nobody would know.
    """
    return of_devices(connection, device_numbers(connection, device), every=device is None)


def of_devices(connection: Connection, numbers: Mapping[int, Values], *, every: bool = False) -> Iterator[Values]:
    """The columns of all rows of the devices with these numbers, oldest first; `every`: they are all there are.

    Raises StoreError at the first row that is not what was written, or at the end where one is missing.
    """
    query = rows.head() if every else rows.head().where(tables.measurement.c.device_no.in_(numbers))
    count, digest = dict.fromkeys(numbers, 0), dict.fromkeys(numbers, 0)
    for values in rows.fetched(connection.execute(query)):
        try:
            rows.require_sealed(values)
        except DamagedError as error:
            raise rows.damaged(values["measurement_id"], error) from error
        number = values["device_no"]
        if number not in count:
            raise partition_checksums.broken(
                f"measurement {values['measurement_id'][:12]} is of a device that is not there"
            )
        count[number] += 1
        digest[number] ^= as_seal(values["row_sha256"])
        yield values
    names = {number: partition_checksums.rows_of(number) for number in numbers}
    expected = partition_checksums.read_parts(connection, None if every else names.values())
    for number, name in names.items():
        partition_checksums.require(partition_checksums.Part(name, count[number], digest[number]), expected.get(name))


@dataclass(frozen=True)
class Damaged:
    """A row that is not what was written: why, and its columns as JSON, as far as they can be told."""

    error: StoreError
    content: bytes


def fetch(connection: Connection, ids: Sequence[str]) -> list[Measurement]:
    """Whole rows, with samples and snapshots, in the order of `ids`; those the database lacks are left out.

    Raises StoreError for one that is not what was written.
    """
    found = []
    for row in fetch_each(connection, ids).values():
        if isinstance(row, Damaged):
            raise row.error
        found.append(row)
    return found


def fetch_each(connection: Connection, ids: Sequence[str]) -> dict[str, Measurement | Damaged]:
    """As `fetch`, by id, with a Damaged in the place of a row that is."""
    parts = evidence(connection, ids)
    query = rows.head().where(tables.measurement.c.measurement_id.in_(ids))
    found = {values["measurement_id"]: values for values in rows.fetched(connection.execute(query))}
    return {name: _whole(found[name], parts.get(name, [])) for name in ids if name in found}


def evidence(connection: Connection, ids: Sequence[str]) -> dict[str, list[Values]]:
    """The lines of the sample table by measurement, in the order of processes."""
    sample = tables.sample
    query = select(sample).where(sample.c.measurement_id.in_(ids)).order_by(sample.c.measurement_id, sample.c.process)
    found: dict[str, list[Values]] = {}
    for line in rows.fetched(connection.execute(query)):
        found.setdefault(line["measurement_id"], []).append(line)
    return found


def _whole(values: Values, parts: list[Values]) -> Measurement | Damaged:
    try:
        rows.require_sealed(values)
        return rows.read(values, parts)
    except DamagedError as error:
        found = rows.damaged(values["measurement_id"], error)
    except StoreError as error:
        found = error
    return Damaged(found, json.dumps(values, sort_keys=True, default=str).encode())


def insert(connection: Connection, new: Sequence[tuple[Measurement, Values]]) -> list[Outcome]:
    """Add validated rows, each with its columns (rows.measurement_values), to all their tables, in one go.

    Of each it says whether it is new, known, or why it is not taken: a row with the id of a row kept here that says
    something else stays out, because one of the two was altered.
    """
    known = _digests(connection, [row.measurement_id for row, _ in new])
    outcomes: list[Outcome] = []
    taken: dict[str, tuple[Measurement, Values]] = {}
    for row, columns in new:
        name, digest = row.measurement_id, columns["row_sha256"]
        if name not in known:
            known[name], taken[name] = digest, (row, columns)
            outcomes.append(True)
        elif known[name] == digest:
            outcomes.append(False)
        else:
            rival = taken[name][0] if name in taken else None
            outcomes.append(_altered(connection, row, rival))
    _add(connection, list(taken.values()))
    return outcomes


def _add(connection: Connection, new: Sequence[tuple[Measurement, Values]]) -> None:
    if not new:
        return
    measured = [row for row, _ in new]
    numbers = _numbers(connection, measured)
    lines = [{**columns, **others} for (_, columns), others in zip(new, numbers, strict=True)]
    connection.execute(tables.measurement.insert().inline(), lines)
    if samples := [line for row in measured for line in rows.sample_values(row)]:
        connection.execute(tables.sample.insert().inline(), samples)
    partition_checksums.add(connection, partition_checksums.parts_of(lines))


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


def _numbers(connection: Connection, new: Sequence[Measurement]) -> list[Values]:
    """Of each row the numbers of what it refers to; what is not there yet is added."""
    models = _look_up(connection, tables.model, [rows.model_values(row) for row in new])
    made = [rows.artifact_values(row, number) for row, number in zip(new, models, strict=True)]
    artifacts = _look_up(connection, tables.artifact, made)
    devices = _look_up(connection, tables.device, [rows.device_values(row) for row in new])
    hosts = list({row.host for row in new if row.host is not None})
    places = _look_up(connection, tables.environment, [rows.environment_values(host) for host in hosts])
    environments = dict(zip(hosts, places, strict=True))
    return [
        {"artifact_no": artifact, "device_no": device, "environment_no": row.host and environments[row.host]}
        for row, artifact, device in zip(new, artifacts, devices, strict=True)
    ]


def _look_up(connection: Connection, table: Table, lines: Sequence[Values]) -> list[int]:
    """The numbers of the lines with these values."""
    (unique,) = (item for item in table.constraints if isinstance(item, UniqueConstraint))
    (key,) = table.primary_key
    names = [tuple(line[column.name] for column in unique.columns) for line in lines]
    if not names:
        return []
    among = zip(unique.columns, zip(*names, strict=True), strict=True)
    query = select(key, *unique.columns).where(*(column.in_(set(values)) for column, values in among))
    found = {tuple(values): number for number, *values in connection.execute(query)}
    for name, line in zip(names, lines, strict=True):
        if name not in found:
            found[name] = _add_numbered(connection, table, line)
    return [found[name] for name in names]


def _add_numbered(connection: Connection, table: Table, line: Values) -> int:
    (key,) = table.primary_key
    added = connection.execute(table.insert().values(line)).inserted_primary_key
    assert added is not None  # as for every table with a number for its key
    if table in partition_checksums.WHOLE:
        small_tables.count(connection, table, {**line, key.name: added[0]})
    return int(added[0])
